"""The report of a refinement: before and after, beside both controls; as Markdown, one HTML page and JSON."""

import json
import math
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from hemalum import __version__
from hemalum.experiments.refinement.measure import Measured, organ_recall
from hemalum.experiments.refinement.refine import BEFORE, MOVED, REFINED, Refinement
from hemalum.experiments.scores import without_nan
from hemalum.files import write_text
from hemalum.metrics import compare_paired, score_pixels
from hemalum.reports.grid import Grid, Row
from hemalum.reports.html import render
from hemalum.reports.markdown import escaped, markdown_code, markdown_list, markdown_page, markdown_table

RANDOM = "random images"
NAMES = {
    BEFORE: "the model as it was",
    MOVED: "the same, its threshold moved to equal recall",
    REFINED: "refined on the most uncertain images",
}
PIXELS = ("recall", "precision", "dice", "iou")
FILES = ("report.html", "report.md", "report.json")


def write_refinement(refinement: Refinement, command: str = "") -> list[Path]:
    """Write report.html, report.md and report.json into the refinement's folder; gives the paths.

    Raises HemalumError when a file cannot be written.
    """
    page = _page(refinement, command)
    texts = (
        render("refinement/page.html.j2", **page),
        _markdown(page),
        json.dumps(without_nan(_numbers(refinement, command)), indent=2, ensure_ascii=False, allow_nan=False) + "\n",
    )
    return [write_text(refinement.out / name, text) for name, text in zip(FILES, texts, strict=True)]


def _page(refinement: Refinement, command: str) -> dict[str, Any]:
    record, chosen = refinement.record, refinement.chosen[REFINED]
    return {
        "title": "Offline refinement",
        "lead": (
            f"{len(chosen)} of {len(refinement.images)} training images, {record['top']} of each organ, for "
            f"{record['epochs']} epochs ({refinement.steps} steps) with Adam at {record['lr']:g}; training: "
            f"{', '.join(record['trainable'])}. hemalum {__version__}."
        ),
        "command": command,
        "findings": findings(refinement),
        "grids": grids(refinement),
        "notes": [
            "Pixels are nucleus where the probability reaches the threshold, before nuclei are separated; PQ is of "
            "separated nuclei. Pooled: all pixels together.",
            "No label was added: refinement looks again at images that the model was trained on.",
            "Random images: as many of each organ, drawn without regard to uncertainty, for the same steps.",
            "The moved threshold was chosen on the validation images, not on these.",
            *refinement.notes,
        ],
    }


def grids(refinement: Refinement) -> list[Grid]:
    """The tables: scores, paired differences, recall by organ, and the chosen images."""
    by_organ = organ_grid(refinement)
    return [
        scores_grid(refinement),
        differences_grid(refinement),
        *([by_organ] if by_organ is not None else []),
        _chosen_grid(refinement),
    ]


def scores_grid(refinement: Refinement) -> Grid:
    """Every arm by pixels, pooled and per image, PQ, and the area under the precision–recall curve."""
    scored = refinement.scores
    flat = {name: _flat(values) for name, values in scored.items()}
    random = [flat[name] for name in _draws(refinement)]
    rows = [Row(NAMES[name], _texts(flat[name])) for name in NAMES]
    rows.append(Row(f"{RANDOM}, mean of {len(random)}", _texts(_mean(random), _sd(random))))
    rows += [Row(f"{RANDOM}, draw {name.partition('-')[2]}", _texts(flat[name])) for name in _draws(refinement)]
    return Grid(
        caption=f"On {len(refinement.arms[BEFORE])} independent images",
        corner="model",
        columns=(
            *(f"{name}, pooled" for name in ("recall", "precision", "Dice", "IoU")),
            *(f"{name}, by image" for name in ("recall", "precision", "Dice", "IoU")),
            *("PQ", "area", "threshold"),
        ),
        rows=tuple(rows),
        notes=("Area: under the precision–recall curve of all pixels, which no threshold changes.",),
    )


