"""`check`: what is wrong, or looks wrong, with a dataset folder or a folder of images and labels."""

import re
from collections import Counter, defaultdict
from collections.abc import Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import cc3d
import edt
import numpy as np
from numpy.typing import NDArray

from hemalum.data.annotations import DrawnLabels
from hemalum.data.dataset import INFO_FILE, Dataset, Row, classes_by_instance, pixel_hash
from hemalum.data.image import read_image
from hemalum.data.label_faults import find_faults
from hemalum.data.label_fit import OTHERS, Mask, Misfit, best_turn, find_misfit, find_other, labeled
from hemalum.data.label_maps import components, is_binary, read_class_map, read_ids, size_text
from hemalum.data.mosaic import Edges, edges_of, same_content, same_field
from hemalum.data.nucleus_size import equivalent_diameters, scale_doubt
from hemalum.data.readers.folder import survey
from hemalum.data.splits import groups_apart, split_hash
from hemalum.errors import HemalumError, counted
from hemalum.remarks import gather_remarks

# Touching nuclei under one label have a neck: cut by this share of the typical radius all round, the label
# falls into cores, two of which are nearly as deep as a typical nucleus. On TNBC and a part of DSB2018 all
# of the 6 labels looked at were two nuclei; low solidity alone finds bent and spindle-shaped single ones.
NECK = 0.65
LOBE = 0.8
HUGE = 12.0  # times the median area: a clump without necks, or something that is no nucleus
ENOUGH_NUCLEI = 5  # a median of fewer says nothing
MIXED = 1.05  # largest to smallest mpp; scanners called 40x differ by less


@dataclass(frozen=True, slots=True)
class Problem:
    """A finding. `file` is relative to the checked folder ("" for the whole); `kind` is one word."""

    level: Literal["error", "warning"]
    file: str
    kind: str
    message: str


@dataclass(frozen=True, slots=True, eq=False)
class _ImageFacts:
    """What the checks across images need of each; `row` only in a dataset folder."""

    file: str
    label: str
    row: Row | None
    digest: str
    edges: Edges
    diameters: NDArray[np.float64]
    mpp: float | None
    paths: tuple[Path, Path]
    shape: tuple[int, int]
    misfit: Misfit | None

    @property
    def part(self) -> str | None:
        return None if self.row is None else self.row.split

    def is_apart(self, other: "_ImageFacts") -> bool:
        """Whether the two are in different parts, and not the same image, which has an error of its own."""
        return self.part != other.part and self.digest != other.digest


def check_dataset(path: Path | str) -> list[Problem]:
    """Find what is wrong with a dataset folder, or with a folder of images and labels before its import.

    Kinds of errors: "folder" (no pairs, files missing), "unreadable", "size" (image and labels differ),
    "binary" (a mask where a label map is due), "shades", "inverted" and "hollow" (what is no label map, see
    `label_faults`), "classes" (a class id without a name), "changed" (pixels or count not those of the index),
    "split" (hash differs, a group in two parts), "duplicate" (the same image in two parts). Kinds of warnings:
    "empty" (no nucleus), "inverted" (one piece covers most of the image), "cut" (ids were cut off at 8 or 16 bits),
    "pieces" (a label in several pieces), "merged" (suspicion that touching nuclei share a label), "objects" (what
    is no nucleus among outlines), "unannotated" (regions say that a part of the image is not annotated), "classes"
    (nuclei without a class), "split" (a publication has a group in two parts), "duplicate" (the same image twice in
    one part), "misplaced" (labels that do not lie on the nuclei, and what would), "similar" (images in different
    parts that show the same), "neighbors" (edges of tiles in different parts match), "mpp" (missing, mixed, or
    nuclei of unlikely size). Errors come first, then by file.

    Raises HemalumError when there is no folder at `path`.
    """
    path = Path(path)
    if not path.is_dir():
        raise HemalumError(f"{path}: no such folder")
    is_dataset = (path / INFO_FILE).exists()
    with gather_remarks():
        problems = list(_check_imported(path) if is_dataset else _check_folder(path))
    return sorted(problems, key=lambda problem: (problem.level, problem.file, problem.kind))


def _check_imported(path: Path) -> Iterator[Problem]:
    try:
        dataset = Dataset.open(path)
    except HemalumError as error:
        yield Problem("error", "", "folder", _without(path, error))
        return
    images: list[_ImageFacts] = []
    for row in dataset.rows:
        image = path / row.image
        labels = yield from _check_pair(path, image, path / row.label, row, row.mpp, images)
        if row.classes is not None:
            yield from _check_extra(path, path / row.classes, image, labels, dataset.info.classes or {})
        if row.ambiguous is not None:
            yield from _check_extra(path, path / row.ambiguous, image, labels)
    yield from _check_split(dataset)
    yield from _check_across(images)


