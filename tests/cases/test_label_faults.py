"""What a label map is not, and what its numbers mean, in `import`, `check` and `evaluate` alike."""

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage
from skimage.transform import resize

from builders.labels import field, make_source, photograph, save
from hemalum.data.check import check_dataset
from hemalum.data.dataset import Dataset
from hemalum.data.importing import import_dataset
from hemalum.data.label_faults import find_faults
from hemalum.data.label_maps import components, is_binary, read_instances
from hemalum.data.label_pixels import read_label_map
from hemalum.data.readers import folder
from hemalum.data.sample import Sample
from hemalum.errors import HemalumError
from hemalum.experiments.evaluate import evaluate
from hemalum.experiments.label_maps import LabelMaps, Truth

pytestmark = pytest.mark.fault

LABELS = field(120, every=24, radius=7)
MASK = np.where(LABELS > 0, 255, 0).astype(np.uint8)
SHADES = "; set a threshold for a mask, or export ids (resize label maps with the nearest neighbor)"


def source(root: Path, pixels: NDArray[Any], name: str = "f.png") -> Path:
    """A folder with one image and this label file."""
    save(root / "images" / "f.png", photograph(np.zeros(pixels.shape[:2])))
    save(root / "labels" / name, pixels)
    return root


def faults(pixels: NDArray[Any]) -> list[tuple[str, bool]]:
    labels = pixels.astype(np.int32)
    return [(fault.kind, fault.refused) for fault in find_faults(components(labels) if is_binary(labels) else labels)]


def as_jpeg(mask: NDArray[np.uint8], quality: int) -> NDArray[np.uint8]:
    stream = io.BytesIO()
    Image.fromarray(mask).save(stream, "JPEG", quality=quality)
    return np.asarray(Image.open(stream))


def outlines(width: int) -> NDArray[np.int32]:
    depth = ndimage.distance_transform_edt(LABELS > 0)
    return np.where(depth > width, 0, LABELS).astype(np.int32)


