"""CSRA-Net (Applied Sciences 2025, 15(9), 5107) and what it is compared with, on one two-stream loop.

Semantic segmentation from few labelled images: category-adaptive sampling (CAS), strong-weak consistency with a
contrastive term (SWC), region-adaptive attention (RAA) in a DeepLabV3+. The loss weights of FixMatch and UniMatch are
those of UniMatch's public code. docs/systems/csra_net.md says what was read into the paper.
"""

from typing import Any, Literal, Self

from pydantic import Field, model_validator

from hemalum.systems.phases import Monitor
from hemalum.systems.system import SystemSettings

# resize 0.5 to 2, crop, mirror; the colours change in strong views alone
_WEAK = {
    "flips": True, "rotation": 0, "scale": 2.0, "elastic": 0, "stain": 0, "brightness": 0, "contrast": 0,
    "saturation": 0, "gamma": 0, "grey": 0, "blur": 0, "noise": 0,
}  # fmt: skip


class CSRANet(SystemSettings):
    """Options of CSRA-Net and of the methods beside it."""

    name: Literal["csra_net"] = "csra_net"
    method: Literal["supervised", "fixmatch", "unimatch", "csra"] = Field(
        "csra", description="how the unlabelled images are used; supervised: not at all"
    )
    fraction: str = Field("1/8", description="of the training images, that keep their labels; 1/1: all")
    by: Literal["image", "group"] = Field("image", description="what is labelled whole or not at all")
    draw: int = Field(0, ge=0, description="seed of the labelled fraction, the same for all seeds of training")

    cas: bool | None = Field(None, description="category-adaptive sampling; unless said, with method csra alone")
    swc: bool = Field(True, description="strong-weak consistency of method csra; without it labelled images alone")
    raa: bool | None = Field(None, description="region-adaptive attention; unless said, with method csra alone")

    network: Literal["deeplabv3plus", "unet"] = Field("deeplabv3plus", description="unet: as a baseline, without raa")
    backbone: Literal["resnet50", "resnet101"] = "resnet101"
    output_stride: Literal[8, 16] = 16
    pretrained: str | None = Field(None, description="a ResNet that transformers loads: name on its hub, or folder")
    skips: list[int] | None = Field(
        None, description="encoder scales that the decoder takes; unless said 1, 2, 3 with raa and 1 without"
    )
    layers: list[int] | None = Field(None, description="blocks of each stage, for another ResNet than `backbone`")
    widths: list[int] = Field([256, 512, 1024, 2048], description="channels of the encoder's stages")
    reduction: int = Field(4, ge=1, description="how many times narrower a bottleneck is inside")
    channels: int = Field(256, ge=1, description="channels after the atrous pyramid")
    low_level: int = Field(48, ge=1, description="channels that the decoder takes of each encoder scale")
    reduced: list[int] = Field([64, 128, 256, 512], description="channels of each scale in the attention")
    region: int = Field(16, ge=8, description="side of a region, which is one token, px")
    grid: int = Field(16, ge=1, description="regions along a training tile, for which positions are learnt")
    heads: int = Field(4, ge=1)
    depth: int = Field(4, ge=1, description="layers of attention")
    unet_widths: list[int] = Field([64, 128, 256, 512, 1024], description="channels of network unet")

    gamma: float = Field(0.85, ge=0, le=1, description="strength of CAS at the start")
    period: int = Field(10, ge=1, description="passes over the labelled images between two steps of its strength")
    threshold: float = Field(0.95, ge=0, lt=1, description="τ: a pixel's class counts from this probability on")
    lambda_1: float = Field(0.1, ge=0, description="weight of the contrastive term")
    lambda_2: float = Field(0.5, ge=0, description="weight of the consistency term")
    temperature: float = Field(0.1, gt=0, description="of the contrastive term")
    labelled: Literal["weak", "strong", "both"] = Field(
        "both", description="views of labelled images that method csra learns from"
    )
    dice: float = Field(0.0, ge=0, description="weight of a Dice term beside the cross-entropy")

    lr: float = Field(0.005, gt=0)
    weight_decay: float = Field(1e-4, ge=0)
    warmup: int = Field(0, ge=0, description="steps of linear rise of the learning rate")
    monitor: Monitor = Field("miou", description="what the best weights are best in, on the validation images")
    steps: int = Field(40_000, ge=1, description="updates in all")

    @model_validator(mode="after")
    def _possible(self) -> Self:
        if self.network == "unet" and (self.raa or self.method in ("unimatch", "csra")):
            raise ValueError("network unet has no features for raa, unimatch or csra: take supervised or fixmatch")
        if self.method != "csra" and not self.swc:
            raise ValueError(f"swc is a part of method csra, not of {self.method}")
        return self

    def recipe(self) -> dict[str, Any]:
        """See `SystemSettings`."""
        cas = self.method == "csra" if self.cas is None else self.cas
        return {
            "network": self._network(),
            "representation": "semantic",
            "augment": _WEAK,
            "labelled": {"fraction": self.fraction, "by": self.by, "seed": self.draw},
            "sampling": {"name": "category_adaptive", "gamma": self.gamma, "period": self.period} if cas else None,
            "phases": [
                {
                    "name": "main",
                    "loss": {"name": "cross_entropy", "dice": self.dice},
                    "unlabelled": self._unlabelled(),
                    "optimiser": {"name": "sgd", "lr": self.lr, "weight_decay": self.weight_decay, "momentum": 0.9},
                    "schedule": {"name": "cosine", "warmup": self.warmup, "final": 0},
                    "until": {"steps": self.steps, "monitor": self.monitor},
                }
            ],
        }

    def _network(self) -> dict[str, Any]:
        if self.network == "unet":
            return {"name": "unet", "options": {"widths": self.unet_widths, "norm": True}}
        raa = self.method == "csra" if self.raa is None else self.raa
        skips = self.skips or ([1, 2, 3] if raa else [1])
        keys = ("backbone", "output_stride", "layers", "widths", "reduction", "channels", "low_level", "pretrained")
        options = {key: getattr(self, key) for key in keys} | {"skips": skips}
        if not raa:
            return {"name": "deeplabv3plus", "options": options}
        attention = {key: getattr(self, key) for key in ("reduced", "region", "grid", "heads", "depth")}
        return {"name": "csra_net", "options": options | attention}

    def _unlabelled(self) -> dict[str, Any] | None:
        """What the method learns from unlabelled images."""
        threshold = {"threshold": self.threshold}
        match self.method:
            case "fixmatch":  # (L_x + L_u) / 2
                return threshold | {"views": 1, "supervised": 0.5, "consistency": 0.5}
            case "unimatch":  # (L_x + L_s1 / 4 + L_s2 / 4 + L_fp / 2) / 2; consistency is the mean of both views
                return threshold | {"supervised": 0.5, "consistency": 0.25, "dropped": 0.25}
            case "csra" if self.swc:
                weights = {"consistency": self.lambda_2, "contrast": self.lambda_1, "temperature": self.temperature}
                return threshold | weights | {"labelled": self.labelled}
        return None
