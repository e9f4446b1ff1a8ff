"""Results as tables of other programs and libraries."""

from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.parquet

from hemalum.errors import HemalumError, printable
from hemalum.files import FORMULA, atomic_path
from hemalum.nuclei.polygons import Polygons

POSITIONS = ("x_px", "y_px", "x_um", "y_um")
CSV_OPTIONS = pyarrow.csv.WriteOptions(quoting_style="needed")


def with_image(
    table: pa.Table, image: str | None, mpp: float | None, mpp_source: str, *, source: str | None
) -> pa.Table:
    """The table as it leaves the program: every row says of which image it is, and at which scale.

    `image`, else the file name of `source`, comes first, `mpp` (µm per px) and `mpp_source` last; the centroid x, y
    is named x_px, y_px, and in µm x_um, y_um (null without mpp).
    """
    renamed = table.rename_columns([{"x": "x_px", "y": "y_px"}.get(name, name) for name in table.column_names])
    if image is None and source is not None:
        image = printable(Path(source).name)
    rows, at = renamed.num_rows, renamed.column_names.index("y_px") + 1
    for name in ("y", "x"):
        values = pa.nulls(rows, pa.float64())
        if mpp is not None:
            values = pc.round(pc.multiply(pc.cast(table.column(name), pa.float64()), pa.scalar(mpp)), 4)
        renamed = renamed.add_column(at, f"{name}_um", values)
    ends = {"mpp": pa.repeat(pa.scalar(mpp, pa.float64()), rows), "mpp_source": pa.repeat(mpp_source, rows)}
    for name, values in ends.items():
        renamed = renamed.append_column(name, values)
    return renamed.add_column(0, "image", pa.repeat(pa.scalar(image, pa.string()), rows)).replace_schema_metadata(
        table.schema.metadata
    )


def csv_table(table: pa.Table) -> pa.Table:
    """The table as it goes into a CSV file: names that a spreadsheet would compute get a ' before them."""
    for index, field in enumerate(table.schema):
        if pa.types.is_string(field.type):
            column = table.column(index)
            computed = pc.is_in(pc.utf8_slice_codeunits(column, 0, 1), pa.array(FORMULA))
            marked = pc.binary_join_element_wise("'", column, "")
            table = table.set_column(index, field, pc.if_else(computed, marked, column))
    return table


def write_csv(path: Path | str, table: pa.Table) -> None:
    """Write a table as CSV, in UTF-8. Raises HemalumError when it cannot be written."""
    with atomic_path(path) as temporary, temporary.open("wb") as stream:
        pyarrow.csv.write_csv(csv_table(table), stream, CSV_OPTIONS)


def write_parquet(path: Path | str, table: pa.Table, outlines: Polygons) -> None:
    """Write a table as Parquet, with a column `polygon`: x, y, x, y … in px. Raises as `write_csv` does."""
    flat = pa.array(np.ascontiguousarray(outlines.coords, np.float32).ravel())
    rings = pa.ListArray.from_arrays(pa.array((2 * outlines.offsets).astype(np.int32)), flat)
    with atomic_path(path) as temporary, temporary.open("wb") as stream:
        pyarrow.parquet.write_table(table.append_column("polygon", rings), stream, compression="zstd")


def require_tables(package: str, extra: str = "tables") -> Any:
    """A library of tables that is an extra. Raises HemalumError where it is not installed."""
    try:
        return import_module(package)
    except ImportError as error:
        raise HemalumError(f"a table of {package} needs it: pip install 'hemalum[{extra}]'") from error


def as_anndata(frame: Any, facts: Mapping[str, Any]) -> Any:
    """The table of nuclei, a data frame of pandas, as AnnData; `facts` are of the whole. See `Nuclei.to_anndata`."""
    anndata = require_tables("anndata")
    frame.index = frame.pop("id").astype(str)
    measured = frame.select_dtypes("number").drop(columns=[*POSITIONS, "mpp"])
    return anndata.AnnData(
        measured.astype(np.float32),
        obs=frame.drop(columns=[*measured.columns, *POSITIONS, "mpp", "mpp_source"]),
        obsm={"spatial": frame[["x_px", "y_px"]].to_numpy()},
        uns={"hemalum": {name: value for name, value in facts.items() if value is not None}},
    )


def as_spatialdata(frame: Any, mpp: float | None) -> Any:
    """A GeoDataFrame of nuclei as SpatialData: shapes `nuclei`, in "global" (px) and, with mpp, "microns"."""
    library = require_tables("spatialdata", "spatialdata")
    transformations = import_module("spatialdata.transformations")
    systems = {"global": transformations.Identity()}
    if mpp is not None:
        systems["microns"] = transformations.Scale([mpp, mpp], axes=("x", "y"))
    model = import_module("spatialdata.models").ShapesModel
    return library.SpatialData(shapes={"nuclei": model.parse(frame.set_index("id"), transformations=systems)})
