"""`pannuke`: nuclei of five classes in H&E of 19 organs, as published, or exported to PNG and .npy.

    SRC/Fold 1/images/fold1/images.npy   (N, 256, 256, 3) float64, whole numbers from 0 to 255
    SRC/Fold 1/images/fold1/types.npy    (N,) unicode: organ
    SRC/Fold 1/masks/fold1/masks.npy     (N, 256, 256, 6) float64: ids in one channel for each class, background
    SRC/Fold 2/…, SRC/Fold 3/…

    SRC/[fold0/]images/0_00000.png       8-bit RGB; the name begins with the fold, counted from 0
    SRC/[fold0/]labels/0_00000.npy       (2, 256, 256) whole numbers: instances, classes
    SRC/[fold0/]types.csv                img or image, type or tissue_type

Source: Gamper et al., ECDP 2019 and arXiv:2003.10778.
"""

import logging
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hemalum.data.annotations.arrays import NpyRows, read_npy
from hemalum.data.dataset import classes_by_instance
from hemalum.data.image import read_image
from hemalum.data.label_maps import same_size, to_integers
from hemalum.data.readers.files import first_file
from hemalum.data.readers.reader import Reader
from hemalum.data.sample import Sample
from hemalum.data.splits import Member, Part
from hemalum.errors import HemalumError
from hemalum.tables import read_table

log = logging.getLogger(__name__)

CLASSES = {1: "neoplastic", 2: "inflammatory", 3: "connective", 4: "dead", 5: "epithelial"}
# the folds that train, validate and test in the three runs of the publication
RUNS: dict[int, tuple[int, int, int]] = {1: (1, 2, 3), 2: (2, 1, 3), 3: (3, 2, 1)}
# an archive unpacked into a folder of its own gives one level more
FOLD_FOLDERS = ("Fold {0}", "fold{0}/Fold {0}", "fold_{0}/Fold {0}", "Fold{0}", "Fold_{0}", "fold{0}", "fold_{0}", "")
PLAIN_COPY = (
    "open it where you trust it, and save a plain array: "
    "numpy.save(file, numpy.stack([inst_map, type_map]).astype('int32'))"
)


def read(path: Path | str) -> Iterator[Sample]:
    """Yield the tiles by fold, in the order of the arrays or of the file names.

    One tile is in memory at a time. Nuclei are numbered anew, class by class in the order of their ids; a pixel
    in two of them stays with the first; an instance in several pieces is kept as given. The tiles do not say
    which slide they come from, so the group is the fold.

    Raises HemalumError for missing files, arrays of another shape or dtype or of Python objects, truncated
    files, and ids or classes out of range.
    """
    root = Path(path)
    folds = {fold: folder for fold in RUNS if (folder := _folder(root, fold)) is not None}
    if folds:
        for fold, folder in folds.items():
            yield from _read_arrays(folder, fold)
        return
    exported = [
        folder
        for folder in (root, *(root / f"fold{fold - 1}" for fold in RUNS))
        if (folder / "images").is_dir() and next((folder / "labels").glob("*.npy"), None) is not None
    ]
    if not exported:
        raise HemalumError(
            f"{root}: no 'Fold 1/images/fold1/images.npy' and no images/*.png with labels/*.npy; "
            "want the unpacked PanNuke archives, or their export"
        )
    for folder in exported:
        yield from _read_exported(folder)


def published(members: Sequence[Member], fold: int) -> dict[str, Part]:
    """The publication's three runs: which fold trains, validates and tests."""
    train, val, test = RUNS[fold]
    parts: dict[int, Part] = {train: "train", val: "val", test: "test"}
    return {member.id: parts[member.fold] for member in members if member.fold is not None}


def _folder(root: Path, fold: int) -> Path | None:
    for name in FOLD_FOLDERS:
        folder = root / name.format(fold)
        if (folder / "images" / f"fold{fold}" / "images.npy").is_file():
            return folder
    return None


def _read_arrays(folder: Path, fold: int) -> Iterator[Sample]:
    images = NpyRows(folder / "images" / f"fold{fold}" / "images.npy", (None, None, None, 3), "fu")
    masks = NpyRows(folder / "masks" / f"fold{fold}" / "masks.npy", (None, None, None, 6), "fui")
    organs = read_npy(
        folder / "images" / f"fold{fold}" / "types.npy",
        (None,),
        "U",
        "save it again as text: numpy.save(file, types.astype(str))",
    )
    if images.shape[:3] != masks.shape[:3] or len(organs) != len(images):
        raise HemalumError(
            f"{masks.path}: {len(images)} images, {len(masks)} masks and {len(organs)} types; "
            f"shapes are {images.shape} and {masks.shape}; the files must belong together"
        )
    shared = 0
    for index in range(len(images)):
        instances, classes, twice = _from_channels(masks[index], f"{masks.path}, image {index}")
        shared += twice
        yield Sample(
            image=_to_uint8(images[index], f"{images.path}, image {index}"),
            instances=instances,
            id=f"{fold}_{index:05d}",
            group=f"fold{fold}",
            organ=_organ(str(organs[index])),
            stain="H&E",
            classes=classes,
            fold=fold,
        )
    if shared:
        log.info("%s: %d pixels in two nuclei stay with the first", masks.path, shared)


