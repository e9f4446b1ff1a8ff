"""The colors that a model's images are brought to: plain numbers, kept in its card."""

from typing import Literal, Self

from pydantic import Field, model_validator

from hemalum.settings import Strict

Method = Literal["macenko", "reinhard", "vahadane"]
Vector = tuple[float, float, float]


class StainStatistics(Strict):
    """What a method of stain normalization knows of an image.

    Macenko and Vahadane: `stains`, the optical-density directions (natural logarithm, unit length) of hematoxylin
    and of the other stain, and `strongest`, the 99th percentile of each one's amount. Reinhard: `mean` and `sd` of
    the three channels of lαβ. `white` is the value of an unstained pixel, which optical density is counted from.
    """

    method: Method
    white: float = Field(255.0, gt=0, le=255)
    stains: tuple[Vector, Vector] | None = None
    strongest: tuple[float, float] | None = None
    mean: Vector | None = None
    sd: Vector | None = None

    @model_validator(mode="after")
    def _complete(self) -> Self:
        directions = (self.stains, self.strongest)
        colors = (self.mean, self.sd)
        required, excluded = (colors, directions) if self.method == "reinhard" else (directions, colors)
        if None in required or excluded != (None, None):
            names = "mean and sd" if self.method == "reinhard" else "stains and strongest"
            raise ValueError(f"statistics of {self.method} are {names}, nothing else")
        if min((*(self.strongest or ()), *(self.sd or ()))) <= 0:
            raise ValueError("amounts and deviations must be positive")
        return self


class StainTarget(StainStatistics):
    """The statistics that every image is brought to, where they come from, and what to do where it cannot be.

    `unfit` says what becomes of an image that has too little stain for the method: "pass" leaves it as it is,
    "refuse" is an error.
    """

    origin: str = Field("", description="what the target was fitted on, in words")
    unfit: Literal["pass", "refuse"] = "pass"
