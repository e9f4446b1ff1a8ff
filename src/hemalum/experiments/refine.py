"""Offline refinement: train a model again on the images that it is least sure of, beside two controls.

    OUT/refinement.yaml        what is requested: a second run goes on with the same, and refuses anything else
    OUT/uncertainty.csv        every training image with its entropy, and which subsets it is in
    OUT/refined/, OUT/random-N/   trainings (`hemalum.train`) on the chosen images, and on as many at random
    OUT/measured/<what>.npz    each model on the independent images (`Measurement`)
    OUT/model.safetensors      the refined model

ClinSegNet (Bioengineering 2025, 12, 1156) refines with the labels that are there: its "expert" is the existing truth.
It has no control; here the same extra steps on random images, and the threshold of the model as it was moved until it
finds as much, say what the choice of images is worth.
"""

import logging
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

from hemalum.data.dataset import Dataset
from hemalum.errors import HemalumError, counted
from hemalum.experiments.execute import Resources
from hemalum.experiments.measurement import Measurement, predict, threshold_of_recall
from hemalum.experiments.plan import check_scales
from hemalum.experiments.provenance import warn_before
from hemalum.experiments.refinement_recipe import choose_trainable, refinement_recipe, training_recipe
from hemalum.experiments.refinement_steps import measure_once, train_copy
from hemalum.experiments.selection import (
    ImageUncertainty,
    Top,
    choose_random,
    choose_uncertain,
    count_different,
    exhausted,
    mean_entropy,
    read_uncertainty,
    require_choice,
    write_uncertainty,
)
from hemalum.inference.segment import as_engine
from hemalum.manifest import Content, check_manifest, require_equal
from hemalum.models.file import save_model
from hemalum.models.model import Model, load_model
from hemalum.settings import check_seed
from hemalum.training.recipe import Recipe
from hemalum.training.train import MODEL_FILE

log = logging.getLogger(__name__)

BEFORE, MOVED, REFINED = "before", "threshold", "refined"
UNCERTAINTY = "uncertainty.csv"
KIND = "refinement"  # of folder

ProgressCallback = Callable[[str, int, int], None]


@dataclass(frozen=True, eq=False)
class Refinement:
    """What came of it. `arms` are the measured models in the order of the tables: before, with its threshold moved,
    refined, and each random control; `chosen` are the subsets by arm; `notes` is what a reader has to know."""

    out: Path
    model: Path
    record: dict[str, Any]
    images: tuple[ImageUncertainty, ...]
    chosen: dict[str, tuple[ImageUncertainty, ...]]
    arms: dict[str, Measurement]
    steps: int
    notes: tuple[str, ...] = ()

    @property
    def scores(self) -> dict[str, dict[str, Any]]:
        """Scores by arm."""
        return {name: arm.scores() for name, arm in self.arms.items()}


@dataclass
class _Work:
    """What the steps share."""

    model: Model
    recipe: Recipe
    dataset: Dataset
    test: Dataset
    out: Path
    record: dict[str, Any]
    top: Top
    resources: Resources
    on_progress: ProgressCallback | None
    notes: list[str] = field(default_factory=list)

    @property
    def leave_out_ambiguous(self) -> bool:
        """Whether what annotators could not tell counts nowhere, as in the model's training."""
        return self.recipe.ambiguous == "ignore"

    def report(self, step: str, done: int, total: int) -> None:
        """Call `on_progress`, where there is one."""
        if self.on_progress is not None:
            self.on_progress(step, done, total)


