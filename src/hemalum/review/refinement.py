"""Refinement on a reviewer's corrections that is not called better where it makes a model worse.

    NEW/corrections/           the reviewed items as a dataset: what is learned from, and what is held out
    NEW/training/              one more phase of the model's own training (`hemalum.train`)
    NEW/measured/<what>.npz    both models on the held-out items and on each guard (`Measurement`)
    NEW/model.safetensors      the refined model; its card says what it came from and what that was worth

As ClinSegNet does (Bioengineering 2025, 12, 1156), the decoder and what takes in the organ train on what an expert
has corrected. Its paper measures on one test set; here images of before guard against forgetting.
"""

import logging
import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

from hemalum.data import Dataset
from hemalum.errors import HemalumError, counted
from hemalum.experiments import (
    Measurement,
    Resources,
    choose_trainable,
    count_seen,
    measure_once,
    seen_text,
    training_recipe,
)
from hemalum.manifest import check_manifest
from hemalum.metrics import PairedComparison, compare_paired, score_pixels
from hemalum.models import EXPORTS, Model, RefinedFrom, ScoreChange, load_model, save_model
from hemalum.review.corrections import Corrections, ReadImage, check_origin, open_images
from hemalum.review.holding_out import HOLDOUT
from hemalum.review.project import Project
from hemalum.review.refinement_decision import TOLERANCE, Change, Decision, check_tolerance, decide
from hemalum.review.refinement_guards import (
    DatasetSource,
    Guard,
    as_guard,
    check_apart,
    leave_out_corrected,
    open_guard,
    open_replay,
)
from hemalum.review.refinement_training import ProgressCallback, Work, train_refined
from hemalum.settings import check_seed
from hemalum.training import MODEL_FILE

log = logging.getLogger(__name__)

KIND = "reviewed_refinement"  # of folder
NO_REPLAY = "none"

MeasuredOn = Literal["held out", "guard"]


@dataclass(frozen=True, slots=True, eq=False)
class Compared:
    """Both models on one set of images: the held-out items, or those of a guard."""

    kind: MeasuredOn
    name: str
    split: str
    digest: str
    before: Measurement
    after: Measurement
    pq: PairedComparison
    dice: PairedComparison

    @classmethod
    def of(cls, kind: MeasuredOn, guard: Guard, before: Measurement, after: Measurement) -> "Compared":
        """The paired comparison, new less old, whose bootstrap draws groups where images come in groups."""
        groups = before.groups if len(set(before.groups)) < len(before) else None
        pairs = [
            compare_paired(score(after), score(before), groups=groups) for score in (_pq_by_image, _dice_by_image)
        ]
        return cls(kind, guard.dataset.info.name, guard.split, guard.digest, before, after, *pairs)

    @property
    def change(self) -> Change:
        """What the decision looks at."""
        pq, dice, name = self.pq, self.dice, f"{self.name}, {self.split}"
        return Change(self.kind, name, pq.mean_difference, dice.mean_difference, pq.low, pq.high, dice.low, dice.high)

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


