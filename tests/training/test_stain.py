"""A recipe's stain normalization: what it is fitted on, what the stream sees, and that inference sees the same."""

import logging
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from builders.stains import normalize_stain
from builders.trainings import make_context
from hemalum.data.dataset import Dataset
from hemalum.data.stain.normalization import (
    StainNormalization,
    StainNormalizer,
    measure_stain,
    sample_image,
)
from hemalum.data.stain.statistics import StainTarget
from hemalum.data.stain.target import fit_stain_target
from hemalum.errors import HemalumError
from hemalum.inference.scale import scaled_shape
from hemalum.inference.staining import find_stain
from hemalum.models.card import Card, NetworkSpec
from hemalum.models.file import load_card
from hemalum.models.model import Model, load_model
from hemalum.slides.resample import Resampler
from hemalum.slides.slide import Slide
from hemalum.training.encoding import prepare_sample
from hemalum.training.loader import TrainLoader
from hemalum.training.recipe import Recipe, load_recipe
from hemalum.training.train import train

METHODS = ("macenko", "reinhard", "vahadane")


@pytest.fixture
def stained(mini: Path, tmp_path: Path) -> Path:
    """The miniature in hematoxylin and eosin, each image in colors of its own."""
    folder = tmp_path / "mini"
    shutil.copytree(mini, folder)
    paths = sorted((folder / "images").iterdir())
    labels = sorted((folder / "labels").iterdir())
    for number, (path, label) in enumerate(zip(paths, labels, strict=True)):
        rng = np.random.default_rng(number)
        inside = np.asarray(Image.open(label)) > 0
        amount = np.stack([np.where(inside, 1.2, 0.1), np.where(inside, 0.2, 0.6)], axis=-1)
        amount *= rng.uniform(0.7, 1.3, amount.shape)
        amount[:3] = 0  # empty glass
        stains = np.array([[0.61, 0.79, 0.45], [0.22, 0.80, 0.56]]) * rng.uniform(0.8, 1.2, 3)
        Image.fromarray(np.rint(255 * np.exp(-amount @ stains)).astype(np.uint8)).save(path)
    return folder


def settings(method: str, **changes: str) -> StainNormalization:
    return StainNormalization.model_validate({"method": method} | changes)


@pytest.mark.parametrize("method", METHODS)
def test_training_and_inference_see_the_same_pixels(method: str, recipe: Recipe, stained: Path) -> None:
    dataset = Dataset.open(stained)
    target = fit_stain_target(settings(method), {"mini": dataset})
    normalizer = StainNormalizer(target)
    changed = 0
    for sample in dataset:
        for mpp in (0.5, 0.37, 0.9):
            trained = prepare_sample(sample, mpp, normalizer).image
            source = Slide.of(sample.image)
            model = Model(make_card(target, mpp), {})
            shape = scaled_shape(source.shape, 0.5 / mpp)
            resampler = Resampler(source.shape, shape)
            # as the network gets it: in bands of any height, each brought to the target's colors
            change = find_stain(source, model)
            assert change is not None
            rows = []
            for start in range(0, shape[0], 11):
                stop = min(start + 11, shape[0])
                above, below = resampler.needs(start, stop)
                rows.append(change.apply(resampler.rows(source.rows(above, below), start, stop)))
            network_pixels = np.concatenate(rows)
            if mpp == 0.5:
                np.testing.assert_array_equal(network_pixels, trained)
            else:  # the two resamplers may differ by one gray level, which a normalization can spread
                difference = np.abs(network_pixels.astype(int) - trained)
                assert difference.max() <= 4
                assert difference.mean() < 0.5
            changed += not np.array_equal(trained, prepare_sample(sample, mpp).image)
    assert changed == 3 * len(dataset)


def make_card(target: StainTarget, mpp: float) -> Card:
    return Card(
        name="x", network=NetworkSpec(name="compact"), representation="distance", mpp=mpp, halo=8, stride=8,
        stain=target, code_version="0",
    )  # fmt: skip


@pytest.mark.fault
@pytest.mark.parametrize("method", METHODS)
def test_the_target_is_in_the_model_file(method: str, recipe: Recipe, stained: Path, tmp_path: Path) -> None:
    short = recipe.model_copy(
        update={"phases": recipe.phases[:1], "stain_normalization": settings(method, unfit="refuse")}
    )
    path = train(short, [stained], tmp_path / "run")
    target = fit_stain_target(short.stain_normalization, {"mini": Dataset.open(stained)})
    card = load_card(path)
    assert card.stain == target
    assert target.origin == "the median of 6 training images of mini"
    assert target.unfit == "refuse"
    assert load_recipe(tmp_path / "run" / "recipe.yaml") == short
    with pytest.raises(HemalumError, match="too little tissue"):
        find_stain(Slide.of(np.full((64, 64, 3), 250, np.uint8)), load_model(path))


def test_what_a_model_is_trained_on_it_sees_as_it_is(recipe: Recipe, stained: Path, tmp_path: Path) -> None:
    short = recipe.model_copy(update={"phases": recipe.phases[:1]})
    assert load_card(train(short, [stained], tmp_path / "he")).native_stains == []
    for path in (stained / "images").iterdir():
        inside = np.asarray(Image.open(stained / "labels" / path.name)) > 0
        Image.fromarray(np.repeat(np.where(inside, 120, 5).astype(np.uint8)[..., None], 3, axis=2)).save(path)
    assert load_card(train(short, [stained], tmp_path / "dark")).native_stains == ["fluorescence"]


