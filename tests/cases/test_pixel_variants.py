"""Any TIFF of any kind of pixels, read whole and band by band, is the picture that was put in it."""

import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from builders.slides import draw_picture, seen
from hemalum.data.image import read_image
from hemalum.slides import open_slide

pytestmark = pytest.mark.fault

COLOR = draw_picture(70, 90)
LOSSLESS = [None, "zlib", "lzw", "packbits", "zstd", "lzma", "deflate"]


@st.composite
def stored_pictures(draw: st.DrawFn) -> tuple[NDArray[Any], dict[str, Any], NDArray[np.uint8]]:
    """Pixels to be stored, how, and the RGB that is meant."""
    kind = draw(st.sampled_from(["rgb", "gray", "white", "palette", "cmyk", "bit", "16-bit rgb", "float rgb"]))
    options: dict[str, Any] = {"compression": draw(st.sampled_from(LOSSLESS)), "metadata": None}
    gray = np.repeat(COLOR[..., :1], 3, axis=2)
    if draw(st.booleans()) and kind != "bit":
        options["tile"] = draw(st.sampled_from([(16, 16), (32, 48), (80, 96)]))
    elif draw(st.booleans()):
        options["rowsperstrip"] = draw(st.integers(1, 80))
    if kind in ("gray", "white"):
        options["photometric"] = "minisblack" if kind == "gray" else "miniswhite"
        return COLOR[..., 0], options, gray if kind == "gray" else 255 - gray
    if kind == "bit":
        options["photometric"] = draw(st.sampled_from(["minisblack", "miniswhite"]))
        if options["compression"] in ("lzma", "zstd"):
            options["compression"] = None
        bits = COLOR[..., 0] > 120
        white = bits if options["photometric"] == "minisblack" else ~bits
        return bits, options, np.repeat(np.where(white, 255, 0).astype(np.uint8)[..., None], 3, axis=2)
    if kind == "palette":
        colors = np.random.default_rng(1).integers(0, 256, (256, 3), dtype=np.uint8)
        wide = draw(st.booleans())
        options |= {"photometric": "palette", "colormap": colors.T.astype(np.uint16) * (257 if wide else 1)}
        return COLOR[..., 0], options, colors[COLOR[..., 0]]
    if kind == "cmyk":
        inks = np.dstack([255 - COLOR, np.zeros(COLOR.shape[:2], np.uint8)])
        options["photometric"] = "separated"
        return inks, options, COLOR
    pixels: NDArray[Any] = COLOR
    if kind == "16-bit rgb":
        pixels = COLOR.astype(np.uint16) * 257
        options["predictor"] = options["compression"] in ("zlib", "lzw", "zstd") and draw(st.booleans())
    elif kind == "float rgb":
        pixels = COLOR / np.float32(255)
    expected = COLOR
    extra = draw(st.sampled_from([None, "unspecified", "unassalpha"])) if kind != "float rgb" else None
    if extra is not None:
        clear = np.zeros(COLOR.shape[:2], pixels.dtype)
        clear[20:] = np.iinfo(pixels.dtype).max
        pixels = np.dstack([pixels, clear])
        options["extrasamples"] = [extra]
        if extra == "unassalpha":
            expected = COLOR.copy()
            expected[:20] = 255
    options["photometric"] = "rgb"
    if draw(st.booleans()):
        options["planarconfig"], pixels = "separate", np.moveaxis(pixels, 2, 0)
    return pixels, options, expected


@given(stored_pictures(), st.integers(1, 8), st.sampled_from("<>"), st.booleans(), st.integers(5, 90))
@settings(max_examples=30)
def test_what_is_read_is_what_was_meant(
    picture: tuple[NDArray[Any], dict[str, Any], NDArray[np.uint8]],
    orientation: int,
    order: Any,
    big: bool,
    band: int,
) -> None:
    pixels, options, expected = picture
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "a.tif"
        tags = [(274, 3, 1, orientation, False)]
        tifffile.imwrite(path, pixels, byteorder=order, bigtiff=big, extratags=tags, **options)
        read = read_image(path)
        with open_slide(path) as slide:
            bands = [slide.rows(y, y + band) for y in range(0, slide.shape[0], band)]
    assert np.array_equal(np.concatenate(bands), read)
    assert np.array_equal(read, seen(expected, orientation))


