"""Results as the data frames of other libraries."""

from collections.abc import Mapping
from importlib import import_module
from typing import Any

import numpy as np

from hemalum.errors import HemalumError


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
