"""What the loop measures on the validation images: nucleus PQ and pixel Dice, per set, and the loss."""

from collections.abc import Sequence
from dataclasses import astuple, dataclass, replace
from typing import TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from hemalum.data.dataset import Dataset
from hemalum.errors import HemalumError
from hemalum.losses.loss import Loss, LossInputs
from hemalum.metrics import (
    MatchCounts,
    PixelCounts,
    average_by_class,
    count_pixels,
    count_pixels_by_class,
    match,
    measure_overlap,
    score_pixels,
)
from hemalum.models.map_model import activate
from hemalum.models.windows import Span, missing, stitch, window_halo
from hemalum.networks import Outputs
from hemalum.training.context import TrainContext
from hemalum.training.distributed import all_reduce_figures
from hemalum.training.embeddings import Embed, Embedding
from hemalum.training.encoding import encode_extra, encode_targets, normalize_images, prepare_sample

Kind = TypeVar("Kind", np.int32, np.bool_)


@dataclass(frozen=True, slots=True, eq=False)
class _Image:
    """A validation image as the network takes it, its label map, the class of each nucleus, what counts nowhere."""

    dataset: str
    pixels: Tensor
    truth: NDArray[np.int32]
    classes: NDArray[np.int32] | None
    ambiguous: NDArray[np.bool_] | None
    conditions: dict[str, Tensor]
    embedding: Embedding | None = None


