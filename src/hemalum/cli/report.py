"""Draw a training."""

from pathlib import Path
from typing import Annotated

import typer


def report(
    context: typer.Context,
    run: Annotated[Path, typer.Argument(metavar="RUN", help="Folder of a training, also of one that still runs.")],
) -> None:
    """Draw a training's curves: scores, losses, learning rate, schedules; one HTML page in RUN."""
    from hemalum.reports.training.page import write_run_report

    page = write_run_report(run)
    if not context.obj.quiet:
        print(page)
