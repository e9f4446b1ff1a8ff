"""The second stream: views of images whose truth no loss sees. Batch n is a pure function of (recipe, data, n)."""

import inspect
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from hemalum.data.augment import Prepared, augment, inside_of
from hemalum.data.dataset import Dataset
from hemalum.data.fractions import divide, present_classes
from hemalum.data.stain_normalisation import StainNormaliser
from hemalum.data.strong_views import draw_box, partners, strengthen
from hemalum.errors import HemalumError
from hemalum.instances.representations import Head, Representation
from hemalum.losses.maps import with_background
from hemalum.systems.unlabelled import Unlabelled
from hemalum.training.embeddings import Embed
from hemalum.training.recipe import Recipe
from hemalum.training.stream import Facts, Stream, encode, normalise, prepare

# last word of a generator's seed, beside (seed, epoch, place): the labelled stream's have none
_ORDER, _WEAK, _LABELLED, _VIEW = 1, 2, 3, 4


def open_stream(
    recipe: Recipe, datasets: Sequence[Dataset], network: nn.Module, share: tuple[int, int],
    stain: StainNormaliser | None, facts: Facts, embed: Embed | None = None, workers: int = 1,
) -> Stream:  # fmt: skip
    """The stream over the labelled training images; the others are with it where a phase learns from them.

    Raises HemalumError when the recipe, its network and the data do not fit together.
    """
    labelled, others = divide_training(recipe, datasets, facts)
    stream = Stream(recipe, labelled, share, stain, facts, embed, workers)
    if any(phase.unlabelled for phase in recipe.phases):
        check_unlabelled(recipe, network, stream.representation.heads, sum(map(len, others)), share[1])
        stream.others = [prepare(sample, recipe.mpp, stain, facts.kinds(part)) for part in others for sample in part]
    return stream


def divide_training(recipe: Recipe, datasets: Sequence[Dataset], facts: Facts) -> tuple[list[Dataset], list[Dataset]]:
    """The labelled training images of each dataset, and the others, whose truth no loss may see.

    Raises HemalumError when a class is left without a labelled image.
    """
    labelled = [dataset.split("train") for dataset in datasets]
    others = [replace(part, rows=()) for part in labelled]
    if recipe.labelled is None:
        return labelled, others
    classes = facts.classes or ("nucleus",)
    for place, part in enumerate(labelled):
        present = present_classes(part, facts.kinds(part), len(classes))
        try:
            labelled[place], others[place] = divide(part, recipe.labelled, present, classes)
        except HemalumError as error:
            raise HemalumError(f"recipe {recipe.name}, {part.path}: {error}") from error
    return labelled, others


def check_unlabelled(
    recipe: Recipe, network: nn.Module, heads: Sequence[Head], unlabelled: int, processes: int
) -> None:
    """Raise HemalumError unless the recipe's phases can learn from unlabelled images; before any training."""
    for phase in recipe.phases:
        settings = phase.unlabelled
        if settings is None:
            continue
        where = f"recipe {recipe.name}, phase '{phase.name}' learns from unlabelled images"
        if not unlabelled:
            raise HemalumError(f"{where} and there are none: give 'labelled: {{fraction: 1/8}}', or leave it out")
        if len(heads) != 1 or heads[0].kind != "softmax":
            raise HemalumError(
                f"{where}: it needs one softmax head, of representation semantic (with 'classes: nucleus' for nuclei "
                f"of one class) or interior_boundary, not '{recipe.representation}'"
            )
        if getattr(network, "conditions", ()):
            raise HemalumError(f"{where}, but its network is told {', '.join(network.conditions)} of each")  # type: ignore[arg-type]
        if settings.contrast and settings.views < 2:
            raise HemalumError(f"{where}: the contrastive term needs views: 2")
        takes = inspect.signature(network.forward).parameters
        if (settings.contrast or settings.dropped) and not {"dropped", "features"} <= takes.keys():
            raise HemalumError(
                f"{where}: network '{recipe.network.name}' gives no features for 'contrast' or 'dropped'; "
                "deeplabv3plus and csra_net do"
            )
        if processes > 1 and recipe.batch // processes % 2:
            raise HemalumError(
                f"{where} in pairs: batch {recipe.batch} gives each of {processes} processes an odd number"
            )


