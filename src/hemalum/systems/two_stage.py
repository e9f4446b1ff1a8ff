"""Two-stage enhancement (CVR 2025): a base network, a small one that mends its map, then both together.

The control that the paper lacks is here, too: the base alone, trained for as long. Where the paper is silent:
docs/systems/two_stage.md.
"""

from typing import Any, ClassVar, Literal, Self

from pydantic import Field, model_validator

from hemalum.losses import build_loss
from hemalum.models.card import NetworkSpec
from hemalum.systems.phases import Adam, Constant, Optimizer, Phase, StopCriteria
from hemalum.systems.system import SystemSettings, complete_network


class TwoStageEnhancement(SystemSettings):
    """Options of two-stage enhancement over any registered network."""

    networks: ClassVar[tuple[str, ...]] = ("two_stage",)

    name: Literal["two_stage"] = "two_stage"
    base: NetworkSpec = Field(NetworkSpec(name="unet"), description="the first stage: any network, and its options")
    network: dict[str, Any] = Field({}, description="options of network two_stage: those of the second stage")
    form: Literal["two_stage", "base", "control"] = Field(
        "two_stage",
        description="two_stage: base, then enhance, then joint; base: the first of these alone; control: the base, "
        "then the base again for as many steps as enhance and joint have",
    )
    loss: dict[str, Any] = Field(
        {"name": "bce"},
        description="bce or border_bce, and its options: `aux_logits` while the base trains alone (by_epoch for "
        "micro_net, else mean), `stage1_weight` while both train together",
    )
    optimizer: Optimizer = Field(Adam(lr=1e-4), description="its rate is the same throughout")
    steps: int = Field(20_000, ge=1, description="at most so many for the base")
    enhance_steps: int | None = Field(None, ge=1, description="at most so many for the second stage; none: `steps`")
    joint_steps: int | None = Field(None, ge=1, description="at most so many for both together; none: `steps`")
    patience: int | None = Field(10, ge=1, description="a phase ends after so many validations without less loss")

    @model_validator(mode="after")
    def _check_nested(self) -> Self:
        if "base" in self.network:
            raise ValueError("the base stands beside network, not in it")
        if self.loss.get("name") not in ("bce", "border_bce"):
            raise ValueError(f"the loss is bce or border_bce, not {self.loss.get('name')}")
        return self

    def to_recipe(self) -> dict[str, Any]:
        """See `SystemSettings`."""
        enhance, joint = self.enhance_steps or self.steps, self.joint_steps or self.steps
        base = self.base.model_dump()
        network = complete_network("two_stage", self.network | {"base": base}, left_out=("embedding",))
        alone = {"aux_logits": "by_epoch" if self.base.name == "micro_net" else "mean"} | self.loss
        alone["stage1_weight"] = 0.0
        frozen = alone | {"aux_logits": "none"}  # the base's further heads lead nowhere then
        together = self.loss | {"aux_logits": "none"}
        if self.form == "two_stage":
            phases = [
                self._phase("base", self.steps, alone, train=["base.*"], stage_toggles={"enhanced": False}),
                self._phase("enhance", enhance, frozen, train=["enhance.*"], start="best"),
                self._phase("joint", joint, together, train=["*", "!base.aux_heads.*"], start="best"),
            ]
        else:
            network = base
            phases = [self._phase("base", self.steps, alone)]
            if self.form == "control":
                phases.append(self._phase("continue", enhance + joint, alone, start="best"))
        return {"network": network, "representation": "foreground", "phases": phases}

    def _phase(self, name: str, steps: int, loss: dict[str, Any], **rest: Any) -> Phase:
        return Phase(
            name=name,
            loss=build_loss(loss),
            optimizer=self.optimizer,
            schedule=Constant(),
            until=StopCriteria(steps=steps, patience=self.patience, monitor="loss"),
            **rest,
        )
