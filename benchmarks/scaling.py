"""Training with several processes on this machine: steps per second at the same global batch, beside one process.

    python benchmarks/scaling.py RECIPE DATASET [--budget small] [--processes 1 2] [-n 10] [--rounds 3] [-o FILE]

All counts take turns in the same run, each with all cores (threads = cores / processes); quotes medians over rounds.
On one machine without a GPU per process they share what one process has to itself: the ratio shows what sharing a
batch costs (exchange of gradients and of batch norm's moments, smaller parts of a batch), not what it gains. A gain
needs a GPU or a machine for each process.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from hemalum.data.dataset import Dataset
from hemalum.training.distributed import is_first
from hemalum.training.recipe import Recipe, load_recipe
from hemalum.training.train import train
from record import figures_parser, write_record
from training_input import WARMUP, shortened


def time_steps(recipe: Recipe, data: Path, steps: int, threads: int) -> None:
    """One of the processes; the first prints its steps per second."""
    dataset = Dataset.open(data)
    recipe = shortened(recipe, dataset, steps + WARMUP + 1)  # the last step validates, and is not counted
    ticks: list[float] = []
    with tempfile.TemporaryDirectory() as folder:
        train(
            recipe, [dataset], Path(os.environ.get("SCALING_RUN", folder)) / "run", accelerator="cpu",
            threads=threads, on_progress=lambda *_: ticks.append(time.perf_counter()),
        )  # fmt: skip
    if is_first():
        print(json.dumps(steps / (ticks[-2] - ticks[WARMUP - 1])))


def measure(processes: int, arguments: argparse.Namespace) -> float:
    threads = max(1, (os.cpu_count() or 1) // processes)
    with tempfile.TemporaryDirectory() as folder:
        command = [
            sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}",
            __file__, str(arguments.recipe), str(arguments.dataset), "-n", str(arguments.steps), "--threads",
            str(threads), "--budget", arguments.budget,
        ]  # fmt: skip
        environment = os.environ | {"SCALING_RUN": folder, "OMP_NUM_THREADS": str(threads)}
        done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=True)
    return float(json.loads(done.stdout.splitlines()[-1]))


def main() -> None:
    parser = figures_parser(__doc__, Path("scaling.json"))
    parser.add_argument("recipe", type=Path)
    parser.add_argument("dataset", type=Path)
    parser.add_argument("--budget", choices=["full", "small"], default="full")
    parser.add_argument("--processes", type=int, nargs="+", default=[1, 2])
    parser.add_argument("-n", "--steps", type=int, default=10)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, help=argparse.SUPPRESS)  # given to the processes that this one starts
    arguments = parser.parse_args()
    if arguments.threads:
        time_steps(
            load_recipe(arguments.recipe, arguments.budget), arguments.dataset, arguments.steps, arguments.threads
        )
        return
    rounds = [{count: measure(count, arguments) for count in arguments.processes} for _ in range(arguments.rounds)]
    first = arguments.processes[0]
    ratios = {}
    print("processes  steps/s  ratio")
    for count in arguments.processes:
        ratios[count] = statistics.median(speeds[count] / speeds[first] for speeds in rounds)
        print(f"{count:9}  {statistics.median(speeds[count] for speeds in rounds):7.3f}  {ratios[count]:5.2f}")
    write_record(
        arguments.output, "scaling", ["torch", "lightning-fabric", "numpy"],
        {"rounds": rounds, "ratio": ratios}, recipe=load_recipe(arguments.recipe).name, budget=arguments.budget,
    )  # fmt: skip


if __name__ == "__main__":
    main()
