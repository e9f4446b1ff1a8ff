"""Each fault is a valid file and one small mutation, with the exact error."""

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from PIL import Image

from hemalum.data.image import read_image
from hemalum.data.label_pixels import read_label_map
from hemalum.errors import HemalumError

RGB = np.random.default_rng(0).integers(0, 256, (20, 30, 3), dtype=np.uint8)
GRAY = RGB[..., 0].copy()


@pytest.mark.parametrize("name", ["a.png", "a.bmp", "a.tif"])
def test_rgb_is_read_as_it_is(tmp_path: Path, name: str) -> None:
    Image.fromarray(RGB).save(tmp_path / name)
    assert np.array_equal(read_image(tmp_path / name), RGB)


def test_jpeg_is_read_as_pillow_reads_it(tmp_path: Path) -> None:
    Image.fromarray(RGB).save(tmp_path / "a.jpg", quality=90)
    assert np.array_equal(read_image(tmp_path / "a.jpg"), np.asarray(Image.open(tmp_path / "a.jpg")))


def test_content_decides_not_the_suffix(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "a.tif", RGB, photometric="rgb")
    (tmp_path / "a.tif").rename(tmp_path / "a.png")
    assert np.array_equal(read_image(tmp_path / "a.png"), RGB)


@pytest.mark.parametrize("name", ["a.png", "a.tif"])
def test_gray_becomes_three_channels(tmp_path: Path, name: str) -> None:
    Image.fromarray(GRAY).save(tmp_path / name)
    image = read_image(tmp_path / name)
    assert image.shape == (20, 30, 3)
    assert all(np.array_equal(image[..., channel], GRAY) for channel in range(3))


def test_alpha_is_laid_over_white(tmp_path: Path) -> None:
    pixels = np.array([[[10, 20, 30, 255], [10, 20, 30, 0], [100, 0, 200, 51]]], np.uint8)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    # alpha 51/255 = 0.2: 0.2 * 100 + 0.8 * 255 = 224, 0.8 * 255 = 204, 0.2 * 200 + 204 = 244
    assert read_image(tmp_path / "a.png").tolist() == [[[10, 20, 30], [255, 255, 255], [224, 204, 244]]]


@pytest.mark.parametrize("name", ["a.png", "a.tif"])
def test_16_bit_gray_is_stretched_and_said(tmp_path: Path, name: str, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    pixels = np.array([[1000, 3000], [2000, 1000]], np.uint16)
    if name.endswith("png"):
        Image.fromarray(pixels).save(tmp_path / name)
    else:
        tifffile.imwrite(tmp_path / name, pixels)
    assert read_image(tmp_path / name)[..., 0].tolist() == [[0, 255], [128, 0]]
    assert "16-bit gray 1000..3000 stretched to 0..255" in caplog.text


def test_flat_16_bit_gray_is_black(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "a.tif", np.full((3, 3), 500, np.uint16))
    assert read_image(tmp_path / "a.tif").max() == 0


def test_tiff_planes_and_pages_as_channels(tmp_path: Path) -> None:
    planes = np.moveaxis(RGB, -1, 0)
    tifffile.imwrite(tmp_path / "planes.tif", planes, photometric="rgb", planarconfig="separate")
    tifffile.imwrite(tmp_path / "imagej.tif", planes, imagej=True, metadata={"axes": "CYX"})
    assert np.array_equal(read_image(tmp_path / "planes.tif"), RGB)
    assert np.array_equal(read_image(tmp_path / "imagej.tif"), RGB)


def test_tiff_white_is_zero(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "a.tif", GRAY, photometric="miniswhite")
    assert np.array_equal(read_image(tmp_path / "a.tif")[..., 0], 255 - GRAY)


def _missing(path: Path) -> None:
    path.unlink(missing_ok=True)


def _text(path: Path) -> None:
    path.write_text("this is no image")


def _empty(path: Path) -> None:
    path.write_bytes(b"")


def _folder(path: Path) -> None:
    path.mkdir()


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (_missing, "no such file"),
        (_text, "not an image that can be read (PNG, JPEG, BMP, TIFF, WebP, JPEG 2000, JPEG XR)"),
        (_empty, "the file is empty (0 bytes)"),
        (_folder, "is a folder, not an image"),
    ],
)
def test_png_faults(tmp_path: Path, spoil: Callable[[Path], object], message: str) -> None:
    path = tmp_path / "a.png"
    spoil(path)
    with pytest.raises(HemalumError) as error:
        read_image(path)
    assert str(error.value) == f"{path}: {message}"


