"""What the window and the halo of the network's tiles change: PQ, and how many nuclei differ.

    python benchmarks/tile_halo.py DATASET… [--model fast] [--images 24] [--window 256] [--halo 16 …] [-o halo.json]

Each image of the validation part is segmented with every window and halo (px at the model's scale; a window is at
least four halos wide). PQ is the mean over images; `differ` is the share of the nuclei of the widest halo that no
nucleus matches with an IoU above .9. What a halo costs follows from the share of a window that its core is.
"""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hemalum.data.dataset import Dataset
from hemalum.data.sample import Sample
from hemalum.inference.segment import segment_source
from hemalum.metrics import match, measure_overlap
from hemalum.models.card import Tiling
from hemalum.models.engines.engine import make_engine
from hemalum.models.model import load_model
from hemalum.slides.slide import Slide
from inputs import choose_evenly
from record import figures_parser, write_record

ALIKE = 0.9  # IoU


def segment_with(sample: Sample, model: Any, engine: Any, window: int, halo: int) -> NDArray[np.int32]:
    """Label map of an image."""
    card = model.card.model_copy(update={"tiling": Tiling(window=window, halo=halo)})
    with Slide.of(sample.image) as source:
        nuclei = segment_source(source, replace(model, card=card), engine, mpp=sample.require_mpp())
    return nuclei.label_map().astype(np.int32)


def compare(name: str, dataset: Dataset, ways: list[tuple[int, int]], images: int) -> list[dict[str, Any]]:
    """One row for each window and halo."""
    model = load_model(name)
    engine = make_engine("auto", model)
    part = dataset.split("val")
    quality: dict[tuple[int, int], list[float]] = {way: [] for way in ways}
    lost = dict.fromkeys(ways, 0)
    nuclei = 0
    widest = max(ways, key=lambda way: way[1])
    for index in choose_evenly(len(part), images):
        sample = part[int(index)]
        results = {way: segment_with(sample, model, engine, *way) for way in ways}
        reference = results[widest]
        nuclei += int(reference.max())
        for way, labels in results.items():
            quality[way].append(match(measure_overlap(sample.instances, labels)).pq)
            lost[way] += match(measure_overlap(reference, labels), threshold=ALIKE).fn
    return [
        {
            "model": name,
            "dataset": dataset.info.name,
            "window": window,
            "halo": halo,
            "pq": round(float(np.nanmean(quality[window, halo])), 4),
            "differ": round(lost[window, halo] / max(1, nuclei), 4),
            "nuclei": nuclei,
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
