"""What is segmented: images and slides as they are named, or lie in folders."""

import logging
import os
import stat
import tempfile
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from hemalum.cpus import count_cpus
from hemalum.errors import HemalumError, counted, printable
from hemalum.nuclei.store import EXPORTS
from hemalum.settings import as_whole_number
from hemalum.slides import FILE_SUFFIXES, images_in, is_slide, is_whole_slide, where_else

log = logging.getLogger(__name__)

FORMATS: dict[str, str] = {
    "geojson": ".geojson",
    "csv": ".csv",
    "parquet": ".parquet",
    "labels": "_labels.tif",
    "overlay": "_overlay.png",
}
RESERVED = ("summary", "summary-new", "cohort")  # names of files about all images
RECORD = "summary.jsonl"  # what a folder of results has
NAMED = 5  # of the files that are no images
_RESULTS = tuple(EXPORTS[n] for n in ("labels", "overlay", "ome-zarr", "spatialdata", "thumbnail"))


@dataclass(frozen=True, slots=True)
class ImageInput:
    """An image or slide, and what its results are called: `a/b` for `OUT/a/b.csv` and so on."""

    path: Path
    name: str

    @property
    def image(self) -> str:
        """What tables call it: its name with its ending, as text that any file can hold."""
        return printable((Path(self.name).parent / self.path.name).as_posix())


def find_images(paths: Iterable[ImageInput | Path | str], out: Path, *, recursive: bool = True) -> list[ImageInput]:
    """Files as named; of folders, the images and slides inside, sorted, without the results of an earlier run.

    Inside is whatever a reader can open (`images_in`), and what lies in sub-folders where it is `recursive`: their
    results are laid out as they are. Where two inputs would have one name, all are laid out by their folders. What is
    passed over is logged, with the reason. A folder that is a slide itself, OME-Zarr or DICOM, counts as one. Raises
    HemalumError for a path that does not exist or is no file, a folder without images, and two inputs that would
    write the same files.
    """
    named: list[ImageInput] = []
    for path in paths:
        if isinstance(path, ImageInput):
            named.append(path)
            continue
        if not str(path).strip():
            raise HemalumError("a path is empty: name a file or a folder (. is the folder you are in)")
        path = Path(path)
        if not path.is_dir():
            _require_file(path)
            named.append(ImageInput(path, stem(path)))
        elif is_slide(path):
            neighbors = [entry.name for entry in images_in(path) if entry.suffix.lower() in FILE_SUFFIXES]
            if neighbors:
                raise HemalumError(
                    f"{path}: holds a DICOM slide beside {neighbors[0]}; name the files that are meant"
                )
            named.append(ImageInput(path, stem(path)))
        else:
            others: list[Path] = []
            inside = list(_inside(path, out, recursive, set(), others))
            _log_others(path, others)
            if not inside:
                raise HemalumError(
                    f"{path}: no images in this folder ({', '.join(FILE_SUFFIXES)}, folders of OME-Zarr and DICOM)"
                    f"{'' if recursive else where_else(path)}"
                )
            named += [
                ImageInput(entry, (entry.relative_to(path).parent / stem(entry)).as_posix()) for entry in inside
            ]
    if not named:
        raise HemalumError("no image is given")
    once: dict[Path, ImageInput] = {}
    for one in named:
        once.setdefault(one.path.resolve(), one)
    inputs = [_not_reserved(one) for one in _laid_out(list(once.values()))]
    check_names([(one.name, str(one.path)) for one in inputs], out)
    return inputs


def _not_reserved(one: ImageInput) -> ImageInput:
    """An input whose files would be the table or the page of all gets another name."""
    if one.name.casefold() not in RESERVED:
        return one
    name = f"{one.name}-image"
    log.warning("%s: its results are called %s, as %s.* is the table or a page", one.path, name, one.name)
    return ImageInput(one.path, name)


def _require_file(path: Path) -> None:
    """Raise HemalumError for what is not there, and for what is no file: reading from a pipe would wait for ever."""
    try:
        status = path.stat()
    except FileNotFoundError:
        raise HemalumError(f"{path}: no such file or folder") from None
    except OSError as error:
        raise HemalumError(f"{path}: {error.strerror or error}") from error
    if not stat.S_ISREG(status.st_mode):
        raise HemalumError(f"{path}: is no file (a pipe, socket or device)")


