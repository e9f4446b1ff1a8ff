"""What is behind a result, on the image's own grid: the probability of nucleus, and the class of each pixel."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from hemalum.inference.bands import Band
from hemalum.inference.segment import segment_source
from hemalum.models.engines.engine import Engine
from hemalum.models.model import Model
from hemalum.nuclei.nuclei import Nuclei
from hemalum.slides.image_source import ImageSource


@dataclass(frozen=True, slots=True, eq=False)
class ImageMaps:
    """Maps of an image as large as it is: `probability` of nucleus (H, W) float32 in [0, 1].

    `classes` (H, W) int32 is the class of each pixel from 1, 0 where it is no nucleus (its probability is below the
    threshold of the model's separation); None where the model tells no classes apart.
    """

    probability: NDArray[np.float32]
    classes: NDArray[np.int32] | None = None


def segment_with_maps(
    source: ImageSource, model: Model, engine: Engine, *, mpp: float | str | None = None
) -> tuple[Nuclei, ImageMaps]:
    """Find the nuclei of an open image and give its maps as well.

    They are held whole: this is for tiles, not for slides. Raises HemalumError as `segment` does.
    """
    rows: list[NDArray[np.float32]] = []
    class_rows: list[NDArray[np.uint8]] = []
    threshold = np.float32(model.card.separation.foreground)

    def collect_rows(band: Band) -> None:
        rows.append(band.maps[0].copy())
        if len(band.maps) > 2:
            class_rows.append(np.where(band.maps[0] >= threshold, band.maps[2], 0).astype(np.uint8))

    nuclei = segment_source(source, model, engine, mpp=mpp, on_band=collect_rows)
    height, width = source.shape
    resized = Image.fromarray(np.concatenate(rows)).resize((width, height), Image.Resampling.BILINEAR)
    probability = np.clip(np.asarray(resized, np.float32), 0, 1)
    if not class_rows:
        return nuclei, ImageMaps(probability)
    classes = Image.fromarray(np.concatenate(class_rows)).resize((width, height), Image.Resampling.NEAREST)
    return nuclei, ImageMaps(probability, np.asarray(classes, np.int32))
