"""The report of a comparison: one HTML page that works offline, Markdown, figures, and tables for other programs."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from hemalum.files import atomic_path
from hemalum.report.comparison_curves import recall_table
from hemalum.report.comparison_drawing import Drawn, inline, require_report
from hemalum.report.comparison_figures import (
    by_image,
    precision_recall_figures,
    reliability_figure,
    threshold_figure,
    training_figure,
)
from hemalum.report.comparison_files import write_tables
from hemalum.report.comparison_markdown import markdown_of
from hemalum.report.comparison_parts import by_class, by_part, costs
from hemalum.report.comparison_protocol import command, data_table, methods_table, missing, protocol
from hemalum.report.comparison_results import DatasetResults, by_dataset, counted
from hemalum.report.comparison_sheet import Sheet, sheets
from hemalum.report.comparison_tables import by_threshold, every_metric, main_results, paired_tests
from hemalum.report.comparison_tests import PairedTest, caution, findings, pair_all, pair_with_reference

if TYPE_CHECKING:
    from hemalum.report.comparison_tables import Grid
    from hemalum.studies.cells import Comparison

CLAIM = (
    "Mean difference over images with its 95 % interval, from the paired tests against the reference. Better or "
    "worse is said where the interval leaves out 0 and the p value, adjusted by Holm over all tests of the dataset, "
    "is below 0.05."
)

NONE = Sheet()  # of the parts without pictures

__all__ = ["headline", "require_report", "write_comparison"]


def write_comparison(comparison: "Comparison") -> list[Path]:
    """Write the report of a comparison, finished or not, into its folder; gives the paths of the files.

    report.html (one page, nothing outside it is asked for), report.md, figures/*.svg, and tables/ with scores,
    per_image, tests and costs as CSV and Parquet. The page comes first among
    the paths. The same results give the same bytes.

    Raises HemalumError when matplotlib is not installed (extra `report`) or a file cannot be written.
    """
    require_report()
    out = comparison.out
    results = by_dataset(comparison)
    tests = {own.name: pair_with_reference(own) for own in results}
    pairs = {own.name: pair_all(own) if len(own.scored) > 2 else [] for own in results}
    pictures = sheets(comparison, results)
    slugs = _slugs([own.name for own in results])
    sections = [
        _section(own, f"data{n}", slugs[own.name], tests[own.name], pairs[own.name], pictures[own.name])
        for n, own in enumerate(results, start=1)
    ]
    page = {
        "title": "Comparison of " + _listed([method.name for method in comparison.methods]),
        "lead": _lead(comparison, results),
        "protocol": protocol(comparison),
        "command": command(comparison),
        "about": [methods_table(comparison), data_table(comparison, results)],
        "missing": missing(comparison),
        "claim": CLAIM,
        "sections": sections,
    }
    figures = [
        _write(out / figure["file"], figure["drawn"].svg)
        for section in sections
        for part in section["parts"]
        for figure in part["figures"]
    ]
    every_test = [tested for family in (tests, pairs) for own in family.values() for tested in own]
    tables = write_tables(comparison, every_test, out / "tables")
    report = [_write(out / "report.html", _html(page)), _write(out / "report.md", markdown_of(page))]
    return [*report, *figures, *tables]


def headline(comparison: "Comparison") -> list[tuple[str, tuple[list[str], list[list[str]]]]]:
    """Title, column names and rows of the main results on each dataset, for the console."""
    grids = [main_results(own) for own in by_dataset(comparison) if own.scored]
    return [
        (grid.caption, ([grid.corner, *grid.columns], [[row.head, *row.values] for row in grid.rows]))
        for grid in grids
    ]


def _section(
    results: DatasetResults,
    anchor: str,
    slug: str,
    tests: Sequence[PairedTest],
    pairs: Sequence[PairedTest],
    sheet: Sheet,
) -> dict[str, Any]:
    """All that the report says of one dataset."""
    if not results.scored:
        return {"name": results.name, "anchor": anchor, "empty": True, "parts": [], "findings": [], "about": ""}
    parts: list[tuple[str, str, list[Grid | None], list[Drawn | None], Sheet]] = [
        ("scores", "Scores", [main_results(results), every_metric(results), by_threshold(results)], [], NONE),
        ("images", "Image by image", [], [*by_image(results)], NONE),
        (
            "tests",
            "Paired tests",
            [
                paired_tests(results, tests, folded=False) if tests else None,
                paired_tests(results, pairs, folded=True) if pairs else None,
            ],
            [],
            NONE,
        ),
        (
            "curves",
            "At every threshold",
            [recall_table(results)],
            [*precision_recall_figures(results), reliability_figure(results), threshold_figure(results)],
            NONE,
        ),
        (
            "parts",
            "By organ, group and class",
            [by_part(results, "organ"), by_part(results, "group"), by_class(results)],
            [],
            NONE,
        ),
        ("pictures", "Best, median and worst image", [], [], sheet),
        ("cost", "Cost and training", [costs(results)], [training_figure(results)], NONE),
    ]
    return {
        "name": results.name,
        "anchor": anchor,
        "empty": False,
        "about": f"{counted(len(results.images), 'image')} of {counted(results.n_groups, 'group')} "
        f"with {counted(results.nuclei, 'nucleus')}",
        "findings": findings(results, tests),
        "caution": caution(results, tests),
        "methods": [method.name for method in results.methods],
        "parts": [
            {
                "anchor": f"{anchor}-{key}",
                "key": key,
                "title": title,
                "grids": [grid for grid in grids if grid is not None],
                "figures": [_figure(drawn, slug, anchor) for drawn in figures if drawn is not None],
                "sheet": pictures,
            }
            for key, title, grids, figures, pictures in parts
            if any(grids) or any(figures) or pictures.lines or pictures.absent
        ],
    }


def _figure(drawn: Drawn, slug: str, anchor: str) -> dict[str, Any]:
    return {
        "file": f"figures/{slug}-{drawn.name}.svg",
        "drawn": drawn,
        "caption": drawn.caption,
        "said": drawn.said,
        # matplotlib escapes every text in it
        "inline": Markup(inline(drawn, f"{anchor}-{drawn.name}")),
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
    images = sum(len(own.images) for own in results)
    done, absent = len(comparison.cells), len(missing(comparison))
    state = f"{counted(done, 'run')}, all finished" if not absent else f"{done} of {done + absent} runs finished"
    compared = f"{counted(len(comparison.methods), 'method')}, {counted(len(results), 'dataset')}"
    return f"{compared}, {counted(images, 'test image')}; {state}."


def _html(page: dict[str, Any]) -> str:
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    return environment.get_template("comparison.html.j2").render(page) + "\n"


def _write(path: Path, text: str) -> Path:
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8", newline="")
    return path
