"""Size, shape and stain of every nucleus, in one compiled pass over the label map, and its class by vote.

Two steps, so that bands of an image can be measured one after the other: `moments` gives raw sums per
nucleus on the grid that nuclei were separated on, `describe` turns them into columns in pixels of the
input image and µm. `vote` needs one step: whole votes are counted, so the band does not matter.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from hemalum.compiled import njit
from hemalum.errors import HemalumError
from hemalum.nuclei.polygons import Outlines

Columns = dict[str, NDArray[Any]]

# Optical density in red, green, blue of hematoxylin, eosin, DAB (Ruifrok & Johnston 2001)
STAINS = np.array([[0.65, 0.70, 0.29], [0.07, 0.99, 0.11], [0.27, 0.57, 0.78]])


def deconvolution_table(stains: NDArray[np.float64], stain: int) -> NDArray[np.float64]:
    """One of three stains per channel value, (3, 256): the amount in a pixel is the sum over its three channels."""
    share = np.linalg.inv(stains)[:, stain]
    density = -np.log10(np.maximum(np.arange(256), 1) / 255.0)
    return np.asarray(share[:, None] * density[None, :], np.float64)


HEMATOXYLIN = deconvolution_table(STAINS, 0).astype(np.float32)


def hematoxylin(image: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Give the hematoxylin optical density (H, W) float32 of an RGB image (H, W, 3) uint8.

    White is 0; log base 10; color deconvolution with the stains of Ruifrok & Johnston 2001. May be negative
    where the color is none that the three stains can mix.
    """
    red, green, blue = (HEMATOXYLIN[c][image[..., c]] for c in range(3))
    amount: NDArray[np.float32] = red + green + blue
    return amount


def moments(
    labels: NDArray[np.int32],
    outlines: Outlines,
    image: NDArray[np.uint8] | None = None,
    probability: NDArray[np.float32] | None = None,
) -> Columns:
    """Give raw measurements (N,) of the nuclei of `outlines`, on the grid of `labels` (H, W).

    `image` is (H, W, 3) uint8 or smaller by a whole factor (maps enlarged before separation);
    `probability` is (H, W) float32. Columns: area (px), x, y (centroid, pixel centers at +0.5), xx, yy,
    xy (central second moments, px², of square pixels), perimeter (px), hull_area (px²), hematoxylin_mean,
    hematoxylin_std (optical density), probability (mean); the last three are NaN without image or
    probability.

    Raises HemalumError when the shapes do not fit.
    """
    height = labels.shape[0]
    if probability is not None and probability.shape != labels.shape:
        raise HemalumError(f"probability map is {probability.shape}, label map {labels.shape}")
    upsampling = 1
    if image is not None and image.shape[:2] != labels.shape:
        upsampling = height // max(image.shape[0], 1)
        if image.ndim != 3 or (image.shape[0] * upsampling, image.shape[1] * upsampling) != labels.shape:
            raise HemalumError(f"image is {image.shape}, which does not fit the label map {labels.shape}")
    ids, count = outlines.ids, len(outlines.ids)
    rank = np.zeros(int(ids.max()) + 1 if count else 1, np.int32)
    rank[ids] = np.arange(count, dtype=np.int32)
    # sums are relative to the first pixel, so that they do not depend on the band
    corner = outlines.first
    local = (corner - np.array(outlines.origin, np.int32)).astype(np.int64)
    sums, stains = _sum_moments(
        np.ascontiguousarray(labels, np.int32),
        rank,
        local,
        np.ascontiguousarray(image) if image is not None else np.zeros((0, 0, 3), np.uint8),
        upsampling,
        np.ascontiguousarray(probability, np.float32) if probability is not None else np.zeros((0, 0), np.float32),
        HEMATOXYLIN,
    )
    area = sums[:, 0].astype(np.float64)
    x, y = sums[:, 1] / area, sums[:, 2] / area
    # a pixel is a square, not a point: its own second moment about its center is 1/12
    xx, yy = sums[:, 3] / area - x * x + 1 / 12, sums[:, 4] / area - y * y + 1 / 12
    xy = sums[:, 5] / area - x * y
    mean = stains[:, 0] / area
    spread = np.sqrt(np.maximum(stains[:, 1] / area - mean * mean, 0))
    empty = np.full(count, np.nan)
    return {
        "area": area,
        "x": corner[:, 1] + x + 0.5,
        "y": corner[:, 0] + y + 0.5,
        "xx": xx,
        "yy": yy,
        "xy": xy,
        "perimeter": outlines.perimeter,
        "hull_area": outlines.hull_area,
        "hematoxylin_mean": mean if image is not None else empty,
        "hematoxylin_std": spread if image is not None else empty,
        "probability": stains[:, 2] / area if probability is not None else empty,
    }


