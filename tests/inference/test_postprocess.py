"""Nuclei found band by band are those of the whole image, to the last pixel."""

import logging
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from hemalum.inference.bands import Band, bands
from hemalum.inference.postprocess import find_open, separate_bands, step_rows
from hemalum.inference.tiles import Grid, cut
from hemalum.nuclei.nuclei import Nuclei, measure
from hemalum.nuclei.refining import refine
from hemalum.nuclei.separation import flood
from hemalum.nuclei.settings import SeparationSettings
from hemalum.slides.image_source import ImageSource
from hemalum.targets.representations import REPRESENTATIONS, SEMANTIC, Representation, find_representation

NEVER = 10_000  # steps that a component may be tall: none is cut
CLASSES = ("red", "green", "blue")


def way(name: str) -> Representation:
    return find_representation(name, CLASSES)


def separate_at_once(
    maps: NDArray[np.float32], image: NDArray[np.uint8], name: str, rule: SeparationSettings, upsampling: int
) -> Nuclei:
    """One call of the separation on all maps (of the padded image)."""
    height, width = (length * upsampling for length in image.shape[:2])
    foreground, peaks, *class_maps = (part[:height, :width] for part in way(name).smoothed(rule).read(maps))
    labels = refine(flood(foreground, peaks, rule), rule)
    part = measure(
        labels, image, foreground, class_map=class_maps[0] if class_maps else None, threshold=rule.foreground
    )
    return joined([part], image, upsampling, name)


def joined(parts: Any, image: NDArray[np.uint8], upsampling: int, name: str) -> Nuclei:
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
        "height": draw(st.integers(16, 150)),
        "width": draw(st.integers(16, 90)),
        "stride": draw(st.sampled_from([1, 2, 4, 8])),
        "upsampling": draw(st.sampled_from([1, 2])),
        "name": draw(st.sampled_from([*sorted(REPRESENTATIONS), SEMANTIC])),
        "bands": draw(st.integers(1, 12)),
        "windows": draw(st.integers(1, 6)),
        "step": draw(st.integers(4, 160)),
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
    def both(engine_type: Any, case: dict[str, Any], tallest: int, grid: tuple[int, int]) -> tuple[Nuclei, Nuclei]:
        """The nuclei band by band, and whole."""
        name, upsampling, stride = case["name"], case["upsampling"], case["stride"]
        image = make_blobs(case["height"], case["width"], case["seed"], light=case["light"])
        shape = image.shape[:2]
        channels = len(way(name).channels)
        engine = engine_type(
            output_upsampling=upsampling, channels=channels, share=1 / channels if name == SEMANTIC else 1
        )
        down, right = (-length % stride for length in shape)
        padded = np.pad(image, ((0, down), (0, right), (0, 0)), "edge")
        maps = engine.maps(padded[None])[0]
        smoothed = way(name).smoothed(case["settings"])
        reach = engine.RADIUS + smoothed.reach
        halo = reach + -reach % stride
        windows = Grid(cut(padded.shape[0], grid[0], halo, stride), cut(padded.shape[1], grid[1], halo, stride))
        parts = separate_bands(
            bands(
                ImageSource.of(image),
                engine,
                smoothed,
                shape,
                windows,
                stride=stride,
                upsampling=upsampling,
            ),
            shape,
            case["settings"],
            upsampling=upsampling,
            step=case["step"],
            tallest=tallest,
        )
        return joined(parts, image, upsampling, name), separate_at_once(
            maps, image, name, case["settings"], upsampling
        )

    return both


@settings(max_examples=60)
@given(case=cases())
def test_streamed_equals_whole(
    run: Callable[..., tuple[Nuclei, Nuclei]], blob_engine_type: Any, case: dict[str, Any]
) -> None:
    streamed, reference = run(blob_engine_type, case, NEVER, (case["bands"], case["windows"]))
    assert same(streamed, reference)


@settings(max_examples=40)
@given(case=cases(), other=st.tuples(st.integers(1, 12), st.integers(1, 6)))
def test_with_components_cut_the_windows_still_do_not_matter(
    run: Callable[..., tuple[Nuclei, Nuclei]], blob_engine_type: Any, case: dict[str, Any], other: tuple[int, int]
) -> None:
    one, _ = run(blob_engine_type, case, 1, (case["bands"], case["windows"]))
    another, _ = run(blob_engine_type, case, 1, other)
    assert same(one, another)


