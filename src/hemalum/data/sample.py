"""Sample: the one record that every reader yields and everything downstream takes."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hemalum.data.splits import Part
from hemalum.errors import HemalumError

MPP_RANGE = (0.01, 100.0)  # µm per px that a user may state: images that are no sections of tissue included


@dataclass(frozen=True, slots=True, eq=False)
class Sample:
    """One image with its nuclei.

    `image` is (H, W, 3) uint8 RGB; `instances` is (H, W) int32, 0 = background.
    `source` names the image that this one was cut from; `group` is what a split keeps together
    (patient, organ or source image); left empty, either is the id. `mpp` is in µm per pixel; `mpp_source`
    says where it comes from.
    `classes` is (max id + 1,) int32, the class of each instance by its id; `ambiguous` is (H, W) bool,
    True where the annotators could not tell, or where nobody has annotated: that part of it is `unannotated` (H, W)
    bool, which is left out of every loss and measure. `part` and `fold` are where the publication puts the image, if
    its files say so.

    Raises HemalumError when the shapes or dtypes do not fit together.
    """

    image: NDArray[np.uint8]
    instances: NDArray[np.int32]
    id: str
    source: str = ""
    group: str = ""
    organ: str | None = None
    stain: str | None = None
    mpp: float | None = None
    mpp_source: str | None = None
    classes: NDArray[np.int32] | None = None
    ambiguous: NDArray[np.bool_] | None = None
    part: Part | None = None
    fold: int | None = None
    unannotated: NDArray[np.bool_] | None = None

    def __post_init__(self) -> None:
        for name in ("source", "group"):
            object.__setattr__(self, name, getattr(self, name) or self.id)
        if self.image.ndim != 3 or self.image.shape[2] != 3 or self.image.dtype != np.uint8:
            raise HemalumError(
                f"sample {self.id}: image must be (H, W, 3) uint8, not {self.image.shape} {self.image.dtype}"
            )
        if self.instances.shape != self.image.shape[:2]:
            raise HemalumError(
                f"sample {self.id}: image is {self.image.shape[:2]} but its label map is {self.instances.shape}"
            )
        if self.instances.dtype != np.int32:
            raise HemalumError(f"sample {self.id}: label map must be int32, not {self.instances.dtype}")
        if self.unannotated is not None:
            if self.unannotated.shape != self.instances.shape:
                raise HemalumError(f"sample {self.id}: unannotated mask is {self.unannotated.shape}, image differs")
            known = self.unannotated if self.ambiguous is None else self.unannotated | self.ambiguous
            object.__setattr__(self, "ambiguous", known)
        if self.ambiguous is not None and self.ambiguous.shape != self.instances.shape:
            raise HemalumError(f"sample {self.id}: ambiguous mask is {self.ambiguous.shape}, image differs")
        if self.mpp is not None and not MPP_RANGE[0] < self.mpp < MPP_RANGE[1]:
            raise HemalumError(f"sample {self.id}: mpp {self.mpp} µm/px is out of range")

    def left_out(self, *, ambiguous: bool) -> NDArray[np.bool_] | None:
        """Where nothing counts: what is not annotated and, with `ambiguous`, where the annotators could not tell."""
        return self.ambiguous if ambiguous else self.unannotated

    def require_mpp(self) -> float:
        """The scale, µm per pixel. Raises HemalumError where the sample has none."""
        if self.mpp is None:
            raise HemalumError(f"sample {self.id} has no mpp: import its dataset with --mpp NUMBER or --mpp nuclei")
        return self.mpp
