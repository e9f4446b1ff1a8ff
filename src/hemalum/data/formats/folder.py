"""`folder`: what users have. Images with label maps or binary masks, joined by stem or by an index CSV.

    SRC/images/a.png   SRC/labels/a.png   [SRC/classes/a.png]   [SRC/index.csv]

The index has columns `image` and `label` (paths from SRC, or from SRC/images and SRC/labels) and may have
id, source, group, organ, stain, mpp and any other column that a split can go by.
"""

import csv
import logging
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import cc3d
import numpy as np
from numpy.typing import NDArray

from hemalum.data.dataset import classes_by_instance
from hemalum.data.image import IMAGE_SUFFIXES, read_image, read_label_map
from hemalum.data.sample import Sample
from hemalum.errors import HemalumError

log = logging.getLogger(__name__)

CLASS_FOLDERS = ("classes", "types")


@dataclass(frozen=True)
class Pair:
    """An image file and its label file, with what the index says of them."""

    image: Path
    label: Path
    id: str
    classes: Path | None = None
    columns: dict[str, str] = field(default_factory=dict)
    where: str = ""


def read(
    path: Path | str,
    *,
    images: str = "images",
    labels: str = "labels",
    index: str | None = None,
    group: str | None = None,
) -> Iterator[Sample]:
    """Yield the samples of a folder in the order of its index, or of its file names.

    `images` and `labels` name the sub-folders. `index` names the CSV; by default index.csv is used when
    there is one. `group` is the column of the index that a split keeps together (default: `group` if there
    is such a column, else each image by itself). A label file with one value besides 0 and several pieces
    is taken as a binary mask: its connected components (8-neighbours) become the nuclei, which the log says.

    Raises HemalumError, naming file or row, for missing folders, pairs or columns, unreadable files and
    sizes that do not fit.
    """
    pairs = find_pairs(path, images=images, labels=labels, index=index)
    if group is not None and group != "image" and group not in pairs[0].columns:
        known = ", ".join(pairs[0].columns) or "none: there is no index"
        raise HemalumError(f"{path}: no column {group!r} to group by; columns are {known}")
    binary = 0
    for pair in pairs:
        image = read_image(pair.image)
        instances, was_binary = read_instances(pair.label)
        binary += was_binary
        if instances.shape != image.shape[:2]:
            raise HemalumError(
                f"{pair.label}: label map is {_size(instances)}, its image {pair.image.name} is {_size(image)}"
            )
        classes = None
        if pair.classes is not None:
            class_map = read_label_map(pair.classes)
            if class_map.shape != instances.shape:
                raise HemalumError(
                    f"{pair.classes}: class map is {_size(class_map)}, its image {_size(image)}"
                )
            classes = classes_by_instance(instances, class_map)
        columns = pair.columns
        by = group or ("group" if "group" in columns else "image")
        kept = pair.id if by == "image" else columns[by]
        if not kept:
            raise HemalumError(f"{pair.where}: {by} is empty; a split goes by it")
        mpp = _mpp(pair)
        yield Sample(
            image=image,
            instances=instances,
            id=pair.id,
            source=columns.get("source") or pair.id,
            group=kept,
            organ=columns.get("organ") or None,
            stain=columns.get("stain") or None,
            mpp=mpp,
            mpp_source=None if mpp is None else "file",
            classes=classes,
        )
    if binary:
        log.warning(
            "%s: %d of %d label files are binary masks; their connected components became the nuclei, "
            "touching nuclei are one",
            path,
            binary,
            len(pairs),
        )


def read_instances(path: Path) -> tuple[NDArray[np.int32], bool]:
    """(H, W) int32 instances of a label file, and whether it was a binary mask (then: its components)."""
    stored = read_label_map(path)
    if is_binary(stored):
        return cc3d.connected_components(stored > 0, connectivity=8, out_dtype=np.uint32).astype(
            np.int32
        ), True
    return stored, False


def is_binary(stored: NDArray[np.int32]) -> bool:
    """Whether a label file holds a binary mask: one value besides 0, in several pieces (or it is 255)."""
    values = np.unique(stored)
    values = values[values != 0]
    if len(values) != 1:
        return False
    pieces = int(cc3d.connected_components(stored > 0, connectivity=8).max())
    return pieces > 1 or int(values[0]) == 255


