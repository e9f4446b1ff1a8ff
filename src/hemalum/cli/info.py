"""What a model says about itself."""

from typing import Annotated

import typer


def info(
    model: Annotated[
        str | None, typer.Argument(metavar="[MODEL]", help="Model file or name; default: the shipped model.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the card as JSON.")] = False,
) -> None:
    """Print what a model file says about itself: scale, training data with licenses, metrics."""
    from hemalum.cli.console import print_pairs, print_table
    from hemalum.models.model import load_model
    from hemalum.reports.tables import card_pairs, metrics_table

    card = load_model(model).card
    if as_json:
        print(card.model_dump_json(indent=2))
        return
    print_pairs(card_pairs(card))
    if card.metrics:
        print_table(*metrics_table(card.metrics))
