"""Nuclei found cell by cell are those of the whole image, to the last pixel, whatever is done when and by whom."""

import threading
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from hemalum.inference.cells import TOO_LARGE, BoxMaps, find_peaks, run_ahead, separate_cell
from hemalum.inference.grid import Box, TileGrid, cut_cells, cut_tiles
from hemalum.inference.maps import TileMaps, scaled_pixels
from hemalum.nuclei.nuclei import Nuclei
from hemalum.nuclei.part import Part, measure
from hemalum.nuclei.refining import refine
from hemalum.nuclei.separation import flood
from hemalum.nuclei.settings import SeparationSettings
from hemalum.slides.slide import Slide
from hemalum.targets.representations import REPRESENTATIONS, SEMANTIC, Representation, find_representation

CLASSES = ("red", "green", "blue")
Maps = NDArray[np.float32]


def way(name: str) -> Representation:
    return find_representation(name, CLASSES)


def separate_whole(maps: Maps, image: NDArray[np.uint8], rule: SeparationSettings) -> Part:
    """One call of the separation on foreground, peaks and class map of a whole image."""
    foreground, peaks, *classes = maps
    labels = refine(flood(foreground, peaks, rule), rule)
    return measure(labels, image, foreground, class_map=classes[0] if classes else None, threshold=rule.foreground)


def joined(parts: Any, image: NDArray[np.uint8], upsampling: int = 1, name: str = "distance") -> Nuclei:
    return Nuclei.from_parts(
        list(parts),
        shape=image.shape[:2],
        scale=(1 / upsampling, 1 / upsampling),
        mpp=0.5,
        mpp_source="user",
        class_names=way(name).class_names,
    )


def same(one: Nuclei, other: Nuclei) -> bool:
    return (
        one.table.equals(other.table)
        and np.array_equal(one.outlines.coords, other.outlines.coords)
        and np.array_equal(one.outlines.offsets, other.outlines.offsets)
    )


@st.composite
def cases(draw: st.DrawFn) -> dict[str, Any]:
    return {
        "height": draw(st.integers(16, 260)),
        "width": draw(st.integers(16, 180)),
        "stride": draw(st.sampled_from([1, 2, 4, 8])),
        "upsampling": draw(st.sampled_from([1, 2])),
        "name": draw(st.sampled_from([*sorted(REPRESENTATIONS), SEMANTIC])),
        "window": draw(st.integers(0, 12)),
        "cell": draw(st.integers(24, 200)),
        "workers": draw(st.integers(1, 3)),
        "with_neighbors": draw(st.booleans()),
        "kept_bytes": draw(st.sampled_from([0, 20_000, 1 << 30])),
        "seed": draw(st.integers(0, 10_000)),
        "light": draw(st.sampled_from([-25.0, 0.0, 25.0])),
        "settings": SeparationSettings(
            min_area=draw(st.integers(1, 30)),
            max_hole_area=draw(st.integers(0, 100)),
            min_probability=draw(st.sampled_from([0.0, 0.7])),
            min_depth=draw(st.sampled_from([0.02, 0.1, 0.3])),
            min_relative_depth=draw(st.sampled_from([0.0, 0.3])),
            smoothing=draw(st.sampled_from([0, 1, 4])),
            merge_depth=draw(st.sampled_from([0.0, 0.4])),
            straighten=draw(st.sampled_from([0, 2])),
            spur_width=draw(st.sampled_from([0, 1, 3])),
        ),
    }


@pytest.fixture(scope="module")
def run(make_blobs: Callable[..., NDArray[np.uint8]]) -> Callable[..., tuple[Nuclei, Nuclei]]:
    def both(engine_type: Any, case: dict[str, Any]) -> tuple[Nuclei, Nuclei]:
        """The nuclei cell by cell, and of the image as one."""
        name, upsampling, stride = case["name"], case["upsampling"], case["stride"]
        image = make_blobs(case["height"], case["width"], case["seed"], light=case["light"])
        shape = (image.shape[0], image.shape[1])
        channels = len(way(name).channels)
        engine = engine_type(
            output_upsampling=upsampling, channels=channels, share=1 / channels if name == SEMANTIC else 1
        )
        smoothed = way(name).smoothed(case["settings"])
        halo = engine.RADIUS + smoothed.reach
        window = 2 * halo + (1 + case["window"]) * stride
        window += -window % stride
        grid = TileGrid(*(cut_tiles(length, window, halo, stride) for length in shape))
        with TileMaps(
            scaled_pixels(Slide.of(image), shape), shape, engine, smoothed, grid,
            upsampling=upsampling, kept_bytes=case["kept_bytes"],
        ) as maps:  # fmt: skip
            cells = [core for row in cut_cells(shape, case["cell"]) for core in row]
            work = partial(
                separate_cell, maps.read, shape=shape, settings=case["settings"], upsampling=upsampling,
                with_neighbors=case.get("with_neighbors", False),
            )  # fmt: skip
            results = list(run_ahead(work, cells[:: case.get("order", 1)], case["workers"]))
        down, right = (-length % stride for length in shape)
        padded = np.pad(image, ((0, down), (0, right), (0, 0)), "edge")
        height, width = (length * upsampling for length in shape)
        read = [part[:height, :width] for part in smoothed.read(engine.maps(padded[None])[0])]
        uncut = separate_whole(np.stack(read), image, case["settings"])
        assert sum(cell.left_out[TOO_LARGE] for cell in results) == 0
        return joined((cell.part for cell in results), image, upsampling, name), joined(
            [uncut], image, upsampling, name
        )

    return both


