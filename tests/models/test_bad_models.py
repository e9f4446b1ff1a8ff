"""Model files that are damaged or made up: one line before anything is computed, with little memory."""

import json
import re
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.numpy import save_file

from builders.models import make_model
from hemalum.errors import HemalumError
from hemalum.models.file import CARD_KEY, load_model_file, save_model
from hemalum.models.map_model import build_map_model
from hemalum.models.model import Model, load_model

pytestmark = pytest.mark.fault


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> Path:
    model = make_model()
    path = tmp_path_factory.mktemp("models") / "good.safetensors"
    save_model(path, model.card, model.tensors)
    return path


def rewrite(good: Path, path: Path, weights: dict[str, Any] | None = None, **card: Any) -> Path:
    """The good model with other fields in its card, or weights."""
    with safe_open(good, framework="numpy") as file:
        content = json.loads(file.metadata()[CARD_KEY])
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    save_file(tensors | (weights or {}), path, metadata={CARD_KEY: json.dumps(content | card)})
    return path


CALIBRATION = {
    "temperature": 1.5, "data": "d", "split": "val", "split_hash": "0", "images": 3, "ece_before": 0.1,
    "ece_after": 0.05, "nll_before": 0.3, "nll_after": 0.2,
}  # fmt: skip

CARDS: dict[str, tuple[dict[str, Any], str]] = {
    "std 0": ({"std": [0.0, 0.25, 0.25]}, "'std': want numbers from 0.0001 to 10000, not 0, 0.25, 0.25"),
    "std below 0": ({"std": [-0.25] * 3}, "'std': want numbers from 0.0001 to 10000, not -0.25, -0.25, -0.25"),
    "std tiny": ({"std": [1e-30] * 3}, "'std': want numbers from 0.0001 to 10000"),
    "std NaN": ({"std": [float("nan")] * 3}, "'std.0': Input should be a finite number"),
    "mean infinite": ({"mean": [float("inf"), 0, 0]}, "'mean.0': Input should be a finite number"),
    "mean absurd": ({"mean": [1e20, 0, 0]}, "'mean': want numbers from -10000 to 10000, not 1e+20, 0, 0"),
    "mpp 0": ({"mpp": 0}, "'mpp': Input should be greater than 0.01"),
    "mpp tiny": ({"mpp": 1e-6}, "'mpp': Input should be greater than 0.01"),
    "mpp huge": ({"mpp": 1e6}, "'mpp': Input should be less than 100"),
    "mpp NaN": ({"mpp": float("nan")}, "'mpp': Input should be"),
    "mpp text": ({"mpp": "fine"}, "'mpp': Input should be a valid number"),
    "halo below 0": ({"halo": -1}, "'halo': Input should be greater than or equal to 0"),
    "halo huge": ({"halo": 10**9}, "'halo': Input should be less than or equal to 8192"),
    "stride 0": ({"stride": 0}, "'stride': Input should be greater than or equal to 1"),
    "stride huge": ({"stride": 10**6}, "'stride': Input should be less than or equal to 1024"),
    "window 0": ({"window": 0}, "'window': Input should be greater than or equal to 1"),
    "window huge": ({"window": 10**7}, "'window': Input should be less than or equal to 8192"),
    "window odd": ({"window": 250}, ": window 250 is not a multiple of stride 4"),
    "tiling huge": ({"tiling": {"window": 10**6, "halo": 32}}, "'tiling.window': Input should be less than"),
    "upsampling": ({"output_upsampling": 1000}, "'output_upsampling': Input should be less than or equal to 4"),
    "channels": ({"channels": "CMYK"}, "'channels': Input should be 'RGB', 'gray' or 'hematoxylin'"),
    "diameter": ({"nucleus_diameter_um": 1e12}, "'nucleus_diameter_um': Input should be less than 10000"),
    "organ": ({"organ": "moon"}, ": organ 'moon' is not among its organs"),
    "recall": ({"recall_target": 0.9}, ": it has no threshold for its recall_target 0.9"),
    "temperature 0": ({"calibration": CALIBRATION | {"temperature": 0}}, "'calibration.temperature': Input"),
    "temperature below 0": ({"calibration": CALIBRATION | {"temperature": -1}}, "'calibration.temperature': Input"),
    "temperature huge": (
        {"calibration": CALIBRATION | {"temperature": 1e9}},
        "'calibration.temperature': Input should be less than or equal to 20",
    ),
    "temperature NaN": (
        {"calibration": CALIBRATION | {"temperature": float("nan")}},
        "'calibration.temperature': Input should be",
    ),
    "error above 1": (
        {"calibration": CALIBRATION | {"ece_after": 1.5}},
        "'calibration.ece_after': Input should be less than or equal to 1",
    ),
    "temperature alone": ({"calibration": {"temperature": 1.5}}, "'calibration.data': Field required"),
    "calibration text": ({"calibration": "good"}, "'calibration': Input should be"),
    "threshold": ({"separation": {"foreground": 3.0}}, "'separation.foreground': Input should be less than 1"),
    "widths": (
        {"network": {"name": "compact", "options": {"widths": [10**9, 16], "depths": [0, 1]}}},
        "'network.options': 'widths': 1e+09 is too large; want at most 16,384",
    ),
    "depths": (
        {"network": {"name": "compact", "options": {"widths": [8] * 9999, "depths": [0]}}},
        "'network.options': 'widths': a list of 9,999 is too long; want at most 256",
    ),
    "network": ({"network": "unet"}, "'network': Input should be"),
    "hashes": (
        {
            "training": {
                "recipe": "r", "recipe_hash": "0", "command": "", "steps": 1, "seed": 0, "date": "",
                "data": [{"name": "a", "license": "", "split_hash": "", "samples": 1, "images": "no hashes!"}],
            }
        },
        "'training.data.0.images': String should match pattern",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", CARDS)
def test_a_card_that_cannot_be_is_refused_at_loading(good: Path, tmp_path: Path, case: str) -> None:
    changes, expected = CARDS[case]
    path = rewrite(good, tmp_path / "m.safetensors", **changes)
    with pytest.raises(HemalumError) as caught:
        load_model(path)
    line = str(caught.value)
    assert line.startswith(f"{path}: its card is not valid{'' if expected.startswith(':') else ' at '}{expected}")
    assert "\n" not in line


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    name=st.sampled_from(["encoder.0.0.0.weight", "head.weight", "head.bias", "encoder.0.0.1.running_var"]),
    value=st.sampled_from([np.nan, np.inf, -np.inf]),
    half=st.booleans(),
    data=st.data(),
)
def test_weights_that_are_not_finite_are_refused_at_loading(
    good: Path, tmp_path: Path, name: str, value: float, half: bool, data: st.DataObject
) -> None:
    weights = load_model_file(good)[1]
    damaged = np.array(weights[name], np.float16 if half else np.float32)
    count = data.draw(st.integers(1, damaged.size))
    damaged.ravel()[:count] = value
    path = rewrite(good, tmp_path / "m.safetensors", {name: damaged})
    line = (
        f"{path}: {count:,} of {damaged.size:,} weights in '{name}' are not finite (NaN or infinite): the model is "
        "damaged, or its training went wrong; take another one, or train again"
    )
    with pytest.raises(HemalumError, match=f"^{re.escape(line)}$"):
        load_model(path)


def test_variances_below_zero_are_refused(good: Path, tmp_path: Path) -> None:
    name = "encoder.0.0.1.running_var"
    negative = -np.ones_like(load_model_file(good)[1][name])
    path = rewrite(good, tmp_path / "m.safetensors", {name: negative})
    with pytest.raises(HemalumError, match="has negative variances: the model is damaged; take another one"):
        load_model(path)


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"channels": "gray"}, "model 'tiny': its network has inputs 3, and its card wants 1"),
        ({"representation": "semantic", "classes": ["a", "b", "c"]}, "weights do not fit network 'compact': 'head."),
        (
            {"network": {"name": "compact", "options": {"widths": [16384, 16384], "depths": [8, 8]}}},
            "weights do not fit network 'compact': '",
        ),
        ({"network": {"name": "unet", "options": {}}}, "weights do not fit network 'unet': '"),
        ({"network": {"name": "unett", "options": {}}}, "unknown network 'unett', did you mean 'unet'?"),
        ({"network": {"name": "compact", "options": {"wide": 3}}}, "network 'compact' does not take these options"),
    ],
)
def test_what_does_not_fit_is_refused_without_memory_for_it(
    good: Path, tmp_path: Path, changes: dict[str, Any], expected: str
) -> None:
    model = load_model(rewrite(good, tmp_path / "m.safetensors", **changes))
    tracemalloc.start()
    with pytest.raises(HemalumError) as caught:
        build_map_model(model.card, model.tensors)
    assert str(caught.value).startswith(expected)
    assert tracemalloc.get_traced_memory()[1] < 50_000_000
    tracemalloc.stop()


def test_a_file_larger_than_any_model_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "huge.safetensors"
    with path.open("wb") as stream:
        stream.truncate(5 * 2**30)  # sparse
    with pytest.raises(HemalumError, match=r"^.*huge.safetensors has 5.0 GiB: no model of hemalum has more than 4$"):
        load_model(path)


def test_a_good_model_is_read(good: Path) -> None:
    model: Model = load_model(good)
    build_map_model(model.card, model.tensors)
