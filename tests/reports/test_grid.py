"""A table for the terminal, where headings do not span columns."""

from hemalum.reports.grid import Grid, Row, console_table


def test_columns_called_alike_have_their_heading_before_them() -> None:
    rows = (Row("held out", ("2", "0.5", "0.6", "0.7", "0.8")),)
    grid = Grid("Scores", "on", ("images", "old", "new", "old", "new"), rows, (("", 1), ("PQ", 2), ("Dice", 2)))
    assert console_table(grid)[:2] == (
        ["on", "images", "PQ old", "PQ new", "Dice old", "Dice new"],
        [["held out", "2", "0.5", "0.6", "0.7", "0.8"]],
    )
    assert console_table(Grid("", "", ("old", "new"), ()))[0] == ["", "old", "new"]
