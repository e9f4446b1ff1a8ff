"""Thresholds for a target recall: the guarantee by simulation, by hand, in the card, and where they are used."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import hemalum
from hemalum import cli
from hemalum.data.dataset import Dataset
from hemalum.errors import HemalumError
from hemalum.experiments.calibrate import (
    BINS,
    calibrate,
    conformal_threshold,
    group_recalls,
    held_out_recalls,
    least_groups,
    nine_in_ten,
)
from hemalum.experiments.evaluate import evaluate
from hemalum.experiments.measurement import Measurement, predict
from hemalum.inference.segment import as_engine
from hemalum.metrics import MatchCounts
from hemalum.models.card import RecallCalibration, RecallThreshold
from hemalum.models.model import load_model
from hemalum.nuclei.settings import SeparationSettings


def made(*images: tuple[str, str | None, list[float]]) -> Measurement:
    """Images by group and organ, each with the probabilities of its nucleus pixels."""
    positive = np.stack([np.bincount((np.array(p) * BINS).astype(int), minlength=BINS) for *_, p in images])
    return Measurement(
        ids=tuple(map(str, range(len(images)))),
        organs=tuple(organ for _, organ, _ in images),
        groups=tuple(group for group, _, _ in images),
        positive=positive.astype(np.int64),
        negative=np.zeros((len(images), BINS), np.int64),
        matches=(MatchCounts(1, 0, 0, 0.8),) * len(images),
        threshold=0.5,
    )


def falling(rng: np.random.Generator, groups: int) -> np.ndarray:
    """Recalls of groups by threshold: each finds what lies above a difficulty of its own."""
    difficulty = rng.beta(2, 3, (groups, 40))
    return (difficulty[:, :, None] >= np.arange(BINS) / BINS).mean(axis=1)


def test_recall_of_a_group_is_the_mean_over_its_images() -> None:
    measured = made(
        ("a", "liver", [0.205, 0.405, 0.605, 0.805]),
        ("a", "brain", [0.905]),
        ("b", "liver", [0.305, 0.505]),
        ("c", None, []),  # no nucleus: no recall
    )
    recalls = group_recalls(measured)
    assert recalls.shape == (2, BINS)
    assert recalls[:, [200, 300, 500, 700, 950]].tolist() == [
        pytest.approx([1, (0.75 + 1) / 2, (0.5 + 1) / 2, (0.25 + 1) / 2, 0]),
        pytest.approx([1, 1, 0.5, 0, 0]),
    ]
    assert group_recalls(measured, "brain")[0, 900] == 1
    assert group_recalls(measured, "brain")[0, 906] == 0


def test_the_threshold_by_hand() -> None:
    # four groups; at k they miss (k - 100) / 100 each, from 100 on
    recalls = np.tile(1 - np.clip((np.arange(BINS) - 100) / 100, 0, 1), (4, 1))
    # (4 m + 1) / 5 <= 0.5  where  m <= 0.375: k = 137
    assert conformal_threshold(recalls, 0.5) == 137
    assert conformal_threshold(recalls, 0.8) == 100  # (0 + 1) / 5 is the least that four groups can say
    assert conformal_threshold(recalls, 0.81) is None
    assert [least_groups(target) for target in (0.5, 0.8, 0.9, 0.95)] == [1, 4, 9, 19]
    assert conformal_threshold(np.zeros((50, BINS)), 0.9) is None  # a model that finds nothing


@pytest.mark.parametrize("target", [0.8, 0.9])
def test_a_new_group_keeps_the_target_in_expectation(target: float) -> None:
    """Over many draws of images to set it on; without the correction for their number it falls short."""
    rng = np.random.default_rng(0)
    kept, naive = [], []
    for _ in range(400):
        recalls = falling(rng, 13)
        seen, new = recalls[:-1], recalls[-1]
        index = conformal_threshold(seen, target)
        assert index is not None
        kept.append(new[index])
        naive.append(new[np.flatnonzero(seen.mean(axis=0) >= target)[-1]])
    error = 2 * np.std(kept) / len(kept) ** 0.5
    assert np.mean(kept) >= target - error
    assert np.mean(kept) <= target + 2 / 13 + error  # and no more than the theorem gives away
    assert np.mean(naive) < np.mean(kept)


def test_what_is_said_of_groups_is_of_groups_left_out() -> None:
    rng = np.random.default_rng(1)
    recalls = falling(rng, 25)
    values = held_out_recalls(recalls, 0.9)
    for group in range(25):
        index = conformal_threshold(np.delete(recalls, group, axis=0), 0.9)
        assert values[group] == recalls[group, index]
    together = recalls[:, conformal_threshold(recalls, 0.9)]
    assert not np.array_equal(values, together)  # and not at the threshold that all give
    assert nine_in_ten(np.arange(19.0)) == 1  # rank 2 of 19: one of the 20 places lies below the first
    assert nine_in_ten(np.arange(8.0)) is None


def test_with_as_few_groups_as_a_guarantee_takes_nothing_is_said_of_one_left_out() -> None:
    recalls = falling(np.random.default_rng(1), 9)
    assert conformal_threshold(recalls, 0.9) is not None
    assert np.isnan(held_out_recalls(recalls, 0.9)).all()
    limit = RecallThreshold(threshold=0.3, groups=9)
    assert limit.known == "9 groups, too few to say what a group left out keeps"


@pytest.mark.fault
def test_too_few_groups_or_too_weak_a_model(dark_model: Path, organs: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.safetensors"
    with pytest.raises(
        HemalumError,
        match=r"part 'val': 4 groups of images with nuclei cannot guarantee a recall of 0\.9: it takes 9; give more",
    ):
        calibrate(dark_model, organs, out, recall=0.9, engine="torch")
    with pytest.raises(HemalumError, match=r"recall is 1\.0: want at least 0\.5 and less than 1"):
        calibrate(dark_model, organs, out, recall=1.0)
    with pytest.raises(HemalumError, match="split 'train': a threshold is set on val or test"):
        calibrate(dark_model, organs, out, split="train")
    with pytest.raises(HemalumError, match="thresholds by organ are for a recall: leave them out"):
        calibrate(dark_model, organs, out, recall=None, by_organ=True)
    assert not out.exists()


@pytest.fixture(scope="module")
def calibrated(tiny: Path, organs: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny ClinSegNet with thresholds for a recall of 0.75; and for 0.6, by organ."""
    path = tmp_path_factory.mktemp("calibrated") / "model.safetensors"
    calibrate(tiny, organs, path, recall=0.75, engine="torch")
    calibrate(path, organs, path, recall=0.6, by_organ=True, engine="torch")
    return path


