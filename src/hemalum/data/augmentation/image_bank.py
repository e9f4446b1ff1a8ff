"""Training images held on a GPU, and crops of them cut there.

Cutting takes most of what a loader process spends on a crop. On a GPU it takes next to nothing, and the training sets
of a lab fit into a fraction of its memory. The crops are those of `warp`, but for rounding.
"""

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from hemalum.data.augmentation.warp import spline


class ImageBank:
    """Images (H, W, 3) uint8 of any sizes, one after the other in one tensor on `device`."""

    def __init__(self, images: Sequence[NDArray[np.uint8]], device: torch.device) -> None:
        sizes = torch.tensor([image.shape[:2] for image in images])
        ends = (sizes.prod(dim=1) * 3).cumsum(0)
        self.pixels = torch.from_numpy(np.concatenate([image.ravel() for image in images])).to(device)
        self.start = torch.cat([torch.zeros(1, dtype=torch.int64), ends[:-1]]).to(device)
        self.height, self.width = sizes.to(device).unbind(dim=1)
        self._splines: dict[int, Tensor] = {}

    def cut(self, index_B: Tensor, affine_B23: Tensor, shift_B2KK: Tensor, size: int) -> Tensor:
        """Crops (B, 3, size, size) uint8, bilinear, mirrored at the border, placed as by `warp.draw_geometry`."""
        if size not in self._splines:
            self._splines[size] = torch.from_numpy(spline(size)).to(self.pixels.device)
        basis = self._splines[size]
        shift = torch.einsum("mi,bcmk,kj->bcij", basis, shift_B2KK, basis)
        middle = torch.arange(size, device=self.pixels.device) + 0.5
        across, down = shift[:, 0] + middle, shift[:, 1] + middle[:, None]
        a = affine_B23[:, :, :, None, None]
        x = a[:, 0, 0] * across + a[:, 0, 1] * down + a[:, 0, 2] - 0.5
        y = a[:, 1, 0] * across + a[:, 1, 1] * down + a[:, 1, 2] - 0.5
        left, top = x.floor(), y.floor()
        u, v = (x - left)[:, None], (y - top)[:, None]
        columns = [_mirror(left.long() + step, self.width[index_B]) for step in (0, 1)]
        rows = [_mirror(top.long() + step, self.height[index_B]) for step in (0, 1)]
        start, width = self.start[index_B].view(-1, 1, 1), self.width[index_B].view(-1, 1, 1)

        def at(row: Tensor, column: Tensor) -> Tensor:
            first = start + (row * width + column) * 3
            return torch.stack([self.pixels[first + channel] for channel in range(3)], dim=1).float()

        upper = torch.lerp(at(rows[0], columns[0]), at(rows[0], columns[1]), u)
        lower = torch.lerp(at(rows[1], columns[0]), at(rows[1], columns[1]), u)
        return (torch.lerp(upper, lower, v) + 0.5).to(torch.uint8)


def _mirror(index_BHW: Tensor, length_B: Tensor) -> Tensor:
    """Indices mirrored at the borders, each border pixel twice."""
    length = length_B.view(-1, 1, 1)
    folded = index_BHW.remainder(2 * length)
    return torch.where(folded < length, folded, 2 * length - 1 - folded)
