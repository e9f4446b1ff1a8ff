"""Stain normalisation against second implementations: torchstain, scikit-learn, and the equations written plainly."""

import logging
import warnings
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from pydantic import ValidationError

from hemalum.data.stain import STAINS
from hemalum.data.stain_normalisation import (
    SAMPLED,
    StainNormaliser,
    UnfitImage,
    match_stain,
    measure_stain,
    median_stain,
    normalise_stain,
    sample_image,
    sample_pixels,
)
from hemalum.data.stain_separation import amounts, angle_between, macenko_stains, vahadane_stains
from hemalum.errors import HemalumError
from hemalum.models.stain import StainStatistics, StainTarget

# eosin as it is in sections: pure dye lets all red light pass, and Macenko's threshold would leave it out
PAIR = np.array([[0.56, 0.72, 0.41], [0.22, 0.80, 0.56]])
PAIR /= np.linalg.norm(PAIR, axis=1, keepdims=True)
OTHER = PAIR @ np.diag([1.2, 1.0, 0.7])
OTHER /= np.linalg.norm(OTHER, axis=1, keepdims=True)
METHODS = ("macenko", "reinhard", "vahadane")


def section(
    shape: tuple[int, int] = (96, 96), seed: int = 0, stains: np.ndarray = PAIR, strength: float = 1.0
) -> np.ndarray:
    """(H, W, 3) uint8: pixels of hematoxylin, of eosin and of both in all shares; two per cent are empty."""
    rng = np.random.default_rng(seed)
    share = rng.beta(0.4, 0.4, shape)[..., None]
    amount = rng.uniform(0.6, 1.4, shape)[..., None] * strength
    density = amount * (share * stains[0] + (1 - share) * stains[1])
    density[rng.random(shape) < 0.02] = 0
    return np.clip(np.rint(256 * np.exp(-density) - 1), 0, 255).astype(np.uint8)


def target_of(image: np.ndarray, method: str, **changes: str) -> StainTarget:
    return StainTarget(**measure_stain(sample_image(image), method).model_dump(), **changes)


def white_of(image: np.ndarray) -> float:
    """The value of an unstained pixel, by its definition."""
    return float(np.percentile(image.reshape(-1, 3).max(axis=1), 99))


def density_of(image: np.ndarray) -> np.ndarray:
    return -np.log((image.reshape(-1, 3).astype(np.float64) + 1) / (white_of(image) + 1))


def tissue(image: np.ndarray) -> np.ndarray:
    """Optical density of the pixels of tissue, by their definition."""
    density = density_of(image)
    return density[density.mean(axis=1) >= 0.15]


@pytest.fixture(scope="session")
def real_tiles(real_data: Path) -> list[np.ndarray]:
    """Four H&E tiles of 256 x 256 px from two laboratories."""
    tiles = []
    for folder in ("tnbc", "consep_train"):
        files = sorted((real_data / folder / "images").iterdir())
        tiles += [np.asarray(Image.open(path).convert("RGB"))[:256, :256] for path in (files[0], files[-1])]
    return tiles


# Macenko


def compare_macenko(source: np.ndarray, target: np.ndarray) -> np.ndarray:
    """Both implementations; gives the difference of the results on tissue, the only pixels that they are shown."""
    torchstain = pytest.importorskip("torchstain")
    own, record = (measure_stain(image.reshape(-1, 3), "macenko") for image in (source, target))
    shown, aim = (
        image.reshape(-1, 3)[density_of(image).mean(axis=1) >= 0.15].reshape(1, -1, 3) for image in (source, target)
    )
    theirs = torchstain.normalizers.MacenkoNormalizer(backend="numpy")
    theirs.fit(aim, Io=record.white + 1)
    np.testing.assert_allclose(np.array(record.stains).T, theirs.HERef, atol=1e-6)
    np.testing.assert_allclose(record.strongest, theirs.maxCRef, rtol=1e-5)
    expected = theirs.normalize(shown, Io=own.white + 1, stains=False)[0]
    expected = expected * ((record.white + 1) / (own.white + 1))  # they have one illumination for both
    return match_stain(own, record).apply(shown) - expected


