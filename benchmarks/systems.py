"""The published systems side by side: trains and scores what docs/systems quotes, and records it.

    python benchmarks/systems.py al_net --data data --runs runs/systems

An experiment is a comparison (`hemalum compare`) under one budget in its small form; its folder lies in RUNS and its
whole report can be written from there. What is finished is kept, and several processes may share an experiment.
Writes benchmarks/results/systems/NAME.json (command, commit, hashes of data and splits, every figure by seed)
and NAME.md, the table that the documents quote.
"""

import argparse
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from hemalum.experiments.compare import compare
from hemalum.experiments.execute import Resources
from hemalum.experiments.records import Comparison, Run
from hemalum.experiments.segmenters import Scale
from hemalum.metrics.curves import ProbabilityCounts, area_under
from hemalum.training.recipe import find_recipe
from record import RESULTS, argument_parser, mean_and_sd, write_record

FOLDER = RESULTS / "systems"


def figure(*path: str) -> Callable[[Run], float | None]:
    """A figure of a run's summary."""

    def read(run: Run) -> float | None:
        value: Any = run.summary
        for key in path:
            value = value.get(key) if isinstance(value, dict) else None
        return None if value is None else float(value)

    return read


def pixel_ap(run: Run) -> float | None:
    """Area under the precision-recall curve of pixels, over all test images."""
    if run.curves is None:
        return None
    counts = run.curves["pixel"]
    return area_under(ProbabilityCounts(counts["positive"], counts["negative"]))


COLUMNS: dict[str, tuple[Callable[[Run], float | None], int]] = {
    "P": (figure("pixel", "per_image", "precision"), 3),
    "R": (figure("pixel", "per_image", "recall"), 3),
    "Dice": (figure("pixel", "per_image", "dice"), 3),
    "IoU": (figure("pixel", "per_image", "iou"), 3),
    "Dice pooled": (figure("pixel", "pooled", "dice"), 3),
    "IoU pooled": (figure("pixel", "pooled", "iou"), 3),
    "F1 weighted": (figure("pixel", "support_weighted", "dice"), 3),
    "PQ": (figure("instance", "per_image", "pq"), 3),
    "AJI": (figure("instance", "per_image", "aji"), 3),
    "HD95 (px)": (figure("boundary", "per_image", "hd95_px"), 1),
    "boundary F1": (figure("boundary", "per_image", "boundary_f1"), 3),
    "AP of pixels": (pixel_ap, 3),
    "semantic F1": (figure("semantic", "pooled", "f1"), 3),
    "mIoU": (figure("semantic", "pooled", "miou"), 3),
    "parameters (M)": (lambda run: run.cost["parameters"] / 1e6 if "parameters" in run.cost else None, 2),
    "training (s)": (lambda run: run.cost.get("train_seconds"), 0),
}
PIXELS = ("P", "R", "Dice", "IoU", "Dice pooled", "PQ", "AP of pixels")


@dataclass(frozen=True)
class Experiment:
    """What is compared on which dataset, for how many crops and seeds, and which columns are shown.

    `methods` are those of `hemalum compare`, where {random_sam} is the recipe eunet3plus_nuinsseg with an encoder of
    random weights. Without `crops` the recipes train as long as each says, where a part of the comparison is a
    longer training. `mpp` is that of `hemalum compare`.
    """

    title: str
    methods: Sequence[str]
    data: str
    crops: int | None
    columns: Sequence[str] = PIXELS
    seeds: int = 1
    mpp: Scale = None


RECALL = ("R", "P", "Dice", "IoU", "PQ", "AP of pixels", "parameters (M)", "training (s)")
CONTOUR = ("Dice pooled", "IoU pooled", "Dice", "HD95 (px)", "boundary F1", "PQ", "parameters (M)", "training (s)")
NETWORKS = ("P", "R", "Dice", "PQ", "AJI", "HD95 (px)", "AP of pixels", "parameters (M)", "training (s)")
SAM = ("Dice", "IoU", "F1 weighted", "PQ", "parameters (M)", "training (s)")
LABELS = ("P", "R", "Dice", "IoU pooled", "PQ", "training (s)")
CLASSES = ("semantic F1", "mIoU", "Dice", "PQ", "training (s)")

CONTROLS = ("", "_shuffled", "_zeroed", "_random")
SEMI = ("supervised", "fixmatch", "unimatch", "csra")

