"""Learning from images whose truth no loss sees: which they are, the stream of their views, and the losses on them.

The stream is the second one beside that of the labeled images. Its batch n is a pure function of (recipe, data, n).
"""

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from hemalum.data.augmentation.crops import augment
from hemalum.data.augmentation.strong_views import draw_box, partners, strengthen
from hemalum.data.augmentation.warp import TrainingImage, inside_of
from hemalum.data.dataset import Dataset, hash_lines
from hemalum.data.labeled_images import divide, present_classes
from hemalum.errors import HemalumError
from hemalum.losses.loss import AllReduceSum
from hemalum.losses.maps import with_background
from hemalum.losses.semi_supervised import consistency, contrast
from hemalum.networks import NETWORKS, Network, Outputs
from hemalum.systems.phases import SemiSupervised
from hemalum.training.context import TrainContext
from hemalum.training.data_spec import DataSpec
from hemalum.training.embeddings import Embed
from hemalum.training.encoding import encode_targets, normalize_images, prepare_sample
from hemalum.training.loader import Draw, EpochLoader, TrainLoader
from hemalum.training.recipe import Recipe
from hemalum.training.unlabeled_images import UnlabeledSource, find_unlabeled, hash_known, read_unlabeled

log = logging.getLogger(__name__)

# last word of a generator's seed, beside (seed, epoch, position): the labeled stream's have none
_ORDER, _WEAK, _LABELED, _VIEW = 1, 2, 3, 4


@dataclass(frozen=True, slots=True)
class TrainingParts:
    """The images of a training, before their pixels are read.

    `labeled` and `hidden` are parts of the recipe's datasets, in its order; the labels of `hidden` are not learned
    from. `sources` are a user's images without labels. Both are empty where no phase learns from unlabeled images;
    `passed_over` counts those whose labels are hidden all the same.
    """

    labeled: list[Dataset]
    hidden: list[Dataset]
    sources: list[UnlabeledSource]
    passed_over: int = 0

    def digest(self, data: str, recipe: Recipe) -> str:
        """The digest `data` of a training's datasets, with what does not follow from them and the recipe.

        That are a user's own images, and which images a list names.
        """
        lines = [line for source in self.sources for line in source.lines]
        if recipe.labeled is not None and recipe.labeled.file is not None:
            lines += [f"labeled {row.id}" for part in self.labeled for row in part.rows]
        return hash_lines([data, *lines]) if lines else data

    @property
    def labeled_images(self) -> int:
        """How many images are learned from with their labels."""
        return sum(map(len, self.labeled))

    @property
    def unlabeled_images(self) -> int:
        """How many images are learned from without labels; squares of slides count each."""
        return sum(map(len, self.hidden)) + sum(len(source.images) for source in self.sources)


def find_parts(context: TrainContext, datasets: Sequence[Dataset], network: Network) -> TrainingParts:
    """Which images are learned from with labels, and which without.

    Raises HemalumError when the recipe, its network and the data do not fit together.
    """
    recipe = context.recipe
    labeled, hidden = divide_training(recipe, datasets, context.data_spec)
    if not any(phase.semi_supervised for phase in recipe.phases):
        if recipe.unlabeled:
            raise HemalumError(
                f"recipe {recipe.name} has unlabeled images and no phase that learns from them: take method "
                "fixmatch, unimatch or csra of system csra_net, or give none ('unlabeled: []')"
            )
        return TrainingParts(labeled, [replace(part, rows=()) for part in hidden], [], sum(map(len, hidden)))
    parts = TrainingParts(labeled, hidden, find_unlabeled(recipe.unlabeled, recipe.mpp, recipe.field))
    check_semi_supervised(context, network, parts.unlabeled_images)
    return parts


