"""What a model proposes at the middle of nuclei that it has missed: how many proposals fit the nucleus.

    python benchmarks/proposals.py DATASET… [--model fast] [--images N] [--engine openvino] [--threads N] [-o FILE]

Of the test images (the first N), each true nucleus on whose middle the model has no nucleus, and that none of its
nuclei fits (IoU of .5 and more). `half_threshold` is the piece around the point that is above half the threshold of
the separation, in the place of a proposal.
"""

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from hemalum.data.dataset import Dataset
from hemalum.inference import as_engine
from hemalum.metrics import measure_overlap
from hemalum.models import load_model
from hemalum.review.nucleus import pixels_of
from hemalum.review.proposals import ModelMaps, read_maps
from record import figures_parser, write_record

FITS = 0.5  # IoU


def half_threshold(maps: ModelMaps, row: int, column: int) -> NDArray[np.bool_] | None:
    """The piece around a point above half the threshold."""
    pieces, _ = ndimage.label((maps.probability >= maps.threshold / 2) & (maps.labels == 0))
    return pieces == pieces[row, column] if pieces[row, column] else None


def count(maps: ModelMaps, truth: NDArray[np.int32]) -> dict[str, int]:
    """Missed nuclei of an image, proposals, and those that fit."""
    overlap = measure_overlap(truth, maps.labels)
    best = np.zeros(int(truth.max()) + 1)
    np.maximum.at(best, overlap.truth_ids[overlap.pair_truth], overlap.iou)
    counts = dict.fromkeys(("missed", "proposals", "fit", "half_threshold", "half_threshold_fit"), 0)
    height, width = truth.shape
    for id in np.unique(truth[truth > 0]).tolist():
        mask = truth == id
        row, column = (int(side.mean()) for side in np.nonzero(mask))
        if best[id] >= FITS or maps.labels[row, column]:
            continue
        ring = maps.propose(column + 0.5, row + 0.5)
        proposed = None if ring is None else pixels_of(ring, (0, 0, width, height))
        counts["missed"] += 1
        for name, other in (("proposals", proposed), ("half_threshold", half_threshold(maps, row, column))):
            if other is not None:
                counts[name] += 1
                fits = (other & mask).sum() >= FITS * (other | mask).sum()
                counts["fit" if name == "proposals" else f"{name}_fit"] += int(fits)
    return counts


def main() -> None:
    """Print the table, and write it as JSON."""
    parser = figures_parser(__doc__)
    parser.add_argument("datasets", nargs="+", type=Path)
    parser.add_argument("--model", default="fast")
    parser.add_argument("--images", type=int)
    parser.add_argument("--engine", default="openvino")
    parser.add_argument("--threads", type=int)
    arguments = parser.parse_args()
    model = load_model(arguments.model)
    engine = as_engine(arguments.engine, model, threads=arguments.threads)
    rows: list[dict[str, Any]] = []
    for path in arguments.datasets:
        part = Dataset.open(path).split("test")[: arguments.images]
        total: dict[str, int] = {}
        for sample in part:
            maps = read_maps(sample.image, sample.id, model, engine, mpp=sample.require_mpp(), stain="auto")
            for name, value in count(maps, sample.instances).items():
                total[name] = total.get(name, 0) + value
        rows.append({"model": arguments.model, "dataset": part.info.name, "images": len(part), **total})
        print(*(f"{name} {value}" for name, value in rows[-1].items()), sep="  ", flush=True)
    write_record(arguments.output, "proposals", ["hemalum", "openvino", "torch"], rows, threads=arguments.threads)


if __name__ == "__main__":
    main()
