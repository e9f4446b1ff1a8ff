"""Stain normalization: speed of measuring and applying, and what the rule for unfit images does on real sets.

    python benchmarks/stain.py DATASET… [-n 40] [--rounds 5] [-o stain.json]

Speed is on one core, on the first image repeated to 2048 x 2048 px, the median of the rounds; both steps together are
also given as a multiple of torchstain's Macenko on NumPy, in the same rounds. For each dataset: images that are
unfit, and the smallest and the median angle between the two stains of the others.
"""

import statistics
import time
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import torchstain

from hemalum.data.dataset import Dataset
from hemalum.data.image import read_image
from hemalum.data.stain.normalization import UnfitImage, match_stain, measure_stain, sample_image
from hemalum.data.stain.separation import angle_between
from inputs import choose_evenly
from record import figures_parser, write_record

METHODS = ("macenko", "reinhard", "vahadane")
SIDE = 2048


def measure_speed(image: np.ndarray, rounds: int) -> list[dict[str, Any]]:
    high, wide = (-(-SIDE // length) for length in image.shape[:2])
    large = np.ascontiguousarray(np.tile(image, (high, wide, 1))[:SIDE, :SIDE])
    megapixels = SIDE * SIDE / 1e6
    peer = torchstain.normalizers.MacenkoNormalizer(backend="numpy")
    peer.fit(image)
    rows = []
    for method in METHODS:
        change = match_stain(measure_stain(sample_image(large), method), measure_stain(sample_image(image), method))
        change.apply(large[:64])
        times = []
        for _ in range(rounds):
            start = time.perf_counter()
            measure_stain(sample_image(large), method)
            measured = time.perf_counter()
            change.apply(large)
            applied = time.perf_counter()
            peer.normalize(large, stains=False)
            times.append((measured - start, applied - measured, time.perf_counter() - applied))
        measure, apply, peer_seconds = (statistics.median(column) for column in zip(*times, strict=True))
        rows.append(
            {
                "method": method,
                "measure_ms": 1e3 * measure,
                "apply_mpx_s": megapixels / apply,
                "both_mpx_s": megapixels / (measure + apply),
                "times_torchstain": peer_seconds / (measure + apply),
            }
        )
    return rows


def count_unfit(dataset: Dataset, count: int) -> list[dict[str, Any]]:
    chosen = choose_evenly(len(dataset), count)
    images = [read_image(dataset.path / dataset.rows[index].image) for index in chosen]
    rows = []
    for method in METHODS:
        angles: list[float] = []
        unfit: Counter[str] = Counter()
        for image in images:
            try:
                measured_stain = measure_stain(sample_image(image), method)
            except UnfitImage as error:
                unfit[str(error).partition(":")[0]] += 1
                continue
            if measured_stain.stains is not None:
                angles.append(angle_between(np.array(measured_stain.stains)))
        row: dict[str, Any] = {"dataset": dataset.info.name, "method": method, "images": len(images)}
        row |= {"unfit": dict(unfit)}
        if angles:
            row |= {"smallest_angle": min(angles), "median_angle": statistics.median(angles)}
        rows.append(row)
    return rows


def main() -> None:
    parser = figures_parser(__doc__, Path("stain.json"))
    parser.add_argument("datasets", type=Path, nargs="+")
    parser.add_argument("-n", "--images", type=int, default=40, help="of each dataset, spread evenly")
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    datasets = [Dataset.open(path) for path in arguments.datasets]
    timed = measure_speed(read_image(datasets[0].path / datasets[0].rows[0].image), arguments.rounds)
    print(f"{'method':10}{'measure ms':>12}{'apply Mpx/s':>13}{'both Mpx/s':>12}{'x torchstain':>14}")
    for row in timed:
        figures = f"{row['measure_ms']:12.1f}{row['apply_mpx_s']:13.1f}{row['both_mpx_s']:12.1f}"
        print(f"{row['method']:10}{figures}{row['times_torchstain']:14.1f}")
    fit = [row for dataset in datasets for row in count_unfit(dataset, arguments.images)]
    print(f"\n{'dataset':18}{'method':10}{'images':>8}{'unfit':>7}{'smallest':>10}{'median':>8}  why unfit")
    for row in fit:
        angles = [f"{row[name]:.1f}°" if name in row else "" for name in ("smallest_angle", "median_angle")]
        unfit = ", ".join(f"{count} {reason}" for reason, count in row["unfit"].items())
        name = f"{row['dataset']:18}{row['method']:10}{row['images']:8}"
        print(f"{name}{sum(row['unfit'].values()):7}{angles[0]:>10}{angles[1]:>8}  {unfit}")
    write_record(arguments.output, "stain", ["numpy", "numba", "torchstain"], {"speed": timed, "fitness": fit})


if __name__ == "__main__":
    main()