def _from_channels(mask: NDArray[Any], where: str) -> tuple[NDArray[np.int32], NDArray[np.int32], int]:
    """Instances (H, W), classes by id, and how many pixels were in two nuclei."""
    instances = np.zeros(mask.shape[:2], np.int32)
    class_ids = [0]
    shared = 0
    for kind in CLASSES:
        channel = to_integers(mask[..., kind - 1], f"{where}: channel {kind - 1}")
        shared += int(np.count_nonzero(channel[instances > 0]))
        channel = np.where(instances > 0, 0, channel)
        ids = np.flatnonzero(np.bincount(channel.ravel()))[1:] if channel.min() == 0 else np.unique(channel)
        numbers = np.zeros(int(channel.max()) + 1, np.int32)
        numbers[ids] = np.arange(len(class_ids), len(class_ids) + len(ids))
        instances += numbers[channel]
        class_ids += [kind] * len(ids)
    return instances, np.array(class_ids, np.int32), shared


def _to_uint8(image: NDArray[Any], where: str) -> NDArray[np.uint8]:
    if image.dtype == np.uint8:
        return image
    return to_integers(image, where, largest=255).astype(np.uint8)


def _read_exported(folder: Path) -> Iterator[Sample]:
    organs = _organs(folder / "types.csv")
    for file in sorted(file for file in (folder / "images").glob("*.png") if not file.name.startswith(".")):
        label = first_file(folder / "labels" / f"{file.stem}.npy", role=f"holds the labels of {file}")
        number = file.stem.partition("_")[0]
        if number not in {str(fold - 1) for fold in RUNS}:
            raise HemalumError(f"{file}: the name must begin with the fold, 0_, 1_ or 2_")
        image = read_image(file)
        pair = read_npy(label, (2, None, None), "iuf", PLAIN_COPY)
        instances = to_integers(pair[0], f"{label}: instances")
        same_size(str(label), instances, image)
        classes = to_integers(pair[1], f"{label}: classes", largest=max(CLASSES))
        fold = int(number) + 1
        yield Sample(
            image=image,
            instances=instances,
            id=file.stem,
            group=f"fold{fold}",
            organ=organs.get(file.name),
            stain="H&E",
            classes=classes_by_instance(instances, classes),
            fold=fold,
        )


def _organs(file: Path) -> dict[str, str]:
    """Organ by image file name, from types.csv; none without it."""
    if not file.is_file():
        return {}
    organs = {}
    for row in read_table(file):
        values = list(row.values())
        if len(values) < 2 or not values[1]:
            raise HemalumError(f"{row.where}: want an image and its type")
        organs[values[0]] = _organ(values[1])
    return organs


def _organ(written: str) -> str:
    """ "Adrenal_gland" and "HeadNeck" as they are, but in lower case, as the other sets have theirs."""
    return written.strip().replace("_", " ").lower()


READER = Reader(
    title="PanNuke, H&E of 19 organs",
    read=read,
    group="fold",
    license="CC-BY-NC-SA-4.0",
    citation="Gamper et al., PanNuke: an open pan-cancer histology dataset for nuclei instance segmentation and "
    "classification, ECDP, 11-19 (2019), doi:10.1007/978-3-030-23937-4_2",
    url="https://warwick.ac.uk/fac/cross_fac/tia/data/pannuke",
    mpp=0.25,
    mpp_note="40x, as published",
    size="7,901 tiles of 256 x 256 px, 189,744 nuclei",
    classes=CLASSES,
    markers=(
        "Fold*/images/fold*/images.npy",
        "fold*/images/fold*/images.npy",
        "fold*/Fold*/images/fold*/images.npy",
        "images/fold*/images.npy",
        "images/[012]_*.png",
        "fold[012]/images/[012]_*.png",
    ),
    published=published,
    published_rule="three folds: 1 trains, 2 validates, 3 tests; or 2, 1, 3; or 3, 2, 1",
    folds=3,
)
