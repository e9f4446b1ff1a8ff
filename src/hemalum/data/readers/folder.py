"""`folder`: what users have. Images with label maps, binary masks or outlines, joined by name or by an index CSV.

    SRC/images/a.png   SRC/labels/a.png   [SRC/classes/a.png]   [SRC/index.csv]

The index has columns `image` and `label` (paths from SRC, or from SRC/images and SRC/labels) and may have
id, source, group, organ, stain, mpp and any other column that a split can go by.
"""

import logging
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from hemalum.data.annotations import DrawnSummary, class_names_in
from hemalum.data.dataset import classes_by_instance
from hemalum.data.image import read_image
from hemalum.data.label_files import (
    apart,
    is_label_word,
    join_labels,
    list_class_files,
    list_images,
    list_label_files,
    near_name,
    same_stem,
    stem_of,
    without_tail,
)
from hemalum.data.label_formats import is_drawn
from hemalum.data.label_maps import read_class_map, read_instances, same_size
from hemalum.data.readers.files import find_index, find_listed, read_csv, safe_name, stated_mpp
from hemalum.data.readers.reader import Reader
from hemalum.data.sample import Sample
from hemalum.errors import HemalumError
from hemalum.remarks import remark
from hemalum.tables import as_posix

log = logging.getLogger(__name__)

CLASS_FOLDERS = ("classes", "types")


