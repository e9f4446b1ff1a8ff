"""Filters and areas on the way from an image to files: what `Nuclei.filter` would keep, everywhere."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from numpy.typing import NDArray
from PIL import Image

from builders.slides import save_pyramid
from hemalum import cli
from hemalum.errors import HemalumError
from hemalum.inference.segment import segment
from hemalum.inference.slide import segment_slide
from hemalum.nuclei.filters import NucleusFilter
from hemalum.nuclei.nuclei import Nuclei
from hemalum.slides.roi import find_roi


@pytest.fixture(scope="module")
def picture() -> NDArray[np.uint8]:
    """Dark discs of 3 to 9 px radius in a field of 240 x 300 px."""
    image = np.full((240, 300, 3), 225, np.uint8)
    rows, columns = np.mgrid[:240, :300]
    for number in range(30):
        y, x, radius = 24 + 48 * (number // 6), 25 + 50 * (number % 6), 3 + number % 7
        image[(rows - y) ** 2 + (columns - x) ** 2 <= radius**2] = (70, 40, 90)
    return image


OPTIONS: dict[str, Any] = {"mpp": 0.5, "engine": "torch", "stain": "he"}


@pytest.fixture(scope="module")
def everything(picture: NDArray[np.uint8], dark_model: Path) -> Nuclei:
    result: Nuclei = segment(picture, dark_model, **OPTIONS)
    assert result.count == 30
    return result


@pytest.mark.parametrize(
    "limits", [{"min_area_um2": 20.0}, {"min_area_um2": 12.0, "max_area_um2": 40.0}, {"min_solidity": None}]
)
def test_what_is_segmented_with_limits_is_what_the_result_would_keep(
    picture: NDArray[np.uint8], dark_model: Path, everything: Nuclei, limits: dict[str, Any]
) -> None:
    if "min_solidity" in limits:  # of which half have less
        limits = {"min_solidity": float(np.median(everything.table["solidity"].to_numpy()))}
    kept = segment(picture, dark_model, **OPTIONS, keep=limits)
    expected = everything.filter(**limits)
    assert 0 < kept.count < 30
    assert kept.table.equals(expected.table)  # under the same ids
    assert kept.notes == expected.notes
    assert kept.notes["filter"] == limits
    assert kept.notes["left_out_by_filter"] == 30 - kept.count
    fewer = kept.filter(max_area_um2=30)
    assert fewer.notes["filter"] == limits | {"max_area_um2": 30}
    assert fewer.notes["left_out_by_filter"] == 30 - fewer.count
    assert kept.area_mm2 == everything.area_mm2


@pytest.mark.fault
def test_a_filter_that_leaves_nothing_says_so(
    picture: NDArray[np.uint8], dark_model: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "a.png"
    Image.fromarray(picture).save(path)
    nothing = segment(path, dark_model, **OPTIONS, keep={"min_area_um2": 5000})
    assert nothing.count == 0
    assert caplog.messages.count(f"{path}: the filter leaves none of 30 nuclei") == 1
    caplog.clear()
    segment(np.full((64, 64, 3), 225, np.uint8), dark_model, **OPTIONS, keep={"min_area_um2": 5000})
    assert "the filter" not in caplog.text  # there were none


def test_areas_of_an_image(picture: NDArray[np.uint8], dark_model: Path, everything: Nuclei, tmp_path: Path) -> None:
    ring = [[150, 0], [300, 0], [300, 240], [150, 240], [150, 0]]
    path = tmp_path / "right.geojson"
    path.write_text(json.dumps({"type": "Polygon", "coordinates": [ring]}))
    right = segment(picture, dark_model, **OPTIONS, roi=path)
    left = segment(picture, dark_model, **OPTIONS, exclude=path)
    assert right.count + left.count == everything.count
    assert (right.table.column("x").to_numpy() > 150).all()
    assert right.area_mm2 == left.area_mm2 == pytest.approx(150 * 240 * 0.25e-6)
    corner = segment(picture, dark_model, **OPTIONS, roi=path, exclude="0,0,300,120")
    assert corner.area_mm2 == pytest.approx(150 * 120 * 0.25e-6)
    assert corner.density_per_mm2 == pytest.approx(corner.count / (150 * 120 * 0.25e-6))


@pytest.mark.fault
def test_a_slide_keeps_the_same(picture: NDArray[np.uint8], dark_model: Path, tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "s.tif", picture, tile=(128, 128), photometric="rgb")
    options = OPTIONS | {"tissue_mask": False}
    keep = NucleusFilter(min_area_um2=20)
    store = segment_slide(tmp_path / "s.tif", tmp_path, dark_model, **options, keep=keep, exclude="0,0,100,240")
    expected = segment(picture, dark_model, **OPTIONS, keep=keep, exclude="0,0,100,240")
    frame = store.dataset.to_table(columns=["x", "area_um2"]).sort_by("x")
    assert frame.num_rows == expected.count > 0
    np.testing.assert_allclose(frame["x"].to_numpy(), np.sort(expected.table["x"].to_numpy()), atol=1e-3)
    assert store.notes["left_out_by_filter"] == expected.notes["left_out_by_filter"] > 0
    assert store.notes["roi_mm2"] == pytest.approx(200 * 240 * 0.25e-6, abs=1e-4)
    # another filter is another run
    line = r"holds the nuclei of another run \(settings\.filter\.min_area_um2 is 20.0 there, 30.0 here\); choose"
    with pytest.raises(HemalumError, match=line):
        segment_slide(
            tmp_path / "s.tif", tmp_path, dark_model, **options, keep={"min_area_um2": 30}, exclude="0,0,100,240"
        )


def test_every_file_of_a_filtered_image_has_the_same_nuclei(
    picture: NDArray[np.uint8], dark_model: Path, tmp_path: Path
) -> None:
    Image.fromarray(picture).save(tmp_path / "a.png")
    out = tmp_path / "out"
    words = ["segment", str(tmp_path / "a.png"), "-o", str(out), "-m", str(dark_model), "--mpp", "0.5", "--engine"]
    words += ["torch", "--min-area", "20", "--roi", "0,0,150,240", "-f", "geojson,csv,parquet,labels", "--report"]
    assert cli.main([*words, "--quiet"]) == 0
    rows = (out / "a.csv").read_text().splitlines()[1:]
    features = json.loads((out / "a.geojson").read_text())["features"]
    labels = tifffile.imread(next(out.glob("a*.tif*")))
    assert len(rows) == len(features) == len(np.unique(labels)) - 1 > 0
    page = (out / "summary.html").read_text()
    assert "area from 20 µm²" in page
    assert "Region of interest" in page


@pytest.mark.parametrize("kind", ["image", "slide"])
def test_an_object_has_one_uuid_in_every_run(
    kind: str, picture: NDArray[np.uint8], dark_model: Path, tmp_path: Path
) -> None:
    path = save_pyramid(tmp_path / "a.tif", picture, levels=3 if kind == "slide" else 1)

    def objects(*words: str) -> dict[str, Any]:
        out = tmp_path / str(len(list(tmp_path.iterdir())))
        fixed = ["-m", str(dark_model), "--mpp", "0.5", "--engine", "torch", "--stain", "he", "--quiet"]
        assert cli.main(["segment", str(path), "-o", str(out), *fixed, *words]) == 0
        features = json.loads((out / "a.geojson").read_text())["features"]
        return {one["id"]: one["geometry"] for one in features}

    everything = objects()
    assert (len(everything), path.with_name("1").joinpath("a.nuclei").exists()) == (30, kind == "slide")
    for words in (["--min-area", "20"], ["--roi", "0,0,150,240"], ["--exclude", "0,0,99,99", "--max-area", "60"]):
        some = objects(*words)
        assert 0 < len(some) < 30
        assert some.items() <= everything.items()


def test_a_filter_that_leaves_nothing_is_a_result(
    picture: NDArray[np.uint8], dark_model: Path, tmp_path: Path
) -> None:
    nothing = segment(picture, dark_model, **OPTIONS, keep={"min_area_um2": 1e6})
    assert (nothing.count, nothing.notes["left_out_by_filter"]) == (0, 30)
    nothing.to_csv(tmp_path / "n.csv")
    assert len((tmp_path / "n.csv").read_text().splitlines()) == 1


@pytest.mark.fault
@pytest.mark.parametrize(
    ("options", "line"),
    [
        ({"keep": {"min_aera_um2": 3}}, r"^filter: no limit 'min_aera_um2', did you mean 'min_area_um2'\?$"),
        ({"keep": {"min_solidity": "much"}}, r"^filter: min_solidity much: Input should be a valid number"),
        ({"exclude": "0,0,300,240"}, r"^exclude '0,0,300,240': nothing of the image is left$"),
        ({"roi": "400,0,10,10"}, r"^roi '400,0,10,10': it lies outside the .*, which is 300 x 240 px$"),
    ],
)
def test_filters_that_cannot_be(
    picture: NDArray[np.uint8], dark_model: Path, options: dict[str, Any], line: str
) -> None:
    with pytest.raises(HemalumError, match=line):
        segment(picture, dark_model, **OPTIONS, **options)


def test_no_area_is_all_of_the_image() -> None:
    assert find_roi((10, 20)) is None
    left = find_roi((10, 20), None, "10,0,10,10")
    assert left is not None
    assert left.area == 100
