"""A review at work: what is reviewed, the model that proposes, and the project that keeps what comes of it."""

import logging
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, Self

import numpy as np
from numpy.typing import NDArray

from hemalum.data.dataset import pixel_hash
from hemalum.errors import HemalumError, counted, one_line
from hemalum.experiments import model_for_organ
from hemalum.files import named_path
from hemalum.inference import as_engine
from hemalum.manifest import manifest_path
from hemalum.models import load_model
from hemalum.models.engines.engine import Engine
from hemalum.models.model import Model, shipped_models
from hemalum.review.fields import SIDE, cut_windows, look_at, store_fields, window_text
from hemalum.review.item import Item, ItemState, Start
from hemalum.review.kept_fields import (
    KeptField,
    NucleusFigures,
    kept_path,
    read_kept,
    write_kept,
)
from hemalum.review.project import KIND, Project
from hemalum.review.proposals import MapCache, ModelMaps, read_maps
from hemalum.review.queue import Queued, rank_fields
from hemalum.review.sources import (
    Failure,
    ImageGone,
    ImagePool,
    ImageSource,
    ItemSource,
    Source,
    cut_items,
    id_of,
    open_source,
)
from hemalum.review.store_windows import window_nuclei
from hemalum.review.uncertainty import Field, pixel_uncertainty, temperature_of
from hemalum.slides import Slide
from hemalum.targets.representations import find_representation

log = logging.getLogger(__name__)

PAUSE_S = 0.02  # while a reviewer waits for the network, the fields do

State = Literal["running", "done", "failed"]


@dataclass(frozen=True, slots=True)
class Progress:
    """How far looking at the fields is: `done` of `total`; `message` is what a reviewer should know, or None."""

    state: State
    done: int
    total: int
    message: str | None = None


