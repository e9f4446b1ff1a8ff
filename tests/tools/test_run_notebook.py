"""The notebooks of the documentation run, say what they said when they were kept, and are small."""

import json
import re
import tempfile
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
NOTEBOOKS = sorted((ROOT / "docs" / "tutorials").glob("*.ipynb"))
MOST_KB = 200
WAY_OUT = "run `make notebooks`, look at it and commit it"


@pytest.fixture
def runner(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[ModuleType]:
    """tools/run_notebook.py, with what notebooks leave in the test's folder."""
    pytest.importorskip("pandas")
    matplotlib = pytest.importorskip("matplotlib")
    monkeypatch.syspath_prepend(str(ROOT / "tools"))
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    import run_notebook

    before = matplotlib.get_backend()
    matplotlib.use("agg")
    yield run_notebook
    matplotlib.use(before)


def notebook(*cells: str) -> dict[str, Any]:
    return {"cells": [{"cell_type": "code", "source": [cell], "outputs": []} for cell in cells]}


def texts(cell: dict[str, Any]) -> list[str]:
    return ["".join(one["text"] if "text" in one else one["data"]["text/plain"]) for one in cell["outputs"]]


def test_there_are_notebooks() -> None:
    assert NOTEBOOKS


@pytest.mark.slow
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_each_notebook_runs_and_says_what_is_kept(path: Path, runner: ModuleType) -> None:
    kept = runner.read(path)
    code = [cell for cell in kept["cells"] if cell["cell_type"] == "code"]
    assert [cell["execution_count"] for cell in code] == list(range(1, len(code) + 1)), WAY_OUT
    assert not [one for cell in code for one in cell["outputs"] if one.get("name") == "stderr"], "a cell warns"
    assert runner.differences(kept, runner.run(kept)) == [], WAY_OUT


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebooks_are_small_and_lead_somewhere(path: Path, runner: ModuleType) -> None:
    text = path.read_text(encoding="utf-8")
    assert len(text) <= MOST_KB * 1024
    assert not re.search(r"/(tmp|var/folders|home|Users)/|AppData", text), "names a folder of who ran it"
    prose = "".join("".join(cell["source"]) for cell in json.loads(text)["cells"] if cell["cell_type"] == "markdown")
    for link in re.findall(r"\]\((?!https?:)([^)#]+)", prose):
        assert (path.parent / link).is_file(), link


def test_a_cell_that_raises_fails_with_its_number(runner: ModuleType) -> None:
    with pytest.raises(RuntimeError, match=r"^cell 2: KeyError: 'area'$"):
        runner.run(notebook("table = {}", "table['area']"))


def test_cells_show_what_they_print_draw_and_end_with(runner: ModuleType) -> None:
    draw = "import matplotlib.pyplot as plt\nplt.plot([1, 2])\nplt.axis('off');"
    done = runner.run(
        notebook(
            "a = 2\nprint('two')\na",
            "b = [a]\nb.pop();",
            "print(b)\nNone",
            draw,
            "import pandas\npandas.DataFrame({'x': [1]})",
        )
    )
    first, second, emptied, third, fourth = done["cells"]
    assert texts(first) == ["two\n", "2"]
    assert second["outputs"] == []
    assert texts(emptied) == ["[]\n"]
    assert [sorted(one["data"]) for one in third["outputs"]] == [["image/jpeg", "text/plain"]]
    assert sorted(fourth["outputs"][0]["data"]) == ["text/html", "text/plain"]
    assert [cell["execution_count"] for cell in done["cells"]] == [1, 2, 3, 4, 5]


@pytest.mark.parametrize(
    ("before", "after", "same"),
    [
        ("print('76 nuclei, 5,727.1 per mm²')", "print('80 nuclei, -6 per mm²')", True),
        ("print('76 nuclei')", "print('76 cells')", False),
        ("print(1)", "1", True),
        ("print(1)", "pass", False),
        ("pandas.DataFrame({'x': [1, 2]})", "pandas.DataFrame({'x': [30.5, 'a']})", True),
        ("pandas.DataFrame({'x': [1, 2]})", "pandas.DataFrame({'x': [1]})", False),
        ("pandas.DataFrame({'x': [1]})", "pandas.DataFrame({'y': [1]})", False),
        ("plt.plot([1, 2]);", "plt.plot([3, 2]);", True),
        ("plt.plot([1, 2]);", "pass", False),
    ],
)
def test_figures_may_differ_and_words_may_not(before: str, after: str, same: bool, runner: ModuleType) -> None:
    start = "import pandas\nimport matplotlib.pyplot as plt\n"
    kept, now = (runner.run(notebook(start + cell)) for cell in (before, after))
    assert (runner.differences(kept, now) == []) == same
