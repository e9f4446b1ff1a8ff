"""The verbs as sub-commands: arguments → API call → printed result.

Imports stand inside the commands, so that `hemalum --help` loads neither torch nor NumPy.
"""

import shlex
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

from hemalum import __version__
from hemalum.arguments import (
    Engine,
    Model,
    Scale,
    Seed,
    Threads,
    global_options_first,
    import_scale,
    listed,
    named_datasets,
    shares,
)
from hemalum.errors import HemalumError

app = typer.Typer(
    name="hemalum",
    help="Nucleus segmentation for histopathology: segment, train, compare, measure.",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


@dataclass
class _Shell:
    """What holds for every verb: the command as given, and whether to say less."""

    command: str
    quiet: bool = False


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and give its exit code.

    0 done, 1 done in part (files failed, problems found), 2 the user's mistake in one line, 130 interrupted.
    Exceptions that nobody foresaw keep their traceback.
    """
    given = list(sys.argv[1:] if arguments is None else arguments)
    shell = _Shell(shlex.join(["hemalum", *given]))
    given = global_options_first(given)
    try:
        return app(given, prog_name="hemalum", standalone_mode=False, obj=shell) or 0
    except HemalumError as error:
        if "--debug" in given[:2]:
            raise
        print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    except (KeyboardInterrupt, typer.Abort):
        return 130
    except Exception as error:
        # a mistake in the arguments: typer's own errors, whose class depends on its version
        if not hasattr(error, "format_message"):
            raise
        context = getattr(error, "ctx", None)
        command = context.command_path if context is not None else "hemalum"
        print(f"error: {error.format_message()} (see {command} --help)", file=sys.stderr)
        return 2


def _print_version(asked: bool) -> None:
    if asked:
        print(f"hemalum {__version__}")
        raise typer.Exit


def _print_formats(asked: bool) -> None:
    if asked:
        from hemalum.console import print_table
        from hemalum.report.tables import formats_table

        print_table(*formats_table(), left=("keeps together", "licence", "data"))
        raise typer.Exit


@app.callback(invoke_without_command=True)
def _start(
    context: typer.Context,
    version: Annotated[
        bool,
        typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and stop."),
    ] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Log everything; show the traceback of errors.")] = False,
    quiet: Annotated[
        bool, typer.Option("--quiet", help="No progress and no tables; warnings and errors only.")
    ] = False,
) -> None:
    if context.invoked_subcommand is None:
        print(context.get_help())
        raise typer.Exit
    from hemalum.console import set_up

    set_up(debug=debug, quiet=quiet)
    context.obj.quiet = quiet


@app.command()
def segment(
    context: typer.Context,
    paths: Annotated[list[Path], typer.Argument(metavar="PATH…", help="Images, or folders of images.")],
    output: Annotated[Path, typer.Option("--output", "-o", metavar="OUT", help="Folder for the results.")],
    mpp: Scale = "auto",
    model: Model = None,
    engine: Engine = "auto",
    device: Annotated[str, typer.Option(help="auto, cpu, or what PyTorch calls a device (cuda, cuda:1).")] = "auto",
    threads: Threads = None,
    precision: Annotated[
        str | None, typer.Option(help="f32 or bf16; default: bf16 where the processor has it.")
    ] = None,
    formats: Annotated[
        str, typer.Option("--format", "-f", metavar="LIST", help="Of geojson, csv, parquet, labels, overlay.")
    ] = "geojson,csv",
    max_pixels: Annotated[
        int | None, typer.Option(min=1, metavar="N", help="Lift the limit on the size of an image to N pixels.")
    ] = None,
    report: Annotated[
        bool, typer.Option("--report", help="Also write OUT/summary.html, one page for all images (implies overlay).")
    ] = False,
) -> None:
    """Find, outline and measure the nuclei of images."""
    from hemalum.console import file_progress, print_table
    from hemalum.inference.batch import find_images, segment_paths
    from hemalum.inference.model import load_model
    from hemalum.report.batch import collect
    from hemalum.report.summary import SummaryPage

    shell: _Shell = context.obj
    images = find_images(paths, output)
    loaded = load_model(model)
    page = SummaryPage(output / "summary.html", card=loaded.card, command=shell.command) if report else None
    with file_progress(len(images), quiet=shell.quiet) as progress:
        results = segment_paths(
            images,
            output,
            listed(formats) + (["overlay"] if report else []),
            loaded,
            mpp=mpp,
            engine=engine,
            device=device,
            threads=threads,
            precision=precision,
            max_pixels=max_pixels,
            progress=progress.update,
        )
        batch = collect(results, page, progress.finish)
    if len(images) == 1 and batch.failed:
        raise HemalumError(batch.failed[0][1])
    if not shell.quiet:
        print_table(*batch.table, left=("scale",))
        print(f"{len(batch.files)} files in {output}")
    for path, reason in batch.failed:
        print(f"failed: {path}: {reason.removeprefix(f'{path}: ')}", file=sys.stderr)
    if batch.failed:
        raise typer.Exit(1)


@app.command("import")
def import_(
    context: typer.Context,
    format: Annotated[str, typer.Argument(metavar="FORMAT", help="Name of the layout; --list shows them.")],
    source: Annotated[Path, typer.Argument(metavar="SRC", help="Folder with the data as published, or yours.")],
    target: Annotated[Path, typer.Argument(metavar="DST", help="Dataset folder to write.")],
    formats: Annotated[
        bool,
        typer.Option("--list", callback=_print_formats, is_eager=True, help="Print the formats and stop."),
    ] = False,
    mpp: Annotated[
        Any,
        typer.Option(
            parser=import_scale,
            metavar="NUMBER|nuclei",
            help="Microns per pixel of all images; 'nuclei' sets it per image from the size of its nuclei.",
        ),
    ] = None,
    group: Annotated[
        str | None,
        typer.Option(
            metavar="COLUMN",
            help="What the split keeps together: image, source, organ, or a column of the index.",
        ),
    ] = None,
    split: Annotated[str, typer.Option(metavar="TRAIN,VAL,TEST", help="Shares of the parts.")] = "0.7,0.1,0.2",
    test_groups: Annotated[
        str | None, typer.Option(metavar="NAMES", help="Groups that make the test part, comma-separated.")
    ] = None,
    seed: Seed = 0,
    name: Annotated[str | None, typer.Option(help="Name of the dataset; default: that of DST.")] = None,
    licence: Annotated[
        str | None, typer.Option(help="Licence of the data; goes into the card of every model.")
    ] = None,
    images: Annotated[str | None, typer.Option(help="Format folder: sub-folder of the images.")] = None,
    labels: Annotated[str | None, typer.Option(help="Format folder: sub-folder of the label maps or masks.")] = None,
    index: Annotated[str | None, typer.Option(help="Format folder: the index CSV.")] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace DST.")] = False,
) -> None:
    """Turn a public dataset, or your own folder, into a dataset folder with a split by group."""
    from hemalum.console import counter, print_pairs
    from hemalum.data.importing import import_dataset
    from hemalum.report.tables import dataset_pairs

    options: dict[str, Any] = {
        key: value for key, value in {"images": images, "labels": labels, "index": index}.items() if value
    }
    with counter("importing", quiet=context.obj.quiet) as advance:
        dataset = import_dataset(
            format,
            source,
            target,
            mpp=mpp,
            group=group,
            split=shares(split),
            test_groups=listed(test_groups) if test_groups else None,
            seed=seed,
            name=name,
            licence=licence,
            overwrite=overwrite,
            on_sample=lambda _: advance(),
            **options,
        )
    if not context.obj.quiet:
        print_pairs(dataset_pairs(dataset))


@app.command()
def check(
    context: typer.Context,
    dataset: Annotated[Path, typer.Argument(metavar="DATASET", help="Dataset folder.")],
) -> None:
    """Look for what is wrong with a dataset: sizes, empty or merged labels, duplicates, missing scale."""
    from hemalum.console import print_table
    from hemalum.data.check import check_dataset
    from hemalum.report.tables import problems_table

    problems = check_dataset(dataset)
    errors = sum(problem.level == "error" for problem in problems)
    if not context.obj.quiet:
        if problems:
            print_table(*problems_table(problems), left=("kind", "where", "what"))
        print(f"{dataset}: {errors} errors, {len(problems) - errors} warnings")
    if errors:
        raise typer.Exit(1)


@app.command()
def train(
    context: typer.Context,
    recipe: Annotated[str, typer.Argument(metavar="RECIPE", help="Recipe file, or the name of a shipped recipe.")],
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
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on with the run in RUN, exactly where it stopped.")
    ] = False,
    accelerator: Annotated[str, typer.Option(help="auto, cpu, cuda or mps.")] = "auto",
    threads: Threads = None,
    initial: Annotated[
        Path | None, typer.Option(metavar="MODEL", help="Start from the weights of this model.")
    ] = None,
) -> None:
    """Train a model by a recipe; the model file and the log are in RUN."""
    from hemalum.console import training_progress
    from hemalum.training.shipped import find_recipe
    from hemalum.training.train import train as run

    with training_progress(quiet=context.obj.quiet) as watch:
        path = run(
            find_recipe(recipe),
            named_datasets(data),
            output,
            resume=resume,
            accelerator=accelerator,
            threads=threads,
            initial=initial,
            watch=watch,
        )
    if not context.obj.quiet:
        print(path)


@app.command()
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


@app.command()
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


@app.command()
def export(
    context: typer.Context,
    model: Annotated[str, typer.Argument(metavar="MODEL", help="Model file, or the name of a shipped model.")],
    output: Annotated[Path, typer.Argument(metavar="OUT", help="ONNX file to write.")],
) -> None:
    """Write a model as ONNX: uint8 pixels in, maps out, the card in the file's metadata."""
    from hemalum.inference.engine_onnx import export_onnx
    from hemalum.inference.model import load_model

    loaded = load_model(model)
    export_onnx(loaded.card, loaded.tensors, output)
    if not context.obj.quiet:
        print(output)


@app.command()
def demo(
    context: typer.Context,
    output: Annotated[Path, typer.Option("--output", "-o", metavar="OUT", help="Folder for the results.")] = Path(
        "demo"
    ),
    model: Model = None,
    engine: Engine = "auto",
) -> None:
    """Segment a real image that comes with scikit-image, with the shipped model; nothing is downloaded."""
    from hemalum.console import file_progress, print_pairs
    from hemalum.demo import run_demo
    from hemalum.report.tables import demo_pairs

    shell: _Shell = context.obj
    with file_progress(1, quiet=shell.quiet) as progress:
        done = run_demo(output, model=model, engine=engine, command=shell.command, progress=progress.update)
    if not shell.quiet:
        print_pairs(demo_pairs(done.nuclei, done.seconds, done.batch.files))
