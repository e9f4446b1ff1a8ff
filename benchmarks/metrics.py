"""Time to score one tile: 1000 x 1000 px with about 700 nuclei, beside plain and published ways to do it.

    python benchmarks/metrics.py [-n 15] [-o metrics.json]

Medians over repetitions that alternate between the cases; the slow ones run twice. Limits: AJI and PQ together
within 50 ms and five times as fast as a loop over pairs, HD95 within 200 ms. All others (panoptica, AJI+ from a
dense table, distance transforms of the whole tile) run in the same process on the same tile and must agree.
"""

import statistics
import time
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from panoptica import InputType, NaiveThresholdMatching, Panoptica_Evaluator
from scipy.ndimage import distance_transform_edt
from scipy.optimize import linear_sum_assignment

from hemalum.experiments.scores import score_image
from hemalum.metrics import (
    find_boundary,
    hd95,
    match,
    match_at_thresholds,
    measure_boundary,
    measure_overlap,
    sum_aji,
    sum_aji_plus,
)
from record import figures_parser, write_record

SIDE, NUCLEI = 1000, 700
INSTANCE_LIMIT_MS, INSTANCE_RATIO, HD95_LIMIT_MS = 50, 5, 200
Labels = NDArray[np.uint16]


def draw_tile(centers: NDArray[np.float64], rng: np.random.Generator) -> Labels:
    """Ellipses around the centers; later ones lie on top, so many touch or hide a part of others."""
    labels = np.zeros((SIDE, SIDE), np.uint16)
    rows, columns = np.mgrid[-14:15, -14:15]
    for name, (y, x) in enumerate(centers, start=1):
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


def pair_loop(truth: Labels, prediction: Labels) -> tuple[float, float]:
    """AJI and PQ by masks of each nucleus and each pair that touches, as public code of the field does it."""
    predicted = {name: prediction == name for name in np.unique(prediction)[1:]}
    taken: set[int] = set()
    intersection = union = matched = 0
    iou_sum = 0.0
    true_ids = np.unique(truth)[1:]
    for true_id in true_ids:
        nucleus = truth == true_id
        best_iou, best, best_shared, best_joint = 0.0, 0, 0, int(nucleus.sum())
        for name in np.unique(prediction[nucleus]):
            if name == 0:
                continue
            shared = int((nucleus & predicted[name]).sum())
            joint = int((nucleus | predicted[name]).sum())
            if shared / joint > best_iou:
                best_iou, best, best_shared, best_joint = shared / joint, int(name), shared, joint
        intersection, union = intersection + best_shared, union + best_joint
        if best:
            taken.add(best)
        if best_iou > 0.5:
            matched, iou_sum = matched + 1, iou_sum + best_iou
    union += sum(int(mask.sum()) for name, mask in predicted.items() if int(name) not in taken)
    return intersection / union, 2 * iou_sum / (len(true_ids) + len(predicted))


def hd95_of_transforms(truth: Labels, prediction: Labels) -> float:
    """HD95 from scipy's exact distance transforms of the whole tile."""
    true_boundary, predicted_boundary = find_boundary(truth > 0), find_boundary(prediction > 0)
    directions = (
        distance_transform_edt(~predicted_boundary)[true_boundary],
        distance_transform_edt(~true_boundary)[predicted_boundary],
    )
    return max(float(np.percentile(direction, 95)) for direction in directions)


def main() -> None:
    parser = figures_parser(__doc__)
    parser.add_argument("-n", type=int, default=15, help="repetitions")
    arguments = parser.parse_args()
    rng = np.random.default_rng(0)
    centers = rng.uniform(0, SIDE, (NUCLEI, 2))
    truth = draw_tile(centers, rng)
    prediction = draw_tile((centers + rng.normal(0, 4, centers.shape)).clip(0, SIDE - 1), rng)
    matching = NaiveThresholdMatching(matching_threshold=0.5, strict_threshold=True)
    panoptica = Panoptica_Evaluator(expected_input=InputType.UNMATCHED_INSTANCE, instance_matcher=matching)
    overlap = measure_overlap(truth, prediction)

    small = truth[:512, :512].astype(np.int32), prediction[:512, :512].astype(np.int32)
    full = truth.astype(np.int32), prediction.astype(np.int32)

    def instance() -> tuple[float, float]:
        overlap = measure_overlap(truth, prediction)
        return sum_aji(overlap).value, match(overlap).pq

    def boundary() -> float:
        return hd95(measure_boundary(truth > 0, prediction > 0))

    cases: dict[str, Callable[[], object]] = {
        "AJI and PQ": instance,
        "  of this the overlap pass": lambda: measure_overlap(truth, prediction),
        "AJI+, given the overlaps": lambda: sum_aji_plus(overlap),
        "matches at ten thresholds": lambda: match_at_thresholds(overlap),
        "HD95": boundary,
        "every metric": lambda: score_image(*full).row,
        "every metric, 512 px tile": lambda: score_image(*small).row,
        "HD95, distance transforms": lambda: hd95_of_transforms(truth, prediction),
        "AJI+, dense table": lambda: dense_aji_plus(truth, prediction),
        "AJI and PQ, loop over pairs": lambda: pair_loop(truth, prediction),
        "PQ, panoptica": lambda: panoptica.evaluate(prediction, truth, verbose=False),
    }
    slow = ("AJI and PQ, loop over pairs", "PQ, panoptica")
    if not np.allclose(instance(), pair_loop(truth, prediction)):
        raise SystemExit("AJI or PQ differs from the loop over pairs")
    if not np.isclose(sum_aji_plus(overlap).value, dense_aji_plus(truth, prediction)):
        raise SystemExit("the two AJI+ disagree")
    if not np.isclose(boundary(), hd95_of_transforms(truth, prediction)):
        raise SystemExit("the two HD95 disagree")
    seconds: dict[str, list[float]] = {name: [] for name in cases}
    for repetition in range(arguments.n + 1):
        for name, run in cases.items():
            if name in slow and repetition > 2:
                continue
            start = time.perf_counter()
            run()
            if repetition:  # the first compiles and warms
                seconds[name].append(time.perf_counter() - start)
    medians = {name: 1000 * statistics.median(values) for name, values in seconds.items()}
    print(f"{SIDE} x {SIDE} px, {overlap.n_truth} true and {overlap.n_prediction} predicted nuclei")
    for name, median in medians.items():
        print(f"{name:28}{median:10.2f} ms")
    ratio = medians["AJI and PQ, loop over pairs"] / medians["AJI and PQ"]
    limits = {
        f"AJI and PQ within {INSTANCE_LIMIT_MS} ms": medians["AJI and PQ"] <= INSTANCE_LIMIT_MS,
        f"AJI and PQ {INSTANCE_RATIO} x as fast as the loop": ratio >= INSTANCE_RATIO,
        f"HD95 within {HD95_LIMIT_MS} ms": medians["HD95"] <= HD95_LIMIT_MS,
    }
    print(f"AJI and PQ are {ratio:.0f} x as fast as the loop over pairs")
    for name, kept in limits.items():
        print(f"{name:40}{'yes' if kept else 'NO'}")
    results: dict[str, float | bool] = {f"{name.strip()} (ms)": round(value, 3) for name, value in medians.items()}
    results |= {"loop over pairs / AJI and PQ": round(ratio, 1)} | limits
    write_record(arguments.output, "metrics", ["numpy", "scipy", "numba", "panoptica"], results, runs=arguments.n)
    if not all(limits.values()):
        raise SystemExit("a limit is not kept")


if __name__ == "__main__":
    main()