def open_train_loader(
    context: TrainContext, datasets: Sequence[Dataset], parts: TrainingParts, embed: Embed | None = None
) -> TrainLoader:
    """The stream over the labeled training images, and with it those without labels that a phase learns from.

    Raises HemalumError for images that cannot be read, and unlabeled ones that are those of another part of the data.
    """
    recipe, data_spec = context.recipe, context.data_spec
    loader = TrainLoader(context, parts.labeled, embed)
    loader.unlabeled = [
        prepare_sample(sample, recipe.mpp, context.stain, data_spec.class_map(part))
        for part in parts.hidden
        for sample in part
    ]
    loader.unlabeled += read_unlabeled(parts.sources, recipe.mpp, context.stain, hash_known(datasets))
    return loader


def divide_training(
    recipe: Recipe, datasets: Sequence[Dataset], data_spec: DataSpec
) -> tuple[list[Dataset], list[Dataset]]:
    """The labeled training images of each dataset, and the others, whose truth no loss may see.

    Raises HemalumError when a class is left without a labeled image.
    """
    labeled = [dataset.split("train") for dataset in datasets]
    unlabeled = [replace(part, rows=()) for part in labeled]
    if recipe.labeled is None:
        return labeled, unlabeled
    classes = data_spec.classes or ("nucleus",)
    for index, part in enumerate(labeled):
        present = present_classes(part, data_spec.class_map(part), len(classes))
        try:
            labeled[index], unlabeled[index] = divide(part, recipe.labeled, present, classes, recipe.seed)
        except HemalumError as error:
            raise HemalumError(f"recipe {recipe.name}, {part.path}: {error}") from error
        held = present_classes(labeled[index], data_spec.class_map(part), len(classes))
        lacking = [name for name, a, b in zip(classes, present.T, held.T, strict=True) if a.any() and not b.any()]
        if lacking:  # as a random draw and a list may leave it
            log.warning("recipe %s, %s: no labeled image holds %s", recipe.name, part.path, ", ".join(lacking))
    return labeled, unlabeled


def check_semi_supervised(context: TrainContext, network: Network, unlabeled: int) -> None:
    """Raise HemalumError unless the recipe's phases can learn from `unlabeled` images; before any training."""
    recipe, heads, (_, processes) = context.recipe, context.representation.heads, context.share
    for phase in recipe.phases:
        settings = phase.semi_supervised
        if settings is None:
            continue
        where = f"recipe {recipe.name}, phase '{phase.name}' learns from unlabeled images"
        if not unlabeled:
            raise HemalumError(
                f"{where} and there are none: give images as 'unlabeled: [PATH]' or --unlabeled, or hide labels by "
                "'labeled: 1/8'"
            )
        if len(heads) != 1 or heads[0].kind != "softmax":
            raise HemalumError(
                f"{where}: it needs one softmax head, of representation semantic (with 'classes: nucleus' for nuclei "
                f"of one class) or interior_boundary, not '{recipe.representation}'"
            )
        if network.conditions:
            raise HemalumError(f"{where}, but its network is conditioned on {', '.join(network.conditions)}")
        if settings.contrast and settings.views < 2:
            raise HemalumError(f"{where}: the contrastive term needs views: 2")
        if (settings.contrast or settings.dropped) and not network.feature_outputs:
            raise HemalumError(
                f"{where}: network '{recipe.network.name}' gives no features for 'contrast' or 'dropped'; "
                f"{' and '.join(name for name, one in NETWORKS.items() if one.feature_outputs)} do"
            )
        if processes > 1 and recipe.batch // processes % 2:
            raise HemalumError(
                f"{where} in pairs: batch {recipe.batch} gives each of {processes} processes an odd number"
            )


