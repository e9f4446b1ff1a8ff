"""The training stream: batch number n is a pure function of (recipe, data, n)."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numba import njit
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader

from hemalum.data.augment import Prepared, augment
from hemalum.data.dataset import Dataset
from hemalum.data.nucleus_size import equivalent_diameters
from hemalum.data.sample import Sample
from hemalum.data.stain_normalisation import StainNormaliser, sample_image
from hemalum.errors import HemalumError
from hemalum.instances.extra_targets import EXTRA_TARGETS
from hemalum.instances.representations import Representation, find_representation
from hemalum.models.card import Channels
from hemalum.networks.input import to_input
from hemalum.training.recipe import Recipe

MEAN = (0.5, 0.5, 0.5)
STD = (0.25, 0.25, 0.25)
_AHEAD = 2  # batches made ahead of the step that uses them


@dataclass(frozen=True, slots=True)
class Facts:
    """What a network needs to know of the data: names of classes and organs in order, and what it is told.

    `classes` are by the dataset's own ids; with `one_class` all nuclei are of one.
    """

    classes: tuple[str, ...] = ()
    organs: tuple[str, ...] = ()
    conditions: tuple[str, ...] = ()
    one_class: bool = False

    def kinds(self, dataset: Dataset) -> NDArray[np.int32] | None:
        """The number among `classes`, from 1, of each of a dataset's class ids; 0 for what is not among them.

        None where there are no classes.
        """
        if not self.classes:
            return None
        if self.one_class:
            return np.ones(256, np.int32)
        table = np.zeros(256, np.int32)
        for id, name in (dataset.info.classes or {}).items():
            table[id] = self.classes.index(name) + 1 if name in self.classes else 0
        return table

    def organ(self, name: str | None) -> int:
        """The number of an organ, -1 for one that is not among them."""
        return self.organs.index(name) if name in self.organs else -1


@dataclass(frozen=True, slots=True, eq=False)
class Batch:
    """Normalised images (B, 3 or 1, H, W) and target maps (B, C, H, W), both float32.

    `conditions` are what the network is told besides, by name; `extra` are further target maps, each (B, 1, H, W).
    """

    images: Tensor
    targets: Tensor
    conditions: Mapping[str, Tensor] = field(default_factory=dict)
    extra: Mapping[str, Tensor] = field(default_factory=dict)


class Stream:
    """Augmented batches over several datasets, which come in the order of the recipe's, drawn by weight.

    `share` is the part of each batch that is made here, as (which, of how many equal ones). `stain` is what brings
    the images to the recipe's colours. `facts` are what the network needs to know of the data.
    """

    def __init__(
        self,
        recipe: Recipe,
        datasets: Sequence[Dataset],
        share: tuple[int, int] = (0, 1),
        stain: StainNormaliser | None = None,
        facts: Facts | None = None,
    ) -> None:
        self.recipe, self.share, self.facts = recipe, share, facts or Facts()
        self.representation = find_representation(recipe.representation, self.facts.classes)
        self.needs = sorted({name for phase in recipe.phases for name in phase.loss.needs})
        self.prepared = [
            prepare(s, recipe.mpp, stain, self.facts.kinds(dataset)) for dataset in datasets for s in dataset
        ]
        if not self.prepared:
            raise HemalumError("no training images: the datasets' train parts are empty")
        self.organs = np.array([self.facts.organ(row.organ) for dataset in datasets for row in dataset.rows])
        self.ids = [
            f"{name}/{row.id}" for name, dataset in zip(recipe.data, datasets, strict=True) for row in dataset.rows
        ]
        self.probability = _probabilities(recipe, datasets)
        self._epoch: tuple[int, NDArray[np.int64]] = (-1, np.empty(0, np.int64))

    def batches(self, start: int, stop: int) -> Iterator[Batch]:
        """Give batches start … stop - 1, made ahead of their use by a process of its own, on one core."""
        loader = DataLoader(
            _Numbered(self), batch_size=None, sampler=range(start, stop), num_workers=1, prefetch_factor=_AHEAD
        )
        for images, *rest in loader:
            # a tensor that changes process comes back in the usual memory order
            yield Batch(images.contiguous(memory_format=torch.channels_last), *rest)

    def nucleus_diameter_um(self) -> float:
        """Median equivalent diameter of the whole nuclei of all samples, µm. Raises HemalumError without any."""
        diameters = [
            equivalent_diameters(sample.labels) * self.recipe.mpp * sample.image.shape[0] / sample.labels.shape[0]
            for sample in self.prepared
        ]
        every = np.concatenate(diameters)
        if not len(every):
            raise HemalumError("no nuclei to train on: no nucleus of the train parts lies whole inside its image")
        return float(np.median(every))

    def _order(self, epoch: int) -> NDArray[np.int64]:
        """The samples of one epoch, drawn with replacement."""
        if self._epoch[0] != epoch:
            rng = np.random.default_rng([self.recipe.seed, epoch])
            self._epoch = (epoch, rng.choice(len(self.prepared), len(self.prepared), p=self.probability))
        return self._epoch[1]

    def _draws(self, number: int) -> list[tuple[int, int, int]]:
        """What the samples of batch `number` are: (epoch, place in the epoch, which prepared sample)."""
        size, epoch_length = self.recipe.batch, len(self.prepared)
        places = [divmod(position, epoch_length) for position in range(number * size, (number + 1) * size)]
        return [(epoch, place, int(self._order(epoch)[place])) for epoch, place in places]

    def names(self, number: int) -> list[str]:
        """The samples of batch `number`, all shares of it, as dataset/id, each once."""
        return list(dict.fromkeys(self.ids[index] for _, _, index in self._draws(number)))

    def batch(self, number: int) -> Batch:
        """Make batch `number`, or the share of it that is made here."""
        which, shares = self.share
        size = self.recipe.batch // shares
        draws = self._draws(number)[which * size : (which + 1) * size]
        samples = [self.prepared[index] for _, _, index in draws]
        rngs = [np.random.default_rng([self.recipe.seed, epoch, place]) for epoch, place, _ in draws]
        finer = self.recipe.finer
        images, labels = augment(samples, rngs, self.recipe.tile, self.recipe.augment, finer=finer)
        classes = [sample.classes for sample in samples]
        conditions = {}
        if "organ" in self.facts.conditions:
            conditions["organ"] = torch.from_numpy(self.organs[[index for _, _, index in draws]])
        return Batch(
            normalise(images, self.recipe.input),
            encode(labels, self.representation, finer, classes),
            conditions,
            encode_extra(labels, self.needs),
        )


class _Numbered(torch.utils.data.Dataset[tuple[Any, ...]]):
    """The stream as what DataLoader takes: item n is batch n."""

    def __init__(self, stream: Stream) -> None:
        self.stream = stream

    def __getitem__(self, number: int) -> tuple[Any, ...]:
        batch = self.stream.batch(number)
        return batch.images, batch.targets, batch.conditions, batch.extra


def _probabilities(recipe: Recipe, datasets: Sequence[Dataset]) -> NDArray[np.float64]:
    """How likely each sample is drawn: by its set's weight, and within the set by its `balance` column."""
    parts = []
    for source, dataset in zip(recipe.data.values(), datasets, strict=True):
        if not len(dataset):
            continue
        values = [getattr(row, source.balance) if source.balance else None for row in dataset.rows]
        counts = Counter(values)
        part = np.array([1 / counts[value] for value in values])
        parts.append(part / part.sum() * source.weight)
    probability: NDArray[np.float64] = np.concatenate(parts)
    probability /= probability.sum()
    return probability


