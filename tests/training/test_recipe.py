"""Recipes by name."""

from pathlib import Path

import pytest

from hemalum.errors import HemalumError
from hemalum.training import recipe as shipped
from hemalum.training.recipe import (
    find_recipe,
    load_recipe,
    shipped_recipes,
)


def test_a_path_is_a_path(tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text("")
    assert find_recipe(tmp_path / "mine.yaml") == tmp_path / "mine.yaml"


def test_a_missing_yaml_file_is_left_to_the_reader_of_recipes(tmp_path: Path) -> None:
    assert find_recipe(tmp_path / "none.yaml") == tmp_path / "none.yaml"


@pytest.fixture
def shelf(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in ("second", "first"):
        (tmp_path / f"{name}.yaml").write_text("")
    (tmp_path / "notes.txt").write_text("")
    monkeypatch.setattr(shipped, "_SHIPPED", tmp_path)
    return tmp_path


def test_shipped_recipes_by_name(shelf: Path) -> None:
    assert list(shipped_recipes()) == ["first", "second"]
    assert find_recipe("second") == shelf / "second.yaml"


@pytest.mark.fault
def test_the_nearest_name_is_named(shelf: Path) -> None:
    with pytest.raises(HemalumError, match="no shipped recipe 'frist', did you mean 'first'"):
        find_recipe("frist")


def test_unet_recipes_differ_in_stain_augmentation_only() -> None:
    for budget in ("full", "small"):
        plain, stain = (load_recipe(shipped_recipes()[name], budget) for name in ("unet", "unet_stain"))
        changed = stain.model_copy(
            update={
                "name": plain.name,
                "description": plain.description,
                "augment": stain.augment.model_copy(update={"stain": 0.0}),
            }
        )
        assert changed == plain
        assert stain.augment.stain > 0


GOOD = """
name: r
network: {name: compact}
mpp: 0.5
data: {mini: {}}
phases: [{name: p, until: {steps: 1}}]
"""


def test_small_form_changes_what_it_names(tmp_path: Path) -> None:
    path = tmp_path / "r.yaml"
    path.write_text(
        GOOD + "batch: 8\nsmall: {batch: 2, network: {options: {widths: [8]}}, phases: {p: {loss: bce}}}\n"
    )
    full, small = load_recipe(path), load_recipe(path, "small")
    assert (full.batch, small.batch) == (8, 2)
    assert (full.network.options, small.network.options) == ({}, {"widths": [8]})
    assert (small.network.name, small.phases[0].until.steps, small.phases[0].loss.name) == ("compact", 1, "bce")
    assert full.digest != small.digest


@pytest.mark.fault
@pytest.mark.parametrize(
    ("small", "message"),
    [
        ("", "has no small form: give it a key 'small'"),
        ("small: 3", "'small' must be a mapping"),
        ("small: {bach: 2}", r"unknown key 'bach', did you mean 'batch'\? \(in its small form\)"),
        ("small: {phases: {p: 3}}", "'small' changes phases, 'p': want a mapping of the keys that differ, not 3"),
        ("small: {phases: {q: {loss: bce}}}", "'small' changes phases, 'q'; known: p"),
    ],
)
def test_bad_small_forms_in_one_line(small: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "r.yaml"
    path.write_text(GOOD + small + "\n")
    with pytest.raises(HemalumError, match=message):
        load_recipe(path, "small")


@pytest.mark.fault
@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("bach: 4", r"unknown key 'bach', did you mean 'batch'\?"),
        ("augment: {stian: 0.1}", r"unknown key 'augment.stian', did you mean 'stain'\?"),
        (
            "network: {name: compact, widths: [8, 16]}",
            "unknown key 'network.widths'; the options of a network stand under 'network.options'$",
        ),
        ("data: {tnbc: {wieght: 2}}", r"unknown key 'data.tnbc.wieght', did you mean 'weight'\?$"),
        ("data: {tnbc: {widths: 2}}", r"unknown key 'data.tnbc.widths'; known: balance, weight$"),
        (
            "phases: [{name: p, until: {steps: 1}, loss: bce, optimizer: {name: sgd, betas: 1}}]",
            r"optimizer.sgd.betas'; known: lr, momentum, name, nesterov, weight_decay$",
        ),
        ("mpp: -1", r"'mpp': Input should be greater than 0"),
        (
            "phases: [{name: p, until: {steps: 1}, optimizer: {name: adamw, betas: [0.9, 1.0]}}]",
            "'phases.0.optimizer.adamw.betas.1': Input should be less than 1",
        ),
        (
            "phases: [{name: p, until: {steps: 1}, optimizer: {name: adam, betas: [-0.1, 0.9]}}]",
            "'phases.0.optimizer.adam.betas.0': Input should be greater than or equal to 0",
        ),
        (
            "phases: [{name: p, until: {steps: 1}, optimizer: {name: lion, betas: [0.9, 2]}}]",
            "'phases.0.optimizer.lion.betas.1': Input should be less than 1",
        ),
        (
            "phases: [{name: p, until: {steps: 1}, optimizer: {name: sgd, lr: .inf}}]",
            "'phases.0.optimizer.sgd.lr': Input should be a finite number",
        ),
        (
            "phases: [{name: p, until: {steps: 1, score_plateau: {delta: .nan}}}]",
            "'phases.0.until.score_plateau.delta': Input should be a finite number",
        ),
        ("mpp: .inf", "'mpp': Input should be a finite number"),
        ("clip: .inf", "'clip': Input should be a finite number"),
        ("augment: {elastic: .inf}", "'augment.elastic': Input should be a finite number"),
        ("data: {tnbc: {weight: .inf}}", "'data.tnbc.weight': Input should be a finite number"),
        (
            "network: {name: compact, options: {dropout: .nan}}",
            "'network.options': 'dropout': want a finite number, not nan",
        ),
        (
            "network: {name: compact, options: {widths: [8, .inf]}}",
            "'network.options': 'widths': want a finite number, not inf",
        ),
        ("seed: -1", "'seed': Input should be greater than or equal to 0"),
        ("seed: 4294967296", "'seed': Input should be less than or equal to 4294967295"),
        (
            "labeled: {fraction: 1/2, seed: 4294967296}",
            "'labeled.seed': Input should be less than or equal to 4294967295",
        ),
        ("phases: []", r"'phases': List should have at least 1 item"),
        ("network: [1", r"is not readable YAML"),
        ("precision: half", r"'precision': Input should be"),
        (
            "phases: [{name: p, until: {steps: 1}, loss: bse}]",
            "'phases.0.loss': unknown loss 'bse', did you mean 'bce'",
        ),
        ("phases: [{name: p, until: {steps: 1}, loss: {name: bce, x: 1}}]", "loss 'bce' has no option 'x'"),
        ("system: al_nte", "unknown system 'al_nte'"),
    ],
)
def test_bad_recipes_in_one_line(change: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "r.yaml"
    key = change.split(":")[0]
    path.write_text("\n".join(line for line in GOOD.splitlines() if not line.startswith(f"{key}:")) + f"\n{change}\n")
    with pytest.raises(HemalumError, match=message) as caught:
        load_recipe(path)
    assert "\n" not in str(caught.value)


@pytest.mark.fault
def test_recipe_that_is_not_one(tmp_path: Path) -> None:
    with pytest.raises(HemalumError, match="no such recipe"):
        load_recipe(tmp_path / "none.yaml")
    (tmp_path / "list.yaml").write_text("- 1")
    with pytest.raises(HemalumError, match="not a recipe"):
        load_recipe(tmp_path / "list.yaml")
