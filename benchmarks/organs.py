"""What the organ is worth to ClinSegNet: trained with, without and partly with it, tested told, not told and misled.

    python benchmarks/organs.py --seeds 3 [--data data] [--runs runs/organs]

Trains the four variants of the recipe clin_seg_net_organs in their small form (`hemalum compare`) on NuInsSeg human,
split by image, and scores each model on the test images with their organ (`true`), without (`unknown`), with another
one (`wrong`) and with the organs dealt out anew among the images (`shuffled`). The same again on the split by organ,
whose test organs no model has seen: there every rule but wrong and shuffled is the unknown organ. What is finished is
kept. Writes benchmarks/results/organs.json and organs.md.
"""

from pathlib import Path
from typing import Any

from hemalum.data.dataset import Dataset
from hemalum.experiments.compare import compare
from hemalum.experiments.execute import Resources
from hemalum.experiments.measurement import Measurement, measure
from hemalum.experiments.organs import ORGAN_RULES, assign_organs
from hemalum.experiments.records import TRAINING, Run
from hemalum.inference.segment import as_engine
from hemalum.models.model import load_model
from record import RESULTS, argument_parser, mean_and_sd, write_record

DATASETS = ("nuinsseg_by_image", "nuinsseg_by_organ")
FIGURES = {
    "AP of pixels": ("average_precision",),
    "R": ("per_image", "recall"),
    "Dice": ("per_image", "dice"),
    "PQ": ("pq",),
}


def figures(measured: Measurement) -> dict[str, float]:
    """Area under the precision-recall curve of pixels; recall and Dice as means over images; pooled PQ."""
    values: dict[str, float] = {}
    for name, path in FIGURES.items():
        value: Any = measured.scores()
        for key in path:
            value = value[key]
        values[name] = float(value)
    return values


def measure_run(run: Run, dataset: Dataset, threads: int) -> dict[str, dict[str, float]]:
    """The figures of one trained model by rule; one that tells no organs apart has one row alone."""
    model = load_model(run.folder / TRAINING / "model.safetensors")
    part = dataset.split("test")
    results = {}
    for rule in ORGAN_RULES if model.card.organs else ("true",):
        path = run.folder / f"organs-{rule}.npz"
        if not path.is_file():
            organs = None
            if model.card.organs:
                images = {row.id: row.organ for row in part.rows}
                organs = assign_organs(rule, model.card.organs, images, seed=run.seed)
            measure(model, part, as_engine("torch", model, threads=threads), organs=organs).save(path)
        results[rule] = figures(Measurement.load(path))
    return results


def main() -> None:
    parser = argument_parser(__doc__)
    parser.add_argument("--data", type=Path, default=Path("data"), help="folder of the dataset folders")
    parser.add_argument("--runs", type=Path, default=Path("runs/organs"))
    parser.add_argument("--datasets", nargs="+", default=list(DATASETS), metavar="NAME")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--crops", type=int, default=2400)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("-o", "--output", type=Path, default=RESULTS / "organs.json")
    arguments = parser.parse_args()
    comparison, failed = compare(
        ["clin_seg_net_organs"], {name: arguments.data / name for name in arguments.datasets}, arguments.runs,
        seeds=arguments.seeds, budget="small", crops=arguments.crops,
        resources=Resources("cpu", arguments.threads),
    )  # fmt: skip
    for key, reason in failed:
        print(f"failed: {key.name}: {reason}")
    rows: dict[str, dict[str, list[float]]] = {}
    for run in comparison.runs:
        for rule, values in measure_run(run, comparison.dataset(run.dataset), arguments.threads).items():
            row = rows.setdefault(f"{run.dataset} / {run.method} / {rule}", {})
            for name, value in values.items():
                row.setdefault(name, []).append(value)
    plan = comparison.description
    data = {
        name: {"sha256": plan["datasets"][name]["digest"], "split_sha256": comparison.dataset(name).split_hash}
        for name in comparison.datasets
    }
    write_record(
        arguments.output, "organs", ["hemalum", "torch"], rows, data=data, stop_rule=plan["stop_rule"],
        missing=plan["missing"], recipes={method.name: method.recipe for method in comparison.methods},
    )  # fmt: skip
    lines = [
        f"ClinSegNet and the organ; {plan['stop_rule']}; {arguments.seeds} run(s) each: mean (± sd over runs).",
        "",
        f"| split | trained | tested | {' | '.join(FIGURES)} |",
        f"|---|---|---|{'---|' * len(FIGURES)}",
    ]
    for name, row in rows.items():
        lines.append(f"| {name.replace(' / ', ' | ')} | {' | '.join(mean_and_sd(row[one]) for one in FIGURES)} |")
    arguments.output.with_suffix(".md").write_text("\n".join(lines) + "\n", encoding="utf-8")
    print("\n".join(lines))


if __name__ == "__main__":
    main()
