"""Pack the data of the shipped models, train them, and evaluate what comes out; tools/train_shipped.sh calls it.

    python tools/train_shipped.py pack data/tnbc data/nuinsseg_human … -o .training/data
    python tools/train_shipped.py run OUT [--models accurate,fast] [--steps accurate=12000] [--accelerator cpu]

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
from hemalum.errors import HemalumError

ROOT = Path(__file__).resolve().parents[1]
PACK = ROOT / ".training" / "data"
QUALITY = 88
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


def run(out: Path, models: list[str], steps: dict[str, int], accelerator: str, pack_folder: Path) -> None:
    """Train each model in a process of its own, all at once, then evaluate them."""
    import torch

    if accelerator != "cpu" and not torch.cuda.is_available():
        raise HemalumError("no GPU here: run this on a machine with one, or give --accelerator cpu")
    if not pack_folder.is_dir():
        raise HemalumError(f"{pack_folder} is missing: run tools/train_shipped.sh pack DATA… first")
    out.mkdir(parents=True, exist_ok=True)
    started = time.perf_counter()
    workers = max(1, ((os.cpu_count() or 1) - 1) // len(models))
    processes = {}
    for name in models:
        command = [
            sys.executable, __file__, "one", name, str(out), "--accelerator", accelerator, "--pack", str(pack_folder),
            "--workers", str(workers), *(["--steps", f"{name}={steps[name]}"] if name in steps else []),
        ]  # fmt: skip
        log = (out / f"{name}.txt").open("w")
        processes[name] = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT)
    failed = [name for name, process in processes.items() if process.wait()]
    for name in processes:
        print(f"--- {name}\n{(out / f'{name}.txt').read_text()[-1500:]}", flush=True)
    print(f"{time.perf_counter() - started:.0f} s in all", flush=True)
    if failed:
        raise HemalumError(f"failed: {', '.join(failed)}; see {out}/NAME.txt")


def train_one(name: str, out: Path, steps: int | None, accelerator: str, workers: int, pack_folder: Path) -> None:
    """Train one model by its recipe and evaluate it on the validation parts."""
    from hemalum.inference.model import load_model
    from hemalum.models.file import load_model_file, save_model
    from hemalum.studies.evaluate import evaluate
    from hemalum.training.shipped import open_recipe
    from hemalum.training.train import train

    recipe = open_recipe(name)
    if steps is not None:
        (phase,) = recipe.phases
        until = phase.until.model_copy(update={"steps": steps})
        recipe = recipe.model_copy(update={"phases": [phase.model_copy(update={"until": until})]})
    datasets = {key: Dataset.open(pack_folder / key) for key in recipe.data}
    started = time.perf_counter()

    def on_progress(step: int, total: int, row: dict[str, float]) -> None:
        if row or step in (1, 20, 100):
            print(f"{step}/{total} {time.perf_counter() - started:.0f} s {row}", flush=True)

    model = train(recipe, datasets, out / "runs" / name, accelerator=accelerator, workers=workers, watch=on_progress)
    card, tensors = load_model_file(model)
    half = {key: value.astype(np.float16) if value.dtype == np.float32 else value for key, value in tensors.items()}
    save_model(out / f"{name}.safetensors", card, half)
    shutil.copy(out / "runs" / name / "log.jsonl", out / f"{name}.jsonl")
    trained = load_model(model)
    scores = {}
    for key, dataset in datasets.items():
        summary = evaluate(trained, dataset, split="val", engine="torch").summary
        scores[key] = {"pq": summary["instance"]["per_image"]["pq"], "dice": summary["pixel"]["pooled"]["dice"]}
        print(key, scores[key], flush=True)
    (out / f"{name}.json").write_text(json.dumps(scores, indent=2) + "\n")


def _pairs(text: str) -> dict[str, int]:
    try:
        return {name: int(value) for name, _, value in (part.partition("=") for part in text.split(",") if part)}
    except ValueError:
        raise HemalumError(f"--steps '{text}': want NAME=NUMBER, separated by commas") from None


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    verbs = parser.add_subparsers(dest="verb", required=True)
    packing = verbs.add_parser("pack")
    packing.add_argument("folders", nargs="+", type=Path)
    packing.add_argument("-o", "--output", type=Path, default=PACK)
    running = verbs.add_parser("run")
    running.add_argument("out", type=Path)
    running.add_argument("--models", default="accurate,fast")
    one = verbs.add_parser("one")
    one.add_argument("name")
    one.add_argument("out", type=Path)
    one.add_argument("--workers", type=int, default=1)
    for sub in (running, one):
        sub.add_argument("--steps", default="", help="NAME=NUMBER,…: other than the recipes'")
        sub.add_argument("--accelerator", default="cuda", choices=("cuda", "cpu"))
        sub.add_argument("--pack", type=Path, default=PACK)
    arguments = parser.parse_args()
    try:
        if arguments.verb == "pack":
            pack(arguments.folders, arguments.output)
        elif arguments.verb == "run":
            models, steps = arguments.models.split(","), _pairs(arguments.steps)
            run(arguments.out, models, steps, arguments.accelerator, arguments.pack)
        else:
            steps = _pairs(arguments.steps).get(arguments.name)
            train_one(arguments.name, arguments.out, steps, arguments.accelerator, arguments.workers, arguments.pack)
    except HemalumError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