@settings(max_examples=60)
@given(case=cases())
def test_cell_by_cell_equals_whole(
    run: Callable[..., tuple[Nuclei, Nuclei]], blob_engine_type: Any, case: dict[str, Any]
) -> None:
    cells, uncut = run(blob_engine_type, case)
    assert same(cells, uncut)


@pytest.mark.parametrize("order", [1, -1])
def test_the_property_sees_nuclei_of_several_classes_in_many_cells(
    run: Callable[..., tuple[Nuclei, Nuclei]], blob_engine_type: Any, order: int
) -> None:
    """Guards the test above against running on empty maps; and the order of cells does not matter."""
    case = {
        "height": 250, "width": 170, "stride": 4, "upsampling": 2, "name": SEMANTIC, "window": 3, "cell": 30,
        "seed": 1, "light": 0.0, "settings": SeparationSettings(), "workers": 2, "kept_bytes": 0, "order": order,
    }  # fmt: skip
    cells, uncut = run(blob_engine_type, case)
    assert uncut.classes is not None
    assert len(uncut.classes.counts) == 3
    assert min(uncut.classes.counts.values()) >= 2
    assert uncut.count >= 20
    assert same(cells, uncut)


def reader(maps: Maps) -> Callable[[Box], BoxMaps]:
    """Maps of a whole image, given box by box, with a gray image."""
    return lambda box: BoxMaps(
        box, np.full((*box.shape, 3), 128, np.uint8), maps[:, box.top : box.bottom, box.left : box.right].copy()
    )


def by_cells(maps: Maps, rule: SeparationSettings, side: int, halo: int) -> tuple[list[Part], int]:
    shape = (maps.shape[1], maps.shape[2])
    results = [
        separate_cell(reader(maps), core, shape, rule, halo=halo) for row in cut_cells(shape, side) for core in row
    ]
    return [cell.part for cell in results], sum(cell.left_out[TOO_LARGE] for cell in results)