def describe(raw: Columns, *, scale: tuple[float, float] = (1.0, 1.0), mpp: float | None = None) -> Columns:
    """Give the columns of the table of nuclei from `moments`.

    `scale` is input px per grid px in x and y; `mpp` µm per input px, without it the µm columns are NaN.
    Axes are those of the ellipse with the same second moments; eccentricity is its own, 0 for a circle;
    `orientation` is the angle of the major axis to the horizontal, counter-clockwise as seen, degrees in
    [0, 180); solidity = area / convex area, both of the outline through the middles of the pixel edges;
    circularity = 4π area / perimeter², at most 1.
    """
    sx, sy = scale
    linear = float(np.sqrt(sx * sy))
    xx, yy, xy = raw["xx"] * sx * sx, raw["yy"] * sy * sy, raw["xy"] * sx * sy
    middle, half = (xx + yy) / 2, np.sqrt(((xx - yy) / 2) ** 2 + xy * xy)
    large, small = middle + half, np.maximum(middle - half, 0)
    area, perimeter = raw["area"] * sx * sy, raw["perimeter"] * linear
    major, minor = 4 * np.sqrt(large), 4 * np.sqrt(small)
    unit = np.nan if mpp is None else mpp
    with np.errstate(divide="ignore", invalid="ignore"):
        return {
            "x": raw["x"] * sx,
            "y": raw["y"] * sy,
            "area_px": area,
            "area_um2": area * unit * unit,
            "perimeter_px": perimeter,
            "perimeter_um": perimeter * unit,
            "major_axis_px": major,
            "major_axis_um": major * unit,
            "minor_axis_px": minor,
            "minor_axis_um": minor * unit,
            "eccentricity": np.sqrt(np.maximum(1 - small / large, 0)),
            # y grows downwards: counter-clockwise as seen is against the sign of xy
            "orientation": np.degrees(0.5 * np.arctan2(-2 * xy, xx - yy)) % 180,
            "solidity": np.minimum((raw["area"] - 0.5) / raw["hull_area"], 1),
            "circularity": np.minimum(4 * np.pi * area / perimeter**2, 1),
            "hematoxylin_mean": raw["hematoxylin_mean"],
            "hematoxylin_std": raw["hematoxylin_std"],
            "probability": raw["probability"],
        }


def vote(
    labels: NDArray[np.int32],
    ids: NDArray[np.int32],
    class_map: NDArray[np.float32],
    probability: NDArray[np.float32] | None = None,
    threshold: float = 0.0,
) -> NDArray[np.int32]:
    """Give the class (N,) int32 of the nuclei `ids` of a label map (H, W): that of most of their pixels.

    `class_map` (H, W) float32 is the class of each pixel, a whole number from 1. Pixels whose `probability` is below
    `threshold` do not vote (a filled hole is nucleus and looks like background). Of classes with equally many votes
    the first is taken. Whole votes are counted, so a nucleus gets one class whichever band it is in.
    """
    rank = np.full(int(ids.max(initial=0)) + 1, -1, np.int64)
    rank[ids] = np.arange(len(ids))
    votes = np.zeros((len(ids), int(class_map.max(initial=0)) + 1), np.int64)
    weighed = probability if probability is not None else np.zeros((0, 0), np.float32)
    _count_votes(labels, rank, class_map, np.ascontiguousarray(weighed), np.float32(threshold), votes)
    votes[:, :1] = 0
    winner: NDArray[np.int32] = votes.argmax(axis=1).astype(np.int32)
    return winner


@njit(nogil=True)
def _sum_moments(
    labels: Any, rank: Any, first: Any, image: Any, upsampling: int, probability: Any, table: Any
) -> Any:
    count = first.shape[0]
    sums = np.zeros((count, 6), np.int64)
    stains = np.zeros((count, 3), np.float64)
    height, width = labels.shape
    has_image, has_probability = image.shape[0] > 0, probability.shape[0] > 0
    for y in range(height):
        x = 0
        while x < width:
            n = labels[y, x]
            if n == 0:
                x += 1
                continue
            start = x
            while x < width and labels[y, x] == n:
                x += 1
            r = rank[n]
            v, a, m = y - first[r, 0], start - first[r, 1], x - start
            # sums of u and u² over the run u = a .. a + m - 1
            su = m * a + m * (m - 1) // 2
            suu = m * a * a + a * m * (m - 1) + (m - 1) * m * (2 * m - 1) // 6
            sums[r, 0] += m
            sums[r, 1] += su
            sums[r, 2] += m * v
            sums[r, 3] += suu
            sums[r, 4] += m * v * v
            sums[r, 5] += su * v
            if has_image:
                total, square = 0.0, 0.0
                for u in range(start, x):
                    j, i = (y, u) if upsampling == 1 else (y // upsampling, u // upsampling)
                    h = np.float64(table[0, image[j, i, 0]] + table[1, image[j, i, 1]] + table[2, image[j, i, 2]])
                    total += h
                    square += h * h
                stains[r, 0] += total
                stains[r, 1] += square
            if has_probability:
                total = 0.0
                for u in range(start, x):
                    total += probability[y, u]
                stains[r, 2] += total
    return sums, stains


@njit(nogil=True)
def _count_votes(labels: Any, rank: Any, class_map: Any, probability: Any, threshold: Any, votes: Any) -> None:
    weighed = probability.shape[0] > 0
    for y in range(labels.shape[0]):
        for x in range(labels.shape[1]):
            n = labels[y, x]
            if n and (not weighed or probability[y, x] >= threshold):
                votes[rank[n], int(class_map[y, x])] += 1