def prepare(
    sample: Sample, mpp: float, stain: StainNormaliser | None = None, kinds: NDArray[np.int32] | None = None
) -> Prepared:
    """Bring a sample's image to `mpp`, and to the colours of `stain`; its labels keep their own resolution.

    `kinds` gives the number of each of the dataset's classes among those that are trained (see `Facts.kinds`).

    Raises HemalumError when the sample does not say its scale.
    """
    if sample.mpp is None:
        raise HemalumError(f"sample {sample.id} has no mpp: import its dataset with --mpp NUMBER or --mpp nuclei")
    height, width = sample.instances.shape
    factor = sample.mpp / mpp
    size = (max(1, round(width * factor)), max(1, round(height * factor)))
    resized = np.array(Image.fromarray(sample.image).resize(size, Image.Resampling.BILINEAR))
    # as in inference: measured on the image as it is, applied at the model's scale
    change = None if stain is None else stain.match(sample_image(sample.image), f"sample {sample.id}")
    classes = None
    if kinds is not None:
        ids = int(sample.instances.max()) + 1
        classes = np.full(ids, kinds[0]) if sample.classes is None else kinds[sample.classes]
        classes[0] = 0
    return Prepared(resized if change is None else change.apply(resized), sample.instances, classes)


def normalise(images_BCHW: Tensor, channels: Channels = "RGB") -> Tensor:
    """Images (B, 3, H, W) in [0, 1] as the network takes them, (B, 3 or 1, H, W), channels last."""
    images = to_input(images_BCHW, channels)
    count = images.shape[1]
    mean = torch.tensor(MEAN[:count]).view(1, count, 1, 1)
    std = torch.tensor(STD[:count]).view(1, count, 1, 1)
    return ((images - mean) / std).contiguous(memory_format=torch.channels_last)


def encode(
    labels_BHW: NDArray[np.int32],
    representation: Representation,
    finer: int = 1,
    classes: Sequence[NDArray[np.int32] | None] | None = None,
) -> Tensor:
    """Target maps (B, C, H/finer, W/finer) float32 of a batch of label maps, averaged over finer × finer pixels.

    `classes` has for each label map the class of each nucleus by its id, where the representation has classes.
    """
    batch, height, width = labels_BHW.shape
    targets = np.empty((batch, len(representation.channels), height // finer, width // finer), np.float32)
    for labels, out, own in zip(labels_BHW, targets, classes or [None] * batch, strict=True):
        _average(representation.encode(labels, own), finer, out)
    return torch.from_numpy(targets)


def encode_extra(labels_BHW: NDArray[np.int32], names: Sequence[str]) -> dict[str, Tensor]:
    """The further target maps (B, 1, H, W) float32 of a batch of label maps, by name."""
    return {
        name: torch.from_numpy(np.stack([EXTRA_TARGETS[name](labels) for labels in labels_BHW])[:, None])
        for name in names
    }


@njit(cache=True, nogil=True)
def _average(maps: Any, finer: int, out: Any) -> None:
    share = np.float32(1 / finer**2)
    for c in range(out.shape[0]):
        for i in range(out.shape[1]):
            row = out[c, i]
            row[:] = 0
            for v in range(i * finer, (i + 1) * finer):
                for u in range(finer):  # the innermost loop goes along the row: vector instructions
                    for j in range(row.shape[0]):
                        row[j] += maps[c, v, j * finer + u]
            row *= share
