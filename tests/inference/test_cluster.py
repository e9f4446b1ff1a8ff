"""Workers of a scheduler find the nuclei that one process finds, whatever happens to them on the way."""

import pickle
import re
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar

import numpy as np
import pytest

from builders.clusters import DaskCluster
from builders.slides import draw_picture, overwrite, save_pyramid, tile_bytes
from hemalum import HemalumError, NucleiStore
from hemalum.inference import cluster, worker
from hemalum.inference.cells import CellNuclei
from hemalum.inference.plan import CellSegmenter
from hemalum.inference.segment import as_engine
from hemalum.inference.slide import finish, plan_slide, segment_slide
from hemalum.models.file import save_model
from hemalum.models.model import Model, load_model
from hemalum.nuclei.store import open_store
from hemalum.slides.slide import Slide, open_slide

pytest.importorskip("distributed")


def fake_order(name: str) -> Any:
    """What a session is found by, and is made of."""
    return SimpleNamespace(run_id=name, complete=lambda: name)


@pytest.fixture(scope="module")
def model_file(tiny_model: Model, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("model") / "tiny.safetensors"
    save_model(path, tiny_model.card, tiny_model.tensors)
    return path


@pytest.fixture(scope="module")
def slide_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """2,600 x 2,300 px in nine cells, the middle of the upper ones of glass."""
    picture = np.tile(draw_picture(650, 575), (4, 4, 1))
    picture[:700, 700:1600] = 245
    return save_pyramid(tmp_path_factory.mktemp("slide") / "s.tif", picture, levels=1, tile=256)


@pytest.fixture(scope="module")
def local(slide_file: Path, model_file: Path, tmp_path_factory: pytest.TempPathFactory) -> NucleiStore:
    """What one process finds, in regions of one cell."""
    return segment(slide_file, tmp_path_factory.mktemp("local"), model_file)


def segment(slide: Any, out: Path, model: Any, **options: Any) -> NucleiStore:
    return segment_slide(slide, out, model, **{"region": 1024, "tissue_mask": False, "precision": "f32"} | options)


def assert_same(store: NucleiStore, expected: NucleiStore) -> None:
    """The same rows with the same outlines, by id, and the same notes."""
    tables = [one.dataset.to_table().sort_by("id") for one in (store, expected)]
    assert tables[1].num_rows > 500
    assert tables[0].equals(tables[1])
    assert (store.run, store.notes, store.complete) == (expected.run, expected.notes, True)


# -- tasks, in this process


@contextmanager
def planned(slide_file: Path, model: Path | Model, out: Path, **options: Any) -> Iterator[tuple[Any, NucleiStore]]:
    """A segmenter and an empty store, with what a worker needs to know."""
    loaded = load_model(model)
    engine = as_engine("openvino", loaded, precision="f32")
    with open_slide(slide_file) as slide:
        job = plan_slide(slide, loaded, engine, out, **{"region": 1024, "tissue_mask": False} | options)
        store = NucleiStore.create(job.store, job.run)
        with CellSegmenter(slide, loaded, engine, job.plan) as segmenter:
            yield cluster.make_order(segmenter, store, job, "auto", None), store


@pytest.fixture
def as_worker(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Tasks run here, as on a worker called one with two threads."""
    monkeypatch.setattr(
        "distributed.get_worker", lambda: SimpleNamespace(name="one", state=SimpleNamespace(nthreads=2))
    )
    monkeypatch.setattr("socket.gethostname", lambda: "node7")
    monkeypatch.setattr(worker, "_sessions", type(worker._sessions)())
    yield
    for session in worker._sessions.values():
        session.close()


def run_tasks(order: worker.Order, store: NucleiStore) -> list[worker.Answer]:
    tasks = list(cluster.share_out(order.job, store.missing()))
    with ThreadPoolExecutor(2) as pool:
        packed = order.without_cells()
        return list(pool.map(lambda task: worker.segment_task(worker.__version__, packed, task[0]), tasks))


@pytest.mark.usefixtures("as_worker")
def test_tasks_find_what_one_process_finds(
    slide_file: Path, model_file: Path, local: NucleiStore, tmp_path: Path
) -> None:
    with planned(slide_file, model_file, tmp_path) as (order, store):
        answers = run_tasks(order, store)
        again = run_tasks(order, store)
    assert [answer.refusal for answer in answers] == [""] * len(answers)
    parts = dict(part for answer in answers for part in answer.parts)
    assert len(parts) == 9
    assert sum(parts.values()) == local.count
    assert again == []
    finish(store, order.job, local.notes)
    assert_same(store, local)


@pytest.mark.usefixtures("as_worker")
def test_workers_look_from_as_many_shifts(model_file: Path, tmp_path: Path) -> None:
    slide = save_pyramid(tmp_path / "s.tif", draw_picture(650, 575), levels=1, tile=256)
    plain, expected = (segment(slide, tmp_path / f"{count}", model_file, shifts=count) for count in (1, 2))
    loaded = load_model(model_file)
    engine = as_engine("openvino", loaded, precision="f32", shifts=2)
    with open_slide(slide) as opened:
        job = plan_slide(opened, loaded, engine, tmp_path, region=1024, tissue_mask=False)
        store = NucleiStore.create(job.store, job.run)
        with CellSegmenter(opened, loaded, engine, job.plan) as segmenter:
            answers = run_tasks(cluster.make_order(segmenter, store, job, "auto", None), store)
    assert [answer.refusal for answer in answers] == [""] * len(answers)
    finish(store, job, expected.notes)
    tables = [one.dataset.to_table().sort_by("id") for one in (store, expected, plain)]
    assert tables[0].num_rows > 20
    assert tables[0].equals(tables[1])
    assert not tables[0].equals(tables[2])
    assert (store.run, store.run.settings["shifts"]) == (expected.run, 2)


@pytest.mark.usefixtures("as_worker")
def test_a_part_that_is_there_is_not_done_again(
    slide_file: Path, model_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with planned(slide_file, model_file, tmp_path) as (order, _):
        packed = order.without_cells()
        first = worker.segment_task(worker.__version__, packed, [(0, 0)])
        monkeypatch.setattr(CellSegmenter, "segment", lambda *_: pytest.fail("done again"))
        assert worker.segment_task(worker.__version__, packed, [(0, 0)]) == first
        assert first.parts[0][1] > 0


@pytest.mark.usefixtures("as_worker")
def test_what_a_worker_cannot_read_is_counted(model_file: Path, tmp_path: Path) -> None:
    """Also by the next run, though the worker has seen that tile before."""
    broken = save_pyramid(tmp_path / "b.tif", draw_picture(1200, 2100), levels=1, tile=256)
    offset, count = tile_bytes(broken, 0, 7)
    overwrite(broken, offset, bytes(count))
    expected = segment(broken, tmp_path / "local", model_file)
    assert expected.notes["broken_tiles"] == 1
    for out in ("one", "two"):
        with planned(broken, model_file, tmp_path / out) as (order, store):
            run_tasks(order, store)
        counted = ("left_out", "broken", "tissue_mm2")
        finish(store, order.job, {n: value for n, value in expected.notes.items() if not n.startswith(counted)})
        assert_same(store, expected)


@pytest.mark.fault
@pytest.mark.usefixtures("as_worker")
def test_a_failed_cell_names_the_worker_and_is_tried_again(
    slide_file: Path, model_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(segmenter: CellSegmenter, core: Any) -> CellNuclei:
        raise HemalumError("s.tif: cannot be read")

    with planned(slide_file, model_file, tmp_path) as (order, store):
        with monkeypatch.context() as patch:
            patch.setattr(CellSegmenter, "segment", fail)
            with pytest.raises(HemalumError, match=r"^worker one on node7: s.tif: cannot be read$"):
                worker.segment_task(worker.__version__, order.without_cells(), [(0, 0)])
        assert worker.segment_task(worker.__version__, order.without_cells(), [(0, 0)]).parts[0][1] > 0
        assert store.finished == [(0, 0)]


REFUSALS: dict[str, tuple[Callable[[worker.Order, Path], worker.Order], str]] = {
    "model missing": (
        lambda order, folder: replace(order, model=Path("/far/m.safetensors")),
        r"does not see the model, .far.m\.safetensors; put it in a shared folder that all workers see there",
    ),
    "shipped model missing": (
        lambda order, folder: replace(order, model="huge"),
        r"no model 'huge' is shipped with hemalum there",
    ),
    "other weights": (
        lambda order, folder: replace(order, digest="0" * 64),
        r"model .*tiny\.safetensors is another one there; give the file in a shared folder with `model`",
    ),
    "other card": (
        lambda order, folder: replace(order, card=order.card.model_copy(update={"name": "big"})),
        r"model .*tiny\.safetensors is another one there; .*",
    ),
    "store missing": (
        lambda order, folder: replace(order, job=replace(order.job, store=Path("/far/s.nuclei"))),
        r"does not see the results, .far.s\.nuclei; put it in a shared folder that all workers see there",
    ),
    "other store": (
        lambda order, folder: replace(
            order, job=replace(order.job, run=order.job.run.model_copy(update={"fingerprint": "0"}))
        ),
        r".*s\.nuclei: holds another run's nuclei there; results must be in a shared folder",
    ),
    "slide missing": (
        lambda order, folder: replace(order, slide=order.slide.moved_to(Path("/far/s.tif"))),
        r"does not see the slide, .far.s\.tif; put it in a shared folder that all workers see there",
    ),
    "other slide": (
        lambda order, folder: replace(order, slide=order.slide.moved_to(other_slide(folder))),
        r".*other\.tif: is another file than the one that was opened; slides must be in a shared folder",
    ),
}


def other_slide(folder: Path) -> Path:
    return save_pyramid(folder / "other.tif", np.full((2600, 2300, 3), 9, np.uint8), levels=1, tile=256)


@pytest.mark.usefixtures("as_worker")
@pytest.mark.parametrize("case", REFUSALS)
def test_a_worker_that_cannot_do_the_job_says_why(
    slide_file: Path, model_file: Path, tmp_path: Path, case: str
) -> None:
    change, line = REFUSALS[case]
    with planned(slide_file, model_file, tmp_path) as (order, store):
        answer = worker.segment_task(worker.__version__, change(order, tmp_path).without_cells(), [(0, 0)])
        assert not worker._sessions
    assert (answer.parts, store.finished) == ([], [])
    assert re.fullmatch(rf"worker one on node7: {line}", answer.refusal), answer.refusal


@pytest.mark.usefixtures("as_worker")
def test_an_engine_that_computes_otherwise_is_refused(
    slide_file: Path, model_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As OpenVINO does where the processor lacks what is asked for."""
    engine = SimpleNamespace(name="openvino", precision="bf16")
    with planned(slide_file, model_file, tmp_path) as (order, _):
        monkeypatch.setattr(worker, "as_engine", lambda *_, **options: engine)
        answer = worker.segment_task(worker.__version__, order.without_cells(), [(0, 0)])
    assert answer.refusal.startswith(
        "worker one on node7: computes with openvino in bf16, and the plan is openvino f32; choose "
    )


@pytest.mark.fault
@pytest.mark.parametrize(("version", "has"), [("0.0.1", "has hemalum 0.0.1"), (None, "has no hemalum")])
def test_another_version_is_refused_before_a_job_is_sent(version: str | None, has: str) -> None:
    def get_versions(packages: list[str]) -> dict[str, Any]:
        return {"workers": {"tcp://h:2": {"packages": {packages[0]: version}}}}

    client: Any = SimpleNamespace(get_versions=get_versions)
    line = f"worker tcp://h:2: {has}, and this is {worker.__version__}; install one version everywhere"
    with pytest.raises(HemalumError, match=f"^{re.escape(line)}$"):
        cluster._check_versions(client)


@pytest.mark.usefixtures("as_worker")
def test_another_version_is_refused_before_its_job_is_looked_at() -> None:
    answer = worker.segment_task("0.0.1", fake_order("any"), [(0, 0)])
    assert answer.refusal.startswith("worker one on node7: has hemalum ")
    assert answer.refusal.endswith("and this is 0.0.1; install one version everywhere")


def test_no_weights_and_little_else_travels(slide_file: Path, model_file: Path, tmp_path: Path) -> None:
    with planned(slide_file, model_file, tmp_path) as (order, _):
        packed = order.without_cells()
    assert len(pickle.dumps(packed)) < 40_000  # as Dask sends it
    assert not packed.job.plan.cells
    unpacked = packed.complete()
    assert unpacked.job.plan.cells == order.job.plan.cells
    assert (unpacked.slide.path, unpacked.model) == (slide_file, model_file)


# -- what a worker keeps


class FakeSession:
    made: ClassVar[list["FakeSession"]] = []

    def __init__(self, order: str, cpus: int) -> None:
        self.order, self.users, self.closed = order, 0, False
        self.made.append(self)

    def close(self) -> None:
        assert not self.users
        self.closed = True


@pytest.fixture
def fake_sessions(monkeypatch: pytest.MonkeyPatch) -> list[FakeSession]:
    made: list[FakeSession] = []
    monkeypatch.setattr(FakeSession, "made", made)
    monkeypatch.setattr(worker, "Session", FakeSession)
    monkeypatch.setattr(worker, "_sessions", type(worker._sessions)())
    return made


def test_a_worker_keeps_the_last_jobs_alone(fake_sessions: list[FakeSession]) -> None:
    for name in ("a", "b", "a", "c"):
        with worker.lease_session(fake_order(name), 2) as session:
            assert not session.closed
    assert [(one.order, one.closed) for one in fake_sessions] == [("a", False), ("b", True), ("c", False)]


def test_a_job_that_is_worked_on_stays(fake_sessions: list[FakeSession]) -> None:
    with (
        worker.lease_session(fake_order("a"), 2),
        worker.lease_session(fake_order("b"), 2),
        worker.lease_session(fake_order("c"), 2),
    ):
        with worker.lease_session(fake_order("d"), 2):
            pass
        assert [one.closed for one in fake_sessions] == [False, False, False, True]
    assert sum(not one.closed for one in fake_sessions) == worker.KEPT


def test_a_job_is_loaded_once(fake_sessions: list[FakeSession]) -> None:
    barrier = threading.Barrier(8)

    def work(_: int) -> None:
        barrier.wait()
        with worker.lease_session(fake_order("a"), 2):
            pass

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(work, range(8)))
    assert len(fake_sessions) == 1


# -- the scheduler's side


@pytest.mark.parametrize(
    ("cells", "side", "expected"),
    [
        ([4, 4, 4], 2, [[0], [1], [2]]),
        ([0, 0, 0], 2, [[0, 1, 2]]),
        ([0, 1, 1, 4, 0, 0], 2, [[0, 1, 2], [3], [4, 5]]),
        ([0] * 9, 2, [[0, 1, 2, 3, 4], [5, 6, 7, 8]]),
        ([1, 1, 0, 0], 1, [[0], [1], [2, 3]]),
        ([], 2, []),
    ],
)
def test_regions_are_shared_out_by_their_cells(cells: list[int], side: int, expected: list[list[int]]) -> None:
    job: Any = SimpleNamespace(side=side, cells=lambda region: [None] * cells[region[1]])
    tasks = list(cluster.share_out(job, [(0, number) for number in range(len(cells))]))
    assert [[region[1] for region in some] for some, _ in tasks] == expected
    assert sum(size for _, size in tasks) == sum(cells) + len(cells)


@pytest.mark.parametrize(
    ("threads", "side", "expected"),
    [([], 4, 0), ([1], 4, 2), ([8, 8], 4, 4), ([32], 4, 4), ([8], 1, 16), ([1, 1, 1], 1, 6)],
)
def test_workers_have_enough_to_do(threads: list[int], side: int, expected: int) -> None:
    client: Any = SimpleNamespace(nthreads=lambda: {str(number): count for number, count in enumerate(threads)})
    assert cluster.count_room(client, side) == expected


@pytest.mark.fault
@pytest.mark.parametrize(
    ("scheduler", "line"),
    [
        ("tcp://127.0.0.1:9", r"scheduler tcp://127\.0\.0\.1:9: cannot be reached \(.*\)"),
        ("127.0.0.1:9", r"scheduler '127\.0\.0\.1:9': want tcp://HOST:PORT, or the path of a scheduler file .*"),
        ("tcp://nowhere", r"scheduler tcp://nowhere: cannot be reached \(missing port number .*\)"),
        ("gopher://host:9", r"scheduler gopher://host:9: cannot be reached \(unknown address scheme .*\)"),
        ("absent.json", r"absent\.json: cannot be read as a scheduler file \(No such file or directory\)"),
    ],
)
def test_no_scheduler(
    slide_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, scheduler: str, line: str
) -> None:
    """It is told before a model is loaded, in one line; nothing is written."""
    assert cluster.CONNECT_SECONDS <= 10
    monkeypatch.setattr(cluster, "CONNECT_SECONDS", 0.5)
    with pytest.raises(HemalumError, match=f"^{line}$"):
        segment(slide_file, tmp_path / "out", "absent", scheduler=scheduler)
    assert not (tmp_path / "out").exists()


@pytest.mark.fault
@pytest.mark.parametrize("text", ["{}", "[]", "nonsense"])
def test_a_scheduler_file_that_is_none(slide_file: Path, tmp_path: Path, text: str) -> None:
    path = tmp_path / "s.json"
    path.write_text(text)
    with pytest.raises(HemalumError, match=r"s\.json: cannot be read as a scheduler file \(it holds no address\)$"):
        segment(slide_file, tmp_path / "out", scheduler=str(path), model="fast")


@pytest.mark.fault
def test_what_cannot_travel_is_refused(slide_file: Path, tmp_path: Path, tiny_model: Model) -> None:
    def refused(line: str, slide: Any = slide_file, model: Any = "fast", **options: Any) -> None:
        with pytest.raises(HemalumError, match=line):
            segment(slide, tmp_path / "out", model, scheduler="tcp://127.0.0.1:9", **options)

    refused(r"^model 'tiny' is in memory only: workers of a scheduler need its file$", model=tiny_model)
    refused(
        r"^with a scheduler each worker makes its own engine: give the engine's name$",
        engine=as_engine("openvino", tiny_model, precision="f32"),
    )
    refused(r"^workers is for this machine: with a scheduler, threads limits .*", workers=2)
    memory = Slide.of(draw_picture(64, 64), mpp=0.5)
    refused(r"^image: is in memory only: workers of a scheduler need the slide's file$", slide=memory)


@pytest.mark.fault
def test_the_extra_is_named_where_it_is_missing(
    slide_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(HemalumError, match=r"pip install 'hemalum\[cluster\]'$"):
        segment(slide_file, tmp_path / "out", "fast", scheduler="tcp://127.0.0.1:9")


@pytest.mark.fault
def test_what_becomes_of_a_task_is_said_in_one_line() -> None:
    from concurrent.futures import CancelledError

    from distributed import KilledWorker

    def fail(error: BaseException) -> Any:
        def result() -> None:
            raise error

        return SimpleNamespace(key="hemalum-s-0-0-ab", result=result)

    client: Any = SimpleNamespace(scheduler=SimpleNamespace(address="tcp://h:1"))
    worker_state: Any = SimpleNamespace(address="tcp://h:2")
    for error, line in (
        (
            KilledWorker("k", worker_state, 3),
            r"^hemalum-s-0-0-ab: was lost with 4 workers; they may have run out of .*",
        ),
        (CancelledError(), r"^scheduler tcp://h:1: was lost; finished regions stay, run again to go on$"),
        (ModuleNotFoundError("no", name="hemalum"), r"^a worker cannot import hemalum: install hemalum .* there$"),
    ):
        with pytest.raises(HemalumError, match=line):
            cluster._read_answer(fail(error), client)


@pytest.mark.fault
def test_parts_that_do_not_show_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder of that name on the worker's own disk: nothing of it comes here."""
    monkeypatch.setattr(cluster, "SHOW_SECONDS", 0)
    store: Any = SimpleNamespace(
        path=tmp_path, missing=lambda regions: list(regions), part_path=lambda region: Path("0_1.parquet")
    )
    with pytest.raises(
        HemalumError, match=r"written 1 parts that do not show here.* 0_1.parquet; is it a shared folder"
    ):
        cluster._wait_for_parts(store, [(0, 1)])


# -- a real scheduler with two worker processes


@pytest.fixture(scope="module")
def dask(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DaskCluster]:
    dask = DaskCluster(tmp_path_factory.mktemp("dask"))
    dask.add_worker("one")
    dask.add_worker("two")
    yield dask
    dask.close()


def wait_for_workers(dask: DaskCluster, count: int) -> None:
    from distributed import Client

    with Client(scheduler_file=str(dask.scheduler), set_as_default=False) as client:
        client.wait_for_workers(count, timeout=60)


def jobs_of_workers(dask: DaskCluster) -> list[int]:
    """How many jobs each worker keeps."""
    from distributed import Client

    def count() -> int:
        from hemalum.inference import worker

        return len(worker._sessions)

    with Client(scheduler_file=str(dask.scheduler), set_as_default=False) as client:
        return list(client.run(count).values())


@pytest.mark.slow
def test_workers_find_what_one_process_finds(
    dask: DaskCluster, slide_file: Path, model_file: Path, local: NucleiStore, tmp_path: Path
) -> None:
    wait_for_workers(dask, 2)
    shares: list[float] = []
    store = segment(slide_file, tmp_path, model_file, scheduler=str(dask.scheduler), on_progress=shares.append)
    assert_same(store, local)
    assert_same(open_store(store.path), local)
    assert shares == sorted(shares)
    assert (shares[-1], len(shares)) == (1, 10)  # nine tasks, and finishing
    assert shares[-2] < 1
    assert jobs_of_workers(dask) == [1, 1]


@pytest.mark.slow
def test_an_interrupted_run_goes_on(
    dask: DaskCluster, slide_file: Path, model_file: Path, local: NucleiStore, tmp_path: Path
) -> None:
    wait_for_workers(dask, 2)

    def interrupt(share: float) -> None:
        if share > 0.3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        segment(slide_file, tmp_path, model_file, scheduler=str(dask.scheduler), on_progress=interrupt)
    store = open_store(tmp_path / "s.nuclei")
    finished = {path: path.stat().st_mtime_ns for path in map(store.part_path, store.finished)}
    assert not store.complete
    assert 3 <= len(finished) < 9
    again = segment(slide_file, tmp_path, model_file, scheduler=str(dask.scheduler))
    assert_same(again, local)
    assert {path: path.stat().st_mtime_ns for path in finished} == finished


@pytest.mark.fault
@pytest.mark.slow
def test_a_worker_without_the_model_is_named(
    dask: DaskCluster, slide_file: Path, tiny_model: Model, model_file: Path, tmp_path: Path
) -> None:
    """And the client may be one that the caller has."""
    from distributed import Client

    wait_for_workers(dask, 2)
    absent = Model(tiny_model.card, tiny_model.tensors, tmp_path / "m.safetensors")
    with Client(scheduler_file=str(dask.scheduler), set_as_default=False) as client:
        with pytest.raises(HemalumError, match=r"^worker (one|two) on .*: does not see the model, .*m\.safetensors;"):
            segment(slide_file, tmp_path / "out", absent, scheduler=client)
        address = next(iter(client.nthreads()))
    with pytest.raises(HemalumError, match=r"^the dask client is closed; "):
        segment(slide_file, tmp_path / "out", model_file, scheduler=client)
    with pytest.raises(HemalumError, match=r": is a Worker of dask, not a scheduler$"):
        segment(slide_file, tmp_path / "out", model_file, scheduler=address)


@pytest.mark.slow
def test_a_worker_killed_in_mid_run_costs_nothing(
    dask: DaskCluster, slide_file: Path, model_file: Path, local: NucleiStore, tmp_path: Path
) -> None:
    wait_for_workers(dask, 2)
    shares: list[float] = []

    def kill(share: float) -> None:
        shares.append(share)
        if len(shares) == 2:
            dask.kill_worker("one")

    store = segment(slide_file, tmp_path, model_file, scheduler=str(dask.scheduler), on_progress=kill)
    assert_same(store, local)
    assert len(shares) == 10
    assert len(jobs_of_workers(dask)) == 1


@pytest.mark.slow
def test_all_workers_killed_and_one_that_comes_later(
    dask: DaskCluster, slide_file: Path, model_file: Path, local: NucleiStore, tmp_path: Path,
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setattr(cluster, "POLL_SECONDS", 0.2)
    shares: list[float] = []
    if not dask.workers:
        dask.add_worker("zero")
    wait_for_workers(dask, 1)

    def kill(share: float) -> None:
        shares.append(share)
        if len(shares) == 2:
            for name in list(dask.workers):
                dask.kill_worker(name)
            threading.Timer(1, dask.add_worker, ["three"]).start()

    store = segment(slide_file, tmp_path, model_file, scheduler=str(dask.scheduler), on_progress=kill)
    assert_same(store, local)
    assert "the scheduler has no workers; waiting for one" in caplog.text


@pytest.mark.fault
@pytest.mark.slow
def test_a_scheduler_killed_in_mid_run(
    slide_file: Path, model_file: Path, local: NucleiStore, tmp_path: Path
) -> None:
    dask = DaskCluster(tmp_path)
    dask.add_worker("one")
    try:

        def kill(share: float) -> None:
            dask.process.kill()

        with pytest.raises(HemalumError, match=r"^scheduler tcp://.*: was lost; finished regions stay, run again"):
            segment(slide_file, tmp_path, model_file, scheduler=str(dask.scheduler), on_progress=kill)
    finally:
        dask.close()
    store = open_store(tmp_path / "s.nuclei")
    assert store.finished
    assert not store.complete
    assert_same(segment(slide_file, tmp_path, model_file), local)
