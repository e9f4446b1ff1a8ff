"""The pyramid of an image, its tiles, and bytes that are kept."""

import io
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from hemalum.review.server.byte_cache import ByteCache
from hemalum.review.server.tiles import TILE, ImageTiles, Pyramid
from hemalum.slides import Slide

lengths = st.integers(1, 200_000)


@given(lengths, lengths)
def test_levels_halve_down_to_one_tile(height: int, width: int) -> None:
    pyramid = Pyramid((height, width))
    shapes = [(height, width)]
    while max(shapes[0]) > TILE:
        shapes.insert(0, (-(-shapes[0][0] // 2), -(-shapes[0][1] // 2)))
    assert pyramid.levels == len(shapes)
    assert [pyramid.shape_of(level) for level in range(pyramid.levels)] == shapes
    assert not pyramid.has(-1, 0, 0)
    assert not pyramid.has(pyramid.levels, 0, 0)


@given(lengths, lengths, st.data())
def test_tiles_cover_a_level_once(height: int, width: int, data: st.DataObject) -> None:
    pyramid = Pyramid((height, width))
    level = data.draw(st.integers(0, pyramid.levels - 1))
    tall, wide = pyramid.shape_of(level)
    columns = [pyramid.tile(level, x, 0)[1] for x in range(-(-wide // TILE))]
    assert [part.start for part in columns] == [0, *(part.stop for part in columns[:-1])]
    assert columns[-1].stop == wide
    assert pyramid.has(level, len(columns) - 1, (tall - 1) // TILE)
    assert not pyramid.has(level, len(columns), 0)
    assert not pyramid.has(level, 0, -(-tall // TILE))


def test_coarse_levels_of_a_plain_image_come_from_one_picture(monkeypatch: pytest.MonkeyPatch) -> None:
    rows, columns = np.mgrid[:600, :4200]
    pixels = np.stack([rows / 600 * 255, columns / 4200 * 255, (rows // 64 + columns // 64) % 2 * 255], 2)
    slide = Slide.of(pixels.astype(np.uint8))
    read: list[int] = []

    @contextmanager
    def open_image(id: str) -> Iterator[Slide]:
        yield slide

    counted = slide.read_scaled
    monkeypatch.setattr(slide, "read_scaled", lambda *window: read.append(1) or counted(*window))
    tiles, pyramid = ImageTiles(open_image), Pyramid(slide.shape)
    assert pyramid.levels == 5
    coarsest = tiles.encode("a", pyramid, 0, 0, 0)
    again = [tiles.encode("a", pyramid, 1, x, 0) for x in (0, 1)]
    assert len(read) == 1
    assert len({coarsest, *again}) == 3
    tiles.encode("a", pyramid, 2, 0, 0)  # a quarter: from the image itself
    assert len(read) == 2


def test_the_picture_shows_what_the_image_shows() -> None:
    rows, columns = np.mgrid[:600, :4200]
    pixels = np.stack([rows / 600 * 255, columns / 4200 * 255, np.full(rows.shape, 90)], 2).astype(np.uint8)
    slide = Slide.of(pixels)

    @contextmanager
    def open_image(id: str) -> Iterator[Slide]:
        yield slide

    content = ImageTiles(open_image).encode("a", Pyramid(slide.shape), 0, 0, 0)
    shown = np.asarray(Image.open(io.BytesIO(content))).astype(int)
    expected = slide.read_scaled(shown.shape[:2], slice(0, shown.shape[0]), slice(0, shown.shape[1])).astype(int)
    assert np.abs(shown - expected).max() <= 6


def test_bytes_are_made_once_and_kept_within_the_limit() -> None:
    cache, made = ByteCache(25), []

    def ask(key: str) -> bytes:
        return cache.get(key, lambda: made.append(key) or key.encode() * 10)

    assert [ask(key) for key in "abab"] == [b"a" * 10, b"b" * 10] * 2
    ask("c")  # a goes: b was asked for later
    assert (made, cache.size) == (["a", "b", "c"], 20)
    ask("b")
    ask("a")
    assert made == ["a", "b", "c", "a"]
    assert cache.get("large", lambda: bytes(100)) == bytes(100)
    assert cache.size <= 25


def test_what_several_ask_for_at_once_is_made_once() -> None:
    cache, made = ByteCache(100), []

    def make() -> bytes:
        time.sleep(0.05)
        made.append(1)
        return b"x"

    threads = [threading.Thread(target=cache.get, args=("key", make)) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (len(made), cache.size) == (1, 1)


@pytest.mark.fault
def test_what_cannot_be_made_is_tried_again() -> None:
    cache = ByteCache(100)
    for _ in range(2):
        with pytest.raises(ZeroDivisionError):
            cache.get("key", lambda: bytes(1 // 0))
    assert cache.get("key", lambda: b"x") == b"x"