def _inside(folder: Path, out: Path, recursive: bool, seen: set[Path], others: list[Path]) -> Iterator[Path]:
    """The images in a folder, then those of its folders; none twice, whatever links there are.

    Files that are no images are added to `others`.
    """
    real, real_out = folder.resolve(), out.resolve()
    seen.add(real)
    # results among images, or in a folder that a run wrote to
    is_out = real_out in (real, *real.parents) or (folder / RECORD).is_file()
    images = images_in(folder, without=_RESULTS if is_out else ())
    yield from images
    taken, folders = set(images), []
    for entry in sorted(folder.iterdir()):
        if entry in taken or entry.name.startswith(".") or (is_out and entry.name.endswith(_RESULTS)):
            continue
        if entry.is_dir():
            folders.append(entry)
        elif not is_out and entry.is_file():
            others.append(entry)
    for entry in folders if recursive else ():
        if entry.resolve() in seen or entry.suffix in (".nuclei", ".zarr"):
            continue
        if entry.resolve() == real_out or (entry / RECORD).is_file():
            log.info("%s: passed over, as it holds results", entry)
            continue
        try:
            yield from _inside(entry, out, recursive, seen, others)
        except HemalumError as error:  # a folder that may not be read
            log.warning("%s", error)


def _log_others(folder: Path, others: Sequence[Path]) -> None:
    """Say which files of a folder are no images: the first by name, the others by ending."""
    if not others:
        return
    names = [entry.relative_to(folder).as_posix() for entry in others[:NAMED]]
    endings = Counter(entry.suffix.lower() or "without ending" for entry in others[NAMED:])
    more = "".join(f", {count} {ending}" for ending, count in endings.most_common(NAMED))
    log.info("%s: %s passed over, no images: %s%s", folder, counted(len(others), "file"), ", ".join(names), more)


def _laid_out(inputs: list[ImageInput]) -> list[ImageInput]:
    """Inputs by their names, or, where two have one, by their folders below the one that holds them all."""
    if len({one.name.casefold() for one in inputs}) == len(inputs):
        return inputs
    above = Path(os.path.commonpath([one.path.absolute().parent for one in inputs]))
    return [
        ImageInput(one.path, (one.path.absolute().relative_to(above).parent / stem(one.path)).as_posix())
        for one in inputs
    ]


def find_inputs(
    paths: Iterable[Path | str], out: Path, *, max_pixels: int | None = None, recursive: bool = True
) -> tuple[list[ImageInput], list[ImageInput]]:
    """The plain images, and the whole slides (`Slide.is_whole_slide`), among files and in folders (`find_images`)."""
    images: list[ImageInput] = []
    slides: list[ImageInput] = []
    # each is opened again when its turn comes: what there is to say of it is logged then, once
    inputs = find_images(paths, out, recursive=recursive)
    before = logging.root.manager.disable
    logging.disable(max(before, logging.WARNING))
    try:
        for one in inputs:
            (slides if is_whole_slide(one.path, max_pixels=max_pixels) else images).append(one)
    finally:
        logging.disable(before)
    return images, slides


def check_names(names: Sequence[tuple[str, str]], out: Path) -> None:
    """Raise HemalumError when two inputs, each a stem and what it is called, would write the same files."""
    seen: dict[str, str] = {}
    for name, what in names:
        if name.casefold() in RESERVED:
            raise HemalumError(f"{what}: results cannot be called {name}, as the table or a page is; rename it")
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
    number = as_whole_number(workers, "workers")
    if number is not None and not 1 <= number <= cores:
        raise HemalumError(f"workers is {workers}: want 1 to {cores}, the cores of this machine")


def stem(name: str | Path) -> str:
    """Name of an image without its ending; `.ome.tif` is one ending, and the last number of 1.2.840.10008 is none."""
    path = Path(name)
    if path.suffix[1:].isdigit():
        return path.name
    return path.stem[:-4] if path.stem.lower().endswith(".ome") else path.stem
