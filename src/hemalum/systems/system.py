"""What a published system is: options, and the recipe keys that follow from them."""

from typing import Any

from hemalum.models.card import Strict


class SystemSettings(Strict):
    """Options of a system. Every named part of a paper is one, with the paper's value or our reading as default."""

    name: str

    def recipe(self) -> dict[str, Any]:
        """The keys of a recipe that the system decides: network, representation, phases and what else it needs.

        What a recipe says itself goes over them.
        """
        raise NotImplementedError
