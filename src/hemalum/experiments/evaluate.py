"""A segmenter against a labeled dataset: every metric, per image and averaged, with the time it took."""

import csv
import io
import json
import statistics
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from hemalum.data.dataset import Dataset, pixel_hash
from hemalum.data.sample import Sample
from hemalum.errors import HemalumError
from hemalum.experiments.label_maps import LabelMaps, Truth, is_label_folder
from hemalum.experiments.organs import TRUE, Organs, assign_to, count_known
from hemalum.experiments.provenance import count_scales, count_seen, describe_part, scale_source, warn_of_seen
from hemalum.experiments.scores import (
    BOUNDARY_TOLERANCE_PX,
    ByClass,
    ImageScores,
    Row,
    score_image,
    summarize,
    table_by,
    without_nan,
)
from hemalum.experiments.segmenters import (
    CLASSICAL,
    NamedSegmenter,
    Scale,
    Segmentation,
    Segmenter,
    class_ids,
    model_segmenter,
    scale_of,
)
from hemalum.files import csv_cell, write_text
from hemalum.inference.segment import as_engine
from hemalum.models.engines.engine import Engine
from hemalum.models.model import Model, load_model
from hemalum.remarks import gather_remarks
from hemalum.settings import as_number
from hemalum.targets.representations import find_representation


@dataclass(frozen=True, slots=True, eq=False)
class Evaluation:
    """Scores of one model on one dataset. Undefined scores are nan (empty or null in the files).

    `per_image` has one flat row per image; `summary` the averages, tables by group and organ, and times.
    """

    per_image: list[Row]
    summary: Row

    def save(self, out: Path | str) -> None:
        """Write summary.json and per_image.csv into the folder `out`, each atomically.

        Raises HemalumError when the folder cannot be written.
        """
        out = Path(out)
        text = json.dumps(without_nan(self.summary), indent=2, ensure_ascii=False, allow_nan=False)
        write_text(out / "summary.json", text + "\n")
        lines = io.StringIO()
        columns = list(dict.fromkeys(name for row in self.per_image for name in row))
        writer = csv.DictWriter(lines, columns, restval="", lineterminator="\n")
        writer.writeheader()
        writer.writerows({key: csv_cell(value) for key, value in row.items()} for row in without_nan(self.per_image))
        write_text(out / "per_image.csv", lines.getvalue())