class Session:
    """A review that is open; safe with several threads. Made by `open`; close it, or use it in a `with`."""

    def __init__(self, project: Project, source: Source, model: Model, *, engine: Engine | str, side: int) -> None:
        """Use `open`."""
        self.project, self.model, self.name = project, model, source.path.name
        self.images: Mapping[str, ImageSource] = {image.id: image for image in source.images}
        self._engine_named: Engine | str = engine
        self._resources: dict[str, str | int | None] = {}
        self._side = side
        self._pool = ImagePool()
        self._maps = MapCache()
        self._failures = list(source.failures)
        self._items = {item.id: item for image in source.images for item in cut_items(image, side)}
        self._fields: dict[str, Field] = {}
        self._lock = threading.RLock()
        self._working = threading.Lock()  # the network
        self._waiting = 0  # reviewers who want it
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        self._state: State = "running"
        self._error: str | None = None
        self._done: set[str] = set()  # images of slides, and items of others, that need no look any more
        self._checked: set[str] = set()  # items of which this session knows that their image is the one begun with

    # -- opening

    @classmethod
    def open(
        cls,
        source: Path | str | None,
        model: Path | str | Model | None = None,
        project: Path | str | None = None,
        *,
        mpp: float | None = None,
        slide: Path | str | None = None,
        engine: str | Engine = "auto",
        accelerator: str = "auto",
        threads: int | None = None,
        side: int = SIDE,
        recursive: bool = True,
    ) -> Self:
        """Start the review of a source, or go on with it.

        `source` is a folder of images, an image, a dataset, or segmented slides: a folder of results, or one store.
        Without it, or without `model`, what the project in the folder `project` was begun with is taken; without
        `project` that is SOURCE.review in the working folder. `mpp`, µm per px, replaces what images state; `slide`
        is where slides are that do not lie beside their nuclei. `engine`, `threads` and `accelerator` are as in
        `hemalum.segment`. Images larger than `side` px are cut into windows of at most that.

        Raises HemalumError where there is nothing to review, the project is of another source, model or scale, or
        the nuclei of a slide are of another model.
        """
        if source is None and project is None:
            raise HemalumError("give SOURCE, what is to be reviewed, or --project, to go on with a review")
        folder = named_path(f"{named_path(source).name}.review" if project is None else project)  # type: ignore[arg-type]
        held = Project.open(folder) if manifest_path(folder, KIND).is_file() else None
        if held is None and source is None:
            Project.open(folder)  # says what is wrong
        try:
            path, options = _requested(held, source, mpp=mpp, slide=slide, recursive=recursive, side=side)
            wanted = open_source(
                path, folder, mpp=options["mpp"], slide=options["slide"], recursive=options["recursive"]
            )
            loaded = _load(model, held, wanted)
        finally:
            if held is not None:
                held.close()
        _check_stores(wanted, loaded)
        joined = Project.join(
            folder, source=str(path), model=loaded.card.name, model_digest=loaded.digest,
            model_path=_path_of(loaded), options=options,
        )  # fmt: skip
        session = cls(joined, wanted, loaded, engine=engine, side=options["side"])
        session._resources = {"device": accelerator, "threads": threads}
        return session

    def start(self) -> None:
        """Look at the fields in a thread of its own, the smallest first; what is known already is not done again."""
        if self._thread is None:
            self._thread = threading.Thread(target=self._look_at_all, name="fields", daemon=True)
            self._thread.start()

    def wait(self) -> None:
        """Wait until all fields are looked at."""
        if self._thread is not None:
            self._thread.join()

    def close(self) -> None:
        """Stop at the next field, and close the journal and all images."""
        self._stop.set()
        self.wait()
        self._pool.close()
        self.project.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # -- what there is

    @property
    def class_names(self) -> tuple[str, ...]:
        """The classes that the model tells apart."""
        return tuple(find_representation(self.model.card.representation, self.model.card.classes).class_names)

    @property
    def progress(self) -> Progress:
        """How far looking at the fields is."""
        with self._lock:
            failed = [failure.name for failure in self._failures]
            message = self._error
            if message is None and failed:
                more = f" and {counted(len(failed) - 3, 'other')}" if len(failed) > 3 else ""
                message = f"cannot be reviewed: {', '.join(failed[:3])}{more}"
            return Progress(self._state, len(self._done), len(self._tasks()), message)

    @property
    def failures(self) -> list[Failure]:
        """The images, or windows of them, that cannot be reviewed, and why."""
        with self._lock:
            return list(self._failures)

    @contextmanager
    def open_image(self, id: str) -> Iterator[Slide]:
        """An open image, which several threads may read at once.

        Raises HemalumError where there is no such image; ImageGone where its file is gone, or another one.
        """
        with self._pool.open(self._image(id)) as slide:
            yield slide

    def _image(self, id: str) -> ImageSource:
        image = self.images.get(id)
        if image is None:
            raise HemalumError(f"there is no image {id} in this review")
        return image

    def items(self) -> list[ItemSource]:
        """All items, image by image."""
        with self._lock:
            return [self._with_look(item) for item in self._items.values()]

    def item(self, id: str) -> ItemSource:
        """The item with this id. Raises HemalumError where there is none."""
        item = self._items.get(id)
        if item is None:
            raise HemalumError(f"there is no item {id} in this review")
        return self._with_look(item)

    def _with_look(self, item: ItemSource) -> ItemSource:
        return replace(item, looked=item.id in self._fields)

    def item_at(self, image: str, x: float, y: float) -> ItemSource:
        """The item at a point, px of the image. Raises HemalumError for a point outside of it."""
        source = self._image(image)
        height, width = source.shape
        if not (0 <= x <= width and 0 <= y <= height):
            raise HemalumError(f"{source.name}: ({x:g}, {y:g}) lies outside of the image ({width} x {height} px)")
        if image in self._items:
            return self.item(image)
        for left, top, wide, high in cut_windows(source.shape, self._side):
            # a point on the last edge belongs to the last window
            if (x < left + wide or left + wide == width) and (y < top + high or top + high == height):
                return self.item(id_of(f"{source.name} {window_text((left, top, wide, high))}"))
        raise AssertionError("windows cover an image")

    def queue(self, by: str = "entropy", *, stratified: bool = True, seed: int = 0) -> list[Queued]:
        """The fields looked at so far, the first to look at first (`rank_fields`)."""
        with self._lock:
            fields = list(self._fields.values())
        return rank_fields(fields, by, seed=seed, stratified=stratified)

    # -- one item

    def state(self, id: str) -> ItemState:
        """The item as it was left; one that is not in the journal yet is looked at, and taken into it, now.

        Raises HemalumError where there is none or it cannot be segmented; ImageGone where its image is gone or
        another than it was begun with.
        """
        item = self.item(id)
        if id not in self._checked:
            if item.name in self.project.journal.names():
                self.pixels(id)
            elif self._image(item.image).is_slide:
                self._begin(item)
            else:
                with self._network():
                    self._begin(item)
            with self._lock:
                self._checked.add(id)
        return self.project.journal.state(item.name)

    def pixels(self, id: str) -> NDArray[np.uint8]:
        """The item's image (H, W, 3) uint8. Raises ImageGone where it is gone or another than it was begun with."""
        item = self.item(id)
        pixels = self._read(item)
        with suppress(KeyError):
            known = self._begun(item.name)
            if known.sha256 != pixel_hash(pixels):
                raise ImageGone(f"{item.name}: is another image than when its review was begun; put that one back")
        return pixels

    def _begun(self, name: str) -> Item:
        """The item in the journal. Raises KeyError where it is not there yet."""
        if name not in self.project.journal.names():
            raise KeyError(name)
        return self.project.journal.state(name).item

    def _read(self, item: ItemSource) -> NDArray[np.uint8]:
        with self.open_image(item.image) as slide:
            if item.window is None:
                return slide.rows(0, slide.shape[0])
            return slide.read(*item.window)

    def maps(self, id: str, kind: Literal["probability", "entropy"]) -> NDArray[np.uint8]:
        """What the model thinks of each pixel of an item (H, W): 0 to 255 for a probability of nucleus of 0 to 1, or
        an entropy of 0 to log 2 at the temperature of its card. Raises HemalumError for another kind."""
        if kind not in ("probability", "entropy"):
            raise HemalumError(f"map '{kind}': want probability or entropy")
        values = self._predict(id).probability
        if kind == "entropy":
            values = pixel_uncertainty(values, temperature_of(self.model.card)) / np.float32(np.log(2))
        return np.rint(np.clip(values, 0, 1) * 255).astype(np.uint8)

    def propose(self, id: str, x: float, y: float) -> NDArray[np.float32] | None:
        """The model's outline (M, 2) at a point, px of the item, last point = first; None where it has none.

        It is the nucleus that the model separates there, else what it thinks more likely than its surroundings.
        Raises HemalumError for a point outside of the item.
        """
        return self._predict(id).propose(x, y)

    def figures(self, id: str) -> NucleusFigures:
        """What the model is unsure of in the nuclei that an item starts with, by id from 1."""
        count = len(self.state(id).start)
        kept = read_kept(kept_path(self.project.folder, id))
        return kept.figures if kept is not None and len(kept.figures) == count else NucleusFigures.unknown(count)

    def _predict(self, id: str) -> ModelMaps:
        kept = self._maps.get(id)
        if kept is not None:
            return kept
        item, known = self.item(id), self.state(id).item
        pixels, image = self.pixels(id), self._image(item.image)
        with self._network():
            made = self._maps.get(id)  # another thread may have asked for it meanwhile
            if made is None:
                stain = "auto" if image.store is None else image.stain or "auto"
                made = read_maps(pixels, item.name, self._model(image), self._engine(), mpp=known.mpp, stain=stain)
                self._maps.keep(id, made)
        return made

    # -- looking at fields

    def _tasks(self) -> list[str]:
        """Ids of what has to be looked at: slides as a whole, of their tables, and the items of other images."""
        slides = [image.id for image in self.images.values() if image.is_slide]
        return slides + [item.id for item in self._items.values() if not self._image(item.image).is_slide]

    def _look_at_all(self) -> None:
        try:
            tasks = sorted(self._tasks(), key=self._size)
            for id in tasks:
                if self._stop.is_set():
                    return
                self._look_at_one(id)
            with self._lock:
                self._state = "done"
        except Exception as error:  # a thread of its own: nobody else would hear of it
            log.exception("looking at the fields has ended")
            with self._lock:
                self._state, self._error = "failed", one_line(error)

    def _size(self, id: str) -> int:
        """Pixels; tables of slides are read first of all."""
        image = self.images.get(id)
        if image is not None and image.is_slide:
            return 0
        item = self._items[id]
        height, width = self._image(item.image).shape if item.window is None else item.window[:1:-1]
        return height * width

    def _look_at_one(self, id: str) -> None:
        image = self.images.get(id)
        name = image.name if image is not None else self._items[id].name
        try:
            if image is not None and image.store is not None:
                for field in store_fields(image.store, side=self._side):
                    named = replace(
                        field, name=f"{image.name} {window_text(field.window or (0, 0, 0, 0))}", stratum=image.stratum
                    )
                    with self._lock:
                        self._fields[id_of(named.name)] = named
            elif not self._remember(self._items[id]):
                while self._waiting and not self._stop.is_set():
                    time.sleep(PAUSE_S)
                with self._working:
                    self._begin(self._items[id])
        except HemalumError as error:
            log.warning("%s", error)
            with self._lock:
                self._failures.append(Failure(name, str(error)))
        with self._lock:
            self._done.add(id)

    def _remember(self, item: ItemSource) -> bool:
        """Take what is kept of a field; whether there is something."""
        try:
            kept = read_kept(kept_path(self.project.folder, item.id))
        except HemalumError as error:
            log.warning("%s", error)
            return False
        if kept is None or item.name not in self.project.journal.names():
            return False
        with self._lock:
            self._fields[item.id] = kept.field
        return True

    def _begin(self, item: ItemSource) -> None:
        """Look at an item, keep what is known of it, and take it into the journal with the nuclei of the model."""
        image = self._image(item.image)
        if image.store is None and self._remember(item):
            return  # another thread, or another program, was faster
        pixels = self._read(item)
        known = Item(
            item.name, (pixels.shape[0], pixels.shape[1]), pixel_hash(pixels), image.mpp, image.mpp_source,
            source=image.name, group=image.group or image.name, organ=image.organ, stain=image.stain,
        )  # fmt: skip
        if image.store is not None:
            assert item.window is not None
            there = window_nuclei(image.store, item.window)
            self.project.journal.add_item(known, there.nuclei)
            field = self._fields.get(item.id) or _empty_field(item)
            figures = there.figures(self.model.card.separation.foreground)
            write_kept(kept_path(self.project.folder, item.id), KeptField(field, figures, known.sha256))
            return
        with self.open_image(item.image) as slide:
            look = look_at(
                slide, self._model(image), self._engine(), mpp=image.mpp, name=item.name, stratum=item.stratum,
                window=item.window,
            )  # fmt: skip
        mpp_source = image.mpp_source or look.nuclei.mpp_source
        self.project.journal.add_item(replace(known, mpp=look.nuclei.mpp, mpp_source=mpp_source), look.nuclei)
        probability = look.nuclei.table.column("probability").to_numpy().astype(np.float64)
        measured = look.uncertainty
        figures = NucleusFigures(measured.entropy, measured.distance, measured.disagreement, probability)
        kept = KeptField(look.field, figures.take(Start.rows(look.nuclei)), known.sha256)
        write_kept(kept_path(self.project.folder, item.id), kept)
        with self._lock:
            self._fields[item.id] = look.field

    def _model(self, image: ImageSource) -> Model:
        return model_for_organ(self.model, image.organ)

    def _engine(self) -> Engine:
        """Made when it is first needed."""
        if isinstance(self._engine_named, str):
            self._engine_named = as_engine(self._engine_named, self.model, **self._resources)  # type: ignore[arg-type]
        return self._engine_named

    @contextmanager
    def _network(self) -> Iterator[None]:
        """The network, for one thread at a time; who asks for it here goes before the fields."""
        with self._lock:
            self._waiting += 1
        try:
            with self._working:
                yield
        finally:
            with self._lock:
                self._waiting -= 1