def refine_reviewed(  # noqa: PLR0913 (the verb's options)
    model: Path | str | Model,
    project: Project | Path | str,
    out: Path | str,
    *,
    trainable: Sequence[str] = (),
    lr: float = 1e-4,
    epochs: int = 10,
    holdout: float = HOLDOUT,
    replay: DatasetSource | None = None,
    guards: Sequence[DatasetSource] = (),
    tolerance: float = TOLERANCE,
    seed: int = 0,
    read_image: ReadImage | None = None,
    resources: Resources | None = None,
    on_progress: ProgressCallback | None = None,
) -> ReviewedRefinement:
    """Refine a model on the corrections of a review `project`, and say whether the new one is better.

    The parameters that match `trainable` train (`all`, `head`, patterns; default `decoder`: decoder, heads and
    conditioning) with Adam at `lr` for `epochs` passes over the area of the corrected items. A share `holdout` of
    these, by image where they are of several, is never learned from. Against forgetting, half of each batch are
    training images of `replay`, the dataset that the model was trained on, save those that were corrected;
    without it the new maps are held near the old ones where nothing was corrected
    (`hemalum.losses.distillation`); "none" does neither. Both models are measured on the held-out items and on
    each of `guards`: a dataset's test part, PATH:PART or PATH:all; without any, the validation part of `replay`.
    The new model is better where `decide` says so. `read_image` gives the image (H, W, 3) uint8 of an item; by
    default the project's source is opened. `on_progress` is called with (step, done, of how many). What is
    finished in `out` is kept: the same call goes on where it stopped.

    Raises HemalumError, before anything is trained, where there is nothing to learn from or to measure on, the
    project is of another model, images are gone or changed, a guard's images are trained on, or `out` holds something
    else.
    """
    _check_numbers(lr, epochs, seed)
    tolerance = check_tolerance(tolerance)
    if not isinstance(model, Model) and Path(model).suffix in EXPORTS:
        raise HemalumError(f"{model}: is an exported model, which cannot be trained: give its .safetensors")
    loaded = load_model(model)
    recipe = training_recipe(loaded)
    chosen = choose_trainable(loaded, trainable)
    opened = project if isinstance(project, Project) else Project.open(project)
    try:
        check_origin(opened, loaded)
        replayed = None if replay is None or replay == NO_REPLAY else open_replay(replay, loaded)
        watching = [open_guard(one) for one in guards]
        corrections = Corrections.of(opened, holdout)
        notes = []
        if replayed is not None:
            count, replayed = len(replayed), leave_out_corrected(replayed, corrections.pixel_hashes)
            if len(replayed) < count:
                left_out = counted(count - len(replayed), "image")
                notes.append(f"Of --replay, {left_out} that were corrected in this review are left out.")
        if not watching and replayed is not None and len(replayed.split("val")):
            watching = [as_guard(replayed, "val")]
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
        corrected = _export(corrections, opened, Path(out) / "corrections", read_image)
    finally:
        if opened is not project:
            opened.close()
    work = Work(
        loaded,
        recipe,
        corrections,
        corrected,
        replayed,
        distilled,
        Path(out),
        record,
        resources or Resources(),
        on_progress,
        notes,
    )
    return _run(work, watching, tolerance, _name_of(model, loaded))


def _run(work: Work, guards: Sequence[Guard], tolerance: float, name: str) -> ReviewedRefinement:
    refined, steps = train_refined(work)
    watched: list[tuple[MeasuredOn, Guard]] = [("held out", as_guard(work.corrected, "test"))]
    watched += [("guard", guard) for guard in guards]
    compared = tuple(
        Compared.of(kind, guard, *(_measured(work, arm, model, guard) for arm, model in _arms(work, refined)))
        for kind, guard in watched
    )
    decision = decide(compared[0].change, [one.change for one in compared[1:]], tolerance)
    _note(work, compared)
    path = work.out / MODEL_FILE
    line = _line(decision, compared[0].change, tolerance, bool(guards))
    _save(work, refined, compared, decision, line, tolerance)
    return ReviewedRefinement(
        out=work.out,
        model=path,
        use=str(path) if decision.better else name,
        record=work.record | {"tolerance": tolerance, "kept_by": work.kept_by},
        corrections=work.corrections,
        compared=compared,
        decision=decision,
        line=line,
        steps=steps,
        notes=tuple(work.notes),
    )


def _export(corrections: Corrections, project: Project, out: Path, read_image: ReadImage | None) -> Dataset:
    if read_image is not None:
        return corrections.export(project, out, read_image)
    with open_images(project) as read:
        return corrections.export(project, out, read)


def _arms(work: Work, refined: Model) -> list[tuple[str, Model]]:
    return [("before", work.model), ("after", refined)]


def _measured(work: Work, arm: str, model: Model, guard: Guard) -> Measurement:
    path = work.out / "measured" / f"{guard.digest[:16]}-{arm}.npz"
    report = partial(work.report, f"measuring {guard.name} {arm}")
    ambiguous = work.recipe.ambiguous == "ignore"
    return measure_once(path, model, guard.dataset, work.resources, report, leave_out_ambiguous=ambiguous)


