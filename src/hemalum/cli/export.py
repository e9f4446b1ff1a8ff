"""Results, or a model, for other programs."""

import sys
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer

from hemalum.cli.app import CliContext
from hemalum.cli.options import chosen
from hemalum.errors import HemalumError, nearest

# option of `export_store` → what it is called here
OPTIONS = {"kind": "--as", "simplify": "--simplify", "canvas": "--canvas", "picture": "--image"}
# pictures of a slide → what is put behind its name
PICTURES = {"maps": "_maps", "page": ".html"}


def export(
    context: typer.Context,
    what: Annotated[
        str,
        typer.Argument(
            metavar="RESULTS|MODEL",
            help="Results of slides: a folder NAME.nuclei, or one with several. Or a model: its file or name.",
        ),
    ],
    file: Annotated[
        Path | None,
        typer.Argument(metavar="[FILE]", help="Of a model, the file to write: .onnx, or .xml for OpenVINO."),
    ] = None,
    to: Annotated[
        str | None,
        typer.Option(
            metavar="FORMAT",
            help="Of results: geojson, geojson.gz, csv, parquet, labels (TIFF), overlay (PNG), ome-zarr (label "
            "image), spatialdata, thumbnail, maps (density, size and classes as PNG and OME-Zarr) or page (HTML).",
        ),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output", "-o", metavar="FILE", help="Where to write; of several slides a folder. Default: beside them."
        ),
    ] = None,
    kind: Annotated[
        str | None,
        typer.Option(
            "--as", metavar="detection|annotation", help="What nuclei are in QuPath (geojson); default: detection."
        ),
    ] = None,
    simplify: Annotated[
        float | None,
        typer.Option(min=0, metavar="PX", help="Move outlines by up to PX pixels to save points (geojson)."),
    ] = None,
    canvas: Annotated[
        bool,
        typer.Option(
            "--canvas", help="Count from the corner of the scanner's canvas, not of the slide's bounds (geojson)."
        ),
    ] = False,
    image: Annotated[
        Path | None,
        typer.Option(metavar="SLIDE", help="The slide, or a picture of all of it, to draw on (thumbnail, overlay)."),
    ] = None,
    slide: Annotated[
        Path | None,
        typer.Option(
            metavar="PATH", help="The slide, or a folder that has it (maps, page). Default: beside the results."
        ),
    ] = None,
    cell: Annotated[
        float | None,
        typer.Option(min=1, metavar="UM", help="Side of a map's cells in µm (maps, page); default: 50."),
    ] = None,
    organ: Annotated[
        str | None, typer.Option(metavar="NAME", help="Build in the organ, for a model that tells organs apart.")
    ] = None,
) -> None:
    """Write results for other programs (--to), or a model as ONNX or OpenVINO IR.

    `hemalum export out/slide.nuclei --to geojson` writes out/slide.geojson, which QuPath opens.
    `hemalum export MODEL FILE` writes a network that takes uint8 pixels and gives maps, the card in the file.
    """
    if to is None:
        named = chosen(
            output=output, kind=kind, simplify=simplify, picture=image, canvas=canvas or None, slide=slide, cell=cell
        )
        _export_model(context.obj, what, file, organ, list(named))
        return
    if file is not None:
        raise HemalumError(f"'{file}': with --to, the file to write is given by -o {file}")
    if organ is not None:
        raise HemalumError("--organ is for a model (hemalum export MODEL FILE); results take none: leave it out")
    options = chosen(kind=kind, simplify=simplify, canvas=canvas or None)
    if to in PICTURES:
        for option in [*options, *chosen(picture=image)]:
            raise HemalumError(f"{OPTIONS[option]} is not for {to}, which has no use for it: leave it out")
        _export_pictures(context.obj, Path(what), to, output, slide, chosen(cell_um=cell))
        return
    for option in chosen(slide=slide, cell=cell):
        raise HemalumError(f"--{option} is for {' and '.join(PICTURES)}; {to} has no use for it: leave it out")
    _export_results(context.obj, Path(what), to, output, image, options)


