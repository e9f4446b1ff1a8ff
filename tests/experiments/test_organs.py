"""Each sample is segmented as of its own organ, where the model tells organs apart, or by the rule of a control."""

import logging
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from builders.trainings import write_source
from hemalum import cli
from hemalum.data.dataset import Dataset
from hemalum.data.importing import import_dataset
from hemalum.errors import HemalumError
from hemalum.experiments.evaluate import evaluate
from hemalum.experiments.measurement import measure
from hemalum.experiments.organs import ORGAN_RULES, assign_organs
from hemalum.experiments.segmenters import model_by_organ
from hemalum.models.card import Card, NetworkSpec
from hemalum.models.model import UNKNOWN_ORGAN, Model
from hemalum.nuclei.settings import SeparationSettings
from hemalum.training.recipe import Recipe
from hemalum.training.train import train

ORGANS = ["brain", "kidney"]


@pytest.fixture
def model() -> Model:
    card = Card(
        name="organs", network=NetworkSpec(name="none"), representation="foreground", mpp=0.5, halo=0, stride=2,
        window=32, organs=ORGANS, separation=SeparationSettings(min_area=4), code_version="0",
    )  # fmt: skip
    return Model(card, {"nothing": np.zeros(1, np.float32)})


class RecordingEngine:
    """Finds dark pixels in images of the kidney, and nothing in others; notes what it was told."""

    name, precision, parallel, batch = "told", "f32", 1, 1

    def __init__(self) -> None:
        self.organs: list[int | None] = []

    def maps(self, images: NDArray[np.uint8], organ: int | None = None) -> NDArray[np.float32]:
        self.organs.append(organ)
        dark = (images.mean(axis=-1) < 128).astype(np.float32)
        return dark[:, None] * np.float32(organ == 1)


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    labels = np.zeros((48, 48), np.uint16)
    labels[10:20, 10:20], labels[30:40, 25:35] = 1, 2
    tiles = []
    for number, organ in enumerate(["Kidney", "brain", "kidney", "colon", "", "skin"]):
        image = np.full((48, 48, 3), 220, np.uint8)
        image[labels > 0] = 40 + number
        tiles.append((image, labels, organ))
    source = write_source(tmp_path_factory.mktemp("organs"), tiles, "organ")
    target = tmp_path_factory.mktemp("out") / "organs"
    import_dataset("folder", source, target, mpp=0.5, name="organs")
    return target


def test_a_model_is_told_each_samples_organ(dataset: Path, model: Model, caplog: pytest.LogCaptureFixture) -> None:
    engine = RecordingEngine()
    with caplog.at_level(logging.INFO):
        result = evaluate(model, dataset, split=None, engine=engine)
    dice = {str(row["id"]): row["dice"] for row in result.per_image}
    assert {name for name, value in dice.items() if value == 1} == {"0", "2"}
    assert set(engine.organs) == {0, 1, UNKNOWN_ORGAN}
    assert [record.message for record in caplog.records if "an organ" in record.message] == [
        "model 'organs' does not know 'colon', images without an organ, 'skin': the mean of all organs is taken"
    ]


def test_samples_that_come_one_by_one(dataset: Path, model: Model) -> None:
    def samples() -> Iterator[object]:
        yield from Dataset.open(dataset)

    engine = RecordingEngine()
    evaluate(model, samples(), engine=engine)  # type: ignore[arg-type]
    assert set(engine.organs) == {0, 1, UNKNOWN_ORGAN}


def test_an_organ_that_was_chosen_for_all_stays(model: Model) -> None:
    chosen = model.with_organ("brain")
    assert model_by_organ(chosen, ["kidney"])("kidney") is chosen
    plain = Model(model.card.model_copy(update={"organs": []}), model.tensors)
    assert model_by_organ(plain, ["kidney"])("kidney") is plain


def organ_by_image(engine: RecordingEngine) -> list[int | None]:
    """What the engine was told for each of the six images, which come in windows."""
    windows = len(engine.organs) // 6
    images = [set(engine.organs[first : first + windows]) for first in range(0, len(engine.organs), windows)]
    assert [len(organs) for organs in images] == [1] * 6
    return [organs.pop() for organs in images]


