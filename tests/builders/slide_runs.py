"""Runs over little slides whose nuclei are dense, touch, and lie in many cells."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import tifffile
from numpy.typing import NDArray

from builders.grids import cut_smaller
from builders.models import BlobEngine, blobs
from builders.slides import save_pyramid, tile_bytes
from hemalum.inference import plan as plan_module
from hemalum.inference import slide as slide_module
from hemalum.inference.maps import TileMaps
from hemalum.inference.slide import segment_slide
from hemalum.models.card import Card, NetworkSpec
from hemalum.models.model import Model
from hemalum.nuclei.nuclei import Nuclei
from hemalum.nuclei.settings import SeparationSettings
from hemalum.nuclei.store import NucleiStore
from hemalum.targets.representations import SEMANTIC, find_representation

CELL = 50  # px of the model's scale, half of those of level 0
CLASSES = ("red", "green")
KINDS = ("he", "hdab", "classes", "upsampled")


@dataclass(frozen=True)
class Case:
    """A slide of 0.25 µm per px, a model of 0.5, and what else its run is given."""

    slide: Path
    model: Model
    stain: str = "he"
    upsampling: int = 1
    channels: int = 2

    def engine(self, **options: Any) -> BlobEngine:
        """A new engine, which counts its calls."""
        share = 1 / self.channels if self.model.card.classes else 1.0
        return BlobEngine(self.upsampling, self.channels, share, **options)

    @property
    def options(self) -> dict[str, Any]:
        """What its runs have in common, for images and slides."""
        return {"model": self.model, "stain": self.stain}

    def run(self, out: Path, *, engine: BlobEngine | None = None, **options: Any) -> NucleiStore:
        """Segment into a folder; nothing is small enough to be all tissue, so there is no mask."""
        options = (
            self.options | {"engine": engine or self.engine(), "tissue_mask": False, "region": 2 * CELL} | options
        )
        return segment_slide(options.pop("slide", self.slide), out, **options)


def make_case(
    folder: Path, kind: str, height: int = 400, width: int = 500, seed: int = 1, light: float = 0.0
) -> Case:
    """A slide of colored blobs, pyramidal, with the model of a kind of `KINDS`; `light` makes more of it nucleus."""
    upsampling = 2 if kind == "upsampled" else 1
    classes = list(CLASSES) if kind == "classes" else []
    values: dict[str, Any] = {
        "name": kind, "network": NetworkSpec(name="none"), "representation": SEMANTIC if classes else "distance",
        "mpp": 0.5, "halo": 8, "stride": 4, "nucleus_diameter_um": 8.0, "classes": classes,
        "output_upsampling": upsampling, "native_stains": ["hdab"], "code_version": "0",
        "separation": SeparationSettings(min_area=6),
    }  # fmt: skip
    model = Model(Card(**values), {"nothing": np.zeros(1, np.float32)})
    channels = len(find_representation(model.card.representation, model.card.classes).channels)
    path = save_pyramid(folder / f"{kind}.tif", blobs(height, width, seed, size=4, light=light), mpp=0.25, tile=32)
    return Case(path, model, "hdab" if kind == "hdab" else "he", upsampling, channels)


@contextmanager
def small_cells(kept_bytes: int = 1 << 30, backwards: bool = False) -> Iterator[None]:
    """Tiles as small as the halo allows, cells of 50 px, regions counted in them; cells in reverse order."""
    with cut_smaller(cell=CELL), pytest.MonkeyPatch.context() as patch:
        patch.setattr(slide_module, "CELL", CELL)
        patch.setattr(plan_module, "TileMaps", partial(TileMaps, kept_bytes=kept_bytes))
        if backwards:
            cells = slide_module.SlideJob.cells
            patch.setattr(slide_module.SlideJob, "cells", lambda job, region: cells(job, region)[::-1])
        yield


def contents(store: NucleiStore) -> pa.Table:
    """All columns of a store by id, outlines as they are."""
    return store.dataset.to_table().sort_by("id")


def same_as_nuclei(store: NucleiStore, nuclei: Nuclei) -> bool:
    """Whether a store has just these nuclei: outlines to the bit, columns in their precision on disk."""
    held = store.nuclei()
    return (
        np.array_equal(held.outlines.offsets, nuclei.outlines.offsets)
        and np.array_equal(held.outlines.coords, nuclei.outlines.coords)
        and set(held.table.column_names) == set(nuclei.table.column_names)
        and all(held.table.column(name).equals(nuclei.table.column(name)) for name in nuclei.table.column_names)
    )


def with_broken_tiles(path: Path, tiles: list[int]) -> Path:
    """A copy of a slide in which tiles of level 0 cannot be decoded."""
    broken = path.with_name(f"broken_{path.name}")
    data = bytearray(path.read_bytes())
    for tile in tiles:
        offset, size = tile_bytes(path, 0, tile)
        data[offset : offset + size] = bytes(size)
    broken.write_bytes(data)
    return broken


def with_white_tiles(path: Path, tiles: list[int], side: int = 32) -> NDArray[np.uint8]:
    """The pixels of a slide in which tiles of level 0 are white."""
    pixels: NDArray[np.uint8] = np.array(tifffile.imread(path, key=0))
    across = -(-pixels.shape[1] // side)
    for tile in tiles:
        top, left = tile // across * side, tile % across * side
        pixels[top : top + side, left : left + side] = 255
    return pixels


def renamed(case: Case, path: Path) -> Case:
    """The same run on another slide."""
    return replace(case, slide=path)
