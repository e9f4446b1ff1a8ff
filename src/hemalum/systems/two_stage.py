"""Two-stage enhancement (CVR 2025): a base network, a small one that mends its map, then both together.

The control that the paper lacks is here, too: the base alone, trained for as long. Where the paper is silent:
docs/systems/two_stage.md.
"""

from typing import Any, Literal

from pydantic import Field

from hemalum.losses.cross_entropy import Sides
from hemalum.models.card import NetworkSpec
from hemalum.systems.phases import Phase
from hemalum.systems.system import SystemSettings


class TwoStageEnhancement(SystemSettings):
    """Options of two-stage enhancement over any registered network."""

    name: Literal["two_stage"] = "two_stage"
    base: NetworkSpec = Field(NetworkSpec(name="unet"), description="the first stage: any network, and its options")
    form: Literal["two_stage", "base", "control"] = Field(
        "two_stage",
        description="two_stage: base, then enhance, then joint; base: the first of these alone; control: the base, "
        "then the base again for as many steps as enhance and joint have",
    )
    steps: int = Field(20_000, ge=1, description="at most so many for the base")
    enhance_steps: int | None = Field(None, ge=1, description="at most so many for the second stage; none: `steps`")
    joint_steps: int | None = Field(None, ge=1, description="at most so many for both together; none: `steps`")
    patience: int | None = Field(10, ge=1, description="a phase ends after so many validations without less loss")
    lr: float = Field(1e-4, gt=0, description="learning rate of Adam, the same throughout")
    width: int = Field(64, ge=1, description="channels of the second stage")
    batch_norm: bool = Field(False, description="batch norm in the second stage")
    binarise: bool = Field(False, description="the second stage sees the first one's map as 0 and 1")
    first: float = Field(0.0, ge=0, description="weight of the first stage's own loss while both train together")
    sides: Sides | None = Field(
        None, description="further heads of the base, see loss bce; none: by_epoch for micro_net, else mean"
    )
    border_weights: bool = Field(False, description="pixels between two nuclei weigh more, as U-Net has it")

    def recipe(self) -> dict[str, Any]:
        """See `SystemSettings`."""
        enhance, joint = self.enhance_steps or self.steps, self.joint_steps or self.steps
        if self.form == "two_stage":
            stages = {"width": self.width, "batch_norm": self.batch_norm, "binarise": self.binarise}
            network = {"name": "two_stage", "options": {"base": self.base.model_dump(), **stages}}
            phases = [
                self._phase("base", self.steps, self._loss(), train=["base.*"], switches={"enhanced": False}),
                self._phase("enhance", enhance, self._loss(sides="none"), train=["enhance.*"], start="best"),
                # the base's further heads lead nowhere now
                self._phase(
                    "joint", joint, self._loss(sides="none", first=self.first), train=["*", "!base.sides.*"],
                    start="best",
                ),
            ]  # fmt: skip
        else:
            network = self.base.model_dump()
            phases = [self._phase("base", self.steps, self._loss())]
            if self.form == "control":
                phases.append(self._phase("continue", enhance + joint, self._loss(), start="best"))
        return {"network": network, "representation": "foreground", "phases": phases}

    def _loss(self, **options: Any) -> dict[str, Any]:
        name = "border_bce" if self.border_weights else "bce"
        sides = self.sides or ("by_epoch" if self.base.name == "micro_net" else "mean")
        return {"name": name, "sides": sides} | options

    def _phase(self, name: str, steps: int, loss: dict[str, Any], **rest: Any) -> Phase:
        until = {"steps": steps, "patience": self.patience, "monitor": "loss"}
        return Phase.model_validate(
            {
                "name": name,
                "loss": loss,
                "optimiser": {"name": "adam", "lr": self.lr},
                "schedule": {"name": "constant"},
                "until": until,
            }
            | rest
        )
