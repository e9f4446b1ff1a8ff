"""The recipe: everything that decides a training run, as validated YAML."""

import hashlib
import inspect
import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, NamedTuple, Self

import yaml
from pydantic import Field, ValidationError, field_validator, model_validator

from hemalum.data.augmentation.settings import AugmentSettings
from hemalum.data.labeled_images import LabeledImages
from hemalum.data.sampling import CategoryAdaptive, FixedShares
from hemalum.data.stain.normalization import StainNormalization
from hemalum.errors import HemalumError, nearest
from hemalum.losses import LOSSES
from hemalum.models.card import RANGES, Channels, Control, InputRange, Mpp, NetworkSpec
from hemalum.models.license import check_license
from hemalum.models.model import load_model
from hemalum.networks import NETWORKS
from hemalum.nuclei.settings import SeparationSettings
from hemalum.settings import RENAMED, Seed, Strict, as_plain, explain, merge
from hemalum.systems import build_system
from hemalum.systems.phases import Phase, with_kept_optimizers
from hemalum.targets.representations import BY_CLASS
from hemalum.training.unlabeled_images import UnlabeledImages


class Source(Strict):
    """One dataset's part in the stream; `balance` names the column whose values are drawn equally often."""

    weight: float = Field(1.0, gt=0, description="share of the stream, relative to the other sets")
    balance: Literal["organ", "stain", "group"] | None = None


class Sam(Strict):
    """A frozen SAM image encoder whose embedding the network is given."""

    encoder: str = Field(
        description="name on the Hugging Face hub such as facebook/sam-vit-base, a folder, or a .pth of SAM's authors"
    )
    field: int | None = Field(
        None,
        ge=16,
        le=8192,
        description="side of what is embedded at once, px at `mpp`, and of the model's windows; None: tile",
    )
    control: Control | None = Field(
        None,
        description="what to give in its place, to tell what it is good for: another image's, zeros, random weights'",
    )


class InitialWeights(Strict):
    """A model file whose weights a training starts with: all of its network's, or those of one part of it."""

    model: str = Field(description="model file, or name of a shipped model")
    digest: str = Field("", description="of that model, noted when the recipe is read: another one is refused")
    part: str = Field("", description="part of the network that gets them, such as `base`; none: all of it")

    @model_validator(mode="before")
    @classmethod
    def _note_digest(cls, content: Any) -> Any:
        if not isinstance(content, Mapping) or content.get("digest") or not isinstance(content.get("model"), str):
            return content
        try:
            return {**content, "digest": load_model(content["model"]).digest}
        except HemalumError as error:  # pydantic collects ValueErrors and says where they stand
            raise ValueError(str(error)) from error


