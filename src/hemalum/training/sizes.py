"""Whether a training can be at all: sizes of network, batch and images against the machine, before it begins."""

import math
import os
from collections.abc import Sequence

import torch

from hemalum.data.dataset import Dataset
from hemalum.data.image import plain_size
from hemalum.errors import HemalumError
from hemalum.training.recipe import Recipe

MUCH_FINER = 4.0  # an image that is enlarged more than this is looked at; others are held much as they lie on disk
LEAST_SIDE = 8  # px of an image at the recipe's scale: no nucleus could be learned from less
FLOAT = 4  # bytes


def total_memory(device: torch.device) -> float:
    """Bytes of memory of a GPU, or of this machine; infinite where the system does not say."""
    if device.type == "cuda":
        return float(torch.cuda.get_device_properties(device).total_memory)
    try:
        return float(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))
    except (AttributeError, OSError, ValueError):
        return math.inf


def check_memory(recipe: Recipe, weights: int, logits: int, device: torch.device, processes: int) -> None:
    """Raise HemalumError where a network of so many weights, or a batch of its maps, is more than all memory.

    Bounds from below: weights and gradients, pixels, logits and targets. What passes may still be too much.
    """
    memory, where = total_memory(device), f"recipe {recipe.name}"
    needed = 2 * FLOAT * weights
    if needed > memory:
        raise HemalumError(
            f"{where}: its network has {weights:,} weights, which with their gradients take {_size(needed)} of the "
            f"{_size(memory)} there are: take smaller widths"
        )
    pixels = math.ceil(recipe.batch / processes) * recipe.tile**2
    needed += FLOAT * pixels * (3 + 2 * logits)
    if needed > memory:
        raise HemalumError(
            f"{where}: a batch of {recipe.batch:,} crops of {recipe.tile:,} x {recipe.tile:,} px takes at least "
            f"{_size(needed)} of the {_size(memory)} there are: take a smaller batch or tile"
        )


def check_images(recipe: Recipe, datasets: Sequence[Dataset]) -> None:
    """Raise HemalumError for images without a scale, parts without any, and a scale at which images cannot be."""
    parts = {part: [dataset.split(part) for dataset in datasets] for part in ("train", "val")}
    if not any(map(len, parts["train"])):
        raise HemalumError("no training images: the datasets' train parts are empty")
    if not any(map(len, parts["val"])):
        raise HemalumError("no validation images: the datasets' val parts are empty")
    held, memory = 0.0, total_memory(torch.device("cpu"))
    for dataset in (one for of_part in parts.values() for one in of_part):
        for row in dataset.rows:
            if row.mpp is None:
                raise HemalumError(
                    f"sample {row.id} has no mpp: import its dataset with --mpp NUMBER or --mpp nuclei"
                )
            factor = row.mpp / recipe.mpp
            if 1 / MUCH_FINER < factor < MUCH_FINER:
                continue
            size = plain_size(dataset.path / row.image) or (0, 0)
            if 0 < max(size) * factor < LEAST_SIDE:
                raise HemalumError(
                    f"recipe {recipe.name}: mpp {recipe.mpp:g} leaves {max(size) * factor:.1f} px of image {row.id} "
                    f"of {dataset.path}, whose own is {row.mpp:g}: want a finer scale"
                )
            held += 3 * math.prod(size) * factor**2
            if held > memory:
                raise HemalumError(
                    f"recipe {recipe.name}: mpp {recipe.mpp:g} enlarges image {row.id} of {dataset.path} "
                    f"{factor:,.0f} times: more than the {_size(memory)} of memory: want a coarser scale"
                )


def _size(bytes: float) -> str:
    return f"{bytes / 2**30:,.1f} GiB"
