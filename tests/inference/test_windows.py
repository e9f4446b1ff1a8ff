"""Windows of one size, for networks whose every pixel depends on the whole input."""

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import pytest
from numpy.typing import NDArray

from hemalum.inference.grid import Box, TileGrid
from hemalum.inference.maps import TileMaps, scaled_pixels
from hemalum.models.windows import cut_windows, missing, stitch, window_halo
from hemalum.slides.slide import Slide
from hemalum.targets.representations import REPRESENTATIONS


@dataclass
class WindowEngine:
    """Records what it is shown. Its maps are the pixel's value and the window's mean, which tells windows apart."""

    output_upsampling: int = 1
    parallel: int = 1
    batch: int = 1
    name: str = "windows"
    precision: str = "f32"
    shapes: list[tuple[int, ...]] = field(default_factory=list)
    organs: list[int | None] = field(default_factory=list)

    def maps(self, images: NDArray[np.uint8], organ: int | None = None) -> NDArray[np.float32]:
        self.shapes.append(images.shape)
        self.organs.append(organ)
        values = images.mean(axis=-1, dtype=np.float32) / 255
        mean = np.broadcast_to(values.mean(axis=(1, 2), keepdims=True), values.shape)
        maps = np.stack([values, mean], axis=1)
        return maps.repeat(self.output_upsampling, axis=2).repeat(self.output_upsampling, axis=3)


def run(image: NDArray[np.uint8], engine: WindowEngine, window: int, organ: int | None = None) -> NDArray[np.float32]:
    """Maps of the whole image."""
    shape, halo = (image.shape[0], image.shape[1]), window_halo(window, 16)
    grid = TileGrid(*(cut_windows(length, window, halo) for length in shape), window)
    with TileMaps(
        scaled_pixels(Slide.of(image), shape), shape, engine, REPRESENTATIONS["distance"], grid,
        upsampling=engine.output_upsampling, organ=organ,
    ) as maps:  # fmt: skip
        result = maps.read(Box(0, 0, *shape))
    assert np.array_equal(result.image, image)
    return result.maps


@pytest.mark.parametrize(
    ("height", "width"), [(300, 500), (64, 64), (40, 300), (300, 50), (20, 17), (65, 63), (128, 64)]
)
@pytest.mark.parametrize("output_upsampling", [1, 2])
def test_the_engine_sees_windows_of_one_size_and_every_pixel_comes_back(
    make_blobs: Callable[..., NDArray[np.uint8]], height: int, width: int, output_upsampling: int
) -> None:
    image = make_blobs(height, width, 0)
    engine = WindowEngine(output_upsampling=output_upsampling)
    maps = run(image, engine, 64)
    assert {shape[1:] for shape in engine.shapes} == {(64, 64, 3)}
    values = image.mean(axis=-1, dtype=np.float32) / 255
    assert np.array_equal(maps[0], values.repeat(output_upsampling, axis=0).repeat(output_upsampling, axis=1))


def test_windows_do_not_depend_on_how_many_are_at_work(make_blobs: Callable[..., NDArray[np.uint8]]) -> None:
    image = make_blobs(700, 900, 1)
    one, many = WindowEngine(parallel=1), WindowEngine(parallel=7)
    assert np.array_equal(run(image, one, 128), run(image, many, 128))
    assert sorted(one.shapes) == sorted(many.shapes)
    assert sum(shape[0] for shape in one.shapes) > 50
    means = run(image, WindowEngine(), 128)[1]
    for rows in cut_windows(700, 128, window_halo(128, 16)):
        for columns in cut_windows(900, 128, window_halo(128, 16)):
            window = image[rows.start : rows.stop, columns.start : columns.stop]
            core = means[rows.core_start : rows.core_stop, columns.core_start : columns.core_stop]
            mean = (window.mean(axis=-1, dtype=np.float32) / 255)[None].mean(axis=(1, 2))
            assert (core == mean).all()


def test_an_image_smaller_than_a_window_is_mirrored() -> None:
    image = np.arange(20, dtype=np.uint8)[:, None, None].repeat(17, axis=1).repeat(3, axis=2) * 12
    seen: list[NDArray[np.uint8]] = []

    class Keeping(WindowEngine):
        def maps(self, images: NDArray[np.uint8], organ: int | None = None) -> NDArray[np.float32]:
            seen.append(images.copy())
            return super().maps(images, organ)

    run(image, Keeping(), 64)  # more than twice as large: mirrored more than once
    (images,) = seen
    assert np.array_equal(images[0], np.pad(image, ((0, 44), (0, 47), (0, 0)), "symmetric"))
    assert missing((20, 17), 64) == (44, 47)


def test_the_organ_reaches_the_engine_only_where_there_is_one(make_blobs: Callable[..., NDArray[np.uint8]]) -> None:
    image = make_blobs(80, 80, 2)
    engine = WindowEngine()
    run(image, engine, 64, organ=3)
    assert set(engine.organs) == {3}

    class Plain(WindowEngine):
        def maps(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:  # type: ignore[override]
            return super().maps(images)

    run(image, Plain(), 64)


@pytest.mark.parametrize("output_upsampling", [1, 2])
@pytest.mark.parametrize("shape", [(70, 150), (64, 64), (19, 200)])
def test_a_small_image_is_put_together_as_tiles_are(
    make_blobs: Callable[..., NDArray[np.uint8]], shape: tuple[int, int], output_upsampling: int
) -> None:
    image = make_blobs(*shape, 3)
    engine = WindowEngine(output_upsampling=output_upsampling)
    below, right = missing(shape, 64)
    padded = np.pad(image, ((0, below), (0, right), (0, 0)), "symmetric")
    maps = stitch(
        shape,
        64,
        window_halo(64, 16),
        lambda rows, columns: engine.maps(padded[None, rows.start : rows.stop, columns.start : columns.stop])[0],
        output_upsampling,
    )
    assert np.array_equal(maps, run(image, engine, 64))