def _check_folder(path: Path) -> Iterator[Problem]:
    pairs, faults = survey(path)
    for fault in faults:
        yield Problem("error", "", "folder", _without(path, fault))
    images: list[_ImageFacts] = []
    for pair in pairs:
        labels = yield from _check_pair(path, pair.image, pair.label, None, pair.mpp, images)
        if pair.classes is not None:
            yield from _check_extra(path, pair.classes, pair.image, labels, {})
    yield from _check_across(images)


def _check_pair(
    path: Path, image_file: Path, label_file: Path, row: Row | None, mpp: float | None, images: list[_ImageFacts]
) -> Generator[Problem, None, NDArray[np.int32] | None]:
    """An image and its labels. Returns the labels (H, W) as seen, None where they cannot be read."""
    image_name, name = _relative(path, image_file), _relative(path, label_file)
    image: NDArray[np.uint8] | None = None
    labels: NDArray[np.int32] | None = None
    drawn: DrawnLabels | None = None
    try:
        image = read_image(image_file)
    except HemalumError as error:
        yield Problem("error", image_name, "unreadable", _without(path, error))
    try:
        shape = None if image is None else (image.shape[0], image.shape[1])
        labels, drawn = read_ids(label_file, shape, image_file)
    except HemalumError as error:
        yield Problem("error", name, "unreadable", _without(path, error))
    if image is not None:
        digest = pixel_hash(image)
        if row is not None and digest != row.sha256:
            yield Problem("error", image_name, "changed", "pixels are not those of the import; import again")
        diameters = np.empty(0) if labels is None else equivalent_diameters(labels)
        misfit = None if labels is None or is_binary(labels) else find_misfit(image, labels)
        facts = _ImageFacts(
            image_name, name, row, digest, edges_of(image), diameters, mpp, (image_file, label_file),
            (image.shape[0], image.shape[1]), misfit,
        )  # fmt: skip
        images.append(facts)
    if image is not None and labels is not None and labels.shape != image.shape[:2]:
        turn = best_turn(image, labels) if labels.shape == image.shape[1::-1] else ""
        fits = f"; {turn} they fit" if turn else ""
        yield Problem("error", name, "size", f"labels are {size_text(labels)}, the image is {size_text(image)}{fits}")
    if drawn is not None:
        yield from _check_drawn(name, drawn)
    if labels is not None:
        yield from _check_labels(name, labels)
        count = int(np.count_nonzero(np.bincount(labels.ravel())[1:]))
        if row is not None and count != row.nuclei:
            yield Problem(
                "error", name, "changed", f"{counted(count, 'nucleus')}, the index says {row.nuclei}; import again"
            )
    return labels


def _check_drawn(name: str, drawn: DrawnLabels) -> Iterator[Problem]:
    if drawn.others:
        yield Problem("warning", name, "objects", f"left out, since it is no nucleus: {drawn.others}")
    if drawn.unannotated is not None:
        share = f"{100 * drawn.unannotated.mean():.0f} % of the image counts nowhere"
        nuclei = f", nor do {counted(drawn.outside, 'nucleus')} there" if drawn.outside else ""
        yield Problem("warning", name, "unannotated", f"annotated in part: {share}{nuclei}")


def _check_labels(name: str, labels: NDArray[np.int32]) -> Iterator[Problem]:
    areas = np.bincount(labels.ravel())
    areas[0] = 0
    present = np.flatnonzero(areas)
    if present.size == 0:
        yield Problem("warning", name, "empty", "no nucleus is labeled")
        return
    mask = is_binary(labels)
    for fault in find_faults(components(labels) if mask else labels):
        if fault.kind != "pieces":  # named below, id by id
            yield Problem("error" if fault.refused else "warning", name, fault.kind, fault.message)
        if fault.refused:
            return
    if mask:
        message = f"one value ({present[0]}) for all nuclei: a binary mask, not a label map"
        yield Problem("error", name, "binary", message)
        return
    broken = labels_in_pieces(labels)
    if broken:
        share = f" ({len(broken)} of {present.size})" if len(broken) > 5 else ""
        yield Problem("warning", name, "pieces", f"{_ids(broken)} in several pieces{share}")
    merged = labels_suspected_merged(labels)
    if merged:
        yield Problem("warning", name, "merged", f"{_ids(merged)} may be several nuclei (necked, or very large)")


