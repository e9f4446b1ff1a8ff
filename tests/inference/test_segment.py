"""From an image to nuclei: the whole way, with a network."""

import logging
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from builders.grids import cut_smaller
from hemalum.data.image import read_image
from hemalum.errors import HemalumError
from hemalum.inference import plan as plan_module
from hemalum.inference.segment import segment, segment_source
from hemalum.models.card import Card
from hemalum.models.engines.engine import Engine, make_engine
from hemalum.models.model import Model
from hemalum.nuclei.nuclei import Nuclei
from hemalum.nuclei.part import measure
from hemalum.nuclei.refining import refine
from hemalum.nuclei.separation import flood
from hemalum.nuclei.settings import SeparationSettings
from hemalum.slides.slide import Slide
from hemalum.targets.representations import REPRESENTATIONS


@pytest.fixture(scope="module")
def disk_model(disk_card: Card) -> Model:
    return Model(disk_card, {"nothing": np.zeros(1, np.float32)})


@pytest.fixture(scope="module")
def torch_engine(tiny_model: Model) -> Engine:
    return make_engine("torch", tiny_model, device="cpu", precision="f32")


@settings(max_examples=25)
@given(
    height=st.integers(40, 200),
    width=st.integers(40, 160),
    mpp=st.sampled_from([0.5, 0.25, 0.4, 0.9]),
    window=st.integers(8, 40).map(lambda n: 4 * n),
    cell=st.integers(30, 150),
    seed=st.integers(0, 1000),
)
def test_a_real_network_gives_the_same_nuclei_in_any_windows(
    tiny_model: Model,
    torch_engine: Engine,
    make_blobs: Callable[..., NDArray[np.uint8]],
    height: int,
    width: int,
    mpp: float,
    window: int,
    cell: int,
    seed: int,
) -> None:
    image = make_blobs(height, width, seed)
    reference = segment(image, tiny_model, mpp=mpp, engine=torch_engine)
    with cut_smaller(window, cell):
        tiled = segment(image, tiny_model, mpp=mpp, engine=torch_engine)
    assert tiled.count == reference.count
    assert np.array_equal(tiled.label_map(), reference.label_map())


def test_smoothed_and_refined_nuclei_are_the_same_in_any_windows(
    make_tiny_model: Callable[..., Model], make_blobs: Callable[..., NDArray[np.uint8]]
) -> None:
    """And those of the rule applied to the maps by hand, at the scale of the model."""
    rule = SeparationSettings(min_area=6, smoothing=4, merge_depth=0.3, straighten=2, spur_width=2)
    model = make_tiny_model(separation=rule)
    engine = make_engine("torch", model, device="cpu", precision="f32")
    image = make_blobs(200, 160, 1)
    reference = segment(image, model, mpp=0.5, engine=engine)
    with cut_smaller():
        tiled = segment(image, model, mpp=0.5, engine=engine)
    representation, maps = REPRESENTATIONS["distance"], engine.maps(image[None])[0]
    foreground, peaks = representation.smoothed(rule).read(maps)
    by_hand = measure(refine(flood(foreground, peaks, rule), rule), image, foreground, threshold=rule.foreground)
    expected = Nuclei.from_parts([by_hand], shape=image.shape[:2]).label_map()
    assert expected.max() >= 10
    assert np.array_equal(tiled.label_map(), reference.label_map())
    assert np.array_equal(reference.label_map(), expected)
    plain = rule.model_copy(update={"smoothing": 0})
    assert representation.separate(maps, plain).max() != expected.max()


def test_the_property_above_cuts_and_finds(
    tiny_model: Model, torch_engine: Engine, make_blobs: Callable[..., NDArray[np.uint8]]
) -> None:
    tiles = plan_module.plan_tiles(tiny_model.card, (200, 160), reach=0)
    assert len(tiles.rows) == len(tiles.columns) == 1
    with cut_smaller():
        tiles = plan_module.plan_tiles(tiny_model.card, (200, 160), reach=0)
        assert len(tiles.rows) * len(tiles.columns) >= 3
        assert sum(map(len, plan_module.cut_cells((200, 160)))) == 16
    assert segment(make_blobs(200, 160, 1), tiny_model, mpp=0.5, engine=torch_engine).count >= 10


def test_a_real_tile_gives_the_same_nuclei_in_any_windows(
    real_data: Path, tiny_model: Model, torch_engine: Engine
) -> None:
    paths = sorted((real_data / "tnbc" / "images").iterdir())
    image = read_image(paths[0])
    reference = segment(image, tiny_model, mpp=0.25, engine=torch_engine)
    with cut_smaller():
        tiled = segment(image, tiny_model, mpp=0.25, engine=torch_engine)
    assert reference.count > 20
    assert np.array_equal(tiled.label_map(), reference.label_map())


