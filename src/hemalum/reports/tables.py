"""Results as text tables: headers and rows, or name-value pairs; the console prints them."""

import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from hemalum.data.stain.recognition import STAIN_TITLES
from hemalum.errors import counted
from hemalum.experiments.provenance import scales_text, seen_text
from hemalum.models.card import Calibration, Card, Int8, RecallCalibration
from hemalum.reports.files import columns_of
from hemalum.reports.numbers import number_text
from hemalum.reports.segmentation.page import density_text, scale_text, score_texts, stain_text, thresholds_text

if TYPE_CHECKING:
    from pathlib import Path

    from hemalum.data.check import Problem
    from hemalum.data.dataset import Dataset, SplitInfo
    from hemalum.nuclei.nuclei import Nuclei
    from hemalum.nuclei.store import NucleiStore
    from hemalum.slides.slide import Slide

Table = tuple[list[str], list[list[str]]]
Pairs = list[tuple[str, str]]

UNSTATED = "license not stated"


def formats_table() -> Table:
    """The formats that `import` reads: what they hold, what may be done with it, and where to get it."""
    from hemalum.data.readers import READERS

    rows = [
        [
            name,
            reader.title,
            reader.size or "yours",
            ", ".join(reader.classes.values()) or "none",
            number_text(reader.mpp) + (" (measured)" if reader.mpp_source == "nuclei" else ""),
            reader.group,
            reader.published_rule or "none",
            reader.license or "yours",
            short_citation(reader.citation) or "yours",
            reader.url or "yours",
        ]
        for name, reader in READERS.items()
    ]
    headers = ["format", "data", "size", "classes", "mpp", "keeps together", "published split", "license"]
    return [*headers, "cite", "get it from"], rows


def short_citation(citation: str) -> str:
    """Authors, year and DOI of a citation: "Kumar et al. 2017, doi:10.1109/TMI.2017.2677499"."""
    authors = citation.partition(",")[0]
    year = re.search(r"\((\d{4})\)", citation)
    doi = re.search(r"doi:\S+", citation)
    return authors + (f" {year[1]}" if year else "") + (f", {doi[0]}" if doi else "")


def dataset_pairs(dataset: "Dataset") -> Pairs:
    """What a dataset folder holds."""
    info = dataset.info
    counts = ", ".join(f"{part} {count}" for part, count in info.split.counts.items())
    scale = f"{number_text(info.mpp)} µm/px" if info.mpp is not None else "by image, see index.csv"
    if not any(row.mpp is not None for row in dataset.rows):
        scale = "unknown: give --mpp NUMBER, or --mpp nuclei"
    elif info.mpp_source:
        scale += f" ({info.mpp_source})"
    return [
        ("dataset", str(dataset.path)),
        ("images", f"{info.images:,}"),
        ("nuclei", f"{info.nuclei:,}"),
        ("scale", scale),
        *([("classes", ", ".join(f"{n} {name}" for n, name in info.classes.items()))] if info.classes else []),
        ("split", f"{counts}; {_split_text(info.split)}"),
        ("split hash", info.split.sha256[:16]),
        ("license", info.license or UNSTATED),
    ]


def _split_text(split: "SplitInfo") -> str:
    if split.published is None:
        return f"by {split.by}, seed {split.seed}"
    fold = f" (fold {split.fold})" if split.fold else ""
    return f"as published{fold}: {split.published}" + (f"; {split.note}" if split.note else "")


def problems_table(problems: "Sequence[Problem]") -> Table:
    """What `check` found, errors first."""
    rows = [[problem.level, problem.kind, problem.file or "(dataset)", problem.message] for problem in problems]
    return ["level", "kind", "where", "what"], rows


def slide_pairs(slide: "Slide") -> Pairs:
    """What a slide or an image says about itself."""
    scale = "not stated: give --mpp NUMBER, µm per pixel"
    if slide.mpp is not None:
        scale = f"{number_text(slide.mpp)} µm per pixel"
    levels = (f"{level.shape[1]:,} x {level.shape[0]:,} (1:{level.downsample:.4g})" for level in slide.levels)
    return [
        ("slide", slide.name),
        ("format", slide.format),
        ("size", _size_text(slide.shape, slide.mpp)),
        ("scale", scale),
        ("levels", ", ".join(levels)),
        ("fingerprint", slide.fingerprint[:16]),
    ]


