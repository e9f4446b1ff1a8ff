"""How fast networks start: the training loss by step under one plain training, over several seeds.

    python benchmarks/slow_start.py --data data/dsb2018

AL-Net, AL-Net with one part left out at a time, and U-Net, in the small form of the recipe al_net_controls: the same
loss (cross-entropy and Dice), AdamW at a constant rate after its warm-up, and for each seed the same crops. Nothing
is validated. A loss is the mean over the ten steps up to the one that is named. Writes
benchmarks/results/slow_start.json.
"""

import statistics
from pathlib import Path
from typing import Any

import torch

from hemalum.data.dataset import Dataset
from hemalum.training.building import build_for_data
from hemalum.training.context import TrainContext
from hemalum.training.distributed import start_processes
from hemalum.training.fit import open_phase
from hemalum.training.loader import TrainLoader
from hemalum.training.recipe import Recipe, open_recipe
from record import RESULTS, figures_parser, mean_and_sd, write_record

NETWORKS: dict[str, tuple[str, dict[str, Any]]] = {
    "al_net": ("al_net_plain", {}),
    "no_attention": ("al_net_plain", {"attention": False}),
    "no_se": ("al_net_plain", {"se": False}),
    "no_factors": ("al_net_plain", {"attention": False, "se": False}),
    "no_dilation": ("al_net_plain", {"rates": [1], "bottleneck_rates": [1]}),
    "unet": ("unet_plain", {}),
}
MEAN_OVER = 10  # steps


def recipe_of(variant: str, options: dict[str, Any], seed: int, data: str, steps: int) -> Recipe:
    """The control's small form for so many steps of one dataset."""
    content = open_recipe(f"al_net_controls:{variant}", "small").model_dump(mode="json")
    content["network"]["options"] |= options
    content["phases"][0] |= {"schedule": {"name": "constant", "warmup": 100}, "until": {"steps": steps}}
    return Recipe.model_validate(content | {"seed": seed, "data": {data: {}}})


def measure(recipe: Recipe, dataset: Dataset, loaders: dict[int, TrainLoader]) -> list[float]:
    """The loss of every step; the crops of a seed are read once."""
    fabric = start_processes("cpu", None, recipe.precision)
    torch.manual_seed(recipe.seed)  # the weights that a network starts from
    network, context = build_for_data(TrainContext(recipe, fabric, Path()), [dataset], None)
    if recipe.seed not in loaders:
        loaders[recipe.seed] = TrainLoader(context, [dataset.split("train")])
    step = open_phase(context, network, 0)
    return [step(batch) for batch in loaders[recipe.seed].batches(0, recipe.steps, None, fabric.device)]


def main() -> None:
    """Train, print a table, write the record."""
    parser = figures_parser(__doc__, RESULTS / "slow_start.json")
    parser.add_argument("--data", type=Path, default=Path("data/dsb2018"))
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    dataset = Dataset.open(arguments.data)
    marks = [mark for mark in (10, 20, 50, 100, 200, 400, 800) if mark <= arguments.steps]
    results: dict[str, dict[str, list[float]]] = {}
    loaders: dict[int, TrainLoader] = {}
    print(f"| network | {' | '.join(f'step {mark}' for mark in marks)} |")
    print(f"|---|{'---|' * len(marks)}")
    for name, (variant, options) in NETWORKS.items():
        recipes = [
            recipe_of(variant, options, seed, dataset.info.name, arguments.steps)
            for seed in range(1, arguments.seeds + 1)
        ]
        curves = [measure(recipe, dataset, loaders) for recipe in recipes]
        results[name] = {
            str(mark): [statistics.fmean(curve[max(0, mark - MEAN_OVER) : mark]) for curve in curves]
            for mark in marks
        }
        print(f"| {name} | {' | '.join(map(mean_and_sd, results[name].values()))} |", flush=True)
    write_record(
        arguments.output, "slow_start", ["hemalum", "torch"], results,
        data={"name": dataset.info.name, "split_sha256": dataset.split_hash}, steps=arguments.steps,
    )  # fmt: skip


if __name__ == "__main__":
    main()
