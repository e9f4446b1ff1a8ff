"""A user's own images without labels: where they are, and how they come to the scale of a training.

They are plain images, whole slides, folders of both, or the training part of a dataset, whose labels are not read.
"""

import hashlib
import logging
import math
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, model_validator

from hemalum.cpus import count_cpus
from hemalum.data.augmentation.warp import TrainingImage
from hemalum.data.dataset import INFO_FILE, Dataset, pixel_hash
from hemalum.data.image import IMAGE_SUFFIXES, TIFF_SUFFIXES, plain_size, read_image
from hemalum.data.sample import Sample
from hemalum.data.stain.normalization import StainNormalizer
from hemalum.errors import HemalumError, counted
from hemalum.settings import Strict
from hemalum.slides import (
    FILE_SUFFIXES,
    Slide,
    find_tissue,
    images_in,
    is_slide,
    is_whole_slide,
    open_slide,
    where_else,
)
from hemalum.slides.readers import file_mpp
from hemalum.training.encoding import prepare_sample

log = logging.getLogger(__name__)

MAX_PIXELS = 4_000_000_000  # at the model's scale, of all images together: 12 GB, which every training holds
LEAST_TISSUE = 0.5  # of a square that is drawn from a slide
_PLAIN = tuple(suffix for suffix in IMAGE_SUFFIXES if suffix not in TIFF_SUFFIXES)


class UnlabeledImages(Strict):
    """Images beside `data` that are learned from without labels; a path alone stands for its mapping."""

    path: str = Field(min_length=1, description="image, whole slide, folder of these, or dataset folder (train part)")
    mpp: float | None = Field(None, gt=0, description="µm per px of the files that state none")
    tiles: int = Field(100, ge=1, le=100_000, description="squares of tissue drawn from each whole slide, at most")

    @model_validator(mode="before")
    @classmethod
    def _from_path(cls, content: Any) -> Any:
        return {"path": str(content)} if isinstance(content, str | Path) else content


def as_entries(images: Sequence[Path | str | UnlabeledImages] | Path | str) -> list[UnlabeledImages]:
    """Paths, or a single one, as entries of a recipe's `unlabeled`; entries stay what they are.

    Raises HemalumError for an empty path.
    """
    listed = [images] if isinstance(images, str | Path) else images
    if any(one == "" for one in listed):
        raise HemalumError("unlabeled: a path is empty; give images, slides, folders or datasets")
    return [one if isinstance(one, UnlabeledImages) else UnlabeledImages(path=str(one)) for one in listed]


@dataclass(frozen=True, slots=True)
class ImageFile:
    """An image file at `mpp`, or a square of a slide: `window` is x, y, width and height, px of level 0.

    `shape` (H, W) is that of its pixels, which are not read yet.
    """

    path: Path
    mpp: float
    shape: tuple[int, int]
    window: tuple[int, int, int, int] | None = None


@dataclass(frozen=True, slots=True)
class UnlabeledSource:
    """What one entry of a recipe's `unlabeled` holds; `lines` say of each file what identifies its pixels."""

    name: str
    images: tuple[ImageFile, ...]
    lines: tuple[str, ...]
    license: str = ""

    @property
    def sha256(self) -> str:
        """Over what identifies the pixels."""
        return hashlib.sha256("\n".join(self.lines).encode()).hexdigest()


def find_unlabeled(entries: Sequence[UnlabeledImages], mpp: float, side: int) -> list[UnlabeledSource]:
    """Find the images of each entry; of slides squares of `side` px at `mpp` are drawn, the same each time.

    No pixels are read but those of slides at low power. Raises HemalumError for a path without images, a file that
    says no scale, slides without tissue, and more pixels than a training may hold.
    """
    sources = [_find(entry, mpp, side) for entry in entries]
    pixels = sum(math.prod(image.shape) * (image.mpp / mpp) ** 2 for source in sources for image in source.images)
    if pixels > MAX_PIXELS:
        raise HemalumError(
            f"the unlabeled images are {pixels:,.0f} px at {mpp:g} µm/px, over the limit of {MAX_PIXELS:,}: give "
            "fewer, or fewer 'tiles' of each slide"
        )
    return sources


def read_unlabeled(
    sources: Iterable[UnlabeledSource], mpp: float, stain: StainNormalizer | None, known: Mapping[str, str]
) -> list[TrainingImage]:
    """Read all images as a training takes them, at `mpp`; they have no labels and `truth` False.

    `known` has the hash of the pixels of each image that must not come in here, and why. Raises
    HemalumError for one of these, and a file that cannot be read.
    """

    def read(group: tuple[Path, list[ImageFile]]) -> list[TrainingImage]:
        path, images = group
        if images[0].window is None:
            pixels = read_image(path)
            same = known.get(pixel_hash(pixels))
            if same is not None:
                raise HemalumError(f"{path}: is {same}: take it out of 'unlabeled'")
            return [_prepare(pixels, path, images[0].mpp, mpp, stain)]
        with open_slide(path, mpp=images[0].mpp) as slide:
            squares = [slide.read(*image.window, mpp=mpp) for image in images if image.window is not None]
        return [_prepare(pixels, path, mpp, mpp, stain) for pixels in squares]

    groups = [
        (path, list(images))
        for source in sources
        for path, images in groupby(source.images, lambda image: image.path)
    ]
    with ThreadPoolExecutor(max(1, min(16, count_cpus()))) as pool:
        return [image for images in pool.map(read, groups) for image in images]