def _size_text(shape: tuple[int, int], mpp: float | None) -> str:
    height, width = shape
    size = f"{width:,} x {height:,} px"
    return size if mpp is None else f"{size} ({width * mpp / 1000:.2f} x {height * mpp / 1000:.2f} mm)"


def store_pairs(store: "NucleiStore") -> Pairs:
    """What a store of a slide's nuclei holds. Raises HemalumError where parts are damaged or missing."""
    run, scale = store.run, "unknown: nothing in µm can be said"
    if run.mpp is not None:
        scale = f"{number_text(run.mpp)} µm per pixel ({scale_text(run.mpp_source, store.notes.get('scale_doubt'))})"
    optional = [
        ("results", str(store.path)),
        ("slide", run.source or "not stated"),
        ("size", _size_text(run.shape, run.mpp)),
        ("scale", scale),
        ("model", run.model or "not stated"),
        ("classes", ", ".join(run.class_names) or None),
        ("thresholds", ", ".join(f"{value:g}" for value in store.thresholds) or None),
        ("nuclei", f"{store.count:,}"),
        ("parts", f"{len(store.finished):,}, of a grid of {run.grid.rows:,} x {run.grid.columns:,} regions"),
        ("complete", "yes" if store.complete else "no: more regions may come; the same run goes on with them"),
        ("fingerprint", run.fingerprint[:16]),
    ]
    return [(name, value) for name, value in optional if value is not None]


def _int8_text(int8: Int8) -> str:
    """What the int8 form costs: pooled PQ of validation images with and without it."""
    sets = (
        f"{one.name} {one.pq_int8:.4f} for {one.pq:.4f}"
        + ("" if one.mpq is None else f" (mPQ+ {one.mpq_int8:.4f} for {one.mpq:.4f})")
        for one in int8.sets
    )
    images = counted(sum(one.images for one in int8.sets), "validation image")
    cost = f"costs at most {int8.cost:.4f} of PQ pooled"
    return f"{cost}: {', '.join(sets)} in {int8.precision}, {images} ({int8.made_by})"


def recall_text(calibration: RecallCalibration) -> str:
    """A target recall, the thresholds that keep it, and what they cost."""
    thresholds = []
    for one in calibration.thresholds:
        thresholds.append(f"threshold {one.threshold:g} for {one.organ or 'all images'} ({one.known})")
    text = (
        f"{calibration.target:g} on {calibration.data} ({calibration.split}): {'; '.join(thresholds)}; precision "
        f"{calibration.precision_before:.3f} → {calibration.precision:.3f}, nuclei found (IoU > 0.5) "
        f"{calibration.nuclei_before:.3f} → {calibration.nuclei:.3f}"
    )
    few = ", ".join(calibration.too_few)
    return text + (f"; too few groups for a threshold of their own: {few}" if few else "")


def calibration_text(calibration: Calibration) -> str:
    """The temperature, what it was fitted on, and the errors of the probabilities before and at it."""
    one = calibration
    return (
        f"temperature {one.temperature:.3f}, fitted on {one.data} ({one.split}, {counted(one.images, 'image')}): "
        f"calibration error {one.ece_before:.4f} → {one.ece_after:.4f}, log loss {one.nll_before:.4f} → "
        f"{one.nll_after:.4f} nats per pixel"
    )


def input_text(channels: str, input_range: str | None) -> str:
    """What a network sees: its channels, and their range."""
    what = "RGB" if channels == "RGB" else f"{channels}, one channel"
    known = {"standardized": ", standardized: (x − 0.5) / 0.25", None: ""}
    return what + known.get(input_range, f" in {input_range}")


