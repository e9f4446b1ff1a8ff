"""A valid slide, one small change, one line: what is wrong with it and what to do. Tiles that fail come as white."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile

from builders.slides import (
    draw_picture,
    overwrite,
    save_ome_pyramid,
    save_ome_zarr,
    save_pyramid,
    save_scn,
    save_svs,
    tile_bytes,
)
from hemalum.errors import HemalumError
from hemalum.slides import BrokenTile, Slide, open_slide
from hemalum.slides.readers.openslide import OpenSlideReader
from hemalum.slides.readers.reader import consistent_levels

PICTURE = draw_picture(250, 300)


def refuse(path: Path, message: str) -> None:
    """Opening the path ends in this line."""
    with pytest.raises(HemalumError) as caught:
        open_slide(path).read(0, 0, 16, 16)
    assert str(caught.value) == f"{path}: {message}"


SAVES: dict[str, Callable[[Path, Any], Path]] = {
    "tiff": lambda folder, mpp: save_pyramid(folder / "a.tif", PICTURE, mpp=mpp),
    "ome": lambda folder, mpp: save_ome_pyramid(folder / "a.ome.tif", PICTURE, mpp=mpp),
    "zarr": lambda folder, mpp: save_ome_zarr(folder / "a.zarr", PICTURE, mpp=mpp),
    "svs": lambda folder, mpp: save_svs(folder / "a.svs", PICTURE, stated=f"MPP = {mpp}"),
}


@pytest.mark.parametrize("kind", ["tiff", "ome"])
def test_pixels_that_are_not_square(tmp_path: Path, kind: str) -> None:
    path = SAVES[kind](tmp_path, (0.25, 0.5))
    refuse(
        path,
        "the file states pixels that are not square, 0.25 µm in x and 0.5 µm in y; if that is an error of the file, "
        "give the true scale with `mpp`",
    )
    assert open_slide(path, mpp=0.25).mpp == 0.25


@pytest.mark.fault
@pytest.mark.parametrize("mpp", [0.02, 10, 3333])
@pytest.mark.parametrize("kind", ["tiff", "ome", "zarr", "svs"])
def test_scales_that_cannot_be(tmp_path: Path, kind: str, mpp: float, caplog: pytest.LogCaptureFixture) -> None:
    path = SAVES[kind](tmp_path, mpp)
    with caplog.at_level("INFO", logger="hemalum"), open_slide(path) as slide:
        assert slide.mpp is None
    doubt = f"states {mpp:g} µm per px, which no microscope has"
    assert slide.scale_doubt == doubt
    assert f"{path}: the file {doubt}; it is not taken for its scale" in [record.message for record in caplog.records]
    assert open_slide(path, mpp=0.25).mpp == 0.25
    with pytest.raises(
        HemalumError, match=re.escape("mpp 10 µm per px; a slide has more than 0.02 and less than 10")
    ):
        open_slide(path, mpp=10)


def test_no_scale(tmp_path: Path) -> None:
    for stated in ("Filename = x", "MPP = 0", "MPP = unknown"):
        assert open_slide(save_svs(tmp_path / "a.svs", PICTURE, stated=stated)).mpp is None


def test_not_a_slide(tmp_path: Path) -> None:
    unknown = "not a slide or an image that can be read (docs/how-to/slides.md lists the formats)"
    path = tmp_path / "a.svs"
    refuse(path, "no such file")
    path.write_bytes(b"")
    refuse(path, "the file is empty (0 bytes)")
    path.write_text("no slide")
    refuse(path, unknown)
    (tmp_path / "folder").mkdir()
    refuse(tmp_path / "folder", "a folder that is neither OME-Zarr nor a DICOM slide")
    small = tifffile.imwrite(tmp_path / "small.tif", PICTURE[:15], photometric="rgb")
    assert small is None
    refuse(tmp_path / "small.tif", "image is 300 x 15 px; at least 16 x 16 px are needed")
    tifffile.imwrite(tmp_path / "lab.tif", PICTURE, photometric="cielab", tile=(64, 64))
    refuse(tmp_path / "lab.tif", "CIELAB pixels are not supported; save the image as 8-bit RGB or gray")


@pytest.mark.fault
def test_zero_levels(tmp_path: Path) -> None:
    path = save_pyramid(tmp_path / "a.tif", PICTURE)
    header = path.read_bytes()[:8]
    (tmp_path / "none.tif").write_bytes(header[:4] + bytes(4))
    refuse(tmp_path / "none.tif", "the TIFF holds no image")
    with pytest.raises(HemalumError, match="x: the slide has no levels with pixels; scan or export it again"):
        consistent_levels([], "x")
    zarr = save_ome_zarr(tmp_path / "a.zarr", PICTURE)
    change_json(zarr / "zarr.json", lambda ome: ome["multiscales"][0].update(datasets=[]))
    refuse(zarr, "the slide has no levels with pixels; scan or export it again")


def test_levels_that_show_something_else_are_left_out_and_named(caplog: pytest.LogCaptureFixture) -> None:
    shapes = [(1000, 2000), (500, 1000), (400, 400), (250, 499), (250, 499), (300, 600), (1, 2)]
    assert consistent_levels(shapes, "x") == [0, 1, 3, 6]
    assert [record.message for record in caplog.records] == [
        "x: level 2 has 400 x 400 px, another field; left out",
        "x: level 4 has 499 x 250 px; left out",
        "x: level 5 has 600 x 300 px; left out",
    ]


@pytest.mark.parametrize("kind", ["tiff", "svs"])
@pytest.mark.parametrize("fault", ["zeros", "noise", "missing"])
def test_a_corrupt_tile_is_white_named_and_counted(
    tmp_path: Path, kind: str, fault: str, caplog: pytest.LogCaptureFixture
) -> None:
    path = SAVES[kind](tmp_path, 0.5)
    sound = open_slide(path).read(0, 0, 300, 250)
    if fault == "missing":
        with tifffile.TiffFile(path, mode="r+") as tiff:
            page: Any = tiff.pages[0]
            counts = list(page.databytecounts)
            page.tags["TileByteCounts"].overwrite([*counts[:7], 0, *counts[8:]])
    else:
        offset, size = tile_bytes(path, 0, 7)
        overwrite(path, offset, bytes(size) if fault == "zeros" else np.random.default_rng(0).bytes(size))
    with open_slide(path) as slide:
        pixels = slide.read(0, 0, 300, 250)
        expected = sound.copy()
        expected[64:128, 128:192] = 255  # tile 7 of 5 in a row
        assert np.array_equal(pixels, expected)
        assert np.array_equal(slide.read(150, 100, 60, 60), expected[100:160, 150:210])
        (tile,) = slide.broken
        assert tile == BrokenTile(0, 128, 64, 64, 64, tile.reason)
        if fault == "missing":
            assert tile.reason == "the file holds none"
        line = f"{path}: the tile of level 0 at x 128, y 64 cannot be read ({tile.reason}): white"
        assert [record.message for record in caplog.records] == [line]
    assert len(slide.broken) == 1  # also when it is closed


def test_openslide_goes_on_after_a_corrupt_tile(tmp_path: Path) -> None:
    path = save_svs(tmp_path / "a.svs", PICTURE, levels=2)
    sound = Slide(OpenSlideReader(path), path=path, name="a").read(0, 0, 300, 250)
    for index in (7, 13):
        offset, size = tile_bytes(path, 0, index)
        overwrite(path, offset, bytes(size))
    slide = Slide(OpenSlideReader(path), path=path, name="a")
    expected = sound.copy()
    expected[64:128, 128:192] = 255
    expected[128:192, 192:256] = 255
    assert np.array_equal(slide.read(0, 0, 300, 250), expected)
    assert np.array_equal(slide.read(120, 60, 20, 20), expected[60:80, 120:140])
    assert [(tile.x, tile.y, tile.width, tile.height) for tile in slide.broken] == [
        (128, 64, 64, 64), (192, 128, 64, 64),
    ]  # fmt: skip
    assert "Not a JPEG file" in slide.broken[0].reason


def test_a_corrupt_tile_where_tiles_lie_on_no_grid(tmp_path: Path) -> None:
    """A cell of 256 px is white then, whatever the window: never more, never another one."""
    picture = draw_picture(700, 800)
    path = save_scn(tmp_path / "a.scn", picture, levels=1, corner=(100, 60))
    sound = open_slide(path).read(0, 0, 800, 700)
    with tifffile.TiffFile(path) as tiff:
        page: Any = tiff.pages[0]
        offset, size = page.dataoffsets[4 * 13 + 5], page.databytecounts[4 * 13 + 5]  # x 320..384, y 256..320
    overwrite(path, offset, bytes(size))
    expected = sound.copy()
    expected[256:512, 256:512] = 255
    for windows in ([(0, 0, 800, 700)], [(x, y, 100, 100) for y in range(0, 700, 100) for x in range(0, 800, 100)]):
        slide = open_slide(path)
        for x, y, width, height in windows:
            assert np.array_equal(slide.read(x, y, width, height), expected[y : y + height, x : x + width])
        assert [(tile.x, tile.y) for tile in slide.broken] == [(256, 256)]


def test_a_corrupt_chunk(tmp_path: Path) -> None:
    path = save_ome_zarr(tmp_path / "a.zarr", PICTURE)
    (path / "0" / "c" / "0" / "1" / "2").write_bytes(b"no chunk")
    expected = PICTURE.copy()
    expected[64:128, 128:192] = 255
    slide = open_slide(path)
    assert np.array_equal(slide.read(3, 5, 290, 240), expected[5:245, 3:293])
    assert [(tile.x, tile.y, tile.width, tile.height) for tile in slide.broken] == [(128, 64, 64, 64)]


def test_many_broken_tiles_are_named_by_a_few_lines(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = save_pyramid(tmp_path / "a.tif", PICTURE)
    for index in range(12):
        offset, size = tile_bytes(path, 0, index)
        overwrite(path, offset, bytes(size))
    slide = open_slide(path)
    slide.read(0, 0, 300, 250)
    assert len(slide.broken) == 12
    assert len(caplog.records) == 6
    assert caplog.records[-1].message == f"{path}: more tiles cannot be read; they are counted"


@pytest.mark.parametrize("kind", ["tiff", "big", "svs", "ome", "scn", "strips", "png"])
def test_a_truncated_file_is_refused_or_right(tmp_path: Path, kind: str) -> None:
    """Every 97th length, and all of the last bytes: an error, the pixels of the file, or white that is counted."""
    picture = draw_picture(150, 170)
    path = tmp_path / f"a.{kind}"
    if kind == "svs":
        save_svs(path, picture)
    elif kind == "ome":
        path = save_ome_pyramid(tmp_path / "a.ome.tif", picture)
    elif kind == "scn":
        save_scn(path, picture)
    elif kind == "strips":
        tifffile.imwrite(path, picture, photometric="rgb", rowsperstrip=16)
    elif kind == "png":
        from PIL import Image

        Image.fromarray(picture).save(path)
    else:
        (save_pyramid if kind == "tiff" else save_big)(path, picture)
    data = path.read_bytes()
    with open_slide(path) as slide:
        levels, shape, mpp = slide.levels, slide.shape, slide.mpp
        sound = [slide.read_scaled(level.shape, *(slice(0, side) for side in level.shape)) for level in levels]
    refused: list[str] = []
    for length in [*range(0, len(data), 97), *range(len(data) - 12, len(data))]:
        path.write_bytes(data[:length])
        try:
            with open_slide(path) as slide:
                pixels = [
                    slide.read_scaled(level.shape, *(slice(0, side) for side in level.shape)) for level in levels
                ]
                assert (slide.levels, slide.shape, slide.mpp) == (levels, shape, mpp), length
                if not slide.broken:
                    assert all(map(np.array_equal, pixels, sound)), length
        except HemalumError as error:
            refused.append(str(error))
    assert all(line.startswith(f"{path}: ") and "\n" not in line for line in refused)
    assert len(refused) > 0.9 * len(data) / 97 or kind == "scn"


def save_big(path: Path, picture: Any) -> None:
    """BigTIFF with the levels after one another."""
    with tifffile.TiffWriter(path, bigtiff=True) as tiff:
        for number in range(2):
            tiff.write(picture[:: number + 1, :: number + 1], subfiletype=number, tile=(64, 64), photometric="rgb")


def test_a_truncated_file_says_so(tmp_path: Path) -> None:
    path = save_pyramid(tmp_path / "a.tif", PICTURE)
    offset, size = tile_bytes(path, 2, 1)
    path.write_bytes(path.read_bytes()[: offset + size - 1])
    end = f"its end ({offset + size - 1:,} bytes); copy it again"
    refuse(path, f"the file is truncated: 1 of 2 tiles of level 2 lie behind {end}")


def change_json(path: Path, change: Callable[[Any], object]) -> None:
    content = json.loads(path.read_text())
    change(content["attributes"]["ome"] if "ome" in content.get("attributes", {}) else content)
    path.write_text(json.dumps(content))


ZARR_FAULTS: dict[str, tuple[str, Callable[[Any], object], str]] = {
    "no image": ("zarr.json", lambda ome: ome.pop("multiscales"),
        "a Zarr folder without an OME-Zarr image (multiscales); give the image's own folder"),
    "version": ("zarr.json", lambda ome: ome.update(version="0.1"), "OME-Zarr of version 0.1; 0.4 and 0.5 are read"),
    "axes": ("zarr.json", lambda ome: ome["multiscales"][0].pop("axes"),
        "OME-Zarr without axes; write it as version 0.4 or 0.5"),
    "axis": ("zarr.json", lambda ome: ome["multiscales"][0]["axes"][2].update(name="z"),
        "OME-Zarr with axes c, y, z; y and x are needed"),
    "outside": ("zarr.json", lambda ome: ome["multiscales"][0]["datasets"][0].update(path="../b"),
        "OME-Zarr level '../b' lies outside its folder"),
    "missing level": ("zarr.json", lambda ome: ome["multiscales"][0]["datasets"][1].update(path="9"),
        "level 9 is missing (no zarr.json or .zarray); copy the folder again"),
    "pickle": ("0/zarr.json", lambda array: array["codecs"].append({"name": "numcodecs.pickle"}),
        "level 0 is stored with numcodecs.pickle, which is not read"),
    "transformations": ("zarr.json",
        lambda ome: ome["multiscales"][0]["datasets"][0].update(coordinateTransformations=5),
        "OME-Zarr whose coordinateTransformations is no list; write it as version 0.4 or 0.5"),
    "transformations of all": ("zarr.json", lambda ome: ome["multiscales"][0].update(coordinateTransformations=5),
        "OME-Zarr whose coordinateTransformations is no list; write it as version 0.4 or 0.5"),
    "codecs": ("0/zarr.json", lambda array: array.update(codecs=5),
        "OME-Zarr whose codecs is no list; write it as version 0.4 or 0.5"),
    "filters": ("0/zarr.json", lambda array: array.update(filters={"id": "zlib"}),
        "OME-Zarr whose filters is no list; write it as version 0.4 or 0.5"),
    "inner codecs": ("0/zarr.json",
        lambda array: array.update(codecs=[{"name": "sharding_indexed", "configuration": {"codecs": 5}}]),
        "OME-Zarr whose codecs is no list; write it as version 0.4 or 0.5"),
    "inner pickle": ("0/zarr.json",
        lambda array: array.update(codecs=[{"name": "sharding_indexed", "configuration": {
            "codecs": [{"name": "bytes"}], "index_codecs": [{"name": "numcodecs.pickle"}]}}]),
        "level 0 is stored with numcodecs.pickle, which is not read"),
    "float": ("0/zarr.json", lambda array: array.update(data_type="float32", fill_value=0.0),
        "float32 pixels; save the image with 8 bits per channel"),
    "channels": ("0/zarr.json", lambda array: array.update(shape=[2, 250, 300]),
        "its levels have pixels of several kinds; export the image again"),
}  # fmt: skip


@pytest.mark.parametrize(("file", "change", "message"), ZARR_FAULTS.values(), ids=ZARR_FAULTS)
def test_zarr_that_is_not_read(tmp_path: Path, file: str, change: Callable[[Any], object], message: str) -> None:
    path = save_ome_zarr(tmp_path / "a.zarr", PICTURE)
    change_json(path / file, change)
    refuse(path, message)


@pytest.mark.fault
def test_zarr_metadata_that_is_no_json(tmp_path: Path) -> None:
    path = save_ome_zarr(tmp_path / "a.zarr", PICTURE)
    (path / "zarr.json").write_text("{")
    with pytest.raises(HemalumError, match=r"zarr\.json: Zarr metadata cannot be read \("):
        open_slide(path)
    (path / "zarr.json").write_text("[" * 100_000)
    with pytest.raises(HemalumError, match=r"zarr\.json: Zarr metadata cannot be read \("):
        open_slide(path)


def test_bounds_that_do_not_lie_in_the_slide(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import openslide

    path = save_scn(tmp_path / "a.scn", PICTURE)
    properties = dict(openslide.OpenSlide(str(path)).properties) | {"openslide.bounds-width": "9999"}
    monkeypatch.setattr(openslide.OpenSlide, "properties", properties)
    refuse(
        path,
        "the file states bounds of 9999 x 250 px at x 100, y 60, which do not lie in its 600 x 450 px; "
        "export the slide again",
    )


@pytest.mark.parametrize("scale", [10**400, "x", [], None], ids=["huge", "text", "list", "null"])
def test_a_scale_of_zarr_that_is_no_number(tmp_path: Path, scale: object) -> None:
    path = save_ome_zarr(tmp_path / "a.zarr", PICTURE, mpp=0.5)
    change_json(
        path / "zarr.json",
        lambda ome: ome["multiscales"][0]["datasets"][0]["coordinateTransformations"][0].update(
            scale=[1, scale, scale]
        ),
    )
    with open_slide(path) as slide:
        assert slide.mpp is None


@pytest.mark.fault
@pytest.mark.parametrize("bigtiff", [False, True])
def test_a_tiff_that_ends_before_its_list_of_levels_is_called_truncated(tmp_path: Path, bigtiff: bool) -> None:
    """As scanners write it, with the list behind the pixels."""
    path = tmp_path / "a.tif"
    pixels = np.random.default_rng(0).integers(0, 256, (300, 300, 3), np.uint8)
    with tifffile.TiffWriter(path, bigtiff=bigtiff) as writer:
        writer.write(pixels, photometric="rgb", tile=(64, 64))
    data = bytearray(path.read_bytes())
    at, size = (8, 8) if bigtiff else (4, 4)
    data[at : at + size] = len(data).to_bytes(size, "little")
    path.write_bytes(bytes(data))  # the list would begin where the file ends
    with pytest.raises(HemalumError, match=r"the file is truncated: its list of levels lies behind its end \("):
        open_slide(path)
