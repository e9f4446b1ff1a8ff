"""A real image, segmented."""

from pathlib import Path
from typing import Annotated

import typer

from hemalum.cli.app import CliContext
from hemalum.cli.options import Engine, Model, chosen


def demo(
    context: typer.Context,
    output: Annotated[Path, typer.Option("--output", "-o", metavar="OUT", help="Folder for the results.")] = Path(
        "demo"
    ),
    model: Model = None,
    stain: Annotated[
        str | None, typer.Option(metavar="auto|he|hdab|fluorescence", help="Stain of the image; default: hdab.")
    ] = None,
    engine: Engine = None,
) -> None:
    """Segment a real H-DAB image that comes with scikit-image, with the shipped model; nothing is downloaded."""
    from hemalum.cli.console import file_progress, print_pairs
    from hemalum.demo import run_demo
    from hemalum.reports.tables import demo_pairs

    cli: CliContext = context.obj
    with file_progress(1, quiet=cli.quiet) as progress:
        result = run_demo(
            output,
            command=cli.command,
            on_progress=progress.update,
            **chosen(model=model, stain=stain, engine=engine),
        )
    if not cli.quiet:
        print_pairs(demo_pairs(result.nuclei, result.seconds, result.batch.files))
