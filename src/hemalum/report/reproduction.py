"""Published tables, and ours beside them: for the terminal, as Markdown, CSV and one HTML page."""

import csv
import io
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from hemalum import __version__
from hemalum.files import atomic_path
from hemalum.report.comparison_markdown import escaped, markdown_table
from hemalum.report.comparison_tables import Grid, Row
from hemalum.report.tables import Table
from hemalum.studies.own_figures import Ours
from hemalum.studies.published import Paper, PublishedTable, load_paper, papers
from hemalum.studies.reproduce import NOT_YET, Line, OnData, Reproduction

AVERAGED = {
    "pooled": "pooled over all pixels",
    "per_image": "mean over images",
    "support_weighted": "weighted over background and nucleus, mean over images",
}
TAGS = {"stated": "stated", "code": "its public code", "derived": "derived", "unknown": "unknown"}


def papers_table() -> Table:
    """Every table of every paper, with the rows that can be run here and what they run on."""
    rows = []
    for name in papers():
        paper = load_paper(name)
        for table in paper.tables:
            runs = ", ".join(table.runnable)
            on = ", ".join(dict.fromkeys(paper.runs_on(data) for data in table.datasets)) if runs else ""
            rows.append([name, table.id, table.title, str(len(table.rows)), runs or "–", on or "–"])
    return ["paper", "table", "what", "rows", "can be run here", "on"], rows


def published_grid(table: PublishedTable) -> Grid:
    """A table as the paper prints it, with what stands for each row here."""
    several = len(table.datasets) > 1
    heads = [
        f"{column.dataset} {column.name}" if several and column.dataset else column.name for column in table.columns
    ]
    notes: list[str] = list(table.notes)
    rows = []
    for row in table.rows:
        sds = row.sd or [None] * len(row.values)
        values = [printed(value, sd) for value, sd in zip(row.values, sds, strict=True)]
        behind = " − ".join(recipe for recipe in (row.recipe, row.minus) if recipe)
        rows.append(Row(row.method, (*values, f"recipe {behind}" if behind else row.otherwise or NOT_YET)))
        if row.note:
            notes.append(f"{row.method}: {row.note}.")
    if table.averaging is not None:
        own = [f"{row.method}: {AVERAGED[row.averaging]}" for row in table.rows if row.averaging]
        notes.insert(0, f"Averaging: {'; '.join([AVERAGED[table.averaging], *own])}.")
    if any(row.varies for row in table.rows):
        variants = dict.fromkeys(column.variant for column in table.columns if column.variant)
        notes.append(f"{{}} in a recipe is, in the order of the columns: {', '.join(variants)}.")
    return Grid(
        caption=f"{table.id}: {table.title}",
        corner="method",
        columns=(*heads, "here"),
        rows=tuple(rows),
        notes=tuple(notes),
        words=frozenset({len(heads)}),
    )


def protocol_grid(paper: Paper) -> Grid:
    """The choices of a paper's protocol, each with its tag."""
    rows = []
    for name, data in paper.datasets.items():
        sizes = "/".join(map(str, data.split.counts or data.split.fractions or ()))
        said = f"by {data.split.by}, {sizes}" + (f"; {data.split.note}" if data.split.note else "")
        rows.append(Row(f"split of {name}", (said, TAGS[data.split.tag], "")))
        rows += [
            Row(f"{what} of {name}", (_said(item), TAGS[item.tag], item.reading))
            for what, item in data.protocol.items()
        ]
    rows += [Row(what, (_said(item), TAGS[item.tag], item.reading)) for what, item in paper.protocol.items()]
    return Grid(
        caption="Protocol",
        corner="what",
        columns=("the paper", "how it is known", "our reading"),
        rows=tuple(rows),
        words=frozenset({0, 1, 2}),
    )


def paper_grids(paper: Paper, table: str | None = None) -> list[Grid]:
    """The tables of a paper, or one of them, and its protocol. Raises HemalumError for an unknown table."""
    tables = paper.tables if table is None else [paper.table(table)]
    return [*(published_grid(one) for one in tables), protocol_grid(paper)]


