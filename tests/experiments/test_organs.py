"""Each sample is segmented as of its own organ, where the model tells organs apart."""

import logging
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from builders.trainings import write_source
from hemalum.data.dataset import Dataset
from hemalum.data.importing import import_dataset
from hemalum.experiments.evaluate import evaluate
from hemalum.experiments.segmenters import model_by_organ
from hemalum.models.card import Card, NetworkSpec
from hemalum.models.model import UNKNOWN_ORGAN, Model
from hemalum.nuclei.settings import SeparationSettings

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
    assert [record.message for record in caplog.records if "organ" in record.message] == [
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
