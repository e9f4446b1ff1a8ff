"""Score a model on labeled data."""

from pathlib import Path
from typing import Annotated, Any

import typer

from hemalum.cli.options import Engine, LeaveOutAmbiguous, Scale, Shifts, Tta, as_scale, chosen


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
    split: Annotated[
        str | None, typer.Option(help="Part to evaluate: train, val, test or all; default: test.")
    ] = None,
    mpp: Scale = None,
    engine: Engine = None,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", metavar="OUT", help="Folder for summary.json and per_image.csv."),
    ] = None,
    leave_out_ambiguous: LeaveOutAmbiguous = False,
    organs: Annotated[
        str | None,
        typer.Option(
            metavar="true|unknown|wrong|shuffled",
            help="Which organ a model that tells organs apart is given: each image's own, none, another one, or that "
            "of any of the images; default: true.",
        ),
    ] = None,
    components: Annotated[
        bool,
        typer.Option("--components", help="Label maps: the nuclei of a binary mask are its connected pieces."),
    ] = False,
    missing: Annotated[
        str | None,
        typer.Option(
            metavar="error|empty", help="Label maps: an image without one stops, or counts as empty; default: error."
        ),
    ] = None,
    tta: Tta = False,
    shifts: Shifts = None,
    recall: Annotated[
        float | None, typer.Option(metavar="SHARE", help="Take the model's threshold that keeps this recall.")
    ] = None,
) -> None:
    """Score a model, or label maps, on labeled data: pixel, boundary and instance metrics under each averaging."""
    from hemalum.cli.console import counter, print_table
    from hemalum.experiments.evaluate import evaluate as run
    from hemalum.experiments.label_maps import evaluation_inputs
    from hemalum.reports.tables import evaluation_tables

    scale = mpp if isinstance(mpp, float) else None
    method, data = evaluation_inputs(
        model, dataset, truth, components=components, mpp=scale, **chosen(missing=missing)
    )
    part: dict[str, Any] = {} if split is None else {"split": None if split == "all" else split}
    with counter("evaluating", quiet=context.obj.quiet) as advance:
        evaluation = run(
            method,
            data,
            mpp=as_scale(mpp),
            tta=tta,
            recall=recall,
            out=output,
            leave_out_ambiguous=leave_out_ambiguous,
            on_progress=lambda *_: advance(),
            **part,
            **chosen(engine=engine, organs=organs, shifts=shifts),
        )
    if not context.obj.quiet:
        for title, table in evaluation_tables(evaluation.summary):
            print_table(*table, title=title)
