"""The stain of an image where a model is used: what the network is shown, what is measured, and what is doubted."""

import logging
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
import tifffile
from numpy.typing import NDArray
from scipy import ndimage

from builders.grids import cut_smaller
from hemalum.data.stain.he_appearance import NUCLEAR_SHARE, FluorescenceMap, HdabMap, find_hdab
from hemalum.data.stain.normalization import sample_image
from hemalum.errors import HemalumError
from hemalum.inference import nuclear_marker
from hemalum.inference.batch import segment_paths
from hemalum.inference.scale import estimate_mpp
from hemalum.inference.segment import segment
from hemalum.inference.staining import check_stain, find_staining
from hemalum.models.card import Card
from hemalum.models.model import Model
from hemalum.nuclei import dab as dab_module
from hemalum.nuclei.dab import dab
from hemalum.nuclei.settings import SeparationSettings
from hemalum.slides.slide import Slide
from hemalum.targets.representations import find_representation

Image = NDArray[np.uint8]
HEMATOXYLIN, EOSIN, DAB = np.array([[0.65, 0.70, 0.29], [0.07, 0.99, 0.11], [0.27, 0.57, 0.78]])


@pytest.fixture(scope="module")
def model(disk_card: Card) -> Model:
    separation = SeparationSettings(min_area=12, foreground=0.4)
    return Model(disk_card.model_copy(update={"separation": separation}), {})


@pytest.fixture(scope="module")
def cells(make_disks: Callable[..., Image]) -> NDArray[np.int32]:
    """Label map of round nuclei that do not touch, 240 × 280 px."""
    labels, _ = ndimage.label(make_disks(240, 280, 16, seed=5)[..., 0] < 100)
    return labels.astype(np.int32)


def colored(blue: Any, brown: Any, pink: Any = 0.0, seed: int = 0) -> Image:
    """An image from amounts of the stains (H, W), optical density."""
    blue, brown, pink = np.broadcast_arrays(blue, brown, pink)
    density = blue[..., None] * HEMATOXYLIN + brown[..., None] * DAB + pink[..., None] * EOSIN
    noise = np.random.default_rng(seed).normal(0, 1.5, density.shape)
    return np.clip(np.rint(248 * 10**-density + noise), 0, 255).astype(np.uint8)


def ihc(cells: NDArray[np.int32], kind: Literal["nuclear", "membranous", "none"]) -> Image:
    """Blue nuclei; every third one brown instead, or brown membranes and plasma around all of them, or no DAB."""
    nuclei, varied = cells > 0, np.random.default_rng(1).uniform(0.85, 1.15, (2, *cells.shape))
    blue = np.where(nuclei, 0.6, 0.0) * varied[0]
    if kind == "none":
        return colored(blue, 0.0)
    if kind == "nuclear":
        brown = np.where(nuclei & (cells % 3 == 0), 0.9, 0.0) * varied[1]
        return colored(np.where(brown > 0, 0.1, blue), brown)
    away = ndimage.distance_transform_edt(~nuclei)
    return colored(blue, np.where((away > 0) & (away < 9), 1.4, 0.0) * varied[1])


def test_brown_ground_is_not_shown(cells: NDArray[np.int32], model: Model, disk_engine: Any) -> None:
    image = ihc(cells, "membranous")
    result = segment(image, model, mpp=0.5, engine=disk_engine)
    assert result.notes["stain"] == "hdab"
    assert result.notes["stain_source"] == "recognized"
    assert result.notes["network_input"] == "hematoxylin and DAB of the image; DAB taken out"
    assert result.count == cells.max()
    plain = segment(image, model, mpp=0.5, stain="he", engine=disk_engine)
    assert plain.count < result.count / 2  # the brown joins them
    change = HdabMap(find_hdab(sample_image(image)))
    by_hand = segment(change.apply(image), model, mpp=0.5, stain="he", engine=disk_engine)
    np.testing.assert_array_equal(result.outlines.coords, by_hand.outlines.coords)


def test_measured_is_the_image_as_it_is(cells: NDArray[np.int32], model: Model, disk_engine: Any) -> None:
    image = ihc(cells, "nuclear")
    result = segment(image, model, mpp=0.5, positive=0.2, engine=disk_engine)
    labels, amount = result.label_map(), dab(image)
    means = ndimage.mean(amount, labels, np.arange(1, result.count + 1))
    np.testing.assert_allclose(result.table["dab_mean"].to_numpy(), means, atol=1e-4)
    assert result.positive_share == pytest.approx(1 / 3, abs=0.05)


def test_brown_nuclei_are_found_where_the_marker_is_nuclear(
    cells: NDArray[np.int32], model: Model, disk_engine: Any
) -> None:
    result = segment(ihc(cells, "nuclear"), model, mpp=0.5, engine=disk_engine)
    assert result.count == cells.max()
    assert f"a nuclear marker: {NUCLEAR_SHARE:g} of DAB shown as hematoxylin" in result.notes["network_input"]


