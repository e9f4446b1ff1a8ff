"""What goes wrong with a slide or its store: one line, nothing lost, and the next run goes on."""

import errno
import os
import random
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute
import pyarrow.parquet
import pytest
import tifffile

from builders.slide_runs import (
    CELL,
    Case,
    contents,
    make_case,
    renamed,
    small_cells,
    with_broken_tiles,
    with_white_tiles,
)
from builders.slides import save_ome_pyramid, save_pyramid
from hemalum.errors import HemalumError
from hemalum.inference import cells as cells_module
from hemalum.inference import slide as slide_module
from hemalum.inference.grid import Box
from hemalum.inference.segment import segment
from hemalum.nuclei.store import open_store
from hemalum.slides import Slide, open_slide

TESTS = Path(__file__).resolve().parents[1]
ENVIRONMENT = os.environ | {
    "PYTHONPATH": os.pathsep.join(map(str, [TESTS, TESTS.parent / "benchmarks", TESTS.parent / "src"]))
}
WORK = """
import os, sys, time
from pathlib import Path
from builders.models import BlobEngine
from builders.slide_runs import CELL, make_case, small_cells
class Slow(BlobEngine):
    def maps(self, images):
        time.sleep(float(sys.argv[3]))
        return super().maps(images)
folder = Path(sys.argv[1])
case = make_case(folder, "he")
for _ in sys.stdin:  # a line starts a run in a process of its own, which need not import all again
    child = os.fork()
    if not child:
        with small_cells():
            report = lambda share: print(share, flush=True)
            case.run(Path(sys.argv[2]), region=CELL, engine=Slow(), on_progress=report)
        os._exit(0)
    print(child, flush=True)
    os.waitpid(child, 0)
    print("ended", flush=True)
"""


@pytest.fixture
def case(tmp_path: Path) -> Case:
    return make_case(tmp_path, "he")


@contextmanager
def starter(tmp_path: Path, delay: float) -> Iterator[Callable[[], tuple[int, IO[str]]]]:
    """What starts a run over the slide into tmp_path/out; gives its process's number, and the lines of all runs."""
    (tmp_path / "other").mkdir()
    command = [sys.executable, "-c", WORK, str(tmp_path / "other"), str(tmp_path / "out"), str(delay)]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=ENVIRONMENT, text=True
    ) as server:
        assert server.stdin is not None
        assert server.stdout is not None
        lines, answers = server.stdin, server.stdout

        def start() -> tuple[int, IO[str]]:
            lines.write("go\n")
            lines.flush()
            return int(answers.readline()), answers

        yield start
        lines.close()


def kill(process: int, lines: IO[str], after: int, delay: float = 0) -> None:
    """End a run at once, so many cells and seconds after its start, and wait until it has ended."""
    for _ in range(after):
        if lines.readline() == "ended\n":
            return
    time.sleep(delay)
    with suppress(ProcessLookupError):
        os.kill(process, signal.SIGKILL)
    while lines.readline() not in ("ended\n", ""):
        pass


needs_kill = pytest.mark.skipif(not hasattr(os, "fork"), reason="processes are not forked on this system")


@needs_kill
@pytest.mark.parametrize("times", [2, pytest.param(20, marks=pytest.mark.slow)])
def test_killed_runs_go_on(times: int, case: Case, tmp_path: Path) -> None:
    with small_cells():
        expected = contents(case.run(tmp_path / "undisturbed", region=CELL))
    between = 0
    with starter(tmp_path, 0.004) as start:
        for seed in range(times):
            draw = random.Random(seed)
            kill(*start(), draw.randrange(0, 15), draw.uniform(0, 0.03))
            if not (tmp_path / "out" / "he.nuclei" / "nuclei.yaml").exists():
                continue
            store = open_store(tmp_path / "out" / "he.nuclei")
            held = contents(store)  # whatever is there can be read, and is right
            assert held.equals(expected.filter(pa.compute.is_in(expected.column("id"), held.column("id"))))
            between += 0 < len(store.finished) < 20
            for region in store.finished[seed % 2 :: 3]:  # so that the next run finds work to do
                store.part_path(region).unlink()
    assert between >= times // 2
    with small_cells():
        resumed = case.run(tmp_path / "out", region=CELL)
    assert contents(resumed).equals(expected)
    assert resumed.complete


@needs_kill
def test_two_processes_do_not_write_into_one_store(case: Case, tmp_path: Path) -> None:
    with starter(tmp_path, 0.05) as start:
        process, lines = start()
        lines.readline()
        with small_cells(), pytest.raises(HemalumError) as caught:
            case.run(tmp_path / "out", region=CELL)
        kill(process, lines, 0)
    assert str(caught.value) == f"{tmp_path / 'out' / 'he.nuclei'}: another process is segmenting into it"
    with small_cells():  # the killed one no longer holds it
        assert case.run(tmp_path / "out", region=CELL).complete


