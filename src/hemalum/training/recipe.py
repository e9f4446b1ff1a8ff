"""The recipe: everything that decides a training run, as validated YAML."""

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, Self

import yaml
from pydantic import BaseModel, Field, ValidationError, field_validator, model_validator

from hemalum.data.augment import AugmentSettings
from hemalum.data.fractions import Labelled
from hemalum.data.sampling import CategoryAdaptive
from hemalum.data.stain_normalisation import StainNormalisation
from hemalum.errors import HemalumError
from hemalum.instances.representations import BY_CLASS
from hemalum.models.card import Channels, NetworkSpec, SeparationSettings, Strict
from hemalum.names import nearest
from hemalum.systems import build_system
from hemalum.systems.phases import Phase, carried_on


class Source(Strict):
    """One dataset's part in the stream; `balance` names the column whose values are drawn equally often."""

    weight: float = Field(1.0, gt=0, description="share of the stream, relative to the other sets")
    balance: Literal["organ", "stain", "group"] | None = None


class Sam(Strict):
    """A frozen SAM image encoder whose embedding the network is given."""

    encoder: str = Field(description="name on the Hugging Face hub such as facebook/sam-vit-base, or a folder")
    field: int | None = Field(
        None,
        ge=16,
        description="side of what is embedded at once, px at `mpp`, and of the model's windows; None: tile",
    )


class Recipe(Strict):
    """A training run. The stream is a pure function of `seed`, data and step.

    `system` stands for the keys that a published system decides; the recipe's own go over them.
    """

    name: str
    description: str = ""
    budget: Literal["full", "small"] = Field("full", description="set by the choice of the budget, not by hand")
    seed: int = Field(0, ge=0)
    system: dict[str, Any] | None = Field(None, description="name in hemalum.systems.SYSTEMS, and its options")
    network: NetworkSpec
    input: Channels = Field("RGB", description="what the network sees: colours, or one channel made of them")
    organs: list[str] | Literal["auto"] = Field(
        "auto", description="organs that the network tells apart; auto: those of the training images"
    )
    classes: Literal["dataset", "nucleus"] = Field(
        "dataset", description="for representation semantic: the dataset's classes, or all nuclei as one"
    )
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
    labelled: Labelled | None = Field(None, description="the training images that keep their labels; none: all")
    sampling: CategoryAdaptive | None = Field(
        None, description="how often each image of a set is drawn, in the place of its `balance`; none: alike"
    )
    stain_normalisation: StainNormalisation | None = Field(
        None, description="colours that every image is brought to, in training and wherever the model is used"
    )
    sam: Sam | None = Field(None, description="for a network that takes an embedding; made once and kept")
    augment: AugmentSettings = AugmentSettings()
    phases: list[Phase] = Field(min_length=1)
    separation: SeparationSettings = SeparationSettings()
    ema: float = Field(0.0, ge=0, lt=1, description="decay of the averaged weights; 0 keeps none")
    clip: float | None = Field(None, gt=0, description="largest gradient norm")
    precision: Literal["32-true", "bf16-mixed", "16-mixed"] = "32-true"
    validate_every: int = Field(500, ge=1, description="steps")
    validation_images: int = Field(60, ge=1, description="at most this many, spread evenly over the sets")
    checkpoint_every: int = Field(100, ge=1, description="steps")

    @field_validator("phases")
    @classmethod
    def _carried_on(cls, phases: list[Phase]) -> list[Phase]:
        return carried_on(phases)

    @model_validator(mode="before")
    @classmethod
    def _of_system(cls, content: Any) -> Any:
        """Put in what the system decides, under what the recipe says itself."""
        if not isinstance(content, Mapping) or not content.get("system"):
            return content
        try:
            system = build_system(content["system"])
            decided = _plain(system.recipe())
            own = {key: value for key, value in content.items() if key != "system"}
            return merged(decided, own, "recipe") | {"system": system.model_dump(mode="json")}
        except HemalumError as error:  # pydantic collects ValueErrors and says where they stand
            raise ValueError(str(error)) from error

    @model_validator(mode="after")
    def _monitors(self) -> Self:
        """A score that nothing has would end the training at its first validation."""
        for phase in self.phases:
            if phase.until.monitor == "miou" and self.representation not in BY_CLASS:
                raise ValueError(
                    f"phase '{phase.name}' monitors miou, which representation '{self.representation}' does not "
                    f"have: want {' or '.join(BY_CLASS)}, or monitor pq, dice or loss"
                )
        return self

    @property
    def steps(self) -> int:
        """Steps over all phases, if none ends earlier."""
        steps = 0
        for phase in self.phases:
            own = phase.until.steps
            steps += own if phase.until.total is None else max(0, min(own, phase.until.total - steps))
        return steps

    @property
    def digest(self) -> str:
        """sha256 of all that decides the training, which is not its name; a run may only be resumed with the same."""
        return hashlib.sha256(self.model_dump_json(exclude={"name", "description"}).encode()).hexdigest()


