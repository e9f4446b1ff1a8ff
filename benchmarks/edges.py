"""Ways to tell nuclei apart by an edge map: which peaks the separation is given.

    python benchmarks/edges.py MODEL=data/tnbc [MODEL=DATASET …] [--images 40]

For models of representation `foreground_edge`. Each way has its best `min_depth` by PQ on validation images and is
then scored on test images of the same set: `shape` looks at the foreground alone, `cut` takes the pixels away where
an edge is likelier than not, `factor` lowers the peaks by the edge's probability.
Writes benchmarks/results/edges.json.
"""

from collections.abc import Callable
from dataclasses import astuple

import numpy as np
from numpy.typing import NDArray

from hemalum.data.dataset import Dataset
from hemalum.inference.maps import run_image
from hemalum.metrics import MatchCounts, match, measure_overlap
from hemalum.models.engines.engine import Engine, make_engine
from hemalum.models.model import Model, load_model
from hemalum.nuclei.peaks import measure_depth
from hemalum.nuclei.separation import flood
from inputs import choose_evenly, resize_labels, scaled_image
from record import RESULTS, figures_parser, write_record

MARKER = 0.9
DEPTHS = (0.03, 0.045, 0.06, 0.08, 0.1, 0.15)
Maps = NDArray[np.float32]
Examples = list[tuple[Maps, NDArray[np.int32]]]


def scale_depth(inside: NDArray[np.bool_], top: float) -> Maps:
    """Distance to the edge of a shape, 1 at `top` px."""
    return np.minimum(measure_depth(inside.astype(np.int32)) / np.float32(top), np.float32(1))


WAYS: dict[str, Callable[[Maps], Maps]] = {
    "shape": lambda maps: scale_depth(maps[0] >= 0.5, 16),
    "cut": lambda maps: scale_depth((maps[0] >= 0.5) & (maps[1] < 0.5), 16),
    **{
        f"factor, {top} px": lambda maps, top=top: scale_depth(maps[0] >= 0.5, top) * (1 - maps[1])
        for top in (8, 12, 16)
    },
}


def predict_examples(model: Model, engine: Engine, part: Dataset, images: int) -> Examples:
    """Maps and label maps of some images at the model's scale."""
    examples = []
    for index in choose_evenly(len(part), images):
        sample = part[int(index)]
        image, shape = scaled_image(sample, model.card)
        maps = run_image(engine, image, model.with_organ(None))[:, : shape[0], : shape[1]]
        examples.append((np.ascontiguousarray(maps), resize_labels(sample.instances, shape)))
    return examples


def score(examples: Examples, way: Callable[[Maps], Maps], model: Model, min_depth: float) -> float:
    """Pooled PQ."""
    settings = model.card.separation.model_copy(update={"marker": MARKER, "min_depth": min_depth})
    counts = np.zeros(4)
    for maps, truth in examples:
        counts += astuple(match(measure_overlap(truth, flood(maps[0], way(maps), settings))))
    return MatchCounts(*counts).pq


def main() -> None:
    parser = figures_parser(__doc__, RESULTS / "edges.json")
    parser.add_argument("pairs", nargs="+", metavar="MODEL=DATASET")
    parser.add_argument("--images", type=int, default=40, help="of each part at most")
    arguments = parser.parse_args()
    results = []
    for pair in arguments.pairs:
        path, _, data = pair.partition("=")
        model, dataset = load_model(path), Dataset.open(data)
        engine = make_engine("torch", model, device="cpu")
        val, test = (
            predict_examples(model, engine, dataset.split(part), arguments.images) for part in ("val", "test")
        )
        for name, way in WAYS.items():
            best, chosen = max((score(val, way, model, min_depth), -min_depth) for min_depth in DEPTHS)
            row = {"data": dataset.info.name, "split": dataset.split_hash, "way": name, "min_depth": -chosen}
            row |= {"pq_val": round(best, 4), "pq_test": round(score(test, way, model, -chosen), 4)}
            row |= {"images": [len(val), len(test)], "trained": model.card.training and model.card.training.command}
            results.append(row)
            print(
                f"{row['data']:20} {name:14} {row['min_depth']:6} {row['pq_val']:.4f} {row['pq_test']:.4f}",
                flush=True,
            )
    write_record(arguments.output, "edges", ["torch", "numpy"], results)


if __name__ == "__main__":
    main()
