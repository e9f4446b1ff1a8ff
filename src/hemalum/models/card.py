"""The card: everything that inference and a reader of the model need to know, inside the model file."""

from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Literal, Self

from pydantic import Field, ValidationInfo, field_validator, model_validator

from hemalum.data.stain.statistics import StainTarget
from hemalum.models.license import UNSTATED, exceeds_license, license_of_data
from hemalum.models.refinement import RefinedFrom
from hemalum.models.seen_images import PACKED, join_packed
from hemalum.nuclei.settings import SeparationSettings
from hemalum.settings import Strict, require_finite

FORMAT: Literal[2] = 2  # 1: keys before version 0.2
Channels = Literal["RGB", "gray", "hematoxylin"]
InputRange = Literal["standardized", "[0, 1]"]
RANGES: dict[InputRange, tuple[float, float]] = {"standardized": (0.5, 0.25), "[0, 1]": (0.0, 1.0)}  # mean, std
# in the place of SAM's embedding, to tell what it is good for: that of another image in training and validation, all
# zeros, or that of the same encoder with random weights
Mpp = Annotated[float, Field(gt=0.01, lt=100, description="µm per pixel")]
Side = Annotated[int, Field(ge=1, le=8192, description="px")]  # of windows and tiles: what a machine can hold
# no option of a registered network comes near: a damaged file shall not ask for all memory
LARGEST_OPTION, LONGEST_OPTION = 16_384, 256
Control = Literal["shuffled", "zeroed", "random"]


class NetworkSpec(Strict):
    """A registered network and its options."""

    name: str
    options: dict[str, Any] = Field(default_factory=dict)

    @property
    def text(self) -> str:
        """Name and options in words."""
        return in_words({"name": self.name, "options": self.options})

    @field_validator("options")
    @classmethod
    def _finite(cls, options: dict[str, Any]) -> dict[str, Any]:
        for name, value in options.items():
            try:
                require_finite(value)
                _require_possible(value)
            except ValueError as error:
                raise ValueError(f"'{name}': {error}") from error
        return options


def in_words(value: Any) -> str:
    """Settings as people read them: `widths 8, 16; base unet (widths 64, 128)`."""
    if isinstance(value, Mapping):
        if "name" in value:
            rest = {key: part for key, part in value.items() if key != "name"}
            options = rest.pop("options", None) or {}
            inside = in_words({**options, **rest})
            return f"{value['name']} ({inside})" if inside else str(value["name"])
        return "; ".join(f"{key} {in_words(part)}" for key, part in value.items())
    if isinstance(value, list | tuple):
        return ", ".join(in_words(part) for part in value) or "none"
    if value is None or isinstance(value, bool):
        return {None: "none", True: "on", False: "off"}[value]
    return f"{value:g}" if isinstance(value, float) else str(value)


def _require_possible(value: Any) -> None:
    """Raise ValueError for numbers and lists that no network takes."""
    for part in _parts(value):
        if isinstance(part, int | float) and abs(part) > LARGEST_OPTION:
            raise ValueError(f"{part:g} is too large; want at most {LARGEST_OPTION:,}")
        if isinstance(part, list | tuple) and len(part) > LONGEST_OPTION:
            raise ValueError(f"a list of {len(part):,} is too long; want at most {LONGEST_OPTION}")


def _parts(value: Any) -> Iterator[Any]:
    yield value
    for part in value.values() if isinstance(value, Mapping) else value if isinstance(value, list | tuple) else ():
        yield from _parts(part)


class TrainingSet(Strict):
    """One dataset that the weights have seen."""

    name: str
    license: str
    citation: str = ""
    split_hash: str
    samples: int = Field(description="images that were learned from with their labels")
    unlabeled: int = Field(0, ge=0, description="images whose labels were not looked at")
    images: str | None = Field(
        None, pattern=PACKED, description="what was learned from (`seen_images.pack_images`); None: not recorded"
    )
    validated: str | None = Field(
        None, pattern=PACKED, description="what the weights were chosen by, in the same form"
    )

    def joined(self, other: "TrainingSet") -> "TrainingSet":
        """This set with the images that another training on it has seen besides; not recorded where one is not."""
        packed = {
            name: None if None in (mine, more) else join_packed(str(mine), str(more))
            for name, mine, more in (
                ("images", self.images, other.images), ("validated", self.validated, other.validated)
            )
        }  # fmt: skip
        return self.model_copy(update=packed)


