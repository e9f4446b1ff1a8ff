"""Where a slide has tissue, seen at low power: not glass, not pen, not a black border.

Tissue absorbs light, by more than glass does, and has a color or is rough. Density and color are measured against the
color of the slide's own glass, and thresholded by Otsu (IEEE Trans. SMC 9:62, 1979) within limits: without them a
slide that is all tissue would lose its pale half, and one that is all glass would find its noise. Too much tissue
costs time, too little costs nuclei, so the mask is generous.
"""

import hashlib
import logging
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import shapely
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage
from skimage.filters import threshold_otsu
from skimage.morphology import disk, remove_small_objects

from hemalum.data.stain import recognize_stain
from hemalum.files import atomic_path
from hemalum.slides.readers import Pixels
from hemalum.slides.slide import Slide, check_slide_mpp, scaled

log = logging.getLogger(__name__)

Mask = NDArray[np.bool_]
Floats = NDArray[np.float32]

MASK_MPP = 8.0  # µm per px of the mask
ASSUMED_MPP = 0.5  # of a slide that states none: for the size of the mask and of specks, not for areas
MAX_SIDE = 2560  # px of the mask
SMALL = 2048 * 2048  # px of level 0: an image up to this size is a picture of tissue, and segmented within seconds
SPECK_MM2 = 0.01  # less is dust
FIELD_MPP, FIELD_SPECK_MM2, FIELD_GAP = 2.0, 0.0005, 24.0  # of a field of view, which may be small itself
FIELD_GLASS = (1.0, 8.0, 210)  # of 255: glass is smoother than pale stroma, and has less color
FIELD_GLASS_SHARE = 0.02  # with less there is none
NUCLEUS = 5.0  # µm around a centroid
HOLE_MM2 = 0.1  # less belongs to the tissue around it
GAP = 24.0  # µm between parts of one piece
MARGIN = 16.0  # µm that the mask goes beyond what was seen

DENSITY_LIMITS = (0.02, 0.04)  # natural optical density, mean of the channels
COLOR_LIMITS = (4.0, 6.0)  # greatest less least channel, of 255
ROUGH, ROUGH_DENSITY = 0.008, 0.005  # natural optical density; glass has a tenth of that
ROUGH_RADIUS = 5  # px
GLASS_LEAST, GLASS_TEXTURE = 190, 2.5  # of 255: darker or rougher is no glass
GLASS_COLOR = ((190.0, 220.0), (6.0, 16.0))  # of 255: greatest color by lightness; pale tissue is both
GLASS_SHARE = 0.002  # of the slide: with less there is no glass to measure against
SAMPLE = 100_000  # px that the stain is told by
WHITE = 243.0  # of 255: glass where none is seen
BLACK = 75  # of 255: gray that is darker is pen or border
BLACK_COLOR = 20