# refused, in the same words by all
REFUSED = {
    "saved as JPEG": (as_jpeg(MASK, 75), r"\d+ values lie in \d+ pieces: a picture or a map of probability, not a "
                      "label map" + SHADES.replace("(", r"\(").replace(")", r"\)")),
    "blurred": (ndimage.gaussian_filter(MASK, 2), "a picture or a map of probability, not a label map"),
    "smoothed at the edge": (np.rint(resize(MASK.astype(float), (84, 84), order=1)).astype(np.uint8),
                             r"\d+% of the edge pixels lie between their neighbors: shades of gray or interpolated "
                             "ids, not a label map; set a threshold"),
    "classes": (np.where(LABELS > 0, 1 + LABELS % 2, 0).astype(np.uint8), "2 values lie in 25 pieces: a picture"),
    "inside and edge": ((MASK > 0).astype(np.uint8) + ndimage.binary_erosion(MASK), "2 values lie in 50 pieces"),
    "inverted": (255 - MASK, r"one piece covers \d\d% of the image and touches all its sides: nuclei and background "
                 "are exchanged; invert the mask"),
    "inverted, 0 and 1": (1 - MASK // 255, "nuclei and background are exchanged; invert the mask"),
    "background has an id": (LABELS.astype(np.uint16) + 1, "the background has an id of its own \\(1\\); set it to "),
    "background is 255": (np.where(LABELS == 0, 255, LABELS).astype(np.uint8),
                          "the background has an id of its own \\(255\\); set it to 0"),
    "mask of 1 and 2": (1 + MASK // 255, "the background has an id of its own \\(1\\); set it to 0"),
    "outlines": (np.where(outlines(2) > 0, 255, 0).astype(np.uint8),
                 r"outlines alone: what they enclose \(25 areas\) is left empty; fill them"),
    "outlines with ids": (outlines(1).astype(np.uint8), "outlines alone"),
}  # fmt: skip


@pytest.mark.parametrize(("pixels", "message"), REFUSED.values(), ids=REFUSED)
def test_what_is_no_label_map_is_refused(tmp_path: Path, pixels: NDArray[Any], message: str) -> None:
    source(tmp_path, pixels)
    file = tmp_path / "labels" / "f.png"
    with pytest.raises(HemalumError, match=message) as caught:
        list(folder.read(tmp_path))
    assert str(caught.value).startswith(f"{file}: ")
    with pytest.raises(HemalumError) as of_truth:
        list(Truth(tmp_path / "labels", components=True))
    assert str(of_truth.value) == str(caught.value)
    errors = [problem for problem in check_dataset(tmp_path) if problem.level == "error"]
    assert [f"{file}: {problem.message}" for problem in errors] == [str(caught.value)]


@pytest.mark.parametrize("pixels", [255 - MASK, np.where(outlines(2) > 0, 255, 0)], ids=["inverted", "outlines"])
def test_a_prediction_may_be_as_wrong_as_it_likes(tmp_path: Path, pixels: NDArray[Any]) -> None:
    save(tmp_path / "f.png", pixels.astype(np.uint8))
    sample = Sample(photograph(LABELS), LABELS, id="f", source="f", group="f")
    maps = LabelMaps(tmp_path, components=True)
    summary = evaluate(maps, [sample]).summary
    assert summary["label_warnings"] == maps.doubts
    (line,) = maps.doubts
    assert line.startswith(f"{tmp_path}/f.png: ")


def test_gray_predictions_are_refused_as_ever(tmp_path: Path) -> None:
    save(tmp_path / "f.png", as_jpeg(MASK, 75))
    with pytest.raises(HemalumError, match="a picture or a map of probability"):
        LabelMaps(tmp_path)(Sample(photograph(LABELS), LABELS, id="f", source="f", group="f"))


MANY = field(416, every=16, radius=5)  # 676 nuclei
SAVED_TOO_SMALL = {
    "begin again": (MANY.astype(np.uint8), "ids end at 255 and 255 of them lie in several pieces: they were cut off "
                    "at 8 bits; export the label map again with more bits"),
    "a few begin again": (np.where(MANY > 265, 0, MANY).astype(np.uint8),
                          "ids end at 255 and 9 of them lie in several pieces: they were cut off at 8 bits; export "
                          "the label map again with more bits"),
    "end at the largest": (np.minimum(MANY, 255).astype(np.uint8), "ids end at 255, which lies in several pieces: "
                           "those above it were cut off at 8 bits; export the label map again with more bits"),
    "scaled": ((MANY * 255 // MANY.max()).astype(np.uint8), "ids end at 255 and 254 of them lie in several pieces: "
               "they were cut off at 8 bits; export the label map again with more bits"),
    "classes": (np.where(LABELS > 0, 1 + LABELS % 5, 0).astype(np.uint8), "5 of 5 ids lie in several pieces: "
                "classes, not nuclei? each id counts as one nucleus"),
    "two classes": (np.where(LABELS % 3 == 1, 1 + LABELS % 2, 0).astype(np.uint8), "2 of 2 ids lie in several "
                    "pieces: classes, not nuclei? each id counts as one nucleus"),
    "ignored borders": (np.where((LABELS > 0) & ~ndimage.binary_erosion(LABELS > 0), 255, LABELS).astype(np.uint8),
                        "id 255 lies in several pieces, apart from the other ids: a border or “ignore”; set it to 0"),
    "nearly all": (np.pad(np.zeros((20, 20), np.uint8), 30, constant_values=255), "one piece covers 94% of the image "
                   "and touches all its sides; are nuclei and background exchanged?"),
}  # fmt: skip


@pytest.mark.parametrize(("pixels", "message"), SAVED_TOO_SMALL.values(), ids=SAVED_TOO_SMALL)
def test_what_is_doubtful_is_said(
    tmp_path: Path, pixels: NDArray[Any], message: str, caplog: pytest.LogCaptureFixture
) -> None:
    source(tmp_path, pixels)
    list(folder.read(tmp_path))
    assert f"{tmp_path}/labels/f.png: {message}" in caplog.messages
    if "pieces: classes" not in message and "ignore" not in message:  # check names the ids in pieces
        assert message in [problem.message for problem in check_dataset(tmp_path)]
    caplog.clear()
    truth = Truth(tmp_path / "labels", components=True)
    summary = evaluate(LabelMaps(tmp_path / "labels", components=True), truth).summary
    assert summary["label_warnings"] == [f"{tmp_path}/labels/f.png: {message}"] * 2
    assert caplog.messages.count(f"{tmp_path}/labels/f.png: {message}") == 1


def test_one_warning_for_all_files_of_a_folder(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    for name in "abc":
        save(tmp_path / "images" / f"{name}.png", photograph(MANY))
        save(tmp_path / "labels" / f"{name}.png", MANY.astype(np.uint8))
    import_dataset("folder", tmp_path, tmp_path / "set", mpp=0.25)
    import_dataset("folder", tmp_path, tmp_path / "again", mpp=0.25)
    line, again = (line for line in caplog.messages if "ids end" in line)
    assert line == again
    assert line.startswith(f"{tmp_path}/labels/a.png: ids end at 255")
    assert line.endswith(" (and so 2 other files)")


def test_ids_cut_off_at_16_bits() -> None:
    """Only the first of them begin again, which no score betrays."""
    many = np.zeros((800, 800), np.int32)
    many[::3, ::3] = np.arange(1, 267 * 267 + 1).reshape(267, 267)
    wrapped = many.astype(np.uint16).astype(np.int32)
    (fault,) = find_faults(wrapped)
    assert fault.message.startswith(
        "ids end at 65535 and 5753 of them lie in several pieces: they were cut off at 16"
    )
    assert not find_faults(many)
    assert not find_faults(np.where(many > 65_535, 0, many))


def tissue(count: int, side: int, seed: int) -> NDArray[np.int32]:
    """A label map without background: each pixel belongs to the nearest of `count` points, numbered at random."""
    rng = np.random.default_rng(seed)
    points = np.zeros((side, side), np.int32)
    points.flat[rng.choice(side * side, count, replace=False)] = rng.permutation(count) + 1
    nearest = ndimage.distance_transform_edt(points == 0, return_distances=False, return_indices=True)
    return points[nearest[0], nearest[1]]


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 999),
    radius=st.floats(2.5, 9),
    every=st.sampled_from([9, 12, 20]),
    turn=st.integers(0, 3),
    ids=st.sampled_from(["rows", "random", "gaps"]),
    mask=st.booleans(),
    dilated=st.booleans(),
)
def test_label_maps_and_masks_raise_no_doubt(
    seed: int, radius: float, every: int, turn: int, ids: str, mask: bool, dilated: bool
) -> None:
    """Nuclei that lie loose, touch, or cover most of the image, numbered in any way."""
    apart = every - 2 * radius - (3 if dilated else 0)
    assume(not mask or apart > 1)  # else all of them are one piece of a mask, as a background is
    rng = np.random.default_rng(seed)
    labels = field(96, every=every, radius=radius, seed=seed)
    numbers = np.arange(labels.max() + 1)
    if ids != "rows":
        numbers[1:] = rng.permutation(numbers[1:]) * (1 if ids == "random" else 7)
    labels = np.rot90(numbers[labels], turn).astype(np.int32)
    if dilated:
        labels = ndimage.maximum_filter(labels, 3)
    if mask:
        labels = np.where(labels > 0, 255, 0).astype(np.int32)
    assert not [fault for fault in faults(labels) if fault[1]]
    assert mask or not faults(labels)


@pytest.mark.parametrize("count", [40, 200, 800])
def test_tissue_without_background_raises_no_doubt(count: int) -> None:
    labels = tissue(count, 128, 0)
    assert faults(labels) == []
    gaps = ndimage.minimum_filter(labels, 3) != ndimage.maximum_filter(labels, 3)
    assert faults(np.where(gaps, 0, labels)) == []


@settings(max_examples=30, deadline=None)
@given(st.integers(50, 95), st.floats(0.5, 3), st.floats(0.55, 2.5), st.sampled_from(["jpeg", "blur", "resize"]),
       st.booleans())  # fmt: skip
def test_shades_are_always_refused(quality: int, blur: float, factor: float, how: str, ids: bool) -> None:
    labels = LABELS.astype(float) if ids else MASK.astype(float)
    if how == "jpeg":
        pixels = as_jpeg(MASK, quality).astype(float)
    elif how == "blur":
        pixels = ndimage.gaussian_filter(labels * (10 if ids else 1), blur)
    else:
        size = round(120 * factor)
        if size in (120, 60):  # every second pixel, or each
            return
        pixels = resize(labels, (size, size), order=1, anti_aliasing=False)
    assert faults(np.rint(pixels)) == [("shades", True)]


# stored numbers


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.uint32, np.bool_])
@pytest.mark.parametrize("shown", ["minisblack", "miniswhite"])
@pytest.mark.parametrize("compression", [None, "zlib", "lzw", "packbits"])
def test_white_is_zero_changes_no_id(tmp_path: Path, dtype: type, shown: str, compression: str | None) -> None:
    pixels = (MASK > 0) if dtype is np.bool_ else LABELS.astype(dtype)
    compression = None if dtype is np.bool_ and compression else compression
    tifffile.imwrite(tmp_path / "a.tif", pixels, photometric=shown, compression=compression)
    np.testing.assert_array_equal(read_label_map(tmp_path / "a.tif"), pixels.astype(np.int32))


