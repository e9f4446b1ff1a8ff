"""The steps of a refinement against Adam and an average written from their equations."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from hemalum.experiments.execute import Resources
from hemalum.experiments.refine import refine
from hemalum.losses.loss import LossInputs
from hemalum.models.file import load_model_file, save_model
from hemalum.models.network import build_network
from hemalum.networks import Network, Outputs
from hemalum.targets.representations import find_representation
from hemalum.training.loader import Batch, TrainLoader
from hemalum.training.recipe import Recipe

LR, DECAY = 3e-3, 0.2
# batch norm takes off what these add: their gradient is rounding alone, to which Adam gives the size of a step
NOT_DETERMINED = ("first.0.bias", "second.0.bias", "edge.1.bias", "running_mean")


@pytest.fixture
def averaging(tiny: Path, tmp_path: Path) -> Path:
    """The tiny model, whose recipe keeps averaged weights and names every organ, so that nothing is drawn."""
    card, tensors = load_model_file(tiny)
    training = card.training
    assert training is not None
    assert training.settings is not None
    options = card.network.options | {"organ_dropout": 0}
    settings = training.settings | {"ema": DECAY, "clip": None}
    network = card.network.model_copy(update={"options": options})
    path = tmp_path / "averaging.safetensors"
    update = {"network": network, "training": training.model_copy(update={"settings": settings})}
    save_model(path, card.model_copy(update=update), tensors)
    return path


def losses(network: Network, recipe: Recipe, batch: Batch) -> Tensor:
    heads = find_representation(recipe.representation).heads
    outputs = Outputs.of(network(batch.images, **batch.conditions))
    parts = recipe.phases[-1].loss(LossInputs(outputs, batch.targets, heads, batch.extra))
    return torch.stack(list(parts.values())).sum()


def reference(initial: dict[str, Any], network: Network, recipe: Recipe, batches: list[Batch]) -> dict[str, Tensor]:
    """Adam (Kingma & Ba 2015) at one rate on all but the encoder, whose statistics stay as well; then the average.

    The average forgets its start: its decay after step s, counted from 0, is (1 + s) / (10 + s) up to the recipe's.
    """
    network.load_state_dict({name: torch.from_numpy(value.copy()) for name, value in initial.items()})
    average = {name: value.clone() for name, value in network.state_dict().items()}
    moving = {name: one for name, one in network.named_parameters() if not name.startswith("encoder.")}
    first = {name: torch.zeros_like(one) for name, one in moving.items()}
    second = {name: torch.zeros_like(one) for name, one in moving.items()}
    for step, batch in enumerate(batches):
        network.train()
        network.encoder.eval()
        gradients = torch.autograd.grad(losses(network, recipe, batch), list(moving.values()))
        for (name, weight), gradient in zip(moving.items(), gradients, strict=True):
            first[name] = 0.9 * first[name] + 0.1 * gradient
            second[name] = 0.999 * second[name] + 0.001 * gradient**2
            mean, square = first[name] / (1 - 0.9 ** (step + 1)), second[name] / (1 - 0.999 ** (step + 1))
            weight.data -= LR * mean / (square.sqrt() + 1e-8)
        decay = min(DECAY, (1 + step) / (10 + step))
        for name, value in network.state_dict().items():
            if value.is_floating_point():
                average[name] = decay * average[name] + (1 - decay) * value
    return average


def test_each_step_is_adam_at_the_given_rate_and_the_average_is_delivered(
    averaging: Path, organs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[Batch] = []
    real = TrainLoader.batches

    def noted(self: TrainLoader, *arguments: Any) -> Iterator[Batch]:
        for batch in real(self, *arguments):
            seen.append(batch)
            yield batch

    monkeypatch.setattr(TrainLoader, "batches", noted)
    resources = Resources(engine="torch", accelerator="cpu", threads=1)
    result = refine(averaging, organs, tmp_path / "out", top=2, epochs=3, draws=1, lr=LR, resources=resources)
    card, initial = load_model_file(averaging)
    _, delivered = load_model_file(result.model)
    assert card.training is not None
    recipe = Recipe.model_validate(card.training.settings)
    network = build_network("seu_net", 2, card.network.options)
    assert result.steps == 3
    expected = reference(initial, network, recipe, seen[: result.steps])
    for name, value in expected.items():
        if name.startswith("encoder."):
            np.testing.assert_array_equal(delivered[name], initial[name], err_msg=name)
        elif value.is_floating_point() and not name.endswith(NOT_DETERMINED):
            torch.testing.assert_close(torch.from_numpy(delivered[name]), value, rtol=1e-4, atol=LR / 1000, msg=name)
    moved = max(
        float(np.abs(delivered[name] - initial[name]).max()) for name in delivered if name.startswith("decoder.")
    )
    assert moved > LR  # the tolerance is far below what a step moves
