"""The regions of a slide, done by the workers of a Dask scheduler.

What is decided once is decided here, and what a worker writes goes to the store itself, in a folder that all see. So
a task is a few regions and what comes back are names; a worker that is lost costs what it had begun.
"""

import asyncio
import importlib.util
import logging
import time
import uuid
from collections import deque
from collections.abc import Generator, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hemalum import __version__
from hemalum.errors import HemalumError, counted, one_line
from hemalum.inference.plan import CellSegmenter
from hemalum.inference.slide import SlideJob
from hemalum.inference.tta import looks_of
from hemalum.inference.worker import Answer, Order, segment_task
from hemalum.models.engines.engine import Engine
from hemalum.models.model import Model, shipped_models
from hemalum.nuclei.store import NucleiStore, Region
from hemalum.slides.slide import Slide

if TYPE_CHECKING:
    from distributed import Client, Future

log = logging.getLogger(__name__)

CONNECT_SECONDS = 8
RETRIES = 3  # of a task that fails; tasks of lost workers are done again in any case
AHEAD = 2  # what each worker has at once: it works on one task while the next one is there
POLL_SECONDS = 5
SHOW_SECONDS = 90  # within which files written elsewhere show here: NFS looks again after 60


@contextmanager
def connect(scheduler: "str | Client") -> "Iterator[Client]":
    """A client of the scheduler at tcp://HOST:PORT, or that a scheduler file (.json) names; or the client itself.

    Raises HemalumError when there is none within seconds, or the extra is not installed.
    """
    if importlib.util.find_spec("distributed") is None:
        raise HemalumError("a scheduler needs dask's distributed: pip install 'hemalum[cluster]'")
    from distributed import Client

    if isinstance(scheduler, Client):
        if scheduler.asynchronous or scheduler.status != "running":
            state = "asynchronous" if scheduler.asynchronous else scheduler.status
            raise HemalumError(f"the dask client is {state}; give one that is running, or the scheduler's address")
        yield scheduler
        return
    address = _find_address(scheduler)
    with ThreadPoolExecutor(1) as pool:  # the caller's thread may have an event loop of its own
        pool.submit(lambda: asyncio.run(_check_scheduler(address))).result()
    try:
        client = Client(address, timeout=CONNECT_SECONDS, set_as_default=False)
    except (OSError, ValueError) as error:
        raise HemalumError(f"scheduler {address}: cannot be reached ({one_line(error)})") from error
    with client, _quiet("distributed.client"):  # which writes a page where we say that the scheduler was lost
        yield client


@contextmanager
def _quiet(name: str) -> Iterator[None]:
    logger = logging.getLogger(name)
    level = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        logger.setLevel(level)


def check_cluster_input(
    model: "Path | str | Model | None", engine: str | Engine, slide: "Slide | Path | str", workers: int | None
) -> None:
    """Raise HemalumError for what cannot be named to another machine, and for what means nothing there."""
    if workers is not None:
        raise HemalumError(
            "workers is for this machine: with a scheduler, threads limits those of each of its workers"
        )
    if not isinstance(engine, str):
        raise HemalumError("with a scheduler each worker makes its own engine: give the engine's name")
    if isinstance(model, Model) and model.path is None:
        raise HemalumError(f"model '{model.card.name}' is in memory only: workers of a scheduler need its file")
    if isinstance(slide, Slide) and slide.path is None:
        raise HemalumError(f"{slide.name}: is in memory only: workers of a scheduler need the slide's file")


def make_order(
    segmenter: CellSegmenter, store: NucleiStore, job: SlideJob, device: str, threads: int | None
) -> Order:
    """What the workers have to know: paths are absolute, and a shipped model goes by its name."""
    slide, model, engine = segmenter.slide, segmenter.model, segmenter.engine
    if slide.path is None or model.path is None:
        raise HemalumError(f"{slide.name}: workers of a scheduler need the slide's and the model's file")
    tta, shifts = looks_of(engine)
    shipped = {path: name for name, path in shipped_models().items()}
    return Order(
        run_id=uuid.uuid4().hex[:8],
        job=SlideJob(job.plan, store.path.absolute(), store.run, job.side),
        slide=slide.moved_to(slide.path.absolute()),
        model=shipped.get(model.path) or model.path.absolute(),
        card=model.card,
        digest=model.digest,
        engine=engine.name,
        precision=engine.precision,
        device=device,
        tta=tta,
        shifts=shifts,
        threads=threads,
    )


