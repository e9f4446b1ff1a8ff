"""Classes of nuclei learned from one set, shapes from two of which the other has no classes."""

import json
import logging
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from safetensors.numpy import load_file

import hemalum
from builders.trainings import make_context
from hemalum.data.dataset import Dataset
from hemalum.data.importing import import_dataset
from hemalum.errors import HemalumError
from hemalum.models.file import load_card, load_model_file
from hemalum.training.data_spec import gather_data_spec
from hemalum.training.loader import TrainLoader
from hemalum.training.recipe import Recipe
from hemalum.training.train import train

COLORS = {0: (235, 225, 235), 1: (150, 40, 60), 2: (60, 40, 150)}


def write_discs(folder: Path, name: str, class_names: str | None, count: int = 10) -> Path:
    """Images of red and blue discs on a grid, with the color as class where there are `class_names`."""
    source = folder / f"{name}-source"
    rng = np.random.default_rng(len(name))
    y, x = np.mgrid[:64, :64]
    for number in range(count):
        labels, class_map = np.zeros((2, 64, 64), np.uint8)
        for index, (row, column) in enumerate(np.ndindex(4, 4), start=1):
            inside = (y - 8 - 16 * row) ** 2 + (x - 8 - 16 * column) ** 2 < rng.integers(25, 45)
            labels[inside], class_map[inside] = index, rng.integers(1, 3)
        image = np.array([COLORS[class_id] for class_id in range(3)])[class_map] + rng.normal(0, 6, (64, 64, 3))
        files = {"images": image.clip(0, 255).astype(np.uint8), "labels": labels}
        for part, pixels in (files | ({"classes": class_map} if class_names else {})).items():
            (source / part).mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels).save(source / part / f"{number}.png")
    target = folder / name
    options = {"class_names": class_names} if class_names else {}
    import_dataset("folder", source, target, mpp=0.5, split=(0.6, 0.2, 0.2), name=name, **options)
    return target


