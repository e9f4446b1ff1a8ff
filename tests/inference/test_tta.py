"""Maps averaged over turns and mirror images: against averages made by hand, and what the result says."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

import hemalum
from hemalum.data.dataset import Dataset
from hemalum.errors import HemalumError
from hemalum.inference.segment import as_engine
from hemalum.inference.tta import TTA, SymmetricEngine, symmetries, turn, turn_back
from hemalum.models.model import load_model
from hemalum.targets.representations import REPRESENTATIONS, Head, Representation, find_representation

DISTANCE = REPRESENTATIONS["distance"]


@dataclass
class Lopsided:
    """The red channel as the first map; as the second, red times how far to the right and how far down it lies."""

    name: str = "lopsided"
    precision: str = "f32"
    parallel: int = 3
    batch: int = 1
    output_upsampling: int = 1

    def maps(self, images: NDArray[np.uint8], organ: int | None = None) -> NDArray[np.float32]:
        red = images[..., 0].astype(np.float32)
        height, width = red.shape[1:]
        position = np.arange(width, dtype=np.float32) + 10 * np.arange(height, dtype=np.float32)[:, None]
        maps = np.stack([red, red * position], axis=1)
        return maps.repeat(self.output_upsampling, 2).repeat(self.output_upsampling, 3)


@dataclass
class Dark:
    """Dark is nucleus, and in the middle of it: the same from all sides."""

    name: str = "dark"
    precision: str = "f32"
    parallel: int = 1
    batch: int = 1

    def maps(self, images: NDArray[np.uint8], organ: int | None = None) -> NDArray[np.float32]:
        dark = 1 - images.mean(axis=-1, dtype=np.float32) / 255
        return np.stack([dark, dark**2], axis=1)


def test_the_mean_over_eight_by_hand() -> None:
    """A pixel is seen at (y, x), (y, W-1-x) … and with both swapped, each twice over the four corners."""
    image = np.random.default_rng(0).integers(0, 256, (2, 4, 6, 3)).astype(np.uint8)
    maps = SymmetricEngine(Lopsided(), DISTANCE).maps(image)
    assert maps.shape == (2, 2, 4, 6)
    assert maps.dtype == np.float32
    red = image[..., 0].astype(float)
    np.testing.assert_allclose(maps[:, 0], red, rtol=1e-6)
    expected = np.zeros((2, 4, 6))
    for n, y, x in np.ndindex(2, 4, 6):
        total = 0.0
        for v in (y, 3 - y):
            for u in (x, 5 - x):
                total += red[n, y, x] * (u + 10 * v)  # as it is, or flipped
                total += red[n, y, x] * (v + 10 * u)  # and transposed
        expected[n, y, x] = total / 8
    np.testing.assert_allclose(maps[:, 1], expected, rtol=1e-5)


def test_the_eight_are_different_and_are_undone() -> None:
    array = np.arange(6).reshape(2, 3)
    seen = {(turned.shape, turned.tobytes()) for turned in (turn(array, *one, (0, 1)) for one in symmetries())}
    assert len(seen) == 8
    for one in symmetries():
        np.testing.assert_array_equal(turn_back(turn(array, *one, (0, 1)), *one, (0, 1)), array)


def test_an_engine_that_is_symmetric_is_left_as_it_is() -> None:
    image = np.random.default_rng(1).integers(0, 256, (1, 8, 12, 3)).astype(np.uint8)
    np.testing.assert_allclose(SymmetricEngine(Dark(), DISTANCE).maps(image), Dark().maps(image), atol=1e-6)


def test_enlarged_maps_turn_back_to_the_size_of_the_image() -> None:
    image = np.random.default_rng(2).integers(0, 256, (1, 4, 6, 3)).astype(np.uint8)
    large = SymmetricEngine(Lopsided(output_upsampling=2), DISTANCE).maps(image)
    small = SymmetricEngine(Lopsided(), DISTANCE).maps(image)
    np.testing.assert_allclose(large, small.repeat(2, 2).repeat(2, 3), rtol=1e-6)


@dataclass
class Knowing:
    """Gives the true maps of the label map that an image shows in its red channel."""

    representation: Representation
    name: str = "knowing"
    precision: str = "f32"
    parallel: int = 1
    batch: int = 1

    def maps(self, images: NDArray[np.uint8], organ: int | None = None) -> NDArray[np.float32]:
        classes = np.array([0, 1, 2, 1], np.int32)
        return np.stack([self.representation.encode(image[..., 0].astype(np.int32), classes) for image in images])


@pytest.mark.parametrize("name", ["center_gradient", "combined", "typed", "semantic", "interior_boundary"])
def test_true_maps_are_true_in_all_directions(name: str) -> None:
    labels = np.zeros((24, 32), np.uint8)
    labels[3:12, 4:17], labels[12:20, 6:11], labels[5:22, 20:29] = 1, 2, 3
    labels[3:5, 4:9] = 0  # of no shape that is the same when turned
    engine = Knowing(find_representation(name, ("a", "b")))
    image = np.repeat(labels[None, ..., None], 3, axis=-1)
    maps = SymmetricEngine(engine, engine.representation).maps(image)
    np.testing.assert_allclose(maps, engine.maps(image), atol=2e-6)


@pytest.mark.fault
def test_maps_that_nobody_knows_how_to_turn_are_refused() -> None:
    heads = (Head("tanh", ("height",)),)
    odd = Representation("odd", heads, DISTANCE.encoder, DISTANCE.reader, DISTANCE.probability)
    with pytest.raises(HemalumError, match="how maps height of representation 'odd' turn with the image"):
        SymmetricEngine(Dark(), odd)


def test_the_result_says_it(dark_model: Path, mini: Path, tmp_path: Path) -> None:
    sample = next(iter(Dataset.open(mini)))
    options: dict[str, Any] = {"mpp": 0.5, "engine": "torch", "device": "cpu"}
    plain, tta = (hemalum.segment(sample.image, dark_model, tta=tta, **options) for tta in (False, True))
    assert (plain.notes.get("tta"), tta.notes["tta"]) == (None, TTA)
    assert np.array_equal(
        tta.label_map(), plain.label_map()
    )  # what looks at single pixels is the same from all sides
    tta.to_geojson(tmp_path / "a.geojson")
    assert TTA in json.dumps(json.loads((tmp_path / "a.geojson").read_text()))
    assert hemalum.evaluate(dark_model, mini, engine="torch", tta=True).summary["tta"] == TTA
    assert "tta" not in hemalum.evaluate(dark_model, mini, engine="torch").summary


def test_a_trained_network_is_the_same_from_all_sides_with_it(mini: Path, recipe: Any, tmp_path: Path) -> None:
    from hemalum.training.train import train

    model = load_model(train(recipe, [mini], tmp_path / "run", accelerator="cpu"))
    image = next(iter(Dataset.open(mini))).image[None, :32].copy()
    differs = {}
    for tta in (False, True):
        engine = as_engine("torch", model, device="cpu", precision="f32", tta=tta)
        turned = turn_back(engine.maps(np.ascontiguousarray(turn(image, 1, True, (1, 2)))), 1, True, (2, 3))
        differs[tta] = float(np.abs(turned - engine.maps(image)).max())
    assert differs[True] < 1e-5 < 1e-3 < differs[False]


@pytest.mark.fault
def test_it_needs_a_network(mini: Path) -> None:
    with pytest.raises(HemalumError, match="tta turns what a network sees, and 'classical' runs none: leave it out"):
        hemalum.evaluate("classical", mini, tta=True)


def test_it_is_not_done_twice(dark_model: Path) -> None:
    again = as_engine(SymmetricEngine(Dark(), DISTANCE), load_model(dark_model), tta=True)
    assert isinstance(again, SymmetricEngine)
    assert isinstance(again.engine, Dark)
