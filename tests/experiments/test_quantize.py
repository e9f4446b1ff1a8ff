"""A model in int8: what ranges are measured on, what the card says, what is refused."""

import importlib.util
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from hemalum import cli
from hemalum.data.dataset import Dataset
from hemalum.errors import HemalumError
from hemalum.experiments import quantize as quantize_module
from hemalum.experiments.evaluate import Evaluation
from hemalum.experiments.quantize import Recorder, quantize, training_windows
from hemalum.inference.segment import segment_source
from hemalum.models.card import SamEncoding
from hemalum.models.engines import int8 as int8_module
from hemalum.models.engines.engine import make_engine
from hemalum.models.file import Int8Network
from hemalum.models.model import Model, load_model
from hemalum.slides.slide import Slide


@pytest.fixture
def with_nncf() -> None:
    """A test that asks for it is skipped without the extra `int8`."""
    if importlib.util.find_spec("nncf") is None:
        pytest.skip("the extra int8 (nncf) is not installed")


@pytest.fixture
def dark(dark_model: Path) -> Model:
    return load_model(dark_model)


@pytest.fixture
def pretend_nncf(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """In the place of NNCF: the int8 form is one that cannot be read; gives how many windows were asked with."""
    asked: list[int] = []

    def make(model: Model, windows: list[tuple[NDArray[np.uint8], int | None]]) -> Int8Network:
        asked.append(len(windows))
        return Int8Network(np.zeros(3, np.uint8), np.zeros(3, np.uint8))

    monkeypatch.setattr(quantize_module, "check_int8", lambda model: None)
    monkeypatch.setattr(quantize_module, "quantize_network", make)
    return asked


@pytest.mark.parametrize("count", [1, 4, 9])
def test_windows_are_what_inference_shows_the_network(dark: Model, mini: Path, count: int) -> None:
    dataset = Dataset.open(mini)
    engine = make_engine("openvino", dark, precision="f32")
    windows = training_windows(dark, engine, dataset, count, lambda done, total: None)
    assert 1 <= len(windows) <= count
    assert len(windows) >= min(count, len(dataset.split("train")))
    recorder = Recorder(2, 1)
    for sample in dataset.split("train"):
        with Slide.of(sample.image) as slide:
            segment_source(slide, dark, recorder, mpp=sample.require_mpp())
    shown = {images.tobytes() for images, _ in recorder.windows}
    assert {images.tobytes() for images, _ in windows} <= shown
    again = training_windows(dark, engine, dataset, count, lambda done, total: None)
    assert all(np.array_equal(one[0], other[0]) for one, other in zip(windows, again, strict=True))


@pytest.mark.fault
def test_without_nncf(dark: Model, mini: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(int8_module.importlib.util, "find_spec", lambda name: None if name == "nncf" else name)
    with pytest.raises(HemalumError, match=r"^int8 needs nncf: pip install 'hemalum\[int8\]'$"):
        quantize(dark, mini, tmp_path / "m.safetensors")
    assert not list(tmp_path.iterdir())


@pytest.mark.fault
@pytest.mark.parametrize(("part", "message"), [("train", "no training images"), ("val", "no validation images")])
def test_a_dataset_without_a_part(
    dark: Model, mini: Path, tmp_path: Path, pretend_nncf: list[int], part: str, message: str
) -> None:
    dataset = Dataset.open(mini)
    lacking = replace(dataset, rows=tuple(row for row in dataset.rows if row.split != part))
    with pytest.raises(HemalumError, match=message):
        quantize(dark, [dataset, lacking], tmp_path / "m.safetensors")
    assert not pretend_nncf


@pytest.mark.fault
def test_too_little_to_do(dark: Model, mini: Path, tmp_path: Path, pretend_nncf: list[int]) -> None:
    with pytest.raises(HemalumError, match="needs a dataset"):
        quantize(dark, [], tmp_path / "m.safetensors")
    with pytest.raises(HemalumError, match="1 windows are too few for 2 datasets"):
        quantize(dark, [mini, mini], tmp_path / "m.safetensors", windows=1)


@pytest.mark.fault
def test_a_sam_encoder_is_refused(dark: Model, mini: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(int8_module.importlib.util, "find_spec", lambda name: name)
    sam = SamEncoding(encoder="some/sam", digest="0", field=64)
    model = replace(dark, card=dark.card.model_copy(update={"sam": sam}))
    with pytest.raises(HemalumError, match=r"^model 'dark' looks through a SAM encoder"):
        quantize(model, mini, tmp_path / "m.safetensors")


@pytest.mark.fault
def test_nothing_is_written_where_the_form_is_bad(
    dark: Model, mini: Path, tmp_path: Path, pretend_nncf: list[int]
) -> None:
    with pytest.raises(HemalumError, match="its int8 form cannot be read"):
        quantize(dark, mini, tmp_path / "m.safetensors", windows=3)
    assert pretend_nncf == [3]
    assert not list(tmp_path.iterdir())


@pytest.mark.usefixtures("with_nncf")
def test_a_model_is_quantized(
    dark_model: Path, mini: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "m.safetensors"
    assert cli.main(["quantize", str(dark_model), "--data", str(mini), "-o", str(out), "--windows", "5"]) == 0
    shown = capsys.readouterr().out
    assert "of PQ pooled: mini " in shown
    assert str(out) in shown
    before, made = load_model(dark_model), load_model(out)
    assert made.card.int8 is not None
    assert made.int8 is not None
    (measured,) = made.card.int8.sets
    dataset = Dataset.open(mini)
    assert measured.name == "mini"
    assert measured.split_hash == dataset.split_hash
    assert (measured.windows, measured.images) == (5, len(dataset.split("val")))
    assert measured.pq > 0.5  # it knows what is dark
    assert measured.pq_int8 > measured.pq - 0.05
    assert made.card.model_copy(update={"int8": None}) == before.card
    assert b"i8" in made.int8.description.tobytes()  # its weights have eight bits
    image = dataset[0].image[None, :64, :64]
    maps, exact = (make_engine("openvino", made, precision=name).maps(image) for name in ("int8", "f32"))
    assert exact.std() > 0.1
    assert 0 < np.abs(maps - exact).mean() < 0.05
    assert cli.main(["info", str(out), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["int8"]["sets"][0]["pq_int8"] == measured.pq_int8
    # again, into its own file
    assert quantize(out, mini, out, windows=2).card.int8.sets[0].windows == 2  # type: ignore[union-attr]


@pytest.mark.usefixtures("with_nncf")
@pytest.mark.slow
def test_organs_and_windows_of_one_size(mini: Path, tmp_path: Path) -> None:
    import torch

    from hemalum.models.card import Card, NetworkSpec
    from hemalum.models.network import build_network
    from hemalum.targets.representations import find_representation

    torch.manual_seed(0)
    options = {"widths": [4, 8, 16], "embedding": 4, "organs": 2}
    network = build_network("seu_net", find_representation("foreground_edge", ["nucleus"]).logits, options)
    card = Card(
        name="organs", network=NetworkSpec(name="seu_net", options=options), representation="foreground_edge",
        mpp=0.5, halo=0, stride=int(network.stride), window=64, organs=["brain", "liver"], code_version="0",
    )  # fmt: skip
    model = Model(card, {name: value.numpy().copy() for name, value in network.state_dict().items()})
    made = quantize(model, mini, tmp_path / "m.safetensors", windows=4)
    image = Dataset.open(mini)[0].image[None, :64, :64]
    maps, exact = (make_engine("openvino", made, precision=name) for name in ("int8", "f32"))
    for organ in (-1, 0, 1):
        assert np.abs(maps.maps(image, organ) - exact.maps(image, organ)).mean() < 0.05


@pytest.mark.parametrize(("classes", "keys"), [(["red", "blue"], {"pq", "mpq"}), (None, {"pq"})])
def test_classes_are_scored_where_both_have_them(
    two_class_model: Path, mini: Path, classes: list[str] | None, keys: set[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    summary: dict[str, Any] = {"instance": {"pooled": {"pq": 0.51234}}}
    if classes:
        summary["classes"] = {"mpq_plus": 0.4}
    monkeypatch.setattr(quantize_module, "evaluate", lambda *args, **options: Evaluation([], summary))
    model = load_model(two_class_model)
    scores = quantize_module._scores(model, make_engine("openvino", model), Dataset.open(mini), lambda *step: None)
    assert scores.keys() == keys
    assert scores["pq"] == 0.5123
