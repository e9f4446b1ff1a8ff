"""Networks: pure modules that know nothing of losses, data or files. Registry by name."""

import inspect
from collections.abc import Callable
from typing import Any

from torch import nn

from hemalum.errors import HemalumError
from hemalum.names import nearest
from hemalum.networks.al_net import ALNet
from hemalum.networks.attention_unet import AttentionUNet
from hemalum.networks.awgunet import AWGUNet
from hemalum.networks.compact import Compact
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

NETWORKS: dict[str, Callable[..., nn.Module]] = {
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


def build_network(name: str, outputs: int, options: dict[str, Any]) -> nn.Module:
    """Build a registered network with `outputs` logits.

    Raises HemalumError for an unknown name (the nearest is named) or options that it does not take.
    """
    if name not in NETWORKS:
        raise HemalumError(f"unknown network '{name}'{nearest(name, NETWORKS)}")
    try:
        return NETWORKS[name](outputs=outputs, **options)
    except TypeError as error:
        raise HemalumError(f"network '{name}' does not take these options: {error}") from error


def takes(name: str, option: str) -> bool:
    """Whether a registered network has the option. Raises HemalumError for an unknown network."""
    if name not in NETWORKS:
        raise HemalumError(f"unknown network '{name}'{nearest(name, NETWORKS)}")
    return option in inspect.signature(NETWORKS[name]).parameters