def _export_model(cli: CliContext, model: str, file: Path | None, organ: str | None, named: list[str]) -> None:
    if Path(model).is_dir():
        raise HemalumError(f"{model}: is a folder; of results say in which format, as in --to geojson")
    if "output" in named:
        raise HemalumError(f"model '{model}': -o is for results (--to); the file of a model follows its name")
    if named:
        raise HemalumError(
            f"model '{model}': {_option(named[0])} is for results (hemalum export NAME.nuclei --to FORMAT)"
        )
    if file is None:
        raise HemalumError(f"model '{model}': name the file to write, .onnx, or .xml for OpenVINO")
    from hemalum.models.model import export_model, load_model

    loaded = load_model(model)
    for path in export_model(loaded if organ is None else loaded.with_organ(organ), file):
        if not cli.quiet:
            print(path)


def _option(name: str) -> str:
    """What a user calls an option."""
    return OPTIONS.get(name, f"--{name}")


def _export_results(
    cli: CliContext, results: Path, to: str, output: Path | None, image: Path | None, options: dict[str, Any]
) -> None:
    from hemalum.cli.console import file_progress
    from hemalum.nuclei.store import EXPORTS, check_export_options, export_store, find_stores, open_store
    from hemalum.slides import open_slide

    named = list(options) + (["picture"] if image is not None else [])
    if to not in EXPORTS:
        raise HemalumError(f"unknown format '{to}'{nearest(to, [*EXPORTS, *PICTURES])}")
    check_export_options(to, {option: OPTIONS[option] for option in named})
    paths = find_stores(results)
    if image is not None and len(paths) > 1:
        raise HemalumError(f"{results}: holds {len(paths)} slides, and --image shows one; export them one by one")
    failed: list[str] = []
    with ExitStack() as opened, file_progress(len(paths), quiet=cli.quiet) as progress:
        if image is not None:
            slide = opened.enter_context(open_slide(image))
            if to == "overlay" and slide.shape != open_store(paths[0]).run.shape:
                raise HemalumError(f"{image}: is not as large as the slide of {paths[0]}; name the slide itself")
            options["picture"] = slide.read_scaled if to == "overlay" else slide.thumbnail(2048)
        for path in paths:
            try:
                store = open_store(path)
                target = output
                if output is not None and (len(paths) > 1 or output.is_dir()):
                    target = output / f"{store.name}{EXPORTS[to]}"
                written = export_store(
                    store,
                    to,
                    target,
                    on_progress=partial(progress.update, path),
                    **options,
                )
            except HemalumError as error:
                if len(paths) == 1:
                    raise
                failed.append(str(error))
            else:
                if not cli.quiet:
                    print(written)
            progress.finish()
    for reason in failed:
        print(f"failed: {reason}", file=sys.stderr)
    if failed:
        raise typer.Exit(1)


def _export_pictures(
    cli: CliContext, results: Path, to: str, output: Path | None, slide: Path | None, options: dict[str, Any]
) -> None:
    """Write maps or pages; several pages get one of the cohort, in which those that failed are named."""
    from hemalum.cli.console import file_progress
    from hemalum.nuclei.store import find_stores, open_store
    from hemalum.reports.slides import COHORT, SlideRow, write_cohort_page, write_maps, write_slide_page

    paths = find_stores(results)
    several = len(paths) > 1
    if several and to == "page" and any(path.stem == Path(COHORT).stem for path in paths):
        raise HemalumError(
            f"{results}: the page of a slide called cohort would be that of the cohort; rename its store"
        )
    rows: list[SlideRow] = []
    failed: list[tuple[str, str]] = []
    written: list[Path | str] = []
    with file_progress(len(paths), quiet=cli.quiet) as progress:
        for path in paths:
            try:
                store = open_store(path)
                target = output or path.parent
                if several or output is None or output.is_dir():
                    target = target / f"{store.name}{PICTURES[to]}"
                if to == "maps":
                    written.append(write_maps(store, slide, target, **options))
                else:
                    rows.append(write_slide_page(store, slide, target, **options))
                    written.append(rows[-1].page)
            except HemalumError as error:
                if not several:
                    raise
                failed.append((path.name, str(error)))
            progress.finish()
    if several and to == "page":
        written.append(write_cohort_page(rows, (output or results) / COHORT, failed=failed))
    if not cli.quiet:
        for one in written:
            print(one)
    for _, reason in failed:
        print(f"failed: {reason}", file=sys.stderr)
    if failed:
        raise typer.Exit(1)