@pytest.mark.parametrize("rule", ORGAN_RULES)
def test_a_rule_says_which_organ_the_model_is_told(rule: str, dataset: Path, model: Model) -> None:
    engine = RecordingEngine()
    summary = evaluate(model, dataset, split=None, engine=engine, organs=rule).summary
    organs, true = organ_by_image(engine), [1, 0, 1, -1, -1, -1]
    match rule:
        case "true":
            assert organs == true
        case "unknown":
            assert organs == [-1] * 6
        case "wrong":
            assert organs[:3] == [0, 1, 0]
            assert set(organs[3:]) <= {0, 1}
        case "shuffled":
            assert organs != true
            assert Counter(organs) == Counter(true)
    unknown = organs.count(-1)
    assert summary["organs"] == {"rule": rule, "known": 6 - unknown, "unknown": unknown}
    # tables by organ are still of what the images are of
    assert {row["name"] for row in summary["by_organ"]} == {"Kidney", "brain", "kidney", "colon", "skin"}
    engine, data = RecordingEngine(), Dataset.open(dataset)
    assigned = assign_organs(rule, model.card.organs, {row.id: row.organ for row in data.rows})
    measured = measure(model, data, engine, organs=assigned)
    assert organ_by_image(engine) == organs
    assert measured.organs == tuple(row.organ for row in data.rows)


def test_wrong_is_any_other_and_shuffled_keeps_the_numbers() -> None:
    known = ["a", "b", "c", "d", "e"]
    images = {str(number): known[number % 5].upper() for number in range(2000)} | {"x": None}
    wrong = assign_organs("wrong", known, images)
    for organ in known:
        counts = Counter(wrong[id] for id, true in images.items() if true == organ.upper())
        assert set(counts) == set(known) - {organ}
        assert max(counts.values()) < 1.5 * min(counts.values())
    shuffled = assign_organs("shuffled", known, images)
    assert Counter(shuffled.values()) == Counter(images.values())
    hits = sum(shuffled[id] == true for id, true in images.items())
    assert 300 < hits < 500  # one in five by chance
    for rule in ("wrong", "shuffled"):
        assert assign_organs(rule, known, images) == assign_organs(rule, known, images)
        assert assign_organs(rule, known, images, seed=1) != assign_organs(rule, known, images)


@pytest.mark.fault
def test_what_has_no_organ_to_give(dataset: Path, model: Model) -> None:
    plain = Model(model.card.model_copy(update={"organs": []}), model.tensors)
    engine = RecordingEngine()
    with pytest.raises(HemalumError, match="organs 'wrnog', did you mean 'wrong'"):
        evaluate(model, dataset, engine=engine, organs="wrnog")
    with pytest.raises(HemalumError, match="model 'organs' tells no organs apart: leave organs 'unknown' out"):
        evaluate(plain, dataset, engine=engine, organs="unknown")
    with pytest.raises(HemalumError, match="'classical' tells no organs apart: leave organs 'wrong' out"):
        evaluate("classical", dataset, organs="wrong")
    with pytest.raises(HemalumError, match="model 'organs' is set to brain for all images: take the one"):
        evaluate(model.with_organ("brain"), dataset, engine=engine, organs="wrong")
    with pytest.raises(HemalumError, match="organs 'shuffled' needs a dataset"):
        evaluate(model, iter(Dataset.open(dataset)), engine=engine, organs="shuffled")
    with pytest.raises(HemalumError, match="organs 'wrong': the model knows 'kidney' alone"):
        assign_organs("wrong", ["kidney"], {"1": "kidney"})
    assert engine.organs == []


@pytest.mark.fault
def test_the_verb_has_the_rule(tiny: Path, organs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["evaluate", str(tiny), str(organs), "--engine", "torch"]
    assert cli.main([*words, "--organs", "unknown", "-o", str(tmp_path / "out")]) == 0
    printed = " ".join(capsys.readouterr().out.split())
    assert "organs: unknown" in printed
    assert '"rule": "unknown"' in (tmp_path / "out" / "summary.json").read_text()
    assert cli.main([*words, "--organs", "unknwon"]) == 2
    assert "organs 'unknwon', did you mean 'unknown'?" in capsys.readouterr().err


def test_a_training_says_which_organs_it_is_only_tested_on(
    organs: Path, tiny_recipe: dict[str, Any], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A split by organ tests exactly the unknown organ."""
    data = Dataset.open(organs)
    livers = tuple(row for row in data.rows if row.organ == "liver" or row.split != "train")
    recipe = Recipe.model_validate(
        tiny_recipe | {"validate_every": 1, "system": tiny_recipe["system"] | {"steps": 1}}
    )
    expected = "no training image is of brain: validation and test images of these are seen as of an unknown organ"
    train(recipe, [replace(data, rows=livers)], tmp_path / "by organ", accelerator="cpu")
    assert [expected in record.message for record in caplog.records].count(True) == 1
    caplog.clear()
    train(recipe, [data], tmp_path / "by image", accelerator="cpu")
    assert not [record for record in caplog.records if "no training image" in record.message]
