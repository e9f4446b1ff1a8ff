"""Stain normalization against second implementations: torchstain, scikit-learn, and the equations written plainly."""

import logging
import warnings
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from pydantic import ValidationError

from builders.stains import normalize_stain
from hemalum.data.stain.normalization import (
    SAMPLED,
    StainNormalizer,
    UnfitImage,
    match_stain,
    measure_stain,
    median_stain,
    sample_image,
    sample_pixels,
)
from hemalum.data.stain.separation import STAINS, angle_between
from hemalum.data.stain.statistics import StainStatistics, StainTarget
from hemalum.errors import HemalumError

from .conftest import OTHER, PAIR, density_of, section, tissue, white_of

METHODS = ("macenko", "reinhard", "vahadane")


def target_of(image: np.ndarray, method: str, **changes: str) -> StainTarget:
    return StainTarget(**measure_stain(sample_image(image), method).model_dump(), **changes)


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
    statistics, record = (measure_stain(image.reshape(-1, 3), "macenko") for image in (source, target))
    shown, aim = (
        image.reshape(-1, 3)[density_of(image).mean(axis=1) >= 0.15].reshape(1, -1, 3) for image in (source, target)
    )
    reference = torchstain.normalizers.MacenkoNormalizer(backend="numpy")
    reference.fit(aim, Io=record.white + 1)
    np.testing.assert_allclose(np.array(record.stains).T, reference.HERef, atol=1e-6)
    np.testing.assert_allclose(record.strongest, reference.maxCRef, rtol=1e-5)
    expected = reference.normalize(shown, Io=statistics.white + 1, stains=False)[0]
    expected = expected * ((record.white + 1) / (statistics.white + 1))  # they have one illumination for both
    return match_stain(statistics, record).apply(shown) - expected


def test_macenko_agrees_with_torchstain() -> None:
    difference = compare_macenko(section(seed=1, stains=OTHER, strength=0.8), section(seed=2))
    # they cut fractions off and leave out the 1 that they added before the logarithm
    assert difference.min() >= -1
    assert difference.max() <= 0.5


def test_macenko_agrees_with_torchstain_on_real_tiles(real_tiles: list[np.ndarray]) -> None:
    for source, target in pairwise(real_tiles):
        difference = compare_macenko(source, target)
        assert np.abs(difference).max() <= 2


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

    source_stains, target_stains = stains(source), stains(target)
    most = np.percentile(parts(tissue(source), source_stains), 99, axis=0)
    aim = np.percentile(parts(tissue(target), target_stains), 99, axis=0)
    mixed = parts(density_of(source), source_stains) * aim / most @ target_stains
    return np.clip(np.rint((white_of(target) + 1) * np.exp(-mixed) - 1), 0, 255).reshape(source.shape), target_stains


def compare_vahadane(source: np.ndarray, target: np.ndarray) -> tuple[float, float]:
    """Largest angle between the stains in degrees, and the 99th percentile of the difference in gray levels."""
    expected, stains = plain_vahadane(source, target)
    record = target_of(target, "vahadane")
    assert record.stains is not None
    angles = [angle_between(np.array([a, b])) for a, b in zip(record.stains, stains, strict=True)]
    difference = np.abs(normalize_stain(source, record).astype(int) - expected)
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
    normalized = normalize_stain(source, target_of(target, "reinhard")).astype(int)
    assert np.abs(normalized - plain_reinhard(source, target)).max() <= 1


def test_reinhard_agrees_on_real_tiles(real_tiles: list[np.ndarray]) -> None:
    for source, target in pairwise(real_tiles):
        normalized = normalize_stain(source, target_of(target, "reinhard")).astype(int)
        difference = np.abs(normalized - plain_reinhard(source, target))
        assert difference.max() <= 1


# all methods


@pytest.mark.parametrize("method", METHODS)
def test_a_restained_section_comes_back(method: str) -> None:
    """Another laboratory's colors of the same tissue: after normalization they are nearly the first's."""
    target, source = section(), section(stains=OTHER, strength=0.7)
    before = np.abs(source.astype(int) - target).mean()
    after = np.abs(normalize_stain(source, target_of(target, method)).astype(int) - target).mean()
    assert before > 20
    assert after < before / 4


@pytest.mark.parametrize("method", METHODS)
def test_to_its_own_colors_nothing_changes(method: str) -> None:
    image = section()
    normalized = normalize_stain(image, target_of(image, method)).astype(int)
    # a pixel between the extreme directions and the noise beyond them: what neither stain explains is lost
    assert np.percentile(np.abs(normalized - image), 95) <= 3


@pytest.mark.parametrize("method", ["macenko", "vahadane"])
def test_white_stays_white(method: str) -> None:
    source = section(seed=1, strength=0.7)
    source[:30] = 255
    normalized = normalize_stain(source, target_of(section(), method))
    assert (normalized[:30] == 255).all()


@pytest.mark.parametrize("method", METHODS)
def test_tiles_give_what_the_whole_gives(method: str) -> None:
    image = section((70, 90), seed=3)
    change = match_stain(measure_stain(sample_image(image), method), target_of(section(), method))
    full = change.apply(image)
    for rows in (1, 7, 64):
        tiles = [change.apply(image[y : y + rows, x : x + 13]) for y in range(0, 70, rows) for x in range(0, 90, 13)]
        columns = len(range(0, 90, 13))
        bands = [np.concatenate(tiles[i : i + columns], axis=1) for i in range(0, len(tiles), columns)]
        np.testing.assert_array_equal(np.concatenate(bands), full)


