"""What transfers to tissue that a model has not seen: train on all sets but one, score on the one left out.

    python benchmarks/transfer.py train transfer:context --data data/tnbc --data data/consep … -o runs/transfer
    python benchmarks/transfer.py score runs/transfer --data data/tnbc … [--images 24] [-o transfer.json]

`train` takes recipes (transfer:VARIANT and transfer_half:VARIANT are those beside this program, for a GPU and for a
processor) and trains each once for every set that can be left out: those of the recipe, of dsb2018 the purple images,
whose others stay. `score` gives, for each variant and set left out, the mean PQ over images under the separation
settings of its card (or --settings), and the share of detections without hematoxylin (optical density below 0.1).
Models of the package and the classical floor can be scored beside them (--model), which have seen some of the sets.
"""

import argparse
import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hemalum.data.dataset import Dataset
from hemalum.errors import HemalumError, nearest
from hemalum.inference.segment import segment
from hemalum.metrics import match, measure_overlap
from hemalum.models.engines.engine import make_engine
from hemalum.models.model import Model, load_model
from hemalum.nuclei.morphology import hematoxylin
from hemalum.nuclei.settings import SeparationSettings
from hemalum.training.recipe import Recipe, open_recipe
from hemalum.training.train import MODEL_FILE, train
from inputs import change_card, choose_evenly
from record import argument_parser, write_record

HERE = Path(__file__).resolve().parent
PURPLE = "colour"  # the stain column of dsb2018
UNSTAINED = 0.1  # hematoxylin optical density, log10, below which nothing was stained


def is_left_out(row: Any) -> bool:
    """Whether an image belongs to what is left out of its set: all of it, but of dsb2018 only H&E."""
    return row.stain is None or row.stain == PURPLE


def drop_left_out(dataset: Dataset) -> Dataset:
    """What stays of a set that is left out."""
    return replace(dataset, rows=tuple(row for row in dataset.rows if not is_left_out(row)))


def open_variant(word: str) -> tuple[str, Recipe]:
    """A variant's name and recipe: of a recipe beside this program, or as `hemalum train` takes it."""
    name, _, variant = word.partition(":")
    recipe_file = HERE / f"{name}.yaml"
    recipe = open_recipe(f"{recipe_file}:{variant}" if variant and recipe_file.is_file() else word)
    return word.removeprefix("transfer:").replace(":", "."), recipe


def train_all(words: list[str], datasets: dict[str, Dataset], out: Path, arguments: argparse.Namespace) -> None:
    for word in words:
        variant, recipe = open_variant(word)
        for option, names in (("--data", datasets), ("--leave", arguments.leave or ())):
            for name in names:
                if name not in recipe.data:
                    raise HemalumError(
                        f"{option}: recipe {recipe.name} has no dataset '{name}'{nearest(name, recipe.data)}"
                    )
        for name in recipe.data:
            if name not in datasets:
                raise HemalumError(f"recipe {recipe.name} needs dataset '{name}': give its folder by --data")
        if arguments.steps:
            phase = recipe.phases[0]
            until = phase.until.model_copy(update={"steps": arguments.steps})
            recipe = recipe.model_copy(update={"phases": [phase.model_copy(update={"until": until})]})
        if arguments.seed is not None:
            recipe = recipe.model_copy(update={"seed": arguments.seed})
            variant = f"{variant}.{arguments.seed}"
        for left_out in arguments.leave or recipe.data:
            folder = out / variant / left_out
            if (folder / MODEL_FILE).is_file():
                continue
            parts = {name: drop_left_out(data) if name == left_out else data for name, data in datasets.items()}
            kept = {name: source for name, source in recipe.data.items() if len(parts[name])}
            path = train(
                recipe.model_copy(update={"data": kept}), {name: parts[name] for name in kept}, folder,
                workers=arguments.workers, resume=(folder / "checkpoint.safetensors").is_file(),
                accelerator=arguments.accelerator, compile=arguments.compile,
            )  # fmt: skip
            print(path, flush=True)


def mean_hematoxylin(image: NDArray[np.uint8], labels: NDArray[np.int32]) -> NDArray[np.float64]:
    """Mean optical density of hematoxylin in each nucleus of a label map (H, W)."""
    areas = np.bincount(labels.ravel())[1:]
    sums: NDArray[np.float64] = np.bincount(labels.ravel(), hematoxylin(image).ravel())[1:]
    return sums[areas > 0] / areas[areas > 0]


