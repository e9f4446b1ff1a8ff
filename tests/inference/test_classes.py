"""From a model with classes to nuclei with classes, in every file."""

import csv
import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

import hemalum
from builders.grids import cut_smaller
from hemalum import cli
from hemalum.inference.grid import cut_cells
from hemalum.inference.probability import segment_with_maps
from hemalum.models.card import Card
from hemalum.models.engines.engine import ENGINES, make_engine
from hemalum.models.model import Model, load_model
from hemalum.nuclei.io.colors import PALETTE
from hemalum.slides.slide import Slide

RED, BLUE, GROUND = (150, 40, 60), (60, 40, 150), (235, 225, 235)


def scene(height: int, width: int, seed: int = 0) -> tuple[NDArray[np.uint8], list[tuple[int, int, str]]]:
    """Discs 10 to 14 px across on a grid: row, column and color of each; some have a patch of the other color."""
    rng = np.random.default_rng(seed)
    image = np.full((height, width, 3), GROUND, np.uint8)
    y, x = np.mgrid[:height, :width]
    made = []
    for row in range(10, height - 8, 18):
        for column in range(10, width - 8, 18):
            radius = int(rng.integers(5, 8))
            inside = (y - row) ** 2 + (x - column) ** 2 < radius**2
            color, other, name = [(RED, BLUE, "red"), (BLUE, RED, "blue")][int(rng.integers(2))]
            image[inside] = color
            image[inside & (y < row - radius // 2)] = other  # a third at the top: outvoted
            made.append((row, column, name))
    return image, made


@pytest.mark.parametrize("engine", ENGINES)
def test_each_nucleus_has_the_class_of_most_of_its_pixels(engine: str, two_class_model: Path) -> None:
    image, made = scene(120, 150)
    nuclei = hemalum.segment(image, two_class_model, mpp=0.5, engine=engine, device="cpu", precision="f32")
    assert nuclei.count == len(made)
    assert nuclei.class_names == ("red", "blue")
    name_at = {
        (round(y), round(x)): name
        for x, y, name in zip(*(nuclei.table[column].to_pylist() for column in ("x", "y", "class")), strict=True)
    }
    for row, column, name in made:
        near = [key for key in name_at if abs(key[0] - row) < 4 and abs(key[1] - column) < 4]
        assert [name_at[key] for key in near] == [name]
    counts = nuclei.classes.counts
    assert counts == {name: sum(made_name == name for *_, made_name in made) for name in ("red", "blue")}
    assert min(counts.values()) > 5


def test_neither_tiles_nor_cells_change_a_class(two_class_model: Path) -> None:
    image, made = scene(500, 130, seed=2)
    reference = hemalum.segment(image, two_class_model, mpp=0.5, engine="torch", device="cpu", precision="f32")
    assert reference.count == len(made)
    for window, cell in ((32, 31), (100, 77)):
        edges = [core.top for core, *_ in cut_cells((500, 130), cell)]
        assert any(abs(row - edge) < 5 for row, *_ in made for edge in edges)  # through the middle of some
        with cut_smaller(window, cell):
            cut = hemalum.segment(image, two_class_model, mpp=0.5, engine="torch", device="cpu", precision="f32")
        assert cut.table.equals(reference.table)  # each votes once, with all its pixels


def test_pixels_have_classes_of_their_own(two_class_model: Path) -> None:
    image, _ = scene(100, 120)
    model = load_model(two_class_model)
    engine = make_engine("torch", model, device="cpu", precision="f32")
    nuclei, maps = segment_with_maps(Slide.of(image), model, engine, mpp=0.5)
    assert maps.classes is not None
    dark = (image != GROUND).any(-1)
    wanted = np.where(dark, np.where(image[..., 0] > image[..., 2], 1, 2), 0)
    assert np.array_equal(maps.classes, wanted)
    votes = np.array([0, *nuclei.classes.numbers])[nuclei.label_map()]
    assert 0.05 < (votes != maps.classes)[dark].mean() < 0.5  # the patches, which the vote has painted over
    twice = np.asarray(Image.fromarray(image).resize((240, 200), Image.Resampling.NEAREST))
    larger = segment_with_maps(Slide.of(twice), model, engine, mpp=0.25)[1].classes
    assert larger is not None
    assert larger.shape == (200, 240)
    assert (larger[::2, ::2] == wanted).mean() > 0.97


def test_every_file_of_the_command(two_class_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    image, made = scene(120, 150)
    Image.fromarray(image).save(tmp_path / "a.png")
    out = tmp_path / "out"
    words = [
        "segment",
        str(tmp_path / "a.png"),
        "--model",
        str(two_class_model),
        "--mpp",
        "0.5",
        "--output",
        str(out),
    ]
    words += ["--engine", "torch", "--report", "--format", "geojson,csv,parquet,labels,overlay"]
    assert cli.main(words) == 0
    assert re.search(r"nuclei +red +blue", capsys.readouterr().out)
    with (out / "a.csv").open() as stream_:
        names = [line["class"] for line in csv.DictReader(stream_)]
    assert sorted(names) == sorted(name for *_, name in made)
    features = json.loads((out / "a.geojson").read_text())["features"]
    classifications = [feature["properties"]["classification"] for feature in features]
    assert [one["name"] for one in classifications] == names
    colors = {"red": PALETTE[0], "blue": PALETTE[1]}
    assert all(tuple(one["color"]) == colors[one["name"]] for one in classifications)
    overlay = np.asarray(Image.open(out / "a_overlay.png"))
    assert overlay.shape[0] > 120
    assert overlay.shape[1] == 150
    page = (out / "summary.html").read_text()
    assert "Nuclei by class" in page


def test_one_class_is_no_class(two_class_model: Path) -> None:
    """A semantic model of one class of nucleus gives what a model without classes gives."""
    model = load_model(two_class_model)
    values = model.card.model_dump() | {"classes": ["nucleus"]}
    one = Model(Card(**values), model.tensors)
    engine = OneClass()
    image, made = scene(60, 60)
    nuclei = hemalum.segment(image, one, mpp=0.5, engine=engine)
    assert nuclei.count == len(made)
    assert nuclei.classes is None
    assert "class" not in nuclei.table.column_names
    maps = segment_with_maps(Slide.of(image), replace(one), engine, mpp=0.5)[1]
    assert maps.classes is None


class OneClass:
    """Dark is nucleus."""

    name, precision, parallel, batch = "mock", "f32", 1, 1

    def maps(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        return (images.mean(axis=-1) < 140).astype(np.float32)[:, None]
