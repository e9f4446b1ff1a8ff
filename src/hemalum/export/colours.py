"""A colour for each class of nucleus, the same in every file and picture."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Colour = tuple[int, int, int]

# hues that stand out on hematoxylin, eosin and dark ground
PALETTE: tuple[Colour, ...] = (
    (0, 230, 118), (255, 214, 0), (0, 200, 255), (255, 110, 0), (255, 255, 255), (170, 255, 40), (0, 96, 255),
    (255, 40, 40), (0, 0, 0), (150, 150, 150),
)  # fmt: skip


@dataclass(frozen=True, slots=True, eq=False)
class Classes:
    """The class of each nucleus: `numbers` (N,) int32 from 1, in the order of `names`; 0 for none."""

    numbers: NDArray[np.int32]
    names: Sequence[str]

    @property
    def counts(self) -> dict[str, int]:
        """Number of nuclei of each class, also of those that do not occur."""
        found = np.bincount(self.numbers, minlength=len(self.names) + 1)[1:]
        return dict(zip(self.names, found.tolist(), strict=True))


def class_colour(number: int) -> Colour:
    """RGB of a class by its number from 1."""
    return PALETTE[max(number - 1, 0) % len(PALETTE)]
