"""What a report is written to: HTML pages, the pictures in them, Markdown, and tables as CSV for other programs."""

import base64
import csv
import io
import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from PIL import Image

from hemalum.errors import counted
from hemalum.files import csv_cell, write_text
from hemalum.reports.markdown import markdown_page


def render(template: str, **page: Any) -> str:
    """Fill in a template, named by its path from this package. A name that the template lacks is an error."""
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    environment.filters["counted"] = counted
    return environment.get_template(template).render(page) + "\n"


def data_uri(image: Image.Image, kind: str, **options: Any) -> str:
    """A picture as a data URI; `kind` is "jpeg" or "png", `options` are Pillow's for it."""
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return f"data:image/{kind};base64,{base64.b64encode(stream.getvalue()).decode()}"


def write_report(
    folder: Path, template: str, page: Mapping[str, Any], markdown: Iterable[Sequence[str]]
) -> list[Path]:
    """Write report.html from a template, and report.md from the page's title and blocks of lines; gives the paths.

    Raises HemalumError when a file cannot be written.
    """
    return [
        write_text(folder / "report.html", render(template, **page)),
        write_text(folder / "report.md", markdown_page(page["title"], markdown)),
    ]


def columns_of(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """Every column that some row has, in the order in which they come."""
    return list(dict.fromkeys(name for row in rows for name in row))


def defined(value: Any) -> Any:
    """The value, None for nan and infinity."""
    return None if isinstance(value, float) and not math.isfinite(value) else value


def write_csv(path: Path, rows: Sequence[Mapping[str, Any]], empty: Sequence[str] = ()) -> Path:
    """Write rows, empty where a value is undefined or missing; without rows the columns `empty`. Gives the path.

    Raises HemalumError when the file cannot be written.
    """
    stream = io.StringIO()
    writer = csv.DictWriter(stream, columns_of(rows) or list(empty), restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows({key: csv_cell(defined(value)) for key, value in row.items()} for row in rows)
    return write_text(path, stream.getvalue())
