"""`conic`: the CoNIC challenge, 4,981 patches cut from Lizard, as published.

    SRC/images.npy       (N, 256, 256, 3) uint8
    SRC/labels.npy       (N, 256, 256, 2) uint16: instances, classes
    SRC/counts.csv       nuclei of each class by patch, in its central 224 x 224 pixels
    SRC/patch_info.csv   patch_info: "consep_1-0000", the patch 0000 of the image consep_1

Source: Graham et al., Medical Image Analysis 92, 103047 (2024).
"""

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from hemalum.data.annotations.arrays import NpyRows
from hemalum.data.dataset import classes_by_instance
from hemalum.data.label_maps import to_integers
from hemalum.data.readers.files import read_csv
from hemalum.data.readers.lizard import CLASSES
from hemalum.data.readers.reader import Reader
from hemalum.data.sample import Sample
from hemalum.data.splits import Member, Part, split_by_counts
from hemalum.errors import HemalumError

# the two-stage enhancement paper gives these counts and not which patches they are
COUNTS = (3842, 499, 640)


def read(path: Path | str) -> Iterator[Sample]:
    """Yield the patches in the order of the arrays; `path` holds the files, itself or in data/.

    One patch is in memory at a time. The group is the image that a patch was cut from.

    Raises HemalumError for missing files, arrays of another shape or dtype or of Python objects, truncated
    files, tables of another length, and ids or classes out of range.
    """
    root = Path(path)
    if not (root / "images.npy").is_file() and (root / "data" / "images.npy").is_file():
        root = root / "data"
    if not (root / "images.npy").is_file():
        raise HemalumError(f"{root}: no images.npy; want images.npy, labels.npy and patch_info.csv of CoNIC")
    images = NpyRows(root / "images.npy", (None, None, None, 3), "u")
    labels = NpyRows(root / "labels.npy", (None, None, None, 2), "ui")
    if images.dtype != np.uint8:
        raise HemalumError(f"{images.path}: holds {images.dtype}, want uint8")
    if images.shape[:3] != labels.shape[:3]:
        raise HemalumError(f"{labels.path}: shape is {labels.shape}, which does not fit images of {images.shape}")
    names = _names(root / "patch_info.csv", len(images))
    counts = root / "counts.csv"
    rows = len(list(read_csv(counts))) if counts.is_file() else len(images)
    if rows != len(images):
        raise HemalumError(f"{counts}: has {rows} rows, images.npy holds {len(images)}")
    for index, name in enumerate(names):
        where = f"{labels.path}, patch {index}"
        pair = labels[index]
        instances = to_integers(pair[..., 0], f"{where}: instances")
        classes = to_integers(pair[..., 1], f"{where}: classes", largest=max(CLASSES))
        yield Sample(
            image=images[index],
            instances=instances,
            id=name,
            source=source_of(name),
            group=source_of(name),
            organ="colon",
            stain="H&E",
            classes=classes_by_instance(instances, classes),
        )


def published(members: Sequence[Member], fold: int = 0) -> dict[str, Part]:
    """The two-stage paper's 3842, 499 and 640 patches, by source image and as near as those allow."""
    return split_by_counts(members, COUNTS)


def source_of(patch: str) -> str:
    """The image that a patch was cut from: "consep_1" of "consep_1-0000"."""
    return patch.rpartition("-")[0] or patch


def _names(file: Path, count: int) -> list[str]:
    if not file.is_file():
        raise HemalumError(f"{file}: missing; it names the image that each patch was cut from, and a split needs it")
    names = [row["patch_info"] for _, row in read_csv(file, ("patch_info",))]
    if len(names) != count:
        raise HemalumError(f"{file}: names {len(names)} patches, images.npy holds {count}")
    if "" in names:
        raise HemalumError(f"{file}, row {names.index('') + 2}: patch_info is empty")
    return names


READER = Reader(
    title="CoNIC challenge, patches of Lizard",
    read=read,
    group="source image",
    license="CC-BY-NC-SA-4.0",
    citation="Graham et al., CoNIC challenge: pushing the frontiers of nuclear detection, segmentation, "
    "classification and counting, Medical Image Analysis 92, 103047 (2024), doi:10.1016/j.media.2023.103047",
    url="https://conic-challenge.grand-challenge.org/Data/",
    mpp=0.5,
    mpp_note="20x, as published",
    size="4,981 patches of 256 x 256 px",
    classes=CLASSES,
    markers=("patch_info.csv", "data/patch_info.csv"),
    published=published,
    published_rule="3842/499/640 patches, the counts of the two-stage enhancement paper, which does not say "
    "which they are: here whole source images, as near to the counts as those allow",
)
