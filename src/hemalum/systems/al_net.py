"""AL-Net (Electronics 2025, 14(17), 3507): dilated residual encoder, guided skips; its loss and optimiser switch.

The loss is Dice until the validation Dice levels off, then terms at the contour fade in. The optimiser is Lion until
the training loss hardly changes any more, then one that uses the size of gradients. The paper prints no equation and
no number for either: docs/systems/al_net.md says what was read into it.
"""

from typing import Any, Literal, Self

from pydantic import Field, model_validator

from hemalum.systems.phases import Monitor, Phase
from hemalum.systems.system import SystemSettings

_RATES = {"adamw": 3.0, "sgd": 0.1}  # of the optimiser that takes over, as multiples of Lion's


class ALNet(SystemSettings):
    """Options of AL-Net; each named part can be left out.

    What the reading counts in epochs stands here in shares of the run, of which an epoch is a hundredth.
    """

    name: Literal["al_net"] = "al_net"
    widths: list[int] = Field([64, 128, 256, 512, 1024], description="channels of each level")
    rates: list[int] = Field([1, 2, 4], description="dilations side by side in each block of the encoder")
    bottleneck_rates: list[int] = Field([1, 2, 4, 8], description="dilations of the deepest block")
    attention: bool = Field(True, description="skips are weighed by place: additive attention")
    se: bool = Field(True, description="skips are weighed by channel: squeeze and excitation")
    norm: bool = Field(True, description="batch norm")

    boundary: bool = Field(
        True, description="the second phase, with terms at the contour; without it Dice to the end"
    )
    boundary_weight: float = Field(0.1, ge=0, description="weight of the signed distance term, lambda_b")
    gradient_weight: float = Field(0.5, ge=0, description="weight of the gradient term, lambda_g")
    direction: bool = Field(True, description="the gradient term compares directions too")
    band: int = Field(3, ge=1, description="px to each side of the contour in which it does so")
    ramp: float = Field(0.1, ge=0, le=1, description="share of the run over which both terms fade in, R")
    rebalance: float | None = Field(None, gt=0, description="weight that Dice loses to the distance term each epoch")
    window: int = Field(2, ge=1, description="validations on each side of the comparison that tells a plateau, w")
    delta: float = Field(1e-3, description="a gain in Dice below this is a plateau")
    earliest: float = Field(0.2, ge=0, lt=1, description="share of the run before which no plateau counts")
    latest: float = Field(0.7, gt=0, le=1, description="share of the run after which the second phase begins anyway")

    lr: float = Field(1e-4, gt=0, description="learning rate of Lion")
    weight_decay: float = Field(0.1, ge=0, description="of Lion, decoupled")
    switch: Literal["threshold", "swats"] | None = Field(
        "threshold", description="what ends Lion's time: a dynamic threshold on the loss, SWATS, or nothing"
    )
    to: Literal["adamw", "sgd"] = Field("adamw", description="what takes over; swats leads to sgd")
    portion: float = Field(
        0.05, gt=0, lt=1, description="kappa: the threshold, of the largest change of the loss so far"
    )
    smoothing: float = Field(0.8, ge=0, lt=1, description="of the loss, from one hundredth of the run to the next")
    tolerance: float = Field(1e-4, gt=0, description="how settled swats wants the rate, relative")

    monitor: Monitor = Field("pq", description="what the best weights are best in, on the validation images")
    steps: int = Field(20_000, ge=2, description="updates in all")

    @model_validator(mode="after")
    def _possible(self) -> Self:
        if self.switch == "swats" and self.to != "sgd":
            raise ValueError("swats finds a learning rate for sgd: set to: sgd")
        if self.earliest >= self.latest:
            raise ValueError(f"earliest ({self.earliest:g}) must be before latest ({self.latest:g})")
        return self

    def recipe(self) -> dict[str, Any]:
        """See `SystemSettings`."""
        shape = {"widths": self.widths, "rates": self.rates, "bottleneck_rates": self.bottleneck_rates}
        parts = {"attention": self.attention, "se": self.se, "norm": self.norm}
        phases = [self._region(), self._boundary()] if self.boundary else [self._region()]
        return {
            "network": {"name": "al_net", "options": shape | parts},
            "representation": "foreground",
            "phases": [Phase.model_validate(phase) for phase in phases],
        }

    def _region(self) -> dict[str, Any]:
        until: dict[str, Any] = {"steps": self.steps, "monitor": self.monitor}
        if self.boundary:
            # a phase counts in shares of itself
            levelled = {"window": self.window, "delta": self.delta, "earliest": self.earliest / self.latest}
            until |= {"steps": max(1, round(self.latest * self.steps)), "levelled": levelled}
        return {
            "name": "region",
            "loss": "dice",
            "optimiser": {"name": "lion", "lr": self.lr, "weight_decay": self.weight_decay},
            "schedule": {"name": "constant"},
            "switch": self._switch(),
            "until": until,
        }

    def _boundary(self) -> dict[str, Any]:
        weights = {"boundary": self.boundary_weight, "gradient": self.gradient_weight}
        terms = {"direction": self.direction, "band": self.band, "ramp": self.ramp, "rebalance": self.rebalance}
        return {
            "name": "boundary",
            "carry": True,
            "loss": {"name": "al_net", **weights, **terms},
            "schedule": {"name": "constant"},
            # all that the region phase leaves of the run
            "until": {"steps": self.steps, "total": self.steps, "monitor": self.monitor},
        }

    def _switch(self) -> dict[str, Any] | None:
        if self.switch is None:
            return None
        after = {"to": {"name": self.to}, "schedule": {"name": "cosine", "final": 0}}
        if self.switch == "swats":
            return after | {"when": {"name": "swats", "tolerance": self.tolerance}}
        rule = {"name": "threshold", "portion": self.portion, "smoothing": self.smoothing}
        return after | {"when": rule, "factor": _RATES[self.to]}
