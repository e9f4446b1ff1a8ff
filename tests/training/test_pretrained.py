"""An encoder that starts from weights of elsewhere: the card says which, and a run goes on with the same alone."""

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from hemalum.errors import HemalumError
from hemalum.models.file import load_card
from hemalum.models.map_model import build_map_model
from hemalum.models.model import load_model
from hemalum.networks.resnet import ResNet, load_pretrained
from hemalum.training.recipe import Recipe
from hemalum.training.train import train

BUILD: dict[str, Any] = {"layers": [1, 1, 1, 1], "widths": [8, 12, 16, 24]}


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    transformers = pytest.importorskip("transformers")
    config = transformers.ResNetConfig(depths=[1, 1, 1, 1], hidden_sizes=[8, 12, 16, 24], embedding_size=2)
    transformers.ResNetModel(config).save_pretrained(tmp_path / "resnet")
    return tmp_path / "resnet"


@pytest.mark.fault
def test_the_card_says_which_weights_and_a_resumed_run_needs_the_same(
    saved: Path, mini: Path, tmp_path: Path
) -> None:
    recipe = Recipe.model_validate(
        {
            "name": "pretrained", "mpp": 0.5, "tile": 32, "batch": 2, "representation": "foreground",
            "network": {"name": "deeplabv3", "options": {"pretrained": str(saved), "channels": 8, **BUILD}},
            "phases": [{"name": "main", "until": {"steps": 2}}], "validate_every": 2, "checkpoint_every": 1,
        }
    )  # fmt: skip
    run = tmp_path / "run"
    card = load_card(train(recipe, [mini], run, accelerator="cpu", threads=1))
    assert card.training is not None
    assert card.training.pretrained is not None
    digest = load_pretrained(ResNet(**BUILD), str(saved))
    assert (card.training.pretrained.source, card.training.pretrained.sha256) == (str(saved), digest)
    assert "pretrained" not in card.network.options  # the model file holds all weights
    train(recipe, [mini], run, resume=True, accelerator="cpu", threads=1)
    from transformers import ResNetModel

    other = ResNetModel.from_pretrained(saved)
    with torch.no_grad():
        other.embedder.embedder.convolution.weight.add_(1)
    other.save_pretrained(saved)
    with pytest.raises(HemalumError, match="cannot resume"):
        train(recipe, [mini], run, resume=True, accelerator="cpu", threads=1)


def test_a_base_of_two_stages_starts_from_them_and_its_model_file_needs_them_no_more(
    saved: Path, mini: Path, tmp_path: Path
) -> None:
    base = {"name": "deeplabv3", "options": {"pretrained": str(saved), "channels": 8, **BUILD}}
    recipe = Recipe.model_validate(
        {
            "name": "pretrained", "mpp": 0.5, "tile": 32, "batch": 2, "representation": "foreground",
            "network": {"name": "two_stage", "options": {"base": base, "width": 2}},
            "phases": [{"name": "main", "until": {"steps": 1}}], "validate_every": 1,
        }
    )  # fmt: skip
    path = train(recipe, [mini], tmp_path / "run", accelerator="cpu", threads=1)
    card = load_card(path)
    assert card.training is not None
    assert card.training.pretrained is not None
    digest = load_pretrained(ResNet(**BUILD), str(saved))
    assert (card.training.pretrained.source, card.training.pretrained.sha256) == (str(saved), digest)
    assert "pretrained" not in str(card.network.options)
    shutil.rmtree(saved)
    model = load_model(path)
    build_map_model(model.card, model.tensors)  # and needs nothing of elsewhere
