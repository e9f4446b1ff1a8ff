"""Registration and masks on pairs whose warp and mask are known."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("SimpleITK")

from hemalum.data.ihc.chromogen import EOSIN, VECTORS, Chromogen, deconvolve, optical_density, tissue_mask
from hemalum.data.ihc.derive import Settings, derive
from hemalum.data.ihc.picture import draw_pair
from hemalum.data.ihc.quality import error_at
from hemalum.data.ihc.registration import Alignment, make_field, register
from hemalum.data.ihc.search import Field, search
from hemalum.errors import HemalumError
from ihc_synthesis import KnownPair, Warp, make_pair, mirrored

from .conftest import MPP, Tile, make_tile


def fields(pair: KnownPair, ihc_mpp: float = MPP) -> list[Field]:
    made = []
    for image, vector, mpp in ((pair.he, np.array(EOSIN), MPP), (pair.ihc, VECTORS["dab"], ihc_mpp)):
        density = optical_density(image)
        tissue = tissue_mask(density, mpp)
        made.append(make_field(deconvolve(density, vector)[0], tissue, mpp))
    return made


def errors(pair: KnownPair, alignment: Alignment) -> np.ndarray:
    where = tissue_mask(optical_density(pair.he), MPP)
    return pair.errors_of(alignment, where, MPP)


def dice(mask: np.ndarray, truth: np.ndarray, covered: np.ndarray) -> float:
    return 2 * (mask & truth & covered).sum() / ((mask & covered).sum() + (truth & covered).sum())


def test_the_true_warp_has_no_error(tile: Tile) -> None:
    """The measure itself: for the map that made the pair the error is nought, for one 3 px beside it is 3."""
    warp = Warp(np.eye(2), np.array([4.0, -7.0]), np.zeros((2, 4, 4)), tile.labels.shape)
    pair = make_pair(tile.image, tile.labels, 0, warp=warp)
    y, x = np.mgrid[: tile.labels.shape[0], : tile.labels.shape[1]].astype(float)
    there = np.stack([x - 4, y + 7], axis=-1)
    where = np.ones(tile.labels.shape, bool)
    assert np.allclose(pair.errors(there, where), 0)
    assert np.allclose(pair.errors(there + np.array([3, 0]), where), 3)


def test_search_finds_any_angle(tile: Tile) -> None:
    angle = np.deg2rad(140)
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    middle = np.array([127.5, 127.5])
    warp = Warp(turn, middle - turn @ middle, np.zeros((2, 4, 4)), tile.labels.shape)
    pair = make_pair(tile.image, tile.labels, 0, warp=warp)
    best, *others = search(*fields(pair))
    assert np.rad2deg(best.angle) == pytest.approx(360 - 140, abs=4)
    assert all(other.score < best.score / 2 for other in others)


def test_each_step_comes_nearer(pair: KnownPair) -> None:
    fixed, moving = fields(pair)
    mean = {level: errors(pair, register(fixed, moving, level)).mean() for level in ("rigid", "affine", "bspline")}
    assert mean["bspline"] < mean["affine"] < mean["rigid"]
    assert mean["bspline"] < 2.5  # px, 1.25 µm
    assert mean["rigid"] < 8


def test_the_same_pair_gives_the_same_transform(pair: KnownPair) -> None:
    first, second = (register(*fields(pair), "affine") for _ in range(2))
    assert first.transform.GetParameters() == second.transform.GetParameters()


def test_other_scale_of_the_ihc_section(tile: Tile) -> None:
    """The IHC section was scanned at half the resolution."""
    pair = make_pair(tile.image, tile.labels, 5, warp=Warp(np.eye(2), np.zeros(2), np.zeros((2, 4, 4)), (256, 256)))
    small = pair.ihc.reshape(128, 2, 128, 2, 3).mean(axis=(1, 3)).astype(np.uint8)
    derived = derive(pair.he, small, mpp=MPP, ihc_mpp=2 * MPP, settings=Settings(registration="rigid"))
    assert derived.refused is None
    assert dice(derived.instances > 0, pair.positive, derived.covered) > 0.75


@pytest.mark.parametrize("chromogen", ["dab", "red"])
def test_mask_of_a_pair(tile: Tile, chromogen: Chromogen) -> None:
    warp = Warp.draw(np.random.default_rng(7), (256, 256), bend=1.5)
    pair = make_pair(tile.image, tile.labels, 7, chromogen=chromogen, warp=warp)
    derived = derive(pair.he, pair.ihc, mpp=MPP, settings=Settings(chromogen, "affine"))
    assert derived.refused is None
    assert derived.quality.score > 0.4
    assert dice(derived.instances > 0, pair.positive, derived.covered) > 0.8
    assert not derived.covered.all()  # blank corners of a turned section
    assert derived.landmarks is not None
    assert derived.landmarks.source == "patches"
    picture = draw_pair(pair.he, pair.ihc, derived, "a")
    assert picture.dtype == np.uint8
    assert ((picture == (0, 230, 100)).all(axis=2)).sum() > 500  # outlines


def test_touching_nuclei_are_split_unless_told_not_to(tile: Tile) -> None:
    pair = make_pair(tile.image, tile.labels, 7, positive=0.9)
    unsplit = derive(pair.he, pair.ihc, mpp=MPP, settings=Settings(registration="rigid", split=False))
    split = derive(pair.he, pair.ihc, mpp=MPP, settings=Settings(registration="rigid", split=True))
    assert split.instances.max() >= unsplit.instances.max()
    assert np.array_equal(unsplit.instances > 0, split.instances > 0)


def test_landmarks_of_a_person(tile: Tile) -> None:
    shift = Warp(np.eye(2), np.array([6.0, -4.0]), np.zeros((2, 4, 4)), tile.labels.shape)
    pair = make_pair(tile.image, tile.labels, 0, warp=shift)
    alignment = register(*fields(pair), "rigid")
    he = np.array([[60.0, 60.0], [200.0, 90.0], [120.0, 210.0]])
    ihc = he - [6, -4]
    good = error_at(alignment, (he + 0.5) * MPP, (ihc + 0.5) * MPP)
    assert (good.source, good.count) == ("landmarks", 3)
    assert good.mean < 0.3  # µm
    off = error_at(alignment, (he + 0.5) * MPP, (ihc + [20, 0] + 0.5) * MPP)
    assert off.median == pytest.approx(10, abs=0.3)  # 20 px of 0.5 µm


def test_unrelated_sections_are_refused(pair: KnownPair) -> None:
    other = make_tile(99)
    derived = derive(other.image, pair.ihc, mpp=MPP, settings=Settings(registration="affine"))
    assert derived.refused is not None
    assert derived.refused.startswith("quality 0.")


def test_a_mirrored_section_is_named(pair: KnownPair) -> None:
    flipped = mirrored(pair)
    derived = derive(flipped.he, flipped.ihc, mpp=MPP, settings=Settings(registration="rigid"))
    assert derived.refused is not None
    assert derived.refused.endswith("the IHC section looks mirrored: flip it")


def test_blank_sections_are_refused(pair: KnownPair) -> None:
    blank = np.full_like(pair.he, 245)
    assert derive(pair.he, blank, mpp=MPP).refused == "the IHC section has no tissue"
    assert derive(blank, pair.ihc, mpp=MPP).refused == "the H&E section has no tissue"


def test_a_section_without_chromogen_has_no_nuclei(tile: Tile) -> None:
    pair = make_pair(tile.image, tile.labels, 7, positive=0.0)
    derived = derive(pair.he, pair.ihc, mpp=MPP, settings=Settings(registration="rigid"))
    assert derived.refused is None
    assert derived.instances.max() == 0


@pytest.mark.fault
@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"chromogen": "brown"}, "chromogen 'brown': choices are dab, red"),
        ({"registration": "elastic"}, "registration 'elastic': choices are rigid, affine, bspline"),
        ({"min_quality": 1.5}, "min_quality 1.5: give a number from 0 to 1"),
        ({"min_area_um2": -1}, "min_area_um2 -1: give an area in µm²"),
    ],
)
def test_settings_out_of_range(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(HemalumError, match=f"^{message}$".replace("²", ".")):
        replace(Settings(), **settings)


@pytest.mark.slow
@pytest.mark.parametrize("chromogen", ["dab", "red"])
@pytest.mark.parametrize("name", ["01_2", "04_6", "08_1"])
def test_pairs_made_of_real_tiles(real_data: Path, name: str, chromogen: Chromogen) -> None:
    folder = real_data / "tnbc"
    image = np.asarray(Image.open(next((folder / "images").glob(f"{name}.*"))).convert("RGB"))
    labels = np.asarray(Image.open(folder / "labels" / f"{name}.png")).astype(np.int32)
    pair = make_pair(image, labels, 0, chromogen=chromogen)
    derived = derive(pair.he, pair.ihc, mpp=0.25, settings=Settings(chromogen))
    where = tissue_mask(optical_density(pair.he), 0.25)
    off = pair.errors_of(derived.alignment, where, 0.25)
    assert derived.refused is None
    assert off.mean() < 4  # px, 1 µm
    assert np.percentile(off, 95) < 12
    assert dice(derived.instances > 0, pair.positive, derived.covered) > 0.75
