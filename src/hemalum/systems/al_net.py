"""AL-Net (Electronics 2025, 14(17), 3507): dilated residual encoder, guided skips; its loss and optimizer switch.

The loss is Dice until the validation Dice levels off, then terms at the contour fade in. The optimizer is Lion until
the training loss hardly changes any more, then one that uses the size of gradients. The paper prints no equation and
no number for either: docs/systems/al_net.md says what was read into it.
"""

from typing import Any, ClassVar, Literal, Self

from pydantic import Field, model_validator

from hemalum.losses.boundary import ALNetLoss, Dice
from hemalum.systems.phases import (
    AdamW,
    AnyLoss,
    Constant,
    Lion,
    Phase,
    ScorePlateau,
    StopCriteria,
    Switch,
    Threshold,
)
from hemalum.systems.system import SystemSettings, complete_network


class ALNet(SystemSettings):
    """Options of AL-Net; each named part can be left out.

    What the reading counts in epochs stands here in shares of the run, of which an epoch is a hundredth.
    """

    networks: ClassVar[tuple[str, ...]] = ("al_net",)

    name: Literal["al_net"] = "al_net"
    network: dict[str, Any] = Field({}, description="options of network al_net")

    boundary: bool = Field(
        True, description="the second phase, with terms at the contour; without it Dice to the end"
    )
    loss: AnyLoss = Field(ALNetLoss(), description="of the second phase; the first has dice")
    score_plateau: ScorePlateau = Field(
        ScorePlateau(), description="what begins the second phase; `earliest` is a share of the run here"
    )
    latest: float = Field(0.7, gt=0, le=1, description="share of the run after which the second phase begins anyway")

    optimizer: Lion = Lion(weight_decay=0.1)
    switch: Switch | None = Field(
        Switch(when=Threshold(part="dice"), to=AdamW(lr=1e-4, weight_decay=0.1)),
        description="what ends Lion's time (a threshold on Dice, or SWATS), and what takes over, at Lion's rate and "
        "after a warm-up, so that no step gets larger; none: Lion to the end",
    )

    steps: int = Field(20_000, ge=2, description="updates in all")

    @model_validator(mode="after")
    def _check_schedule(self) -> Self:
        earliest = self.score_plateau.earliest
        if earliest >= self.latest:
            raise ValueError(f"earliest ({earliest:g}) must be before latest ({self.latest:g})")
        return self

    def to_recipe(self) -> dict[str, Any]:
        """See `SystemSettings`."""
        return {
            "network": complete_network("al_net", self.network),
            "representation": "foreground",
            "phases": [self._region_phase(), self._boundary_phase()] if self.boundary else [self._region_phase()],
        }

    def _region_phase(self) -> Phase:
        until = StopCriteria(steps=self.steps)
        if self.boundary:
            # a phase counts in shares of itself
            earliest = self.score_plateau.earliest / self.latest
            plateau = self.score_plateau.model_copy(update={"earliest": earliest})
            until = StopCriteria(steps=max(1, round(self.latest * self.steps)), score_plateau=plateau)
        return Phase(
            name="region",
            loss=Dice(),
            optimizer=self.optimizer,
            schedule=Constant(),
            switch=self._rated_switch(),
            until=until,
        )

    def _boundary_phase(self) -> Phase:
        return Phase(
            name="boundary",
            keep_optimizer=True,
            loss=self.loss,
            schedule=Constant(),
            # all that the region phase leaves of the run
            until=StopCriteria(steps=self.steps, total=self.steps),
        )

    def _rated_switch(self) -> Switch | None:
        """The switch as it is set; where none is set, AdamW takes over at the rate that Lion is set to."""
        if self.switch is None or "switch" in self.model_fields_set:
            return self.switch
        to = self.switch.to.model_copy(update={"lr": self.optimizer.lr})
        return self.switch.model_copy(update={"to": to})
