"""Refinement on a review from end to end on a tiny model: what is learned from, what is measured, what is refused."""

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from builders.trainings import RECIPE, import_mini
from hemalum.data.dataset import Dataset, pixel_hash, write_index
from hemalum.errors import HemalumError
from hemalum.experiments.execute import Resources
from hemalum.models.model import load_model
from hemalum.nuclei.nuclei import Nuclei
from hemalum.review import Item, Project, ReviewedRefinement, correct_item, edits, refine_reviewed
from hemalum.training.recipe import Recipe
from hemalum.training.train import train

TORCH = Resources(engine="torch", accelerator="cpu", threads=1)
ASKED: dict[str, Any] = {"epochs": 1, "lr": 1e-3, "resources": TORCH}


@pytest.fixture(scope="module")
def mini(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return import_mini(tmp_path_factory.mktemp("mini"))


@pytest.fixture(scope="module")
def model(mini: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny model that has learned from two of the groups of `mini`."""
    data = Dataset.open(mini)
    known = replace(data, rows=tuple(row for row in data.rows if row.split != "test"))
    return train(Recipe.model_validate(RECIPE), [known], tmp_path_factory.mktemp("model") / "run", threads=1)


def begin_review(folder: Path, model: Path, data: Dataset, marked: Callable[[int], bool] = lambda index: True) -> Path:
    """A review of the images of a dataset whose proposals are off by 3 px, each corrected to the truth."""
    loaded = load_model(model)
    project = folder / "project"
    with Project.join(
        project, source=str(data.path), model=loaded.card.name, model_digest=loaded.digest, options={}
    ) as opened:
        for index, sample in enumerate(data):
            height, width = sample.instances.shape
            item = Item(
                sample.id, (height, width), pixel_hash(sample.image), sample.mpp, sample.mpp_source,
                source=sample.source, group=sample.source,
            )  # fmt: skip
            opened.journal.add_item(item, Nuclei.from_labels(np.roll(sample.instances, 3, axis=1), mpp=sample.mpp))
            if marked(index):
                correct_item(opened.journal, sample.id, sample.instances)
    return project


def reviewed_part(mini: Path) -> Dataset:
    """Images that the model has not learned from: a group of two, and two of the validation part."""
    data = Dataset.open(mini)
    return replace(data, rows=(*data.split("test").rows, *data.split("val").rows))


@pytest.fixture(scope="module")
def project(model: Path, mini: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return begin_review(tmp_path_factory.mktemp("review"), model, reviewed_part(mini))


@pytest.fixture(scope="module")
def refined(model: Path, project: Path, tmp_path_factory: pytest.TempPathFactory) -> ReviewedRefinement:
    return refine_reviewed(model, project, tmp_path_factory.mktemp("refined") / "new", **ASKED)


def test_all(refined: ReviewedRefinement) -> None:
    print(refined)
    assert 0
