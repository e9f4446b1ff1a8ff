"""eU-Net3+ with SAM (Swain, Cheoi, Ko 2024): U-Net3+ with a GLU encoder, given the embedding of a frozen SAM.

Readings where paper and code differ: docs/systems/eunet3plus_sam.md.
"""

from typing import Any, Literal

from pydantic import Field

from hemalum.systems.phases import Phase
from hemalum.systems.system import SystemSettings

# the paper's list is rotation, scale, flips, elastic, gamma, intensity, CLAHE; the strengths are our reading
_AUGMENTED = {
    "flips": True, "rotation": 1.0, "scale": 1.4, "elastic": 2.0, "gamma": 0.3, "intensity": 0.2, "clahe": 0.25,
    "stain": 0, "brightness": 0, "contrast": 0, "saturation": 0, "grey": 0, "blur": 0, "noise": 0,
}  # fmt: skip


class EUNet3PlusSam(SystemSettings):
    """Options of eU-Net3+; without fusion it is the network alone, with ReLU and 64 channels nearly U-Net3+."""

    name: Literal["eunet3plus"] = "eunet3plus"
    widths: list[int] = Field(
        [32, 64, 128, 256, 512], description="the encoder's levels; U-Net3+ has them twice as wide"
    )
    activation: Literal["relu", "leaky_relu", "swish", "glu"] = Field("glu", description="in the encoder")
    down: Literal["max", "max_blur"] = Field("max_blur", description="pooling in the encoder")
    fusion: Literal["guided", "advanced", "concat", "none"] = Field(
        "guided",
        description="how the embedding enters: queries gated by it, all gated by it at every level, laid beside the "
        "features, or not at all",
    )
    gate: Literal["sigmoid", "glu"] = Field(
        "sigmoid", description="the last step of the gate: the code's, the figure's"
    )
    reduction: int = Field(16, ge=1, description="of the gate's hidden layer")
    dropout: float = Field(0.3, ge=0, lt=1, description="share of channels dropped after the fusion")
    encoder: str = Field("facebook/sam-vit-base", description="SAM's encoder: a name on the hub, or a folder")
    field: int | None = Field(None, ge=16, description="px that SAM sees at once; none: the tile")
    deep_supervision: bool = Field(False, description="side outputs, as in U-Net3+")
    cgm: bool = Field(False, description="classification-guided module, as in U-Net3+")
    loss: Literal["focal_dice", "unet3plus"] = Field("focal_dice", description="the paper's, or that of U-Net3+")
    union: bool = Field(False, description="the Dice term over Jaccard's union, as the paper's code has it")
    background: bool = Field(True, description="Dice of the background as well: the code has two maps")
    lr: float = Field(1e-4, gt=0, description="learning rate of Adam, which stays; the code has 1e-5 for CoNIC")
    weight_decay: float = Field(1e-5, ge=0, description="of the code")
    steps: int = Field(
        72_700, ge=1, description="updates; the default is 50 epochs of 50 copies of 465 images, by 16"
    )

    def recipe(self) -> dict[str, Any]:
        """See `SystemSettings`."""
        shape = {"widths": self.widths, "activation": self.activation, "down": self.down}
        parts = {"deep_supervision": self.deep_supervision, "cgm": self.cgm}
        fusion = {"fusion": self.fusion, "gate": self.gate, "reduction": self.reduction, "dropout": self.dropout}
        loss: dict[str, Any] = {"name": self.loss}
        if self.loss == "focal_dice":
            loss |= {"union": self.union, "background": self.background}
        main = {
            "name": "main",
            "loss": loss,
            "optimiser": {"name": "adam", "lr": self.lr, "weight_decay": self.weight_decay},
            "schedule": {"name": "constant"},
            "until": {"steps": self.steps, "monitor": "dice"},
        }
        decided: dict[str, Any] = {
            "network": {"name": "eunet3plus", "options": shape | parts | fusion},
            "representation": "foreground",
            "augment": _AUGMENTED,
            "phases": [Phase.model_validate(main)],
        }
        if self.fusion != "none":
            decided["sam"] = {"encoder": self.encoder, "field": self.field}
        return decided
