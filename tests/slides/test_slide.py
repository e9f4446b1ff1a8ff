"""A slide gives the pixels of its file, at any scale and in any window, whatever the format."""

import pickle
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import tifffile
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image

import hemalum
from builders.slides import (
    draw_picture,
    levels_of,
    save_ome_pyramid,
    save_ome_zarr,
    save_pyramid,
    save_scn,
    save_svs,
)
from hemalum.errors import HemalumError
from hemalum.slides import Resampler, Slide, open_slide
from hemalum.slides.readers.openslide import OpenSlideReader

Save = Callable[[Path, NDArray[np.uint8]], Path]
PICTURE = draw_picture(333, 401)

FORMATS: dict[str, tuple[str, Save]] = {
    "TIFF": ("a.tif", save_pyramid),
    "OME-TIFF": ("a.ome.tif", save_ome_pyramid),
    "OME-TIFF, planar": ("a.ome.tif", lambda path, picture: save_ome_pyramid(path, picture, planar=True)),
    "OME-Zarr, v3": ("a.zarr", save_ome_zarr),
    "OME-Zarr, v2": ("a.zarr", lambda path, picture: save_ome_zarr(path, picture, version="0.4")),
}


@pytest.mark.parametrize(("name", "save"), FORMATS.values(), ids=FORMATS)
def test_each_lossless_format_gives_the_pixels_of_its_levels(
    tmp_path: Path, name: str, save: Save, request: pytest.FixtureRequest
) -> None:
    with open_slide(save(tmp_path / name, PICTURE)) as slide:
        assert slide.format == request.node.callspec.id.partition(",")[0]
        assert (slide.shape, slide.mpp) == ((333, 401), pytest.approx(0.5))
        assert [level.shape for level in slide.levels] == [(333, 401), (166, 200), (83, 100)]
        assert [level.downsample for level in slide.levels] == pytest.approx([1, 2, 4], rel=0.01)
        assert np.array_equal(slide.read(0, 0, 401, 333), PICTURE)
        assert np.array_equal(slide.read(130, 61, 77, 140), PICTURE[61:201, 130:207])
        for pixels in levels_of(PICTURE, 3)[1:]:
            height, width = pixels.shape[:2]
            assert np.array_equal(slide.read_scaled((height, width), slice(0, height), slice(0, width)), pixels)
        assert slide.broken == []


def test_a_slide_from_a_scanner_equals_what_openslide_shows(tmp_path: Path) -> None:
    import openslide

    path = save_svs(tmp_path / "a.svs", PICTURE)
    reference = openslide.OpenSlide(str(path))
    with open_slide(path) as slide:
        assert (slide.format, slide.mpp) == ("Aperio SVS", 0.499)
        assert [level.shape[::-1] for level in slide.levels] == list(reference.level_dimensions)
        expected = np.asarray(reference.read_region((0, 0), 0, reference.dimensions).convert("RGB"))
        assert np.array_equal(slide.read(0, 0, 401, 333), expected)
        expected = np.asarray(reference.read_region((0, 0), 1, reference.level_dimensions[1]).convert("RGB"))
        assert np.array_equal(slide.read_scaled((166, 200), slice(0, 166), slice(0, 200)), expected)


def test_coordinates_are_relative_to_the_bounds(tmp_path: Path) -> None:
    picture = PICTURE[:332, :400]
    with open_slide(save_scn(tmp_path / "a.scn", picture, corner=(102, 60))) as slide:
        assert (slide.format, slide.shape, slide.mpp) == ("Leica SCN", (332, 400), 0.5)
        difference = slide.read(37, 20, 300, 300).astype(int) - picture[20:320, 37:337]
        assert np.abs(difference).mean() < 3  # JPEG; one px aside it is 10 and more
        half = slide.read_scaled((166, 200), slice(0, 166), slice(0, 200)).astype(int)
        assert np.abs(half - levels_of(picture, 2)[1]).mean() < 10  # colors of JPEG are halved; 19 one px aside
        assert (slide.read(0, 0, 400, 332).max(axis=2) < 255).any(axis=1).all()


