"""Where nuclei are looked for: regions of interest, tissue, and slides on which there is nothing."""

import json
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest

from builders.slide_runs import CELL, KINDS, Case, contents, make_case, renamed, small_cells
from builders.slides import save_pyramid
from hemalum.errors import HemalumError
from hemalum.inference import slide as slide_module
from hemalum.nuclei.store import EXPORTS, export_store, open_store
from hemalum.slides import Slide, Tissue, read_roi


@pytest.fixture(scope="module")
def case(tmp_path_factory: pytest.TempPathFactory) -> Case:
    return make_case(tmp_path_factory.mktemp("slide"), "he", height=600, width=700)


@pytest.fixture(scope="module")
def everywhere(case: Case, tmp_path_factory: pytest.TempPathFactory) -> Any:
    with small_cells():
        return contents(case.run(tmp_path_factory.mktemp("all")))


def write_areas(path: Path, *outlines: Any) -> str:
    geometry = {"type": "MultiPolygon", "coordinates": list(outlines)}
    features = [{"type": "Feature", "properties": {"objectType": "annotation"}, "geometry": geometry}]
    path.write_text(json.dumps({"type": "FeatureCollection", "features": features}))
    return str(path)


@pytest.mark.parametrize("region", [CELL, 3 * CELL, 4096])
@pytest.mark.parametrize("area", ["100,100,300,200", "-40,250,333,1000", "99.5,0,20.5,600", "file"])
def test_a_region_holds_the_nuclei_of_the_slide_whose_centroid_is_inside(
    area: str, region: int, case: Case, everywhere: Any, tmp_path: Path
) -> None:
    """The very same, on its border as well, wherever tiles and cells lie: it only leaves out."""
    if area == "file":
        ring = [[50, 60], [640, 30], [500, 560], [250, 300], [60, 560], [50, 60]]
        hole = [[300, 100], [400, 100], [400, 210], [300, 210], [300, 100]]
        area = write_areas(tmp_path / "a.geojson", [ring, hole], [[[0, 580], [30, 560], [40, 600], [0, 580]]])
    with small_cells():
        engine = case.engine()
        store = case.run(tmp_path / "out", roi=area, region=region, engine=engine)
    roi = read_roi(area, (600, 700))
    inside = roi.contains(everywhere.column("x").to_numpy(), everywhere.column("y").to_numpy())
    assert contents(store).equals(everywhere.filter(pa.array(inside)))
    assert 0 < store.count < everywhere.num_rows
    assert store.notes["roi_mm2"] == pytest.approx(roi.area * 0.25**2 / 1e6, abs=1e-4)


def test_the_nuclei_of_regions_side_by_side_are_those_of_the_slide(
    case: Case, everywhere: Any, tmp_path: Path
) -> None:
    with small_cells():
        parts = [
            contents(case.run(tmp_path / str(x), roi=f"{x},0,233.5,600")) for x in np.arange(3) * 233.5
        ]  # fmt: skip
    joined = pa.concat_tables(parts).sort_by("id")
    assert joined.equals(everywhere)


def test_a_small_region_costs_little(case: Case, tmp_path: Path) -> None:
    engines = case.engine(), case.engine()
    with small_cells():
        case.run(tmp_path / "all", engine=engines[0])
        case.run(tmp_path / "part", roi="300,300,10,10", engine=engines[1])
    assert 0 < engines[1].windows < 0.6 * engines[0].windows


@pytest.mark.fault
def test_a_region_that_is_none(case: Case, tmp_path: Path) -> None:
    for area, message in (
        ("900,900,50,50", "it lies outside the slide, which is 700 x 600 px"),
        (write_areas(tmp_path / "a.geojson", [[[0, 0], [90, 90], [90, 0], [0, 90], [0, 0]]]), "itself at x 45, y 45"),
        (str(tmp_path / "none.geojson"), "No such file or directory"),
    ):
        with pytest.raises(HemalumError, match=message) as caught:
            case.run(tmp_path / "out", roi=area)
        assert "\n" not in str(caught.value)
        assert not (tmp_path / "out").exists()