def snapshot(folder: Path) -> dict[str, tuple[bytes, int]]:
    return {
        str(path.relative_to(folder)): (path.read_bytes(), path.stat().st_mtime_ns)
        for path in folder.rglob("*")
        if path.is_file()
    }


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"region": 4 * CELL}, "grid.rows is 2 there, 1 here"),
        ({"mpp": 0.26}, "mpp is 0.25 there, 0.26 here"),
        ({"mpp": 0.25}, "mpp_source is file there, user here"),
        ({"stain": "hdab"}, "dab is False there, True here"),
        ({"tissue_mask": True}, "settings.tissue_mask is None there"),
        ({"roi": "0,0,100,100"}, "settings.roi is None there, POLYGON (("),
        ({"slide": "other.tif"}, "fingerprint is "),
        ({"tta": True}, "settings.engine"),
    ],
)
def test_a_store_of_another_run_is_refused_and_left_as_it_is(
    change: dict[str, Any], reason: str, case: Case, tmp_path: Path
) -> None:
    if "slide" in change:
        (tmp_path / "b").mkdir()
        change = {"slide": make_case(tmp_path / "b", "he", seed=2).slide}
    with small_cells():
        case.run(tmp_path / "out")
        before = snapshot(tmp_path / "out")
        with pytest.raises(HemalumError) as caught:
            case.run(tmp_path / "out", **change)
    assert str(caught.value).startswith(f"{tmp_path / 'out' / 'he.nuclei'}: holds the nuclei of another run (")
    if "tta" not in change:
        assert reason in str(caught.value)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 500
    assert snapshot(tmp_path / "out") == before