def labels_in_pieces(labels: NDArray[np.int32]) -> list[int]:
    """Ids of the labels that are not one 8-connected piece."""
    pieces, count = cc3d.connected_components(labels, connectivity=8, return_N=True)
    owner = np.zeros(int(count) + 1, np.int32)
    owner[pieces.ravel()] = labels.ravel()
    ids, times = np.unique(owner[1:], return_counts=True)
    return [int(label) for label in ids[times > 1]]


def labels_suspected_merged(labels: NDArray[np.int32]) -> list[int]:
    """Ids of the labels that look like several nuclei: two deep lobes joined by a neck, or a huge area.

    Both are measured by the median nucleus of the image; none in an image with fewer than 5 nuclei.
    """
    areas = np.bincount(labels.ravel())
    areas[0] = 0
    present = np.flatnonzero(areas)
    if present.size < ENOUGH_NUCLEI:
        return []
    typical = float(np.median(areas[present]))
    radius = np.sqrt(typical / np.pi)
    # to the edge of the label, half a pixel before the center of the first pixel outside
    depth = edt.edt(labels.astype(np.uint32), black_border=False) - 0.5
    cores, count = cc3d.connected_components(np.where(depth > NECK * radius, labels, 0), return_N=True)
    deepest = np.zeros(int(count) + 1, np.float32)
    np.maximum.at(deepest, cores.ravel(), depth.ravel())
    owner = np.zeros(int(count) + 1, np.int32)
    owner[cores.ravel()] = labels.ravel()
    ids, lobes = np.unique(owner[1:][deepest[1:] > LOBE * radius], return_counts=True)
    return sorted({*ids[lobes > 1].tolist(), *present[areas[present] > HUGE * typical].tolist()})


def _check_extra(
    path: Path,
    file: Path,
    image_file: Path,
    labels: NDArray[np.int32] | None,
    classes: Mapping[int, str] | None = None,
) -> Iterator[Problem]:
    """A file beside the labels. `classes` are the names by id of a class map ({}: unnamed), None for other files."""
    name = _relative(path, file)
    try:
        extra = read_class_map(file, None if labels is None else (labels.shape[0], labels.shape[1]), image_file)
    except HemalumError as error:
        yield Problem("error", name, "unreadable", _without(path, error))
        return
    if labels is None:
        return
    if extra.shape != labels.shape:
        yield Problem("error", name, "size", f"is {size_text(extra)}, the labels are {size_text(labels)}")
    elif classes is not None:
        yield from _check_classes(name, labels, extra, classes)


def _check_classes(
    name: str, labels: NDArray[np.int32], class_map: NDArray[np.int32], names: Mapping[int, str]
) -> Iterator[Problem]:
    largest = int(class_map.max())
    if largest > 255:
        yield Problem("error", name, "classes", f"class ids up to {largest}; they must be 0 to 255")
        return
    present = np.flatnonzero(np.bincount(labels.ravel()))
    classes = classes_by_instance(labels, class_map)[present[present > 0]]
    unknown = sorted(set(classes.tolist()) - {0, *names}) if names else []
    if unknown:
        count = int(np.isin(classes, unknown).sum())
        known = ", ".join(str(number) for number in sorted(names))
        nuclei = counted(count, "nucleus")
        message = f"class {unknown[0]} is not in dataset.yaml ({nuclei} of such classes); classes are {known}"
        yield Problem("error", name, "classes", message)
    without = int((classes == 0).sum())
    if without:
        yield Problem("warning", name, "classes", f"{without} of {classes.size} nuclei have no class (0)")


def _check_split(dataset: Dataset) -> Iterator[Problem]:
    if split_hash({row.id: row.split for row in dataset.rows}) != dataset.info.split.sha256:
        message = "the split in index.csv is not the one in dataset.yaml (hash differs); import again"
        yield Problem("error", "", "split", message)
    # a publication may have split so, and the import has warned of it: then it is no fault of the folder
    level: Literal["error", "warning"] = "warning" if dataset.info.split.published else "error"
    for group, parts in groups_apart((row.group, row.split) for row in dataset.rows).items():
        yield Problem(level, "", "split", f"group {group!r} is in {' and '.join(parts)}")


