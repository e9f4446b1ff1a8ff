"""What a model or a slide says about itself."""

from pathlib import Path
from typing import Annotated

import typer


def info(
    name: Annotated[
        str | None,
        typer.Argument(metavar="[MODEL|SLIDE]", help="Model file or name, or a slide; default: the shipped model."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print it as JSON.")] = False,
) -> None:
    """Print what a model says about itself: scale, training data, metrics; or a slide: size, scale, levels."""
    if name is not None and _is_slide(name):
        _print_slide(Path(name), as_json)
    else:
        _print_model(name, as_json)


def _is_slide(name: str) -> bool:
    """Whether the name is a slide's; whatever else is a model's, and the loader of models says what is wrong."""
    path = Path(name)
    if path.suffix == ".safetensors" or not path.exists():
        return False
    from hemalum.slides import is_slide

    return is_slide(path)


def _print_model(name: str | None, as_json: bool) -> None:
    from hemalum.cli.console import print_pairs, print_table
    from hemalum.models.model import load_model
    from hemalum.reports.tables import card_pairs, metrics_table

    card = load_model(name).card
    if as_json:
        print(card.model_dump_json(indent=2))
        return
    print_pairs(card_pairs(card))
    if card.metrics:
        print_table(*metrics_table(card.metrics))


def _print_slide(path: Path, as_json: bool) -> None:
    import json

    from hemalum.cli.console import print_pairs
    from hemalum.reports.tables import slide_pairs
    from hemalum.slides import open_slide

    with open_slide(path) as slide:
        if not as_json:
            print_pairs(slide_pairs(slide))
            return
        levels = [
            {"width": level.shape[1], "height": level.shape[0], "downsample": level.downsample}
            for level in slide.levels
        ]
        facts = {"format": slide.format, "width": slide.shape[1], "height": slide.shape[0], "mpp": slide.mpp}
        print(json.dumps(facts | {"levels": levels, "fingerprint": slide.fingerprint}, indent=2))