@pytest.fixture(scope="module")
def sets(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("sets")
    return [write_discs(folder, "named", "red,blue"), write_discs(folder, "nameless", None)]


def typed(recipe: Recipe, steps: int = 2, monitor: str = "pq", **changes: Any) -> Recipe:
    """One phase of so many steps of the recipe on both sets."""
    content = recipe.model_dump(mode="json") | {"representation": "typed", "validate_every": steps} | changes
    content["data"] = {"named": {}, "nameless": {}}
    phase = content["phases"][0]
    content["phases"] = [phase | {"until": phase["until"] | {"steps": steps, "monitor": monitor}}]
    return Recipe.model_validate(content)


@pytest.fixture(scope="module")
def trained(recipe: Recipe, sets: list[Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model of a short training: it tells red discs from blue ones."""
    quick = typed(
        recipe, 160, batch=8, ema=0.0, augment={"stain": 0, "saturation": 0, "elastic": 0, "gray": 0, "blur": 0}
    )
    return train(quick, sets, tmp_path_factory.mktemp("run") / "run", accelerator="cpu")


def test_two_steps_on_a_set_with_classes_and_one_without(
    recipe: Recipe, sets: list[Path], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO, "hemalum"):
        path = train(typed(recipe), sets, tmp_path / "run", accelerator="cpu")
    assert "learns classes from named; nuclei of nameless have none" in caplog.text
    card = load_card(path)
    assert (card.representation, card.classes) == ("typed", ["red", "blue"])
    row = json.loads((tmp_path / "run" / "log.jsonl").read_text().splitlines()[-1])
    assert {"loss_foreground", "loss_distance", "loss_red_blue", "named_pq", "nameless_pq", "named_f1"} <= set(row)
    assert "nameless_f1" not in row
    assert row["miou"] == row["named_miou"]
    assert all(np.isfinite(value) for value in row.values() if isinstance(value, float))


def test_crops_of_the_nameless_set_have_no_class_targets(recipe: Recipe, sets: list[Path]) -> None:
    changed = typed(recipe, batch=8, target_supersampling=2)
    datasets = [Dataset.open(path) for path in sets]
    parts = [dataset.split("train") for dataset in datasets]
    context = make_context(changed, data_spec=gather_data_spec(changed, datasets))
    loader = TrainLoader(context, parts)
    seen = {True: 0, False: 0}
    for number in range(3):
        targets = loader.batch(number).targets.numpy()
        for draw, maps in zip(loader.draws(number), targets, strict=True):
            named = loader.ids[draw.sample].startswith("named/")
            assert np.isfinite(maps[:2]).all()
            assert np.isnan(maps[2:]).all() != named
            seen[named] += 1
            if named:  # every pixel of a nucleus is of one class or the other, in shares where it is cut
                np.testing.assert_allclose(maps[2:].sum(0), maps[0], atol=1e-6)
    assert min(seen.values()) > 3


def test_the_model_names_nuclei_and_is_scored_by_class(trained: Path, sets: list[Path]) -> None:
    score = hemalum.evaluate(trained, sets[0], engine="torch").summary
    assert score["classes"]["mpq_image"] > 0.6
    assert score["semantic"]["pooled"]["miou"] > 0.6
    without = hemalum.evaluate(trained, sets[1], engine="torch").summary
    assert "classes" not in without
    sample = next(iter(Dataset.open(sets[1]).split("test")))
    nuclei = hemalum.segment(sample.image, trained, mpp=0.5, engine="torch")
    labels, names = nuclei.label_map(), nuclei.table["class"].to_pylist()
    assert set(names) == {"red", "blue"}
    for number, name in zip(nuclei.table["id"].to_pylist(), names, strict=True):
        red, _, blue = sample.image[labels == number].mean(0)
        assert name == ("red" if red > blue else "blue")


@pytest.mark.fault
def test_weights_can_be_kept_by_miou_where_a_validation_image_has_classes(
    recipe: Recipe, sets: list[Path], tmp_path: Path
) -> None:
    changed = typed(recipe, monitor="miou")
    assert train(changed, sets, tmp_path / "run", accelerator="cpu").is_file()
    named = Dataset.open(sets[0])
    rows = tuple(row for row in named.rows if row.split != "val")
    with pytest.raises(HemalumError, match="monitors miou and no validation image has classes"):
        train(changed, [replace(named, rows=rows), sets[1]], tmp_path / "other", accelerator="cpu")


@pytest.mark.fault
def test_some_set_must_have_classes(recipe: Recipe, sets: list[Path], tmp_path: Path) -> None:
    other = write_discs(tmp_path, "other", "red,green", 5)
    datasets = [Dataset.open(sets[1]), Dataset.open(other), Dataset.open(sets[0])]
    with pytest.raises(HemalumError, match="tells classes apart and no dataset has any"):
        gather_data_spec(typed(recipe), datasets[:1])
    with pytest.raises(HemalumError, match="name different classes: red, green; red, blue"):
        gather_data_spec(typed(recipe), datasets)
    assert gather_data_spec(typed(recipe), datasets[::2]).classes == ("red", "blue")
    with pytest.raises(HemalumError, match="classes: nucleus takes all nuclei as one"):
        gather_data_spec(typed(recipe, classes="nucleus"), datasets[::2])


@pytest.mark.parametrize("kept", ["distance", "semantic"])
def test_a_part_of_the_maps_can_be_kept(kept: str, recipe: Recipe, sets: list[Path], tmp_path: Path) -> None:
    path = train(typed(recipe, output_representation=kept, ema=0.0), sets, tmp_path / "run", accelerator="cpu")
    card, tensors = load_model_file(path)
    assert card.representation == kept
    assert card.classes == (["nucleus"] if kept == "distance" else ["red", "blue"])
    trained_maps = load_file(tmp_path / "run" / "best_first.safetensors")
    rows = slice(0, 2) if kept == "distance" else slice(2, 5)
    expected = trained_maps["head.bias"].reshape(5, 4)[rows]
    np.testing.assert_array_equal(tensors["head.bias"].reshape(-1, 4), expected)


@pytest.mark.fault
def test_what_cannot_be_kept_is_refused_before_training(recipe: Recipe, sets: list[Path], tmp_path: Path) -> None:
    with pytest.raises(HemalumError, match="representation 'typed' has no maps horizontal, vertical to keep"):
        train(typed(recipe, output_representation="center_gradient"), sets, tmp_path / "run", accelerator="cpu")
    assert not (tmp_path / "run" / "log.jsonl").exists()