EXPERIMENTS: dict[str, Experiment] = {
    "baselines": Experiment(
        "All supervised networks under one training", ["baselines", "classical"], "nuinsseg_by_image", 2400, NETWORKS
    ),
    "al_net": Experiment(
        "AL-Net beside U-Net and DeepLabV3+",
        ["al_net", "al_net_baselines"],
        "dsb2018",
        12800,
        CONTOUR,
        seeds=3,
        mpp="auto",
    ),
    "al_net_controls": Experiment(
        "AL-Net and U-Net under AL-Net's training and under the plain one, and its parts alone",
        ["al_net_controls"],
        "dsb2018",
        12800,
        CONTOUR,
        seeds=3,
        mpp="auto",
    ),
    "clin_seg_net": Experiment("ClinSegNet's ablation", ["clin_seg_net_ablation"], "nuinsseg_by_image", 2400, RECALL),
    "two_stage": Experiment("Two stages over three bases, with controls", ["two_stage"], "tnbc", None),
    "eunet3plus": Experiment(
        "eU-Net3+: activations, ways to fuse a SAM encoder of random weights, and the baselines of table 1",
        [
            *(f"eunet3plus_nuinsseg:{name}" for name in ("relu", "leaky_relu", "swish", "glu")),
            *(f"{{random_sam}}:{name}" for name in ("concat", "guided", "advanced", "worded")),
            *(f"eunet3plus_nuinsseg:{name}" for name in ("unet", "ddu_net", "awgunet")),
        ],
        "nuinsseg_by_image",
        1600,
        SAM,
    ),
    "eunet3plus_controls": Experiment(
        "eU-Net3+ with a SAM of random weights, and with what is no embedding of the image in its place",
        [
            "eunet3plus_nuinsseg:glu",
            *(f"{{random_sam}}:{fusion}{control}" for fusion in ("guided", "worded") for control in CONTROLS),
        ],
        "nuinsseg_by_image",
        1600,
        SAM,
        seeds=3,
    ),
    "csra_net": Experiment(
        "CSRA-Net and other ways with 1/8 and 1/32 of the images labeled",
        [f"csra_net_nuinsseg:{method}_{part}" for part in (8, 32) for method in SEMI],
        "nuinsseg_by_image",
        2000,
        LABELS,
    ),
    "csra_net_consep": Experiment(
        "CSRA-Net and other ways with 1/8 and 1/32 of the images labeled, four classes",
        [f"csra_net_consep:{method}_{part}" for part in (8, 32) for method in SEMI],
        "consep",
        2000,
        CLASSES,
    ),
}


def run_experiment(name: str, arguments: argparse.Namespace) -> None:
    """Run what is left of an experiment and record it."""
    experiment = EXPERIMENTS[name]
    names = {}
    if any("{random_sam}" in method for method in experiment.methods):
        names["random_sam"] = str(recipe_with_random_sam(arguments.runs))
    comparison, failed = compare(
        [method.format(**names) for method in experiment.methods],
        {experiment.data: arguments.data / experiment.data},
        arguments.runs / name,
        seeds=arguments.seeds or experiment.seeds,
        budget="small",
        crops=experiment.crops,
        mixed_budgets=experiment.crops is None,
        mpp=experiment.mpp,
        resources=Resources("cpu", arguments.threads),
        on_progress=lambda progress: print(
            f"\r{progress.done}/{progress.total} {progress.name} {progress.step}", end=""
        ),
    )
    print()
    for key, reason in failed:
        print(f"failed: {key.name}: {reason}")
    record(name, experiment, comparison)


def recipe_with_random_sam(runs: Path) -> Path:
    """The recipe with a small SAM of random weights, saved beside the runs: no pretrained one is reachable here."""
    encoder, path = runs / "random_sam", runs / "eunet3plus_random_sam.yaml"
    if not encoder.is_dir():
        from random_sam import save_random_sam  # transformers: the extra `sam`

        save_random_sam(encoder)
    content = yaml.safe_load(find_recipe("eunet3plus_nuinsseg").read_text(encoding="utf-8"))
    content["sam"] = {"encoder": str(encoder.resolve())}
    path.write_text(yaml.safe_dump(content, sort_keys=False), encoding="utf-8")
    return path


def record(name: str, experiment: Experiment, comparison: Comparison) -> None:
    """Write the figures of the finished runs, and the table."""
    rows = {
        method.name: {
            column: [value for run in runs if (value := COLUMNS[column][0](run)) is not None] for column in COLUMNS
        }
        for method in comparison.methods
        if (runs := [run for run in comparison.runs if run.method == method.name])
    }
    plan = comparison.description
    dataset = comparison.dataset(experiment.data)
    digest = plan["datasets"][experiment.data]["digest"]
    tested = len(dataset.split("test"))
    data = {"name": experiment.data, "sha256": digest, "split_sha256": dataset.split_hash, "test": tested}
    FOLDER.mkdir(parents=True, exist_ok=True)
    write_record(
        FOLDER / f"{name}.json", "systems", ["hemalum", "torch"], rows, experiment=name, data=data,
        stop_rule=plan["stop_rule"], mpp=plan["mpp"], missing=plan["missing"],
        recipes={method.name: method.recipe for method in comparison.methods},
    )  # fmt: skip
    counts = sorted({len(row["Dice"]) for row in rows.values()})
    lines = [
        f"{experiment.title}. {experiment.data}, {tested} test images; {plan['stop_rule']}; "
        f"{'/'.join(map(str, counts))} run(s) each; mean over images, then over runs (± sd over runs).",
        "",
        f"| method | {' | '.join(experiment.columns)} |",
        f"|---|{'---|' * len(experiment.columns)}",
    ]
    for method, row in rows.items():
        texts = [mean_and_sd(row[column], COLUMNS[column][1]) for column in experiment.columns]
        lines.append(f"| {method} | {' | '.join(texts)} |")
    (FOLDER / f"{name}.md").write_text("\n".join(lines) + "\n", encoding="utf-8")
    print("\n".join(lines))


if __name__ == "__main__":
    parser = argument_parser(__doc__)
    parser.add_argument("names", nargs="+", choices=sorted(EXPERIMENTS), metavar="NAME")
    parser.add_argument("--data", type=Path, default=Path("data"), help="folder of the dataset folders")
    parser.add_argument("--runs", type=Path, default=Path("runs/systems"))
    parser.add_argument("--seeds", type=int)
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    for chosen in arguments.names:
        run_experiment(chosen, arguments)
