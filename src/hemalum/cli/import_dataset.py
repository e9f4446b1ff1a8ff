"""A public dataset, or a folder, as a dataset folder."""

from contextlib import ExitStack
from pathlib import Path
from typing import Annotated, Any

import typer

from hemalum.cli.check import write_preview_sheet
from hemalum.cli.options import Preview, Seed, chosen, import_scale, listed, reader_options, shares
from hemalum.errors import HemalumError


def _print_formats(asked: bool) -> None:
    if asked:
        from hemalum.cli.console import print_table
        from hemalum.reports.tables import formats_table

        headers, rows = formats_table()
        print_table(headers, rows, left=headers)
        raise typer.Exit


def import_(
    context: typer.Context,
    format: Annotated[str, typer.Argument(metavar="FORMAT", help="Name of the layout; --list shows them.")],
    paths: Annotated[
        list[Path],
        typer.Argument(
            metavar="SRC DST",
            help="Folder with the data as published, or yours, and the dataset folder to write. Format qupath: "
            "FILE.geojson, the image or slide that it is of, and the folder to write.",
        ),
    ],
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
    split: Annotated[
        Any,
        typer.Option(
            parser=shares,
            metavar="published|TRAIN,VAL,TEST",
            help="The publication's parts, or shares. Default: published where it keeps groups together, "
            "else 0.7,0.1,0.2.",
        ),
    ] = None,
    fold: Annotated[int | None, typer.Option(help="Fold of the published split, from 1.")] = None,
    test_groups: Annotated[
        str | None, typer.Option(metavar="NAMES", help="Groups that make the test part, comma-separated.")
    ] = None,
    seed: Seed = None,
    name: Annotated[str | None, typer.Option(help="Name of the dataset; default: that of DST.")] = None,
    license: Annotated[
        str | None, typer.Option(help="License of the data; goes into the card of every model.")
    ] = None,
    citation: Annotated[
        str | None, typer.Option(help="How to cite the data; goes into the card of every model.")
    ] = None,
    images: Annotated[str | None, typer.Option(help="Format folder: sub-folder of the images.")] = None,
    labels: Annotated[str | None, typer.Option(help="Format folder: sub-folder of the label maps or masks.")] = None,
    index: Annotated[str | None, typer.Option(help="Format folder: the index CSV.")] = None,
    option: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME=VALUE", help="Option of the format, e.g. merged=true; may be repeated."),
    ] = None,
    chromogen: Annotated[
        str | None, typer.Option(metavar="dab|red", help="Format ihc-pairs: what the IHC sections are stained with.")
    ] = None,
    registration: Annotated[
        str | None, typer.Option(metavar="rigid|affine|bspline", help="Format ihc-pairs: the finest step.")
    ] = None,
    min_quality: Annotated[
        float | None, typer.Option(help="Format ihc-pairs: pairs that score less (0 to 1) are left out.")
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace DST.")] = False,
    preview: Preview = None,
) -> None:
    """Turn a public dataset, or your own folder, into a dataset folder with a split by group."""
    from hemalum.cli.console import counter, print_pairs
    from hemalum.data.importing import import_dataset
    from hemalum.reports.tables import dataset_pairs

    *sources, target = paths
    if len(sources) != (2 if format == "qupath" else 1):
        raise HemalumError(f"import {format}: want {'FILE.geojson IMAGE DST' if format == 'qupath' else 'SRC DST'}")
    folders = chosen(images=images or None, labels=labels or None, index=index or None)
    pairs = chosen(chromogen=chromogen, registration=registration, min_quality=min_quality)
    with counter("importing", quiet=context.obj.quiet) as advance, ExitStack() as opened:
        if format == "qupath":
            from hemalum.slides import open_slide

            pairs["image"] = opened.enter_context(open_slide(sources[1]))
        dataset = import_dataset(
            format,
            sources[0],
            target,
            mpp=mpp,
            group=group,
            split=split,
            fold=fold,
            test_groups=listed(test_groups) if test_groups else None,
            name=name,
            license=license,
            citation=citation,
            overwrite=overwrite,
            on_progress=lambda _: advance(),
            **chosen(seed=seed),
            **(folders | pairs | reader_options(option or [])),
        )
    if not context.obj.quiet:
        print_pairs(dataset_pairs(dataset))
    write_preview_sheet(dataset, preview, seed, context.obj.quiet)
