"""What every metric takes: a truth, a prediction of the same shape, and pixels to leave out."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from hemalum.errors import HemalumError

Labels = NDArray[np.integer[Any]] | NDArray[np.bool_]
Mask = NDArray[np.bool_]


def check_pair(truth: Labels, prediction: Labels, ambiguous: Mask | None) -> None:
    """See that truth, prediction and the ambiguous mask are (H, W), of one shape and of a countable dtype.

    Raises HemalumError otherwise: a float map compared with a label map gives a number that means nothing.
    """
    arrays: list[tuple[str, NDArray[Any]]] = [("truth", truth), ("prediction", prediction)]
    for name, array in arrays:
        if array.ndim != 2:
            raise HemalumError(f"metrics: {name} must be an (H, W) label map or mask, not {array.shape}")
        if array.dtype.kind not in "biu":
            raise HemalumError(f"metrics: {name} {_describe_values(array)}")
        if array.dtype.kind == "i" and array.size and array.min() < 0:
            raise HemalumError(f"metrics: {name} has negative ids; 0 is background, nuclei are positive")
    if truth.shape != prediction.shape:
        raise HemalumError(f"metrics: truth is {truth.shape} but the prediction is {prediction.shape}")
    if ambiguous is not None and (ambiguous.shape != truth.shape or ambiguous.dtype != np.bool_):
        raise HemalumError(
            f"metrics: the ambiguous mask must be {truth.shape} bool, not {ambiguous.shape} {ambiguous.dtype}"
        )


def _describe_values(array: NDArray[Any]) -> str:
    nan = np.count_nonzero(np.isnan(array)) if array.dtype.kind in "fc" else 0
    problem = f"has nan in {nan} of {array.size} pixels" if nan else f"is {array.dtype}"
    return f"{problem}; give whole ids (0 = background, integer) or a bool mask, not probabilities"


def divide(numerator: float, denominator: float) -> float:
    """Quotient, nan where nothing is there to divide by."""
    return numerator / denominator if denominator else float("nan")


def mean_defined(values: list[float]) -> float:
    """Mean of the values that are defined; nan when none is."""
    array = np.asarray(values, dtype=np.float64)
    defined = array[~np.isnan(array)]
    return float(defined.mean()) if defined.size else float("nan")
