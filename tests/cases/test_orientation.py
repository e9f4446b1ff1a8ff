"""An image is turned as its file says, in segment, import, check and evaluate alike, and labels go with it."""

import itertools
import logging
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image

import hemalum
from builders.outlines import feature, features_of, rectangle, write_geojson
from builders.slides import draw_picture, levels_of, seen
from hemalum.cli import main
from hemalum.data.check import check_dataset
from hemalum.data.image import orientation_of, plain_size, read_image
from hemalum.data.importing import import_dataset
from hemalum.data.pixels import seen_window, stored_window, turn
from hemalum.errors import HemalumError
from hemalum.experiments.evaluate import evaluate
from hemalum.slides import open_slide

pytestmark = pytest.mark.fault

PICTURE = draw_picture(64, 96)
FORMS = ("a.jpg", "a.png", "late.png", "a.webp", "plain.tif", "tiles.tif", "float.tif")


def turned_line(path: Path, orientation: int) -> str:
    return (
        f"{path}: turned as its orientation tag ({orientation}) says; labels are expected, and nuclei and overlay "
        "given, in the turned frame"
    )


def save_turned(path: Path, pixels: NDArray[np.uint8], orientation: int) -> Path:
    """A file that holds these pixels and asks for an orientation."""
    if path.suffix == ".tif":
        options: dict[str, Any] = {"tile": (32, 32), "compression": "zlib"} if path.stem == "tiles" else {}
        data = pixels / np.float32(255) if path.stem == "float" else pixels
        tifffile.imwrite(path, data, photometric="rgb", extratags=[(274, 3, 1, orientation, False)], **options)
        return path
    exif = Image.Exif()
    exif[274] = orientation
    image = Image.fromarray(pixels)
    image.save(path, exif=exif, **({"lossless": True} if path.suffix == ".webp" else {"quality": 98}))
    if path.stem == "late":  # some programs write EXIF behind the pixels
        data = path.read_bytes()
        start = data.index(b"eXIf") - 4
        end = start + 12 + int.from_bytes(data[start : start + 4], "big")
        last = data.index(b"IEND") - 4
        path.write_bytes(data[:start] + data[end:last] + data[start:end] + data[last:])
    return path


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("orientation", range(1, 9))
def test_all_eight_in_every_format(
    tmp_path: Path, form: str, orientation: int, caplog: pytest.LogCaptureFixture
) -> None:
    path = save_turned(tmp_path / form, PICTURE, orientation)
    stored = np.asarray(Image.open(path).convert("RGB")) if form == "a.jpg" else PICTURE
    expected = seen(stored, orientation)
    assert orientation_of(path) == orientation
    assert np.array_equal(read_image(path), expected)
    with open_slide(path, mpp=0.5) as slide:
        height, width = slide.shape
        assert np.array_equal(slide.rows(0, height), expected)
        assert np.array_equal(slide.read(5, 9, 30, 20), expected[9:29, 5:35])
        assert np.array_equal(slide.read(width - 17, height - 21, 17, 21), expected[-21:, -17:])
    if not form.endswith("tif"):
        assert plain_size(path) == expected.shape[:2]
    lines = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    assert lines == ([turned_line(path, orientation)] if orientation != 1 else [])


@pytest.mark.parametrize("orientation", [0, 9, 77])
@pytest.mark.parametrize("form", ["a.jpg", "plain.tif"])
def test_what_is_no_orientation_turns_nothing(tmp_path: Path, form: str, orientation: int) -> None:
    path = save_turned(tmp_path / form, PICTURE, orientation)
    assert read_image(path).shape == PICTURE.shape
    assert orientation_of(path) == 1


def png_chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


