"""Outlines of nuclei as the labels of an image, and which part of it they say nothing of."""

import logging
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from hemalum.data.annotations.drawing import (
    NO_CLASS,
    Drawing,
    fill_by_size,
    is_within,
    listed,
    read_drawing,
    tell_apart,
)
from hemalum.data.image import orientation_of, remark_turned_labels
from hemalum.data.pixels.orientation import AS_STORED, is_transposed, seen_shape, turn
from hemalum.errors import HemalumError, counted
from hemalum.nuclei.polygons import fill
from hemalum.remarks import remark

log = logging.getLogger(__name__)

MAX_BYTES = 256 * 2**20  # about half a million nuclei: a tile has a thousandth of that


@dataclass(frozen=True, slots=True, eq=False)
class DrawnLabels:
    """What a file of outlines says of its image.

    `labels` is (H, W) int32, 0 = background, with ids in the order of the file; `class_names` are by id from 0, None
    without a class. `unannotated` is (H, W) bool, True where the file does not say what there is, None where it does
    everywhere. `left_out` counts what was not taken for a nucleus, `outside` the nuclei that lie in what is not
    annotated; `regions` are the names of the regions.
    """

    labels: NDArray[np.int32]
    class_names: list[str | None]
    unannotated: NDArray[np.bool_] | None
    left_out: Counter[str]
    outside: int
    regions: Sequence[str] = ()

    @property
    def others(self) -> str:
        """What was left out, as a part of a line, with the names of the regions; empty where nothing was."""
        regions = f"; regions: {', '.join(self.regions[:3])}{', …' if len(self.regions) > 3 else ''}"
        return listed(self.left_out) + (regions if self.regions else "")

    def annotated(self) -> NDArray[np.int32]:
        """The labels without the nuclei that lie in what is not annotated."""
        return (
            self.labels if self.unannotated is None else np.where(self.unannotated, 0, self.labels).astype(np.int32)
        )

    def classes(self, names: Mapping[int, str], where: Path | str) -> NDArray[np.int32]:
        """(N + 1,) int32 class by id, of `names` by class; 0 without one. `where` is for messages.

        Raises HemalumError for a class that is not among the names.
        """
        numbers = class_numbers(self.class_names, names)
        unknown = next((name for name in self.class_names if name not in numbers), None)
        if unknown is not None:
            raise HemalumError(f"{where}: class '{unknown}' is not among class_names {', '.join(names.values())}")
        return np.array([numbers[name] for name in self.class_names], np.int32)


def class_numbers(written: Iterable[str | None], names: Mapping[int, str]) -> dict[str | None, int]:
    """The class of each name that is written, by `names` of the classes, whose capitals make no difference.

    No name, and hemalum's own for a nucleus without a class, are 0. A name of no class is left out.
    """
    loose = {name.casefold(): number for number, name in names.items()}
    numbers: dict[str | None, int] = {None: 0, NO_CLASS: 0} | {name: number for number, name in names.items()}
    return {
        name: numbers[name] if name in numbers else loose[str(name).casefold()]
        for name in written
        if name in numbers or str(name).casefold() in loose
    }


@dataclass
class DrawnSummary:
    """What files of outlines of one folder hold beside nuclei, for one line of the log."""

    files: int = 0
    left_out: Counter[str] = field(default_factory=Counter)
    partly: int = 0  # files that say nothing of a part of their image
    outside: int = 0  # nuclei there
    pixels: int = 0
    unknown: int = 0  # pixels there

    def add(self, drawn: DrawnLabels) -> None:
        """Count what one file holds."""
        self.files += 1
        self.left_out += drawn.left_out
        if drawn.unannotated is not None:
            self.partly += 1
            self.outside += drawn.outside
            self.pixels += drawn.unannotated.size
            self.unknown += int(drawn.unannotated.sum())

    def log(self, where: Path | str) -> None:
        """Say what is no nucleus, and how much of the images is not annotated."""
        if self.left_out:
            files = counted(self.files, "file")
            log.warning("%s: left out of %s, since it is no nucleus: %s", where, files, listed(self.left_out))
        if self.partly:
            images = counted(self.partly, "image")
            share = 100 * self.unknown / self.pixels
            nuclei = f", nor do {counted(self.outside, 'nucleus')} there" if self.outside else ""
            log.warning(
                "%s: annotated in part: %s; outside of their regions and in ignored areas (%.0f %%) nothing counts%s",
                where, images, share, nuclei,
            )  # fmt: skip