Budget = Literal["full", "small"]
SMALL = "small"
VARIANTS = "variants"


def load_recipe(path: Path | str, budget: Budget = "full", variant: str | None = None) -> Recipe:
    """Read and check a recipe; `budget` "small" applies the changes that stand under its key `small`.

    `variant` is one of those that stand under its key `variants`, each the changes to the rest; a recipe that has
    some is none by itself. Raises HemalumError naming the field, and the nearest known key for an unknown one; both
    forms of the recipe are checked.
    """
    path = Path(path)
    content, variants = _read(path)
    name = content.get("name", path.stem)
    if variant is None and variants:
        raise HemalumError(f"{path} has variants, choose one: {', '.join(f'{path.stem}:{one}' for one in variants)}")
    if variant is not None:
        if variant not in variants:
            raise HemalumError(f"{path} has no variant '{variant}'{nearest(variant, variants)}")
        content = merged(content, variants[variant], f"{path}: '{VARIANTS}.{variant}'")
        content = content | {"name": f"{name}.{variant}"}
    changes = content.pop(SMALL, None)
    full = _validated(path, content, variant)
    if changes is None:
        if budget == SMALL:
            raise HemalumError(f"{path} has no small form: give it a key 'small' with what differs")
        return full
    if not isinstance(changes, dict):
        raise HemalumError(f"{path}: '{SMALL}' must be a mapping of the keys that differ")
    small = _validated(path, merged(content, changes, f"{path}: '{SMALL}'") | {"budget": SMALL}, variant, SMALL)
    return small if budget == SMALL else full


def recipe_variants(path: Path | str) -> list[str]:
    """The names of a recipe's variants, in their order; none for most. Raises HemalumError when unreadable."""
    return list(_read(Path(path))[1])


def _read(path: Path) -> tuple[dict[str, Any], dict[str, dict[str, Any]]]:
    """A recipe's keys, and the changes of each variant."""
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise HemalumError(f"no such recipe: {path}") from None
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise HemalumError(f"{path} is not readable YAML: {' '.join(str(error).split())}") from error
    if not isinstance(content, dict):
        raise HemalumError(f"{path} is not a recipe: it must be a mapping of keys")
    variants = content.pop(VARIANTS, None) or {}
    if not isinstance(variants, dict) or not all(isinstance(changes, dict) for changes in variants.values()):
        raise HemalumError(f"{path}: '{VARIANTS}' must be a mapping of names to the keys that differ")
    return content, {str(name): changes for name, changes in variants.items()}


def _validated(path: Path, content: dict[str, Any], variant: str | None, form: str = "") -> Recipe:
    try:
        return Recipe.model_validate(content)
    except ValidationError as error:
        where = ", ".join([*([f"variant {variant}"] if variant else []), *([f"its {form} form"] if form else [])])
        raise HemalumError(f"{path}: {_explain(error)}{f' (in {where})' if where else ''}") from error


def merged(content: Mapping[str, Any], changes: Mapping[str, Any], where: str) -> dict[str, Any]:
    """`content` with `changes`: mappings key by key, lists of named things (phases) by name; all else is replaced.

    A mapping that is given another `name` (of a network, an optimiser) is another thing, and replaced as a whole.
    Raises HemalumError for a change to a thing of a list that is not there.
    """
    result: dict[str, Any] = dict(content)
    for key, change in changes.items():
        old = result.get(key)
        if isinstance(old, dict) and isinstance(change, dict):
            another = "name" in change and change["name"] != old.get("name", change["name"])
            result[key] = change if another else merged(old, change, where)
        elif isinstance(old, list) and isinstance(change, dict):
            names = [item.get("name") for item in old]
            for name in change:
                if name not in names:
                    raise HemalumError(f"{where} changes {key}, '{name}'{nearest(name, map(str, names))}")
            result[key] = [merged(item, change.get(item["name"], {}), where) for item in old]
        else:
            result[key] = change
    return result


def _plain(value: Any) -> Any:
    """Settings as the mappings that a recipe would write."""
    if isinstance(value, BaseModel):
        return value.model_dump(mode="json")
    if isinstance(value, dict):
        return {key: _plain(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(part) for part in value]
    return value


def _explain(error: ValidationError) -> str:
    first = error.errors()[0]
    where = ".".join(str(part) for part in first["loc"])
    if first["type"] == "extra_forbidden":
        return f"unknown key '{where}'{nearest(str(first['loc'][-1]), _keys(Recipe))}"
    said = str(first["msg"]).removeprefix("Value error, ")
    return f"'{where}': {said}" if where else said


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
