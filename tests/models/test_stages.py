"""The first stage of a model in two stages, as a model of its own."""

from typing import Any

import numpy as np
import pytest
import torch

from hemalum.errors import HemalumError
from hemalum.models.card import Card, NetworkSpec
from hemalum.models.map_model import build_map_model
from hemalum.models.model import Model, load_model
from hemalum.models.network import build_network
from hemalum.models.stages import first_stage

BASES: list[tuple[dict[str, Any], dict[str, Any], dict[str, Any]]] = [
    ({"name": "unet", "options": {"widths": [3, 4]}}, {}, {}),
    ({"name": "unet", "options": {"widths": [3, 4]}}, {"inputs": 1}, {"channels": "gray"}),
    (
        {"name": "seu_net", "options": {"widths": [4, 8, 16], "embedding": 4, "edge": False}},
        {"organs": 2},
        {"organs": ["brain", "liver"], "organ": "liver"},
    ),
]


@pytest.mark.parametrize(("base", "options", "fields"), BASES)
def test_it_gives_p1_by_the_weights_that_p2_is_made_with(
    base: dict[str, Any], options: dict[str, Any], fields: dict[str, Any]
) -> None:
    """p2 is the second stage on the image and on the map of the first stage as a model of its own."""
    torch.manual_seed(0)
    spec = NetworkSpec(name="two_stage", options={"base": base, "width": 4, **options})
    network = build_network("two_stage", 1, spec.options).eval()
    tensors = {name: value.numpy() for name, value in network.state_dict().items()}
    card = Card(
        name="both", network=spec, representation="foreground", mpp=0.5, halo=8, stride=network.stride,
        code_version="0", mean=(0, 0, 0), std=(1, 1, 1), **fields,
    )  # fmt: skip
    both = Model(card, tensors)
    pixels = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (1, 32, 32, 3), np.uint8))
    alone = first_stage(both)
    assert (alone.card.network.name, alone.card.name) == (base["name"], "both.p1")
    with torch.inference_mode():
        p1, p2 = (build_map_model(one.card, one.tensors)(pixels) for one in (alone, both))
        image = pixels.permute(0, 3, 1, 2) / 255
        if card.channels == "gray":
            image = (image * torch.tensor([0.299, 0.587, 0.114])[:, None, None]).sum(1, keepdim=True)
        torch.testing.assert_close(network.enhance(torch.cat([image, p1], 1)).sigmoid(), p2)


@pytest.mark.fault
def test_a_model_of_one_stage_has_no_first() -> None:
    with pytest.raises(
        HemalumError, match="has one stage, of network 'compact': put a second one on it with hemalum"
    ):
        first_stage(load_model("fast"))
