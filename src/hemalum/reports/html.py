"""HTML pages from the templates of this package; every page is one file without links to others."""

from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined


def render(template: str, **page: Any) -> str:
    """Fill in a template, named by its path from this package. A name that the template lacks is an error."""
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    return environment.get_template(template).render(page) + "\n"
