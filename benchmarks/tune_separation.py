"""Tries separation settings on a model's own maps of the validation images, and prints the best.

    python benchmarks/tune_separation.py MODEL --data data/tnbc --data data/dsb2018 [--images 24] [-o tune.json]

Maps are made once per image; every combination of the values below is scored as pooled PQ against the labels at their
own resolution. The best by the mean over sets goes into the card (`tools/ship.py`). Never run it on a test part.
"""

import argparse
import itertools
from pathlib import Path

import numpy as np

from hemalum.data.dataset import Dataset
from hemalum.inference.engine import make_engine
from hemalum.inference.model import load_model
from hemalum.inference.resample import Resampler
from hemalum.instances.nuclei import Nuclei, measure
from hemalum.instances.representations import REPRESENTATIONS
from hemalum.metrics import MatchCounts, match, measure_overlap
from hemalum.models.card import SeparationSettings
from record import write_record

FOREGROUND = (0.4, 0.45, 0.5)
MARKER = (0.3, 0.4, 0.5, 0.6)
DEPTH = (0.05, 0.1, 0.2)
PROBABILITY = (0.0, 0.65, 0.75, 0.8)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("--data", action="append", type=Path, required=True)
    parser.add_argument("--images", type=int, default=24, help="of each set, spread evenly")
    parser.add_argument("--min-area-um2", type=float, default=4.0, help="smallest nucleus")
    parser.add_argument("-o", "--output", type=Path, default=Path("tune.json"))
    arguments = parser.parse_args()
    model = load_model(arguments.model)
    card, engine = model.card, make_engine("auto", model)
    representation = REPRESENTATIONS[card.representation]
    images: list[tuple[str, np.ndarray, np.ndarray]] = []
    for path in arguments.data:
        part = Dataset.open(path).split("val")
        for index in np.unique(np.linspace(0, len(part) - 1, min(len(part), arguments.images)).astype(int)):
            sample = part[int(index)]
            height, width = (max(1, round(length * sample.mpp / card.mpp)) for length in sample.instances.shape)
            image = Resampler(sample.instances.shape, (height, width)).rows(sample.image, 0, height)
            padding = ((0, -height % card.stride), (0, -width % card.stride), (0, 0))
            maps = engine.maps(np.pad(image, padding, mode="symmetric")[None])[0]
            e = card.enlarge
            images.append((part.info.name, maps[:, : height * e, : width * e].copy(), sample.instances))
    min_area = max(1, round(arguments.min_area_um2 / (card.mpp / card.enlarge) ** 2))
    rows = []
    for foreground, marker, depth, probability in itertools.product(FOREGROUND, MARKER, DEPTH, PROBABILITY):
        settings = SeparationSettings(
            foreground=foreground, marker=marker, min_depth=depth, min_area=min_area, min_probability=probability
        )
        counts: dict[str, MatchCounts] = {}
        for name, maps, truth in images:
            labels = representation.separate(maps, settings)
            part = measure(labels, None, representation.foreground(maps), threshold=foreground)
            scale = (truth.shape[1] / labels.shape[1], truth.shape[0] / labels.shape[0])
            found = Nuclei.from_parts([part], shape=truth.shape, scale=scale).label_map()
            one = match(measure_overlap(truth, found))
            counts[name] = counts[name] + one if name in counts else one
        pq = {name: one.pq for name, one in counts.items()}
        rows.append({"settings": settings.model_dump(), "pq": pq, "mean": float(np.mean(list(pq.values())))})
        print(f"{foreground} {marker} {depth} {probability}  mean {rows[-1]['mean']:.4f}  {pq}", flush=True)
    rows.sort(key=lambda row: -row["mean"])
    print("best:", rows[0])
    write_record(arguments.output, "tune_separation", ["openvino", "numpy"], rows)


if __name__ == "__main__":
    main()