def test_where_all_nuclei_are_brown_there_is_nothing_to_lose(
    cells: NDArray[np.int32], model: Model, disk_engine: Any
) -> None:
    brown = np.where(cells > 0, 0.9, 0.0) * np.random.default_rng(0).uniform(0.85, 1.15, cells.shape)
    result = segment(colored(0.0, brown), model, mpp=0.5, stain="hdab", engine=disk_engine)
    assert result.count == cells.max()
    assert "a nuclear marker" in result.notes["network_input"]


def test_without_dab_nothing_is_added(cells: NDArray[np.int32], model: Model, disk_engine: Any) -> None:
    result = segment(ihc(cells, "none"), model, mpp=0.5, positive=0.2, engine=disk_engine)
    assert result.count == cells.max()
    assert result.positive_share == 0
    assert "DAB taken out" in result.notes["network_input"]
    assert result.notes["stain_doubt"] == "it has no DAB"


@pytest.mark.parametrize("kind", ["nuclear", "membranous"])
def test_windows_and_bands_change_nothing(
    kind: Any,
    cells: NDArray[np.int32],
    model: Model,
    disk_engine: Any,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    image = ihc(cells, kind)
    reference = segment(image, model, mpp=0.4, positive="0.2,0.4,0.6", engine=disk_engine)
    assert reference.count > 30
    monkeypatch.setattr(dab_module, "BAND_AREA", 3_000)
    with cut_smaller():
        cut = segment(image, model, mpp=0.4, positive="0.2,0.4,0.6", engine=disk_engine)
    path = tmp_path / "strips.tif"
    tifffile.imwrite(path, image, rowsperstrip=7, compression="zlib", photometric="rgb")
    read = segment(path, model, mpp=0.4, positive="0.2,0.4,0.6", engine=disk_engine)
    for other in (cut, read):
        assert other.table.equals(reference.table)
        assert {**other.notes} == {**reference.notes}


def shining(cells: NDArray[np.int32]) -> Image:
    return np.repeat(np.where(cells > 0, 90, 6).astype(np.uint8)[..., None], 3, axis=2)


def test_fluorescence_is_inverted(cells: NDArray[np.int32], model: Model, disk_engine: Any) -> None:
    image = shining(cells)
    result = segment(image, model, mpp=0.5, engine=disk_engine)
    assert (result.notes["stain"], result.count) == ("fluorescence", cells.max())
    by_hand = FluorescenceMap.of(sample_image(image)).apply(image)
    same = segment(by_hand, model, mpp=0.5, stain="he", engine=disk_engine)
    np.testing.assert_array_equal(result.outlines.coords, same.outlines.coords)
    assert "dab_mean" not in result.table.column_names


def test_a_model_of_the_stain_sees_it_as_it_is(cells: NDArray[np.int32], model: Model, disk_engine: Any) -> None:
    native = replace(model, card=model.card.model_copy(update={"native_stains": ["hdab", "fluorescence"]}))
    for image in (ihc(cells, "membranous"), shining(cells)):
        result = segment(image, native, mpp=0.5, engine=disk_engine)
        assert result.notes["network_input"] == "as it is"
        plain = segment(image, model, mpp=0.5, stain="he", engine=disk_engine)
        np.testing.assert_array_equal(result.outlines.coords, plain.outlines.coords)
        assert ("dab_mean" in result.table.column_names) == (result.notes["stain"] == "hdab")


def test_classes_of_another_stain_are_marked(
    cells: NDArray[np.int32], model: Model, caplog: pytest.LogCaptureFixture
) -> None:
    def doubt(image: Image, **card: Any) -> str | None:
        classified = replace(model, card=model.card.model_copy(update={"classes": ["round", "long"], **card}))
        with Slide.of(image) as source:
            return find_staining(source, classified).notes.get("class_doubt")

    pink = colored(np.where(cells > 0, 0.6, 0.0), 0, 0.2)
    assert doubt(pink) is None
    assert doubt(ihc(cells, "nuclear"), native_stains=["hdab"]) is None
    assert not caplog.messages
    expected = f"model '{model.card.name}' learned its classes on H&E, not on H-DAB"
    assert doubt(ihc(cells, "nuclear")) == expected
    assert caplog.messages == [f"image: {expected}: they are marked"]
    assert doubt(shining(cells)) == f"model '{model.card.name}' learned its classes on H&E, not on fluorescence"


@pytest.mark.parametrize(
    ("written", "stain"),
    [
        ("H&E", "he"),
        ("HE", "he"),
        ("H-DAB", "hdab"),
        ("h dab", "hdab"),
        ("Fluorescence", "fluorescence"),
        ("Auto", "auto"),
    ],
)
def test_stains_as_they_are_written(written: str, stain: str) -> None:
    assert check_stain(written) == stain


def test_the_scale_is_estimated_on_what_the_network_is_shown(
    cells: NDArray[np.int32], model: Model, home_engine: Any
) -> None:
    image = ihc(cells, "membranous")
    shown = HdabMap(find_hdab(sample_image(image))).apply(image)
    result = estimate_mpp(Slide.of(image), model, home_engine)
    by_hand = estimate_mpp(Slide.of(shown), model, home_engine, find_staining(Slide.of(shown), model, "he"))
    assert abs(np.log2(result.mpp / by_hand.mpp)) < 0.1


# doubts and mistakes


@pytest.mark.parametrize(
    ("kind", "stain", "doubt"),
    [
        ("nuclear", "he", "it looks like H-DAB"),
        ("nuclear", "fluorescence", "it looks like H-DAB"),
        ("none", "hdab", "it has no DAB"),
        ("none", "he", ""),
        ("pink", "hdab", "it looks like H&E"),
        ("shining", "hdab", "it looks like fluorescence"),
        ("shining", "he", "it looks like fluorescence"),
        ("gray", "he", "it is gray"),
        ("gray", "hdab", "it is gray"),
        ("nuclear", "hdab", ""),
        ("shining", "fluorescence", ""),
    ],
)
def test_what_speaks_against_the_stain_is_said_and_kept(
    kind: Any, stain: str, doubt: str, cells: NDArray[np.int32], model: Model, disk_engine: Any,
    caplog: pytest.LogCaptureFixture,
) -> None:  # fmt: skip
    if kind == "pink":
        rng = np.random.default_rng(0)
        image = colored(
            np.where(cells > 0, 0.6, 0.0), np.where(cells == 3, 0.5, 0), rng.uniform(0.1, 0.3, cells.shape)
        )
    elif kind in ("shining", "gray"):
        image = shining(cells) if kind == "shining" else 240 - shining(cells)
    else:
        image = ihc(cells, kind)
    with caplog.at_level(logging.WARNING):
        result = segment(image, model, mpp=0.5, stain=stain, engine=disk_engine)
    assert result.notes["stain_source"] == "set"
    assert result.notes.get("stain_doubt", "") == doubt
    messages = [line for line in caplog.messages if "stain" in line]
    assert messages == ([f"image: stain {stain} is set, but {doubt}: its figures are marked"] if doubt else [])


@pytest.mark.fault
@pytest.mark.parametrize(
    ("stain", "positive", "message"),
    [
        ("ihc", None, "unknown stain 'ihc'"),
        ("hdap", None, "did you mean 'hdab'"),
        ("he", 0.2, "positive is a threshold of DAB, and stain he has none: it goes with stain hdab"),
        ("fluorescence", "otsu", "stain fluorescence has none"),
        ("auto", (0.4, 0.2, 0.6), "thresholds must rise"),
    ],
)
def test_mistakes_are_named_before_anything_is_read(
    stain: str, positive: Any, message: str, model: Model, disk_engine: Any, tmp_path: Path
) -> None:
    with pytest.raises(HemalumError, match=message):
        check_stain(stain, positive)
    with pytest.raises(HemalumError, match=message):
        segment(tmp_path / "none.png", model, mpp=0.5, stain=stain, positive=positive, engine=disk_engine)
    (tmp_path / "a.png").touch()
    with pytest.raises(HemalumError, match=message):
        segment_paths([tmp_path / "a.png"], tmp_path, ["csv"], model, stain=stain, positive=positive)


def test_thresholds_ask_for_hdab() -> None:
    assert check_stain("auto", 0.2) == "hdab"
    assert check_stain("auto") == "auto"
    assert check_stain("he") == "he"


@pytest.mark.parametrize(
    ("without", "with_dab", "expected"),
    [
        (6, 6, 1.0),  # all stay
        (6, 2, 2 / 6),  # most are lost, as with membranes
        (3, 1, 1 / 3),  # few, and fewer with DAB: not nuclear
        (2, 6, None),  # few, and more with DAB: nearly all nuclei are brown
        (0, 5, None),
        (0, 0, None),
    ],
)
def test_few_nuclei_decide_by_what_dab_adds(
    without: int, with_dab: int, expected: float | None, model: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    def nuclei(count: int) -> NDArray[np.float32]:
        labels = np.zeros((16, 12 * 8), np.int32)
        for index in range(count):
            labels[4:12, 12 * index + 2 : 12 * index + 10] = index + 1
        return find_representation("distance").encode(labels)

    def run_region(region: Image, factor: float, model: Model, engine: Any, change: HdabMap) -> NDArray[np.float32]:
        return nuclei(with_dab if change.nuclear else without)

    monkeypatch.setattr(nuclear_marker, "run_region", run_region)
    change = HdabMap(find_hdab(np.full((64, 3), 200, np.uint8)))
    region = np.zeros((16, 96, 3), np.uint8)
    kept = nuclear_marker.share_kept(change, [region], model, None, 0.5)
    assert kept == (None if expected is None else pytest.approx(expected))
