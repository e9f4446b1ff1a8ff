"""Numbers written by hand-made compiled code read back as what they were."""

import json
import math

import numpy as np
from hypothesis import example, given
from hypothesis import strategies as st

from hemalum.nuclei.io.geojson import _write_measurement, _write_number


def written(value: float) -> str:
    text = np.zeros(40, np.uint8)
    return bytes(text[: _write_measurement(text, 0, value)]).decode()


@given(st.floats(-1e9, 1e9))
@example(0.0)
@example(9.999999)
@example(99999.95)
@example(-0.0000004)
def test_measurements_keep_six_digits(value: float) -> None:
    text = written(value)
    assert math.isclose(json.loads(text), value, rel_tol=5.1e-6, abs_tol=5.1e-7)
    assert len(text) <= 14
    assert "." not in text or not text.endswith("0")


@given(st.integers(-(10**12), 10**12))
def test_coordinates_are_exact_hundredths(hundredths: int) -> None:
    text = np.zeros(40, np.uint8)
    assert json.loads(bytes(text[: _write_number(text, 0, hundredths, 2)]).decode()) == hundredths / 100
