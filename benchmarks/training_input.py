"""What the data costs in training: the loop's steps per second beside the same step on a batch held in memory.

    python benchmarks/training_input.py DATASET RECIPE… [-n 20] [--rounds 3] [-o training_input.json]

Both are the real loop, in turns in the same run; only the loader differs. Quotes medians over rounds. Beside the
clock, which other programs disturb, it says what a batch takes of a core, as a share of a step's processor time.
"""

import statistics
import tempfile
import time
from collections.abc import Generator
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from lightning_fabric import Fabric

from hemalum.data.dataset import Dataset
from hemalum.models.network import build_network
from hemalum.networks import Network
from hemalum.targets.representations import REPRESENTATIONS
from hemalum.training.checkpoint import Progress
from hemalum.training.context import TrainContext
from hemalum.training.fit import fit
from hemalum.training.loader import Batch, TrainLoader, Views
from hemalum.training.recipe import Recipe, Source, load_recipe
from hemalum.training.train import keep_freed_memory
from hemalum.training.validation import Validation
from record import figures_parser, write_record

WARMUP = 3


class HeldBatch(TrainLoader):
    """The loader's first batch, again and again."""

    def batches(
        self, start: int, stop: int, views: Views | None = None, device: torch.device | None = None
    ) -> Generator[Batch, None, None]:
        batch = self.batch(0)
        if device is not None:
            batch = replace(batch, images=batch.images.to(device), targets=batch.targets.to(device))
        for _ in range(start, stop):
            yield batch


def build(recipe: Recipe) -> Network:
    logits = REPRESENTATIONS[recipe.representation].logits
    return build_network(recipe.network.name, logits, recipe.network.options)


def open_context(recipe: Recipe, accelerator: str = "cpu", compile: bool = False) -> TrainContext:
    """What the parts of the loop share; `seconds_per_step` gives each run a folder."""
    fabric = Fabric(accelerator=accelerator, devices=1, precision=recipe.precision)
    return TrainContext(recipe, fabric, Path(), stride=build(recipe).stride, compile=compile)


def seconds_per_step(
    context: TrainContext, network: Network, loader: TrainLoader, validation: Validation
) -> tuple[float, float]:
    """Train once in a temporary folder: seconds by the clock, and of this process on all cores."""
    ticks: list[tuple[float, float]] = []
    with tempfile.TemporaryDirectory() as folder:
        context = replace(
            context,
            folder=Path(folder),
            on_progress=lambda *_: ticks.append((time.perf_counter(), time.process_time())),
        )
        fit(context, network, loader, validation, Progress())
    # the last step validates
    clock, processor = (
        (last - first) / (len(ticks) - 1 - WARMUP) for first, last in zip(ticks[WARMUP - 1], ticks[-2], strict=True)
    )
    return clock, processor


def processor_seconds_per_batch(loader: TrainLoader, count: int = 10) -> float:
    """Time that one core needs to make a batch, as the process beside the loop does."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    times = []
    for number in range(count + 1):
        start = time.process_time()
        loader.batch(number)
        times.append(time.process_time() - start)
    torch.set_num_threads(threads)
    return statistics.median(times[1:])  # the first one compiles


def shortened(recipe: Recipe, dataset: Dataset, steps: int) -> Recipe:
    """The recipe for one dataset and some steps, validated at the end."""
    until = recipe.phases[0].until.model_copy(update={"steps": steps})
    source = next(iter(recipe.data.values()), Source())  # some recipes leave the data to the command
    changes = {
        "data": {dataset.info.name: source.model_copy(update={"balance": None})},
        "phases": [recipe.phases[0].model_copy(update={"until": until})],
        "validate_every": steps,
        "checkpoint_every": steps,
        "validation_images": 1,
    }
    return recipe.model_copy(update=changes)


def measure(recipe: Recipe, dataset: Dataset, rounds: int) -> dict[str, Any]:
    """Seconds per step with the loader and with a batch that is held, in turns, and what a batch takes of a core."""
    train = dataset.split("train")
    context = open_context(recipe)
    loader, held = TrainLoader(context, [train]), HeldBatch(context, [train])
    validation = Validation(context, [dataset.split("val")])
    times: dict[str, list[float]] = {"stream": [], "held": [], "held_processor": []}
    for _ in range(rounds):
        times["stream"].append(seconds_per_step(context, build(recipe), loader, validation)[0])
        clock, processor = seconds_per_step(context, build(recipe), held, validation)
        times["held"].append(clock)
        times["held_processor"].append(processor)
    ratios = [loaded / held for loaded, held in zip(times["stream"], times["held"], strict=True)]
    cost = statistics.median(ratios) - 1
    batch = processor_seconds_per_batch(loader)
    share = batch / statistics.median(times["held_processor"])
    print(
        f"{recipe.name:10} {statistics.median(times['stream']):.3f} s per step, "
        f"{statistics.median(times['held']):.3f} s with a held batch: the data costs {100 * cost:.1f} %; "
        f"a batch takes {1000 * batch:.0f} ms of one core, "
        f"{100 * share:.1f} % of a step's processor time",
        flush=True,
    )
    return {"seconds_per_step": times, "cost": cost, "processor_seconds_per_batch": batch, "share": share}


def main() -> None:
    parser = figures_parser(__doc__, Path("training_input.json"))
    parser.add_argument("dataset", type=Path)
    parser.add_argument("recipes", type=Path, nargs="+")
    parser.add_argument("-n", "--steps", type=int, default=20)
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    keep_freed_memory()
    dataset = Dataset.open(arguments.dataset)
    results = {}
    for path in arguments.recipes:
        recipe = shortened(load_recipe(path), dataset, arguments.steps + WARMUP + 1)
        results[recipe.name] = measure(recipe, dataset, arguments.rounds)
    write_record(
        arguments.output, "training_input", ["torch", "kornia", "numpy", "numba", "lightning-fabric"], results,
        threads=torch.get_num_threads(),
    )  # fmt: skip


if __name__ == "__main__":
    main()
