"""Refinement on a reviewer's corrections that is not called better where it makes a model worse.

    NEW/corrections/           the reviewed items as a dataset: what is learned from, and what is held out
    NEW/training/              one more phase of the model's own training (`hemalum.train`)
    NEW/measured/<what>.npz    both models on the held-out items and on each guard (`Measurement`)
    NEW/model.safetensors      the refined model; its card says what it came from and what that was worth

As ClinSegNet does (Bioengineering 2025, 12, 1156), the decoder and what takes in the organ train on what an expert
has corrected. Its paper measures on one test set; here images of before guard against forgetting.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

from hemalum.data import Dataset, FixedShares, hash_lines
from hemalum.errors import HemalumError, counted
from hemalum.experiments import (
    Measurement,
    Resources,
    choose_trainable,
    continued_recipe,
    count_seen,
    measure,
    seen_text,
    training_recipe,
)
from hemalum.inference import as_engine
from hemalum.losses import Distilled
from hemalum.manifest import check_manifest
from hemalum.metrics import PairedComparison, compare_paired, score_pixels
from hemalum.models import Model, RefinedFrom, ScoreChange, load_model, save_model
from hemalum.review.corrections import HOLDOUT, Corrections, ReadImage, check_origin
from hemalum.review.project import Project
from hemalum.review.refinement_decision import TOLERANCE, Change, Decision, check_tolerance, decide
from hemalum.review.refinement_guards import Given, Guard, as_guard, check_apart, open_guard, open_replay
from hemalum.settings import check_seed
from hemalum.training import MODEL_FILE, Recipe, Source, train

KIND = "reviewed_refinement"  # of folder
NO_REPLAY = "none"
DISTILLATION = 1.0  # weight of the distance to the old maps
VALIDATED = 8  # corrected items at most that the curves of training are of
VALIDATIONS = 10

ProgressCallback = Callable[[str, int, int], None]


@dataclass(frozen=True, slots=True, eq=False)
class Compared:
    """Both models on one set of images: the held-out items, or those of a guard."""

    kind: Literal["held out", "guard"]
    name: str
    split: str
    digest: str
    before: Measurement
    after: Measurement
    pq: PairedComparison
    dice: PairedComparison

    @classmethod
    def of(cls, kind: Literal["held out", "guard"], guard: Guard, before: Measurement, after: Measurement) -> "Compared":
        """The paired comparison, new less old, whose bootstrap draws groups where images come in groups."""
        groups = before.groups if len(set(before.groups)) < len(before) else None
        pairs = [
            compare_paired(score(after), score(before), groups=groups)
            for score in (_pq_by_image, _dice_by_image)
        ]
        return cls(kind, guard.dataset.info.name, guard.split, guard.dataset.digest(), before, after, *pairs)

    @property
    def change(self) -> Change:
        """What the decision looks at."""
        pq, dice, name = self.pq, self.dice, f"{self.name}, {self.split}"
        return Change(
            self.kind, name, pq.mean_difference, dice.mean_difference, pq.low, pq.high, dice.low, dice.high
        )

    @property
    def record(self) -> ScoreChange:
        """What the card says of it."""
        scores = {
            f"{name}_{key}": value if math.isfinite(value) else None
            for name, paired in (("pq", self.pq), ("dice", self.dice))
            for key, value in (
                ("before", paired.mean_b), ("after", paired.mean_a), ("low", paired.low), ("high", paired.high),
            )
        }  # fmt: skip
        return ScoreChange(
            kind=self.kind, data=self.name, split=self.split, digest=self.digest, images=len(self.before), **scores
        )


@dataclass(frozen=True, eq=False)
class ReviewedRefinement:
    """What came of it: the model file, and `use`, the model to go on with, which is the old one where nothing got
    better. `compared` has the held-out items first, then each guard; `notes` is what a reader has to know."""

    out: Path
    model: Path
    use: str
    record: dict[str, Any]
    corrections: Corrections
    compared: tuple[Compared, ...]
    decision: Decision
    line: str
    steps: int
    notes: tuple[str, ...] = ()


@dataclass
class _Work:
    """What the steps share. `kept_by` is what keeps the model from forgetting, in words."""

    model: Model
    recipe: Recipe
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
            return f"replay of {counted(len(self.replay.split('train')), 'training image')} of {self.replay.info.name}"
        return "distillation from the model as it was" if self.distilled else "nothing"


def refine_reviewed(  # noqa: PLR0913 (the verb's options)
    model: Path | str | Model,
    project: Project | Path | str,
    out: Path | str,
    *,
    trainable: Sequence[str] = (),
    lr: float = 1e-4,
    epochs: int = 10,
    holdout: float = HOLDOUT,
    replay: Given | None = None,
    guards: Sequence[Given] = (),
    tolerance: float = TOLERANCE,
    seed: int = 0,
    read_image: ReadImage | None = None,
    resources: Resources | None = None,
    on_progress: ProgressCallback | None = None,
) -> ReviewedRefinement:
    """Refine a model on the corrections of a review `project`, and say whether the new one is better.

    The parameters that match `trainable` train (`all`, `head`, patterns; default `decoder`: decoder, heads and
    conditioning) with Adam at `lr` for `epochs` passes over the area of the corrected items. A share `holdout` of
    these, by image, is never learned from. Against forgetting, half of each batch are training images of `replay`,
    the dataset that the model was trained on; without it the new maps are held near the old ones where nothing was
    corrected (`hemalum.losses.distillation`); "none" does neither. Both models are measured on the held-out items
    and on each of `guards`: a dataset's test part, PATH:PART or PATH:all; without any, the validation part of
    `replay`. The new model is better where `decide` says so. `read_image` gives the image (H, W, 3) uint8 of an item;
    by default the project's source is opened. `on_progress` is called with (step, done, of how many). What is
    finished in `out` is kept: the same call goes on where it stopped.

    Raises HemalumError, before anything is trained, where there is nothing to learn from or to measure on, the
    project is of another model, images are gone or changed, a guard's images are trained on, or `out` holds something
    else.
    """
    _check_numbers(lr, epochs, seed)
    tolerance = check_tolerance(tolerance)
    loaded = load_model(model)
    recipe = training_recipe(loaded)
    chosen = choose_trainable(loaded, trainable)
    opened = project if isinstance(project, Project) else Project.open(project)
    try:
        check_origin(opened, loaded)
        replayed = None if replay is None or replay == NO_REPLAY else open_replay(replay, loaded)
        watching = [open_guard(one) for one in guards]
        if not watching and replayed is not None and len(replayed.split("val")):
            watching = [as_guard(replayed, "val")]
        corrections = Corrections.of(opened, holdout)
        check_apart(watching, corrections.pixel_hashes, replayed, loaded)
        distilled = replay is None
        record = {
            "model": loaded.digest,
            "project": corrections.project,
            "corrections": corrections.digest,
            "held_out": corrections.count("test"),
            "replay": replayed.digest() if replayed is not None else "distillation" if distilled else NO_REPLAY,
            "trainable": chosen,
            "lr": lr,
            "epochs": epochs,
            "seed": seed,
        }
        check_manifest(Path(out), KIND, record)
        corrected = corrections.export(opened, Path(out) / "corrections", read_image or _image_reader(opened))
    finally:
        if opened is not project:
            opened.close()
    work = _Work(
        loaded, recipe, corrected, replayed, distilled, Path(out), record, resources or Resources(), on_progress
    )
    return _run(work, corrections, watching, tolerance, _name_of(model, loaded))


def _run(
    work: _Work, corrections: Corrections, guards: Sequence[Guard], tolerance: float, name: str
) -> ReviewedRefinement:
    refined, steps = _train(work)
    watched: list[tuple[Literal["held out", "guard"], Guard]] = [("held out", as_guard_of_held_out(work.corrected))]
    watched += [("guard", guard) for guard in guards]
    compared = tuple(
        Compared.of(kind, guard, *(_measured(work, arm, model, guard) for arm, model in _arms(work, refined)))
        for kind, guard in watched
    )
    decision = decide(compared[0].change, [one.change for one in compared[1:]], tolerance)
    _note(work, corrections, guards, compared)
    path = work.out / MODEL_FILE
    line = _line(decision, tolerance, bool(guards))
    _save(work, refined, corrections, compared, decision, line, tolerance)
    return ReviewedRefinement(
        out=work.out,
        model=path,
        use=str(path) if decision.better else name,
        record=work.record | {"tolerance": tolerance, "kept_by": work.kept_by},
        corrections=corrections,
        compared=compared,
        decision=decision,
        line=line,
        steps=steps,
        notes=tuple(work.notes),
    )
