"""Published tables, and our values beside them: for the terminal, as Markdown, CSV and one HTML page."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hemalum import __version__
from hemalum.errors import counted
from hemalum.experiments.papers import Paper, PublishedTable, load_paper, papers
from hemalum.experiments.reproduce import Reproduction
from hemalum.experiments.reproduced_tables import (
    NOT_YET,
    ROW_CHOICES,
    Difference,
    Line,
    ReproducedValue,
    TablePart,
    budget_text,
)
from hemalum.reports.files import write_csv, write_report
from hemalum.reports.grid import Grid, Row
from hemalum.reports.markdown import escaped, markdown_code, markdown_list, markdown_table
from hemalum.reports.numbers import mean_text
from hemalum.reports.tables import Table

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
        behind += f", each of {', '.join(row.over)}" if row.over else ""
        rows.append(Row(row.method, (*values, f"recipe {behind}" if behind else row.otherwise or NOT_YET)))
        if row.note:
            notes.append(f"{row.method}: {row.note}.")
    if table.averaging is not None:
        of_rows = [f"{row.method}: {AVERAGED[row.averaging]}" for row in table.rows if row.averaging]
        notes.insert(0, f"Averaging: {'; '.join([AVERAGED[table.averaging], *of_rows])}.")
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
        rows.append(Row(f"split of {name}", (data.split.text, TAGS[data.split.tag], "")))
        rows += [
            Row(f"{what} of {name}", (item.text, TAGS[item.tag], item.reading))
            for what, item in data.protocol.items()
        ]
    rows += [Row(what, (item.text, TAGS[item.tag], item.reading)) for what, item in paper.protocol.items()]
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
    return [*(published_grid(printed_table) for printed_table in tables), protocol_grid(paper)]


def data_pairs(paper: Paper) -> list[tuple[str, str]]:
    """What is cited, where the figures were taken from, and how to get each dataset."""
    where = _address(paper)
    pairs = [("paper", f"{paper.citation}{f'; {where}' if where else ''}"), ("figures from", paper.figures)]
    return pairs + [(f"data: {name}", f"{data.title}; {data.get}") for name, data in paper.datasets.items()]


def _address(paper: Paper) -> str:
    return f"https://doi.org/{paper.doi}" if paper.doi else paper.url


def printed(value: str | None, sd: str | None = None) -> str:
    """A figure as printed, with a 0 before a bare point and a true minus; a dash where there is none."""
    if value is None:
        return "–"
    text = _with_zero(value) if sd is None else f"{_with_zero(value)} ± {_with_zero(sd)}"
    return text.replace("-", "−").replace("..", " to ")


def _with_zero(text: str) -> str:
    bare = text.lstrip("~<>+-")
    return f"{text.removesuffix(bare)}0{bare}" if bare.startswith(".") else text


def _side_by_side(table: PublishedTable, part: TablePart) -> list[Grid]:
    """Published, ours under the paper's protocol, ours split by group; and the protocols themselves."""
    notes: list[str] = []
    rows = []
    for line in part.lines:
        mark = _mark(f"{line.row.method}: {line.row.note}.", notes) if line.row.note else ""
        published = printed(line.printed, line.sd)
        values = (line.status, "") if line.status else (_text(line, line.paper), _text(line, line.group_split))
        rows.append(Row(line.row.method + mark, (line.column.name, published, *values)))
    if any(line.paper or line.group_split for line in part.lines):
        notes.append("How the two runs differ from the paper, and from each other, stands in the table below.")
    data = part.dataset if part.dataset == part.run_on else f"{part.dataset} (run on {part.run_on})"
    results = Grid(
        caption=f"{table.id}: {table.title}; {data}",
        corner="method",
        columns=("figure", "published", "ours, the paper's protocol", "ours, split by group"),
        rows=tuple(rows),
        notes=tuple(notes),
        words=frozenset({0}),
    )
    if not part.differences:
        return [results]
    settings = Grid(
        caption=f"What each row was given here; {data}",
        corner="method",
        columns=tuple(choice.replace("_", " ") for choice in ROW_CHOICES),
        rows=tuple(Row(row.method, tuple(row.settings.values())) for row in part.settings),
        words=frozenset(range(len(ROW_CHOICES))),
    )
    protocols = Grid(
        caption=f"Protocols side by side; {data}",
        corner="what",
        columns=("the paper", "how it is known", "ours, the paper's protocol", "ours, split by group"),
        rows=tuple(map(_protocol_row, part.differences)),
        words=frozenset({0, 1, 2, 3}),
    )
    return [results, settings, protocols]


def _protocol_row(difference: Difference) -> Row:
    settings = (AVERAGED.get(setting, setting) for setting in (difference.paper, difference.group_split))
    return Row(difference.choice, (difference.published or "–", TAGS.get(difference.tag, "–"), *settings))


