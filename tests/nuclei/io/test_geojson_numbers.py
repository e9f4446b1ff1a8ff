"""Numbers written by hand-made compiled code read back as what they were."""

import json

import numpy as np
from hypothesis import example, given
from hypothesis import strategies as st

from hemalum.nuclei.io.geojson import _write_measurement, _write_number


def written(value: float) -> str:
    text = np.zeros(40, np.uint8)
    return bytes(text[: _write_measurement(text, 0, value)]).decode()


@given(st.floats(-1e9, 1e9, width=32))
@example(0.0)
@example(9.999999)
@example(99999.95)
@example(-0.0000004)
@example(1e-8)
@example(999999.9375)
def test_measurements_give_back_the_float32(value: float) -> None:
    text = written(value)
    if abs(value) > 1e-8:
        assert np.float32(json.loads(text)) == np.float32(value)
    assert abs(json.loads(text) - value) <= 1e-6 * abs(value) + 1e-17
    assert len(text) <= 20
    assert "." not in text or not text.endswith("0")


@given(st.integers(-(10**12), 10**12))
def test_coordinates_are_exact_thousandths(thousandths: int) -> None:
    text = np.zeros(40, np.uint8)
    assert json.loads(bytes(text[: _write_number(text, 0, thousandths, 3)]).decode()) == thousandths / 1000
