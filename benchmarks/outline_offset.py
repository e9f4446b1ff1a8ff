"""Whether outlines lie inside or outside those of the annotators, set by set, and what moving them a pixel would do.

    python benchmarks/outline_offset.py accurate fast --data data/tnbc --data data/consep … [--split test] [-o FILE]

Over the matched nuclei (IoU above .5) of a set's images: the mean of the predicted minus the annotated equivalent
radius, in µm, over all of them and over the darker and the paler half of each image (by hematoxylin), and PQ (mean
over images) with all nuclei one pixel smaller, as they are, and one pixel larger. Of dsb2018 the purple images.
"""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from skimage.segmentation import expand_labels, find_boundaries

from hemalum.data.dataset import Dataset
from hemalum.inference.segment import segment
from hemalum.metrics import match, measure_overlap
from hemalum.models.engines.engine import make_engine
from hemalum.models.model import load_model
from inputs import choose_evenly
from record import RESULTS, figures_parser, write_record
from transfer import is_left_out

STEPS = (-1, 0, 1)  # px


def grow(labels: NDArray[np.int32], step: int) -> NDArray[np.int32]:
    """All nuclei of a label map (H, W) larger by `step` px, smaller where it is negative."""
    grown: NDArray[np.int32] = labels
    if step > 0:
        grown = expand_labels(labels, step).astype(np.int32)
    for _ in range(-step):
        grown = np.where(find_boundaries(grown, connectivity=1, mode="inner"), 0, grown).astype(np.int32)
    return grown


def measure(name: str, dataset: Dataset) -> dict[str, Any]:
    model = load_model(name)
    engine = make_engine("auto", model)
    offsets: list[NDArray[np.float64]] = []
    dark: list[NDArray[np.bool_]] = []
    quality: dict[int, list[float]] = {step: [] for step in STEPS}
    for sample in dataset:
        nuclei = segment(sample.image, model, mpp=sample.mpp, engine=engine)
        labels = nuclei.label_map().astype(np.int32)
        overlap = measure_overlap(sample.instances, labels)
        pairs = overlap.iou > 0.5
        true_areas = overlap.truth_areas[overlap.pair_truth[pairs]]
        areas = overlap.prediction_areas[overlap.pair_prediction[pairs]]
        offsets.append((np.sqrt(areas / np.pi) - np.sqrt(true_areas / np.pi)) * sample.mpp)
        density = nuclei.table["hematoxylin_mean"].to_numpy()
        density = density[overlap.prediction_ids[overlap.pair_prediction[pairs]] - 1]
        dark.append(density > (np.median(density) if len(density) else 0))
        for step in STEPS:
            quality[step].append(match(measure_overlap(sample.instances, grow(labels, step))).pq)
    matched, darker = np.concatenate(offsets), np.concatenate(dark)
    return {
        "model": name,
        "data": dataset.info.name,
        "images": len(dataset),
        "matched": len(matched),
        "offset_um": round(float(matched.mean()), 4),
        "offset_um_dark": round(float(matched[darker].mean()), 4),
        "offset_um_pale": round(float(matched[~darker].mean()), 4),
        "offset_um_by_image": [round(float(one.mean()), 4) for one in offsets if len(one)],
        "pq": {f"{step:+d} px": round(float(np.nanmean(values)), 4) for step, values in quality.items()},
    }


def main() -> None:
    parser = figures_parser(__doc__, RESULTS / "outline_offset.json")
    parser.add_argument("models", nargs="+")
    parser.add_argument(
        "--data", action="append", type=Path, required=True, help="dataset folder; repeat for several"
    )
    parser.add_argument("--split", default="test")
    parser.add_argument("--images", type=int, default=24, help="of each set, spread evenly")
    arguments = parser.parse_args()
    results = []
    for path in arguments.data:
        dataset = Dataset.open(path).split(arguments.split)
        rows = [row for row in dataset.rows if dataset.info.name != "dsb2018" or is_left_out(row)]
        dataset = replace(dataset, rows=tuple(rows[index] for index in choose_evenly(len(rows), arguments.images)))
        for name in arguments.models:
            results.append(measure(name, dataset))
            row = results[-1]
            print(
                f"{row['data']:15} {name:9} {row['offset_um']:+.3f} µm of {row['matched']} nuclei, PQ {row['pq']}",
                flush=True,
            )
    write_record(arguments.output, "outline_offset", ["torch", "numpy"], results)


if __name__ == "__main__":
    main()
