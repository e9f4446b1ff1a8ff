"""`qupath`: objects of QuPath in GeoJSON, and the image or slide that they are of.

    FILE.geojson  SLIDE

Nuclei are told from the regions in which all of them are drawn, if there are any, by `annotations.regions`: only what
lies in regions is read then.
"""

import itertools
import logging
import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from hemalum.data.annotations import NO_CLASS, fill_by_size, is_within, listed, read_drawing, tell_apart
from hemalum.data.image import read_image
from hemalum.data.readers.reader import Reader
from hemalum.data.sample import Sample
from hemalum.errors import HemalumError
from hemalum.nuclei.polygons import Polygons, fill

log = logging.getLogger(__name__)

TILE = 1024  # px; a field of up to twice that is not cut
WHITE = 255


class Pixels(Protocol):
    """An open image or slide: (H, W) in px, µm per px, and `read(x, y, width, height)` as (h, w, 3) uint8."""

    shape: tuple[int, int]
    mpp: float | None
    name: str

    def read(self, x: int, y: int, width: int, height: int) -> NDArray[np.uint8]: ...


@dataclass(frozen=True, slots=True, eq=False)
class _Objects:
    """Nuclei with the number of each one's class, regions in which all are drawn, and areas to be ignored."""

    nuclei: Polygons
    classes: NDArray[np.int32]
    regions: Polygons
    ignored: Polygons


@dataclass(frozen=True, slots=True)
class _Field:
    """A part of the image; `region` is the number of the region that it lies in, None where there are none."""

    x: int
    y: int
    width: int
    height: int
    region: int | None = None


def read(
    path: Path | str,
    *,
    image: Path | str | Pixels | None = None,
    tile: int = TILE,
    class_names: Mapping[int, str] | Sequence[str] | str | None = None,
) -> Iterator[Sample]:
    """Yield the annotated parts of an image, each with its label map, from top to bottom.

    `image` is a file or an open slide. Each region gives its bounding box, with white in place of what lies outside
    of it. Without regions it is the whole image, or where that is larger than two tiles the tiles that hold nuclei.
    Fields larger than two tiles of `tile` px are cut. `class_names` are the classifications in the order of the class
    ids; default: those of the file, by name.

    Raises HemalumError for a file that is no GeoJSON of polygons, polygons outside the image, and a class that is not
    among `class_names`.
    """
    if image is None:
        raise HemalumError(f"{path}: name the image that the objects are of: import qupath FILE.geojson IMAGE DST")
    if tile < 64:
        raise HemalumError(f"tile {tile}: at least 64 px")
    pixels = _open(image)
    objects = _collect(Path(path), pixels.shape, classes_for(path=path, class_names=class_names))
    low, high = objects.nuclei.bounds()
    stem = Path(pixels.name).stem
    for field in _fields(objects, pixels.shape, tile):
        end = (field.x + field.width, field.y + field.height)
        near = np.flatnonzero((low < end).all(axis=1) & (high > (field.x, field.y)).all(axis=1))
        if field.region is None and not len(near):
            continue
        region = "" if field.region is None else f"_region{field.region + 1}"  # two may begin at one place
        yield _sample(pixels, objects, field, near, f"{stem}{region}_{field.x}_{field.y}", stem)


def classes_for(
    *, path: Path | str, class_names: Mapping[int, str] | Sequence[str] | str | None = None, **_others: object
) -> dict[int, str]:
    """Names of the classes by id from 1; those of the file by name, where none are given."""
    if class_names is None:
        names = sorted(tell_apart(read_drawing(path), None).nuclei.class_names_used())
    else:
        listed = class_names.values() if isinstance(class_names, Mapping) else class_names
        names = [name.strip() for name in (listed.split(",") if isinstance(listed, str) else listed)]
    if len(names) > 255:
        raise HemalumError(f"{path}: {len(names)} classes; at most 255 fit a class map")
    return dict(enumerate(names, start=1))


class _Image:
    """A plain image as `Pixels`."""

    def __init__(self, path: Path) -> None:
        self.pixels = read_image(path)
        self.shape: tuple[int, int] = (self.pixels.shape[0], self.pixels.shape[1])
        self.mpp: float | None = None
        self.name = path.name

    def read(self, x: int, y: int, width: int, height: int) -> NDArray[np.uint8]:
        return self.pixels[y : y + height, x : x + width]