class Recipe(Strict):
    """A training run. The stream is a pure function of `seed`, data and step.

    `system` stands for the keys that a published system decides; the recipe's own go over them.
    """

    name: str
    description: str = ""
    license: str | None = Field(
        None, description="of the model, in its card, as --license; none: what the licenses of its data allow"
    )
    budget: Literal["full", "small"] = Field("full", description="set by the choice of the budget, not by hand")
    seed: Seed = 0
    system: dict[str, Any] | None = Field(None, description="name in hemalum.systems.SYSTEMS, and its options")
    network: NetworkSpec
    input: Channels = Field("RGB", description="what the network sees: colors, or one channel made of them")
    input_range: InputRange = Field(
        "standardized", description="of its channels: standardized, (x - 0.5) / 0.25, or [0, 1] as they are"
    )
    organs: list[str] | Literal["auto"] = Field(
        "auto", description="organs that the network tells apart; auto: those of the training images"
    )
    classes: Literal["dataset", "nucleus"] = Field(
        "dataset", description="for representation semantic: the dataset's classes, or all nuclei as one"
    )
    representation: str = "distance"
    output_representation: str | None = Field(
        None, description="representation that the model file keeps, where the network was trained on more maps"
    )
    mpp: Mpp = Field(description="scale of the network's input, µm per pixel")
    output_upsampling: int = Field(1, ge=1, le=4)
    tile: int = Field(256, ge=16, le=8192, description="side of a training crop, px at `mpp`")
    batch: int = Field(16, ge=1)
    target_supersampling: int = Field(
        1, ge=1, le=4, description="targets are made on a grid this much finer and averaged: shares of a pixel"
    )
    initial: InitialWeights | None = Field(
        None, description="what the training starts with, as --initial; a system names the base here that it is given"
    )
    data: dict[str, Source] = Field({}, description="datasets by name; none: whatever is given, in equal shares")
    ambiguous: Literal["ignore", "count"] = Field(
        "ignore", description="areas where the annotators could not tell, in every loss and in validation"
    )
    beyond: Literal["count", "ignore"] = Field(
        "count", description="pixels of a training crop that lie beyond its image, where it is mirrored"
    )
    labeled: LabeledImages | None = Field(
        None,
        description="the training images that keep their labels: 1/8, 40, a list's file, or a mapping; none: all",
    )
    unlabeled: list[UnlabeledImages] = Field(
        [], description="images beside `data` to learn from without labels: paths, or mappings of path, mpp and tiles"
    )
    sampling: CategoryAdaptive | FixedShares | None = Field(
        None, description="how often each image of a set is drawn, in the place of its `balance`; none: alike"
    )
    stain_normalization: StainNormalization | None = Field(
        None, description="colors that every image is brought to, in training and wherever the model is used"
    )
    sam: Sam | None = Field(None, description="for a network that takes an embedding; made once and kept")
    augment: AugmentSettings = AugmentSettings()
    phases: list[Phase] = Field(min_length=1)
    separation: SeparationSettings = SeparationSettings()
    ema: float = Field(0.0, ge=0, lt=1, description="decay of the averaged weights; 0 keeps none")
    clip: float | None = Field(None, gt=0, description="largest gradient norm")
    precision: Literal["32-true", "bf16-mixed", "16-mixed"] = "32-true"
    validate_every: int = Field(500, ge=1, description="steps")
    validation_images: int | None = Field(
        None,
        ge=1,
        description="at most this many, spread evenly over the sets; none: all of them where a phase may end early "
        "by what they say, else 60",
    )
    checkpoint_every: int = Field(100, ge=1, description="steps")

    @field_validator("representation", "output_representation")
    @classmethod
    def _name_renamed(cls, name: str | None) -> str | None:
        if name in RENAMED:
            raise ValueError(f"'{name}' is called '{RENAMED[name]}' since version 0.2")
        return name

    @field_validator("license")
    @classmethod
    def _check_license(cls, text: str | None) -> str | None:
        try:
            return None if text is None else check_license(text)
        except HemalumError as error:
            raise ValueError(str(error)) from error

    @field_validator("input_range", mode="before")
    @classmethod
    def _name_range(cls, value: Any) -> Any:
        """A range is written as a list or as its name."""
        name = "[0, 1]" if value in ([0, 1], (0, 1)) else value
        if str(name) not in RANGES:
            raise ValueError(f"want [0, 1] or standardized, not {value!r}{nearest(str(value), RANGES)}")
        return name

    @field_validator("unlabeled", mode="before")
    @classmethod
    def _list_unlabeled(cls, content: Any) -> Any:
        return [] if content is None else [content] if isinstance(content, str | Path | Mapping) else content

    @field_validator("phases")
    @classmethod
    def _keep_optimizers(cls, phases: list[Phase]) -> list[Phase]:
        return with_kept_optimizers(phases)

    @model_validator(mode="before")
    @classmethod
    def _apply_system(cls, content: Any) -> Any:
        """Put in what the system decides, under what the recipe says itself."""
        if not isinstance(content, Mapping) or not content.get("system"):
            return content
        try:
            system = build_system(content["system"])
            decided = as_plain(system.to_recipe())
            changes = {key: value for key, value in content.items() if key != "system"}
            if LabeledImages.says_which(changes.get("labeled", {})):  # one way to say it goes over another
                decided.pop("labeled", None)
            return merge(decided, changes, "recipe") | {"system": system.model_dump(mode="json")}
        except HemalumError as error:  # pydantic collects ValueErrors and says where they stand
            raise ValueError(str(error)) from error

    @model_validator(mode="after")
    def _check_monitors(self) -> Self:
        """A score that nothing has would end the training at its first validation."""
        for phase in self.phases:
            if phase.until.monitor == "miou" and self.representation not in BY_CLASS:
                raise ValueError(
                    f"phase '{phase.name}' monitors miou, which representation '{self.representation}' does not "
                    f"have: want {' or '.join(BY_CLASS)}, or monitor pq, dice or loss"
                )
        return self

    @property
    def most_validation_images(self) -> int | None:
        """How many images are validated on at most; None for all of them."""
        ends_early = any(phase.until.patience or phase.until.score_plateau for phase in self.phases)
        return self.validation_images or (None if ends_early else 60)

    @property
    def field(self) -> int:
        """Side of what a crop is cut from at most, px at the recipe's scale: a tile that is made smaller."""
        return math.ceil(self.tile * self.augment.scale)

    @property
    def steps(self) -> int:
        """Steps over all phases, if none ends earlier."""
        end = 0
        for phase in self.phases:
            end = phase.until.last_step(end)
        return end

    @property
    def digest(self) -> str:
        """sha256 of all that decides the training, which neither name nor license do; it is resumed with the same.

        Nor is it where a model file lies that it starts with, whose content counts.
        """
        named: Any = {
            "name": True,
            "description": True,
            "license": True,
            "initial": {"model"},
            "system": {"base": {"model"}},
        }
        return hashlib.sha256(self.model_dump_json(exclude=named).encode()).hexdigest()


Budget = Literal["full", "small"]
SMALL = "small"
VARIANTS = "variants"