@pytest.mark.parametrize("at", ["before", "behind"])
@pytest.mark.parametrize(
    ("kind", "content"),
    [
        (b"eXIf", b"junkjunk"),
        (b"eXIf", b"MM"),
        (b"tEXt", b"Raw profile type exif\0\nexif\n  10\nzz"),
    ],
)
def test_a_png_with_damaged_exif_is_read(
    tmp_path: Path, kind: bytes, content: bytes, at: str, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "a.png"
    Image.fromarray(PICTURE).save(path)
    data = path.read_bytes()
    start = data.index(b"IDAT") - 4 if at == "before" else data.index(b"IEND") - 4
    path.write_bytes(data[:start] + png_chunk(kind, content) + data[start:])
    assert np.array_equal(read_image(path), PICTURE)
    assert (orientation_of(path), plain_size(path)) == (1, PICTURE.shape[:2])
    lines = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    assert lines == [f"{path}: its EXIF is damaged; the picture is taken as it is stored, not turned"]


def test_a_webp_with_damaged_exif_is_read(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    Image.fromarray(PICTURE).save(tmp_path / "a.webp", lossless=True, exif=b"Exif\0\0junkjunk")
    assert np.array_equal(read_image(tmp_path / "a.webp"), PICTURE)
    assert "its EXIF is damaged" in caplog.text


def test_damaged_pixels_before_exif_are_named_as_such(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = save_turned(tmp_path / "a.png", PICTURE, 6)
    data = path.read_bytes()
    exif = data.index(b"eXIf") - 4
    behind = data[exif : exif + 12 + int.from_bytes(data[exif : exif + 4], "big")]
    data = data.replace(behind, b"")
    start, end = data.index(b"IDAT") + 4, data.index(b"IEND") - 4
    path.write_bytes(data[:start] + bytes(end - start) + behind + data[end:])
    assert orientation_of(path) == 1
    with pytest.raises(HemalumError, match="damaged or truncated"):
        read_image(path)
    assert "EXIF" not in caplog.text


@pytest.mark.parametrize("orientation", [3, 6])
def test_levels_and_scale_turn_as_well(tmp_path: Path, orientation: int) -> None:
    path = tmp_path / "a.tif"
    picture = draw_picture(160, 128)
    options: dict[str, Any] = {"photometric": "rgb", "tile": (32, 32), "metadata": None}
    with tifffile.TiffWriter(path) as tiff:
        for number, pixels in enumerate(levels_of(picture, 2)):
            tiff.write(
                pixels, subfiletype=1 if number else 0, resolution=(1e4 / 0.5, 1e4 / 0.502),
                resolutionunit="CENTIMETER", extratags=[(274, 3, 1, orientation, False)], **options,
            )  # fmt: skip
    with open_slide(path) as slide:
        assert slide.shape == ((128, 160) if orientation == 6 else (160, 128))
        whole_level = slide.read_scaled(slide.levels[1].shape, slice(0, slide.levels[1].shape[0]), slice(0, 40))
        assert np.array_equal(whole_level, seen(levels_of(picture, 2)[1], orientation)[:, :40])
        stated = slide._open().stated
        assert stated is not None
        assert stated[0] > stated[1] if orientation == 6 else stated[0] < stated[1]


def test_a_broken_tile_is_named_where_it_is_seen(tmp_path: Path) -> None:
    path = save_turned(tmp_path / "tiles.tif", PICTURE, 6)
    with tifffile.TiffFile(path) as tiff:
        page: Any = tiff.pages[0]
        offset, size = page.dataoffsets[0], page.databytecounts[0]
    with path.open("rb+") as stream:
        stream.seek(offset)
        stream.write(bytes(size))
    with open_slide(path) as slide:
        pixels = slide.rows(0, 96)
        expected = PICTURE.copy()
        expected[:32, :32] = 255
        assert np.array_equal(pixels, seen(expected, 6))
        assert [(tile.x, tile.y, tile.width, tile.height) for tile in slide.broken] == [(32, 0, 32, 32)]


@given(st.integers(1, 8), st.integers(1, 9), st.integers(1, 9), st.data())
@settings(max_examples=60)
def test_windows_go_there_and_back(orientation: int, height: int, width: int, data: st.DataObject) -> None:
    stored = np.arange(height * width).reshape(height, width)
    picture = turn(stored, orientation)
    y = data.draw(st.integers(0, picture.shape[0] - 1))
    x = data.draw(st.integers(0, picture.shape[1] - 1))
    window = (
        y, x, data.draw(st.integers(1, picture.shape[0] - y)), data.draw(st.integers(1, picture.shape[1] - x)),
    )  # fmt: skip
    top, left, tall, wide = stored_window(window, (height, width), orientation)
    part = turn(stored[top : top + tall, left : left + wide], orientation)
    assert np.array_equal(part, picture[y : y + window[2], x : x + window[3]])
    assert seen_window((top, left, tall, wide), (height, width), orientation) == window


def discs(height: int, width: int) -> NDArray[np.int32]:
    """Label maps of discs that no turn or mirroring maps on themselves."""
    labels = np.zeros((height, width), np.int32)
    rows, columns = np.mgrid[:height, :width]
    for number, (y, x) in enumerate(itertools.product((20, 46, 72), (18, 50, 82)), start=1):
        labels[(rows - y - 2 * number) ** 2 + (columns - x - number) ** 2 < (6 + number % 3) ** 2] = number
    return labels


def save_set(folder: Path, orientation: int, size: tuple[int, int], form: str, *, labels_turned: bool) -> Path:
    """Three photographs with an orientation, and labels drawn on what is shown, or on what is stored."""
    (folder / "images").mkdir(parents=True)
    (folder / "labels").mkdir()
    for number in range(3):
        stored = np.roll(discs(*size), 3 * number, 1)
        picture = np.where(stored[..., None] > 0, np.uint8([70, 40, 110]), np.uint8([235, 225, 235]))
        save_turned(folder / "images" / f"f{number}{form}", picture.astype(np.uint8), orientation)
        labels = turn(stored, orientation) if labels_turned else stored
        Image.fromarray(labels.astype(np.uint8)).save(folder / "labels" / f"f{number}.png")
    return folder


@pytest.mark.parametrize(("orientation", "form"), [(6, ".jpg"), (3, ".png"), (8, ".tif"), (5, ".webp")])
def test_labels_of_what_every_viewer_shows_fit(
    tmp_path: Path, orientation: int, form: str, dark_model: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Square images: nothing but the pixels tells that they were turned."""
    source = save_set(tmp_path / "set", orientation, (120, 120), form, labels_turned=True)
    assert not [problem for problem in check_dataset(source) if problem.level == "error"]
    first = source / "images" / f"f0{form}"
    line = f"{turned_line(first, orientation)} (and so 2 other files)"
    assert [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING] == [line]
    dataset = import_dataset("folder", source, tmp_path / "data", mpp=0.25)
    for sample in dataset:
        inside = sample.image[sample.instances > 0].mean()
        assert inside + 100 < sample.image[sample.instances == 0].mean()
    result = evaluate(str(dark_model), dataset, split=None, mpp=0.25)
    assert result.summary["instance"]["pooled"]["pq"] > 0.8


@pytest.mark.parametrize("orientation", [5, 6, 7, 8])
def test_labels_that_fit_only_what_is_stored_are_turned_and_named(
    tmp_path: Path, orientation: int, caplog: pytest.LogCaptureFixture
) -> None:
    source = save_set(tmp_path / "set", orientation, (110, 140), ".png", labels_turned=False)
    dataset = import_dataset("folder", source, tmp_path / "data", mpp=0.25)
    for sample in dataset:
        assert sample.image.shape == (140, 110, 3)
        inside = sample.image[sample.instances > 0].mean()
        assert inside + 100 < sample.image[sample.instances == 0].mean()
    lines = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    assert lines[1] == (
        f"{source / 'labels' / 'f0.png'}: labels fit the image as stored, not as its orientation "
        f"tag ({orientation}) turns it; turned with it (and so 2 other files)"
    )
    assert not [problem for problem in check_dataset(source) if problem.kind == "size"]


@pytest.mark.parametrize("orientation", [5, 6])
@pytest.mark.parametrize("turned", ["labels", "classes", "both", "neither"])
def test_labels_and_class_maps_are_turned_each_by_itself(tmp_path: Path, orientation: int, turned: str) -> None:
    source = save_set(tmp_path / "set", orientation, (110, 140), ".jpg", labels_turned=turned in ("labels", "both"))
    (source / "classes").mkdir()
    for number in range(3):
        stored = (np.roll(discs(110, 140), 3 * number, 1) > 0).astype(np.uint8)
        pixels = turn(stored, orientation) if turned in ("classes", "both") else stored
        Image.fromarray(pixels).save(source / "classes" / f"f{number}.png")
    assert not [problem for problem in check_dataset(source) if problem.level == "error" or problem.kind == "classes"]
    for sample in import_dataset("folder", source, tmp_path / "data", mpp=0.25, class_names="nucleus"):
        assert sample.classes is not None
        assert sample.classes.tolist() == [0] + 9 * [1]


@pytest.mark.parametrize("orientation", [5, 6, 7, 8])
@pytest.mark.parametrize("turned", [True, False])
def test_outlines_are_turned_where_only_that_fits(
    tmp_path: Path, orientation: int, turned: bool, caplog: pytest.LogCaptureFixture
) -> None:
    """QuPath turns no picture: what is drawn there is drawn on it as stored."""
    source = save_set(tmp_path / "set", orientation, (110, 140), ".png", labels_turned=True)
    for number in range(3):
        (source / "labels" / f"f{number}.png").unlink()
        stored = np.roll(discs(110, 140), 3 * number, 1)
        labels = turn(stored, orientation) if turned else stored
        region = feature(rectangle(2, 2, labels.shape[1] - 2, labels.shape[0] - 2), name="Region*")
        write_geojson(source / "labels" / f"f{number}.geojson", [region, *features_of(labels, names=["Tumor"])])
    assert not [problem for problem in check_dataset(source) if problem.level == "error"]
    caplog.clear()
    for sample in import_dataset("folder", source, tmp_path / "data", mpp=0.25):
        inside = sample.image[sample.instances > 0].mean()
        assert inside + 100 < sample.image[sample.instances == 0].mean()
        assert sample.classes is not None
        assert sample.classes.tolist() == [0] + 9 * [1]
        assert sample.unannotated is not None
        assert not (sample.unannotated & (sample.instances > 0)).any()
    lines = [line for line in caplog.messages if "not as its orientation tag" in line]
    assert len(lines) == (0 if turned else 1)


def test_outlines_that_fit_neither_are_refused_as_those_of_what_is_seen(tmp_path: Path) -> None:
    source = save_set(tmp_path / "set", 6, (110, 140), ".png", labels_turned=True)
    for number in range(3):
        (source / "labels" / f"f{number}.png").unlink()
        write_geojson(source / "labels" / f"f{number}.geojson", [feature(rectangle(3, 5, 300, 20))])
    with pytest.raises(HemalumError, match="its image is 110 x 140 px: export in px of this very image"):
        import_dataset("folder", source, tmp_path / "data", mpp=0.25)


def test_segment_gives_nuclei_in_the_turned_frame(tmp_path: Path, dark_model: Path) -> None:
    labels = discs(110, 140)
    picture = np.where(labels[..., None] > 0, np.uint8([70, 40, 110]), np.uint8([235, 225, 235])).astype(np.uint8)
    plain = hemalum.segment(save_turned(tmp_path / "a.png", picture, 1), dark_model, mpp=0.25)
    turned = hemalum.segment(save_turned(tmp_path / "b.png", picture, 6), dark_model, mpp=0.25)
    assert len(plain) == len(turned) == 9
    assert turned.shape == (140, 110)


def test_segment_warns_once_of_many_photographs(
    tmp_path: Path, dark_model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = save_set(tmp_path / "set", 6, (110, 140), ".jpg", labels_turned=True)
    assert (
        main(["segment", str(source / "images"), "-o", str(tmp_path / "out"), "-m", str(dark_model), "--mpp", "0.25"])
        == 0
    )
    lines = [line for line in capsys.readouterr().err.splitlines() if "orientation tag" in line]
    assert len(lines) == 1
    assert lines[0].endswith(f"{turned_line(source / 'images' / 'f0.jpg', 6)} (and so 2 other files)")
