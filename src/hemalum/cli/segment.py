"""Find the nuclei of images."""

from pathlib import Path
from typing import Annotated

import typer

from hemalum.cli.app import CliContext
from hemalum.cli.options import Engine, Model, Organ, Scale, Threads, Tta, chosen, exit_with_failures, listed
from hemalum.errors import HemalumError, counted


def segment(
    context: typer.Context,
    paths: Annotated[list[Path], typer.Argument(metavar="PATH…", help="Images, or folders of images.")],
    output: Annotated[Path, typer.Option("--output", "-o", metavar="OUT", help="Folder for the results.")],
    mpp: Scale = None,
    model: Model = None,
    organ: Organ = None,
    stain: Annotated[
        str | None,
        typer.Option(
            metavar="auto|he|hdab|fluorescence",
            help="Stain of the images. auto, the default: recognized by each image's own colors.",
        ),
    ] = None,
    positive: Annotated[
        str | None,
        typer.Option(
            metavar="OD[,OD,OD]|otsu",
            help="DAB from which a nucleus is positive, in optical density, as 0.2; or three for 1+, 2+, 3+, as "
            "0.2,0.4,0.6; or otsu. Implies --stain hdab.",
        ),
    ] = None,
    engine: Engine = None,
    device: Annotated[
        str | None,
        typer.Option(help="auto, cpu, or what PyTorch calls a device (cuda, cuda:1); default: auto."),
    ] = None,
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
    from hemalum.cli.console import file_progress, print_table
    from hemalum.inference.batch import find_images, segment_paths
    from hemalum.models.model import load_model
    from hemalum.reports.segmentation.batch import collect
    from hemalum.reports.segmentation.page import SummaryPage

    cli: CliContext = context.obj
    images = find_images(paths, output)
    loaded = load_model(model)
    page = SummaryPage(output / "summary.html", card=loaded.card, command=cli.command) if report else None
    with file_progress(len(images), quiet=cli.quiet) as progress:
        results = segment_paths(
            images,
            output,
            listed(formats) + (["overlay"] if report else []),
            loaded,
            mpp=mpp,
            organ=organ,
            positive=positive,
            threads=threads,
            precision=precision,
            max_pixels=max_pixels,
            tta=tta,
            on_progress=progress.update,
            **chosen(stain=stain, engine=engine, device=device),
        )
        batch = collect(results, page, progress.finish)
    if len(images) == 1 and batch.failed:
        raise HemalumError(batch.failed[0][1])
    if not cli.quiet:
        print_table(*batch.table, left=("scale", "stain"))
        print(f"{counted(len(batch.files), 'file')} in {output}")
    exit_with_failures((path, reason.removeprefix(f"{path}: ")) for path, reason in batch.failed)
