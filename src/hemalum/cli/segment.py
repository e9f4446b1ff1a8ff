"""Find the nuclei of images and whole slides."""

import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from hemalum.cli.app import CliContext
from hemalum.cli.options import (
    Engine,
    Model,
    Organ,
    SeriesScale,
    Shifts,
    Threads,
    Tta,
    chosen,
    exit_with_failures,
    listed,
)
from hemalum.errors import HemalumError, counted

# option of `segment_slides` that images have no use for → what it is called here
FOR_SLIDES = {
    "region": "--region", "tissue_mask": "--no-tissue-mask", "workers": "--workers",
    "scheduler": "--scheduler",
}  # fmt: skip


def segment(
    context: typer.Context,
    output: Annotated[Path, typer.Option("--output", "-o", metavar="OUT", help="Folder for the results.")],
    paths: Annotated[
        list[Path] | None,
        typer.Argument(metavar="PATH…", help="Images and whole slides, or folders of them; or none, with --cohort."),
    ] = None,
    cohort: Annotated[
        Path | None,
        typer.Option(
            metavar="CSV",
            help="Table of slides instead of PATH…, with the columns path and, where wanted, mpp, organ, stain, roi "
            "and name. What a row says goes before the options. All are segmented as whole slides.",
        ),
    ] = None,
    mpp: SeriesScale = None,
    model: Model = None,
    organ: Organ = None,
    stain: Annotated[
        str | None,
        typer.Option(
            metavar="auto|he|hdab|fluorescence",
            help="Stain of the images. auto, the default: recognized by each image's own colors.",
        ),
    ] = None,
    channel: Annotated[
        str | None,
        typer.Option(
            metavar="NAME|NUMBER",
            help="Channel with the nuclei, of files with stains side by side; default: the one named after a nuclear "
            "stain, or the first.",
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
        str | None,
        typer.Option(
            help="f32, bf16 or int8; default: with OpenVINO int8 where the model has it and loses next to nothing, "
            "else what is faster on this processor."
        ),
    ] = None,
    formats: Annotated[
        list[str] | None,
        typer.Option(
            "--format",
            "-f",
            metavar="LIST",
            help="Of geojson, csv, parquet, labels (TIFF), overlay (PNG); for slides also geojson.gz, ome-zarr, "
            "spatialdata, thumbnail. Separated by commas, or one -f each; default: geojson,csv.",
        ),
    ] = None,
    max_pixels: Annotated[
        int | None,
        typer.Option(min=1, metavar="N", help="Lift the limit on the size of what is decoded whole to N pixels."),
    ] = None,
    tta: Tta = False,
    shifts: Shifts = None,
    recall: Annotated[
        float | None,
        typer.Option(
            metavar="SHARE", help="Take the model's threshold that keeps this recall of nucleus pixels (calibrate)."
        ),
    ] = None,
    keep_artifacts: Annotated[
        bool, typer.Option("--keep-artifacts", help="Keep the nuclei in ink and out of focus.")
    ] = False,
    report: Annotated[
        bool,
        typer.Option(
            "--report",
            help="Also write OUT/summary.html, one page for all images (implies overlay); of slides OUT/NAME.html "
            "each, and of several OUT/cohort.html.",
        ),
    ] = False,
    overwrite: Annotated[
        bool,
        typer.Option(
            "--overwrite",
            help="Do again what an earlier run finished; without it that is kept, by the same settings.",
        ),
    ] = False,
    no_recursive: Annotated[
        bool, typer.Option("--no-recursive", help="Of folders take what lies directly inside, not in sub-folders.")
    ] = False,
    roi: Annotated[
        str | None,
        typer.Option(
            metavar="GEOJSON|X,Y,W,H",
            help="One image or slide: count the nuclei inside these outlines, or this rectangle in px (of level 0).",
        ),
    ] = None,
    exclude: Annotated[
        str | None,
        typer.Option(
            metavar="GEOJSON|X,Y,W,H", help="One image or slide: leave out what lies inside; density is of the rest."
        ),
    ] = None,
    min_area: Annotated[float | None, typer.Option(metavar="UM2", help="Keep nuclei of this area, or more.")] = None,
    max_area: Annotated[float | None, typer.Option(metavar="UM2", help="Keep nuclei of this area, or less.")] = None,
    min_probability: Annotated[
        float | None, typer.Option(metavar="P", help="Keep nuclei of this mean probability, or more.")
    ] = None,
    min_hematoxylin: Annotated[
        float | None, typer.Option(metavar="OD", help="Keep nuclei of this mean optical density, or more.")
    ] = None,
    min_solidity: Annotated[
        float | None, typer.Option(metavar="SHARE", help="Keep nuclei that fill their convex hull so far, or more.")
    ] = None,
    simplify: Annotated[
        float, typer.Option(metavar="PX", help="GeoJSON: move outlines by up to PX pixels to save points.")
    ] = 0.0,
    region: Annotated[
        int | None,
        typer.Option(
            min=1,
            metavar="PX",
            help="Slides only: side, px at the model's scale, of what is written at once; it changes no nucleus. "
            "Default: 4096.",
        ),
    ] = None,
    no_tissue_mask: Annotated[
        bool, typer.Option("--no-tissue-mask", help="Slides only: look everywhere, not only where tissue is seen.")
    ] = False,
    workers: Annotated[
        int | None,
        typer.Option(
            metavar="N",
            help="Slides only: cells separated at once on this machine; default: --threads, or all cores.",
        ),
    ] = None,
    scheduler: Annotated[
        str | None,
        typer.Option(metavar="tcp://…", help="Slides only: segment on the Dask cluster with this scheduler."),
    ] = None,
) -> None:
    """Find, outline and measure the nuclei of images and whole slides.

    Images of sub-folders are written to the same sub-folders of OUT. OUT/summary.csv has a row for each image and
    slide. What fails is named, and the others go on; running the same again does what is missing.

    The nuclei of a whole slide go to OUT/NAME.nuclei, from which the formats are exported, and its log to
    OUT/NAME.log. A whole slide is what comes in a scanner's
    format, as OME-Zarr or DICOM, has several levels or more than 100 megapixels; images come first.
    """
    from hemalum.cli.console import print_table
    from hemalum.inference.summary import newest_table
    from hemalum.models.model import load_model

    cli: CliContext = context.obj
    for_slides = chosen(
        region=region, tissue_mask=False if no_tissue_mask else None, workers=workers, scheduler=scheduler
    )
    images, slides = _sort(paths or [], cohort, output, max_pixels, not no_recursive)
    wanted = [name for one in formats or ["geojson,csv"] for name in listed(one)]
    areas = chosen(roi=roi, exclude=exclude)
    _check(images, slides, for_slides | areas, mpp=mpp, cohort=cohort)
    keep = _filter(
        min_area_um2=min_area, max_area_um2=max_area, min_probability=min_probability,
        min_hematoxylin=min_hematoxylin, min_solidity=min_solidity,
    )  # fmt: skip
    loaded = load_model(model)
    options = {"mpp": mpp, "organ": organ, "positive": positive, "threads": threads, "precision": precision}
    options |= {
        "max_pixels": max_pixels,
        "tta": tta,
        "recall": recall,
        "keep": keep,
        **areas,
        "keep_artifacts": keep_artifacts,
        "overwrite": overwrite,
        "simplify": simplify,
        "channel": channel,
        **chosen(stain=stain, engine=engine, device=device, shifts=shifts),
    }
    failed: list[tuple[Path, str]] = []
    files: list[Path] = []
    tables: list[tuple[list[str], list[list[str]]]] = []
    if slides:
        from hemalum.inference.slide_batch import check_slide_formats

        check_slide_formats(wanted)
    done: list[str] = []  # what this run has finished or kept
    try:
        if images:
            batch = _segment_images(cli, images, output, wanted, loaded, report, options, done)
            failed, files = batch.failed, batch.files
            tables.append(batch.table)
        if slides:
            options["mpp"] = None if mpp == "auto" else mpp
            slide_batch = _segment_slides(cli, slides, output, wanted, loaded, report, options | for_slides, done)
            failed, files = failed + slide_batch.failed, files + slide_batch.files
            tables.append(slide_batch.table)
    except KeyboardInterrupt:
        total = counted(len(images) + len(slides), "input")
        print(f"stopped: {len(done)} of {total} done, in {output}; the same command does the rest", file=sys.stderr)
        raise
    if len(images) + len(slides) == 1 and failed:
        raise HemalumError(failed[0][1])
    if not cli.quiet:
        for table in tables:
            if table[1]:
                print_table(*table, left=("scale", "stain"))
        print(f"{counted(len(files), 'file')} in {output}, with {newest_table(output)}")
    exit_with_failures((path, reason.removeprefix(f"{path}: ")) for path, reason in failed)


def _filter(**limits: float | None) -> Any:
    """The filter that options ask for. Raises HemalumError that names them."""
    from hemalum.nuclei.filters import as_filter

    try:
        return as_filter(chosen(**limits))
    except HemalumError as error:
        line = str(error).removeprefix("filter: ")
        for name in limits:
            line = line.replace(name, f"--{name.removesuffix('_um2').replace('_', '-')}")
        raise HemalumError(line) from error


def _sort(
    paths: list[Path], cohort: Path | None, output: Path, max_pixels: int | None, recursive: bool
) -> tuple[list[Any], list[Any]]:
    """Images, and slides."""
    from hemalum.inference.cohort import read_cohort
    from hemalum.inference.inputs import find_inputs

    if cohort is not None:
        if paths:
            raise HemalumError(f"give PATH… or --cohort {cohort}, not both: {paths[0]} may be a row of the table")
        return [], read_cohort(cohort)
    if not paths:
        raise HemalumError("give PATH…, images or slides, or --cohort and a table of slides")
    return find_inputs(paths, output, max_pixels=max_pixels, recursive=recursive)


def _check(
    images: Sequence[Any], slides: Sequence[Any], for_slides: dict[str, Any], *, mpp: Any, cohort: Path | None
) -> None:
    """Refuse what is for the other kind of input, before anything is done."""
    for name in {"roi", "exclude"} & for_slides.keys():
        if cohort is not None:
            more = "may have a column roi" if name == "roi" else "has several"
            raise HemalumError(f"--{name} is for one image or slide; {cohort} {more}")
        if len(images) + len(slides) > 1:
            raise HemalumError(
                f"--{name} is for one image or slide, and {len(images) + len(slides)} are named; "
                "a table of --cohort has a column roi"
            )
    only_slides = [name for name in for_slides if name in FOR_SLIDES]
    if images and only_slides:
        option = FOR_SLIDES[only_slides[0]]
        apart = "segment them apart" if slides else "leave it out"
        raise HemalumError(f"{option} is for whole slides, and {images[0].path} is an image: {apart}")
    if not slides:
        return
    first = cohort or slides[0].path
    if mpp in ("estimate", "series"):
        raise HemalumError(f"--mpp {mpp}: the scale of a slide is not estimated ({first}); give it as a number")
    if {"workers", "scheduler"} <= for_slides.keys():
        raise HemalumError(
            "--workers counts cells on this machine, and with --scheduler others do the work: name one"
        )


def _segment_images(
    cli: CliContext, images: list[Any], output: Path, formats: list[str], model: Any, report: bool,
    options: dict[str, Any], done: list[str],
) -> Any:  # fmt: skip
    from hemalum.cli.console import file_progress
    from hemalum.inference.batch import segment_paths
    from hemalum.remarks import gather_remarks
    from hemalum.reports.segmentation.batch import collect
    from hemalum.reports.segmentation.page import SummaryPage

    page = SummaryPage(output / "summary.html", card=model.card, command=cli.command) if report else None
    formats = formats + (["overlay"] if report else [])
    with gather_remarks(), file_progress(len(images), quiet=cli.quiet) as progress:
        results = segment_paths(
            images, output, formats, model, on_progress=progress.update, describe=page.describe if page else None,
            **options,
        )  # fmt: skip
        return collect(_counted(results, done), page, progress.finish)


def _segment_slides(
    cli: CliContext, slides: list[Any], output: Path, formats: list[str], model: Any, report: bool,
    options: dict[str, Any], done: list[str],
) -> Any:  # fmt: skip
    from hemalum.cli.slide_progress import slide_progress
    from hemalum.inference.slide_batch import segment_slides
    from hemalum.reports.segmentation.slide_table import collect_slides

    with slide_progress(len(slides), quiet=cli.quiet) as progress:
        results = segment_slides(
            slides, output, formats, model, command=cli.command, on_progress=progress.update, **options
        )
        return collect_slides(_counted(results, done), progress.finish, pages=output if report else None)


def _counted(results: Iterable[Any], done: list[str]) -> Iterator[Any]:
    """The same results; those that did not fail are added to what is done."""
    for result in results:
        if result.error is None:
            done.append(result.name)
        yield result
