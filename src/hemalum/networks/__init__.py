"""Networks: pure modules that know nothing of losses, data, files or anything else of this package.

A new one is a file with a class that derives from `Network` (contract.py) and a row in NETWORKS.
"""

from collections.abc import Mapping
from typing import Any

from hemalum.networks.al_net import ALNet
from hemalum.networks.attention_unet import AttentionUNet
from hemalum.networks.awgunet import AWGUNet
from hemalum.networks.compact import Compact
from hemalum.networks.contract import Network, Outputs, nearest
from hemalum.networks.ddu_net import DDUNet
from hemalum.networks.deeplab import DeepLabV3, DeepLabV3Plus
from hemalum.networks.eunet3plus import EUNet3Plus
from hemalum.networks.medt import MedT
from hemalum.networks.micro_net import MicroNet
from hemalum.networks.region_attention import CSRANet
from hemalum.networks.seu_net import SEUNet
from hemalum.networks.swin_unet import SwinUNet
from hemalum.networks.transunet import TransUNet
from hemalum.networks.two_stage import TwoStage
from hemalum.networks.unet import UNet
from hemalum.networks.unet3plus import UNet3Plus
from hemalum.networks.unet_plus_plus import UNetPlusPlus

NETWORKS: dict[str, type[Network]] = {
    "al_net": ALNet,
    "attention_unet": AttentionUNet,
    "awgunet": AWGUNet,
    "compact": Compact,
    "csra_net": CSRANet,
    "ddu_net": DDUNet,
    "deeplabv3": DeepLabV3,
    "deeplabv3plus": DeepLabV3Plus,
    "eunet3plus": EUNet3Plus,
    "medt": MedT,
    "micro_net": MicroNet,
    "seu_net": SEUNet,
    "swin_unet": SwinUNet,
    "transunet": TransUNet,
    "two_stage": TwoStage,
    "unet": UNet,
    "unet3plus": UNet3Plus,
    "unet_plus_plus": UNetPlusPlus,
}

__all__ = ["NETWORKS", "Network", "Outputs", "create_network", "find_network"]


def find_network(name: str) -> type[Network]:
    """The class of a registered network. Raises ValueError for an unknown name (the nearest is named)."""
    if name not in NETWORKS:
        raise ValueError(f"unknown network '{name}'{nearest(name, NETWORKS)}")
    return NETWORKS[name]


def create_network(name: str, outputs: int, options: Mapping[str, Any]) -> Network:
    """Build a registered network with `outputs` logits.

    Raises ValueError for an unknown name or options that do not fit.
    """
    network = find_network(name)
    try:
        return network(outputs=outputs, **options)
    except TypeError as error:
        raise ValueError(f"network '{name}' does not take these options: {error}") from error
