"""What precision and compiling do to a training step: seconds per step with a batch that is held.

    python benchmarks/training_step.py DATASET RECIPE… [--accelerator cuda] [-n 60] [--rounds 2] [-o step.json]

`eager` and `compiled` are in the recipe's precision, `32-true` is eager in float32. All are the real loop, in turns
in the same run. The first steps, in which PyTorch compiles, do not count; how long the whole first compiled run took
is given apart.
"""

import statistics
import time
from pathlib import Path

import torch

from hemalum.data.dataset import Dataset
from hemalum.training.recipe import load_recipe
from hemalum.training.validation import Validation
from record import figures_parser, write_record
from training_input import WARMUP, HeldBatch, build, open_context, seconds_per_step, shortened


def main() -> None:
    parser = figures_parser(__doc__, Path("training_step.json"))
    parser.add_argument("dataset", type=Path)
    parser.add_argument("recipes", type=Path, nargs="+")
    parser.add_argument("--accelerator", default="cuda", choices=("cuda", "cpu"))
    parser.add_argument("-n", "--steps", type=int, default=60)
    parser.add_argument("--rounds", type=int, default=2)
    arguments = parser.parse_args()
    dataset = Dataset.open(arguments.dataset)
    device = torch.cuda.get_device_name() if arguments.accelerator == "cuda" else "CPU"
    results = {}
    for path in arguments.recipes:
        recipe = shortened(load_recipe(path), dataset, arguments.steps + WARMUP + 1)
        full = recipe.model_copy(update={"precision": "32-true"})
        contexts = {
            "eager": open_context(recipe, arguments.accelerator),
            "32-true": open_context(full, arguments.accelerator),
            "compiled": open_context(recipe, arguments.accelerator, compile=True),
        }
        held = HeldBatch(contexts["eager"], [dataset.split("train")])
        validation = Validation(contexts["eager"], [dataset.split("val")])
        times: dict[str, list[float]] = {name: [] for name in (*contexts, "first_run_compiled")}
        for number in range(arguments.rounds):
            for name, context in contexts.items():
                start = time.perf_counter()
                times[name].append(seconds_per_step(context, build(recipe), held, validation)[0])
                if name == "compiled" and number == 0:
                    times["first_run_compiled"].append(time.perf_counter() - start)
        eager, full_precision, compiled = (statistics.median(times[key]) for key in ("eager", "32-true", "compiled"))
        print(
            f"{recipe.name:10} {recipe.precision} {eager:.3f} s per step, 32-true {full_precision:.3f} s, "
            f"compiled {compiled:.3f} s ({eager / compiled:.2f} times as fast); "
            f"first compiled run {times['first_run_compiled'][0]:.0f} s",
            flush=True,
        )
        results[recipe.name] = {"seconds_per_step": times, "batch": recipe.batch, "tile": recipe.tile}
    write_record(
        arguments.output, "training_step", ["torch", "lightning-fabric"], results,
        accelerator=arguments.accelerator, device=device,
    )  # fmt: skip


if __name__ == "__main__":
    main()