@pytest.mark.parametrize("mpp", [0.25, 0.5, 0.8])
def test_disks_are_found_counted_and_measured(
    disk_model: Model, disk_engine: Any, make_disks: Callable[..., NDArray[np.uint8]], mpp: float
) -> None:
    """Known disks: their number, places and areas come out in the image's own pixels and in µm."""
    image = make_disks(300, 260, diameter=8 / mpp)
    nuclei = segment(image, disk_model, mpp=mpp, engine=disk_engine)
    truth = Nuclei.from_labels((image[..., 0] < 128).astype(np.int32), mpp=mpp)
    assert nuclei.shape == (300, 260)
    assert nuclei.count == truth.count > 12
    assert (nuclei.mpp, nuclei.mpp_source) == (mpp, "user")
    labels = nuclei.label_map()
    assert labels.dtype == np.uint32
    overlap = (labels > 0) & (image[..., 0] < 128)
    union = (labels > 0) | (image[..., 0] < 128)
    assert overlap.sum() / union.sum() > 0.9
    areas, known = (np.array(one.table.column("area_um2")) for one in (nuclei, truth))
    assert float(np.median(areas)) == pytest.approx(float(np.median(known)), rel=0.06)
    assert float(np.median(areas)) == pytest.approx(math.pi * 16, rel=0.15)
    positions = np.stack([np.array(nuclei.table.column(axis)) for axis in "xy"], 1)
    centers = np.stack([np.array(truth.table.column(axis)) for axis in "xy"], 1)
    nearest = np.hypot(*(positions[:, None] - centers[None]).transpose(2, 0, 1)).min(axis=1)
    assert nearest.max() < 1.0  # px


def test_maps_enlarged_before_separation_keep_places(
    disk_model: Model, make_disks: Callable[..., NDArray[np.uint8]], blob_engine_type: Any
) -> None:
    image = 255 - make_disks(120, 100, diameter=16)
    engines = {upsampling: blob_engine_type(output_upsampling=upsampling) for upsampling in (1, 2)}
    nuclei_by_upsampling = {
        upsampling: segment(
            image,
            Model(disk_model.card.model_copy(update={"output_upsampling": upsampling, "halo": 8}), {}),
            mpp=0.5,
            engine=engine,
        )
        for upsampling, engine in engines.items()
    }
    assert nuclei_by_upsampling[1].count == nuclei_by_upsampling[2].count > 5
    for axis in ("x", "y", "area_um2"):
        one, two = (np.array(nuclei_by_upsampling[upsampling].table.column(axis)) for upsampling in (1, 2))
        assert two == pytest.approx(one, rel=0.02)