def _check_across(images: Sequence[_ImageFacts]) -> Iterator[Problem]:
    same: dict[str, list[_ImageFacts]] = defaultdict(list)
    for image in images:
        same[image.digest].append(image)
    for first, *others in same.values():
        for other in others:
            if first.part != other.part:
                message = f"same image as {first.file}, but in {other.part}, that in {first.part}"
                yield Problem("error", other.file, "duplicate", message)
            else:
                yield Problem("warning", other.file, "duplicate", f"same image as {first.file}")
    yield from _check_misplaced(images)
    yield from _check_similar(images)
    yield from _check_neighbors(images)
    yield from _check_scales(images)


def _check_misplaced(images: Sequence[_ImageFacts]) -> Iterator[Problem]:
    """Labels that do not lie on nuclei, with what would: a turn, a shift, or the labels of another image."""
    # two that were exchanged are both misfits
    suspects = sorted((image for image in images if image.diameters.size), key=lambda image: image.misfit is None)
    masks: dict[str, Mask] = {}  # of one size, so never more than are tried
    for image in sorted(images, key=lambda image: image.shape):
        if image.misfit is None:
            continue
        other, area = "", 0.0
        if not image.misfit.better:
            tried = [one for one in suspects if one.shape == image.shape][:OTHERS]
            masks = {one.label: masks[one.label] if one.label in masks else _mask_of(one) for one in tried}
            others = ((one.label, masks[one.label]) for one in tried if one is not image)
            other, area = find_other(read_image(image.paths[0]), others)
        exchanged = f"; those of {other} fit it ({area:.2f})" if other else ""
        yield Problem("warning", image.label, "misplaced", image.misfit.message + exchanged)


def _mask_of(image: _ImageFacts) -> Mask:
    return labeled(read_ids(image.paths[1], image.shape, image.paths[0])[0])


def _check_similar(images: Sequence[_ImageFacts]) -> Iterator[Problem]:
    """One warning for all images that show what an image of another part shows."""
    pairs = same_content([image.edges for image in images])
    apart = [pair for pair in pairs if images[pair[0]].is_apart(images[pair[1]])]
    if apart:
        first, other = (images[index].file for index in apart[0])
        count = len({index for pair in apart for index in pair})
        message = (
            f"{count} images show the same as an image of another part: re-encoded, flipped, turned, or frames of "
            f"one video (e.g. {first} and {other}); give them one group"
        )
        yield Problem("warning", "", "similar", message)


def _check_neighbors(images: Sequence[_ImageFacts]) -> Iterator[Problem]:
    """One warning for all: a chance match is possible, and the remedy is the same."""
    stains = [None if image.row is None else image.row.stain for image in images]
    firsts = same_field([image.edges for image in images], stains)
    apart = [
        (image.file, images[first].file)
        for image, first in zip(images, firsts, strict=True)
        if image.is_apart(images[first])
    ]
    if apart:
        message = (
            f"{len(apart)} tiles look like cuts of one field with tiles of another part "
            f"(e.g. {apart[0][0]} and {apart[0][1]}); import with group 'mosaic'"
        )
        yield Problem("warning", "", "neighbors", message)


def _check_scales(images: Sequence[_ImageFacts]) -> Iterator[Problem]:
    """Scales that differ by more than scanners do (those set from the nuclei are meant to), lack, or are unlikely."""
    counts = Counter(
        image.mpp
        for image in images
        if image.mpp is not None and (image.row is None or image.row.mpp_source != "nuclei")
    )
    if counts and max(counts) > MIXED * min(counts):
        shown = ", ".join(f"{mpp:g} ({counted(count, 'image')})" for mpp, count in counts.most_common(4))
        more = ", …" if len(counts) > 4 else ""
        message = f"the images differ in scale: mpp {shown}{more}; each is used at its own, if that is meant"
        yield Problem("warning", "", "mpp", message)
    missing = sum(image.mpp is None for image in images)
    if missing:
        yield Problem("warning", "", "mpp", f"{missing} of {len(images)} images have no mpp; give one at import")
    doubt = scale_doubt([image.diameters for image in images], [image.mpp for image in images])
    if doubt:
        yield Problem("warning", "", "mpp", doubt)


def _relative(path: Path, file: Path) -> str:
    return file.relative_to(path).as_posix() if file.is_relative_to(path) else str(file)


def _without(path: Path, error: HemalumError) -> str:
    """The message without the name of the checked folder."""
    return re.sub(rf"{re.escape(str(path))}/(?=\S)", "", str(error))  # not in "want images/ and labels/"


def _ids(labels: Sequence[int]) -> str:
    shown = ", ".join(str(label) for label in labels[:5])
    more = f" and {len(labels) - 5} more" if len(labels) > 5 else ""
    return f"label{'s' if len(labels) > 1 else ''} {shown}{more}"
