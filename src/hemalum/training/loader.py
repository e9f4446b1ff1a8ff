"""The training stream: batch number n is a pure function of (recipe, data, n)."""

import logging
import math
import os
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader

from hemalum.data.augmentation.appearance import apply_appearance
from hemalum.data.augmentation.crops import cut, cut_valid, measure_inside
from hemalum.data.augmentation.image_bank import ImageBank
from hemalum.data.augmentation.warp import TrainingImage, crop_of
from hemalum.data.dataset import Dataset
from hemalum.data.labeled_images import present_classes
from hemalum.data.nucleus_size import equivalent_diameters
from hemalum.data.sampling import CategoryAdaptive, FixedShares, image_weights, share_batch, strength
from hemalum.data.stain.jitter import measure_stains
from hemalum.errors import HemalumError
from hemalum.training.context import TrainContext
from hemalum.training.embeddings import Embed
from hemalum.training.encoding import encode_extra, encode_targets, mean_and_std, normalize_images, prepare_sample

log = logging.getLogger(__name__)

LEAST_INSIDE = 0.95  # share of an average crop that lies inside its image; less is warned of

_AHEAD = 2  # batches made ahead of the step that uses them


@dataclass(frozen=True, slots=True, eq=False)
class Batch:
    """Normalized images (B, 3 or 1, H, W) and target maps (B, C, H, W), both float32.

    `conditions` are what the network takes besides, by name: `organ` (B,) int64, `embedding` (B, C, h, w) float16;
    `extra` are further target maps, each (B, 1, H, W); `views` are those of `Views`. `valid` (B, 1, H, W) float32 is
    0 where no loss may look; None: it may look everywhere.
    """

    images: Tensor
    targets: Tensor
    conditions: Mapping[str, Tensor] = field(default_factory=dict)
    extra: Mapping[str, Tensor] = field(default_factory=dict)
    views: Mapping[str, Tensor] = field(default_factory=dict)
    valid: Tensor | None = None


class Draw(NamedTuple):
    """What stands at a position of an epoch: `sample` is the index of a prepared one."""

    epoch: int
    position: int
    sample: int


class Views(Protocol):
    """A second stream beside the labeled one (`semi_supervised.UnlabeledLoader`)."""

    def make_views(self, number: int, images_BCHW: Tensor, draws: Sequence[Draw]) -> dict[str, Tensor]:
        """What goes with batch `number`, whose labeled images in [0, 1] were drawn so."""


class EpochLoader:
    """Prepared samples in epochs, whose batches follow each other without a gap."""

    prepared: Sequence[TrainingImage]

    def __init__(self, context: TrainContext) -> None:
        # not the context as a whole, which no worker needs: where workers are spawned, all this is pickled for each
        self.recipe, self.representation, self.share = context.recipe, context.representation, context.share
        self._epoch: tuple[int, NDArray[np.int64]] = (-1, np.empty(0, np.int64))

    def draw_epoch(self, epoch: int) -> NDArray[np.int64]:
        """The samples of one epoch."""
        raise NotImplementedError

    def draws(self, number: int) -> list[Draw]:
        """The samples of batch `number`, all shares of it."""
        size, count = self.recipe.batch, len(self.prepared)
        positions = [divmod(number * size + index, count) for index in range(size)]
        return [Draw(epoch, position, int(self._order(epoch)[position])) for epoch, position in positions]

    def _order(self, epoch: int) -> NDArray[np.int64]:
        if self._epoch[0] != epoch:
            self._epoch = (epoch, self.draw_epoch(epoch))
        return self._epoch[1]

    def share_of(self, number: int) -> list[Draw]:
        """The samples of batch `number` that this process makes."""
        which, shares = self.share
        size = self.recipe.batch // shares
        return self.draws(number)[which * size : (which + 1) * size]

    def rngs(self, draws: Sequence[Draw], *purpose: int) -> list[np.random.Generator]:
        """A generator for each of these samples, as it is before the first draw."""
        return [np.random.default_rng([self.recipe.seed, draw.epoch, draw.position, *purpose]) for draw in draws]


