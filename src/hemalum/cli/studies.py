"""evaluate, compare, reproduce: models against labelled data."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from hemalum.arguments import BudgetOption, Engine, Scale, Threads, Tta, budget_of, named_datasets


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
    tta: Tta = False,
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
            tta=tta,
            out=output,
            leave_out_ambiguous=leave_out_ambiguous,
            on_image=lambda *_: advance(),
        )
    if not context.obj.quiet:
        for title, table in evaluation_tables(evaluation.summary):
            print_table(*table, title=title)


def compare(
    context: typer.Context,
    methods: Annotated[
        list[str],
        typer.Argument(
            metavar="[NAME=]METHOD…",
            help="Recipes, model files, model:NAME of a shipped model, 'classical', or folders of label maps. "
            "The others are tested against the first.",
        ),
    ],
    data: Annotated[
        list[str],
        typer.Option("--data", "-d", metavar="[NAME=]PATH", help="Dataset folder; repeat for several."),
    ],
    output: Annotated[Path, typer.Option("--output", "-o", metavar="OUT", help="Folder of the comparison.")],
    folds: Annotated[int | None, typer.Option(min=2, help="Cross-validate over so many parts of the groups.")] = None,
    seeds: Annotated[int, typer.Option(min=1, help="Trainings per recipe, dataset and fold.")] = 1,
    budget: BudgetOption = "full",
    crops: Annotated[
        int | None,
        typer.Option(min=1, metavar="N", help="Train all recipes for N crops; best of 10 validations."),
    ] = None,
    own_budget: Annotated[
        bool, typer.Option("--own-budget", help="Let recipes differ in budget and stop rule; the report says so.")
    ] = False,
    split: Annotated[str, typer.Option(help="Part to score on: test, or val while developing.")] = "test",
    leave_out_ambiguous: Annotated[
        bool,
        typer.Option("--leave-out-ambiguous", help="Pixels that the annotators could not tell count nowhere."),
    ] = False,
    engine: Engine = "auto",
    accelerator: Annotated[str, typer.Option(help="auto, cpu, cuda or mps.")] = "auto",
    threads: Threads = None,
) -> None:
    """Train and evaluate methods side by side: same data, splits, budget and metrics, with the tests and a report.

    What is finished in OUT is kept: the same command goes on where it stopped, also on several machines at once.
    """
    from hemalum.console import comparison_progress, print_table
    from hemalum.report.comparison import headline, require_report, write_comparison
    from hemalum.studies.compare import cell_name
    from hemalum.studies.compare import compare as run
    from hemalum.studies.trial import Resources

    require_report()
    with comparison_progress(quiet=context.obj.quiet) as watch:
        comparison, failed = run(
            methods,
            named_datasets(data),
            output,
            folds=folds,
            seeds=seeds,
            budget=budget_of(budget),
            crops=crops,
            own_budget=own_budget,
            part=split,
            leave_out_ambiguous=leave_out_ambiguous,
            resources=Resources(accelerator, threads, engine),
            watch=watch,
        )
        files = write_comparison(comparison)
    if not context.obj.quiet:
        for title, table in headline(comparison):
            print_table(*table, title=title)
        print(files[0])
    for place, reason in failed:
        print(f"failed: {cell_name(place)}: {reason}", file=sys.stderr)
    if failed:
        raise typer.Exit(1)


def reproduce(
    context: typer.Context,
    paper: Annotated[
        str | None, typer.Argument(metavar="[PAPER]", help="Name of a paper; without, all that there are are listed.")
    ] = None,
    table: Annotated[
        str | None, typer.Argument(metavar="[TABLE]", help="One of its tables; default: all of them.")
    ] = None,
    data: Annotated[
        list[str] | None,
        typer.Option("--data", "-d", metavar="NAME=PATH", help="Dataset folder, by the paper's name; repeat."),
    ] = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", metavar="OUT", help="Folder of our runs and their report.")
    ] = None,
    seeds: Annotated[int, typer.Option(min=1, help="Trainings of each row under each protocol.")] = 1,
    budget: BudgetOption = "full",
    crops: Annotated[
        int | None, typer.Option(min=1, metavar="N", help="Cut every training short, to N crops.")
    ] = None,
    engine: Engine = "auto",
    accelerator: Annotated[str, typer.Option(help="auto, cpu, cuda or mps.")] = "auto",
    threads: Threads = None,
) -> None:
    """Print a paper's tables; with --data and -o, run the rows that have recipes and print ours beside them.

    Ours come under the paper's own protocol (its way to split, its averaging) and under an honest one (split by
    group, mean over images of the foreground).
    """
    from hemalum.console import comparison_progress, print_notes, print_pairs, print_table
    from hemalum.report.reproduction import (
        data_pairs,
        paper_grids,
        papers_table,
        plain,
        reproduction_grids,
        write_reproduction,
    )
    from hemalum.studies.published import load_paper
    from hemalum.studies.reproduce import reproduce as run
    from hemalum.studies.trial import Resources

    if paper is None:
        print_table(*papers_table(), left=("table", "what", "can be run here", "on"))
        return
    if not data and output is None:
        loaded = load_paper(paper)
        for grid in paper_grids(loaded, table):
            headers, rows, left = plain(grid)
            print_table(headers, rows, title=grid.caption, left=left)
            print_notes(grid.notes)
        print_pairs(data_pairs(loaded))
        return
    if output is None:
        raise typer.BadParameter("give a folder for the runs: -o OUT")
    with comparison_progress(quiet=context.obj.quiet) as watch:
        result = run(
            paper,
            table,
            data=named_datasets(data or []),
            out=output,
            budget=budget_of(budget),
            seeds=seeds,
            crops=crops,
            resources=Resources(accelerator, threads, engine),
            watch=lambda _, progress: watch(progress),
        )
        files = write_reproduction(result, output, context.obj.command)
    if not context.obj.quiet:
        for grid in reproduction_grids(result):
            headers, rows, left = plain(grid)
            print_table(headers, rows, title=grid.caption, left=left)
            print_notes(grid.notes)
        print(files[0])
    for name, reason in result.failed:
        print(f"failed: {name}: {reason}", file=sys.stderr)
    if result.failed:
        raise typer.Exit(1)
