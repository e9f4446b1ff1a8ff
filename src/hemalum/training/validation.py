"""What the loop measures on the validation images: nucleus PQ and pixel Dice, per set, and the loss."""

from collections.abc import Sequence
from dataclasses import astuple, dataclass, replace

import numpy as np
import torch
from lightning_fabric import Fabric
from numpy.typing import NDArray
from torch import Tensor, nn

from hemalum.data.dataset import Dataset
from hemalum.data.stain_normalisation import StainNormaliser
from hemalum.errors import HemalumError
from hemalum.instances.representations import find_representation
from hemalum.losses.loss import Given, Loss
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
from hemalum.models.windows import Span, missing, stitch, window_halo
from hemalum.networks.map_model import activate
from hemalum.networks.outputs import Outputs
from hemalum.training.embeddings import Embed, Embedding
from hemalum.training.processes import add_up_figures
from hemalum.training.recipe import Recipe
from hemalum.training.stream import Facts, encode, encode_extra, normalise, prepare


@dataclass(frozen=True, slots=True, eq=False)
class _Image:
    """A validation image as the network takes it, its label map, and the class of each nucleus."""

    dataset: str
    pixels: Tensor
    truth: NDArray[np.int32]
    classes: NDArray[np.int32] | None
    conditions: dict[str, Tensor]
    embedding: Embedding | None = None