class UnlabeledLoader(EpochLoader):
    """Views of the images that a phase learns from without their truth; as many in a batch as there are labeled.

    Each epoch is the images in another order. The weak view is the recipe's own augmentation.
    """

    def __init__(self, context: TrainContext, prepared: Sequence[TrainingImage], settings: SemiSupervised) -> None:
        super().__init__(context)
        self.prepared, self.settings = prepared, settings

    def make_views(self, number: int, images_BCHW: Tensor, draws: Sequence[Draw]) -> dict[str, Tensor]:
        """Views of batch `number`, or of the share of it that is made here, beside labeled images in [0, 1].

        `weak` (B, 3 or 1, H, W) and `strong` (V · B, 3 or 1, H, W) are normalized; the strong views have a box of
        their neighbor's where `boxes` (V, B, H, W) is True. `inside` (B, H, W) float32 is 0 beyond the image.
        `truth` (B, H, W) int64 is the class of each pixel, -1 where nobody has labeled the image: to be looked at,
        not learned from. `labeled` are strong views of the labeled images, of these `draws`, where they are asked
        for.
        """
        recipe, settings = self.recipe, self.settings
        draws_here = self.share_of(number)
        samples = [self.prepared[draw.sample] for draw in draws_here]
        images, labels = augment(samples, self.rngs(draws_here, _WEAK), recipe.tile, recipe.augment)
        targets = encode_targets(labels, self.representation, classes=[sample.classes for sample in samples])
        strong, boxes = self._make_strong(images, draws_here)
        inside = np.ones(labels.shape, np.float32)
        if settings.beyond == "ignore":
            for map_HW, sample, rng in zip(inside, samples, self.rngs(draws_here, _WEAK), strict=True):
                map_HW[:] = inside_of(sample, rng, recipe.tile, recipe.augment)
        truth = with_background(targets).argmax(1)
        truth[[not sample.truth for sample in samples]] = -1
        views = {
            "weak": normalize_images(images, recipe.input, recipe.input_range),
            "strong": normalize_images(strong, recipe.input, recipe.input_range),
            "boxes": torch.from_numpy(boxes),
            "inside": torch.from_numpy(inside),
            "truth": truth,
        }
        if settings.labeled != "weak":
            labeled = strengthen(images_BCHW, self.rngs(draws, _LABELED), settings.strong)
            views["labeled"] = normalize_images(labeled, recipe.input, recipe.input_range)
        return views

    def _make_strong(self, images_BCHW: Tensor, draws: Sequence[Draw]) -> tuple[Tensor, NDArray[np.bool_]]:
        """Strong views (V · B, 3, H, W) of weak ones, and where they have a box of their partner's (V, B, H, W)."""
        size, side = len(draws), self.recipe.tile
        views, boxes = [], np.zeros((self.settings.views, size, side, side), bool)
        for view, boxes_BHW in enumerate(boxes):
            rngs = self.rngs(draws, _VIEW + view)
            strong = strengthen(images_BCHW, rngs, self.settings.strong)
            mixed = strong.clone()
            for index, (partner, rng) in enumerate(zip(partners(size), rngs, strict=True)):
                box = draw_box(rng, side, side, self.settings.strong)
                if box is not None and partner != index:
                    boxes_BHW[(index, *box)] = True
                    mixed[(index, slice(None), *box)] = strong[(partner, slice(None), *box)]
            views.append(mixed)
        return torch.cat(views), boxes

    def draw_epoch(self, epoch: int) -> NDArray[np.int64]:
        """All images, each once."""
        return np.random.default_rng([self.recipe.seed, epoch, 0, _ORDER]).permutation(len(self.prepared))


@dataclass(frozen=True, slots=True, eq=False)
class PseudoLabels:
    """Classes ŷ (…, H, W) int64, and as float32 0 or 1: where they are sure enough, where an image is."""

    label: Tensor
    keep: Tensor
    inside: Tensor

    def mix(self, boxes_BHW: Tensor) -> "PseudoLabels":
        """Those of views (B, H, W) whose boxes come from their partners."""
        order = partners(len(self.label))
        maps = (self.label, self.keep, self.inside)
        return PseudoLabels(*(torch.where(boxes_BHW, x_BHW[order], x_BHW) for x_BHW in maps))


def make_pseudo_labels(logits_BCHW: Tensor, inside_BHW: Tensor, threshold: float) -> PseudoLabels:
    """ŷ = argmax p, kept where max p is at least τ and the pixel lies inside its image (eq. 8 and 9)."""
    probability, label = logits_BCHW.softmax(1).max(1)
    return PseudoLabels(label, (probability >= threshold).float() * inside_BHW, inside_BHW)


