"""What is written of a large image is drawn by rows, and opens in other programs."""

import logging
import tracemalloc
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image

from builders.stores import make_store, small_run, squares_run, store_squares
from hemalum.errors import HemalumError
from hemalum.nuclei.io import small_picture
from hemalum.nuclei.nuclei import Nuclei
from hemalum.nuclei.store import export_store

pytestmark = pytest.mark.fault
WIDTH = 512


def some_nuclei(height: int, width: int = WIDTH) -> Nuclei:
    """Thirty squares at the top of an image."""
    labels = np.zeros((64, 256), np.int32)
    for number in range(30):
        y, x = divmod(number, 10)
        labels[4 + 20 * y : 16 + 20 * y, 4 + 25 * x : 16 + 25 * x] = number + 1
    small = Nuclei.from_labels(labels, mpp=0.5)
    return Nuclei(small.table, small.outlines, (height, width), 0.5, "user")


def peak_of(work: Callable[[], Any]) -> int:
    """Bytes that Python and NumPy hold at most while it works."""
    tracemalloc.start()
    try:
        work()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def pink(start: int, stop: int) -> NDArray[np.uint8]:
    return np.full((stop - start, WIDTH, 3), (226, 178, 206), np.uint8)


@pytest.mark.parametrize("output", ["labels", "overlay", "page"])
def test_memory_does_not_grow_with_the_height(output: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in ("nuclei.io.overlay", "nuclei.io.label_tiff", "nuclei.io.overlay_preview"):
        monkeypatch.setattr(f"hemalum.{module}.BAND", 1 << 16)
    monkeypatch.setattr("hemalum.nuclei.io.overlay_preview.WHOLE", 1 << 16)
    peaks = []
    for height in (1000, 6000):
        nuclei, path = some_nuclei(height), tmp_path / f"{height}.png"
        nuclei.to_overlay(path, pink)
        work = {
            "labels": partial(nuclei.to_labels, tmp_path / "a.tif"),
            "overlay": partial(nuclei.to_overlay, path, pink),
            "page": partial(small_picture, path, 200),
        }
        peaks.append(peak_of(work[output]))
    assert peaks[1] < 1.3 * peaks[0]


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    height=st.integers(1, 130), width=st.integers(1, 90), seed=st.integers(0, 99), wide=st.booleans(),
    tiled=st.booleans(), mpp=st.sampled_from([None, 0.25]), band=st.sampled_from([1, 100, 1 << 20]),
)  # fmt: skip
def test_a_label_tiff_of_any_size_and_band_holds_the_label_map(
    height: int, width: int, seed: int, wide: bool, tiled: bool, mpp: float | None, band: int, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    from hemalum.nuclei.io.label_tiff import write_label_tiff

    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 1 << 20 if wide else 1 << 16, (height, width)).astype(np.uint32)
    labels[0, 0] = 70_000 if wide else 65_535
    with monkeypatch.context() as patch:
        patch.setattr("hemalum.nuclei.io.label_tiff.BAND", band)
        patch.setattr("hemalum.nuclei.io.label_tiff.STRIP_BYTES", 500)
        patch.setattr("hemalum.nuclei.io.label_tiff.CLASSIC_BYTES", 0 if tiled else 1 << 31)
        write_label_tiff(
            tmp_path / "a.tif", (height, width), lambda start, stop: labels[start:stop], largest=int(labels.max()),
            mpp=mpp,
        )  # fmt: skip
    with tifffile.TiffFile(tmp_path / "a.tif") as file:
        page: Any = file.pages[0]
        assert (page.is_tiled, file.is_bigtiff) == (tiled, tiled)
        assert page.dtype == (np.uint32 if wide else np.uint16)
        assert page.predictor == 1  # ImageJ undoes one with LZW alone
        numerator, denominator = page.tags["XResolution"].value
        assert numerator / denominator == (1 if mpp is None else 40_000)
        np.testing.assert_array_equal(page.asarray(), labels)
    with Image.open(tmp_path / "a.tif") as image:  # libtiff reads it too
        np.testing.assert_array_equal(np.asarray(image).astype(np.uint32), labels)


def test_a_label_map_opens_where_only_strips_do(tmp_path: Path) -> None:
    some_nuclei(192, 256).to_labels(tmp_path / "f_labels.tif")
    with tifffile.TiffFile(tmp_path / "f_labels.tif") as file:
        page: Any = file.pages[0]
        assert not page.is_tiled
        assert not file.is_bigtiff
        assert page.dtype == np.uint16
        assert page.compression == tifffile.COMPRESSION.ADOBE_DEFLATE
        assert page.asarray().max() == 30


