"""A model in int8."""

from pathlib import Path
from typing import Annotated

import typer

from hemalum.cli.options import ModelArgument, Threads, chosen


def quantize(
    context: typer.Context,
    model: ModelArgument,
    data: Annotated[
        list[str],
        typer.Option(help="Dataset folder with training and validation images; repeat the option for more."),
    ],
    output: Annotated[Path, typer.Option("--output", "-o", metavar="FILE", help="Model file to write.")],
    windows: Annotated[
        int | None, typer.Option(min=1, help="Windows of training images to measure ranges on; default: 200.")
    ] = None,
    threads: Threads = None,
) -> None:
    """Write a model with an int8 form of its network, in which OpenVINO is faster, and what that costs in PQ."""
    from hemalum.cli.console import print_pairs, steps_progress
    from hemalum.experiments.quantize import quantize as run
    from hemalum.reports.tables import card_pairs

    with steps_progress(quiet=context.obj.quiet) as on_progress:
        made = run(model, data, output, on_progress=on_progress, **chosen(windows=windows, threads=threads))
    if context.obj.quiet:
        return
    print_pairs([pair for pair in card_pairs(made.card) if pair[0] == "int8"])
    print(made.path)
