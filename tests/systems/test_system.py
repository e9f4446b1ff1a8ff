"""Nested options: the paper's stay where nothing is said, and every network is written out in full."""

from typing import Any

import pytest

from hemalum.errors import HemalumError
from hemalum.systems import SYSTEMS, build_system
from hemalum.systems.al_net import ALNet
from hemalum.systems.system import complete_network, network_options
from hemalum.training.recipe import Recipe


def test_a_nested_mapping_changes_the_papers_values_key_by_key() -> None:
    system = build_system({"name": "eunet3plus", "optimizer": {"lr": 0.01}, "loss": {"union": True}})
    assert (system.optimizer.name, system.optimizer.lr, system.optimizer.weight_decay) == ("adam", 0.01, 1e-5)
    assert (system.loss.name, system.loss.union, system.loss.background) == ("focal_dice", True, True)


def test_another_name_stands_for_itself() -> None:
    system = build_system({"name": "eunet3plus", "optimizer": {"name": "sgd"}, "loss": {"name": "focal_dice"}})
    assert (system.optimizer.name, system.optimizer.lr, system.optimizer.weight_decay) == ("sgd", 0.01, 0.0)
    assert system.loss.background  # the same name is the paper's loss
    assert not build_system({"name": "eunet3plus", "loss": "focal_dice"}).loss.background  # alone: its own defaults


def test_settings_may_be_objects() -> None:
    default = ALNet()
    assert ALNet(optimizer=default.optimizer, loss=default.loss) == default


@pytest.mark.parametrize("name", SYSTEMS)
def test_what_a_system_writes_is_read_as_the_same(name: str) -> None:
    system = build_system(name)
    assert build_system(system.model_dump(mode="json")) == system
    recipe = Recipe.model_validate({"name": "r", "mpp": 0.5, "system": name})
    assert Recipe.model_validate(recipe.model_dump(mode="json")) == recipe


@pytest.mark.parametrize("name", SYSTEMS)
def test_no_option_of_a_network_is_declared_again(name: str) -> None:
    decided_by_the_system = {"raa", "base"}
    fields = set(SYSTEMS[name].model_fields)
    for network in SYSTEMS[name].networks:
        assert fields & set(network_options(network)) <= decided_by_the_system


def test_a_network_is_written_out_in_full() -> None:
    network = complete_network("eunet3plus", {"widths": [4, 8]}, left_out=("skip", "embedding", "widths"))
    assert network["name"] == "eunet3plus"
    assert network["options"]["widths"] == [4, 8]
    assert (network["options"]["fusion"], network["options"]["dropout"]) == ("guided", 0.3)
    assert not {"outputs", "inputs", "skip", "embedding"} & set(network["options"])


@pytest.mark.fault
@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("al_nte", {}, "unknown network 'al_nte', did you mean 'al_net'"),
        ("al_net", {"atention": True}, "network 'al_net' has no option 'atention', did you mean 'attention'"),
        (
            "al_net",
            {"options": {"attention": True}},
            "'al_net' has no option 'options': a system's network takes its options directly, without it$",
        ),
        ("al_net", {"attention": 1}, "network 'al_net', 'attention': want true or false, not 1"),
        ("al_net", {"widths": 4}, "network 'al_net', 'widths': want a list, not 4"),
        ("seu_net", {"ratio": 0}, "network 'seu_net', 'ratio': want a whole number from 1 on, not 0"),
        ("seu_net", {"ratio": True}, "network 'seu_net', 'ratio': want a whole number from 1 on, not True"),
        ("eunet3plus", {"dropout": "no"}, "network 'eunet3plus', 'dropout': want a number, not 'no'"),
        ("eunet3plus", {"fusion": None}, "network 'eunet3plus', 'fusion': want a name, not None"),
    ],
)
def test_options_that_a_network_does_not_take(name: str, options: dict[str, Any], message: str) -> None:
    with pytest.raises(HemalumError, match=message):
        complete_network(name, options)


@pytest.mark.fault
@pytest.mark.parametrize(
    ("option", "path"),
    [
        ("se", "network.se"),
        ("lr", "optimizer.lr"),
        ("rebalance", "loss.rebalance"),
        ("fall", "score_plateau.fall"),
    ],
)
def test_an_option_of_what_is_nested_is_named_by_its_path(option: str, path: str) -> None:
    with pytest.raises(HemalumError, match=rf"system 'al_net' has no option '{option}', did you mean '{path}'\?"):
        build_system({"name": "al_net", option: 1})
