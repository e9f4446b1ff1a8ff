"""Published tables as the terminal and the reports show them."""

from hemalum.experiments.papers import load_paper
from hemalum.reports.reproduction import papers_table, printed, published_grid


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
