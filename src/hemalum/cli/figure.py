"""figure: pictures of what a system does inside."""

from pathlib import Path
from typing import Annotated

import typer

from hemalum.cli.options import BudgetOption, Engine, ModelArgument, Organ, Scale, Threads, budget_of, chosen

figure = typer.Typer(help="Draw what a system sees or does.", no_args_is_help=True)


@figure.command()
def embedding(
    images: Annotated[
        list[Path], typer.Argument(metavar="IMAGE...", help="Image files; a row of the sheet for each.")
    ],
    output: Annotated[Path, typer.Option("--output", "-o", metavar="PNG", help="The sheet, .png or .jpg.")],
    encoder: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME|FOLDER|PTH",
            help="SAM's image encoder: a name on the hub, a folder, a .pth; repeat. Default: the recipe's.",
        ),
    ] = None,
    recipe: Annotated[
        str | None,
        typer.Option(metavar="RECIPE[:VARIANT]", help="Embed at the scale and field of this recipe."),
    ] = None,
    budget: BudgetOption = None,
    mpp: Annotated[
        float | None, typer.Option(min=0.01, max=100, metavar="NUMBER", help="Microns per pixel of the images.")
    ] = None,
    field: Annotated[
        int | None,
        typer.Option(min=16, metavar="PX", help="Side of what SAM sees at once; default: the recipe's, or 256."),
    ] = None,
) -> None:
    """Principal components of SAM's embedding, as colors, beside each image; a column for each encoder."""
    import torch

    from hemalum.models.sam import load_sam
    from hemalum.reports.figures.embedding import write_embeddings
    from hemalum.training.recipe import open_recipe

    names, scale = list(encoder or []), None
    if recipe is None:
        for value, option in ((budget, "--budget"), (mpp, "--mpp")):
            if value is not None:
                raise typer.BadParameter(f"{option} goes by a recipe: give --recipe as well, or leave it out")
    else:
        opened = open_recipe(recipe, budget_of(budget) or "full")
        scale, field = opened.mpp, field or (opened.sam and opened.sam.field) or opened.tile
        names = names or ([opened.sam.encoder] if opened.sam is not None else [])
    if not names:
        raise typer.BadParameter("give --encoder, or a --recipe that names one")
    device = "cuda" if torch.cuda.is_available() else "cpu"
    encoders = [load_sam(name).to(device) for name in names]
    shares = write_embeddings(output, images, encoders, field=field or 256, mpp=scale, image_mpp=mpp)
    for image, row in zip(images, shares, strict=True):
        parts = ", ".join(f"{Path(name).name} {100 * share:.0f} %" for name, share in zip(names, row, strict=True))
        print(f"{image}: of the variance is shown: {parts}")
    print(output)


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
    from hemalum.reports.figures.stages import find_image, write_stages

    picture_path(output)  # before the images are segmented
    part, options = open_part(data, split), chosen(engine=engine, threads=threads)
    if image is not None:
        find_image(part, image)
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
