"""The table of nuclei as CSV and Parquet."""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet
from numpy.typing import NDArray

from hemalum.files import atomic_path


def write_csv(path: str | Path, table: pa.Table) -> None:
    """Write a header line and one line per nucleus; null is an empty field. Raises HemalumError."""
    with atomic_path(path) as temporary:
        options = pa.csv.WriteOptions(quoting_style="needed")
        pa.csv.write_csv(table, temporary, options)


def write_parquet(
    path: str | Path,
    table: pa.Table,
    coords: NDArray[np.float32] | None = None,
    offsets: NDArray[np.int64] | None = None,
) -> None:
    """Write the table, with `polygon`, a list x, y, x, y … in px per nucleus, when rings are given.

    The schema's metadata keep mpp, its source and the model. Raises HemalumError.
    """
    if coords is not None and offsets is not None:
        flat: Any = pa.array(np.ascontiguousarray(coords, np.float32).ravel())
        rings = pa.ListArray.from_arrays(pa.array((2 * offsets).astype(np.int32)), flat)
        table = table.append_column("polygon", rings)
    with atomic_path(path) as temporary:
        pa.parquet.write_table(table, temporary, compression="zstd")