class Validation:
    """The validation images, whole, at the model's scale; the same every time.

    `share` says which of them are scored here, as (which, of how many shares). With a `window`, they are cut into
    windows of that side, as the model will be used; `embed` gives SAM's embeddings, which go with windows.
    """

    def __init__(
        self,
        recipe: Recipe,
        datasets: Sequence[Dataset],
        stride: int,
        share: tuple[int, int] = (0, 1),
        stain: StainNormaliser | None = None,
        facts: Facts | None = None,
        window: int | None = None,
        embed: Embed | None = None,
    ) -> None:
        self.recipe, self.stride, self.window = recipe, stride, window
        facts = facts or Facts()
        self.representation = find_representation(recipe.representation, facts.classes)
        self.names: list[str] = []
        self.images: list[_Image] = []
        classed = False
        plain: list[NDArray[np.uint8]] = []
        most = max(1, recipe.validation_images // max(1, len(datasets)))
        count = 0
        for name, dataset in zip(recipe.data, datasets, strict=True):
            chosen = np.unique(np.linspace(0, len(dataset) - 1, min(most, len(dataset))).astype(int))
            if len(chosen):
                self.names.append(name)
            for index in chosen:
                classed |= dataset.rows[int(index)].classes is not None
                count += 1
                if count % share[1] != share[0]:
                    continue
                sample = prepare(dataset[int(index)], recipe.mpp, stain, facts.kinds(dataset))
                height, width = sample.image.shape[:2]
                below, right = missing((height, width), window) if window else (-height % stride, -width % stride)
                padding = ((0, below), (0, right), (0, 0))
                pixels = torch.from_numpy(np.pad(sample.image, padding, mode="symmetric"))
                image = normalise(pixels.permute(2, 0, 1)[None].float() / 255, recipe.input)
                truth = _resize_labels(sample.labels, height, width)
                conditions = {}
                if "organ" in facts.conditions:
                    conditions["organ"] = torch.tensor([facts.organ(dataset.rows[int(index)].organ)])
                self.images.append(_Image(name, image, truth, sample.classes, conditions))
                plain.append(sample.image)
        if not self.names:
            raise HemalumError("no validation images: the datasets' val parts are empty")
        monitored = any(phase.until.monitor == "miou" for phase in recipe.phases)
        if monitored and not classed and self.representation.heads[-1].partial:
            raise HemalumError(
                f"recipe {recipe.name} monitors miou and no validation image has classes of nuclei: raise "
                "validation_images, or monitor pq, dice or loss"
            )
        if embed is not None:
            self.images = [
                replace(image, embedding=embedding)
                for image, embedding in zip(self.images, embed(plain), strict=True)
            ]

    @torch.inference_mode()
    def score(self, network: nn.Module, fabric: Fabric, loss: Loss | None = None) -> dict[str, float]:
        """Pooled PQ and Dice of each set; `score` and `dice`: their means over sets.

        Where maps are of classes, pooled F1 and mIoU of the pixels' classes as well, of each set that has classes;
        `f1` and `miou`: their means. With a `loss`, `val_loss` is its mean over the images.
        """
        kinds = range(1, len(self.representation.classes) + 1)
        counts = {name: np.zeros(10 + 4 * len(kinds)) for name in self.names}
        for image in self.images:
            logits = self._logits(image, network, fabric)
            maps = np.ascontiguousarray(activate(logits, self.representation.heads)[0].cpu().numpy())
            found = self.representation.separate(maps, self.recipe.separation)
            matches, pixels = match(measure_overlap(image.truth, found)), count_pixels(image.truth, found)
            lost = 0.0 if loss is None else self._loss(image, logits, loss, fabric)
            by_class: list[PixelCounts] = []
            if image.classes is not None:
                given = self.representation.classify(maps, self.recipe.separation.foreground)
                unknown = self.representation.unknown(image.truth, image.classes)
                by_class = count_pixels_by_class(image.classes[image.truth], given, kinds, ambiguous=unknown)
            numbers = [number for own in by_class for number in astuple(own)]
            counts[image.dataset] += [*astuple(matches), *astuple(pixels), lost, 1, *numbers]
        if fabric.world_size > 1:
            # the same sums everywhere, so every process takes the same decisions
            table = fabric.to_device(torch.from_numpy(np.stack(list(counts.values()))))
            counts = dict(zip(counts, add_up_figures(fabric, table).cpu().numpy(), strict=True))
        quality = {name: MatchCounts(*row[:4]).pq for name, row in counts.items()}
        dice = {name: score_pixels(PixelCounts(*row[4:8])).dice for name, row in counts.items()}
        rows = {f"{name}_pq": value for name, value in quality.items()}
        rows |= {f"{name}_dice": value for name, value in dice.items()}
        rows |= {"score": float(np.nanmean(list(quality.values()))), "dice": float(np.nanmean(list(dice.values())))}
        if kinds:
            scores = {
                name: average_by_class([[PixelCounts(*own) for own in row[10:].reshape(-1, 4)]], "pooled")
                for name, row in counts.items()
                if row[10:].any()  # no pixel of a set without classes is counted
            }
            for metric in ("f1", "miou") if scores else ():
                values = {name: float(getattr(own, metric)) for name, own in scores.items()}
                rows |= {f"{name}_{metric}": value for name, value in values.items()}
                rows[metric] = float(np.nanmean(list(values.values())))
        if loss is not None:
            lost, images = np.sum([row[8:10] for row in counts.values()], axis=0)
            rows["val_loss"] = float(lost / images)
        return rows

    def _logits(self, image: _Image, network: nn.Module, fabric: Fabric) -> Tensor:
        """Logits (1, C, H, W) float32 of the whole image, out of those of its windows where it has some."""
        height, width = image.truth.shape
        conditions = fabric.to_device(image.conditions)

        def run(rows: Span | None = None, columns: Span | None = None) -> Tensor:
            pixels, told = image.pixels, dict(conditions)
            if rows is not None and columns is not None:
                pixels = pixels[:, :, rows.start : rows.stop, columns.start : columns.stop]
                if image.embedding is not None:
                    affine = np.array([[1, 0, columns.start], [0, 1, rows.start]], np.float32)
                    told["embedding"] = fabric.to_device(image.embedding.cut(affine, rows.stop - rows.start)[None])
            with fabric.autocast():
                logits: Tensor = network(fabric.to_device(pixels), **told).float()
            return logits

        if self.window is None:
            return run()[:, :, :height, :width]
        reach = self.representation.smoothed(self.recipe.separation).reach
        halo = window_halo(self.window, self.stride, reach)
        whole = stitch((height, width), self.window, halo, lambda rows, columns: run(rows, columns)[0].cpu().numpy())
        return fabric.to_device(torch.from_numpy(whole)[None])

    def _loss(self, image: _Image, logits: Tensor, loss: Loss, fabric: Fabric) -> float:
        """The loss on one image, as one that is not trained on: from its logits alone."""
        targets = encode(image.truth[None], self.representation, classes=[image.classes])
        targets, extra = fabric.to_device((targets, encode_extra(image.truth[None], loss.needs)))
        parts = loss(Given(Outputs.of(logits), targets, self.representation.heads, extra))
        return float(torch.stack(list(parts.values())).sum())


def _resize_labels(labels: NDArray[np.int32], height: int, width: int) -> NDArray[np.int32]:
    """Label map on another grid over the same field: each pixel takes the label under its centre."""
    rows = ((np.arange(height) + 0.5) * labels.shape[0] / height).astype(int)
    columns = ((np.arange(width) + 0.5) * labels.shape[1] / width).astype(int)
    resized: NDArray[np.int32] = labels[np.ix_(rows, columns)]
    return resized
