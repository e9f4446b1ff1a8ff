"""What SAM costs in training: an epoch on cached embeddings beside one without, and the first pass over the images.

    python benchmarks/embeddings.py DATASET ENCODER [--recipe eunet3plus_nuinsseg] [--budget small] [-n 10]
        [--rounds 3] [--images N] [-o embeddings.json]

Both are the real loop on the same crops, in turns in one run: the variants "guided" and "glu" of the recipe, which
differ in SAM alone. The limit is 1.1 (medians over rounds). Beside it stand the stream's own share (one core), the
first pass (the encoder over every image, a cache of its own) and a second one, which only checks what is there.
The speed of the first pass is that of ENCODER; an epoch on its embeddings depends on their size alone.
"""

import argparse
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
from hemalum.networks.sam import SamEncoder, load_sam
from hemalum.training.building import build_for
from hemalum.training.checkpoint import Progress
from hemalum.training.embeddings import embed_all
from hemalum.training.loop import Loop
from hemalum.training.recipe import Recipe, Sam, Source
from hemalum.training.shipped import open_recipe
from hemalum.training.stream import Facts, Stream
from hemalum.training.train import keep_freed_memory
from hemalum.training.validation import Validation
from record import write_record

LIMIT = 1.1
WARMUP = 2


class Side:
    """One of the two: its recipe, cut short, its stream and its validation."""

    def __init__(self, recipe: Recipe, dataset: Dataset, steps: int, encoder: SamEncoder | None) -> None:
        until = recipe.phases[0].until.model_copy(update={"steps": steps})
        self.recipe = recipe.model_copy(
            update={
                "data": {dataset.info.name: Source()},
                "phases": [recipe.phases[0].model_copy(update={"until": until})],
                "sam": None if encoder is None else Sam(encoder=encoder.name),
                "stain_normalisation": None,
                "validate_every": steps,
                "checkpoint_every": steps,
                "validation_images": 1,
            }
        )
        self.facts = Facts(embedding=0 if encoder is None else encoder.channels)
        network, _ = build_for(self.recipe, self.facts)
        self.facts = Facts(conditions=network.conditions, embedding=self.facts.embedding)
        tile = self.recipe.tile
        embed = None if encoder is None else partial(embed_all, encoder, field=tile)
        start = time.perf_counter()
        self.stream = Stream(self.recipe, [dataset.split("train")], facts=self.facts, embed=embed)
        self.prepared_in = time.perf_counter() - start
        window = None if encoder is None else tile
        self.validation = Validation(
            self.recipe, [dataset.split("val")], network.stride, facts=self.facts, window=window, embed=embed
        )

    def seconds_per_step(self) -> float:
        network, _ = build_for(self.recipe, self.facts)
        ticks: list[float] = []
        with tempfile.TemporaryDirectory() as folder:
            fabric = Fabric(accelerator="auto", devices=1, precision=self.recipe.precision)
            loop = Loop(
                self.recipe, network, self.stream, self.validation, Path(folder), fabric,
                Progress(recipe_digest="", data_digest=""), lambda *_: ticks.append(time.perf_counter()),
            )  # fmt: skip
            loop.run(resume=False)
        # the last step validates
        return (ticks[-2] - ticks[WARMUP - 1]) / (len(ticks) - 1 - WARMUP)

    def processor_seconds_per_batch(self, count: int = 5) -> float:
        """Time that one core needs to make a batch, as the process beside the loop does."""
        threads = torch.get_num_threads()
        torch.set_num_threads(1)
        times = []
        for number in range(count + 1):
            start = time.process_time()
            self.stream.batch(number)
            times.append(time.process_time() - start)
        torch.set_num_threads(threads)
        return statistics.median(times[1:])  # the first one compiles


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("dataset", type=Path)
    parser.add_argument("encoder")
    parser.add_argument("--recipe", default="eunet3plus_nuinsseg")
    parser.add_argument("--budget", choices=["full", "small"], default="small")
    parser.add_argument("-n", "--steps", type=int, default=10)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--images", type=int, help="the first N training images only")
    parser.add_argument("-o", "--output", type=Path, default=Path("embeddings.json"))
    given = parser.parse_args()
    keep_freed_memory()
    dataset = Dataset.open(given.dataset)
    if given.images:
        rows = [*dataset.split("train").rows[: given.images], *dataset.split("val").rows]
        dataset = Dataset(dataset.path, dataset.info, tuple(rows))
    steps = given.steps + WARMUP + 1
    encoder = load_sam(given.encoder).to("cuda" if torch.cuda.is_available() else "cpu")
    recipes = {name: open_recipe(f"{given.recipe}:{name}", given.budget) for name in ("guided", "glu")}
    with tempfile.TemporaryDirectory() as cache:
        os.environ["HEMALUM_CACHE"] = cache
        first = Side(recipes["guided"], dataset, steps, encoder).prepared_in
        guided = Side(recipes["guided"], dataset, steps, encoder)
        plain = Side(recipes["glu"], dataset, steps, None)
        rounds = [
            {"cached": guided.seconds_per_step(), "without": plain.seconds_per_step()} for _ in range(given.rounds)
        ]
        batch = {"cached": guided.processor_seconds_per_batch(), "without": plain.processor_seconds_per_batch()}
        size = sum(file.stat().st_size for file in Path(cache).rglob("*.npy"))
    ratio = statistics.median(one["cached"] for one in rounds) / statistics.median(one["without"] for one in rounds)
    images = len(plain.stream.prepared)
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
        seconds = statistics.median(one[name] for one in rounds)
        epoch = seconds * images / plain.recipe.batch
        core = 1000 * batch[name]
        print(f"{name:8} {seconds:8.3f} s per step, {epoch:8.1f} s an epoch; a batch {core:6.0f} ms of one core")
    print(f"ratio    {ratio:8.3f} (limit {LIMIT})")
    passes = [results[f"{which}_pass_seconds"] for which in ("first", "second")]
    print(f"{images} images: first pass {passes[0]:.1f} s, a second one {passes[1]:.1f} s")
    told = {
        "name": Path(given.encoder).name,
        "digest": encoder.digest,
        "side": encoder.side,
        "tokens": encoder.tokens,
    }
    write_record(
        given.output, "embeddings", ["torch", "transformers", "kornia", "numpy", "lightning-fabric"], results,
        threads=torch.get_num_threads(), recipe=given.recipe, budget=given.budget,
        encoder=told,
        device=torch.cuda.get_device_name() if torch.cuda.is_available() else "CPU",
    )  # fmt: skip


if __name__ == "__main__":
    main()
