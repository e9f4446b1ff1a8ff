"""Images are opened as they are, by rows where the file allows; whatever else is refused in one clear line."""

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from numpy.typing import NDArray
from PIL import Image

from hemalum.data.image import read_image
from hemalum.errors import HemalumError
from hemalum.slides.slide import Slide, open_slide


@pytest.fixture(scope="module")
def picture(make_blobs: Callable[..., NDArray[np.uint8]]) -> NDArray[np.uint8]:
    return make_blobs(157, 109, seed=7)


def read_in_bands(path: Path, band: int = 23) -> NDArray[np.uint8]:
    with open_slide(path) as source:
        rows = [source.rows(y, y + band) for y in range(0, source.shape[0], band)]
    return np.concatenate(rows)


TIFFS: dict[str, dict[str, Any]] = {
    "plain": {},
    "big": {"bigtiff": True},
    "big-endian": {"byteorder": ">"},
    "one compressed strip": {"compression": "zlib"},
    "strips": {"compression": "lzw", "rowsperstrip": 16},
    "tiles": {"compression": "zlib", "predictor": True, "tile": (64, 48)},
    "jpeg tiles": {"compression": "jpeg", "tile": (64, 64)},
    "uncompressed tiles": {"tile": (32, 32)},
}


@pytest.mark.parametrize("options", TIFFS.values(), ids=TIFFS)
def test_tiff_rows_equal_the_whole(tmp_path: Path, picture: NDArray[np.uint8], options: dict[str, Any]) -> None:
    path = tmp_path / "image.tif"
    tifffile.imwrite(path, picture, photometric="rgb", **options)
    assert np.array_equal(read_in_bands(path), tifffile.imread(path))
    with open_slide(path) as source:
        assert source.format == "TIFF"
        assert source.shape == (157, 109)
        assert source.mpp is None


def test_rows_do_not_need_the_rest_of_a_large_file(tmp_path: Path) -> None:
    """Reads two bands of a 300-megapixel TIFF of which only those bands exist as data on disk."""
    path = tmp_path / "large.tif"
    shape = (100_000, 1000, 3)
    tifffile.imwrite(path, shape=shape, dtype=np.uint8, photometric="rgb", rowsperstrip=100, contiguous=True)
    with open_slide(path) as source:
        assert source.shape == (100_000, 1000)
        assert source.rows(99_990, 100_010).shape == (10, 1000, 3)


@pytest.mark.parametrize("photometric", ["minisblack", "miniswhite"])
@pytest.mark.parametrize("options", [{}, {"tile": (32, 32)}, {"rowsperstrip": 5, "compression": "lzw"}])
def test_gray_and_16_bit_gray_equal_what_reading_whole_gives(
    tmp_path: Path, picture: NDArray[np.uint8], photometric: str, options: dict[str, Any]
) -> None:
    for pixels in (picture[..., 0], picture[..., 0].astype(np.uint16) * 17 + 900):
        path = tmp_path / "gray.tif"
        tifffile.imwrite(path, pixels, photometric=photometric, **options)
        assert np.array_equal(read_in_bands(path), read_image(path))


def test_16_bit_gray_is_stretched_and_said(
    tmp_path: Path, picture: NDArray[np.uint8], caplog: pytest.LogCaptureFixture
) -> None:
    pixels = np.linspace(1000, 3000, 40 * 50).reshape(40, 50).astype(np.uint16)
    tifffile.imwrite(tmp_path / "gray.tif", pixels, rowsperstrip=8)
    with caplog.at_level(logging.INFO):
        pixels = read_in_bands(tmp_path / "gray.tif")
    assert (pixels[0, 0, 0], pixels[-1, -1, 0]) == (0, 255)
    assert [r.message for r in caplog.records] == [
        f"{tmp_path / 'gray.tif'}: 16-bit gray 1001..2998 stretched to 0..255"
    ]


