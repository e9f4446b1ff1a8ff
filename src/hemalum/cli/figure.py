"""figure: pictures of what a system does inside."""

from pathlib import Path
from typing import Annotated

import typer

from hemalum.cli.options import Engine, ModelArgument, Organ, Scale, Threads, chosen

figure = typer.Typer(help="Draw what a system sees or does.", no_args_is_help=True)


@figure.command()
def embedding(
    image: Annotated[Path, typer.Argument(metavar="IMAGE", help="Image file.")],
    encoder: Annotated[
        str, typer.Option(metavar="NAME|FOLDER", help="SAM's image encoder: a name on the hub, or a folder.")
    ],
    output: Annotated[Path, typer.Option("--output", "-o", metavar="PNG", help="Where the picture is written.")],
    field: Annotated[
        int, typer.Option(min=16, metavar="PX", help="Side of what SAM sees at once, px of the image.")
    ] = 256,
) -> None:
    """Principal components of SAM's embedding, as colors, beside the image."""
    import torch

    from hemalum.data.image import read_image
    from hemalum.models.sam import load_sam
    from hemalum.reports.figures.embedding import write_embedding_picture
    from hemalum.training.embeddings import embed

    pixels = read_image(image)
    loaded = load_sam(encoder).to("cuda" if torch.cuda.is_available() else "cpu")
    embedded = embed(loaded, pixels, field)
    values = embedded.read()
    write_embedding_picture(output, pixels, values, embedded.tokens_per_px)
    print(f"{output}: {pixels.shape[1]} x {pixels.shape[0]} px, {values.shape[2]} x {values.shape[1]} cells")


@figure.command()
def difference(
    comparison: Annotated[Path, typer.Argument(metavar="COMPARISON", help="Folder that `hemalum compare` wrote.")],
    first: Annotated[str, typer.Argument(metavar="FIRST", help="Name of a method in it.")],
    second: Annotated[str, typer.Argument(metavar="SECOND", help="Name of the method to set against it.")],
    output: Annotated[Path, typer.Option("--output", "-o", metavar="PNG", help="The picture, .png or .jpg.")],
    data: Annotated[
        str | None, typer.Option("--data", "-d", metavar="NAME", help="Which dataset, where it has several.")
    ] = None,
) -> None:
    """Draw what one method changes against another: image, truth, the errors of both, pixels gained and lost."""
    from hemalum.experiments.records import load_comparison
    from hemalum.reports.figures.difference import write_difference

    print(write_difference(load_comparison(comparison), first, second, output, data))


@figure.command()
def stages(
    models: Annotated[
        list[str], typer.Argument(metavar="MODEL…", help="Model files in two stages: a row of the picture for each.")
    ],
    data: Annotated[Path, typer.Option("--data", "-d", metavar="DATASET", help="Dataset folder.")],
    output: Annotated[Path, typer.Option("--output", "-o", metavar="PNG", help="The picture, .png or .jpg.")],
    split: Annotated[str, typer.Option(help="Its part: test, val, train or all.")] = "test",
    image: Annotated[
        str | None, typer.Option(metavar="ID", help="Which image; default: the one with most newly found nuclei.")
    ] = None,
    engine: Engine = None,
    threads: Threads = None,
) -> None:
    """Draw what a second stage changes, and count the nuclei that it alone finds: p1 and p2 of one network."""
    from hemalum.cli.console import print_table
    from hemalum.experiments.stages import compare_stages, open_part, stages_table
    from hemalum.reports.figures.contact_sheet import picture_path
    from hemalum.reports.figures.stages import write_stages

    picture_path(output)  # before the images are segmented
    part, options = open_part(data, split), chosen(engine=engine, threads=threads)
    comparisons = [compare_stages(model, part, split="all", **options) for model in models]
    path = write_stages(models, comparisons, part, output, image=image, **options)
    print_table(*stages_table(comparisons), title=f"{part.info.name}, {len(part)} images")
    print(path)


@figure.command()
def uncertainty(
    model: ModelArgument,
    image: Annotated[Path, typer.Argument(metavar="IMAGE", help="Image file; a tile, not a slide.")],
    output: Annotated[Path, typer.Option("--output", "-o", metavar="PNG", help="Where the picture is written.")],
    mpp: Scale = None,
    organ: Organ = None,
    engine: Engine = None,
) -> None:
    """Draw what a model is sure of: nuclei, probability, entropy, and where its last features are strong."""
    from hemalum.models.model import load_model
    from hemalum.reports.figures.uncertainty import write_uncertainty

    loaded = load_model(model)
    if organ is not None:
        loaded = loaded.with_organ(organ)
    entropy = write_uncertainty(output, image, loaded, **chosen(mpp=mpp, engine=engine))
    print(f"{output}: mean entropy {entropy:.4f} nats per pixel")
