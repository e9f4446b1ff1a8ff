"""The recipe: everything that decides a training run, as validated YAML."""

import hashlib
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, Field, ValidationError

from hemalum.data.augment import AugmentSettings
from hemalum.data.stain_normalisation import StainNormalisation
from hemalum.errors import HemalumError
from hemalum.models.card import NetworkSpec, SeparationSettings, Strict
from hemalum.names import nearest


class Source(Strict):
    """One dataset's part in the stream; `balance` names the column whose values are drawn equally often."""

    weight: float = Field(1.0, gt=0, description="share of the stream, relative to the other sets")
    balance: Literal["organ", "stain", "group"] | None = None


class AdamW(Strict):
    """AdamW (Loshchilov & Hutter 2019)."""

    name: Literal["adamw"] = "adamw"
    lr: float = Field(1e-3, gt=0)
    weight_decay: float = Field(1e-2, ge=0)
    betas: tuple[float, float] = (0.9, 0.999)


class Adam(Strict):
    """Adam (Kingma & Ba 2015); weight decay is L2."""

    name: Literal["adam"] = "adam"
    lr: float = Field(1e-3, gt=0)
    weight_decay: float = Field(0.0, ge=0)
    betas: tuple[float, float] = (0.9, 0.999)


class SGD(Strict):
    """Stochastic gradient descent with Nesterov momentum."""

    name: Literal["sgd"] = "sgd"
    lr: float = Field(1e-2, gt=0)
    weight_decay: float = Field(0.0, ge=0)
    momentum: float = Field(0.9, ge=0, lt=1)


class Constant(Strict):
    """The optimiser's learning rate throughout, after the warm-up."""

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


class Until(Strict):
    """When a phase ends: after `steps`, or earlier after `patience` validations without a better score."""

    steps: int = Field(ge=1)
    patience: int | None = Field(None, ge=1)


class Phase(Strict):
    """What trains, with which optimiser and schedule, until when."""

    name: str
    train: list[str] = Field(["*"], description="patterns of parameter names; the rest is frozen, in eval mode")
    loss: str = Field("maps", description="name in hemalum.losses.maps.LOSSES")
    optimiser: Annotated[AdamW | Adam | SGD, Field(discriminator="name")] = AdamW()
    schedule: Annotated[Constant | Cosine | Plateau, Field(discriminator="name")] = Cosine()
    until: Until


class Recipe(Strict):
    """A training run. The stream is a pure function of `seed`, data and step."""

    name: str
    description: str = ""
    budget: Literal["full", "small"] = Field("full", description="set by the choice of the budget, not by hand")
    seed: int = Field(0, ge=0)
    network: NetworkSpec
    representation: str = "distance"
    keep: str | None = Field(
        None, description="representation that the model file keeps, where the network was trained on more maps"
    )
    mpp: float = Field(gt=0, description="scale of the network's input, µm per pixel")
    enlarge: int = Field(1, ge=1, le=4)
    tile: int = Field(256, ge=16, description="side of a training crop, px at `mpp`")
    batch: int = Field(16, ge=1)
    finer: int = Field(
        1, ge=1, le=4, description="targets are made on a grid this much finer and averaged: shares of a pixel"
    )
    data: dict[str, Source] = Field({}, description="datasets by name; none: whatever is given, in equal shares")
    stain_normalisation: StainNormalisation | None = Field(
        None, description="colours that every image is brought to, in training and wherever the model is used"
    )
    augment: AugmentSettings = AugmentSettings()
    phases: list[Phase] = Field(min_length=1)
    separation: SeparationSettings = SeparationSettings()
    ema: float = Field(0.0, ge=0, lt=1, description="decay of the averaged weights; 0 keeps none")
    clip: float | None = Field(None, gt=0, description="largest gradient norm")
    precision: Literal["32-true", "bf16-mixed", "16-mixed"] = "32-true"
    validate_every: int = Field(500, ge=1, description="steps")
    validation_images: int = Field(60, ge=1, description="at most this many, spread evenly over the sets")
    checkpoint_every: int = Field(100, ge=1, description="steps")

    @property
    def steps(self) -> int:
        """Steps over all phases, if none ends earlier."""
        return sum(phase.until.steps for phase in self.phases)

    @property
    def digest(self) -> str:
        """sha256 of all that decides the training, which is not its name; a run may only be resumed with the same."""
        return hashlib.sha256(self.model_dump_json(exclude={"name", "description"}).encode()).hexdigest()


Budget = Literal["full", "small"]
SMALL = "small"


def load_recipe(path: Path | str, budget: Budget = "full") -> Recipe:
    """Read and check a recipe; `budget` "small" applies the changes that stand under its key `small`.

    Raises HemalumError naming the field, and the nearest known key for an unknown one; both forms of the recipe
    are checked.
    """
    path = Path(path)
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise HemalumError(f"no such recipe: {path}") from None
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise HemalumError(f"{path} is not readable YAML: {' '.join(str(error).split())}") from error
    if not isinstance(content, dict):
        raise HemalumError(f"{path} is not a recipe: it must be a mapping of keys")
    changes = content.pop(SMALL, None)
    full = _validated(path, content)
    if changes is None:
        if budget == SMALL:
            raise HemalumError(f"{path} has no small form: give it a key 'small' with what differs")
        return full
    if not isinstance(changes, dict):
        raise HemalumError(f"{path}: '{SMALL}' must be a mapping of the keys that differ")
    small = _validated(path, _changed(path, content, changes) | {"budget": SMALL}, SMALL)
    return small if budget == SMALL else full


def _validated(path: Path, content: dict[str, Any], form: str = "") -> Recipe:
    try:
        return Recipe.model_validate(content)
    except ValidationError as error:
        raise HemalumError(f"{path}: {_explain(error)}{f' (in its {form} form)' if form else ''}") from error


def _changed(path: Path, content: Any, changes: dict[str, Any]) -> dict[str, Any]:
    """Mappings are changed key by key, lists of named things (phases) by name; all else is replaced."""
    result: dict[str, Any] = dict(content)
    for key, change in changes.items():
        old = result.get(key)
        if isinstance(old, dict) and isinstance(change, dict):
            result[key] = _changed(path, old, change)
        elif isinstance(old, list) and isinstance(change, dict):
            names = [item.get("name") for item in old]
            for name in change:
                if name not in names:
                    raise HemalumError(f"{path}: '{SMALL}.{key}' changes '{name}'{nearest(name, map(str, names))}")
            result[key] = [_changed(path, item, change.get(item["name"], {})) for item in old]
        else:
            result[key] = change
    return result


def _explain(error: ValidationError) -> str:
    first = error.errors()[0]
    where = ".".join(str(part) for part in first["loc"])
    if first["type"] == "extra_forbidden":
        return f"unknown key '{where}'{nearest(str(first['loc'][-1]), _keys(Recipe))}"
    return f"'{where}': {first['msg']}"


def _keys(model: type[BaseModel]) -> set[str]:
    """Every key that a recipe may hold, at any depth."""
    found: set[str] = set()

    def walk(schema: Any) -> None:
        if isinstance(schema, dict):
            found.update(schema.get("properties", {}))
            for value in schema.values():
                walk(value)
        elif isinstance(schema, list):
            for value in schema:
                walk(value)

    walk(model.model_json_schema())
    return found