def test_the_scale_comes_from_user_file_or_estimate(
    disk_model: Model, home_engine: Any, make_disks: Callable[..., NDArray[np.uint8]], tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:  # fmt: skip
    import tifffile

    image = make_disks(300, 300, diameter=32)
    path = tmp_path / "image.tif"
    tifffile.imwrite(path, image, photometric="rgb", resolution=(40000, 40000), resolutionunit="CENTIMETER")
    requested = segment(path, disk_model, mpp=0.3, engine=home_engine)
    assert (requested.mpp, requested.mpp_source) == (0.3, "user")
    stated = segment(path, disk_model, engine=home_engine)
    assert (stated.mpp, stated.mpp_source) == (pytest.approx(0.25), "file")
    caplog.clear()
    guessed = segment(image, disk_model, mpp="auto", engine=home_engine)
    assert guessed.mpp_source == "estimate"
    assert guessed.mpp == pytest.approx(0.25, rel=0.15)
    assert "is an estimate from its nuclei" in caplog.records[0].message


def test_a_scale_that_does_not_fit_the_nuclei_is_doubted(
    disk_model: Model,
    disk_engine: Any,
    make_disks: Callable[..., NDArray[np.uint8]],
    caplog: pytest.LogCaptureFixture,
) -> None:
    image = make_disks(300, 300, diameter=20)
    segment(image, disk_model, mpp=0.4, engine=disk_engine)
    assert not caplog.records
    with caplog.at_level(logging.WARNING):
        segment(image, disk_model, mpp=1.2, engine=disk_engine)
    assert "mpp is given as 1.2 µm per px, but its nuclei look like about" in caplog.records[-1].message


def test_the_size_of_nuclei_of_a_gray_image_is_doubted(
    disk_model: Model,
    disk_engine: Any,
    make_disks: Callable[..., NDArray[np.uint8]],
    caplog: pytest.LogCaptureFixture,
) -> None:
    gray = make_disks(300, 300, diameter=20).min(axis=2)
    segment(gray, disk_model, mpp=1.2, engine=disk_engine)
    assert "is the scale right?" in caplog.records[-1].message


def test_nothing_to_estimate_from(disk_model: Model, disk_engine: Any) -> None:
    few = np.full((200, 200, 3), 240, np.uint8)
    few[90:110, 90:110] = (60, 40, 120)
    with pytest.raises(HemalumError) as caught:
        segment(few, disk_model, engine=disk_engine)
    assert str(caught.value) == (
        "image: too few nuclei are found to tell the scale from them: "
        "give it with `mpp` (0.25 is usual for 40x, 0.5 for 20x)"
    )
    assert segment(few, disk_model, mpp=0.5, engine=disk_engine).count == 1


@pytest.mark.fault
@pytest.mark.parametrize("mpp", [0, -1.0, 1e-3, 12, math.nan, math.inf])
def test_impossible_scales_are_refused(disk_model: Model, disk_engine: Any, mpp: float) -> None:
    with pytest.raises(HemalumError, match=r"out of range 0\.02 to 5"):
        segment(np.zeros((32, 32, 3), np.uint8), disk_model, mpp=mpp, engine=disk_engine)


def test_progress_rises_to_one(
    disk_model: Model, disk_engine: Any, make_disks: Callable[..., NDArray[np.uint8]]
) -> None:
    seen: list[float] = []
    segment(make_disks(200, 100, 16), disk_model, mpp=0.5, engine=disk_engine, on_progress=seen.append)
    assert seen == sorted(seen)
    assert seen[-1] == 1.0


@pytest.mark.parametrize("shape", [(16, 16), (17, 400), (333, 16)])
def test_the_smallest_images(disk_model: Model, disk_engine: Any, shape: tuple[int, int]) -> None:
    image = np.full((*shape, 3), 230, np.uint8)
    image[4:12, 4:12] = 40
    nuclei = segment(image, disk_model, mpp=0.5, engine=disk_engine)
    assert nuclei.count == 1
    assert nuclei.label_map().sum() == 64


def test_the_image_is_read_in_windows(disk_model: Model, disk_engine: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Memory stays flat because the image is never asked for whole."""
    source = Slide.of(np.full((4000, 64, 3), 230, np.uint8))
    rows: list[tuple[int, int]] = []
    read = Slide.read_scaled

    def read_scaled(self: Slide, shape: tuple[int, int], down: slice, across: slice) -> NDArray[np.uint8]:
        rows.append((down.start, down.stop))
        return read(self, shape, down, across)

    monkeypatch.setattr(Slide, "read_scaled", read_scaled)
    segment_source(source, disk_model, disk_engine, mpp=0.5)
    assert min(start for start, _ in rows) == 0
    assert max(stop for _, stop in rows) == 4000
    assert max(stop - start for start, stop in rows) < 1700


def test_nuclei_of_he_without_hematoxylin_are_left_out(disk_model: Model, disk_engine: Any) -> None:
    """Four blue disks and three of eosin alone, all dark enough to be taken for nuclei."""
    density = np.zeros((160, 160, 3))
    y, x = np.mgrid[:160, :160]
    for index, (row, column) in enumerate([(20, 20), (20, 70), (20, 120), (70, 20), (70, 70), (70, 120), (120, 70)]):
        color = (0.65, 0.70, 0.29) if index < 4 else (0.07, 0.99, 0.11)
        density[(y - row) ** 2 + (x - column) ** 2 < 64] = np.array(color) * (1.0 if index < 4 else 2.5)
    image = np.rint(255 * 10**-density).astype(np.uint8)
    separation = disk_model.card.separation.model_copy(update={"min_hematoxylin": 0.06})
    changes = {"separation": separation, "native_stains": ["fluorescence"]}
    strict = replace(disk_model, card=disk_model.card.model_copy(update=changes))
    assert segment(image, disk_model, mpp=0.5, stain="he", engine=disk_engine).count == 7
    nuclei = segment(image, strict, mpp=0.5, stain="he", engine=disk_engine)
    assert nuclei.count == 4
    assert nuclei.notes["left_out_without_hematoxylin"] == 3
    assert min(nuclei.table["hematoxylin_mean"].to_pylist()) > 0.5
    # only an image that is H&E is judged so
    other = segment(image, strict, mpp=0.5, stain="fluorescence", engine=disk_engine)
    assert other.count == 7
    assert "left_out_without_hematoxylin" not in other.notes
