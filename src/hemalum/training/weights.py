"""A network's weights while it trains: which of them a phase moves, and their running average.

A network in stages (two_stage) is trained stage by stage: while the first one trains, the second one is off, and what
is trained and validated is what the first one gives. Its `stage_toggles` name the stages that a phase can turn off.
"""

import fnmatch
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from torch import Tensor, nn
from torch.optim.swa_utils import get_ema_multi_avg_fn

from hemalum.errors import HemalumError, nearest
from hemalum.networks import Network
from hemalum.systems.phases import Phase

Weights = dict[str, Tensor]  # a state dict


def check_phases(network: Network, phases: Sequence[Phase]) -> None:
    """Raise HemalumError for a toggle or a pattern that matches nothing, a phase that trains none, or a toggle off at
    the end.

    A pattern may name the `aux_heads` of a network that has none.
    """
    known = network.stage_toggles
    names = [name for name, _ in network.named_parameters()]
    names += [f"{name}.aux_heads.".removeprefix(".") for name, _ in network.named_modules()]
    for phase in phases:
        for name in phase.stage_toggles:
            if name not in known:
                hint = nearest(name, known) if known else "; this network has none"
                raise HemalumError(f"phase '{phase.name}': the network has no stage toggle '{name}'{hint}")
        for pattern in phase.train:
            if not fnmatch.filter(names, pattern.removeprefix("!")):
                parts = ", ".join(name for name, _ in network.named_children())
                raise HemalumError(
                    f"phase '{phase.name}': no parameter matches '{pattern}'; the network's parts are {parts}"
                )
        if not any(phase.trains(name) for name, _ in network.named_parameters()):
            raise HemalumError(f"phase '{phase.name}': no parameter trains by {', '.join(phase.train)}")
    off = [name for name, on in phases[-1].stage_toggles.items() if not on]
    if off:
        raise HemalumError(
            f"phase '{phases[-1].name}' is the last one and has {', '.join(off)} off, which the trained model has on"
        )


def set_stages(network: Network, phase: Phase) -> None:
    """Turn the stages of the network on or off, as the phase has them."""
    for name in network.stage_toggles:
        setattr(network, name, phase.stage_toggles.get(name, True))


def freeze(network: Network, phase: Phase) -> list[nn.Parameter]:
    """Let only the phase's parameters train, and give them; a module that has none of them goes to eval mode.

    Its stages are turned on or off as well. `check_phases` has seen to it that some parameter trains.
    """
    set_stages(network, phase)
    for name, parameter in network.named_parameters():
        parameter.requires_grad_(phase.trains(name))
    set_mode(network)
    return [parameter for parameter in network.parameters() if parameter.requires_grad]


def set_mode(network: nn.Module, training: bool = True) -> None:
    """Put what trains in train mode; a module without parameters (dropout) goes with the one that holds it."""
    parameters = list(network.parameters())
    network.training = any(parameter.requires_grad for parameter in parameters) if parameters else training
    for child in network.children():
        set_mode(child, network.training)


def copy_weights(network: nn.Module) -> Weights:
    """The state dict as it stands, which later steps do not change."""
    return {name: value.detach().clone() for name, value in network.state_dict().items()}


def update_average(average: Weights, network: nn.Module, largest_decay: float, step: int) -> None:
    """Move averaged weights towards those after `step`; the decay starts low so that the beginning is forgotten."""
    decay = min(largest_decay, (1 + step) / (10 + step))
    averages: list[Tensor] = []
    values: list[Tensor] = []
    for name, value in network.state_dict().items():
        if value.is_floating_point():
            averages.append(average[name])
            values.append(value)
        else:
            average[name].copy_(value)
    # a kernel or two, not one for each tensor
    get_ema_multi_avg_fn(decay)(averages, values, 0)  # type: ignore[no-untyped-call]


@contextmanager
def averaged(network: nn.Module, average: Weights | None) -> Iterator[nn.Module]:
    """The network in eval mode, with the averaged weights where there are any, for the block's time."""
    weights = copy_weights(network)
    if average is not None:
        network.load_state_dict(average)
    network.eval()
    try:
        yield network
    finally:
        network.load_state_dict(weights)
        set_mode(network)