def card_pairs(card: Card) -> Pairs:
    """A model's card, without its metrics."""
    trained_on = ", ".join(STAIN_TITLES[name] for name in card.native_stains)
    stain = None
    if card.stain is not None:
        unfit = {"pass": "passes unchanged", "refuse": "is refused"}[card.stain.unfit]
        stain = f"{card.stain.method}, to {card.stain.origin}; an unfit image {unfit}"
    optional = [
        ("model", card.name),
        ("use", card.use or None),
        ("network", card.network.text),
        ("scale", f"{number_text(card.mpp)} µm per pixel; every image is resampled to it"),
        (
            "maps",
            card.representation + (f", enlarged {card.output_upsampling}×" if card.output_upsampling > 1 else ""),
        ),
        ("classes", ", ".join(card.classes)),
        ("separation", ", ".join(f"{k} {number_text(v)}" for k, v in card.separation.model_dump().items())),
        *(("recall", recall_text(calibration)) for calibration in card.recall),
        ("calibration", None if card.calibration is None else calibration_text(card.calibration)),
        ("trained on", f"{trained_on}: seen as it is" if trained_on else None),
        ("stain", stain),
        ("input", input_text(card.channels, card.input_range)),
        ("halo, stride", f"{card.halo} px, {card.stride} px" if card.window is None else None),
        ("tiles", f"{card.tiling.window} px, halo {card.tiling.halo} px" if card.window is None else None),
        (
            "windows",
            f"{card.window} px a side: a pixel depends on the whole window" if card.window is not None else None,
        ),
        ("organs", ", ".join(card.organs) or None),
        ("SAM", card.sam.encoder if card.sam is not None else None),
        ("int8", None if card.int8 is None else _int8_text(card.int8)),
        ("median nucleus", f"{number_text(card.nucleus_diameter_um)} µm across (what --mpp auto scales to)"),
        ("license", card.license_text),
        ("hemalum", card.code_version),
    ]
    pairs = [(name, value) for name, value in optional if value is not None]
    pairs += [] if card.refinement is None else card.refinement.pairs
    training = card.training
    if training is not None:
        pairs += [
            ("trained", f"{training.date}, {counted(training.steps, 'step')}, seed {training.seed}"),
            *([("phase", f"the best weights of '{training.phase}'")] if training.phase else []),
            ("recipe", f"{training.recipe} ({training.recipe_hash[:12]})"),
            ("command", training.command),
        ]
        pairs += [
            (
                "started from",
                f"weights of {start.date}, {counted(start.steps, 'step')}, recipe {start.recipe} "
                f"({start.recipe_hash[:12]})",
            )
            for start in training.earlier
        ]
        for data in training.seen:
            cited = f"; {data.citation}" if data.citation else ""
            license = data.license or UNSTATED
            images = counted(data.samples, "image")
            if data.unlabeled:
                images = f"{counted(data.samples, 'labeled image')}, {data.unlabeled:,} without their labels"
            pairs.append(("data", f"{data.name}: {images}, {license}, split {data.split_hash[:12]}{cited}"))
        pairs += [
            ("unlabeled", f"{one.name}: {counted(one.images, 'image')} ({one.sha256[:12]})")
            for one in training.seen_unlabeled
        ]
    return pairs


def demo_pairs(nuclei: "Nuclei", seconds: float, files: "Sequence[Path]") -> Pairs:
    """What the demonstration gave."""
    estimated = " (estimated: the image does not say its scale)" if nuclei.mpp_source == "estimate" else ""
    scale = scale_text(nuclei.mpp_source, nuclei.notes.get("scale_doubt"))
    pairs = [
        ("nuclei", f"{nuclei.count:,}"),
        ("density", f"{density_text(nuclei)} per mm²{estimated}"),
        ("classes", _counts_text(nuclei.classes.counts) if nuclei.classes is not None else None),
        ("intensity", _counts_text(nuclei.intensities.counts) if nuclei.intensities is not None else None),
        *score_texts(nuclei).items(),
        ("from DAB of", thresholds_text(nuclei) or None),
        ("scale", f"{number_text(nuclei.mpp)} µm per pixel, {scale}"),
        ("stain", stain_text(nuclei) or None),
        ("time", f"{seconds:.1f} s"),
        *(("wrote", str(file)) for file in files),
    ]
    return [(name, value) for name, value in pairs if value is not None]