YCBCR = np.array([[0.299, 0.587, 0.114], [-0.168736, -0.331264, 0.5], [0.5, -0.418688, -0.081312]])


def to_ycbcr(rgb: NDArray[np.uint8]) -> NDArray[np.uint8]:
    return np.rint(np.clip(rgb @ YCBCR.T + [0, 128, 128], 0, 255)).astype(np.uint8)


# stored as YCbCr: codecs that know it turn it back by themselves, for the others the reader does
@pytest.mark.parametrize("compression", [None, "zlib", "lzw", "zstd", "jpeg", "webp", "jpeg2000", "jpegxr", "jpegxl"])
@pytest.mark.parametrize("photometric", ["rgb", "ycbcr"])
@pytest.mark.parametrize("tile", [None, (32, 32)])
def test_colors_in_every_compression(tmp_path: Path, compression: Any, photometric: str, tile: Any) -> None:
    path = tmp_path / "a.tif"
    by_codec = compression in ("webp", "jpegxr", "jpegxl")
    stored = to_ycbcr(COLOR) if photometric == "ycbcr" and not by_codec else COLOR
    arguments: dict[str, Any] = {}
    if compression == "jpeg":
        arguments = {"compressionargs": {"level": 98}, "subsampling": (1, 1)}
    elif compression == "webp":
        arguments = {"compressionargs": {"level": 100, "lossless": True}}
    elif compression == "jpeg2000":
        arguments = {"compressionargs": {"level": 0, "mct": False}}
    elif compression in ("jpegxr", "jpegxl"):
        arguments = {"compressionargs": {"lossless": True} if compression == "jpegxl" else {"level": 1.0}}
    tifffile.imwrite(path, stored, photometric=photometric, compression=compression, tile=tile, **arguments)
    read = read_image(path)
    with open_slide(path) as slide:
        assert np.array_equal(slide.rows(0, 70), read)
    limit = 16 if compression == "jpeg" else 3
    assert np.abs(read.astype(int) - COLOR).max() <= limit


@pytest.mark.parametrize(("compression", "stored"), [(33003, to_ycbcr(COLOR)), (33005, COLOR)])
@pytest.mark.parametrize("photometric", ["rgb", "ycbcr"])
def test_the_two_of_aperio_say_their_colors(
    tmp_path: Path, compression: int, stored: NDArray[np.uint8], photometric: str
) -> None:
    path = tmp_path / "a.tif"
    options: dict[str, Any] = {"compression": compression, "compressionargs": {"level": 0, "mct": False}}
    tifffile.imwrite(path, stored, photometric=photometric, tile=(32, 32), **options)
    read = read_image(path)
    assert np.abs(read.astype(int) - COLOR).max() <= 3
    with open_slide(path) as slide:
        assert np.array_equal(slide.rows(0, 70), read)


def test_jpeg_2000_that_turned_its_colors_itself(tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    options = {"level": 0, "mct": True, "reversible": True}
    tifffile.imwrite(path, COLOR, photometric="ycbcr", compression="jpeg2000", compressionargs=options)
    assert np.abs(read_image(path).astype(int) - COLOR).max() <= 1


def test_reference_black_and_white_of_video(tmp_path: Path) -> None:
    """YCbCr of 16 to 235, as frame grabbers write it."""
    path = tmp_path / "a.tif"
    levels = [16, 1, 235, 1, 128, 1, 240, 1, 128, 1, 240, 1]
    gray = np.linspace(16, 235, 64 * 64).reshape(64, 64)
    stored = np.rint(np.dstack([gray, np.full_like(gray, 128), np.full_like(gray, 128)])).astype(np.uint8)
    tifffile.imwrite(path, stored, photometric="ycbcr", extratags=[(532, 5, 6, levels, True)])
    read = read_image(path)
    assert (read[0, 0].tolist(), read[-1, -1].tolist()) == ([0, 0, 0], [255, 255, 255])
