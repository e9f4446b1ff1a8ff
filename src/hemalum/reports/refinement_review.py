"""The report of a refinement on a review: old and new model on held-out corrections and guards, and the decision."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from markupsafe import Markup

from hemalum import __version__
from hemalum.errors import counted
from hemalum.experiments import Measurement
from hemalum.metrics import MatchCounts, PairedComparison, average_pixel_scores
from hemalum.reports.grid import Grid, Row
from hemalum.reports.numbers import mean_text
from hemalum.reports.refinement import write_findings
from hemalum.reports.style import SvgFigure, has_matplotlib, inline
from hemalum.reports.training import read_run, training_curves
from hemalum.review import Compared, ReviewedRefinement

_KINDS = {
    "add": "added",
    "delete": "deleted",
    "split": "split",
    "merge": "merged",
    "reshape": "drawn anew",
    "classify": "given another class",
    "accept": "accepted",
    "reject": "rejected",
    "mark": "items marked",
    "undo": "taken back",
    "redo": "made again",
}


def write_reviewed_refinement(refinement: ReviewedRefinement, command: str = "") -> list[Path]:
    """Write report.html, report.md and report.json into the refinement's folder; gives the paths.

    Raises HemalumError when a file cannot be written.
    """
    record, corrections = refinement.record, refinement.corrections
    lead = (
        f"{counted(corrections.count('train'), 'corrected item')} of review {corrections.name} learned from, "
        f"{corrections.count('test')} held out; {counted(record['epochs'], 'epoch')} "
        f"({counted(refinement.steps, 'step')}) with Adam at {record['lr']:g}; training: "
        f"{', '.join(record['trainable'])}; against forgetting: {record['kept_by']}. hemalum {__version__}."
    )
    tables = [
        changes_grid(refinement),
        _pooled_grid(refinement),
        *_strata_grids(refinement),
        _events_grid(refinement),
    ]
    figure = _curves(refinement)
    notes = [
        "PQ is of separated nuclei, Dice of pixels where the probability reaches the threshold. Differences are "
        "means over images, new less old; the interval draws images anew (bootstrap), whole groups where images come "
        "in groups.",
        "The held-out corrections may not fall in PQ at all, nor in Dice by more than the tolerance; a guard in "
        f"neither by more than the tolerance, {record['tolerance']:g}. It is one training: what another seed would "
        "have given is not known.",
        *refinement.notes,
        *([] if figure else ["No curves of training were drawn: matplotlib is not installed (hemalum[report])."]),
    ]
    findings = [refinement.line, f"The model to go on with: {refinement.use}"]
    page = {
        "title": "Refinement on a review",
        "lead": lead,
        "decision": refinement.line,
        "findings": findings,
        "grids": tables,
        "notes": notes,
        "figure": Markup(inline(figure, "training")) if figure else "",
        "caption": figure.caption if figure else "",
    }
    return write_findings(refinement.out, "refinement_review.html.j2", page, _numbers(refinement, command), command)


def changes_grid(refinement: ReviewedRefinement) -> Grid:
    """Old and new on the held-out corrections and each guard: means over images, difference and its interval."""
    columns = ("old", "new", "new less old", "95 % interval")
    return Grid(
        caption="Old and new model, by image",
        corner="measured on",
        columns=("images", *columns, *columns),
        spans=(("", 1), ("PQ", len(columns)), ("Dice", len(columns))),
        rows=tuple(
            Row(_title(one), (str(len(one.before)), *_cells(one.pq), *_cells(one.dice)))
            for one in refinement.compared
        ),
    )


def _cells(paired: PairedComparison) -> tuple[str, ...]:
    ends = [mean_text(end, decimals=4, sign="+") for end in (paired.low, paired.high)]
    return (
        mean_text(paired.mean_b, decimals=4),
        mean_text(paired.mean_a, decimals=4),
        mean_text(paired.mean_difference, decimals=4, sign="+"),
        "–" if ends[0] == "–" else " to ".join(ends),
    )


def _pooled_grid(refinement: ReviewedRefinement) -> Grid:
    """Pooled scores of both models on each set."""
    rows = []
    for one in refinement.compared:
        for name, arm in (("old", one.before), ("new", one.after)):
            rows.append(Row(f"{_title(one)}: {name}", _pooled(arm, range(len(arm)))))
    return Grid(
        caption="All nuclei and pixels together",
        corner="measured on",
        columns=("nuclei found", "PQ", "recall", "precision", "Dice"),
        rows=tuple(rows),
        notes=("Nuclei found: share of the true ones that are matched at IoU above 0.5; the rest is of pixels.",),
    )


def _pooled(arm: Measurement, images: Sequence[int]) -> tuple[str, ...]:
    matches = sum((arm.matches[i] for i in images), MatchCounts(0, 0, 0, 0.0))
    pixels = average_pixel_scores([arm.pixels[i] for i in images], "pooled")
    true = matches.tp + matches.fn
    values = (matches.tp / true if true else float("nan"), matches.pq, pixels.recall, pixels.precision, pixels.dice)
    return tuple(mean_text(value, decimals=4) for value in values)


def _strata_grids(refinement: ReviewedRefinement) -> list[Grid]:
    """The same by organ, for each set whose images name some."""
    grids = []
    for one in refinement.compared:
        organs = sorted({organ for organ in one.before.organs if organ is not None})
        rows = []
        for organ in organs:
            images = [i for i, name in enumerate(one.before.organs) if name == organ]
            old, new = (_pooled(arm, images) for arm in (one.before, one.after))
            rows.append(Row(organ, (str(len(images)), old[0], new[0], old[1], new[1], old[4], new[4])))
        if rows:
            grids.append(
                Grid(
                    caption=f"By organ: {_title(one)}",
                    corner="organ",
                    columns=("images", "old", "new", "old", "new", "old", "new"),
                    spans=(("", 1), ("nuclei found", 2), ("PQ", 2), ("Dice", 2)),
                    rows=tuple(rows),
                    folded=one.kind == "guard",
                )
            )
    return grids


def _events_grid(refinement: ReviewedRefinement) -> Grid:
    events = refinement.corrections.events
    return Grid(
        caption="What was corrected",
        corner="nuclei",
        columns=("events",),
        rows=tuple(Row(words, (f"{events[kind]:,}",)) for kind, words in _KINDS.items() if kind in events),
        notes=("Events of the reviewed items, the held-out ones among them; one event may change several nuclei.",),
    )


def _title(one: Compared) -> str:
    return "held-out corrections" if one.kind == "held out" else f"guard {one.name}, {one.split}"


def _curves(refinement: ReviewedRefinement) -> SvgFigure | None:
    return training_curves(read_run(refinement.out / "training")) if has_matplotlib() else None


def _numbers(refinement: ReviewedRefinement, command: str) -> dict[str, Any]:
    """Everything behind the report, as numbers."""
    return {
        "version": __version__,
        "command": command,
        **refinement.record,
        "steps": refinement.steps,
        "learned_from": refinement.corrections.count("train"),
        "events": dict(refinement.corrections.events),
        "better": refinement.decision.better,
        "reasons": list(refinement.decision.reasons),
        "decision": refinement.line,
        "use": refinement.use,
        "changes": [one.record.model_dump(mode="json") for one in refinement.compared],
        "scores": {
            _title(one): {"old": one.before.scores(), "new": one.after.scores()} for one in refinement.compared
        },
        "notes": list(refinement.notes),
    }
