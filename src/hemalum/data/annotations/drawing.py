"""What is drawn on an image, whichever program drew it: nuclei, regions, and areas that are to be ignored."""

import itertools
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from hemalum.data.annotations.aperio_xml import read_aperio_xml
from hemalum.data.annotations.imagej_rois import read_roi_set
from hemalum.data.annotations.outlines import Outline
from hemalum.data.annotations.paths import areas, inside, to_path
from hemalum.data.annotations.qupath import NUCLEI, POINTS, TILES_OR_CORES, QuPathObject, read_areas
from hemalum.data.annotations.regions import MANY, find_regions, role_of_class
from hemalum.data.pixels.orientation import EXCHANGED
from hemalum.errors import HemalumError, counted
from hemalum.nuclei.polygons import Polygons, fill
from hemalum.remarks import remark

NOT_GEOJSON = (".xml", ".zip", ".roi")  # endings of files of outlines; whatever else is read as GeoJSON
NO_CLASS = "Nucleus"  # what hemalum's own export calls a nucleus without a class
STRAY_PX = 2.0  # QuPath keeps outlines inside; they may be smoothed or rounded across the edge by this much
DRAWN_PX = 100.0  # in other programs annotators draw a little over the edge; further out, it is another image
LEAST_HELD = 0.5  # regions that hold fewer of the nuclei drawn by hand do not say where nuclei are annotated
FARTHEST_PX = 1e9  # from the corner of the image: what is farther is as much outside of it
MAX_PARTS = 4  # an outline by hand in more parts is a whole class of nuclei, as some programs export it
PLURALS = {
    "region": "regions",
    "cell": "cells",
    "ignored area": "ignored areas",
    POINTS: "points or lines",
    TILES_OR_CORES: "tiles or cores",
}


class Piece(NamedTuple):
    """One object of a file: its closed path, and those of its parts where it has several."""

    name: str
    path: NDArray[np.float32]
    class_name: str | None = None
    by_hand: bool = True
    parts: tuple[NDArray[np.float32], ...] = ()


@dataclass(frozen=True, slots=True, eq=False)
class Drawing:
    """The outlines of a file, in its order, as closed paths in px that are filled by parity.

    `names` are for messages. `classes` (N,) int32 is the place from 1 of each one's class in `class_names`, 0 for
    none. `by_hand` (N,) bool is False for what a program found. `left_out` counts what is no outline. `margin` is
    how far in px a nucleus may leave the image.
    """

    file: Path
    paths: Polygons
    names: list[str]
    classes: NDArray[np.int32]
    class_names: list[str]
    by_hand: NDArray[np.bool_]
    left_out: Counter[str]
    margin: float

    def class_names_used(self) -> set[str]:
        """The names of the classes that any has; hemalum's own name for a nucleus without a class is none."""
        return {self.class_names[number - 1] for number in np.unique(self.classes) if number} - {NO_CLASS}

    def __len__(self) -> int:
        return len(self.paths)

    def take(self, chosen: NDArray[np.bool_]) -> "Drawing":
        """Those that are `chosen` (N,) bool; of `left_out` nothing."""
        order = np.flatnonzero(chosen)
        return Drawing(
            self.file,
            self.paths.take(order),
            [self.names[index] for index in order],
            self.classes[order],
            self.class_names,
            self.by_hand[order],
            Counter(),
            self.margin,
        )

    def strays(self, shape: tuple[int, int]) -> NDArray[np.bool_]:
        """(N,) bool: which outlines leave an image of (H, W) px by more than the margin."""
        low, high = self.paths.bounds()
        beyond: NDArray[np.bool_] = (low < -self.margin) | (high > np.array(shape[::-1]) + self.margin)
        return np.asarray(beyond.any(axis=1), np.bool_)

    def check_within(self, shape: tuple[int, int]) -> None:
        """Raise HemalumError for an outline that leaves its image of (H, W) px by more than the margin."""
        height, width = shape
        strays = self.strays(shape)
        if strays.any():
            first = int(np.flatnonzero(strays)[0])
            low, high = self.paths.bounds()
            (left, top), (right, bottom) = low[first].tolist(), high[first].tolist()
            raise HemalumError(
                f"{self.file}, {self.names[first]}: the polygon spans x {left:g} to {right:g}, y {top:g} to "
                f"{bottom:g}, its image is {width} x {height} px: export in px of this very image"
                f"{'' if self.strays((width, height)).any() else EXCHANGED}"
            )


class Roles(NamedTuple):
    """The outlines of a drawing by what they are; nuclei are annotated in those of its regions that are `frames`.

    `left_out` counts what is no nucleus, by words.
    """

    nuclei: Drawing
    regions: Drawing
    frames: Drawing
    ignored: Drawing
    left_out: Counter[str]


def tell_apart(drawing: Drawing, shape: tuple[int, int] | None) -> Roles:
    """Nuclei, regions and areas to be ignored (see `regions`), on an image of (H, W) px, where that is known.

    Nuclei are annotated in the regions that are called so; where there are none, in all regions, if they
    hold any nucleus beside detections, or at least half of the nuclei that were all drawn by hand.

    Raises HemalumError where points, lines or tiles stand in the place of nuclei.
    """
    called = np.array([role_of_class(name) for name in ("", *drawing.class_names)], np.str_)[drawing.classes]
    ignored, named = called == "ignored", called == "region"
    regions, cells = np.zeros((2, len(drawing)), np.bool_)
    others = np.flatnonzero(~ignored)
    regions[others], cells[others] = find_regions(
        drawing.paths.take(others), drawing.by_hand[others], named[others], shape
    )
    nuclei = ~(regions | ignored | cells)
    if drawing.left_out and not nuclei.any():
        raise HemalumError(
            f"{drawing.file}: holds {listed(drawing.left_out)} and no outline of a nucleus; outline the nuclei"
        )
    left_out = Counter({"region": int(regions.sum()), "ignored area": int(ignored.sum()), "cell": int(cells.sum())})
    roles = Roles(
        nuclei=drawing.take(nuclei),
        regions=drawing.take(regions),
        frames=drawing.take(named),
        ignored=drawing.take(ignored),
        left_out=left_out + drawing.left_out,
    )
    if not named.any() and _are_frames(roles.nuclei, roles.regions):
        roles = roles._replace(frames=roles.regions)
    return roles