def test_macenko_agrees_with_torchstain() -> None:
    difference = compare_macenko(section(seed=1, stains=OTHER, strength=0.8), section(seed=2))
    # they cut fractions off and leave out the 1 that they added before the logarithm
    assert difference.min() >= -1
    assert difference.max() <= 0.5


def test_macenko_agrees_with_torchstain_on_real_tiles(real_tiles: list[np.ndarray]) -> None:
    for source, target in pairwise(real_tiles):
        difference = compare_macenko(source, target)
        assert np.abs(difference).max() <= 2


def test_macenko_finds_the_stains_that_made_the_section() -> None:
    found = macenko_stains(tissue(section()))
    for row, made in zip(found, PAIR, strict=True):
        assert angle_between(np.stack([row, made])) < 2


# Vahadane


def plain_vahadane(source: np.ndarray, target: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """scikit-learn's dictionary learning, and scipy's non-negative least squares: (result, target's stains)."""
    decomposition = pytest.importorskip("sklearn.decomposition")
    from scipy.optimize import nnls

    def stains(image: np.ndarray) -> np.ndarray:
        learner = decomposition.DictionaryLearning(
            n_components=2, alpha=0.1, max_iter=300, tol=1e-9, fit_algorithm="cd", transform_algorithm="lasso_cd",
            positive_code=True, positive_dict=True, random_state=0,
        )  # fmt: skip
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # its inner solver stops a hair before its own tolerance
            rows = learner.fit(tissue(image)).components_
        rows = rows / np.linalg.norm(rows, axis=1, keepdims=True)
        return rows[np.argsort(-rows[:, 0] / rows.sum(axis=1))]

    def parts(density: np.ndarray, rows: np.ndarray) -> np.ndarray:
        return np.array([nnls(rows.T, np.maximum(pixel, 0))[0] for pixel in density])

    own, wanted = stains(source), stains(target)
    most = np.percentile(parts(tissue(source), own), 99, axis=0)
    aim = np.percentile(parts(tissue(target), wanted), 99, axis=0)
    mixed = parts(density_of(source), own) * aim / most @ wanted
    return np.clip(np.rint((white_of(target) + 1) * np.exp(-mixed) - 1), 0, 255).reshape(source.shape), wanted


def compare_vahadane(source: np.ndarray, target: np.ndarray) -> tuple[float, float]:
    """Largest angle between the stains in degrees, and the 99th percentile of the difference in grey levels."""
    expected, stains = plain_vahadane(source, target)
    record = target_of(target, "vahadane")
    assert record.stains is not None
    angles = [angle_between(np.array([ours, theirs])) for ours, theirs in zip(record.stains, stains, strict=True)]
    difference = np.abs(normalise_stain(source, record).astype(int) - expected)
    return max(angles), float(np.percentile(difference, 99))


def test_vahadane_agrees_with_scikit_learn() -> None:
    angle, levels = compare_vahadane(section((24, 24), seed=1, stains=OTHER), section((24, 24), seed=2))
    assert angle < 0.2
    assert levels <= 2


@pytest.mark.slow
def test_vahadane_agrees_with_scikit_learn_on_real_tiles(real_tiles: list[np.ndarray]) -> None:
    tiles = [np.ascontiguousarray(tile[::8, ::8]) for tile in real_tiles]
    for source, target in zip(tiles[:2], tiles[2:], strict=True):
        angle, levels = compare_vahadane(source, target)
        assert angle < 0.5
        assert levels <= 3


def test_vahadane_is_at_a_minimum_of_its_objective() -> None:
    """No small turn of a direction makes ½‖V − HW‖² + λ‖H‖₁ smaller (amounts by an iterative solver)."""
    density = tissue(section((32, 32), seed=5))
    found = vahadane_stains(density)

    def objective(rows: np.ndarray) -> float:
        codes = np.zeros((len(density), 2))
        for _ in range(200):  # coordinate descent, the textbook way
            for j in range(2):
                rest = density - codes @ rows + np.outer(codes[:, j], rows[j])
                codes[:, j] = np.maximum(rest @ rows[j] - 0.1, 0)
        return float(0.5 * ((density - codes @ rows) ** 2).sum() + 0.1 * codes.sum())

    best = objective(found)
    rng = np.random.default_rng(0)
    for _ in range(20):
        moved = np.maximum(found + rng.normal(0, 0.01, (2, 3)), 0)
        moved /= np.linalg.norm(moved, axis=1, keepdims=True)
        assert objective(moved) > best - 1e-6


def test_nonnegative_amounts_are_those_of_nnls() -> None:
    from scipy.optimize import nnls

    density = np.random.default_rng(0).uniform(-0.1, 1, (200, 3))
    expected = np.array([nnls(STAINS[:2].T, pixel)[0] for pixel in density])
    np.testing.assert_allclose(amounts(density, STAINS[:2], nonnegative=True), expected, atol=1e-9)
    plain = np.linalg.lstsq(STAINS[:2].T, density.T, rcond=None)[0].T
    np.testing.assert_allclose(amounts(density, STAINS[:2], nonnegative=False), plain, atol=1e-9)


# Reinhard


def plain_reinhard(source: np.ndarray, target: np.ndarray) -> np.ndarray:
    """The paper's equations one by one, in double precision; statistics over tissue."""
    cones = np.array([[0.3811, 0.5783, 0.0402], [0.1967, 0.7244, 0.0782], [0.0241, 0.1288, 0.8444]])

    def to_lab(image: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        long, medium, short = np.log10(cones @ ((image.reshape(-1, 3).T + 1.0) / 256))
        light = (long + medium + short) / 3**0.5
        yellow = (long + medium - 2 * short) / 6**0.5
        red = (long - medium) / 2**0.5
        return np.stack([light, yellow, red]), density_of(image).mean(axis=1) >= 0.15

    lab, inside = to_lab(source)
    aim, aim_inside = to_lab(target)
    for channel, wanted in zip(lab, aim, strict=True):
        mean, sd = channel[inside].mean(), channel[inside].std()
        channel -= mean
        channel *= wanted[aim_inside].std() / sd
        channel += wanted[aim_inside].mean()
    light, yellow, red = lab
    long = light / 3**0.5 + yellow / 6**0.5 + red / 2**0.5
    medium = light / 3**0.5 + yellow / 6**0.5 - red / 2**0.5
    short = light / 3**0.5 - 2 * yellow / 6**0.5
    rgb = np.linalg.solve(cones, 10 ** np.stack([long, medium, short])) * 256 - 1
    return np.clip(np.rint(rgb), 0, 255).T.reshape(source.shape)


def test_reinhard_agrees_with_the_papers_equations() -> None:
    source, target = section(seed=1, strength=0.6), section(seed=2)
    source[:20] = 250  # background is moved, but not counted
    found = normalise_stain(source, target_of(target, "reinhard")).astype(int)
    assert np.abs(found - plain_reinhard(source, target)).max() <= 1


def test_reinhard_agrees_on_real_tiles(real_tiles: list[np.ndarray]) -> None:
    for source, target in pairwise(real_tiles):
        found = normalise_stain(source, target_of(target, "reinhard")).astype(int)
        difference = np.abs(found - plain_reinhard(source, target))
        assert difference.max() <= 1


# all methods


@pytest.mark.parametrize("method", METHODS)
def test_a_restained_section_comes_back(method: str) -> None:
    """Another laboratory's colours of the same tissue: after normalisation they are nearly the first's."""
    ours, theirs = section(), section(stains=OTHER, strength=0.7)
    before = np.abs(theirs.astype(int) - ours).mean()
    after = np.abs(normalise_stain(theirs, target_of(ours, method)).astype(int) - ours).mean()
    assert before > 20
    assert after < before / 4


@pytest.mark.parametrize("method", METHODS)
def test_to_its_own_colours_nothing_changes(method: str) -> None:
    image = section()
    found = normalise_stain(image, target_of(image, method)).astype(int)
    # a pixel between the extreme directions and the noise beyond them: what neither stain explains is lost
    assert np.percentile(np.abs(found - image), 95) <= 3


@pytest.mark.parametrize("method", ["macenko", "vahadane"])
def test_white_stays_white(method: str) -> None:
    source = section(seed=1, strength=0.7)
    source[:30] = 255
    found = normalise_stain(source, target_of(section(), method))
    assert (found[:30] == 255).all()


@pytest.mark.parametrize("method", METHODS)
def test_tiles_give_what_the_whole_gives(method: str) -> None:
    image = section((70, 90), seed=3)
    change = match_stain(measure_stain(sample_image(image), method), target_of(section(), method))
    whole = change.apply(image)
    for rows in (1, 7, 64):
        tiles = [change.apply(image[y : y + rows, x : x + 13]) for y in range(0, 70, rows) for x in range(0, 90, 13)]
        columns = len(range(0, 90, 13))
        bands = [np.concatenate(tiles[i : i + columns], axis=1) for i in range(0, len(tiles), columns)]
        np.testing.assert_array_equal(np.concatenate(bands), whole)


def test_the_sample_is_regular_and_bounded() -> None:
    image = np.arange(1024 * 700 * 3, dtype=np.uint32).astype(np.uint8).reshape(1024, 700, 3)
    asked: list[int] = []

    def read(start: int, stop: int) -> np.ndarray:
        asked.append(stop - start)
        return image[start:stop]

    found = sample_pixels(read, (1024, 700))
    assert len(found) <= SAMPLED
    assert set(asked) == {1}
    np.testing.assert_array_equal(found, image[2::4, 2::4].reshape(-1, 3))
    small = image[:50, :60]
    np.testing.assert_array_equal(sample_image(small), small.reshape(-1, 3))


# images that say nothing about stain


def one_stain(which: int) -> np.ndarray:
    stain = STAINS[[which, which]]
    image = section(stains=stain).astype(int) + np.random.default_rng(1).normal(0, 2, (96, 96, 3))
    return np.clip(np.rint(image), 0, 255).astype(np.uint8)


BLANK = np.full((96, 96, 3), 244, np.uint8)
GREY = np.repeat(section()[..., 1:2], 3, axis=2)
NIGHT = 255 - np.clip(section().astype(int) + 120, 0, 255).astype(np.uint8)
UNFIT = {
    "blank": (BLANK, "too little tissue: 0 of 9216 sampled pixels"),
    "fluorescence": (NIGHT, "dark ground"),
    "hematoxylin": (one_stain(0), "one stain"),
    "brown": (one_stain(2), "one stain"),
    "grey": (GREY, "one stain"),
}


@pytest.mark.parametrize("kind", UNFIT)
@pytest.mark.parametrize("method", ["macenko", "vahadane"])
def test_what_is_unfit(kind: str, method: str) -> None:
    image, reason = UNFIT[kind]
    with pytest.raises(UnfitImage, match=reason):
        measure_stain(sample_image(image), method)


@pytest.mark.parametrize(("kind", "reason"), [("blank", "too little tissue"), ("grey", "no colours"),
                                              ("fluorescence", "dark ground")])  # fmt: skip
def test_what_is_unfit_for_reinhard(kind: str, reason: str) -> None:
    with pytest.raises(UnfitImage, match=reason):
        measure_stain(sample_image(UNFIT[kind][0]), "reinhard")


@pytest.mark.parametrize("method", METHODS)
def test_an_unfit_image_passes_with_a_warning(method: str, caplog: pytest.LogCaptureFixture) -> None:
    target = target_of(section(), method)
    with caplog.at_level(logging.WARNING):
        found = normalise_stain(BLANK, target, name="b.png")
    np.testing.assert_array_equal(found, BLANK)
    assert caplog.messages == [
        f"no {method} stain normalisation of b.png: too little tissue: 0 of 9216 sampled pixels"
    ]


@pytest.mark.parametrize("method", METHODS)
def test_an_unfit_image_is_refused_where_the_recipe_says_so(method: str) -> None:
    with pytest.raises(HemalumError) as caught:
        normalise_stain(BLANK, target_of(section(), method, unfit="refuse"), name="b.png")
    assert str(caught.value) == (
        f"b.png: {method} stain normalisation is impossible, too little tissue: 0 of 9216 sampled pixels; "
        "leave the image out, or say `unfit: pass` in the recipe"
    )


def test_many_unfit_images_are_one_line(caplog: pytest.LogCaptureFixture) -> None:
    normaliser = StainNormaliser(target_of(section(), "macenko"))
    for number in range(3):
        assert normaliser.match(sample_image(BLANK), f"sample {number}") is None
    normaliser.warn()
    assert len(caplog.messages) == 1
    assert "sample 0" in caplog.messages[0]
    assert caplog.messages[0].endswith(", and 2 more")


def test_a_few_percent_of_tissue_are_enough() -> None:
    image = BLANK.copy()
    image[:6] = section()[:6]
    assert measure_stain(sample_image(image), "macenko").stains is not None


# the record


@pytest.mark.parametrize("method", METHODS)
def test_the_target_survives_json(method: str) -> None:
    target = target_of(section(), method, origin="a.png")
    again = StainTarget.model_validate_json(target.model_dump_json())
    assert again == target
    image = section(seed=4)
    np.testing.assert_array_equal(normalise_stain(image, again), normalise_stain(image, target))


@pytest.mark.parametrize(
    ("method", "changes", "message"),
    [
        ("macenko", {"strongest": None}, "stains and strongest"),
        ("reinhard", {"sd": None}, "mean and sd"),
        ("vahadane", {"mean": (0.0, 0.0, 0.0)}, "nothing else"),
        ("macenko", {"strongest": (1.0, 0.0)}, "positive"),
        ("reinhard", {"mean": (0.0, float("nan"), 0.0)}, "not finite"),
    ],
)
def test_a_damaged_target_is_refused(method: str, changes: dict, message: str) -> None:
    values = target_of(section(), method).model_dump() | changes
    with pytest.raises(ValidationError, match=message):
        StainTarget(**values)


@pytest.mark.parametrize("method", METHODS)
def test_one_odd_image_does_not_move_the_median(method: str) -> None:
    usual = [measure_stain(sample_image(section(seed=seed)), method) for seed in range(4)]
    odd = measure_stain(sample_image(section(stains=PAIR[:, ::-1].copy(), strength=2.0)), method)
    found = median_stain([*usual, odd])
    image = section(seed=9, stains=OTHER)
    with_it, without = (
        match_stain(measure_stain(sample_image(image), method), one).apply(image).astype(int)
        for one in (found, usual[0])
    )
    assert np.abs(with_it - without).mean() < 3
    if found.stains is not None:
        np.testing.assert_allclose(np.linalg.norm(found.stains, axis=1), 1, atol=1e-6)


def test_methods_do_not_mix() -> None:
    one, other = (measure_stain(sample_image(section()), method) for method in ("macenko", "reinhard"))
    assert isinstance(one, StainStatistics)
    with pytest.raises(HemalumError, match="macenko cannot be matched to those of reinhard"):
        match_stain(one, other)
