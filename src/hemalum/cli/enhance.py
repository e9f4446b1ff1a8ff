"""Put a second stage on a trained model."""

from pathlib import Path
from typing import Annotated

import typer

from hemalum.cli.options import (
    Accelerator,
    BatchWorkers,
    BudgetOption,
    ModelArgument,
    ResumeRun,
    Threads,
    budget_of,
    chosen,
    named_datasets,
)


def enhance(
    context: typer.Context,
    model: ModelArgument,
    data: Annotated[
        list[str],
        typer.Option("--data", "-d", metavar="[NAME=]PATH", help="Dataset folder; repeat for several."),
    ],
    output: Annotated[Path, typer.Option("--output", "-o", metavar="RUN", help="Folder of the run.")],
    control: Annotated[
        bool,
        typer.Option("--control", help="Train the model itself for as long instead: what a gain is set against."),
    ] = False,
    budget: BudgetOption = None,
    steps: Annotated[
        int | None, typer.Option(min=1, help="At most so many for the second stage, and again for both together.")
    ] = None,
    resume: ResumeRun = False,
    accelerator: Accelerator = None,
    threads: Threads = None,
    workers: BatchWorkers = None,
) -> None:
    """Put a second stage on a trained model: a small network that mends its map; the model file is in RUN."""
    from hemalum.cli.console import training_progress
    from hemalum.reports.training.page import try_run_report
    from hemalum.training.enhance import enhance as run

    with training_progress(quiet=context.obj.quiet) as on_progress:
        path = run(
            model,
            named_datasets(data),
            output,
            control=control,
            resume=resume,
            threads=threads,
            workers=workers,
            on_progress=on_progress,
            **chosen(budget=budget_of(budget), steps=steps, accelerator=accelerator),
        )
    try_run_report(output)
    if not context.obj.quiet:
        print(path)
