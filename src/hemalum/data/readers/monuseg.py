"""`monuseg`: MoNuSeg 2018, H&E of several organs (TCGA), as published.

    SRC/MoNuSeg 2018 Training Data/Tissue Images/TCGA-A7-A13E-01Z-00-DX1.tif    1000 x 1000, RGB
    SRC/MoNuSeg 2018 Training Data/Annotations/TCGA-A7-A13E-01Z-00-DX1.xml      outlines, Aperio XML
    SRC/MoNuSegTestData/TCGA-2Z-A9J9-01A-01-TS1.tif and .xml                    side by side

Source: Kumar et al., IEEE Transactions on Medical Imaging 39, 1380 (2020); monuseg.grand-challenge.org.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Literal

from hemalum.data.annotations.aperio_xml import read_aperio_xml
from hemalum.data.annotations.outlines import draw_outlines
from hemalum.data.image import read_image
from hemalum.data.readers import kumar
from hemalum.data.readers.reader import Reader
from hemalum.data.sample import Sample
from hemalum.data.splits import Part
from hemalum.errors import HemalumError

DEPTH = 4  # both archives unpack to a folder within a folder of the same name
FORTY_TIMES = (0.2, 0.3)  # µm per px; a scale in the XML outside of it contradicts the publication

# as the challenge lists its test images, beside those of the training part that it shares with Kumar's set
TEST_ORGANS = {
    "bladder": ("CU-A0YN", "ZF-A9R5"),
    "brain": ("FG-A4MU", "HT-8564"),
    "breast": ("AC-A2FO", "AO-A0J2"),
    "colon": ("A6-6782",),
    "kidney": ("2Z-A9J9", "GL-6846", "IZ-8196"),
    "lung": ("44-2665", "69-7764"),
    "prostate": ("EJ-A46H", "HC-7209"),
}
ORGAN_OF = kumar.ORGAN_OF | {case: organ for organ, cases in TEST_ORGANS.items() for case in cases}


def read(path: Path | str, *, open_lines: Literal["refuse", "close"] = "refuse") -> Iterator[Sample]:
    """Yield the samples by name; `path` holds one or both archives, unpacked, or tif and xml side by side.

    The part is train for the training archive (37 images), test for the test archive (14), and unknown where
    neither a name with "train" or "test" nor the layout tells. The group is the patient. The scale is the one
    in the XML where it agrees with 40x. Outlines become nuclei as `draw_outlines` says; `open_lines` as in
    `read_aperio_xml`.

    Raises HemalumError for missing files, unreadable or hostile ones, and outlines that do not fit the image.
    """
    path = Path(path)
    for image_file, annotations in _pairs(path):
        image = read_image(image_file)
        outlines, mpp = read_aperio_xml(annotations, open_lines=open_lines)
        scale = mpp if mpp is not None and FORTY_TIMES[0] < mpp < FORTY_TIMES[1] else None
        patient = kumar.case_of(image_file.stem)
        yield Sample(
            image=image,
            instances=draw_outlines(outlines, image.shape[:2], annotations),
            id=image_file.stem,
            group=patient,
            organ=ORGAN_OF.get(patient),
            stain="H&E",
            mpp=scale,
            mpp_source=None if scale is None else "file",
            part=_part(path, image_file),
        )


def _pairs(path: Path) -> list[tuple[Path, Path]]:
    images, annotations = (_files(path, suffix) for suffix in (".tif", ".xml"))
    if not annotations:
        raise HemalumError(
            f"{path}: no .xml annotations; want the unpacked 'MoNuSeg 2018 Training Data' or 'MoNuSegTestData'"
        )
    pairs = []
    for file in images:
        candidates = [file.with_suffix(".xml"), file.parent.parent / "Annotations" / f"{file.stem}.xml"]
        xml_files = [xml_file for xml_file in candidates if xml_file in annotations]
        if not xml_files:
            raise HemalumError(f"{candidates[file.parent.name == 'Tissue Images']}: missing; it annotates {file}")
        pairs.append((file, xml_files[0]))
    alone = annotations - {xml_file for _, xml_file in pairs}
    if alone:
        raise HemalumError(f"{min(alone)}: its image {min(alone).stem}.tif is missing")
    return sorted(pairs, key=lambda pair: (pair[0].stem, pair[0]))


def _files(path: Path, suffix: str) -> set[Path]:
    return {
        file
        for depth in range(DEPTH)
        for file in path.glob("*/" * depth + f"*{suffix}")
        if file.is_file() and not file.name.startswith(".") and "__MACOSX" not in file.parts
    }


def _part(path: Path, image: Path) -> Part | None:
    names = [path.resolve().name, *image.parent.relative_to(path).parts]
    for name in reversed(names):
        if "test" in name.lower():
            return "test"
        if "train" in name.lower():
            return "train"
    return "train" if image.parent.name == "Tissue Images" else None


READER = Reader(
    title="MoNuSeg 2018 challenge, H&E of several organs from TCGA",
    read=read,
    group="patient",
    license="CC-BY-NC-SA-4.0",
    citation="Kumar et al., A multi-organ nucleus segmentation challenge, IEEE Trans. Med. Imaging 39, 1380-1391 "
    "(2020), doi:10.1109/TMI.2019.2947628",
    url="https://monuseg.grand-challenge.org/Data/",
    mpp=0.25,
    mpp_note="40x, as published; where the XML says a scale near it, that",
    size="37 + 14 images of 1000 x 1000 px; 28,846 nuclei in the 30 + 14 of the challenge",
    markers=tuple("*/" * depth + "TCGA-*.xml" for depth in range(DEPTH)),
    published_rule="the training archive trains, the test archive tests, 37 and 14 images",
)
