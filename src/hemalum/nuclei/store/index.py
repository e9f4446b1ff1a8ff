"""Number and bounds of the nuclei of each part: which parts lie in a window is known without opening them."""

import logging
import re
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet
from numpy.typing import NDArray

from hemalum.errors import HemalumError, counted, one_line
from hemalum.files import atomic_path
from hemalum.nuclei.store.parts import BOX, open_part, part_bounds
from hemalum.nuclei.store.run import Region, RegionGrid

log = logging.getLogger(__name__)

SCHEMA = pa.schema(
    [("row", pa.int32()), ("column", pa.int32()), ("nuclei", pa.int64()), *((name, pa.float64()) for name in BOX)]
)
PART = re.compile(r"(\d+)_(\d+)\.parquet")
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


def part_name(region: Region) -> str:
    """The name of the file of a region."""
    return f"{region[0]}_{region[1]}.parquet"


def list_parts(folder: Path) -> list[Region]:
    """The regions whose files are in a folder, by row and column; none where there is no folder."""
    try:
        names = [PART.fullmatch(entry.name) for entry in folder.iterdir()]
    except OSError:
        return []
    return sorted((int(match[1]), int(match[2])) for match in names if match)


def check_grid(path: Path, regions: list[Region], grid: RegionGrid) -> list[Region]:
    """Give the regions of the store `path`. Raises HemalumError for one that is not in its grid: no run made it."""
    for region in regions:
        if region[0] >= grid.rows or region[1] >= grid.columns:
            raise HemalumError(
                f"{path}: {part_name(region)} is not of this store, whose grid is {grid.rows} x {grid.columns}; "
                "remove it"
            )
    return regions


def check_listed(path: Path, listed: list[Region], there: list[Region]) -> None:
    """Raise HemalumError unless the parts that the store `path` lists, and no others, are there."""
    missing, strange = sorted(set(listed) - set(there)), sorted(set(there) - set(listed))
    if missing:
        raise HemalumError(
            f"{path}: {len(missing)} of its {counted(len(listed), 'part')} are missing, the first is "
            f"{part_name(missing[0])}; put them back, or run again: they alone are made anew"
        )
    if strange:
        raise HemalumError(
            f"{path}: {part_name(strange[0])} came after the store was complete, {counted(len(strange), 'part')} in "
            "all; remove what is not of it, or run again"
        )


def check_number(path: Path, expected: int | None, there: int) -> None:
    """Raise HemalumError unless the store `path` has as many parts as when it was complete, if that is known.

    For a store without its index: which part it is cannot be said.
    """
    if expected is not None and there != expected:
        raise HemalumError(
            f"{path}: holds {counted(there, 'part')} and was complete with {expected:,}; put them right, or run "
            "again: what is missing is made anew"
        )


def survey_parts(regions: Sequence[Region], paths: Sequence[Path], schema: pa.Schema) -> PartIndex:
    """The index by what the files of the parts say of themselves.

    Raises HemalumError for a part that is damaged or of another schema.
    """

    def look(path: Path) -> tuple[int, Any]:
        with open_part(path, schema) as file:
            bounds = part_bounds(file)
            return file.metadata.num_rows, NO_BOUNDS if bounds is None else bounds

    with ThreadPoolExecutor(READERS) as pool:
        known = list(pool.map(look, paths))
    counts = np.array([count for count, _ in known], np.int64)
    return PartIndex(list(regions), counts, np.array([box for _, box in known], np.float64).reshape(-1, 4))


def write_index(path: Path, index: PartIndex) -> None:
    """Write the index as one small table. Raises HemalumError when it cannot be written."""
    rows, columns = np.array(index.regions, np.int32).reshape(-1, 2).T
    values = [rows, columns, index.counts, *index.bounds.T]
    with atomic_path(path) as temporary:
        pa.parquet.write_table(pa.table(values, schema=SCHEMA), temporary)


def read_index(path: Path) -> PartIndex | None:
    """The index that was written; None, and a line in the log, where there is none or it cannot be read."""
    try:
        with pa.parquet.ParquetFile(path) as file:
            table = file.read(use_threads=False)
        if not table.schema.equals(SCHEMA) or any(column.null_count for column in table.columns):
            raise ValueError("has other columns, or gaps")
        rows, columns, counts, *bounds = (column.to_numpy() for column in table.columns)
        return PartIndex(list(zip(rows.tolist(), columns.tolist(), strict=True)), counts, np.column_stack(bounds))
    except (OSError, pa.ArrowException, ValueError) as error:
        log.warning("%s: cannot be read (%s); the parts are looked at one by one", path, one_line(error))
        return None
