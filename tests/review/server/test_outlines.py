"""Tiles of a store's nuclei: the format, who is in which, and how dense they lie."""

import io
import itertools
import struct
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import shapely
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image

from builders.stores import small_run, squares_run, store_squares
from hemalum.nuclei.polygons import Polygons
from hemalum.nuclei.store import NucleiStore, from_wkb
from hemalum.review.server import outlines
from hemalum.review.server.outlines import PALETTE, NucleiTiles, color_numbers, pack_outlines, simplify_rings
from hemalum.review.server.tiles import TILE
from synthetic_nuclei import CLASSES, synthetic_nuclei


class Unpacked(NamedTuple):
    """What a page reads of a tile."""

    ids: NDArray[np.uint32]
    classes: NDArray[np.uint8]
    rings: list[NDArray[np.float64]]


def unpack(content: bytes) -> Unpacked:
    """Read a tile as its format is described, without the code that wrote it."""
    n, p = struct.unpack_from("<2I", content)
    at = 8
    ids = np.frombuffer(content, "<u4", n, at)
    at += 4 * n
    classes = np.frombuffer(content, "u1", n, at)
    at += n + (4 - n % 4) % 4
    offsets = np.frombuffer(content, "<u4", n + 1, at)
    at += 4 * (n + 1)
    points = np.frombuffer(content, "<i2", 2 * p, at).reshape(p, 2) / 8
    assert at + 4 * p == len(content)
    assert (offsets[0], offsets[-1]) == (0, p)
    return Unpacked(ids, classes, [points[a:b] for a, b in itertools.pairwise(offsets)])


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> NucleiStore:
    """Three by four regions of 600 px: 7,500 nuclei of 40 points."""
    run = small_run(
        shape=(1800, 2400), grid={"rows": 3, "columns": 4, "height": 600, "width": 600},
    )  # fmt: skip
    store = NucleiStore.create(tmp_path_factory.mktemp("store") / "slide.nuclei", run)
    for region in store.missing():
        store.add(region, *synthetic_nuclei(run, region))
    store.finish()
    return store


