"""Pack the data of the shipped models, train them, and evaluate what comes out; tools/train_shipped.sh calls it.

    python tools/train_shipped.py pack data/tnbc data/nuinsseg_human … -o .training/data
    python tools/train_shipped.py run OUT [--models accurate=2,fast=1] [--seconds 420] [--start shipped] [--compile]

A pack is dataset folders without their test parts, no finer than 0.2 µm per px, images as JPEG of quality 88. `run`
trains the models side by side, one process each, with the recipe of each model's name, and leaves in OUT, for each,
the model file and the log of the training, and NAME.json with its scores on the validation parts. Weights are in half
precision, as they ship.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
from PIL import Image

from hemalum.data.dataset import Dataset, write_index
from hemalum.errors import HemalumError, speaking_of_options
from hemalum.training.recipe import Recipe

ROOT = Path(__file__).resolve().parents[1]
PACK = ROOT / ".training" / "data"
WEIGHTS = ROOT / "src" / "hemalum" / "models" / "weights"
QUALITY = 88
TIMING_STEPS = 200  # steps that measure how fast a machine is
START = {"typed": "accurate"}  # what --start shipped begins with, where it is not the model of that name
PLANNED_SHARE = 0.93  # share of a time that is planned for
FINEST = 0.2  # µm per px of what is packed: no shipped model sees finer


def pack(folders: list[Path], out: Path) -> None:
    """Write the train and val parts of dataset folders as small as they can travel."""
    for folder in folders:
        dataset, target = Dataset.open(folder), out / Dataset.open(folder).info.name
        if target.exists():
            shutil.rmtree(target)
        for name in ("images", "labels", "classes"):
            (target / name).mkdir(parents=True)
        rows = []
        for row in dataset.rows:
            if row.split == "test":
                continue
            path, image = f"images/{row.id}.jpg", Image.open(folder / row.image).convert("RGB")
            factor = min(1.0, (row.mpp or FINEST) / FINEST)
            size = round(image.width * factor), round(image.height * factor)
            image.resize(size, Image.Resampling.BILINEAR).save(target / path, quality=QUALITY)
            for labels in (row.label, row.classes):
                if labels is not None:
                    Image.open(folder / labels).resize(size, Image.Resampling.NEAREST).save(
                        target / labels, optimize=True
                    )
            mpp = row.mpp and row.mpp * image.width / size[0]
            rows.append(replace(row, image=path, mpp=mpp, ambiguous=None))
        write_index(target, dataset.info, rows)
        size = sum(file.stat().st_size for file in target.rglob("*") if file.is_file())
        print(f"{target}: {len(rows)} images, {size / 2**20:.1f} MiB", flush=True)


def run(out: Path, models: dict[str, int], options: list[str], accelerator: str, pack_folder: Path) -> None:
    """Train each model in a process of its own, all at once, with its part of the cores, then evaluate them."""
    import torch

    if accelerator != "cpu" and not torch.cuda.is_available():
        raise HemalumError("no GPU here: run this on a machine with one, or give --accelerator cpu")
    if not pack_folder.is_dir():
        raise HemalumError(f"{pack_folder} is missing: run tools/train_shipped.sh pack DATA… first")
    out.mkdir(parents=True, exist_ok=True)
    started = time.perf_counter()
    cores, parts = os.cpu_count() or 1, sum(models.values())
    processes = {}
    # what is prepared on the processor is done by the loader's threads, not by PyTorch's in each of them
    environment = os.environ | {"OMP_NUM_THREADS": "2"}
    for name, part in models.items():
        command = [
            sys.executable, __file__, "one", name, str(out), "--accelerator", accelerator, "--pack", str(pack_folder),
            "--workers", str(max(1, round(cores * part / parts))), *options,
        ]  # fmt: skip
        log = (out / f"{name}.txt").open("w")
        processes[name] = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT, env=environment)
    failed = [name for name, process in processes.items() if process.wait()]
    for name in processes:
        print(f"--- {name}\n{(out / f'{name}.txt').read_text()[-1500:]}", flush=True)
    print(f"{time.perf_counter() - started:.0f} s in all", flush=True)
    if failed:
        raise HemalumError(f"failed: {', '.join(failed)}; see {out}/NAME.txt")


def train_one(name: str, out: Path, arguments: argparse.Namespace) -> None:
    """Train one model by its recipe and evaluate it on a quarter of the validation images."""
    from hemalum.experiments.evaluate import evaluate
    from hemalum.models.file import load_model_file, save_model
    from hemalum.models.model import load_model
    from hemalum.training.recipe import open_recipe
    from hemalum.training.train import train

    started = time.perf_counter()
    recipe = open_recipe(name, arguments.budget)
    datasets = {key: Dataset.open(arguments.pack / key) for key in recipe.data}
    initial = WEIGHTS / f"{START.get(name, name)}.safetensors" if arguments.start == "shipped" else None
    steps = arguments.steps
    if arguments.seconds:
        times: list[float] = []
        timing_recipe = with_steps(recipe, TIMING_STEPS).model_copy(update={"validation_images": 4})
        train(
            timing_recipe, datasets, out / "runs" / f"{name}.trial", accelerator=arguments.accelerator,
            workers=arguments.workers, compile=arguments.compile,
            on_progress=lambda *_: times.append(time.perf_counter()),
        )  # fmt: skip
        # the last step validates
        rate = (TIMING_STEPS // 2 - 1) / (times[-2] - times[-1 - TIMING_STEPS // 2])
        steps = max(TIMING_STEPS, int(rate * (arguments.seconds - (time.perf_counter() - started)) * PLANNED_SHARE))
        print(f"{rate:.1f} steps/s, so {steps} steps", flush=True)
    if steps:
        recipe = with_steps(recipe, steps)

    def on_progress(step: int, total: int, row: dict[str, float]) -> None:
        if row or step % 500 == 0:
            print(f"{step}/{total} {time.perf_counter() - started:.0f} s {row}", flush=True)

    folder = out / "runs" / name
    model = train(
        recipe, datasets, folder, accelerator=arguments.accelerator, workers=arguments.workers, initial=initial,
        compile=arguments.compile, on_progress=on_progress, license="Apache-2.0",
    )  # fmt: skip
    card, tensors = load_model_file(model)
    half = {key: value.astype(np.float16) if value.dtype == np.float32 else value for key, value in tensors.items()}
    save_model(out / f"{name}.safetensors", card, half)
    shutil.copy(folder / "log.jsonl", out / f"{name}.jsonl")
    trained = load_model(out / f"{name}.safetensors")
    scores = {}
    for key, dataset in datasets.items():
        part = replace(dataset, rows=dataset.split("val").rows[::4])
        summary = evaluate(trained, part, split="val", engine="torch").summary
        scores[key] = {"pq": summary["instance"]["per_image"]["pq"], "dice": summary["pixel"]["pooled"]["dice"]}
        print(key, scores[key], flush=True)
    (out / f"{name}.json").write_text(json.dumps(scores, indent=2) + "\n")


def with_steps(recipe: Recipe, steps: int) -> Recipe:
    """The recipe with another number of steps, validated three times."""
    (phase,) = recipe.phases
    until = phase.until.model_copy(update={"steps": steps})
    changes = {"phases": [phase.model_copy(update={"until": until})], "validate_every": -(-steps // 3)}
    return recipe.model_copy(update=changes)


def parse_models(text: str) -> dict[str, int]:
    """NAME or NAME=NUMBER, separated by commas; a name alone counts 1."""
    try:
        pairs = {name: int(value or 1) for name, _, value in (part.partition("=") for part in text.split(","))}
    except ValueError:
        pairs = {}
    if not pairs or any(not name or part < 1 for name, part in pairs.items()):
        raise HemalumError(f"--models '{text}': want NAME=PART, separated by commas, PART 1 or more")
    return pairs


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    verbs = parser.add_subparsers(dest="verb", required=True)
    packing = verbs.add_parser("pack")
    packing.add_argument("folders", nargs="+", type=Path)
    packing.add_argument("-o", "--output", type=Path, default=PACK)
    running, single = verbs.add_parser("run"), verbs.add_parser("one")
    running.add_argument("out", type=Path)
    running.add_argument("--models", default="accurate=2,fast=1", help="NAME=PART of the cores, separated by commas")
    single.add_argument("name")
    single.add_argument("out", type=Path)
    single.add_argument("--workers", type=int, default=1)
    for sub in (running, single):
        sub.add_argument("--steps", type=int, help="of each model, other than the recipes'")
        sub.add_argument("--seconds", type=int, help="as many steps as this machine makes in this time")
        sub.add_argument("--budget", default="full", choices=("full", "small"), help="form of the recipes")
        sub.add_argument("--accelerator", default="cuda", choices=("cuda", "cpu"))
        sub.add_argument("--pack", type=Path, default=PACK)
        sub.add_argument("--compile", action="store_true", help="compile the networks first")
        sub.add_argument(
            "--start", default="scratch", choices=("scratch", "shipped"),
            help="shipped: go on from the weights in the package, typed from those of accurate",
        )  # fmt: skip
    arguments = parser.parse_args()
    with speaking_of_options("train_shipped"):
        return run_verb(arguments)


def run_verb(arguments: argparse.Namespace) -> int:
    """Do what was asked; gives the exit code."""
    try:
        if arguments.verb == "pack":
            pack(arguments.folders, arguments.output)
        elif arguments.verb == "run":
            chosen = {key: getattr(arguments, key) for key in ("steps", "seconds", "budget", "start")}
            options = [f"--{key}={value}" for key, value in chosen.items() if value]
            options += ["--compile"] if arguments.compile else []
            run(arguments.out, parse_models(arguments.models), options, arguments.accelerator, arguments.pack)
        else:
            train_one(arguments.name, arguments.out, arguments)
    except HemalumError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
