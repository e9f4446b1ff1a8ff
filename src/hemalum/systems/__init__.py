"""The published systems by name: a network and a list of phases each, in one file, readable in one sitting."""

from typing import Any

from hemalum.settings import build_named
from hemalum.systems.al_net import ALNet
from hemalum.systems.clin_seg_net import ClinSegNet
from hemalum.systems.csra_net import CSRANet
from hemalum.systems.eunet3plus import EUNet3PlusSam
from hemalum.systems.system import SystemSettings
from hemalum.systems.two_stage import TwoStageEnhancement

__all__ = ["SYSTEMS", "SystemSettings", "build_system"]

SYSTEMS: dict[str, type[SystemSettings]] = {
    "al_net": ALNet,
    "clin_seg_net": ClinSegNet,
    "csra_net": CSRANet,
    "eunet3plus": EUNet3PlusSam,
    "two_stage": TwoStageEnhancement,
}


def build_system(spec: Any) -> SystemSettings:
    """Give the system that a recipe writes: its name, or a mapping of `name` and options.

    Raises HemalumError for an unknown name or option (the nearest is named), or a value that is not possible.
    """
    return build_named("system", spec, SYSTEMS)
