"""The training stream: batch number n is a pure function of (recipe, data, n)."""

from collections import Counter
from collections.abc import Generator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from hemalum.data.augment import Prepared, augment
from hemalum.data.dataset import Dataset
from hemalum.data.sample import Sample
from hemalum.errors import HemalumError
from hemalum.instances.representations import REPRESENTATIONS, Representation
from hemalum.training.recipe import Recipe

MEAN = (0.5, 0.5, 0.5)
STD = (0.25, 0.25, 0.25)
_AHEAD = 2  # batches made ahead of the step that uses them


@dataclass(frozen=True, slots=True, eq=False)
class Batch:
    """Normalised images (B, 3, H, W) and target maps (B, C, H, W), both float32."""

    images: Tensor
    targets: Tensor


class Stream:
    """Augmented batches over several datasets, drawn by weight."""

    def __init__(self, recipe: Recipe, datasets: Sequence[Dataset]) -> None:
        self.recipe = recipe
        self.representation = REPRESENTATIONS[recipe.representation]
        self.prepared = [prepare(s, recipe.mpp) for dataset in datasets for s in dataset]
        if not self.prepared:
            raise HemalumError("no training images: the datasets' train parts are empty")
        self.probability = _probabilities(recipe, datasets)
        self._epoch: tuple[int, NDArray[np.int64]] = (-1, np.empty(0, np.int64))

    def batches(self, start: int, stop: int) -> Generator[Batch, None, None]:
        """Give batches start … stop - 1, each made in the background while the one before is used."""
        with ThreadPoolExecutor(1, thread_name_prefix="stream") as pool:
            waiting: list[Future[Batch]] = []
            try:
                for number in range(start, stop + _AHEAD):
                    if number < stop:
                        waiting.append(pool.submit(self.batch, number))
                    if number >= start + _AHEAD:
                        yield waiting.pop(0).result()
            finally:
                for future in waiting:
                    future.cancel()

    def _order(self, epoch: int) -> NDArray[np.int64]:
        """The samples of one epoch, drawn with replacement."""
        if self._epoch[0] != epoch:
            rng = np.random.default_rng([self.recipe.seed, epoch])
            self._epoch = (epoch, rng.choice(len(self.prepared), len(self.prepared), p=self.probability))
        return self._epoch[1]

    def batch(self, number: int) -> Batch:
        """Make batch `number`."""
        size, epoch_length = self.recipe.batch, len(self.prepared)
        positions = range(number * size, (number + 1) * size)
        samples, rngs = [], []
        for position in positions:
            epoch, place = divmod(position, epoch_length)
            samples.append(self.prepared[self._order(epoch)[place]])
            rngs.append(np.random.default_rng([self.recipe.seed, epoch, place]))
        images, labels = augment(samples, rngs, self.recipe.tile, self.recipe.augment)
        return Batch(normalise(images), encode(labels, self.representation))


def _probabilities(recipe: Recipe, datasets: Sequence[Dataset]) -> NDArray[np.float64]:
    """How likely each sample is drawn: by its set's weight, and within the set by its `balance` column."""
    parts = []
    for dataset in datasets:
        source = recipe.data[dataset.info.name]
        if not len(dataset):
            continue
        values = [getattr(row, source.balance) if source.balance else None for row in dataset.rows]
        counts = Counter(values)
        part = np.array([1 / counts[value] for value in values])
        parts.append(part / part.sum() * source.weight)
    probability: NDArray[np.float64] = np.concatenate(parts)
    probability /= probability.sum()
    return probability


def prepare(sample: Sample, mpp: float) -> Prepared:
    """Bring a sample's image to `mpp`; its labels keep their own resolution.

    Raises HemalumError when the sample does not say its scale.
    """
    if sample.mpp is None:
        raise HemalumError(f"sample {sample.id} has no mpp: import its dataset with --mpp NUMBER or --mpp nuclei")
    height, width = sample.instances.shape
    factor = sample.mpp / mpp
    size = (max(1, round(width * factor)), max(1, round(height * factor)))
    resized = Image.fromarray(sample.image).resize(size, Image.Resampling.BILINEAR)
    return Prepared(np.array(resized), sample.instances)


def normalise(images_BCHW: Tensor) -> Tensor:
    """Images in [0, 1] as the network takes them, channels last."""
    mean = torch.tensor(MEAN).view(1, 3, 1, 1)
    std = torch.tensor(STD).view(1, 3, 1, 1)
    return ((images_BCHW - mean) / std).contiguous(memory_format=torch.channels_last)


def encode(labels_BHW: NDArray[np.int32], representation: Representation) -> Tensor:
    """Target maps (B, C, H, W) float32 of a batch of label maps."""
    return torch.from_numpy(np.stack([representation.encode(labels) for labels in labels_BHW]))
