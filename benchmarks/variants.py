"""A model with other values on its card, as benchmarks compare them."""

from dataclasses import replace
from typing import Any

from hemalum.models.model import Model


def change_card(model: Model, **changes: Any) -> Model:
    """The model with some values of its card changed."""
    return replace(model, card=model.card.model_copy(update=changes))


def change_separation(model: Model, **changes: Any) -> Model:
    """The model with some of its separation settings changed."""
    return change_card(model, separation=model.card.separation.model_copy(update=changes))
