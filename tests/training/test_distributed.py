"""Several processes train what one process would have trained.

Stated tolerance, in float32 on a CPU: losses, scores and weights agree within 1e-5 after six steps.
"""

import os
import signal
import socket
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from safetensors.numpy import load_file

from builders.trainings import assert_same_run, make_context, read_log, train_until_killed
from hemalum.data.dataset import Dataset
from hemalum.errors import HemalumError
from hemalum.training.distributed import check_batch
from hemalum.training.loader import TrainLoader
from hemalum.training.recipe import Recipe, open_recipe
from hemalum.training.train import train

TOLERANCE = 1e-5
SGD = {"name": "sgd", "lr": 0.05}
SIX_STEPS = {
    "representation": "combined",
    "batch": 4,
    "validation_images": 3,
    "phases": [
        {"name": "first", "optimizer": SGD, "until": {"steps": 4}},
        {"name": "second", "train": ["*", "!encoder.*"], "optimizer": SGD, "until": {"steps": 2}},
    ],
}
NETWORKS = {
    "plain": {"name": "unet", "options": {"widths": [4, 8, 12], "norm": False}},
    "batch-norm": {"name": "compact", "options": {"widths": [8, 12, 16], "depths": [0, 1, 1]}},
    # with heads that the loss does not look at, for whose gradient the other process must not wait
    "aux-heads": {"name": "unet_plus_plus", "options": {"widths": [4, 8, 12], "deep_supervision": True}},
}
LIMIT = 100  # s: processes that wait for each other forever fail the test

# in two processes: all networks from the start, and what one process had begun
TOGETHER = """
import sys
from pathlib import Path
from hemalum.training.train import train
folder, data = Path(sys.argv[1]), sys.argv[2]
for name in ("plain", "batch-norm", "aux-heads", "resumed"):
    train(folder / f"{name}.yaml", [data], folder / "two" / name, resume=name == "resumed", accelerator="cpu")
"""
# only the second process's part of the batch is broken
BROKEN = """
import os, sys
from hemalum.cli import main
from hemalum.losses.maps import Maps
if os.environ["RANK"] == "1":
    compute, calls = Maps.__call__, []
    def break_third(*arguments):
        calls.append(1)
        parts = compute(*arguments)
        return {name: part * float("nan") if len(calls) == 3 else part for name, part in parts.items()}
    Maps.__call__ = break_third
sys.exit(main(sys.argv[1:]))
"""


def run_to_end(command: list[str], **environment: str) -> subprocess.CompletedProcess[str]:
    """Run to the end; what hangs is killed with all that it has started."""
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True,
        env=os.environ | {"OMP_NUM_THREADS": "1"} | environment,
    )  # fmt: skip
    try:
        out, err = process.communicate(timeout=LIMIT)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        raise
    return subprocess.CompletedProcess(command, process.returncode, out, err)


def torchrun(processes: int, *program: object) -> subprocess.CompletedProcess[str]:
    """As `torchrun --standalone`, which finds a free port of its own."""
    options = ["--standalone", f"--nproc-per-node={processes}"]
    return run_to_end([sys.executable, "-m", "torch.distributed.run", *options, *map(str, program)])


def list_errors(done: subprocess.CompletedProcess[str]) -> list[str]:
    return [line for line in done.stderr.splitlines() if line.startswith("error: ")]


def write_recipe(path: Path, recipe: Recipe, **changes: Any) -> Path:
    path.write_text(yaml.safe_dump(recipe.model_dump(mode="json") | changes))
    return path


