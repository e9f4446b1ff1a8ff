"""refine: learning again from what a model is least sure of."""

from pathlib import Path
from typing import Annotated

import typer

from hemalum.arguments import Engine, Seed, Threads
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
        str, typer.Option(metavar="K|SHARE%", help="Most uncertain training images of each organ: 5, or 10%.")
    ] = "10%",
    train: Annotated[
        list[str] | None,
        typer.Option(
            metavar="PATTERN",
            help="Parameters that train, such as 'decoder.*'; repeat for several. Default: decoder, heads and "
            "what the network is told.",
        ),
    ] = None,
    lr: Annotated[float, typer.Option(help="Learning rate of Adam.")] = 1e-4,
    epochs: Annotated[int, typer.Option(min=1, help="Passes over the chosen images.")] = 10,
    draws: Annotated[int, typer.Option(min=1, help="Random subsets that are trained on as a control.")] = 3,
    test: Annotated[
        Path | None, typer.Option(metavar="DATASET", help="Dataset folder to measure on; default: DATASET.")
    ] = None,
    split: Annotated[str, typer.Option(help="Its part to measure on: test, val, train or all.")] = "test",
    seed: Seed = 0,
    engine: Engine = "auto",
    accelerator: Annotated[str, typer.Option(help="auto, cpu, cuda or mps.")] = "auto",
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
    from hemalum.console import print_notes, print_table, steps_progress
    from hemalum.report.refinement import findings, organ_grid, scores_grid, write_refinement
    from hemalum.report.reproduction import plain
    from hemalum.review.refine import Resources
    from hemalum.review.refine import refine as run

    with steps_progress(quiet=context.obj.quiet) as watch:
        result = run(
            model,
            dataset,
            output,
            top=top,
            patterns=train or (),
            lr=lr,
            epochs=epochs,
            draws=draws,
            seed=seed,
            test=test,
            split=split,
            resources=Resources(accelerator, threads, engine),
            watch=watch,
        )
    files = write_refinement(result, context.obj.command)
    if context.obj.quiet:
        return
    for grid in (scores_grid(result), organ_grid(result)):
        if grid is not None:
            headers, rows, left = plain(grid)
            print_table(headers, rows, title=grid.caption, left=left)
    print_notes([*findings(result), *result.notes])
    print(result.model)
    print(files[0])
