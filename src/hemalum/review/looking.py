"""Looking at the fields of a review with its model, in a thread of its own or when a reviewer asks for one."""

import logging
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from hemalum.data.dataset import pixel_hash
from hemalum.errors import HemalumError, counted, one_line
from hemalum.experiments import model_for_organ
from hemalum.inference import as_engine
from hemalum.models.engines.engine import Engine
from hemalum.models.model import Model
from hemalum.review.fields import SIDE, look_at, store_fields, window_name
from hemalum.review.item import Item, Start
from hemalum.review.kept_fields import KeptField, NucleusFigures, kept_path, read_kept, write_kept
from hemalum.review.project import Project
from hemalum.review.proposals import ModelMaps, read_maps
from hemalum.review.sources import Failure, ImagePool, ImageSource, ItemSource, id_of
from hemalum.review.store_windows import window_nuclei
from hemalum.review.uncertainty import Field

log = logging.getLogger(__name__)

PAUSE_S = 0.02  # while a reviewer waits for the network, the fields do
NAMED = 3  # of the images that cannot be reviewed

State = Literal["running", "done", "failed"]


@dataclass(frozen=True, slots=True)
class Progress:
    """How far looking at the fields is: `done` of `total`; `message` is what a reviewer should know, or None."""

    state: State
    done: int
    total: int
    message: str | None = None