def shapes(name: str) -> Maps:
    """Foreground and peaks (2, 300, 300) of shapes that break what looks at a small neighborhood."""
    y, x = np.mgrid[:300, :300].astype(np.float32)
    match name:
        case "chain":  # round nuclei that touch, over many cells
            depth = np.where(np.abs(x - 150) < 9, 1 - np.hypot(y % 20 - 10, x - 150) / 13, 0)
        case "rings":  # with holes that are too large to fill
            depth = 1 - np.abs(np.hypot(y % 75 - 37, x % 75 - 37) - 20) / 6
        case "bowties":
            depth = np.where(np.abs(y % 60 - 30) < 2 + np.abs(x % 75 - 37) / 2, 0.9, 0) * (np.abs(x % 75 - 37) < 30)
        case "slivers":
            depth = np.where(((y + 2 * x) % 60 < 4) & (x % 100 > 6), 0.9, 0)
        case "large":  # one nucleus of 130 px
            depth = 1 - np.hypot(y - 140, x - 160) / 65
        case "nested" | "clump":  # nuclei in the holes of rings; or of rings that all touch
            period = 75 if name == "nested" else 60
            around = np.hypot(y % period - period // 2, x % period - period // 2)
            depth = np.maximum(1 - np.abs(around - 25) / 6, 1 - around / 14)
        case "hooks":  # slivers that turn back into the cell that they come from
            depth = np.where((np.abs(y % 90 - 45) < 40) & ((x % 45 < 4) | ((y % 90 > 80) & (x % 90 < 49))), 0.9, 0)
        case "bridged":  # nuclei in a component that goes over all cells by bridges of one pixel
            depth = np.maximum(1 - np.hypot(y % 40 - 20, x % 40 - 20) / 15, np.where((y % 40 == 20), 0.15, 0))
        case "net":  # all of them in one component
            depth = 1 - np.hypot(y % 24 - 12, x % 24 - 12) / 20
        case _:
            raise ValueError(name)
    depth = np.clip(depth, 0, 1).astype(np.float32)
    return np.stack([np.where(depth > 0.1, np.float32(0.9), np.float32(0)), depth])


@pytest.mark.parametrize("side", [37, 64, 100])
@pytest.mark.parametrize(
    "name", ["chain", "rings", "bowties", "slivers", "large", "nested", "clump", "hooks", "bridged", "net"]
)
def test_no_shape_is_found_twice_or_lost(name: str, side: int) -> None:
    maps, rule = shapes(name), SeparationSettings()
    # rings larger than the halo may be another clump's where they are seen in part
    parts, large = by_cells(maps, rule, side, halo=64 if name == "clump" else 24)
    image = np.full((300, 300, 3), 128, np.uint8)
    uncut = joined([separate_whole(maps, image, rule)], image)
    assert uncut.count >= 1
    assert large == 0
    assert same(joined(parts, image), uncut)


@pytest.mark.parametrize(("margin", "right"), [(0, [264]), (16, [264]), (18, [264, 328]), (100, [264, 328, 400])])
def test_a_nucleus_is_seen_with_a_margin_around_it(margin: int, right: list[int]) -> None:
    """Its first pixel lies in the cell, its end 46 px beyond: the cell looks further when it does not see enough."""
    maps = np.zeros((2, 400, 400), np.float32)
    maps[:, 190:206, 150:246] = 0.9
    boxes: list[Box] = []

    def read(box: Box) -> BoxMaps:
        boxes.append(box)
        return reader(maps)(box)

    cell = separate_cell(read, Box(100, 100, 200, 200), (400, 400), SeparationSettings(), halo=64, margin=margin)
    assert len(cell.part) == 1
    assert [box.right for box in boxes] == right


def test_what_is_too_large_for_a_nucleus_is_left_out_and_counted_once() -> None:
    maps = np.zeros((2, 2400, 60), np.float32)
    maps[:, :, 10:50] = 0.9  # 2,400 px tall, without a peak
    maps[:, 1000:1040] = 0
    maps[:, 1010:1030, 20:40] = 0.9
    parts, large = by_cells(maps, SeparationSettings(), 64, halo=16)
    assert sum(map(len, parts)) == 1
    assert large == 2


def test_a_tile_is_computed_once_however_many_want_it(
    make_blobs: Callable[..., NDArray[np.uint8]], blob_engine_type: Any
) -> None:
    image = make_blobs(200, 200, 3)
    engine = blob_engine_type()
    grid = TileGrid(*(cut_tiles(200, 64, 8, 4) for _ in range(2)))
    with TileMaps(scaled_pixels(Slide.of(image), (200, 200)), (200, 200), engine, way("distance"), grid) as maps:
        threads = [threading.Thread(target=maps.read, args=(Box(0, 0, 200, 200),)) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        maps.read(Box(30, 40, 120, 160))
    assert engine.windows == len(grid.rows) * len(grid.columns)


def test_an_error_of_reading_or_of_the_engine_reaches_all_who_wait(blob_engine_type: Any) -> None:
    def fail(box: Box) -> NDArray[np.uint8]:
        raise OSError("damaged")

    grid = TileGrid(*(cut_tiles(100, 64, 8, 4) for _ in range(2)))
    with TileMaps(fail, (100, 100), blob_engine_type(), way("distance"), grid) as maps:
        for _ in range(2):  # what failed is not remembered
            with pytest.raises(OSError, match="damaged"):
                maps.read(Box(0, 0, 100, 100))

    class Failing(blob_engine_type):  # type: ignore[misc]
        def maps(self, images: NDArray[np.uint8]) -> Maps:
            raise RuntimeError("no memory")

    with (
        TileMaps(
            lambda box: np.zeros((*box.shape, 3), np.uint8), (100, 100), Failing(), way("distance"), grid
        ) as maps,
        pytest.raises(RuntimeError, match="no memory"),
    ):
        maps.read(Box(0, 0, 100, 100))


def test_calls_are_always_full(blob_engine_type: Any) -> None:
    """What is run together must not matter, so a call of fewer windows is filled up."""
    sizes: list[int] = []

    class Counting(blob_engine_type):  # type: ignore[misc]
        def maps(self, images: NDArray[np.uint8]) -> Maps:
            sizes.append(len(images))
            result: Maps = super().maps(images)
            return result

    pixels = np.random.default_rng(0).integers(0, 256, (150, 150, 3), dtype=np.uint8)
    grid = TileGrid(*(cut_tiles(150, 64, 8, 4) for _ in range(2)))
    results = []
    for engine in (Counting(batch=4), blob_engine_type()):
        read = scaled_pixels(Slide.of(pixels), (150, 150))
        with TileMaps(read, (150, 150), engine, way("distance"), grid) as maps:
            results.append(maps.read(Box(0, 0, 150, 150)).maps)
    assert sizes == [4, 4, 4]
    assert np.array_equal(*results)


def test_the_peak_is_the_first_of_the_highest_pixels() -> None:
    labels = np.array([[0, 1, 1, 2], [0, 1, 1, 2]], np.int32)
    peaks = np.array([[1, 0.5, 0.9, 0.2], [1, 0.95, 0.1, 0.3]], np.float32)
    assert find_peaks(labels, peaks, np.float32(0.8), 3).tolist() == [[-1, -1], [0, 2], [1, 3]]