def test_the_card_holds_the_thresholds(calibrated: Path, tiny: Path, organs: Path) -> None:
    before, card = load_model(tiny), load_model(calibrated).card
    assert load_model(calibrated).digest == before.digest
    assert card.model_copy(update={"recall": [], "calibration": None}) == before.card
    lower, higher = card.recall
    assert (lower.target, higher.target) == (0.6, 0.75)
    assert [one.organ for one in higher.thresholds] == [None]
    data = Dataset.open(organs)
    assert (higher.data, higher.split, higher.split_hash) == ("organs", "val", data.split_hash)
    counts = {organ: sum(row.organ == organ for row in data.split("val").rows) for organ in ("brain", "liver")}
    assert {one.organ for one in lower.thresholds[1:]} | set(lower.too_few) == {"brain", "liver"}
    assert set(lower.too_few) == {organ for organ, count in counts.items() if count < least_groups(0.6)}
    assert lower.thresholds[0].threshold >= higher.thresholds[0].threshold
    # by definition, on the images themselves
    engine = as_engine("torch", before)
    missed = []
    for sample in data.split("val"):
        probability = predict(sample, before, engine)[1]
        missed.append(1 - (probability[sample.instances > 0] >= higher.thresholds[0].threshold).mean())
    assert (sum(missed) + 1) / (len(missed) + 1) <= 0.25 + 1e-6
    few = least_groups(lower.target)
    for one in lower.thresholds:
        assert (one.recall is None) == (one.groups == few)  # one less is too few to set a threshold by
        assert one.recall is None or one.low <= one.recall <= one.high


