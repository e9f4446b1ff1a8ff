"""The report of a comparison as Markdown: its tables, and links to the figures beside it."""

import html
import re
from collections.abc import Sequence
from typing import Any
from urllib.parse import quote

from hemalum.report.comparison_tables import Grid

_SPECIAL = re.compile(r"([\\`*_\[\]|#~])")


def markdown_of(page: dict[str, Any]) -> str:
    """The report from the parts that the page is made of."""
    lines = [f"# {escaped(page['title'])}", "", escaped(page["lead"]), ""]
    lines += [f"Version of this report with pictures: [report.html]({quote('report.html')})", ""]
    lines += ["## What was compared", ""]
    lines += [f"- {escaped(name)}: {escaped(value)}" for name, value in page["protocol"]]
    if page["command"]:
        lines += ["", *("    " + line for line in page["command"].splitlines())]
    for grid in page["about"]:
        lines += ["", *markdown_table(grid)]
    if page["missing"]:
        lines += ["", "Not finished:", "", *(f"- {escaped(line)}" for line in page["missing"])]
    for section in page["sections"]:
        lines += ["", f"## {escaped(section['name'])}", ""]
        if section["empty"]:
            lines += ["No run on this dataset is finished.", ""]
            continue
        lines += [f"- {escaped(sentence)}" for sentence in section["findings"]]
        if section["findings"]:
            lines += ["", escaped(page["claim"] + " " + section["caution"])]
        for part in section["parts"]:
            if part["grids"] or part["figures"]:
                lines += ["", f"### {escaped(part['title'])}"]
            for grid in part["grids"]:
                lines += ["", *markdown_table(grid)]
            for figure in part["figures"]:
                lines += [
                    "",
                    f"![{escaped(figure['said'])}]({quote(figure['file'])})",
                    "",
                    escaped(figure["caption"]),
                ]
    return "\n".join(lines).rstrip() + "\n"


def markdown_table(grid: Grid) -> Sequence[str]:
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
