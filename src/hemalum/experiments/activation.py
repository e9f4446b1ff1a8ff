"""Where the features that a network decides from are strong: the mean of |activation| before its last layer."""

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from hemalum.inference.grid import Box, plan_tiles
from hemalum.inference.maps import TileMaps, scaled_pixels
from hemalum.inference.scale import find_scale, scaled_shape
from hemalum.inference.staining import find_staining
from hemalum.models.map_model import build_map_model
from hemalum.models.model import Model
from hemalum.slides.slide import Slide
from hemalum.targets.representations import REPRESENTATIONS, find_representation


def activation_map(source: Slide, model: Model, *, mpp: float) -> NDArray[np.float32]:
    """Mean over channels of |features| that the final layer reads, (H, W) float32 on the image's grid.

    `mpp` is the image's, µm per px. The final layer is the one that the network declares; windows are those of
    inference. It is no explanation: it shows where the last features are strong, not why. The map is held in memory:
    for tiles, not for slides.
    """
    card = model.card
    engine = _Activations(model)
    shape = scaled_shape(source.shape, find_scale(source, model, engine, mpp).mpp / card.mpp)
    reach = find_representation(card.representation, card.classes).smoothed(card.separation).reach
    grid = plan_tiles(card, shape, reach=reach)
    with TileMaps(
        scaled_pixels(source, shape), shape, engine, REPRESENTATIONS["foreground"], grid,
        change=find_staining(source, model).change, organ=model.organ,
    ) as maps:  # fmt: skip
        strength = maps.read(Box(0, 0, *shape)).maps[0]
    height, width = source.shape
    resized = Image.fromarray(strength).resize((width, height), Image.Resampling.BILINEAR)
    return np.asarray(resized, np.float32)


class _Activations:
    """An engine whose one map is the mean absolute activation, at the size of its input."""

    name, precision = "torch", "f32"
    parallel = batch = 1

    def __init__(self, model: Model) -> None:
        self._model = build_map_model(model.with_organ(None).card, model.tensors)
        self._features: list[Tensor] = []
        network = self._model.network
        network.get_submodule(network.final_layer).register_forward_pre_hook(
            lambda _, inputs: self._features.append(inputs[0].detach())
        )

    def maps(self, images: NDArray[np.uint8], organ: int | None = None) -> NDArray[np.float32]:
        """See `Engine.maps`."""
        self._features.clear()
        organ_N = None if organ is None else torch.full((len(images),), organ)
        with torch.inference_mode():
            self._model(torch.from_numpy(np.ascontiguousarray(images)), organ_N)
            strength = self._features[-1].float().abs().mean(dim=1, keepdim=True)
            maps: NDArray[np.float32] = F.interpolate(strength, images.shape[1:3], mode="bilinear").numpy()
        return maps
