"""The report of a refinement against numbers worked out by hand."""

import json
import math
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import wilcoxon

from hemalum.experiments.measurement import Measurement
from hemalum.experiments.refine import Refinement
from hemalum.experiments.selection import ImageUncertainty
from hemalum.metrics import MatchCounts
from hemalum.metrics.curves import BINS
from hemalum.reports.refinement import differences, findings, organ_grid, scores_grid, write_refinement


def arm(hits: list[int], threshold: float = 0.5, images: int = 3, groups: int = 3) -> Measurement:
    """Images of ten nucleus pixels and ten others: `hits` of the first and one of the others are found."""
    assert len(hits) == images
    positive, negative = np.zeros((2, len(hits), BINS), np.int64)
    for index, tp in enumerate(hits):
        positive[index, [800, 100]] = tp, 10 - tp
        negative[index, [800, 100]] = 1, 9
    return Measurement(
        ids=tuple(f"i{n}" for n in range(len(hits))),
        organs=("brain", "liver", "liver", *["liver"] * (images - 3)),
        groups=tuple(f"p{n % groups}" for n in range(images)),
        positive=positive,
        negative=negative,
        matches=(MatchCounts(1, 0, 1, 0.9),) * len(hits),
        threshold=threshold,
    )


IMAGES = tuple(ImageUncertainty(f"t{n}", "liver", n / 10) for n in range(4))


@pytest.fixture
def made(tmp_path: Path) -> Refinement:
    arms = {
        "before": arm([5, 5, 5]),
        "threshold": arm([5, 5, 5], 0.1),
        "refined": arm([8, 6, 7]),
        "random-1": arm([6, 6, 6]),
        "random-2": arm([8, 6, 6]),
    }
    record = {"top": "1", "trainable": ["head.*"], "lr": 1e-4, "epochs": 10, "seed": 0}
    chosen = {"refined": (IMAGES[3],), "random-1": (IMAGES[0],), "random-2": (IMAGES[3],)}
    return Refinement(tmp_path, tmp_path / "model.safetensors", record, IMAGES, chosen, arms, 7, ("<b>mind</b>",))


def test_scores_by_hand(made: Refinement) -> None:
    grid = scores_grid(made)
    recall = {row.head: row.values[0] for row in grid.rows}
    assert recall == {
        "the model as it was": "0.5000",
        "the same, its threshold moved to equal recall": "1.0000",  # at 0.1 everything is nucleus
        "refined on the most uncertain images": "0.7000",
        "random images, mean of 2": f"{(0.6 + 2 / 3) / 2:.4f} ± {abs(0.6 - 2 / 3) / 2**0.5:.4f}",
        "random images, draw 1": "0.6000",
        "random images, draw 2": "0.6667",
    }
    pooled = dict(zip(grid.columns, grid.rows[2].values, strict=True))
    assert pooled["precision, pooled"] == f"{21 / 24:.4f}"
    assert pooled["PQ"] == f"{0.9 / 1.5:.4f}"
    assert pooled["threshold"] == "0.500"


def test_recall_by_organ(made: Refinement) -> None:
    grid = organ_grid(made)
    assert grid is not None
    rows = {row.head: row.values for row in grid.rows}
    assert rows["brain"] == ("1", "0.5000", "1.0000", "0.8000", "0.7000")
    assert rows["liver"] == ("2", "0.5000", "1.0000", "0.6500", "0.6000")


def by_hand(values: list[float]) -> list[float]:
    """Holm's correction, step by step."""
    adjusted, largest = [math.nan] * len(values), 0.0
    for rank, k in enumerate(sorted(range(len(values)), key=lambda k: values[k])):
        largest = max(largest, min(1.0, (len(values) - rank) * values[k]))
        adjusted[k] = largest
    return adjusted


def test_nine_tests_are_one_family_over_images_and_over_groups(made: Refinement) -> None:
    rng = np.random.default_rng(0)
    base = rng.integers(2, 6, 24)
    hits = {
        "before": base,
        "threshold": base,
        "refined": base + 1 + (rng.random(24) < 0.7),
        "random-1": base + (rng.random(24) < 0.6),
        "random-2": base + (rng.random(24) < 0.6),
    }
    arms = {name: arm(list(map(int, tp)), images=24, groups=8) for name, tp in hits.items()}
    tested = differences(replace(made, arms=arms))
    assert [(title.split()[0], metric) for title, metric, *_ in tested] == [
        (first, metric) for first in ("the", "the", "random") for metric in ("recall", "precision", "dice")
    ]
    for unit in (24, 8):
        p = []
        for other in (["before"], ["threshold"], ["random-1", "random-2"]):
            for score in (
                lambda tp: tp / 10,
                lambda tp: tp / (tp + 1),
                lambda tp: 2 * tp / (tp + 1 + 10),
            ):
                difference = score(hits["refined"]) - np.mean([score(hits[name]) for name in other], axis=0)
                if unit == 8:  # image n is of group n mod 8
                    difference = difference.reshape(3, 8).mean(axis=0)
                difference = difference.round(12)
                p.append(float(wilcoxon(difference[difference != 0]).pvalue))
        of_unit = [adjusted_groups if unit == 8 else adjusted for *_, adjusted, adjusted_groups in tested]
        np.testing.assert_allclose(of_unit, by_hand(p), rtol=1e-9)
    assert [paired.trainings_b for _, _, paired, _, _ in tested] == [1] * 6 + [2] * 3
    markdown = write_refinement(replace(made, arms=arms))[1].read_text()
    assert "p by group, Holm" in markdown
    assert "over the 9 tests of this table" in markdown
    assert "The refined model is one training" in markdown


def test_without_groups_no_test_over_groups(made: Refinement) -> None:
    assert all(math.isnan(p_groups) for *_, p_groups in differences(made))  # each image is its own group
    assert "by group" not in write_refinement(made)[1].read_text()


def test_findings_compare_with_both_controls(made: Refinement) -> None:
    sentences = findings(made)
    assert "Against the model as it was" in sentences[0]
    assert "recall +0.2000" in sentences[0]
    assert "Against random images at the same steps" in sentences[1]
    assert f"recall +{0.7 - (0.6 + 2 / 3) / 2:.4f}" in sentences[1]
    assert "at a threshold of 0.100, has a recall of 1.0000 and a precision of 0.5000" in sentences[2]


def test_files_say_the_same(made: Refinement) -> None:
    html, markdown, facts = (path.read_text() for path in write_refinement(made, "hemalum refine <x>"))
    content = json.loads(facts, parse_constant=pytest.fail)
    assert content["arms"]["refined"]["pooled"]["recall"] == pytest.approx(0.7)
    assert content["chosen"]["refined"] == [{"id": "t3", "organ": "liver", "entropy": 0.3}]
    assert content["arms"]["before"]["by_organ"]["brain"]["recall"] == 0.5
    for text in (html, markdown):
        assert "0.8000" in text
        assert "<b>mind" not in text
        assert "t3" in text
        for sentence in findings(made):
            assert sentence.split(",")[0] in text
    assert "hemalum refine &lt;x&gt;" in html
    assert not re.search(r"(src|href)=\"http", html)