def test_a_white_is_zero_mask_gives_its_nuclei(tmp_path: Path) -> None:
    save(tmp_path / "images" / "f.png", photograph(LABELS))
    save(tmp_path / "labels" / "f.tif", MASK, photometric="miniswhite")
    dataset = import_dataset("folder", tmp_path, tmp_path / "out", mpp=0.5)
    assert dataset.info.nuclei == LABELS.max()
    assert not [problem for problem in check_dataset(dataset.path) if problem.level == "error"]


@pytest.mark.parametrize("bits", [1, 2, 4])
@pytest.mark.parametrize("mode", ["L", "P"])
def test_png_of_few_bits_keeps_its_numbers(tmp_path: Path, bits: int, mode: str) -> None:
    """A PNG of 1, 2 or 4 bits, in gray or with a palette, stores small numbers, whatever they are shown as."""
    import struct
    import zlib

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    ids = (np.arange(64).reshape(8, 8) % (2**bits)).astype(np.uint8)
    rows = b"".join(
        b"\0" + np.packbits(np.unpackbits(row[:, None], axis=1)[:, -bits:].ravel()).tobytes() for row in ids
    )
    palette = chunk(b"PLTE", bytes(np.arange(3 * 2**bits)[::-1].astype(np.uint8))) if mode == "P" else b""
    header = struct.pack(">IIBBBBB", 8, 8, bits, 3 if mode == "P" else 0, 0, 0, 0)
    content = chunk(b"IHDR", header) + palette + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    (tmp_path / "a.png").write_bytes(b"\x89PNG\r\n\x1a\n" + content)
    np.testing.assert_array_equal(read_label_map(tmp_path / "a.png"), ids)