@pytest.mark.parametrize(
    ("pixels", "options", "message"),
    [
        (np.zeros((8, 8), np.complex64), {}, "complex64 pixels are not supported; save the image with 8 bits"),
        (np.zeros((8, 8, 3), np.uint8), {"photometric": "cielab"}, "CIELAB pixels are not supported; save the"),
    ],
)
def test_tiff_faults(tmp_path: Path, pixels: np.ndarray, options: dict[str, Any], message: str) -> None:
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, pixels, **options)
    with pytest.raises(HemalumError) as error:
        read_image(path)
    assert str(error.value).startswith(f"{path}: {message}")
    assert "\n" not in str(error.value)


@pytest.mark.fault
@pytest.mark.parametrize("name", ["a.png", "a.jpg", "a.tif"])
@pytest.mark.parametrize("share", [0.1, 0.5, 0.95])
def test_truncated_files(tmp_path: Path, name: str, share: float) -> None:
    path = tmp_path / name
    Image.fromarray(np.tile(RGB, (5, 5, 1))).save(path)
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * share)])
    with pytest.raises(HemalumError, match=r"damaged|truncated|not an image") as error:
        read_image(path)
    assert "\n" not in str(error.value)


@pytest.mark.fault
def test_huge_images_are_refused_before_decoding(tmp_path: Path) -> None:
    Image.fromarray(GRAY).save(tmp_path / "a.png")
    with pytest.raises(HemalumError, match="30 x 20 pixels is over the limit of 599; `max_pixels` lifts it"):
        read_image(tmp_path / "a.png", max_pixels=599)
    assert read_image(tmp_path / "a.png", max_pixels=600).shape == (20, 30, 3)
    assert read_image(tmp_path / "a.png", max_pixels=None).shape == (20, 30, 3)


def test_the_limit_of_pillow_is_left_as_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    Image.fromarray(GRAY).save(tmp_path / "a.png")
    read_image(tmp_path / "a.png")
    assert Image.MAX_IMAGE_PIXELS == 100


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_label_maps_keep_their_ids(tmp_path: Path, dtype: type[np.generic]) -> None:
    ids = np.array([[0, 7], [200, 7]], dtype)
    Image.fromarray(ids).save(tmp_path / "a.png")
    assert read_label_map(tmp_path / "a.png").tolist() == ids.tolist()
    assert read_label_map(tmp_path / "a.png").dtype == np.int32


@pytest.mark.parametrize("dtype", [np.uint16, np.uint32, np.int32, np.float32])
def test_tiff_label_maps(tmp_path: Path, dtype: type[np.generic]) -> None:
    ids = np.array([[0, 7], [60000, 7]], dtype)
    tifffile.imwrite(tmp_path / "a.tif", ids)
    assert read_label_map(tmp_path / "a.tif").tolist() == [[0, 7], [60000, 7]]


def test_palette_and_gray_rgb_label_maps(tmp_path: Path) -> None:
    ids = np.array([[0, 1], [2, 1]], np.uint8)
    picture = Image.fromarray(ids, mode="P")
    picture.putpalette([0, 0, 0, 255, 0, 0, 0, 255, 0])
    picture.save(tmp_path / "p.png")
    Image.fromarray(np.repeat(ids[..., None], 3, axis=2)).save(tmp_path / "rgb.png")
    assert read_label_map(tmp_path / "p.png").tolist() == ids.tolist()
    assert read_label_map(tmp_path / "rgb.png").tolist() == ids.tolist()


@pytest.mark.parametrize(
    ("pixels", "message"),
    [
        (RGB, "a label map has one channel, this one has colors; save ids as gray"),
        (GRAY + np.float32(0.5), "label map holds fractions; ids must be whole numbers"),
        (
            np.full((4, 4), np.nan, np.float32),
            "label map holds NaN or infinite values; ids must be whole numbers",
        ),
        (np.full((4, 4), -3, np.int32), "label ids run from -3 to -3; background is 0, and ids are positive"),
    ],
)
def test_label_faults(tmp_path: Path, pixels: np.ndarray, message: str) -> None:
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, pixels)
    with pytest.raises(HemalumError) as error:
        read_label_map(path)
    assert str(error.value) == f"{path}: {message}"


@pytest.mark.fault
def test_jpeg_labels_are_refused(tmp_path: Path) -> None:
    Image.fromarray(GRAY).save(tmp_path / "a.jpg")
    with pytest.raises(HemalumError, match="a label map cannot be a JPEG"):
        read_label_map(tmp_path / "a.jpg")