def load_recipe(
    path: Path | str, budget: Budget = "full", variant: str | None = None, changes: Mapping[str, Any] | None = None
) -> Recipe:
    """Read and check a recipe; `budget` "small" applies the changes that stand under its key `small`.

    `variant` is one of those that stand under its key `variants`, each the changes to the rest; a recipe that has
    some is none by itself. `changes` are the caller's, to either form. Raises HemalumError naming the field, and the
    nearest known key for an unknown one; both forms of the recipe are checked.
    """
    path = Path(path)
    content, variants = _read(path)
    name = content.get("name", path.stem)
    if variant is None and variants:
        raise HemalumError(f"{path} has variants, choose one: {', '.join(f'{path.stem}:{one}' for one in variants)}")
    if variant is not None:
        if variant not in variants:
            raise HemalumError(f"{path} has no variant '{variant}'{nearest(variant, variants)}")
        content = merge(content, variants[variant], f"{path}: '{VARIANTS}.{variant}'")
        content = content | {"name": f"{name}.{variant}"}
    small_changes = content.pop(SMALL, None)
    content = merge(content, changes or {}, str(path))
    full = _validate(path, content, variant)
    if small_changes is None:
        if budget == SMALL:
            raise HemalumError(f"{path} has no small form: give it a key 'small' with what differs")
        return full
    if not isinstance(small_changes, dict):
        raise HemalumError(f"{path}: '{SMALL}' must be a mapping of the keys that differ")
    content = merge(content, small_changes, f"{path}: '{SMALL}'") | {"budget": SMALL}
    small = _validate(path, content, variant, SMALL)
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


def _validate(path: Path, content: dict[str, Any], variant: str | None, form: str = "") -> Recipe:
    try:
        return Recipe.model_validate(content)
    except ValidationError as error:
        where = ", ".join([*([f"variant {variant}"] if variant else []), *([f"its {form} form"] if form else [])])
        raise HemalumError(
            f"{path}: {explain(error, Recipe, _options_elsewhere())}{f' (in {where})' if where else ''}"
        ) from error


def _options_elsewhere() -> dict[str, str]:
    """Where the options of networks and losses stand, by name, which a recipe's own fields do not show."""
    options = {
        name: f"network.options.{name}"
        for network in NETWORKS.values()
        for name in list(inspect.signature(network.__init__).parameters)[1:]
    }
    return options | {
        name: f"phases[0].loss.{name}" for loss in LOSSES.values() for name in loss.model_fields if name != "name"
    }


_SHIPPED = Path(__file__).resolve().parents[1] / "recipes"


def shipped_recipes() -> dict[str, Path]:
    """Name → file of every shipped recipe, sorted by name."""
    return {path.stem: path for path in sorted(_SHIPPED.glob("*.yaml"))}


class RecipeEntry(NamedTuple):
    """A shipped recipe in a list of them."""

    name: str
    variants: list[str]
    description: str


def describe_recipes() -> list[RecipeEntry]:
    """Every shipped recipe: its name, variants and description, sorted by name."""
    entries = []
    for name, path in shipped_recipes().items():
        keys, variants = _read(path)
        entries.append(RecipeEntry(name, list(variants), " ".join(str(keys.get("description", "")).split())))
    return entries


def find_recipe(recipe: Path | str) -> Path:
    """Give the file of a recipe: a path to one, or the name of a shipped one.

    Raises HemalumError for a name that is neither, with the nearest shipped name.
    """
    path = Path(recipe)
    if path.suffix in (".yaml", ".yml") or path.is_file():
        return path
    shipped = shipped_recipes()
    if str(recipe) not in shipped:
        raise HemalumError(f"no recipe file and no shipped recipe '{recipe}'{nearest(str(recipe), shipped)}")
    return shipped[str(recipe)]


def open_recipe(word: Path | str, budget: Budget = "full") -> Recipe:
    """Load the one recipe that `word` names: a file or a shipped name, `:VARIANT` after it where it has variants.

    Raises HemalumError as `find_recipe` and `load_recipe` do.
    """
    recipe, variant = _split_variant(word)
    return load_recipe(find_recipe(recipe), budget, variant)


def open_recipes(word: Path | str, budget: Budget = "full") -> dict[str, Recipe]:
    """Load what `word` names, by short name: all variants of a recipe that has some, or the one recipe.

    Raises HemalumError as `open_recipe` does.
    """
    recipe, variant = _split_variant(word)
    path = find_recipe(recipe)
    variants = recipe_variants(path) if variant is None else [variant]
    if variants:
        return {name: load_recipe(path, budget, name) for name in variants}
    loaded = load_recipe(path, budget)
    return {loaded.name: loaded}


def _split_variant(word: Path | str) -> tuple[str, str | None]:
    """RECIPE and VARIANT of `RECIPE:VARIANT`."""
    match = re.fullmatch(r"(.+):([\w.+-]+)", str(word))
    if match is None or Path(word).exists():
        return str(word), None
    return match[1], match[2]
