"""Published tables as the terminal and the reports show them."""

import re
from html import unescape
from pathlib import Path
from typing import Any

import pytest

from hemalum.data.augmentation.settings import NO_AUGMENTATION
from hemalum.experiments.papers import load_paper
from hemalum.experiments.reproduce import Reproduction
from hemalum.experiments.reproduced_tables import ROW_CHOICES, _recipe_text
from hemalum.models.card import NetworkSpec
from hemalum.reports.reproduction import papers_table, printed, published_grid, write_reproduction
from hemalum.training.recipe import Recipe, open_recipes, shipped_recipes


def test_figures_are_shown_as_printed() -> None:
    assert [printed(text) for text in (".810", "-165.1", "+.7..1.3", "~77", ">80", None)] == [
        "0.810",
        "−165.1",
        "+0.7 to 1.3",
        "~77",
        ">80",
        "–",
    ]
    assert printed(".9053", ".0898") == "0.9053 ± 0.0898"


def test_a_published_table_says_what_stands_for_each_row() -> None:
    grid = published_grid(load_paper("two_stage").table("results"))
    assert grid.columns[:2] == ("lizard P", "lizard R")
    first, second = grid.rows[:2]
    assert first.values == ("0.810", "0.768", "0.786", "0.665", "0.800", "0.857", "0.827", "0.705", first.values[-1])
    assert first.values[-1] == "recipe {}:unet"
    assert second.values[-1] == "recipe {}:unet_two_stage"
    size = published_grid(load_paper("two_stage").table("size")).rows[0]
    assert size.values[-1] == "compare prints what networks have: over any base the difference is 76,289"
    assert "Averaging: mean over images." in grid.notes
    assert "{} in a recipe is, in the order of the columns: two_stage_lizard, two_stage." in grid.notes


def test_the_list_of_papers_names_every_table() -> None:
    headers, rows = papers_table()
    assert headers[:2] == ["paper", "table"]
    assert len(rows) == sum(len(load_paper(name).tables) for name in dict.fromkeys(row[0] for row in rows))
    assert ["two_stage", "results", "U-Net, U-Net†, Micro-Net, Micro-Net†, U-Net++, U-Net++†", "lizard, tnbc"] in [
        [r[0], r[1], r[4], r[5]] for r in rows
    ]


def test_a_page_has_a_heading_for_each_table_and_says_what_was_run(tmp_path: Path) -> None:
    paper = load_paper("al_net")
    plans = {protocol: {"dsb2018": {"crops": 640}} for protocol in ("paper", "group_split")}
    made = Reproduction(paper, tuple((table, ()) for table in paper.tables), "small", 1, plans)
    write_reproduction(made, tmp_path)
    page, text = (tmp_path / "report.html").read_text(), (tmp_path / "report.md").read_text()
    for table in paper.tables:
        assert f"<h2>{table.id}: {table.title}</h2>" in unescape(page)
    assert text.count("\n## ") == len(paper.tables)
    for written in (page, text):
        assert "Budget small, each training cut to 640 crops; 1 seed. hemalum" in written


def all_recipes() -> list[Recipe]:
    return [recipe for name in shipped_recipes() for recipe in open_recipes(name).values()]


@pytest.mark.slow
def test_no_setting_of_a_recipe_reads_as_python() -> None:
    for recipe in all_recipes():
        for choice in (*ROW_CHOICES, "network", "batch", "threshold"):
            text = _recipe_text(recipe, choice)
            assert not re.search(r"[{}'\[\]]|None|True|False", text.replace("[0, 1]", "")), (
                f"{recipe.name} {choice}: {text}"
            )


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({}, "unet"),
        ({"widths": [64, 128], "norm": True}, "unet (widths 64, 128; norm on)"),
        ({"base": {"name": "unet", "options": {"widths": [4, 8]}}}, "unet (base unet (widths 4, 8))"),
        ({"base": {"name": "unet", "options": {}}, "organs": None}, "unet (base unet; organs none)"),
        ({"rates": [[1, 2], [1, 3]], "drop": 0.10}, "unet (rates 1, 2, 1, 3; drop 0.1)"),
    ],
)
def test_a_network_is_told_in_words(options: dict[str, Any], text: str) -> None:
    assert NetworkSpec(name="unet", options=options).text == text


@pytest.mark.parametrize("flips", ["horizontal", True, False])
def test_an_augmentation_is_told_in_words(recipe: Recipe, flips: str | bool) -> None:
    changed = recipe.model_copy(update={"augment": NO_AUGMENTATION.model_copy(update={"flips": flips})})
    expected = {"horizontal": "flips horizontal", True: "flips", False: "none"}[flips]
    assert _recipe_text(changed, "augmentation") == expected
