"""Filters, rows and frames of a result: what stays, under which id, and of which area the density then is."""

import itertools
import re
import sys
from typing import Any

import numpy as np
import pytest
import shapely
from numpy.typing import NDArray

from hemalum.errors import HemalumError
from hemalum.nuclei.filters import LIMITS, NucleusFilter
from hemalum.nuclei.nuclei import Nuclei


def squares() -> Nuclei:
    """Four squares of 4, 8, 12 and 16 px a side in an image of 100 x 100 px, 0.5 µm/px; the larger, the darker.

    Of the last one a quarter is missing.
    """
    labels = np.zeros((100, 100), np.int32)
    image = np.full((100, 100, 3), 240, np.uint8)
    for number, side in enumerate((4, 8, 12, 16)):
        window = slice(10, 10 + side), slice(5 + 22 * number, 5 + 22 * number + side)
        labels[window] = number + 1
        image[window] = (180 - 40 * number, 150 - 40 * number, 190 - 20 * number)
    labels[18:26, 79:87] = 0
    return Nuclei.from_labels(labels, image, mpp=0.5)


def ids(nuclei: Nuclei) -> list[int]:
    return nuclei.table.column("id").to_pylist()


@pytest.mark.parametrize(
    ("limits", "kept"),
    [
        ({}, [1, 2, 3, 4]),
        ({"min_area_um2": 16.0}, [2, 3, 4]),  # 8 x 8 px of 0.25 µm²: an end is kept
        ({"min_area_um2": 16.1}, [3, 4]),
        ({"max_area_um2": 36.0}, [1, 2, 3]),
        ({"min_area_um2": 10, "max_area_um2": 40}, [2, 3]),
        ({"min_solidity": 0.95}, [1, 2, 3]),
        ({"inside": shapely.box(0, 0, 40, 100)}, [1, 2]),
        ({"outside": shapely.box(0, 0, 40, 100)}, [3, 4]),
        ({"inside": shapely.box(0, 0, 60, 100), "outside": shapely.box(0, 0, 20, 100), "min_area_um2": 20}, [3]),
    ],
)
def test_what_lies_within_all_limits_stays_under_its_id(limits: dict[str, Any], kept: list[int]) -> None:
    nuclei = squares()
    filtered = nuclei.filter(**limits)
    assert ids(filtered) == kept
    assert len(filtered.outlines) == len(kept)
    # one id in table, label map and file
    expected = np.where(np.isin(nuclei.label_map(), kept), nuclei.label_map(), 0)
    np.testing.assert_array_equal(filtered.label_map(), expected)
    assert filtered.notes.get("filter", {}) == {name: value for name, value in limits.items() if name in LIMITS}


def test_hematoxylin_is_a_mean_optical_density() -> None:
    nuclei = squares()
    values = nuclei.table.column("hematoxylin_mean").to_numpy()
    limit = float(np.sort(values)[2])
    assert ids(nuclei.filter(min_hematoxylin=limit)) == (np.flatnonzero(values >= limit) + 1).tolist()
    assert 0 < len(nuclei.filter(min_hematoxylin=limit)) < 4


def test_density_is_of_the_area_that_is_left() -> None:
    nuclei = squares()
    assert nuclei.area_mm2 == pytest.approx(100 * 100 * 0.25e-6)
    half = nuclei.filter(inside=shapely.box(-50, 0, 50, 100))  # what lies beyond the image does not count
    assert half.area_mm2 == pytest.approx(50 * 100 * 0.25e-6)
    again = half.filter(outside=shapely.box(0, 0, 25, 100))
    assert again.area_mm2 == pytest.approx(25 * 100 * 0.25e-6)
    assert again.density_per_mm2 == pytest.approx(len(again) / (25 * 100 * 0.25e-6))
    assert nuclei.filter(min_area_um2=20).area_mm2 == nuclei.area_mm2