def _mark(note: str, notes: list[str]) -> str:
    numbered = [text.partition(" ")[2] for text in notes]
    if note not in numbered:
        notes.append(f"[{len(notes) + 1}] {note}")
        numbered.append(note)
    return f" [{numbered.index(note) + 1}]"


def _text(line: Line, value: ReproducedValue | None) -> str:
    """A value with as many decimals as are printed."""
    if value is None:
        return "failed"
    decimals = 2 if line.column.scale == 100 else 3
    if line.printed is not None:
        decimals = len(line.printed.partition(".")[2])
    text = mean_text(value.mean, value.sd, decimals=decimals)
    if value.bases:
        return f"{text} ({counted(value.bases, 'base')}, {counted(value.runs, 'run')} each)"
    return f"{text} ({value.runs} runs)" if "±" in text else text


def reproduction_grids(reproduction: Reproduction) -> list[Grid]:
    """All tables of a reproduction, in the order of the paper."""
    return [grid for table, parts in reproduction.tables for grid in _grids_of(table, parts)]


def _grids_of(table: PublishedTable, parts: Sequence[TablePart]) -> list[Grid]:
    """A printed table with ours, its rows' settings and protocols; as it is printed where nothing of it was run."""
    return [grid for part in parts for grid in _side_by_side(table, part)] or [published_grid(table)]


def _lead(reproduction: Reproduction) -> str:
    """Budget, crops and seeds as they were run."""
    plans = [plan for by_name in reproduction.description.values() for plan in by_name.values()]
    crops = next((plan["crops"] for plan in plans if plan.get("crops")), None)
    budget = budget_text(reproduction.budget, crops)
    return f"Budget {budget}; {counted(reproduction.seeds, 'seed')}. hemalum {__version__}."


def write_reproduction(reproduction: Reproduction, out: Path, command: str = "") -> list[Path]:
    """Write report.html, report.md, results.csv and protocol.csv into `out`; gives the paths.

    Raises HemalumError when a file cannot be written.
    """
    paper = reproduction.paper
    page: dict[str, Any] = {
        "title": f"{paper.title}: published figures and ours",
        "citation": paper.citation,
        "url": _address(paper),
        "figures": paper.figures,
        "lead": _lead(reproduction),
        "command": command,
        "failed": reproduction.failed,
        "sections": [
            {"title": f"{table.id}: {table.title}", "grids": _grids_of(table, parts)}
            for table, parts in reproduction.tables
        ],
        "tables_notes": [note for table, _ in reproduction.tables for note in table.notes],
    }
    markdown = [
        [escaped(page["citation"])],
        [escaped(page["lead"])],
        [f"Published figures from: {escaped(page['figures'])}."],
        markdown_code(command),
        *([f"Failed: {escaped(name)}: {escaped(reason)}"] for name, reason in page["failed"]),
        *(
            block
            for section in page["sections"]
            for block in ([f"## {escaped(section['title'])}"], *map(markdown_table, section["grids"]))
        ),
        markdown_list(page["tables_notes"]),
    ]
    return [
        *write_report(out, "reproduction.html.j2", page, markdown),
        write_csv(out / "results.csv", _results(reproduction), empty=["table"]),
        write_csv(out / "protocol.csv", _protocols(reproduction), empty=["table"]),
    ]


def _results(reproduction: Reproduction) -> list[dict[str, Any]]:
    rows = []
    for table, parts in reproduction.tables:
        for part in parts:
            inputs = {(one.method, one.recipe): one.settings for one in part.settings}
            for line in part.lines:
                recipes = line.row.recipes_of(line.column)
                settings = inputs.get((line.row.method, recipes[0]), {}) if recipes else {}
                row: dict[str, Any] = {
                    "paper": reproduction.paper.name,
                    "table": table.id,
                    "dataset": part.dataset,
                    "run_on": part.run_on,
                    "method": line.row.method,
                    "recipe": "; ".join(map(" − ".join, line.row.recipes_by_base(line.column).values())) or None,
                    "figure": line.column.name,
                    "metric": line.column.metric,
                    "input": settings.get("input"),
                    "stain_normalization": settings.get("stain_normalization"),
                    "paper_averaging": line.row.averaging or table.averaging,
                    "published": line.printed,
                    "published_sd": line.sd,
                }
                for name, value in (("paper_protocol", line.paper), ("group_split", line.group_split)):
                    for ending, figure in (("", "mean"), ("_sd", "sd"), ("_runs", "runs")):
                        row[name + ending] = getattr(value, figure, None)
                rows.append(row | {"status": line.status, "note": line.row.note})
    return rows


def _protocols(reproduction: Reproduction) -> list[dict[str, Any]]:
    return [
        {
            "table": table.id,
            "dataset": part.dataset,
            "what": difference.choice,
            "paper": difference.published,
            "tag": difference.tag,
            "paper_protocol": difference.paper,
            "group_split": difference.group_split,
        }
        for table, parts in reproduction.tables
        for part in parts
        for difference in part.differences
    ]