def test_the_sample_is_regular_and_bounded() -> None:
    image = np.arange(1024 * 700 * 3, dtype=np.uint32).astype(np.uint8).reshape(1024, 700, 3)
    asked: list[int] = []

    def read(start: int, stop: int) -> np.ndarray:
        asked.append(stop - start)
        return image[start:stop]

    sampled = sample_pixels(read, (1024, 700))
    assert len(sampled) <= SAMPLED
    assert set(asked) == {1}
    np.testing.assert_array_equal(sampled, image[2::4, 2::4].reshape(-1, 3))
    small = image[:50, :60]
    np.testing.assert_array_equal(sample_image(small), small.reshape(-1, 3))


# images that say nothing about stain


def one_stain(which: int) -> np.ndarray:
    stain = STAINS[[which, which]]
    image = section(stains=stain).astype(int) + np.random.default_rng(1).normal(0, 2, (96, 96, 3))
    return np.clip(np.rint(image), 0, 255).astype(np.uint8)


BLANK = np.full((96, 96, 3), 244, np.uint8)
GRAY = np.repeat(section()[..., 1:2], 3, axis=2)
NIGHT = 255 - np.clip(section().astype(int) + 120, 0, 255).astype(np.uint8)
UNFIT = {
    "blank": (BLANK, "too little tissue: 0 of 9216 sampled pixels"),
    "fluorescence": (NIGHT, "dark ground"),
    "hematoxylin": (one_stain(0), "one stain"),
    "brown": (one_stain(2), "one stain"),
    "gray": (GRAY, "one stain"),
}


@pytest.mark.parametrize("kind", UNFIT)
@pytest.mark.parametrize("method", ["macenko", "vahadane"])
def test_what_is_unfit(kind: str, method: str) -> None:
    image, reason = UNFIT[kind]
    with pytest.raises(UnfitImage, match=reason):
        measure_stain(sample_image(image), method)


@pytest.mark.parametrize(("kind", "reason"), [("blank", "too little tissue"), ("gray", "no colors"),
                                              ("fluorescence", "dark ground")])  # fmt: skip
def test_what_is_unfit_for_reinhard(kind: str, reason: str) -> None:
    with pytest.raises(UnfitImage, match=reason):
        measure_stain(sample_image(UNFIT[kind][0]), "reinhard")


@pytest.mark.parametrize("method", METHODS)
def test_an_unfit_image_passes_with_a_warning(method: str, caplog: pytest.LogCaptureFixture) -> None:
    target = target_of(section(), method)
    with caplog.at_level(logging.WARNING):
        result = normalize_stain(BLANK, target, name="b.png")
    np.testing.assert_array_equal(result, BLANK)
    assert caplog.messages == [
        f"no {method} stain normalization of b.png: too little tissue: 0 of 9216 sampled pixels"
    ]


@pytest.mark.parametrize("method", METHODS)
def test_an_unfit_image_is_refused_where_the_recipe_says_so(method: str) -> None:
    with pytest.raises(HemalumError) as caught:
        normalize_stain(BLANK, target_of(section(), method, unfit="refuse"), name="b.png")
    assert str(caught.value) == (
        f"b.png: {method} stain normalization is impossible, too little tissue: 0 of 9216 sampled pixels; "
        "leave the image out, or say `unfit: pass` in the recipe"
    )


def test_many_unfit_images_are_one_line(caplog: pytest.LogCaptureFixture) -> None:
    normalizer = StainNormalizer(target_of(section(), "macenko"))
    for number in range(3):
        assert normalizer.match(sample_image(BLANK), f"sample {number}") is None
    normalizer.warn()
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
    np.testing.assert_array_equal(normalize_stain(image, again), normalize_stain(image, target))


@pytest.mark.parametrize(
    ("method", "changes", "message"),
    [
        ("macenko", {"strongest": None}, "stains and strongest"),
        ("reinhard", {"sd": None}, "mean and sd"),
        ("vahadane", {"mean": (0.0, 0.0, 0.0)}, "nothing else"),
        ("macenko", {"strongest": (1.0, 0.0)}, "positive"),
        ("reinhard", {"mean": (0.0, float("nan"), 0.0)}, "finite number"),
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
    pooled = median_stain([*usual, odd])
    image = section(seed=9, stains=OTHER)
    with_it, without = (
        match_stain(measure_stain(sample_image(image), method), one).apply(image).astype(int)
        for one in (pooled, usual[0])
    )
    assert np.abs(with_it - without).mean() < 3
    if pooled.stains is not None:
        np.testing.assert_allclose(np.linalg.norm(pooled.stains, axis=1), 1, atol=1e-6)


@pytest.mark.fault
def test_methods_do_not_mix() -> None:
    one, other = (measure_stain(sample_image(section()), method) for method in ("macenko", "reinhard"))
    assert isinstance(one, StainStatistics)
    with pytest.raises(HemalumError, match="macenko cannot be matched to those of reinhard"):
        match_stain(one, other)
