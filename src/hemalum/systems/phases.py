"""The phases that a training is made of: what trains, with which loss, optimizer and schedule, until when."""

import re
from collections.abc import Mapping
from fnmatch import fnmatchcase
from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, Field, SerializeAsAny, field_validator, model_validator

from hemalum.data.augmentation.strong_views import StrongViews
from hemalum.errors import HemalumError
from hemalum.losses import build_loss
from hemalum.losses.loss import Loss
from hemalum.losses.maps import Maps
from hemalum.settings import Strict

Beta = Annotated[float, Field(ge=0, lt=1)]


class AdamW(Strict):
    """AdamW (Loshchilov & Hutter 2019)."""

    name: Literal["adamw"] = "adamw"
    lr: float = Field(1e-3, gt=0)
    weight_decay: float = Field(1e-2, ge=0)
    betas: tuple[Beta, Beta] = (0.9, 0.999)


class Adam(Strict):
    """Adam (Kingma & Ba 2015); weight decay is L2."""

    name: Literal["adam"] = "adam"
    lr: float = Field(1e-3, gt=0)
    weight_decay: float = Field(0.0, ge=0)
    betas: tuple[Beta, Beta] = (0.9, 0.999)


class SGD(Strict):
    """Stochastic gradient descent with momentum."""

    name: Literal["sgd"] = "sgd"
    lr: float = Field(1e-2, gt=0)
    weight_decay: float = Field(0.0, ge=0)
    momentum: float = Field(0.9, ge=0, lt=1)
    nesterov: bool = Field(True, description="Nesterov's form of it")


class Lion(Strict):
    """Lion (Chen et al. 2023); advised: a rate 3 to 10 times lower than AdamW's, a decay as much higher."""

    name: Literal["lion"] = "lion"
    lr: float = Field(1e-4, gt=0)
    weight_decay: float = Field(0.0, ge=0, description="decoupled")
    betas: tuple[Beta, Beta] = (0.9, 0.99)


Optimizer = Annotated[AdamW | Adam | SGD | Lion, Field(discriminator="name")]


class Constant(Strict):
    """The optimizer's learning rate throughout, after the warm-up."""

    name: Literal["constant"] = "constant"
    warmup: int = Field(0, ge=0, description="steps of linear rise from 0")


class Cosine(Strict):
    """Half a cosine from the learning rate to `final` times it over the phase, after the warm-up."""

    name: Literal["cosine"] = "cosine"
    warmup: int = Field(0, ge=0, description="steps of linear rise from 0")
    final: float = Field(0.01, ge=0, le=1)


class Plateau(Strict):
    """The rate is multiplied by `factor` after `patience` validations without a better score."""

    name: Literal["plateau"] = "plateau"
    warmup: int = Field(0, ge=0, description="steps of linear rise from 0")
    factor: float = Field(0.5, gt=0, lt=1)
    patience: int = Field(3, ge=1)


class Threshold(Strict):
    """Time to switch: the training loss changes much less than it once did.

    l is the loss or one part of it, averaged over each measurement and smoothed; its relative change over `window`
    measurements, |l_e - l_{e-w}| / |l_{e-w}|, has to fall below `portion` of the largest that it has been.
    """

    name: Literal["threshold"] = "threshold"
    part: str | None = Field(
        None,
        description="the part of the loss that is watched, without its scheduled weight, by the name that the log "
        "has after `loss_`; none: all of it, in which a term that fades in looks like a change",
    )
    every: float = Field(0.01, gt=0, le=1, description="a measurement, as a share of the run's steps")
    window: int = Field(5, ge=1, description="w, measurements")
    portion: float = Field(0.05, gt=0, lt=1, description="of the largest change so far")
    smoothing: float = Field(0.8, ge=0, lt=1, description="what a smoothed loss keeps of the one before")


