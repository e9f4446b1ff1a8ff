"""Recipes by name."""

from pathlib import Path

import pytest

from hemalum.errors import HemalumError
from hemalum.training import shipped
from hemalum.training.shipped import find_recipe, shipped_recipes


def test_a_path_is_a_path(tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text("")
    assert find_recipe(tmp_path / "mine.yaml") == tmp_path / "mine.yaml"


def test_a_missing_yaml_file_is_left_to_the_reader_of_recipes(tmp_path: Path) -> None:
    assert find_recipe(tmp_path / "none.yaml") == tmp_path / "none.yaml"


@pytest.fixture
def shelf(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in ("second", "first"):
        (tmp_path / f"{name}.yaml").write_text("")
    (tmp_path / "notes.txt").write_text("")
    monkeypatch.setattr(shipped, "_SHELVES", (tmp_path / "absent", tmp_path))
    return tmp_path


def test_shipped_recipes_by_name(shelf: Path) -> None:
    assert list(shipped_recipes()) == ["first", "second"]
    assert find_recipe("second") == shelf / "second.yaml"


def test_the_nearest_name_is_named(shelf: Path) -> None:
    with pytest.raises(HemalumError, match="no shipped recipe 'frist', did you mean 'first'"):
        find_recipe("frist")
