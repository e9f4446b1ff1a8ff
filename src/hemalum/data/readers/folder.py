"""`folder`: what users have. Images with label maps or binary masks, joined by stem or by an index CSV.

    SRC/images/a.png   SRC/labels/a.png   [SRC/classes/a.png]   [SRC/index.csv]

The index has columns `image` and `label` (paths from SRC, or from SRC/images and SRC/labels) and may have
id, source, group, organ, stain, mpp and any other column that a split can go by.
"""

import logging
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from hemalum.data.dataset import classes_by_instance
from hemalum.data.image import read_image, read_label_map
from hemalum.data.label_maps import read_instances, same_size
from hemalum.data.readers.files import find_index, find_listed, images_by_stem, read_csv
from hemalum.data.readers.reader import Reader
from hemalum.data.sample import Sample
from hemalum.errors import HemalumError
from hemalum.tables import TableRow, as_posix

log = logging.getLogger(__name__)

CLASS_FOLDERS = ("classes", "types")


@dataclass(frozen=True)
class Pair:
    """An image file and its label file, with what the index says of them."""

    image: Path
    label: Path
    id: str
    classes: Path | None = None
    columns: TableRow | dict[str, str] = field(default_factory=dict)
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
        same_size(pair.label, instances, image, "label map is {}, its image {}")
        classes = None
        if pair.classes is not None:
            class_map = read_label_map(pair.classes)
            same_size(pair.classes, class_map, image, "class map is {}, its image {}")
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
        mpp = columns.value("mpp") if isinstance(columns, TableRow) else None
        yield Sample(
            image=image,
            instances=instances,
            id=pair.id,
            source=columns.get("source", ""),
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
    try:
        listed = find_index(path, index)
    except HemalumError as error:
        return [], [error]
    entries = list(_from_index(path, listed, images, labels) if listed else _by_stem(path, images, labels))
    pairs = [item for item in entries if isinstance(item, Pair)]
    faults = [item for item in entries if isinstance(item, HemalumError)]
    if not entries:
        faults.append(HemalumError(f"{listed or path / images}: no images"))
    for name, count in Counter(pair.id for pair in pairs).items():
        if count > 1:
            faults.append(HemalumError(f"{path}: the id {name!r} occurs {count} times; name the images apart"))
    return pairs, faults


def _by_stem(path: Path, images: str, labels: str) -> Iterator[Pair | HemalumError]:
    missing = [folder for folder in (path / images, path / labels) if not folder.is_dir()]
    if missing:
        yield HemalumError(f"{missing[0]}: no such folder; want {images}/ and {labels}/, or an index.csv")
        return
    image_files, faults = images_by_stem(path / images)
    label_files, more_faults = images_by_stem(path / labels)
    yield from faults + more_faults
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
        for where, columns in read_csv(listed, ("image", "label"), "; want at least image,label"):
            name = columns.get("id") or Path(as_posix(columns["image"])).stem
            try:
                image = find_listed(path, images, columns, "image", where)
                label = find_listed(path, labels, columns, "label", where)
                yield _pair(path, image, label, name, columns, where)
            except HemalumError as error:
                yield error
    except HemalumError as error:
        yield error


def _pair(
    path: Path, image: Path, label: Path, name: str, columns: TableRow | dict[str, str], where: str
) -> Pair | HemalumError:
    for folder in CLASS_FOLDERS:
        if (path / folder).is_dir():
            classes = path / folder / f"{label.stem}.png"
            if not classes.is_file():
                return HemalumError(f"{classes}: missing; {folder}/ must have a class map for every image")
            return Pair(image, label, name, classes, columns, where)
    return Pair(image, label, name, None, columns, where)


READER = Reader(
    title="Your own folder: images with label maps or binary masks",
    read=read,
    group="image, or the column named group",
    classes_for=classes_for,
    markers=("labels/*.png", "labels/*.tif", "labels/*.tiff"),
)