class UnlabeledSet(Strict):
    """A user's own images that the weights have seen without labels; squares of slides count each."""

    name: str
    images: int = Field(ge=1)
    sha256: str = Field(description="over what identifies their pixels")
    license: str = ""


class Pretrained(Strict):
    """Weights of elsewhere that a network's encoder started from."""

    source: str = Field(description="as the recipe names it: a name on the Hugging Face hub, or a folder")
    sha256: str = Field(description="over the weights")


class Training(Strict):
    """How the weights came to be."""

    recipe: str
    recipe_hash: str
    command: str
    steps: int
    seed: int
    date: str
    phase: str | None = Field(None, description="of several phases, the one whose best weights these are")
    data: list[TrainingSet] = Field(default_factory=list)
    pretrained: Pretrained | None = Field(None, description="what its encoder started from; None: drawn at random")
    unlabeled: list[UnlabeledSet] = Field(default_factory=list)
    settings: dict[str, Any] | None = Field(None, description="the whole recipe, as it was trained")
    initial: "Training | None" = Field(None, description="how the weights that it started from came to be")

    @property
    def earlier(self) -> "list[Training]":
        """The trainings whose weights this one started from, the last first."""
        return [] if self.initial is None else [self.initial, *self.initial.earlier]

    @property
    def seen(self) -> list[TrainingSet]:
        """Every set that the weights have seen, in this training and the earlier ones."""
        datasets = [dataset for training in (self, *self.earlier) for dataset in training.data]
        return [dataset for index, dataset in enumerate(datasets) if dataset not in datasets[:index]]

    @property
    def seen_unlabeled(self) -> list[UnlabeledSet]:
        """Every set of a user's own images without labels, in this training and the earlier ones."""
        sets = [one for training in (self, *self.earlier) for one in training.unlabeled]
        return [one for index, one in enumerate(sets) if one not in sets[:index]]

    @property
    def license_of_data(self) -> str:
        """What the licenses of all that the weights have seen allow for them."""
        sets = [(one.name, one.license) for one in self.seen]
        return license_of_data(sets + [(one.name, one.license) for one in self.seen_unlabeled])


class SamEncoding(Strict):
    """The frozen SAM encoder whose embedding of its input a network is given."""

    encoder: str = Field(description="name on the Hugging Face hub, or folder")
    digest: str = Field(description="of its configuration and weights: another one under this name is refused")
    field: Side = Field(description="side of what is embedded at once, px at the model's mpp: the window")
    control: Control | None = Field(None, description="what it was trained with in place of SAM's embedding")


class Int8Set(Strict):
    """One dataset of the int8 form: windows of its training images, PQ on its validation images.

    PQ is pooled over the nuclei of all images: the mean over a handful of images moves by more than what int8 costs
    when one nucleus crosses an IoU of .5.
    """

    name: str
    split_hash: str
    windows: int = Field(ge=1, description="of training images, that the ranges were measured on")
    images: int = Field(ge=1, description="of the validation part")
    pq: float = Field(ge=0, le=1, description="pooled, without int8")
    pq_int8: float = Field(ge=0, le=1, description="pooled, in int8")
    mpq: float | None = Field(None, ge=0, le=1, description="mPQ+ of the classes without int8, where both have them")
    mpq_int8: float | None = Field(None, ge=0, le=1, description="mPQ+ in int8")

    @property
    def loss(self) -> float:
        """PQ that int8 loses, or mPQ+ where that is more."""
        lost = self.pq - self.pq_int8
        if self.mpq is not None and self.mpq_int8 is not None:
            lost = max(lost, self.mpq - self.mpq_int8)
        return round(lost, 4)


class Int8(Strict):
    """What the int8 form of the network, which the file holds as well, costs."""

    made_by: str = Field(description="programs and versions")
    precision: str = Field(description="what `pq` of the sets is computed in: f32 or bf16")
    sets: list[Int8Set] = Field(min_length=1)

    @property
    def cost(self) -> float:
        """What is lost on the dataset where most is; negative where int8 is better on each."""
        return max(one.loss for one in self.sets)


