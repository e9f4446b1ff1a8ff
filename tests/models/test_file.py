"""Model files: what goes in comes out; everything else is one clear line."""

from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from hemalum.errors import HemalumError
from hemalum.models.card import Card, NetworkSpec
from hemalum.models.file import load_card, load_model_file, save_model

TENSORS = {"a": np.arange(6, dtype=np.float32).reshape(2, 3), "b": np.array([1, 2], np.int64)}


@pytest.fixture
def card() -> Card:
    return Card(
        name="tiny", network=NetworkSpec(name="unet", options={"widths": [4, 8]}), representation="distance",
        mpp=0.5, halo=16, stride=8, code_version="0.1.0",
    )  # fmt: skip


@pytest.fixture
def model(tmp_path: Path, card: Card) -> Path:
    save_model(tmp_path / "m.safetensors", card, TENSORS)
    return tmp_path / "m.safetensors"


def test_round_trip(model: Path, card: Card) -> None:
    loaded, tensors = load_model_file(model)
    assert loaded == card == load_card(model)
    assert tensors.keys() == TENSORS.keys()
    for name, value in TENSORS.items():
        np.testing.assert_array_equal(tensors[name], value)
        assert tensors[name].dtype == value.dtype


def test_non_contiguous_tensors_are_stored_as_they_look(tmp_path: Path, card: Card) -> None:
    save_model(tmp_path / "m.safetensors", card, {"a": TENSORS["a"].T})
    np.testing.assert_array_equal(load_model_file(tmp_path / "m.safetensors")[1]["a"], TENSORS["a"].T)


def test_nothing_else_is_left_in_the_folder(model: Path) -> None:
    assert [path.name for path in model.parent.iterdir()] == ["m.safetensors"]


def test_the_file_can_be_read_by_others(model: Path) -> None:
    import os

    mask = os.umask(0)
    os.umask(mask)
    assert model.stat().st_mode & 0o777 == 0o666 & ~mask


@pytest.mark.fault
def test_missing(tmp_path: Path) -> None:
    with pytest.raises(HemalumError, match=r"no such model file: .*none.safetensors"):
        load_model_file(tmp_path / "none.safetensors")


@pytest.mark.fault
@pytest.mark.parametrize("keep", [0, 4, 100, -1])
def test_truncated(model: Path, keep: int) -> None:
    model.write_bytes(model.read_bytes()[:keep])
    with pytest.raises(HemalumError, match=r"m.safetensors is not a readable model file \(corrupt or truncated\)"):
        load_model_file(model)


@pytest.mark.fault
def test_foreign_bytes(tmp_path: Path) -> None:
    path = tmp_path / "m.safetensors"
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(200))
    with pytest.raises(HemalumError, match="not a readable model file"):
        load_card(path)


@pytest.mark.fault
def test_safetensors_of_another_program(tmp_path: Path) -> None:
    save_file(TENSORS, tmp_path / "m.safetensors", metadata={"format": "pt"})
    with pytest.raises(HemalumError, match="without a hemalum card"):
        load_model_file(tmp_path / "m.safetensors")


def _with_card(path: Path, text: str) -> Path:
    save_file(TENSORS, path, metadata={"hemalum_card": text})
    return path


@pytest.mark.fault
def test_another_version(tmp_path: Path, card: Card) -> None:
    path = _with_card(tmp_path / "m.safetensors", card.model_dump_json().replace('"format":2', '"format":7'))
    with pytest.raises(HemalumError, match="has model format 7, this hemalum reads format 2"):
        load_model_file(path)


@pytest.mark.fault
def test_card_with_an_unknown_or_wrong_field(tmp_path: Path, card: Card) -> None:
    text = card.model_dump_json()
    unknown = _with_card(tmp_path / "u.safetensors", text.replace('"mpp":', '"surprise":1,"mpp":'))
    with pytest.raises(HemalumError, match="card is not valid at 'surprise'"):
        load_card(unknown)
    wrong = _with_card(tmp_path / "w.safetensors", text.replace('"mpp":0.5', '"mpp":-1'))
    with pytest.raises(HemalumError, match="card is not valid at 'mpp'"):
        load_card(wrong)
    garbled = _with_card(tmp_path / "g.safetensors", text[:40])
    with pytest.raises(HemalumError, match="card is not valid"):
        load_card(garbled)
