"""evaluate, compare, reproduce: models against labelled data."""

from pathlib import Path
from typing import Annotated

import typer

from hemalum.arguments import Engine, Scale


def evaluate(
    context: typer.Context,
    model: Annotated[
        str,
        typer.Argument(
            metavar="MODEL",
            help="Model file, name of a shipped model, 'classical' (the floor), or a folder of label maps that "
            "another program made.",
        ),
    ],
    dataset: Annotated[Path | None, typer.Argument(metavar="[DATASET]", help="Dataset folder.")] = None,
    truth: Annotated[
        Path | None,
        typer.Option(metavar="FOLDER", help="In the place of DATASET: a folder with the true label maps."),
    ] = None,
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
    components: Annotated[
        bool,
        typer.Option("--components", help="Label maps: the nuclei of a binary mask are its connected pieces."),
    ] = False,
    missing: Annotated[
        str,
        typer.Option(metavar="error|empty", help="Label maps: an image without one stops, or counts as empty."),
    ] = "error",
) -> None:
    """Score a model, or label maps, on labelled data: pixel, boundary and instance metrics under each averaging."""
    from hemalum.console import counter, print_table
    from hemalum.report.tables import evaluation_tables
    from hemalum.studies.evaluate import evaluate as run
    from hemalum.studies.label_maps import sides

    scale = mpp if isinstance(mpp, float) else None
    method, data = sides(model, dataset, truth, components=components, missing=missing, mpp=scale)
    with counter("evaluating", quiet=context.obj.quiet) as advance:
        evaluation = run(
            method,
            data,
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
