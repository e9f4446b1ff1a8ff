"""More than 8 bits become 8 by percentiles of the whole image, or by what cameras give; single pixels say nothing."""

import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from hypothesis import example, given, settings
from hypothesis import strategies as st
from PIL import Image

from builders.slides import draw_picture, read_both, save_ome_zarr
from hemalum.data.image import read_image
from hemalum.data.pixels import Spread, spread_of
from hemalum.errors import HemalumError
from hemalum.slides import Slide, open_slide

pytestmark = pytest.mark.fault

COLOR = draw_picture(192, 192)
GRAY = COLOR[..., 0].astype(np.uint16) * 10 + 900
HOT = "these are cut off, as faults of a camera are; if they are the nuclei, save the image with 8 bits"


def lines_of(caplog: pytest.LogCaptureFixture, level: int = logging.WARNING) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.levelno == level]


@pytest.mark.parametrize("dtype", [np.uint16, np.int16, np.uint32, np.int32, np.float32, np.float64])
@pytest.mark.parametrize("hot", [65535, 0, None])
def test_one_pixel_in_many_changes_nothing(
    tmp_path: Path, dtype: Any, hot: int | None, caplog: pytest.LogCaptureFixture
) -> None:
    scale = 0.4 if dtype == np.int16 else 1
    plain, spoiled = tmp_path / "plain.tif", tmp_path / "spoiled.tif"
    pixels = (GRAY * scale).astype(dtype)
    tifffile.imwrite(plain, pixels, photometric="minisblack", compression="zlib")
    if hot is not None:
        pixels[3, 3] = min(hot, 32767) if dtype == np.int16 else hot
    tifffile.imwrite(spoiled, pixels, photometric="minisblack", compression="zlib")
    first, second = read_both(plain), read_both(spoiled)
    assert np.abs(first.astype(int) - second)[np.indices(GRAY.shape).max(axis=0) != 3].max() <= 1
    assert (first.min(), first.max()) == (0, 255)
    expected = [] if hot != 65535 else [spoiled]
    assert [line.split(": ")[0] for line in lines_of(caplog)] == [str(path) for path in expected]


def test_what_is_cut_off_is_said_word_for_word(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "hot.tif"
    pixels = np.linspace(1000, 3000, 192 * 192).reshape(192, 192).astype(np.uint16)
    pixels[3, 3], pixels[5, 5] = 65535, 2
    tifffile.imwrite(path, pixels)
    read_both(path)
    assert lines_of(caplog) == [f"{path}: nearly all pixels lie at 1001 to 2998, a few reach 2 and 65535: {HOT}"]


@pytest.mark.parametrize("name", ["a.png", "a.tif", "tiles.tif", "a.ome.tif", "a.zarr"])
def test_a_hot_pixel_in_every_format(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    pixels = GRAY.copy()
    pixels[3, 3] = 65535
    if name == "a.png":
        Image.fromarray(pixels).save(path)
    elif name == "a.zarr":
        import zarr

        save_ome_zarr(path, COLOR, levels=1)
        array = zarr.create_array(
            str(path / "0"), shape=(1, *GRAY.shape), dtype="uint16", chunks=(1, 64, 64), overwrite=True
        )
        array[0] = pixels
    else:
        tile = {"tile": (64, 64)} if name == "tiles.tif" else {}
        tifffile.imwrite(path, pixels, photometric="minisblack", **tile)
    with open_slide(path) as slide:
        read = slide.rows(0, 192)[..., 0].astype(int)
    expected = (GRAY - np.percentile(GRAY, 0.1)) / (np.percentile(GRAY, 99.9) - np.percentile(GRAY, 0.1)) * 255
    assert np.abs(read - np.clip(expected, 0, 255))[4:].max() <= 1


@pytest.mark.parametrize("white", [255, 1023, 4095, 16383, 65535])
@pytest.mark.parametrize("tiled", [False, True])
def test_color_of_more_bits_keeps_its_black_and_its_balance(
    tmp_path: Path, white: int, tiled: bool, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "a.tif"
    deep = np.rint(COLOR / 255 * white).astype(np.uint16)
    deep[:20] = white  # glass
    tifffile.imwrite(path, deep, photometric="rgb", tile=(64, 64) if tiled else None)
    caplog.set_level(logging.INFO)
    read = read_both(path)
    assert np.abs(read[20:].astype(int) - COLOR[20:]).max() <= 1
    assert (read[:20] == 255).all()
    assert lines_of(caplog, logging.INFO)[0] == f"{path}: 16-bit color 0..{white} scaled to 0..255"


@pytest.mark.parametrize(("scale", "shift"), [(1 / 255, 0), (1, 0), (257, 0), (1.02 / 255, 0.0)])
@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.float16])
def test_color_of_fractions(tmp_path: Path, scale: float, shift: float, dtype: Any) -> None:
    if dtype == np.float16 and scale > 1:
        pytest.skip("half floats end there")
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, (COLOR.astype(float) * scale + shift).astype(dtype), photometric="rgb")
    limit = 6 if scale == 1.02 / 255 else 1
    assert np.abs(read_both(path).astype(int) - COLOR).max() <= limit


def test_nan_and_infinite_pixels_are_counted(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "a.tif"
    pixels = GRAY.astype(np.float32)
    pixels[:2, :5], pixels[7, 7] = np.nan, np.inf
    tifffile.imwrite(path, pixels)
    read = read_both(path)
    assert (read[:2, :5] == 0).all()
    assert lines_of(caplog) == [f"{path}: 11 samples are NaN or infinite and taken as the lowest value"]
    tifffile.imwrite(path, np.full((40, 40), np.nan, np.float32))
    assert (read_both(path) == 0).all()


def test_an_image_that_is_flat_but_for_a_speck_shows_it(tmp_path: Path) -> None:
    pixels = np.full((200, 200), 700, np.uint16)
    pixels[50:54, 50:54] = 900
    tifffile.imwrite(tmp_path / "a.tif", pixels)
    read = read_both(tmp_path / "a.tif")
    assert (read[50:54, 50:54] == 255).all()
    assert read[0, 0].tolist() == [0, 0, 0]


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.uint16, np.bool_, np.int32])
def test_arrays_go_by_the_same_rules(dtype: Any) -> None:
    picture = COLOR / 255 if np.dtype(dtype).kind == "f" else COLOR > 99 if dtype == np.bool_ else COLOR
    expected = np.where(COLOR > 99, 255, 0) if dtype == np.bool_ else COLOR
    assert np.abs(Slide.of(picture.astype(dtype)).rows(0, 192).astype(int) - expected).max() <= 1


def test_what_is_no_number_is_refused(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "a.tif", GRAY.astype(np.complex64))
    with pytest.raises(HemalumError) as caught:
        read_image(tmp_path / "a.tif")
    line = "complex64 pixels are not supported; save the image with 8 bits per channel"
    assert str(caught.value) == f"{tmp_path / 'a.tif'}: {line}"


@given(st.lists(st.integers(0, 65535), min_size=1, max_size=3000), st.sampled_from(["u2", "i4", "f8"]))
@settings(max_examples=50)
@example([5] * 1500 + [65535], "u2")
def test_order_statistics_are_those_of_the_sorted_values(values: list[int], dtype: str) -> None:
    ordered = sorted(values)
    last = len(values) - 1
    expected = [ordered[index] for index in (0, int(0.001 * last), last // 2, int(np.ceil(0.999 * last)), last)]
    assert spread_of(np.array(values, dtype)) == Spread(*map(float, expected), 0)
