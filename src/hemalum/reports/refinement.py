"""The report of a refinement: before and after, beside both controls; as Markdown, one HTML page and JSON."""

import json
import math
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from hemalum import __version__
from hemalum.errors import counted
from hemalum.experiments.measurement import Measurement
from hemalum.experiments.refine import BEFORE, MOVED, REFINED, Refinement
from hemalum.experiments.scores import without_nan
from hemalum.files import write_text
from hemalum.metrics import PairedComparison, compare_paired, holm, score_pixels
from hemalum.reports.files import write_report
from hemalum.reports.grid import Grid, Row
from hemalum.reports.markdown import escaped, markdown_code, markdown_list, markdown_table
from hemalum.reports.numbers import mean_text, p_text

RANDOM = "random images"
NAMES = {
    BEFORE: "the model as it was",
    MOVED: "the same, its threshold moved to equal recall",
    REFINED: "refined on the most uncertain images",
}
PIXELS = ("recall", "precision", "dice", "iou")


def write_refinement(refinement: Refinement, command: str = "") -> list[Path]:
    """Write report.html, report.md and report.json into the refinement's folder; gives the paths.

    Raises HemalumError when a file cannot be written.
    """
    record, chosen = refinement.record, refinement.chosen[REFINED]
    lead = (
        f"{len(chosen)} of {counted(len(refinement.images), 'training image')}, {record['top']} of each organ, for "
        f"{counted(record['epochs'], 'epoch')} ({counted(refinement.steps, 'step')}) with Adam at {record['lr']:g}; "
        f"training: {', '.join(record['trainable'])}. hemalum {__version__}."
    )
    tables, sentences = _grids(refinement), findings(refinement)
    notes = [
        "Pixels are nucleus where the probability reaches the threshold, before nuclei are separated; PQ is of "
        "separated nuclei. Pooled: all pixels together.",
        "No label was added: refinement looks again at images that the model was trained on.",
        "Random images: as many of each organ, drawn without regard to uncertainty, for the same steps.",
        "The moved threshold was chosen on the validation images, not on these.",
        *refinement.notes,
    ]
    page = {"title": "Offline refinement", "lead": lead, "findings": sentences, "grids": tables, "notes": notes}
    return write_findings(refinement.out, "refinement.html.j2", page, _numbers(refinement, command), command)


def write_findings(
    out: Path, template: str, page: Mapping[str, Any], numbers: Mapping[str, Any], command: str
) -> list[Path]:
    """Write what a refinement came to as report.html, report.md and report.json; gives the paths.

    `page` has title, lead, findings, grids and notes, of which the Markdown is made, and what the template has more.
    """
    markdown = [
        [escaped(page["lead"])],
        markdown_code(command),
        markdown_list(page["findings"]),
        *map(markdown_table, page["grids"]),
        markdown_list(page["notes"]),
    ]
    content = json.dumps(without_nan(dict(numbers)), indent=2, ensure_ascii=False, allow_nan=False)
    return [
        *write_report(out, template, {**page, "command": command}, markdown),
        write_text(out / "report.json", content + "\n"),
    ]


def _grids(refinement: Refinement) -> list[Grid]:
    tables = (scores_grid, _differences_grid, organ_grid, _chosen_grid)
    return [grid for table in tables if (grid := table(refinement)) is not None]


def scores_grid(refinement: Refinement) -> Grid:
    """Every arm by pixels, pooled and per image, PQ, and the area under the precision–recall curve."""
    flat = {name: _flat(values) for name, values in refinement.scores.items()}
    random = {name: flat[name] for name in _draws(refinement)}
    rows = [Row(title, _texts([flat[name]])) for name, title in NAMES.items()]
    rows.append(Row(f"{RANDOM}, mean of {len(random)}", _texts([*random.values()])))
    rows += [Row(f"{RANDOM}, draw {name.partition('-')[2]}", _texts([scores])) for name, scores in random.items()]
    return Grid(
        caption=f"On {counted(len(refinement.arms[BEFORE]), 'independent image')}",
        corner="model",
        columns=(
            *(f"{name}, {by}" for by in ("pooled", "by image") for name in ("recall", "precision", "Dice", "IoU")),
            *("PQ", "area", "threshold"),
        ),
        rows=tuple(rows),
        notes=("Area: under the precision–recall curve of all pixels, which no threshold changes.",),
    )


