"""`nuinsseg`: NuInsSeg, H&E of 31 human and mouse organs, as published.

    SRC/human bladder/tissue images/human_bladder_01.png        512 x 512, RGB
    SRC/human bladder/label masks modify/human_bladder_01.tif   label map, overlaps given to one nucleus
    SRC/human bladder/label masks/human_bladder_01.tif          label map, overlaps have numbers of their own
    SRC/human bladder/mask binary/human_bladder_01.png          binary mask
    SRC/human bladder/vague areas/mask binary/…                 where the annotators could not tell

Source: Mahbod et al., Scientific Data 11, 295 (2024).
"""

import logging
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from hemalum.data.image import read_image
from hemalum.data.label_maps import components, same_size
from hemalum.data.label_pixels import read_label_map
from hemalum.data.readers.files import first_file, list_images
from hemalum.data.readers.reader import Reader
from hemalum.data.sample import Sample
from hemalum.data.splits import Member, Part
from hemalum.errors import HemalumError, counted

log = logging.getLogger(__name__)

IMAGES = "tissue images"
# images of the whole set, over which its authors make their folds, and of each species
PUBLISHED = {"both": 665, "human": 472, "mouse": 193}
FOLDS, SEED = 5, 19
SIZES = "label map is {}, its image {}"
SPECIES = ("human", "mouse")
# the archives of the two hosts differ in where the masks of ambiguous areas lie
AMBIGUOUS = ("vague areas/mask binary", "vague areas/mask binary_vague", "mask binary_vague", "vague areas")


def read(
    path: Path | str,
    *,
    variant: str = "label masks modify",
    species: Literal["human", "mouse", "both"] = "both",
    ambiguous: bool = True,
) -> Iterator[Sample]:
    """Yield the samples by organ and name; `path` holds the organ folders, itself or one level down.

    `variant` names the folder of labels: "label masks modify" (the authors' choice for evaluation),
    "label masks", or one of the binary masks, whose 8-connected components become the nuclei. The organ is
    species and organ, "human liver", and so is the group: there is one slide of each. `ambiguous=False` leaves the
    ambiguous areas unread. Another number of images than was published is named in the log.

    Raises HemalumError for missing folders or labels, unreadable files and sizes that do not fit.
    """
    if species not in (*SPECIES, "both"):
        raise HemalumError(f"species {species!r}: choices are human, mouse, both")
    count = 0
    for folder in _organ_folders(Path(path), species):
        labels = folder / variant
        if not labels.is_dir():
            known = ", ".join(sorted(item.name for item in folder.iterdir() if item.is_dir()))
            raise HemalumError(f"{labels}: no such folder of labels; there are {known}")
        for file in list_images(folder / IMAGES, ".png"):
            count += 1
            image = read_image(file)
            candidates = [labels / f"{file.stem}{suffix}" for suffix in (".tif", ".tiff", ".png")]
            label = first_file(*candidates, role=f"holds the labels of {file.name}")
            instances = read_label_map(label)
            if "binary" in variant:
                instances = components(instances)
            same_size(label, instances, image, SIZES)
            yield Sample(
                image=image,
                instances=instances,
                id=file.stem,
                source=folder.name,
                group=folder.name,
                organ=folder.name,
                stain="H&E",
                ambiguous=_ambiguous(folder, file, image) if ambiguous else None,
            )
    if count != PUBLISHED[species]:
        whose = "both species" if species == "both" else f"species {species}"
        log.warning(
            "%s: %s of %s, the publication has %d: a split of these is not that of all",
            path,
            counted(count, "image"),
            whose,
            PUBLISHED[species],
        )


def published(members: Sequence[Member], fold: int) -> Mapping[str, Part]:
    """The authors' five folds: scikit-learn's KFold(n_splits=5, shuffle=True, random_state=19); fold N tests.

    They name no order of the images; taken here is that of the sorted paths. The folds go by tile, so tiles
    of each organ, that is of one slide, are on both sides.

    Raises HemalumError unless all 665 images are there.
    """
    if len(members) != PUBLISHED["both"]:
        raise HemalumError(
            f"the published folds are made of all {PUBLISHED['both']} images, here are {len(members)}; "
            "import both species whole, or split by shares"
        )
    names = [member.id for member in sorted(members, key=lambda member: (member.source, member.id))]
    # what KFold does, without making scikit-learn a dependency; its test part is a run of the shuffled order
    order = np.random.RandomState(SEED).permutation(len(names))  # the generator KFold uses
    test = {names[index] for index in np.array_split(order, FOLDS)[fold - 1]}
    return {name: "test" if name in test else "train" for name in names}


def _organ_folders(path: Path, species: str) -> list[Path]:
    for root in (path, path / "NuInsSeg"):
        folders = sorted(folder.parent for folder in root.glob(f"*/{IMAGES}") if folder.is_dir())
        if folders:
            chosen = [folder for folder in folders if species == "both" or folder.name.startswith(f"{species} ")]
            if not chosen:
                raise HemalumError(f"{root}: no folders named '{species} …'")
            return chosen
    raise HemalumError(f"{path}: no organ folders with '{IMAGES}'; want the unpacked NuInsSeg archive")


def _ambiguous(folder: Path, image_file: Path, image: NDArray[np.uint8]) -> NDArray[np.bool_] | None:
    """The mask of ambiguous areas; None where the archive was unpacked without them."""
    for name in AMBIGUOUS:
        for suffix in (".png", ".tif"):
            file = folder / name / f"{image_file.stem}{suffix}"
            if file.is_file():
                mask = read_label_map(file) > 0
                same_size(file, mask, image, SIZES)
                return mask
    return None


READER = Reader(
    title="NuInsSeg, H&E of human and mouse organs",
    read=read,
    group="organ",
    license="CC-BY-4.0",
    citation="Mahbod et al., NuInsSeg: a fully annotated dataset for nuclei instance segmentation in "
    "H&E-stained histological images, Scientific Data 11, 295 (2024), doi:10.1038/s41597-024-03117-2",
    url="https://doi.org/10.5281/zenodo.10518968",
    size="665 images of 512 x 512 px, 30,698 nuclei",
    mpp=0.16,
    mpp_source="nuclei",
    mpp_note="measured: median nucleus of the human part (33.5 px) against TNBC (20.9 px at 0.25 µm/px); "
    "commonly given as 0.2 to 0.25",
    markers=("human */tissue images", "mouse */tissue images", "*/human */tissue images"),
    published=published,
    published_rule="KFold(5, shuffle=True, random_state=19) over the sorted images: fold N tests",
    folds=FOLDS,
    published_unasked=False,  # by tile: tiles of one slide are on both sides
)
