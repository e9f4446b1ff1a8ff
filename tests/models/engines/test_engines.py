"""Engines agree, converted models are kept, and what cannot run says so."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from hemalum.errors import HemalumError
from hemalum.models.engines.engine import make_engine
from hemalum.models.engines.onnx import export_onnx
from hemalum.models.file import save_model
from hemalum.models.model import Model

# largest difference from PyTorch in f32 over maps in [0, 1]: f32 differs by rounding, bf16 by its 8 bits
TOLERANCE = {"f32": 2e-5, "bf16": 0.06}


@pytest.fixture(scope="module")
def images(make_blobs: Callable[..., NDArray[np.uint8]]) -> NDArray[np.uint8]:
    return np.stack([make_blobs(64, 96, seed) for seed in range(2)])


@pytest.mark.parametrize("output_upsampling", [1, 2])
@pytest.mark.parametrize(
    ("name", "precision"), [("openvino", "f32"), ("openvino", "bf16"), ("onnx", None), ("torch", "bf16")]
)
def test_engines_agree(
    make_tiny_model: Callable[..., Model],
    images: NDArray[np.uint8],
    name: str,
    precision: str | None,
    output_upsampling: int,
) -> None:
    model = make_tiny_model(output_upsampling=output_upsampling)
    reference = make_engine("torch", model, device="cpu", precision="f32").maps(images)
    assert reference.shape == (2, 2, 64 * output_upsampling, 96 * output_upsampling)
    assert reference.std() > 0.03  # there is something to agree on
    engine = make_engine(name, model, device="cpu", precision=precision)
    maps = engine.maps(images)
    assert maps.dtype == np.float32
    assert engine.name == name
    assert np.abs(maps - reference).max() < TOLERANCE[engine.precision]
    # any size that is a multiple of the stride
    part = engine.maps(images[:1, :32, 8:52])
    assert (
        np.abs(part - make_engine("torch", model, device="cpu").maps(images[:1, :32, 8:52])).max()
        < TOLERANCE[engine.precision]
    )


@pytest.mark.parametrize("name", ["torch", "openvino", "onnx"])
def test_a_tile_with_halo_gives_what_the_image_gives(tiny_model: Model, images: NDArray[np.uint8], name: str) -> None:
    """In f32, to the rounding of sums: the network looks no further than the card's halo."""
    engine = make_engine(name, tiny_model, device="cpu", precision="f32")
    halo, full = tiny_model.card.halo, engine.maps(images[:1])
    assert 0 < halo < 48
    part = engine.maps(images[:1, :, 48 - halo :])
    assert np.abs(part[..., halo:] - full[..., 48:]).max() < 2e-6


def test_a_model_is_converted_once(
    tiny_model: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, images: NDArray[np.uint8]
) -> None:
    monkeypatch.setenv("HEMALUM_CACHE", str(tmp_path))
    first = make_engine("openvino", tiny_model, precision="f32").maps(images)
    (entry,) = (tmp_path / "openvino").iterdir()
    written = (entry / "model.bin").stat().st_mtime_ns
    second = make_engine("openvino", tiny_model, precision="f32").maps(images)
    assert (entry / "model.bin").stat().st_mtime_ns == written
    assert np.array_equal(first, second)


def test_openvino_starts_from_a_damaged_entry(
    tiny_model: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, images: NDArray[np.uint8]
) -> None:
    monkeypatch.setenv("HEMALUM_CACHE", str(tmp_path))
    first = make_engine("openvino", tiny_model, precision="f32").maps(images)
    (entry,) = (tmp_path / "openvino").iterdir()
    (entry / "model.xml").write_text("<net")
    assert np.array_equal(make_engine("openvino", tiny_model, precision="f32").maps(images), first)


def test_openvino_needs_no_torch_once_converted(
    tiny_model: Model,
    tmp_path: Path,
    make_blobs: Callable[..., NDArray[np.uint8]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("HEMALUM_CACHE", str(tmp_path))
    save_model(tmp_path / "tiny.safetensors", tiny_model.card, tiny_model.tensors)
    np.save(tmp_path / "image.npy", make_blobs(64, 64, 0))
    code = (
        "import sys, numpy as np\n"
        "from hemalum.inference.segment import segment\n"
        f"n = segment(np.load(r'{tmp_path / 'image.npy'}'), r'{tmp_path / 'tiny.safetensors'}', mpp=0.5,\n"
        "    engine='openvino')\n"
        "print('torch' in sys.modules, n.count)\n"
    )
    lines = [
        subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
        for _ in range(2)
    ]
    assert lines[0][0] == "True"
    assert lines[1][0] == "False"
    assert lines[0][1] == lines[1][1]


def test_onnx_file_holds_the_card_and_free_sizes(
    tiny_model: Model, tmp_path: Path, images: NDArray[np.uint8]
) -> None:
    onnx = pytest.importorskip("onnx")
    onnxruntime = pytest.importorskip("onnxruntime")
    path = tmp_path / "tiny.onnx"
    export_onnx(tiny_model.card, tiny_model.tensors, path)
    properties = {entry.key: entry.value for entry in onnx.load(path).metadata_props}
    assert type(tiny_model.card).model_validate_json(properties["hemalum_card"]) == tiny_model.card
    session = onnxruntime.InferenceSession(path)
    assert [entry.name for entry in session.get_inputs()] == ["images"]
    for count, height, width in ((1, 4, 4), (2, 32, 64), (1, 64, 20)):
        (maps,) = session.run(None, {"images": images[:count, :height, :width]})
        assert maps.shape == (count, 2, height, width)


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("openvin", {}, "unknown engine 'openvin', did you mean 'openvino'?"),
        ("torch", {"precision": "f16"}, "unknown precision 'f16', did you mean 'bf16'?"),
        ("torch", {"threads": 0}, "threads must be at least 1, not 0"),
        ("openvino", {"device": "cuda"}, "engine 'openvino' runs on the CPU, not on 'cuda': use `engine` torch"),
        ("onnx", {"precision": "bf16"}, "engine 'onnx' computes in f32, not bf16"),
    ],
)
def test_what_cannot_run_says_so(tiny_model: Model, name: str, options: dict[str, object], message: str) -> None:
    with pytest.raises(HemalumError) as caught:
        make_engine(name, tiny_model, **options)  # type: ignore[arg-type]
    assert str(caught.value) == message


@pytest.mark.fault
def test_a_device_that_is_not_there(tiny_model: Model) -> None:
    with pytest.raises(HemalumError, match=r"^device 'cuda:99' cannot be used: "):
        make_engine("auto", tiny_model, device="cuda:99")


CHILD_AFTER_ENGINES = """
import faulthandler, gc, signal, subprocess, sys
faulthandler.enable()
from hemalum.models.engines.openvino import OpenVinoEngine
from hemalum.models.model import load_model
model = load_model(sys.argv[1])
first = OpenVinoEngine(model)
second = OpenVinoEngine(model)
del first
del second
gc.collect()
signal.signal(signal.SIGCHLD, lambda *_: None)
subprocess.run([sys.executable, "-c", "pass"], check=True)
print("alive")
"""


def test_a_child_process_may_end_after_engines_have_gone(dark_model: Path) -> None:
    """Loaders of training data are such: each core of OpenVINO puts back a stack for signals as it goes."""
    command = [sys.executable, "-c", CHILD_AFTER_ENGINES, str(dark_model)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    assert (done.returncode, done.stdout) == (0, "alive\n"), done.stderr