class Looking:
    """Looks at items, keeps what is known of each in the project, and gives the journal the nuclei of the model.

    The network is for one thread at a time, and a reviewer goes before the fields.
    """

    def __init__(
        self, project: Project, images: Mapping[str, ImageSource], items: Mapping[str, ItemSource], pool: ImagePool,
        model: Model, engine: Engine | str, resources: Mapping[str, Any],
    ) -> None:  # fmt: skip
        self.project, self.images, self.items, self.pool, self.model = project, images, items, pool, model
        self.fields: dict[str, Field] = {}  # by id of item
        self.failures: list[Failure] = []
        self.lock = threading.RLock()  # of what is known
        self._engine_or_name, self._resources = engine, dict(resources)
        self._network, self._waiting = threading.Lock(), 0
        self._stop, self._thread = threading.Event(), threading.Thread(target=self._run, name="fields", daemon=True)
        self._state: State = "running"
        self._error: str | None = None
        self._done: set[str] = set()
        # slides as a whole, of their tables, and the items of other images
        self._tasks = [image.id for image in images.values() if image.is_slide]
        self._tasks += [item.id for item in items.values() if not images[item.image].is_slide]

    def start(self) -> None:
        """Begin; once is enough."""
        if not self._thread.is_alive() and self._state == "running" and not self._stop.is_set():
            self._thread.start()

    def wait(self) -> None:
        """Wait until all fields are looked at."""
        if self._thread.is_alive():
            self._thread.join()

    def stop(self) -> None:
        """Stop at the next field."""
        self._stop.set()
        self.wait()

    @property
    def progress(self) -> Progress:
        """How far it is."""
        with self.lock:
            names = [failure.name for failure in self.failures]
            message = self._error
            if message is None and names:
                more = f" and {counted(len(names) - NAMED, 'other')}" if len(names) > NAMED else ""
                message = f"cannot be reviewed: {', '.join(names[:NAMED])}{more}"
            return Progress(self._state, len(self._done), len(self._tasks), message)

    def read(self, item: ItemSource) -> NDArray[np.uint8]:
        """The pixels of an item (H, W, 3)."""
        with self.pool.open(self.images[item.image]) as slide:
            return slide.rows(0, slide.shape[0]) if item.window is None else slide.read(*item.window)

    def begin(self, item: ItemSource) -> None:
        """Take an item into the journal now. Raises HemalumError where it cannot be segmented."""
        image = self.images[item.image]
        if image.is_slide:
            self._begin_window(item, image)
            return
        with self._reviewer():
            self._look(item, image)

    def predict(self, item: ItemSource, pixels: NDArray[np.uint8], mpp: float | None) -> ModelMaps:
        """What the model says of the pixels of an item at a scale, µm per px."""
        image = self.images[item.image]
        stain = image.stain if image.is_slide and image.stain is not None else "auto"
        with self._reviewer():
            return read_maps(pixels, item.name, self._model_for(image), self._engine(), mpp=mpp, stain=stain)

    @contextmanager
    def _reviewer(self) -> Iterator[None]:
        """The network, before the fields get it again."""
        with self.lock:
            self._waiting += 1
        try:
            with self._network:
                yield
        finally:
            with self.lock:
                self._waiting -= 1

    def _run(self) -> None:
        try:
            for id in sorted(self._tasks, key=self._size):
                while self._waiting and not self._stop.is_set():
                    time.sleep(PAUSE_S)
                if self._stop.is_set():
                    return
                self._do(id)
            with self.lock:
                self._state = "done"
        except Exception as error:  # a thread of its own: nobody else would hear of it
            log.exception("looking at the fields has ended")
            with self.lock:
                self._state, self._error = "failed", one_line(error)

    def _size(self, id: str) -> int:
        """Pixels, the fewest first; the tables of slides are read before all else."""
        item = self.items.get(id)
        if item is None or self.images[item.image].is_slide:
            return 0
        height, width = self.images[item.image].shape if item.window is None else item.window[:1:-1]
        return height * width

    def _do(self, id: str) -> None:
        item, image = self.items.get(id), self.images.get(id)
        try:
            if image is not None and image.store is not None:
                self._read_table(image)
            elif item is not None:
                with self._network:
                    self._look(item, self.images[item.image])
        except HemalumError as error:
            log.warning("%s", error)
            name = item.name if item is not None else self.images[id].name
            with self.lock:
                self.failures.append(Failure(name, str(error)))
        with self.lock:
            self._done.add(id)

    def _read_table(self, image: ImageSource) -> None:
        for field in store_fields(image.require_store(), side=self.project.options.get("side", SIDE)):
            name = window_name(image.name, field.window)
            with self.lock:
                self.fields[id_of(name)] = replace(field, name=name, stratum=image.stratum)

    def _remember(self, item: ItemSource) -> bool:
        """Take what is kept of a field; whether there is something."""
        try:
            kept = read_kept(kept_path(self.project.folder, item.id))
        except HemalumError as error:
            log.warning("%s", error)
            return False
        if kept is None or item.name not in self.project.journal:
            return False
        with self.lock:
            self.fields[item.id] = kept.field
        return True

    def _look(self, item: ItemSource, image: ImageSource) -> None:
        if self._remember(item):
            return  # in an earlier session, or another thread or program was faster
        known = self._item(item, image)
        with self.pool.open(image) as slide:
            look = look_at(
                slide, self._model_for(image), self._engine(), mpp=image.mpp, name=item.name, stratum=item.stratum,
                window=item.window,
            )  # fmt: skip
        mpp_source = image.mpp_source or look.nuclei.mpp_source
        self.project.journal.add_item(replace(known, mpp=look.nuclei.mpp, mpp_source=mpp_source), look.nuclei)
        probability = look.nuclei.table.column("probability").to_numpy().astype(np.float64)
        measured = look.uncertainty
        figures = NucleusFigures(measured.entropy, measured.distance, measured.disagreement, probability)
        self._keep(item, KeptField(look.field, figures.take(Start.rows(look.nuclei)), known.sha256))
        with self.lock:
            self.fields[item.id] = look.field

    def _begin_window(self, item: ItemSource, image: ImageSource) -> None:
        known, there = self._item(item, image), window_nuclei(image.require_store(), item.require_window())
        self.project.journal.add_item(known, there.nuclei)
        none = np.zeros(0)
        with self.lock:
            field = self.fields.get(item.id) or Field(
                item.name, item.stratum, np.nan, np.nan, none, none, item.window, of_nuclei=True
            )
        figures = there.figures(self.model.card.separation.foreground)
        self._keep(item, KeptField(field, figures, known.sha256))

    def _item(self, item: ItemSource, image: ImageSource) -> Item:
        pixels = self.read(item)
        return Item(
            item.name, (pixels.shape[0], pixels.shape[1]), pixel_hash(pixels), image.mpp, image.mpp_source,
            source=image.name, group=image.group or image.name, organ=image.organ, stain=image.stain,
        )  # fmt: skip

    def _keep(self, item: ItemSource, kept: KeptField) -> None:
        write_kept(kept_path(self.project.folder, item.id), kept)

    def _model_for(self, image: ImageSource) -> Model:
        return model_for_organ(self.model, image.organ)

    def _engine(self) -> Engine:
        """Made when it is first needed; who calls has the network."""
        if isinstance(self._engine_or_name, str):
            self._engine_or_name = as_engine(self._engine_or_name, self.model, **self._resources)
        return self._engine_or_name