def find_pairs(
    path: Path | str, *, images: str = "images", labels: str = "labels", index: str | None = None
) -> list[Pair]:
    """The image and label files of a folder, joined; never empty. Raises HemalumError as `read` does."""
    path = Path(path)
    if not path.is_dir():
        raise HemalumError(f"{path}: no such folder")
    listed = path / (index or "index.csv")
    if index is not None and not listed.is_file():
        raise HemalumError(f"{listed}: no such index")
    pairs = list(
        _from_index(path, listed, images, labels) if listed.is_file() else _by_stem(path, images, labels)
    )
    if not pairs:
        raise HemalumError(f"{listed if listed.is_file() else path / images}: no images")
    repeated = [name for name, count in Counter(pair.id for pair in pairs).items() if count > 1]
    if repeated:
        raise HemalumError(f"{path}: the id {repeated[0]!r} occurs more than once; name the images apart")
    return pairs


def _by_stem(path: Path, images: str, labels: str) -> Iterator[Pair]:
    for folder in (path / images, path / labels):
        if not folder.is_dir():
            raise HemalumError(f"{folder}: no such folder; want {images}/ and {labels}/, or an index.csv")
    label_files = _files_by_stem(path / labels)
    image_files = _files_by_stem(path / images)
    for stem, image in image_files.items():
        if stem not in label_files:
            raise HemalumError(f"{image}: no label file named {stem}.* in {path / labels}")
    for stem, label in label_files.items():
        if stem not in image_files:
            raise HemalumError(f"{label}: no image named {stem}.* in {path / images}")
    for stem, image in image_files.items():
        yield Pair(image, label_files[stem], stem, _class_file(path, label_files[stem]), where=str(image))


def _files_by_stem(folder: Path) -> dict[str, Path]:
    files: dict[str, Path] = {}
    for file in sorted(folder.iterdir()):
        if file.is_dir() or file.name.startswith(".") or file.suffix.lower() not in IMAGE_SUFFIXES:
            continue
        if file.stem in files:
            raise HemalumError(f"{file}: {files[file.stem].name} has the same stem; keep one of them")
        files[file.stem] = file
    return files


def _from_index(path: Path, listed: Path, images: str, labels: str) -> Iterator[Pair]:
    try:
        with listed.open(newline="", encoding="utf-8-sig") as stream:
            reader = csv.DictReader(stream)
            for name in ("image", "label"):
                if name not in (reader.fieldnames or []):
                    raise HemalumError(f"{listed}: column {name!r} is missing; want at least image,label")
            for number, line in enumerate(reader, start=2):
                where = f"{listed}, row {number}"
                columns = {name: (value or "").strip() for name, value in line.items() if name is not None}
                found: dict[str, Path] = {}
                for name, folder in (("image", images), ("label", labels)):
                    if not columns[name]:
                        raise HemalumError(f"{where}: {name} is empty")
                    places = [path / folder / columns[name], path / columns[name]]
                    existing = [place for place in places if place.is_file()]
                    if not existing:
                        raise HemalumError(
                            f"{where}: {name} {columns[name]!r} is not in {path / folder} or {path}"
                        )
                    found[name] = existing[0]
                stem = Path(columns["image"]).stem
                yield Pair(
                    found["image"],
                    found["label"],
                    columns.get("id") or stem,
                    _class_file(path, found["label"]),
                    columns,
                    where,
                )
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise HemalumError(f"{listed}: cannot be read as CSV ({error})") from error


def _class_file(path: Path, label: Path) -> Path | None:
    for name in CLASS_FOLDERS:
        if (path / name).is_dir():
            file = path / name / f"{label.stem}.png"
            if not file.is_file():
                raise HemalumError(f"{file}: missing; {path / name} must have a class map for every image")
            return file
    return None


def _mpp(pair: Pair) -> float | None:
    text = pair.columns.get("mpp")
    if not text:
        return None
    try:
        return float(text)
    except ValueError:
        raise HemalumError(f"{pair.where}: mpp is {text!r}, not a number") from None


def _size(pixels: NDArray[np.int32] | NDArray[np.uint8]) -> str:
    return f"{pixels.shape[1]} x {pixels.shape[0]}"
