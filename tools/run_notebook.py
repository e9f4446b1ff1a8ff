"""Run the notebooks of docs/tutorials and keep what their cells show, as Jupyter does, without Jupyter.

    python tools/run_notebook.py [NOTEBOOK …]      all of docs/tutorials without one

Figures become JPEG, so that a notebook stays small. A cell that raises ends the run, and nothing is written.
"""

import argparse
import ast
import base64
import io
import json
import re
import sys
from collections.abc import Iterator
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any

from hemalum.files import write_text

ROOT = Path(__file__).resolve().parents[1]
DPI = 72
RICHER = {"text/html": "_repr_html_"}  # what a value shows beside its repr
NUMBER = re.compile(r"-?\d[\d,]*\.?\d*(?:e[+-]?\d+)?")

Output = dict[str, Any]  # of a cell, as the format of notebooks has it


def run(notebook: dict[str, Any]) -> dict[str, Any]:
    """The notebook with what its cells give now; they run in one namespace, from the first to the last.

    Raises RuntimeError for a cell that raises, with its number and its error.
    """
    names: dict[str, Any] = {"__name__": "__main__"}
    cells, count = [], 0
    for cell in notebook["cells"]:
        if cell["cell_type"] == "code":
            count += 1
            try:
                outputs = run_cell("".join(cell["source"]), names, count)
            except Exception as error:
                raise RuntimeError(f"cell {count}: {type(error).__name__}: {error}") from error
            cell = cell | {"execution_count": count, "outputs": outputs}
        cells.append(cell)
    return notebook | {"cells": cells}


def run_cell(source: str, names: dict[str, Any], count: int) -> list[Output]:
    """What a cell prints, the figures that it leaves open, and the value of its last line."""
    statements = ast.parse(source)
    last = statements.body.pop() if statements.body and isinstance(statements.body[-1], ast.Expr) else None
    printed, logged, value = io.StringIO(), io.StringIO(), None
    with redirect_stdout(printed), redirect_stderr(logged):
        exec(compile(statements, f"<cell {count}>", "exec"), names)
        if last is not None:
            value = eval(compile(ast.Expression(last.value), f"<cell {count}>", "eval"), names)
    streams = (("stdout", printed.getvalue()), ("stderr", logged.getvalue()))
    outputs: list[Output] = [
        {"name": name, "output_type": "stream", "text": text.splitlines(keepends=True)}
        for name, text in streams
        if text
    ]
    if value is not None and not source.rstrip().endswith(";"):
        outputs.append(
            {"data": shown(value), "execution_count": count, "metadata": {}, "output_type": "execute_result"}
        )
    return outputs + list(figures())


def shown(value: Any) -> dict[str, Any]:
    """A value by MIME type: its repr, and as HTML where it has that."""
    texts = {"text/plain": repr(value)}
    for kind, method in RICHER.items():
        if hasattr(value, method):
            texts[kind] = getattr(value, method)()
    return {kind: text.splitlines(keepends=True) for kind, text in sorted(texts.items())}


def figures() -> Iterator[Output]:
    """The open figures of matplotlib, which are closed then."""
    pyplot = sys.modules.get("matplotlib.pyplot")
    for number in [] if pyplot is None else pyplot.get_fignums():
        stream = io.BytesIO()
        figure = pyplot.figure(number)
        figure.savefig(
            stream, format="jpeg", dpi=DPI, bbox_inches="tight", pil_kwargs={"quality": 85, "optimize": True}
        )
        data = {"image/jpeg": base64.b64encode(stream.getvalue()).decode(), "text/plain": [repr(figure)]}
        pyplot.close(figure)
        yield {"data": data, "metadata": {}, "output_type": "display_data"}


def words(output: Output) -> list[str]:
    """What an output says that no processor changes: texts without figures, the headers of a table and how many cells
    it has, the kinds of pictures.
    """
    data = {"text/plain": output["text"]} if "text" in output else output["data"]
    kept = []
    for kind, text in sorted(data.items()):
        joined = "".join(text)
        if kind == "text/html":
            headers = [re.sub(r"<[^>]*>", "", header) for header in re.findall(r"(?s)<th\b.*?</th>", joined)]
            kept += [*NUMBER.sub("#", " ".join(headers)).split(), f"{len(re.findall('<td', joined))} cells"]
        elif kind == "text/plain":
            kept += [] if len(data) > 1 else NUMBER.sub("#", joined).split()
        else:
            kept.append(kind)
    return kept


def differences(kept: dict[str, Any], now: dict[str, Any]) -> list[str]:
    """A line for each code cell whose outputs say something else now than the notebook that is kept."""
    lines = []
    for before, after in zip(kept["cells"], now["cells"], strict=True):
        if after["cell_type"] == "code":
            there, here = ([words(output) for output in cell["outputs"]] for cell in (before, after))
            if there != here:
                lines.append(f"cell {after['execution_count']}: {there} is kept, and now it is {here}")
    return lines


def read(path: Path) -> dict[str, Any]:
    """A notebook as JSON has it."""
    notebook: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return notebook


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("notebooks", nargs="*", type=Path)
    import matplotlib

    matplotlib.use("agg")
    for path in parser.parse_args().notebooks or sorted((ROOT / "docs" / "tutorials").glob("*.ipynb")):
        try:
            now = run(read(path))
        except RuntimeError as error:
            sys.exit(f"{path}, {error}")
        text = json.dumps(now, indent=1, ensure_ascii=False, sort_keys=True) + "\n"
        print(f"{write_text(path, text)}: {len(text) / 1024:.0f} KB")


if __name__ == "__main__":
    main()