@gather_remarks()
def evaluate(  # noqa: PLR0913 (the verb's options)
    model: Any,
    dataset: Dataset | Path | str | Iterable[Sample],
    *,
    split: str | None = "test",
    mpp: Scale = None,
    engine: str | Engine = "auto",
    tta: bool = False,
    shifts: int = 1,
    recall: float | None = None,
    out: Path | str | None = None,
    leave_out_ambiguous: bool = False,
    organs: str = TRUE,
    on_progress: Callable[[int, Row], None] | None = None,
) -> Evaluation:
    """Segment every image of a split and score it.

    `model` is "classical" (the floor), a folder of label maps that another program made (or `LabelMaps`, which
    has options), a callable Sample → label map or `Segmentation`, a `NamedSegmenter`, or whatever
    `hemalum.segment` takes as a model. `dataset` is a dataset folder or an open Dataset, of which `split` is taken
    (None: all of it), or any iterable of Samples, which is taken whole, such as `Truth`, a folder of label maps.
    `mpp` None uses each sample's own scale and an estimate where it has none; "auto" estimates always; a number holds
    for all. An image with too few nuclei for an estimate counts as one where nothing was found. Where dataset and
    model tell classes of nuclei apart, both must have the same ones, by name.
    With `tta` a model looks at each window in eight ways, with `shifts` at so many places, and `recall` takes its
    threshold for that, as in `hemalum.segment`.
    A model that was trained or validated on some of the images, told by their pixels, is named in a warning, and so
    is one whose file does not tell. With `leave_out_ambiguous`, pixels that the annotators could not tell count
    nowhere; what nobody has annotated never does. `organs` says which organ a model that tells organs apart is given
    for each image of a dataset: "true", its own; "unknown", none; "wrong", another one; "shuffled", that of any of
    the images (`organs.assign_organs`). `on_progress` is called after each image with its number from 0 and its row.
    With `out`, the result is also saved there.

    Raises HemalumError when there is nothing to evaluate, the classes of model and dataset differ, a segmentation
    does not fit its image, `tta`, `shifts` or `recall` is asked of what runs no network, or `organs` of what tells
    none apart.
    """
    if isinstance(dataset, (str, Path)):
        dataset = Dataset.open(dataset)
    mpp = as_number(mpp, "mpp")
    if recall is not None:
        model = _at_recall(model, recall)
    part, class_names, data = _open(dataset, split)
    name = data["dataset"]
    model, assigned = assign_to(organs, model, part)
    expected = [row.organ for row in part.rows] if isinstance(part, Dataset) and assigned is None else []
    built = build_segmenter(
        model, data=name, classes=class_names, organs=expected, mpp=mpp, engine=engine, tta=tta, shifts=shifts
    )
    segmenter, description = built.segmenter, built.description
    if isinstance(segmenter, LabelMaps):  # files and images are compared before the first is scored
        if isinstance(dataset, Dataset):
            segmenter.check_dataset(dataset, split)
        elif isinstance(dataset, Truth):
            segmenter.check(dataset.ids)
    images: list[ImageScores] = []
    rows: list[Row] = []
    partly = 0
    hashes: list[str] = []
    for sample in part:
        partly += sample.unannotated is not None
        scores, row = _evaluate_image(sample, segmenter, class_names, leave_out_ambiguous, assigned)
        row["mpp_source"] = scale_source(mpp, sample.mpp_source, row["mpp_used"], row.pop("estimated"))
        if built.card is not None:
            hashes.append(pixel_hash(sample.image))
        images.append(scores)
        rows.append(row)
        if on_progress is not None:
            on_progress(len(rows) - 1, row)
    if not rows:
        raise HemalumError(f"nothing to evaluate: {name} has no images in split '{split}'")
    seen = None
    if built.card is not None:
        seen = count_seen(built.card, hashes, dataset if isinstance(dataset, Dataset) else None)
        if not isinstance(model, NamedSegmenter):  # a comparison has warned once, before its runs
            warn_of_seen(description["model"], describe_part(name, data["split"]), seen)
    if isinstance(segmenter, LabelMaps):
        description["counted_as_empty"] = segmenter.counted_as_empty
        description["label_warnings"] = [*segmenter.doubts, *(dataset.doubts if isinstance(dataset, Truth) else [])]
    summary: Row = {
        **description,
        **data,
        "seen_in_training": seen,
        "mpp": "per image" if mpp is None else mpp,
        "mpp_sources": count_scales(row["mpp_source"] for row in rows),
        "ambiguous": "left out" if leave_out_ambiguous else "counted",
        **_organs_given(organs, assigned, built, rows),
        "boundary_tolerance_px": BOUNDARY_TOLERANCE_PX,
        **({"images_annotated_in_part": partly} if partly else {}),
        **({"class_names": class_names} if class_names else {}),
        **summarize(images, [row["organ"] for row in rows]),
        "seconds": _times(rows),
        **{f"by_{kind}": table_by([row[kind] for row in rows], images) for kind in ("group", "organ", "stain")},
    }
    evaluation = Evaluation(rows, summary)
    if out is not None:
        evaluation.save(out)
    return evaluation


def _open(
    dataset: Dataset | Iterable[Sample], split: str | None
) -> tuple[Dataset | Iterable[Sample], dict[int, str], Row]:
    """The samples, the names of the classes to score, and what the summary says of the data."""
    if not isinstance(dataset, Dataset):
        name = dataset.name if isinstance(dataset, Truth) else "samples"
        return dataset, {}, {"dataset": name, "split": None, "split_hash": None}
    part = dataset if split is None else dataset.split(split)
    description = {"dataset": dataset.info.name, "split": split, "split_hash": dataset.split_hash}
    return part, dataset.class_names, description


def build_segmenter(  # noqa: PLR0913 (the verb's options)
    model: Any,
    *,
    data: str,
    classes: Mapping[int, str],
    organs: Iterable[str | None] = (),
    mpp: Scale = None,
    engine: str | Engine = "auto",
    threads: int | None = None,
    tta: bool = False,
    shifts: int = 1,
    name: str | None = None,
    probabilities: bool = False,
) -> NamedSegmenter:
    """A model, or whatever else `evaluate` takes, as a segmenter of the samples of the dataset called `data`.

    `classes` are the dataset's by id, `organs` those to expect, `mpp` the scale as in `evaluate`. `name` is what
    messages call the model. With `probabilities` a model gives them too. Raises HemalumError when the classes of
    model and dataset differ, or `tta` or `shifts` is asked of what runs no network.
    """
    if isinstance(model, NamedSegmenter):
        return model
    fixed = _without_network(model, mpp)
    if fixed is None:
        loaded = load_model(model)
        card = loaded.card
        class_names = find_representation(card.representation, card.classes).class_names
        ids = class_ids(class_names, classes, name or card.name, data)
        runner = as_engine(engine, loaded, threads=threads, tta=tta, shifts=shifts)
        return model_segmenter(loaded, runner, ids, organs, mpp, probabilities)
    for asked, what in ((tta, "tta turns"), (shifts != 1, "shifts moves")):
        if asked:
            raise HemalumError(
                f"{what} what a network sees, and '{fixed.description['model']}' runs none: leave it out"
            )
    if isinstance(fixed.segmenter, LabelMaps):
        fixed.segmenter.class_names = classes
    return fixed


