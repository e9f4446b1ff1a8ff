"""`lizard`: nuclei of six classes in H&E of the colon, as published (two archives of images, one of labels).

    SRC/[lizard_images1/]Lizard_Images1/*.png           8-bit RGB, sizes differ
    SRC/[lizard_images2/]Lizard_Images2/*.png
    SRC/[lizard_labels/]Lizard_Labels/Labels/*.mat      inst_map (H, W) int32; id (N, 1); class (N, 1);
                                                        bbox (N, 4), centroid (N, 2)
    SRC/[lizard_labels/]Lizard_Labels/info.csv          Filename, Source, Split (1, 2 or 3)

`class` goes in the order of `id`, which is not that of the values in inst_map.
Source: Graham et al., ICCV Workshops 2021.
"""

import logging
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from hemalum.data.annotations.arrays import read_mat
from hemalum.data.image import read_image
from hemalum.data.label_maps import same_size, to_integers
from hemalum.data.readers.files import first_file, read_csv
from hemalum.data.readers.reader import Reader
from hemalum.data.sample import Sample
from hemalum.data.splits import one_fold_tests
from hemalum.errors import HemalumError

log = logging.getLogger(__name__)

CLASSES = {1: "neutrophil", 2: "epithelial", 3: "lymphocyte", 4: "plasma", 5: "eosinophil", 6: "connective"}
FOLDS = (1, 2, 3)
# an archive unpacked into a folder of its own name gives one level more, in the archive's spelling
IMAGES = tuple(
    pattern.format(number)
    for number in (1, 2)
    for pattern in (
        "Lizard_Images{0}",
        "lizard_images{0}",
        "lizard_images{0}/Lizard_Images{0}",
        "Lizard_Images{0}/Lizard_Images{0}",
    )
)
LABELS = ("Lizard_Labels", "lizard_labels", "lizard_labels/Lizard_Labels", "Lizard_Labels/Lizard_Labels")


def read(path: Path | str) -> Iterator[Sample]:
    """Yield the samples in the order of their file names; `path` holds the unpacked archives.

    The fold of an image is its Split in info.csv; without that file there are no folds.

    Raises HemalumError for missing folders or labels, damaged .mat files, nuclei without a class, classes out
    of 1 to 6, and sizes that do not fit.
    """
    root = Path(path)
    labels = next((root / name / "Labels" for name in LABELS if (root / name / "Labels").is_dir()), None)
    if labels is None:
        raise HemalumError(f"{root}: no Lizard_Labels/Labels; want the three unpacked Lizard archives")
    images = sorted(
        {
            file.resolve(): file
            for name in IMAGES
            for file in (root / name).glob("*.png")
            if not file.name.startswith(".")
        }.values(),
        key=lambda file: file.stem,
    )
    if not images:
        raise HemalumError(f"{root}: no Lizard_Images1 or Lizard_Images2 with PNG images")
    folds = _folds(labels.parent / "info.csv")
    for file in images:
        label = first_file(labels / f"{file.stem}.mat", role=f"holds the labels of {file}")
        image = read_image(file)
        instances, classes = _nuclei(label, image)
        yield Sample(
            image=image,
            instances=instances,
            id=file.stem,
            organ="colon",
            stain="H&E",
            classes=classes,
            fold=folds.get(file.stem),
        )
    known = {file.stem for file in images}
    lost = sorted(file.stem for file in labels.glob("*.mat") if file.stem not in known)
    if lost:
        log.warning("%s: %d label files have no image, e.g. %s; is an archive missing?", root, len(lost), lost[0])


def _nuclei(file: Path, image: NDArray[np.uint8]) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
    """(H, W) instances and (max id + 1,) classes."""
    content = read_mat(file, {"inst_map": (None, None), "id": (None, None), "class": (None, None)})
    instances = to_integers(content["inst_map"], f"{file}: inst_map")
    same_size(f"{file}: inst_map", instances, image)
    ids = to_integers(content["id"].ravel(), f"{file}: id", largest=instances.size)
    class_ids = to_integers(content["class"].ravel(), f"{file}: class", largest=max(CLASSES))
    if len(ids) != len(class_ids):
        raise HemalumError(f"{file}: {len(ids)} ids but {len(class_ids)} classes; one belongs to each")
    if len(np.unique(ids)) != len(ids):
        raise HemalumError(f"{file}: id holds a number twice, so its class is not certain")
    if class_ids.size and class_ids.min() == 0:
        raise HemalumError(f"{file}: class holds 0; classes run from 1 to {max(CLASSES)}")
    classes = np.zeros(max(int(instances.max()), int(ids.max(initial=0))) + 1, np.int32)
    classes[ids] = class_ids
    present = np.flatnonzero(np.bincount(instances.ravel()))
    without = present[(present > 0) & (classes[present] == 0)]
    if without.size:
        raise HemalumError(f"{file}: nucleus {without[0]} of inst_map is not in id, so it has no class")
    return instances, classes[: int(instances.max()) + 1]


def _folds(info: Path) -> dict[str, int]:
    """Fold by file stem."""
    if not info.is_file():
        log.warning("%s: missing; without it there are no published folds", info)
        return {}
    folds: dict[str, int] = {}
    for where, row in read_csv(info, ("Filename", "Split"), "; want Filename,Source,Split"):
        if row["Split"] not in {str(fold) for fold in FOLDS}:
            raise HemalumError(f"{where}: Split is {row['Split']!r}, must be 1, 2 or 3")
        folds[row["Filename"].removesuffix(".png")] = int(row["Split"])
    return folds


READER = Reader(
    title="Lizard, H&E of the colon",
    read=read,
    group="image",
    license="CC-BY-NC-SA-4.0",
    citation="Graham et al., Lizard: a large-scale dataset for colonic nuclear instance segmentation and "
    "classification, ICCV Workshops, 684-693 (2021), doi:10.1109/ICCVW54120.2021.00082",
    url="https://warwick.ac.uk/lizard-dataset",
    mpp=0.5,
    mpp_note="20x, as published",
    size="238 images of 1016 x 917 px on average, 431,913 nuclei",
    classes=CLASSES,
    markers=("[Ll]izard_[Ll]abels/Labels", "[Ll]izard_[Ll]abels/Lizard_Labels"),
    published=one_fold_tests,
    published_rule="the three folds of info.csv by image: the fold tests, the other two train",
    folds=3,
)
