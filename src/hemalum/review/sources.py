"""What is reviewed: a folder of images, an image, a dataset, or segmented slides, as images and the items in them."""

import hashlib
import logging
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from threading import RLock

from hemalum.data.dataset import INFO_FILE, Dataset
from hemalum.data.image import plain_size
from hemalum.errors import HemalumError, counted
from hemalum.files import named_path
from hemalum.inference import ImageInput, find_images, find_slide
from hemalum.manifest import manifest_path
from hemalum.nuclei.store import SUFFIX, NucleiStore, find_stores, open_store
from hemalum.review.fields import Window, cut_windows, window_name
from hemalum.review.project import KIND
from hemalum.slides import Slide, is_whole_slide, open_slide

log = logging.getLogger(__name__)

MOST_OPEN = 8  # images at once

Signature = tuple[int, int]  # size in bytes, time of the last change in ns


class ImageGone(HemalumError):
    """An image that is not there any more, or is another one than when its review was begun."""


@dataclass(frozen=True, slots=True, eq=False)
class ImageSource:
    """An image under review. `shape` (H, W) px; `mpp` µm per px, None where it is told when the image is looked at.

    `store` holds the nuclei of a slide. `stratum` is what its fields are compared within: organ, folder or slide. The
    rest is as in `hemalum.data.sample.Sample`.
    """

    id: str
    name: str
    path: Path
    shape: tuple[int, int]
    mpp: float | None = None
    mpp_source: str | None = None
    store: NucleiStore | None = None
    stratum: str = ""
    group: str | None = None
    organ: str | None = None
    stain: str | None = None
    channel: str | None = None

    @property
    def is_slide(self) -> bool:
        """Whether it is a slide, whose nuclei are in a store."""
        return self.store is not None

    def require_store(self) -> NucleiStore:
        """Its store. Raises HemalumError for an image that is no slide."""
        if self.store is None:
            raise HemalumError(f"{self.name}: is no slide that was segmented")
        return self.store


@dataclass(frozen=True, slots=True, eq=False)
class ItemSource:
    """What one looks at: an image as a whole, or a `window` x, y, width, height (px of the image) of one.

    `image` is the image's id. `looked` says whether it is known what the model is unsure of here.
    """

    id: str
    name: str
    image: str
    window: Window | None
    stratum: str
    looked: bool = False

    def require_window(self) -> Window:
        """Its window. Raises HemalumError for an image as a whole."""
        if self.window is None:
            raise HemalumError(f"{self.name}: is no window of a slide")
        return self.window


@dataclass(frozen=True, slots=True)
class Failure:
    """An image that cannot be reviewed, and why."""

    name: str
    message: str


@dataclass(frozen=True, slots=True, eq=False)
class Source:
    """What a path holds for review: its images, those that cannot be, and the names of a dataset's classes."""

    path: Path
    images: list[ImageSource]
    failures: list[Failure] = field(default_factory=list)


def id_of(name: str) -> str:
    """The id of an image or item by its name, the same in every session: 16 hex digits."""
    return hashlib.sha256(name.encode("utf-8", "surrogateescape")).hexdigest()[:16]


def open_source(
    path: Path | str, project: Path, *, mpp: float | None = None, slide: Path | str | None = None,
    recursive: bool = True,
) -> Source:  # fmt: skip
    """The images of a dataset, a folder of segmented slides or one store, a folder of images, or one image.

    Images are not decoded. `mpp` replaces the scale that images state; `slide` is where slides are that do not lie
    beside their nuclei: one, or a folder. What lies in `project` is passed over. Raises HemalumError where there is
    nothing to review, and for options that are for another kind of source.
    """
    path = named_path(path)
    if not path.exists():
        raise HemalumError(f"{path}: no such file or folder")
    if manifest_path(path, KIND).is_file():
        raise HemalumError(f"{path}: is the project of a review: go on with it by --project")
    dataset = (path / INFO_FILE).is_file()
    stores = [] if dataset else _stores_in(path, recursive)
    if stores:
        if mpp is not None:
            raise HemalumError(f"{path}: --mpp is for images; the scale of a segmented slide is that of its run")
        return _source(path, _of_stores(path, stores, slide))
    if slide is not None:
        raise HemalumError(f"{path}: --slide is for segmented slides, and these are images: leave it out")
    if dataset and mpp is not None:
        raise HemalumError(f"{path}: --mpp is for images; a dataset has the scale of each of its own")
    return _source(path, _of_dataset(path) if dataset else _of_images(path, project, mpp, recursive))


