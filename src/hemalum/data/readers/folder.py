"""`folder`: what users have. Images with label maps or binary masks, joined by stem or by an index CSV.

    SRC/images/a.png   SRC/labels/a.png   [SRC/classes/a.png]   [SRC/index.csv]

The index has columns `image` and `label` (paths from SRC, or from SRC/images and SRC/labels) and may have
id, source, group, organ, stain, mpp and any other column that a split can go by.
"""

import csv
import logging
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from hemalum.data.dataset import classes_by_instance
from hemalum.data.image import IMAGE_SUFFIXES, read_image, read_label_map
from hemalum.data.label_maps import read_instances
from hemalum.data.readers.reader import Reader
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
    class_names: Mapping[int, str] | Sequence[str] | str | None = None,
) -> Iterator[Sample]:
    """Yield the samples of a folder in the order of its index, or of its file names.

    `images` and `labels` name the sub-folders. `index` names the CSV; by default index.csv is used when
    there is one. `group` is the column of the index that a split keeps together (default: `group` if there
    is such a column, else each image by itself). A label file with one value besides 0 and several pieces
    is taken as a binary mask: its connected components (8-neighbors) become the nuclei, which the log says.
    `class_names` names the ids of the class maps: by id, or in the order of the ids from 1 (in a string with
    commas between); without it classes are kept, and no model is trained or scored by them.

    Raises HemalumError, naming file or row, for missing folders, pairs or columns, unreadable files, sizes that
    do not fit, and class ids without a name where names are given.
    """
    names = classes_for(class_names=class_names)
    pairs = find_pairs(path, images=images, labels=labels, index=index)
    if group is not None and group != "image" and group not in pairs[0].columns:
        known = ", ".join(pairs[0].columns) or "none: there is no index"
        raise HemalumError(f"{path}: no column {group!r} to group by; columns are {known}")
    if names and pairs[0].classes is None:
        raise HemalumError(f"{path}: class_names without class maps; want a folder {' or '.join(CLASS_FOLDERS)}")
    if not names and pairs[0].classes is not None:
        log.warning("%s: class maps without names; give them as class_names=FIRST,SECOND,… to use them", path)
    binary = 0
    for pair in pairs:
        image = read_image(pair.image)
        instances, was_binary = read_instances(pair.label)
        binary += was_binary
        if instances.shape != image.shape[:2]:
            raise HemalumError(f"{pair.label}: label map is {_size(instances)}, its image {_size(image)}")
        classes = None
        if pair.classes is not None:
            class_map = read_label_map(pair.classes)
            if class_map.shape != instances.shape:
                raise HemalumError(f"{pair.classes}: class map is {_size(class_map)}, its image {_size(image)}")
            classes = classes_by_instance(instances, class_map)
            unnamed = sorted(set(classes.tolist()) - {0, *names})
            if names and unnamed:
                known = ", ".join(f"{number} {name}" for number, name in names.items())
                raise HemalumError(f"{pair.classes}: class {unnamed[0]} has no name; named are {known}")
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


def classes_for(
    *, class_names: Mapping[int, str] | Sequence[str] | str | None = None, **_others: object
) -> dict[int, str]:
    """Names of the classes by id, as `read` takes them; {} where none are given.

    Raises HemalumError for an empty or repeated name and for an id outside 1 to 255.
    """
    if class_names is None:
        return {}
    if isinstance(class_names, str):
        class_names = class_names.split(",")
    listed = class_names if isinstance(class_names, Mapping) else dict(enumerate(class_names, start=1))
    names = {int(number): str(name).strip() for number, name in listed.items()}
    shown = ", ".join(names.values())
    if "" in names.values() or len(set(names.values())) < len(names) or not names:
        raise HemalumError(f"class_names '{shown}': want different names in the order of the ids, from 1")
    if min(names) < 1 or max(names) > 255:
        raise HemalumError(f"class_names: ids are {min(names)} to {max(names)}, must be 1 to 255 (0 is no class)")
    return dict(sorted(names.items()))


def find_pairs(
    path: Path | str, *, images: str = "images", labels: str = "labels", index: str | None = None
) -> list[Pair]:
    """The image and label files of a folder, joined; never empty. Raises HemalumError as `read` does."""
    pairs, faults = survey(path, images=images, labels=labels, index=index)
    if faults:
        raise faults[0]
    return pairs