def test_the_stream_is_of_normalized_images(recipe: Recipe, stained: Path) -> None:
    part = Dataset.open(stained).split("train")
    target = fit_stain_target(settings("macenko"), {"mini": Dataset.open(stained)})
    loader = TrainLoader(make_context(recipe, stain=StainNormalizer(target)), [part])
    for sample, prepared in zip(part, loader.prepared, strict=True):
        np.testing.assert_array_equal(prepared.image, normalize_stain(sample.image, target))


def test_pooled_is_over_the_training_part_alone(stained: Path) -> None:
    before = fit_stain_target(settings("reinhard"), {"mini": Dataset.open(stained)})
    for row in Dataset.open(stained).rows:
        if row.split != "train":
            (stained / row.image).write_bytes(b"no image any more")
    assert fit_stain_target(settings("reinhard"), {"mini": Dataset.open(stained)}) == before


def test_unfit_images_are_left_out_of_the_pool(stained: Path) -> None:
    dataset = Dataset.open(stained)
    first = dataset.split("train").rows[0]
    Image.fromarray(np.full((64, 64, 3), 250, np.uint8)).save(stained / first.image)
    target = fit_stain_target(settings("macenko"), {"mini": dataset})
    assert target.origin == "the median of 5 training images of mini"


@pytest.mark.parametrize("form", ["{id}", "mini/{id}", "{path}"])
def test_one_image_as_target(form: str, stained: Path) -> None:
    dataset = Dataset.open(stained)
    row = dataset.split("train").rows[1]
    name = form.format(id=row.id, path=stained / row.image)
    target = fit_stain_target(settings("macenko", target=name), {"mini": dataset})
    image = np.asarray(Image.open(stained / row.image))
    assert target.stains == measure_stain(sample_image(image), "macenko").stains
    assert target.origin.startswith("image " if name.endswith(".png") else f"training image mini/{row.id}, sha256 ")


@pytest.mark.fault
def test_mistakes_are_named(recipe: Recipe, stained: Path, tmp_path: Path) -> None:
    dataset = Dataset.open(stained)
    blank = tmp_path / "blank.png"
    Image.fromarray(np.full((64, 64, 3), 250, np.uint8)).save(blank)
    held_out = dataset.split("test").rows[0].id
    known = dataset.split("train").rows[0].id
    cases = {
        held_out: f"stain_normalization: target '{held_out}' is in the test part; choose a training image",
        str(
            blank
        ): f"stain_normalization: target '{blank}' is unfit for macenko, too little tissue: 0 of 4096 sampled "
        "pixels; choose another",
        "no_such": "stain_normalization: target 'no_such' is neither \"train\" nor the id of a training image nor an "
        "image file",
    }
    for target, message in cases.items():
        with pytest.raises(HemalumError) as caught:
            fit_stain_target(settings("macenko", target=target), {"mini": dataset})
        assert str(caught.value).startswith(message)
    with pytest.raises(HemalumError, match=f"target '{known}' is one of a/{known}, b/{known}: say which"):
        fit_stain_target(settings("macenko", target=known), {"a": dataset, "b": dataset})
    wanted = recipe.model_copy(update={"stain_normalization": settings("macenko", target="no_such")})
    with pytest.raises(HemalumError, match="no_such"):
        train(wanted, [stained], tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.fault
def test_a_recipe_that_is_wrong_about_it(tmp_path: Path, recipe: Recipe) -> None:
    path = tmp_path / "r.yaml"
    text = recipe.model_dump_json(exclude_none=True)
    path.write_text(text[:-1] + ', "stain_normalization": {"methode": "macenko"}}')
    with pytest.raises(HemalumError, match="stain_normalization"):
        load_recipe(path)
    path.write_text(text[:-1] + ', "stain_normalization": {"method": "ruifrok"}}')
    with pytest.raises(HemalumError, match="macenko"):
        load_recipe(path)
    path.write_text(text)
    assert load_recipe(path).stain_normalization is None


def test_unfit_training_images_pass_with_one_warning(
    recipe: Recipe, stained: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for row in Dataset.open(stained).split("train").rows[:2]:
        Image.fromarray(np.full((64, 64, 3), 250, np.uint8)).save(stained / row.image)
    short = recipe.model_copy(update={"phases": recipe.phases[:1], "stain_normalization": settings("macenko")})
    with caplog.at_level(logging.WARNING):
        train(short, [stained], tmp_path / "run")
    warnings = [message for message in caplog.messages if "stain normalization" in message]
    assert len(warnings) == 1
    assert warnings[0].endswith("too little tissue: 0 of 4096 sampled pixels, and 1 more")


@pytest.mark.fault
def test_a_run_is_not_resumed_with_another_target(recipe: Recipe, stained: Path, tmp_path: Path) -> None:
    target = tmp_path / "target.png"
    image = np.asarray(Image.open(stained / Dataset.open(stained).rows[0].image))
    Image.fromarray(image).save(target)
    chosen = recipe.model_copy(update={"stain_normalization": settings("reinhard", target=str(target))})
    train(chosen, [stained], tmp_path / "run")
    Image.fromarray(image // 2).save(target)
    with pytest.raises(HemalumError, match="the data, its labels or its split have changed since"):
        train(chosen, [stained], tmp_path / "run", resume=True)