def refine(  # noqa: PLR0913 (the verb's options)
    model: Path | str | Model,
    dataset: Dataset | Path | str,
    out: Path | str,
    *,
    top: int | str | Top = "10%",
    trainable: Sequence[str] = (),
    lr: float = 1e-4,
    epochs: int = 10,
    draws: int = 3,
    seed: int = 0,
    test: Dataset | Path | str | None = None,
    split: str = "test",
    resources: Resources | None = None,
    on_progress: ProgressCallback | None = None,
) -> Refinement:
    """Refine a model on the `top` most uncertain images of each organ of a dataset's training part.

    The parameters that match `trainable` train (default: decoder, heads and conditioning) for `epochs` passes over
    the chosen images with Adam at `lr`; so does a control on each of `draws` random subsets. All are measured on the
    part `split` ("all": the whole) of `test`, by default the dataset itself. `on_progress` is called with (step,
    done, of how many). What is finished in `out` is kept: the same call goes on where it stopped.

    Raises HemalumError, before anything is written, when the model does not say how it was trained, a part of the
    data is empty, test images are among the training images, every image would be chosen, or `out` holds something
    else.
    """
    _check_numbers(lr, epochs, draws, seed)
    top, loaded = Top.of(top), load_model(model)
    opened = dataset if isinstance(dataset, Dataset) else Dataset.open(dataset)
    independent = _independent(opened, test, split)
    record = {
        "model": loaded.digest,
        "data": opened.digest(),
        "test": independent.digest(),
        "top": str(top),
        "trainable": choose_trainable(loaded, trainable),
        "lr": lr,
        "epochs": epochs,
        "seed": seed,
    }
    recipe = training_recipe(loaded)
    _check_data(loaded, opened, independent)
    require_choice(opened.split("train").rows, top)
    draws = _check_manifest(Path(out), record, draws)
    work = _Work(loaded, recipe, opened, independent, Path(out), record, top, resources or Resources(), on_progress)
    return _run(work, draws)


def _check_manifest(out: Path, record: Content, draws: int) -> int:
    """Start or join the refinement in `out`; gives how many random subsets there are, which may become more."""

    def merge(held: Content) -> Content:
        require_equal(out, KIND, held, record)
        known = held.get("draws")
        return {**record, "draws": max(draws, known if isinstance(known, int) else 0)}

    return int(check_manifest(out, KIND, {**record, "draws": draws}, merge)["draws"])


def _run(work: _Work, draws: int) -> Refinement:
    images = _uncertainty(work)
    chosen = {REFINED: choose_uncertain(images, work.top)}
    random = choose_random(images, work.top, work.record["seed"], draws)
    chosen |= {f"random-{draw}": subset for draw, subset in enumerate(random, 1)}
    taken = exhausted(images, work.top)
    if taken:
        work.notes.append(f"All images of {', '.join(taken)} are chosen: there, random images are the same ones.")
    differ = count_different(random)
    if differ < draws:
        work.notes.append(
            f"Only {differ} of the {draws} random subsets differ: there are no more of this size. The others are the "
            "same training once more."
        )
    marked = sum(row.ambiguous is not None for row in (*work.dataset.rows, *work.test.rows))
    if marked and work.leave_out_ambiguous:
        work.notes.append("Ambiguous areas count nowhere: not in the entropy, the trainings or the scores.")
    if all(image.organ is None for image in images):
        work.notes.append("The dataset names no organs: its images are one group.")
    write_uncertainty(work.out / UNCERTAINTY, images, chosen)
    models, steps = {BEFORE: work.model}, 0
    for name, subset in chosen.items():
        path, steps = _train(work, name, subset)
        models[name] = load_model(path)
    arms = _measure_all(work, models)
    _save_refined(work, models[REFINED])
    return Refinement(
        out=work.out,
        model=work.out / MODEL_FILE,
        record=work.record,
        images=tuple(images),
        chosen={name: tuple(subset) for name, subset in chosen.items()},
        arms=arms,
        steps=steps,
        notes=tuple(work.notes),
    )


def _uncertainty(work: _Work) -> list[ImageUncertainty]:
    """The entropy of every training image; read again where it is known."""
    path, part = work.out / UNCERTAINTY, work.dataset.split("train")
    if path.is_file():
        return read_uncertainty(path, part.rows)
    engine = as_engine(work.resources.engine, work.model, threads=work.resources.threads)
    images = []
    for row, sample in zip(part.rows, part, strict=True):
        probability = predict(sample, work.model, engine)[1]
        left_out = sample.left_out(ambiguous=work.leave_out_ambiguous)
        if left_out is not None:
            probability = probability[~left_out]
        images.append(ImageUncertainty(row.id, row.organ, mean_entropy(probability)))
        work.report("predicting", len(images), len(part))
    return images


