"""Pairs whose warp and mask are known: an IHC section made from an H&E tile with its label map.

What registration and mask are measured on, by `ihc.py` and by the tests: real pairs come without truth.
"""

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from hemalum.data.ihc.chromogen import AEC, DAB, FAST_RED, HEMATOXYLIN, MIN_DENSITY, Chromogen, optical_density
from hemalum.data.ihc.registration import Alignment, load_simpleitk

PALE = np.array([0.50, 0.60, 0.62])  # what is left of the tissue's own color beside the counterstain: grayish


@dataclass(frozen=True, slots=True)
class Warp:
    """From pixels of the IHC section to pixels of the H&E section: (x, y) → matrix @ (x, y) + shift + smooth.

    `moves` (2, n, n) are the displacements in px at the control points of a cubic spline over `shape` (H, W).
    """

    matrix: NDArray[np.float64]
    shift: NDArray[np.float64]
    moves: NDArray[np.float64]
    shape: tuple[int, int]

    @classmethod
    def draw(
        cls,
        rng: np.random.Generator,
        shape: tuple[int, int],
        *,
        degrees: float = 12.0,
        shift: float = 20.0,
        stretch: float = 0.04,
        bend: float = 4.0,
    ) -> "Warp":
        """Draw one: rotation up to ± `degrees`, `shift` px, `stretch` and shear as shares, `bend` px (sd)."""
        angle = np.deg2rad(rng.uniform(-degrees, degrees))
        turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
        matrix = turn @ (np.eye(2) + rng.uniform(-stretch, stretch, (2, 2)))
        middle = (np.array(shape[::-1]) - 1) / 2
        offset = middle - matrix @ middle + rng.uniform(-shift, shift, 2)
        return cls(matrix, offset, rng.normal(0, bend, (2, 4, 4)), shape)

    def __call__(self, points: NDArray[np.float64]) -> NDArray[np.float64]:
        """(..., 2) px (x, y) of the IHC section to px of the H&E section."""
        grid = self.moves.shape[1] - 1
        coordinates = np.moveaxis(points[..., ::-1] / (np.array(self.shape) - 1) * grid, -1, 0)
        bent = [ndimage.map_coordinates(moves, coordinates, order=3, mode="nearest") for moves in self.moves]
        moved: NDArray[np.float64] = points @ self.matrix.T + self.shift + np.stack(bent, axis=-1)
        return moved


@dataclass(frozen=True, slots=True, eq=False)
class KnownPair:
    """An H&E tile, the IHC section made from it, the true warp, and the true mask on the H&E tile."""

    he: NDArray[np.uint8]
    ihc: NDArray[np.uint8]
    warp: Warp
    positive: NDArray[np.bool_]

    def errors_of(self, alignment: Alignment, where: NDArray[np.bool_], mpp: float) -> NDArray[np.float64]:
        """`errors` of a registration of the pair, whose H&E tile has this scale, µm per px."""
        sitk = load_simpleitk()
        size = (where.shape[1], where.shape[0])
        moves = sitk.TransformToDisplacementField(
            alignment.transform, sitk.sitkVectorFloat64, size, (mpp / 2, mpp / 2), (mpp, mpp)
        )
        y, x = np.mgrid[: where.shape[0], : where.shape[1]]
        return self.errors(np.stack([x, y], axis=-1) + sitk.GetArrayFromImage(moves) / mpp, where)

    def errors(self, positions: NDArray[np.float64], where: NDArray[np.bool_]) -> NDArray[np.float64]:
        """Error in px of H&E at the pixels `where` (H, W) bool, for `positions` (H, W, 2): IHC px (x, y) of each.

        Only pixels whose true partner lies on the IHC section count: the true map takes a recovered place back to
        the H&E tile, and the distance to where it should be is the error.
        """
        height, width = where.shape
        x, y = np.meshgrid(np.arange(width), np.arange(height))
        at = positions[where]
        inside = (at >= 0).all(axis=1) & (at[:, 0] <= self.ihc.shape[1] - 1) & (at[:, 1] <= self.ihc.shape[0] - 1)
        back = self.warp(at[inside])
        off = back - np.stack([x[where], y[where]], axis=1)[inside]
        distance: NDArray[np.float64] = np.hypot(off[:, 0], off[:, 1])
        return distance


