"""What is scored: the segmentation of a sample, and the scale that it is made at."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from hemalum.data.dataset import Dataset
from hemalum.data.sample import Sample
from hemalum.errors import HemalumError

CLASSICAL = "classical"  # the floor: Otsu on hematoxylin and a distance watershed

Scale = float | Literal["auto"] | None


@dataclass(frozen=True, slots=True, eq=False)
class Segmentation:
    """What a segmenter may return when it knows more than the label map.

    `labels` is (H, W) integer, 0 = background; `classes` is (max id + 1,) int32 by id; `mpp` is the scale
    that was assumed, µm per pixel. `probability` (H, W) float32 is that of nucleus, `nucleus_probability`
    (max id + 1,) float32 that of each nucleus by id, both in [0, 1]. `pixel_classes` (H, W) int32 is the class of
    each pixel before nuclei were separated, 0 = background; without it a pixel has the class of its nucleus.
    """

    labels: NDArray[np.integer[Any]]
    classes: NDArray[np.int32] | None = None
    mpp: float | None = None
    probability: NDArray[np.float32] | None = None
    nucleus_probability: NDArray[np.float32] | None = None
    pixel_classes: NDArray[np.int32] | None = None

    @classmethod
    def of(cls, result: "NDArray[np.integer[Any]] | Segmentation") -> "Segmentation":
        """What a segmenter has returned, a bare label map included."""
        return result if isinstance(result, Segmentation) else cls(result)


Segmenter = Callable[[Sample], NDArray[np.integer[Any]] | Segmentation]


def check_scales(dataset: Dataset) -> None:
    """Raise HemalumError where images of a dataset have no scale."""
    scaleless = [row.id for row in dataset.rows if row.mpp is None]
    if scaleless:
        raise HemalumError(
            f"{dataset.path}: {len(scaleless)} images have no mpp (such as {scaleless[0]}): import it with "
            "--mpp NUMBER or --mpp nuclei"
        )


def scale_of(sample: Sample, mpp: Scale) -> float | Literal["auto"]:
    """The scale to segment a sample at: the one requested, else its own, else an estimate."""
    if mpp is not None:
        return mpp
    return "auto" if sample.mpp is None else sample.mpp
