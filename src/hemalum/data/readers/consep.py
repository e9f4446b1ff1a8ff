"""`consep`: nuclei of seven classes in H&E of colorectal tumors, as published.

    SRC/[CoNSeP/]Train/Images/train_1.png   1000 x 1000, RGB(A)
    SRC/[CoNSeP/]Train/Labels/train_1.mat   inst_map, type_map (H, W) float64; inst_type (N, 1);
                                            inst_centroid (N, 2)
    SRC/[CoNSeP/]Test/…

Source: Graham et al., HoVer-Net, Medical Image Analysis 58, 101563 (2019).
"""

from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np

from hemalum.data.annotations.arrays import read_mat
from hemalum.data.dataset import classes_by_instance
from hemalum.data.image import read_image
from hemalum.data.label_maps import same_size, to_integers
from hemalum.data.readers.files import first_file, list_images
from hemalum.data.readers.reader import Reader
from hemalum.data.sample import Sample
from hemalum.data.splits import Part
from hemalum.errors import HemalumError

CLASSES = {
    1: "other",
    2: "inflammatory",
    3: "healthy epithelial",
    4: "dysplastic or malignant epithelial",
    5: "fibroblast",
    6: "muscle",
    7: "endothelial",
}
MERGED_CLASSES = {1: "other", 2: "inflammatory", 3: "epithelial", 4: "spindle-shaped"}
MERGED = np.array([0, 1, 2, 3, 3, 4, 4, 4], np.int32)  # by class of the seven; the publication's own merging
PARTS: tuple[tuple[str, Part], ...] = (("Train", "train"), ("Test", "test"))


def read(path: Path | str, *, merged: bool = False) -> Iterator[Sample]:
    """Yield the samples, the training part first; `path` holds Train and Test, itself or in CoNSeP/.

    `merged` gives the four classes that the publication evaluates instead of the seven that it labels. The
    set does not say which images are of one patient (41 of 16), so the group is the image.

    Raises HemalumError for missing folders or labels, damaged .mat files, classes out of range and sizes that
    do not fit.
    """
    root = Path(path)
    if not (root / "Train").is_dir() and not (root / "Test").is_dir():
        root = root / "CoNSeP"
    folders = [(root / name, part) for name, part in PARTS if (root / name / "Images").is_dir()]
    if not folders:
        raise HemalumError(f"{path}: no Train/Images and no Test/Images; want the unpacked CoNSeP archive")
    for folder, part in folders:
        for file in list_images(folder / "Images", ".png"):
            label = first_file(folder / "Labels" / f"{file.stem}.mat", role=f"holds the labels of {file}")
            image = read_image(file)
            content = read_mat(label, {"inst_map": (None, None), "type_map": (None, None)})
            instances = to_integers(content["inst_map"], f"{label}: inst_map")
            same_size(f"{label}: inst_map", instances, image)
            types = to_integers(content["type_map"], f"{label}: type_map", largest=max(CLASSES))
            same_size(f"{label}: type_map", types, image)
            classes = classes_by_instance(instances, types)
            yield Sample(
                image=image,
                instances=instances,
                id=file.stem,
                organ="colon",
                stain="H&E",
                classes=MERGED[classes] if merged else classes,
                part=part,
            )


def classes_for(*, merged: bool = False, **_others: object) -> Mapping[int, str]:
    """Names of the classes under the reader's options."""
    return MERGED_CLASSES if merged else CLASSES


READER = Reader(
    title="CoNSeP, H&E of colorectal tumors",
    read=read,
    group="image",
    license="research use (no license stated)",
    citation="Graham et al., HoVer-Net: simultaneous segmentation and classification of nuclei in multi-tissue "
    "histology images, Medical Image Analysis 58, 101563 (2019), doi:10.1016/j.media.2019.101563",
    url="https://warwick.ac.uk/fac/cross_fac/tia/data/hovernet/",
    mpp=0.25,
    mpp_note="40x, as published",
    size="41 images of 1000 x 1000 px, 24,319 nuclei",
    classes=CLASSES,
    classes_for=classes_for,
    markers=("Train/Labels/train_*.mat", "Test/Labels/test_*.mat", "CoNSeP/Train/Labels"),
    published_rule="Train and Test, 27 and 14 images",
)