@dataclass(frozen=True, slots=True, eq=False)
class Tissue:
    """Where there is tissue: `mask` (h, w) bool for a slide of `shape` (H, W) px.

    `mpp`, µm per px of the mask, and `area_mm2`, the area of tissue, are None where the slide has no scale.
    `reason` says why all of it counts as tissue, and is empty where tissue was looked for.
    """

    mask: Mask
    shape: tuple[int, int]
    mpp: float | None
    reason: str = ""

    @property
    def share(self) -> float:
        """The part of the slide that is tissue, 0 to 1."""
        return float(self.mask.mean())

    @property
    def digest(self) -> str:
        """sha256 hex of where there is tissue."""
        return hashlib.sha256(repr(self.mask.shape).encode() + np.packbits(self.mask).tobytes()).hexdigest()

    @property
    def downsample(self) -> float:
        """How much longer a pixel of the mask is than one of the slide."""
        return math.sqrt(self.shape[0] * self.shape[1] / self.mask.size)

    @property
    def area_mm2(self) -> float | None:
        """Area of tissue, mm²."""
        return None if self.mpp is None else float(self.mask.sum()) * self.mpp**2 / 1e6

    def covers(self, x: int, y: int, width: int, height: int) -> bool:
        """Whether a window, px of level 0, has tissue in it."""
        return bool(self._window(x, y, width, height).any())

    def share_in(self, x: int, y: int, width: int, height: int) -> float:
        """The part of a window, px of level 0, that is tissue, 0 to 1."""
        return float(self._window(x, y, width, height).mean())

    def share_of(self, region: Any, x: Floats, y: Floats) -> float:
        """The part of `region`, a shapely area in px of level 0, that is tissue; None: of all of it.

        There is tissue where there are nuclei, at `x`, `y` (N,) px, and for `NUCLEUS` µm around them.
        """
        rows, columns = self.mask.shape
        down, across = rows / self.shape[0], columns / self.shape[1]
        near = np.zeros_like(self.mask)
        near[
            np.clip((np.asarray(y) * down).astype(int), 0, rows - 1),
            np.clip((np.asarray(x) * across).astype(int), 0, columns - 1),
        ] = True
        mask = self.mask
        if not mask.all() and near.any():
            reach = max(1, round(NUCLEUS / (self.mpp or ASSUMED_MPP)))
            mask = mask | (ndimage.distance_transform_edt(~near) <= reach)
        if region is None:
            return float(mask.mean())
        grid = np.meshgrid((np.arange(columns) + 0.5) / across, (np.arange(rows) + 0.5) / down)
        inside = shapely.contains_xy(region, *grid)
        return float(mask[inside].mean()) if inside.any() else 1.0

    def _window(self, x: int, y: int, width: int, height: int) -> Mask:
        down, across = self.mask.shape[0] / self.shape[0], self.mask.shape[1] / self.shape[1]
        rows = slice(int(y * down), math.ceil((y + height) * down))
        columns = slice(int(x * across), math.ceil((x + width) * across))
        return self.mask[rows, columns]


def mask_boxes(mask: Mask, shape: tuple[int, int]) -> NDArray[np.object_]:
    """A mask (h, w) of an image of (H, W) px as boxes of shapely in px: one for each run in a row; exact, and few."""
    down, across = (side / pixels for side, pixels in zip(shape, mask.shape, strict=True))
    edges = np.diff(np.pad(mask, ((0, 0), (1, 1))).astype(np.int8), axis=1)
    rows, starts = np.nonzero(edges == 1)
    stops = np.nonzero(edges == -1)[1]
    boxes: NDArray[np.object_] = shapely.box(starts * across, rows * down, stops * across, (rows + 1) * down)
    return boxes


