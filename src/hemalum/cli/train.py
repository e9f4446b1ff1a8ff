"""Train a model."""

import sys
import time
from pathlib import Path
from typing import Annotated

import typer

from hemalum.cli.options import (
    Accelerator,
    BatchWorkers,
    BudgetOption,
    ResumeRun,
    Threads,
    budget_of,
    chosen,
    named_datasets,
    unlabeled_images,
)
from hemalum.errors import duration_text


def _print_recipes(value: bool) -> None:
    if value:
        from hemalum.cli.console import print_pairs
        from hemalum.training.recipe import describe_recipes

        pairs = []
        for one in describe_recipes():
            variants = f" Variants: {', '.join(one.variants)}." if one.variants else ""
            pairs.append((one.name, one.description + variants))
        print_pairs(pairs)
        raise typer.Exit


def train(
    context: typer.Context,
    recipe: Annotated[
        str,
        typer.Argument(
            metavar="RECIPE",
            help="Recipe file, or the name of a shipped recipe; RECIPE:VARIANT where it has variants. --list shows "
            "them.",
        ),
    ],
    data: Annotated[
        list[str],
        typer.Option(
            "--data",
            "-d",
            metavar="[NAME=]PATH",
            help="Dataset folder, by the recipe's name for it; repeat for several.",
        ),
    ],
    output: Annotated[Path, typer.Option("--output", "-o", metavar="RUN", help="Folder of the run.")],
    recipes: Annotated[
        bool,
        typer.Option("--list", callback=_print_recipes, is_eager=True, help="Print the shipped recipes and stop."),
    ] = False,
    budget: BudgetOption = None,
    resume: ResumeRun = False,
    accelerator: Accelerator = None,
    devices: Annotated[
        int | None,
        typer.Option(min=1, help="Processes on this machine that share each batch, one per GPU; not under torchrun."),
    ] = None,
    threads: Threads = None,
    workers: BatchWorkers = None,
    initial: Annotated[
        Path | None, typer.Option(metavar="MODEL", help="Start from the weights of this model.")
    ] = None,
    license: Annotated[
        str | None,
        typer.Option(metavar="TEXT", help="License of the model; default: what the licenses of its data allow."),
    ] = None,
    unlabeled: Annotated[
        list[str] | None,
        typer.Option(
            "--unlabeled",
            metavar="PATH",
            help="Image, whole slide, folder of these or dataset to learn from without labels; repeat for several. "
            "For a method that does, as csra_net_unlabeled:csra.",
        ),
    ] = None,
    unlabeled_mpp: Annotated[
        float | None, typer.Option(min=0.02, help="Microns per pixel of unlabeled images that state none.")
    ] = None,
    compile: Annotated[bool, typer.Option("--compile", help="Have PyTorch compile the network first.")] = False,
) -> None:
    """Train a model by a recipe; the model file and the log are in RUN."""
    from hemalum.cli.console import training_progress
    from hemalum.reports.training.log import read_run
    from hemalum.reports.training.page import try_run_report
    from hemalum.training.distributed import is_first, report_once
    from hemalum.training.recipe import open_recipe
    from hemalum.training.train import train as run

    with report_once():
        loaded, datasets = open_recipe(recipe, **chosen(budget=budget_of(budget))), named_datasets(data)
    begun = time.monotonic()
    with training_progress(quiet=context.obj.quiet) as on_progress:
        path = run(
            loaded,
            datasets,
            output,
            resume=resume,
            devices=devices,
            threads=threads,
            workers=workers,
            initial=initial,
            license=license,
            unlabeled=unlabeled_images(unlabeled, unlabeled_mpp),
            compile=compile,
            on_progress=on_progress,
            **chosen(accelerator=accelerator),
        )
    if is_first():
        try_run_report(output)
        if not context.obj.quiet:
            print(f"trained in {duration_text(time.monotonic() - begun)}; {read_run(output).result}", file=sys.stderr)
            print(path)