class Validation:
    """The validation images in full, at the model's scale; the same every time, and in each process its share.

    Where the context has a `window`, they are cut into windows of that side, as the model will be used; `embed` gives
    SAM's embeddings, which go with windows. `rows` are the images of all processes, by set. Raises HemalumError
    without images, or when the recipe monitors what none of them has.
    """

    def __init__(self, context: TrainContext, datasets: Sequence[Dataset], embed: Embed | None = None) -> None:
        self.context, self.representation = context, context.representation
        recipe, (which, shares) = context.recipe, context.share
        limit = recipe.most_validation_images
        most = sum(map(len, datasets)) if limit is None else max(1, limit // max(1, len(datasets)))
        chosen = [
            (name, dataset, int(index))
            for name, dataset in zip(recipe.data, datasets, strict=True)
            for index in np.unique(np.linspace(0, len(dataset) - 1, min(most, len(dataset))).astype(int))
        ]
        if not chosen:
            raise HemalumError("no validation images: the datasets' val parts are empty")
        monitored = any(phase.until.monitor == "miou" for phase in recipe.phases)
        classed = any(dataset.rows[index].classes is not None for _, dataset, index in chosen)
        if monitored and not classed and self.representation.heads[-1].partial:
            raise HemalumError(
                f"recipe {recipe.name} monitors miou and no validation image has classes of nuclei: raise "
                "validation_images, or monitor pq, dice or loss"
            )
        self.names = list(dict.fromkeys(name for name, _, _ in chosen))
        self.rows = {name: [one.rows[index] for other, one, index in chosen if other == name] for name in self.names}
        prepared = [self._prepare(*image) for number, image in enumerate(chosen, start=1) if number % shares == which]
        self.images = [image for image, _ in prepared]
        if embed is not None:
            embeddings = embed([unpadded for _, unpadded in prepared])
            pairs = zip(self.images, embeddings, strict=True)
            self.images = [replace(image, embedding=embedding) for image, embedding in pairs]

    def _prepare(self, name: str, dataset: Dataset, index: int) -> tuple[_Image, NDArray[np.uint8]]:
        """An image, padded to what the network takes, and its pixels as they were before."""
        context, spec = self.context, self.context.data_spec
        recipe, class_map = context.recipe, spec.class_map(dataset)
        sample = prepare_sample(dataset[index], recipe.mpp, context.stain, class_map, ambiguous=recipe.ambiguous)
        height, width = sample.image.shape[:2]
        if context.window:
            below, right = missing((height, width), context.window)
        else:
            below, right = -height % context.stride, -width % context.stride
        padded = torch.from_numpy(np.pad(sample.image, ((0, below), (0, right), (0, 0)), mode="symmetric"))
        unit = padded.permute(2, 0, 1)[None].float() / 255
        pixels = normalize_images(unit, context.recipe.input, context.recipe.input_range)
        truth = _resize_labels(sample.labels, height, width)
        conditions = {}
        if "organ" in spec.conditions:
            conditions["organ"] = torch.tensor([spec.find_organ(dataset.rows[index].organ)])
        ambiguous = None
        if sample.ambiguous is not None:
            ambiguous = _resize_labels(sample.ambiguous, height, width)
        return _Image(name, pixels, truth, sample.classes, ambiguous, conditions), sample.image

    @torch.inference_mode()
    def score(self, network: nn.Module, loss: Loss | None = None) -> dict[str, float]:
        """Pooled PQ and Dice of each set; `score` and `dice`: their means over sets.

        Where maps are of classes, pooled F1 and mIoU of the pixels' classes as well, of each set that has classes;
        `f1` and `miou`: their means. With a `loss`, `val_loss` is its mean over the images.
        """
        classes, fabric = len(self.representation.classes), self.context.fabric
        counts = {name: np.zeros(10 + 4 * classes) for name in self.names}
        for image in self.images:
            counts[image.dataset] += self._count(image, network, loss)
        if fabric.world_size > 1:
            # the same sums everywhere, so every process takes the same decisions
            table = fabric.to_device(torch.from_numpy(np.stack(list(counts.values()))))
            counts = dict(zip(counts, all_reduce_figures(fabric, table).cpu().numpy(), strict=True))
        pq = {name: MatchCounts(*row[:4]).pq for name, row in counts.items()}
        dice = {name: score_pixels(PixelCounts(*row[4:8])).dice for name, row in counts.items()}
        figures = {f"{name}_pq": value for name, value in pq.items()}
        figures |= {f"{name}_dice": value for name, value in dice.items()}
        figures |= {"score": float(np.nanmean(list(pq.values()))), "dice": float(np.nanmean(list(dice.values())))}
        if classes:
            scores = {
                name: average_by_class([[PixelCounts(*pixels) for pixels in row[10:].reshape(-1, 4)]], "pooled")
                for name, row in counts.items()
                if row[10:].any()  # no pixel of a set without classes is counted
            }
            for metric in ("f1", "miou") if scores else ():
                values = {name: float(getattr(score, metric)) for name, score in scores.items()}
                figures |= {f"{name}_{metric}": value for name, value in values.items()}
                figures[metric] = float(np.nanmean(list(values.values())))
        if loss is not None:
            total, images = np.sum([row[8:10] for row in counts.values()], axis=0)
            figures["val_loss"] = float(total / images)
        return figures

    def _count(self, image: _Image, network: nn.Module, loss: Loss | None) -> NDArray[np.float64]:
        """One image's counts, which add up: 4 of matches, 4 of pixels, the loss, 1, and 4 of pixels of each class."""
        separation = self.context.recipe.separation
        logits = self._predict(image, network)
        maps = np.ascontiguousarray(activate(logits, self.representation.heads)[0].cpu().numpy())
        labels = self.representation.separate(maps, separation)
        matches = match(measure_overlap(image.truth, labels, ambiguous=image.ambiguous))
        pixels = count_pixels(image.truth, labels, ambiguous=image.ambiguous)
        loss_value = 0.0 if loss is None else self._compute_loss(image, logits, loss)
        by_class = [PixelCounts(0, 0, 0, 0)] * len(self.representation.classes)
        if image.classes is not None:
            class_map = self.representation.classify(maps, separation.foreground)
            unknown = self.representation.unknown(image.truth, image.classes)
            if image.ambiguous is not None:
                unknown = unknown | image.ambiguous
            class_ids = range(1, len(self.representation.classes) + 1)
            truth = image.classes[image.truth]
            by_class = count_pixels_by_class(truth, class_map, class_ids, ambiguous=unknown)
        of_classes = [number for counts in by_class for number in astuple(counts)]
        return np.array([*astuple(matches), *astuple(pixels), loss_value, 1, *of_classes], np.float64)

    def _predict(self, image: _Image, network: nn.Module) -> Tensor:
        """Logits (1, C, H, W) float32 of the full image, out of those of its windows where it has some."""
        fabric, window = self.context.fabric, self.context.window
        height, width = image.truth.shape
        conditions = fabric.to_device(image.conditions)

        def run(rows: Span | None = None, columns: Span | None = None) -> Tensor:
            pixels, inputs = image.pixels, dict(conditions)
            if rows is not None and columns is not None:
                pixels = pixels[:, :, rows.start : rows.stop, columns.start : columns.stop]
                if image.embedding is not None:
                    affine = np.array([[1, 0, columns.start], [0, 1, rows.start]], np.float32)
                    inputs["embedding"] = fabric.to_device(image.embedding.cut(affine, rows.stop - rows.start)[None])
            with fabric.autocast():
                logits: Tensor = network(fabric.to_device(pixels), **inputs).float()
            return logits

        if window is None:
            return run()[:, :, :height, :width]
        reach = self.representation.smoothed(self.context.recipe.separation).reach
        halo = window_halo(window, self.context.stride, reach)
        stitched = stitch((height, width), window, halo, lambda rows, columns: run(rows, columns)[0].cpu().numpy())
        return fabric.to_device(torch.from_numpy(stitched)[None])

    def _compute_loss(self, image: _Image, logits: Tensor, loss: Loss) -> float:
        """The loss on one image, as one that is not trained on: from its logits alone."""
        targets = encode_targets(image.truth[None], self.representation, classes=[image.classes])
        extra = encode_extra(image.truth[None], loss.needs)
        valid = None if image.ambiguous is None else torch.from_numpy(~image.ambiguous)[None, None].float()
        targets, extra, valid = self.context.fabric.to_device((targets, extra, valid))
        parts = loss(LossInputs(Outputs.of(logits), targets, self.representation.heads, extra, valid))
        return float(torch.stack(list(parts.values())).sum())


def _resize_labels(labels: NDArray[Kind], height: int, width: int) -> NDArray[Kind]:
    """Label map or mask on another grid over the same field: each pixel takes the label under its center."""
    rows = ((np.arange(height) + 0.5) * labels.shape[0] / height).astype(int)
    columns = ((np.arange(width) + 0.5) * labels.shape[1] / width).astype(int)
    resized: NDArray[Kind] = labels[np.ix_(rows, columns)]
    return resized