class Tiling(Strict):
    """How an image is cut into tiles for the network, chosen by measurement (benchmarks/tile_halo.py).

    It decides nuclei, so it belongs to the model and never to the machine. A model with `window` has tiles of that.
    """

    window: int = Field(256, ge=32, le=8192, description="side of a tile, px; larger where four halos are")
    halo: int = Field(32, ge=0, le=1024, description="px at the border of a tile, at most, that neighbors answer for")


class RecallThreshold(Strict):
    """A threshold that keeps a recall of nucleus pixels, and what is known of it.

    `recall` to `nine_in_ten` are of groups of images, each at the threshold that the others give.
    """

    organ: str | None = Field(None, description="None: for images of any organ")
    threshold: float = Field(gt=0, lt=1, description="on the probability of nucleus")
    groups: int = Field(ge=1, description="of images, that it was set on: patients, or what the split keeps together")
    recall: float | None = Field(None, ge=0, le=1, description="mean over the groups; None: too few to leave one out")
    low: float | None = Field(None, ge=0, le=1, description="lower end of the mean's 95 % interval, by bootstrap")
    high: float | None = Field(None, ge=0, le=1, description="upper end of it")
    nine_in_ten: float | None = Field(
        None, ge=0, le=1, description="recall that a new group reaches nine times in ten; None: too few groups"
    )

    @property
    def known(self) -> str:
        """What is known of it, in words."""
        groups = "1 group" if self.groups == 1 else f"{self.groups} groups"
        if self.recall is None:
            return f"{groups}, too few to say what a group left out keeps"
        tail = "" if self.nine_in_ten is None else f", nine in ten above {self.nine_in_ten:.3f}"
        return f"{groups}: recall {self.recall:.3f}, 95 % interval {self.low:.3f} to {self.high:.3f}{tail}"


class RecallCalibration(Strict):
    """The thresholds for one target recall (`hemalum calibrate`): in expectation, a new group of images keeps it.

    The first one is for all images, the others for one organ each.
    """

    target: float = Field(gt=0, lt=1)
    data: str = Field(description="name of the dataset that they were set on")
    split: str = Field(description="its part")
    split_hash: str
    thresholds: list[RecallThreshold] = Field(min_length=1)
    too_few: list[str] = Field(default_factory=list, description="organs without a threshold of their own")
    precision: float = Field(ge=0, le=1, description="of pixels, pooled, with the threshold for all images")
    precision_before: float = Field(ge=0, le=1, description="with the threshold of the separation")
    nuclei: float = Field(ge=0, le=1, description="true nuclei matched at IoU above 0.5, with the threshold")
    nuclei_before: float = Field(ge=0, le=1, description="with the threshold of the separation")

    def of(self, organ: str | None) -> RecallThreshold:
        """The threshold for images of an organ: its own, else that for all."""
        by_organ = {one.organ: one for one in self.thresholds}
        return by_organ.get(organ, self.thresholds[0])


class Calibration(Strict):
    """The temperature at which the probabilities of a model hold (`hemalum calibrate`), and how well they did before.

    Maps, thresholds and tables are those of the network as it is: see docs/concepts/uncertainty.md for what uses it.
    """

    temperature: float = Field(ge=0.05, le=20, description="what the log odds of a probability are divided by")
    data: str = Field(description="name of the dataset that it was fitted on")
    split: str = Field(description="its part")
    split_hash: str
    images: int = Field(ge=1)
    ece_before: float = Field(ge=0, le=1, description="expected calibration error of the pixels, 15 equal bins")
    ece_after: float = Field(ge=0, le=1, description="at the temperature, on the same pixels")
    nll_before: float = Field(ge=0, le=100, description="mean negative log likelihood of the pixels, nats")
    nll_after: float = Field(ge=0, le=100, description="at the temperature, which makes it least")


