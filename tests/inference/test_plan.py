"""What a plan leaves out changes nothing else; DAB cell by cell is that of the whole image; nobody waits forever."""

import pickle
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from builders.slide_runs import Case, make_case, small_cells
from hemalum.inference import sample as sample_module
from hemalum.inference.grid import CELL_HALO, Box, TileGrid, cut_tiles
from hemalum.inference.maps import TileMaps, scaled_pixels
from hemalum.inference.plan import make_plan
from hemalum.inference.sample import sample_tissue
from hemalum.inference.segment import segment
from hemalum.models.card import Card
from hemalum.models.model import Model
from hemalum.nuclei.dab import DAB_COLUMNS
from hemalum.nuclei.settings import SeparationSettings
from hemalum.slides import Slide, Tissue, all_tissue, open_slide, read_roi
from hemalum.targets.representations import find_representation

Pixels = NDArray[np.uint8]
SIDE = 200
WAY = find_representation("distance")


def make_maps(engine: Any, image: Pixels, **options: Any) -> TileMaps:
    grid = TileGrid(*(cut_tiles(SIDE, 64, 8, 4) for _ in range(2)))
    return TileMaps(scaled_pixels(Slide.of(image), (SIDE, SIDE)), (SIDE, SIDE), engine, WAY, grid, **options)


