"""The card: everything that inference and a reader of the model need to know, inside the model file."""

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from hemalum.models.stain import StainTarget

FORMAT: Literal[1] = 1
Channels = Literal["RGB", "grey", "hematoxylin"]


class Strict(BaseModel):
    """Unknown keys are errors; values do not change after loading."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class NetworkSpec(Strict):
    """A registered network and its options."""

    name: str
    options: dict[str, Any] = Field(default_factory=dict)


class SeparationSettings(Strict):
    """How maps become nuclei. Lengths and areas are in pixels of the separation grid (mpp / enlarge)."""

    foreground: float = Field(0.5, gt=0, lt=1, description="a pixel with at least this probability is nucleus")
    marker: float = Field(0.5, gt=0, lt=1, description="threshold on the map that markers are cut from")
    min_depth: float = Field(
        0.1, gt=0, le=1, description="neighbouring maxima closer than this to their saddle are one nucleus"
    )
    min_relative_depth: float = Field(
        0.0, ge=0, lt=1, description="as min_depth, but as a share of the lower of the two maxima; 0: off"
    )
    smoothing: int = Field(0, ge=0, le=16, description="rounds of blur of the peaks, each reaching 1 px; 0: off")
    merge_depth: float = Field(
        0.0,
        ge=0,
        le=1,
        description="neighbours are one nucleus where relative depth + 2 x the solidity lost is less; 0: off",
    )
    min_marker_area: int = Field(3, ge=1, description="smaller markers join their neighbour (px)")
    min_area: int = Field(12, ge=1, description="smaller nuclei are dropped (px)")
    min_probability: float = Field(0.0, ge=0, lt=1, description="nuclei with a lower mean foreground are dropped")
    min_hematoxylin: float = Field(
        0.0, ge=0, lt=1, description="nuclei of an H&E image with less mean optical density of it are dropped; 0: off"
    )
    max_hole_area: int = Field(400, ge=0, description="enclosed background up to this area is filled (px)")
    straighten: int = Field(
        0, ge=0, le=16, description="borders of touching nuclei are smoothed within this radius (px); 0: off"
    )
    spur_width: int = Field(0, ge=0, le=8, description="spurs of an outline up to this width go (px); 0: off")


class TrainingSet(Strict):
    """One dataset that the weights have seen."""

    name: str
    licence: str
    citation: str = ""
    split_hash: str
    samples: int


class Training(Strict):
    """How the weights came to be."""

    recipe: str
    recipe_hash: str
    command: str
    steps: int
    seed: int
    date: str
    data: list[TrainingSet] = Field(default_factory=list)
    settings: dict[str, Any] | None = Field(None, description="the whole recipe, as it was trained")
    initial: "Training | None" = Field(None, description="how the weights that it started from came to be")

    @property
    def earlier(self) -> "list[Training]":
        """The trainings whose weights this one started from, the last first."""
        return [] if self.initial is None else [self.initial, *self.initial.earlier]

    @property
    def seen(self) -> list[TrainingSet]:
        """Every set that the weights have seen, in this training and the earlier ones."""
        every = [used for training in (self, *self.earlier) for used in training.data]
        return [used for place, used in enumerate(every) if used not in every[:place]]


class SamEncoding(Strict):
    """The frozen SAM encoder whose embedding of its input a network is given."""

    encoder: str = Field(description="name on the Hugging Face hub, or folder")
    digest: str = Field(description="of its configuration and weights: another one under this name is refused")
    field: int = Field(ge=1, description="side of what is embedded at once, px at the model's mpp: the window")


class Card(Strict):
    """What a model file says about itself (ARCHITECTURE: "a model file explains itself")."""

    format: Literal[1] = FORMAT
    name: str
    network: NetworkSpec
    representation: str = Field(description="name in hemalum.instances.representations.REPRESENTATIONS")
    mpp: float = Field(gt=0, description="scale of the network's input, µm per pixel")
    enlarge: int = Field(1, ge=1, le=4, description="maps are enlarged by this factor before separation")
    channels: Channels = "RGB"
    mean: tuple[float, float, float] = (0.5, 0.5, 0.5)
    std: tuple[float, float, float] = (0.25, 0.25, 0.25)
    stain: StainTarget | None = Field(None, description="colours that every image is brought to before the network")
    as_it_is: list[Literal["hdab", "fluorescence"]] = Field(
        default_factory=list,
        description="stains that it was trained on and sees as they are; others are shown as H&E",
    )
    halo: int = Field(ge=0, description="receptive field radius in input px, rounded up to the stride")
    stride: int = Field(ge=1, description="input height and width must be multiples of this")
    window: int | None = Field(
        None, ge=1, description="side of every input in px, where a pixel depends on the whole input; None: any size"
    )
    sam: SamEncoding | None = None
    classes: list[str] = Field(
        default_factory=lambda: ["nucleus"], description="in the order of the maps, where these are by class"
    )
    organs: list[str] = Field(default_factory=list, description="organs that the network tells apart, by its index")
    organ: str | None = Field(None, description="the organ that images are from; None: the network's rule for that")
    separation: SeparationSettings = SeparationSettings()
    nucleus_diameter_um: float = Field(7.0, gt=0, description="median diameter that --mpp auto scales to")
    licence: str = "Apache-2.0"
    use: str = Field("", description="what the model is for, and what it is not for")
    training: Training | None = None
    metrics: dict[str, dict[str, float]] = Field(default_factory=dict, description="held-out set → metric → value")
    code_version: str
