"""A table of a report as plain text in rows: the pages, the Markdown files and the terminal draw the same one."""

from dataclasses import dataclass, field


@dataclass(frozen=True)
class Row:
    """One line; `best` are the columns in bold. A `heading` has no values and spans the table."""

    head: str
    values: tuple[str, ...] = ()
    best: frozenset[int] = frozenset()
    heading: bool = False


@dataclass(frozen=True)
class Grid:
    """A table. `spans` are headings above the columns, with how many they stand over; `folded` starts closed."""

    caption: str
    corner: str
    columns: tuple[str, ...]
    rows: tuple[Row, ...]
    spans: tuple[tuple[str, int], ...] = ()
    notes: tuple[str, ...] = ()
    folded: bool = False
    words: frozenset[int] = field(default=frozenset())  # columns of prose, set flush left


def console_table(grid: Grid) -> tuple[list[str], list[list[str]], list[str]]:
    """Headers and rows of a table for the terminal, and the headers that stand flush left.

    There headings do not span columns: of columns called alike each has its heading before its name.
    """
    over = [title for title, count in grid.spans for _ in range(count)] or [""] * len(grid.columns)
    headers = [
        f"{title} {column}".strip() if grid.columns.count(column) > 1 else column
        for title, column in zip(over, grid.columns, strict=True)
    ]
    left = [column for number, column in enumerate(headers) if number in grid.words]
    return [grid.corner, *headers], [[row.head, *row.values] for row in grid.rows], left
