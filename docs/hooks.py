"""What the site needs beside the pages: the page of the verbs, notebooks as pages, and links that leave docs/.

Pages are written so that their links work on GitHub, where they lead to files of the repository. Here those that
leave docs/ become links to the repository, or to the two pages that are made of files above docs/. A link or a path
in backticks that leads nowhere is a warning, and `mkdocs build --strict` fails by it.
"""

import html
import json
import logging
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

log = logging.getLogger("mkdocs.plugins.hemalum")

ROOT = Path(__file__).resolve().parents[1]
COPIED = {"changelog.md": "CHANGELOG.md", "contributing.md": "CONTRIBUTING.md"}
NOTEBOOK = ".ipynb"
LINK = re.compile(r"(\]\()([^)#\s]+)((?:#[^)\s]*)?\))")
PATH = re.compile(r"`((?:src/hemalum|tests|benchmarks|tools|docs)/[\w./-]+)`")
CELL_CODE = re.compile(r"`[^`\n]*\\\|[^`\n]*`")  # GitHub wants a bar in a table's code escaped, Python-Markdown shows
CODE = re.compile(r"^(?: {4}|\t)[^\n]*$|^```.*?^```$", re.MULTILINE | re.DOTALL)


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages that are files above docs/, and one for each notebook."""
    for name, source in COPIED.items():
        files.append(File.generated(config, name, content=(ROOT / source).read_text(encoding="utf-8")))
    for name in [file.src_uri for file in files if file.src_uri.endswith(NOTEBOOK)]:
        files.append(File.generated(config, _page_of(name), content="\n\n".join(_cells(ROOT / "docs" / name))))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Write the verbs into their page, check the list of the Python page, and send links where they lead."""
    name = page.file.src_uri
    if name == "reference/cli.md":
        markdown = markdown.replace("<!-- verbs -->", "\n".join(_verbs()))
    if name == "reference/python.md":
        _check_public_names(markdown)
    source = ROOT / COPIED[name] if name in COPIED else ROOT / "docs" / name
    for path in PATH.findall(CODE.sub("", markdown)):
        if not (ROOT / path).exists():
            log.warning("%s names `%s`, which is not there", name, path)

    def lead(match: re.Match[str]) -> str:
        return match[1] + _target(match[2], source, name, str(config.repo_url)) + match[3]

    return CELL_CODE.sub(lambda match: match[0].replace("\\|", "|"), LINK.sub(lead, markdown))


def _target(link: str, source: Path, page: str, repository: str) -> str:
    """Where a link of a page leads on the site; `source` is the file that the page is made of."""
    if re.match(r"[a-z]+:", link):
        return link
    path = Path(os.path.normpath(source.parent / link))
    if not path.exists():
        log.warning("%s links to %s, which is not there", page, link)
        return link
    inside = path.relative_to(ROOT).as_posix()
    for copy, original in COPIED.items():
        if inside == original:
            return os.path.relpath(copy, Path(page).parent)
    if inside.endswith(NOTEBOOK) and path != source.with_suffix(NOTEBOOK):  # its own page leads to the file
        inside = _page_of(inside)
    if inside.startswith("docs/"):
        return os.path.relpath(inside.removeprefix("docs/"), Path(page).parent)
    return f"{repository.rstrip('/')}/{'tree' if path.is_dir() else 'blob'}/main/{inside}"


def _page_of(notebook: str) -> str:
    return notebook.removesuffix(NOTEBOOK) + ".md"


def _cells(path: Path) -> Iterator[str]:
    """A notebook as Markdown: texts, code, and what the cells showed when it was run."""
    for number, cell in enumerate(json.loads(path.read_text(encoding="utf-8"))["cells"]):
        source = "".join(cell["source"])
        yield source if cell["cell_type"] == "markdown" else f"```python\n{source}\n```"
        if number == 0:
            yield f"[This page as a notebook]({path.name})"
        for output in cell.get("outputs", []):
            data = {"text/plain": output["text"]} if "text" in output else output["data"]
            if "image/jpeg" in data:
                shown = f'<img alt="What the cell draws" src="data:image/jpeg;base64,{data["image/jpeg"]}">'
            elif "text/html" in data:
                shown = re.sub(r"(?s)<style.*?</style>| border=.1. class=.dataframe.", "", "".join(data["text/html"]))
            else:
                shown = f"<pre>{html.escape(''.join(data['text/plain']).rstrip())}</pre>"
            yield f'<div class="output" markdown="0">\n{shown}\n</div>'


def _check_public_names(markdown: str) -> None:
    """Every name of the public API stands on the page of the Python API."""
    import hemalum

    for name in hemalum.__all__:
        if name != "__version__" and f"::: hemalum.{name}\n" not in markdown + "\n":
            log.warning("reference/python.md lacks hemalum.%s", name)


def _verbs() -> Iterator[str]:
    """The verbs with arguments and options, as Markdown."""
    import typer

    from hemalum import cli

    group: Any = typer.main.get_command(cli.app)
    context = group.make_context("hemalum", ["segment"], resilient_parsing=True)
    yield "These stand before or after any verb:\n"
    yield from _parameters(group, context)
    for name, command in group.commands.items():
        yield from _verb(command, name, context, level=2)


def _verb(command: Any, name: str, parent: Any, level: int) -> Iterator[str]:
    """One verb, and the verbs below it."""
    context = type(parent)(command, info_name=name.rpartition(" ")[2], parent=parent)
    yield f"\n{'#' * level} {name}\n\n{command.help}\n"
    yield f"    {command.get_usage(context).removeprefix('Usage: ')}\n"
    below = getattr(command, "commands", {})
    if not below:
        yield from _parameters(command, context)
    for part, verb in below.items():
        yield from _verb(verb, f"{name} {part}", context, level + 1)


def _parameters(command: Any, context: Any) -> Iterator[str]:
    """A table of a command's arguments and options, in the words of its help."""
    yield "| | |\n|---|---|"
    for parameter in command.params:
        names, text = parameter.get_help_record(context)
        if parameter.param_type_name == "argument":
            names = names.partition(" <")[0]
        text = re.sub(r"  \[(.*)\]$", r" *(\1)*", text)
        yield f"| `{names}` | {text.replace('|', '&#124;')} |"
    yield ""