def _open(image: Path | str | Pixels) -> Pixels:
    return _Image(Path(image)) if isinstance(image, str | Path) else image


def _collect(path: Path, shape: tuple[int, int], names: dict[int, str]) -> _Objects:
    """All outlines in one pass, as float32: a million nuclei take some 0.5 GB."""
    drawing = read_drawing(path)
    nuclei, regions, frames, ignored, left_out = tell_apart(drawing, shape)
    nuclei.check_within(shape)
    regions.check_within(shape)
    nuclei = nuclei.take(~is_within(nuclei, ignored))
    left_out -= Counter({"region": len(frames), "ignored area": len(ignored)})
    if left_out:
        log.warning("%s: left out, since it is no nucleus: %s", path, listed(left_out))
    if len(frames):
        log.info("%s: of its %d nuclei those in its annotated regions, %d, are read", path, len(nuclei), len(frames))
    numbers = {NO_CLASS: 0} | {name: number for number, name in names.items()}
    known = np.array([0, *(numbers.get(name, -1) for name in nuclei.class_names)], np.int32)
    classes = known[nuclei.classes]
    if (classes < 0).any():
        first = int(np.flatnonzero(classes < 0)[0])
        name = nuclei.class_names[nuclei.classes[first] - 1]
        raise HemalumError(
            f"{path}, {nuclei.names[first]}: class '{name}' is not among class_names {', '.join(names.values())}"
        )
    return _Objects(nuclei.paths, classes, frames.paths, ignored.paths)


def _fields(objects: _Objects, shape: tuple[int, int], tile: int) -> Iterator[_Field]:
    height, width = shape
    if len(objects.regions) == 0:
        yield from _cut(_Field(0, 0, width, height), tile)
        return
    low, high = objects.regions.bounds()
    left_top = np.clip(np.floor(low), 0, (width, height)).astype(int)
    right_bottom = np.clip(np.ceil(high), 0, (width, height)).astype(int)
    for number in np.lexsort((left_top[:, 0], left_top[:, 1])):
        x, y = left_top[number].tolist()
        size = (right_bottom[number] - left_top[number]).tolist()
        if min(size) > 0:
            yield from _cut(_Field(x, y, size[0], size[1], int(number)), tile)


def _cut(field: _Field, tile: int) -> Iterator[_Field]:
    """Pieces of equal size, near `tile` px, of a field of more than two tiles."""
    rows, columns = (1 if side <= 2 * tile else math.ceil(side / tile) for side in (field.height, field.width))
    tops = np.linspace(0, field.height, rows + 1).round().astype(int).tolist()
    lefts = np.linspace(0, field.width, columns + 1).round().astype(int).tolist()
    for top, bottom in itertools.pairwise(tops):
        for left, right in itertools.pairwise(lefts):
            yield _Field(field.x + left, field.y + top, right - left, bottom - top, field.region)


def _sample(
    pixels: Pixels, objects: _Objects, field: _Field, near: NDArray[np.int64], name: str, slide: str
) -> Sample:
    corner, size = np.array([field.x, field.y], np.float32), (field.height, field.width)
    image = np.array(pixels.read(field.x, field.y, field.width, field.height))
    chosen = objects.nuclei.take(near)
    labels = fill_by_size(Polygons(chosen.coords - corner, chosen.offsets), size)
    if field.region is not None:
        outline = objects.regions.take(np.array([field.region]))
        inside = fill(Polygons(outline.coords - corner, outline.offsets), size) > 0
        image[~inside] = WHITE
        labels[~inside] = 0
    ignored = Polygons(objects.ignored.coords - corner, objects.ignored.offsets)
    unannotated = (fill(ignored, size) > 0) & (labels == 0)
    # ids count from 1 without gaps: what has no pixel here is left out
    there, ids = np.unique(labels, return_inverse=True)
    first = int(len(there) > 0 and there[0] == 0)
    instances = (ids.reshape(size) + 1 - first).astype(np.int32)
    classes = np.concatenate([[0], objects.classes[near[there[first:].astype(np.int64) - 1]]]).astype(np.int32)
    return Sample(
        image=image,
        instances=instances,
        id=name,
        source=slide,
        mpp=pixels.mpp,
        mpp_source=None if pixels.mpp is None else "file",
        classes=classes if objects.classes.any() else None,
        unannotated=unannotated if unannotated.any() else None,
    )


READER: Reader = Reader(title="Objects of QuPath and their image", read=read, group="image", classes_for=classes_for)
