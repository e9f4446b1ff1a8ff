"""Grids of inference that are finer than those of a program in use."""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial

import pytest

from hemalum.inference import grid
from hemalum.inference import plan as plan_module
from hemalum.models.card import Card, Tiling


@contextmanager
def cut_smaller(window: int = 32, cell: int = 50) -> Iterator[None]:
    """Tiles of `window` px, or as small as the halo of the model allows, and cells of at most `cell` px."""

    def plan_tiles(card: Card, shape: tuple[int, int], *, reach: int) -> grid.TileGrid:
        smaller = Tiling.model_construct(window=window, halo=card.tiling.halo)
        return grid.plan_tiles(card.model_copy(update={"tiling": smaller}), shape, reach=reach)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(plan_module, "plan_tiles", plan_tiles)
        patch.setattr(plan_module, "cut_cells", partial(grid.cut_cells, side=cell))
        yield
