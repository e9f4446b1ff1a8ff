"""A model in memory: what tells one from another, and what is not there."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from hemalum.errors import HemalumError
from hemalum.models.model import Model, load_model


def test_other_weights_are_another_entry(make_tiny_model: Callable[..., Model]) -> None:
    one, two = make_tiny_model(), make_tiny_model()
    assert one.digest == two.digest
    other = Model(one.card, one.tensors | {"head.bias": one.tensors["head.bias"] + 1})
    assert other.digest != one.digest
    assert make_tiny_model(output_upsampling=2).digest != one.digest
    assert make_tiny_model(name="renamed").digest == one.digest


@pytest.mark.fault
def test_models_that_are_not_there(tmp_path: Path) -> None:
    with pytest.raises(HemalumError, match=r"^no such model file: "):
        load_model(tmp_path / "none.safetensors")
    with pytest.raises(HemalumError, match=r"^no shipped model and no file is called 'nonsense'"):
        load_model("nonsense")


@pytest.mark.fault
@pytest.mark.parametrize("model", [3, ["fast"], object()])
def test_what_names_no_model_is_refused_in_a_line(model: Any) -> None:
    with pytest.raises(HemalumError, match=rf"or a file, not {type(model).__name__}$"):
        load_model(model)
