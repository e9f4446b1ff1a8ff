"""What is kept from run to run is mended when damaged, and done without where it cannot be kept."""

import logging
from pathlib import Path

import pytest

from hemalum.cache import cached
from hemalum.errors import HemalumError


@pytest.mark.parametrize("damage", ["flip", "truncate", "delete", "empty"])
def test_a_damaged_entry_is_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, damage: str, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("HEMALUM_CACHE", str(tmp_path))
    made = []

    def make(folder: Path) -> None:
        made.append(folder)
        (folder / "weights").write_bytes(bytes(range(256)))

    entry = cached("kind", "key", make)
    weights = entry / "weights"
    match damage:
        case "flip":
            weights.write_bytes(bytes([255, *range(1, 256)]))
        case "truncate":
            weights.write_bytes(bytes(range(255)))
        case "delete":
            weights.unlink()
        case "empty":
            for path in entry.iterdir():
                path.unlink()
    with caplog.at_level(logging.WARNING):
        assert cached("kind", "key", make) == entry
    assert weights.read_bytes() == bytes(range(256))
    assert [record.message for record in caplog.records] == [f"{entry} is damaged; it is made again"]
    assert cached("kind", "key", make) == entry
    assert len(made) == 2


def test_a_failed_making_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HEMALUM_CACHE", str(tmp_path))

    def make(folder: Path) -> None:
        (folder / "half").write_text("x")
        raise HemalumError("no")

    with pytest.raises(HemalumError):
        cached("kind", "key", make)
    assert list((tmp_path / "kind").iterdir()) == []
