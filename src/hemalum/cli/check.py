"""Problems of a dataset."""

from pathlib import Path
from typing import Annotated, Any

import typer

from hemalum.cli.options import Preview, chosen
from hemalum.errors import counted


def check(
    context: typer.Context,
    dataset: Annotated[Path, typer.Argument(metavar="DATASET", help="Dataset folder.")],
    preview: Preview = None,
) -> None:
    """Look for what is wrong with a dataset: sizes, empty or merged labels, duplicates, missing scale."""
    from hemalum.cli.console import print_table
    from hemalum.data.check import check_dataset
    from hemalum.reports.tables import problems_table

    problems = check_dataset(dataset)
    errors = sum(problem.level == "error" for problem in problems)
    if not context.obj.quiet:
        if problems:
            print_table(*problems_table(problems), left=("kind", "where", "what"))
        print(f"{dataset}: {counted(errors, 'error')}, {counted(len(problems) - errors, 'warning')}")
    if preview is not None:
        from hemalum.data.dataset import Dataset

        write_preview_sheet(Dataset.open(dataset), preview, None, context.obj.quiet)
    if errors:
        raise typer.Exit(1)


def write_preview_sheet(dataset: Any, path: Path | None, seed: int | None, quiet: bool) -> None:
    """Write the contact sheet of a dataset, when one was asked for."""
    if path is None:
        return
    from hemalum.reports.figures.preview import write_preview

    write_preview(dataset, path, **chosen(seed=seed))
    if not quiet:
        print(path)
