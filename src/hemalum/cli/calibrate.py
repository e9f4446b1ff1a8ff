"""A model with a threshold for a target recall, and with what its probabilities are worth."""

from pathlib import Path
from typing import Annotated

import typer

from hemalum.cli.options import Engine, ModelArgument, Threads, chosen
from hemalum.errors import HemalumError


def calibrate(
    context: typer.Context,
    model: ModelArgument,
    dataset: Annotated[
        Path, typer.Argument(metavar="DATASET", help="Dataset folder on whose images the threshold is set.")
    ],
    output: Annotated[Path, typer.Option("--output", "-o", metavar="FILE", help="Model file to write.")],
    recall: Annotated[
        float | None, typer.Option(metavar="SHARE", help="Recall of nucleus pixels to keep; default: 0.95.")
    ] = None,
    by_organ: Annotated[
        bool, typer.Option("--by-organ", help="A threshold for each organ besides, where it has enough groups.")
    ] = False,
    temperature_only: Annotated[
        bool, typer.Option("--temperature-only", help="No threshold: only how far to trust the probabilities.")
    ] = False,
    split: Annotated[str | None, typer.Option(help="Its part to set it on: val or test; default: val.")] = None,
    engine: Engine = None,
    threads: Threads = None,
) -> None:
    """Write a model with the threshold that keeps a target recall, which hemalum segment --recall uses.

    The temperature that brings its probabilities nearest to the truth stands beside it in the model's card.
    """
    from hemalum.cli.console import print_pairs, steps_progress
    from hemalum.experiments.calibrate import calibrate as run
    from hemalum.reports.tables import card_pairs

    if temperature_only and (recall is not None or by_organ):
        raise HemalumError("--temperature-only sets no threshold: leave out --recall and --by-organ")
    options = chosen(recall=recall, split=split, engine=engine, threads=threads)
    if temperature_only:
        options["recall"] = None
    with steps_progress(quiet=context.obj.quiet) as on_progress:
        made = run(model, dataset, output, by_organ=by_organ, on_progress=on_progress, **options)
    if context.obj.quiet:
        return
    print_pairs([pair for pair in card_pairs(made.card) if pair[0] in ("recall", "calibration")])
    print(made.path)