@dataclass(frozen=True)
class Pair:
    """An image file and its label file, with what the index says of them."""

    image: Path
    label: Path
    id: str
    classes: Path | None = None
    columns: Mapping[str, str] = field(default_factory=dict)
    mpp: float | None = None
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
    is taken as a binary mask: its connected components (8-neighbors) become the nuclei, which the log says. Outlines
    are drawn; the regions among them say what is annotated (`annotations.drawn_labels`).
    `class_names` names the ids of the class maps: by id, or in the order of the ids from 1 (in a string with
    commas between); without it classes are kept, and no model is trained or scored by them. Outlines have their
    classes by name; without `class_names` these are all that the files name, in the order of the alphabet.

    Raises HemalumError, naming file or row, for missing folders, pairs or columns, unreadable files, sizes that
    do not fit, and class ids without a name where names are given.
    """
    pairs = find_pairs(path, images=images, labels=labels, index=index, group=group)
    names = _name_classes(class_names, pairs)
    if group is not None and group != "image" and group not in pairs[0].columns:
        known = ", ".join(pairs[0].columns) or "none: there is no index"
        raise HemalumError(f"{path}: no column {group!r} to group by; columns are {known}")
    if names and pairs[0].classes is None and not any(is_drawn(pair.label) for pair in pairs):
        raise HemalumError(f"{path}: class_names without class maps; want a folder {' or '.join(CLASS_FOLDERS)}")
    if not names and pairs[0].classes is not None:
        log.warning("%s: class maps without names; give them as class_names=FIRST,SECOND,… to use them", path)
    binary, drawn = 0, DrawnSummary()
    for pair in pairs:
        image = read_image(pair.image)
        shape = image.shape[0], image.shape[1]
        read_labels = read_instances(pair.label, shape, pair.image)
        instances = read_labels.labels
        binary += read_labels.was_mask
        for doubt in read_labels.doubts:
            remark(pair.label, doubt.message, doubt.kind)
        same_size(pair.label, instances, image, "label map is {}, its image {}")
        classes = unannotated = None
        if read_labels.drawn is not None:
            drawn.add(read_labels.drawn)
            instances, unannotated = read_labels.drawn.annotated(), read_labels.drawn.unannotated
        if pair.classes is None and read_labels.drawn is not None and names:
            classes = read_labels.drawn.classes(names, pair.label)[: instances.max() + 1]
        elif pair.classes is not None:
            class_map = read_class_map(pair.classes, shape, pair.image)
            same_size(pair.classes, class_map, image, "class map is {}, its image {}")
            if class_map.max() > 255:
                raise HemalumError(f"{pair.classes}: class ids up to {class_map.max()}; they must be 0 to 255")
            classes = classes_by_instance(instances, class_map)
            unnamed = sorted(set(classes.tolist()) - {0, *names})
            if names and unnamed:
                known = ", ".join(f"{number} {name}" for number, name in names.items())
                raise HemalumError(f"{pair.classes}: class {unnamed[0]} has no name; named are {known}")
        columns = pair.columns
        by = _group_column(pair, group)
        yield Sample(
            image=image,
            instances=instances,
            id=pair.id,
            source=columns.get("source", ""),
            group=pair.id if by == "image" else columns[by],
            organ=columns.get("organ") or None,
            stain=columns.get("stain") or None,
            mpp=pair.mpp,
            mpp_source=None if pair.mpp is None else "file",
            classes=classes,
            unannotated=unannotated,
        )
    drawn.log(path)
    if binary:
        log.warning(
            "%s: %d of %d label files are binary masks; their connected components became the nuclei, "
            "touching nuclei are one",
            path,
            binary,
            len(pairs),
        )


def classes_for(
    *,
    path: Path | str | None = None,
    images: str = "images",
    labels: str = "labels",
    index: str | None = None,
    group: str | None = None,
    class_names: Mapping[int, str] | Sequence[str] | str | None = None,
    **_others: object,
) -> dict[int, str]:
    """Names of the classes by id, as `read` takes them; where none are given those of the outlines, else {}.

    Raises HemalumError for an empty or repeated name and for an id outside 1 to 255.
    """
    if class_names is not None or path is None:
        return _name_classes(class_names, [])
    return _name_classes(None, find_pairs(path, images=images, labels=labels, index=index, group=group))


def _name_classes(
    class_names: Mapping[int, str] | Sequence[str] | str | None, pairs: Sequence[Pair]
) -> dict[int, str]:
    if class_names == {}:  # it is known that there are none
        return {}
    if class_names is None:
        drawn = [pair.label for pair in pairs if pair.classes is None and is_drawn(pair.label)]
        class_names = class_names_in(drawn)
        if not class_names:
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
    path: Path | str,
    *,
    images: str = "images",
    labels: str = "labels",
    index: str | None = None,
    group: str | None = None,
) -> list[Pair]:
    """The image and label files of a folder, joined; never empty. Raises HemalumError as `read` does."""
    pairs, faults = survey(path, images=images, labels=labels, index=index, group=group)
    if faults:
        raise faults[0]
    return pairs


def survey(
    path: Path | str,
    *,
    images: str = "images",
    labels: str = "labels",
    index: str | None = None,
    group: str | None = None,
) -> tuple[list[Pair], list[HemalumError]]:
    """The pairs that can be joined, and every fault that keeps them from being read; `group` as of `read`."""
    path = Path(path)
    try:
        listed = find_index(path, index)
    except HemalumError as error:
        return [], [error]
    entries = list(_from_index(path, listed, images, labels) if listed else _by_stem(path, images, labels))
    entries = list(_with_classes(path, entries))
    pairs = [item for item in entries if isinstance(item, Pair)]
    faults = [item for item in entries if isinstance(item, HemalumError)]
    if not entries:
        faults.append(HemalumError(f"{listed or path / images}: no images"))
    for pair in pairs:
        by = _group_column(pair, group)
        if by in pair.columns and not pair.columns[by]:
            faults.append(HemalumError(f"{pair.where}: {by} is empty; a split goes by it"))
        if not safe_name(pair.id):
            faults.append(HemalumError(f"{pair.where}: id {pair.id!r} has no letter or digit to name a file by"))
    for name, count in Counter(safe_name(pair.id) for pair in pairs).items():
        if name and count > 1:
            faults.append(HemalumError(f"{path}: the id {name!r} occurs {count} times; name the images apart"))
    return pairs, faults


def _group_column(pair: Pair, group: str | None) -> str:
    """The column of an index that a split goes by; "image" for each image by itself."""
    return group or ("group" if "group" in pair.columns else "image")


def _by_stem(path: Path, images: str, labels: str) -> Iterator[Pair | HemalumError]:
    try:
        image_folder, label_folder, image_files, label_files = _folders(path, images, labels)
    except HemalumError as error:
        yield error
        return
    by_stem: dict[str, Path] = {}
    for image in image_files:
        if image.stem in by_stem:
            yield HemalumError(f"{image}: {by_stem[image.stem].name} has the same stem; keep one of them")
        by_stem[image.stem] = image
    joined = join_labels(label_files, by_stem)
    alone = [image for name, image in by_stem.items() if name not in joined.by_image]
    for label in joined.unmatched:
        name = without_tail(stem_of(label))
        yield HemalumError(f"{label}: no image named {name}.* in {image_folder}{near_name(label, alone)}")
    for label, names in joined.ambiguous.items():
        yield HemalumError(f"{label}: fits the images {' and '.join(names[:2])} as well; join them in index.csv")
    if joined.passed_over:
        first = ", ".join(file.name for file in joined.passed_over[:5])
        more = ", …" if len(joined.passed_over) > 5 else ""
        remark(label_folder, f"not read, since nearer label files are there: {first}{more}")
    for name, image in by_stem.items():
        try:
            file = joined.file_of(name)
        except HemalumError as error:
            yield error
            continue
        if file is not None:
            yield Pair(image, file, name, where=str(image))
        else:
            near = same_stem(label_folder, image) or near_name(image, joined.unmatched)
            yield HemalumError(f"{image}: no label file named {name}.* in {label_folder}{near}")


def _folders(path: Path, images: str, labels: str) -> tuple[Path, Path, list[Path], list[Path]]:
    """Where images and labels lie, and the files; both in one folder where there is no other for the labels."""
    image_folder, label_folder = path / images, path / labels
    missing = [folder for folder in (image_folder, label_folder) if not folder.is_dir()]
    if not missing and image_folder.resolve() != label_folder.resolve():
        return image_folder, label_folder, list_images(image_folder), list_label_files(label_folder)
    shared = image_folder if image_folder.is_dir() else path
    image_files, label_files = apart(shared)
    asked = {folder.name for folder in missing} - {"images", "labels"}
    if (missing and not label_files) or asked or missing == [image_folder]:
        inside = [folder.name for folder in sorted(path.iterdir()) if folder.is_dir() and is_label_word(folder.name)]
        hint = f"; there is {inside[0]}/ (--labels {inside[0]})" if inside and label_folder in missing else ""
        raise HemalumError(f"{missing[0]}: no such folder; want {images}/ and {labels}/, or an index.csv{hint}")
    return shared, shared, image_files, label_files


def _from_index(path: Path, listed: Path, images: str, labels: str) -> Iterator[Pair | HemalumError]:
    try:
        for where, columns in read_csv(listed, ("image", "label"), "; want at least image,label"):
            name = columns.get("id") or Path(as_posix(columns["image"])).stem
            try:
                image = find_listed(path, images, columns, "image", where)
                label = find_listed(path, labels, columns, "label", where)
                yield Pair(image, label, name, None, columns, stated_mpp(columns), where)
            except HemalumError as error:
                yield error
    except HemalumError as error:
        yield error


def _with_classes(path: Path, entries: Sequence[Pair | HemalumError]) -> Iterator[Pair | HemalumError]:
    """The pairs with their class maps, which are called like the label files, or like the images."""
    folder = next((path / name for name in CLASS_FOLDERS if (path / name).is_dir()), None)
    if folder is None:
        yield from entries
        return
    files = list_class_files(folder)
    pairs = [entry for entry in entries if isinstance(entry, Pair)]
    by_label = join_labels(files, [stem_of(pair.label) for pair in pairs], classes=True)
    by_image = join_labels(files, [pair.image.stem for pair in pairs], classes=True)
    for entry in entries:
        if isinstance(entry, HemalumError):
            yield entry
            continue
        try:
            classes = by_label.file_of(stem_of(entry.label)) or by_image.file_of(entry.image.stem)
        except HemalumError as error:
            yield error
            continue
        if classes is None:
            missing = folder / f"{stem_of(entry.label)}.png"
            yield HemalumError(f"{missing}: missing; {folder.name}/ must have a class map for every image")
        else:
            yield replace(entry, classes=classes)


READER = Reader(
    title="Your own folder: images with label maps, binary masks or outlines",
    read=read,
    group="image, or the column named group",
    classes_for=classes_for,
    markers=("labels/*.png", "labels/*.tif", "labels/*.tiff", "labels/*.geojson"),
)