class Card(Strict):
    """What a model file says about itself (ARCHITECTURE: "a model file explains itself")."""

    format: Literal[2] = FORMAT
    name: str
    network: NetworkSpec
    representation: str = Field(description="name in hemalum.targets.representations.REPRESENTATIONS")
    mpp: Mpp = Field(description="scale of the network's input, µm per pixel")
    output_upsampling: int = Field(1, ge=1, le=4, description="maps are enlarged by this factor before separation")
    channels: Channels = "RGB"
    mean: tuple[float, float, float] = (0.5, 0.5, 0.5)
    std: tuple[float, float, float] = (0.25, 0.25, 0.25)
    stain: StainTarget | None = Field(None, description="colors that every image is brought to before the network")
    native_stains: list[Literal["hdab", "fluorescence"]] = Field(
        default_factory=list,
        description="stains that it was trained on and sees as they are; others are shown as H&E",
    )
    halo: int = Field(ge=0, le=8192, description="receptive field radius in input px, rounded up to the stride")
    stride: int = Field(ge=1, le=1024, description="input height and width must be multiples of this")
    window: Side | None = Field(
        None, description="side of every input in px, where a pixel depends on the whole input; None: any size"
    )
    tiling: Tiling = Tiling()
    sam: SamEncoding | None = None
    classes: list[str] = Field(
        default_factory=lambda: ["nucleus"],
        max_length=255,
        description="in the order of the maps, where these are by class",
    )
    organs: list[str] = Field(default_factory=list, description="organs that the network tells apart, by its index")
    organ: str | None = Field(None, description="the organ that images are from; None: the network's rule for that")
    separation: SeparationSettings = SeparationSettings()
    recall: list[RecallCalibration] = Field(
        default_factory=list, description="thresholds for a target recall that may be asked for"
    )
    recall_target: float | None = Field(None, description="the one that the separation's threshold was set by")
    calibration: Calibration | None = Field(
        None, description="of the probability of nucleus, by a temperature; None: nobody has looked"
    )
    nucleus_diameter_um: float = Field(
        7.0, gt=0.1, lt=10_000, description="median diameter that --mpp auto scales to"
    )
    license: str = Field(UNSTATED, description="as its training states it, else what its data allow (`license.py`)")
    use: str = Field("", description="what the model is for, and what it is not for")
    training: Training | None = None
    refinement: RefinedFrom | None = Field(
        None, description="of a model that was refined on a reviewer's corrections (`hemalum refine --project`)"
    )
    int8: Int8 | None = Field(None, description="of the int8 form that the file holds; None: it holds none")
    metrics: dict[str, dict[str, float]] = Field(default_factory=dict, description="held-out set → metric → value")
    code_version: str

    @field_validator("mean", "std")
    @classmethod
    def _check_range(cls, values: tuple[float, ...], info: ValidationInfo) -> tuple[float, ...]:
        least = 1e-4 if info.field_name == "std" else -1e4
        if not all(least <= value <= 1e4 for value in values):
            raise ValueError(
                f"want numbers from {least:g} to 10000, not {', '.join(f'{value:g}' for value in values)}"
            )
        return values

    @model_validator(mode="after")
    def _check_consistent(self) -> Self:
        if self.window is not None and self.window % self.stride:
            raise ValueError(f"window {self.window} is not a multiple of stride {self.stride}")
        if self.organ is not None and self.organ not in self.organs:
            raise ValueError(f"organ '{self.organ}' is not among its organs")
        if self.recall_target is not None and self.recall_target not in [one.target for one in self.recall]:
            raise ValueError(f"it has no threshold for its recall_target {self.recall_target:g}")
        return self

    @property
    def recall_note(self) -> str | None:
        """What is known of the threshold that keeps `recall_target`; None where none was asked for."""
        for calibration in self.recall:
            if calibration.target == self.recall_target:
                one = calibration.of(self.organ)
                whose = one.organ or "all images"
                return (
                    f"{one.threshold:g} for a recall of {self.recall_target:g}, set on {calibration.data} "
                    f"({whose}, {one.known})"
                )
        return None

    @property
    def license_text(self) -> str:
        """The license, with what the data allow where it leaves out what these ask for."""
        allowed = UNSTATED if self.training is None else self.training.license_of_data
        return (
            f"{self.license} as stated; its data: {allowed}"
            if exceeds_license(self.license, allowed)
            else self.license
        )

    @property
    def input_range(self) -> InputRange | None:
        """The range of what the network sees, by the name that a recipe has for it; None for one of its own."""
        for name, (mean, std) in RANGES.items():
            if self.mean == (mean,) * 3 and self.std == (std,) * 3:
                return name
        return None
