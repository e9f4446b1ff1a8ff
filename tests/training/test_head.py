"""The last layer: maps that a start takes from other weights, and maps that a model file keeps."""

import logging
from pathlib import Path

import numpy as np
import pytest
import torch

from hemalum.errors import HemalumError
from hemalum.models.card import Card, NetworkSpec
from hemalum.models.file import save_model
from hemalum.models.map_model import activate
from hemalum.models.network import build_network
from hemalum.targets.representations import REPRESENTATIONS, find_representation, select
from hemalum.training.head import keep_head, load_initial


@pytest.mark.parametrize("name", ["compact", "unet"])
@pytest.mark.parametrize("kept", ["distance", "interior_boundary", "center_gradient"])
def test_a_kept_head_gives_the_same_maps(name: str, kept: str) -> None:
    combined, target = REPRESENTATIONS["combined"], REPRESENTATIONS[kept]
    options = {"widths": [4, 8]} | ({"depths": [0, 1]} if name == "compact" else {})
    network = build_network(name, combined.logits, options).eval()
    tensors = keep_head({k: v.numpy() for k, v in network.state_dict().items()}, combined, target)
    smaller = build_network(name, target.logits, options).eval()
    smaller.load_state_dict({k: torch.from_numpy(v) for k, v in tensors.items()})
    x = torch.rand(1, 3, 16, 16)
    with torch.no_grad():
        all_maps, kept_maps = activate(network(x), combined.heads), activate(smaller(x), target.heads)
    expected = select(all_maps[0].numpy(), combined, target)
    np.testing.assert_allclose(kept_maps[0].numpy(), expected, rtol=1e-5, atol=1e-6)


@pytest.mark.fault
def test_a_head_that_was_not_trained_cannot_be_kept() -> None:
    with pytest.raises(HemalumError, match="representation 'distance' has no maps interior, boundary to keep"):
        keep_head({}, REPRESENTATIONS["distance"], REPRESENTATIONS["interior_boundary"])


OPTIONS = {"widths": [4, 8], "depths": [0, 1]}


def save_network(path: Path, name: str, classes: list[str], seed: int = 0) -> torch.nn.Module:
    torch.manual_seed(seed)
    network = build_network("compact", find_representation(name, classes).logits, OPTIONS).eval()
    card = Card(
        name="start", network=NetworkSpec(name="compact", options=OPTIONS), representation=name, mpp=0.5, halo=8,
        stride=4, classes=classes, code_version="0",
    )  # fmt: skip
    save_model(path, card, {key: value.numpy() for key, value in network.state_dict().items()})
    return network


def predict_maps(network: torch.nn.Module, name: str, classes: tuple[str, ...]) -> dict[str, np.ndarray]:
    representation = find_representation(name, classes)
    x = torch.rand(1, 3, 16, 16, generator=torch.Generator().manual_seed(5))
    with torch.no_grad():
        maps = activate(network.eval()(x), representation.heads)[0].numpy()
    return dict(zip(representation.channels, maps, strict=True))


def test_a_start_from_other_maps_takes_those_that_both_have(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "combined.safetensors"
    before = save_network(path, "combined", ["nucleus"])
    classes = ("a", "b")
    torch.manual_seed(9)
    network = build_network("compact", find_representation("typed", classes).logits, OPTIONS)
    fresh = network.state_dict()["head.weight"].clone()
    with caplog.at_level(logging.INFO, "hemalum"):
        load_initial(network, find_representation("typed", classes), path)
    assert [record.getMessage() for record in caplog.records] == [
        f"{path} starts with all layers but the last: a, b start afresh; its maps interior, boundary, horizontal, "
        "vertical are not used"
    ]
    old, new = predict_maps(before, "combined", ()), predict_maps(network, "typed", classes)
    for channel in ("foreground", "distance"):
        np.testing.assert_array_equal(new[channel], old[channel])
    torch.testing.assert_close(network.state_dict()["head.weight"][8:], fresh[8:], rtol=0, atol=0)


def test_a_start_from_other_classes_goes_by_their_names(tmp_path: Path) -> None:
    path = tmp_path / "abc.safetensors"
    before = save_network(path, "typed", ["a", "b", "c"])
    torch.manual_seed(9)
    classes = ("c", "a", "b")
    network = build_network("compact", find_representation("typed", classes).logits, OPTIONS)
    load_initial(network, find_representation("typed", classes), path)
    old, new = predict_maps(before, "typed", ("a", "b", "c")), predict_maps(network, "typed", classes)
    for channel, values in old.items():
        np.testing.assert_allclose(new[channel], values, atol=1e-6)


@pytest.mark.fault
def test_a_start_from_another_network_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "small.safetensors"
    save_network(path, "combined", ["nucleus"])
    representation = REPRESENTATIONS["distance"]
    for options in ({"widths": [4, 12], "depths": [0, 1]}, {"widths": [8, 8], "depths": [0, 1]}):
        network = build_network("compact", representation.logits, options)
        with pytest.raises(HemalumError, match="does not fit the recipe's network"):
            load_initial(network, representation, path)