def test_the_card_holds_the_temperature_of_all_pixels(calibrated: Path, tiny: Path, organs: Path) -> None:
    """By a grid over the pixels one by one; thresholds of an earlier call stay."""
    model, data = load_model(calibrated), Dataset.open(organs)
    made = model.card.calibration
    assert made is not None
    part = data.split("val")
    assert (made.data, made.split, made.split_hash, made.images) == ("organs", "val", data.split_hash, len(part))
    engine = as_engine("torch", load_model(tiny))
    stated = np.concatenate([predict(sample, model, engine)[1].ravel() for sample in part]).astype(np.float64)
    truth = np.concatenate([(sample.instances > 0).ravel() for sample in part])
    odds = np.log(stated) - np.log1p(-stated)
    grid = np.geomspace(0.05, 20, 600)
    losses = [np.logaddexp(0, np.where(truth, -odds, odds) / t).mean() for t in grid]
    assert made.temperature == pytest.approx(float(grid[np.argmin(losses)]), rel=0.03)
    assert made.nll_after == pytest.approx(min(losses), abs=1e-3)
    assert made.nll_before == pytest.approx(np.logaddexp(0, np.where(truth, -odds, odds)).mean(), abs=1e-3)
    assert made.nll_after <= made.nll_before
    bins = np.minimum((stated * 15).astype(int), 14)
    error = sum(abs((stated - truth)[bins == b].sum()) for b in range(15)) / stated.size
    assert made.ece_before == pytest.approx(error, abs=5e-3)