def differences(refinement: Refinement) -> list[tuple[str, str, PairedComparison, float, float]]:
    """Refined less each of the others, image by image: what is compared, metric, test, p and p over groups by Holm.

    The random draws are as many trainings of one control, and the interval draws them anew. Holm's correction is over
    all of the list, for images and for groups apart.
    """
    refined = refinement.arms[REFINED]
    groups = refined.groups if _is_grouped(refined) else None
    others = [(NAMES[BEFORE], [BEFORE]), (NAMES[MOVED], [MOVED]), (f"{RANDOM} (mean)", _draws(refinement))]
    compared = [
        (title, metric, compare_paired(
            _by_image(refined, metric), np.array([_by_image(refinement.arms[name], metric) for name in names]),
            groups=groups,
        ))
        for title, names in others
        for metric in ("recall", "precision", "dice")
    ]  # fmt: skip
    adjusted = holm([paired.p for *_, paired in compared]).tolist()
    by_group = holm([paired.p_groups for *_, paired in compared]).tolist()
    return [(*one, p, p_groups) for one, p, p_groups in zip(compared, adjusted, by_group, strict=True)]


def _differences_grid(refinement: Refinement) -> Grid:
    """Refined less each of the others: mean, 95 % interval, and Wilcoxon's p, by group where there are groups."""
    tested = differences(refinement)
    grouped = _is_grouped(refinement.arms[REFINED])
    rows: dict[str, list[str]] = {}
    for title, _, paired, p, p_groups in tested:
        rows.setdefault(title, []).extend([
            _text(paired.mean_difference, sign="+"),
            f"{_text(paired.low, sign='+')} to {_text(paired.high, sign='+')}",
            p_text(paired.p),
            p_text(p),
            *([p_text(p_groups)] if grouped else []),
        ])  # fmt: skip
    columns = ("mean", "95 % interval", "p", "p, Holm", *(["p by group, Holm"] if grouped else []))
    notes = [
        "Means over images; the interval draws "
        + ("groups" if grouped else "images")
        + " anew (bootstrap), and of random images the draws as well; p is Wilcoxon's signed-rank test"
        + (", over images and over the mean differences of groups" if grouped else "")
        + f". Holm's correction is over the {len(tested)} tests of this table"
        + (", for images and for groups apart." if grouped else "."),
        "The refined model is one training: what another seed would have given is not known, so nothing is decided.",
    ]
    reasons = sorted({paired.reason_groups for _, _, paired, _, _ in tested if grouped and paired.reason_groups})
    if reasons:
        notes.append(f"A dash by group: no test. {'; '.join(reasons).capitalize()}.")
    return Grid(
        caption="Differences on the same images",
        corner="",
        columns=columns * 3,
        spans=tuple((name, len(columns)) for name in ("recall", "precision", "Dice")),
        rows=tuple(Row(f"refined less {title}", tuple(values)) for title, values in rows.items()),
        notes=tuple(notes),
    )


def organ_grid(refinement: Refinement) -> Grid | None:
    """Pooled recall of each organ, before and after and of the controls; None without organs."""
    tables = {name: arm.scores_by_organ() for name, arm in refinement.arms.items()}
    if not tables[BEFORE]:
        return None
    rows = []
    for organ, before in tables[BEFORE].items():
        random = [tables[name][organ]["recall"] for name in _draws(refinement)]
        recalls = [*(tables[name][organ]["recall"] for name in NAMES), statistics.fmean(random)]
        rows.append(Row(organ, (f"{before['images']:.0f}", *map(_text, recalls))))
    return Grid(
        caption="Recall by organ, pixels pooled",
        corner="organ",
        columns=("images", "before", "threshold moved", "refined", f"{RANDOM}, mean"),
        rows=tuple(rows),
    )