def test_a_label_map_beyond_a_plain_tiff_is_said(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hemalum.nuclei.io.label_tiff.CLASSIC_BYTES", 1000)
    with caplog.at_level(logging.INFO):
        some_nuclei(192, 256).to_labels(tmp_path / "a.tif")
    assert caplog.messages == [
        f"{tmp_path / 'a.tif'}: 256 x 192 px are more than a plain TIFF holds: a BigTIFF of tiles, which QuPath and "
        "Bio-Formats open"
    ]


def test_an_overlay_that_few_programs_open_is_made_smaller(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hemalum.nuclei.io.overlay.MOST_SIDE", 200)
    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, (101, 512, 3), dtype=np.uint8)
    with caplog.at_level(logging.INFO):
        some_nuclei(101).to_overlay(tmp_path / "a.png", image)
    assert caplog.messages == [
        f"{tmp_path / 'a.png'}: drawn 3 times smaller than the image: few programs open 512 x 101 px"
    ]
    drawn = np.asarray(Image.open(tmp_path / "a.png"))
    assert drawn.shape == (34, 171, 3)
    np.testing.assert_array_equal(drawn[30, 100], np.rint(image[90:93, 300:303].mean(axis=(0, 1))))
    green = (drawn == (0, 255, 128)).all(axis=2)
    assert green[2:6, 2:6].any()  # the first nucleus lies at 4..15 px
    assert not green[:, 90:].any()


def test_a_small_picture_is_the_mean_of_the_large_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    coarse = rng.integers(0, 256, (12, 16, 3), dtype=np.uint8)
    image = np.kron(coarse, np.ones((32, 32, 1), np.uint8))
    some_nuclei(384).to_overlay(tmp_path / "a.png", image)
    at_once, full = small_picture(tmp_path / "a.png", 64)
    monkeypatch.setattr("hemalum.nuclei.io.overlay_preview.WHOLE", 0)
    monkeypatch.setattr("hemalum.nuclei.io.overlay_preview.BAND", 700)
    banded, banded_full = small_picture(tmp_path / "a.png", 64)
    assert full == banded_full == (512, 384)
    assert banded.size == at_once.size == (64, 48)
    exact = np.asarray(Image.open(tmp_path / "a.png")).reshape(48, 8, 64, 8, 3).mean(axis=(1, 3))
    assert np.abs(np.asarray(banded) - exact).max() <= 1
    odd, _ = small_picture(tmp_path / "a.png", 61)  # pixels do not meet
    assert odd.size == (61, 46)


def test_a_large_picture_of_another_program_is_left_to_pillow(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hemalum.nuclei.io.overlay_preview.WHOLE", 0)
    rng = np.random.default_rng(0)
    Image.fromarray(rng.integers(0, 256, (90, 120, 3), dtype=np.uint8)).save(tmp_path / "a.png")
    small, full = small_picture(tmp_path / "a.png", 60)
    assert (small.size, full) == ((60, 45), (120, 90))


def test_a_cut_picture_is_no_picture(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hemalum.nuclei.io.overlay_preview.WHOLE", 0)
    monkeypatch.setattr("hemalum.nuclei.io.overlay.BAND", 10 * WIDTH)
    some_nuclei(384).to_overlay(tmp_path / "a.png", pink)
    content = (tmp_path / "a.png").read_bytes()
    (tmp_path / "a.png").write_bytes(content[: len(content) // 2])
    with pytest.raises((OSError, ValueError)):
        small_picture(tmp_path / "a.png", 60)


def test_labels_of_a_slide_are_its_ids(tmp_path: Path) -> None:
    store = make_store(tmp_path / "a.nuclei", small_run())
    labels = tifffile.imread(export_store(store, "labels"))
    assert labels.shape == store.run.shape
    expected = export_store(store, "ome-zarr")
    import zarr

    np.testing.assert_array_equal(labels, zarr.open_group(expected, mode="r")["0"][:])


def test_ids_that_a_tiff_cannot_hold_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = store_squares(tmp_path / "a.nuclei", squares_run((200, 300)), [(50.0, 50.0)])
    monkeypatch.setattr(type(store), "tables", lambda *_: iter([FakeIds()]))
    with pytest.raises(HemalumError) as raised:
        export_store(store, "labels")
    assert str(raised.value) == (
        f"{tmp_path / 'a_labels.tif'}: the ids of so large a slide need 64 bits, which few programs read in a TIFF; "
        "take ome-zarr"
    )


class FakeIds:
    """A table whose ids are beyond 32 bits."""

    def column(self, _: str) -> Any:
        return self

    def to_numpy(self) -> NDArray[np.int64]:
        return np.array([1 << 33])


@pytest.mark.parametrize("most", [1 << 20, 250])
def test_the_overlay_of_a_slide_has_outlines_legend_and_its_pixels(
    most: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hemalum.nuclei.io.overlay.MOST_SIDE", most)
    run = squares_run((200, 300), class_names=("a", "b"))
    store = store_squares(
        tmp_path / "a.nuclei", run, [(50.0, 50.0), (200.0, 120.0)], side=40, classes=["a", "b"]
    )  # fmt: skip
    asked: list[tuple[int, int]] = []

    def read(shape: tuple[int, int], rows: slice, columns: slice) -> NDArray[np.uint8]:
        asked.append(shape)
        return np.full((rows.stop - rows.start, columns.stop - columns.start, 3), 99, np.uint8)

    drawn = np.asarray(Image.open(export_store(store, "overlay", picture=read)))
    by = 1 if most > 300 else 2
    assert set(asked) == {(200 // by, 300 // by)}
    assert drawn.shape[0] > 200 // by  # the legend
    colors = [tuple(drawn[50 // by, 30 // by].tolist()), tuple(drawn[120 // by, 180 // by].tolist())]
    assert colors == [(0, 230, 118), (255, 214, 0)]
    assert (drawn[5, 5] == 99).all()
    assert (drawn[50 // by, 50 // by] == 99).all()


@pytest.mark.parametrize(("format", "message"), [
    ("overlay", "overlay draws on what reads a slide (Slide.read_scaled), not on one picture of it"),
    ("thumbnail", "thumbnail draws on one picture of a slide (Slide.thumbnail), not on what reads it"),
])  # fmt: skip
def test_a_picture_for_the_other_format(format: str, message: str, tmp_path: Path) -> None:
    store = make_store(tmp_path / "a.nuclei", small_run())
    picture: Any = np.zeros((480, 720, 3), np.uint8) if format == "overlay" else (lambda *_: None)
    with pytest.raises(HemalumError) as raised:
        export_store(store, format, picture=picture)
    assert str(raised.value) == message
