"""A color for each class of nucleus, the same in every file and picture."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Color = tuple[int, int, int]

# hues that stand out on hematoxylin, eosin and dark ground
PALETTE: tuple[Color, ...] = (
    (0, 230, 118), (255, 214, 0), (0, 200, 255), (255, 110, 0), (255, 255, 255), (170, 255, 40), (0, 96, 255),
    (255, 40, 40), (0, 0, 0), (150, 150, 150),
)  # fmt: skip


# QuPath's classes of staining intensity, in its hues but stronger: they have to stand out on brown
INTENSITIES: dict[str, Color] = {
    "Negative": (70, 100, 255),
    "Positive": (255, 40, 40),
    "1+": (255, 230, 0),
    "2+": (255, 130, 0),
    "3+": (255, 0, 70),
}


@dataclass(frozen=True, slots=True, eq=False)
class Classes:
    """The class of each nucleus: `numbers` (N,) int32 from 1, in the order of `names`; 0 for none.

    `palette` are their colors; without it those of `class_color`.
    """

    numbers: NDArray[np.int32]
    names: Sequence[str]
    palette: Sequence[Color] = ()

    @classmethod
    def of(cls, values: Sequence[str | None], names: Sequence[str], palette: Sequence[Color] = ()) -> "Classes":
        """Those of nuclei by the names of their classes, None for none."""
        by_name = {name: number for number, name in enumerate(names, start=1)}
        return cls(np.array([by_name.get(str(value), 0) for value in values], np.int32), names, palette)

    @property
    def colors(self) -> list[Color]:
        """RGB of each class, in the order of `names`."""
        return list(self.palette) or [class_color(number) for number in range(1, len(self.names) + 1)]

    @property
    def counts(self) -> dict[str, int]:
        """Number of nuclei of each class, also of those that do not occur."""
        counts = np.bincount(self.numbers, minlength=len(self.names) + 1)[1:]
        return dict(zip(self.names, counts.tolist(), strict=True))


def combine_classes(classes: Classes | None, intensities: Classes | None) -> Classes | None:
    """Both as one, named in QuPath's manner (`epithelial: Positive`) and in the colors of the intensities."""
    if classes is None or intensities is None:
        return intensities or classes
    names = [f"{name}: {grade}" for name in classes.names for grade in intensities.names]
    known = (classes.numbers > 0) & (intensities.numbers > 0)
    numbers = (classes.numbers - 1) * len(intensities.names) + intensities.numbers
    return Classes(np.where(known, numbers, 0).astype(np.int32), names, intensities.colors * len(classes.names))


def class_color(number: int) -> Color:
    """RGB of a class by its number from 1."""
    return PALETTE[max(number - 1, 0) % len(PALETTE)]
