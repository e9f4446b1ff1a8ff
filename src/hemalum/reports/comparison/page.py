"""The report of a comparison: one HTML page that works offline, Markdown, figures, and tables for other programs."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from markupsafe import Markup

from hemalum.errors import counted
from hemalum.files import write_text
from hemalum.reports.comparison.curves import UNITS, recall_table
from hemalum.reports.comparison.figures import (
    precision_recall_figure,
    reliability_figure,
    spread_figure,
    threshold_figure,
    training_figure,
)
from hemalum.reports.comparison.long_form import write_tables
from hemalum.reports.comparison.paired_tests import (
    PairedTest,
    caution,
    findings,
    pair_all,
    pair_with_reference,
    paired_grid,
)
from hemalum.reports.comparison.protocol import data_table, methods_table, missing, protocol
from hemalum.reports.comparison.results import DatasetResults, by_dataset
from hemalum.reports.comparison.sheet import Sheet, sheets
from hemalum.reports.comparison.tables import by_class, by_part, by_threshold, costs, every_metric, main_results
from hemalum.reports.files import write_report
from hemalum.reports.grid import Grid, console_table
from hemalum.reports.markdown import escaped, markdown_code, markdown_list, markdown_table
from hemalum.reports.style import SvgFigure, inline, require_report

if TYPE_CHECKING:
    from hemalum.experiments.records import Comparison

CLAIM = (
    "Mean difference over images with its 95 % interval, which draws trainings and groups, from the paired tests "
    "against the reference. Better or worse is said where the interval leaves out 0 and the p value, adjusted by "
    "Holm over all tests of the dataset, is below 0.05; it is the p over groups where images come in groups. Nothing "
    "is decided on one training of a method, or on fewer than six groups that differ."
)


def write_comparison(comparison: "Comparison") -> list[Path]:
    """Write the report of a comparison, finished or not, into its folder; gives the paths of the files.

    report.html (one page, nothing outside it is asked for), report.md, figures/*.svg, and tables/ with scores,
    per_image, tests and costs as CSV and Parquet. The page comes first among the paths. The same results give the
    same bytes.

    Raises HemalumError when matplotlib is not installed (extra `report`) or a file cannot be written.
    """
    require_report()
    out = comparison.out
    results = by_dataset(comparison)
    tests = {dataset.name: pair_with_reference(dataset) for dataset in results}
    pairs = {dataset.name: pair_all(dataset) if len(dataset.scored) > 2 else [] for dataset in results}
    pictures = sheets(comparison, results)
    slugs = _slugs([dataset.name for dataset in results])
    sections = [
        _section(dataset, f"data{n}", slugs[name], tests[name], pairs[name], pictures[name])
        for n, (name, dataset) in enumerate(zip(slugs, results, strict=True), start=1)
    ]
    page = {
        "title": "Comparison of " + _listed([method.name for method in comparison.methods]),
        "lead": _lead(comparison, results),
        "protocol": protocol(comparison),
        "command": str(comparison.description.get("command") or ""),
        "about": [methods_table(comparison), data_table(comparison, results)],
        "missing": missing(comparison),
        "claim": CLAIM,
        "sections": sections,
    }
    figures = [
        write_text(out / figure["file"], figure["svg"])
        for section in sections
        for part in section["parts"]
        for figure in part["figures"]
    ]
    every_test = [test for family in (tests, pairs) for of_dataset in family.values() for test in of_dataset]
    tables = write_tables(comparison, every_test, out / "tables")
    return [*write_report(out, "comparison/page.html.j2", page, _markdown(page)), *figures, *tables]


def headline(comparison: "Comparison") -> list[tuple[str, tuple[list[str], list[list[str]]]]]:
    """Title, column names and rows of the main results on each dataset, for the console."""
    grids = [main_results(dataset) for dataset in by_dataset(comparison) if dataset.scored]
    return [(grid.caption, console_table(grid)[:2]) for grid in grids]


def _section(
    results: DatasetResults,
    anchor: str,
    slug: str,
    tests: Sequence[PairedTest],
    pairs: Sequence[PairedTest],
    sheet: Sheet,
) -> dict[str, Any]:
    """The report's section on one dataset."""
    if not results.scored:
        return {"name": results.name, "anchor": anchor, "empty": True, "parts": [], "findings": [], "about": ""}

    def part(
        key: str,
        title: str,
        grids: Sequence[Grid | None] = (),
        figures: Sequence[SvgFigure | None] = (),
        pictures: Sheet = Sheet(),  # noqa: B008 (frozen)
    ) -> dict[str, Any]:
        return {
            "anchor": f"{anchor}-{key}",
            "key": key,
            "title": title,
            "grids": [grid for grid in grids if grid is not None],
            "figures": [_figure(figure, slug, anchor) for figure in figures if figure is not None],
            "sheet": pictures,
        }

    parts = [
        part("scores", "Scores", [main_results(results), every_metric(results), by_threshold(results)]),
        part("images", "Image by image", figures=[spread_figure(results, name) for name in ("dice", "pq", "aji")]),
        part("tests", "Paired tests", [paired_grid(results, tests), paired_grid(results, pairs, folded=True)]),
        part(
            "curves",
            "At every threshold",
            [recall_table(results)],
            [
                *(precision_recall_figure(results, unit) for unit in UNITS),
                reliability_figure(results),
                threshold_figure(results),
            ],
        ),
        part(
            "parts",
            "By organ, group and class",
            [by_part(results, "organ"), by_part(results, "group"), by_class(results)],
        ),
        part("pictures", "Best, median and worst image", pictures=sheet),
        part("cost", "Cost and training", [costs(results)], [training_figure(results)]),
    ]
    return {
        "name": results.name,
        "anchor": anchor,
        "empty": False,
        "about": f"{counted(len(results.images), 'image')} of {counted(results.n_groups, 'group')} "
        f"with {counted(results.nuclei, 'nucleus')}",
        "findings": findings(tests),
        "caution": caution(results, tests),
        "methods": [method.name for method in results.methods],
        "parts": [p for p in parts if p["grids"] or p["figures"] or p["sheet"].lines or p["sheet"].absent],
    }


def _figure(figure: SvgFigure, slug: str, anchor: str) -> dict[str, Any]:
    return {
        "file": f"figures/{slug}-{figure.name}.svg",
        "svg": figure.svg,
        "caption": figure.caption,
        "alt_text": figure.alt_text,
        # matplotlib escapes every text in it
        "inline": Markup(inline(figure, f"{anchor}-{figure.name}")),
    }


def _slugs(names: Sequence[str]) -> dict[str, str]:
    """A file name for each dataset, no two alike."""
    slugs: dict[str, str] = {}
    for name in names:
        plain = re.sub(r"[^A-Za-z0-9_-]+", "-", name) or "data"
        slug = plain
        while slug.lower() in {other.lower() for other in slugs.values()}:
            slug = f"{slug}-{len(slugs) + 1}"
        slugs[name] = slug
    return slugs


def _listed(names: Sequence[str]) -> str:
    if len(names) > 4:
        return counted(len(names), "method")
    return " and ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)


def _lead(comparison: "Comparison", results: Sequence[DatasetResults]) -> str:
    images = sum(len(dataset.images) for dataset in results)
    done, absent = len(comparison.runs), len(missing(comparison))
    runs = counted(done + absent, "run")
    state = f"{done} of {runs} finished" if absent else f"{runs}, all finished"
    compared = f"{counted(len(comparison.methods), 'method')}, {counted(len(results), 'dataset')}"
    return f"{compared}, {counted(images, 'test image')}; {state}."


def _markdown(page: dict[str, Any]) -> list[list[str]]:
    """The report as blocks of Markdown: its tables, and links to the figures beside it."""
    blocks = [
        [escaped(page["lead"])],
        [f"Version of this report with pictures: [report.html]({quote('report.html')})"],
        ["## What was compared"],
        [f"- {escaped(name)}: {escaped(value)}" for name, value in page["protocol"]],
        markdown_code(page["command"]),
        *map(markdown_table, page["about"]),
    ]
    if page["missing"]:
        blocks += [["Not finished:"], markdown_list(page["missing"])]
    for section in page["sections"]:
        blocks.append([f"## {escaped(section['name'])}"])
        if section["empty"]:
            blocks.append(["No run on this dataset is finished."])
        if section["findings"]:
            blocks += [markdown_list(section["findings"]), [escaped(page["claim"] + " " + section["caution"])]]
        for part in section["parts"]:
            if part["grids"] or part["figures"]:
                blocks.append([f"### {escaped(part['title'])}"])
            blocks += map(markdown_table, part["grids"])
            for figure in part["figures"]:
                picture = f"![{escaped(figure['alt_text'])}]({quote(figure['file'])})"
                blocks += [[picture], [escaped(figure["caption"])]]
    return blocks
