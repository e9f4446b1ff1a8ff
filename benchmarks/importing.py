"""Memory and speed of importing a set that is published as arrays, at the size of CoNIC.

    python benchmarks/importing.py [--patches 4981] [--work FOLDER] [-o benchmarks/results/importing.json]

Makes an archive of the size and layout of CoNIC (4,981 patches of 256 x 256 px, images.npy of 0.98 GB and
labels.npy of 1.3 GB, about 87 nuclei in a patch, colored like H&E) in a temporary folder, imports it in a process of
its own, and prints the highest resident memory of that process and its speed. The limit is 1 GB.
"""

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from record import figures_parser, write_record

LIMIT_MB = 1000
SIDE = 256
DISTINCT = 48  # patches that are drawn; the others are these, shifted and turned
NUCLEI = 87  # a patch: 431,913 nuclei in 4,981
CLASS_IDS = np.array([1, 2, 3, 4, 5, 6])
SHARES = np.array([0.01, 0.487, 0.214, 0.058, 0.007, 0.224])  # of the classes in Lizard, as published
PATCHES_PER_IMAGE = 21

CHILD = """
import json, sys, time
from hemalum import import_dataset
start = time.perf_counter()
info = import_dataset("conic", sys.argv[1], sys.argv[2]).info
seconds = time.perf_counter() - start
from record import peak_memory
print(json.dumps({"seconds": seconds, "peak": peak_memory(), "images": info.images, "nuclei": info.nuclei,
                  "counts": info.split.counts}))
"""


def draw_patch(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """(256, 256, 3) uint8 and (256, 256, 2) uint16: ellipses in purple on textured pink."""
    y, x = np.mgrid[:SIDE, :SIDE].astype(np.float32)
    instances = np.zeros((SIDE, SIDE), np.uint16)
    class_ids = np.zeros(NUCLEI + 1, np.uint16)
    class_ids[1:] = rng.choice(CLASS_IDS, NUCLEI, p=SHARES / SHARES.sum())
    for number in range(1, NUCLEI + 1):
        cy, cx = rng.uniform(0, SIDE, 2)
        long, turn = rng.uniform(4, 8), rng.uniform(0, np.pi)
        short = long * rng.uniform(0.5, 1)
        along = (x - cx) * np.cos(turn) + (y - cy) * np.sin(turn)
        across = (y - cy) * np.cos(turn) - (x - cx) * np.sin(turn)
        instances[((along / long) ** 2 + (across / short) ** 2 <= 1) & (instances == 0)] = number
    texture = rng.normal(0, 9, (SIDE, SIDE, 1)) + rng.normal(0, 4, (SIDE, SIDE, 3))
    color = np.where((instances > 0)[..., None], (120, 70, 150), (225, 170, 205)) + texture
    return np.clip(color, 0, 255).astype(np.uint8), np.stack([instances, class_ids[instances]], axis=-1)


def write_archive(folder: Path, count: int) -> None:
    """images.npy, labels.npy, patch_info.csv and counts.csv, written patch by patch."""
    rng = np.random.default_rng(0)
    drawn = [draw_patch(rng) for _ in range(min(DISTINCT, count))]
    images = np.lib.format.open_memmap(folder / "images.npy", "w+", np.uint8, (count, SIDE, SIDE, 3))
    labels = np.lib.format.open_memmap(folder / "labels.npy", "w+", np.uint16, (count, SIDE, SIDE, 2))
    for index in range(count):
        turns, shift = index % 4, index // 4 * 7 % SIDE
        for target, source in zip((images, labels), drawn[index % len(drawn)], strict=True):
            target[index] = np.roll(np.rot90(source, turns), shift, axis=0)
    names = [f"made_{index // PATCHES_PER_IMAGE}-{index % PATCHES_PER_IMAGE:04d}" for index in range(count)]
    (folder / "patch_info.csv").write_text("\n".join(["patch_info", *names]) + "\n")
    header = "neutrophil,epithelial,lymphocyte,plasma,eosinophil,connective"
    (folder / "counts.csv").write_text("\n".join([header, *["0,0,0,0,0,0"] * count]) + "\n")


def main() -> None:
    parser = figures_parser(__doc__)
    parser.add_argument("--patches", type=int, default=4981)
    parser.add_argument("--work", type=Path, help="where the temporary folder is made; it takes about 4 GB")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=arguments.work) as work:
        archive = Path(work) / "conic"
        archive.mkdir()
        start = time.perf_counter()
        write_archive(archive, arguments.patches)
        print(f"archive made in {time.perf_counter() - start:.0f} s", file=sys.stderr)
        size = sum(file.stat().st_size for file in archive.iterdir())
        command = [sys.executable, "-c", CHILD, str(archive), str(Path(work) / "set")]
        environment = os.environ | {"PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
        done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, env=environment)
    report = json.loads(done.stdout)
    peak = report["peak"] / 1e6
    results = {
        "patches": report["images"],
        "nuclei": report["nuclei"],
        "archive_mb": round(size / 1e6),
        "peak_mb": round(peak),
        "limit_mb": LIMIT_MB,
        "seconds": round(report["seconds"], 1),
        "images_per_second": round(report["images"] / report["seconds"], 1),
        "split": report["counts"],
    }
    for name, value in results.items():
        print(f"{name:20}{value}")
    print("within the limit" if peak <= LIMIT_MB else "OVER THE LIMIT")
    write_record(arguments.output, "importing", ["hemalum", "numpy", "pillow"], results)


if __name__ == "__main__":
    main()