@pytest.mark.parametrize("name", ["image.png", "image.tif"])
def test_transparent_pixels_become_white_and_it_is_said_once(
    tmp_path: Path, picture: NDArray[np.uint8], name: str, caplog: pytest.LogCaptureFixture
) -> None:
    alpha = np.full((*picture.shape[:2], 1), 255, np.uint8)
    alpha[:40] = 0
    pixels = np.concatenate([picture, alpha], axis=2)
    path = tmp_path / name
    if name.endswith("png"):
        Image.fromarray(pixels).save(path)
    else:
        tifffile.imwrite(path, pixels, photometric="rgb", extrasamples=["unassalpha"], tile=(32, 32))
    with caplog.at_level(logging.INFO):
        read = read_in_bands(path)
    assert (read[:40] == 255).all()
    assert np.array_equal(read[40:], picture[40:])
    assert [r.message for r in caplog.records] == [f"{path}: transparent pixels laid over white"]


def test_png_and_jpeg(tmp_path: Path, picture: NDArray[np.uint8]) -> None:
    Image.fromarray(picture).save(tmp_path / "a.png")
    Image.fromarray(picture).save(tmp_path / "a.jpg", quality=95)
    assert np.array_equal(read_in_bands(tmp_path / "a.png"), picture)
    assert np.array_equal(read_in_bands(tmp_path / "a.jpg"), np.asarray(Image.open(tmp_path / "a.jpg")))


@pytest.mark.fault
def test_arrays(picture: NDArray[np.uint8]) -> None:
    assert np.array_equal(Slide.of(picture).rows(3, 9), picture[3:9])
    assert Slide.of(picture[..., 0]).rows(0, 5).shape == (5, 109, 3)
    assert np.array_equal(Slide.of(picture / 255).rows(3, 9), picture[3:9])
    with pytest.raises(HemalumError, match=r"^image: complex128 pixels are not supported; save the image"):
        Slide.of(picture * 1j)
    with pytest.raises(HemalumError, match="image: pixels have shape"):
        Slide.of(np.zeros((2, 3, 4, 5), np.uint8))


SCALES: dict[str, tuple[dict[str, Any], float | None]] = {
    "centimetre": ({"resolution": (40000, 40000), "resolutionunit": "CENTIMETER"}, 0.25),
    "inch": ({"resolution": (50800, 50800), "resolutionunit": "INCH"}, 0.5),
    "72 dpi": ({"resolution": (72, 72), "resolutionunit": "INCH"}, None),
    "300 dpi": ({"resolution": (300, 300), "resolutionunit": "INCH"}, None),
    "no unit": ({"resolution": (4, 4)}, None),
    "imagej micron": ({"imagej": True, "resolution": (4, 4), "metadata": {"unit": "micron"}}, 0.25),
    "imagej pixel": ({"imagej": True, "resolution": (4, 4), "metadata": {"unit": "pixel"}}, None),
}


@pytest.mark.parametrize(("options", "mpp"), SCALES.values(), ids=SCALES)
def test_scale_from_tiff_tags(
    tmp_path: Path, picture: NDArray[np.uint8], options: dict[str, Any], mpp: float | None
) -> None:
    if "imagej" not in options:
        options = {"photometric": "rgb"} | options
    tifffile.imwrite(tmp_path / "image.tif", picture, **options)
    with open_slide(tmp_path / "image.tif") as source:
        assert source.mpp == (None if mpp is None else pytest.approx(mpp, rel=1e-4))


@pytest.mark.parametrize(
    ("metadata", "mpp"),
    [
        ({"PhysicalSizeX": 0.5, "PhysicalSizeY": 0.5}, 0.5),
        ({"PhysicalSizeX": 220, "PhysicalSizeXUnit": "nm", "PhysicalSizeY": 220, "PhysicalSizeYUnit": "nm"}, 0.22),
        ({"PhysicalSizeX": 0.0005, "PhysicalSizeXUnit": "mm"}, 0.5),
        ({}, None),
    ],
)
def test_scale_from_ome(
    tmp_path: Path, picture: NDArray[np.uint8], metadata: dict[str, Any], mpp: float | None
) -> None:
    path = tmp_path / "image.ome.tif"
    tifffile.imwrite(path, picture, photometric="rgb", tile=(64, 64), metadata={"axes": "YXS"} | metadata)
    with open_slide(path) as source:
        assert source.mpp == (None if mpp is None else pytest.approx(mpp))
    assert np.array_equal(read_in_bands(path), picture)


