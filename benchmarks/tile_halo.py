"""What the window and the halo of the network's tiles cost and change: PQ, how many nuclei differ, and time.

    python benchmarks/tile_halo.py DATASET… [--model fast] [--images 24] [--window 256] [--halo 16 …] [-o halo.json]

Each image of the validation part is segmented with every window and halo (px at the model's scale), in turns. PQ is
the mean over images; `differ` is the share of the nuclei of the widest halo that no nucleus matches with an IoU of .9
or more; `ratio` is the time of all steps as a ratio of the first row's, the median over images of at least 0.5
megapixels at the model's scale.
"""

import statistics
import time
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hemalum.data.dataset import Dataset
from hemalum.data.sample import Sample
from hemalum.inference import grid
from hemalum.inference.segment import segment_source
from hemalum.metrics import match, measure_overlap
from hemalum.models.engines.engine import make_engine
from hemalum.models.model import load_model
from hemalum.slides.slide import Slide
from inputs import choose_evenly
from record import figures_parser, write_record

ALIKE = 0.9  # IoU
TIMED = 500_000  # px at the model's scale


def segment_with(sample: Sample, model: Any, engine: Any, window: int, halo: int) -> tuple[NDArray[np.uint32], float]:
    """Label map of an image, and seconds."""
    grid.WINDOW, grid.TILE_HALO = window, halo
    with Slide.of(sample.image) as source:
        start = time.perf_counter()
        nuclei = segment_source(source, model, engine, mpp=sample.require_mpp())
        return nuclei.label_map(), time.perf_counter() - start


def compare(name: str, dataset: Dataset, ways: list[tuple[int, int]], images: int) -> list[dict[str, Any]]:
    """One row for each window and halo."""
    model = load_model(name)
    engine = make_engine("auto", model)
    part = dataset.split("val")
    quality: dict[tuple[int, int], list[float]] = {way: [] for way in ways}
    lost = dict.fromkeys(ways, 0)
    ratios: dict[tuple[int, int], list[float]] = {way: [] for way in ways}
    nuclei = 0
    widest = max(ways, key=lambda way: way[1])
    for index in choose_evenly(len(part), images):
        sample = part[int(index)]
        results = {way: segment_with(sample, model, engine, *way) for way in ways}
        reference = results[widest][0].astype(np.int32)
        nuclei += int(reference.max())
        pixels = sample.instances.size * (sample.require_mpp() / model.card.mpp) ** 2
        for way, (labels, seconds) in results.items():
            quality[way].append(match(measure_overlap(sample.instances, labels.astype(np.int32))).pq)
            counts = match(measure_overlap(reference, labels.astype(np.int32)), threshold=ALIKE)
            lost[way] += counts.fn
            if pixels >= TIMED:
                ratios[way].append(seconds / results[ways[0]][1])
    return [
        {
            "model": name,
            "dataset": dataset.info.name,
            "window": window,
            "halo": halo,
            "pq": round(float(np.nanmean(quality[window, halo])), 4),
            "differ": round(lost[window, halo] / max(1, nuclei), 4),
            "nuclei": nuclei,
            "ratio": round(statistics.median(ratios[window, halo]), 3) if ratios[window, halo] else None,
        }
        for window, halo in ways
    ]


def main() -> None:
    parser = figures_parser(__doc__, Path("tile_halo.json"))
    parser.add_argument("datasets", type=Path, nargs="+")
    parser.add_argument("--model", action="append", default=[])
    parser.add_argument("--images", type=int, default=24)
    parser.add_argument("--window", type=int, action="append", default=[])
    parser.add_argument("--halo", type=int, action="append", default=[])
    arguments = parser.parse_args()
    ways = [(window, halo) for window in arguments.window or [256] for halo in arguments.halo or [16, 32, 48, 72]]
    rows = []
    for name in arguments.model or ["fast", "accurate"]:
        for path in arguments.datasets:
            for row in compare(name, Dataset.open(path), ways, arguments.images):
                rows.append(row)
                print(" ".join(f"{key}={value}" for key, value in row.items()), flush=True)
    write_record(arguments.output, "tile_halo", ["openvino", "numpy"], rows, images=arguments.images)


if __name__ == "__main__":
    main()
