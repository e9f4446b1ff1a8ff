"""`kumar`: 30 images of seven organs from TCGA, H&E; as published, or as the authors of HoVer-Net give it on.

    SRC/[kumar/]train/Images/TCGA-….tif       1000 x 1000, RGB
    SRC/[kumar/]train/Labels/TCGA-….mat       inst_map (H, W)
    SRC/[kumar/]test_same/…, test_diff/…      organs that are, and are not, in the training part

    SRC/Tissue Images/TCGA-….tif              the first release, and the training set of MoNuSeg 2018
    SRC/Annotations/TCGA-….xml                outlines, as Aperio ImageScope writes them

Source: Kumar et al., IEEE Transactions on Medical Imaging 36, 1550 (2017).
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from hemalum.data.annotations.aperio_xml import read_aperio_xml
from hemalum.data.annotations.arrays import read_mat
from hemalum.data.annotations.outlines import draw_outlines
from hemalum.data.image import read_image
from hemalum.data.label_maps import same_size, to_integers
from hemalum.data.readers.files import first_file, list_images
from hemalum.data.readers.reader import Reader
from hemalum.data.sample import Sample
from hemalum.data.splits import Part
from hemalum.errors import HemalumError

# As the publication assigns them. Those under "liver" are slides of lung tumors in TCGA's own tables; we keep the
# word, since the published tables by organ use it.
ORGANS = {
    "breast": ("A7-A13E", "A7-A13F", "AR-A1AK", "AR-A1AS", "E2-A14V", "E2-A1B5"),
    "liver": ("18-5592", "21-5784", "21-5786", "38-6178", "49-4488", "50-5931"),
    "kidney": ("B0-5698", "B0-5710", "B0-5711", "HE-7128", "HE-7129", "HE-7130"),
    "prostate": ("CH-5767", "G9-6336", "G9-6348", "G9-6356", "G9-6362", "G9-6363"),
    "bladder": ("DK-A2I6", "G2-A2EK"),
    "colon": ("AY-A8YK", "NH-A8F7"),
    "stomach": ("KB-A93J", "RD-A8N9"),
}
TEST_SAME = ("E2-A1B5", "E2-A14V", "21-5784", "21-5786", "B0-5698", "B0-5710", "CH-5767", "G9-6362")
TEST_DIFF = tuple(case for organ in ("bladder", "colon", "stomach") for case in ORGANS[organ])
ORGAN_OF = {case: organ for organ, cases in ORGANS.items() for case in cases}
FOLDERS: tuple[tuple[str, Part], ...] = (("train", "train"), ("test_same", "test"), ("test_diff", "test"))
SUFFIXES = (".tif", ".tiff", ".png")


def read(path: Path | str, *, open_lines: Literal["refuse", "close"] = "refuse") -> Iterator[Sample]:
    """Yield the samples: train, test_same, test_diff, or all by file name; `path` holds the folders.

    The group is the patient (the TCGA barcode's first three fields); the part is test for both test sets. XML
    gives the scale as well, and `open_lines` says what becomes of its outlines that are not closed.

    Raises HemalumError for missing folders or labels, damaged files, ids out of range and sizes that do not
    fit.
    """
    for root in (Path(path), Path(path) / "kumar", Path(path) / "Kumar"):
        folders = [(root / name, part) for name, part in FOLDERS if (root / name / "Images").is_dir()]
        if folders:
            for folder, part in folders:
                yield from _read_mats(folder, part)
            return
        if (root / "Tissue Images").is_dir():
            yield from _read_outlines(root, open_lines)
            return
    raise HemalumError(
        f"{path}: no train/Images with test_same and test_diff, and no 'Tissue Images'; want the unpacked Kumar set"
    )


def case_of(name: str) -> str:
    """The patient of a TCGA barcode without its project: "A7-A13E" of "TCGA-A7-A13E-01Z-00-DX1"."""
    return "-".join(name.removeprefix("TCGA-").split("-")[:2])


def part_of(name: str) -> Part | None:
    """The published part of an image: both test sets are test; None for an image that is not of the 30."""
    case = case_of(name)
    if case not in ORGAN_OF:
        return None
    return "test" if case in (*TEST_SAME, *TEST_DIFF) else "train"


def _read_mats(folder: Path, part: Part) -> Iterator[Sample]:
    for file in list_images(folder / "Images", *SUFFIXES):
        label = first_file(folder / "Labels" / f"{file.stem}.mat", role=f"holds the labels of {file}")
        image = read_image(file)
        stored = read_mat(label, {"inst_map": (None, None)})["inst_map"]
        instances = to_integers(stored, f"{label}: inst_map")
        same_size(f"{label}: inst_map", instances, image)
        yield _sample(file, image, instances, part)


def _read_outlines(root: Path, open_lines: Literal["refuse", "close"]) -> Iterator[Sample]:
    for file in list_images(root / "Tissue Images", *SUFFIXES):
        label = first_file(root / "Annotations" / f"{file.stem}.xml", role=f"holds the outlines of {file}")
        image = read_image(file)
        annotations = read_aperio_xml(label, open_lines=open_lines)
        instances = draw_outlines(annotations.outlines, image.shape[:2], label)
        yield _sample(file, image, instances, part_of(file.stem), annotations.mpp)


def _sample(
    file: Path, image: NDArray[np.uint8], instances: NDArray[np.int32], part: Part | None, mpp: float | None = None
) -> Sample:
    return Sample(
        image=image,
        instances=instances,
        id=file.stem,
        group=case_of(file.stem),
        organ=ORGAN_OF.get(case_of(file.stem)),
        stain="H&E",
        mpp=mpp,
        mpp_source=None if mpp is None else "file",
        part=part,
    )


READER = Reader(
    title="Kumar, H&E of seven organs from TCGA",
    read=read,
    group="patient",
    license="CC-BY-NC-SA-4.0",
    citation="Kumar et al., A dataset and a technique for generalized nuclear segmentation for computational "
    "pathology, IEEE Trans. Med. Imaging 36, 1550-1560 (2017), doi:10.1109/TMI.2017.2677499",
    url="https://monuseg.grand-challenge.org/Data/",
    mpp=0.25,
    mpp_note="40x, as published",
    size="30 images of 1000 x 1000 px, 21,623 nuclei",
    markers=("test_same/Labels", "test_diff/Labels", "[Kk]umar/test_same", "Tissue Images/TCGA-*.tif"),
    published_rule="16 images train; test_same and test_diff, 8 and 6 images, test",
)
