"""A user's own images without labels: where they are found, how they come in, what is refused, what the card says."""

import logging
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
import torch
from PIL import Image

from builders.trainings import assert_same_run, make_context, read_log
from hemalum.data.augmentation.crops import augment
from hemalum.data.dataset import Dataset
from hemalum.errors import HemalumError
from hemalum.models.file import load_card
from hemalum.reports.tables import card_pairs
from hemalum.training.building import build_for
from hemalum.training.data_spec import DataSpec
from hemalum.training.recipe import Recipe, load_recipe
from hemalum.training.semi_supervised import UnlabeledLoader, find_parts, open_train_loader, summarize_pseudo_labels
from hemalum.training.train import train
from hemalum.training.unlabeled_images import UnlabeledImages, as_entries, find_unlabeled, read_unlabeled

NUCLEUS = DataSpec(classes=("nucleus",), one_class=True)
CONTENT: dict[str, Any] = {
    "name": "own",
    "seed": 3,
    "network": {"name": "unet", "options": {"widths": [4, 8], "norm": True}},
    "representation": "semantic",
    "classes": "nucleus",
    "mpp": 0.5,
    "tile": 32,
    "batch": 4,
    "augment": "flips",
    "phases": [
        {
            "name": "main",
            "loss": "cross_entropy",
            "semi_supervised": {"views": 1, "threshold": 0.5},
            "until": {"steps": 3},
        }
    ],
    "validate_every": 3,
}


def recipe_of(**keys: Any) -> Recipe:
    return Recipe.model_validate(CONTENT | keys)


def write_images(folder: Path, count: int, side: int = 64, seed: int = 5) -> Path:
    folder.mkdir()
    rng = np.random.default_rng(seed)
    for number in range(count):
        Image.fromarray(rng.integers(60, 230, (side, side, 3), np.uint8)).save(folder / f"{number}.png")
    return folder