def _train(work: _Work, name: str, subset: Sequence[ImageUncertainty]) -> tuple[Path, int]:
    """Train the model's copy on a subset, or go on; gives the model file and how many steps it took."""
    ids = {image.id for image in subset}
    rows = tuple(row for row in work.dataset.rows if row.split != "train" or row.id in ids)
    data = replace(work.dataset, rows=rows)
    trainable, lr, epochs = (work.record[key] for key in ("trainable", "lr", "epochs"))
    recipe = refinement_recipe(work.model, work.recipe, data, trainable, lr, epochs)
    report = partial(work.report, f"training {name}")
    path = train_copy(work.model, recipe, {data.info.name: data}, work.out / name, work.resources, report)
    return path, recipe.steps


def _measure_all(work: _Work, models: dict[str, Model]) -> dict[str, Measurement]:
    """Every arm on the independent images; the moved threshold is chosen on the validation part."""
    val = work.dataset.split("val")
    before, refined = (_measured(work, f"{name}-val", models[name], val) for name in (BEFORE, REFINED))
    recall = refined.scores()["pooled"]["recall"]
    moved = threshold_of_recall(before, recall)
    work.notes.append(
        f"On {counted(len(val), 'validation image')} the refined model has a recall of {recall:.4f}; the model "
        f"as it was reaches it at a threshold of {moved:.3f} in the place of {before.threshold:g}."
    )
    everyone = {BEFORE: models[BEFORE], MOVED: models[BEFORE].with_threshold(moved)}
    everyone |= {name: model for name, model in models.items() if name != BEFORE}
    return {name: _measured(work, name, model, work.test) for name, model in everyone.items()}


def _measured(work: _Work, name: str, model: Model, data: Dataset) -> Measurement:
    path = work.out / "measured" / f"{name}.npz"
    report = partial(work.report, f"measuring {name}")
    return measure_once(path, model, data, work.resources, report, leave_out_ambiguous=work.leave_out_ambiguous)


def _save_refined(work: _Work, refined: Model) -> None:
    """The refined model under OUT; its card names what all its weights have seen, before and now."""
    path, before = work.out / MODEL_FILE, work.model.card.training
    training = refined.card.training
    if training is None or before is None:
        raise HemalumError(f"{work.out / REFINED} holds a model that does not say how it was trained")
    again = {(used.name, used.split_hash): used for used in training.data}
    data = [used.joined(again.pop((used.name, used.split_hash), used)) for used in before.data]
    data += again.values()
    # both trainings as one, so what it started from is what the one before started from
    both = {"data": data, "steps": before.steps + training.steps, "initial": before.initial}
    card = refined.card.model_copy(update={"training": training.model_copy(update=both)})
    save_model(path, card, refined.tensors)


def _independent(dataset: Dataset, test: Dataset | Path | str | None, split: str) -> Dataset:
    opened = dataset if test is None else test if isinstance(test, Dataset) else Dataset.open(test)
    part = opened if split == "all" else opened.split(split)
    if not len(part):
        raise HemalumError(f"{opened.path}: no images in part '{split}' to measure on")
    seen = {row.sha256: row for row in dataset.rows if row.split in ("train", "val")}
    for row in part.rows:
        if row.sha256 in seen:
            other = seen[row.sha256]
            name, use = ("training", "trained on") if other.split == "train" else ("validation", "chosen by")
            raise HemalumError(
                f"{opened.path}: image {row.id} of part '{split}' is also {name} image {other.id}: "
                f"measure on images that are not {use}"
            )
    return part


def _check_data(model: Model, dataset: Dataset, test: Dataset) -> None:
    for part in ("train", "val"):
        if not len(dataset.split(part)):
            raise HemalumError(f"{dataset.path}: no images in part '{part}', which refining needs")
    for data in (dataset, test):
        check_scales(data)
    warn_before(model.card.name, model.card, {test.info.name: test}, None)
    known = {organ.casefold() for organ in model.card.organs}
    unknown = sorted({row.organ for row in dataset.rows if row.organ and row.organ.casefold() not in known})
    if known and unknown:
        log.warning("%s does not know %s: as an unknown organ", model.card.name, ", ".join(unknown))


def _check_numbers(lr: float, epochs: int, draws: int, seed: int) -> None:
    check_seed(seed)
    if not lr > 0 or not math.isfinite(lr):
        raise HemalumError(f"lr must be above 0, not {lr}")
    if epochs < 1:
        raise HemalumError(f"epochs must be at least 1, not {epochs}")
    if draws < 1:
        raise HemalumError(f"at least one random subset is needed as a control, not {draws}")
