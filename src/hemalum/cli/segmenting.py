"""segment, demo: nuclei of images."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from hemalum.arguments import Engine, Model, Positive, Scale, Stain, Threads, Tta, listed
from hemalum.cli.app import Shell
from hemalum.errors import HemalumError


def segment(
    context: typer.Context,
    paths: Annotated[list[Path], typer.Argument(metavar="PATH…", help="Images, or folders of images.")],
    output: Annotated[Path, typer.Option("--output", "-o", metavar="OUT", help="Folder for the results.")],
    mpp: Scale = "auto",
    model: Model = None,
    organ: Annotated[
        str | None, typer.Option(metavar="NAME", help="Organ of the images, for a model that tells organs apart.")
    ] = None,
    stain: Stain = "auto",
    positive: Positive = None,
    engine: Engine = "auto",
    device: Annotated[str, typer.Option(help="auto, cpu, or what PyTorch calls a device (cuda, cuda:1).")] = "auto",
    threads: Threads = None,
    precision: Annotated[
        str | None, typer.Option(help="f32 or bf16; default: with OpenVINO what is faster on this processor.")
    ] = None,
    formats: Annotated[
        str, typer.Option("--format", "-f", metavar="LIST", help="Of geojson, csv, parquet, labels, overlay.")
    ] = "geojson,csv",
    max_pixels: Annotated[
        int | None, typer.Option(min=1, metavar="N", help="Lift the limit on the size of an image to N pixels.")
    ] = None,
    tta: Tta = False,
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

    shell: Shell = context.obj
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
            organ=organ,
            stain=stain,
            positive=positive,
            engine=engine,
            device=device,
            threads=threads,
            precision=precision,
            max_pixels=max_pixels,
            tta=tta,
            progress=progress.update,
        )
        batch = collect(results, page, progress.finish)
    if len(images) == 1 and batch.failed:
        raise HemalumError(batch.failed[0][1])
    if not shell.quiet:
        print_table(*batch.table, left=("scale", "stain"))
        print(f"{len(batch.files)} files in {output}")
    for path, reason in batch.failed:
        print(f"failed: {path}: {reason.removeprefix(f'{path}: ')}", file=sys.stderr)
    if batch.failed:
        raise typer.Exit(1)


def demo(
    context: typer.Context,
    output: Annotated[Path, typer.Option("--output", "-o", metavar="OUT", help="Folder for the results.")] = Path(
        "demo"
    ),
    model: Model = None,
    stain: Stain = "hdab",
    engine: Engine = "auto",
) -> None:
    """Segment a real H-DAB image that comes with scikit-image, with the shipped model; nothing is downloaded."""
    from hemalum.console import file_progress, print_pairs
    from hemalum.demo import run_demo
    from hemalum.report.tables import demo_pairs

    shell: Shell = context.obj
    with file_progress(1, quiet=shell.quiet) as progress:
        done = run_demo(
            output, model=model, stain=stain, engine=engine, command=shell.command, progress=progress.update
        )
    if not shell.quiet:
        print_pairs(demo_pairs(done.nuclei, done.seconds, done.batch.files))
