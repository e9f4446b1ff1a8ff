"""What a worker of a cluster does: regions of a slide, with a model and an engine that it keeps from task to task.

Tasks come with the job. The first of a job loads slide, model and engine and makes sure that they are those
of the plan; the next ones find them there. Nothing but names and counts goes back.
"""

import socket
import threading
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

import pyarrow.parquet as pq

from hemalum import __version__
from hemalum.cpus import count_cpus
from hemalum.errors import HemalumError
from hemalum.inference.grid import Box, cut_cells
from hemalum.inference.plan import CellSegmenter
from hemalum.inference.segment import as_engine
from hemalum.inference.slide import SlideJob, broken_near, write_region
from hemalum.inference.tta import looks_of
from hemalum.models.card import Card
from hemalum.models.engines.engine import Engine
from hemalum.models.model import Model, load_model, shipped_models
from hemalum.nuclei.store import NucleiStore, Region, open_store
from hemalum.slides.slide import Slide

KEPT = 2  # jobs whose slide, model and engine a worker keeps


@dataclass(frozen=True, slots=True, eq=False)
class Order:
    """What a worker has to know of the run `run_id`.

    `model` is a file or the name of a shipped one, `card` and `digest` what it has to be; `engine`, `precision`,
    `tta` and `shifts` are what the plan was made with; `threads` are the most that are used.
    """

    run_id: str
    job: SlideJob
    slide: Slide
    model: Path | str
    card: Card
    digest: str
    engine: str
    precision: str
    device: str
    tta: bool
    shifts: int
    threads: int | None

    def without_cells(self) -> "Order":
        """The order as it travels: cells follow from the plan, and are most of its size."""
        return self._with_cells([])

    def complete(self) -> "Order":
        """The order with its cells."""
        return self._with_cells(cut_cells(self.job.plan.shape))

    def _with_cells(self, cells: list[list[Box]]) -> "Order":
        return replace(self, job=replace(self.job, plan=replace(self.job.plan, cells=cells)))


class Answer(NamedTuple):
    """What a task gives: parts and numbers of their nuclei; or why this worker cannot do the job at all."""

    parts: list[tuple[str, int]]
    refusal: str = ""


class Session:
    """A job on this worker: its slide, engine and threads. Raises HemalumError where the worker cannot do the job."""

    def __init__(self, order: Order, cpus: int) -> None:
        self.job = order.job
        self.store = _find_store(order.job)
        threads = min(cpus, order.threads or cpus)
        model = _find_model(order)
        engine = as_engine(
            order.engine, model, device=order.device, threads=threads, precision=order.precision, tta=order.tta,
            shifts=order.shifts,
        )  # fmt: skip
        _check_engine(engine, order)
        self.slide = _find_slide(order.slide)
        self.segmenter = CellSegmenter(self.slide, model, engine, order.job.plan)
        self.users = 0
        self._cells = ThreadPoolExecutor(threads, thread_name_prefix="cell")

    def segment(self, region: Region) -> int:
        """Write the part of a region, if it is not there yet; gives the number of its nuclei.

        The cells of all regions that are worked on share the threads, the earlier region first.
        """
        path = self.store.part_path(region)
        if path.is_file():  # done by a worker that was lost before it could say so
            return int(pq.read_metadata(path).num_rows)
        tasks = [self._cells.submit(self.segmenter.segment, cell) for cell in self.job.cells(region)]
        try:
            cells = [task.result() for task in tasks]
        finally:
            for task in tasks:
                task.cancel()
        write_region(self.segmenter, self.store, region, cells, broken_near(self.segmenter, self.store, region))
        return sum(len(cell.part) for cell in cells)

    def close(self) -> None:
        """Give up threads and the open file."""
        self._cells.shutdown(cancel_futures=True)
        self.segmenter.__exit__(None, None, None)
        self.slide.close()


_lock = threading.Lock()
_sessions: OrderedDict[tuple[str, int], Session] = OrderedDict()  # the one used last comes last


@contextmanager
def lease_session(order: Order, cpus: int) -> Iterator[Session]:
    """The session of a job, made where there is none yet. The last `KEPT` stay; one that is in use always does."""
    key = order.run_id, cpus
    with _lock:
        session = _sessions.get(key)
        if session is None:
            session = _sessions[key] = Session(order.complete(), cpus)
        _sessions.move_to_end(key)
        session.users += 1
    try:
        yield session
    finally:
        with _lock:
            session.users -= 1
            idle = [key for key, one in _sessions.items() if not one.users]
            surplus = [_sessions.pop(key) for key in idle[: max(0, len(_sessions) - KEPT)]]
        for one in surplus:
            one.close()


def segment_task(version: str, order: Order, regions: Sequence[Region]) -> Answer:
    """Segment regions of a job; runs as a task on a worker of Dask. Errors name the worker."""
    from distributed import get_worker

    worker = get_worker()
    where = f"worker {worker.name} on {socket.gethostname()}"
    if version != __version__:
        return Answer(
            [], f"{where}: has hemalum {__version__}, and this is {version}; install one version everywhere"
        )
    cpus = min(int(worker.state.nthreads), count_cpus())
    with ExitStack() as stack:
        try:
            session = stack.enter_context(lease_session(order, cpus))
        except HemalumError as error:
            return Answer([], f"{where}: {error}")
        try:
            return Answer([(session.store.part_path(region).name, session.segment(region)) for region in regions])
        except HemalumError as error:
            raise HemalumError(f"{where}: {error}") from error


def _find_store(job: SlideJob) -> NucleiStore:
    _require_seen(job.store, "the results")
    store = open_store(job.store)
    if store.run != job.run:
        raise HemalumError(f"{job.store}: holds another run's nuclei there; results must be in a shared folder")
    return store


def _find_slide(slide: Slide) -> Slide:
    path = slide.path
    if path is not None:
        _require_seen(path, "the slide")
        try:
            slide.check_file()
        except HemalumError as error:
            raise HemalumError(f"{error}; slides must be in a shared folder") from error
    return slide


def _find_model(order: Order) -> Model:
    if isinstance(order.model, Path):
        _require_seen(order.model, "the model")
    elif order.model not in shipped_models():
        raise HemalumError(f"no model '{order.model}' is shipped with hemalum there")
    model = load_model(order.model).with_organ(order.card.organ).with_recall(order.card.recall_target)
    if model.card != order.card or model.digest != order.digest:
        raise HemalumError(f"model {order.model} is another one there; give the file in a shared folder with --model")
    return model


def _check_engine(engine: Engine, order: Order) -> None:
    planned = order.job.run.settings["engine"]
    if f"{engine.name} {engine.precision}" != planned or looks_of(engine) != (order.tta, order.shifts):
        raise HemalumError(
            f"computes with {engine.name} in {engine.precision}, and the plan is {planned}; "
            "choose what all workers have with --engine and --precision (f32 works everywhere)"
        )


def _require_seen(path: Path, what: str) -> None:
    if not path.exists():
        raise HemalumError(f"does not see {what}, {path}; put it in a shared folder that all workers see there")