@pytest.fixture(scope="module")
def slides(
    tmp_path_factory: pytest.TempPathFactory,
) -> dict[str, tuple[Slide, dict[tuple[int, int], NDArray[np.uint8]]]]:
    folder = tmp_path_factory.mktemp("slides")
    picture = draw_picture(603, 407, seed=3)
    opened = {
        "pyramid": open_slide(save_pyramid(folder / "a.tif", picture)),
        "bounds": open_slide(save_scn(folder / "a.scn", picture, corner=(33, 11))),
        "array": Slide.of(picture),
    }
    # 603 px halved are 301: a level whose downsample is no whole number, which OpenSlide draws between pixels
    path = save_svs(folder / "a.svs", picture)
    opened["openslide"] = Slide(OpenSlideReader(path), path=path, name="openslide")
    return {name: (slide, {}) for name, slide in opened.items()}


@pytest.mark.parametrize("name", ["pyramid", "bounds", "array", "openslide"])
@given(data=st.data())
def test_any_window_has_the_pixels_of_the_whole(
    slides: dict[str, tuple[Slide, dict[tuple[int, int], NDArray[np.uint8]]]], name: str, data: st.DataObject
) -> None:
    slide, wholes = slides[name]
    shape = data.draw(st.sampled_from([(603, 407), (301, 203), (290, 200), (700, 450), (75, 50), (411, 123), (1, 1)]))
    if shape not in wholes:
        wholes[shape] = slide.read_scaled(shape, slice(0, shape[0]), slice(0, shape[1]))
    y, x = (data.draw(st.integers(0, side - 1)) for side in shape)
    height, width = (data.draw(st.integers(1, side - start)) for side, start in zip(shape, (y, x), strict=True))
    window = slide.read_scaled(shape, slice(y, y + height), slice(x, x + width))
    assert np.array_equal(window, wholes[shape][y : y + height, x : x + width])


def test_rows_read_by_bands_are_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    slide = Slide.of(PICTURE)
    at_once = slide.thumbnail(100)
    monkeypatch.setattr("hemalum.slides.slide.BAND", 5000)
    assert np.array_equal(slide.thumbnail(100), at_once)


def test_scaled_pixels_come_from_the_nearest_finer_level(tmp_path: Path) -> None:
    slide = open_slide(save_pyramid(tmp_path / "a.tif", PICTURE))
    # a level may be coarser by what rounding made of it: 333 px halved are 166.5
    sizes = [(333, 401), (500, 600), (200, 241), (167, 201), (166, 200), (150, 180), (84, 101), (83, 100), (30, 40)]
    assert [slide.level_for(size) for size in sizes] == [0, 0, 0, 1, 1, 1, 1, 2, 2]
    expected = Resampler((166, 200), (150, 180)).rows(levels_of(PICTURE, 2)[1], 0, 150)
    assert np.array_equal(slide.read_scaled((150, 180), slice(0, 150), slice(0, 180)), expected)


@pytest.mark.fault
def test_reading_at_a_scale(tmp_path: Path) -> None:
    slide = open_slide(save_pyramid(tmp_path / "a.tif", PICTURE, mpp=0.5))
    half = slide.read(0, 0, 401, 333, mpp=1.0)
    assert np.array_equal(half, slide.read_scaled((166, 200), slice(0, 166), slice(0, 200)))
    # neighbors meet without a seam
    parts = [slide.read(x, 0, width, 333, mpp=1.0) for x, width in ((0, 151), (151, 250))]
    assert np.array_equal(np.concatenate(parts, axis=1), half)
    assert slide.read(3, 3, 1, 1, mpp=9).shape == (1, 1, 3)
    assert slide.read(0, 0, 100, 50, mpp=0.25).shape == (100, 200, 3)
    with pytest.raises(
        HemalumError, match="a window of 10 x 10 px at x 395, y 0 does not lie in the slide's 401 x 333"
    ):
        slide.read(395, 0, 10, 10)
    with pytest.raises(HemalumError, match="rows 0 to 10 and columns 5 to 5 do not lie in 10 x 10 px"):
        slide.read_scaled((10, 10), slice(0, 10), slice(5, 5))
    unknown = Slide.of(PICTURE)
    with pytest.raises(HemalumError, match=r"image: the file states no scale; open it with mpp=…, µm per px"):
        unknown.read(0, 0, 10, 10, mpp=1.0)
    assert Slide.of(PICTURE, mpp=0.5).read(0, 0, 401, 333, mpp=1.0).shape == (166, 200, 3)


