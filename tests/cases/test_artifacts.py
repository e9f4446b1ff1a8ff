"""Ink, areas out of focus and folds are seen, said and, where they are sure, left out."""

import io
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage

from hemalum.errors import HemalumError
from hemalum.inference.batch import segment_paths
from hemalum.inference.slide import segment_slide
from hemalum.inference.slide_batch import segment_slides
from hemalum.models.card import Card
from hemalum.models.model import Model
from hemalum.reports.segmentation.batch import collect
from hemalum.reports.segmentation.page import SummaryPage
from hemalum.slides import Slide, all_tissue, describe_artifacts, find_artifacts

pytestmark = pytest.mark.fault
Pixels = NDArray[np.uint8]
MPP = 0.5
PENS = {
    "blue": (25, 50, 170),
    "light blue": (60, 130, 220),
    "green": (20, 120, 60),
    "black": (28, 26, 30),
    "red": (205, 15, 25),
    "orange": (250, 120, 10),
    "yellow": (245, 235, 30),
    "teal": (10, 140, 150),
    "pink": (240, 15, 120),
}
# what is no ink, however large: natural colors of stained tissue
TISSUE = {
    "hematoxylin": (92, 62, 140),
    "dark hematoxylin": (45, 25, 75),
    "eosin": (226, 140, 190),
    "strong eosin": (215, 60, 120),
    "blood": (190, 60, 75),
    "DAB": (120, 72, 40),
    "dark DAB": (60, 32, 20),
    "hemosiderin": (170, 120, 50),
    "melanin": (70, 45, 35),
    "counterstain of IHC": (140, 160, 200),
}


