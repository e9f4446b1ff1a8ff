"""What a label map is not: shades of gray, a mask with nuclei and background exchanged, outlines, ids that were cut.

Each rule looks at the numbers alone, and its limit lies far from what the labels of public sets reach (1,200 label
maps of seven sets): at most 3.2 % of the edge pixels lie between their neighbors (limit 25 %), an id covers at most
9 % of its image (50 %), holes are at most 3 % of the nuclei (50 %), and at most 5 % of the ids lie in pieces of like
size (50 %).
"""

from dataclasses import dataclass
from typing import Any, Literal

import cc3d
import edt
import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from skimage.measure import regionprops

from hemalum.errors import counted

PIECES_MOST = 10  # an id in more pieces than this, on average, is a shade of gray and no nucleus
RAMP = 0.25  # of the edge pixels, how many may lie between their neighbors in value, as at a corner of three nuclei
MOST = 0.5  # of the image, of the covered area, or of all ids
MUCH = 0.4  # of the image, covered by what leaves only nuclei free
LIKE = 0.25  # a second piece of this share of the first is no splinter
ROUND = 0.8  # solidity of nuclei, clusters among them; gaps between crowded nuclei have at most .77
SMALL = 30  # px, a nucleus of 6 px across; smaller gaps look round
THIN = 0.5  # depth of a line, by that of what it encloses
ENOUGH = 20  # edge pixels
FEWEST = 3  # ids or holes
CUTS = {255: 8, 65_535: 16}  # the largest number of so many bits
_BAND = 2048  # rows

Kind = Literal["shades", "inverted", "hollow", "cut", "pieces"]


@dataclass(frozen=True, slots=True)
class LabelFault:
    """One fault, in words that follow the file's name; `refused` where it cannot be a label map."""

    kind: Kind
    message: str
    refused: bool = True


def find_faults(labels: NDArray[np.int32]) -> list[LabelFault]:
    """The faults of ids (H, W), those of a mask's components as well; one that is refused stands alone."""
    if not labels.any():
        return []
    doubts = []
    for rule in (_exchanged, _hollow, _shades, _cut):
        fault = rule(labels)
        if fault is not None and fault.refused:
            return [fault]
        if fault is not None:
            doubts.append(fault)
    return doubts


def _shades(labels: NDArray[np.int32]) -> LabelFault | None:
    """Many small pieces for each value, or edges that rise by steps."""
    ids = np.count_nonzero(np.bincount(labels.ravel())[1:])
    pieces = int(cc3d.connected_components(labels, connectivity=8).max())
    remedy = "set a threshold for a mask, or export ids (resize label maps with the nearest neighbor)"
    if pieces > PIECES_MOST * ids:
        what = "a picture or a map of probability, not a label map"
        return LabelFault("shades", f"{ids} values lie in {pieces} pieces: {what}; {remedy}")
    share = ramp_share(labels)
    if share > RAMP:
        what = "shades of gray or interpolated ids, not a label map"
        return LabelFault("shades", f"{share:.0%} of the edge pixels lie between their neighbors: {what}; {remedy}")
    return None


def ramp_share(labels: NDArray[np.int32]) -> float:
    """How many of the nuclei's edge pixels have a value between those of their neighbors; 0 where there are few.

    In a label map the neighbors of a pixel at an edge have its own id or that of the other side, except at corners.
    """
    edge = ramp = 0
    for start in range(0, len(labels), _BAND):
        low, high = max(start - 1, 0), min(start + _BAND + 1, len(labels))
        inside = slice(start - low, start - low + min(_BAND, len(labels) - start))
        band = labels[low:high]
        least, most = (_of_neighbors(band, extreme)[inside] for extreme in (np.minimum, np.maximum))
        ids = band[inside]
        edge += np.count_nonzero((ids > 0) & (least < most))
        ramp += np.count_nonzero((ids > 0) & (least < ids) & (ids < most))
    return ramp / edge if edge >= ENOUGH else 0.0


def _of_neighbors(labels: NDArray[np.int32], extreme: Any) -> NDArray[np.int32]:
    """The least or largest id of each pixel and its 8 neighbors: ten times as fast as a filter of SciPy."""
    across = labels.copy()
    extreme(across[:, 1:], labels[:, :-1], out=across[:, 1:])
    extreme(across[:, :-1], labels[:, 1:], out=across[:, :-1])
    result = across.copy()
    extreme(result[1:], across[:-1], out=result[1:])
    extreme(result[:-1], across[1:], out=result[:-1])
    return result


