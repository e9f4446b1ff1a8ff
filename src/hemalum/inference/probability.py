"""The foreground probability behind a result, on the image's own grid: what curves and uncertainty are made of."""

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from hemalum.inference.bands import Band
from hemalum.inference.engine import Engine
from hemalum.inference.image import ImageSource
from hemalum.inference.model import Model
from hemalum.inference.segment import segment_source
from hemalum.instances.nuclei import Nuclei


def segment_with_probability(
    source: ImageSource, model: Model, engine: Engine, *, mpp: float | str | None = None
) -> tuple[Nuclei, NDArray[np.float32]]:
    """Find the nuclei of an open image and give the probability of nucleus (H, W) float32 in [0, 1] as well.

    The map is held whole: this is for tiles, not for slides. Raises HemalumError as `segment` does.
    """
    rows: list[NDArray[np.float32]] = []

    def keep(band: Band) -> None:
        rows.append(band.maps[0].copy())

    nuclei = segment_source(source, model, engine, mpp=mpp, on_band=keep)
    height, width = source.shape
    whole = Image.fromarray(np.concatenate(rows)).resize((width, height), Image.Resampling.BILINEAR)
    return nuclei, np.clip(np.asarray(whole, np.float32), 0, 1)
