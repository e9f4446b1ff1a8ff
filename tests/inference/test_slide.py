"""The nuclei of a slide are the same whatever the regions, workers, batches and interruptions were."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile

from builders.models import BlobEngine
from builders.slide_runs import CELL, KINDS, Case, contents, make_case, same_as_nuclei, small_cells
from builders.slides import save_pyramid
from hemalum.data.image import read_image
from hemalum.errors import HemalumError
from hemalum.inference import slide as slide_module
from hemalum.inference.segment import segment
from hemalum.inference.slide import segment_slide
from hemalum.models.model import Model
from hemalum.nuclei.store import open_store
from hemalum.slides import Slide, open_slide


@pytest.fixture(scope="module", params=KINDS)
def case(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Case:
    return make_case(tmp_path_factory.mktemp("slide"), request.param)


@pytest.fixture(scope="module")
def reference(case: Case, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """The nuclei with one worker, cell by cell, each its own region."""
    with small_cells():
        store = case.run(tmp_path_factory.mktemp("reference"), region=CELL, threads=1)
    assert len(store.finished) == 20
    assert store.count >= 30
    return contents(store)


@pytest.mark.parametrize(
    ("options", "grid", "batch"),
    [
        ({"region": 2 * CELL}, {}, 1),
        ({"region": 3 * CELL, "threads": 3}, {}, 1),
        ({"region": 10**6, "threads": 2}, {}, 3),
        ({"region": CELL, "threads": 2}, {"kept_bytes": 0}, 1),
        ({"region": 2 * CELL, "threads": 3}, {"kept_bytes": 30_000, "backwards": True}, 2),
    ],
)
def test_regions_workers_order_batches_and_memory_change_nothing(
    case: Case, reference: Any, options: dict[str, Any], grid: dict[str, Any], batch: int, tmp_path: Path
) -> None:
    with small_cells(**grid):
        store = case.run(tmp_path, engine=case.engine(batch=batch), **options)
    assert contents(store).equals(reference)
    assert store.complete


def test_the_cells_that_are_in_use_change_nothing(case: Case, reference: Any, tmp_path: Path) -> None:
    """Of the little slide they are one, and its tiles larger: one call of the separation on the whole image."""
    assert contents(case.run(tmp_path, region=4096)).equals(reference)


def test_the_columns_hold_something(case: Case, reference: Any) -> None:
    """Guards the equality above against comparing nothing."""
    if case.stain == "hdab":
        for name in ("dab_mean", "dab_std", "dab_ring_mean"):
            assert len(reference.column(name).unique()) > 20
    if case.model.card.classes:
        assert set(reference.column("class").to_pylist()) == {"red", "green"}
    assert len(reference.column("hematoxylin_mean").unique()) > 20


def test_a_slide_has_the_nuclei_of_the_same_file_as_an_image(case: Case, tmp_path: Path) -> None:
    """And without coarser levels those of the picture that it was made of."""
    picture = tifffile.imread(case.slide, key=0)
    tifffile.imwrite(tmp_path / "plain.tif", picture, photometric="rgb")
    flat = save_pyramid(tmp_path / "flat.tif", picture, mpp=0.25, levels=1)
    with small_cells():
        stores = [case.run(tmp_path / "out"), case.run(tmp_path / "out", slide=flat)]
        images = [
            segment(path, mpp=mpp, engine=case.engine(), **case.options)
            for path, mpp in ((case.slide, None), (tmp_path / "plain.tif", 0.25))
        ]
    for store, image in zip(stores, images, strict=True):
        assert same_as_nuclei(store, image)
        # an image's scale is doubted by all of its nuclei, a slide's by those of a sample
        others = {name: value for name, value in image.notes.items() if name != "scale_doubt"}
        assert store.notes.items() >= others.items()


class Interrupted(BaseException):
    """As Ctrl-C is: no error that somebody catches."""


def test_a_run_that_is_interrupted_anywhere_goes_on(case: Case, reference: Any, tmp_path: Path) -> None:
    """Region by region, once between any two of them and once inside: each is done once."""
    out, calls, engine = tmp_path / "out", 0, case.engine()

    def interrupt(share: float) -> None:
        nonlocal calls
        calls += 1
        if calls % 3 == 0:
            raise Interrupted

    finished: list[int] = []
    with small_cells():
        for _ in range(30):
            try:
                store = case.run(out, engine=engine, on_progress=interrupt, region=CELL, threads=2)
                break
            except Interrupted:
                finished.append(len(list(out.glob("*.nuclei/parts/*.parquet"))))
        assert finished == sorted(finished)
        assert len(set(finished)) >= 4
        assert not open_store(out / f"{case.slide.stem}.nuclei").complete or store.complete
        store = case.run(out, region=CELL)
    assert contents(store).equals(reference)


def test_what_is_finished_is_not_done_again(tmp_path: Path) -> None:
    case = make_case(tmp_path, "classes")
    with small_cells():
        first, engine, shares = case.engine(), case.engine(), list[float]()
        case.run(tmp_path / "out", engine=first, region=CELL)
        files = {path: path.stat().st_mtime_ns for path in tmp_path.glob("out/*/parts/*.parquet")}
        store = case.run(tmp_path / "out", engine=engine, on_progress=shares.append, region=CELL)
        assert engine.windows == 0
        assert shares == [1.0]
        assert {path: path.stat().st_mtime_ns for path in files} == files
        store.part_path((0, 0)).unlink()
        case.run(tmp_path / "out", engine=engine, region=CELL)
    assert 0 < engine.windows < first.windows
    changed = [path.name for path in files if path.stat().st_mtime_ns != files[path]]
    assert changed == [store.part_path((0, 0)).name]


def test_progress_grows_to_one_when_the_store_is_complete(tmp_path: Path) -> None:
    case = make_case(tmp_path, "he")
    seen: list[tuple[float, bool]] = []

    def look(share: float) -> None:
        seen.append((share, open_store(tmp_path / "out" / "he.nuclei").complete))

    with small_cells():
        case.run(tmp_path / "out", on_progress=look)
    shares = [share for share, _ in seen]
    assert shares == sorted(set(shares))
    assert len(shares) == 21  # 20 cells and the end
    assert seen[-1] == (1.0, True)
    assert not any(complete for _, complete in seen[:-1])


def test_a_real_tile_at_both_scales(real_data: Path, make_tiny_model: Any, tmp_path: Path) -> None:
    """A network with weights, real pixels: regions change nothing, and the image has the same nuclei."""
    from hemalum.models.engines.engine import make_engine

    picture = read_image(sorted((real_data / "tnbc" / "images").iterdir())[2])
    path = save_pyramid(tmp_path / "real.tif", np.tile(picture, (1, 2, 1)), mpp=0.25)
    model: Model = make_tiny_model()
    engine = make_engine("torch", model, device="cpu", precision="f32")
    with small_cells():
        stores = [
            segment_slide(path, tmp_path / str(region), model, engine=engine, region=region) for region in (50, 150)
        ]
        image = segment(path, model, engine=engine)
    assert stores[0].count >= 100
    assert contents(stores[0]).equals(contents(stores[1]))
    assert same_as_nuclei(stores[0], image)


def test_a_slide_that_is_handed_in_stays_open(tmp_path: Path) -> None:
    case = make_case(tmp_path, "he")
    picture = tifffile.imread(case.slide, key=0)
    flat = save_pyramid(tmp_path / "flat.tif", picture, mpp=0.25, levels=1)
    with small_cells(), Slide.of(picture, name="array", mpp=0.25) as slide:
        store = case.run(tmp_path / "out", slide=slide)
        assert slide.read(0, 0, 20, 20).shape == (20, 20, 3)
        assert store.path.name == "array.nuclei"
        with open_slide(flat) as opened:
            expected = contents(case.run(tmp_path / "out", slide=opened))
    assert contents(store).equals(expected)


class FailingEngine(BlobEngine):
    """Fails after some calls, as a device that runs out of memory does."""

    def maps(self, images: Any) -> Any:
        if self.windows >= 5:
            raise HemalumError("the device has no memory left")
        return super().maps(images)


@pytest.mark.fault
def test_a_failure_ends_all_threads_and_keeps_what_is_finished(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of the engine, of writing, and of the caller: the error comes out, no thread stays, the run goes on."""
    import threading

    case = make_case(tmp_path, "he")
    before = threading.active_count()

    def fail(*_: Any) -> None:
        raise HemalumError("no space")

    with small_cells():
        with pytest.raises(HemalumError, match="no memory left"):
            case.run(tmp_path / "out", engine=FailingEngine(), threads=3, region=CELL)
        with monkeypatch.context() as patch:
            patch.setattr(slide_module, "write_region", fail)
            with pytest.raises(HemalumError, match="no space") as caught:
                case.run(tmp_path / "out", threads=3, region=CELL)
        with pytest.raises(HemalumError, match="no space"):
            case.run(tmp_path / "out", threads=3, region=CELL, on_progress=fail)
        assert threading.active_count() == before
        assert "\n" not in str(caught.value)
        store = case.run(tmp_path / "out", region=CELL)
        assert contents(store).equals(contents(case.run(tmp_path / "other", region=CELL)))
