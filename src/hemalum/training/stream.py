"""The training stream: batch number n is a pure function of (recipe, data, n)."""

import math
import os
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

import numpy as np
import torch
from numba import njit
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader

from hemalum.data.appearance import apply_appearance, normalize
from hemalum.data.augment import Prepared, crop_of, cut, inside_of
from hemalum.data.dataset import Dataset
from hemalum.data.fractions import present_classes
from hemalum.data.image_bank import ImageBank
from hemalum.data.nucleus_size import equivalent_diameters
from hemalum.data.sample import Sample
from hemalum.data.sampling import image_weights, strength
from hemalum.data.stain import measure_stains
from hemalum.data.stain_normalisation import StainNormaliser, sample_image
from hemalum.errors import HemalumError
from hemalum.instances.extra_targets import EXTRA_TARGETS
from hemalum.instances.representations import Representation, find_representation
from hemalum.models.card import Channels
from hemalum.networks.input import to_input
from hemalum.training.embeddings import Embed
from hemalum.training.recipe import Recipe

MEAN = (0.5, 0.5, 0.5)
STD = (0.25, 0.25, 0.25)
_AHEAD = 2  # batches made ahead of the step that uses them


@dataclass(frozen=True, slots=True)
class Facts:
    """What a network needs to know of the data: names of classes and organs in order, and what it is told.

    `classes` are by the dataset's own ids; with `one_class` all nuclei are of one. `embedding` is how many channels
    SAM's embedding has, 0 where there is none.
    """

    classes: tuple[str, ...] = ()
    organs: tuple[str, ...] = ()
    conditions: tuple[str, ...] = ()
    one_class: bool = False
    embedding: int = 0

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
        """The number of an organ, -1 for one that is not among them; upper and lower case are one."""
        known = {organ.casefold(): number for number, organ in enumerate(self.organs)}
        return -1 if name is None else known.get(name.strip().casefold(), -1)


@dataclass(frozen=True, slots=True, eq=False)
class Batch:
    """Normalised images (B, 3 or 1, H, W) and target maps (B, C, H, W), both float32.

    `conditions` are what the network is told besides, by name: `organ` (B,) int64, `embedding` (B, C, h, w) float16;
    `extra` are further target maps, each (B, 1, H, W); `views` are those of `Views`.
    """

    images: Tensor
    targets: Tensor
    conditions: Mapping[str, Tensor] = field(default_factory=dict)
    extra: Mapping[str, Tensor] = field(default_factory=dict)
    views: Mapping[str, Tensor] = field(default_factory=dict)


class Views(Protocol):
    """A second stream beside the labelled one (`unlabelled.UnlabelledStream`)."""

    def of(self, number: int, images_BCHW: Tensor, places: Sequence[tuple[int, int]]) -> dict[str, Tensor]:
        """What goes with batch `number`, whose labelled images in [0, 1] are at these (epoch, place)."""


