"""`tnbc`: triple-negative breast cancer, H&E (Naylor et al.), as published.

    SRC/Slide_XX/XX_Y.png   the image Y of patient XX, 512 x 512, RGB(A)
    SRC/GT_XX/XX_Y.png      its mask, binary (components are nuclei) or a label map

Source: Naylor et al., IEEE Transactions on Medical Imaging 38, 448 (2019); Zenodo 1175282.
"""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from hemalum.data.image import read_image
from hemalum.data.label_maps import read_instances, same_size
from hemalum.data.readers.files import first_file, list_images
from hemalum.data.readers.reader import Reader
from hemalum.data.sample import Sample
from hemalum.data.splits import Member, Part
from hemalum.errors import HemalumError

BREAST = range(1, 12)  # later versions of the archive add patients of another organ


def read(path: Path | str) -> Iterator[Sample]:
    """Yield the samples by patient and name; `path` holds the Slide_XX folders, itself or one level down.

    The nuclei of a binary mask are its 8-connected components, which gives the published count.

    Raises HemalumError for missing folders or masks, unreadable files and sizes that do not fit.
    """
    root = _root(Path(path))
    for slide in sorted(folder for folder in root.glob("Slide_*") if folder.is_dir()):
        patient = slide.name.removeprefix("Slide_")
        truth = root / f"GT_{patient}"
        if not truth.is_dir():
            raise HemalumError(f"{truth}: missing; it holds the masks of {slide.name}")
        for file in list_images(slide, ".png"):
            mask = first_file(truth / file.name, role=f"is the mask of {file}")
            image = read_image(file)
            instances = read_instances(mask).labels
            same_size(mask, instances, image, "mask is {}, its image {}")
            yield Sample(
                image=image,
                instances=instances,
                id=file.stem,
                group=patient,
                organ="breast" if patient.isdigit() and int(patient) in BREAST else None,
                stain="H&E",
            )


def published(members: Sequence[Member], fold: int) -> Mapping[str, Part]:
    """Leave one patient out: fold N tests on patient N of the 11, the others train.

    That is how Naylor et al. evaluate on this set. Splits by image (30/10/10 and others) are reported without
    a list of the images, so nobody can repeat them; they also have patients on both sides.

    Raises HemalumError when the patient of the fold is missing, or others than the 11 are there.
    """
    test = f"{fold:02d}"
    patients = sorted({member.group for member in members})
    others = [name for name in patients if not (name.isdigit() and int(name) in BREAST)]
    if others:
        raise HemalumError(
            f"patient {others[0]} is none of the {len(BREAST)} of the published split; take the folders "
            f"Slide_{others[0]} and GT_{others[0]} away, or split by shares"
        )
    if test not in patients:
        raise HemalumError(
            f"fold {fold} tests on patient {test}, who is not there; patients are {', '.join(patients)}"
        )
    return {member.id: "test" if member.group == test else "train" for member in members}


def _root(path: Path) -> Path:
    for root in (path, path / "TNBC_NucleiSegmentation", path / "TNBC_and_Brain_dataset"):
        if any(root.glob("Slide_*")):
            return root
    raise HemalumError(f"{path}: no Slide_XX folders; want the unpacked TNBC archive")


READER = Reader(
    title="TNBC, triple-negative breast cancer, H&E",
    read=read,
    group="patient",
    license="CC-BY-4.0",
    citation="Naylor et al., Segmentation of nuclei in histopathology images by deep regression of "
    "the distance map, IEEE Trans. Med. Imaging 38, 448-459 (2019), doi:10.1109/TMI.2018.2865709",
    url="https://doi.org/10.5281/zenodo.1175282",
    size="50 images of 512 x 512 px, 4,022 nuclei",
    mpp=0.25,
    mpp_note="40x, as the field takes it",
    markers=("GT_[0-9]*", "*/GT_[0-9]*"),
    published=published,
    published_rule="leave one patient out: fold N tests on patient N",
    folds=11,
    published_unasked=False,  # eleven runs make one result; one alone tests on 3 to 8 images
)
