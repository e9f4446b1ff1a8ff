"""The picture of what one method changes against another."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from builders.comparisons import comparison as make
from hemalum.errors import HemalumError
from hemalum.experiments.records import Comparison
from hemalum.reports.comparison.sheet import GAINED, LOST, STRIPED
from hemalum.reports.figures import difference
from hemalum.reports.figures.contact_sheet import Sheet
from hemalum.reports.figures.difference import list_changes, write_difference


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Comparison:
    return make(tmp_path_factory.mktemp("difference"))


def sheet_of(made: Comparison, first: str, second: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Sheet:
    sheets: list[Any] = []

    def kept(sheet: Sheet) -> Image.Image:
        sheets.append(sheet)
        return Image.new("RGB", (4, 4))

    monkeypatch.setattr(difference, "draw_sheet", kept)
    write_difference(made, first, second, tmp_path / "a.png", next(iter(made.datasets)))
    return sheets[0]


def test_rows_are_the_most_gained_the_median_and_the_most_lost(made: Comparison) -> None:
    name = next(iter(made.datasets))
    changes = list_changes(made, "first", "second", name)
    gains = [change.gain for change in changes]
    assert gains == sorted(gains, reverse=True)
    seeds = {(run.seed, run.method): run for run in made.runs if run.dataset == name}
    for change in changes:
        assert [run.seed for run in change.runs] == [1, 1]  # the least seed that both have
        for side, method in (("first", "first"), ("second", "second")):
            row = next(row for row in seeds[1, method].per_image if row["id"] == change.image)
            assert getattr(change, side) == row["dice"]


def test_the_difference_shows_what_is_gained_and_lost(
    made: Comparison, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    there = sheet_of(made, "first", "second", monkeypatch, tmp_path)
    back = sheet_of(made, "second", "first", monkeypatch, tmp_path)
    assert [there.rows[row].lines[1] for row in (0, 2)] == [back.rows[row].lines[1] for row in (2, 0)]

    def share(sheet: Sheet, row: int, color: tuple[int, int, int]) -> float:
        picture = sheet.rows[row].panels[4].picture
        return float(sum((picture == one).all(axis=2).mean() for one in {color, STRIPED.get(color, color)}))

    assert share(there, 0, GAINED) > share(there, 0, LOST)
    assert share(there, 0, GAINED) == pytest.approx(share(back, 2, LOST), rel=0.2)  # blurred between stripes
    gained = float(there.rows[0].panels[4].note.split()[1].rstrip("%,")) / 100
    # pictures are enlarged from 48 px: shares of whole pixels stay, up to the blurred rims
    assert share(there, 0, GAINED) == pytest.approx(gained, abs=0.02)
    assert there.columns[2][0] == "first"
    assert "better on" in there.subtitle


@pytest.mark.parametrize("ending", ["png", "jpg"])
def test_a_picture_is_written(made: Comparison, ending: str, tmp_path: Path) -> None:
    path = write_difference(made, "first", "floor", tmp_path / f"a.{ending}", next(iter(made.datasets)))
    with Image.open(path) as picture:
        assert picture.width > 5 * difference.PICTURE
        pixels = np.asarray(picture.convert("RGB"))
    assert len(np.unique(pixels.reshape(-1, 3), axis=0)) > 6


def test_a_method_without_seeds_is_set_against_the_first_seed(made: Comparison) -> None:
    pairs = {tuple(run.seed for run in change.runs) for change in list_changes(made, "floor", "second", "alpha")}
    assert pairs == {(0, 1)}


@pytest.mark.fault
def test_an_unfinished_method_is_said(tmp_path: Path) -> None:
    half = make(tmp_path, datasets=("alpha",), missing=(("alpha", "second", 1), ("alpha", "second", 2)))
    with pytest.raises(
        HemalumError, match="first and second have no image of alpha in common that both have finished"
    ):
        write_difference(half, "first", "second", tmp_path / "a.png")


@pytest.mark.fault
def test_a_prediction_that_is_gone_is_named(tmp_path: Path) -> None:
    bare = make(tmp_path, datasets=("alpha",))
    for run in bare.runs:
        for file in (run.folder / "predictions").iterdir():
            file.unlink()
    with pytest.raises(HemalumError, match=r"predictions: no label map of image\d\d that fits its image"):
        write_difference(bare, "first", "second", tmp_path / "a.png")
    assert not (tmp_path / "a.png").exists()


@pytest.mark.fault
@pytest.mark.parametrize(
    ("first", "second", "file", "data", "message"),
    [
        ("first", "secnd", "a.png", None, "has no method 'secnd', did you mean 'second'"),
        ("first", "first", "a.png", None, "'first' against itself"),
        ("first", "second", "a.svg", None, "the picture is a .png or a .jpg"),
        ("first", "second", "a.png", "tnbc", "has no dataset 'tnbc'"),
        ("first", "second", "a.png", None, "has several datasets, choose one with `data`: alpha, beta"),
    ],
)
def test_what_is_not_there(
    made: Comparison, first: str, second: str, file: str, data: str | None, message: str, tmp_path: Path
) -> None:
    with pytest.raises(HemalumError, match=message):
        write_difference(made, first, second, tmp_path / file, data)
