"""Results as tables of other programs and libraries."""

from collections.abc import Mapping
from importlib import import_module
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv

from hemalum.errors import HemalumError
from hemalum.files import FORMULA

CSV_OPTIONS = pyarrow.csv.WriteOptions(quoting_style="needed")


def csv_table(table: pa.Table) -> pa.Table:
    """The table as it goes into a CSV file: names that a spreadsheet would compute get a ' before them."""
    for index, field in enumerate(table.schema):
        if pa.types.is_string(field.type):
            column = table.column(index)
            computed = pc.is_in(pc.utf8_slice_codeunits(column, 0, 1), pa.array(FORMULA))
            marked = pc.binary_join_element_wise("'", column, "")
            table = table.set_column(index, field, pc.if_else(computed, marked, column))
    return table


def require_tables(package: str) -> Any:
    """A library of tables that is an extra. Raises HemalumError where it is not installed."""
    try:
        return import_module(package)
    except ImportError as error:
        raise HemalumError(f"a table of {package} needs it: pip install 'hemalum[tables]'") from error


def as_anndata(frame: Any, facts: Mapping[str, Any]) -> Any:
    """The table of nuclei, a data frame of pandas, as AnnData; `facts` are of the whole. See `Nuclei.to_anndata`."""
    anndata = require_tables("anndata")
    frame.index = frame.pop("id").astype(str)
    measured = frame.select_dtypes("number").drop(columns=["x", "y"])
    return anndata.AnnData(
        measured.astype(np.float32),
        obs=frame.drop(columns=[*measured.columns, "x", "y"]),
        obsm={"spatial": frame[["x", "y"]].to_numpy()},
        uns={"hemalum": {name: value for name, value in facts.items() if value is not None}},
    )
