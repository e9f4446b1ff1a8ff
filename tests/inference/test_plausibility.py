"""Who compares a stated scale with the nuclei, how often, and by which numbers."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from hemalum.data.sample import Sample
from hemalum.experiments.segmenters import model_segmenter, segment_with_scores
from hemalum.inference import plausibility
from hemalum.inference.batch import segment_paths
from hemalum.inference.plausibility import AGREED, ODD, UNSURE, VERY_ODD, ScaleCheck, SeenNuclei
from hemalum.inference.scale import Scale, ScaleEstimate
from hemalum.inference.segment import segment, segment_source
from hemalum.inference.staining import Staining
from hemalum.models.card import Card
from hemalum.models.model import Model
from hemalum.slides.slide import Slide

Disks = Callable[..., NDArray[np.uint8]]


@pytest.fixture
def disk_model(disk_card: Card) -> Model:
    return Model(disk_card, {"nothing": np.zeros(1, np.float32)})


@pytest.fixture
def compared(monkeypatch: pytest.MonkeyPatch) -> list[SeenNuclei]:
    """What was seen in each image that is compared; nothing speaks against any scale."""
    seen: list[SeenNuclei] = []

    def compare(*arguments: Any) -> float:
        seen.append(arguments[-1])
        return 0.0

    monkeypatch.setattr(plausibility, "octaves_apart", compare)
    return seen


def test_scoring_compares_no_scale(
    make_disks: Disks, disk_model: Model, home_engine: Any, compared: list[SeenNuclei]
) -> None:
    image = make_disks(200, 200, diameter=16)
    sample = Sample(image, np.zeros((200, 200), np.int32), id="a", source="a", group="a", mpp=0.98)
    model_segmenter(disk_model, home_engine, None, [], None, False).segmenter(sample)
    segment_with_scores(image, disk_model, home_engine, mpp=0.98)
    assert compared == []
    segment(image, disk_model, mpp=0.98, engine=home_engine)
    assert len(compared) == 1


@pytest.mark.parametrize("keep", [None, {"min_area_um2": 1.0}, {"min_area_um2": 1e4}])
@pytest.mark.parametrize("verb", ["segment", "segment_paths"])
def test_images_that_agree_are_enough_whatever_is_kept(
    verb: str,
    keep: Any,
    make_disks: Disks,
    disk_model: Model,
    home_engine: Any,
    compared: list[SeenNuclei],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    monkeypatch.setattr(SeenNuclei, "is_odd", lambda _, octaves=ODD, sure=0: octaves == ODD)
    images = [make_disks(100, 100, diameter=16, seed=number) for number in range(AGREED + 2)]
    if verb == "segment":
        segment(images, disk_model, mpp=0.5, engine=home_engine, keep=keep)
    else:
        for number, image in enumerate(images):
            Image.fromarray(image).save(tmp_path / f"{number}.png")
        list(segment_paths([tmp_path], tmp_path / "out", ["csv"], disk_model, mpp=0.5, engine=home_engine, keep=keep))
    assert len(compared) == AGREED


@pytest.mark.parametrize("roi", [None, "0,0,120,200"])
def test_a_filter_changes_nothing_of_what_is_seen(
    roi: str | None, make_disks: Disks, disk_model: Model, home_engine: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    image = make_disks(200, 200, diameter=16)
    image[:, 150:] = (30, 60, 220)  # a pen
    seen: list[SeenNuclei] = []
    monkeypatch.setattr(ScaleCheck, "doubt", lambda *arguments, artifacts: seen.append(arguments[-1]) or "")
    options: dict[str, Any] = {"mpp": 0.5, "engine": home_engine, "roi": roi}
    everything = segment(image, disk_model, **options)
    median = float(np.median(everything.table["area_um2"].to_numpy()))
    some = segment(image, disk_model, **options, keep={"min_area_um2": median + 0.1})
    segment(image, disk_model, **options, keep={"min_area_um2": 1e4})
    assert 0 < some.count < everything.count
    assert everything.area_mm2 is not None
    assert everything.area_mm2 < 200 * 200 * 0.25e-6
    assert seen[0] == seen[1] == seen[2]
    assert (seen[0].count, seen[0].per_mm2) == (everything.count, everything.density_per_mm2)


def test_without_a_check_no_doubt_is_noted(make_disks: Disks, disk_model: Model, home_engine: Any) -> None:
    source = Slide.of(make_disks(420, 420, diameter=16))
    assert "scale_doubt" not in segment_source(source, disk_model, home_engine, mpp=0.98).notes
    doubted = segment_source(source, disk_model, home_engine, mpp=0.98, scale_check=ScaleCheck())
    assert "scale_doubt" in doubted.notes


# 5.13 µm and 4,500 per mm² are usual; octaves are 0.92 of those of the diameter less 0.21 of those of the density
@pytest.mark.parametrize(
    ("diameter_um", "per_mm2", "probability", "odd", "very_odd"),
    [
        (5.13, 4500, 0.95, False, False),
        (10.26, 1125, 0.95, True, True),  # as at half the scale: 0.92 + 0.42
        (2.565, 18_000, 0.95, True, True),  # as at twice the scale
        (6.93, 4500, 0.95, False, False),  # 0.92 · 0.434 = 0.399
        (6.94, 4500, 0.95, True, False),  # 0.401
        (6.94, 9000, 0.95, False, False),  # 0.401 - 0.21
        (8.68, 4500, 0.95, True, False),  # 0.92 · 0.759 = 0.698
        (8.71, 4500, 0.95, True, True),  # 0.703
        (5.13, 16_800, 0.95, False, False),  # 0.21 · 1.900 = 0.399
        (5.13, 16_900, 0.95, True, False),  # 0.401
        (5.13, 1190, 0.95, True, False),  # 0.21 · 1.919 = 0.403
        (5.13, 4500, 0.88, False, False),
        (5.13, 4500, 0.87, True, False),
        (5.13, 4500, 0.85, True, True),
    ],
)
def test_what_is_odd(diameter_um: float, per_mm2: float, probability: float, odd: bool, very_odd: bool) -> None:
    seen = SeenNuclei(5, diameter_um, per_mm2, probability)
    assert (seen.is_odd(), seen.is_odd(VERY_ODD, UNSURE)) == (odd, very_odd)
    assert SeenNuclei(4, diameter_um, per_mm2, probability).is_odd(VERY_ODD, UNSURE)  # too few


@pytest.mark.parametrize(
    ("estimated", "larger_there", "count", "larger", "octaves"),
    [
        # 0.8 of the estimate's octaves and 0.48 of the size's, but no less than the estimate's
        (0.5, 1.0, 5, 1.0, 0.0),
        (0.25, 1.0, 5, 1.0, -1.0),
        (1.0, 1.0, 5, 1.0, 1.0),
        (0.25, 1.0, 5, 2.0, -1.28),
        (1.0, 1.0, 5, 0.5, 1.28),
        (0.25, 1.0, 5, 0.5, -1.0),  # -0.8 + 0.48: a usual size is no excuse
        (0.5, 1.0, 5, 2.0, -0.48),
        (0.25, 1.0, 5, 4.0, -1.76),
        # too few at the stated scale: the size at the estimated one
        (0.25, 2.0, 4, 1.0, -1.48),
        (0.25, 0.5, 4, 1.0, -0.52),
        (0.25, 1.0, 0, math.nan, -1.0),
    ],
)
def test_octaves_of_estimate_and_size(
    disk_model: Model, monkeypatch: pytest.MonkeyPatch,
    estimated: float, larger_there: float, count: int, larger: float, octaves: float,
) -> None:  # fmt: skip
    usual = disk_model.card.nucleus_diameter_um
    estimate = ScaleEstimate(estimated, 0.9, 20, usual * larger_there, {})
    monkeypatch.setattr(plausibility, "summit", lambda *_: estimate)
    seen = SeenNuclei(count, usual * larger, 4500, 0.9)
    assert plausibility._octaves([], disk_model, 0.5, seen) == pytest.approx(octaves)


def test_without_an_estimate_nothing_is_told(disk_model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plausibility, "summit", lambda *_: None)
    assert plausibility._octaves([], disk_model, 0.5, SeenNuclei(9, 5.0, 4500, 0.9)) is None


@pytest.mark.parametrize(
    ("factor", "doubted"),
    [(1.0, False), (1.5, False), (1.59, False), (1.61, True), (1.7, True), (4.0, True)],
)
@pytest.mark.parametrize("sign", [1, -1])
def test_the_limit_of_doubt_is_1_6_times(
    make_disks: Disks, disk_model: Model, home_engine: Any, monkeypatch: pytest.MonkeyPatch,
    factor: float, doubted: bool, sign: int,
) -> None:  # fmt: skip
    monkeypatch.setattr(plausibility, "octaves_apart", lambda *_: sign * math.log2(factor))
    source, staining = Slide.of(make_disks(100, 100, diameter=16)), Staining("he", "set")
    doubt = ScaleCheck().doubt(source, disk_model, home_engine, Scale(0.5, "user"), staining)
    assert bool(doubt) == doubted


@pytest.mark.parametrize(("rough", "scales"), [(0.47, 5), (0.49, 11), (-0.47, 5), (-0.49, 11)])
def test_half_of_the_scales_are_enough_where_they_agree(
    make_disks: Disks, disk_model: Model, home_engine: Any, monkeypatch: pytest.MonkeyPatch, rough: float, scales: int
) -> None:
    tried: list[float] = []  # log2(1.6) - 0.2 = 0.478

    def try_scales(_: Any, assumed: Any, *__: Any) -> list[float]:
        tried.extend(assumed)
        return []

    monkeypatch.setattr(plausibility, "try_scales", try_scales)
    monkeypatch.setattr(plausibility, "_octaves", lambda *_: rough)
    source, staining = Slide.of(make_disks(100, 100, diameter=16)), Staining("he", "set")
    seen = SeenNuclei(9, 5.0, 4500, 0.9)
    assert plausibility.octaves_apart(source, disk_model, home_engine, 0.5, staining, seen) == rough
    assert len(tried) == len(set(tried)) == scales