def differences_grid(refinement: Refinement) -> Grid:
    """Refined less each of the others, image by image: mean, 95 % interval over groups, and Wilcoxon's p."""
    rows = []
    refined = refinement.arms[REFINED]
    others = [(NAMES[BEFORE], [BEFORE]), (NAMES[MOVED], [MOVED]), (f"{RANDOM} (mean)", _draws(refinement))]
    for title, names in others:
        values: list[str] = []
        for metric in ("recall", "precision", "dice"):
            reference = np.mean([_by_image(refinement.arms[name], metric) for name in names], axis=0)
            paired = compare_paired(_by_image(refined, metric), reference, groups=refined.groups)
            values += [
                _signed(paired.mean_difference),
                f"{_signed(paired.low)} to {_signed(paired.high)}",
                "< 0.001" if paired.p < 0.001 else _text(paired.p, 3),
            ]
        rows.append(Row(f"refined less {title}", tuple(values)))
    return Grid(
        caption="Differences on the same images",
        corner="",
        columns=("mean", "95 % interval", "p") * 3,
        spans=(("recall", 3), ("precision", 3), ("Dice", 3)),
        rows=tuple(rows),
        notes=("Means over images; the interval draws groups anew (bootstrap); p is Wilcoxon's signed-rank test.",),
    )


def organ_grid(refinement: Refinement) -> Grid | None:
    """Pooled recall of each organ, before and after and of the controls; None without organs."""
    tables = {name: organ_recall(arm) for name, arm in refinement.arms.items()}
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
            f"{name} {_signed(scored[REFINED][key] - against[key])}"
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


def _draws(refinement: Refinement) -> list[str]:
    return [name for name in refinement.chosen if name != REFINED]


def _flat(scores: Mapping[str, Any]) -> dict[str, float]:
    row = {f"{kind}_{name}": scores[kind][name] for kind in ("pooled", "per_image") for name in PIXELS}
    return row | {name: scores[name] for name in ("pq", "average_precision", "threshold")}


def _mean(rows: Sequence[Mapping[str, float]]) -> dict[str, float]:
    return {name: statistics.fmean(row[name] for row in rows) for name in rows[0]}


def _sd(rows: Sequence[Mapping[str, float]]) -> dict[str, float] | None:
    return {name: statistics.stdev([row[name] for row in rows]) for name in rows[0]} if len(rows) > 1 else None


def _by_image(arm: Measured, metric: str) -> list[float]:
    return [float(getattr(score_pixels(counts), metric)) for counts in arm.pixels()]


def _texts(row: Mapping[str, float], sd: Mapping[str, float] | None = None) -> tuple[str, ...]:
    return tuple(
        _text(value, 3 if name == "threshold" else 4)
        + (f" ± {_text(sd[name])}" if sd is not None and name != "threshold" else "")
        for name, value in row.items()
    )


def _text(value: float, decimals: int = 4) -> str:
    return "–" if math.isnan(value) else f"{value:.{decimals}f}"


def _signed(value: float) -> str:
    return "–" if math.isnan(value) else f"{value:+.4f}".replace("-", "−")


def _numbers(refinement: Refinement, command: str) -> dict[str, Any]:
    """Everything behind the report, as numbers."""
    return {
        "version": __version__,
        "command": command,
        **refinement.record,
        "steps": refinement.steps,
        "training_images": len(refinement.images),
        "arms": {name: scores | {"by_organ": organ_recall(refinement.arms[name])}
                 for name, scores in refinement.scores.items()},
        "chosen": {
            name: [{"id": image.id, "organ": image.organ, "entropy": image.entropy} for image in subset]
            for name, subset in refinement.chosen.items()
        },
        "findings": findings(refinement),
        "notes": list(refinement.notes),
    }  # fmt: skip


def _markdown(page: Mapping[str, Any]) -> str:
    blocks = [
        [escaped(page["lead"])],
        markdown_code(page["command"]),
        markdown_list(page["findings"]),
        *map(markdown_table, page["grids"]),
        markdown_list(page["notes"]),
    ]
    return markdown_page(page["title"], blocks)