def survey(
    path: Path | str, *, images: str = "images", labels: str = "labels", index: str | None = None
) -> tuple[list[Pair], list[HemalumError]]:
    """The pairs that can be joined, and every fault that keeps the others from it."""
    path = Path(path)
    if not path.is_dir():
        return [], [HemalumError(f"{path}: no such folder")]
    listed = path / (index or "index.csv")
    if index is not None and not listed.is_file():
        return [], [HemalumError(f"{listed}: no such index")]
    indexed = listed.is_file()
    entries = list(_from_index(path, listed, images, labels) if indexed else _by_stem(path, images, labels))
    pairs = [item for item in entries if isinstance(item, Pair)]
    faults = [item for item in entries if isinstance(item, HemalumError)]
    if not entries:
        faults.append(HemalumError(f"{listed if indexed else path / images}: no images"))
    for name, count in Counter(pair.id for pair in pairs).items():
        if count > 1:
            faults.append(HemalumError(f"{path}: the id {name!r} occurs {count} times; name the images apart"))
    return pairs, faults


def _by_stem(path: Path, images: str, labels: str) -> Iterator[Pair | HemalumError]:
    missing = [folder for folder in (path / images, path / labels) if not folder.is_dir()]
    if missing:
        yield HemalumError(f"{missing[0]}: no such folder; want {images}/ and {labels}/, or an index.csv")
        return
    stems: list[dict[str, Path]] = []
    for folder in (path / images, path / labels):
        files: dict[str, Path] = {}
        for file in sorted(folder.iterdir()):
            if file.is_dir() or file.name.startswith(".") or file.suffix.lower() not in IMAGE_SUFFIXES:
                continue
            if file.stem in files:
                yield HemalumError(f"{file}: {files[file.stem].name} has the same stem; keep one of them")
            files[file.stem] = file
        stems.append(files)
    image_files, label_files = stems
    for stem, label in label_files.items():
        if stem not in image_files:
            yield HemalumError(f"{label}: no image named {stem}.* in {path / images}")
    for stem, image in image_files.items():
        if stem in label_files:
            yield _pair(path, image, label_files[stem], stem, {}, str(image))
        else:
            yield HemalumError(f"{image}: no label file named {stem}.* in {path / labels}")


def _from_index(path: Path, listed: Path, images: str, labels: str) -> Iterator[Pair | HemalumError]:
    try:
        with listed.open(newline="", encoding="utf-8-sig") as stream:
            reader = csv.DictReader(stream)
            for name in ("image", "label"):
                if name not in (reader.fieldnames or []):
                    yield HemalumError(f"{listed}: column {name!r} is missing; want at least image,label")
                    return
            for number, line in enumerate(reader, start=2):
                columns = {name: (value or "").strip() for name, value in line.items() if name is not None}
                yield _joined(path, columns, images, labels, f"{listed}, row {number}")
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        yield HemalumError(f"{listed}: cannot be read as CSV ({error})")


def _joined(path: Path, columns: dict[str, str], images: str, labels: str, where: str) -> Pair | HemalumError:
    files: list[Path] = []
    for name, folder in (("image", images), ("label", labels)):
        if not columns[name]:
            return HemalumError(f"{where}: {name} is empty")
        candidates = [path / folder / columns[name], path / columns[name]]
        existing = [file for file in candidates if file.is_file()]
        if not existing:
            return HemalumError(f"{where}: {name} {columns[name]!r} is neither in {path / folder} nor in {path}")
        files.append(existing[0])
    return _pair(path, files[0], files[1], columns.get("id") or Path(columns["image"]).stem, columns, where)


def _pair(
    path: Path, image: Path, label: Path, name: str, columns: dict[str, str], where: str
) -> Pair | HemalumError:
    for folder in CLASS_FOLDERS:
        if (path / folder).is_dir():
            classes = path / folder / f"{label.stem}.png"
            if not classes.is_file():
                return HemalumError(f"{classes}: missing; {folder}/ must have a class map for every image")
            return Pair(image, label, name, classes, columns, where)
    return Pair(image, label, name, None, columns, where)


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


READER = Reader(
    title="Your own folder: images with label maps or binary masks",
    read=read,
    group="image, or the column named group",
    classes_for=classes_for,
    markers=("labels/*.png", "labels/*.tif", "labels/*.tiff"),
)