def _chosen_grid(refinement: Refinement) -> Grid:
    draws = {name: {image.id for image in refinement.chosen[name]} for name in _draws(refinement)}
    rows = [
        Row(
            image.id,
            (image.organ or "–", f"{image.entropy:.4f}", str(sum(image.id in ids for ids in draws.values()))),
        )
        for image in refinement.chosen[REFINED]
    ]
    median = statistics.median(image.entropy for image in refinement.images)
    return Grid(
        caption="Chosen images",
        corner="image",
        columns=("organ", "entropy (nats per pixel)", f"in random draws, of {len(draws)}"),
        rows=tuple(rows),
        notes=(f"The median of all training images is {median:.4f}; uncertainty.csv lists every one.",),
        folded=True,
        words=frozenset({0}),
    )


def findings(refinement: Refinement) -> list[str]:
    """What comes of the tables, in sentences."""
    scored = {name: _flat(values) for name, values in refinement.scores.items()}
    random = _mean([scored[name] for name in _draws(refinement)])
    lines = []
    for other, against in (("the model as it was", scored[BEFORE]), (f"{RANDOM} at the same steps", random)):
        parts = [
            f"{name} {_text(scored[REFINED][key] - against[key], sign='+')}"
            for key, name in (("pooled_recall", "recall"), ("pooled_precision", "precision"), ("pooled_dice", "Dice"))
        ]
        lines.append(f"Against {other}, refining on the most uncertain images changes, pooled: {', '.join(parts)}.")
    moved, refined = scored[MOVED], scored[REFINED]
    lines.append(
        f"The model as it was, at a threshold of {moved['threshold']:.3f}, has a recall of "
        f"{moved['pooled_recall']:.4f} and a precision of {moved['pooled_precision']:.4f}; refined, "
        f"{refined['pooled_recall']:.4f} and {refined['pooled_precision']:.4f}."
    )
    return lines


def _is_grouped(arm: Measurement) -> bool:
    """Whether the images come in several groups, fewer than images."""
    return 1 < len(set(arm.groups)) < len(arm)


def _draws(refinement: Refinement) -> list[str]:
    return [name for name in refinement.chosen if name != REFINED]


def _flat(scores: Mapping[str, Any]) -> dict[str, float]:
    row = {f"{kind}_{name}": scores[kind][name] for kind in ("pooled", "per_image") for name in PIXELS}
    return row | {name: scores[name] for name in ("pq", "average_precision", "threshold")}


def _mean(rows: Sequence[Mapping[str, float]]) -> dict[str, float]:
    return {name: statistics.fmean(row[name] for row in rows) for name in rows[0]}


def _by_image(arm: Measurement, metric: str) -> list[float]:
    return [float(getattr(score_pixels(counts), metric)) for counts in arm.pixels]


def _texts(rows: Sequence[Mapping[str, float]]) -> tuple[str, ...]:
    """The mean of each score over the rows, with its sd where there are several; a threshold has none."""
    sds = {name: statistics.stdev([row[name] for row in rows]) for name in rows[0]} if len(rows) > 1 else {}
    return tuple(
        mean_text(value, decimals=3) if name == "threshold" else _text(value, sds.get(name, math.nan))
        for name, value in _mean(rows).items()
    )


def _text(value: float, sd: float = math.nan, sign: str = "") -> str:
    return mean_text(value, sd, decimals=4, sign=sign)


def _numbers(refinement: Refinement, command: str) -> dict[str, Any]:
    """Everything behind the report, as numbers."""
    return {
        "version": __version__,
        "command": command,
        **refinement.record,
        "steps": refinement.steps,
        "training_images": len(refinement.images),
        "arms": {name: scores | {"by_organ": refinement.arms[name].scores_by_organ()}
                 for name, scores in refinement.scores.items()},
        "chosen": {
            name: [{"id": image.id, "organ": image.organ, "entropy": image.entropy} for image in subset]
            for name, subset in refinement.chosen.items()
        },
        "findings": findings(refinement),
        "notes": list(refinement.notes),
    }  # fmt: skip
