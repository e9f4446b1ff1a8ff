"""DAB of every nucleus of an H-DAB image, and of a ring around it.

Measured from the outlines on the image itself, at its own resolution: a nucleus is the pixels that `Nuclei.label_map`
gives it, its ring those within `RING_UM` of one of them (between pixel centers) that no nucleus has. Rings may share
pixels. The image is read a second time for it, in bands: only when all nuclei are known is it known where there is
none.

Optical density is counted in whole steps of 1/65536, so sums are exact, and a nucleus gives the same numbers to the
last bit whichever band it is measured in.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hemalum.compiled import njit
from hemalum.nuclei.morphology import STAINS, Columns, deconvolution_table
from hemalum.nuclei.polygons import Polygons, fill

Pixels = NDArray[np.uint8]

RING_UM = 2.0
DAB_COLUMNS = ("dab_mean", "dab_std", "dab_ring_mean")
STEPS = 1 << 16  # of optical density
BAND_AREA = 1 << 22  # px of the rows in which nuclei of one band begin

# hematoxylin, DAB and the direction at right angles to both
HDAB_STAINS = np.stack([STAINS[0], STAINS[2], np.cross(STAINS[0], STAINS[2])])
DAB = np.rint(STEPS * deconvolution_table(HDAB_STAINS, 1)).astype(np.int64)  # in steps


def dab(image: Pixels) -> NDArray[np.float32]:
    """Give the optical density of DAB (H, W) float32 of an H-DAB image (H, W, 3) uint8.

    White is 0; log base 10; color deconvolution with hematoxylin and DAB of Ruifrok & Johnston 2001, which are
    QuPath's default vectors, and a third direction at right angles to both. The vectors are fixed, so that a
    threshold means the same in every image. May be negative where a pixel is bluer than hematoxylin.
    """
    steps = DAB[0][image[..., 0]] + DAB[1][image[..., 1]] + DAB[2][image[..., 2]]
    amount: NDArray[np.float32] = (steps / STEPS).astype(np.float32)
    return amount


def measure_dab(
    outlines: Polygons,
    read: Callable[[int, int], Pixels],
    shape: tuple[int, int],
    *,
    ring: float,
    band: int | None = None,
) -> Columns:
    """Give dab_mean, dab_std and dab_ring_mean (N,) float64 of nuclei with these outlines in px of the image.

    `read(start, stop)` gives rows (stop - start, W, 3) uint8 of the image of `shape` (H, W); they are asked for from
    top to bottom, in bands that overlap by nuclei and rings. `ring` is its width in px. `band` is the number of rows
    in which the nuclei of one band begin. NaN where a nucleus or its ring has no pixel.
    """
    count, height, width = len(outlines), shape[0], shape[1]
    sums = np.zeros((count, 5), np.int64)  # pixels, sum and sum of squares; pixels and sum of the ring
    if count:
        low, high = outlines.bounds()
        left, first = np.floor(low).astype(np.int64).T
        right, last = np.ceil(high).astype(np.int64).T
        first, last = first.clip(0, height - 1), last.clip(1, height)
        reach = int(np.ceil(ring))
        rows = band or max(BAND_AREA // max(width, 1), 1)
        for top in range(0, height, rows):
            measured = np.flatnonzero((first >= top) & (first < top + rows))
            if not len(measured):
                continue
            above = max(int(first[measured].min()) - reach, 0)
            below = min(int(last[measured].max()) + reach, height)
            near = np.flatnonzero((first < below) & (last > above))
            labels = fill(outlines.take(near), (below - above, width), near.astype(np.uint32) + 1, top=above)
            box = np.stack([first - above, last - above, left, right], axis=1)[measured]
            image = np.ascontiguousarray(read(above, below))
            _sum_dab(labels, image, DAB, measured, box, float(ring), reach, sums)
    pixels, total, square, around, ring_total = sums.astype(np.float64).T
    with np.errstate(divide="ignore", invalid="ignore"):
        mean = total / pixels
        spread = np.sqrt(np.maximum(square / pixels - mean * mean, 0))
        return {
            "dab_mean": mean / STEPS,
            "dab_std": spread / STEPS,
            "dab_ring_mean": ring_total / around / STEPS,
        }


@njit(nogil=True)
def _sum_dab(
    labels: Any, image: Any, table: Any, measured: Any, box: Any, ring: float, reach: int, sums: Any
) -> None:
    height, width = labels.shape
    half = np.empty(reach + 1, np.int64)  # of the disk, in the row that is so far from its middle
    for d in range(reach + 1):
        half[d] = -1 if d > ring else int(np.floor(np.sqrt(ring * ring - d * d)))
    for k in range(len(measured)):
        n = measured[k] + 1
        top, bottom = max(box[k, 0] - reach, 0), min(box[k, 1] + reach, height)
        left, right = max(box[k, 2] - reach, 0), min(box[k, 3] + reach, width)
        if top >= bottom or left >= right:
            continue
        near = np.zeros((bottom - top, right - left), np.bool_)
        for y in range(max(box[k, 0], 0), min(box[k, 1], height)):
            x = max(box[k, 2], 0)
            while x < min(box[k, 3], width):
                if labels[y, x] != n:
                    x += 1
                    continue
                start = x
                while x < width and labels[y, x] == n:
                    s = table[0, image[y, x, 0]] + table[1, image[y, x, 1]] + table[2, image[y, x, 2]]
                    sums[measured[k], 0] += 1
                    sums[measured[k], 1] += s
                    sums[measured[k], 2] += s * s
                    x += 1
                for v in range(max(y - reach, top), min(y + reach + 1, bottom)):
                    h = half[abs(v - y)]
                    if h >= 0:
                        near[v - top, max(start - h, left) - left : min(x + h, right) - left] = True
        for y in range(top, bottom):
            for x in range(left, right):
                if near[y - top, x - left] and labels[y, x] == 0:
                    s = table[0, image[y, x, 0]] + table[1, image[y, x, 1]] + table[2, image[y, x, 2]]
                    sums[measured[k], 3] += 1
                    sums[measured[k], 4] += s
