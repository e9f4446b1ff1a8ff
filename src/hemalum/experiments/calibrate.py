"""The verb `calibrate`: a threshold for a target recall, and the temperature at which probabilities hold.

The threshold has the guarantee that images like those it was set on keep the recall, by conformal risk control
(Angelopoulos, Bates, Fisch, Lei, Schuster, ICLR 2024, theorem 1): the miss rate of a group of images, 1 - its mean
recall of nucleus pixels, only grows with the threshold and is at most 1. Of n groups, the highest threshold t with

    (sum of the miss rates at t + 1) / (n + 1) <= 1 - target

has an expected miss rate of at most 1 - target in a new group that could as well have been one of these.
"""

import logging
import math
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hemalum.data.dataset import Dataset
from hemalum.errors import HemalumError, counted
from hemalum.experiments.measurement import Measurement, measure
from hemalum.experiments.plan import check_scales
from hemalum.inference.segment import as_engine
from hemalum.metrics import (
    BINS,
    MatchCounts,
    ProbabilityCounts,
    calibration_error,
    fit_temperature,
    negative_log_likelihood,
)
from hemalum.models.card import Calibration, RecallCalibration, RecallThreshold
from hemalum.models.file import save_model
from hemalum.models.model import Model, load_model

log = logging.getLogger(__name__)

RESAMPLES, INTERVAL = 2000, (2.5, 97.5)  # of the bootstrap over groups, percent
TENTH = 0.1  # of the groups may lie below what is said of nine in ten

Recalls = NDArray[np.float64]  # (groups, BINS): mean recall of each group's images at the threshold k / BINS
Progress = Callable[[str, int, int], None]  # what, done, of how many


def calibrate(
    model: Path | str | Model,
    dataset: Dataset | Path | str,
    out: Path | str,
    *,
    recall: float | None = 0.95,
    by_organ: bool = False,
    split: str = "val",
    engine: str = "auto",
    threads: int | None = None,
    on_progress: Progress | None = None,
) -> Model:
    """Write the model to `out` with the threshold at which it keeps a recall of nucleus pixels in its card, and with
    the temperature at which its probabilities hold; give it.

    Both are set on the part `split` of `dataset` ("val" or "test": of training images a model knows too
    much), and with `by_organ` a threshold for each organ that has enough groups of images; without `recall` (None)
    the temperature alone. `segment(…, recall=…)` uses the threshold, `hemalum.review` the temperature.
    Ambiguous pixels count nowhere. `on_progress` is called with what is done, how much of it, and of how much. `out`
    may be the model's own file.

    Raises HemalumError when the images are too few for such a guarantee, the model misses more at every threshold,
    or no pixel is nucleus or none is background.
    """
    if recall is not None and not 0.5 <= recall < 1:
        raise HemalumError(f"recall is {recall}: want at least 0.5 and less than 1")
    if recall is None and by_organ:
        raise HemalumError("thresholds by organ are for a recall: leave them out, or give the recall")
    if split not in ("val", "test"):
        raise HemalumError(f"split '{split}': a threshold is set on val or test")
    loaded = load_model(model)
    if by_organ and not loaded.card.organs:
        raise HemalumError(f"model '{loaded.card.name}' tells no organs apart: leave out the thresholds by organ")
    opened = dataset if isinstance(dataset, Dataset) else Dataset.open(dataset)
    part = opened.split(split)
    if not len(part):
        raise HemalumError(f"{opened.path}: no images in part '{split}' to set a threshold on")
    check_scales(part)
    where, report = f"{opened.path}, part '{split}'", on_progress or (lambda what, done, total: None)
    groups = {row.group for row in part.rows if row.nuclei}
    if recall is not None and len(groups) < least_groups(recall):
        raise _too_few(len(groups), recall, where)
    runner = as_engine(engine, loaded, threads=threads)
    before = measure(loaded, part, runner, partial(report, "measuring"), leave_out_ambiguous=True)
    of_set = {"data": opened.info.name, "split": split, "split_hash": opened.split_hash}
    changes: dict[str, Any] = {"calibration": _temperature(before, of_set, where)}
    if recall is not None:
        thresholds, too_few = _thresholds(before, loaded, recall, by_organ, where)
        moved = loaded.with_threshold(thresholds[0].threshold)
        after = measure(moved, part, runner, partial(report, "measuring with it"), leave_out_ambiguous=True)
        made = RecallCalibration(
            target=recall,
            **of_set,
            thresholds=thresholds,
            too_few=too_few,
            precision=_scores(after)["precision"],
            precision_before=_scores(before)["precision"],
            nuclei=_nuclei_recall(after),
            nuclei_before=_nuclei_recall(before),
        )
        kept = [one for one in loaded.card.recall if one.target != recall]
        changes["recall"] = sorted([*kept, made], key=lambda one: one.target)
    card = loaded.card.model_copy(update=changes)
    save_model(out, card, loaded.tensors, loaded.int8)
    return replace(loaded, card=card, path=Path(out))


