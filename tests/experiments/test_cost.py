"""What networks of every kind cost: organs, an embedding, one size, several phases, unlabeled images."""

from typing import Any

import numpy as np
import pytest
import torch

from hemalum.experiments import cost
from hemalum.models.card import Card, NetworkSpec
from hemalum.models.network import build_network
from hemalum.networks.contract import Network
from hemalum.training.data_spec import DataSpec
from hemalum.training.recipe import Recipe

BASE: dict[str, Any] = {
    "name": "t",
    "network": {"name": "unet", "options": {"widths": [4, 8]}},
    "representation": "foreground",
    "mpp": 0.5,
    "tile": 32,
    "batch": 2,
    "phases": [{"name": "one", "loss": "bce", "until": {"steps": 1}}],
}
SEU = {"widths": [4, 8], "embedding": 4}
NARROW = {"layers": [1, 1, 1, 1], "widths": [8, 12, 16, 24], "reduction": 2, "channels": 8}
PHASE = {"name": "one", "loss": "cross_entropy", "until": {"steps": 1}}
KINDS: dict[str, tuple[dict[str, Any], DataSpec]] = {
    "plain": ({}, DataSpec()),
    "organs and one channel": (
        {"network": {"name": "seu_net", "options": SEU}, "representation": "foreground_edge", "input": "gray"},
        DataSpec(organs=("a", "b", "c"), conditions=("organ",)),
    ),
    "one size": ({"network": {"name": "medt", "options": {"stem": 8}}, "tile": 128, "batch": 1}, DataSpec()),
    "semi_supervised": (
        {
            "network": {"name": "deeplabv3plus", "options": NARROW | {"low_level": 4}},
            "representation": "semantic", "labeled": {"fraction": "1/2"},
            "phases": [PHASE | {"semi_supervised": {"views": 2, "labeled": "both"}}],
        },
        DataSpec(classes=("x", "y")),
    ),
    "frozen": (
        {"phases": [BASE["phases"][0], BASE["phases"][0] | {"name": "two", "train": ["head.*"]}]}, DataSpec(),
    ),
}  # fmt: skip


class OneConvolution(Network):
    def __init__(self, outputs: int) -> None:
        super().__init__()
        self.convolution = torch.nn.Conv2d(3, outputs, 5, padding=2)

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        result: torch.Tensor = self.convolution(pixels)
        return result


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_recipe(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cost, "SIDE", 64)
    monkeypatch.setattr(cost, "REPEATS", 1)
    changes, data_spec = KINDS[kind]
    recipe = Recipe.model_validate(BASE | changes)
    measured = cost._measure(recipe, data_spec, cpu=True, threads=None)
    assert measured["parameters"] > 0
    assert measured["macs"] > 0
    side = 128 if kind == "one size" else 64
    assert measured["macs_side_px"] == side
    assert f"{side} × {side} px" in measured["macs_rule"]
    assert measured["peak_memory_mb"] >= 0
    assert measured["latency_ms"] > 0


def test_parameters_and_operations_are_those_of_the_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """A convolution by hand: k² · in · out multiply-accumulates for each pixel it gives."""
    monkeypatch.setattr(cost, "REPEATS", 1)
    monkeypatch.setattr("hemalum.networks.NETWORKS", {"one": OneConvolution})
    card = Card(
        name="one", network=NetworkSpec(name="one"), representation="distance", mpp=0.5, halo=2, stride=1,
        code_version="0",
    )  # fmt: skip
    measured = cost._measure(card, DataSpec(), cpu=True, threads=None)
    assert measured["parameters"] == 5 * 5 * 3 * 2 + 2
    assert measured["macs"] == measured["macs_at_outputs"] == 256 * 256 * 5 * 5 * 3 * 2
    assert measured["peak_memory_mb"] is None


def test_a_transposed_convolution_under_both_rules() -> None:
    """3 → 5 channels, 2 × 2, stride 2: each of 8 × 8 inputs is multiplied 2 · 2 · 3 · 5 times, not of 16 × 16."""
    layers = torch.nn.Sequential(torch.nn.ConvTranspose2d(3, 5, 2, 2), torch.nn.Conv2d(5, 7, 3, padding=1))
    real, at_outputs = cost.count_macs(lambda: layers(torch.zeros(1, 3, 8, 8)))
    convolution = 16 * 16 * 3 * 3 * 5 * 7
    assert real == 8 * 8 * 2 * 2 * 3 * 5 + convolution
    assert at_outputs == 16 * 16 * 2 * 2 * 3 * 5 + convolution


@pytest.mark.parametrize(
    ("network", "options", "real", "at_outputs", "printed"),
    [
        ("unet", {"norm": True}, 73.64, 83.51, 83.70),
        ("attention_unet", {}, 75.29, 85.16, 85.35),
        ("seu_net", {"organs": 23}, 77.76, 92.56, None),
        ("seu_net", {"organs": 23, "design": "operations"}, 83.31, 83.31, None),  # no transposed convolution
    ],
)
def test_the_paper_counts_transposed_convolutions_at_their_outputs(
    network: str, options: dict[str, Any], real: float, at_outputs: float, printed: float | None
) -> None:
    """GFLOPs of ClinSegNet's table, two for each multiply-accumulate, on one channel of 224 × 224 px.

    Both printed sizes are 0.19 above, for norms and activations.
    """
    with torch.device("meta"):
        built = build_network(network, 2 if network == "seu_net" else 1, options | {"inputs": 1}).eval()
        pixels = torch.zeros(1, 1, 224, 224)
    counts = cost.count_macs(lambda: built(pixels))
    assert [round(2 * macs / 1e9, 2) for macs in counts] == [real, at_outputs]
    assert printed is None or printed - 2 * counts[1] / 1e9 == pytest.approx(0.194, abs=0.002)


@pytest.mark.slow
def test_unlabeled_images_need_memory_too() -> None:
    """In processes of their own, where the peak is that of the one network: three times the images and more."""
    changes, data_spec = KINDS["semi_supervised"]
    wide = {"tile": 128, "batch": 8, "network": {"name": "unet", "options": {"widths": [16, 32]}}}
    both = Recipe.model_validate(BASE | changes | wide)
    alone = Recipe.model_validate(BASE | changes | wide | {"phases": [PHASE], "labeled": None})
    ballast = np.ones(250_000_000)  # 2 GB: what the program that asks has needed itself is no part of it
    peaks = [
        cost.measure_cost(one, data_spec=data_spec, accelerator="cpu", threads=1)["peak_memory_mb"]
        for one in (alone, both)
    ]
    assert peaks[1] > 1.8 * peaks[0] > 10
    assert ballast[-1] == 1


def test_a_network_gets_the_conditions_that_it_takes() -> None:
    network = build_network("seu_net", 2, SEU)
    (organ,) = cost._conditions(network, torch.zeros(3, 3, 8, 8)).values()
    assert organ.shape == (3,)
    assert organ.dtype == torch.int64
