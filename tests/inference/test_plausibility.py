"""Who compares a stated scale with the nuclei, how often, and by which numbers."""

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
from hemalum.inference.plausibility import AGREED, ODD, ScaleCheck, SeenNuclei
from hemalum.inference.segment import segment, segment_source
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