def test_scale_from_png(tmp_path: Path, picture: NDArray[np.uint8]) -> None:
    for dpi, mpp in ((50800, 0.5), (96, None)):
        Image.fromarray(picture).save(tmp_path / "image.png", dpi=(dpi, dpi))
        with open_slide(tmp_path / "image.png") as source:
            assert source.mpp == (None if mpp is None else pytest.approx(mpp, rel=1e-3))


def bad_files(folder: Path) -> dict[str, tuple[Path, str]]:
    """Each kind of bad input: the file and the end of its one line."""
    rng = np.random.default_rng(0)
    color = rng.integers(0, 256, (64, 64, 3), dtype=np.uint8)
    files: dict[str, tuple[Path, str]] = {}

    def add(kind: str, name: str, message: str) -> Path:
        files[kind] = (folder / name, message)
        return folder / name

    add("missing", "none.png", "no such file")
    add(
        "text", "text.png", "not a slide or an image that can be read (docs/how-to/slides.md lists the formats)"
    ).write_text("no image")
    add("empty", "empty.png", "the file is empty (0 bytes)").write_bytes(b"")
    path = add("truncated png", "short.png", "image is damaged or truncated (")
    Image.fromarray(color).save(path)
    path.write_bytes(path.read_bytes()[:3000])
    path = add("truncated tiles", "short.tif", "the file is truncated: 1 of 4 tiles of level 0 lie behind its end (")
    tifffile.imwrite(path, color, photometric="rgb", tile=(32, 32))
    path.write_bytes(path.read_bytes()[:-2000])
    small = "px; at least 16 x 16 px are needed"
    Image.fromarray(color[:1, :1]).save(add("1 x 1", "one.png", f"image is 1 x 1 {small}"))
    tifffile.imwrite(add("1 x 1 tiff", "one.tif", f"image is 1 x 1 {small}"), color[:1, :1], photometric="rgb")
    Image.fromarray(color[:15]).save(add("15 rows", "low.png", f"image is 64 x 15 {small}"))
    lab = add("lab", "lab.tif", "CIELAB pixels are not supported; save the image as 8-bit RGB or gray")
    tifffile.imwrite(lab, color, photometric="cielab")
    kind = "complex64 pixels are not supported; save the image with 8 bits per channel"
    tifffile.imwrite(add("complex", "complex.tif", kind), color[..., 0].astype(np.complex64))
    add("folder", "folder", "a folder that is neither OME-Zarr nor a DICOM slide").mkdir()
    return files


CASES = (
    "missing", "text", "empty", "truncated png", "truncated tiles", "1 x 1", "1 x 1 tiff", "15 rows", "lab",
    "complex", "folder",
)  # fmt: skip


@pytest.mark.parametrize("kind", CASES)
def test_bad_input_is_refused_in_one_line(tmp_path: Path, kind: str) -> None:
    path, message = bad_files(tmp_path)[kind]
    with pytest.raises(HemalumError) as caught:
        read_in_bands(path)
    line = str(caught.value)
    assert "\n" not in line
    assert line.startswith(f"{path}: {message}") if message.endswith("(") else line == f"{path}: {message}"


@pytest.mark.fault
def test_the_size_limit_can_be_moved(tmp_path: Path, picture: NDArray[np.uint8]) -> None:
    path = tmp_path / "image.png"
    Image.fromarray(picture).save(path)
    with pytest.raises(HemalumError, match=r"109 x 157 pixels is over the limit of 17,000"):
        open_slide(path, max_pixels=17_000)
    open_slide(path, max_pixels=17_113).close()


@pytest.mark.fault
def test_huge_dimensions_are_refused_before_anything_is_decoded(tmp_path: Path) -> None:
    """A PNG header that claims 40,000 x 40,000 px, with no pixels behind it."""
    Image.fromarray(np.zeros((32, 32, 3), np.uint8)).save(tmp_path / "bomb.png")
    data = bytearray((tmp_path / "bomb.png").read_bytes())
    data[16:24] = (40_000).to_bytes(4, "big") * 2
    import zlib

    data[29:33] = zlib.crc32(data[12:29]).to_bytes(4, "big")
    (tmp_path / "bomb.png").write_bytes(bytes(data))
    with pytest.raises(HemalumError, match=r"40000 x 40000 pixels is over the limit of 250,000,000"):
        open_slide(tmp_path / "bomb.png")
