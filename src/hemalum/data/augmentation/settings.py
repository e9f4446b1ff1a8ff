"""How strongly training images are varied."""

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import Field, model_validator

from hemalum.errors import nearest
from hemalum.settings import Strict


class AugmentSettings(Strict):
    """Strengths; 0 (or False) switches a part off. The defaults are those of recipes that say nothing else.

    The name of a preset alone (`none`, `flips`: mirrored and turned tiles and nothing more) stands for its strengths;
    as the key `name` of a mapping it is what the other keys change.
    """

    flips: bool | Literal["horizontal"] = Field(
        True,
        description="mirror and right-angle rotations, each of the eight equally likely; horizontal: left to right",
    )
    rotation: float = Field(0.25, ge=0, le=1, description="share of samples turned by a free angle as well")
    scale: float = Field(1.25, ge=1, description="zoom between 1/scale and scale, log-uniform")
    elastic: float = Field(2.0, ge=0, description="amplitude of a smooth random displacement, px of the crop")
    stain: float = Field(0.3, ge=0, lt=1, description="stain jitter in optical-density space")
    stain_mix: float = Field(
        0.0, ge=0, le=1, description="share of samples whose stains move towards those of another training image"
    )
    brown: float = Field(0.0, ge=0, le=1, description="share of samples whose eosin is turned into DAB's brown")
    dab: float = Field(
        0.0, ge=0, le=1, description="share of samples with simulated H-DAB: brown nuclei, rims and ground, no eosin"
    )
    brightness: float = Field(0.1, ge=0, lt=1)
    contrast: float = Field(0.2, ge=0, lt=1)
    saturation: float = Field(0.3, ge=0, lt=1)
    gamma: float = Field(0.2, ge=0, lt=1)
    gray: float = Field(0.03, ge=0, le=1, description="share of samples turned gray")
    blur: float = Field(1.2, ge=0, description="largest sigma of Gaussian blur, px; half the samples stay sharp")
    noise: float = Field(0.02, ge=0, description="largest standard deviation of pixel noise, of 1")
    jpeg: float = Field(0.0, ge=0, le=1, description="share of samples compressed as JPEG, quality 30 to 90")
    intensity: float = Field(0.0, ge=0, lt=1, description="all channels times 1 - intensity to 1 + intensity")
    clahe: float = Field(0.0, ge=0, le=1, description="share of samples with their local contrast equalized (CLAHE)")

    @model_validator(mode="before")
    @classmethod
    def _from_preset(cls, content: Any) -> Any:
        changes = {"name": content} if isinstance(content, str) else content
        if not isinstance(changes, Mapping) or "name" not in changes:
            return content
        name = str(changes["name"])
        if name not in PRESETS:
            raise ValueError(f"unknown augmentation '{name}'{nearest(name, PRESETS)}")
        return PRESETS[name].model_dump() | {key: value for key, value in changes.items() if key != "name"}


NO_AUGMENTATION = AugmentSettings(
    flips=False, rotation=0, scale=1, elastic=0, stain=0, brightness=0, contrast=0, saturation=0, gamma=0,
    gray=0, blur=0, noise=0,
)  # fmt: skip
PRESETS = {"none": NO_AUGMENTATION, "flips": NO_AUGMENTATION.model_copy(update={"flips": True})}