def semi_supervised_losses(
    settings: SemiSupervised,
    network: nn.Module,
    weak_logits: Tensor,
    images: Tensor,
    views: Mapping[str, Tensor],
    supervised: Callable[[Outputs], dict[str, Tensor]],
    all_reduce_sum: AllReduceSum,
) -> tuple[dict[str, Tensor], Tensor]:
    """The weighted parts of the loss by name, and what the pseudo-labels are worth (4,): pixels seen, kept, kept with
    a known truth, right.

    `images` are the labeled ones, `views` those of `UnlabeledLoader.make_views`; `weak_logits` (B, C, H, W) are what
    ŷ is read from. `supervised` gives the phase's loss of outputs.
    """
    labeled = [images] if settings.labeled != "strong" else []
    if settings.labeled != "weak":
        labeled.append(views["labeled"])
    weak = [views["weak"]] if settings.dropped else []
    # those whose channels are left out come last, which is where the network looks for them
    inputs = torch.cat([*labeled, views["strong"], *weak]).contiguous(memory_format=torch.channels_last)
    requested: dict[str, int | bool] = {"dropped": len(views["weak"])} if settings.dropped else {}
    if settings.contrast:
        requested["features"] = True
    outputs = Outputs.of(network(inputs, **requested))

    parts: dict[str, Tensor] = {}
    batch = len(images)
    for number in range(len(labeled)):
        rows = slice(number * batch, (number + 1) * batch)
        for name, part in supervised(_take_rows(outputs, rows)).items():
            parts[name] = parts.get(name, 0) + settings.supervised * part

    pseudo = make_pseudo_labels(weak_logits, views["inside"], settings.threshold)
    mixed = [pseudo.mix(boxes) for boxes in views["boxes"]]
    start = len(labeled) * batch
    strong = [slice(start + view * batch, start + (view + 1) * batch) for view in range(settings.views)]
    if settings.consistency:
        terms = [
            consistency(outputs.logits[rows], view.label, view.keep, view.inside, all_reduce_sum)
            for rows, view in zip(strong, mixed, strict=True)
        ]
        parts["consistency"] = settings.consistency * torch.stack(terms).mean()
    if settings.dropped:
        term = consistency(outputs.extras["dropped"], pseudo.label, pseudo.keep, pseudo.inside, all_reduce_sum)
        parts["dropped"] = settings.dropped * term
    if settings.contrast:
        features, prototypes = outputs.extras["features"], outputs.extras["prototypes"]
        # a pixel is the same in both views where both show their own image, or both the partner's
        same = views["boxes"][0] == views["boxes"][1]
        step = same.shape[-1] // features.shape[-1]
        label, keep = (_subsample(x, step) for x in (mixed[0].label, mixed[0].keep * same))
        term = contrast(
            features[strong[0]], features[strong[1]], prototypes, label, keep, settings.temperature, all_reduce_sum
        )
        parts["contrast"] = settings.contrast * term
    judged, right = pseudo.keep * (views["truth"] >= 0), pseudo.keep * (pseudo.label == views["truth"])
    return parts, torch.stack([pseudo.inside.sum(), pseudo.keep.sum(), judged.sum(), right.sum()])


def summarize_pseudo_labels(counts: Tensor) -> dict[str, float]:
    """Pixels seen, kept, judged and right, added up, as figures: how many are kept, and how many judged are right."""
    seen, kept, judged, right = counts.tolist()
    figures = {"mask_rate": kept / max(seen, 1)}
    return figures | ({"pseudo_accuracy": right / judged} if judged else {})


def _take_rows(outputs: Outputs, rows: slice) -> Outputs:
    """Logits of a part of the batch; extras stay those of all."""
    return outputs._replace(
        logits=outputs.logits[rows], aux_logits=tuple(logits[rows] for logits in outputs.aux_logits)
    )


def _subsample(x_BHW: Tensor, step: int) -> Tensor:
    """The pixel nearest to the middle of each step x step block."""
    return x_BHW[:, step // 2 :: step, step // 2 :: step]
