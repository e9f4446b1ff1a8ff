"""Small stores of made-up nuclei."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from hemalum.nuclei.nuclei import Nuclei
from hemalum.nuclei.polygons import Polygons
from hemalum.nuclei.store import NucleiStore, Region, RegionGrid, StoreRun, make_schema
from synthetic_nuclei import synthetic_nuclei, synthetic_run


def small_run(**options: Any) -> StoreRun:
    """Two by three regions of 240 px: 600 nuclei."""
    return synthetic_run(2, 3, 240, **options)


def fill_store(store: NucleiStore, regions: list[Region] | None = None) -> NucleiStore:
    """Add what is missing, or these regions."""
    for region in store.missing() if regions is None else regions:
        store.add(region, *synthetic_nuclei(store.run, region, points=16))
    return store


def make_store(path: Path, run: StoreRun | None = None) -> NucleiStore:
    """A complete store."""
    store = fill_store(NucleiStore.create(path, run or small_run()))
    store.finish(notes={"engine": "torch f32"})
    return store


def squares_run(shape: tuple[int, int], **options: Any) -> StoreRun:
    """A slide of `shape` (H, W) px as one region, without classes, at 0.5 µm per px."""
    grid = RegionGrid(rows=1, columns=1, height=shape[0], width=shape[1])
    fields = {"shape": shape, "grid": grid, "mpp": 0.5, "class_names": (), "settings": {}} | options
    return synthetic_run(1, 1, 16, **fields)


def store_squares(
    path: Path,
    run: StoreRun,
    centers: Sequence[tuple[float, float]],
    *,
    side: float = 8.0,
    classes: Sequence[str] = (),
    areas: Sequence[float] = (),
    dab: Sequence[float] = (),
) -> NucleiStore:
    """A complete store of square nuclei at `centers` (x, y) px; areas are those of the squares unless given."""
    count = len(centers)
    middle = np.array(centers, np.float64).reshape(-1, 2)
    corners = np.array([(-1, -1), (1, -1), (1, 1), (-1, 1), (-1, -1)]) * side / 2
    rings = (middle[:, None] + corners).reshape(-1, 2).astype(np.float32)
    area = np.array(areas or [side**2 * (run.mpp or 1.0) ** 2] * count, np.float32)
    columns: dict[str, Any] = {"id": pa.array(np.arange(1, count + 1, dtype=np.uint32))}
    columns |= {"x": pa.array(middle[:, 0]), "y": pa.array(middle[:, 1])}
    for one in make_schema(run.class_names, dab=run.dab):
        if one.type == pa.float32():
            columns[one.name] = pa.array(np.full(count, 0.25, np.float32))
    columns["area_um2"] = pa.array(area)
    if run.dab:
        columns["dab_mean"] = pa.array(np.array(dab, np.float32))
    if run.class_names:
        columns["class"] = pa.array(list(classes), pa.string())
    nuclei = Nuclei(
        pa.table(columns), Polygons(rings, 5 * np.arange(count + 1, dtype=np.int64)), run.shape, run.mpp, "file",
        class_names=run.class_names,
    )  # fmt: skip
    store = NucleiStore.create(path, run)
    store.add((0, 0), nuclei, np.arange(1, count + 1))
    store.finish()
    return store
