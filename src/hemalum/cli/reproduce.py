"""The tables of papers."""

from pathlib import Path
from typing import Annotated

import typer

from hemalum.cli.options import (
    Accelerator,
    BudgetOption,
    Engine,
    Threads,
    budget_of,
    chosen,
    exit_with_failures,
    named_datasets,
)


def reproduce(
    context: typer.Context,
    paper: Annotated[
        str | None, typer.Argument(metavar="[PAPER]", help="Name of a paper; without, all that there are are listed.")
    ] = None,
    table: Annotated[
        str | None, typer.Argument(metavar="[TABLE]", help="One of its tables; default: all of them.")
    ] = None,
    data: Annotated[
        list[str] | None,
        typer.Option("--data", "-d", metavar="NAME=PATH", help="Dataset folder, by the paper's name; repeat."),
    ] = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", metavar="OUT", help="Folder of our runs and their report.")
    ] = None,
    seeds: Annotated[
        int | None, typer.Option(min=1, help="Trainings of each row under each protocol; default: 1.")
    ] = None,
    budget: BudgetOption = None,
    crops: Annotated[
        int | None, typer.Option(min=1, metavar="N", help="Cut every training short, to N crops.")
    ] = None,
    engine: Engine = None,
    accelerator: Accelerator = None,
    threads: Threads = None,
) -> None:
    """Print a paper's tables; with --data and -o, run the rows that have recipes and print ours beside them.

    Ours come under the paper's own protocol (its way to split, its averaging) and with a split by group (mean over
    images of the foreground).
    """
    from hemalum.cli.console import comparison_progress, print_grid, print_pairs, print_table
    from hemalum.experiments.execute import Resources
    from hemalum.experiments.papers import load_paper
    from hemalum.experiments.reproduce import reproduce as run
    from hemalum.reports.reproduction import (
        data_pairs,
        paper_grids,
        papers_table,
        reproduction_grids,
        write_reproduction,
    )

    if paper is None:
        if data or output is not None:
            raise typer.BadParameter("name the paper first: hemalum reproduce PAPER -d NAME=PATH -o OUT")
        print_table(*papers_table(), left=("table", "what", "can be run here", "on"))
        return
    if not data and output is None:
        loaded = load_paper(paper)
        for grid in paper_grids(loaded, table):
            print_grid(grid)
        print_pairs(data_pairs(loaded))
        return
    if output is None:
        raise typer.BadParameter("give a folder for the runs: -o OUT")
    with comparison_progress(quiet=context.obj.quiet) as on_progress:
        result = run(
            paper,
            table,
            data=named_datasets(data or []),
            out=output,
            crops=crops,
            resources=Resources(**chosen(accelerator=accelerator, threads=threads, engine=engine)),
            on_progress=lambda _, progress: on_progress(progress),
            **chosen(budget=budget_of(budget), seeds=seeds),
        )
        files = write_reproduction(result, output, context.obj.command)
    if not context.obj.quiet:
        for grid in reproduction_grids(result):
            print_grid(grid)
        print(files[0])
    exit_with_failures(result.failed)
