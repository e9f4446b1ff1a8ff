"""How a model trains on corrections: one more phase of its own training, with what keeps it from forgetting."""

import math
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

from hemalum.data import Dataset, FixedShares
from hemalum.errors import counted
from hemalum.experiments import Resources, continued_recipe, train_copy
from hemalum.losses import Distilled
from hemalum.models import Model, load_model
from hemalum.review.corrections import Corrections
from hemalum.training import Recipe, Source

DISTILLATION = 1.0  # weight of the distance to the old maps
VALIDATED = 8  # corrected items at most that the curves of training are of
VALIDATIONS = 10
LARGEST_BATCH = 16  # a few items in batches of 64 would be a step or two

ProgressCallback = Callable[[str, int, int], None]


@dataclass
class Work:
    """What the steps share. `kept_by` is what keeps the model from forgetting, in words."""

    model: Model
    recipe: Recipe
    corrections: Corrections
    corrected: Dataset
    replay: Dataset | None
    distilled: bool
    out: Path
    record: dict[str, Any]
    resources: Resources
    on_progress: ProgressCallback | None
    notes: list[str] = field(default_factory=list)

    def report(self, step: str, done: int, total: int) -> None:
        """Call `on_progress`, where there is one."""
        if self.on_progress is not None:
            self.on_progress(step, done, total)

    @property
    def kept_by(self) -> str:
        """What keeps the model from forgetting."""
        if self.replay is not None:
            images = counted(len(self.replay.split("train")), "training image")
            return f"replay of {images} of {self.replay.info.name}"
        return "distillation from the model as it was" if self.distilled else "nothing"


def train_refined(work: Work) -> tuple[Model, int]:
    """Train the model's copy, or go on, or take what was trained; gives it and how many steps it took."""
    recipe = refinement_recipe(work)
    data = {dataset.info.name: dataset for dataset in _training_data(work)}
    report = partial(work.report, "training")
    path = train_copy(work.model, recipe, data, work.out / "training", work.resources, report)
    return load_model(path), recipe.steps


def _training_data(work: Work) -> list[Dataset]:
    """The corrected items, which the curves of training are of as well, and training images of before.

    Neither the held-out items nor a guard chooses the weights: else their scores would say less.
    """
    rows = work.corrected.split("train").rows
    data = [replace(work.corrected, rows=(*rows, *(replace(row, split="val") for row in rows)))]
    return data if work.replay is None else [*data, work.replay.split("train")]


def refinement_recipe(work: Work) -> Recipe:
    """One more phase of the model's own recipe: half of each batch corrected and half replay, or distilled."""
    recipe, data = work.recipe, _training_data(work)
    batch = min(recipe.batch, LARGEST_BATCH)
    batch += batch % 2 if work.replay is not None else 0
    crops = count_crops(work.corrections, recipe)
    corrected = batch if work.replay is None else batch // 2
    steps = math.ceil(work.record["epochs"] * crops / corrected)
    continued = continued_recipe(
        work.model, recipe, work.record["trainable"], lr=work.record["lr"], steps=steps,
        seed=work.record["seed"],
        batch=batch,
        data={one.info.name: Source() for one in data},
        sampling=None if work.replay is None else FixedShares(),
        validate_every=math.ceil(steps / VALIDATIONS),
        validation_images=VALIDATED * len(data),
    )  # fmt: skip
    phase = continued.phases[0]
    changes: dict[str, Any] = {"until": phase.until.model_copy(update={"monitor": "loss"})}
    if work.distilled:
        changes["loss"] = Distilled(loss=phase.loss, weight=DISTILLATION)
    return continued.model_copy(update={"phases": [phase.model_copy(update=changes)]})


def count_crops(corrections: Corrections, recipe: Recipe) -> int:
    """How many crops of a recipe have the area of the items that are learned from, at the recipe's scale."""
    crops = 0
    for state in corrections.states:
        height, width = state.item.shape
        if corrections.parts[state.item.name] == "train":
            area = height * width * ((state.item.mpp or recipe.mpp) / recipe.mpp) ** 2
            crops += math.ceil(area / recipe.tile**2)
    return crops