def test_sixteen_bits_of_gray_as_color(tmp_path: Path) -> None:
    import imagecodecs

    ids = np.repeat((LABELS * 300).astype(np.uint16)[..., None], 3, axis=2)
    (tmp_path / "a.png").write_bytes(imagecodecs.png_encode(ids))
    np.testing.assert_array_equal(read_label_map(tmp_path / "a.png"), LABELS * 300)


def test_bitmaps_and_float_masks(tmp_path: Path) -> None:
    for name, pixels in (
        ("a.bmp", LABELS.astype(np.uint8)),
        ("a.tif", (LABELS > 0).astype(np.float32)),
        ("b.npy", (LABELS > 0).astype(np.float64)),
        ("c.npy", MASK.astype(np.float16)),
        ("d.mat", (LABELS > 0).astype(np.float64)),
    ):
        save(tmp_path / name, pixels)
        read = read_instances(tmp_path / name)
        assert (read.labels.max(), read.was_mask) == (LABELS.max(), not name.endswith(".bmp"))


@pytest.mark.parametrize("axis", [0, 2])
def test_arrays_with_an_axis_of_one(tmp_path: Path, axis: int) -> None:
    np.save(tmp_path / "a.npy", np.expand_dims(LABELS, axis))
    np.testing.assert_array_equal(read_instances(tmp_path / "a.npy").labels, LABELS)


