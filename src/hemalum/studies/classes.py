"""The classes of a model and of a dataset: which is which, by name."""

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from hemalum.errors import HemalumError


def class_ids(names: Sequence[str], classes: Mapping[int, str], model: str, data: str) -> NDArray[np.int32] | None:
    """(n + 1,) int32: the dataset's class id for each number of the model's classes `names`, 0 for none.

    None where the model or the dataset has no `classes`: then there is nothing to compare. Upper and lower case are
    one. Raises HemalumError, naming those that differ, unless both have the same names.
    """
    if not names or not classes:
        return None
    known = {name.casefold(): number for number, name in classes.items()}
    mine = {name.casefold(): name for name in names}
    only_model = [name for key, name in mine.items() if key not in known]
    only_data = [name for name in classes.values() if name.casefold() not in mine]
    if only_model or only_data:
        parts = [(f"only {model} has", only_model), (f"only {data} has", only_data)]
        said = "; ".join(f"{who} {', '.join(repr(name) for name in found)}" for who, found in parts if found)
        raise HemalumError(
            f"model {model} and dataset {data} have different classes of nuclei: {said}; what means the same must be "
            "called the same (dataset.yaml holds the names of the dataset's)"
        )
    return np.array([0, *(known[name.casefold()] for name in names)], np.int32)