def test_a_thumbnail_is_the_slide(tmp_path: Path) -> None:
    slide = open_slide(save_pyramid(tmp_path / "a.tif", PICTURE))
    thumbnail = slide.thumbnail(100)
    assert thumbnail.shape == (83, 100, 3)
    assert np.array_equal(thumbnail, levels_of(PICTURE, 3)[2])
    assert slide.thumbnail(5000).shape == (333, 401, 3)


@pytest.mark.parametrize("name", ["a.png", "a.tif", "a.jpg"])
def test_plain_images_are_slides_of_one_level(tmp_path: Path, name: str) -> None:
    Image.fromarray(PICTURE).save(tmp_path / name)
    slide = hemalum.open_slide(tmp_path / name)
    assert (slide.shape, slide.mpp, len(slide.levels)) == ((333, 401), None, 1)
    assert np.array_equal(slide.read(0, 0, 401, 333), np.asarray(Image.open(tmp_path / name)))


@pytest.mark.parametrize("options", [{}, {"rowsperstrip": 7}, {"tile": (32, 48), "compression": "lzw"}])
@pytest.mark.parametrize("photometric", ["minisblack", "miniswhite"])
@pytest.mark.parametrize("deep", [False, True])
def test_gray_equals_what_reading_the_image_gives(
    tmp_path: Path, options: dict[str, object], photometric: str, deep: bool
) -> None:
    from hemalum.data.image import read_image

    pixels = PICTURE[..., 0].astype(np.uint16) * 17 + 900 if deep else PICTURE[..., 0]
    tifffile.imwrite(tmp_path / "a.tif", pixels, photometric=photometric, **options)  # type: ignore[arg-type]
    with open_slide(tmp_path / "a.tif") as slide:
        assert slide.format == "TIFF"
        assert np.array_equal(slide.read(11, 5, 380, 300), read_image(tmp_path / "a.tif")[5:305, 11:391])


def test_rows_of_a_large_file_do_not_need_the_rest(tmp_path: Path) -> None:
    """300 megapixels of which only a few rows exist as data on disk."""
    path = tmp_path / "large.tif"
    shape = (100_000, 1000, 3)
    tifffile.imwrite(path, shape=shape, dtype=np.uint8, photometric="rgb", rowsperstrip=100, contiguous=True)
    assert open_slide(path).read(0, 99_990, 1000, 10).shape == (10, 1000, 3)


def test_what_the_user_says_comes_before_what_the_file_says(tmp_path: Path) -> None:
    path = save_pyramid(tmp_path / "a.tif", PICTURE, mpp=0.5)
    assert open_slide(path, mpp=0.23).mpp == 0.23
    assert open_slide(save_pyramid(tmp_path / "b.tif", PICTURE, mpp=None)).mpp is None
    # 72 dpi is what programs write when they know nothing
    assert open_slide(save_pyramid(tmp_path / "c.tif", PICTURE, mpp=352.8)).mpp is None
    assert open_slide(save_pyramid(tmp_path / "d.tif", PICTURE, mpp=(0.5, 0.504))).mpp == pytest.approx(
        0.502, rel=1e-3
    )
    assert open_slide(save_ome_zarr(tmp_path / "e.zarr", PICTURE, mpp=None)).mpp is None


@pytest.mark.parametrize("name", ["a.tif", "a.scn", "a.zarr", "array"])
def test_a_slide_goes_to_another_process(tmp_path: Path, name: str) -> None:
    saves: dict[str, Save] = {"a.tif": save_pyramid, "a.scn": save_scn, "a.zarr": save_ome_zarr}
    slide = Slide.of(PICTURE) if name == "array" else open_slide(saves[name](tmp_path / name, PICTURE))
    pickled = pickle.dumps(slide)
    assert name == "array" or len(pickled) < 5000
    copy = pickle.loads(pickled)
    assert (copy.shape, copy.mpp, copy.levels, copy.fingerprint) == (
        slide.shape, slide.mpp, slide.levels, slide.fingerprint,
    )  # fmt: skip
    assert np.array_equal(copy.read(50, 40, 200, 100), slide.read(50, 40, 200, 100))