def test_shapes_in_the_transparency_alone(tmp_path: Path, error_line: Callable[..., str]) -> None:
    save(tmp_path / "a.png", np.dstack([np.zeros((*LABELS.shape, 3), np.uint8), MASK]))
    assert error_line(lambda: read_label_map(tmp_path / "a.png")) == (
        f"{tmp_path}/a.png: its shapes are in the transparency alone; save ids as gray, without alpha"
    )


def test_ids_that_became_negative(tmp_path: Path, error_line: Callable[..., str]) -> None:
    save(tmp_path / "a.npy", np.arange(40_000).reshape(200, 200).astype(np.int16))
    assert error_line(lambda: read_instances(tmp_path / "a.npy")) == (
        f"{tmp_path}/a.npy: label ids run from -32768 to 32767: those that int16 cannot hold became negative; "
        "save more bits"
    )


# ids are names


@pytest.mark.parametrize("dtype", [np.uint32, np.int64, np.uint64, np.float64])
@pytest.mark.parametrize("name", ["f.tif", "f.npy"])
def test_huge_ids_take_no_memory(tmp_path: Path, name: str, dtype: type) -> None:
    huge = np.where(LABELS > 0, LABELS.astype(np.int64) * 7 + 4_000_000_000 - 10_000, 0).astype(dtype)
    source(tmp_path, huge, name)
    dataset = import_dataset("folder", tmp_path, tmp_path / "out", mpp=0.5)
    (sample,) = dataset
    np.testing.assert_array_equal(sample.instances, LABELS)
    assert not [problem for problem in check_dataset(tmp_path) if problem.level == "error"]
    np.testing.assert_array_equal(LabelMaps(tmp_path / "labels")(sample), LABELS)


def test_ids_are_kept_where_they_fit(tmp_path: Path) -> None:
    save(tmp_path / "a.tif", (LABELS * 40_000).astype(np.uint32))
    np.testing.assert_array_equal(read_label_map(tmp_path / "a.tif"), LABELS * 40_000)


def test_huge_ids_without_background(tmp_path: Path) -> None:
    save(tmp_path / "a.npy", tissue(9, 32, 0).astype(np.int64) + 10**12)
    np.testing.assert_array_equal(read_label_map_of(tmp_path / "a.npy"), tissue(9, 32, 0))


def read_label_map_of(path: Path) -> NDArray[np.int32]:
    return read_instances(path).labels


def test_class_maps_of_large_numbers_are_named(tmp_path: Path, error_line: Callable[..., str]) -> None:
    make_source(tmp_path, ["{}.png"], count=1)
    save(tmp_path / "classes" / "f0.tif", np.full((96, 96), 2_000_000_000, np.uint32))
    assert error_line(lambda: list(folder.read(tmp_path))) == (
        f"{tmp_path}/classes/f0.tif: class ids up to 2000000000; they must be 0 to 255"
    )


def test_an_imported_set_passes_its_own_check(tmp_path: Path) -> None:
    make_source(tmp_path, ["{}_masks.png"])
    dataset = Dataset.open(import_dataset("folder", tmp_path, tmp_path / "out", mpp=0.5).path)
    assert not [problem for problem in check_dataset(dataset.path) if problem.level == "error"]
