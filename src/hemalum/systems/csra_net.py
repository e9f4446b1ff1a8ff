"""CSRA-Net (Applied Sciences 2025, 15(9), 5107) and what it is compared with, on one two-stream loop.

Semantic segmentation from few labeled images: category-adaptive sampling (CAS), strong-weak consistency with a
contrastive term (SWC), region-adaptive attention (RAA) in a DeepLabV3+. The loss weights of FixMatch and UniMatch are
those of UniMatch's public code. docs/systems/csra_net.md says what was read into the paper.
"""

from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import Field, PlainSerializer, model_validator

from hemalum.data.sampling import CategoryAdaptive
from hemalum.losses.cross_entropy import CrossEntropy
from hemalum.systems.phases import SGD, AnyLoss, Cosine, Optimizer, Phase, SemiSupervised, StopCriteria
from hemalum.systems.system import SystemSettings, complete_network, network_options

_SEMI_SUPERVISED: dict[str, dict[str, Any]] = {
    "fixmatch": {"views": 1, "supervised": 0.5, "consistency": 0.5},  # (L_x + L_u) / 2
    # (L_x + L_s1 / 4 + L_s2 / 4 + L_fp / 2) / 2; consistency is the mean of both views
    "unimatch": {"supervised": 0.5, "consistency": 0.25, "dropped": 0.25},
    "csra": {"consistency": 0.5, "contrast": 0.1, "labeled": "both"},  # lambda_2, lambda_1
}

Changes = PlainSerializer(lambda settings: settings.model_dump(mode="json", exclude_unset=True))


class CSRANet(SystemSettings):
    """Options of CSRA-Net and of the methods beside it."""

    networks: ClassVar[tuple[str, ...]] = ("csra_net",)

    name: Literal["csra_net"] = "csra_net"
    method: Literal["supervised", "fixmatch", "unimatch", "csra"] = Field(
        "csra", description="how the unlabeled images are used; supervised: not at all"
    )
    fraction: str = Field("1/8", description="of the training images, that keep their labels; 1/1: all")
    draw: Literal["random", "stratified"] = Field(
        "random", description="of the labeled images: at random, or by organ until every class has one"
    )

    cas: bool | None = Field(None, description="category-adaptive sampling; none: with method csra alone")
    swc: bool = Field(True, description="strong-weak consistency of method csra; without it labeled images alone")
    raa: bool | None = Field(None, description="region-adaptive attention; none: with method csra alone")

    network: dict[str, Any] = Field(
        {"name": "csra_net"},
        description="options of network csra_net, without raa those of deeplabv3plus; or another by `name`, as unet, "
        "as a baseline",
    )
    semi_supervised: Annotated[SemiSupervised, Changes] = Field(
        default_factory=SemiSupervised, description="what differs from the method's weights and views"
    )
    loss: AnyLoss = Field(CrossEntropy(dice=0.0), description="of labeled images")
    optimizer: Optimizer = SGD(lr=0.005, weight_decay=1e-4, nesterov=False)
    schedule: Cosine = Cosine(final=0)
    steps: int = Field(40_000, ge=1, description="updates in all, at most")
    epochs: int | None = Field(
        None, ge=1, description="passes over the images of `epochs_of`, at most, turned into steps from the data"
    )
    epochs_of: Literal["labeled", "unlabeled"] = Field(
        "unlabeled",
        description="unlabeled: those whose labels are hidden, or a user's own; as UniMatch's code counts",
    )

    @model_validator(mode="after")
    def _check_parts(self) -> Self:
        name = str(self.network["name"])
        if name != "csra_net" and (self.raa or self.method in ("unimatch", "csra")):
            hint = ", or for DeepLabV3 network: {skips: []}" if name == "deeplabv3" else ""
            raise ValueError(
                f"network {name} has no features for raa, unimatch or csra: take supervised or fixmatch{hint}"
            )
        if self.method != "csra" and not self.swc:
            raise ValueError(f"swc is a part of method csra, not of {self.method}")
        return self

    def to_recipe(self) -> dict[str, Any]:
        """See `SystemSettings`."""
        main = Phase(
            name="main",
            loss=self.loss,
            semi_supervised=self._semi_supervised(),
            optimizer=self.optimizer,
            schedule=self.schedule,
            until=StopCriteria(steps=self.steps, epochs=self.epochs, epochs_of=self.epochs_of, monitor="miou"),
        )
        return {
            "network": self._network(),
            "representation": "semantic",
            # resize 0.5 to 2, crop, mirror; the colors change in strong views alone
            "augment": {"name": "flips", "scale": 2.0},
            "beyond": "ignore",
            "labeled": {"fraction": self.fraction, "draw": self.draw},
            "sampling": CategoryAdaptive() if self._includes(self.cas) else None,
            "phases": [main],
        }

    def _network(self) -> dict[str, Any]:
        options = {option: value for option, value in self.network.items() if option != "name"}
        name = str(self.network["name"])
        if name != "csra_net":
            return complete_network(name, {"norm": True} | options if name == "unet" else options)
        # the dilations follow from the output stride, raa follows from the choice of the network
        network = complete_network(name, options, left_out=("rates", "raa", "growth"))
        if self._includes(self.raa):
            return network
        plain = network_options("deeplabv3plus")
        options = {option: value for option, value in options.items() if option in plain}
        return complete_network("deeplabv3plus", options, left_out=("rates",))

    def _semi_supervised(self) -> SemiSupervised | None:
        if self.method == "supervised" or not self.swc:
            return None
        changes = self.semi_supervised.model_dump(exclude_unset=True)
        return SemiSupervised.model_validate(_SEMI_SUPERVISED[self.method] | changes)

    def _includes(self, part: bool | None) -> bool:
        return self.method == "csra" if part is None else part
