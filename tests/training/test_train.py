"""The verb `train`: what its model file tells, and data, losses and workers that it takes or refuses."""

import os
from pathlib import Path

import pytest

from builders.trainings import read_log
from hemalum.data.dataset import Dataset
from hemalum.errors import HemalumError
from hemalum.models.file import load_card
from hemalum.models.seen_images import SeenImages
from hemalum.training.recipe import Recipe, load_recipe
from hemalum.training.train import train


def test_the_model_file_tells_where_it_comes_from(recipe: Recipe, mini: Path, tmp_path: Path) -> None:
    card = load_card(train(recipe, [mini], tmp_path / "run"))
    dataset = Dataset.open(mini)
    assert card.training is not None
    assert card.training.recipe_hash == recipe.digest
    assert Recipe.model_validate(card.training.settings).digest == recipe.digest
    assert card.training.steps == 9
    assert card.license == card.license_text == "not known: mini states no license"
    seen = SeenImages.of(card.training)
    uses = {"train": "trained", "val": "validated", "test": None}
    assert [seen.use_of(row.sha256) for row in dataset.rows] == [uses[row.split] for row in dataset.rows]
    assert seen.unrecorded == ()
    assert [(s.name, s.split_hash, s.samples) for s in card.training.data] == [
        ("mini", dataset.split_hash, len(dataset.split("train")))
    ]
    assert (card.mpp, card.stride, card.network.name) == (0.5, 8, "compact")
    assert card.halo % card.stride == 0
    assert 16 <= card.halo <= 64
    assert [row["step"] for row in read_log(tmp_path / "run")] == [2, 4, 5, 5, 7, 9]  # the second phase starts at 5


def test_the_model_file_tells_what_weights_it_started_from(recipe: Recipe, mini: Path, tmp_path: Path) -> None:
    first = train(recipe, [mini], tmp_path / "first")
    assert load_card(first).training.initial is None  # type: ignore[union-attr]

    def stop(step: int, total: int, row: dict[str, float]) -> None:
        if step == 5:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(recipe, [mini], tmp_path / "second", initial=first, on_progress=stop)
    second = train(recipe, [mini], tmp_path / "second", resume=True)
    assert load_card(second).training.initial == load_card(first).training  # type: ignore[union-attr]


@pytest.mark.fault
@pytest.mark.parametrize("workers", [0, -1, 10_000])
def test_workers_that_a_machine_cannot_have(recipe: Recipe, mini: Path, tmp_path: Path, workers: int) -> None:
    cores = os.cpu_count()
    with pytest.raises(HemalumError, match=rf"^workers is {workers}: want 1 to {cores}, the cores of this machine$"):
        train(recipe, [mini], tmp_path / "run", workers=workers)
    assert not (tmp_path / "run").exists()


def test_a_dataset_goes_by_the_recipes_name_for_it(recipe: Recipe, mini: Path, tmp_path: Path) -> None:
    other = recipe.model_copy(update={"data": {"another": recipe.data["mini"]}, "phases": recipe.phases[:1]})
    train(other, {"another": mini}, tmp_path / "run")
    assert "another_pq" in read_log(tmp_path / "run")[-1]


@pytest.mark.fault
def test_data_that_does_not_fit_the_recipe(recipe: Recipe, mini: Path, tmp_path: Path) -> None:
    other = recipe.model_copy(update={"data": {**recipe.data, "tnbc": recipe.data["mini"]}})
    with pytest.raises(HemalumError, match=r"needs dataset 'tnbc': give `data` tnbc=PATH"):
        train(other, [mini], tmp_path / "a")
    with pytest.raises(HemalumError, match=r"has no dataset 'minni', did you mean 'mini'\?"):
        train(recipe, {"minni": mini}, tmp_path / "b")
    odd = recipe.model_copy(update={"tile": 36})
    with pytest.raises(HemalumError, match="tile 36 is not a multiple of the network's 8"):
        train(odd, [mini], tmp_path / "c")
    unknown = recipe.model_copy(update={"representation": "distanse"})
    with pytest.raises(HemalumError, match="unknown representation 'distanse', did you mean 'distance'"):
        train(unknown, [mini], tmp_path / "d")
    assert not any((tmp_path / name).exists() for name in "abd")


@pytest.mark.fault
def test_a_recipe_without_datasets_takes_what_is_given(recipe: Recipe, mini: Path, tmp_path: Path) -> None:
    path = train(recipe.model_copy(update={"data": {}, "phases": recipe.phases[:1]}), [mini], tmp_path / "run")
    assert [used.name for used in load_card(path).training.data] == ["mini"]  # type: ignore[union-attr]
    assert "mini" in load_recipe(tmp_path / "run" / "recipe.yaml").data
    with pytest.raises(HemalumError, match="needs data: give `data` PATH"):
        train(recipe.model_copy(update={"data": {}}), [], tmp_path / "other")
    with pytest.raises(HemalumError, match="same name"):
        train(recipe.model_copy(update={"data": {}}), [mini, mini], tmp_path / "other")


@pytest.mark.fault
def test_losses_that_a_recipe_cannot_have(recipe: Recipe, mini: Path, tmp_path: Path) -> None:
    def with_loss(loss: str, **update: object) -> Recipe:
        content = recipe.model_dump(mode="json") | update
        return Recipe.model_validate(content | {"phases": [phase | {"loss": loss} for phase in content["phases"]]})

    with pytest.raises(ValueError, match="unknown loss 'bse', did you mean 'bce'"):
        with_loss("bse")
    with pytest.raises(HemalumError, match=r"loss 'bce' does not fit representation 'combined', whose maps are sig"):
        train(with_loss("bce", representation="combined"), [mini], tmp_path / "b")
    train(with_loss("bce", representation="foreground"), [mini], tmp_path / "c")