class Swats(Strict):
    """Time to switch: the rate at which SGD would take the optimizer's steps is settled (Keskar & Socher 2017).

    γ = p·p / -p·g for a step p and its gradient g, over all weights; settled when γ is within `tolerance` of its own
    corrected running mean, which is then the rate.
    """

    name: Literal["swats"] = "swats"
    beta: float = Field(0.999, gt=0, lt=1, description="decay of the running mean")
    tolerance: float = Field(
        1e-4, gt=0, description="relative; the paper's 1e-9 is absolute and fits one size of network and step"
    )


class Switch(Strict):
    """Another optimizer takes over within a phase, once `when` says so.

    It knows nothing of the gradients before, and its first steps, made of one or two of them, are as large as its
    rate: hence the warm-up.
    """

    when: Annotated[Threshold | Swats, Field(discriminator="name")] = Threshold()
    to: Optimizer = AdamW()
    factor: float | None = Field(
        None, gt=0, description="its rate, as a multiple of that at the switch; none: as `to` says, or swats found"
    )
    schedule: Annotated[Constant | Cosine, Field(discriminator="name")] = Field(
        Cosine(final=0, warmup=100),
        description="from the switch to the end of the phase, and of those that carry on after it",
    )

    @model_validator(mode="after")
    def _rate_from_one_source(self) -> Self:
        if isinstance(self.when, Swats) and (self.to.name != "sgd" or self.factor is not None):
            raise ValueError("swats finds a rate for sgd: switch to sgd, without a factor")
        return self


class SemiSupervised(Strict):
    """What a phase learns from images whose truth it does not see, by strong-weak consistency.

    docs/systems/csra_net.md has the equations.

    The loss is `supervised` x the phase's own loss on labeled images + `consistency` x the mean over strong views of
    H(ŷ, p) + `dropped` x H(ŷ, p) of the weak view without half of the encoder's channels + `contrast` x the
    contrastive term. ŷ is the weak view's class, where its probability is at least `threshold`.
    """

    threshold: float = Field(0.95, ge=0, lt=1, description="τ")
    views: Literal[1, 2] = Field(2, description="strong views of each image")
    supervised: float = Field(1.0, gt=0)
    consistency: float = Field(0.5, ge=0, description="λ2")
    dropped: float = Field(0.0, ge=0, description="UniMatch's feature perturbation")
    contrast: float = Field(0.0, ge=0, description="λ1")
    temperature: float = Field(0.1, gt=0, description="of the contrastive term")
    labeled: Literal["weak", "strong", "both"] = Field(
        "weak", description="which views of labeled images the phase's loss sees; of both it is the sum"
    )
    beyond: Literal["ignore", "count"] = Field(
        "ignore", description="pixels of an unlabeled crop that lie beyond its image, where it is mirrored"
    )
    strong: StrongViews = StrongViews()


class ScorePlateau(Strict):
    """A score has leveled off when the last `patience` validations lie between the best one before them less `fall`
    and that one plus `delta`, after at least `earliest` of the phase's steps: no gain, and no fall either."""

    patience: int = Field(4, ge=1, description="validations in a row")
    delta: float = Field(1e-3, description="a gain over the best so far, of a Dice in [0, 1]")
    fall: float = Field(0.05, ge=0, description="so far below the best so far a score has fallen, not leveled off")
    earliest: float = Field(0.2, ge=0, le=1, description="share of the phase's steps")


Monitor = Literal["pq", "dice", "miou", "loss"]


class StopCriteria(Strict):
    """When a phase ends, whichever comes first."""

    steps: int = Field(ge=1, description="at most so many steps")
    total: int | None = Field(
        None, ge=1, description="when the whole run has so many: what earlier phases saved, this one gets"
    )
    epochs: int | None = Field(
        None, ge=1, description="at most so many passes over the images, turned into steps once the data is known"
    )
    epochs_of: Literal["labeled", "unlabeled"] = Field("labeled", description="which images a pass is over")
    monitor: Monitor = Field(
        "pq",
        description="what is best, on the validation images: PQ, Dice, mIoU over classes, or the least loss",
    )
    patience: int | None = Field(None, ge=1, description="so many validations without a better score")
    score_plateau: ScorePlateau | None = Field(None, description="when the validation Dice has leveled off")

    def score(self, figures: Mapping[str, float]) -> float:
        """What is monitored, of the figures of a validation; more is better, so a loss is negative."""
        column = {"pq": "score", "dice": "dice", "miou": "miou", "loss": "val_loss"}[self.monitor]
        return -figures[column] if self.monitor == "loss" else figures[column]

    def shown(self, score: float) -> float:
        """A score as people know it: a loss is positive."""
        return -score if self.monitor == "loss" else score

    def last_step(self, start: int) -> int:
        """The last step of the run at which a phase that begins at step `start` can end."""
        end = start + self.steps
        return end if self.total is None else max(start, min(end, self.total))


