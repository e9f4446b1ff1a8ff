"""Fields of images, datasets and stores: what is measured on them, against networks whose answer is known."""

import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage

from builders.models import DiskEngine, disks
from builders.stores import squares_run, store_squares
from hemalum.data.dataset import Dataset
from hemalum.errors import HemalumError
from hemalum.experiments.measurement import predict
from hemalum.inference import as_engine, find_images
from hemalum.models import Calibration, Card, load_model
from hemalum.models.model import Model
from hemalum.review import dataset_fields, image_fields, look_at, store_fields
from hemalum.review.fields import cut_windows
from hemalum.slides import Slide

SHIFT = 3


@dataclass
class DriftingEngine(DiskEngine):
    """Finds every nucleus `SHIFT` px too far to the right."""

    def maps(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        return np.roll(super().maps(images), SHIFT, axis=3)


@pytest.fixture(scope="module")
def disk_model(disk_card: Card) -> Model:
    return Model(disk_card, {})


def entropy_by_hand(p: float) -> float:
    return 0.0 if p in (0.0, 1.0) else -p * math.log(p) - (1 - p) * math.log(1 - p)


def test_a_network_that_does_not_mind_flips_agrees_with_itself(disk_model: Model) -> None:
    image = ndimage.gaussian_filter(disks(140, 180, 16), (1, 1, 0))
    with Slide.of(image) as source:
        look = look_at(source, disk_model, DiskEngine(), mpp=0.5, name="a", stratum="liver")
    assert len(look.nuclei) > 5
    assert look.field.disagreement == pytest.approx(0, abs=1e-9)
    assert look.uncertainty.disagreement == pytest.approx(0, abs=1e-9)
    probability = np.clip((1 - image.mean(axis=-1) / 255 - 0.5) * 3 + 0.5, 0, 1)
    mean = sum(entropy_by_hand(float(p)) for p in probability.ravel()) / probability.size
    assert look.field.entropy == pytest.approx(mean, abs=1e-4)
    assert (look.field.name, look.field.stratum, look.field.window) == ("a", "liver", None)
    assert look.field.area == pytest.approx(look.nuclei.table.column("area_px").to_numpy() * 0.25)
    alone = look_at(Slide.of(image), disk_model, DiskEngine(), mpp=0.5, flips=False)
    assert math.isnan(alone.field.disagreement)
    assert alone.field.entropy == look.field.entropy


def test_disagreement_of_a_network_that_drifts(disk_model: Model) -> None:
    """Mirrored left and right, alone and with top and bottom, it drifts the other way."""
    image = disks(140, 180, 16)
    with Slide.of(image) as source:
        look = look_at(source, disk_model, DriftingEngine(), mpp=0.5)
    labels = look.nuclei.label_map()
    for index, x in enumerate(look.nuclei.table.column("x").to_pylist()):
        if not 24 < x < 180 - 24:  # cut off or pushed out
            continue
        mask = labels == index + 1
        moved = np.roll(mask, -2 * SHIFT, axis=1)
        iou = np.count_nonzero(mask & moved) / np.count_nonzero(mask | moved)
        assert look.uncertainty.disagreement[index] == pytest.approx(2 / 3 * (1 - iou), abs=1e-6)
    assert 0.2 < look.field.disagreement < 0.7


def test_a_window_is_looked_at_alone(disk_model: Model) -> None:
    image = disks(300, 300, 16)
    window = (100, 60, 130, 150)
    with Slide.of(image, mpp=0.5) as source:
        look = look_at(source, disk_model, DiskEngine(), window=window, flips=False)
    cut = Slide.of(image[60:210, 100:230])
    expected = look_at(cut, disk_model, DiskEngine(), mpp=0.5, flips=False)
    assert look.field.window == window
    assert look.nuclei.table.column("x").to_pylist() == expected.nuclei.table.column("x").to_pylist()
    assert look.field.entropy == expected.field.entropy


def test_a_temperature_of_the_card_changes_the_entropy_and_no_nucleus(disk_model: Model) -> None:
    made = Calibration(
        temperature=3, data="d", split="val", split_hash="0", images=3, ece_before=0.1, ece_after=0.05,
        nll_before=0.3, nll_after=0.2,
    )  # fmt: skip
    warm = Model(disk_model.card.model_copy(update={"calibration": made}), {})
    image = ndimage.gaussian_filter(disks(140, 180, 16), (2, 2, 0))
    plain, warmed = (look_at(Slide.of(image), m, DiskEngine(), mpp=0.5, flips=False) for m in (disk_model, warm))
    assert warmed.field.entropy > plain.field.entropy
    assert (warmed.nuclei.label_map() == plain.nuclei.label_map()).all()
    assert warmed.uncertainty.distance == pytest.approx(plain.uncertainty.distance)
    assert (warmed.uncertainty.entropy > plain.uncertainty.entropy).all()


def test_images_of_a_dataset(dark_model: Path, mini: Path) -> None:
    model, part = load_model(dark_model), Dataset.open(mini).split("test")
    engine = as_engine("torch", model)
    looks = list(dataset_fields(part, model, engine, flips=False))
    assert [look.field.name for look in looks] == [row.id for row in part.rows]
    assert [look.field.stratum for look in looks] == [row.organ or "" for row in part.rows]
    for sample, look in zip(part, looks, strict=True):
        probability = predict(sample, model, engine)[1]
        expected = np.mean([entropy_by_hand(float(p)) for p in probability.ravel()])
        assert look.field.entropy == pytest.approx(expected, abs=1e-4)
        assert len(look.nuclei) == look.field.area.size == look.uncertainty.entropy.size


def test_images_of_folders_and_their_windows(disk_model: Model, tmp_path: Path) -> None:
    for name, shape in {"b/one.png": (100, 110), "a/two.png": (100, 300)}.items():
        (tmp_path / "in" / name).parent.mkdir(parents=True)
        Image.fromarray(disks(*shape, 16)).save(tmp_path / "in" / name)
    images = find_images([tmp_path / "in"], tmp_path / "out")
    looks = list(image_fields(images, disk_model, DiskEngine(), mpp=0.5, side=128, flips=False))
    assert [(look.field.name, look.field.stratum, look.field.window) for look in looks] == [
        ("a/two.png 0,0,100,100", "a", (0, 0, 100, 100)),
        ("a/two.png 100,0,100,100", "a", (100, 0, 100, 100)),
        ("a/two.png 200,0,100,100", "a", (200, 0, 100, 100)),
        ("b/one.png", "b", None),
    ]


def test_windows_cover_an_image_once() -> None:
    for shape, side in (((1, 1), 64), ((64, 65), 64), ((1000, 333), 100), ((129, 128), 64)):
        covered = np.zeros(shape, int)
        for x, y, width, height in cut_windows(shape, side):
            assert max(width, height) <= side
            covered[y : y + height, x : x + width] += 1
        assert (covered == 1).all()
        lengths = np.array(cut_windows(shape, side))[:, 2:]
        assert (lengths.max(axis=0) - lengths.min(axis=0) <= 1).all()


def test_windows_of_a_store_against_loops(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    centers = [(float(x), float(y)) for x, y in rng.integers(5, (295, 195), (60, 2))]
    centers += [(100.0, 50.0), (99.99, 50.0), (300.0, 200.0)]  # on an edge of windows, before it, in the last corner
    store = store_squares(tmp_path / "s.nuclei", squares_run((200, 300)), centers)
    rows = store.dataset.to_table(columns=["x", "y", "probability", "area_um2", "solidity"]).to_pylist()
    fields = store_fields(store, side=100)
    assert sum(field.area.size for field in fields) == len(rows) == 63
    for field in fields:
        assert field.window is not None
        x, y, width, height = field.window
        assert field.name == f"s {x},{y},{width},{height}"
        inside = [
            row for row in rows
            if x <= row["x"] < x + width + (x + width == 300) and y <= row["y"] < y + height + (y + height == 200)
        ]  # fmt: skip
        assert field.area.tolist() == pytest.approx([row["area_um2"] for row in inside])
        mean = sum(entropy_by_hand(row["probability"]) for row in inside) / len(inside)
        assert field.entropy == pytest.approx(mean, abs=1e-4)
        assert math.isnan(field.disagreement)
        assert (field.stratum, field.of_nuclei) == ("s", True)
    empty = store_squares(tmp_path / "none.nuclei", squares_run((200, 300)), [])
    assert store_fields(empty) == []


@pytest.mark.fault
def test_what_cannot_be_looked_at(disk_model: Model, dark_model: Path) -> None:
    large = Slide.of(disks(300, 300, 16), name="large.png")
    with pytest.raises(
        HemalumError, match=r"large\.png: the image states no scale, and is too large to be looked at"
    ):
        look_at(large, disk_model, DiskEngine(), window=(0, 0, 100, 100))
    model = load_model(dark_model)
    blank = Slide.of(np.full((100, 100, 3), 245, np.uint8), name="blank.png")
    with pytest.raises(HemalumError, match=r"^blank\.png: its scale is not known: give `mpp`$"):
        look_at(blank, model, as_engine("torch", model))
    with pytest.raises(HemalumError, match="side of a window is 10 px: want at least 64"):
        cut_windows((100, 100), 10)
