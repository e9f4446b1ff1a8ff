"""Tables and texts of a report as Markdown."""

import html
import re
from collections.abc import Iterable, Sequence

from hemalum.reports.grid import Grid

_SPECIAL = re.compile(r"([\\`*_\[\]|#~])")


def markdown_page(title: str, blocks: Iterable[Sequence[str]]) -> str:
    """A page: its title, and blocks of lines with an empty line between them; a block without lines is left out."""
    lines = [f"# {escaped(title)}"]
    for block in blocks:
        lines += ["", *block] if block else []
    return "\n".join(lines) + "\n"


def markdown_list(texts: Iterable[str]) -> list[str]:
    """An item for each text."""
    return [f"- {escaped(text)}" for text in texts]


def markdown_code(text: str) -> list[str]:
    """Lines shown as they are."""
    return [f"    {line}" for line in text.splitlines()]


def markdown_table(grid: Grid) -> list[str]:
    """A table with its caption above and its notes below, line by line."""
    heads = _heads(grid)
    lines = [f"**{escaped(grid.caption)}**", ""]
    lines.append("| " + " | ".join([escaped(grid.corner), *map(escaped, heads)]) + " |")
    rules = ["---", *(":---" if k in grid.words else "---:" for k in range(len(heads)))]
    lines.append("| " + " | ".join(rules) + " |")
    for row in grid.rows:
        head = f"*{escaped(row.head)}*" if row.heading else escaped(row.head)
        values = (
            ["" for _ in heads]
            if row.heading
            else [f"**{escaped(value)}**" if k in row.best else escaped(value) for k, value in enumerate(row.values)]
        )
        lines.append("| " + " | ".join([head, *values]) + " |")
    for note in grid.notes:
        lines += ["", escaped(note)]
    return lines


def _heads(grid: Grid) -> list[str]:
    """Column headings with what stands above them, for Markdown has one line of headings only."""
    above = [text for text, count in grid.spans for _ in range(count)]
    return [
        f"{over}: {head}" if over else head
        for head, over in zip(grid.columns, above or [""] * len(grid.columns), strict=True)
    ]


def escaped(text: str) -> str:
    """Text that Markdown shows as it is, tags included, on one line."""
    return _SPECIAL.sub(r"\\\1", html.escape(" ".join(text.split()), quote=False))
