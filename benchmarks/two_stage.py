"""What a second stage is worth: on converged bases, beside the base trained for as long, nucleus by nucleus.

    python benchmarks/two_stage.py --data data/tnbc --runs runs/two_stage

For each base and seed: the base (recipe two_stage:BASE, small form) until its validation loss has not fallen for ten
validations; from that one model file `hemalum enhance` and its control, which have as many steps and are chosen from
as many validations. The test images are scored by the base as it was, p1 and p2 of the enhanced network, and the
control. Dice is the mean over images at the model's threshold; beside it stands pooled Dice, each network at its own
best threshold: a gain in the first alone is one of the threshold. What is finished in RUNS is kept.
Writes benchmarks/results/systems/two_stage_study.json and .md.
"""

import argparse
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from hemalum.data.dataset import Dataset
from hemalum.experiments.evaluate import build_segmenter
from hemalum.experiments.segmenters import Segmentation
from hemalum.experiments.stages import compare_nuclei
from hemalum.metrics import ProbabilityCounts, best_dice, count_pixels, count_probabilities, score_pixels
from hemalum.models.model import Model, load_model
from hemalum.models.stages import first_stage
from hemalum.training.enhance import enhancement_recipe
from hemalum.training.recipe import Recipe, open_recipe
from hemalum.training.train import train
from record import RESULTS, argument_parser, mean_and_sd, write_record

BASES = ("unet", "micro_net", "unet_plus_plus")
ARMS = ("base", "control", "p1", "p2")
AGAINST = {"base": ("p2", "base"), "control": ("p2", "control"), "p1": ("p2", "p1")}
FIGURES = {"P": "P", "R": "R", "Dice": "Dice", "IoU": "IoU", "best_dice": "Dice at the best threshold"}


def train_or_keep(recipe: Recipe, data: Path, folder: Path, seed: int, threads: int) -> Path:
    """The model file of a training that may be finished already."""
    path = folder / "model.safetensors"
    if not path.is_file():
        resume = (folder / "checkpoint.safetensors").is_file()
        train(
            recipe.model_copy(update={"seed": seed, "data": {}}), [data], folder, resume=resume, accelerator="cpu",
            threads=threads,
        )  # fmt: skip
    return path


def score(model: Model, part: Dataset, threads: int) -> tuple[dict[str, float], list[Any]]:
    """A model's figures on a part of a dataset, and its label maps."""
    segmenter = build_segmenter(
        model, data=part.info.name, classes=part.class_names, engine="torch", threads=threads, probabilities=True
    ).segmenter
    pixels, scores, maps = ProbabilityCounts.none(), [], []
    for sample in part:
        one = Segmentation.of(segmenter(sample))
        scores.append(score_pixels(count_pixels(sample.instances, one.labels)))
        maps.append(one.labels)
        if one.probability is not None:
            pixels += count_probabilities(one.probability, sample.instances > 0)
    figures = {
        "P": np.nanmean([one.precision for one in scores]),
        "R": np.nanmean([one.recall for one in scores]),
        "Dice": np.nanmean([one.dice for one in scores]),
        "IoU": np.nanmean([one.iou for one in scores]),
        "best_dice": best_dice(pixels)[0],
    }
    return {name: float(value) for name, value in figures.items()}, maps


def run_one(base: str, seed: int, arguments: argparse.Namespace) -> dict[str, Any]:
    """The four arms of one base and seed."""
    folder, data = arguments.runs / base / f"seed{seed}", arguments.data
    recipe = open_recipe(f"two_stage:{base}", "small")
    if arguments.base_steps:
        until = recipe.phases[0].until.model_copy(update={"steps": arguments.base_steps})
        recipe = recipe.model_copy(update={"phases": [recipe.phases[0].model_copy(update={"until": until})]})
    first = train_or_keep(recipe, data, folder / "base", seed, arguments.threads)
    paths = {}
    for arm, control in (("p2", False), ("control", True)):
        further = enhancement_recipe(first, control=control, budget="small", steps=arguments.steps)
        paths[arm] = train_or_keep(further, data, folder / arm, seed, arguments.threads)
    both = load_model(paths["p2"])
    models = {"base": load_model(first), "control": load_model(paths["control"]), "p1": first_stage(both), "p2": both}
    part = Dataset.open(data).split("test")
    scored = {arm: score(models[arm], part, arguments.threads) for arm in ARMS}
    training = models["base"].card.training
    steps = 0 if training is None else training.steps
    counts = {other: sum_up(part, scored[other][1], scored["p2"][1]) for other in ("base", "control", "p1")}
    return {
        "base": base, "seed": seed, "base_steps": steps, "converged": steps < recipe.steps,
        "figures": {arm: figures for arm, (figures, _) in scored.items()}, "nuclei": counts,
    }  # fmt: skip