def read_drawn_labels(path: Path | str, shape: tuple[int, int], image_file: Path | None = None) -> DrawnLabels:
    """Read outlines as the labels of an image of (H, W) px; see `tell_apart` for what is a nucleus.

    Outlines that fit only what `image_file` stores, not what its orientation makes of it, are turned with it, which
    is said.

    A pixel is inside where its center is; holes are left out. Of outlines that overlap the smaller has the pixel.
    QuPath's cells give their nucleus; of a derived class ("Tumor: Positive") the name is all of it.

    Not annotated are ignored areas; and where nuclei are annotated in regions, what lies beyond these, but for nuclei
    drawn there by hand: detections and cells that lie beyond are as a program left them.

    Raises HemalumError, naming the outline, for a file that is missing, too large or of another kind, that holds no
    outline but other things, and for nuclei outside of the image.
    """
    drawing = _read(Path(path))
    orientation = _orientation(drawing, shape, image_file)
    shape = seen_shape(shape, orientation)  # or that of what is stored: height and width change places both ways
    roles = tell_apart(drawing, shape)
    nuclei = roles.nuclei
    nuclei.check_within(shape)
    labels = _draw(nuclei, shape)
    unknown = is_within(nuclei, roles.ignored)
    unannotated = fill(roles.ignored.paths, shape) > 0
    if len(roles.frames):
        beyond = fill(roles.frames.paths, shape) == 0
        if beyond.all():
            raise HemalumError(f"{path}: its regions lie outside of the image; are they of this one?")
        unannotated |= beyond
        unknown |= ~(is_within(nuclei, roles.frames) | nuclei.by_hand)
    unannotated = np.where(labels > 0, np.append(False, unknown)[labels], unannotated)
    named = [None, *nuclei.class_names]
    return DrawnLabels(
        turn(labels, orientation),
        [None, *(named[number] for number in nuclei.classes.tolist())],
        turn(unannotated, orientation) if unannotated.any() else None,
        roles.left_out,
        int(unknown.sum()),
        roles.regions.names,
    )


def class_names_in(paths: Iterable[Path]) -> list[str]:
    """The classes of all nuclei in files of outlines, by name."""
    names: set[str] = set()
    for path in paths:
        names |= tell_apart(_read(path), None).nuclei.class_names_used()
    return sorted(names)


def _orientation(drawing: Drawing, shape: tuple[int, int], image_file: Path | None) -> int:
    """How outlines are to be turned that fit an image of (H, W) px as it is stored only."""
    if image_file is None or not drawing.strays(shape).any() or drawing.strays(shape[::-1]).any():
        return AS_STORED
    orientation = orientation_of(image_file)
    if not is_transposed(orientation):
        return AS_STORED
    remark_turned_labels(drawing.file, orientation)
    return orientation


def _read(path: Path) -> Drawing:
    try:
        size = path.stat().st_size
    except OSError as error:
        raise HemalumError(f"{path}: cannot be read ({error.strerror or error})") from error
    if size > MAX_BYTES:
        raise HemalumError(f"{path}: {size / 2**20:.0f} MB of outlines; more than {MAX_BYTES // 2**20} MB is no tile")
    return read_drawing(path)


def _draw(nuclei: Drawing, shape: tuple[int, int]) -> NDArray[np.int32]:
    """The label map of nuclei by their places from 1."""
    labels = fill_by_size(nuclei.paths, shape).astype(np.int32)
    hidden = len(nuclei) - np.count_nonzero(np.bincount(labels.ravel())[1:])
    if hidden:
        remark(nuclei.file, f"{hidden} of {len(nuclei)} polygons hold no pixel of their own", "hidden polygons")
    return labels