def _loss(spec: Any) -> Loss:
    try:
        return build_loss(spec)
    except HemalumError as error:  # pydantic collects ValueErrors and says where they stand
        raise ValueError(str(error)) from error


AnyLoss = Annotated[SerializeAsAny[Loss], BeforeValidator(_loss)]


class Phase(Strict):
    """What trains, with which loss, optimizer and schedule, until when."""

    name: str = Field(description="of its own in the recipe, and part of the names of its files")
    start: Literal["last", "best"] = Field(
        "last", description="from the last weights of the phase before, or from its best ones, averaged if they are"
    )
    train: list[str] = Field(
        ["*"],
        description="patterns of parameter names, '!' before those to leave out; the rest is frozen, in eval mode",
    )
    stage_toggles: dict[str, bool] = Field(
        {}, description="what of the network is off, by its own names; all else is on"
    )
    loss: AnyLoss = Field(Maps(), description="name in hemalum.losses.LOSSES, or a mapping of name and options")
    semi_supervised: SemiSupervised | None = Field(
        None, description="what is learned from training images beside the labeled ones; none: nothing"
    )
    optimizer: Optimizer = AdamW()
    schedule: Annotated[Constant | Cosine | Plateau, Field(discriminator="name")] = Cosine()
    switch: Switch | None = Field(None, description="another optimizer, later in the phase")
    keep_optimizer: bool = Field(
        False, description="go on with the optimizer of the phase before, its state, and where its switch stands"
    )
    until: StopCriteria

    @field_validator("name")
    @classmethod
    def _check_name(cls, name: str) -> str:
        if not re.fullmatch(r"[\w.-]{1,100}", name):
            raise ValueError(f"a phase's name is part of file names: letters, digits, _ - and . alone, not '{name}'")
        return name

    def trains(self, parameter: str) -> bool:
        """Whether a parameter of that name trains."""
        wanted = [pattern for pattern in self.train if not pattern.startswith("!")]
        unwanted = [pattern[1:] for pattern in self.train if pattern.startswith("!")]
        matches = [any(fnmatchcase(parameter, pattern) for pattern in group) for group in (wanted, unwanted)]
        return matches[0] and not matches[1]


def with_kept_optimizers(phases: list[Phase]) -> list[Phase]:
    """Give phases that carry on the optimizer and switch of the one before.

    Raises ValueError where there is none, other weights train, or the phase asks for others, and for two phases of
    one name.
    """
    result: list[Phase] = []
    for phase in phases:
        if phase.name.casefold() in {other.name.casefold() for other in result}:
            raise ValueError(f"two phases have the name '{phase.name}': give each its own")
        if phase.keep_optimizer:
            if not result:
                raise ValueError(f"phase '{phase.name}' carries on, and there is no phase before it")
            before = result[-1]
            if phase.train != before.train:
                raise ValueError(f"phase '{phase.name}' carries on: it has to train what '{before.name}' trains")
            for key in ("optimizer", "switch"):
                # a recipe that was written out in full has the default there
                if getattr(phase, key) not in (Phase.model_fields[key].default, getattr(before, key)):
                    raise ValueError(
                        f"phase '{phase.name}' carries on with the {key} of '{before.name}': leave it out"
                    )
            phase = phase.model_copy(update={"optimizer": before.optimizer, "switch": before.switch})
        result.append(phase)
    return result