def data_pairs(paper: Paper) -> list[tuple[str, str]]:
    """What is cited, where the figures were taken from, and how to get each dataset."""
    where = f"https://doi.org/{paper.doi}" if paper.doi else paper.url
    pairs = [("paper", f"{paper.citation}{f'; {where}' if where else ''}"), ("figures from", paper.figures)]
    return pairs + [(f"data: {name}", f"{data.title}; {data.get}") for name, data in paper.datasets.items()]


def plain(grid: Grid) -> tuple[list[str], list[list[str]], list[str]]:
    """Headers and rows of a table for the terminal, and the headers that stand flush left."""
    left = [column for number, column in enumerate(grid.columns) if number in grid.words]
    return [grid.corner, *grid.columns], [[row.head, *row.values] for row in grid.rows], left


def _said(item: Any) -> str:
    return "; ".join(part for part in (item.says, item.note) if part)


def printed(value: str | None, sd: str | None = None) -> str:
    """A figure as printed, with a 0 before a bare point and a true minus; a dash where there is none."""
    if value is None:
        return "–"
    text = _with_zero(value) if sd is None else f"{_with_zero(value)} ± {_with_zero(sd)}"
    return text.replace("-", "−").replace("..", " to ")


def _with_zero(text: str) -> str:
    bare = text.lstrip("~<>+-")
    return f"{text.removesuffix(bare)}0{bare}" if bare.startswith(".") else text


def side_by_side(table: PublishedTable, on_data: OnData) -> tuple[Grid, Grid | None]:
    """Published, ours under the paper's protocol, ours under the honest one; and the protocols themselves."""
    notes: list[str] = []
    rows = []
    for line in on_data.lines:
        mark = _mark(f"{line.row.method}: {line.row.note}.", notes) if line.row.note else ""
        published = printed(line.printed, line.sd)
        ours = (line.status, "") if line.status else (_ours(line, line.paper), _ours(line, line.honest))
        rows.append(Row(line.row.method + mark, (line.column.name, published, *ours)))
    ran = any(line.paper or line.honest for line in on_data.lines)
    if ran:
        notes.append("How the two runs differ from the paper, and from each other, stands in the table below.")
    data = on_data.dataset if on_data.dataset == on_data.run_on else f"{on_data.dataset} (run on {on_data.run_on})"
    results = Grid(
        caption=f"{table.id}: {table.title}; {data}",
        corner="method",
        columns=("figure", "published", "ours, the paper's protocol", "ours, honest protocol"),
        rows=tuple(rows),
        notes=tuple(notes),
        words=frozenset({0}),
    )
    if not on_data.differences:
        return results, None
    protocols = Grid(
        caption=f"Protocols side by side; {data}",
        corner="what",
        columns=("the paper", "how it is known", "ours, the paper's protocol", "ours, honest protocol"),
        rows=tuple(
            Row(one.what, (one.says or "–", TAGS.get(one.tag, "–"), AVERAGED.get(one.paper, one.paper),
                           AVERAGED.get(one.honest, one.honest)))
            for one in on_data.differences
        ),
        words=frozenset({0, 1, 2, 3}),
    )  # fmt: skip
    return results, protocols


def _mark(note: str, notes: list[str]) -> str:
    numbered = [text.partition(" ")[2] for text in notes]
    if note not in numbered:
        notes.append(f"[{len(notes) + 1}] {note}")
        numbered.append(note)
    return f" [{numbered.index(note) + 1}]"


def _ours(line: Line, ours: Ours | None) -> str:
    if ours is None:
        return "failed"
    decimals = len(line.printed.partition(".")[2]) if line.printed is not None else 3
    if line.printed is None and line.column.scale == 100:
        decimals = 2
    text = f"{ours.mean:.{decimals}f}"
    if math.isfinite(ours.sd):
        text += f" ± {ours.sd:.{decimals}f} ({ours.runs} runs)"
    return text.replace("-", "−")


