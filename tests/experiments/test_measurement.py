"""Counts at every threshold, and the threshold that finds as much."""

import re
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from hemalum.data.dataset import Dataset
from hemalum.errors import HemalumError
from hemalum.experiments.measurement import Measurement, measure, predict, threshold_of_recall
from hemalum.experiments.segmenters import model_for_organ
from hemalum.inference.segment import as_engine
from hemalum.metrics import MatchCounts, PixelCounts
from hemalum.metrics.curves import BINS
from hemalum.models.model import load_model


def made(*images: tuple[str | None, dict[float, tuple[int, int]]]) -> Measurement:
    """Images by organ, each with pixels (nucleus, other) at some probabilities."""
    positive, negative = np.zeros((2, len(images), BINS), np.int64)
    for index, (_, pixels) in enumerate(images):
        for probability, (yes, no) in pixels.items():
            positive[index, round(probability * BINS)] += yes
            negative[index, round(probability * BINS)] += no
    return Measurement(
        ids=tuple(f"i{n}" for n in range(len(images))),
        organs=tuple(organ for organ, _ in images),
        groups=tuple(f"g{n}" for n in range(len(images))),
        positive=positive,
        negative=negative,
        matches=(MatchCounts(1, 1, 0, 0.8),) * len(images),
        threshold=0.5,
    )


TWO = made(
    ("liver", {0.9: (6, 1), 0.5: (2, 0), 0.3: (2, 3), 0.1: (0, 6)}),
    ("brain", {0.8: (1, 0), 0.4: (3, 1), 0.0: (0, 5)}),
)


def test_pixels_at_a_threshold_by_hand() -> None:
    assert TWO.pixels == [PixelCounts(8, 1, 2, 9), PixelCounts(1, 0, 3, 6)]
    assert replace(TWO, threshold=0.3).pixels == [PixelCounts(10, 4, 0, 6), PixelCounts(4, 1, 0, 5)]
    assert replace(TWO, threshold=0.9).pixels == [PixelCounts(6, 1, 4, 9), PixelCounts(0, 0, 4, 6)]


def test_scores_by_hand() -> None:
    result = TWO.scores()
    assert result["pooled"]["recall"] == pytest.approx(9 / 14)
    assert result["per_image"]["recall"] == pytest.approx((8 / 10 + 1 / 4) / 2)
    assert result["pooled"]["precision"] == pytest.approx(9 / 10)
    assert result["pq"] == pytest.approx(1.6 / 3)
    assert result["threshold"] == 0.5


def test_recall_by_organ() -> None:
    table = TWO.scores_by_organ()
    assert list(table) == ["brain", "liver"]
    assert table["brain"] == pytest.approx({"images": 1, "recall": 0.25, "precision": 1, "dice": 0.4})
    assert replace(TWO, threshold=0.3).scores_by_organ()["brain"]["recall"] == 1
    assert made((None, {0.5: (1, 1)})).scores_by_organ() == {}


def test_the_highest_threshold_that_finds_as_much() -> None:
    # of 14: 6 at 0.9, 7 at 0.8, 9 at 0.5, 12 at 0.4, 14 at 0.3
    assert [threshold_of_recall(TWO, n / 14) for n in (6, 7, 8, 9, 10, 12, 13, 14)] == [
        0.9, 0.8, 0.5, 0.5, 0.4, 0.4, 0.3, 0.3,
    ]  # fmt: skip
    assert threshold_of_recall(TWO, 0.0) == 0.999
    assert threshold_of_recall(TWO, 1.1) == 0.001  # cannot be reached
    lower = replace(TWO, threshold=threshold_of_recall(TWO, 10 / 14))
    assert lower.scores()["pooled"]["recall"] == pytest.approx(12 / 14)


def test_what_is_saved_is_read_again(tmp_path: Path) -> None:
    some = made(("liver", {0.9: (6, 1)}), (None, {0.2: (1, 4)}))
    some.save(tmp_path / "m.npz")
    again = Measurement.load(tmp_path / "m.npz")
    assert (again.ids, again.organs, again.groups) == (some.ids, some.organs, some.groups)
    assert (again.matches, again.threshold) == (some.matches, some.threshold)
    np.testing.assert_array_equal(again.positive, some.positive)
    np.testing.assert_array_equal(again.negative, some.negative)


