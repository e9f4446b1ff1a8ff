"""Two NuInsSeg tiles with truth, ambiguous areas and a model's predictions: the metrics on real shapes."""

from pathlib import Path

import numpy as np
import pytest
import tifffile
from panoptica import InputType, NaiveThresholdMatching, Panoptica_Evaluator
from scipy.optimize import linear_sum_assignment
from skimage.io import imread
from sklearn.metrics import f1_score, jaccard_score

from hemalum.metrics import (
    count_pixels,
    match,
    measure_overlap,
    score_pixels,
    score_pixels_weighted,
    sum_aji,
    sum_aji_plus,
)
from hemalum.metrics.pairs import Labels, Mask

Tile = tuple[Labels, Labels, Mask]
Pair = tuple[Labels, Labels, Mask | None, Labels, Labels]


@pytest.fixture(params=["human_bladder_01", "human_bladder_02"])
def tile(request: pytest.FixtureRequest, real_data: Path) -> Tile:
    folder = real_data / "reference_metrics_nuinsseg" / "examples"
    if not folder.is_dir():
        pytest.skip("reference_metrics_nuinsseg is absent from the real data")
    truth = tifffile.imread(folder / "GT" / f"{request.param}.tif")
    prediction = np.load(folder / "Prediction" / f"{request.param}.npy", allow_pickle=False)
    ambiguous = imread(folder / "amb_masks" / f"{request.param}.png") > 0
    return truth, prediction, ambiguous


@pytest.fixture(params=[False, True], ids=["all", "unambiguous"])
def pair(request: pytest.FixtureRequest, tile: Tile) -> Pair:
    truth, prediction, ambiguous = tile
    if not request.param:
        return truth, prediction, None, truth, prediction
    return truth, prediction, ambiguous, np.where(ambiguous, 0, truth), np.where(ambiguous, 0, prediction)


def test_panoptic_quality(pair: Pair) -> None:
    truth, prediction, ambiguous, plain_truth, plain_prediction = pair
    counts = match(measure_overlap(truth, prediction, ambiguous=ambiguous))
    evaluator = Panoptica_Evaluator(
        expected_input=InputType.UNMATCHED_INSTANCE,
        instance_matcher=NaiveThresholdMatching(matching_threshold=0.5, strict_threshold=True),
    )
    reference = evaluator.evaluate(plain_prediction.astype(np.uint16), plain_truth.astype(np.uint16), verbose=False)[
        "ungrouped"
    ]
    assert (counts.pq, counts.dq, counts.sq) == pytest.approx((reference.pq, reference.rq, reference.sq))


def test_aji_and_aji_plus(pair: Pair) -> None:
    truth, prediction, ambiguous, plain_truth, plain_prediction = pair
    true = [plain_truth == name for name in np.unique(plain_truth)[1:]]
    predicted = [plain_prediction == name for name in np.unique(plain_prediction)[1:]]
    shared = np.array([[np.count_nonzero(t & p) for p in predicted] for t in true])
    joint = np.array([[np.count_nonzero(t | p) for p in predicted] for t in true])
    iou = shared / joint

    def aggregate(pairs: list[tuple[int, int]]) -> float:
        lone = sum(t.sum() for i, t in enumerate(true) if i not in {i for i, _ in pairs})
        lone += sum(p.sum() for j, p in enumerate(predicted) if j not in {j for _, j in pairs})
        return sum(shared[pair] for pair in pairs) / (sum(joint[pair] for pair in pairs) + lone)

    overlap = measure_overlap(truth, prediction, ambiguous=ambiguous)
    best = [(i, int(row.argmax())) for i, row in enumerate(iou) if row.max() > 0]
    assert sum_aji(overlap).value == pytest.approx(aggregate(best))
    assigned = [pair for pair in zip(*linear_sum_assignment(-iou), strict=True) if iou[pair] > 0]
    assert sum_aji_plus(overlap).value == pytest.approx(aggregate(assigned))


def test_pixels(tile: Tile) -> None:
    truth, prediction, ambiguous = tile
    counts = count_pixels(truth, prediction, ambiguous=ambiguous)
    flat = truth[~ambiguous] > 0, prediction[~ambiguous] > 0
    assert score_pixels(counts).dice == pytest.approx(f1_score(*flat))
    assert score_pixels_weighted(counts).iou == pytest.approx(jaccard_score(*flat, average="weighted"))
