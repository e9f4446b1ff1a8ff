"""The tissue mask has the tissue, and neither glass, pen nor border."""

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage

from builders.scenes import smooth_field
from hemalum.errors import HemalumError
from hemalum.slides import Slide, Tissue, all_tissue, draw_tissue, find_tissue, open_slide, save_tissue
from hemalum.slides.tissue import mask_tissue

Bools = NDArray[np.bool_]
SHAPE = (400, 600)
INKS = {
    "blue": (30, 50, 150), "green": (20, 110, 60), "red": (190, 30, 45), "black": (35, 33, 38), "teal": (0, 120, 130),
}  # fmt: skip


def draw_glass(color: tuple[int, int, int] = (243, 243, 243), noise: float = 0.7) -> NDArray[np.float32]:
    pixels = np.random.default_rng(0).normal(0, noise, (*SHAPE, 3)) + color
    return pixels.astype(np.float32)


def add_tissue(pixels: NDArray[np.float32], y: int, x: int, radius: int) -> Bools:
    """An H&E piece: eosin all over, hematoxylin in spots; its pixels."""
    rows, columns = np.mgrid[: SHAPE[0], : SHAPE[1]]
    inside: Bools = (rows - y) ** 2 + (columns - x) ** 2 < radius**2
    amounts = 0.4 * smooth_field(1, SHAPE, 3)[..., None] * np.array([0.65, 0.70, 0.29]) + np.array([0.02, 0.25, 0.08])
    pixels[inside] *= np.exp(-amounts)[inside]
    return inside


def add_stroke(pixels: NDArray[np.float32], x: int, color: tuple[int, int, int]) -> Bools:
    """A vertical stroke of a pen, 12 px wide, with soft edges; its pixels."""
    amount = np.zeros(SHAPE, np.float32)
    amount[40:360, x : x + 12] = 0.95
    amount = ndimage.gaussian_filter(amount, 0.8)[..., None]
    pixels[...] = pixels * (1 - amount) + amount * np.array(color, np.float32)
    return np.asarray(amount[..., 0] > 0.1)


def as_slide(pixels: NDArray[np.float32], mpp: float | None = 8.0) -> Slide:
    return Slide.of(np.clip(np.rint(pixels), 0, 255).astype(np.uint8), mpp=mpp)


@pytest.fixture
def small_slides_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """These slides are drawn at the scale of the mask, and are small for that."""
    monkeypatch.setattr("hemalum.slides.tissue.SMALL", 0)


@pytest.mark.usefixtures("small_slides_too")
@pytest.mark.parametrize(
    "glass", [(243, 243, 243), (225, 228, 240), (250, 246, 238), (205, 205, 205), (254, 254, 254)]
)
def test_tissue_and_no_glass(glass: tuple[int, int, int]) -> None:
    pixels = draw_glass(glass)
    inside = add_tissue(pixels, 150, 150, 60) | add_tissue(pixels, 250, 400, 90)
    tissue = find_tissue(as_slide(pixels))
    assert tissue.mask.shape == SHAPE
    assert (tissue.mask | ~inside).all()
    near = ndimage.binary_dilation(inside, iterations=8)
    assert not (tissue.mask & ~near).any()
    assert tissue.area_mm2 == pytest.approx(tissue.mask.sum() * 64e-6)
    assert inside.sum() * 64e-6 < tissue.area_mm2 < 1.2 * inside.sum() * 64e-6
    assert tissue.reason == ""


@pytest.mark.usefixtures("small_slides_too")
@pytest.mark.parametrize("ink", INKS)
def test_pens_are_no_tissue(ink: str) -> None:
    pixels = draw_glass()
    inside = add_tissue(pixels, 250, 400, 90)
    free = add_stroke(pixels, 100, INKS[ink])
    across = add_stroke(pixels, 440, INKS[ink])
    mask = find_tissue(as_slide(pixels)).mask
    assert not mask[free].any()
    assert not mask[across].any()
    # what lies beside the stroke stays: its rim of 3 px is lost
    assert mask[inside & ~ndimage.binary_dilation(across, iterations=5)].all()