class TrainLoader(EpochLoader):
    """Augmented batches over several datasets, which come in the order of the recipe's, drawn by weight.

    A process makes its share of each batch; which of the context's `workers` makes a batch changes nothing in it.
    `embed` gives SAM's embeddings, for a network that takes them. Raises HemalumError without any training image.
    """

    def __init__(self, context: TrainContext, datasets: Sequence[Dataset], embed: Embed | None = None) -> None:
        super().__init__(context)
        recipe, self.workers, self.data_spec = context.recipe, context.workers, context.data_spec
        self.needs = sorted({name for phase in recipe.phases for name in phase.loss.needs})

        def read(job: tuple[Dataset, int]) -> TrainingImage:
            dataset, index = job
            class_map = self.data_spec.class_map(dataset)
            sample = prepare_sample(dataset[index], recipe.mpp, context.stain, class_map, ambiguous=recipe.ambiguous)
            return replace(sample, stains=measure_stains(sample.image)) if recipe.augment.stain_mix else sample

        jobs = [(dataset, index) for dataset in datasets for index in range(len(dataset))]
        with ThreadPoolExecutor(max(1, min(16, os.cpu_count() or 1))) as pool:
            self.prepared = list(pool.map(read, jobs))
        self.donors = [sample.stains for sample in self.prepared if sample.stains is not None]
        if not self.prepared:
            raise HemalumError("no training images: the datasets' train parts are empty")
        # of all samples, so that processes which share a batch add up the same sums
        self.masked = recipe.beyond == "ignore" or any(sample.ambiguous is not None for sample in self.prepared)
        self.organs = np.array([self.data_spec.find_organ(row.organ) for dataset in datasets for row in dataset.rows])
        self.ids = [
            f"{name}/{row.id}" for name, dataset in zip(recipe.data, datasets, strict=True) for row in dataset.rows
        ]
        self.embeddings = [] if embed is None else embed([sample.image for sample in self.prepared])
        self.unlabeled: list[TrainingImage] = []  # images to learn from without their truth
        self._datasets = datasets
        self._present: list[NDArray[np.bool_]] = []
        if isinstance(recipe.sampling, CategoryAdaptive):
            count = max(1, len(self.data_spec.classes))
            self._present = [
                present_classes(dataset, self.data_spec.class_map(dataset), count) for dataset in datasets
            ]
        self.probability = self.probabilities(0)
        self._warn_of_mirrored_crops()

    def _warn_of_mirrored_crops(self) -> None:
        """Say it where much of a crop that counts is mirrored: nuclei of that form are nowhere."""
        recipe = self.recipe
        if recipe.beyond == "count" and self.share[0] == 0:
            inside = measure_inside(self.prepared, recipe.tile, recipe.augment, self.probability)
            if inside < LEAST_INSIDE:
                log.warning(
                    "recipe %s: %.0f %% of an average crop of %d px at %g µm/px lie beyond its image, where it is "
                    "mirrored: take a smaller tile or mpp, or beyond: ignore",
                    recipe.name, 100 * (1 - inside), recipe.tile, recipe.mpp,
                )  # fmt: skip

    def batches(
        self, start: int, stop: int, views: Views | None = None, device: torch.device | None = None
    ) -> Iterator[Batch]:
        """Give batches start … stop - 1, made ahead of their use by `workers` processes, each on one core.

        For a CUDA `device` the processes make targets and draws alone, and the device cuts the images and makes them
        look as drawn: on a core that takes twice as long as all the rest, on the device a fraction of a step.
        """
        if start >= stop:
            return
        bank = None
        if device is not None and device.type == "cuda" and views is None:
            bank = ImageBank([sample.image for sample in self.prepared], device)
        if self.workers > 1:
            self.parts(start, images=bank is None)  # compiled here once, not in every process
        loader = DataLoader(
            _NumberedBatches(self, views, finished=bank is None), batch_size=None, sampler=range(start, stop),
            num_workers=self.workers, prefetch_factor=_AHEAD, pin_memory=bank is not None,
        )  # fmt: skip
        for number, parts in enumerate(loader, start):
            if bank is not None:
                yield self.finish(number, parts, bank)
            else:
                # a tensor that changes process comes back in the usual memory order
                yield Batch(parts[0].contiguous(memory_format=torch.channels_last), *parts[1:])

    def names(self, number: int) -> list[str]:
        """The samples of batch `number`, all shares of it, as dataset/id, each once."""
        return list(dict.fromkeys(self.ids[draw.sample] for draw in self.draws(number)))

    def batch(self, number: int, views: Views | None = None) -> Batch:
        """Make batch `number`, or the share of it that is made here."""
        parts = self.parts(number)
        unit = None
        if views is None and self.recipe.input == "RGB":
            mean, std = mean_and_std(self.recipe.input_range)
            images = apply_appearance(parts["images"], parts["appearance"], mean, std)  # normalized in the same pass
        else:
            unit = apply_appearance(parts["images"], parts["appearance"])
            images = normalize_images(unit, self.recipe.input, self.recipe.input_range)
        batch = Batch(images, parts["targets"], parts["conditions"], parts["extra"], valid=parts["valid"])
        if views is None or unit is None:
            return batch
        return replace(batch, views=views.make_views(number, unit, self.share_of(number)))

    def parts(self, number: int, images: bool = True) -> dict[str, Any]:
        """What batch `number`, or the share of it that is made here, is made of; its `images` as they were cut."""
        draws = self.share_of(number)
        indices = [draw.sample for draw in draws]
        samples, supersampling = [self.prepared[index] for index in indices], self.recipe.target_supersampling
        crops = cut(
            samples, self.rngs(draws), self.recipe.tile, self.recipe.augment, supersampling=supersampling,
            donors=self.donors, images=images,
        )  # fmt: skip
        conditions = {}
        if "organ" in self.data_spec.conditions:
            conditions["organ"] = torch.from_numpy(self.organs[indices])
        if "embedding" in self.data_spec.conditions:
            conditions["embedding"] = self._cut_embeddings(draws)
        classes = [sample.classes for sample in samples]
        targets = encode_targets(crops.labels, self.representation, supersampling, classes)
        parts = {
            "appearance": crops.drawn,
            "targets": targets if images else targets.half(),  # half of what goes to another device
            "conditions": conditions,
            "extra": encode_extra(crops.labels, self.needs),
            "valid": None,
        }
        if self.masked:
            beyond = self.recipe.beyond == "count"
            parts["valid"] = cut_valid(samples, crops, self.recipe.tile, supersampling, beyond=beyond)
        if images:
            return parts | {"images": crops.images}
        return parts | {"index": torch.tensor(indices), "affine": crops.affine, "shift": crops.shift}

    def finish(self, number: int, parts: Mapping[str, Any], bank: ImageBank) -> Batch:
        """Batch `number` on the bank's device, from the `parts` that were made without images."""
        device = bank.pixels.device

        def move(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
            return {name: value.to(device, non_blocking=True) for name, value in tensors.items()}

        on_cpu = {name: parts["appearance"][name] for name in parts["appearance"].keys() & {"jpeg"}}
        appearance = move(parts["appearance"]) | on_cpu
        warp = move({name: parts[name] for name in ("index", "affine", "shift")})
        targets = move({"targets": parts["targets"]})["targets"]
        pixels = bank.cut(warp["index"], warp["affine"], warp["shift"], self.recipe.tile)
        if "deviation" in appearance:
            seeded = torch.Generator(device).manual_seed(self.recipe.seed * 1_000_003 + number)
            shape, dtype = pixels.shape, torch.uint8
            appearance["noise"] = torch.randint(0, 256, shape, dtype=dtype, device=device, generator=seeded)
        unit = apply_appearance(pixels, appearance)
        images = normalize_images(unit, self.recipe.input, self.recipe.input_range)
        valid = None if parts["valid"] is None else move({"valid": parts["valid"]})["valid"]
        return Batch(images, targets.float(), move(parts["conditions"]), move(parts["extra"]), valid=valid)

    def measure_nucleus_diameter_um(self) -> float:
        """Median equivalent diameter of the whole nuclei of all samples, µm. Raises HemalumError without any."""
        diameters = np.concatenate(
            [
                equivalent_diameters(sample.labels) * self.recipe.mpp * sample.image.shape[0] / sample.labels.shape[0]
                for sample in self.prepared
            ]
        )
        if not len(diameters):
            raise HemalumError("no nuclei to train on: no nucleus of the train parts lies whole inside its image")
        return float(np.median(diameters))

    def probabilities(self, epoch: int) -> NDArray[np.float64]:
        """How likely each sample is drawn in an epoch."""
        if not isinstance(self.recipe.sampling, CategoryAdaptive):
            return self._weight_sets([self._balance(position) for position in range(len(self._datasets))])
        epochs = math.ceil(self.recipe.steps * self.recipe.batch / len(self.prepared))
        gamma = strength(self.recipe.sampling, epoch, epochs)
        weights = [
            image_weights([row.organ for row in dataset.rows], present, gamma) if len(dataset) else np.empty(0)
            for dataset, present in zip(self._datasets, self._present, strict=True)
        ]
        return self._weight_sets(weights)

    def draw_epoch(self, epoch: int) -> NDArray[np.int64]:
        """The samples of one epoch, drawn with replacement."""
        rng = np.random.default_rng([self.recipe.seed, epoch])
        size, probability = len(self.prepared), self.probabilities(epoch)
        if not isinstance(self.recipe.sampling, FixedShares):
            return rng.choice(size, size, p=probability)
        order = np.empty(size, np.int64)
        pairs = zip(self.recipe.data.values(), self._datasets, strict=True)
        shares = [source.weight if len(dataset) else 0.0 for source, dataset in pairs]
        positions = (epoch * size + np.arange(size)) % self.recipe.batch  # batches go on over the end of an epoch
        sets, owner = share_batch(shares, self.recipe.batch)[positions], self._owner()
        for number in np.unique(sets):
            here, mine = sets == number, np.where(owner == number, probability, 0)
            order[here] = rng.choice(size, int(here.sum()), p=mine / mine.sum())
        return order

    def _owner(self) -> NDArray[np.int64]:
        """The set of each sample, by its place among the recipe's."""
        return np.repeat(np.arange(len(self._datasets)), [len(dataset) for dataset in self._datasets])

    def _balance(self, position: int) -> NDArray[np.float64]:
        """Weights of a set's samples by which the values of its `balance` column are drawn equally often."""
        column = list(self.recipe.data.values())[position].balance
        values = [getattr(row, column) if column else None for row in self._datasets[position].rows]
        counts = Counter(values)
        return np.array([1 / counts[value] for value in values])

    def _weight_sets(self, weights: Sequence[NDArray[np.float64]]) -> NDArray[np.float64]:
        """How likely each sample is drawn: by its set's weight, and within it by `weights`."""
        sources = self.recipe.data.values()
        shares = [
            part / part.sum() * source.weight for source, part in zip(sources, weights, strict=True) if len(part)
        ]
        probability: NDArray[np.float64] = np.concatenate(shares)
        probability /= probability.sum()
        return probability

    def _cut_embeddings(self, draws: Sequence[Draw]) -> Tensor:
        """The part of each image's embedding that lies under the crop that `augment` cuts."""
        parts = []
        for draw, rng in zip(draws, self.rngs(draws), strict=True):
            affine = crop_of(self.prepared[draw.sample], rng, self.recipe.tile, self.recipe.augment)
            parts.append(self.embeddings[draw.sample].cut(affine, self.recipe.tile))
        return torch.stack(parts)


class _NumberedBatches(torch.utils.data.Dataset[Any]):
    """The stream as what DataLoader takes: item n is batch n, or its parts where another device finishes it."""

    def __init__(self, loader: TrainLoader, views: Views | None, finished: bool) -> None:
        self.loader, self.views, self.finished = loader, views, finished

    def __getitem__(self, number: int) -> Any:
        if not self.finished:
            return self.loader.parts(number, images=False)
        batch = self.loader.batch(number, self.views)
        return batch.images, batch.targets, batch.conditions, batch.extra, batch.views, batch.valid
