"""What is segmented: images and slides as they are named, or lie in folders."""

import logging
import os
import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path

from hemalum.cpus import count_cpus
from hemalum.errors import HemalumError
from hemalum.nuclei.store import EXPORTS
from hemalum.slides import FILE_SUFFIXES, images_in, is_slide, is_whole_slide, where_else

FORMATS: dict[str, str] = {
    "geojson": ".geojson",
    "csv": ".csv",
    "parquet": ".parquet",
    "labels": "_labels.tif",
    "overlay": "_overlay.png",
}
_RESULTS = tuple(EXPORTS[n] for n in ("labels", "overlay", "ome-zarr", "spatialdata", "thumbnail"))


def find_images(paths: Iterable[Path | str], out: Path) -> list[Path]:
    """Files as named; of folders, the images and slides directly inside, sorted, without results of an earlier run.

    Inside is whatever a reader can open (`images_in`). A folder that is a slide itself, OME-Zarr or DICOM, counts as
    one. Raises HemalumError for a path that does not exist, or a folder without images.
    """
    images: list[Path] = []
    for path in map(Path, paths):
        if not path.is_dir():
            if not path.exists():
                raise HemalumError(f"{path}: no such file or folder")
            images.append(path)
            continue
        inside = images_in(path, without=_RESULTS if path.resolve() == out.resolve() else ())
        neighbors = [entry.name for entry in inside if entry.suffix.lower() in FILE_SUFFIXES]
        if not is_slide(path):
            if not inside:
                raise HemalumError(
                    f"{path}: no images in this folder ({', '.join(FILE_SUFFIXES)}, folders of OME-Zarr and DICOM)"
                    f"{where_else(path)}"
                )
            images += inside
        elif neighbors:
            raise HemalumError(f"{path}: holds a DICOM slide beside {neighbors[0]}; name the files that are meant")
        else:
            images.append(path)
    if not images:
        raise HemalumError("no image is given")
    once: dict[Path, Path] = {}
    for path in images:
        once.setdefault(path.resolve(), path)
    return list(once.values())


def find_inputs(
    paths: Iterable[Path | str], out: Path, *, max_pixels: int | None = None
) -> tuple[list[Path], list[Path]]:
    """The plain images, and the whole slides (`Slide.is_whole_slide`), among files and in folders (`find_images`).

    Raises HemalumError as `find_images` does, and for two that would write the same files.
    """
    inputs = find_images(paths, out)
    check_names(stems_of(inputs), out)
    images: list[Path] = []
    slides: list[Path] = []
    # each is opened again when its turn comes: what there is to say of it is logged then, once
    before = logging.root.manager.disable
    logging.disable(max(before, logging.WARNING))
    try:
        for path in inputs:
            (slides if is_whole_slide(path, max_pixels=max_pixels) else images).append(path)
    finally:
        logging.disable(before)
    return images, slides


def check_names(names: Sequence[tuple[str, str]], out: Path) -> None:
    """Raise HemalumError when two inputs, each a stem and what it is called, would write the same files."""
    seen: dict[str, str] = {}
    for name, what in names:
        # some file systems do not tell A from a
        first = seen.setdefault(name.casefold(), what)
        if first is not what:
            raise HemalumError(f"{first} and {what} would both write {out / name}.*: rename one, or run them apart")


def check_folder(out: Path) -> None:
    """Make the output folder and try to write in it, before hours of work."""
    try:
        out.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(prefix=".hemalum-", dir=out)
        os.close(handle)
        Path(name).unlink()
    except OSError as error:
        raise HemalumError(f"cannot write in {out}: {error.strerror or error}") from error


def check_workers(workers: int | None) -> None:
    """Raise HemalumError for no workers, or more than this process has cores."""
    cores = count_cpus()
    if workers is not None and not 1 <= workers <= cores:
        raise HemalumError(f"workers is {workers}: want 1 to {cores}, the cores of this machine")


def stem(name: str | Path) -> str:
    """Name of an image without its ending; `.ome.tif` is one ending, and the last number of 1.2.840.10008 is none."""
    path = Path(name)
    if path.suffix[1:].isdigit():
        return path.name
    return path.stem[:-4] if path.stem.lower().endswith(".ome") else path.stem


def stems_of(paths: Iterable[Path]) -> list[tuple[str, str]]:
    """Stem and path of each, for `check_names`."""
    return [(stem(path), str(path)) for path in paths]
