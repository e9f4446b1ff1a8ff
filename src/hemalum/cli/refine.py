"""Training again on what a model is least sure of."""

from pathlib import Path
from typing import Annotated

import typer

from hemalum.cli.options import Accelerator, Engine, Seed, Threads, chosen
from hemalum.errors import HemalumError


def refine(
    context: typer.Context,
    model: Annotated[str, typer.Argument(metavar="MODEL", help="Model file that hemalum train wrote.")],
    dataset: Annotated[
        Path, typer.Argument(metavar="DATASET", help="Dataset folder whose training part is looked at again.")
    ],
    output: Annotated[Path, typer.Option("--output", "-o", metavar="OUT", help="Folder of the refinement.")],
    offline: Annotated[
        bool, typer.Option("--offline", help="With the labels that are there: so far the only way.")
    ] = False,
    top: Annotated[
        str | None,
        typer.Option(
            metavar="K|SHARE%", help="Most uncertain training images of each organ: 5, or a share; default: 10%."
        ),
    ] = None,
    trainable: Annotated[
        list[str] | None,
        typer.Option(
            metavar="PATTERN",
            help="Parameters that train, such as 'decoder.*'; repeat for several. Default: decoder, heads and "
            "conditioning.",
        ),
    ] = None,
    lr: Annotated[float | None, typer.Option(help="Learning rate of Adam; default: 0.0001.")] = None,
    epochs: Annotated[int | None, typer.Option(min=1, help="Passes over the chosen images; default: 10.")] = None,
    draws: Annotated[
        int | None, typer.Option(min=1, help="Random subsets that are trained on as a control; default: 3.")
    ] = None,
    test: Annotated[
        Path | None, typer.Option(metavar="DATASET", help="Dataset folder to measure on; default: DATASET.")
    ] = None,
    split: Annotated[
        str | None, typer.Option(help="Its part to measure on: test, val, train or all; default: test.")
    ] = None,
    seed: Seed = None,
    engine: Engine = None,
    accelerator: Accelerator = None,
    threads: Threads = None,
) -> None:
    """Train a model again on the images it is least sure of, and say what that was worth.

    Beside it stand the same steps on random images, and the model as it was with its threshold moved to equal recall.
    What is finished in OUT is kept: the same command goes on where it stopped.
    """
    if not offline:
        raise HemalumError(
            "refining with a reviewer at the screen needs the review server, which is not there yet: give --offline "
            "to refine with the labels that the dataset has"
        )
    from hemalum.cli.console import print_notes, print_table, steps_progress
    from hemalum.experiments.execute import Resources
    from hemalum.experiments.refine import refine as run
    from hemalum.reports.grid import console_table
    from hemalum.reports.refinement import findings, organ_grid, scores_grid, write_refinement

    with steps_progress(quiet=context.obj.quiet) as on_progress:
        result = run(
            model,
            dataset,
            output,
            trainable=trainable or (),
            test=test,
            resources=Resources(**chosen(accelerator=accelerator, threads=threads, engine=engine)),
            on_progress=on_progress,
            **chosen(top=top, lr=lr, epochs=epochs, draws=draws, seed=seed, split=split),
        )
    files = write_refinement(result, context.obj.command)
    if context.obj.quiet:
        return
    for grid in (scores_grid(result), organ_grid(result)):
        if grid is not None:
            headers, rows, left = console_table(grid)
            print_table(headers, rows, title=grid.caption, left=left)
    print_notes([*findings(result), *result.notes])
    print(result.model)
    print(files[0])
