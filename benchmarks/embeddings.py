"""What SAM costs in training: an epoch on cached embeddings beside one without, and the first pass over the images.

    python benchmarks/embeddings.py DATASET ENCODER [--recipe eunet3plus_nuinsseg] [--budget small] [-n 10]
        [--rounds 3] [--images N] [-o embeddings.json]

Both are the real loop on the same crops, in turns in one run: the variants "guided" and "glu" of the recipe, which
differ in SAM alone. The limit is 1.1 (medians over rounds). Beside it stand the loader's own share (one core), the
first pass (the encoder over every image, a cache of its own) and a second one, which only checks what is there.
The speed of the first pass is that of ENCODER; an epoch on its embeddings depends on their size alone.
"""

import os
import statistics
import tempfile
import time
from functools import partial
from pathlib import Path
from typing import Any

import torch
from lightning_fabric import Fabric

from hemalum.data.dataset import Dataset
from hemalum.models.sam import SamEncoder, load_sam
from hemalum.training.building import build_for
from hemalum.training.context import TrainContext
from hemalum.training.data_spec import DataSpec
from hemalum.training.embeddings import embed_all
from hemalum.training.loader import TrainLoader
from hemalum.training.recipe import Recipe, Sam, Source, open_recipe
from hemalum.training.train import keep_freed_memory
from hemalum.training.validation import Validation
from record import figures_parser, write_record
from training_input import WARMUP, processor_seconds_per_batch, seconds_per_step, shortened

LIMIT = 1.1


class TrainingRun:
    """One of the two: its recipe, cut short, its loader and its validation."""

    def __init__(self, recipe: Recipe, dataset: Dataset, steps: int, encoder: SamEncoder | None) -> None:
        self.recipe = shortened(recipe, dataset, steps).model_copy(
            update={
                "data": {dataset.info.name: Source()},
                "sam": None if encoder is None else Sam(encoder=encoder.name),
                "stain_normalization": None,
            }
        )
        data_spec = DataSpec(embedding_channels=0 if encoder is None else encoder.channels)
        network, _ = build_for(self.recipe, data_spec)
        tile = self.recipe.tile
        self.context = TrainContext(
            self.recipe,
            Fabric(accelerator="auto", devices=1, precision=self.recipe.precision),
            Path(),
            data_spec.with_conditions(network.conditions),
            stride=network.stride,
            window=None if encoder is None else tile,
        )
        embed = None if encoder is None else partial(embed_all, encoder, field=tile)
        start = time.perf_counter()
        self.loader = TrainLoader(self.context, [dataset.split("train")], embed)
        self.prepared_in = time.perf_counter() - start
        self.validation = Validation(self.context, [dataset.split("val")], embed)

    def seconds_per_step(self) -> float:
        network, _ = build_for(self.recipe, self.context.data_spec)
        return seconds_per_step(self.context, network, self.loader, self.validation)[0]


def main() -> None:
    parser = figures_parser(__doc__, Path("embeddings.json"))
    parser.add_argument("dataset", type=Path)
    parser.add_argument("encoder")
    parser.add_argument("--recipe", default="eunet3plus_nuinsseg")
    parser.add_argument("--budget", choices=["full", "small"], default="small")
    parser.add_argument("-n", "--steps", type=int, default=10)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--images", type=int, help="the first N training images only")
    arguments = parser.parse_args()
    keep_freed_memory()
    dataset = Dataset.open(arguments.dataset)
    if arguments.images:
        rows = [*dataset.split("train").rows[: arguments.images], *dataset.split("val").rows]
        dataset = Dataset(dataset.path, dataset.info, tuple(rows))
    steps = arguments.steps + WARMUP + 1
    encoder = load_sam(arguments.encoder).to("cuda" if torch.cuda.is_available() else "cpu")
    recipes = {name: open_recipe(f"{arguments.recipe}:{name}", arguments.budget) for name in ("guided", "glu")}
    with tempfile.TemporaryDirectory() as cache:
        os.environ["HEMALUM_CACHE"] = cache
        first = TrainingRun(recipes["guided"], dataset, steps, encoder).prepared_in
        guided = TrainingRun(recipes["guided"], dataset, steps, encoder)
        plain = TrainingRun(recipes["glu"], dataset, steps, None)
        rounds = [
            {"cached": guided.seconds_per_step(), "without": plain.seconds_per_step()}
            for _ in range(arguments.rounds)
        ]
        batch = {
            name: processor_seconds_per_batch(run.loader, count=5)
            for name, run in (("cached", guided), ("without", plain))
        }
        size = sum(file.stat().st_size for file in Path(cache).rglob("*.npy"))
    ratio = statistics.median(times["cached"] for times in rounds) / statistics.median(
        times["without"] for times in rounds
    )
    images = len(plain.loader.prepared)
    results: dict[str, Any] = {
        "rounds": rounds,
        "ratio": ratio,
        "limit": LIMIT,
        "processor_seconds_per_batch": batch,
        "images": images,
        "first_pass_seconds": first - plain.prepared_in,
        "second_pass_seconds": guided.prepared_in - plain.prepared_in,
        "cache_bytes_per_image": size / (images + 1),
    }
    for name in ("cached", "without"):
        seconds = statistics.median(times[name] for times in rounds)
        epoch = seconds * images / plain.recipe.batch
        core = 1000 * batch[name]
        print(f"{name:8} {seconds:8.3f} s per step, {epoch:8.1f} s an epoch; a batch {core:6.0f} ms of one core")
    print(f"ratio    {ratio:8.3f} (limit {LIMIT})")
    passes = [results[f"{which}_pass_seconds"] for which in ("first", "second")]
    print(f"{images} images: first pass {passes[0]:.1f} s, a second one {passes[1]:.1f} s")
    encoder_record = {
        "name": Path(arguments.encoder).name,
        "digest": encoder.digest,
        "side": encoder.side,
        "tokens": encoder.tokens,
    }
    write_record(
        arguments.output, "embeddings", ["torch", "transformers", "kornia", "numpy", "lightning-fabric"], results,
        threads=torch.get_num_threads(), recipe=arguments.recipe, budget=arguments.budget,
        encoder=encoder_record,
        device=torch.cuda.get_device_name() if torch.cuda.is_available() else "CPU",
    )  # fmt: skip


if __name__ == "__main__":
    main()