def cut_items(image: ImageSource, side: int) -> list[ItemSource]:
    """The items of an image: itself, or the windows of its grid where it is larger than `side` px or a slide."""
    windows = cut_windows(image.shape, side)
    if len(windows) == 1 and not image.is_slide:
        return [ItemSource(image.id, image.name, image.id, None, image.stratum)]
    names = [window_name(image.name, window) for window in windows]
    return [
        ItemSource(id_of(name), name, image.id, window, image.stratum)
        for name, window in zip(names, windows, strict=True)
    ]


def _source(path: Path, entries: Iterator[ImageSource | Failure]) -> Source:
    """The entries as a source. Raises HemalumError where none can be reviewed, and for two images with one name."""
    images: list[ImageSource] = []
    failures: list[Failure] = []
    for one in entries:
        if isinstance(one, Failure):
            failures.append(one)
        else:
            images.append(one)
    if not images:
        reason = f": {failures[0].message}" if failures else ""
        raise HemalumError(f"{path}: nothing to review{reason}")
    names: set[str] = set()
    for image in images:
        if image.name in names:
            raise HemalumError(f"{path}: two images are called {image.name}: rename one")
        names.add(image.name)
    for failure in failures:
        log.warning("%s", failure.message)
    return Source(path, images, failures)


def _of_dataset(path: Path) -> Iterator[ImageSource | Failure]:
    dataset = Dataset.open(path)
    for row in dataset.rows:
        file = path / row.image
        try:
            shape = _shape_of(file, row.mpp)
        except HemalumError as error:
            yield Failure(row.id, str(error))
            continue
        yield ImageSource(
            id_of(row.id), row.id, file, shape, row.mpp, row.mpp_source, stratum=row.organ or "", group=row.group,
            organ=row.organ, stain=row.stain,
        )  # fmt: skip


def _of_images(path: Path, project: Path, mpp: float | None, recursive: bool) -> Iterator[ImageSource | Failure]:
    for one in find_images([path], project, recursive=recursive):
        try:
            yield _image(one, mpp)
        except HemalumError as error:
            yield Failure(one.image, str(error))


def _image(one: ImageInput, mpp: float | None) -> ImageSource:
    if is_whole_slide(one.path):
        raise HemalumError(
            f"{one.path}: is a whole slide: segment it first (hemalum segment {one.path} -o OUT), then review OUT"
        )
    return ImageSource(
        id_of(one.image), one.image, one.path, _shape_of(one.path, mpp), mpp, None if mpp is None else "user",
        stratum=one.name.rpartition("/")[0],
    )  # fmt: skip


def _shape_of(path: Path, mpp: float | None) -> tuple[int, int]:
    """Height and width; PNG, JPEG, BMP and WebP are not decoded for it."""
    if not path.is_file() and not path.is_dir():
        raise HemalumError(f"{path}: no such file")
    size = plain_size(path)
    if size is not None:
        return size
    with open_slide(path, mpp=mpp) as slide:
        return slide.shape


def _of_stores(path: Path, stores: list[Path], slide: Path | str | None) -> Iterator[ImageSource | Failure]:
    if slide is not None and len(stores) > 1 and not Path(slide).is_dir():
        raise HemalumError(
            f"{path}: holds {counted(len(stores), 'slide')}: name the folder of all of them by --slide"
        )
    for folder in stores:
        name = folder.relative_to(path).as_posix() if folder != path else folder.name
        try:
            yield _slide(open_store(folder), name.removesuffix(SUFFIX), slide)
        except HemalumError as error:
            yield Failure(name, str(error))


