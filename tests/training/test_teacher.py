"""A training that keeps to the maps of the model it starts with."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file

from builders.trainings import assert_same_run, read_log
from hemalum.errors import HemalumError
from hemalum.losses import Distilled, Maps
from hemalum.training.recipe import Recipe
from hemalum.training.train import train


class Stopped(Exception):
    pass


def with_weight(recipe: Recipe, weight: float) -> Recipe:
    """One phase of the recipe, whose loss is distilled where it has a weight."""
    phase = recipe.phases[0].model_copy(
        update={"loss": Distilled(loss=Maps(), weight=weight) if weight else Maps(), "train": ["*"]}
    )
    return recipe.model_copy(update={"phases": [phase], "ema": 0.0})


@pytest.fixture(scope="module")
def initial(recipe: Recipe, mini: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return train(recipe, [mini], tmp_path_factory.mktemp("initial") / "run", threads=1)


def distance(model: Path, initial: Path) -> float:
    before, after = load_file(initial), load_file(model)
    moved = [np.square(after[name] - before[name]).sum() for name in before if name.endswith("weight")]
    return float(np.sqrt(np.sum(moved)))


def test_the_heavier_the_nearer(recipe: Recipe, mini: Path, initial: Path, tmp_path: Path) -> None:
    """Measured on the maps, by the term itself."""
    terms = []
    for weight in (1e-6, 100.0):
        out = tmp_path / str(weight)
        train(with_weight(recipe, weight), [mini], out, initial=initial, threads=1)
        terms.append(read_log(out)[-1]["loss_distillation"] / weight)
    assert 0 < terms[1] < terms[0]


def test_the_first_step_has_no_distance(recipe: Recipe, mini: Path, initial: Path, tmp_path: Path) -> None:
    """Batch norm in training aside, the network is its own teacher; frozen layers leave only the rest of it."""
    phase = with_weight(recipe, 1.0).phases[0].model_copy(update={"train": ["head.*"]})
    short = recipe.model_copy(update={"phases": [phase], "validate_every": 1, "ema": 0.0})
    train(short, [mini], tmp_path / "run", initial=initial, threads=1)
    rows = read_log(tmp_path / "run")
    assert rows[0]["loss_distillation"] == pytest.approx(0, abs=1e-6)
    assert rows[-1]["loss_distillation"] > 1e-6


def test_resumed_it_keeps_to_the_same_maps(recipe: Recipe, mini: Path, initial: Path, tmp_path: Path) -> None:
    distilled = with_weight(recipe, 10.0)
    threads = torch.get_num_threads()
    train(distilled, [mini], tmp_path / "whole", initial=initial, threads=1)

    def stop(step: int, steps: int, figures: Any) -> None:
        if step == 3:
            raise Stopped

    with pytest.raises(Stopped):
        train(distilled, [mini], tmp_path / "parts", initial=initial, threads=1, on_progress=stop)
    train(distilled, [mini], tmp_path / "parts", initial=initial, threads=1, resume=True)
    torch.set_num_threads(threads)
    assert_same_run(tmp_path / "parts", tmp_path / "whole")


@pytest.mark.fault
def test_there_is_no_model_to_keep_to(recipe: Recipe, mini: Path, tmp_path: Path) -> None:
    with pytest.raises(HemalumError) as caught:
        train(with_weight(recipe, 1.0), [mini], tmp_path / "run", threads=1)
    assert str(caught.value) == (
        "recipe mini, phase 'first': loss 'distilled' keeps to the maps of the model that the training starts with, "
        "and there is none: give `initial` MODEL"
    )
