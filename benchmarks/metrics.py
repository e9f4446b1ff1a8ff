"""Time to score one tile: 1000 x 1000 px with about 700 nuclei, beside panoptica and a dense Hungarian AJI+.

    python benchmarks/metrics.py [-n 15] [-o metrics.json]

Medians over repetitions that alternate between the cases. Goal: AJI, AJI+ and PQ together within 50 ms.
"""

import argparse
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from panoptica import InputType, NaiveThresholdMatching, Panoptica_Evaluator
from scipy.optimize import linear_sum_assignment

from hemalum.metrics import match, match_at_thresholds, measure_boundary, measure_overlap, sum_aji, sum_aji_plus
from record import write_record

SIDE, NUCLEI = 1000, 700
Labels = NDArray[np.uint16]


def tile(centres: NDArray[np.float64], rng: np.random.Generator) -> Labels:
    """Ellipses around the centres; later ones lie on top, so many touch or hide a part of others."""
    labels = np.zeros((SIDE, SIDE), np.uint16)
    rows, columns = np.mgrid[-14:15, -14:15]
    for name, (y, x) in enumerate(centres, start=1):
        height, width = rng.uniform(8, 14, 2)
        inside = (rows / height) ** 2 + (columns / width) ** 2 <= 1
        labels[(rows[inside] + int(y)).clip(0, SIDE - 1), (columns[inside] + int(x)).clip(0, SIDE - 1)] = name
    return labels


def dense_aji_plus(truth: Labels, prediction: Labels) -> float:
    """AJI+ from a full contingency table and one Hungarian problem over all nuclei."""
    size = int(prediction.max()) + 1
    table = np.bincount(
        truth.ravel().astype(np.int64) * size + prediction.ravel(), minlength=(int(truth.max()) + 1) * size
    )
    table = table.reshape(-1, size)
    areas = table.sum(axis=1)[1:, None] + table.sum(axis=0)[None, 1:]
    shared = table[1:, 1:]
    iou = shared / np.maximum(areas - shared, 1)
    row, column = linear_sum_assignment(iou, maximize=True)
    kept = iou[row, column] > 0
    paired = shared[row[kept], column[kept]].sum()
    # what is not paired adds its area, so the union is all areas less what is shared by pairs
    return float(paired / (table.sum(axis=1)[1:].sum() + table.sum(axis=0)[1:].sum() - paired))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-n", type=int, default=15, help="repetitions")
    parser.add_argument("-o", "--output", type=Path, help="write the figures as JSON")
    arguments = parser.parse_args()
    rng = np.random.default_rng(0)
    centres = rng.uniform(0, SIDE, (NUCLEI, 2))
    truth = tile(centres, rng)
    prediction = tile((centres + rng.normal(0, 4, centres.shape)).clip(0, SIDE - 1), rng)
    matching = NaiveThresholdMatching(matching_threshold=0.5, strict_threshold=True)
    panoptica = Panoptica_Evaluator(expected_input=InputType.UNMATCHED_INSTANCE, instance_matcher=matching)
    overlap = measure_overlap(truth, prediction)

    def all_three() -> tuple[float, float, float]:
        overlap = measure_overlap(truth, prediction)
        return sum_aji(overlap).value, sum_aji_plus(overlap).value, match(overlap).pq

    cases: dict[str, Callable[[], object]] = {
        "AJI, AJI+ and PQ": all_three,
        "  of this the overlap pass": lambda: measure_overlap(truth, prediction),
        "matches at ten thresholds": lambda: match_at_thresholds(overlap),
        "boundary distances": lambda: measure_boundary(truth > 0, prediction > 0),
        "AJI+, dense table": lambda: dense_aji_plus(truth, prediction),
        "panoptica, PQ": lambda: panoptica.evaluate(prediction, truth, verbose=False),
    }
    if not np.isclose(all_three()[1], dense_aji_plus(truth, prediction)):
        raise SystemExit("the two AJI+ disagree")
    seconds: dict[str, list[float]] = {name: [] for name in cases}
    for repetition in range(arguments.n + 1):
        for name, run in cases.items():
            if name.startswith("panoptica") and repetition > 2:
                continue
            start = time.perf_counter()
            run()
            if repetition:  # the first compiles and warms
                seconds[name].append(time.perf_counter() - start)
    medians = {name: 1000 * statistics.median(values) for name, values in seconds.items()}
    print(f"{SIDE} x {SIDE} px, {overlap.n_truth} true and {overlap.n_prediction} predicted nuclei")
    for name, median in medians.items():
        print(f"{name:28}{median:10.2f} ms")
    if arguments.output:
        results = {f"{name.strip()} (ms)": round(value, 3) for name, value in medians.items()}
        write_record(arguments.output, "metrics", ["numpy", "scipy", "numba", "panoptica"], results, runs=arguments.n)


if __name__ == "__main__":
    main()
