"""Which images settings are chosen on."""

from pathlib import Path

import pytest

from hemalum.data.dataset import Dataset

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize(("part", "parts"), [("", {"val"}), ("train", {"train"}), ("all", {"train", "val"})])
def test_settings_are_never_chosen_on_test_images(
    part: str, parts: set[str], mini: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    from tune_separation import choose_rows

    rows = Dataset.open(mini).rows
    assert {row.split for row in rows} == {"train", "val", "test"}
    chosen = choose_rows(rows, part, "")
    assert chosen == [row for row in rows if row.split in parts]
    assert choose_rows(rows, part, "no such stain") == []
    with pytest.raises(SystemExit, match="never chosen on a test part"):
        choose_rows(rows, "test", "")