def _exchanged(labels: NDArray[np.int32]) -> LabelFault | None:
    """Background under an id: it touches all sides, and what it leaves free are other ids, or round holes."""
    areas = np.bincount(labels.ravel())
    areas[0] = 0
    number, share = int(areas.argmax()), float(areas.max()) / labels.size
    borders = (labels[0], labels[-1], labels[:, 0], labels[:, -1])
    if share < MUCH or not all((border == number).any() for border in borders):
        return None
    covers = f"one piece covers {share:.0%} of the image and touches all its sides"
    others = np.count_nonzero(areas) - 1
    if (share > MOST and others >= FEWEST) or _leaves_nuclei_free(labels != number):
        remedy = "nuclei and background are exchanged; invert the mask"
        if others:
            remedy = f"the background has an id of its own ({number}); set it to 0"
        return LabelFault("inverted", f"{covers}: {remedy}")
    if share < MOST:
        return None
    return LabelFault("inverted", f"{covers}; are nuclei and background exchanged?", refused=False)


def _leaves_nuclei_free(free: NDArray[np.bool_]) -> bool:
    """Whether what is not covered looks like nuclei: several pieces, not tiny, and most of them round."""
    regions: list[Any] = regionprops(cc3d.connected_components(free, connectivity=4).astype(np.int32))
    areas = np.array([region.area for region in regions])
    if len(regions) < FEWEST or np.average(areas, weights=areas) < SMALL:
        return False
    return bool(np.average([region.solidity for region in regions], weights=areas) > ROUND)


def _hollow(labels: NDArray[np.int32]) -> LabelFault | None:
    """Lines that enclose more than they cover."""
    covered = labels > 0
    numbered = cc3d.connected_components(~covered, connectivity=4)
    areas = np.bincount(numbered.ravel())
    for side in (numbered[0], numbered[-1], numbered[:, 0], numbered[:, -1]):
        areas[side] = 0  # not enclosed
    areas[0] = 0
    enclosed = np.flatnonzero(areas)
    if areas.sum() < MOST * np.count_nonzero(covered):
        return None
    within = edt.edt(areas[numbered] > 0, black_border=False)
    deepest = np.asarray(ndimage.maximum(within, numbered, enclosed))
    depth = float(np.percentile(edt.edt(covered, black_border=False)[covered], 95))
    if depth > max(1.0, THIN * float(np.median(deepest[deepest >= np.median(deepest)]))):
        return None
    count = len(enclosed)
    message = f"outlines alone: what they enclose ({counted(count, 'area')}) is left empty; fill them"
    return LabelFault("hollow", message, refused=count >= FEWEST)


def _cut(labels: NDArray[np.int32]) -> LabelFault | None:
    """Ids that begin again, or that all became the last one; else ids of many pieces each."""
    ids, scattered = _scattered(labels)
    largest = int(ids[-1])
    bits, count = CUTS.get(largest), int(scattered.sum())
    remedy = "export the label map again with more bits"
    if bits is not None and count and len(ids) > MOST * largest:
        first = int(scattered.size if scattered.all() else np.argmin(scattered))
        begins_again = count > MOST * len(ids) or (first >= FEWEST and first > MOST * count)
        if begins_again:
            return LabelFault(
                "cut",
                f"ids end at {largest} and {count} of them lie in several pieces: they were cut off at {bits} bits; "
                f"{remedy}",
                refused=False,
            )
        if scattered[-1] and count == 1:
            return LabelFault(
                "cut",
                f"ids end at {largest}, which lies in several pieces: those above it were cut off at {bits} bits; "
                f"{remedy}",
                refused=False,
            )
    if bits is not None and scattered[-1] and len(ids) > 1 and ids[-2] < largest - 1:
        message = f"id {largest} lies in several pieces, apart from the other ids: a border or “ignore”; set it to 0"
        return LabelFault("pieces", message, refused=False)
    if count > MOST * len(ids) and len(ids) > 1:
        return LabelFault(
            "pieces",
            f"{count} of {len(ids)} ids lie in several pieces: classes, not nuclei? each id counts as one nucleus",
            refused=False,
        )
    return None


def _scattered(labels: NDArray[np.int32]) -> tuple[NDArray[np.int32], NDArray[np.bool_]]:
    """The ids, sorted, and of each whether it has a second piece (8 neighbors) of like size."""
    pieces = cc3d.connected_components(labels, connectivity=8)
    areas = np.bincount(pieces.ravel())
    owner = np.zeros(len(areas), np.int32)
    owner[pieces.ravel()] = labels.ravel()
    order = np.lexsort((-areas, owner))
    order = order[owner[order] > 0]
    ids, first = np.unique(owner[order], return_index=True)
    second = np.minimum(first + 1, len(order) - 1)
    has_second = (second > first) & (owner[order[second]] == ids)
    return ids, has_second & (areas[order[second]] >= LIKE * areas[order[first]])