def score(model: Any, dataset: Dataset, images: int, settings: SeparationSettings | None) -> dict[str, float]:
    """Mean PQ over images of what is left out of a dataset, and the share of detections without hematoxylin."""
    rows = [row for row in dataset.rows if is_left_out(row)]
    part = replace(dataset, rows=tuple(rows[index] for index in choose_evenly(len(rows), images)))
    if isinstance(model, Model) and settings is not None:
        model = change_card(model, separation=settings)
    engine = make_engine("auto", model)
    quality, pale, count = [], 0, 0
    for sample in part:
        nuclei = segment(sample.image, model, mpp=sample.mpp, engine=engine)
        labels = nuclei.label_map().astype(np.int32)
        quality.append(match(measure_overlap(sample.instances, labels)).pq)
        density = mean_hematoxylin(sample.image, labels)
        pale += int((density < UNSTAINED).sum())
        count += len(density)
    return {"pq": float(np.nanmean(quality)), "unstained": pale / max(1, count), "nuclei": count}


def score_all(out: Path, datasets: dict[str, Dataset], arguments: argparse.Namespace) -> None:
    settings = None
    if arguments.settings.endswith(".json"):
        settings = SeparationSettings(**json.loads(Path(arguments.settings).read_text())["results"][0]["settings"])
    elif arguments.settings:
        settings = load_model(arguments.settings).card.separation
    rows: list[dict[str, Any]] = []
    models: list[tuple[str, str, Any]] = [
        (path.parents[1].name, path.parent.name, path) for path in sorted(out.glob(f"*/*/{MODEL_FILE}"))
    ]
    models += [(name, key, name) for name in arguments.model for key in datasets]
    if not models:
        raise HemalumError(f"nothing to score: no {out}/VARIANT/SET/{MODEL_FILE}, and no --model")
    for _, left_out, path in models:
        if left_out not in datasets:
            raise HemalumError(f"{path} was trained without '{left_out}': give its folder by --data")
    for variant, left_out, path in models:
        row = score(load_model(path), datasets[left_out], arguments.images, settings)
        rows.append({"variant": variant, "left_out": left_out} | row)
        print(f"{variant:12} without {left_out:15} PQ {row['pq']:.3f}  unstained {row['unstained']:.3f}", flush=True)
    for variant in dict.fromkeys(row["variant"] for row in rows):
        scores = [row["pq"] for row in rows if row["variant"] == variant]
        print(f"{variant:12} mean over {len(scores)} sets left out: {np.mean(scores):.3f}")
    write_record(arguments.output, "transfer", ["torch", "numpy"], rows, images=arguments.images)


def main() -> int:
    parser = argument_parser(__doc__)
    verbs = parser.add_subparsers(dest="verb", required=True)
    training, scoring = verbs.add_parser("train"), verbs.add_parser("score")
    training.add_argument("recipes", nargs="+", help="transfer:VARIANT, or a recipe")
    training.add_argument("-o", "--output", type=Path, required=True)
    training.add_argument("--steps", type=int, help="other than the recipe's")
    training.add_argument("--seed", type=int)
    training.add_argument("--leave", action="append", help="leave out this set only; repeat for several")
    training.add_argument("--workers", type=int)
    training.add_argument("--accelerator", default="auto", choices=("auto", "cuda", "cpu"))
    training.add_argument("--compile", action="store_true", help="compile the networks first")
    scoring.add_argument("runs", type=Path)
    scoring.add_argument("--images", type=int, default=24, help="of each set, spread evenly")
    scoring.add_argument("--settings", default="", help="those of a model, or of a file of tune_separation.py")
    scoring.add_argument("--model", action="append", default=[], help="also score this model on every set")
    scoring.add_argument("-o", "--output", type=Path, default=Path("transfer.json"))
    for verb in (training, scoring):
        verb.add_argument("--data", action="append", type=Path, required=True)
    arguments = parser.parse_args()
    try:
        opened = [Dataset.open(path) for path in arguments.data]
        datasets = {dataset.info.name: dataset for dataset in opened}
        if arguments.verb == "train":
            train_all(arguments.recipes, datasets, arguments.output, arguments)
        else:
            score_all(arguments.runs, datasets, arguments)
    except HemalumError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
