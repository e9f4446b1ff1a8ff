"""What the loop measures on the validation images: nucleus PQ and pixel Dice, per set."""

from collections.abc import Sequence
from dataclasses import astuple

import numpy as np
import torch
from lightning_fabric import Fabric
from numpy.typing import NDArray
from torch import Tensor, nn

from hemalum.data.dataset import Dataset
from hemalum.data.stain_normalisation import StainNormaliser
from hemalum.errors import HemalumError
from hemalum.instances.representations import REPRESENTATIONS
from hemalum.metrics import MatchCounts, PixelCounts, count_pixels, match, measure_overlap, score_pixels
from hemalum.networks.map_model import activate
from hemalum.training.processes import add_up_figures
from hemalum.training.recipe import Recipe
from hemalum.training.stream import normalise, prepare


class Validation:
    """The validation images, whole, at the model's scale; the same every time.

    `share` says which of them are scored here, as (which, of how many shares).
    """

    def __init__(
        self,
        recipe: Recipe,
        datasets: Sequence[Dataset],
        stride: int,
        share: tuple[int, int] = (0, 1),
        stain: StainNormaliser | None = None,
    ) -> None:
        self.recipe = recipe
        self.names: list[str] = []
        self.images: list[tuple[str, Tensor, NDArray[np.int32]]] = []
        most = max(1, recipe.validation_images // max(1, len(datasets)))
        count = 0
        for name, dataset in zip(recipe.data, datasets, strict=True):
            chosen = np.unique(np.linspace(0, len(dataset) - 1, min(most, len(dataset))).astype(int))
            if len(chosen):
                self.names.append(name)
            for index in chosen:
                count += 1
                if count % share[1] != share[0]:
                    continue
                sample = prepare(dataset[int(index)], recipe.mpp, stain)
                height, width = sample.image.shape[:2]
                padding = ((0, -height % stride), (0, -width % stride), (0, 0))
                pixels = torch.from_numpy(np.pad(sample.image, padding, mode="symmetric"))
                image = normalise(pixels.permute(2, 0, 1)[None].float() / 255)
                self.images.append((name, image, _resize_labels(sample.labels, height, width)))
        if not self.names:
            raise HemalumError("no validation images: the datasets' val parts are empty")

    @torch.inference_mode()
    def score(self, network: nn.Module, fabric: Fabric) -> dict[str, float]:
        """Pooled PQ and Dice of each set, and `score`: the mean PQ over sets."""
        representation = REPRESENTATIONS[self.recipe.representation]
        counts = {name: np.zeros(8) for name in self.names}
        for name, image, truth in self.images:
            with fabric.autocast():
                logits = network(fabric.to_device(image))
            maps = activate(logits.float(), representation.heads)[0].cpu().numpy()
            height, width = truth.shape
            maps = np.ascontiguousarray(maps[:, :height, :width])
            found = representation.separate(maps, self.recipe.separation)
            counts[name] += [*astuple(match(measure_overlap(truth, found))), *astuple(count_pixels(truth, found))]
        if fabric.world_size > 1:
            # the same sums everywhere, so every process takes the same decisions
            table = fabric.to_device(torch.from_numpy(np.stack(list(counts.values()))))
            counts = dict(zip(counts, add_up_figures(fabric, table).cpu().numpy(), strict=True))
        matches = {name: MatchCounts(*row[:4]) for name, row in counts.items()}
        pixels = {name: PixelCounts(*row[4:]) for name, row in counts.items()}
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
