"""Images that stand for a set, and label maps at another size."""

from typing import Any

import numpy as np
from numpy.typing import NDArray


def choose_evenly(count: int, limit: int) -> NDArray[np.int64]:
    """At most `limit` indices below `count`, spread evenly from the first to the last."""
    return np.unique(np.linspace(0, count - 1, min(count, limit)).astype(np.int64))


def resize_labels(labels: NDArray[Any], shape: tuple[int, int]) -> NDArray[Any]:
    """The label map (H, W) at another size, each pixel by the center that is nearest."""
    rows, columns = (
        ((np.arange(new) + 0.5) * old / new).astype(np.int64) for new, old in zip(shape, labels.shape, strict=True)
    )
    return labels[rows[:, None], columns[None, :]]