def find_tissue(slide: Slide, *, mpp: float | None = None) -> Tissue:
    """Find the tissue of a slide from its pixels at about 8 µm per px; `mpp` replaces the slide's own scale.

    Fluorescence, and images of up to 2048 x 2048 px, are tissue all over. Raises HemalumError for an mpp that cannot
    be.
    """
    if math.prod(slide.shape) <= SMALL:
        return all_tissue(slide, "a small image", mpp=mpp)
    shape, scale = _mask_shape(slide, mpp)
    pixels = slide.read_scaled(shape, slice(0, shape[0]), slice(0, shape[1]))
    glass = _glass(pixels)
    if glass is None:
        sample = pixels.reshape(-1, 3)[:: max(1, math.prod(shape) // SAMPLE)]
        if recognize_stain(sample).stain == "fluorescence":
            return all_tissue(slide, "fluorescence", mpp=mpp)
    return Tissue(mask_tissue(pixels, scale or MASK_MPP, glass), slide.shape, scale)


def field_tissue(slide: Slide, mpp: float | None, *, stain: str | None = None) -> Tissue:
    """What of a field of view is tissue and not glass, at about 2 µm per px: for its area, not for where to look.

    Unlike `find_tissue` it goes no further than what is seen. Without glass, and in fluorescence (`stain`), all of it
    is tissue.
    """
    scale = mpp or ASSUMED_MPP
    factor = min(1.0, scale / FIELD_MPP, MAX_SIDE / max(slide.shape))
    shape = scaled(slide.shape, factor)
    pixels = slide.read_scaled(shape, slice(0, shape[0]), slice(0, shape[1]))
    even = _spread(pixels.mean(axis=2, dtype=np.float32)) <= FIELD_GLASS[0]
    even &= (np.ptp(pixels, axis=2) <= FIELD_GLASS[1]) & (pixels.min(axis=2) >= FIELD_GLASS[2])
    glass = _glass(pixels) if stain != "fluorescence" and even.mean() >= FIELD_GLASS_SHARE else None
    if glass is None:
        return Tissue(np.ones(shape, np.bool_), slide.shape, scale / factor, "no glass is seen")
    mask = mask_tissue(pixels, scale / factor, glass, speck_mm2=FIELD_SPECK_MM2, gap=FIELD_GAP, margin=0)
    return Tissue(mask, slide.shape, scale / factor)


def all_tissue(slide: Slide, reason: str, *, mpp: float | None = None) -> Tissue:
    """A slide of which everything counts as tissue, and why."""
    shape, scale = _mask_shape(slide, mpp)
    return Tissue(np.ones(shape, np.bool_), slide.shape, scale, reason)


def mask_tissue(
    pixels: Pixels, mpp: float = MASK_MPP, glass: Floats | None = None, *, speck_mm2: float = SPECK_MM2,
    gap: float = GAP, margin: float = MARGIN,
) -> Mask:  # fmt: skip
    """(h, w) bool of the tissue in (h, w, 3) RGB at `mpp`; `glass` (3,) is the color of the glass if it is known.

    Less than `speck_mm2` is no tissue. Parts up to `gap` µm apart are one, and the mask goes `margin` µm beyond them.
    """
    if glass is None:
        glass = np.full(3, WHITE, np.float32)
    bright = np.minimum(pixels / glass, 1).astype(np.float32)
    ink = _ink(255 * bright)
    bright = ndimage.gaussian_filter(bright, (1, 1, 0))  # noise of single pixels
    density = -np.log(np.maximum(bright, 1 / 255)).mean(axis=2)
    color = 255 * (bright.max(axis=2) - bright.min(axis=2))
    seen = ~ink
    mask = density > _otsu(density[seen], DENSITY_LIMITS)
    if np.percentile(color, 99) > COLOR_LIMITS[0]:  # else a gray image
        mask &= color > _otsu(color[seen], COLOR_LIMITS)
    mask = (mask | _rough(density, _remove_thin(ink))) & seen
    um = 1 / mpp
    reach = max(1, round(gap * um))
    mask = np.pad(mask, reach + 1, "edge")  # tissue goes on behind the slide's edge
    mask = ndimage.binary_closing(mask, disk(reach))
    mask = mask[reach + 1 : -reach - 1, reach + 1 : -reach - 1] & seen
    mask = remove_small_objects(mask, max_size=max(1, round(speck_mm2 * 1e6 * um * um)))
    holes = ndimage.binary_fill_holes(mask) & ~mask  # not what is open to the slide's edge
    mask |= holes & ~remove_small_objects(holes, max_size=max(1, round(HOLE_MM2 * 1e6 * um * um)))
    if not mask.any():
        return np.asarray(mask, np.bool_)
    if margin:
        mask = ndimage.binary_dilation(mask, disk(max(1, round(margin * um))))
    return np.asarray(mask & ~_remove_thin(ink), np.bool_)


def draw_tissue(slide: Slide, tissue: Tissue, max_side: int = 1024) -> Pixels:
    """Give a thumbnail (h, w, 3) on which all but tissue is gray and pale, with the outline of tissue in green."""
    picture = slide.thumbnail(max_side)
    shape = picture.shape[0], picture.shape[1]
    mask = np.asarray(Image.fromarray(tissue.mask).resize(shape[::-1], Image.Resampling.NEAREST), np.bool_)
    gray = (picture.mean(axis=2, keepdims=True) + 255) / 2
    drawn = np.where(mask[..., None], picture, gray).astype(np.uint8)
    edge = mask & ~ndimage.binary_erosion(mask, disk(max(1, round(max(shape) / 600))), border_value=1)
    drawn[edge] = (0, 150, 60)
    return drawn


def save_tissue(path: Path | str, slide: Slide, tissue: Tissue, max_side: int = 1024) -> Path:
    """Write the picture of `draw_tissue` as PNG; gives its path. Raises HemalumError when it cannot be written."""
    with atomic_path(path) as temporary:
        Image.fromarray(draw_tissue(slide, tissue, max_side)).save(temporary, format="PNG")
    return Path(path)


def _mask_shape(slide: Slide, mpp: float | None) -> tuple[tuple[int, int], float | None]:
    """Size of the mask of a slide, px, and µm per px of it."""
    scale = slide.mpp if mpp is None else check_slide_mpp(mpp, slide.name)
    factor = min(1.0, (scale or ASSUMED_MPP) / MASK_MPP, MAX_SIDE / max(slide.shape))
    return scaled(slide.shape, factor), None if scale is None else scale / factor


def _otsu(values: Floats, limits: tuple[float, float]) -> float:
    """Otsu's threshold of values up to four times the upper limit, kept within the limits."""
    if not values.size or values.min() == values.max():
        return limits[1]
    return float(np.clip(threshold_otsu(np.minimum(values, 4 * limits[1])), *limits))


def _glass(pixels: Pixels) -> Floats | None:
    """Color (3,) of the glass, the brightest even ground of the slide, or None where there is none."""
    values = pixels.astype(np.float32)
    lightness = values.mean(axis=2)
    spread = _spread(lightness)
    least = pixels.min(axis=2)
    even = (
        (least >= GLASS_LEAST)
        & (spread <= GLASS_TEXTURE)
        & (np.ptp(pixels, axis=2) <= np.interp(least, *GLASS_COLOR))
    )
    scanned = even & (pixels.min(axis=2) < 254)  # where nothing was scanned, slides are filled with white
    if scanned.mean() >= GLASS_SHARE:
        even = scanned
    if even.mean() < GLASS_SHARE:
        return None
    # tissue may be even and pale as well; glass is what lets through most
    brightest = even & (lightness >= np.percentile(lightness[even], 95) - 10)
    color: Floats = np.median(values[brightest], axis=0).astype(np.float32)
    return color


def _rough(density: Floats, ink: Mask) -> Mask:
    """Where density varies in all of a neighborhood: pale tissue whose stains mix to gray, as brown and blue do.

    Glass is smooth, and so is a shadow but for its edges, which are too narrow.
    """
    rough = (_spread(density) > ROUGH) & (density > ROUGH_DENSITY) & ~ndimage.binary_dilation(ink, disk(3))
    return np.asarray(ndimage.binary_opening(ndimage.binary_closing(rough, disk(3)), disk(ROUGH_RADIUS)), np.bool_)


def _spread(values: Floats) -> Floats:
    """Standard deviation over 5 x 5 px."""
    mean, square = ndimage.uniform_filter(values, 5), ndimage.uniform_filter(values**2, 5)
    spread: Floats = np.sqrt(np.maximum(square - mean**2, 0))
    return spread


def _ink(values: Floats) -> Mask:
    """What was drawn with a pen, and black borders: colors that no stain has at this power, and their rims."""
    red, green, blue = values[..., 0], values[..., 1], values[..., 2]
    most, least = values.max(axis=2), values.min(axis=2)
    color = most - least
    strong = color > 0.6 * most
    is_blue = (blue == most) & (red < 0.55 * blue) & strong & (color > 70) & (green < blue)
    is_green = (green == most) & (color > 35) & (green > 1.15 * red) & (green > 1.02 * blue)
    is_teal = (red == least) & (color > 60) & (green > 0.85 * blue) & (red < 0.6 * green)
    is_red = (red == most) & (color > 100) & (np.maximum(green, blue) < 0.42 * red)
    is_black = (most < BLACK) & (color < BLACK_COLOR)
    ink = ndimage.binary_opening(is_blue | is_green | is_teal | is_red | is_black, disk(1))
    # the rim of a stroke is ink that glass shines through: pale, of no hue that tells it from stain
    return np.asarray(ndimage.binary_dilation(ink, disk(3)), np.bool_) if ink.any() else np.asarray(ink, np.bool_)


def _remove_thin(ink: Mask) -> Mask:
    """Ink without what is too small for a pen: a few dark pixels in tissue are nuclei or pigment."""
    return np.asarray(remove_small_objects(ink, max_size=200), np.bool_)
