"""What is said of a segmented slide, as text: for its own page, and its line in the page of a cohort."""

from dataclasses import dataclass, field
from typing import Any

from markupsafe import Markup

from hemalum.data.stain.recognition import STAIN_TITLES
from hemalum.errors import counted
from hemalum.inference.cells import TOO_LARGE
from hemalum.inference.plan import IN_ARTIFACTS, PALE
from hemalum.nuclei.filters import FILTERED, filter_text
from hemalum.nuclei.ihc_score import IhcScore
from hemalum.nuclei.io.colors import INTENSITIES, Color, class_color
from hemalum.nuclei.store import Distribution, NucleiStore, SlideMaps, StoreSummary, area_looked_at
from hemalum.reports.numbers import number_text
from hemalum.reports.segmentation.histogram import PERCENTILES, bars_svg, equal_bins
from hemalum.reports.segmentation.page import column_label, scale_text
from hemalum.slides import Slide, Tissue, describe_artifacts

MEASURES = ("area_um2", "hematoxylin_mean", "dab_mean")
LEFT_OUT = {
    TOO_LARGE: "too large for a nucleus",
    PALE: "without hematoxylin: no nuclei in H&E",
    FILTERED: "by the filter",
    IN_ARTIFACTS: "in ink or out of focus",
}
SHOWN_SETTINGS = {
    "engine", "stain", "stain_source", "stain_doubt", "class_doubt", "organ", "threshold", "tissue_mask", "roi",
    "filter", "artifacts", "keep_artifacts",
}  # fmt: skip
SETTING_TITLES = {
    "tile": "tiles of the network and their overlap, px",
    "cell": "cells of separation and their halo, px",
}

USUAL_AREA = (12.0, 200.0)  # µm²: a median outside speaks against the scale, if there are ENOUGH nuclei
ENOUGH = 50

Pairs = list[tuple[str, str]]


@dataclass(frozen=True, slots=True)
class SlideRow:
    """A slide's line in the page of a cohort: text, `page` the file name of its own page, `thumbnail` a data URI."""

    name: str
    count: str
    density: str
    area: str
    tissue: str
    hematoxylin: str
    classes: dict[str, str] = field(default_factory=dict)
    scores: dict[str, str] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()
    page: str = ""
    thumbnail: str = ""


def tissue_area(store: NucleiStore, maps: SlideMaps, tissue: Tissue) -> tuple[float, str]:
    """mm² in which nuclei were looked for, and what that is, as text."""
    mpp = maps.mpp
    extent = store.run.shape[0] * store.run.shape[1] * mpp**2 / 1e6
    area, of = area_looked_at(store)
    if area is not None and (store.complete or of != "slide"):
        return area, of.replace("in roi", "in the region of interest").replace("roi", "region of interest")
    # a store that is not complete does not say it: then as finely as the maps know it
    if store.run.settings.get("roi") is not None:
        kind = "region of interest" if tissue.reason else "tissue in the region of interest"
        return float(maps.tissue.mean(dtype="float64")) * extent, kind
    return (extent, "slide") if tissue.reason else (tissue.area_mm2 or 0.0, "tissue")


def identify(store: NucleiStore, slide: Slide, tissue: Tissue) -> Pairs:
    """What the page says the nuclei are of: names and values."""
    run, notes = store.run, store.notes
    height, width = run.shape
    mpp = run.mpp or 0.0
    settings = run.settings
    regions = run.grid.rows * run.grid.columns
    stain = notes.get("stain", settings.get("stain"))
    pairs = [
        ("File", run.source or "unknown"),
        ("Fingerprint", run.fingerprint[:16]),
        ("Format", slide.format),
        ("Size", f"{width:,} × {height:,} px, {width * mpp / 1000:.4g} × {height * mpp / 1000:.4g} mm"),
        ("Scale", f"{number_text(run.mpp)} µm per px, {scale_text(run.mpp_source, notes.get('scale_doubt'))}"),
        ("Model", f"{run.model or 'unknown'} ({(run.model_digest or 'no digest')[:12]})"),
        ("Engine", str(notes.get("engine", settings.get("engine", "unknown")))),
    ]
    if stain is not None:
        origin = notes.get("stain_source", settings.get("stain_source"))
        pairs.append(("Stain", STAIN_TITLES.get(stain, str(stain)) + (f", {origin}" if origin else "")))
    organ = notes.get("organ", settings.get("organ"))
    if organ is not None:
        pairs.append(("Organ", str(organ)))
    if settings.get("threshold") is not None:
        pairs.append(("Threshold", str(settings["threshold"])))
    if settings.get("tissue_mask") is None:
        pairs.append(("Tissue", "no mask was used: all of the slide was looked at"))
    elif tissue.reason:
        pairs.append(("Tissue", f"all of the slide: {tissue.reason}"))
    else:
        pairs.append(("Tissue", f"{tissue.area_mm2 or 0:.4g} mm², {100 * tissue.share:.1f} % of the slide"))
    if settings.get("roi") is not None:
        pairs.append(("Region of interest", f"{number_text(notes.get('roi_mm2'))} mm²"))
    if settings.get("filter"):
        pairs.append(("Filter", filter_text(settings["filter"])))
    pairs += [
        ("Regions", f"{len(store.finished):,} of {regions:,}"),
        ("Tiles that could not be read", f"{notes.get('broken_tiles', 0):,}"),
        ("Artifacts", describe_artifacts(notes) or "none seen"),
        ("Left out", left_out_text(store)),
    ]
    others = {SETTING_TITLES.get(k, k): v for k, v in settings.items() if k not in SHOWN_SETTINGS and v is not None}
    if others:
        pairs.append(("Settings", "; ".join(f"{name}: {_plain(value)}" for name, value in others.items())))
    return pairs


