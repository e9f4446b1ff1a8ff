"""Small stores of made-up nuclei."""

from pathlib import Path
from typing import Any

from hemalum.nuclei.store import NucleiStore, Region, StoreRun
from synthetic_nuclei import synthetic_nuclei, synthetic_run


def small_run(**options: Any) -> StoreRun:
    """Two by three regions of 240 px: 600 nuclei."""
    return synthetic_run(2, 3, 240, **options)


def fill_store(store: NucleiStore, regions: list[Region] | None = None) -> NucleiStore:
    """Add what is missing, or these regions."""
    for region in store.missing() if regions is None else regions:
        store.add(region, *synthetic_nuclei(store.run, region, points=16))
    return store


def make_store(path: Path, run: StoreRun | None = None) -> NucleiStore:
    """A complete store."""
    store = fill_store(NucleiStore.create(path, run or small_run()))
    store.finish(notes={"engine": "torch f32"})
    return store
