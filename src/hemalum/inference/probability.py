"""What is behind a result, on the image's own grid: the probability of nucleus, and the class of each pixel."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from hemalum.errors import HemalumError
from hemalum.inference.cells import BoxMaps
from hemalum.inference.grid import Box
from hemalum.inference.segment import segment_source
from hemalum.models.engines.engine import Engine
from hemalum.models.model import Model
from hemalum.nuclei.nuclei import Nuclei
from hemalum.slides.slide import Slide


@dataclass(frozen=True, slots=True, eq=False)
class ImageMaps:
    """Maps of an image as large as it is: `probability` of nucleus (H, W) float32 in [0, 1].

    `classes` (H, W) int32 is the class of each pixel from 1, 0 where it is no nucleus (its probability is below the
    threshold of the model's separation); None where the model tells no classes apart.
    """

    probability: NDArray[np.float32]
    classes: NDArray[np.int32] | None = None


def segment_with_maps(
    source: Slide, model: Model, engine: Engine, *, mpp: float | str | None = None, stain: str = "auto"
) -> tuple[Nuclei, ImageMaps]:
    """Find the nuclei of an open image and give its maps as well.

    They are held whole: this is for tiles, not for slides. Raises HemalumError as `segment` does, and where neither
    file nor user nor nuclei say the scale.
    """
    collected: list[BoxMaps] = []
    nuclei = segment_source(source, model, engine, mpp=mpp, stain=stain, on_maps=collected.append)
    if nuclei.mpp is None:  # no nuclei at any scale: there is none that a map would be of
        raise HemalumError(f"{source.name}: its scale is not known: give --mpp")
    probability, *classes = join_maps(collected)
    height, width = source.shape
    resized = Image.fromarray(probability).resize((width, height), Image.Resampling.BILINEAR)
    maps = ImageMaps(np.clip(np.asarray(resized, np.float32), 0, 1))
    if len(classes) < 2:
        return nuclei, maps
    class_map = np.where(probability >= np.float32(model.card.separation.foreground), classes[1], 0).astype(np.uint8)
    numbers = Image.fromarray(class_map).resize((width, height), Image.Resampling.NEAREST)
    return nuclei, ImageMaps(maps.probability, np.asarray(numbers, np.int32))


def join_maps(parts: list[BoxMaps]) -> NDArray[np.float32]:
    """Maps of a whole image out of those of boxes that cover it once."""
    box = Box(0, 0, max(part.box.bottom for part in parts), max(part.box.right for part in parts))
    upsampling = parts[0].maps.shape[1] // parts[0].box.shape[0]
    maps = np.empty((len(parts[0].maps), box.shape[0] * upsampling, box.shape[1] * upsampling), np.float32)
    for part in parts:
        maps[:, *part.box.slices(box, upsampling)] = part.maps
    return maps
