"""What in an image is no tissue and no stain: ink of pens and markers, areas out of focus, folds.

Ink and what is out of focus are left out, since they are sure: no stain of bright field has such hues (`_inks`)
over areas wider than nuclei, and tissue in focus has fine detail everywhere. Dark bands may be folds, and are only
named. Hematoxylin, eosin, blood, pigment, DAB and necrosis are none of these: `benchmarks/artifacts.py` measures it
on real images.
"""

import hashlib
import logging
import math
import zlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import shapely
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage
from skimage.measure import regionprops
from skimage.morphology import disk, remove_small_objects

from hemalum.data.stain import recognize_stain
from hemalum.errors import counted
from hemalum.slides.readers import Pixels
from hemalum.slides.slide import Slide, scaled
from hemalum.slides.tissue import ASSUMED_MPP, Tissue, mask_boxes

log = logging.getLogger(__name__)

Mask = NDArray[np.bool_]
Floats = NDArray[np.float32]

INK, BLUR, FOLD = "ink", "out of focus", "dark band, perhaps a fold"
KINDS = (INK, BLUR, FOLD)  # numbered from 1
SURE = (INK, BLUR)
NOTE, AREA_NOTE = "artifacts", "artifacts_mm2"  # notes of a result
COLORS = {INK: (255, 140, 0), BLUR: (255, 140, 0), FOLD: (255, 230, 0)}
TINT = 0.35  # of a mark's color over the image

DENSITY = -np.log((np.arange(256, dtype=np.float32) + 1) / 256)  # natural optical density of a value of uint8

MPP = 2.0  # µm per px at which is looked
MAX_SIDE = 2560  # px: of larger slides it is looked at coarser pixels
SAMPLE = 100_000  # px that the stain is told by
WIDTH = 10.0  # µm: ink is wider than a nucleus, so that none of a rare hue is taken for it
SMALLEST = 400.0  # µm² of an area of ink
RIM, GAP = 4.0, 12.0  # µm: pale edges of ink that looks like hematoxylin, and gaps that ink encloses
MOST = 0.8  # of all that absorbs light: of what covers more there is nothing else to go by, and it is kept

FOCUS_MPP = 0.5  # µm per px at which is looked for focus
FOCUS_COARSEST = 2.5  # µm per px: coarser pixels do not show it
FOCUS_WINDOW = 32.0  # µm: side of the squares that are sharp or not
FOCUS_LEAST = 0.2  # natural optical density: with less there is nothing to be sharp
FOCUS_RATIO = 0.43  # of detail of 0.5 to 1 µm to that of 1 to 2 µm, below which there is no focus
FOCUS_SHARE = 0.02  # of the image: less is no area

FOLD_SMOOTH, FOLD_WIDTH, FOLD_LENGTH = 6.0, 12.0, 80.0  # µm
FOLD_DENSITY, FOLD_FACTOR = 1.2, 1.8  # natural optical density, least and over that of the tissue
FOLD_SLENDER = 3.0  # how much longer than wide


