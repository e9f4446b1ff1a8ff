"""The figures of a store are those of its table."""

from pathlib import Path

import numpy as np
import pytest

from builders.stores import fill_store, make_store, small_run
from hemalum.nuclei.store import NucleiStore, summarize


def test_figures_of_a_store(tmp_path: Path) -> None:
    store = make_store(tmp_path / "a.nuclei")
    frame = store.dataset.to_table().drop_columns(["bbox", "geometry"]).to_pandas()
    summary = summarize(store, ["area_um2"])
    assert summary.count == len(frame) == 600
    assert summary.classes == {name: int((frame["class"] == name).sum()) for name in store.run.class_names}
    assert sum(summary.classes.values()) == 600
    assert summary.median("area_um2") == pytest.approx(np.median(frame["area_um2"]), rel=1e-4)
    height, width = store.run.shape
    assert store.run.mpp is not None
    assert (summary.area_of, summary.area_mm2) == ("slide", pytest.approx(height * width * store.run.mpp**2 / 1e6))
    assert summary.per_mm2 == pytest.approx(600 / (height * width * store.run.mpp**2 / 1e6))
    assert summary.ihc_score() is None


@pytest.mark.parametrize(
    ("notes", "area"),
    [
        ({"tissue_mm2": 2.0}, (2.0, "tissue")),
        ({"roi_mm2": 1.0}, (1.0, "roi")),
        ({"tissue_mm2": 2.0, "roi_mm2": 1.0, "roi_tissue_mm2": 0.5}, (0.5, "tissue in roi")),
    ],
)
def test_density_is_per_area_looked_at(tmp_path: Path, notes: dict[str, float], area: tuple[float, str]) -> None:
    store = fill_store(NucleiStore.create(tmp_path / "a.nuclei", small_run()))
    store.finish(notes=notes)
    summary = summarize(store, ["area_um2"])
    assert (summary.area_mm2, summary.area_of) == area
    assert summary.per_mm2 == pytest.approx(600 / area[0])