def _slide(store: NucleiStore, name: str, named: Path | str | None) -> ImageSource:
    run, path = store.run, find_slide(store, named)
    if path is None:
        raise HemalumError(
            f"{store.path}: its slide {run.source or ''} is not beside it; say where it is with --slide"
        )
    if not store.complete:
        raise HemalumError(f"{store.path}: the run is not complete; segment the rest first")
    return ImageSource(
        id_of(name), name, path, run.shape, run.mpp, run.mpp_source, store, stratum=name,
        organ=run.settings.get("organ"), stain=run.settings.get("stain"), channel=run.settings.get("channel"),
    )  # fmt: skip


def _stores_in(path: Path, recursive: bool) -> list[Path]:
    """The stores in a folder and, where it is `recursive`, in those below it; the one that it is itself."""
    if not path.is_dir():
        return []
    stores: list[Path] = []
    with suppress(HemalumError):  # none directly inside
        stores = find_stores(path)
    if recursive and stores != [path]:
        for entry in sorted(path.iterdir()):
            passed = entry.name.startswith(".") or entry.suffix in (SUFFIX, ".zarr") or entry.is_symlink()
            if entry.is_dir() and not passed:
                stores += _stores_in(entry, recursive)
    return stores


@dataclass(slots=True, eq=False)
class _Opened:
    slide: Slide
    signature: Signature | None
    users: int = 0


class ImagePool:
    """Images that are open: several threads read them at once, those not used for longest are closed."""

    def __init__(self, most: int = MOST_OPEN) -> None:
        self._most, self._lock = most, RLock()
        self._opened: dict[str, _Opened] = {}
        self._fingerprints: dict[str, str] = {}

    @contextmanager
    def open(self, image: ImageSource) -> Iterator[Slide]:
        """The open image. Raises ImageGone where its file is missing or another than when it was first opened."""
        signature = _signature(image.path)
        with self._lock:
            held = self._opened.get(image.id)
            if held is not None and held.signature != signature:
                self._drop(image.id)
                held = None
        if held is None:
            held = self._new(image, signature)
        with self._lock:
            there = self._opened.pop(image.id, held)
            if there is not held:  # another thread was faster
                held.slide.close()
            held = self._opened[image.id] = there  # the last one used is the last to go
            held.users += 1
        try:
            yield held.slide
        finally:
            with self._lock:
                held.users -= 1
                idle = [id for id, one in self._opened.items() if not one.users]
                for id in idle[: max(len(self._opened) - self._most, 0)]:
                    self._drop(id)
                if not held.users and self._opened.get(image.id) is not held:
                    held.slide.close()

    def _new(self, image: ImageSource, signature: Signature | None) -> _Opened:
        slide = open_slide(image.path, mpp=image.mpp, channel=image.channel, name=image.name)
        expected = image.store.run.fingerprint if image.store is not None else self._fingerprints.get(image.id)
        if (slide.fingerprint, slide.shape) != (expected or slide.fingerprint, image.shape):
            slide.close()
            raise ImageGone(f"{image.path}: is another image than the one under review; put that one back")
        with self._lock:
            self._fingerprints[image.id] = slide.fingerprint
        return _Opened(slide, signature)

    def _drop(self, id: str) -> None:
        """Forget an image; the last who reads it closes it."""
        held = self._opened.pop(id)
        if not held.users:
            held.slide.close()

    def close(self) -> None:
        """Close all."""
        with self._lock:
            for id in list(self._opened):
                self._drop(id)


def _signature(path: Path) -> Signature | None:
    try:
        status = path.stat()
    except OSError as error:
        raise ImageGone(f"{path}: is gone ({error.strerror or error}); put it back and open it again") from error
    return None if path.is_dir() else (status.st_size, status.st_mtime_ns)