def tissue_at_left(slide: Slide, **_: Any) -> Tissue:
    mask = np.zeros((slide.shape[0] // 20, slide.shape[1] // 20), np.bool_)
    mask[3:-3, 3:16] = True
    return Tissue(mask, slide.shape, 5.0)


def test_with_a_tissue_mask_regions_and_workers_change_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Inside the tissue the nuclei are those without a mask, up to the tiles that are run."""
    monkeypatch.setattr(slide_module, "find_tissue", tissue_at_left)
    case = make_case(tmp_path, "he", height=600, width=700, light=-25)
    stores = []
    with small_cells():
        everywhere = contents(case.run(tmp_path / "all"))
    with small_cells(kept_bytes=0):
        stores.append(case.run(tmp_path / "a", tissue_mask=True, region=CELL, threads=1))
    with small_cells(backwards=True):
        stores.append(case.run(tmp_path / "b", tissue_mask=True, region=4096, threads=3))
    left, right = map(contents, stores)
    assert left.equals(right)
    assert 0 < left.num_rows < everywhere.num_rows
    assert stores[0].notes["tissue_mm2"] == round(13 * 24 * 25 / 1e6, 4)

    def inner(table: Any) -> Any:
        low_x, low_y, high_x, high_y = (table.column("bbox").combine_chunks().field(k).to_numpy() for k in range(4))
        return table.filter(pa.array((low_x > 70) & (low_y > 70) & (high_x < 310) & (high_y < 530)))

    assert inner(left).num_rows >= 15
    assert inner(left).equals(inner(everywhere))


def export_all(store: Any, folder: Path) -> dict[str, Path]:
    """Every format; the files are there."""
    made = {}
    for name in EXPORTS:
        if name == "spatialdata" and find_spec("spatialdata") is None:
            continue
        made[name] = export_store(store, name, folder / f"a{EXPORTS[name]}")
        assert made[name].exists()
    return made


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("why", ["no nuclei", "no tissue"])
def test_without_nuclei_stores_and_exports_are_valid_and_empty(
    kind: str, why: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    white = save_pyramid(tmp_path / "white.tif", np.full((300, 300, 3), 250, np.uint8), mpp=0.25)
    case = renamed(make_case(tmp_path, kind), white)
    nothing = lambda slide, **_: Tissue(np.zeros((30, 30), np.bool_), slide.shape, 2.5)  # noqa: E731
    monkeypatch.setattr(slide_module, "find_tissue", nothing)
    engine, shares = case.engine(), list[float]()
    if why == "no nuclei":
        engine.share = 0.0  # it takes bright for nucleus
    with small_cells():
        options: dict[str, Any] = {"tissue_mask": why == "no tissue", "engine": engine, "on_progress": shares.append}
        positive = {"positive": 0.2} if kind == "hdab" else {}
        case.run(tmp_path / "out", **options, **positive)
        again = case.run(tmp_path / "out", **options, **positive)
    store = open_store(again.path)
    assert (store.complete, store.count, len(store.finished)) == (True, 0, 4)
    assert shares[-1] == 1.0
    if why == "no tissue":
        assert engine.windows <= (12 if kind == "hdab" else 0)  # of H-DAB the marker is looked at
        assert "no tissue is seen; without the tissue mask all of it is looked at" in caplog.text
        assert store.notes["tissue_mm2"] == 0.0
    assert store.nuclei().count == len(store.to_pandas()) == 0
    assert store.window(0, 0, 300, 300).num_rows == 0
    columns = set(store.schema.names)
    assert ("class" in columns) == (kind == "classes")
    assert ("dab_mean" in columns, "intensity" in columns) == (kind == "hdab",) * 2
    made = export_all(store, tmp_path / "exports")
    assert json.loads(made["geojson"].read_text())["features"] == []
    assert len(made["csv"].read_text().splitlines()) == 1
    assert pa.parquet.read_table(made["parquet"]).num_rows == 0