@pytest.mark.usefixtures("small_slides_too")
def test_black_borders_and_dust_are_no_tissue() -> None:
    pixels = draw_glass()
    inside = add_tissue(pixels, 250, 400, 90)
    pixels[:, :30] = (4, 5, 6)
    pixels[-25:] = (10, 9, 12)
    for y, x in ((60, 100), (90, 200), (300, 150)):
        pixels[y : y + 3, x : x + 3] = (150, 90, 130)
    pixels[100:140, 60:260] = (200, 200, 201)  # the shadow of an edge: gray
    mask = find_tissue(as_slide(pixels)).mask
    assert mask[inside].all()
    assert not (mask & ~ndimage.binary_dilation(inside, iterations=8)).any()


@pytest.mark.usefixtures("small_slides_too")
def test_small_holes_are_tissue_and_large_ones_are_not() -> None:
    pixels = draw_glass()
    glass = pixels.copy()
    add_tissue(pixels, 200, 300, 150)
    pixels[120:140, 250:270] = glass[120:140, 250:270]  # 0.026 mm²
    pixels[200:290, 300:390] = glass[200:290, 300:390]  # 0.5 mm²
    mask = find_tissue(as_slide(pixels)).mask
    assert mask[120:140, 250:270].all()
    assert not mask[210:280, 310:380].any()


@pytest.mark.usefixtures("small_slides_too")
def test_a_slide_without_glass_is_tissue_all_over() -> None:
    pixels = draw_glass()
    add_tissue(pixels, 200, 300, 1000)
    assert find_tissue(as_slide(pixels)).share == 1


@pytest.mark.usefixtures("small_slides_too")
def test_glass_alone_is_no_tissue() -> None:
    tissue = find_tissue(as_slide(draw_glass()))
    assert (tissue.share, tissue.area_mm2, tissue.reason) == (0, 0, "")
    assert not tissue.covers(0, 0, 600, 400)


@pytest.mark.usefixtures("small_slides_too")
def test_white_where_nothing_was_scanned_is_not_the_glass() -> None:
    """The glass is darker than that white; it would pass for tissue beside it."""
    pixels = draw_glass((236, 232, 238))
    inside = add_tissue(pixels, 250, 400, 90)
    pixels[:120] = 255
    mask = find_tissue(as_slide(pixels)).mask
    assert mask[inside].all()
    assert not (mask & ~ndimage.binary_dilation(inside, iterations=8)).any()


@pytest.mark.usefixtures("small_slides_too")
def test_gray_bright_field_goes_by_density_alone() -> None:
    pixels = draw_glass()
    inside = add_tissue(pixels, 250, 400, 90)
    pixels[...] = pixels.mean(axis=2, keepdims=True)
    mask = find_tissue(as_slide(pixels)).mask
    assert mask[inside].all()
    assert mask.sum() < 1.2 * inside.sum()


@pytest.mark.usefixtures("small_slides_too")
def test_pale_tissue_whose_stains_mix_to_gray_is_tissue() -> None:
    """Weak DAB beside weak hematoxylin: no color at low power, but rough; a shadow of that density is smooth."""
    pixels = draw_glass()
    rows, columns = np.mgrid[: SHAPE[0], : SHAPE[1]]
    inside = (rows - 200) ** 2 + (columns - 300) ** 2 < 100**2
    pixels[inside] *= (0.91 + 0.12 * smooth_field(2, SHAPE, 1.5))[inside][:, None]
    pixels[50:120, 40:160] *= 0.93
    inside |= add_tissue(pixels, 340, 520, 40)  # without any color it would be a gray image
    mask = find_tissue(as_slide(pixels)).mask
    assert mask[inside].mean() > 0.95
    assert not (mask & ~ndimage.binary_dilation(inside, iterations=14)).any()