@pytest.mark.fault
def test_a_file_that_changes_under_a_slide_is_noticed(tmp_path: Path) -> None:
    slide = open_slide(save_pyramid(tmp_path / "a.tif", PICTURE))
    slide.close()
    assert np.array_equal(slide.read(0, 0, 9, 9), PICTURE[:9, :9])  # opened again
    slide.close()
    save_pyramid(tmp_path / "a.tif", PICTURE[:200])
    with pytest.raises(HemalumError, match="the file has changed since it was opened; start again"):
        slide.read(0, 0, 9, 9)


@pytest.mark.parametrize("name", ["a.tif", "a.scn"])
def test_threads_read_at_once(tmp_path: Path, name: str) -> None:
    slide = open_slide((save_scn if name == "a.scn" else save_pyramid)(tmp_path / name, PICTURE))
    expected = slide.read(0, 0, 401, 333)
    windows = [(x, y) for x in range(0, 350, 30) for y in range(0, 280, 30)]
    with ThreadPoolExecutor(8) as pool:
        for (x, y), pixels in zip(windows, pool.map(lambda at: slide.read(*at, 50, 50), windows), strict=True):
            assert np.array_equal(pixels, expected[y : y + 50, x : x + 50])


def test_a_fingerprint_is_that_of_the_pixels_not_of_the_path(tmp_path: Path) -> None:
    one = open_slide(save_pyramid(tmp_path / "a.tif", PICTURE)).fingerprint
    assert len(one) == 64
    assert open_slide((tmp_path / "a.tif").rename(tmp_path / "b.tif")).fingerprint == one
    changed = PICTURE.copy()
    changed[100, 100] ^= 1
    assert open_slide(save_pyramid(tmp_path / "c.tif", changed)).fingerprint != one
    zarr = open_slide(save_ome_zarr(tmp_path / "a.zarr", PICTURE)).fingerprint
    assert open_slide(save_ome_zarr(tmp_path / "b.zarr", PICTURE)).fingerprint == zarr
    assert open_slide(save_ome_zarr(tmp_path / "c.zarr", PICTURE[::-1])).fingerprint != zarr
    assert Slide.of(PICTURE).fingerprint != Slide.of(changed).fingerprint


@pytest.mark.parametrize("name", ["CMU-1-Small-Region.svs", "tcga-cr-7395-01a-01-ts1.svs"])
def test_real_slides_equal_what_openslide_shows(real_data: Path, name: str) -> None:
    import openslide

    path = real_data / "slides" / name
    if not path.is_file():
        pytest.skip(f"no real slide at {path}")
    reference = openslide.OpenSlide(str(path))
    with open_slide(path) as slide:
        assert slide.mpp == (0.499 if name.startswith("CMU") else None)
        assert [level.shape[::-1] for level in slide.levels] == list(reference.level_dimensions)
        for x, y in ((0, 0), (1001, 777), (1700, 2000)):
            expected = np.asarray(reference.read_region((x, y), 0, (400, 300)).convert("RGB"))
            assert np.array_equal(slide.read(x, y, 400, 300), expected)


@pytest.mark.parametrize("name", ["sm_image.dcm", "sm_image_jpegls.dcm"])
def test_real_dicom_slides(real_data: Path, name: str) -> None:
    path = real_data / "formats" / "dicom" / name
    if not path.is_file():
        pytest.skip(f"no real DICOM slide at {path}")
    pytest.importorskip("wsidicom")
    with open_slide(path) as slide:
        assert (slide.format, slide.shape, slide.mpp) == ("DICOM", (50, 50), pytest.approx(0.499))
        pixels = slide.read(0, 0, 50, 50)
        assert np.array_equal(slide.read(13, 7, 20, 30), pixels[7:37, 13:33])
        assert pixels.min() < 200 < pixels.max()