@pytest.fixture(scope="module")
def runs(recipe: Recipe, mini: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with runs of six steps, by one process in one/NAME and by two in two/NAME."""
    folder = tmp_path_factory.mktemp("runs")
    for name, network in NETWORKS.items():
        path = write_recipe(folder / f"{name}.yaml", recipe, **SIX_STEPS, network=network)
        train(path, [mini], folder / "one" / name, threads=1, accelerator="cpu")
    begun = write_recipe(folder / "resumed.yaml", recipe, **SIX_STEPS, network=NETWORKS["plain"])
    train_until_killed(open_recipe(begun), mini, folder / "two" / "resumed", 3)
    (folder / "together.py").write_text(TOGETHER)
    done = torchrun(2, folder / "together.py", folder, mini)
    assert done.returncode == 0, done.stderr
    return folder


@pytest.mark.parametrize("name", NETWORKS)
def test_two_processes_equal_one(name: str, runs: Path) -> None:
    assert_same_run(runs / "two" / name, runs / "one" / name, TOLERANCE)
    rows, expected_rows = read_log(runs / "two" / name), read_log(runs / "one" / name)
    assert [row["step"] for row in rows] == [2, 4, 4, 6]  # the second phase is validated before its first step too
    for row, expected in zip(rows, expected_rows, strict=True):
        assert row.pop("phase") == expected.pop("phase")
        assert ("steps_per_second" in row) == ("steps_per_second" in expected)
        row.pop("steps_per_second", None), expected.pop("steps_per_second", None)
        assert row == pytest.approx(expected, abs=TOLERANCE)


def test_a_run_of_one_process_goes_on_with_two(runs: Path) -> None:
    assert_same_run(runs / "two" / "resumed", runs / "one" / "plain", TOLERANCE)


def test_a_loss_that_is_not_finite_in_one_process_ends_both(recipe: Recipe, mini: Path, tmp_path: Path) -> None:
    path = write_recipe(tmp_path / "recipe.yaml", recipe, batch=4)
    (tmp_path / "broken.py").write_text(BROKEN)
    out = tmp_path / "run"
    done = torchrun(2, tmp_path / "broken.py", "train", path, "-d", mini, "-o", out, "--accelerator", "cpu")
    assert done.returncode != 0
    (line,) = list_errors(done)
    context = make_context(recipe.model_copy(update={"batch": 4}))
    names = ", ".join(TrainLoader(context, [Dataset.open(mini).split("train")]).names(2))
    assert f"the loss is not finite at step 2 of phase 'first', on a batch of these images: {names};" in line
    weights = load_file(out / "checkpoint.safetensors")
    assert all(np.isfinite(value).all() for value in weights.values())
    assert not (out / "model.safetensors").exists()


@pytest.mark.fault
def test_batches_that_can_be_shared_and_one_that_cannot() -> None:
    for processes in (1, 2, 3, 6):
        check_batch("r", 6, processes)
    with pytest.raises(HemalumError, match=r"batch 6 cannot be shared equally by 4 processes; .* 1, 2, 3, 6$"):
        check_batch("r", 6, 4)


@pytest.mark.slow
def test_a_mistake_that_all_processes_find_is_said_once(recipe: Recipe, mini: Path, tmp_path: Path) -> None:
    path = write_recipe(tmp_path / "recipe.yaml", recipe, batch=3)
    done = torchrun(2, "-m", "hemalum", "train", path, "-d", mini, "-o", tmp_path / "run", "--accelerator", "cpu")
    assert done.returncode != 0
    (line,) = list_errors(done)
    assert "recipe mini: batch 3 cannot be shared equally by 2 processes" in line
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_processes_started_by_srun(mini: Path, runs: Path, tmp_path: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    tasks = ["SLURM_STEP_NUM_TASKS", "SLURM_NTASKS", "SLURM_NTASKS_PER_NODE"]
    step = dict.fromkeys(tasks, "2") | {"SLURM_NNODES": "1", "SLURM_NODEID": "0", "SLURM_JOB_NAME": "train"}
    step |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    command = [sys.executable, "-m", "hemalum", "train", str(runs / "plain.yaml"), "-d", str(mini)]
    command += ["-o", str(tmp_path / "run"), "--accelerator", "cpu"]
    with ThreadPoolExecutor() as pool:
        started = [
            pool.submit(run_to_end, command, **step, SLURM_PROCID=str(rank), SLURM_LOCALID=str(rank))
            for rank in range(2)
        ]
        first, second = (process.result() for process in started)
    assert (first.returncode, second.returncode) == (0, 0), first.stderr + second.stderr
    assert first.stdout.splitlines() == [str(tmp_path / "run" / "model.safetensors")]
    assert second.stdout == ""
    assert_same_run(tmp_path / "run", runs / "one" / "plain", TOLERANCE)


@pytest.mark.slow
def test_processes_started_by_the_command_itself(recipe: Recipe, mini: Path, runs: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "hemalum", "train", str(runs / "plain.yaml"), "-d", str(mini)]
    options = ["--devices", "2", "--accelerator", "cpu"]
    done = run_to_end([*command, "-o", str(tmp_path / "run"), *options])
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [str(tmp_path / "run" / "model.safetensors")]
    assert sum(line.startswith("step 6/6") for line in done.stderr.splitlines()) == 1
    assert_same_run(tmp_path / "run", runs / "one" / "plain", TOLERANCE)
    again = run_to_end([*command, "-o", str(tmp_path / "run"), *options])
    assert again.returncode == 2
    assert list_errors(again) == [
        f"error: {tmp_path / 'run'} already holds a run: give --resume to go on, or another folder"
    ]
    assert "Traceback" not in again.stderr
