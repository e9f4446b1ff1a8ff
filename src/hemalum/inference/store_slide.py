"""The slide that a store's nuclei are of: found, opened, and checked by its fingerprint."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from hemalum.errors import HemalumError
from hemalum.inference.inputs import RECORD
from hemalum.inference.summary import Summary
from hemalum.nuclei.store import NucleiStore
from hemalum.slides import Slide, is_slide, open_slide

DEEPEST = 8  # folders that results are laid out in below the one of the record


def find_slide(store: NucleiStore, named: Path | str | None = None) -> Path | None:
    """Where the slide of a store is: `named`, or in the folder `named`, or beside the store, or where it was when it
    was segmented, as the record of the folder of results says; None where it is not.

    Raises HemalumError when `named` is a folder that neither has nor is a slide, or is not there.
    """
    source = None if store.run.source is None else Path(store.run.source).name
    if named is None:
        beside_it = None if source is None else store.path.parent / source
        return beside_it if beside_it is not None and beside_it.exists() else _recorded(store)
    path = Path(named)
    if path.is_dir():
        if source is not None and (path / source).exists():
            return path / source
        if not is_slide(path):
            raise HemalumError(f"{path}: holds no {source or 'slide'}, which the nuclei of {store.path} are of")
    elif not path.exists():
        raise HemalumError(f"{path}: no such file or folder")
    return path


def _recorded(store: NucleiStore) -> Path | None:
    """Where the slide was when it was segmented; None where no record says, or it is there no more."""
    store_path = store.path.absolute()
    for out in list(store_path.parents)[:DEEPEST]:
        if (out / RECORD).is_file():
            results = (store_path.parent / store.name).relative_to(out).as_posix()
            finished = Summary(out).finished.get(results)
            return Path(finished.path) if finished is not None and Path(finished.path).exists() else None
    return None


@contextmanager
def slide_of(store: NucleiStore, slide: Slide | Path | str | None = None) -> Iterator[Slide]:
    """Give the opened slide of a store, found as `find_slide` does where it is not given.

    Raises HemalumError when there is none, or it is another one by its fingerprint.
    """
    if isinstance(slide, Slide):
        check_slide(store, slide)
        yield slide
        return
    path = find_slide(store, slide)
    if path is None:
        raise HemalumError(
            f"{store.path}: its slide {store.run.source or ''} is not beside it; say where it is with --slide"
        )
    with open_slide(path, mpp=store.run.mpp, channel=store.run.settings.get("channel")) as opened:
        check_slide(store, opened)
        yield opened


def check_slide(store: NucleiStore, slide: Slide) -> None:
    """Raise HemalumError for another slide than the one that the nuclei of a store are of."""
    if slide.fingerprint != store.run.fingerprint or slide.shape != store.run.shape:
        raise HemalumError(
            f"{slide.name}: is not the slide that the nuclei of {store.path} are of (fingerprint "
            f"{slide.fingerprint[:12]}, there {store.run.fingerprint[:12]}); name the right one with --slide"
        )
