"""Parts of a network that a phase can turn off, by the names in the network's attribute `switches`.

A network in stages (two_stage) is trained stage by stage: while the first one trains, the second one is off, and what
is trained and validated is what the first one gives.
"""

from collections.abc import Sequence

from torch import nn

from hemalum.errors import HemalumError
from hemalum.names import nearest
from hemalum.systems.phases import Phase


def check_switches(network: nn.Module, phases: Sequence[Phase]) -> None:
    """Raise HemalumError for a switch that the network does not have, or one that is off at the end of the run."""
    known = getattr(network, "switches", ())
    for phase in phases:
        for name in phase.switches:
            if name not in known:
                has = nearest(name, known) if known else "; this network has none"
                raise HemalumError(f"phase '{phase.name}': the network has no switch '{name}'{has}")
    off = [name for name, on in phases[-1].switches.items() if not on]
    if off:
        raise HemalumError(
            f"phase '{phases[-1].name}' is the last one and has {', '.join(off)} off, which the trained model has on"
        )


def set_switches(network: nn.Module, phase: Phase) -> None:
    """Turn the network's parts on or off for a phase."""
    for name in getattr(network, "switches", ()):
        setattr(network, name, phase.switches.get(name, True))