@pytest.mark.parametrize(
    ("steps", "limits", "left_out"),
    [
        ([{"min_area_um2": 10}, {"min_solidity": 0.9}], {"min_area_um2": 10, "min_solidity": 0.9}, (2, None)),
        ([{"min_area_um2": 10}, {"min_area_um2": 5}], {"min_area_um2": 10}, (1, None)),
        ([{"max_area_um2": 20}, {"max_area_um2": 60}], {"max_area_um2": 20}, (2, None)),
        ([{"min_area_um2": 30}, {"max_area_um2": 10}], {"min_area_um2": 30, "max_area_um2": 10}, (4, None)),
        ([{"inside": shapely.box(0, 0, 40, 100)}], None, (None, 2)),
        ([{"outside": shapely.box(0, 0, 9, 9)}], None, (None, 0)),
        ([{"min_area_um2": 10, "inside": shapely.box(0, 0, 40, 100)}], {"min_area_um2": 10}, (1, 2)),
        (
            [{"inside": shapely.box(0, 0, 40, 100)}, {"min_area_um2": 10}, {"outside": shapely.box(0, 0, 90, 100)}],
            {"min_area_um2": 10},
            (1, 3),
        ),
        ([{}], None, (None, None)),
    ],
)
def test_notes_hold_all_filters_that_were_applied(steps: list[dict[str, Any]], limits: Any, left_out: Any) -> None:
    result = squares()
    for step in steps:
        result = result.filter(**step)
    assert result.notes.get("filter") == limits
    assert (result.notes.get("left_out_by_filter"), result.notes.get("left_out_by_area")) == left_out
    assert len(result) == 4 - sum(count or 0 for count in left_out)


def test_limits_in_any_order_leave_the_same() -> None:
    steps: list[dict[str, Any]] = [
        {"min_area_um2": 5},
        {"min_area_um2": 17, "max_area_um2": 40},
        {"min_solidity": 0.5},
    ]
    for order in itertools.permutations(steps):
        result = squares()
        for step in order:
            result = result.filter(**step)
        assert ids(result) == [3]
        assert result.notes["filter"] == {"min_area_um2": 17, "max_area_um2": 40, "min_solidity": 0.5}
        assert result.notes["left_out_by_filter"] == 3


def test_a_filter_may_leave_nothing() -> None:
    nothing = squares().filter(min_area_um2=1e6)
    assert (len(nothing), nothing.density_per_mm2) == (0, 0)
    assert not nothing.label_map().any()
    assert nothing.table.schema.equals(squares().table.schema)


@pytest.mark.fault
@pytest.mark.parametrize(
    ("limits", "line"),
    [
        ({"min_probability": 0.5}, "min_probability is set, and probability of the nuclei is not known: no model"),
        ({"min_area_um2": -1}, "filter: min_area_um2 -1: Input should be greater than or equal to 0"),
        ({"min_solidity": 2}, "filter: min_solidity 2: Input should be less than or equal to 1"),
        ({"min_area_um2": 9, "max_area_um2": 3}, "filter: the least area, 9 µm², is above the largest, 3"),
        ({"max_area_um2": float("nan")}, "filter: max_area_um2 nan: Input should be "),
        ({"inside": "roi.geojson"}, "want a polygon or multipolygon of shapely in px, not str"),
        ({"inside": shapely.Point(1, 1)}, "want a polygon or multipolygon of shapely in px, not Point"),
        ({"outside": shapely.Polygon([(0, 0), (9, 9), (9, 0), (0, 9)])}, "the area is not valid: Self-intersection"),
    ],
)
def test_what_cannot_be_filtered_by(limits: dict[str, Any], line: str) -> None:
    with pytest.raises(HemalumError, match=f"^{re.escape(line)}"):
        squares().filter(**limits)


@pytest.mark.fault
def test_area_without_a_scale_is_not_known() -> None:
    nuclei = Nuclei.from_labels(squares().label_map())
    with pytest.raises(HemalumError, match=r"^min_area_um2 is set, and area_um2 of the nuclei is not known: give"):
        nuclei.filter(min_area_um2=3)


def test_every_limit_is_a_column_of_the_table() -> None:
    assert set(LIMITS) == set(NucleusFilter.model_fields)
    assert {column for column, _ in LIMITS.values()} <= set(squares().table.column_names)