def tissue(height: int = 400, width: int = 500, seed: int = 0) -> Pixels:
    """Pink tissue with nuclei of 6 µm and fine texture, 0.5 µm per px."""
    rng = np.random.default_rng(seed)
    nuclei = np.zeros((height, width), np.float32)
    nuclei[rng.integers(0, height, height * width // 700), rng.integers(0, width, height * width // 700)] = 1
    there = ndimage.maximum_filter(nuclei, footprint=np.hypot(*np.mgrid[-6:7, -6:7]) <= 6) > 0
    image = np.where(there[..., None], TISSUE["hematoxylin"], TISSUE["eosin"]).astype(np.float32)
    grain = ndimage.gaussian_filter(rng.normal(0, 60, (height, width)), 1.5)
    return np.clip(image + grain[..., None], 0, 255).astype(np.uint8)


def draw(image: Pixels, color: tuple[int, int, int], patch: tuple[slice, slice]) -> Pixels:
    """The image with a rectangle of ink, through which a tenth of it is seen."""
    drawn = image.copy()
    drawn[patch] = np.rint(0.1 * image[patch] + 0.9 * np.array(color)).astype(np.uint8)
    return drawn


STROKE = (slice(150, 200), slice(0, 500))


@pytest.mark.parametrize("name", list(PENS))
def test_a_stroke_of_any_pen_is_left_out(name: str) -> None:
    seen = find_artifacts(Slide.of(draw(tissue(), PENS[name], STROKE), mpp=MPP))
    x, y = np.array([250.0, 250.0, 5.0, 250.0]), np.array([160.0, 190.0, 175.0, 300.0])
    assert seen.leave_out(x, y).tolist() == [True, True, True, False]
    summary = seen.notes["artifacts"]
    assert list(summary) == ["ink"]
    assert summary["ink"]["areas"] == 1
    assert summary["ink"]["share"] == pytest.approx(50 / 400, abs=0.08)


@pytest.mark.parametrize("name", ["red", "orange", "yellow", "pink"])
def test_nuclei_beside_ink_that_red_light_passes_stay(name: str) -> None:
    seen = find_artifacts(Slide.of(draw(tissue(), PENS[name], STROKE), mpp=MPP))
    assert not seen.leave_out(np.array([250.0, 250.0]), np.array([142.0, 208.0])).any()  # 4 µm from it
    assert seen.left_out.mean() == pytest.approx(50 / 400, abs=0.02)


@pytest.mark.parametrize("name", ["blue", "green", "black"])
def test_the_pale_edge_of_dark_ink_goes_with_it(name: str) -> None:
    seen = find_artifacts(Slide.of(draw(tissue(), PENS[name], STROKE), mpp=MPP))
    y = np.array([147.0, 203.0, 130.0, 220.0])  # 1.5 and 10 µm from it
    assert seen.leave_out(np.full(4, 250.0), y).tolist() == [True, True, False, False]


@pytest.mark.parametrize("name", list(TISSUE))
def test_no_color_of_tissue_is_an_artifact(name: str) -> None:
    image = draw(tissue(), TISSUE[name], (slice(100, 220), slice(100, 300)))
    assert not find_artifacts(Slide.of(image, mpp=MPP)).left_out.any()


def test_clean_tissue_and_glass_have_none() -> None:
    for image in (tissue(), np.full((300, 400, 3), 243, np.uint8)):
        seen = find_artifacts(Slide.of(image, mpp=MPP))
        assert not seen.codes.any()
        assert (seen.notes, seen.digest, describe_artifacts(seen.notes)) == ({}, None, "")


@settings(max_examples=12, deadline=None)
@given(
    name=st.sampled_from(list(PENS)), y=st.integers(30, 320), x=st.integers(30, 400), seed=st.integers(0, 9),
    turns=st.integers(0, 3),
)  # fmt: skip
def test_a_drop_anywhere_is_left_out_and_the_rest_stays(name: str, y: int, x: int, seed: int, turns: int) -> None:
    image = tissue(seed=seed)
    rows, columns = np.mgrid[: image.shape[0], : image.shape[1]]
    drop = np.hypot(rows - y, columns - x) < 40
    image[drop] = np.rint(0.1 * image[drop] + 0.9 * np.array(PENS[name])).astype(np.uint8)
    turned, there = np.rot90(image, turns), np.rot90(drop, turns)
    seen = find_artifacts(Slide.of(np.ascontiguousarray(turned), mpp=MPP))
    inside = ndimage.binary_erosion(there, iterations=8)
    far = ~ndimage.binary_dilation(there, iterations=40)
    for patch, expected in ((inside, 0.97), (far, 0.0)):
        at = np.argwhere(patch).astype(np.float64)
        if len(at):
            share = seen.leave_out(at[:, 1], at[:, 0]).mean()
            assert share >= expected if expected else share == 0


def half_blurred(sigma_um: float, seed: int = 0) -> Pixels:
    """Tissue of 400 x 400 µm whose right half is blurred."""
    image = tissue(800, 800, seed)
    soft = ndimage.gaussian_filter(image.astype(np.float32), (sigma_um / MPP, sigma_um / MPP, 0))
    image[:, 400:] = np.rint(soft[:, 400:])
    return image


@pytest.mark.parametrize("sigma_um", [2.0, 3.0, 4.0])
def test_what_is_out_of_focus_is_left_out(sigma_um: float) -> None:
    seen = find_artifacts(Slide.of(half_blurred(sigma_um), mpp=MPP))
    assert seen.leave_out(np.array([650.0, 150.0]), np.array([400.0, 400.0])).tolist() == [True, False]
    assert list(seen.notes["artifacts"]) == ["out of focus"]
    assert seen.notes["artifacts_mm2"] == pytest.approx(0.16 / 2, rel=0.25)


def test_what_is_a_little_soft_is_not() -> None:
    assert not find_artifacts(Slide.of(half_blurred(0.5), mpp=MPP)).codes.any()


@pytest.mark.parametrize("mpp", [0.125, 0.25, 0.5, 0.7])
def test_focus_is_a_matter_of_microns_and_not_of_pixels(mpp: float) -> None:
    image = half_blurred(3.0)
    side = round(800 * MPP / mpp)
    resized = np.asarray(Image.fromarray(image).resize((side, side), Image.Resampling.LANCZOS))
    seen = find_artifacts(Slide.of(resized), mpp=mpp)
    x = np.array([650.0, 150.0]) * MPP / mpp
    assert seen.leave_out(x, np.full(2, side / 2)).tolist() == [True, False]


def test_an_image_that_is_soft_all_over_is_named_and_kept() -> None:
    image = tissue(800, 800).astype(np.float32)
    soft = np.rint(ndimage.gaussian_filter(image, (6, 6, 0))).astype(np.uint8)
    seen = find_artifacts(Slide.of(soft, mpp=MPP))
    assert not seen.left_out.any()
    assert seen.notes["artifacts"]["out of focus"]["left_out"] is False
    assert seen.notes["artifacts"]["out of focus"]["share"] > 0.9


@settings(max_examples=8, deadline=None)
@given(
    seed=st.integers(0, 99), quality=st.integers(30, 95), noise=st.floats(0, 3), background=st.integers(215, 250),
    mpp=st.sampled_from([0.25, 0.5]),
)  # fmt: skip
def test_saving_and_noise_are_not_out_of_focus(
    seed: int, quality: int, noise: float, background: int, mpp: float
) -> None:
    image = tissue(seed=seed).astype(np.float32) + np.random.default_rng(seed).normal(0, noise, (400, 500, 1))
    image[:, :150] = background  # glass beside it
    saved = io.BytesIO()
    Image.fromarray(np.clip(np.rint(image), 0, 255).astype(np.uint8)).save(saved, "JPEG", quality=quality)
    assert not find_artifacts(Slide.of(np.asarray(Image.open(saved)), mpp=mpp)).left_out.any()


def test_a_fold_is_named_and_kept() -> None:
    image = tissue(600, 600)
    image[270:330] = np.rint(image[270:330] * (np.array([0.3, 0.16, 0.4]) + 0.1))
    seen = find_artifacts(Slide.of(image, mpp=MPP))
    assert describe_artifacts(seen.notes).startswith("dark band, perhaps a fold in 1 place, ")
    assert not seen.left_out.any()


def test_a_stain_of_such_a_hue_is_no_ink() -> None:
    seen = find_artifacts(Slide.of(draw(tissue(), PENS["green"], (slice(0, 380), slice(0, 500))), mpp=MPP))
    assert not seen.left_out.any()
    assert seen.notes["artifacts"]["ink"]["left_out"] is False


def test_the_tissue_of_a_slide_is_without_them() -> None:
    slide = Slide.of(draw(tissue(), PENS["blue"], STROKE), mpp=MPP)
    all_of_it = all_tissue(slide, "all")
    left = find_artifacts(slide).without(all_of_it)
    assert all_of_it.area_mm2 is not None
    assert left.area_mm2 == pytest.approx(all_of_it.area_mm2 * 7 / 8, rel=0.1)
    assert find_artifacts(slide, keep=True).without(all_of_it) is all_of_it


@pytest.fixture
def inked(tmp_path: Path, make_disks: Callable[..., Pixels]) -> Path:
    """Disks that the engine of the tests finds, with a green stroke across."""
    (tmp_path / "in").mkdir()
    image = draw(make_disks(300, 400, 16, seed=1), PENS["green"], (slice(100, 160), slice(0, 400)))
    Image.fromarray(image).save(tmp_path / "in" / "a.png")
    return tmp_path / "in" / "a.png"


def run(inked: Path, disk_card: Card, disk_engine: Any, **options: Any) -> Any:
    results = segment_paths(
        [inked], inked.parents[1] / "out", ["geojson", "overlay"], Model(disk_card, {}), mpp=MPP,
        engine=disk_engine, stain="he", **options,
    )  # fmt: skip
    page = SummaryPage(inked.parents[1] / "out" / "summary.html")
    (result,) = done = list(results)
    return result, collect(done, page), page.path.read_text(encoding="utf-8")


def test_nuclei_in_ink_are_left_out_said_and_shown(
    inked: Path, disk_card: Card, disk_engine: Any, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        result, batch, page = run(inked, disk_card, disk_engine)
    y = result.nuclei.table.column("y").to_numpy()
    assert not ((y > 105) & (y < 155)).any()
    left_out = result.nuclei.notes["left_out_in_artifacts"]
    summary = describe_artifacts(result.nuclei.notes)
    assert summary.startswith("ink in 1 place, 2")
    assert summary.endswith(" % (left out)")
    nuclei = "1 nucleus" if left_out == 1 else f"{left_out:,} nuclei"
    assert f"{inked}: {summary}, with {nuclei} in it; keep_artifacts keeps them" in caplog.messages
    headers, (row,) = batch.table
    assert row[headers.index("artifacts")] == summary
    assert f"nuclei left out: {summary}" in page
    assert result.nuclei.area_mm2 == pytest.approx(300 * 400 * MPP**2 / 1e6 * (1 - 60 / 300), rel=0.1)
    drawn = np.asarray(Image.open(result.files["overlay"]))[130, 200].astype(int)
    plain = np.asarray(Image.open(inked))[130, 200].astype(int)
    assert drawn[0] > plain[0] + 50  # tinted


def test_artifacts_are_kept_where_asked(inked: Path, disk_card: Card, disk_engine: Any) -> None:
    plain, _, _ = run(inked, disk_card, disk_engine)
    kept, batch, _ = run(inked, disk_card, disk_engine, keep_artifacts=True, overwrite=True)
    assert kept.nuclei.count == plain.nuclei.count + plain.nuclei.notes.get("left_out_in_artifacts", 0)
    assert "left_out_in_artifacts" not in kept.nuclei.notes
    headers, (row,) = batch.table
    assert "(left out)" not in row[headers.index("artifacts")]
    assert kept.nuclei.area_mm2 == 300 * 400 * MPP**2 / 1e6


def test_slides_leave_them_out_too(
    tmp_path: Path, make_disks: Callable[..., Pixels], disk_card: Card, disk_engine: Any
) -> None:
    from builders.slides import save_pyramid

    (tmp_path / "in").mkdir()
    image = draw(make_disks(600, 800, 16, seed=1), PENS["green"], (slice(100, 200), slice(0, 800)))
    path = save_pyramid(tmp_path / "in" / "a.tif", image, mpp=MPP)
    counts = {}
    for keep in (False, True):
        (result,) = segment_slides(
            [path], tmp_path / f"{keep}", ["csv", "overlay", "thumbnail"], Model(disk_card, {}), engine=disk_engine,
            stain="he", keep_artifacts=keep,
        )  # fmt: skip
        assert result.error is None
        assert result.store is not None
        assert ("left_out_in_artifacts" in result.store.notes) is not keep
        assert result.store.run.settings["artifacts"] if not keep else True
        counts[keep] = result.store.count
    assert 0 < counts[False] < counts[True]


@pytest.mark.fault
@pytest.mark.parametrize("tissue_mask", [True, False])
@pytest.mark.parametrize("first", [False, True])
def test_a_folder_with_the_other_choice_says_which(
    first: bool, tissue_mask: bool, tmp_path: Path, make_disks: Callable[..., Pixels], disk_card: Card,
    disk_engine: Any,
) -> None:  # fmt: skip
    from builders.slides import save_pyramid

    (tmp_path / "in").mkdir()
    image = draw(make_disks(600, 800, 16, seed=1), PENS["green"], (slice(100, 200), slice(0, 800)))
    path = save_pyramid(tmp_path / "in" / "a.tif", image, mpp=MPP)
    options: dict[str, Any] = {"engine": disk_engine, "stain": "he", "tissue_mask": tissue_mask}
    segment_slide(path, tmp_path, Model(disk_card, {}), **options, keep_artifacts=first)
    line = rf" \(settings\.keep_artifacts is {first} there, {not first} here\); "
    with pytest.raises(HemalumError, match=line):
        segment_slide(path, tmp_path, Model(disk_card, {}), **options, keep_artifacts=not first)
    clear = save_pyramid(tmp_path / "in" / "b.tif", make_disks(600, 800, 16, seed=1), mpp=MPP)
    stores = [
        segment_slide(clear, tmp_path, Model(disk_card, {}), **options, keep_artifacts=keep) for keep in (False, True)
    ]
    assert stores[0].path == stores[1].path  # where there is nothing to keep, both are one run