def left_out_text(store: NucleiStore) -> str:
    """How many objects were left out, and why."""
    left = {name: count for name, count in store.notes.items() if name.startswith("left_out_") and count}
    texts = [
        f"{count:,} {LEFT_OUT.get(name, name.removeprefix('left_out_').replace('_', ' '))}"
        for name, count in left.items()
    ]
    return "; ".join(texts) or "nothing"


def warnings_of(store: NucleiStore, summary: StoreSummary, mask_doubt: str = "") -> list[str]:
    """What a reader has to know before using the numbers, a sentence each without its period."""
    notes = store.notes
    texts = []
    if not store.complete:
        regions = store.run.grid.rows * store.run.grid.columns
        texts.append(f"the run is not complete: {len(store.finished):,} of {regions:,} regions are there")
    if notes.get("scale_doubt"):
        texts.append(f"the scale may not be the slide's: {notes['scale_doubt']}")
    doubt = notes.get("stain_doubt")
    if doubt:
        texts.append(f"the stain that was set may not be the slide's: {doubt}")
    if notes.get("class_doubt"):
        texts.append(f"the classes are not tested: {notes['class_doubt']}")
    if notes.get("broken_tiles"):
        texts.append(f"{counted(int(notes['broken_tiles']), 'tile')} could not be read and count as blank")
    if notes.get(TOO_LARGE):
        texts.append(f"{notes[TOO_LARGE]:,} left out that are {LEFT_OUT[TOO_LARGE]}")
    seen = describe_artifacts(notes)
    if seen:
        texts.append(f"artifacts: {seen}")
    if mask_doubt:
        texts.append(mask_doubt)
    if summary.count == 0:
        texts.append("no nuclei were found")
    area = summary.measures["area_um2"].quantiles([0.5])[0]
    if summary.count >= ENOUGH and not USUAL_AREA[0] <= area <= USUAL_AREA[1]:
        texts.append(
            f"the median nucleus has {area:.3g} µm², and nuclei mostly have {USUAL_AREA[0]:g} to {USUAL_AREA[1]:g}: "
            f"check the scale, {number_text(store.run.mpp)} µm per px"
        )
    return texts


def score_texts(score: IhcScore | None) -> dict[str, str]:
    """Scores by name: positive share, with three thresholds H-score and Allred."""
    if score is None:
        return {}
    texts = {"Positive": "–" if score.positive_share is None else f"{100 * score.positive_share:.1f} %"}
    if len(score.counts) > 2:
        texts["H-score"] = "–" if score.h_score is None else f"{score.h_score:.0f}"
        texts["Allred"] = "–" if score.allred is None else str(score.allred)
    return texts


def measured(summary: StoreSummary, name: str) -> dict[str, Any]:
    """Median, quartiles and histogram of a measure."""
    distribution = summary.measures[name]
    label = column_label(name)
    quarter, median, three = distribution.quantiles([0.25, 0.5, 0.75])
    return {
        "label": label,
        "median": number_text(median),
        "quartiles": f"{number_text(quarter)} to {number_text(three)}",
        "histogram": histogram(distribution, label),
    }


def histogram(distribution: Distribution, label: str) -> Markup:
    """A histogram as SVG."""
    if not distribution.total:
        return Markup('<p class="none">{}: no values</p>').format(label)
    edges = equal_bins(distribution.quantiles([share / 100 for share in PERCENTILES]), distribution.total)
    return bars_svg(edges, distribution.binned(edges), distribution.quantiles([0.5])[0], label)


def by_class(summary: StoreSummary, area_mm2: float) -> list[dict[str, str]]:
    """Name, color, count, share and density of each class."""
    return [
        {
            "name": name,
            "color": _hex(class_color(number)),
            "count": f"{count:,}",
            "share": f"{100 * count / summary.count:.1f} %" if summary.count else "–",
            "density": f"{count / area_mm2:,.0f}" if area_mm2 else "–",
        }
        for number, (name, count) in enumerate(
            zip(summary.class_names, summary.by_class.tolist(), strict=True), start=1
        )
    ]


def by_grade(store: NucleiStore, summary: StoreSummary) -> dict[str, Any]:
    """Graded nuclei: thresholds, `grades` with name and color, `rows` of counts and scores of all and each class."""
    if not summary.grades:
        return {}
    rows = []
    for name in (None, *summary.class_names):
        score = summary.ihc_score(name)
        counts = [] if score is None else [f"{count:,}" for count in score.counts.values()]
        rows.append((name or "all", [*counts, *score_texts(score).values()]))
    origin = "Otsu of the nuclei" if store.run.positive == "otsu" else "set"
    return {
        "thresholds": f"{', '.join(f'{value:g}' for value in store.thresholds)} ({origin})",
        "grades": [{"name": name, "color": _hex(INTENSITIES[name])} for name in summary.grades],
        "scores": list(score_texts(summary.ihc_score())),
        "rows": rows,
    }


def _hex(color: Color) -> str:
    return "#{:02x}{:02x}{:02x}".format(*color)


def _plain(value: Any) -> str:
    if isinstance(value, (list, tuple)):
        return ", ".join(map(_plain, value))
    return number_text(value)