def test_a_temperature_needs_no_guarantee(
    dark_model: Path, organs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Four groups are too few for a recall of 0.95 (the default), and enough for this."""
    out = tmp_path / "out.safetensors"
    line = ["calibrate", str(dark_model), str(organs), "-o", str(out), "--temperature-only", "--engine", "torch"]
    assert cli.main(line) == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert "temperature " in shown
    assert "fitted on organs (val, 4 images): calibration error 0." in shown
    card = load_model(out).card
    assert card.recall == []
    assert card.calibration is not None
    assert cli.main([*line, "--recall", "0.7"]) == 2
    assert "--temperature-only sets no threshold: leave out --recall and --by-organ" in capsys.readouterr().err


@pytest.mark.fault
def test_an_image_is_segmented_at_the_threshold(calibrated: Path, organs: Path) -> None:
    model = load_model(calibrated)
    sample = Dataset.open(organs).split("test")[0]
    target = model.card.recall[0]
    threshold = target.of("liver")
    nuclei = hemalum.segment(sample.image, model, mpp=0.5, organ="liver", recall=0.6, engine="torch")
    by_hand = model.with_organ("liver").with_threshold(threshold.threshold)
    expected = hemalum.segment(sample.image, by_hand, mpp=0.5, engine="torch")
    np.testing.assert_array_equal(nuclei.label_map(), expected.label_map())
    assert nuclei.notes["threshold"].startswith(f"{threshold.threshold:g} for a recall of 0.6, set on organs (")
    assert threshold.known in nuclei.notes["threshold"]
    assert "threshold" not in expected.notes
    with pytest.raises(HemalumError, match=r"has no threshold for a recall of 0\.9 \(it has 0\.6, 0\.75\)"):
        hemalum.segment(sample.image, model, mpp=0.5, recall=0.9, engine="torch")


@pytest.mark.fault
def test_a_dataset_is_scored_at_the_thresholds_of_its_organs(calibrated: Path, organs: Path) -> None:
    model = load_model(calibrated)
    card = model.card.recall[0]
    first = card.thresholds[0]
    split = [first, *(first.model_copy(update={"organ": organ, "threshold": t}) for organ, t in TWO_ORGANS.items())]
    changed = model.card.model_copy(update={"recall": [card.model_copy(update={"thresholds": split})]})
    model = type(model)(changed, model.tensors)
    part = Dataset.open(organs).split("test")
    result = evaluate(model, part, split=None, engine="torch", recall=0.6)
    assert result.summary["threshold"].startswith(f"{first.threshold:g} for a recall of 0.6")
    for sample, row in zip(part, result.per_image, strict=True):
        by_hand = load_model(calibrated).with_threshold(TWO_ORGANS[sample.organ])
        alone = evaluate(by_hand, [sample], engine="torch")
        assert row["recall"] == alone.per_image[0]["recall"]
    with pytest.raises(HemalumError, match=r"recall 0\.6 names a threshold of a model, and 'classical' has none"):
        evaluate("classical", part, split=None, recall=0.6)


TWO_ORGANS = {"liver": 0.545, "brain": 0.53}  # the first changes what the model gives


@pytest.mark.fault
def test_thresholds_by_organ_need_a_model_that_knows_organs(dark_model: Path, organs: Path, tmp_path: Path) -> None:
    with pytest.raises(HemalumError, match="model 'dark' tells no organs apart: leave out the thresholds by organ"):
        calibrate(dark_model, organs, tmp_path / "out.safetensors", by_organ=True)


def test_no_nucleus_above_the_threshold_is_dropped_for_its_probability(dark_model: Path) -> None:
    model = load_model(dark_model)
    strict = SeparationSettings(foreground=0.5, min_probability=0.6)
    changed = type(model)(model.card.model_copy(update={"separation": strict}), model.tensors).with_threshold(0.2)
    assert changed.card.separation.min_probability == 0.2
    assert changed.with_threshold(0.7).card.separation.min_probability == 0.6  # the file's own, as if set at once


def test_the_command_line(calibrated: Path, organs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "again.safetensors"
    line = ["calibrate", str(calibrated), str(organs), "-o", str(out), "--recall", "0.7", "--engine", "torch"]
    assert cli.main(line) == 0
    shown = capsys.readouterr().out
    assert "0.7 on organs (val): threshold 0." in shown
    assert "95 % interval" in shown
    assert "precision" in shown
    assert "log loss" in shown
    Image.fromarray(Dataset.open(organs)[0].image).save(tmp_path / "tile.png")
    results = tmp_path / "results"
    line = ["segment", str(tmp_path / "tile.png"), "-m", str(out), "--mpp", "0.5", "--recall", "0.7", "-o"]
    assert cli.main([*line, str(results), "--engine", "torch", "--report"]) == 0
    page = (results / "summary.html").read_text(encoding="utf-8")
    assert "for a recall of 0.7, set on organs" in page


@pytest.mark.fault
def test_a_slide_says_its_threshold(calibrated: Path, organs: Path, tmp_path: Path) -> None:
    image = np.tile(Dataset.open(organs)[0].image, (3, 3, 1))
    Image.fromarray(image).save(tmp_path / "slide.png")
    store = hemalum.segment_slide(
        tmp_path / "slide.png", tmp_path / "out", calibrated, mpp=0.5, recall=0.75, engine="torch", tissue_mask=False
    )
    note = store.notes["threshold"]
    assert "for a recall of 0.75, set on organs (all images" in note
    assert json.loads(json.dumps(store.run.settings))["threshold"] == note
    with pytest.raises(HemalumError, match=r"holds the nuclei of another run \(settings.threshold is"):
        hemalum.segment_slide(
            tmp_path / "slide.png", tmp_path / "out", calibrated, mpp=0.5, recall=0.6, engine="torch",
            tissue_mask=False,
        )  # fmt: skip


def test_an_organ_with_a_higher_threshold_drops_what_it_dropped_without_the_general_one() -> None:
    """`evaluate` sets the general threshold and then each image's organ, `segment` the organ at once."""

    def at(threshold: float, organ: str | None) -> RecallThreshold:
        return RecallThreshold(organ=organ, threshold=threshold, groups=9)

    calibration = RecallCalibration(
        target=0.9, data="d", split="val", split_hash="0", thresholds=[at(0.2, None), at(0.45, "liver")],
        precision=0.5, precision_before=0.5, nuclei=0.5, nuclei_before=0.5,
    )  # fmt: skip
    model = load_model("fast")
    separation = model.card.separation.model_copy(update={"foreground": 0.5, "min_probability": 0.4})
    update = {"organs": ["liver", "lung"], "recall": [calibration], "separation": separation}
    model = replace(model, card=model.card.model_copy(update=update))
    at_once, in_turn = model.with_organ("liver").with_recall(0.9), model.with_recall(0.9).with_organ("liver")
    assert at_once.card == in_turn.card
    assert (in_turn.card.separation.foreground, in_turn.card.separation.min_probability) == (0.45, 0.4)
    lung = model.with_recall(0.9).with_organ("lung").card.separation
    assert (lung.foreground, lung.min_probability) == (0.2, 0.2)
