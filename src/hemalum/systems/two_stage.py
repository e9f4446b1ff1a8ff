"""Two-stage enhancement (CVR 2025): a base network, a small one that mends its map, then both together.

The base may be a model that is trained already. The control that the paper lacks is here, too: the base alone,
trained for as long. Where the paper is silent: docs/systems/two_stage.md.
"""

from collections.abc import Mapping
from typing import Any, ClassVar, Literal, Self

from pydantic import Field, model_validator

from hemalum.errors import HemalumError
from hemalum.losses import build_loss
from hemalum.models.card import Card, NetworkSpec
from hemalum.models.model import load_model
from hemalum.settings import Strict
from hemalum.systems.phases import Adam, Constant, Optimizer, Phase, StopCriteria
from hemalum.systems.system import SystemSettings, complete_network
from hemalum.targets.representations import Head, find_representation


class Base(Strict):
    """The first stage: a network that is trained first, or a model that is trained already.

    `digest` and `card` are noted when the recipe is read, so that it says all that it starts from.
    """

    name: str | None = Field(None, description="a network; unet, where neither name nor model is given")
    options: dict[str, Any] = Field({})
    model: str | None = Field(None, description="a model file, or the name of a shipped model, in its place")
    digest: str = ""
    card: dict[str, Any] | None = None

    @model_validator(mode="before")
    @classmethod
    def _note_model(cls, content: Any) -> Any:
        if not isinstance(content, Mapping):
            return content
        if content.get("model") is None:
            return {**content, "name": content.get("name") or "unet"}
        if content.get("name") or content.get("options"):
            raise ValueError("give the name and options of a network, or the file of a model, not both")
        if content.get("card") is not None or not isinstance(content["model"], str):
            return content
        try:
            model = load_model(content["model"])
        except HemalumError as error:  # pydantic collects ValueErrors and says where they stand
            raise ValueError(str(error)) from error
        if model.card.network.name == "two_stage":
            raise ValueError(f"{content['model']} has a second stage already: name the model that it was put on")
        measured = {"int8", "metrics", "recall", "recall_target", "calibration"}
        card = model.card.model_dump(mode="json", exclude={"training", *measured})
        return {**content, "digest": model.digest, "card": card}

    @property
    def spec(self) -> NetworkSpec:
        """The network and its options."""
        trained = self.trained
        return NetworkSpec(name=str(self.name), options=self.options) if trained is None else trained.network

    @property
    def trained(self) -> Card | None:
        """The card of the model, where the base is one."""
        return None if self.card is None else Card.model_validate(self.card)


class TwoStageEnhancement(SystemSettings):
    """Options of two-stage enhancement over any registered network."""

    networks: ClassVar[tuple[str, ...]] = ("two_stage",)

    name: Literal["two_stage"] = "two_stage"
    base: Base = Field(
        default_factory=lambda: Base(name="unet"),
        description="the first stage: any network and its options, or `model`: a file that hemalum trained",
    )
    network: dict[str, Any] = Field({}, description="options of network two_stage: those of the second stage")
    form: Literal["two_stage", "base", "control"] = Field(
        "two_stage",
        description="two_stage: base, then enhance, then joint; base: the first of these alone; control: the base, "
        "then the base again for as many steps as enhance and joint have, and chosen from as many validations. Of a "
        "base that is trained already the first phase is left out",
    )
    loss: dict[str, Any] = Field(
        {"name": "bce"},
        description="bce or border_bce (maps, of a trained base whose maps are of other kinds), and its options: "
        "`aux_logits` while the base trains alone (by_epoch for "
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
        if self.form == "base" and self.base.model is not None:
            raise ValueError("form base trains the base alone, and this one is trained: take two_stage or control")
        return self

    def to_recipe(self) -> dict[str, Any]:
        """See `SystemSettings`."""
        enhance, joint = self.enhance_steps or self.steps, self.joint_steps or self.steps
        base, trained = self.base.spec.model_dump(), self.base.trained
        heads = (Head("sigmoid", ("foreground",)),) if trained is None else _heads(trained)
        options = self.network | {"base": base}
        if any(head.kind != "sigmoid" for head in heads):
            options["heads"] = [[head.kind, head.logits] for head in heads]
        network = complete_network("two_stage", options, left_out=("embedding", "heads"))
        alone = {"aux_logits": "by_epoch" if base["name"] == "micro_net" else "mean"} | self.loss
        alone["stage1_weight"] = 0.0
        frozen = alone | {"aux_logits": "none"}  # the base's further heads lead nowhere then
        together = self.loss | {"aux_logits": "none"}
        if any(head.kind != "sigmoid" for head in heads):
            alone = frozen = together = {"name": "maps"}
        first = [] if trained is not None else [("base", self.steps, alone)]
        if self.form == "two_stage":
            phases = [self._phase(*one, train=["base.*"], stage_toggles={"enhanced": False}) for one in first]
            start = "best" if phases else "last"
            phases += [
                self._phase("enhance", enhance, frozen, train=["enhance.*"], start=start),
                self._phase("joint", joint, together, train=["*", "!base.aux_heads.*"], start="best"),
            ]
        else:
            network = base
            phases = [self._phase(*one) for one in first]
            if self.form == "control":  # in two phases as well: the best is chosen from as many validations
                start = "best" if phases else "last"
                phases += [
                    self._phase("continue", enhance, alone, start=start),
                    self._phase("continue_joint", joint, alone, start="best"),
                ]
        recipe = {"network": network, "representation": "foreground", "phases": phases}
        if trained is None:
            return recipe
        part = "base" if self.form == "two_stage" else ""
        initial = {"model": self.base.model, "digest": self.base.digest, "part": part}
        return recipe | _keys_of(trained) | {"initial": initial}

    def _phase(self, name: str, steps: int, loss: dict[str, Any], **rest: Any) -> Phase:
        return Phase(
            name=name,
            loss=build_loss(loss),
            optimizer=self.optimizer,
            schedule=Constant(),
            until=StopCriteria(steps=steps, patience=self.patience, monitor="loss"),
            **rest,
        )


def _heads(card: Card) -> tuple[Head, ...]:
    return find_representation(card.representation, card.classes).heads


def _keys_of(card: Card) -> dict[str, Any]:
    """The keys of a recipe by which a network sees and gives what a trained model does."""
    keys: dict[str, Any] = {
        "representation": card.representation,
        "mpp": card.mpp,
        "input": card.channels,
        "output_upsampling": card.output_upsampling,
        "separation": card.separation,
    }
    if card.input_range is None:
        raise HemalumError(f"model '{card.name}' has an input of a range of its own, which no recipe can ask for")
    keys["input_range"] = card.input_range
    if card.organs:
        keys["organs"] = card.organs
    if card.representation == "semantic" and card.classes == ["nucleus"]:
        keys["classes"] = "nucleus"
    if card.sam is not None:
        keys["sam"] = {"encoder": card.sam.encoder, "field": card.sam.field}
    elif card.window is not None:
        keys["tile"] = card.window
    return keys
