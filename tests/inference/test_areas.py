"""The area that a density is of: the image or slide, less what is outside of regions, of tissue, and in artifacts."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import shapely
import tifffile
from numpy.typing import NDArray

from hemalum.inference.segment import segment
from hemalum.inference.slide import segment_slide
from hemalum.nuclei.nuclei import Nuclei
from hemalum.nuclei.store import NucleiStore, area_looked_at, summarize
from hemalum.slides import Slide, Tissue, find_artifacts

SIDE = 320
MPP = 0.5
OPTIONS: dict[str, Any] = {"mpp": MPP, "engine": "torch", "stain": "he"}
MM2 = MPP**2 / 1e6


@pytest.fixture(scope="module")
def inked() -> NDArray[np.uint8]:
    """Dark discs on pale tissue, and a stroke of a blue pen through the middle."""
    image = np.full((SIDE, SIDE, 3), (226, 190, 210), np.uint8)
    rows, columns = np.mgrid[:SIDE, :SIDE]
    for y in range(20, SIDE, 40):
        for x in range(20, SIDE, 40):
            image[(rows - y) ** 2 + (columns - x) ** 2 <= 36] = (92, 62, 140)
    image[:, 140:180] = (30, 60, 220)
    return image


@pytest.fixture(scope="module")
def left_out(inked: NDArray[np.uint8]) -> float:
    """The share of the picture that is ink, which is some."""
    share = float(find_artifacts(Slide.of(inked), mpp=MPP).left_out.mean())
    assert 0.1 < share < 0.3
    return share


@pytest.fixture(scope="module")
def plain(inked: NDArray[np.uint8], dark_model: Path) -> Nuclei:
    result: Nuclei = segment(inked, dark_model, **OPTIONS)
    assert result.count
    return result


def test_ink_is_no_part_of_the_area(plain: Nuclei, left_out: float) -> None:
    assert plain.area_mm2 == pytest.approx((1 - left_out) * SIDE**2 * MM2)
    assert plain.density_per_mm2 == pytest.approx(plain.count / ((1 - left_out) * SIDE**2 * MM2))


def test_a_region_of_all_of_the_image_changes_nothing(
    plain: Nuclei, inked: NDArray[np.uint8], dark_model: Path
) -> None:
    everything = segment(inked, dark_model, **OPTIONS, roi=f"0,0,{SIDE},{SIDE}")
    filtered = plain.filter(inside=shapely.box(0, 0, SIDE, SIDE))
    for other in (everything, filtered):
        assert other.count == plain.count
        assert other.density_per_mm2 == pytest.approx(plain.density_per_mm2)


def test_a_region_has_the_area_that_is_left_in_it(plain: Nuclei, inked: NDArray[np.uint8], dark_model: Path) -> None:
    half = segment(inked, dark_model, **OPTIONS, roi=f"0,0,{SIDE // 2},{SIDE}")
    rest = segment(inked, dark_model, **OPTIONS, exclude=f"0,0,{SIDE // 2},{SIDE}")
    assert half.area_mm2 is not None
    assert rest.area_mm2 is not None
    assert half.count + rest.count == plain.count
    assert half.area_mm2 + rest.area_mm2 == pytest.approx(plain.area_mm2)
    kept = segment(inked, dark_model, **OPTIONS, keep_artifacts=True)
    assert kept.area_mm2 == pytest.approx(SIDE**2 * MM2)


def stored(image: NDArray[np.uint8], folder: Path, model: Path, **options: Any) -> NucleiStore:
    folder.mkdir(exist_ok=True)
    path = folder / "s.tif"
    tifffile.imwrite(path, image, tile=(128, 128), photometric="rgb")
    return segment_slide(path, folder / "out", model, **OPTIONS | options)


@pytest.mark.parametrize(
    ("options", "of", "notes"),
    [
        ({}, "tissue", {"tissue_mm2"}),
        ({"tissue_mask": False}, "slide without artifacts", {"clear_mm2"}),
        ({"roi": f"0,0,{SIDE},{SIDE}"}, "tissue in roi", {"tissue_mm2", "roi_mm2", "roi_tissue_mm2"}),
        (
            {"roi": f"0,0,{SIDE},{SIDE}", "tissue_mask": False},
            "roi without artifacts",
            {"clear_mm2", "roi_mm2", "roi_clear_mm2"},
        ),
    ],
)
def test_a_slide_has_one_area_everywhere(
    options: dict[str, Any], of: str, notes: set[str], inked: NDArray[np.uint8], left_out: float, dark_model: Path,
    tmp_path: Path,
) -> None:  # fmt: skip
    store = stored(inked, tmp_path, dark_model, **options)
    assert {name for name in store.notes if name.endswith("_mm2")} - {"artifacts_mm2"} == notes
    area, what = area_looked_at(store)
    assert what == of
    assert area == pytest.approx((1 - left_out) * SIDE**2 * MM2, rel=0.08)  # the mask has pixels of 8 µm
    summary = summarize(store)
    assert (summary.area_mm2, summary.area_of) == (area, of)


def test_without_artifacts_no_mask_means_all_of_the_slide(
    inked: NDArray[np.uint8], dark_model: Path, tmp_path: Path
) -> None:
    store = stored(inked, tmp_path, dark_model, tissue_mask=False, keep_artifacts=True)
    assert area_looked_at(store) == (pytest.approx(SIDE**2 * MM2), "slide")


def test_a_window_of_a_store_is_of_the_region_in_it(
    inked: NDArray[np.uint8], dark_model: Path, tmp_path: Path
) -> None:
    store = stored(inked, tmp_path, dark_model, roi=f"0,80,{SIDE},100")
    window = store.nuclei((0, 0, 100, 120))
    assert window.area_mm2 == pytest.approx(100 * 40 * MM2)
    everything = store.nuclei()
    assert everything.area_mm2 == pytest.approx(SIDE * 100 * MM2)
    assert store.nuclei((0, 0, 50, 50)).density_per_mm2 is None  # nothing of the region
    assert stored(inked, tmp_path / "b", dark_model).nuclei((0, 0, 40, 40)).area_mm2 == pytest.approx(1600 * MM2)


def test_tissue_with_ink_is_not_all_of_the_slide(inked: NDArray[np.uint8]) -> None:
    tissue = Tissue(np.ones((20, 20), np.bool_), (SIDE, SIDE), 8.0, "a small image")
    artifacts = find_artifacts(Slide.of(inked), mpp=MPP)
    assert artifacts.without(tissue).reason == ""
    clear = find_artifacts(Slide.of(inked[:, :100]), mpp=MPP)
    assert clear.without(tissue) is tissue
    assert clear.clear_area() is None


def test_ink_is_white_where_the_scale_is_looked_for(inked: NDArray[np.uint8]) -> None:
    artifacts = find_artifacts(Slide.of(inked), mpp=MPP)
    blank = artifacts.blank(inked[40:200, 100:260], 100, 40)
    assert (blank[:, 45:75] == 255).all()
    np.testing.assert_array_equal(blank[:, :20], inked[40:200, 100:120])
    assert artifacts.blank(inked[:, :60], 0, 0) is not None
    np.testing.assert_array_equal(artifacts.blank(inked[:, :60], 0, 0), inked[:, :60])
