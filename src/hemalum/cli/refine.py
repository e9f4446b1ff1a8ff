"""Training again: on a reviewer's corrections, or on what a model is least sure of."""

from pathlib import Path
from typing import Annotated, Any

import typer

from hemalum.cli.options import Accelerator, Engine, Seed, Threads, chosen
from hemalum.errors import HemalumError

NOT_BETTER = 3  # exit code: the refined model got worse somewhere


def refine(
    context: typer.Context,
    model: Annotated[str, typer.Argument(metavar="MODEL", help="Model file that hemalum train wrote.")],
    output: Annotated[Path, typer.Option("--output", "-o", metavar="NEW", help="Folder of the refinement.")],
    dataset: Annotated[
        Path | None,
        typer.Argument(metavar="[DATASET]", help="With --offline: dataset whose training part is looked at again."),
    ] = None,
    project: Annotated[
        Path | None,
        typer.Option(
            "--project", "-p", metavar="PROJECT", help="Refine on the corrections of this review (hemalum review)."
        ),
    ] = None,
    offline: Annotated[
        bool, typer.Option("--offline", help="Refine on DATASET, with the labels that are there; no review.")
    ] = False,
    trainable: Annotated[
        list[str] | None,
        typer.Option(
            metavar="all|decoder|head|PATTERN",
            help="Parameters that train, such as 'up.*'; repeat for several. Default: decoder, heads and "
            "conditioning.",
        ),
    ] = None,
    lr: Annotated[float | None, typer.Option(help="Learning rate of Adam; default: 0.0001.")] = None,
    epochs: Annotated[int | None, typer.Option(min=1, help="Passes over what is learned from; default: 10.")] = None,
    holdout: Annotated[
        float | None,
        typer.Option(metavar="SHARE", help="--project: share of the images that is held out; default: 0.25."),
    ] = None,
    replay: Annotated[
        str | None,
        typer.Option(
            metavar="DATASET|none",
            help="--project: what MODEL was trained on, mixed in against forgetting. Default: distill from MODEL; "
            "none: neither.",
        ),
    ] = None,
    guard: Annotated[
        list[str] | None,
        typer.Option(
            metavar="DATASET[:PART]",
            help="--project: images that must not get worse: its test part, or train, val or all; repeat for "
            "several. Default: the validation part of --replay.",
        ),
    ] = None,
    tolerance: Annotated[
        float | None, typer.Option(help="--project: by how much a guard may fall in PQ and Dice; default: 0.01.")
    ] = None,
    top: Annotated[
        str | None,
        typer.Option(metavar="K|SHARE%", help="--offline: most uncertain images of each organ; default: 10%."),
    ] = None,
    draws: Annotated[
        int | None, typer.Option(min=1, help="--offline: random subsets trained on as a control; default: 3.")
    ] = None,
    test: Annotated[
        Path | None, typer.Option(metavar="DATASET", help="--offline: dataset to measure on; default: DATASET.")
    ] = None,
    split: Annotated[
        str | None, typer.Option(help="--offline: its part to measure on: test, val, train or all; default: test.")
    ] = None,
    seed: Seed = None,
    engine: Engine = None,
    accelerator: Accelerator = None,
    threads: Threads = None,
) -> None:
    """Train a model again: on a reviewer's corrections (--project), or on what it is least sure of (--offline).

    With --project, some corrections are held out and --guard datasets are measured: where one of them gets worse the
    new model is not called better, and the exit code is 3. The last line printed is the model to go on with.
    With --offline, the labels are those of DATASET; beside the refined model stand the same steps on random images,
    and the model as it was with its threshold moved to equal recall. What is finished in NEW is kept: the same
    command goes on where it stopped.
    """
    common = chosen(lr=lr, epochs=epochs, seed=seed) | {"trainable": trainable or ()}
    reviewed = {"--holdout": holdout, "--replay": replay, "--guard": guard, "--tolerance": tolerance}
    unreviewed = {"--top": top, "--draws": draws, "--test": test, "--split": split}
    if offline == (project is not None):
        raise HemalumError(
            "refining is on the corrections of a review, --project PROJECT, or on what a dataset holds, DATASET "
            f"--offline: give {'one of them' if offline else 'one'}"
        )
    _refuse(unreviewed if project is not None else reviewed, "--project" if project is not None else "--offline")
    resources = chosen(accelerator=accelerator, threads=threads, engine=engine)
    if project is None:
        if dataset is None:
            raise HemalumError("--offline refines on a dataset: give hemalum refine MODEL DATASET --offline -o NEW")
        options = chosen(top=top, draws=draws, split=split) | {"test": test}
        _refine_offline(context, model, dataset, output, resources, **common, **options)
    else:
        if dataset is not None:
            raise HemalumError(
                f"with --project the images are those of the review: leave out {dataset}, or give it as --replay or "
                "--guard"
            )
        options = chosen(holdout=holdout, replay=replay, tolerance=tolerance) | {"guards": guard or ()}
        _refine_reviewed(context, model, project, output, resources, **common, **options)


def _refuse(options: dict[str, Any], way: str) -> None:
    for name, value in options.items():
        if value is not None:
            raise HemalumError(
                f"{name} goes with {'--offline' if way == '--project' else '--project'}, not with {way}"
            )


def _refine_reviewed(
    context: typer.Context, model: str, project: Path, output: Path, resources: dict[str, Any], **options: Any
) -> None:
    from hemalum.cli.console import print_notes, print_table, steps_progress
    from hemalum.experiments.execute import Resources
    from hemalum.reports.grid import console_table
    from hemalum.reports.refinement_review import changes_grid, write_reviewed_refinement
    from hemalum.review.refinement import refine_reviewed

    with steps_progress(quiet=context.obj.quiet) as on_progress:
        result = refine_reviewed(
            model, project, output, resources=Resources(**resources), on_progress=on_progress, **options
        )
    files = write_reviewed_refinement(result, context.obj.command)
    if not context.obj.quiet:
        grid = changes_grid(result)
        headers, rows, left = console_table(grid)
        print_table(headers, rows, title=grid.caption, left=left)
        print_notes([result.line, *result.notes])
        print(files[0])
    print(result.use)
    if not result.decision.better:
        raise typer.Exit(NOT_BETTER)


def _refine_offline(
    context: typer.Context, model: str, dataset: Path, output: Path, resources: dict[str, Any], **options: Any
) -> None:
    from hemalum.cli.console import print_notes, print_table, steps_progress
    from hemalum.experiments.execute import Resources
    from hemalum.experiments.refine import refine as run
    from hemalum.reports.grid import console_table
    from hemalum.reports.refinement import findings, organ_grid, scores_grid, write_refinement

    with steps_progress(quiet=context.obj.quiet) as on_progress:
        result = run(model, dataset, output, resources=Resources(**resources), on_progress=on_progress, **options)
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