@dataclass(frozen=True, slots=True, eq=False)
class Artifacts:
    """Where an image of `shape` (H, W) px has artifacts: `codes` (h, w) uint8, 0 for none, else the number in KINDS.

    `mpp` is µm per px of the image, None where it is unknown. `kept` names what is not left out.
    """

    codes: NDArray[np.uint8]
    shape: tuple[int, int]
    mpp: float | None
    kept: tuple[str, ...] = ()

    def __reduce__(self) -> tuple[Any, ...]:
        """Travels compressed, to the workers of a cluster: it is nearly empty, and as large as a mask."""
        packed = zlib.compress(np.ascontiguousarray(self.codes).tobytes())
        return _unpacked, (packed, self.codes.shape, self.shape, self.mpp, self.kept)

    @property
    def digest(self) -> str | None:
        """sha256 hex of what is left out; "kept" where it is kept, None where nothing is seen that could be."""
        if not np.isin(self.codes, [KINDS.index(kind) + 1 for kind in SURE]).any():
            return None
        left_out = self.left_out
        return hashlib.sha256(np.packbits(left_out).tobytes()).hexdigest() if left_out.any() else "kept"

    @property
    def left_out(self) -> Mask:
        """Where nuclei do not count, (h, w)."""
        return self._is_left_out(self.codes)

    def _is_left_out(self, codes: NDArray[np.uint8]) -> Mask:
        numbers = [KINDS.index(kind) + 1 for kind in SURE if kind not in self.kept]
        return np.isin(codes, numbers)

    def leave_out(self, x: NDArray[np.float64], y: NDArray[np.float64]) -> Mask:
        """Which points (N,), px of level 0, lie in what is left out."""
        down, across = (side / size for side, size in zip(self.codes.shape, self.shape, strict=True))
        rows = np.clip((y * down).astype(np.int64), 0, self.codes.shape[0] - 1)
        columns = np.clip((x * across).astype(np.int64), 0, self.codes.shape[1] - 1)
        inside: Mask = self._is_left_out(self.codes[rows, columns])
        return inside

    def blank(self, pixels: Pixels, left: int, top: int) -> Pixels:
        """A window of level 0 from (left, top), (h, w, 3), with what is left out white."""
        down, across = (side / size for side, size in zip(self.codes.shape, self.shape, strict=True))
        rows = ((top + np.arange(pixels.shape[0]) + 0.5) * down).astype(np.int64)
        columns = ((left + np.arange(pixels.shape[1]) + 0.5) * across).astype(np.int64)
        there = self._is_left_out(self.codes[np.ix_(rows, columns)])
        return np.where(there[..., None], np.uint8(255), pixels) if there.any() else pixels

    def clear_area(self) -> Any:
        """The area of the image, px of level 0, without what is left out, as shapely; None where nothing is."""
        left_out = self.left_out
        if not left_out.any():
            return None
        return shapely.union_all(mask_boxes(~left_out, self.shape))

    def without(self, tissue: Tissue) -> Tissue:
        """Tissue without what is left out; not all of the slide then, where it was that."""
        left_out = self.left_out
        if not left_out.any():
            return tissue
        height, width = tissue.mask.shape
        there = Image.fromarray(left_out).resize((width, height), Image.Resampling.NEAREST)
        return replace(tissue, mask=tissue.mask & ~np.asarray(there, np.bool_), reason="")

    @property
    def notes(self) -> dict[str, Any]:
        """What a result says of them: by kind how many areas, which share of the image, and whether left out."""
        summary: dict[str, Any] = {}
        for number, kind in enumerate(KINDS, start=1):
            there = self.codes == number
            if there.any():
                areas = int(ndimage.label(there, np.ones((3, 3)))[1])
                left_out = kind in SURE and kind not in self.kept
                summary[kind] = {"areas": areas, "share": round(float(there.mean()), 4), "left_out": left_out}
        if not summary:
            return {}
        area = float(self.left_out.mean()) * math.prod(self.shape) * (self.mpp or 0.0) ** 2 / 1e6
        return {NOTE: summary} | ({AREA_NOTE: round(area, 6)} if area else {})

    def mark(self, pixels: Pixels, top: int, height: int) -> Pixels:
        """Rows from `top` of the whole image drawn `height` px high, (rows, w, 3), with what is there tinted."""
        rows = ((np.arange(top, top + len(pixels)) + 0.5) * self.codes.shape[0] / height).astype(np.int64)
        across = self.codes.shape[1] / pixels.shape[1]
        columns = ((np.arange(pixels.shape[1]) + 0.5) * across).astype(np.int64)
        codes = self.codes[np.minimum(rows, self.codes.shape[0] - 1)][:, np.minimum(columns, self.codes.shape[1] - 1)]
        marked = pixels.copy()
        for number, kind in enumerate(KINDS, start=1):
            there = codes == number
            if there.any():
                mixed = marked[there] * (1 - TINT) + np.array(COLORS[kind]) * TINT
                marked[there] = np.rint(mixed).astype(np.uint8)
        return marked

    def marked(self, read: Callable[[int, int], Pixels], height: int) -> Callable[[int, int], Pixels]:
        """What reads rows start..stop of an image `height` px high, with what is there tinted."""
        return read if not self.codes.any() else lambda start, stop: self.mark(read(start, stop), start, height)


def describe_artifacts(notes: dict[str, Any]) -> str:
    """What the notes of a result say of artifacts, as `ink in 2 places, 3.1 % (left out)`; "" where none are seen."""
    summary: dict[str, Any] = notes.get(NOTE, {})
    return "; ".join(
        f"{kind} in {counted(one['areas'], 'place')}, {100 * one['share']:.1f} %"
        + (" (left out)" if one["left_out"] else "")
        for kind, one in summary.items()
    )


def _unpacked(
    packed: bytes, size: tuple[int, int], shape: tuple[int, int], mpp: float | None, kept: tuple[str, ...]
) -> Artifacts:
    codes = np.frombuffer(zlib.decompress(packed), np.uint8).reshape(size)
    return Artifacts(codes, shape, mpp, kept)


