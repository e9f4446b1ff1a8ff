"""Methods side by side."""

from pathlib import Path
from typing import Annotated

import typer

from hemalum.cli.options import (
    Accelerator,
    BudgetOption,
    Engine,
    LeaveOutAmbiguous,
    Scale,
    Threads,
    as_scale,
    budget_of,
    chosen,
    exit_with_failures,
    named_datasets,
)


def compare(
    context: typer.Context,
    methods: Annotated[
        list[str],
        typer.Argument(
            metavar="[NAME=]METHOD…",
            help="Recipes, model files, model:NAME of a shipped model, 'classical', or folders of label maps. "
            "The others are tested against the first.",
        ),
    ],
    data: Annotated[
        list[str],
        typer.Option("--data", "-d", metavar="[NAME=]PATH", help="Dataset folder; repeat for several."),
    ],
    output: Annotated[Path, typer.Option("--output", "-o", metavar="OUT", help="Folder of the comparison.")],
    folds: Annotated[int | None, typer.Option(min=2, help="Cross-validate over so many parts of the groups.")] = None,
    seeds: Annotated[
        int | None,
        typer.Option(min=1, help="Trainings per recipe, dataset and fold; default: 1, which decides nothing."),
    ] = None,
    budget: BudgetOption = None,
    crops: Annotated[
        int | None,
        typer.Option(min=1, metavar="N", help="Train all recipes for N crops; best of 10 validations."),
    ] = None,
    mixed_budgets: Annotated[
        bool, typer.Option("--mixed-budgets", help="Let recipes differ in budget and stop rule; the report says so.")
    ] = False,
    split: Annotated[
        str | None, typer.Option(help="Part to score on: test, the default, or val while developing.")
    ] = None,
    leave_out_ambiguous: LeaveOutAmbiguous = False,
    mpp: Scale = None,
    engine: Engine = None,
    accelerator: Accelerator = None,
    threads: Threads = None,
) -> None:
    """Train and evaluate methods side by side: same data, splits, budget and metrics, with the tests and a report.

    What is finished in OUT is kept: the same command goes on where it stopped, also on several machines at once.
    """
    from hemalum.cli.console import comparison_progress, print_table
    from hemalum.experiments.compare import compare as run
    from hemalum.experiments.execute import Resources
    from hemalum.reports.comparison.page import headline, write_comparison
    from hemalum.reports.style import require_report

    require_report()
    with comparison_progress(quiet=context.obj.quiet) as on_progress:
        comparison, failed = run(
            methods,
            named_datasets(data),
            output,
            folds=folds,
            crops=crops,
            mixed_budgets=mixed_budgets,
            leave_out_ambiguous=leave_out_ambiguous,
            mpp=as_scale(mpp),
            resources=Resources(**chosen(accelerator=accelerator, threads=threads, engine=engine)),
            on_progress=on_progress,
            **chosen(seeds=seeds, budget=budget_of(budget), split=split),
        )
        files = write_comparison(comparison)
    if not context.obj.quiet:
        for title, table in headline(comparison):
            print_table(*table, title=title)
        print(files[0])
    exit_with_failures((key.name, reason) for key, reason in failed)
