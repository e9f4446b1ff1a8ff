"""An image beside what a model is sure of in it: probability, entropy, and where its last features are strong."""

import math
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from hemalum.errors import HemalumError
from hemalum.experiments.activation import activation_map
from hemalum.experiments.selection import mean_entropy, pixel_entropy
from hemalum.files import atomic_path
from hemalum.inference.probability import segment_with_maps
from hemalum.inference.segment import as_engine
from hemalum.models.model import Model
from hemalum.nuclei.io.overlay import draw_outlines
from hemalum.nuclei.io.text_drawing import TextDrawing
from hemalum.slides.slide import open_slide

SIDE = 512  # px of a panel's longer side; larger images are shrunk
LARGEST = 4096  # px of an image's longer side: maps are held whole
_GAP, _HEAD, _BAR, _TYPE = 16, 26, 40, 15
_INK, _PAPER = (30, 30, 30), (255, 255, 255)
# dark violet to pale yellow, rising evenly in lightness, so that it reads in gray as well
_RAMP = np.array(
    [[13, 8, 35], [71, 16, 99], [140, 41, 99], [204, 71, 68], [240, 126, 33], [251, 196, 61], [252, 250, 190]]
)


def write_uncertainty(
    path: Path | str, image: Path | str, model: Model, *, mpp: float | str | None = None, engine: str = "auto"
) -> float:
    """Draw image with outlines, probability, entropy and activation into the PNG `path`; gives the mean entropy.

    Raises HemalumError as `segment` does, for another ending than .png, and for an image over `LARGEST` px a side.
    """
    path = Path(path)
    if path.suffix.lower() != ".png":
        raise HemalumError(f"picture '{path}': the picture is a .png")
    with open_slide(image) as source:
        if max(source.shape) > LARGEST:
            raise HemalumError(
                f"{source.name}: {source.shape[1]} x {source.shape[0]} px is too large for a picture of maps: at "
                f"most {LARGEST} px a side; cut a part out of it"
            )
        nuclei, maps = segment_with_maps(source, model, as_engine(engine, model), mpp=mpp)
        if nuclei.mpp is None:
            raise HemalumError(f"{source.name}: its scale is not known: give --mpp")
        activation = activation_map(source, model, mpp=nuclei.mpp)
        pixels = source.rows(0, source.shape[0])
    outlined = draw_outlines(pixels, nuclei.label_map())
    picture = draw_panels(outlined, maps.probability, activation, model.card.name)
    with atomic_path(path) as temporary:
        picture.save(temporary, format="PNG", optimize=True)
    return mean_entropy(maps.probability)


def draw_panels(
    outlined: NDArray[np.uint8], probability: NDArray[np.float32], activation: NDArray[np.float32], name: str
) -> Image.Image:
    """The four panels in two rows: (H, W, 3) uint8, and two maps (H, W) float32 of the same field."""
    height, width = probability.shape
    shrink = min(1.0, SIDE / max(height, width))
    output_upsampling = max(1, SIDE // max(height, width))
    size = max(1, round(width * shrink)) * output_upsampling, max(1, round(height * shrink)) * output_upsampling
    entropy = pixel_entropy(probability)
    low, high = (float(value) for value in (activation.min(), activation.max()))
    panels = [
        (outlined, f"{name}: nuclei as found", None),
        (_colored(probability, 0, 1), "probability of nucleus", ("0", "1")),
        (
            _colored(entropy, 0, math.log(2)),
            f"entropy, mean {mean_entropy(probability):.3f} nats",
            ("0, sure", "0.693, even odds"),
        ),
        (_colored(activation, low, high), "mean |activation| before the head", (f"{low:.3g}", f"{high:.3g}")),
    ]
    cell = max(size[0], 200), size[1] + _HEAD + _BAR
    picture = Image.new("RGB", (2 * cell[0] + 3 * _GAP, 2 * cell[1] + 3 * _GAP), _PAPER)
    pen = TextDrawing()
    pen.draw = ImageDraw.Draw(picture)
    for index, (pixels, title, ends) in enumerate(panels):
        x = _GAP + index % 2 * (cell[0] + _GAP)
        y = _GAP + index // 2 * (cell[1] + _GAP)
        pen.text(x, y, pen.fit(title, cell[0], _TYPE), _TYPE, _INK)
        resample = Image.Resampling.BILINEAR if shrink < 1 else Image.Resampling.NEAREST
        picture.paste(Image.fromarray(pixels).resize(size, resample), (x, y + _HEAD))
        if ends is not None:
            bar = y + _HEAD + size[1] + 6
            ramp = np.linspace(0, 1, size[0], dtype=np.float32)[None].repeat(10, axis=0)
            picture.paste(Image.fromarray(_colored(ramp, 0, 1)), (x, bar))
            pen.text(x, bar + 13, ends[0], _TYPE - 2, _INK)
            pen.text(x + size[0] - pen.length(ends[1], _TYPE - 2), bar + 13, ends[1], _TYPE - 2, _INK)
    return picture


def _colored(values: NDArray[np.float32], low: float, high: float) -> NDArray[np.uint8]:
    """Values between low and high as colors of the ramp (H, W, 3) uint8."""
    share = np.clip((values - low) / max(high - low, 1e-12), 0, 1)
    stops = np.linspace(0, 1, len(_RAMP))
    return np.stack([np.interp(share, stops, _RAMP[:, c]) for c in range(3)], axis=-1).round().astype(np.uint8)