def write_slide(path: Path, side: int = 4096) -> Path:
    """A pyramid of white glass at 0.5 µm/px, a quarter of which is tissue: rows and columns up to the middle."""
    rng = np.random.default_rng(0)
    pixels = np.full((side, side, 3), 245, np.uint8)
    noise = rng.integers(-40, 40, (side // 2, side // 2, 1))
    pixels[: side // 2, : side // 2] = np.clip(np.array([190, 120, 180]) + noise, 0, 255)
    options: dict[str, Any] = {"tile": (256, 256), "photometric": "rgb", "resolutionunit": "CENTIMETER"}
    with tifffile.TiffWriter(path) as tiff:
        tiff.write(pixels, subifds=1, resolution=(20_000, 20_000), **options)
        tiff.write(pixels[::4, ::4], subfiletype=1, resolution=(5_000, 5_000), **options)
    return path


def test_a_folder_is_learned_from_at_the_scale_of_the_training(tmp_path: Path) -> None:
    folder = write_images(tmp_path / "photos", 3)
    (folder / "notes.txt").write_text("not an image")
    sources = find_unlabeled([UnlabeledImages(path=str(folder), mpp=0.25)], 0.5, 64)
    assert [(source.name, len(source.images)) for source in sources] == [("photos", 3)]
    images = read_unlabeled(sources, 0.5, None, {})
    assert [image.image.shape for image in images] == [(32, 32, 3)] * 3
    assert not any(image.truth for image in images)
    # cut as every other image is, without a nucleus anywhere
    crops, labels = augment(images, [np.random.default_rng(0) for _ in images], 48, recipe_of().augment)
    assert crops.shape == (3, 3, 48, 48)
    assert not labels.any()


def test_squares_of_a_slide_are_tissue_and_the_same_again(tmp_path: Path) -> None:
    slide = write_slide(tmp_path / "slide.tif")
    entry = UnlabeledImages(path=str(slide), tiles=5)
    (source,) = find_unlabeled([entry], 1.0, 100)
    assert len(source.images) == 5
    for image in source.images:
        x, y, width, height = image.window or (0, 0, 0, 0)
        assert (width, height) == (200, 200)  # 100 px at 1 µm/px
        assert x + width / 2 <= 2048
        assert y + height / 2 <= 2048
    assert find_unlabeled([entry], 1.0, 100) == [source]
    images = read_unlabeled([source], 1.0, None, {})
    assert {image.image.shape for image in images} == {(100, 100, 3)}
    assert np.mean([image.image.mean() for image in images]) < 200
    # a folder of a slide and an image holds both
    write_images(tmp_path / "both", 1)
    slide.rename(tmp_path / "both" / "slide.tif")
    (mixed,) = find_unlabeled([UnlabeledImages(path=str(tmp_path / "both"), mpp=0.5, tiles=2)], 1.0, 100)
    assert [image.window is None for image in mixed.images] == [True, False, False]
    # what a file states holds; the entry's scale is for the image, which states none
    (other,) = find_unlabeled([UnlabeledImages(path=str(tmp_path / "both"), mpp=0.25, tiles=2)], 1.0, 100)
    assert [image.mpp for image in other.images] == [0.25, 0.5, 0.5]


def test_of_a_dataset_the_training_part_is_taken_without_its_labels(mini: Path) -> None:
    (source,) = find_unlabeled([UnlabeledImages(path=str(mini))], 0.5, 64)
    part = Dataset.open(mini).split("train")
    assert [image.path for image in source.images] == [mini / row.image for row in part.rows]
    images = read_unlabeled([source], 0.5, None, {})
    assert np.array_equal(images[0].image, part[0].image)
    assert not any(image.labels.any() for image in images)


@pytest.mark.fault
@pytest.mark.parametrize(
    ("split", "why"), [("test", "which is not to be learned from"), ("train", "which is learned from already")]
)
def test_images_of_the_data_are_refused(mini: Path, tmp_path: Path, split: str, why: str) -> None:
    held = Dataset.open(mini).split(split)
    Image.fromarray(held[0].image).save(tmp_path / "copy.png")
    line = rf"copy.png: is the same image as {held.rows[0].id} of the {split} part of mini, {why}: take it out of"
    with pytest.raises(HemalumError, match=line):
        train(recipe_of(unlabeled=[{"path": str(tmp_path / "copy.png"), "mpp": 0.5}]), [mini], tmp_path / "run")


@pytest.mark.fault
@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ({"path": "nowhere", "mpp": 0.5}, "unlabeled: no such file or folder: nowhere"),
        ({"path": "empty", "mpp": 0.5}, r"unlabeled: no images or slides in empty \(.png, .*\), and no dataset"),
        ({"path": "photos"}, "unlabeled: photos/0.png states no scale: give its µm per px as 'mpp'"),
        ({"path": "glass.tif", "mpp": 0.5}, "glass.tif: no tissue was found in 1 slide: nothing to learn from"),
        ({"path": "photos", "mpp": 50.0}, r"are 81,920,000 px .* over the limit of 10,000,000: give fewer"),
    ],
)
def test_what_cannot_be_learned_from(
    entry: dict[str, Any], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("hemalum.training.unlabeled_images.MAX_PIXELS", 10_000_000)
    (tmp_path / "empty").mkdir()
    write_images(tmp_path / "photos", 2)
    if entry["path"] == "glass.tif":
        white = np.full((2304, 2304, 3), 245, np.uint8)
        with tifffile.TiffWriter("glass.tif") as tiff:
            tiff.write(white, tile=(256, 256), photometric="rgb", subifds=1)
            tiff.write(white[::2, ::2], tile=(256, 256), photometric="rgb", subfiletype=1)
    with pytest.raises(HemalumError, match=message) as caught:
        find_unlabeled([UnlabeledImages(**entry)], 0.5, 64)
    assert "\n" not in str(caught.value)


@pytest.mark.fault
def test_a_run_learns_from_them_and_its_card_counts_them_apart(mini: Path, tmp_path: Path) -> None:
    folder = write_images(tmp_path / "photos", 5)
    entries = [{"path": str(folder), "mpp": 0.5}]
    card = load_card(train(recipe_of(unlabeled=entries), [mini], tmp_path / "run", threads=1))
    assert card.training is not None
    labeled = len(Dataset.open(mini).split("train"))
    assert [(one.name, one.samples, one.unlabeled) for one in card.training.data] == [("mini", labeled, 0)]
    assert [(one.name, one.images) for one in card.training.unlabeled] == [("photos", 5)]
    assert any(text.startswith("photos: 5 images (") for name, text in card_pairs(card) if name == "unlabeled")
    last = read_log(tmp_path / "run")[-1]
    assert 0 < last["mask_rate"] <= 1
    assert "pseudo_accuracy" not in last  # nobody knows the truth

    # the Python option is the recipe's key, and a change of the images is seen
    entry = UnlabeledImages(path=str(folder), mpp=0.5)
    train(recipe_of(), [mini], tmp_path / "option", unlabeled=[entry], threads=1)
    assert_same_run(tmp_path / "run", tmp_path / "option")
    Image.fromarray(np.zeros((64, 64, 3), np.uint8)).save(folder / "0.png")
    with pytest.raises(HemalumError, match=r"cannot resume .*: the data, its labels or its split have changed since"):
        train(recipe_of(unlabeled=entries), [mini], tmp_path / "run", resume=True, threads=1)


def test_hidden_labels_are_counted_apart_as_well(mini: Path, tmp_path: Path) -> None:
    card = load_card(train(recipe_of(labeled=2), [mini], tmp_path / "run", threads=1))
    assert card.training is not None
    hidden = len(Dataset.open(mini).split("train")) - 2
    assert [(one.samples, one.unlabeled) for one in card.training.data] == [(2, hidden)]
    assert any(f"2 labeled images, {hidden} without their labels" in text for _, text in card_pairs(card))
    assert "pseudo_accuracy" in read_log(tmp_path / "run")[-1]


def test_own_images_stand_beside_hidden_ones_and_have_no_truth(mini: Path, tmp_path: Path) -> None:
    folder = write_images(tmp_path / "photos", 4)
    recipe = recipe_of(data={"mini": {}}, labeled="1/3", unlabeled=[{"path": str(folder), "mpp": 0.5}])
    context = make_context(recipe, data_spec=NUCLEUS)
    datasets = [Dataset.open(mini)]
    parts = find_parts(context, datasets, build_for(recipe, NUCLEUS)[0])
    loader = open_train_loader(context, datasets, parts)
    assert (parts.labeled_images, parts.unlabeled_images) == (len(loader.prepared), len(loader.unlabeled))
    settings = recipe.phases[0].semi_supervised
    assert settings is not None
    views = UnlabeledLoader(context, loader.unlabeled, settings)
    seen = set()
    for number in range(4):
        truth = views.make_views(number, torch.empty(0), [])["truth"]
        for draw, map_HW in zip(views.draws(number), truth, strict=True):
            seen.add(loader.unlabeled[draw.sample].truth)
            assert bool((map_HW == -1).all()) == (not loader.unlabeled[draw.sample].truth)
            assert bool((map_HW >= 0).all()) == loader.unlabeled[draw.sample].truth
    assert seen == {True, False}
    assert summarize_pseudo_labels(torch.tensor([8.0, 6.0, 4.0, 3.0])) == {"mask_rate": 0.75, "pseudo_accuracy": 0.75}


@pytest.mark.fault
def test_a_method_that_learns_from_none_refuses_them(mini: Path, tmp_path: Path) -> None:
    phases = [{"name": "main", "loss": "cross_entropy", "until": {"steps": 3}}]
    line = r"recipe own has unlabeled images and no phase that learns from them: .*'unlabeled: \[\]'"
    with pytest.raises(HemalumError, match=line):
        train(recipe_of(phases=phases), [mini], tmp_path / "run", unlabeled=[tmp_path], threads=1)
    assert not (tmp_path / "run").exists()


@pytest.mark.fault
def test_keys_of_a_recipe(tmp_path: Path) -> None:
    path = tmp_path / "r.yaml"
    start = "name: r\nsystem: {name: csra_net}\nmpp: 0.5\n"

    def load(lines: str) -> Recipe:
        path.write_text(start + lines)
        return load_recipe(path)

    recipe = load("unlabeled: [slides, {path: photos, mpp: 0.25}]\nlabeled: 1/4\n")
    entries = [(one.path, one.mpp, one.tiles) for one in recipe.unlabeled]
    assert entries == [("slides", None, 100), ("photos", 0.25, 100)]
    assert Recipe.model_validate(recipe.model_dump(mode="json")).digest == recipe.digest
    assert (recipe.labeled and recipe.labeled.fraction) == "1/4"
    assert [one.path for one in load("unlabeled: slides\n").unlabeled] == ["slides"]
    assert load("unlabeled: []\n").unlabeled == []
    for lines, which in (("labeled: 40\n", (None, 40, None)), ("labeled: names.txt\n", (None, None, "names.txt"))):
        labeled = load(lines).labeled
        assert labeled is not None
        assert (labeled.fraction, labeled.count, labeled.file) == which
    # a way to draw alone changes that of the system, which says how many
    labeled = load("labeled: {seed: 4}\n").labeled
    assert labeled is not None
    assert (labeled.fraction, labeled.seed) == ("1/8", 4)
    for lines, message in (
        ("unlabelled: [slides]\n", "unknown key 'unlabelled', did you mean 'unlabeled'"),
        ("unlabeled: [{pth: slides}]\n", "unknown key 'unlabeled.0.pth', did you mean 'path'"),
        ("unlabeled: [{path: slides, tiles: 0}]\n", "'unlabeled.0.tiles': Input should be greater than"),
        ("labeled: {count: 3, file: names.txt}\n", "'labeled': want one of fraction, count, file"),
        ("labeled: {file: names.txt, seed: 2}\n", "'labeled': 'seed' is for a draw, and 'file' names"),
        ("labeled: 2/3\n", "'labeled.fraction': String should match pattern"),
        ("labeled: 0\n", "'labeled.count': Input should be greater than"),
    ):
        with pytest.raises(HemalumError, match=message) as caught:
            load(lines)
        assert "\n" not in str(caught.value)


def test_a_class_without_a_labeled_image_is_named(
    mini: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    dataset = Dataset.open(mini)
    rows = [replace(row, nuclei=0) if row.split == "train" and n else row for n, row in enumerate(dataset.rows)]
    names = tmp_path / "names.txt"
    names.write_text("\n".join(row.id for row in rows if row.split == "train" and row.nuclei == 0))
    recipe = recipe_of(labeled=str(names))
    with caplog.at_level(logging.WARNING):
        find_parts(
            make_context(recipe, data_spec=NUCLEUS), [replace(dataset, rows=tuple(rows))],
            build_for(recipe, NUCLEUS)[0],
        )  # fmt: skip
    assert "no labeled image holds nucleus" in caplog.text


@pytest.mark.fault
def test_paths_as_entries() -> None:
    assert [one.path for one in as_entries("photos")] == ["photos"]
    assert [one.path for one in as_entries([Path("a"), UnlabeledImages(path="b")])] == ["a", "b"]
    with pytest.raises(HemalumError, match="unlabeled: a path is empty; give images"):
        as_entries(["a", ""])