def segment_on_cluster(
    client: "Client", order: Order, store: NucleiStore, regions: Sequence[Region]
) -> Generator[float, None, None]:
    """Have the workers segment regions; gives the share that is done after each task. The store is not finished.

    Only a few tasks for each worker are with the scheduler at a time, so that those that are done early get more.
    Raises HemalumError when a worker cannot do the job, a task fails again and again, or the scheduler is lost.
    Whatever ends it, finished regions stay.
    """
    from distributed import wait

    _check_versions(client)
    tasks = deque(share_out(order.job, regions))
    total, done = sum(size for _, size in tasks) + 1, 0  # with finishing
    sent = order.without_cells()
    log.info("%s: %s for %s", store.path, counted(len(tasks), "task"), _address(client))
    running: dict[Future, int] = {}
    alone = False
    try:
        while tasks or running:
            room = count_room(client, order.job.side)
            if not room and not alone:
                log.warning("%s: the scheduler has no workers; waiting for one", store.path)
            alone = not room
            while tasks and len(running) < max(AHEAD, room):
                some, size = tasks.popleft()
                key = f"hemalum-{store.name}-{some[0][0]}-{some[0][1]}-{order.run_id}"
                future = client.submit(segment_task, __version__, sent, some, key=key, retries=RETRIES, pure=False)
                running[future] = size
            with suppress(TimeoutError), client.as_current():
                wait(list(running), timeout=POLL_SECONDS, return_when="FIRST_COMPLETED")
            for future in [one for one in running if one.done()]:
                for name, count in _read_answer(future, client).parts:
                    log.debug("%s: %s, %d nuclei", store.path, name, count)
                done += running.pop(future)
                yield done / total
    finally:
        if running:
            with suppress(Exception):  # the scheduler may be gone
                client.cancel(list(running))
    _wait_for_parts(store, regions)


def _check_versions(client: "Client") -> None:
    """Raise HemalumError where a worker has another version: it may not be able to read what is sent.

    A worker that comes later checks itself (`segment_task`).
    """
    try:
        workers = client.get_versions(packages=["hemalum"])["workers"]
    except (OSError, ValueError) as error:
        raise _lost(client) from error
    for address, installed in workers.items():
        version = installed["packages"].get("hemalum")
        if version != __version__:
            has = f"has hemalum {version}" if version else "has no hemalum"
            raise HemalumError(f"worker {address}: {has}, and this is {__version__}; install one version everywhere")


def share_out(job: SlideJob, regions: Sequence[Region]) -> Iterator[tuple[list[Region], int]]:
    """Regions by task, and how much each is: one region that is full of tissue, or several that are not.

    Parts of regions without any cell are written as well, so none counts as nothing.
    """
    most = job.side**2
    some: list[Region] = []
    size = 0
    for region in regions:
        one = len(job.cells(region)) + 1
        if some and size + one > most + 1:
            yield some, size
            some, size = [], 0
        some.append(region)
        size += one
    if some:
        yield some, size


def _find_address(scheduler: str) -> str:
    """The address itself, or what a scheduler file says."""
    if not scheduler.endswith(".json"):
        if "://" not in scheduler:
            raise HemalumError(
                f"scheduler '{scheduler}': want tcp://HOST:PORT, or the path of a scheduler file (.json)"
            )
        return scheduler
    import json

    try:
        return str(json.loads(Path(scheduler).read_text(encoding="utf-8"))["address"])
    except (OSError, ValueError, TypeError, KeyError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it holds no address"
        raise HemalumError(f"{scheduler}: cannot be read as a scheduler file ({reason})") from error


async def _check_scheduler(address: str) -> None:
    """Ask who is there: a client that finds no scheduler does not end cleanly."""
    from distributed import Security, rpc

    try:
        arguments = Security().get_connection_args("client")
        async with rpc(address, timeout=CONNECT_SECONDS, connection_args=arguments) as other:
            identity: dict[str, Any] = await asyncio.wait_for(other.identity(), CONNECT_SECONDS)
    except (OSError, ValueError, ImportError, TypeError, RuntimeError) as error:
        raise HemalumError(f"scheduler {address}: cannot be reached ({one_line(error)})") from error
    if identity.get("type") != "Scheduler":
        raise HemalumError(f"scheduler {address}: is a {identity.get('type')} of dask, not a scheduler")


def count_room(client: "Client", side: int) -> int:
    """How many tasks of side² cells keep the threads of all workers busy, with some to come."""
    try:
        threads = client.nthreads().values()
    except (OSError, ValueError) as error:
        raise _lost(client) from error
    return sum(max(AHEAD, -(-AHEAD * count // side**2)) for count in threads)


def _read_answer(future: "Future", client: "Client") -> Answer:
    """What a task gave. Raises HemalumError for a refusal and for what a cluster does to tasks."""
    from concurrent.futures import CancelledError

    from distributed import KilledWorker

    try:
        answer: Answer = future.result()
    except CancelledError as error:
        raise _lost(client) from error
    except KilledWorker as error:
        raise HemalumError(
            f"{future.key}: was lost with {error.allowed_failures + 1} workers; they may have run out of memory, "
            "see their logs; finished regions stay"
        ) from error
    except ModuleNotFoundError as error:
        raise HemalumError(f"a worker cannot import {error.name}: install hemalum {__version__} there") from error
    if answer.refusal:
        raise HemalumError(answer.refusal)
    return answer


def _lost(client: "Client") -> HemalumError:
    return HemalumError(f"scheduler {_address(client)}: was lost; finished regions stay, run again to go on")


def _address(client: "Client") -> str:
    scheduler: Any = client.scheduler
    return str(scheduler.address) if scheduler is not None else "of the client"


def _wait_for_parts(store: NucleiStore, regions: Sequence[Region]) -> None:
    """Wait until what workers have written shows here. Raises HemalumError when it does not."""
    end = time.monotonic() + SHOW_SECONDS
    while missing := store.missing(regions):
        if time.monotonic() > end:
            raise HemalumError(
                f"{store.path}: workers have written {len(missing)} parts that do not show here, the first is "
                f"{store.part_path(missing[0]).name}; is it a shared folder?"
            )
        time.sleep(1)