def sum_up(part: Dataset, first: Sequence[Any], second: Sequence[Any]) -> dict[str, int]:
    """Nuclei that the second finds and the first does not, and the reverse, over all images."""
    counts = [compare_nuclei(one.instances, a, b) for one, a, b in zip(part, first, second, strict=True)]
    names = ("nuclei", "newly_found", "untouched", "lost", "false_p1", "false_p2")
    return {name: sum(getattr(count, name) for count in counts) for name in names}


def tables(rows: Sequence[dict[str, Any]]) -> list[str]:
    """Figures by base and arm, gains by base and over bases, and nuclei."""
    bases = list(dict.fromkeys(row["base"] for row in rows))
    lines = [f"| base | network | {' | '.join(FIGURES.values())} |", f"|---|---|{'---|' * len(FIGURES)}"]
    for base in bases:
        for arm in ARMS:
            values = [[row["figures"][arm][name] for row in rows if row["base"] == base] for name in FIGURES]
            lines.append(f"| {base} | {arm} | {' | '.join(map(mean_and_sd, values))} |")
    lines += [
        "",
        "Gain of p2 in percentage points, by seed from the same base; over bases: mean ± sd of their means.",
        "",
    ]
    lines += [f"| against | base | {' | '.join(FIGURES.values())} |", f"|---|---|{'---|' * len(FIGURES)}"]
    for title, (arm, other) in AGAINST.items():
        means: dict[str, list[float]] = {name: [] for name in FIGURES}
        for base in bases:
            texts = []
            for name in FIGURES:
                gains = [
                    100 * (row["figures"][arm][name] - row["figures"][other][name])
                    for row in rows
                    if row["base"] == base
                ]
                means[name].append(statistics.fmean(gains))
                texts.append(mean_and_sd(gains, 1, "+"))
            lines.append(f"| {title} | {base} | {' | '.join(texts)} |")
        over = [mean_and_sd(values, 1, "+") for values in means.values()]
        lines.append(f"| {title} | all | {' | '.join(over)} |")
    lines += [
        "",
        "Nuclei of all test images: missed by the other and found by p2, of these without a pixel there, and lost.",
    ]
    lines += ["", "| base | against | nuclei | newly found | untouched | lost | false before | false in p2 |"]
    lines += ["|---|---|---|---|---|---|---|---|"]
    for base in bases:
        for other in ("base", "control", "p1"):
            counts = [row["nuclei"][other] for row in rows if row["base"] == base]
            values = [mean_and_sd([one[name] for one in counts], 1) for name in counts[0] if name != "nuclei"]
            lines.append(f"| {base} | {other} | {counts[0]['nuclei']} | {' | '.join(values)} |")
    return lines


if __name__ == "__main__":
    parser = argument_parser(__doc__)
    parser.add_argument("--data", type=Path, default=Path("data/tnbc"))
    parser.add_argument("--runs", type=Path, default=Path("runs/two_stage_study"))
    parser.add_argument("--bases", nargs="+", choices=BASES, default=BASES)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--base-steps", type=int, help="at most so many for the base; default: as the recipe says")
    parser.add_argument("--steps", type=int, default=300, help="at most so many for the second stage, and for both")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--output", type=Path, default=RESULTS / "systems" / "two_stage_study.json")
    arguments = parser.parse_args()
    rows = []
    for seed in range(1, arguments.seeds + 1):
        for base in arguments.bases:
            rows.append(run_one(base, seed, arguments))
            print(base, seed, rows[-1]["base_steps"], "converged" if rows[-1]["converged"] else "at its limit")
    dataset = Dataset.open(arguments.data)
    data = {"name": dataset.info.name, "split_sha256": dataset.split_hash, "test": len(dataset.split("test"))}
    write_record(arguments.output, "two_stage", ["hemalum", "torch"], rows, data=data, steps=arguments.steps)
    converged = sum(row["converged"] for row in rows)
    head = [
        f"{data['name']}, {data['test']} test images; {arguments.seeds} seed(s); of {len(rows)} bases {converged} "
        f"converged; second stage and control: at most {2 * arguments.steps} steps; mean ± sd over seeds.",
        "",
    ]
    text = "\n".join([*head, *tables(rows)])
    arguments.output.with_suffix(".md").write_text(text + "\n", encoding="utf-8")
    print(text)
