"""The slide that a store's nuclei are of: found, checked by its fingerprint, and where in it there is tissue."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from hemalum.errors import HemalumError
from hemalum.nuclei.store import NucleiStore
from hemalum.slides import Slide, Tissue, all_tissue, find_artifacts, find_tissue, is_slide, open_slide

log = logging.getLogger(__name__)


def find_slide(store: NucleiStore, named: Path | str | None = None) -> Path | None:
    """Where the slide of a store is: `named`, or in the folder `named`, or beside the store; None where it is not.

    Raises HemalumError when `named` is a folder that neither has nor is a slide, or is not there.
    """
    source = None if store.run.source is None else Path(store.run.source).name
    if named is None:
        beside_it = None if source is None else store.path.parent / source
        return beside_it if beside_it is not None and beside_it.exists() else None
    path = Path(named)
    if path.is_dir():
        if source is not None and (path / source).exists():
            return path / source
        if not is_slide(path):
            raise HemalumError(f"{path}: holds no {source or 'slide'}, which the nuclei of {store.path} are of")
    elif not path.exists():
        raise HemalumError(f"{path}: no such file or folder")
    return path


@contextmanager
def slide_of(store: NucleiStore, slide: Slide | Path | str | None = None) -> Iterator[Slide]:
    """Give the opened slide of a store, found as `find_slide` does where it is not given.

    Raises HemalumError when there is none, or it is another one by its fingerprint.
    """
    if isinstance(slide, Slide):
        _check(store, slide)
        yield slide
        return
    path = find_slide(store, slide)
    if path is None:
        raise HemalumError(
            f"{store.path}: its slide {store.run.source or ''} is not beside it; say where it is with --slide"
        )
    with open_slide(path, mpp=store.run.mpp, channel=store.run.settings.get("channel")) as opened:
        _check(store, opened)
        yield opened


def _check(store: NucleiStore, slide: Slide) -> None:
    if slide.fingerprint != store.run.fingerprint or slide.shape != store.run.shape:
        raise HemalumError(
            f"{slide.name}: is not the slide that the nuclei of {store.path} are of (fingerprint "
            f"{slide.fingerprint[:12]}, there {store.run.fingerprint[:12]}); name the right one with --slide"
        )


def tissue_of(store: NucleiStore, slide: Slide) -> tuple[Tissue, str]:
    """Where nuclei were looked for in a slide, and what speaks against that, in words; "" where nothing does."""
    digest, mpp = store.run.settings.get("tissue_mask"), store.run.mpp
    seen = all_tissue(slide, "no mask was used", mpp=mpp) if digest is None else find_tissue(slide, mpp=mpp)
    left_out = store.run.settings.get("artifacts")  # None where there are none: then they need not be looked for
    tissue = seen if left_out in (None, "kept") else find_artifacts(slide, mpp=mpp).without(seen)
    if digest is None or tissue.digest == digest:
        return tissue, ""
    doubt = "the tissue mask that this version finds is not the one of the run"
    log.warning("%s: %s", store.path, doubt)
    return tissue, doubt