def test_a_full_disk_ends_in_one_line_and_the_run_goes_on(
    case: Case, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with small_cells():
        expected = contents(case.run(tmp_path / "undisturbed"))
        for allowed in range(6):
            written = 0
            write = pa.parquet.ParquetWriter.write_table

            def write_until_full(self: Any, *args: Any, allowed: int = allowed, write: Any = write) -> Any:
                nonlocal written
                written += 1
                if written > allowed:
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
                return write(self, *args)

            with monkeypatch.context() as patch:
                patch.setattr(pa.parquet.ParquetWriter, "write_table", write_until_full)
                with pytest.raises(HemalumError) as caught:
                    case.run(tmp_path / str(allowed), threads=2)
            path = tmp_path / str(allowed) / "he.nuclei"
            assert re.fullmatch(
                rf"cannot write {path}/parts/\w+\.parquet: No space left on device", str(caught.value)
            )
            store = open_store(path)
            assert len(store.finished) == allowed
            assert not store.complete
            assert not list(path.glob("parts/.*.part.parquet"))
            engine = case.engine()
            assert contents(case.run(tmp_path / str(allowed), engine=engine)).equals(expected)


def test_what_two_cells_give_is_taken_once_and_counted(
    case: Case, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As it may be in a clump that is larger than the halo: no reason to give up a slide."""
    with small_cells():
        expected = contents(case.run(tmp_path / "sound"))
        find_own = cells_module.find_own

        def find_more(labels: Any, peaks: Any, marker: Any, box: Box, core: Box, upsampling: int) -> Any:
            return find_own(labels, peaks, marker, box, core.grown(10, (200, 250)), upsampling)

        monkeypatch.setattr(cells_module, "find_own", find_more)
        store = case.run(tmp_path / "out", region=4096)
        image = segment(case.slide, engine=case.engine(), **case.options)
    assert contents(store).equals(expected)
    assert store.notes["left_out_found_twice"] == image.notes["left_out_found_twice"] > 10
    assert image.count == store.count


@pytest.mark.fault
def test_a_folder_that_cannot_be_used(case: Case, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    (tmp_path / "full" / "he.nuclei").mkdir(parents=True)
    (tmp_path / "full" / "he.nuclei" / "thesis.tex").write_text("")
    for folder, message in (("file", "cannot create "), ("full", "is not empty and holds no nuclei")):
        with small_cells(), pytest.raises(HemalumError, match=message) as caught:
            case.run(tmp_path / folder)
        assert str(tmp_path / folder) in str(caught.value)
        assert "\n" not in str(caught.value)
    closed = tmp_path / "closed"
    closed.mkdir()
    closed.chmod(0o500)
    if os.access(closed, os.W_OK):
        pytest.skip("this user may write everywhere")
    with small_cells(), pytest.raises(HemalumError, match="cannot create"):
        case.run(closed)


BROKEN = [20, 21, 137, 203]  # of 16 tiles in a row


def test_broken_tiles_are_white_named_and_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Without coarser levels the slide is that with white tiles; in one run, and after any interruption."""
    sound = make_case(tmp_path, "he")
    flat = save_pyramid(tmp_path / "he.tif", tifffile.imread(sound.slide, key=0), mpp=0.25, levels=1, tile=32)
    case = renamed(sound, with_broken_tiles(flat, BROKEN))
    # as of a large slide, of which a sample is looked at first: tiles are found broken on the way
    sample = Slide.of(tifffile.imread(flat)[:64, :64], name="sample", mpp=0.25)
    monkeypatch.setattr(slide_module, "sample_tissue", lambda *_: sample)
    white = save_pyramid(tmp_path / "w.tif", with_white_tiles(flat, BROKEN), mpp=0.25, levels=1, tile=32)
    with small_cells():
        expected = contents(renamed(sound, white).run(tmp_path / "white", region=CELL))
        store = case.run(tmp_path / "out", region=CELL)
        assert contents(store).equals(expected)
        assert not expected.equals(contents(sound.run(tmp_path / "sound", region=CELL, slide=flat)))
    assert store.notes["broken_tiles"] == 4
    named = [record.message for record in caplog.records if "cannot be read (" in record.message]
    assert len(named) == 4
    assert all(str(case.slide) in line for line in named)
    assert "4 tiles could not be read, and count as blank" in caplog.text
    # every part but one is there, then none is missing: the counts are those of the parts
    for region in store.finished:
        store.part_path(region).unlink()
        with small_cells():
            store = case.run(tmp_path / "out", region=CELL)
        assert store.notes["broken_tiles"] == 4
        assert contents(store).equals(expected)


@pytest.mark.fault
def test_the_scale_of_a_slide(case: Case, tmp_path: Path) -> None:
    picture = tifffile.imread(case.slide, key=0)
    none = renamed(case, save_pyramid(tmp_path / "none.tif", picture, mpp=None))
    with pytest.raises(HemalumError) as caught:
        none.run(tmp_path / "out")
    assert str(caught.value) == (
        f"{none.slide}: the file states no scale, and that of a slide is not estimated; "
        "give it with `mpp` (0.25 is usual for 40x, 0.5 for 20x)"
    )
    assert not (tmp_path / "out").exists()
    for stated in ((0.25, 0.5), 12.0, 0.01):
        odd = renamed(case, save_ome_pyramid(tmp_path / "odd.ome.tif", picture, mpp=stated))
        with pytest.raises(HemalumError, match=r"give (it|the true)") as caught:
            odd.run(tmp_path / "out")
        assert str(odd.slide) in str(caught.value)
        store = odd.run(tmp_path / f"out {stated}", mpp=0.25, region=4096)
        assert (store.run.mpp, store.run.mpp_source) == (0.25, "user")
    for mpp, message in ((0.001, "out of range"), (6.0, "out of range"), ("auto", "is not estimated")):
        with pytest.raises(HemalumError, match=message):
            case.run(tmp_path / "absurd", mpp=mpp)
    stated_store, override = case.run(tmp_path / "file"), case.run(tmp_path / "user", mpp=0.25)
    assert stated_store.run.mpp_source == "file"
    assert contents(stated_store).equals(contents(override))
    assert case.run(tmp_path / "double", mpp=0.5).count != override.count
    with pytest.raises(HemalumError, match="region is 0: want 1 px or more"):
        case.run(tmp_path / "none", region=0)


def test_a_truncated_slide_is_refused_or_right(tmp_path: Path) -> None:
    """At a few lengths; opening and reading at every length is tested with the readers."""
    case = make_case(tmp_path, "he", height=120, width=140)
    expected = contents(case.run(tmp_path / "out"))
    data = case.slide.read_bytes()
    refused: list[str] = []
    right = 0
    for number, length in enumerate(np.linspace(0, len(data), 40).astype(int)):
        cut = tmp_path / f"{number}.tif"
        cut.write_bytes(data[:length])
        try:
            store = renamed(case, cut).run(tmp_path / "cut")
        except HemalumError as error:
            refused.append(str(error))
            continue
        right += 1
        assert store.notes.get("broken_tiles") or contents(store).equals(expected), length
    assert len(refused) >= 30
    assert right >= 1
    assert all(line.startswith(f"{tmp_path}/") and "\n" not in line for line in refused)
    with open_slide(case.slide) as slide:
        assert not slide.broken
