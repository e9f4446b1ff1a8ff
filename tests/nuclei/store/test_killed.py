"""A run that is killed at any moment and started again gives the nuclei of one run."""

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from builders.stores import make_store, small_run
from hemalum.nuclei.store import NucleiStore, open_store

WORK = """
import sys
from pathlib import Path
from builders.stores import fill_store, small_run
from hemalum.nuclei.store import NucleiStore
store = NucleiStore.create(Path(sys.argv[1]), small_run())
print("started", flush=True)
while True:  # again and again, so that it is in the midst of writing whenever it is killed
    for region in store.missing():
        fill_store(store, [region])
        print(region, flush=True)
    fill_store(store, store.finished)
"""


def kill_while_writing(path: Path, seed: int) -> None:
    """Start the writer, and kill it at a random moment after it has begun."""
    folders = [
        str(Path(__file__).resolve().parents[k] / name) for k, name in ((2, ""), (3, "benchmarks"), (3, "src"))
    ]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(folders)}
    with subprocess.Popen(
        [sys.executable, "-c", WORK, str(path)], stdout=subprocess.PIPE, env=environment, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "started\n"
        time.sleep(random.Random(seed).uniform(0, 0.15))
        process.send_signal(signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="no SIGKILL on this system")
@pytest.mark.parametrize("times", [2, pytest.param(20, marks=pytest.mark.slow)])
def test_killed_runs_go_on(times: int, tmp_path: Path) -> None:
    path = tmp_path / "slide.nuclei"
    partly = 0
    for seed in range(times):
        kill_while_writing(path, seed)
        store = NucleiStore.create(path, small_run())
        partly += any((path / "parts").glob(".*.part.parquet"))  # it was in the midst of writing one
        for region in store.finished[seed % 2 :: 3]:  # so that the next run finds work to do
            store.part_path(region).unlink()
        # whatever is there can be read, whole
        assert all(table.num_rows == 100 for table in store.tables())
    undisturbed = make_store(tmp_path / "whole.nuclei")
    resumed = make_store(path)
    assert partly or times < 20
    assert resumed.dataset.to_table().equals(undisturbed.dataset.to_table())
    assert sorted(file.name for file in (path / "parts").iterdir() if not file.name.startswith(".")) == sorted(
        undisturbed.part_path(region).name for region in undisturbed.finished
    )
    assert open_store(path).complete