def make_pair(
    image: NDArray[np.uint8],
    labels: NDArray[np.int32],
    seed: int,
    *,
    chromogen: Chromogen = "dab",
    positive: float = 0.4,
    shared: float = 1.0,
    warp: Warp | None = None,
    noise: float = 3.0,
    border: int = 12,
) -> KnownPair:
    """Make an IHC section from an H&E tile (H, W, 3) uint8 and its label map (H, W) int32.

    A share `positive` of the nuclei takes the chromogen, eosin fades to a fifth, hematoxylin to two thirds; the
    section is warped, gets noise (sd in gray values), light of another color and a blank `border` in px. `shared` is
    the share of nuclei that both sections have: 1 is one section stained twice, less stands for consecutive
    sections (a nucleus that is not shared vanishes from the IHC section). The true mask holds the positive
    nuclei of the IHC section.
    """
    rng = np.random.default_rng(seed)
    warp = warp or Warp.draw(rng, (labels.shape[0], labels.shape[1]))
    ids = np.unique(labels)[1:]
    both = rng.random(len(ids)) < shared
    chosen = both & (rng.random(len(ids)) < positive)
    mask = np.isin(labels, ids[chosen])
    density = optical_density(image)
    gone = np.isin(labels, ids[~both])
    if gone.any():
        density = _without(density, gone, labels > 0)
    nuclear, rest = _amounts(density, labels > 0)
    stained = nuclear[..., None] * 0.67 * _jittered(rng, HEMATOXYLIN) + 0.2 * rest[..., None] * PALE
    first, second = {"dab": (DAB, DAB), "red": (AEC, FAST_RED)}[chromogen]
    mix = rng.random()  # red chromogens differ; the reader is told "red" and no more
    color = _jittered(rng, mix * np.array(first) + (1 - mix) * np.array(second))
    stained += _chromogen_amount(rng, labels, ids[chosen])[..., None] * color
    y, x = np.mgrid[: labels.shape[0], : labels.shape[1]]
    source = warp(np.stack([x, y], axis=-1).astype(np.float64))
    coordinates = (source[..., 1], source[..., 0])
    section = np.stack(
        [ndimage.map_coordinates(stained[..., c], coordinates, order=1, cval=0.0) for c in range(3)], axis=-1
    )
    if border:
        section[:border] = section[-border:] = section[:, :border] = section[:, -border:] = 0
    light = rng.uniform(236, 252, 3)
    pixels = light * 10**-section + rng.normal(0, noise, section.shape)
    return KnownPair(image, np.rint(pixels.clip(0, 255)).astype(np.uint8), warp, mask)


def mirrored(pair: KnownPair) -> KnownPair:
    """The same pair with the IHC section laid on the glass upside down."""
    return replace(pair, ihc=np.ascontiguousarray(pair.ihc[:, ::-1]))


def _amounts(
    density: NDArray[np.float32], nuclei: NDArray[np.bool_]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Amounts (H, W) ≥ 0 of what stains the nuclei and of what stains the rest, by the tile's own two colors."""
    tissue = density.mean(axis=2) > MIN_DENSITY
    colors = []
    for where in (nuclei & tissue, ~nuclei & tissue):
        mean = density[where].mean(axis=0, dtype=np.float64) if where.any() else np.array(HEMATOXYLIN)
        colors.append(mean / np.linalg.norm(mean))
    amounts = density @ np.linalg.pinv(np.stack(colors))
    return amounts[..., 0].clip(0), amounts[..., 1].clip(0)


def _jittered(
    rng: np.random.Generator, direction: tuple[float, float, float] | NDArray[np.float64]
) -> NDArray[np.float64]:
    """A color turned by about 3°: no laboratory's stain is the book's."""
    unit = np.asarray(direction, np.float64) / np.linalg.norm(direction)
    turned = (unit + rng.normal(0, 0.035, 3)).clip(0.02)
    result: NDArray[np.float64] = turned / np.linalg.norm(turned)
    return result


def _chromogen_amount(
    rng: np.random.Generator, labels: NDArray[np.int32], chosen: NDArray[np.int32]
) -> NDArray[np.float64]:
    """(H, W) optical density of the chromogen: another strength per nucleus, grain within, blurred edges."""
    strength = np.zeros(int(labels.max()) + 1)
    strength[chosen] = rng.uniform(0.4, 1.1, len(chosen))
    grain = 1 + 0.25 * ndimage.gaussian_filter(rng.normal(0, 1, labels.shape), 1.5) * 5
    nuclear: NDArray[np.float64] = ndimage.gaussian_filter(strength[labels] * grain.clip(0.3), 0.8)
    background = 0.04 * ndimage.gaussian_filter(rng.random(labels.shape), 8)
    nuclear += background
    return nuclear


def _without(density: NDArray[np.float32], gone: NDArray[np.bool_], nuclei: NDArray[np.bool_]) -> NDArray[np.float32]:
    """The density with nuclei taken away: in their place lies the mean of the stroma around, with its grain."""
    wide = ndimage.binary_dilation(gone, iterations=2)
    stroma = ~ndimage.binary_dilation(nuclei, iterations=2)
    weight = ndimage.gaussian_filter(stroma.astype(np.float32), 12) + 1e-6
    replaced = density.copy()
    for channel in range(3):
        values = density[..., channel]
        around = ndimage.gaussian_filter(values * stroma, 12) / weight
        grain = values - ndimage.gaussian_filter(values, 3)
        replaced[..., channel][wide] = (around + 0.3 * grain).clip(0)[wide]
    return replaced