def _note(work: Work, compared: Sequence[Compared]) -> None:
    """What a reader has to know."""
    card, held_out = work.model.card, compared[0].before
    if len(compared) == 1:
        work.notes.append(
            "Nothing guards this refinement: whether the model got worse on other images was not measured. Give "
            "--guard DATASET, or --replay, whose validation part guards."
        )
    if work.kept_by == "nothing":
        work.notes.append("Nothing kept the model from forgetting: neither replay nor distillation was asked for.")
    seen = count_seen(card, [row.sha256 for row in work.corrected.split("test").rows])
    if seen["trained"] or seen["validated"]:
        work.notes.append(
            f"The model as it was has seen held-out images with the labels of before: {seen_text(seen)}; its scores "
            "there are not those of new images."
        )
    are = "is" if len(held_out) == 1 else "are"
    work.notes.append(f"{counted(len(held_out), 'item')} {are} held out, in this and every later refinement.")
    if work.corrections.by_window:
        line = (
            f"Held-out windows are of the same image as some that are learned from "
            f"({', '.join(work.corrections.by_window)}): they say less than those of another."
        )
        work.notes.append(line)
        log.warning("%s", line)
    if card.calibration is not None or card.recall:
        work.notes.append(
            "The temperature and the thresholds for a recall were those of the model as it was, and are not taken "
            "over: hemalum calibrate sets new ones."
        )


def _line(decision: Decision, held_out: Change, tolerance: float, guarded: bool) -> str:
    """The decision in a sentence."""
    if not decision.better:
        return f"Not better: {'; '.join(decision.reasons)}. Both models are kept; go on with the one as it was."
    word, what = ("Better", "rose in PQ") if held_out.pq > 0 else ("No worse", "did not get worse")
    watched = f"and no guard fell by more than {tolerance:g}" if guarded else "and nothing else was looked at"
    return f"{word}: the held-out corrections {what}, {watched}. Go on with the refined model."


def _save(
    work: Work, refined: Model, compared: Sequence[Compared], result: Decision, line: str, tolerance: float
) -> None:
    """The refined model under NEW; what does not follow from weights is the parent's."""
    parent, corrections = work.model.card, work.corrections
    before = parent.refinement
    refinement = RefinedFrom(
        parent=parent.name,
        ancestors=[work.model.digest, *([] if before is None else before.ancestors)],
        project=corrections.project,
        items=corrections.count("train"),
        held_out=corrections.count("test"),
        events=dict(corrections.events),
        corrections=corrections.digest,
        split_hash=work.corrected.split_hash,
        kept_by=work.kept_by,
        tolerance=tolerance,
        better=result.better,
        decision=line,
        changes=[one.record for one in compared],
    )
    changes = {
        "refinement": refinement,
        "tiling": parent.tiling,
        "native_stains": sorted({*parent.native_stains, *refined.card.native_stains}),
        "nucleus_diameter_um": parent.nucleus_diameter_um,
        "use": parent.use,
    }
    save_model(work.out / MODEL_FILE, refined.card.model_copy(update=changes), refined.tensors)


def _pq_by_image(measured: Measurement) -> list[float]:
    return [counts.pq for counts in measured.matches]


def _dice_by_image(measured: Measurement) -> list[float]:
    return [score_pixels(counts).dice for counts in measured.pixels]


def _name_of(model: Path | str | Model, loaded: Model) -> str:
    """How the model was named, for the line that says which one to go on with."""
    if isinstance(model, Model):
        return str(loaded.path or loaded.card.name)
    return str(model)


def _check_numbers(lr: float, epochs: int, seed: int) -> None:
    check_seed(seed)
    if not lr > 0 or not math.isfinite(lr):
        raise HemalumError(f"lr must be above 0, not {lr}")
    if epochs < 1:
        raise HemalumError(f"epochs must be at least 1, not {epochs}")