def _temperature(measurement: Measurement, of_set: dict[str, str], where: str) -> Calibration:
    """The temperature of all pixels together, and what it mends."""
    counts = ProbabilityCounts(measurement.positive.sum(axis=0), measurement.negative.sum(axis=0))
    try:
        temperature = fit_temperature(counts)
    except HemalumError as error:
        raise HemalumError(f"{where}: {error}") from error
    return Calibration(
        temperature=temperature,
        **of_set,
        images=len(measurement),
        ece_before=calibration_error(counts),
        ece_after=calibration_error(counts, temperature=temperature),
        nll_before=negative_log_likelihood(counts),
        nll_after=negative_log_likelihood(counts, temperature),
    )


def _thresholds(
    measurement: Measurement, model: Model, recall: float, by_organ: bool, where: str
) -> tuple[list[RecallThreshold], list[str]]:
    """The threshold for all images and those by organ; organs with too few groups for one."""
    overall = _threshold(measurement, None, recall)
    if overall is None:
        raise _no_threshold(measurement, recall, where)
    thresholds, too_few = [overall], []
    shown = {organ.casefold() for organ in measurement.organs if organ is not None}
    for organ in [name for name in model.card.organs if by_organ and name.casefold() in shown]:
        threshold = _threshold(measurement, organ, recall)
        if threshold is None:
            too_few.append(organ)
        else:
            thresholds.append(threshold)
    unknown = shown - {name.casefold() for name in model.card.organs}
    if by_organ and unknown:
        log.warning(
            "%s: model '%s' does not know %s; their images get the threshold for all", where, model.card.name,
            ", ".join(sorted(unknown)),
        )  # fmt: skip
    return thresholds, too_few


def group_recalls(measurement: Measurement, organ: str | None = None) -> Recalls:
    """Mean recall of each group's images (of an organ) by threshold; images without a nucleus have none."""
    by_group: dict[str, list[NDArray[np.float64]]] = {}
    for group, name, positive in zip(measurement.groups, measurement.organs, measurement.positive, strict=True):
        if positive.sum() and (organ is None or (name or "").casefold() == organ.casefold()):
            reached = np.cumsum(positive[::-1])[::-1] / positive.sum()
            by_group.setdefault(group, []).append(reached)
    return np.array([np.mean(images, axis=0) for images in by_group.values()]).reshape(-1, BINS)


def conformal_threshold(recalls: Recalls, target: float) -> int | None:
    """The highest k from 1 at which the threshold k / BINS keeps the target in a new group; None where none does."""
    missed = (1 - recalls).sum(axis=0)
    kept = np.flatnonzero((missed[1:] + 1) / (len(recalls) + 1) <= 1 - target + 1e-12)
    return int(kept[-1]) + 1 if kept.size else None


def least_groups(target: float) -> int:
    """So many groups a guarantee of that recall needs, however good the model is."""
    return math.ceil(1 / (1 - target) - 1e-9) - 1


def held_out_recalls(recalls: Recalls, target: float) -> NDArray[np.float64]:
    """Recall of each group at the threshold that the others give; nan where these give none."""
    values = []
    for group in range(len(recalls)):
        index = conformal_threshold(np.delete(recalls, group, axis=0), target)
        values.append(math.nan if index is None else recalls[group, index])
    return np.array(values)


def nine_in_ten(values: NDArray[np.float64]) -> float | None:
    """The recall that a new group reaches nine times in ten (split conformal); None with fewer than nine groups."""
    rank = math.floor(TENTH * (len(values) + 1))
    return float(np.sort(values)[rank - 1]) if rank else None


def _threshold(measurement: Measurement, organ: str | None, target: float) -> RecallThreshold | None:
    """The threshold for an organ, or for all images; None where the groups are too few, or too much is missed."""
    recalls = group_recalls(measurement, organ)
    index = conformal_threshold(recalls, target) if len(recalls) else None
    if index is None:
        return None
    limit = RecallThreshold(organ=organ, threshold=index / BINS, groups=len(recalls))
    values = held_out_recalls(recalls, target)
    if np.isnan(values).any():
        return limit
    drawn = np.random.default_rng(0).integers(0, len(values), (RESAMPLES, len(values)))
    low, high = np.percentile(values[drawn].mean(axis=1), INTERVAL)
    return limit.model_copy(
        update={
            "recall": float(values.mean()), "low": float(low), "high": float(high), "nine_in_ten": nine_in_ten(values)
        }
    )  # fmt: skip


def _no_threshold(measurement: Measurement, target: float, where: str) -> HemalumError:
    recalls = group_recalls(measurement)
    if len(recalls) < least_groups(target):  # where all nuclei of a group are ambiguous
        return _too_few(len(recalls), target, where)
    return HemalumError(
        f"{where}: a recall of {target:g} cannot be guaranteed at any threshold: at {1 / BINS:g} it is "
        f"{recalls[:, 1].mean():.3f} over {len(recalls)} groups; train further, or ask for less"
    )


def _too_few(groups: int, target: float, where: str) -> HemalumError:
    return HemalumError(
        f"{where}: {counted(groups, 'group')} of images with nuclei cannot guarantee a recall of {target:g}: it "
        f"takes {least_groups(target)}; give more images, or a lower recall"
    )


def _scores(measurement: Measurement) -> dict[str, float]:
    pooled: dict[str, float] = measurement.scores()["pooled"]
    return pooled


def _nuclei_recall(measurement: Measurement) -> float:
    """Share of the true nuclei that one at IoU above 0.5 was found for."""
    total = sum(measurement.matches, MatchCounts(0, 0, 0, 0.0))
    return total.tp / max(total.tp + total.fn, 1)