@pytest.mark.usefixtures("small_slides_too")
def test_fluorescence_is_tissue_all_over() -> None:
    pixels = np.random.default_rng(0).gamma(1, 10, (*SHAPE, 3)).astype(np.float32)
    tissue = find_tissue(as_slide(pixels))
    assert (tissue.share, tissue.reason) == (1, "fluorescence")


def test_small_images_are_tissue_all_over() -> None:
    tissue = find_tissue(as_slide(draw_glass(), mpp=0.5))
    assert (tissue.share, tissue.reason, tissue.mask.shape) == (1, "a small image", (25, 38))
    assert tissue.area_mm2 == pytest.approx(400 * 600 * 0.25e-6, rel=0.02)
    assert tissue.downsample == pytest.approx(16, rel=0.02)


@pytest.mark.fault
def test_a_slide_without_scale_has_a_mask_and_no_area() -> None:
    tissue = find_tissue(Slide.of(np.full((2100, 2100, 3), 240, np.uint8)))
    assert (tissue.mask.shape, tissue.mpp, tissue.area_mm2) == ((131, 131), None, None)
    known = find_tissue(Slide.of(np.full((2100, 2100, 3), 240, np.uint8)), mpp=1.0)
    assert known.mask.shape == (262, 262)
    assert known.mpp == pytest.approx(8, rel=0.01)
    with pytest.raises(HemalumError, match="mpp 50 µm per px"):
        all_tissue(Slide.of(np.full((99, 99, 3), 240, np.uint8)), "asked for", mpp=50)


def test_windows_that_have_tissue() -> None:
    mask = np.zeros((10, 20), np.bool_)
    mask[3, 7] = True  # px 30..40 by 70..80
    tissue = Tissue(mask, (100, 200), 8.0)
    assert tissue.covers(0, 0, 200, 100)
    assert tissue.covers(79, 39, 5, 5)
    assert tissue.covers(60, 20, 11, 11)
    assert not tissue.covers(80, 30, 20, 20)
    assert not tissue.covers(60, 20, 10, 10)


@pytest.mark.usefixtures("small_slides_too")
def test_the_picture_shows_tissue_in_color_and_the_rest_gray(tmp_path: Path) -> None:
    pixels = draw_glass((225, 228, 240))
    add_tissue(pixels, 250, 400, 90)
    slide = as_slide(pixels)
    tissue = find_tissue(slide)
    drawn = draw_tissue(slide, tissue, 300)
    assert drawn.shape == (200, 300, 3)
    assert np.ptp(drawn[:60], axis=2).max() == 0
    assert np.array_equal(drawn[125, 200], slide.thumbnail(300)[125, 200])
    assert ((drawn == (0, 150, 60)).all(axis=2)).sum() > 200
    path = save_tissue(tmp_path / "tissue.png", slide, tissue, 300)
    assert np.array_equal(np.asarray(Image.open(path)), drawn)


def test_nothing_but_ink_does_not_fail() -> None:
    assert not mask_tissue(np.full((50, 60, 3), (20, 110, 60), np.uint8)).any()


@pytest.mark.parametrize(
    ("name", "mpp", "low", "high"),
    [("CMU-1-Small-Region.svs", 0.499, 0.40, 0.50), ("tcga-cr-7395-01a-01-ts1.svs", 0.25, 0.65, 0.78)],
)
def test_real_slides(real_data: Path, name: str, mpp: float, low: float, high: float) -> None:
    """Shares as counted by eye on the pictures; corners that are glass, and centers that are tissue."""
    path = real_data / "slides" / name
    if not path.is_file():
        pytest.skip(f"no real slide at {path}")
    with open_slide(path, mpp=mpp) as slide:
        tissue = find_tissue(slide)
        assert low < tissue.share < high
        assert not tissue.covers(0, 0, 400, 200) or name.startswith("CMU")
        assert not tissue.covers(100, 1500, 300, 600) or name.startswith("tcga")
        assert tissue.covers(slide.shape[1] // 2, slide.shape[0] // 2, 100, 100)