def find_artifacts(slide: Slide, *, mpp: float | None = None, keep: bool = False) -> Artifacts:
    """Look for artifacts at 2 µm per px, of large slides at coarser pixels; `mpp` replaces the slide's own scale.

    Fluorescence is not looked at. With `keep` nothing is left out, and neither is what covers nearly all of the
    tissue: a stain of a pen's hue, an image that is soft all over. Out of focus is looked for at 0.5 µm per px, of
    large slides at coarser pixels, and not at coarser ones than 2.5 µm.
    """
    scale = slide.mpp if mpp is None else mpp
    pixels, at = _look(slide, scale or ASSUMED_MPP, MPP)
    shape = pixels.shape[0], pixels.shape[1]
    codes = np.zeros(shape, np.uint8)
    nothing = Artifacts(codes, slide.shape, scale)
    sample = pixels.reshape(-1, 3)[:: max(1, math.prod(shape) // SAMPLE)]
    if recognize_stain(sample).stain == "fluorescence":
        return nothing
    density = DENSITY[pixels]
    ink = find_ink(density, at)
    density = density.mean(axis=2)
    codes[find_folds(density, at, ink)] = KINDS.index(FOLD) + 1
    if at <= FOCUS_COARSEST:
        pixels, focus_at = _look(slide, scale or ASSUMED_MPP, FOCUS_MPP)
        codes[find_blur(_mean_density(pixels), focus_at, shape)] = KINDS.index(BLUR) + 1
    codes[ink] = KINDS.index(INK) + 1
    if keep:
        return replace(nothing, codes=codes, kept=SURE)
    tissue = codes[density > FOCUS_LEAST]
    kept = tuple(kind for kind in SURE if (tissue == KINDS.index(kind) + 1).sum() > MOST * tissue.size)
    return replace(nothing, codes=codes, kept=kept)


def _look(slide: Slide, scale: float, mpp: float) -> tuple[Pixels, float]:
    """All of a slide of `scale` µm per px at `mpp`, or at what is nearest to it, and the µm per px that it has."""
    factor = min(1.0, scale / mpp, MAX_SIDE / max(slide.shape))
    shape = scaled(slide.shape, factor)
    return slide.read_scaled(shape, slice(0, shape[0]), slice(0, shape[1])), scale / factor


def _mean_density(pixels: Pixels) -> Floats:
    """Mean natural optical density of the channels, (h, w)."""
    red, green, blue = (DENSITY[pixels[..., channel]] for channel in range(3))
    mean: Floats = (red + green + blue) / np.float32(3)
    return mean


def find_ink(density: Floats, mpp: float) -> Mask:
    """Where ink is, (h, w), by natural optical density (h, w, 3) at `mpp` µm per px: its hue, and its width."""
    dark, clear = _inks(density)
    # beside ink that red light passes nuclei are seen as they are
    return _areas(dark, mpp, rim=RIM) | _areas(clear, mpp, rim=0)


def _areas(hues: list[Mask], mpp: float, rim: float) -> Mask:
    """Where one of the hues is as wide as ink, with the gaps that it encloses and a rim, µm."""
    wide = disk(max(1, round(WIDTH / mpp / 2)))
    ink = np.zeros_like(hues[0])
    for hue in hues:
        if hue.any():
            # what an edge of the image cuts may be as wide beyond it
            padded = np.pad(hue, len(wide), "edge")
            ink |= ndimage.binary_opening(padded, wide)[len(wide) : -len(wide), len(wide) : -len(wide)]
    if not ink.any():
        return ink
    ink = np.asarray(remove_small_objects(ink, max_size=max(1, round(SMALLEST / mpp**2))), np.bool_)
    reach = max(1, round(GAP / mpp))
    ink |= ndimage.binary_closing(np.pad(ink, reach + 1), disk(reach))[reach + 1 : -reach - 1, reach + 1 : -reach - 1]
    return np.asarray(ndimage.binary_dilation(ink, disk(max(1, round(rim / mpp)))), np.bool_) if rim else ink


def _inks(density: Floats) -> tuple[list[Mask], list[Mask]]:
    """Pixels of each hue that pens and markers have and stains have not: those that absorb red, as hematoxylin does,
    and look like it where they are pale; and those that red light passes.

    Hematoxylin absorbs red and green nearly alike and a third as much of blue, eosin green alone, DAB blue, then
    green, then red; blood has nearly the hue of a red pen, but not its strength.
    """
    red, green, blue = density[..., 0], density[..., 1], density[..., 2]
    least, most = density.min(axis=2), density.max(axis=2)
    dark = [
        (red > 0.9) & (blue < 0.3 * red) & (green < red),  # blue
        (green < 0.75 * np.minimum(red, blue)) & (most > 0.5),  # green
        (red > 0.6) & (green < 0.5 * red) & (blue < 0.6 * red),  # cyan
        (green > 1.6) & (red > 0.3 * green) & (red < 0.55 * green) & (blue < 0.33 * green),  # purple
        (least > 1.2) & (np.exp(-least) - np.exp(-most) < 20 / 256),  # black
    ]
    clear = [
        (blue > 0.6) & (green < 0.25 * blue) & (red < 0.2 * blue),  # yellow
        (blue > 1.0) & (green < 0.5 * blue) & (red < 0.12 * blue),  # orange
        (green > 1.0) & (blue > 0.7 * green) & (red < 0.16 * green),  # red
        (green > 1.7) & (red < 0.12 * green),  # pink and magenta
    ]
    return dark, clear


def find_blur(density: Floats, mpp: float, shape: tuple[int, int]) -> Mask:
    """Where tissue has no fine detail, of size `shape`, by mean natural optical density (h, w) at `mpp` µm per px.

    Detail of 1 to 2 px is compared with that of 2 to 4 px, by differences of Gaussians. In tissue in focus they are
    nearly alike, as in most pictures; of what is blurred by much more than 4 px a quarter is left, the ratio of
    2² - 1² to 4² - 2².
    """
    side = max(3, round(FOCUS_WINDOW / mpp * shape[0] / density.shape[0]))  # px of `shape`
    if min(shape) < side:
        return np.zeros(shape, np.bool_)

    def mean(values: Floats) -> Floats:
        """Over the squares; a running mean may end a little below 0."""
        small = np.asarray(Image.fromarray(values).resize(shape[::-1], Image.Resampling.BOX))
        return np.asarray(np.maximum(ndimage.uniform_filter(small, side, mode="reflect"), 0), np.float32)

    one, two, four = (ndimage.gaussian_filter(density, sigma, truncate=3) for sigma in (1, 2, 4))
    blurred = mean((one - two) ** 2) < FOCUS_RATIO**2 * mean((two - four) ** 2)
    blurred &= mean(density) > FOCUS_LEAST
    round_off = disk(max(1, side // 4))
    blurred = ndimage.binary_opening(ndimage.binary_closing(blurred, round_off), round_off)
    least = max(round(FOCUS_SHARE * blurred.size), side * side)
    return np.asarray(remove_small_objects(blurred, max_size=least), np.bool_)


def find_folds(density: Floats, mpp: float, ink: Mask) -> Mask:
    """Dark bands much denser than the tissue, (h, w): folds, or tissue that lies double for another reason."""
    smooth = ndimage.gaussian_filter(density, FOLD_SMOOTH / mpp)
    tissue = smooth[(smooth > FOCUS_LEAST) & ~ink]
    if not tissue.size:
        return np.zeros(density.shape, np.bool_)
    dark = (smooth > max(FOLD_DENSITY, FOLD_FACTOR * float(np.median(tissue)))) & ~ink
    dark = ndimage.binary_opening(dark, disk(max(1, round(FOLD_WIDTH / mpp / 2))))
    labels, _ = ndimage.label(dark)
    kept = [
        one.label
        for one in regionprops(labels)
        if one.axis_major_length * mpp >= FOLD_LENGTH
        and one.axis_major_length >= FOLD_SLENDER * max(one.axis_minor_length, 1e-6)
    ]
    return np.asarray(np.isin(labels, kept), np.bool_)


def warn_of_artifacts(artifacts: Artifacts, nuclei: int, name: str) -> None:
    """Say what of an image was left out, with the `nuclei` in it, and what to look at."""
    summary: dict[str, Any] = artifacts.notes.get(NOTE, {})
    out = {kind: one for kind, one in summary.items() if one["left_out"]}
    kept = {kind: one for kind, one in summary.items() if not one["left_out"]}
    if out:
        log.warning(
            "%s: %s, with %s in it; keep_artifacts keeps them",
            name, describe_artifacts({NOTE: out}), counted(nuclei, "nucleus"),
        )  # fmt: skip
    if kept:
        log.warning("%s: %s: not left out, look at the nuclei there", name, describe_artifacts({NOTE: kept}))
