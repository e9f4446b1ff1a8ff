"""train, info, export: models."""

import logging
from pathlib import Path
from typing import Annotated

import typer

from hemalum.arguments import BudgetOption, Threads, Workers, budget_of, named_datasets
from hemalum.errors import HemalumError

log = logging.getLogger(__name__)


def train(
    context: typer.Context,
    recipe: Annotated[
        str,
        typer.Argument(
            metavar="RECIPE",
            help="Recipe file, or the name of a shipped recipe; RECIPE:VARIANT where it has variants.",
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
    budget: BudgetOption = "full",
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on with the run in RUN, exactly where it stopped.")
    ] = False,
    accelerator: Annotated[str, typer.Option(help="auto, cpu, cuda or mps.")] = "auto",
    devices: Annotated[
        int | None,
        typer.Option(min=1, help="Processes on this machine that share each batch, one per GPU; not under torchrun."),
    ] = None,
    threads: Threads = None,
    workers: Workers = None,
    initial: Annotated[
        Path | None, typer.Option(metavar="MODEL", help="Start from the weights of this model.")
    ] = None,
    compiled: Annotated[bool, typer.Option("--compile", help="Have PyTorch compile the network first.")] = False,
) -> None:
    """Train a model by a recipe; the model file and the log are in RUN."""
    from hemalum.console import training_progress
    from hemalum.training.processes import is_first, said_once
    from hemalum.training.shipped import open_recipe
    from hemalum.training.train import train as run

    with said_once():
        loaded, datasets = open_recipe(recipe, budget_of(budget)), named_datasets(data)
    with training_progress(quiet=context.obj.quiet) as watch:
        path = run(
            loaded,
            datasets,
            output,
            resume=resume,
            accelerator=accelerator,
            devices=devices,
            threads=threads,
            workers=workers,
            initial=initial,
            compiled=compiled,
            watch=watch,
        )
    if is_first():
        _draw(output)
        if not context.obj.quiet:
            print(path)


def _draw(run: Path) -> None:
    """Put the report into a run's folder; a training is not lost over it."""
    from hemalum.report.comparison_drawing import has_matplotlib
    from hemalum.report.run import write_run_report

    if not has_matplotlib():  # the extra `report` is optional
        return
    try:
        write_run_report(run)
    except HemalumError as error:
        log.warning("no report of the training: %s", error)


def report(
    context: typer.Context,
    run: Annotated[Path, typer.Argument(metavar="RUN", help="Folder of a training, also of one that still runs.")],
) -> None:
    """Draw a training's curves: scores, losses, learning rate, schedules; one HTML page in RUN."""
    from hemalum.report.run import write_run_report

    page = write_run_report(run)
    if not context.obj.quiet:
        print(page)


def info(
    model: Annotated[
        str | None, typer.Argument(metavar="[MODEL]", help="Model file or name; default: the shipped model.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the card as JSON.")] = False,
) -> None:
    """Print what a model file says about itself: scale, training data with licences, metrics."""
    from hemalum.console import print_pairs, print_table
    from hemalum.inference.model import load_model
    from hemalum.report.tables import card_pairs, metrics_table

    card = load_model(model).card
    if as_json:
        print(card.model_dump_json(indent=2))
        return
    print_pairs(card_pairs(card))
    if card.metrics:
        print_table(*metrics_table(card.metrics))


def export(
    context: typer.Context,
    model: Annotated[str, typer.Argument(metavar="MODEL", help="Model file, or the name of a shipped model.")],
    output: Annotated[Path, typer.Argument(metavar="OUT", help="File to write: .onnx, or .xml for OpenVINO.")],
    organ: Annotated[
        str | None, typer.Option(metavar="NAME", help="Build in the organ, for a model that tells organs apart.")
    ] = None,
) -> None:
    """Write a model as ONNX or OpenVINO IR: uint8 pixels in, maps out, the card in the file."""
    from hemalum.inference.export import export_model
    from hemalum.inference.model import load_model

    loaded = load_model(model)
    for path in export_model(loaded if organ is None else loaded.with_organ(organ), output):
        if not context.obj.quiet:
            print(path)