def _are_frames(nuclei: Drawing, regions: Drawing) -> bool:
    """Whether regions that are not called so say where nuclei are annotated; else they are tissues, or the like."""
    held = is_within(nuclei, regions)
    if nuclei.by_hand.all() and len(nuclei):
        return bool(held.mean() >= LEAST_HELD)
    return bool(held.any()) or not len(nuclei)


def is_within(nuclei: Drawing, regions: Drawing) -> NDArray[np.bool_]:
    """(N,) bool: which of N nuclei have their center in one of some regions."""
    low, high = nuclei.paths.bounds()
    centers = (low.astype(np.float64) + high) / 2
    within = np.zeros(len(nuclei), np.bool_)
    for start, stop in itertools.pairwise(regions.paths.offsets.tolist()):
        within |= inside(regions.paths.coords[start:stop].astype(np.float64), centers)
    return within


def read_drawing(path: Path | str) -> Drawing:
    """Read the outlines of a file: GeoJSON of QuPath, XML of Aperio ImageScope, ROIs of ImageJ (.roi, .zip).

    Points, lines, and QuPath's tiles and TMA cores are counted and left out. Raises HemalumError for a file that is
    missing, damaged or of another kind.
    """
    path = Path(path)
    left_out: Counter[str] = Counter()
    qupath = path.suffix.lower() not in NOT_GEOJSON
    if qupath:
        pieces = _split_classes([_from_qupath(one) for one in read_areas(path, left_out)], path)
    else:
        pieces = [
            Piece(one.name, _as_float32(to_path(one.rings)), one.class_name) for one in _read_outlines(path, left_out)
        ]
    numbers: dict[str, int] = {}
    classes = [numbers.setdefault(piece.class_name, len(numbers) + 1) if piece.class_name else 0 for piece in pieces]
    return Drawing(
        path,
        _joined([piece.path for piece in pieces]),
        [piece.name for piece in pieces],
        np.array(classes, np.int32),
        list(numbers),
        np.array([piece.by_hand for piece in pieces], np.bool_),
        left_out,
        STRAY_PX if qupath else DRAWN_PX,
    )


def _from_qupath(one: QuPathObject) -> Piece:
    path = _as_float32(to_path([ring for polygon in one.polygons for ring in polygon]))
    several = one.polygons if len(one.polygons) > 1 else ()
    parts = tuple(_as_float32(to_path(polygon)) for polygon in several)
    return Piece(f"feature {one.number}", path, one.class_name, one.kind not in NUCLEI, parts)


def _as_float32(path: NDArray[np.float64]) -> NDArray[np.float32]:
    return np.clip(path, -FARTHEST_PX, FARTHEST_PX).astype(np.float32)


def _split_classes(pieces: list[Piece], path: Path) -> list[Piece]:
    """Each part as an outline where the file has one feature for all nuclei of a class.

    Such a feature has many parts and holds few of the others, and there are no detections: else it is a region.
    """
    many = [index for index, piece in enumerate(pieces) if piece.by_hand and len(piece.parts) > MAX_PARTS]
    if not many or not all(piece.by_hand for piece in pieces):
        return pieces
    low, high = _joined([piece.path for piece in pieces]).bounds()
    centers = (low.astype(np.float64) + high) / 2
    for index in many:
        others = np.delete(centers, index, axis=0)
        role = role_of_class(pieces[index].class_name)
        if role != "nucleus" or np.count_nonzero(inside(pieces[index].path.astype(np.float64), others)) >= MANY:
            return pieces
    remark(path, f"{counted(len(many), 'outline')} of many parts; each part is taken as a nucleus", "many parts")
    return [
        piece._replace(path=part, parts=())
        for piece in pieces
        for part in (piece.parts if role_of_class(piece.class_name) == "nucleus" and piece.parts else (piece.path,))
    ]


def _read_outlines(path: Path, left_out: Counter[str]) -> Iterator[Outline]:
    """The outlines of ImageScope or ImageJ; what encloses nothing is counted."""
    xml = path.suffix.lower() == ".xml"
    read = read_aperio_xml(path, open_lines="close").outlines if xml else read_roi_set(path, left_out=left_out)
    for one in read:
        rings = tuple(ring for ring in one.rings if len(ring) >= 3)
        if rings:
            yield replace(one, rings=rings)
        else:
            left_out[POINTS] += 1


def _joined(paths: Sequence[NDArray[np.float32]]) -> Polygons:
    offsets = np.cumsum([0, *(len(path) for path in paths)]).astype(np.int64)
    return Polygons(np.concatenate(paths) if paths else np.zeros((0, 2), np.float32), offsets)


def listed(left_out: Counter[str]) -> str:
    """What was left out, as a part of a line."""
    return ", ".join(f"{number:,} {words if number == 1 else PLURALS[words]}" for words, number in left_out.items())


def fill_by_size(paths: Polygons, shape: tuple[int, int]) -> NDArray[np.uint32]:
    """The label map (H, W) uint32 of closed paths by their places from 1, the smaller over the larger."""
    order = np.argsort(-areas(paths.coords, paths.offsets), kind="stable")
    return fill(paths.take(order), shape, (order + 1).astype(np.uint32))
