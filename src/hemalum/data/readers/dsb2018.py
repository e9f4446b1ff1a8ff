"""`dsb2018`: the 2018 Data Science Bowl, stage 1 training set, as published.

    SRC/stage1_train/<id>/images/<id>.png   8-bit RGBA
    SRC/stage1_train/<id>/masks/*.png       8-bit, one nucleus each, 0/255

Source: Caicedo et al., Nature Methods 16, 1247 (2019); BBBC038.
"""

import logging
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from hemalum.data.image import read_image
from hemalum.data.label_maps import same_size
from hemalum.data.label_pixels import read_label_map
from hemalum.data.readers.reader import Reader
from hemalum.data.sample import Sample
from hemalum.errors import HemalumError

log = logging.getLogger(__name__)

COLORED = 4.0  # mean spread between channels in gray levels; the gray images have 0, the colored over 10


def read(path: Path | str) -> Iterator[Sample]:
    """Yield the samples in the order of their ids; `path` is stage1_train or the folder that holds it.

    The nuclei are numbered in the order of their mask files' names. A pixel in two masks stays with the
    first; an empty mask is left out; the log says both. The set does not name stains: they are told by
    color and brightness ("colour", "grey-bright", "grey-fluo").

    Raises HemalumError for folders without image or masks, unreadable files and sizes that do not fit.
    """
    path = Path(path)
    root = path / "stage1_train" if (path / "stage1_train").is_dir() else path
    if not root.is_dir():
        raise HemalumError(f"{root}: no such folder")
    folders = sorted(folder for folder in root.iterdir() if (folder / "images").is_dir())
    if not folders:
        raise HemalumError(f"{root}: no <id>/images folders; want the layout of stage1_train")
    for folder in folders:
        image = read_image(_only_image(folder))
        yield Sample(
            image=image,
            instances=_instances(folder, image),
            id=folder.name,
            stain=stain_of(image),
        )


def stain_of(image: NDArray[np.uint8]) -> str:
    """ "colour" (purple or H&E-like), "grey-bright" (bright field) or "grey-fluo" (dark ground)."""
    spread = image.max(axis=2).astype(np.int16) - image.min(axis=2)
    if float(spread.mean()) > COLORED:
        return "colour"
    return "grey-bright" if float(np.median(image)) > 127 else "grey-fluo"


def _only_image(folder: Path) -> Path:
    files = sorted(file for file in (folder / "images").iterdir() if not file.name.startswith("."))
    if len(files) != 1:
        raise HemalumError(f"{folder / 'images'}: holds {len(files)} files, want the one image")
    return files[0]


def _instances(folder: Path, image: NDArray[np.uint8]) -> NDArray[np.int32]:
    masks = folder / "masks"
    files = sorted(masks.glob("*.png")) if masks.is_dir() else []
    if not files:
        raise HemalumError(f"{masks}: no masks; the test sets have none and cannot be imported")
    instances = np.zeros(image.shape[:2], np.int32)
    number = shared = empty = 0
    for file in files:
        mask = read_label_map(file) > 0
        same_size(file, mask, image, "mask is {}, its image {}")
        free = mask & (instances == 0)
        shared += int(mask.sum() - free.sum())
        if not free.any():
            empty += 1
            continue
        number += 1
        instances[free] = number
    if shared or empty:
        log.info("%s: %d pixels in two masks stay with the first; %d masks left empty", folder, shared, empty)
    return instances


READER = Reader(
    title="2018 Data Science Bowl, stage 1 training set",
    read=read,
    group="mosaic",
    license="CC0-1.0",
    citation="Caicedo et al., Nucleus segmentation across imaging experiments: the 2018 Data Science "
    "Bowl, Nature Methods 16, 1247-1253 (2019), doi:10.1038/s41592-019-0612-7",
    url="https://bbbc.broadinstitute.org/BBBC038",
    size="670 images of 256 x 256 to 1040 x 1388 px, 29,461 nuclei",
    markers=("stage1_train/*/masks", "[0-9a-f][0-9a-f][0-9a-f][0-9a-f]*/masks/*.png"),
)
