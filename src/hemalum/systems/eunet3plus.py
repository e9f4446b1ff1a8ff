"""eU-Net3+ with SAM (Swain, Cheoi, Ko 2024): U-Net3+ with a GLU encoder, given the embedding of a frozen SAM.

Readings where paper and code differ: docs/systems/eunet3plus_sam.md.
"""

from typing import Any, ClassVar, Literal

from pydantic import Field

from hemalum.losses.unet3plus import FocalDice
from hemalum.systems.phases import Adam, AnyLoss, Constant, Optimizer, Phase, StopCriteria
from hemalum.systems.system import SystemSettings, complete_network

# the paper's list is rotation, scale, flips, elastic, gamma, intensity, CLAHE; the strengths are our reading
_AUGMENTED = {
    "name": "flips", "rotation": 1.0, "scale": 1.4, "elastic": 2.0, "gamma": 0.3, "intensity": 0.2, "clahe": 0.25,
}  # fmt: skip


class EUNet3PlusSam(SystemSettings):
    """Options of eU-Net3+; without fusion it is the network alone, with ReLU and 64 channels nearly U-Net3+."""

    networks: ClassVar[tuple[str, ...]] = ("eunet3plus",)

    name: Literal["eunet3plus"] = "eunet3plus"
    network: dict[str, Any] = Field({}, description="options of network eunet3plus; fusion none takes no SAM")
    loss: AnyLoss = Field(
        FocalDice(background=True), description="the code has two maps, so the background has its Dice; or unet3plus"
    )
    optimizer: Optimizer = Field(
        Adam(lr=1e-4, weight_decay=1e-5),
        description="its rate stays, 1e-5 for CoNIC in the code; so is the decay",
    )
    steps: int = Field(
        72_700, ge=1, description="updates; the default is 50 epochs of 50 copies of 465 images, by 16"
    )

    def to_recipe(self) -> dict[str, Any]:
        """See `SystemSettings`."""
        # the side of the skips follows from the widths, the channels of the embedding from SAM's encoder
        network = complete_network("eunet3plus", self.network, left_out=("skip", "embedding"))
        main = Phase(
            name="main",
            loss=self.loss,
            optimizer=self.optimizer,
            schedule=Constant(),
            until=StopCriteria(steps=self.steps, monitor="dice"),
        )
        decided = {
            "network": network,
            "representation": "foreground",
            "augment": _AUGMENTED,
            "phases": [main],
        }
        if network["options"]["fusion"] != "none":
            decided["sam"] = {"encoder": "facebook/sam-vit-base"}
        return decided
