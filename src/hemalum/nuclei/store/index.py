"""Number and bounds of the nuclei of each part: which parts lie in a window is known without opening them."""

import logging
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet
from numpy.typing import NDArray

from hemalum.errors import one_line
from hemalum.files import atomic_path
from hemalum.nuclei.store.parts import BOX, open_part, stored_bounds
from hemalum.nuclei.store.run import Region

log = logging.getLogger(__name__)

NO_BOUNDS = (np.inf, np.inf, -np.inf, -np.inf)  # of an empty part: no window touches it
READERS = 8  # files opened at once: on a network drive each waits


class PartIndex(NamedTuple):
    """Of each region the number of its nuclei, `counts` (N,), and their `bounds` (N, 4) x, y, x, y in px."""

    regions: list[Region]
    counts: NDArray[np.int64]
    bounds: NDArray[np.float64]

    def near(self, window: NDArray[np.float64]) -> list[Region]:
        """The regions with nuclei that may touch a window (4,) x, y, x, y."""
        touching = (self.bounds[:, :2] < window[2:]).all(axis=1) & (self.bounds[:, 2:] > window[:2]).all(axis=1)
        return [self.regions[k] for k in np.flatnonzero(touching)]


def survey_parts(regions: Sequence[Region], paths: Sequence[Path]) -> PartIndex:
    """The index by what the files of the parts say of themselves. Raises HemalumError for a damaged one."""

    def look(path: Path) -> tuple[int, Any]:
        with open_part(path) as file:
            bounds = stored_bounds(file.metadata)
            return file.metadata.num_rows, NO_BOUNDS if bounds is None else bounds

    with ThreadPoolExecutor(READERS) as pool:
        known = list(pool.map(look, paths))
    counts = np.array([count for count, _ in known], np.int64)
    return PartIndex(list(regions), counts, np.array([box for _, box in known], np.float64).reshape(-1, 4))


def write_index(path: Path, index: PartIndex) -> None:
    """Write the index as one small table. Raises HemalumError when it cannot be written."""
    rows, columns = np.array(index.regions, np.int32).reshape(-1, 2).T
    bounds = {name: index.bounds[:, k] for k, name in enumerate(BOX)}
    with atomic_path(path) as temporary:
        pa.parquet.write_table(
            pa.table({"row": rows, "column": columns, "nuclei": index.counts, **bounds}), temporary
        )


def read_index(path: Path) -> PartIndex | None:
    """The index that was written; None, and a line in the log, where there is none or it cannot be read."""
    try:
        with pa.parquet.ParquetFile(path) as file:
            table = file.read(use_threads=False)
        rows, columns, counts = (table.column(name).to_numpy() for name in ("row", "column", "nuclei"))
        bounds = np.column_stack([table.column(name).to_numpy() for name in BOX]).astype(np.float64)
        regions = list(zip(rows.astype(int).tolist(), columns.astype(int).tolist(), strict=True))
        return PartIndex(regions, counts.astype(np.int64), bounds)
    except (OSError, pa.ArrowException, KeyError, TypeError, ValueError) as error:
        log.warning("%s: cannot be read (%s); the parts are looked at one by one", path, one_line(error))
        return None
