"""The picture of a pair: both sections, how they lie on each other, and the derived mask."""

import math
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont
from skimage.segmentation import find_boundaries
from skimage.transform import resize

from hemalum.data.ihc.derive import DerivedLabels
from hemalum.files import atomic_path

PANEL = 720  # px of a panel's longer side
GAP = 8
TITLE = 26
FOOT = 24
SQUARES = 8  # of the checkerboard along the longer side
OUTLINE = (0, 230, 100)  # the one hue that neither hematoxylin, eosin nor a chromogen takes
UNKNOWN = 0.55  # brightness where the IHC section does not reach

Pixels = NDArray[np.uint8]


def draw_pair(he: Pixels, ihc: Pixels, derived: DerivedLabels, name: str) -> Pixels:
    """(h, w, 3) uint8: H&E, IHC, checkerboard of both after registration, outlines of the mask on the H&E."""
    shape = _fit(he.shape[0], he.shape[1])
    checker = _panel(_checkerboard(he, derived.warped), shape)
    outlined = _outline(he, derived, shape)
    scale = min(shape[0] / ihc.shape[0], shape[1] / ihc.shape[1])
    section = _panel(ihc, (max(round(ihc.shape[0] * scale), 1), max(round(ihc.shape[1] * scale), 1)))
    framed = np.full((*shape, 3), 255, np.uint8)
    framed[: section.shape[0], : section.shape[1]] = section
    titles = ("H&E", "IHC, as it came", "H&E and IHC after registration", "derived mask on the H&E (green)")
    panels = (_panel(he, shape), framed, checker, outlined)
    width, height = 2 * shape[1] + 3 * GAP, 2 * (shape[0] + TITLE) + 3 * GAP + FOOT
    canvas = Image.new("RGB", (width, height), (255, 255, 255))
    write = ImageDraw.Draw(canvas)
    font = ImageFont.load_default(15)
    for number, (title, panel) in enumerate(zip(titles, panels, strict=True)):
        x = GAP + (number % 2) * (shape[1] + GAP)
        y = GAP + (number // 2) * (shape[0] + TITLE + GAP)
        write.text((x, y + 3), title, fill=(30, 30, 30), font=font)
        canvas.paste(Image.fromarray(panel), (x, y + TITLE))
    write.text((GAP, height - FOOT), _line(derived, name), fill=(30, 30, 30), font=font)
    return np.asarray(canvas)


def write_picture(path: Path, he: Pixels, ihc: Pixels, derived: DerivedLabels, name: str) -> None:
    """Write `draw_pair` as PNG. Raises HemalumError when the file cannot be written."""
    drawn = Image.fromarray(draw_pair(he, ihc, derived, name))
    with atomic_path(path) as temporary:
        drawn.save(temporary, format="PNG", compress_level=6)


def _line(derived: DerivedLabels, name: str) -> str:
    parts = [name, f"quality {derived.quality.score:.2f}", derived.level, f"{int(derived.instances.max())} nuclei"]
    if derived.landmarks is not None:
        kind = derived.landmarks.source
        # the built-in font has no µ
        parts.append(
            f"median error {derived.landmarks.median / derived.mpp:.1f} px at {derived.landmarks.count} {kind}"
        )
    if derived.refused is not None:
        parts = [name, f"REFUSED: {derived.refused}"]
    return "  ·  ".join(parts)


def _fit(height: int, width: int) -> tuple[int, int]:
    factor = PANEL / max(height, width)
    return max(round(height * factor), 1), max(round(width * factor), 1)


def _panel(pixels: Pixels, shape: tuple[int, int]) -> Pixels:
    kind = Image.Resampling.LANCZOS if shape[0] < pixels.shape[0] else Image.Resampling.BICUBIC
    return np.asarray(Image.fromarray(pixels).resize((shape[1], shape[0]), kind))


def _checkerboard(he: Pixels, warped: Pixels) -> Pixels:
    side = math.ceil(max(he.shape[:2]) / SQUARES)
    y, x = np.ogrid[: he.shape[0], : he.shape[1]]
    return np.where(((y // side + x // side) % 2 == 0)[..., None], he, warped)


def _outline(he: Pixels, derived: DerivedLabels, shape: tuple[int, int]) -> Pixels:
    """Outlines are drawn at the size of the panel: lines of one width, whatever the size of the image."""
    labels = resize(derived.instances, shape, order=0, preserve_range=True, anti_aliasing=False).astype(np.int32)
    covered = resize(derived.covered, shape, order=0, anti_aliasing=False)
    drawn = _panel(he, shape).astype(np.float32)
    drawn[~covered] = 255 - (255 - drawn[~covered]) * UNKNOWN
    drawn[find_boundaries(labels, mode="thick")] = OUTLINE
    result: Pixels = drawn.astype(np.uint8)
    return result
