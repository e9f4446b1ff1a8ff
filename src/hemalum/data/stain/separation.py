"""The directions of two stains in optical density, estimated from the pixels of an image.

Optical density is the natural logarithm: OD = -ln((I + 1) / (white + 1)), so that white is 0 and black is finite.
"""

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hemalum.compiled import njit

Floats = NDArray[np.float64]

# Optical-density directions of hematoxylin, eosin and DAB (Ruifrok & Johnston 2001), rows of unit length.
STAINS: NDArray[np.float64] = np.array([[0.650, 0.704, 0.286], [0.072, 0.990, 0.105], [0.268, 0.570, 0.776]])
STAINS = STAINS / np.linalg.norm(STAINS, axis=1, keepdims=True)

PALE = 0.15  # optical density below which a pixel is background (Macenko et al. 2009)
EXTREME = 1.0  # percentile of angles that is taken for a pure stain (Macenko et al. 2009)
SPARSITY = 0.1  # weight of the amounts in the factorisation (Vahadane et al. 2016)
FACTORISED = 1 << 15  # px that the factorisation looks at: its directions move by less than a degree with more
PASSES = 500
SETTLED = 1e-6  # movement of a direction in one pass below which it has settled

WHITEST = 99.0  # percentile of pixels, each by its brightest channel, that is taken for unstained


def white_of(pixels: NDArray[np.uint8]) -> float:
    """The value of an unstained pixel of an image, from its pixels (N, 3).

    One number for all channels, because color is what is sought: even where no pixel is empty, eosin lets nearly
    all red light pass.
    """
    return float(np.percentile(pixels.max(axis=1), WHITEST))


def density_table(white: float) -> Floats:
    """Optical density of every byte, (256,)."""
    return -np.log((np.arange(256) + 1) / (white + 1))


def macenko_stains(density: Floats) -> Floats:
    """Directions of hematoxylin and the other stain, rows of (2, 3), from tissue's optical density (N, 3).

    The two extreme angles in the plane of the two largest principal components. Source: Macenko et al., A method
    for normalizing histology slides for quantitative analysis, ISBI 2009. Pixels with a channel below `PALE` are
    left out, as the paper does. Needs two pixels at least; the rows are equal where there is one color only.
    """
    deep = density[(density >= PALE).all(axis=1)]
    if len(deep) < 2:
        return np.repeat(density.mean(axis=0, keepdims=True), 2, axis=0)
    _, vectors = np.linalg.eigh(np.cov(deep.T))
    plane = vectors[:, [2, 1]]
    # the sign of an eigenvector is arbitrary: angles are counted from the side on which the pixels lie
    if plane[:, 0].sum() < 0:
        plane = -plane
    projected = deep @ plane
    angles = np.arctan2(projected[:, 1], projected[:, 0])
    extremes = [
        plane @ [math.cos(angle), math.sin(angle)] for angle in np.percentile(angles, (EXTREME, 100 - EXTREME))
    ]
    return in_order(np.array(extremes))


def vahadane_stains(density: Floats) -> Floats:
    """Directions of hematoxylin and the other stain, rows of (2, 3), from tissue's optical density (N, 3).

    Sparse non-negative factorisation: min ½‖V − H·W‖² + λ‖H‖₁ with W, H ≥ 0 and rows of W of unit length, in turns
    over H (in closed form, as there are two stains) and W. Source: Vahadane et al., Structure-preserving color
    normalization and sparse stain separation for histological images, IEEE Trans. Med. Imaging 35 (2016), eq. 4.
    """
    step = -(-len(density) // FACTORISED)
    pixels = np.ascontiguousarray(np.maximum(density[::step], 0))
    # begun from hematoxylin and eosin as they usually are: the same image gives the same directions
    directions: Floats = _factorise(pixels, STAINS[:2].copy(), SPARSITY, PASSES, SETTLED)
    return in_order(directions)


def amounts(density: Floats, stains: Floats, *, nonnegative: bool) -> Floats:
    """How much of each stain is in pixels of optical density (N, 3): (N, 2), by least squares."""
    inner = np.ascontiguousarray(density @ stains.T)
    solution: Floats = _amounts(inner, float(stains[0] @ stains[1]), nonnegative)
    return solution


def unmixing(first: Floats, second: Floats) -> Floats:
    """(3, 2): what gives the amounts of two unit directions (3,) from optical density, by `density @ unmixing`.

    What neither explains goes to a third direction, at right angles to both, and is dropped (Ruifrok & Johnston,
    Anal. Quant. Cytol. Histol. 23, 291, 2001).
    """
    inverse = np.linalg.inv(np.stack([first, second, np.cross(first, second)]))
    return np.ascontiguousarray(inverse[:, :2])


def angle_between(stains: Floats) -> float:
    """Degrees between the two rows of (2, 3)."""
    one, other = stains / np.maximum(np.linalg.norm(stains, axis=1, keepdims=True), 1e-12)
    return math.degrees(math.acos(float(np.clip(one @ other, -1, 1))))


def in_order(stains: Floats) -> Floats:
    """Hematoxylin first: of the two it takes the larger share of red light."""
    share = stains[:, 0] / np.maximum(np.abs(stains).sum(axis=1), 1e-12)
    return np.ascontiguousarray(stains[::-1] if share[1] > share[0] else stains)


@njit(nogil=True, inline="always")
def solve_pair(one: Any, other: Any, cosine: Any, nonnegative: bool) -> Any:
    """Least-squares amounts of two unit directions, from a pixel's inner products with them."""
    rest = 1 - cosine * cosine
    a, b = (one - cosine * other) / rest, (other - cosine * one) / rest
    if nonnegative:
        if a < 0:
            a, b = one * 0, max(other, one * 0)
        elif b < 0:
            a, b = max(one, one * 0), one * 0
    return a, b


@njit(nogil=True)
def _amounts(inner: Any, cosine: float, nonnegative: bool) -> Any:
    solution = np.empty_like(inner)
    for i in range(len(inner)):
        solution[i, 0], solution[i, 1] = solve_pair(inner[i, 0], inner[i, 1], cosine, nonnegative)
    return solution


@njit(nogil=True)
def _factorise(pixels: Any, stains: Any, sparsity: float, passes: int, settled: float) -> Any:
    for _ in range(passes):
        cosine = stains[0] @ stains[1]
        if 1 - cosine * cosine < 1e-9:  # the two have become one
            break
        # all that the step over the directions needs of the amounts: Hᵀ·H and Hᵀ·V
        gram = np.zeros((2, 2))
        seen = np.zeros((2, 3))
        for i in range(len(pixels)):
            one = other = -sparsity
            for c in range(3):
                one += pixels[i, c] * stains[0, c]
                other += pixels[i, c] * stains[1, c]
            a, b = solve_pair(one, other, cosine, True)
            gram[0, 0] += a * a
            gram[0, 1] += a * b
            gram[1, 1] += b * b
            for c in range(3):
                seen[0, c] += a * pixels[i, c]
                seen[1, c] += b * pixels[i, c]
        gram[1, 0] = gram[0, 1]
        moved = 0.0
        for j in range(2):
            if gram[j, j] == 0:
                continue
            fresh = np.maximum(seen[j] - gram[j, 1 - j] * stains[1 - j], 0)
            length = math.sqrt(fresh @ fresh)
            if length > 0:
                fresh /= length
                moved = max(moved, np.abs(fresh - stains[j]).max())
                stains[j] = fresh
        if moved < settled:
            break
    return stains
