"""`cryonuseg`: CryoNuSeg, H&E cryosections of 10 human organs, as published.

    SRC/tissue images/Human_AdrenalGland_01.tif                                      512 x 512, RGB
    SRC/Annotator 1 (biologist)/label masks modify/Human_AdrenalGland_01.tif         label map, uint16
    SRC/Annotator 1 (biologist)/label masks/…                                        overlaps have ids of their own
    SRC/Annotator 1 (biologist)/mask binary/Human_AdrenalGland_01.png                0/255
    SRC/Annotator 1 (biologist)/…/Human_AdrenalGland_01.zip                          RoiSet of ImageJ
    SRC/Annotator 1 (biologist second round of manual marks up)/(the same name)/…    its second round
    SRC/Annotator 2 (bioinformatician)/(the same name)/…                             another annotator

The authors' repository has single cases in another form, which unpacked is

    SRC/TCGA-DE-A4MA/RoiSet.zip        RoiSet of ImageJ
    SRC/TCGA-DE-A4MA/TCGA-DE-….tif     the image

Source: Mahbod et al., Computers in Biology and Medicine 132, 104349 (2021); github.com/masih4/CryoNuSeg.
"""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from hemalum.data.annotations.imagej_rois import read_roi_set
from hemalum.data.annotations.outlines import draw_outlines
from hemalum.data.image import read_image
from hemalum.data.label_maps import components, same_size
from hemalum.data.label_pixels import read_label_map
from hemalum.data.readers.files import first_file, list_images
from hemalum.data.readers.reader import Reader
from hemalum.data.sample import Sample
from hemalum.errors import HemalumError

IMAGES = "tissue images"
ROIS = "rois"
ANNOTATORS = {
    "1": "Annotator 1 (biologist)",
    "1-again": "Annotator 1 (biologist second round of manual marks up)",
    "2": "Annotator 2 (bioinformatician)",
}
ORGANS = {
    "AdrenalGland": "adrenal gland",
    "LymphNodes": "lymph nodes",
    "ThyroidGland": "thyroid gland",
}


def read(
    path: Path | str,
    *,
    annotator: Literal["1", "1-again", "2"] = "1",
    variant: str = "label masks modify",
) -> Iterator[Sample]:
    """Yield the samples by name; `path` holds "tissue images", itself or one level down, or case folders.

    `variant` names the folder of labels: "label masks modify" (each overlap given to one nucleus), "label
    masks", one of the binary masks, whose 8-connected components become the nuclei, or "rois": the outlines
    of the RoiSets, drawn by us (`draw_outlines`: the smaller nucleus has an overlap, and pixel centers lie at
    half coordinates, while the published label maps lie half a pixel off). Case folders have RoiSets only.
    Each image is of another patient, so the group is the image.

    Raises HemalumError for missing folders or labels, unreadable or hostile files, sizes that do not fit.
    """
    if annotator not in ANNOTATORS:
        raise HemalumError(f"annotator {annotator!r}: choices are {', '.join(ANNOTATORS)}")
    root = Path(path)
    cases = _cases(root)
    if cases:
        for file, rois in cases:
            image = read_image(file)
            instances = _draw(rois, image)
            yield Sample(image=image, instances=instances, id=file.stem, group=file.parent.name, stain="H&E")
        return
    root = next((root for root in (root, *_folders(root)) if (root / IMAGES).is_dir()), root)
    if not (root / IMAGES).is_dir():
        packed = sorted(file.name for file in root.glob("TCGA-*.zip"))
        first = f", or the cases as folders: unpack {packed[0]} and the others first" if packed else ""
        raise HemalumError(f"{path}: no '{IMAGES}'; want the unpacked CryoNuSeg archive{first}")
    truth = _truth(root, ANNOTATORS[annotator])
    for file in list_images(root / IMAGES, ".tif"):
        image = read_image(file)
        instances = _draw(_roi_set(truth, file), image) if variant == ROIS else _labels(truth, variant, file, image)
        named = re.fullmatch(r"Human_([A-Za-z]+)_\d+", file.stem)
        organ = None if named is None else ORGANS.get(named[1], named[1].lower())
        yield Sample(image=image, instances=instances, id=file.stem, organ=organ, stain="H&E")


def _folders(path: Path) -> list[Path]:
    return sorted(folder for folder in path.iterdir() if folder.is_dir()) if path.is_dir() else []


def _cases(root: Path) -> list[tuple[Path, Path]]:
    """Image and RoiSet of each case folder."""
    cases = []
    for folder in (root, *_folders(root)):
        rois = folder / "RoiSet.zip"
        if rois.is_file():
            files = sorted(file for file in folder.glob("*.tif") if not file.name.startswith("."))
            if len(files) != 1:
                raise HemalumError(f"{folder}: holds {len(files)} .tif files, want the one image of RoiSet.zip")
            cases.append((files[0], rois))
    return cases


def _truth(root: Path, name: str) -> Path:
    # two of the three are packed in a folder of the same name
    for folder in (root / name / name, root / name):
        if folder.is_dir():
            return folder
    known = ", ".join(sorted(folder.name for folder in root.glob("Annotator*") if folder.is_dir()))
    raise HemalumError(f"{root / name}: no such annotator; there are {known or 'none'}")


def _labels(truth: Path, variant: str, image_file: Path, image: NDArray[np.uint8]) -> NDArray[np.int32]:
    folder = truth / variant
    if not folder.is_dir():
        known = ", ".join(sorted(item.name for item in truth.iterdir() if item.is_dir()))
        raise HemalumError(f"{folder}: no such folder of labels; there are {known or 'none'}, and '{ROIS}'")
    candidates = [folder / f"{image_file.stem}{suffix}" for suffix in (".tif", ".png")]
    file = first_file(*candidates, role=f"holds the labels of {image_file.name}")
    labels = read_label_map(file)
    same_size(file, labels, image, "label map is {}, its image {}")
    return components(labels) if "binary" in variant else labels


def _roi_set(truth: Path, image_file: Path) -> Path:
    # the folder's name differs between hosts ("Imagj_zips", "ImageJ zip files"): the file's name does not
    archives = sorted((*truth.glob(f"{image_file.stem}.zip"), *truth.glob(f"*/{image_file.stem}.zip")))
    if not archives:
        raise HemalumError(f"{truth}: no {image_file.stem}.zip in it; it holds the RoiSet of {image_file.name}")
    return archives[0]


def _draw(rois: Path, image: NDArray[np.uint8]) -> NDArray[np.int32]:
    return draw_outlines(read_roi_set(rois), image.shape[:2], rois)


READER = Reader(
    title="CryoNuSeg, H&E cryosections of 10 organs from TCGA",
    read=read,
    group="image, each of another patient",
    license="CC-BY-NC-SA-4.0",
    citation="Mahbod et al., CryoNuSeg: a dataset for nuclei instance segmentation of cryosectioned H&E-stained "
    "histological images, Computers in Biology and Medicine 132, 104349 (2021), "
    "doi:10.1016/j.compbiomed.2021.104349",
    url="https://www.kaggle.com/datasets/ipateam/segmentation-of-nuclei-in-cryosectioned-he-images",
    mpp=0.25,
    mpp_note="40x, as published",
    size="30 images of 512 x 512 px, 7,596 nuclei (annotator 1; again 8,044; annotator 2 8,251)",
    markers=("Annotator [12] (bio*", "*/Annotator [12] (bio*", "RoiSet.zip", "*/RoiSet.zip"),
)
