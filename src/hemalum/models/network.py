"""A network before it is a model: built by its name in a recipe or card, and how far it looks."""

import copy
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from hemalum.errors import HemalumError, one_line
from hemalum.networks import Network, create_network, find_network


def build_network(name: str, outputs: int, options: Mapping[str, Any]) -> Network:
    """Build a registered network with `outputs` logits.

    Raises HemalumError for an unknown name (the nearest is named) or options that do not fit.
    """
    try:
        return create_network(name, outputs, options)
    except ValueError as error:
        raise HemalumError(str(error)) from error
    except (RuntimeError, ArithmeticError, LookupError, TypeError, AttributeError) as error:
        raise HemalumError(f"network '{name}' cannot be built with these options: {one_line(error)}") from error


def option_defaults(name: str) -> dict[str, Any]:
    """The options of a registered network and their defaults. Raises HemalumError for an unknown network."""
    try:
        return find_network(name).option_defaults()
    except ValueError as error:
        raise HemalumError(str(error)) from error


def measure_halo(network: nn.Module, stride: int, largest: int = 512, inputs: int = 3) -> int:
    """Receptive field radius of an output pixel of a network of `inputs` channels, in px, rounded up to `stride`.

    It is the halo that a tile needs so that its core equals the whole image's. Measured, not derived: every weight is
    made positive, so no path cancels, and small, so that no sigmoid or tanh is driven to where it is flat; then the
    input pixels that have a gradient from an output pixel are found, for that pixel at the first and at the last
    position within the stride. Gives `largest` when the network sees further (or everything).
    """
    probe = copy.deepcopy(network).eval().float()
    for module in probe.modules():
        if isinstance(module, nn.ReLU):
            module.inplace = False
        for parameter in module.parameters(recurse=False):
            _make_gentle(parameter.data, int(isinstance(module, nn.ConvTranspose2d)))
    size, reach = 128, 0
    while True:
        reach = _measure_reach(probe, size - size % stride, stride, inputs)
        if reach < size // 2 - stride or size >= 2 * largest:
            return min(largest, reach + -reach % stride)
        size *= 2


def _make_gentle(weight: Tensor, output_axis: int) -> None:
    """Make weights positive, and those of each output, which `output_axis` counts, sum to no more than 1."""
    weight.abs_().add_(1e-3)
    if weight.ndim > 1:
        weight.div_(weight.sum([axis for axis in range(weight.ndim) if axis != output_axis], keepdim=True))


def _measure_reach(probe: nn.Module, size: int, stride: int, inputs: int) -> int:
    """How many rows a row depends on, to either side; a strip of columns is enough to see it."""
    center = size // 2 - size // 2 % stride
    width = max(32 - 32 % stride, stride)
    device = next((parameter.device for parameter in probe.parameters()), None)
    furthest = 0
    for corner in (center, center + stride - 1):
        x = torch.ones(1, inputs, size, width, device=device, requires_grad=True)
        probe(x)[0, :, corner].sum().backward()
        if x.grad is None:
            return size
        rows = torch.nonzero(x.grad.abs().sum((0, 1, 3)))
        furthest = max(furthest, int((rows - corner).abs().max()))
    return furthest
