"""Made-up nuclei by the region of a slide: for benchmarks and tests of the store."""

from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from hemalum.nuclei.nuclei import Nuclei
from hemalum.nuclei.polygons import Polygons
from hemalum.nuclei.store import Region, RegionGrid, StoreRun, make_schema

SPACING = 24  # px from one nucleus to the next
POINTS = 40  # of an outline, as many as a nucleus has at 0.25 µm per px
CLASSES = ("epithelial", "lymphocyte", "stroma")


def synthetic_run(rows: int, columns: int, side: int, **options: Any) -> StoreRun:
    """The run of a slide of `rows` by `columns` regions of `side` px."""
    fields: dict[str, Any] = {
        "fingerprint": "0" * 64,
        "shape": (rows * side, columns * side),
        "grid": RegionGrid(rows=rows, columns=columns, height=side, width=side),
        "source": "slide.svs",
        "model": "fast",
        "model_digest": "1" * 64,
        "mpp": 0.25,
        "mpp_source": "file",
        "class_names": CLASSES,
        "settings": {"tile": 256},
    }
    return StoreRun(**(fields | options))


def synthetic_nuclei(run: StoreRun, region: Region, *, points: int = POINTS) -> tuple[Nuclei, NDArray[np.int64]]:
    """The nuclei of a region of the run, always the same, and their ids. Some reach over the edge of the region."""
    random = np.random.default_rng([region[0], region[1]])
    top, left = region[0] * run.grid.height, region[1] * run.grid.width
    y, x = np.mgrid[SPACING // 2 : run.grid.height : SPACING, SPACING // 2 : run.grid.width : SPACING]
    count = x.size
    center = np.column_stack([x.ravel() + left, y.ravel() + top]) + random.uniform(-6, 6, (count, 2))
    angle = np.linspace(0, 2 * np.pi, points)[None]
    radius = random.uniform(8, 14, (count, 1)) * (1 + 0.08 * np.cos(3 * angle + random.uniform(0, 6, (count, 1))))
    rings = np.stack([radius * np.cos(angle), 0.8 * radius * np.sin(angle)], axis=2) + center[:, None]
    rings[:, -1] = rings[:, 0]
    rings = np.clip(rings, 0, run.shape[::-1])
    outlines = Polygons(rings.reshape(-1, 2).astype(np.float32), points * np.arange(count + 1, dtype=np.int64))
    columns: dict[str, Any] = {
        "id": pa.array(np.arange(1, count + 1, dtype=np.uint32)),
        "x": pa.array(np.round(center[:, 0], 3)),
        "y": pa.array(np.round(center[:, 1], 3)),
    }
    schema = make_schema(run.class_names, dab=run.dab)
    for field in schema:
        if field.type == pa.float32():
            largest = 1 if field.name.startswith("dab") else 300
            columns[field.name] = pa.array(random.uniform(0, largest, count).astype(np.float32))
    if run.class_names:
        columns["class"] = pa.array(np.array(run.class_names, np.object_)[random.integers(0, 3, count)], pa.string())
    metadata = {"hemalum.mpp": str(run.mpp), "hemalum.mpp_source": run.mpp_source, "hemalum.model": str(run.model)}
    nuclei = Nuclei(
        pa.table(columns).replace_schema_metadata(metadata),
        outlines,
        run.shape,
        run.mpp,
        run.mpp_source,
        run.model,
        run.source,
        {},
        run.class_names,
    )
    # one first px each: their places on a grid as wide as the slide
    first = np.column_stack([center[:, 1] // 12, center[:, 0] // 12]).astype(np.int64)
    return nuclei, first[:, 0] * (run.shape[1] // 12 + 1) + first[:, 1] + 1
