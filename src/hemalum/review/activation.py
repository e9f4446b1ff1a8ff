"""Where the features that a network decides from are strong: the mean of |activation| before its last layer."""

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional as F

from hemalum.errors import HemalumError
from hemalum.inference.bands import bands, exact_windows, plan_windows
from hemalum.inference.image import ImageSource
from hemalum.inference.model import Model
from hemalum.inference.segment import find_scale, scaled_shape
from hemalum.inference.staining import find_staining
from hemalum.instances.representations import REPRESENTATIONS, find_representation
from hemalum.networks.map_model import build


def activation_map(source: ImageSource, model: Model, *, mpp: float) -> NDArray[np.float32]:
    """Mean over channels of |features| that the head reads, (H, W) float32 on the image's grid; `mpp` in µm per px.

    The head is the network's layer of that name, else its last convolution. Windows are those of inference. It is
    no explanation: it says where the last features are strong, not why. Held whole: for tiles, not for slides.
    Raises HemalumError when the network has no such layer.
    """
    card = model.card
    engine = _Activations(model)
    shape = scaled_shape(source.shape, find_scale(source, model, engine, mpp).mpp / card.mpp)
    reach = find_representation(card.representation, card.classes).smoothed(card.separation).reach
    if card.window is not None:
        grid = exact_windows(shape, card.window, stride=card.stride, reach=reach)
    else:
        grid = plan_windows(shape, halo=card.halo + reach, stride=card.stride, enlarge=1)
    rows = [
        band.maps[0].copy()
        for band in bands(
            source, engine, REPRESENTATIONS["foreground"], shape, grid, stride=card.stride, enlarge=1,
            window=card.window, change=find_staining(source, model).change, organ=model.organ,
        )
    ]  # fmt: skip
    height, width = source.shape
    whole = Image.fromarray(np.concatenate(rows)).resize((width, height), Image.Resampling.BILINEAR)
    return np.asarray(whole, np.float32)


class _Activations:
    """An engine whose one map is the mean absolute activation, at the size of its input."""

    name, precision, parallel = "torch", "f32", 1

    def __init__(self, model: Model) -> None:
        self._model = build(model.with_organ(None).card, model.tensors)
        self._seen: list[Tensor] = []
        _last_layer(self._model.network, model.card.network.name).register_forward_pre_hook(
            lambda _, given: self._seen.append(given[0].detach())
        )

    def maps(self, images: NDArray[np.uint8], organ: int | None = None) -> NDArray[np.float32]:
        """See `Engine.maps`."""
        self._seen.clear()
        told = None if organ is None else torch.full((len(images),), organ)
        with torch.inference_mode():
            self._model(torch.from_numpy(np.ascontiguousarray(images)), told)
            strength = self._seen[-1].float().abs().mean(dim=1, keepdim=True)
            found: NDArray[np.float32] = F.interpolate(strength, images.shape[1:3], mode="bilinear").numpy()
        return found


def _last_layer(network: nn.Module, name: str) -> nn.Module:
    head = getattr(network, "head", None)
    if isinstance(head, nn.Module):
        return head
    convolutions = [module for module in network.modules() if isinstance(module, nn.Conv2d)]
    if not convolutions:
        raise HemalumError(f"network '{name}' has no layer called head and no convolution to look at")
    return convolutions[-1]
