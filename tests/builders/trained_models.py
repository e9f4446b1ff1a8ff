"""Model files with weights set by hand: what they find can be told by looking at the image.

Both are `compact` with one width whose first convolution looks at single pixels only; its 12 inputs are 3 colors
times 4 sub-pixels. Nuclei are the 4-connected pieces of pixels whose mean over R, G, B is below `DARK`.
"""

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

DARK = 140
_THRESHOLD = (DARK / 255 - 0.5) / 0.25


def save_dark_model(path: Path) -> Path:
    """A model that takes dark pixels for nucleus."""
    head = np.zeros((8, 8, 1, 1), np.float32)
    for pixel in range(4):
        for output in range(2):
            head[output * 4 + pixel, pixel] = 8
            head[output * 4 + pixel, 4 + pixel] = -8
    metrics = {"made up": {"PQ": 0.5, "Dice": 0.75}}
    return _save(path, _look_for_dark(8), head, name="dark", representation="distance", metrics=metrics)


def save_two_class_model(path: Path) -> Path:
    """A model that takes dark pixels for nucleus, of class "red" or "blue": whichever color is the stronger.

    It has two more features for each sub-pixel: how much bluer than red it is, and the reverse.
    """
    convolution = _look_for_dark(16)
    head = np.zeros((12, 16, 1, 1), np.float32)
    for pixel in range(4):
        for feature, sign in ((8, 1), (12, -1)):
            convolution[feature + pixel, 0 * 4 + pixel, 1, 1] = sign
            convolution[feature + pixel, 2 * 4 + pixel, 1, 1] = -sign
        for output, weights in enumerate(((-8, 8, 0, 0), (8, -8, 4, -4), (8, -8, -4, 4))):  # background, red, blue
            head[output * 4 + pixel, pixel::4, 0, 0] = weights
    return _save(path, convolution, head, name="two", representation="semantic", classes=["red", "blue"])


def _look_for_dark(features: int) -> NDArray[np.float32]:
    """Weights of which features 0-3 are how dark each sub-pixel is, 4-7 how bright."""
    convolution = np.zeros((features, 12, 3, 3), np.float32)
    for pixel in range(4):
        for color in range(3):
            convolution[pixel, color * 4 + pixel, 1, 1] = -1 / 3
            convolution[4 + pixel, color * 4 + pixel, 1, 1] = 1 / 3
    return convolution


def _save(path: Path, convolution: NDArray[np.float32], head: NDArray[np.float32], **card: Any) -> Path:
    from hemalum.models.card import Card, NetworkSpec
    from hemalum.models.file import save_model
    from hemalum.nuclei.settings import SeparationSettings

    features = len(convolution)
    bias = np.zeros(features, np.float32)
    bias[:8] = np.repeat(np.float32([_THRESHOLD, -_THRESHOLD]), 4)
    tensors = {
        "encoder.0.0.0.weight": convolution,
        "encoder.0.0.1.weight": np.ones(features, np.float32),
        "encoder.0.0.1.bias": bias,
        "encoder.0.0.1.running_mean": np.zeros(features, np.float32),
        "encoder.0.0.1.running_var": np.ones(features, np.float32),
        "encoder.0.0.1.num_batches_tracked": np.zeros((), np.int64),
        "head.weight": head,
        "head.bias": np.zeros(len(head), np.float32),
    }
    described = Card(
        network=NetworkSpec(name="compact", options={"widths": [features], "depths": [0]}),
        mpp=0.5,
        halo=4,
        stride=2,
        separation=SeparationSettings(min_area=5),
        nucleus_diameter_um=8.0,
        code_version="0",
        **card,
    )
    save_model(path, described, tensors)
    return path
