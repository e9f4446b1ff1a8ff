"""What hemalum finds goes to QuPath, is corrected there, and comes back as labels to train on."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from builders.labels import field, photograph, save
from builders.outlines import Feature, feature, rectangle, rings_of
from builders.trainings import RECIPE, make_context
from hemalum.data.check import check_dataset
from hemalum.data.dataset import Dataset
from hemalum.data.importing import import_dataset
from hemalum.experiments.evaluate import evaluate
from hemalum.models.file import load_card
from hemalum.nuclei.nuclei import Nuclei, measure
from hemalum.training.loader import TrainLoader
from hemalum.training.recipe import Recipe
from hemalum.training.train import train

pytestmark = pytest.mark.fault

CLASSES = ("tumor", "lymphocyte")
TYPED: dict[str, Any] = RECIPE | {
    "representation": "typed",
    "data": {},
    "phases": [{"name": "main", "until": {"steps": 2}}],
    "validate_every": 2,
}


def segmented(path: Path, labels: np.ndarray, classes: np.ndarray) -> list[Feature]:
    """What `segment` writes of these nuclei, by their numbers."""
    part = measure(labels, class_map=classes.astype(np.float32)[labels])
    Nuclei.from_parts([part], shape=labels.shape, class_names=CLASSES).to_geojson(path)
    features: list[Feature] = json.loads(path.read_text())["features"]
    centers = [np.mean(one["geometry"]["coordinates"][0], axis=0).astype(int) for one in features]
    return [features[index] for index in np.argsort([labels[y, x] for x, y in centers])]


def corrected(features: list[Feature], missed: list[Any]) -> list[Feature]:
    """The first is of another class, the second is none, the missed are drawn by hand; in QuPath's order."""
    (first, _, *others) = features
    first["properties"]["classification"] = {"name": "lymphocyte", "color": [0, 0, 200]}
    drawn = [feature(ring, name="tumor") for ring in missed]
    return [feature(rectangle(0, 0, 96, 70), name="Region*"), *drawn, *reversed(others), first]


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("corrected")
    (root / "labels").mkdir()
    for number in range(6):
        labels = field(seed=number)
        save(root / "images" / f"f{number}.png", photograph(labels, number))
        seen = np.where(labels == 3, 0, labels).astype(np.int32)  # the third is not found
        path = root / "labels" / f"f{number}.geojson"
        features = corrected(segmented(path, seen, np.arange(26) % 2 + 1), [rings_of(labels)[2]])
        path.write_text(json.dumps({"type": "FeatureCollection", "features": features}, indent=2))
    return root


def test_corrections_come_back_as_labels(source: Path, tmp_path: Path) -> None:
    dataset = import_dataset("folder", source, tmp_path / "set", mpp=0.5, split=(0.5, 0.25, 0.25))
    assert dataset.info.classes == {1: "lymphocyte", 2: "tumor"}
    for number, sample in enumerate(dataset):
        labels = field(seed=number)
        inside = np.unique(labels[:70])
        centers = {n: (np.argwhere(labels == n)[:, 0].min() + np.argwhere(labels == n)[:, 0].max() + 1) / 2
                   for n in inside[inside > 0]}  # fmt: skip
        expected = {n for n, y in centers.items() if y < 70 and n != 2}
        assert sample.unannotated is not None
        known = ~sample.unannotated
        assert (sample.instances[known] > 0).tolist() == np.isin(labels, list(expected))[known].tolist()
        assert len(np.unique(sample.instances)) == len(expected) + 1
        for n in expected:
            (instance,) = np.unique(sample.instances[labels == n])
            name = dataset.class_names[int(sample.classes[instance])]
            assert name == ("lymphocyte" if n == 1 else "tumor" if n == 3 else CLASSES[n % 2])
        assert sample.unannotated[72:][labels[72:] == 0].all()
    assert [problem for problem in check_dataset(tmp_path / "set") if problem.level == "error"] == []


@pytest.mark.slow
def test_a_model_is_trained_on_corrections(source: Path, tmp_path: Path) -> None:
    import_dataset("folder", source, tmp_path / "set", mpp=0.5, split=(0.5, 0.25, 0.25))
    recipe = Recipe.model_validate(TYPED)
    card = load_card(train(recipe, [tmp_path / "set"], tmp_path / "run", threads=1, accelerator="cpu"))
    assert card.classes == ["lymphocyte", "tumor"]


@pytest.mark.parametrize("ambiguous", ["ignore", "count"])
def test_no_training_counts_what_is_not_annotated(source: Path, tmp_path: Path, ambiguous: str) -> None:
    dataset = import_dataset("folder", source, tmp_path / "set", mpp=0.5, split=(0.5, 0.25, 0.25), name="mini")
    changes = {"representation": "foreground", "augment": "none", "tile": 96, "ambiguous": ambiguous}
    context = make_context(Recipe.model_validate(RECIPE | changes))
    batch = TrainLoader(context, [dataset.split("train")]).batch(0)
    assert batch.valid is not None
    assert torch.equal(batch.valid[0, 0, :60], torch.ones(60, 96))
    assert batch.valid[0, 0, 72:].mean() == 0


@pytest.mark.parametrize("leave_out", [True, False])
def test_no_evaluation_counts_what_is_not_annotated(source: Path, tmp_path: Path, leave_out: bool) -> None:
    dataset = import_dataset("folder", source, tmp_path / "set", mpp=0.5, split=(0.5, 0.25, 0.25))

    def all_of_them(sample: Any) -> np.ndarray:
        """The labels, and something false where nobody has looked."""
        labels = sample.instances.copy()
        labels[85:, 20:60] = labels.max() + 1
        return np.asarray(labels)

    summary = evaluate(all_of_them, dataset, split=None, leave_out_ambiguous=leave_out).summary
    assert summary["images_annotated_in_part"] == 6
    assert summary["pixel"]["pooled"]["dice"] == 1
    assert summary["instance"]["pooled"]["pq"] == 1


def test_masks_of_both_kinds_are_stored_apart(source: Path, tmp_path: Path) -> None:
    dataset = import_dataset("folder", source, tmp_path / "set", mpp=0.5)
    mask = np.array(Image.open(tmp_path / "set" / "ambiguous" / "f0.png"))
    assert sorted(np.unique(mask)) == [0, 128]
    mask[:10] = 255
    Image.fromarray(mask).save(tmp_path / "set" / "ambiguous" / "f0.png")
    sample = Dataset.open(tmp_path / "set")[0]
    assert sample.left_out(ambiguous=True)[:10].all()
    assert not sample.left_out(ambiguous=False)[:10].any()
    assert (sample.left_out(ambiguous=False) == (mask == 128)).all()
    assert replace(dataset[0], unannotated=None).left_out(ambiguous=False) is None
