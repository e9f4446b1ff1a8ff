"""How far a network looks: the halo that a tile needs so that its core equals the whole image's."""

import copy

import torch
from torch import nn


def measure_halo(network: nn.Module, stride: int, largest: int = 512) -> int:
    """Receptive field radius of an output pixel, in input px, rounded up to `stride`.

    Measured, not derived: every weight is made positive, so no path cancels, and the input pixels that have a
    gradient from an output pixel are found, for each place of that pixel within the stride. Gives `largest` when
    the network sees further (or everything).
    """
    probe = copy.deepcopy(network).eval().float()
    for module in probe.modules():
        if isinstance(module, nn.ReLU):
            module.inplace = False
        for parameter in module.parameters(recurse=False):
            parameter.data.abs_().add_(1e-3)
    size, reach = 128, 0
    while True:
        reach = _reach(probe, size - size % stride, stride)
        if reach < size // 2 - stride or size >= 2 * largest:
            return min(largest, reach + -reach % stride)
        size *= 2


def _reach(probe: nn.Module, size: int, stride: int) -> int:
    centre = size // 2 - size // 2 % stride
    furthest = 0
    for corner in (centre, centre + stride - 1):
        x = torch.ones(1, 3, size, size, requires_grad=True)
        probe(x)[0, :, corner, corner].sum().backward()
        if x.grad is None:
            return size
        rows = torch.nonzero(x.grad.abs().sum((0, 1, 3)))
        furthest = max(furthest, int((rows - corner).abs().max()))
    return furthest