def damaged(tmp_path: Path) -> Iterator[bytes]:
    """What a file of measurements becomes when a disk is full or bytes are lost."""
    TWO.save(tmp_path / "kept.npz")
    kept = (tmp_path / "kept.npz").read_bytes()
    yield from (b"", b"PK not a zip", kept[: len(kept) // 2], kept[:-1])
    for position in range(30, len(kept), 37):  # in names, headers, compressed numbers, the directory
        yield kept[:position] + bytes([kept[position] ^ 255]) + kept[position + 1 :]
    for changed in (
        {"ids": None},
        {"ids": np.array(["a"])},
        {"organs": np.array(["liver"])},
        {"positive": np.zeros((2, 3), np.int64)},
        {"negative": np.zeros((2, BINS), np.float64)},
        {"matches": np.zeros((2, 3))},
        {"matches": np.full((2, 4), np.nan)},
        {"threshold": np.zeros(2)},
        {"threshold": np.float64(np.nan)},
    ):
        with np.load(tmp_path / "kept.npz") as file:
            arrays = {name: value for name, value in (dict(file) | changed).items() if value is not None}
        np.savez_compressed(tmp_path / "other.npz", **arrays)
        yield (tmp_path / "other.npz").read_bytes()
    np.save(tmp_path / "array.npy", np.zeros(3))
    yield (tmp_path / "array.npy").read_bytes()


def test_a_damaged_file_is_named(tmp_path: Path) -> None:
    path, lines = tmp_path / "m.npz", []
    for content in damaged(tmp_path):
        path.write_bytes(content)
        try:
            again = Measurement.load(path)
        except HemalumError as error:
            lines.append(str(error))
        else:  # a byte that says nothing, such as a date
            assert again.scores() == TWO.scores()
    for line in lines:
        assert re.fullmatch(r".*m\.npz: cannot be read \(.+\); remove it and run again", line)
    assert len(lines) > 40


def test_a_model_on_images(tiny: Path, organs: Path) -> None:
    model = load_model(tiny)
    engine = as_engine("torch", model)
    part = Dataset.open(organs).split("test")
    measured = measure(model, part, engine)
    assert measured.ids == tuple(row.id for row in part.rows)
    for counts, sample in zip(measured.pixels, part, strict=True):
        _, probability = predict(sample, model, engine)
        predicted, true = probability >= 0.5, sample.instances > 0
        assert counts.tp == np.count_nonzero(predicted & true)
        assert counts.fp == np.count_nonzero(predicted & ~true)
        assert counts.fn == np.count_nonzero(~predicted & true)
    assert measure(model.with_threshold(0.3), part, engine).threshold == 0.3


def test_ambiguous_pixels_count_nowhere_when_left_out(tiny: Path, organs: Path, tmp_path: Path) -> None:
    data = Dataset.open(shutil.copytree(organs, tmp_path / "organs"))
    mask = np.zeros((48, 48), np.uint8)
    mask[:, 20:] = 255
    Image.fromarray(mask).save(tmp_path / "organs" / "mask.png")
    part = replace(data, rows=tuple(replace(row, ambiguous="mask.png") for row in data.split("val").rows))
    model = load_model(tiny)
    engine = as_engine("torch", model)
    measured = measure(model, part, engine, leave_out_ambiguous=True)
    counted = measure(model, part, engine)
    for counts, everything, sample in zip(measured.pixels, counted.pixels, part, strict=True):
        _, probability = predict(sample, model, engine)
        predicted, true = (probability >= 0.5)[:, :20], (sample.instances > 0)[:, :20]
        assert (counts.tp, counts.fp) == (np.count_nonzero(predicted & true), np.count_nonzero(predicted & ~true))
        assert (counts.fn, counts.tp + counts.fp + counts.fn + counts.tn) == (
            np.count_nonzero(~predicted & true),
            960,
        )
        assert everything.tp + everything.fp + everything.fn + everything.tn == 48 * 48
    for sample, matches in zip(part, measured.matches, strict=True):
        assert matches.tp + matches.fn == len(np.unique(sample.instances[:, :20][sample.instances[:, :20] > 0]))


def test_a_model_is_told_the_organ_of_an_image(tiny: Path, organs: Path) -> None:
    model = load_model(tiny)
    assert model.card.organs == ["brain", "liver"]
    assert model_for_organ(model, "Liver").organ == 1
    assert model_for_organ(model, "kidney").organ == -1
    assert model_for_organ(model, None).organ == -1
    engine = as_engine("torch", model)
    sample = Dataset.open(organs)[0]
    liver, brain = (predict(replace(sample, organ=organ), model, engine)[1] for organ in ("liver", "brain"))
    assert not np.array_equal(liver, brain)