class Stream:
    """Augmented batches over several datasets, which come in the order of the recipe's, drawn by weight.

    `share` is the part of each batch that is made here, as (which, of how many equal ones). `stain` is what brings
    the images to the recipe's colours. `facts` are what the network needs to know of the data; `embed` gives SAM's
    embeddings, for a network that takes them. `workers` processes make batches: which batch is made by which of
    them changes nothing in it.
    """

    def __init__(
        self,
        recipe: Recipe,
        datasets: Sequence[Dataset],
        share: tuple[int, int] = (0, 1),
        stain: StainNormaliser | None = None,
        facts: Facts | None = None,
        embed: Embed | None = None,
        workers: int = 1,
    ) -> None:
        self.recipe, self.share, self.facts, self.workers = recipe, share, facts or Facts(), workers
        self.representation = find_representation(recipe.representation, self.facts.classes)
        self.needs = sorted({name for phase in recipe.phases for name in phase.loss.needs})
        jobs = [(dataset, index) for dataset in datasets for index in range(len(dataset))]

        def read(job: tuple[Dataset, int]) -> Prepared:
            dataset, index = job
            sample = prepare(dataset[index], recipe.mpp, stain, self.facts.kinds(dataset))
            return replace(sample, stains=measure_stains(sample.image)) if recipe.augment.stain_mix else sample

        with ThreadPoolExecutor(max(1, min(16, os.cpu_count() or 1))) as pool:
            self.prepared = list(pool.map(read, jobs))
        self.donors = [sample.stains for sample in self.prepared if sample.stains is not None]
        if not self.prepared:
            raise HemalumError("no training images: the datasets' train parts are empty")
        self.organs = np.array([self.facts.organ(row.organ) for dataset in datasets for row in dataset.rows])
        self.ids = [
            f"{name}/{row.id}" for name, dataset in zip(recipe.data, datasets, strict=True) for row in dataset.rows
        ]
        self.embeddings = [] if embed is None else embed([sample.image for sample in self.prepared])
        self.others: list[Prepared] = []  # images to learn from without their truth
        self._datasets, self._held = datasets, []
        if recipe.sampling is not None:
            count = max(1, len(self.facts.classes))
            self._held = [present_classes(dataset, self.facts.kinds(dataset), count) for dataset in datasets]
        self.probability = self.probabilities(0)
        self._epoch: tuple[int, NDArray[np.int64]] = (-1, np.empty(0, np.int64))

    def batches(
        self, start: int, stop: int, views: Views | None = None, device: torch.device | None = None
    ) -> Iterator[Batch]:
        """Give batches start … stop - 1, made ahead of their use by `workers` processes, each on one core.

        For a CUDA `device` the processes make targets and draws alone, and the device cuts the images and makes them
        look as drawn: on a core that takes twice as long as all the rest, on the device a fraction of a step.
        """
        bank = None
        if device is not None and device.type == "cuda" and views is None:
            bank = ImageBank([sample.image for sample in self.prepared], device)
        if self.workers > 1:
            self.parts(start, images=bank is None)  # compiled here once, not in every process
        loader = DataLoader(
            _Numbered(self, views, whole=bank is None), batch_size=None, sampler=range(start, stop),
            num_workers=self.workers, prefetch_factor=_AHEAD, pin_memory=bank is not None,
        )  # fmt: skip
        for number, parts in enumerate(loader, start):
            if bank is not None:
                yield self.finish(number, parts, bank)
            else:
                # a tensor that changes process comes back in the usual memory order
                yield Batch(parts[0].contiguous(memory_format=torch.channels_last), *parts[1:])

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

    def probabilities(self, epoch: int) -> NDArray[np.float64]:
        """How likely each sample is drawn in an epoch."""
        if self.recipe.sampling is None:
            return _probabilities(self.recipe, self._datasets)
        epochs = math.ceil(self.recipe.steps * self.recipe.batch / len(self.prepared))
        gamma = strength(self.recipe.sampling, epoch, epochs)
        weights = [
            image_weights([row.organ for row in dataset.rows], held, gamma) if len(dataset) else np.empty(0)
            for dataset, held in zip(self._datasets, self._held, strict=True)
        ]
        return _probabilities(self.recipe, self._datasets, weights)

    def _order(self, epoch: int) -> NDArray[np.int64]:
        """The samples of one epoch, drawn with replacement."""
        if self._epoch[0] != epoch:
            rng = np.random.default_rng([self.recipe.seed, epoch])
            self._epoch = (epoch, rng.choice(len(self.prepared), len(self.prepared), p=self.probabilities(epoch)))
        return self._epoch[1]

    def _draws(self, number: int) -> list[tuple[int, int, int]]:
        """What the samples of batch `number` are: (epoch, place in the epoch, which prepared sample)."""
        size, epoch_length = self.recipe.batch, len(self.prepared)
        places = [divmod(position, epoch_length) for position in range(number * size, (number + 1) * size)]
        return [(epoch, place, int(self._order(epoch)[place])) for epoch, place in places]

    def names(self, number: int) -> list[str]:
        """The samples of batch `number`, all shares of it, as dataset/id, each once."""
        return list(dict.fromkeys(self.ids[index] for _, _, index in self._draws(number)))

    def parts(self, number: int, images: bool = True) -> dict[str, Any]:
        """What batch `number`, or the share of it that is made here, is made of; its `images` as they were cut."""
        draws = self._draws_here(number)
        indices = [index for _, _, index in draws]
        samples, finer = [self.prepared[index] for index in indices], self.recipe.finer
        crops = cut(
            samples, self._rngs(draws), self.recipe.tile, self.recipe.augment, finer=finer, donors=self.donors,
            images=images,
        )  # fmt: skip
        conditions = {}
        if "organ" in self.facts.conditions:
            conditions["organ"] = torch.from_numpy(self.organs[indices])
        if "embedding" in self.facts.conditions:
            conditions["embedding"] = self._embedding(draws)
        targets = encode(crops.labels, self.representation, finer, [sample.classes for sample in samples])
        parts = {
            "drawn": crops.drawn,
            "targets": targets if images else targets.half(),  # half of what goes to another device
            "conditions": conditions,
            "extra": self._extra(crops.labels, draws),
        }
        if images:
            return parts | {"images": crops.images}
        return parts | {"index": torch.tensor(indices), "affine": crops.affine, "shift": crops.shift}

    def batch(self, number: int, views: Views | None = None) -> Batch:
        """Make batch `number`, or the share of it that is made here."""
        parts = self.parts(number)
        if views is None and self.recipe.input == "RGB":
            images = shown = apply_appearance(parts["images"], parts["drawn"], MEAN, STD)
        else:
            images = apply_appearance(parts["images"], parts["drawn"])
            shown = normalise(images, self.recipe.input)
        return Batch(
            shown,
            parts["targets"],
            parts["conditions"],
            parts["extra"],
            {} if views is None else views.of(number, images, [draw[:2] for draw in self._draws_here(number)]),
        )

    def finish(self, number: int, parts: Mapping[str, Any], bank: ImageBank) -> Batch:
        """Batch `number` on the bank's device, from the `parts` that were made without images."""
        device = bank.pixels.device

        def move(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
            return {name: value.to(device, non_blocking=True) for name, value in tensors.items()}

        drawn = move(parts["drawn"]) | {name: parts["drawn"][name] for name in parts["drawn"].keys() & {"jpeg"}}
        place = move({name: parts[name] for name in ("index", "affine", "shift", "targets")})
        pixels = bank.cut(place["index"], place["affine"], place["shift"], self.recipe.tile)
        if "deviation" in drawn:
            seeded = torch.Generator(device).manual_seed(self.recipe.seed * 1_000_003 + number)
            shape, kind = pixels.shape, torch.uint8
            drawn["noise"] = torch.randint(0, 256, shape, dtype=kind, device=device, generator=seeded)
        images = apply_appearance(pixels, drawn)
        targets = place["targets"].float()
        return Batch(normalise(images, self.recipe.input), targets, move(parts["conditions"]), move(parts["extra"]))

    def _draws_here(self, number: int) -> list[tuple[int, int, int]]:
        which, shares = self.share
        size = self.recipe.batch // shares
        return self._draws(number)[which * size : (which + 1) * size]

    def _extra(self, labels: NDArray[np.int32], draws: Sequence[tuple[int, int, int]]) -> dict[str, Tensor]:
        extra = encode_extra(labels, self.needs)
        if "inside" in extra:  # which labels do not tell: a crop is mirrored beyond its image
            maps = [
                inside_of(self.prepared[index], rng, self.recipe.tile, self.recipe.augment)
                for (_, _, index), rng in zip(draws, self._rngs(draws), strict=True)
            ]
            extra["inside"] = torch.from_numpy(np.stack(maps)[:, None])
        return extra

    def _rngs(self, draws: Sequence[tuple[int, int, int]]) -> list[np.random.Generator]:
        """A generator for each sample of a batch, as it is before the first draw."""
        return [np.random.default_rng([self.recipe.seed, epoch, place]) for epoch, place, _ in draws]

    def _embedding(self, draws: Sequence[tuple[int, int, int]]) -> Tensor:
        """The part of each image's embedding that lies under the crop that `augment` cuts."""
        parts = []
        for (_, _, index), rng in zip(draws, self._rngs(draws), strict=True):
            affine = crop_of(self.prepared[index], rng, self.recipe.tile, self.recipe.augment)
            parts.append(self.embeddings[index].cut(affine, self.recipe.tile))
        return torch.stack(parts)


class _Numbered(torch.utils.data.Dataset[Any]):
    """The stream as what DataLoader takes: item n is batch n, or its parts where another device makes it whole."""

    def __init__(self, stream: Stream, views: Views | None, whole: bool) -> None:
        self.stream, self.views, self.whole = stream, views, whole

    def __getitem__(self, number: int) -> Any:
        if not self.whole:
            return self.stream.parts(number, images=False)
        batch = self.stream.batch(number, self.views)
        return batch.images, batch.targets, batch.conditions, batch.extra, batch.views


def _probabilities(
    recipe: Recipe, datasets: Sequence[Dataset], weights: Sequence[NDArray[np.float64]] | None = None
) -> NDArray[np.float64]:
    """How likely each sample is drawn: by its set's weight, and within it by `weights` or its `balance` column."""
    parts = []
    for place, (source, dataset) in enumerate(zip(recipe.data.values(), datasets, strict=True)):
        if not len(dataset):
            continue
        if weights is None:
            values = [getattr(row, source.balance) if source.balance else None for row in dataset.rows]
            counts = Counter(values)
            part = np.array([1 / counts[value] for value in values])
        else:
            part = weights[place]
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
    return normalize(images, MEAN[: images.shape[1]], STD[: images.shape[1]])


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
    if finer == 1:
        out[:] = maps
        return
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