@pytest.mark.parametrize("kept_bytes", [0, 1 << 30])
def test_tiles_that_are_not_wanted_are_not_run_and_change_no_others(
    make_blobs: Callable[..., Pixels], blob_engine_type: Any, kept_bytes: int
) -> None:
    """They are white and empty, also at their seams with others, whoever asks in which order."""
    image = make_blobs(SIDE, SIDE, 3)
    everything = Box(0, 0, SIDE, SIDE)
    wanted = lambda core: (core.top // 48 + core.left // 48) % 2 == 0  # noqa: E731
    engine = blob_engine_type()
    with make_maps(blob_engine_type(), image) as maps:
        expected = maps.read(everything)
    with make_maps(engine, image, wanted=wanted, kept_bytes=kept_bytes) as maps:
        boxes = [Box(0, 0, 90, 200), Box(10, 30, 170, 60), Box(100, 100, 200, 200), everything]
        for read in [maps.read(box) for box in boxes][3:]:
            for tile in maps.grid.over(everything):
                rows, columns = maps.grid.core(tile).slices(everything)
                if wanted(maps.grid.core(tile)):
                    assert np.array_equal(read.maps[:, rows, columns], expected.maps[:, rows, columns])
                    assert np.array_equal(read.image[rows, columns], expected.image[rows, columns])
                else:
                    assert not read.maps[:, rows, columns].any()
                    assert (read.image[rows, columns] == 255).all()
        tiles = [tile for tile in maps.grid.over(everything) if wanted(maps.grid.core(tile))]
    assert 4 <= len(tiles) < len(maps.grid.rows) * len(maps.grid.columns)
    assert engine.windows == len(tiles) if kept_bytes else engine.windows > len(tiles)


def test_what_is_kept_is_counted_and_bounded(make_blobs: Callable[..., Pixels], blob_engine_type: Any) -> None:
    image = make_blobs(SIDE, SIDE, 3)
    with make_maps(blob_engine_type(), image, kept_bytes=100_000) as maps, ThreadPoolExecutor(4) as pool:
        for _ in range(3):
            list(pool.map(maps.read, [Box(y, x, y + 60, x + 60) for y in range(0, 140, 20) for x in (0, 70, 140)]))
            held = [future.result().size for future in maps._tiles.values()]
            assert maps._bytes == sum(held) <= 100_000
            assert len(held) >= 2


def test_whoever_waits_for_tiles_gets_an_error_when_maps_are_closed(blob_engine_type: Any) -> None:
    """The engine is at work on one tile, the others are queued and will not be run."""
    running, go_on = threading.Event(), threading.Event()

    class Waiting(blob_engine_type):  # type: ignore[misc]
        def maps(self, images: Pixels) -> Any:
            running.set()
            assert go_on.wait(20)
            return super().maps(images)

    errors: list[BaseException] = []

    def read() -> None:
        try:
            maps.read(Box(0, 0, SIDE, SIDE))
        except RuntimeError as error:
            errors.append(error)

    maps = make_maps(Waiting(parallel=1), np.zeros((SIDE, SIDE, 3), np.uint8))
    readers = [threading.Thread(target=read, daemon=True) for _ in range(3)]
    closing = threading.Thread(target=maps.__exit__, args=(None, None, None), daemon=True)
    for thread in readers:
        thread.start()
    assert running.wait(20)
    closing.start()
    pool: Any = maps._pool
    for _ in range(2000):
        with pool._shutdown_lock:
            if pool._shutdown:
                break
        time.sleep(0.01)
    go_on.set()
    for thread in [*readers, closing]:
        thread.join(20)
        assert not thread.is_alive()
    assert [str(error) for error in errors] == ["the maps are closed"] * 3
    with pytest.raises(RuntimeError, match="closed"):
        maps.read(Box(0, 0, SIDE, SIDE))


def test_what_failed_is_tried_again(make_blobs: Callable[..., Pixels], blob_engine_type: Any) -> None:
    """Some tiles of a read failed: those that did not are kept, and the counts of bytes stay true."""
    image = make_blobs(SIDE, SIDE, 3)

    class Failing(blob_engine_type):  # type: ignore[misc]
        def maps(self, images: Pixels) -> Any:
            if self.windows == 2:
                self.windows += 1
                raise ValueError("once")
            return super().maps(images)

    with make_maps(blob_engine_type(), image) as maps:
        expected = maps.read(Box(0, 0, SIDE, SIDE))
    engine = Failing(parallel=1)
    with make_maps(engine, image) as maps:
        with pytest.raises(ValueError, match="once"):
            maps.read(Box(0, 0, SIDE, SIDE))
        read = maps.read(Box(0, 0, SIDE, SIDE))
        assert np.array_equal(read.maps, expected.maps)
        assert engine.windows == len(maps.grid.rows) * len(maps.grid.columns) + 1
        assert maps._bytes == sum(future.result().size for future in maps._tiles.values())


# DAB


def differing(image: Pixels, mpp: float, **options: Any) -> tuple[int, int]:
    """Nuclei of an image that cell by cell have another DAB than measured on the whole; and all nuclei."""
    nuclei = segment(image, mpp=mpp, stain="hdab", **options)
    expected = nuclei.with_dab(image)
    differ = np.zeros(nuclei.count, np.bool_)
    for name in DAB_COLUMNS:
        one, other = (result.table.column(name).to_numpy() for result in (nuclei, expected))
        differ |= ~((one == other) | (np.isnan(one) & np.isnan(other)))
    return int(differ.sum()), nuclei.count


@settings(max_examples=12)
@given(seed=st.integers(0, 1000), mpp=st.sampled_from([0.5, 0.25, 0.37, 0.8]), light=st.sampled_from([-15.0, 10.0]))
def test_dab_by_cells_is_that_of_the_whole_image(
    hdab_case: Case, make_blobs: Callable[..., Pixels], seed: int, mpp: float, light: float
) -> None:
    """On dense blobs: rings meet neighbors of other cells at most seams.

    Of a neighbor that goes on beyond what the cell sees another part may lie in a ring (seed 4, 0.8 µm per px).
    """
    image = make_blobs(round(100 / mpp), round(110 / mpp), seed, size=2 / mpp, light=light)
    with small_cells():
        differ, count = differing(image, mpp, model=hdab_case.model, engine=hdab_case.engine())
    assert count >= 5
    assert differ <= 1


@pytest.fixture(scope="module")
def hdab_case(tmp_path_factory: pytest.TempPathFactory) -> Case:
    return make_case(tmp_path_factory.mktemp("hdab"), "hdab")


def test_a_nucleus_inside_a_ring_of_another(disk_card: Card, disk_engine: Any) -> None:
    """The outline of a ring goes around what lies in its hole, which counts as its own wherever cells meet."""
    image = np.full((200, 240, 3), (225, 205, 200), np.uint8)
    image[..., 0] -= np.random.default_rng(0).integers(0, 60, image.shape[:2]).astype(np.uint8)
    y, x = np.mgrid[:200, :240]
    for top, left in [(50, 50), (50, 125), (50, 190), (130, 45), (126, 120), (140, 190)]:
        distance = np.hypot(y - top, x - left)
        image[((distance > 18) & (distance < 30)) | (distance < 12)] = (70, 60, 90)
    card = disk_card.model_copy(
        update={"native_stains": ["hdab"], "separation": SeparationSettings(min_area=4, max_hole_area=50)}
    )
    with small_cells():
        differ, count = differing(image, 0.5, model=Model(card, {}), engine=disk_engine)
    assert count == 12
    assert differ == 0


# the plan


@pytest.mark.parametrize(("mpp", "warned"), [(1.09, False), (1.11, True)])
def test_a_slide_much_coarser_than_the_model_is_warned_of(
    disk_card: Card, disk_engine: Any, mpp: float, warned: bool, caplog: pytest.LogCaptureFixture
) -> None:
    card = disk_card.model_copy(update={"mpp": 0.5, "name": "disks"})
    slide = Slide.of(np.full((64, 64, 3), 200, np.uint8), name="coarse.tif", mpp=mpp)
    make_plan(slide, Model(card, {}), disk_engine, stain="he")
    expected = (
        "coarse.tif: has 1.11 µm per px, and disks is for 0.5: enlarged 2.2 times it shows no more than it holds, "
        "and small nuclei are missed"
    )
    assert [record.message for record in caplog.records if "enlarged" in record.message] == [expected] * warned


def test_a_plan_covers_cells_with_tissue_near_the_region(tmp_path: Path) -> None:
    case = make_case(tmp_path, "he", height=1400, width=1600)
    mask = np.zeros((70, 80), np.bool_)
    mask[:, 40:] = True
    with open_slide(case.slide) as slide:
        tissue, roi = Tissue(mask, slide.shape, 5.0), read_roi("800,0,100,100", slide.shape)
        plans = [
            make_plan(slide, case.model, case.engine(), stain="he", tissue=one, roi=other)
            for one, other in ((None, None), (tissue, None), (None, roi), (tissue, roi))
        ]
    assert plans[0].shape == (700, 800)
    boxes = [
        Box(0, 0, 50, 50), Box(300, 399, 350, 402), Box(0, 401, 40, 420), Box(50 + CELL_HALO + 1, 450, 400, 500),
        Box(49 + CELL_HALO, 300, 60 + CELL_HALO, 400 - CELL_HALO + 1), Box(0, 0, 10, 400 - CELL_HALO - 1),
    ]  # fmt: skip
    assert [[plan.covers(box) for box in boxes] for plan in plans] == [
        [True, True, True, True, True, True],
        [False, True, True, True, False, False],
        [False, False, True, False, True, False],
        [False, False, True, False, False, False],
    ]
    copy = pickle.loads(pickle.dumps(plans[3]))
    assert [copy.covers(box) for box in boxes] == [plans[3].covers(box) for box in boxes]
    assert plans[0].window(Box(0, 0, 700, 800)) == (0, 0, 1600, 1400)


@pytest.mark.parametrize("shape", [(300, 20), (17, 400), (90, 90), (64, 700)])
@pytest.mark.parametrize("filled", [True, False])
def test_a_sample_of_a_slide_of_any_shape(
    shape: tuple[int, int], filled: bool, make_blobs: Callable[..., Pixels], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Fields of its own pixels, where there is tissue if there is any."""
    monkeypatch.setattr(sample_module, "WHOLE", 4000)
    monkeypatch.setattr(sample_module, "SIDE", 32)
    image = make_blobs(*shape, 1)
    slide = Slide.of(image, mpp=0.5)
    tissue = all_tissue(slide, "test")
    mask = np.zeros(shape, np.bool_)
    mask[: shape[0] // 2] = filled
    sample = sample_tissue(slide, Tissue(mask, shape, tissue.mpp), 0.5)
    high, wide = min(32, shape[0]), min(32, shape[1])
    assert sample.shape == (4 * high, 4 * wide)
    assert sample.mpp == 0.5
    first = sample.read(0, 0, wide, high)
    assert any(
        np.array_equal(first, image[y : y + high, x : x + wide])
        for y in range(0, shape[0] - high + 1, high)
        for x in range(0, shape[1] - wide + 1, wide)
    )
    assert sample_tissue(Slide.of(image[:16, :16], mpp=0.5), tissue, 0.5).shape == (16, 16)