def _empty_field(item: ItemSource) -> Field:
    none = np.zeros(0)
    return Field(item.name, item.stratum, np.nan, np.nan, none, none, item.window, of_nuclei=True)


def _requested(held: Project | None, source: Path | str | None, **asked: object) -> tuple[Path, dict[str, object]]:
    """What is reviewed, and how: as asked for, else as the project has it."""
    options = dict(asked, slide=None if asked["slide"] is None else str(Path(str(asked["slide"])).resolve()))
    if held is None:
        assert source is not None
        return Path(source).resolve(), options
    for name, default in (("mpp", None), ("slide", None), ("recursive", True), ("side", SIDE)):
        if options[name] == default and name in held.options:
            options[name] = held.options[name]
    return (Path(held.source) if source is None else Path(source).resolve()), options


def _load(model: Path | str | Model | None, held: Project | None, source: Source) -> Model:
    """The model that is named, else that of the project, else the one that found the nuclei of the slides."""
    if model is not None:
        return load_model(model)
    if held is not None:
        where = held.model_path or held.model
        if held.model_path is not None and not Path(held.model_path).is_file():
            raise HemalumError(
                f"{held.folder}: its model '{held.model}' is no longer in {held.model_path}; give it by --model"
            )
        return load_model(where)
    found_by = {image.store.run.model for image in source.images if image.store is not None}
    name = found_by.pop() if len(found_by) == 1 else None
    return load_model(name if name in shipped_models() else None)


def _path_of(model: Model) -> str | None:
    """The file of a model that is none of those shipped."""
    shipped = model.path is None or model.path in shipped_models().values()
    return None if shipped else str(Path(str(model.path)).resolve())


def _check_stores(source: Source, model: Model) -> None:
    """Raise HemalumError where the nuclei of a slide are of another model: its proposals would not be theirs."""
    for image in source.images:
        if image.store is None or image.store.run.model_digest in (None, model.digest):
            continue
        run = image.store.run
        raise HemalumError(
            f"{image.store.path}: its nuclei are of model '{run.model}' ({str(run.model_digest)[:12]}), and this is "
            f"'{model.card.name}' ({model.digest[:12]}): give that one by --model, or segment the slide again"
        )
