"""What a refinement lets train."""

import fnmatch
from pathlib import Path

import numpy as np
import pytest
import torch

from hemalum.errors import HemalumError
from hemalum.experiments.refinement_recipe import choose_trainable
from hemalum.models.card import Card, NetworkSpec
from hemalum.models.model import Model, load_model
from hemalum.models.network import build_network
from hemalum.networks import NETWORKS, Network


def model_of(name: str, **options: object) -> Model:
    network = build_network(name, 2, dict(options))
    card = Card(
        name="m",
        network=NetworkSpec(name=name),
        representation="distance",
        mpp=0.5,
        halo=8,
        stride=8,
        code_version="0",
    )
    return Model(card, {key: np.asarray(value) for key, value in network.state_dict().items()})


def trained(model: Model) -> set[str]:
    patterns = choose_trainable(model)
    return {name for name in model.tensors if any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns)}


def test_of_clinsegnet_everything_but_the_encoder(tiny: Path) -> None:
    model = load_model(tiny)
    assert {name for name in model.tensors if name not in trained(model)} == {
        name for name in model.tensors if name.startswith("encoder.")
    }


@pytest.mark.parametrize("name", sorted(NETWORKS))
def test_every_network_has_a_default_that_leaves_its_encoder_alone(name: str) -> None:
    with torch.device("meta"):
        names = dict.fromkeys(build_network(name, 2, {}).state_dict(), np.zeros(0, np.float32))
    card = model_of("unet", widths=[4, 8]).card.model_copy(update={"network": NetworkSpec(name=name)})
    patterns = choose_trainable(Model(card, names))
    # a pattern that matches nothing would be left out
    assert patterns == [f"{module}.*" for module in NETWORKS[name].late_modules]
    chosen = {one for one in names if any(fnmatch.fnmatchcase(one, pattern) for pattern in patterns)}
    assert 0 < len(chosen) < len(names)
    parts = {one.partition(".")[0] for one in chosen}
    assert not parts & {"encoder", "backbone", "stages", "base", "patches", "root"}


def test_a_part_that_the_model_was_built_without_is_no_error() -> None:
    model = model_of("seu_net", widths=[4, 8], film=False, edge=False)
    assert choose_trainable(model) == ["up.*", "decoder.*", "head.*"]


def test_of_another_network_the_late_modules_that_it_declares(monkeypatch: pytest.MonkeyPatch) -> None:
    class New(Network):
        late_modules = ("rise", "head")

    monkeypatch.setitem(NETWORKS, "new", New)
    model = model_of("unet", widths=[4, 8])
    other = Model(
        model.card.model_copy(update={"network": NetworkSpec(name="new")}),
        {name.replace("up.", "rise."): value for name, value in model.tensors.items()},
    )
    assert choose_trainable(other) == ["rise.*", "head.*"]


@pytest.mark.fault
@pytest.mark.parametrize("registered", [True, False])
def test_a_network_without_late_modules_needs_patterns(registered: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if registered:
        monkeypatch.setitem(NETWORKS, "new", Network)
    model = model_of("unet", widths=[4, 8])
    other = Model(
        model.card.model_copy(update={"network": NetworkSpec(name="new")}), {"body.weight": np.zeros(1, np.float32)}
    )
    with pytest.raises(
        HemalumError, match=r"network 'new': .* name them with `trainable` PATTERN, such as 'body\.\*'"
    ):
        choose_trainable(other)


def test_words_stand_for_patterns(tiny: Path) -> None:
    model = load_model(tiny)
    assert choose_trainable(model, ["all"]) == ["*"]
    assert choose_trainable(model, ["head"]) == ["head.*"]
    assert choose_trainable(model, ["decoder"]) == choose_trainable(model)
    assert choose_trainable(model, ["decoder", "encoder.*"]) == [*choose_trainable(model), "encoder.*"]


@pytest.mark.parametrize("name", sorted(NETWORKS))
def test_the_head_of_every_network_makes_its_logits(name: str) -> None:
    with torch.device("meta"):
        names = dict.fromkeys(build_network(name, 2, {}).state_dict(), np.zeros(0, np.float32))
    card = model_of("unet", widths=[4, 8]).card.model_copy(update={"network": NetworkSpec(name=name)})
    (pattern,) = choose_trainable(Model(card, names), ["head"])
    matching = fnmatch.filter(names, pattern)
    assert 0 < len(matching) < len(names)


@pytest.mark.fault
def test_patterns_that_match_nothing_are_refused(tiny: Path) -> None:
    model = load_model(tiny)
    assert choose_trainable(model, ["head.*", "film.2.*"]) == ["head.*", "film.2.*"]
    with pytest.raises(
        HemalumError, match=r"`trainable` 'tail\.\*': no parameter .*; its parts are decoder, edge, emb"
    ):
        choose_trainable(model, ["head.*", "tail.*"])