def reproduction_grids(reproduction: Reproduction) -> list[Grid]:
    """All tables of a reproduction, in the order of the paper."""
    grids: list[Grid] = []
    for table, parts in reproduction.tables:
        if not parts:
            grids.append(published_grid(table))
        for part in parts:
            results, protocols = side_by_side(table, part)
            grids += [results, protocols] if protocols is not None else [results]
    return grids


def write_reproduction(reproduction: Reproduction, out: Path, command: str = "") -> list[Path]:
    """Write report.html, report.md, results.csv and protocol.csv into `out`; gives the paths.

    Raises HemalumError when a file cannot be written.
    """
    paper = reproduction.paper
    page = {
        "title": f"{paper.title}: published figures and ours",
        "citation": paper.citation,
        "url": f"https://doi.org/{paper.doi}" if paper.doi else paper.url,
        "figures": paper.figures,
        "lead": f"Budget {reproduction.budget}, seeds: {reproduction.seeds}. hemalum {__version__}.",
        "command": command,
        "failed": reproduction.failed,
        "grids": reproduction_grids(reproduction),
        "tables_notes": [note for table, _ in reproduction.tables for note in table.notes],
    }
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    return [
        _write(out / "report.html", environment.get_template("reproduction.html.j2").render(page) + "\n"),
        _write(out / "report.md", _markdown(page)),
        _write(out / "results.csv", _csv(list(_results(reproduction)))),
        _write(out / "protocol.csv", _csv(list(_protocols(reproduction)))),
    ]


def _markdown(page: dict[str, Any]) -> str:
    lines = [f"# {escaped(page['title'])}", "", escaped(page["citation"]), "", escaped(page["lead"])]
    lines += ["", f"Published figures from: {escaped(page['figures'])}.", ""]
    if page["command"]:
        lines += [f"    {page['command']}", ""]
    for name, reason in page["failed"]:
        lines += [f"Failed: {escaped(name)}: {escaped(reason)}", ""]
    for grid in page["grids"]:
        lines += [*markdown_table(grid), ""]
    lines += [f"- {escaped(note)}" for note in page["tables_notes"]]
    return "\n".join(lines).rstrip() + "\n"


def _results(reproduction: Reproduction) -> list[dict[str, Any]]:
    rows = []
    for table, parts in reproduction.tables:
        for part in parts:
            for line in part.lines:
                row: dict[str, Any] = {
                    "paper": reproduction.paper.name,
                    "table": table.id,
                    "dataset": part.dataset,
                    "run_on": part.run_on,
                    "method": line.row.method,
                    "recipe": " − ".join(line.row.recipes_of(line.column)) or None,
                    "figure": line.column.name,
                    "metric": line.column.metric,
                    "paper_averaging": line.row.averaging or table.averaging,
                    "published": line.printed,
                    "published_sd": line.sd,
                }
                for name, ours in (("paper_protocol", line.paper), ("honest", line.honest)):
                    row[name] = None if ours is None else ours.mean
                    row[f"{name}_sd"] = None if ours is None or math.isnan(ours.sd) else ours.sd
                    row[f"{name}_runs"] = None if ours is None else ours.runs
                rows.append(row | {"status": line.status, "note": line.row.note})
    return rows


def _protocols(reproduction: Reproduction) -> list[dict[str, Any]]:
    return [
        {"table": table.id, "dataset": part.dataset, "what": one.what, "paper": one.says, "tag": one.tag,
         "paper_protocol": one.paper, "honest": one.honest}
        for table, parts in reproduction.tables
        for part in parts
        for one in part.differences
    ]  # fmt: skip


def _csv(rows: Sequence[dict[str, Any]]) -> str:
    stream = io.StringIO()
    writer = csv.DictWriter(stream, list(rows[0]) if rows else ["table"], lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return stream.getvalue()


def _write(path: Path, text: str) -> Path:
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8", newline="")
    return path
