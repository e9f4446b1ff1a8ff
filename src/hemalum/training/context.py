"""What the parts of one training share."""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from lightning_fabric import Fabric

from hemalum.data.stain.normalization import StainNormalizer
from hemalum.models.card import NetworkSpec, Pretrained, SamEncoding
from hemalum.targets.representations import Representation, find_representation
from hemalum.training.data_spec import DataSpec
from hemalum.training.recipe import Recipe

ProgressCallback = Callable[[int, int, dict[str, float]], None]


@dataclass(frozen=True, slots=True, eq=False)
class TrainContext:
    """All that is decided before the first step of a run in `folder`.

    `network` is what the card says of the network, `stride` its stride, `window` the side of every input where it
    takes no other, `halo` how far around a tile's core it looks (all px), `sam` the encoder whose embedding it takes,
    `pretrained` the weights that it started from.
    `stain` brings every image to the recipe's colors. `workers` processes make batches. With `compile` PyTorch
    compiles the network's part of a step. After each step the first process calls
    `on_progress(step, steps in all, figures)`; the figures are those just logged, or none.
    """

    recipe: Recipe
    fabric: Fabric
    folder: Path
    data_spec: DataSpec = field(default_factory=DataSpec)
    network: NetworkSpec | None = None
    stride: int = 1
    window: int | None = None
    halo: int = 0
    sam: SamEncoding | None = None
    pretrained: Pretrained | None = None
    stain: StainNormalizer | None = None
    workers: int = 1
    compile: bool = False
    on_progress: ProgressCallback | None = None

    @property
    def share(self) -> tuple[int, int]:
        """The part of each batch, and of the validation images, that this process has: (which, of how many)."""
        return self.fabric.global_rank, self.fabric.world_size

    @property
    def representation(self) -> Representation:
        """The maps that are trained."""
        return find_representation(self.recipe.representation, self.data_spec.classes)

    @property
    def output_representation(self) -> Representation:
        """The maps that the model file keeps."""
        name = self.recipe.output_representation or self.recipe.representation
        return find_representation(name, self.data_spec.classes)