def _at_recall(model: Any, recall: float) -> Model:
    """A model with its threshold for that. Raises HemalumError where there is none."""
    fixed = _without_network(model, None)
    if fixed is None:
        return load_model(model).with_recall(recall)
    name = fixed.description["model"]
    raise HemalumError(f"recall {recall:g} names a threshold of a model, and '{name}' has none: leave it out")


def _without_network(model: Any, mpp: Scale) -> NamedSegmenter | None:
    """What segments without a network; None for a model."""
    if isinstance(model, str) and model == CLASSICAL:
        return NamedSegmenter(_classical_segmenter(mpp), {"model": CLASSICAL, "engine": None})
    if is_label_folder(model):
        model = LabelMaps(Path(model))
    if isinstance(model, LabelMaps):
        return NamedSegmenter(model, {"model": model.name, "engine": None, "label_maps": str(model.folder)})
    if callable(model):
        return NamedSegmenter(model, {"model": getattr(model, "__name__", type(model).__name__), "engine": None})
    return None


def _classical_segmenter(mpp: Scale) -> Segmenter:
    from hemalum.systems.classical import segment_classical

    def segmenter(sample: Sample) -> Segmentation:
        scale = scale_of(sample, mpp)
        known = None if scale == "auto" else scale
        return Segmentation(segment_classical(sample.image, known), mpp=known)

    return segmenter


def _evaluate_image(
    sample: Sample,
    segmenter: Segmenter,
    classes: dict[int, str],
    leave_out_ambiguous: bool,
    assigned: Organs | None,
) -> tuple[ImageScores, Row]:
    start = time.perf_counter()
    result = segmenter(sample if assigned is None else replace(sample, organ=assigned[sample.id]))
    segmented = time.perf_counter()
    segmentation = Segmentation.of(result)
    if segmentation.labels.shape != sample.instances.shape:
        raise HemalumError(
            f"sample {sample.id}: the segmentation is {segmentation.labels.shape}, its image {sample.instances.shape}"
        )
    by_class = None
    if classes and sample.classes is not None:
        by_class = ByClass(sample.classes, segmentation.classes, classes, segmentation.pixel_classes)
    try:
        scores = score_image(
            sample.instances,
            segmentation.labels,
            ambiguous=sample.left_out(ambiguous=leave_out_ambiguous),
            mpp=sample.mpp,
            classes=by_class,
        )
    except HemalumError as error:
        raise HemalumError(f"sample {sample.id}: {error}") from error
    row: Row = {
        "id": sample.id,
        "group": sample.group,
        "organ": sample.organ,
        "stain": sample.stain,
        "mpp": sample.mpp,
        "mpp_used": segmentation.mpp,
        "estimated": segmentation.estimated,
        "megapixels": sample.instances.size / 1e6,
        "seconds_segment": segmented - start,
    }
    row |= scores.row
    row["seconds_metrics"] = time.perf_counter() - segmented
    return scores, row


def _organs_given(rule: str, assigned: Organs | None, built: NamedSegmenter, rows: list[Row]) -> Row:
    """What the summary says of the organs that the model was given; nothing where it tells none apart."""
    if not built.organs:
        return {}
    names = [row["organ"] if assigned is None else assigned[row["id"]] for row in rows]
    return {"organs": {"rule": rule, **count_known(built.organs, names)}}


def _times(rows: list[Row]) -> Row:
    """The first image may hold loading and compiling: the median image says what the next one costs."""
    segment = [row["seconds_segment"] for row in rows]
    areas = [row["megapixels"] * row["mpp"] ** 2 for row in rows if row["mpp"] is not None]
    return {
        "segment": sum(segment),
        "segment_median_image": statistics.median(segment),
        "segment_per_mm2": sum(segment) / sum(areas) if len(areas) == len(rows) and sum(areas) else None,
        "metrics": sum(row["seconds_metrics"] for row in rows),
    }