def test_the_property_sees_nuclei(run: Callable[..., tuple[Nuclei, Nuclei]], blob_engine_type: Any) -> None:
    """Guards the two tests above against running on empty maps."""
    case = {
        "height": 150, "width": 90, "stride": 4, "upsampling": 1, "name": "distance", "step": 30, "seed": 1,
        "light": 0.0, "settings": SeparationSettings(),
    }  # fmt: skip
    streamed, reference = run(blob_engine_type, case, NEVER, (6, 2))
    assert reference.count >= 8
    assert same(streamed, reference)


@pytest.mark.parametrize("tallest", [1, NEVER])
def test_classes_do_not_depend_on_the_bands(
    run: Callable[..., tuple[Nuclei, Nuclei]], blob_engine_type: Any, tallest: int
) -> None:
    """Many nuclei of several classes, cut by bands and windows all over: each votes once, with all its pixels."""
    case = {
        "height": 150, "width": 90, "stride": 4, "upsampling": 2, "name": SEMANTIC, "step": 20, "seed": 1,
        "light": 0.0, "settings": SeparationSettings(),
    }  # fmt: skip
    streamed, reference = run(blob_engine_type, case, tallest, (9, 3))
    counts = reference.classes.counts
    assert len(counts) == 3
    assert min(counts.values()) >= 2
    if tallest == NEVER:
        assert same(streamed, reference)
    else:
        assert same(streamed, run(blob_engine_type, case, tallest, (1, 1))[0])


def strip(maps: NDArray[np.float32], height: int) -> list[Band]:
    """Maps cut into bands of `height` rows, with a gray image."""
    image = np.full((*maps.shape[1:], 3), 128, np.uint8)
    rows = range(0, len(image), height)
    return [
        Band(row, min(row + height, len(image)), image[row : row + height], maps[:, row : row + height])
        for row in rows
    ]


def test_a_chain_down_the_whole_image_is_not_held_in_memory(caplog: pytest.LogCaptureFixture) -> None:
    """Nuclei that touch all the way down: each is committed, and nothing is left out."""
    rows, period = 1200, 20
    y, x = np.mgrid[:rows, :24]
    peaks = np.clip(1 - np.hypot(y % period - period / 2, x - 12) / 11, 0, 1).astype(np.float32)
    maps = np.stack([np.where(np.abs(x - 12) < 6, 0.9, 0.0).astype(np.float32), peaks])
    rule = SeparationSettings()
    sizes = []
    representation = REPRESENTATIONS["distance"]
    parts = []
    for part in separate_bands(strip(maps, 40), (rows, 24), rule, step=100):
        sizes.append(len(part))
        parts.append(part)
    count = sum(sizes)
    assert count == len(np.unique(representation.separate(maps.copy(), rule))) - 1 == rows // period
    assert len(sizes) > 5  # they came one by one, not all at the end
    assert not caplog.records


def test_a_spur_taken_off_is_no_nucleus_later() -> None:
    """It stays with the nucleus that claimed it, though rows around it are separated again for another's sake."""
    foreground = np.zeros((60, 44), np.float32)
    foreground[10:25, 5:20] = foreground[17, 20:36] = foreground[5:50, 38:42] = 0.9
    maps = np.stack([foreground, foreground])
    rule = SeparationSettings(min_area=4, spur_width=1)
    parts = list(separate_bands(strip(maps, 20), (60, 44), rule, step=30))
    assert [len(part) for part in parts] == [1, 1]
    assert sorted(int(area) for part in parts for area in part.raw["area"]) == [4 * 45, 15 * 15]


def test_dark_from_top_to_bottom_is_no_nucleus(caplog: pytest.LogCaptureFixture) -> None:
    maps = np.full((2, 900, 30), 0.9, np.float32)
    maps[:, :, :5] = 0
    with caplog.at_level(logging.WARNING):
        parts = list(separate_bands(strip(maps, 64), (900, 30), SeparationSettings(), step=100))
    assert sum(len(part) for part in parts) <= 1  # what is left at the end may look like one
    assert [record.message for record in caplog.records] == [
        "areas without a nucleus's shape, over 200 rows tall, are left out"
    ]


def test_open_is_what_the_last_row_reaches() -> None:
    picture = [
        "##..#",
        ".#.##",
        ".#...",
        "##.#.",
        "...#.",
    ]
    foreground = np.array([[pixel == "#" for pixel in row] for row in picture], np.float32)
    reached = find_open(foreground, np.float32(0.5))
    assert np.argwhere(reached).tolist() == [[3, 3], [4, 3]]


def test_steps_follow_from_the_width_alone() -> None:
    assert step_rows(4096, 1) == 1024
    assert step_rows(4096, 2) == 256
    assert step_rows(10**6, 1) == 256