def _counts_text(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{name} {count:,}" for name, count in counts.items())


def metrics_table(metrics: Mapping[str, Mapping[str, float]]) -> Table:
    """Held-out set by metric; a set that lacks a metric has an empty cell."""
    return _by_row("held-out set", metrics, missing="")


def _by_row(corner: str, rows: Mapping[str, Mapping[str, Any]], missing: str | None = None) -> Table:
    names = columns_of(list(rows.values()))
    texts = [[head, *(number_text(values.get(name, missing)) for name in names)] for head, values in rows.items()]
    return [corner, *names], texts


AVERAGINGS = {"pooled": "pooled", "per_image": "mean over images", "support_weighted": "support-weighted"}


def _organs_text(organs: Mapping[str, Any] | None) -> str:
    """Which organs a model was given, and for how many images it had none that it knows."""
    if organs is None:
        return ""
    unknown = "" if organs["rule"] == "unknown" or not organs["unknown"] else f" ({organs['unknown']:,} not known)"
    return f"; organs: {organs['rule']}{unknown}"


def _scales_text(sources: Mapping[str, int]) -> str:
    text = scales_text(sources)
    return f", {text}" if text else ""


def _seen_text(seen: Mapping[str, Any] | None) -> str:
    return "" if seen is None else f"; seen in training: {seen_text(seen)}"


def evaluation_tables(summary: Mapping[str, Any]) -> list[tuple[str, Table]]:
    """Titles and tables of an evaluation: pixel, boundary and instance metrics by averaging, then by group.

    `summary` is that of `hemalum.experiments.evaluate.Evaluation`. Groups are left out when there is only one, or
    as many as images.
    """
    about = (
        f"{summary['model']} on {summary['dataset']}"
        + (f", split {summary['split']}" if summary["split"] else "")
        + f": {counted(summary['images'], 'image')}, {counted(summary['nuclei_truth'], 'nucleus')}, "
        + f"{summary['nuclei_predicted']:,} found; scale: {summary['mpp']}"
        + _scales_text(summary.get("mpp_sources") or {})
        + _seen_text(summary.get("seen_in_training"))
        + (f"; {summary['tta']}" if "tta" in summary else "")
        + (f"; mean of {summary['shifts']} shifts" if "shifts" in summary else "")
        + _organs_text(summary.get("organs"))
    )
    instance = {
        averaging: {name: value for name, value in scores.items() if name in INSTANCE_SHOWN}
        for averaging, scores in summary["instance"].items()
    }
    tables = [
        (about, _by_averaging("pixels", summary["pixel"])),
        ("", _by_averaging("boundary", summary["boundary"])),
        ("", _by_averaging("instances", instance)),
    ]
    class_names = list((summary.get("class_names") or {}).values())
    if "found_by_class" in summary:
        by_true_class = summary["found_by_class"]
        rows = [
            [name, f"{count:,}", number_text(recall)]
            for name, count, recall in zip(class_names, by_true_class["nuclei"], by_true_class["recall"], strict=True)
        ]
        tables.append(("", (["true class", "nuclei", "recall"], rows)))
    if "classes" in summary:
        classes = summary["classes"]
        binary = summary["binary"]
        rows = [
            ["mPQ by tissue", number_text(classes["mpq_tissue"])],
            ["mPQ by image", number_text(classes["mpq_image"])],
            ["mPQ+", number_text(classes["mpq_plus"])],
            ["bPQ by tissue", number_text(binary["bpq_tissue"])],
            ["bPQ by image", number_text(binary["bpq_image"])],
        ]
        rows += [
            [f"PQ pooled, {name}", number_text(pq)]
            for name, pq in zip(class_names, classes["pq_pooled"], strict=True)
        ]
        tables.append(("", (["classes", ""], rows)))
    if "semantic" in summary:
        tables.append(("", _by_averaging("pixels by class", summary["semantic"])))
        tables.append(("", _pixels_by_class(summary["semantic_by_class"])))
    for kind in ("organ", "stain", "group"):
        by = summary.get(f"by_{kind}", [])
        if 1 < len(by) < summary["images"]:
            rows_by_name = {str(row["name"]): {key: row[key] for key in row if key != "name"} for row in by}
            tables.append(("", _by_row(kind, rows_by_name)))
    return tables


def _pixels_by_class(by_class: Mapping[str, Any]) -> Table:
    """Precision, recall, F1 and IoU of the pixels of each class, pooled and as the mean over images."""
    metrics = ("precision", "recall", "f1", "iou")
    rows = []
    for name, counts in by_class.items():
        label = name if counts["true_pixels"] else f"{name} (absent: in no mean)"
        values = [
            number_text(counts[averaging][metric]) for averaging in ("pooled", "per_image") for metric in metrics
        ]
        rows.append([label, f"{counts['true_pixels']:,}", *values])
    headers = ["class", "true pixels", *metrics, *(f"{metric} by image" for metric in metrics)]
    return headers, rows


INSTANCE_SHOWN = ("aji", "aji_plus", "pq", "dq", "sq", "ap", "f1_50", "f1_75", "f1_90")


def _by_averaging(kind: str, scores: Mapping[str, Mapping[str, float]]) -> Table:
    return _by_row(kind, {AVERAGINGS.get(averaging, averaging): values for averaging, values in scores.items()})
