"""evaluate, compare, reproduce: models against labelled data."""

from pathlib import Path
from typing import Annotated

import typer

from hemalum.arguments import Engine, Scale


def evaluate(
    context: typer.Context,
    model: Annotated[
        str,
        typer.Argument(metavar="MODEL", help="Model file, name of a shipped model, or 'classical' (the floor)."),
    ],
    dataset: Annotated[Path, typer.Argument(metavar="DATASET", help="Dataset folder.")],
    split: Annotated[str, typer.Option(help="Part to evaluate: train, val, test or all.")] = "test",
    mpp: Scale = "auto",
    engine: Engine = "auto",
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", metavar="OUT", help="Folder for summary.json and per_image.csv."),
    ] = None,
    leave_out_ambiguous: Annotated[
        bool,
        typer.Option("--leave-out-ambiguous", help="Pixels that the annotators could not tell count nowhere."),
    ] = False,
) -> None:
    """Score a model on a labelled dataset: pixel, boundary and instance metrics under each averaging."""
    from hemalum.console import counter, print_table
    from hemalum.report.tables import evaluation_tables
    from hemalum.studies.evaluate import evaluate as run

    with counter("evaluating", quiet=context.obj.quiet) as advance:
        evaluation = run(
            model,
            dataset,
            split=None if split == "all" else split,
            mpp={"auto": None, "estimate": "auto"}.get(mpp, mpp),
            engine=engine,
            out=output,
            leave_out_ambiguous=leave_out_ambiguous,
            on_image=lambda *_: advance(),
        )
    if not context.obj.quiet:
        for title, table in evaluation_tables(evaluation.summary):
            print_table(*table, title=title)
