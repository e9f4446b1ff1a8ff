"""What the loop measures on the validation images: nucleus PQ and pixel Dice, per set."""

from collections.abc import Sequence

import numpy as np
import torch
from lightning_fabric import Fabric
from numpy.typing import NDArray
from torch import Tensor, nn

from hemalum.data.dataset import Dataset
from hemalum.errors import HemalumError
from hemalum.instances.representations import REPRESENTATIONS
from hemalum.metrics import MatchCounts, PixelCounts, count_pixels, match, measure_overlap, score_pixels
from hemalum.networks.map_model import activate
from hemalum.training.recipe import Recipe
from hemalum.training.stream import normalise, prepare


class Validation:
    """The validation images, whole, at the model's scale; the same every time."""

    def __init__(self, recipe: Recipe, datasets: Sequence[Dataset], stride: int) -> None:
        self.recipe = recipe
        self.images: list[tuple[str, Tensor, NDArray[np.int32]]] = []
        share = max(1, recipe.validation_images // max(1, len(datasets)))
        for name, dataset in zip(recipe.data, datasets, strict=True):
            chosen = np.unique(np.linspace(0, len(dataset) - 1, min(share, len(dataset))).astype(int))
            for index in chosen:
                sample = prepare(dataset[int(index)], recipe.mpp)
                height, width = sample.image.shape[:2]
                padding = ((0, -height % stride), (0, -width % stride), (0, 0))
                pixels = torch.from_numpy(np.pad(sample.image, padding, mode="symmetric"))
                image = normalise(pixels.permute(2, 0, 1)[None].float() / 255)
                self.images.append((name, image, _resize_labels(sample.labels, height, width)))
        if not self.images:
            raise HemalumError("no validation images: the datasets' val parts are empty")

    @torch.inference_mode()
    def score(self, network: nn.Module, fabric: Fabric) -> dict[str, float]:
        """Pooled PQ and Dice of each set, and `score`: the mean PQ over sets."""
        representation = REPRESENTATIONS[self.recipe.representation]
        matches: dict[str, MatchCounts] = {}
        pixels: dict[str, PixelCounts] = {}
        for name, image, truth in self.images:
            with fabric.autocast():
                logits = network(fabric.to_device(image))
            maps = activate(logits.float(), representation.heads)[0].cpu().numpy()
            height, width = truth.shape
            maps = np.ascontiguousarray(maps[:, :height, :width])
            found = representation.separate(maps, self.recipe.separation)
            one = match(measure_overlap(truth, found))
            matches[name] = matches[name] + one if name in matches else one
            counted = count_pixels(truth, found)
            pixels[name] = pixels[name] + counted if name in pixels else counted
        rows = {f"{name}_pq": counts.pq for name, counts in matches.items()}
        score = float(np.nanmean(list(rows.values())))
        rows |= {f"{name}_dice": score_pixels(counts).dice for name, counts in pixels.items()}
        return rows | {"score": score}


def _resize_labels(labels: NDArray[np.int32], height: int, width: int) -> NDArray[np.int32]:
    """Label map on another grid over the same field: each pixel takes the label under its centre."""
    rows = ((np.arange(height) + 0.5) * labels.shape[0] / height).astype(int)
    columns = ((np.arange(width) + 0.5) * labels.shape[1] / width).astype(int)
    resized: NDArray[np.int32] = labels[np.ix_(rows, columns)]
    return resized
