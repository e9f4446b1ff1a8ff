"""What is a whole slide and what is an image."""

import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import shapely
import tifffile
from PIL import Image

from builders.slides import draw_picture, save_ome_pyramid, save_ome_zarr, save_pyramid, save_scn, save_svs
from hemalum.slides import Slide, Tissue, is_whole_slide, open_slide
from hemalum.slides.roi import Roi, tissue_in

PICTURE = draw_picture(200, 300)


@pytest.mark.parametrize(
    ("name", "save", "expected"),
    [
        ("a.tif", lambda path: save_pyramid(path, PICTURE, levels=1), False),
        ("a.tif", lambda path: save_pyramid(path, PICTURE, levels=2), True),
        ("a.ome.tif", lambda path: save_ome_pyramid(path, PICTURE, levels=1), False),
        ("a.ome.tif", lambda path: save_ome_pyramid(path, PICTURE, levels=3), True),
        ("a.svs", lambda path: save_svs(path, PICTURE, levels=1), True),
        ("a.scn", lambda path: save_scn(path, PICTURE, levels=1), True),
        ("a.ome.zarr", lambda path: save_ome_zarr(path, PICTURE, levels=1), True),
        ("a.png", lambda path: Image.fromarray(PICTURE).save(path), False),
        ("a.jpg", lambda path: Image.fromarray(PICTURE).save(path), False),
    ],
)
def test_formats_and_levels(name: str, save: Callable[[Path], object], expected: bool, tmp_path: Path) -> None:
    save(tmp_path / name)
    with open_slide(tmp_path / name) as slide:
        assert slide.is_whole_slide is expected
    assert is_whole_slide(tmp_path / name) is expected


def test_more_than_100_megapixels(tmp_path: Path) -> None:
    for height, expected in ((100_000, False), (100_001, True)):
        path = tmp_path / "large.tif"
        options = {"photometric": "rgb", "rowsperstrip": 100, "contiguous": True}
        tifffile.imwrite(path, shape=(height, 1000, 3), dtype=np.uint8, **options)
        assert is_whole_slide(path) is expected


def test_a_plain_image_is_not_decoded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Image.fromarray(PICTURE).save(tmp_path / "a.png")
    monkeypatch.setattr("hemalum.slides.slide.open_slide", lambda *_, **__: pytest.fail("it was opened"))
    assert not is_whole_slide(tmp_path / "a.png")
    monkeypatch.setattr("hemalum.slides.slide.WHOLE_SLIDE", 1000)
    assert is_whole_slide(tmp_path / "a.png")


def test_what_cannot_be_opened_is_told_by_its_name(tmp_path: Path) -> None:
    for name, expected in (
        ("a.svs", True),
        ("a.NDPI", True),
        ("a.tif", False),
        ("a.png", False),
        ("none.png", False),
    ):
        if not name.startswith("none"):
            (tmp_path / name).write_bytes(b"no slide")
        assert is_whole_slide(tmp_path / name) is expected
    (tmp_path / "folder").mkdir()
    assert is_whole_slide(tmp_path / "folder")


def test_a_scale_that_cannot_be_does_not_change_what_it_is(tmp_path: Path) -> None:
    assert is_whole_slide(save_pyramid(tmp_path / "a.tif", PICTURE, levels=2, mpp=(0.25, 0.5)))


def test_an_array_is_an_image() -> None:
    assert not Slide.of(PICTURE).is_whole_slide


def test_tissue_inside_a_region() -> None:
    """A disk on a slide of which the left half, and a square of the right one, are tissue."""
    mask = np.zeros((100, 200), np.bool_)
    mask[:, :100] = True
    mask[40:60, 140:160] = True
    tissue = Tissue(mask, (1600, 3200), 8.0)
    disk = Roi(shapely.Point(1600, 800).buffer(400, 256), "disk")
    assert tissue_in(disk, tissue) == pytest.approx(math.pi * 400**2 / 2, rel=1e-3)
    square = Roi(shapely.box(2300, 700, 3000, 1000), "square")
    assert tissue_in(square, tissue) == (2560 - 2300) * (960 - 700)
    assert tissue_in(Roi(shapely.box(3000, 0, 3200, 1600), "glass"), tissue) == 0
