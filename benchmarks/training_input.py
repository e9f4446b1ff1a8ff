"""What the data costs in training: the loop's steps per second beside the same step on a batch held in memory.

    python benchmarks/training_input.py RECIPE DATASET [-n 20] [--rounds 3] [-o training_input.json]

Both are the real loop, in turns in the same run; only the stream differs. Quotes medians over rounds.
"""

import argparse
import statistics
import tempfile
import time
from collections.abc import Generator
from pathlib import Path

import torch
from lightning_fabric import Fabric

from hemalum.data.dataset import Dataset
from hemalum.instances.representations import REPRESENTATIONS
from hemalum.networks import build_network
from hemalum.training.checkpoint import Progress
from hemalum.training.loop import Loop
from hemalum.training.recipe import Recipe, load_recipe
from hemalum.training.stream import Batch, Stream
from hemalum.training.train import keep_freed_memory
from hemalum.training.validation import Validation
from record import write_record

WARMUP = 3


class Held(Stream):
    """The stream's first batch, again and again."""

    def batches(self, start: int, stop: int) -> Generator[Batch, None, None]:
        batch = self.batch(0)
        for _ in range(start, stop):
            yield batch


def seconds_per_step(recipe: Recipe, stream: Stream, validation: Validation) -> float:
    network = build_network(
        recipe.network.name, REPRESENTATIONS[recipe.representation].logits, recipe.network.options
    )
    ticks: list[float] = []
    with tempfile.TemporaryDirectory() as folder:
        fabric = Fabric(accelerator="cpu", devices=1, precision=recipe.precision)
        progress = Progress(recipe_digest="", data_digest="")
        loop = Loop(
            recipe, network, stream, validation, Path(folder), fabric, progress,
            lambda *_: ticks.append(time.perf_counter()),
        )  # fmt: skip
        loop.run(resume=False)
    # the last step validates
    return (ticks[-2] - ticks[WARMUP - 1]) / (len(ticks) - 1 - WARMUP)


def processor_seconds_per_batch(stream: Stream, count: int = 10) -> float:
    """Time that one core needs to make a batch, as the process beside the loop does."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    times = []
    for number in range(count + 1):
        start = time.process_time()
        stream.batch(number)
        times.append(time.process_time() - start)
    torch.set_num_threads(threads)
    return statistics.median(times[1:])  # the first one compiles


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recipe", type=Path)
    parser.add_argument("dataset", type=Path)
    parser.add_argument("-n", "--steps", type=int, default=20)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("-o", "--output", type=Path, default=Path("training_input.json"))
    arguments = parser.parse_args()
    keep_freed_memory()
    recipe, dataset = load_recipe(arguments.recipe), Dataset.open(arguments.dataset)
    steps = arguments.steps + WARMUP + 1
    until = recipe.phases[0].until.model_copy(update={"steps": steps})
    recipe = recipe.model_copy(
        update={
            "data": {dataset.info.name: next(iter(recipe.data.values())).model_copy(update={"balance": None})},
            "phases": [recipe.phases[0].model_copy(update={"until": until})],
            "validate_every": steps,
            "checkpoint_every": steps,
            "validation_images": 1,
        }
    )
    train = dataset.split("train")
    stream, held = Stream(recipe, [train]), Held(recipe, [train])
    validation = Validation(recipe, [dataset.split("val")], 8)
    rounds = [
        {"stream": seconds_per_step(recipe, stream, validation), "held": seconds_per_step(recipe, held, validation)}
        for _ in range(arguments.rounds)
    ]
    cost = statistics.median(one["stream"] / one["held"] - 1 for one in rounds)
    for name in ("stream", "held"):
        print(f"{name:8} {statistics.median(one[name] for one in rounds):8.3f} s per step")
    batch = processor_seconds_per_batch(stream)
    print(f"a batch   {1000 * batch:8.0f} ms of one core")
    print(f"the data costs {100 * cost:.1f} % of a step")
    write_record(
        arguments.output, "training_input", ["torch", "kornia", "numpy", "lightning-fabric"],
        {"rounds": rounds, "cost": cost, "processor_seconds_per_batch": batch}, threads=torch.get_num_threads(),
    )  # fmt: skip


if __name__ == "__main__":
    main()