@pytest.mark.parametrize(
    ("rows", "kept"),
    [
        (0, [1]),
        (-1, [4]),
        (np.int64(2), [3]),
        (slice(1, 3), [2, 3]),
        ([3, 0], [4, 1]),
        (np.array([True, False, False, True]), [1, 4]),
        ([], []),
    ],
)
def test_rows(rows: Any, kept: list[int]) -> None:
    chosen = squares()[rows]
    assert ids(chosen) == kept
    np.testing.assert_array_equal(np.unique(chosen.label_map())[1:], sorted(kept))


def test_a_result_is_walked_nucleus_by_nucleus() -> None:
    assert [ids(one) for one in squares()] == [[1], [2], [3], [4]]
    with pytest.raises(IndexError):
        squares()[4]


def test_a_mask_of_another_length_is_refused() -> None:
    with pytest.raises(IndexError):
        squares()[np.array([True, False])]


def test_in_a_line_and_in_a_notebook() -> None:
    nuclei = squares()
    assert repr(nuclei) == "Nuclei(4 nuclei, 100 x 100 px at 0.5 µm/px (user), 1,600 per mm²)"
    assert repr(Nuclei.from_labels(nuclei.label_map())) == "Nuclei(4 nuclei, 100 x 100 px without scale)"
    assert repr(nuclei[0]).startswith("Nuclei(1 nucleus, ")
    shown = Nuclei.from_labels(nuclei.label_map(), mpp=0.5, source="a-folder/<b>.png")._repr_html_()
    assert "data:image/png;base64," in shown
    assert "<td>1,600 per mm²</td>" in shown
    assert "&lt;b&gt;.png" in shown
    assert "<b>" not in shown
    assert "a-folder" not in shown
    assert Nuclei.from_labels(np.zeros((0, 5), np.int32))._repr_html_()


def picture_of(nuclei: Nuclei) -> NDArray[np.uint8]:
    import io

    from PIL import Image

    from hemalum.nuclei.io.notebook import outline_picture

    return np.asarray(Image.open(io.BytesIO(outline_picture(nuclei.outlines, nuclei.shape))))


def test_the_picture_is_small_and_shows_each_nucleus_in_its_place() -> None:
    labels = np.zeros((1600, 3200), np.int32)
    labels[400:800, 1600:2400] = 1
    picture = picture_of(Nuclei.from_labels(labels))
    assert picture.shape == (160, 320, 3)
    inside = (picture != picture[0, 0]).any(axis=2)
    assert inside[42:78, 162:238].all()
    assert not inside[:38].any()
    assert not inside[:, :158].any()


def test_frames() -> None:
    pytest.importorskip("geopandas")
    nuclei = squares()[[3, 1]]
    frame = nuclei.to_pandas()
    assert frame["id"].tolist() == [4, 2]
    assert frame["area_px"].tolist() == [192, 64]
    outlined = nuclei.to_geopandas()
    np.testing.assert_allclose(outlined.geometry.area, frame["area_px"], rtol=0.1)


def test_anndata() -> None:
    pytest.importorskip("anndata")
    nuclei = squares()[[3, 1]]
    made = nuclei.to_anndata()
    assert made.obs_names.tolist() == ["4", "2"]
    assert made[:, "area_px"].X.ravel().tolist() == [192, 64]
    np.testing.assert_allclose(made.obsm["spatial"], nuclei.to_pandas()[["x_px", "y_px"]])
    assert not {"x_px", "y_um", "id", "mpp"} & set(made.var_names)
    assert made.uns["hemalum"]["mpp"] == 0.5


def test_spatialdata() -> None:
    pytest.importorskip("spatialdata")
    nuclei = squares()[[3, 1]]
    made = nuclei.to_spatialdata()
    shapes = made.shapes["nuclei"]
    assert shapes.index.tolist() == [4, 2]
    assert all(one.equals(other) for one, other in zip(shapes.geometry, nuclei.polygons(), strict=True))
    assert set(made.coordinate_systems) == {"global", "microns"}
    from spatialdata import get_extent

    extent, pixels = get_extent(made, "microns"), get_extent(made, "global")
    assert extent["x"][1] == pytest.approx(pixels["x"][1] * 0.5)


@pytest.mark.fault
def test_without_spatialdata_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "spatialdata", None)
    with pytest.raises(HemalumError, match=r"spatialdata needs it: pip install 'hemalum\[spatialdata\]'$"):
        squares().to_spatialdata()