def hash_known(datasets: Sequence[Dataset]) -> dict[str, str]:
    """Hash of the pixels of each image of the datasets, and why it is none to learn from here, for messages."""
    reasons = {"train": "which is learned from already"}
    return {
        row.sha256: f"the same image as {row.id} of the {row.split} part of {dataset.info.name}, "
        + reasons.get(row.split, "which is not to be learned from")
        for dataset in datasets
        for row in dataset.rows
    }


def _prepare(
    pixels: NDArray[np.uint8], path: Path, own_mpp: float, mpp: float, stain: StainNormalizer | None
) -> TrainingImage:
    nothing = np.zeros(pixels.shape[:2], np.int32)
    prepared = prepare_sample(Sample(pixels, nothing, id=str(path), mpp=own_mpp), mpp, stain)
    # one pixel without a nucleus covers the whole field: labels of the image's size would double its memory
    return replace(prepared, labels=np.zeros((1, 1), np.int32), classes=np.zeros(1, np.int32), truth=False)


def _find(entry: UnlabeledImages, mpp: float, side: int) -> UnlabeledSource:
    path = Path(entry.path)
    if (path / INFO_FILE).is_file():
        return _find_in_dataset(path, entry)
    images: list[ImageFile] = []
    lines: list[str] = []
    for file in _list_files(path):
        scale = _scale_of(file, entry.mpp)
        if is_whole_slide(file):
            with open_slide(file, mpp=scale) as slide:
                squares = _draw_squares(slide, file, scale, round(side * mpp / scale), entry.tiles)
                lines.append(f"{slide.fingerprint}:{scale}:{len(squares)}")
            if not squares:
                log.warning("%s: no tissue was found, nothing is learned from it", file)
            images += squares
        else:
            # a plain image is decoded when it is read: its size stands at its beginning
            height, width = plain_size(file) or read_image(file).shape[:2]
            images.append(ImageFile(file, scale, (height, width)))
            with file.open("rb") as stream:
                lines.append(f"{hashlib.file_digest(stream, 'sha256').hexdigest()}:{scale}")
    if not images:
        raise HemalumError(f"{path}: no tissue was found in {counted(len(lines), 'slide')}: nothing to learn from")
    return UnlabeledSource(path.resolve().name, tuple(images), tuple(lines))


def _find_in_dataset(path: Path, entry: UnlabeledImages) -> UnlabeledSource:
    dataset = Dataset.open(path).split("train")
    if not dataset.rows:
        raise HemalumError(f"{path}: its train part is empty: there is nothing to learn from without labels")
    images, lines = [], []
    for row in dataset.rows:
        file, mpp = path / row.image, row.mpp or entry.mpp
        if mpp is None:
            raise HemalumError(_scaleless(file))
        images.append(ImageFile(file, mpp, plain_size(file) or (0, 0)))
        lines.append(f"{row.sha256}:{mpp}")
    return UnlabeledSource(dataset.info.name, tuple(images), tuple(lines), dataset.info.license)


def _list_files(path: Path) -> list[Path]:
    """The file or slide itself, or the images and slides directly inside a folder, sorted."""
    if not path.exists():
        raise HemalumError(f"unlabeled: no such file or folder: {path}")
    if not path.is_dir():
        return [path]
    if is_slide(path):
        return [path]
    inside = images_in(path)
    if not inside:
        raise HemalumError(
            f"unlabeled: no images or slides in {path} ({', '.join(FILE_SUFFIXES)}), and no dataset{where_else(path)}"
        )
    return inside


def _draw_squares(slide: Slide, path: Path, mpp: float, side: int, count: int) -> list[ImageFile]:
    """At most `count` squares of `side` px of level 0, of a grid, that hold tissue; the same for the same slide."""
    height, width = slide.shape
    side = min(side, height, width)
    tissue = find_tissue(slide)
    corners = [
        (x, y)
        for y in range(0, height - side + 1, side)
        for x in range(0, width - side + 1, side)
        if tissue.share_in(x, y, side, side) >= LEAST_TISSUE
    ]
    rng = np.random.default_rng(int(slide.fingerprint[:12], 16))
    chosen = sorted(rng.permutation(len(corners))[:count])
    return [ImageFile(path, mpp, (side, side), (*corners[index], side, side)) for index in chosen]


def _scale_of(file: Path, otherwise: float | None) -> float:
    """µm per px as the file states it, or `otherwise`. Raises HemalumError for neither."""
    if file.suffix.lower() in _PLAIN:  # which need not be decoded for it
        mpp = file_mpp(file)
    else:
        with open_slide(file) as slide:
            mpp = slide.mpp
    if mpp is None and otherwise is None:
        raise HemalumError(_scaleless(file))
    return float(mpp or otherwise or 0)


def _scaleless(path: Path) -> str:
    return f"unlabeled: {path} states no scale: give its µm per px as 'mpp', beside its 'path', or --unlabeled-mpp"
