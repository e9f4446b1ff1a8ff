"""The table of nuclei, as every result has it."""

import numpy as np
import pyarrow as pa

from hemalum.nuclei.morphology import Columns


def make_table(columns: Columns, mpp: float | None, mpp_source: str, model: str | None) -> pa.Table:
    """Columns (N,) of `describe` and what else was measured as a table with ids from 1; scale and model are kept."""
    count = len(columns["x"])
    arrays = {"id": pa.array(np.arange(1, count + 1, dtype=np.uint32))}
    for name, values in columns.items():
        # a thousandth of a pixel is more than any outline knows
        if name == "class":
            arrays[name] = pa.array(values, pa.string())
            continue
        rounded = np.round(values, 3) if name in ("x", "y") else values.astype(np.float32)
        arrays[name] = pa.array(rounded, from_pandas=True)
    metadata = {"mpp": str(mpp), "mpp_source": mpp_source, "model": str(model)}
    return pa.table(arrays).replace_schema_metadata({f"hemalum.{key}": v for key, v in metadata.items()})
