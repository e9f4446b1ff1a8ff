"""Training with the network compiled by PyTorch."""

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file
from torch import Tensor, nn
from torch._dynamo.exc import Unsupported

from hemalum.errors import HemalumError
from hemalum.training.recipe import Recipe
from hemalum.training.train import train


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None, reason="PyTorch compiles with g++ on a CPU")
def test_compiled_it_trains_the_same_but_for_rounding(recipe: Recipe, mini: Path, tmp_path: Path) -> None:
    weights, compilations = {}, []
    compile_network = torch.compile

    def compile_and_note(module: nn.Module) -> nn.Module:
        compilations.append(module)
        compiled: nn.Module = compile_network(module)
        return compiled

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("torch.compile", compile_and_note)
        for compiled in (False, True):
            train(recipe, [mini], tmp_path / str(compiled), compile=compiled)
            weights[compiled] = load_file(tmp_path / str(compiled) / "best_second.safetensors")
            assert bool(compilations) == compiled
    assert weights[True].keys() == weights[False].keys()
    for name, value in weights[False].items():
        np.testing.assert_allclose(weights[True][name], value, rtol=2e-3, atol=2e-4, err_msg=name)


def test_a_network_that_cannot_be_compiled_is_one_line(
    recipe: Recipe, mini: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Broken(nn.Module):
        def __init__(self, module: nn.Module) -> None:
            super().__init__()
            self.module = module

        def forward(self, x: Tensor) -> Tensor:
            raise Unsupported("no compiler\nfor this machine")

    monkeypatch.setattr("torch.compile", Broken)
    with pytest.raises(HemalumError) as raised:
        train(recipe, [mini], tmp_path / "run", compile=True)
    assert str(raised.value) == "PyTorch could not compile the network: no compiler; train without `compile`"