class UnlabelledStream:
    """Views of the images that a phase learns from without their truth; as many in a batch as there are labelled.

    Each epoch is the images in another order. The weak view is the recipe's own augmentation.
    """

    def __init__(
        self, recipe: Recipe, prepared: Sequence[Prepared], settings: Unlabelled, representation: Representation,
        share: tuple[int, int] = (0, 1),
    ) -> None:  # fmt: skip
        self.recipe, self.prepared, self.settings = recipe, prepared, settings
        self.representation, self.share = representation, share
        self._epoch: tuple[int, NDArray[np.int64]] = (-1, np.empty(0, np.int64))

    def of(self, number: int, images_BCHW: Tensor, places: Sequence[tuple[int, int]]) -> dict[str, Tensor]:
        """Views of batch `number`, or of the share of it that is made here.

        `weak` (B, 3 or 1, H, W) and `strong` (V · B, 3 or 1, H, W) are normalised; the strong views have a box of
        their neighbour's where `boxes` (V, B, H, W) is True. `inside` (B, H, W) float32 is 0 beyond the image.
        `truth` (B, H, W) int64 is the class of each pixel: to be looked at, not learnt from. `labelled` are strong
        views of the labelled images that go with it, where they are asked for.
        """
        which, shares = self.share
        size, recipe, settings = self.recipe.batch // shares, self.recipe, self.settings
        draws = self._draws(number)[which * size : (which + 1) * size]
        samples = [self.prepared[index] for _, _, index in draws]
        images, labels = augment(samples, self._rngs(draws, _WEAK), recipe.tile, recipe.augment)
        targets = encode(labels, self.representation, classes=[sample.classes for sample in samples])
        side = recipe.tile
        views, boxes = [], np.zeros((settings.views, size, side, side), bool)
        for view, marks in enumerate(boxes):
            rngs = self._rngs(draws, _VIEW + view)
            strong = strengthen(images, rngs, settings.strong)
            mixed = strong.clone()
            for place, (partner, rng) in enumerate(zip(partners(size), rngs, strict=True)):
                box = draw_box(rng, side, side, settings.strong)
                if box is not None and partner != place:
                    marks[(place, *box)] = True
                    mixed[(place, slice(None), *box)] = strong[(partner, slice(None), *box)]
            views.append(mixed)
        inside = np.ones(labels.shape, np.float32)
        if settings.beyond == "ignore":
            for own, sample, rng in zip(inside, samples, self._rngs(draws, _WEAK), strict=True):
                own[:] = inside_of(sample, rng, recipe.tile, recipe.augment)
        given = {} if settings.labelled == "weak" else {"labelled": self._strong_labelled(images_BCHW, places)}
        return given | {
            "weak": normalise(images, recipe.input),
            "strong": normalise(torch.cat(views), recipe.input),
            "boxes": torch.from_numpy(boxes),
            "inside": torch.from_numpy(inside),
            "truth": with_background(targets).argmax(1),
        }

    def _strong_labelled(self, images_BCHW: Tensor, places: Sequence[tuple[int, int]]) -> Tensor:
        rngs = [np.random.default_rng([self.recipe.seed, *place, _LABELLED]) for place in places]
        return normalise(strengthen(images_BCHW, rngs, self.settings.strong), self.recipe.input)

    def _draws(self, number: int) -> list[tuple[int, int, int]]:
        """What the images of batch `number` are: (epoch, place in the epoch, which image)."""
        size, epoch_length = self.recipe.batch, len(self.prepared)
        places = [divmod(position, epoch_length) for position in range(number * size, (number + 1) * size)]
        return [(epoch, place, int(self._order(epoch)[place])) for epoch, place in places]

    def _order(self, epoch: int) -> NDArray[np.int64]:
        if self._epoch[0] != epoch:
            rng = np.random.default_rng([self.recipe.seed, epoch, 0, _ORDER])
            self._epoch = (epoch, rng.permutation(len(self.prepared)))
        return self._epoch[1]

    def _rngs(self, draws: Sequence[tuple[int, int, int]], purpose: int) -> list[np.random.Generator]:
        return [np.random.default_rng([self.recipe.seed, epoch, place, purpose]) for epoch, place, _ in draws]