@pytest.mark.parametrize("level", [0, 1, 2, 3])
def test_each_nucleus_is_in_one_tile_of_a_level(store: NucleiStore, level: int) -> None:
    tiles = NucleiTiles(store)
    assert (tiles.pyramid.levels, tiles.outlines_from) == (4, 0)
    factor = 2 ** (3 - level)
    ids = []
    for y in range(-(-1800 // (TILE * factor))):
        for x in range(-(-2400 // (TILE * factor))):
            ids += unpack(tiles.outlines(level, x, y)).ids.tolist()
    table = store.window(0, 0, 2400, 1800, columns=["id"])
    assert sorted(ids) == table.column("id").to_pylist()


@pytest.mark.parametrize("level", [1, 3])
def test_outlines_are_those_of_the_store(store: NucleiStore, level: int) -> None:
    factor = 2 ** (3 - level)
    tile = unpack(NucleiTiles(store).outlines(level, 1, 0))
    table = store.window(0, 0, 2400, 1800, columns=["id", "class", "geometry"])
    rings = from_wkb(table.column("geometry")).shapely()
    position = {id: k for k, id in enumerate(table.column("id").to_pylist())}
    names = table.column("class").to_pylist()
    overlaps = []
    for id, number, ring in zip(tile.ids.tolist(), tile.classes.tolist(), tile.rings, strict=True):
        at = ring * factor + [TILE * factor, 0]
        expected, shown = rings[position[id]], shapely.Polygon(at)
        assert CLASSES[number - 1] == names[position[id]]
        # simplified by a quarter of a px, and rounded to an eighth, of the screen
        assert shapely.hausdorff_distance(shapely.LinearRing(at), expected.exterior) < 0.5 * factor
        overlaps.append(shown.buffer(0).intersection(expected).area / expected.area)
    assert len(overlaps) > 300
    assert np.mean(overlaps) > 0.9
    assert np.mean([len(ring) for ring in tile.rings]) < (39 if level == 3 else 25)


def test_a_nucleus_may_reach_beyond_its_tile_but_not_beyond_what_a_point_can_be(tmp_path: Path) -> None:
    store = store_squares(tmp_path / "s.nuclei", squares_run((600, 1200)), [(511, 100), (513, 300)], side=20)
    tiles = NucleiTiles(store)
    left, right = (unpack(tiles.outlines(2, x, 0)) for x in (0, 1))
    assert (left.ids.tolist(), right.ids.tolist()) == ([1], [2])
    assert left.rings[0].max(axis=0).tolist() == [521, 110]
    assert right.rings[0].min(axis=0).tolist() == [-9, 290]
    far = pack_outlines(
        np.array([2**32 + 7]), np.array([300], np.int32), np.array([[1e9, -1e9], [0, 0], [8, 8], [1e9, -1e9]]),
        np.array([0, 4]),
    )  # fmt: skip
    (id,), (number,), (ring,) = unpack(far)
    assert (id, number, ring.tolist()) == (7, 255, [[32767 / 8, -4096], [0, 0], [1, 1]])


def test_an_empty_tile(tmp_path: Path) -> None:
    tiles = NucleiTiles(store_squares(tmp_path / "s.nuclei", squares_run((600, 600)), []))
    assert tiles.outlines(1, 0, 0) == bytes(12)
    assert tiles.scale > 0


def test_a_centroid_on_the_far_edge_is_in_the_last_tile(tmp_path: Path) -> None:
    store = store_squares(tmp_path / "s.nuclei", squares_run((1024, 1024)), [(1024, 1024), (512, 512), (1024, 511.5)])
    tiles = NucleiTiles(store)
    tiled = {(x, y): unpack(tiles.outlines(1, x, y)).ids.tolist() for x in (0, 1) for y in (0, 1)}
    assert tiled == {(0, 0): [], (1, 0): [3], (0, 1): [], (1, 1): [1, 2]}


def test_levels_with_more_nuclei_than_can_be_drawn_show_their_density(
    store: NucleiStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    table = store.window(0, 0, 2400, 1800, columns=["x", "y"])
    x, y = (table.column(name).to_numpy() for name in "xy")
    for level in range(4):
        side = TILE * 2 ** (3 - level)
        fullest = np.unique(y // side * 100 + x // side, return_counts=True)[1].max()
        monkeypatch.setattr(outlines, "MOST", fullest)
        assert NucleiTiles(store).outlines_from == level
    monkeypatch.setattr(outlines, "MOST", fullest - 1)
    assert NucleiTiles(store).outlines_from == 4  # outlines on no level at all


def test_the_density_is_where_the_nuclei_are(tmp_path: Path) -> None:
    middle = [(1000 + 10 * k, 600 + 10 * j) for k in range(20) for j in range(20)]
    store = store_squares(tmp_path / "s.nuclei", squares_run((1024, 2048)), middle)
    tiles = NucleiTiles(store)
    overview = np.asarray(Image.open(io.BytesIO(tiles.density(0, 0, 0))).convert("RGBA"))
    assert overview.shape == (256, 512, 4)
    assert overview[175, 275, 3] > 150  # 4 px of the slide are one here
    assert (overview[:100, :, 3] == 0).all()
    assert (overview[:, :200, 3] == 0).all()
    shown = overview[..., 3] > 100
    rows, columns = np.nonzero(shown)
    assert np.abs([rows.mean() - 173.75, columns.mean() - 273.75]).max() < 12


def test_densities_meet_without_a_seam(store: NucleiStore) -> None:
    tiles = NucleiTiles(store)
    left, right = (
        np.asarray(Image.open(io.BytesIO(tiles.density(2, x, 0))).convert("RGBA")).astype(int) for x in (0, 1)
    )
    across = np.abs(left[:, -1] - right[:, 0]).mean()
    within = np.abs(np.diff(np.concatenate([left[:, -40:], right[:, :40]], axis=1), axis=1)).mean()
    assert across < 3 * within + 1


def test_the_color_says_how_dense() -> None:
    colors = PALETTE[color_numbers(np.array([[0, 0.01, 0.5, 1, 7]], np.float32))[0]].astype(int)
    assert colors[0].tolist() == [0, 0, 0, 0]
    assert (np.diff(colors[1:4, 3]) > 0).all()
    assert colors[3].tolist() == colors[4].tolist()


def test_simplified_rings_stay_near_and_keep_an_area() -> None:
    angle = np.linspace(0, 2 * np.pi, 200)
    circle = np.column_stack([50 + 20 * np.cos(angle), 50 + 20 * np.sin(angle)]).astype(np.float32)
    circle[-1] = circle[0]
    dot = circle * 0.01
    square = np.array([[0, 0], [4, 0], [8, 0], [8, 8], [0, 8], [0, 0]], np.float32)
    triangle = np.array([[0, 0], [4, 0], [4, 1], [0, 0]], np.float32)
    parts = [circle, dot, square, triangle]
    rings = Polygons(np.concatenate(parts), np.cumsum([0] + [len(part) for part in parts]))
    simple = simplify_rings(rings, 0.25)
    first, second, third, fourth = simple.shapely()
    assert len(first.exterior.coords) < 40
    assert shapely.hausdorff_distance(first, rings.shapely()[0]) <= 0.26
    assert len(second.exterior.coords) == 4  # a triangle is left
    assert second.area > 0
    assert list(third.exterior.coords) == [(0, 0), (8, 0), (8, 8), (0, 8), (0, 0)]
    assert fourth.equals(rings.shapely()[3])


@given(st.integers(4, 60), st.floats(0, 30), st.integers(0, 2**32))
def test_no_point_that_goes_was_farther_than_the_tolerance(count: int, tolerance: float, seed: int) -> None:
    points = np.random.default_rng(seed).integers(0, 64, (count, 2)).astype(np.float32)
    rings = Polygons(np.concatenate([points, points[:1]]), np.array([0, count + 1], np.int64))
    simple = simplify_rings(rings, tolerance)
    assert (simple.coords[0] == simple.coords[-1]).all()
    line = shapely.LineString(simple.coords)
    assert max(line.distance(shapely.Point(point)) for point in points) <= tolerance + 1e-6
