"""How crops look: each part against a reference of its own, the compiled form against tensors."""

import io
import math

import numpy as np
import pytest
import torch
from PIL import Image, ImageEnhance
from scipy import ndimage

from hemalum.data.augmentation.appearance import (
    apply_appearance,
    apply_by_tensors,
    compress_by_tensors,
    draw_appearance,
    equalize_locally,
)
from hemalum.data.augmentation.compiled_appearance import BROWN
from hemalum.data.augmentation.settings import NO_AUGMENTATION, AugmentSettings
from hemalum.data.stain.jitter import StainProfile, draw_stain_jitter, stain_transfer
from hemalum.data.stain.separation import STAINS
from hemalum.data.stain.simulated_dab import draw_dab

LEVEL = 1 / 255
EVERYTHING = AugmentSettings(
    stain=0.4, stain_mix=0.5, brown=0.3, dab=0.5, saturation=0.5, brightness=0.2, contrast=0.3, intensity=0.2,
    gamma=0.4, gray=0.2, blur=2.0, noise=0.05, jpeg=0.5,
)  # fmt: skip
ONE = StainProfile(STAINS[:2], np.array([1.5, 0.8]))
_HUES = np.array([[0.72, 0.62, 0.31], [0.2, 0.9, 0.25]])
OTHER = StainProfile(_HUES / np.linalg.norm(_HUES, axis=1, keepdims=True), np.array([1.2, 1.2]))


def rngs(count: int) -> list[np.random.Generator]:
    return [np.random.default_rng(seed) for seed in range(count)]


def tissue(count: int = 6, side: int = 48) -> torch.Tensor:
    """Images (B, 3, side, side) uint8 with blobs of any color, from black to white."""
    noise = np.random.default_rng(1).normal(0, 1, (count, 3, side, side))
    smooth = np.stack([[ndimage.gaussian_filter(channel, 2.0) for channel in image] for image in noise])
    smooth = (smooth - smooth.min()) / (smooth.max() - smooth.min())
    return torch.from_numpy((smooth * 330 - 40).clip(0, 255).astype(np.uint8))


def nuclei(count: int = 6, side: int = 48) -> np.ndarray:
    labels = np.zeros((count, side, side), np.int32)
    labels[:, 5:17, 8:20], labels[:, 25:40, 22:34] = 1, 2
    return labels


def drawn_with(count: int = 6, side: int = 48, **update: object) -> dict[str, torch.Tensor]:
    settings = NO_AUGMENTATION.model_copy(update=update)
    return draw_appearance(rngs(count), side, settings, [ONE] * count, [OTHER], nuclei(count, side))


def applied(images: torch.Tensor, drawn: dict[str, torch.Tensor]) -> np.ndarray:
    return apply_appearance(images, drawn).numpy()


def test_compiled_crops_are_those_of_tensors() -> None:
    images = tissue(24)
    drawn = draw_appearance(rngs(24), 48, EVERYTHING, [ONE] * 24, [OTHER], nuclei(24))
    del drawn["jpeg"]
    assert {"matrix", "brown", "saturation", "gamma", "intensity", "kernel", "noise"} <= drawn.keys()
    difference = (apply_appearance(images, drawn) - apply_by_tensors(images, drawn)).abs()
    assert difference.max() < LEVEL
    assert difference.mean() < 0.1 * LEVEL


@pytest.mark.parametrize("name", ["stain", "saturation", "contrast", "brightness", "gamma", "blur", "noise", "dab"])
def test_compiled_parts_are_those_of_tensors(name: str) -> None:
    images, drawn = tissue(), drawn_with(**{name: 0.5})
    changed = apply_appearance(images, drawn)
    assert (changed - images.float() / 255).abs().max() > 5 * LEVEL
    assert (changed - apply_by_tensors(images, drawn)).abs().max() < 0.5 * LEVEL


def test_together_as_one_by_one() -> None:
    images = tissue(12)
    settings = EVERYTHING.model_copy(update={"clahe": 0.5})
    drawn = draw_appearance(rngs(12), 48, settings, [ONE] * 12, [OTHER], nuclei(12))
    parts = [(images[i : i + 1], {name: value[i : i + 1] for name, value in drawn.items()}) for i in range(12)]
    assert torch.equal(apply_appearance(images, drawn), torch.cat([apply_appearance(*part) for part in parts]))
    every = torch.cat([apply_by_tensors(*part) for part in parts])
    torch.testing.assert_close(apply_by_tensors(images, drawn), every, rtol=0, atol=1e-5)


def test_normalized_as_it_goes() -> None:
    images, drawn = tissue(), drawn_with(stain=0.3, noise=0.02)
    mean, std = (0.1, 0.5, 0.7), (0.2, 0.25, 0.5)
    plain = applied(images, drawn)
    expected = (plain - np.array(mean).reshape(3, 1, 1)) / np.array(std).reshape(3, 1, 1)
    result = apply_appearance(images, drawn, mean, std)
    np.testing.assert_allclose(result.numpy(), expected, atol=1e-5)
    assert result.is_contiguous(memory_format=torch.channels_last)


def pil_jpeg(pixels: np.ndarray, quality: int) -> np.ndarray:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG", quality=quality)
    return np.asarray(Image.open(buffer))


def test_jpeg_is_pils() -> None:
    images, drawn = tissue(20), drawn_with(20, jpeg=0.5)
    quality = drawn["jpeg"].tolist()
    assert 4 < sum(value > 0 for value in quality) < 16
    assert all(value == 0 or 30 <= value <= 90 for value in quality)
    result = applied(images, drawn).transpose(0, 2, 3, 1) * 255
    for image, actual, value in zip(images.permute(0, 2, 3, 1).numpy(), result, quality, strict=True):
        expected = pil_jpeg(image, value) if value else image
        np.testing.assert_allclose(actual, expected, atol=1e-3)


@pytest.mark.parametrize("side", [48, 41])  # whole blocks of 16 px, and not
def test_jpeg_by_tensors_is_near_pils(side: int) -> None:
    images = tissue(3, side)
    qualities = [30, 60, 90]
    coded = compress_by_tensors(images, torch.tensor(qualities))
    assert (coded.dtype, coded.shape) == (torch.uint8, images.shape)
    for image, actual, quality in zip(images, coded, qualities, strict=True):
        pixels = np.ascontiguousarray(image.permute(1, 2, 0).numpy())
        expected = pil_jpeg(pixels, quality).astype(float)
        lost = np.abs(expected - pixels).mean()  # what compression costs
        apart = np.abs(actual.permute(1, 2, 0).numpy() - expected).mean()
        assert apart < max(0.5 * lost, 1.0)
        assert np.abs(actual.permute(1, 2, 0).numpy().astype(float) - pixels).mean() == pytest.approx(lost, rel=0.35)


def density_of(pixels: np.ndarray) -> np.ndarray:
    return -np.log(pixels)


def test_a_transfer_of_all_the_way_gives_the_donors_stains() -> None:
    """Pixels of known amounts of two stains, by hand: the same amounts of the donor's, scaled by its strengths."""
    amounts = np.array([[0.2, 0.1], [0.9, 0.0], [0.0, 0.7], [0.5, 0.4]])
    changed = amounts @ ONE.directions @ stain_transfer(ONE, OTHER, 1.0)
    np.testing.assert_allclose(changed, amounts * [1.2 / 1.5, 1.2 / 0.8] @ OTHER.directions, atol=1e-9)
    np.testing.assert_allclose(amounts @ ONE.directions @ stain_transfer(ONE, OTHER, 0.0), amounts @ ONE.directions)
    strong = StainProfile(OTHER.directions, np.array([30.0, 0.01]))
    bounded = amounts @ ONE.directions @ stain_transfer(ONE, strong, 1.0)
    np.testing.assert_allclose(bounded, amounts * [2.0, 0.5] @ OTHER.directions, atol=1e-9)


def test_stain_mix_moves_a_pure_stain_some_way_to_the_donors() -> None:
    pure = np.exp(-0.8 * STAINS[0])
    images = torch.from_numpy((pure * 255 + 0.5).astype(np.uint8)).view(1, 3, 1, 1).expand(8, 3, 48, 48).contiguous()
    changed = applied(images, drawn_with(8, stain_mix=1.0))[:, :, 0, 0]
    shares = []
    for rng, color in zip(rngs(8), changed, strict=True):
        # the draws in their order: amounts, shifts, brown, directions; then donor, share, chosen
        rng.uniform(size=3), rng.uniform(size=3), rng.random(), rng.normal(0, 1, (3, 3)), rng.integers(1)
        share = rng.uniform()
        direction = (1 - share) * ONE.directions[0] + share * OTHER.directions[0]
        expected = 0.8 * (1.2 / 1.5) ** share * direction / np.linalg.norm(direction)
        np.testing.assert_allclose(density_of(color), expected, atol=0.02)
        shares.append(share)
    assert max(shares) - min(shares) > 0.4
    assert len({color.tobytes() for color in applied(images, drawn_with(8, stain_mix=0.5))[:, :, 0, 0]}) < 8


def test_an_image_of_unknown_stains_is_not_mixed() -> None:
    settings = NO_AUGMENTATION.model_copy(update={"stain_mix": 1.0})
    images = tissue(2)
    drawn = draw_appearance(rngs(2), 48, settings, [None, ONE], [OTHER])
    changed = np.abs(applied(images, drawn) - images.numpy() / 255).max(axis=(1, 2, 3))
    assert changed[0] < LEVEL
    assert changed[1] > 5 * LEVEL


def test_brown_is_added_in_optical_density() -> None:
    """OD' = OD · matrix + offset + amount · direction, written out for each pixel."""
    images, drawn = tissue(8), drawn_with(8, dab=1.0, stain=0.2)
    result = applied(images, drawn)
    assert drawn["brown"].any()
    for b in range(8):
        for i in range(0, 48, 5):
            for j in range(0, 48, 3):
                density = [-math.log(max(float(images[b, c, i, j]) / 255, 1 / 256)) for c in range(3)]
                for c in range(3):
                    changed = float(drawn["offset"][b, c]) + BROWN * int(drawn["brown"][b, 0, i, j]) * float(
                        drawn["direction"][b, c]
                    )
                    for k in range(3):
                        changed += density[k] * float(drawn["matrix"][b, k, c])
                    assert result[b, c, i, j] == pytest.approx(min(math.exp(-changed), 1.0), abs=0.5 * LEVEL)


def test_brown_is_stained_with_the_rest() -> None:
    """The jitter of stains comes after the brown: it changes DAB's hue as it does that of hematoxylin."""
    drawn, labels = drawn_with(8, dab=1.0, stain=0.4), nuclei(1)[0]
    for index, rng in enumerate(rngs(8)):
        jitter, _ = draw_stain_jitter(rng, 0.4)
        assert rng.random() < 1  # the share
        dab = draw_dab(labels, rng)
        np.testing.assert_allclose(drawn["direction"][index], dab.direction @ jitter, atol=1e-5)
        np.testing.assert_allclose(drawn["matrix"][index], dab.matrix @ jitter, atol=1e-5)
        np.testing.assert_allclose(drawn["brown"][index, 0] * BROWN, dab.amount.clip(0, 2.55), atol=BROWN)


def test_dab_keeps_to_its_share() -> None:
    marked = drawn_with(200, 8, dab=0.3)["direction"].any(dim=1)
    assert 40 <= int(marked.sum()) <= 80


def test_blur_is_a_gaussian_filter() -> None:
    images, drawn = tissue(12), drawn_with(12, blur=1.8)
    result = applied(images, drawn)
    sigmas = [np.random.default_rng(seed).uniform(-1.8, 1.8) for seed in range(12)]
    assert 3 <= sum(sigma > 0.2 for sigma in sigmas) <= 9
    for image, actual, sigma in zip(images.numpy() / 255, result, sigmas, strict=True):
        expected = image
        if sigma > 0.2:
            expected = np.stack([ndimage.gaussian_filter(part, sigma, mode="mirror", radius=4) for part in image])
        np.testing.assert_allclose(actual, expected, atol=0.02 * LEVEL)


def test_noise_has_the_deviation_that_was_drawn() -> None:
    images = torch.full((6, 3, 48, 48), 128, dtype=torch.uint8)
    drawn = drawn_with(noise=0.1)
    result = applied(images, drawn) - 128 / 255
    deviations = drawn["deviation"].numpy()
    assert deviations.max() > 4 * deviations.min()
    assert deviations.max() <= 0.1
    np.testing.assert_allclose(result.std(axis=(1, 2, 3)), deviations, rtol=0.03)
    np.testing.assert_allclose(result.mean(axis=(1, 2, 3)), 0, atol=0.004)
    channels = np.corrcoef(result[0].reshape(3, -1))
    assert np.abs(channels - np.eye(3)).max() < 0.1  # each channel has noise of its own
    assert "noise" not in draw_appearance(rngs(2), 8, NO_AUGMENTATION.model_copy(update={"noise": 0.1}), noise=False)


def test_saturation_is_pils() -> None:
    images, drawn = tissue(), drawn_with(saturation=0.6)
    result = applied(images, drawn).transpose(0, 2, 3, 1) * 255
    for image, actual, factor in zip(images.permute(0, 2, 3, 1).numpy(), result, drawn["saturation"], strict=True):
        expected = np.asarray(ImageEnhance.Color(Image.fromarray(image)).enhance(float(factor)))
        np.testing.assert_allclose(actual, expected, atol=1.6)  # PIL rounds twice


def test_gray_keeps_to_its_share() -> None:
    drawn = drawn_with(60, gray=0.4)
    result = applied(tissue(60), drawn)
    gray = np.abs(result - result[:, :1]).max(axis=(1, 2, 3)) < 1e-6
    assert 14 <= gray.sum() <= 34
    assert (gray == (drawn["saturation"].numpy() == 0)).all()


def test_tones_in_their_order() -> None:
    """Contrast, brightness, intensity and gamma of single bytes, by hand."""
    images = torch.arange(256, dtype=torch.uint8).view(1, 1, 16, 16).expand(4, 3, 16, 16).contiguous()
    drawn = drawn_with(4, 16, contrast=0.3, brightness=0.2, intensity=0.3, gamma=0.4)
    result = applied(images, drawn).reshape(4, 3, 256)
    for b in range(4):
        for byte in range(256):
            value = min(byte / 255 * float(drawn["contrast"][b]), 1.0)
            value = min(max(value + float(drawn["brightness"][b]), 0.0), 1.0) * float(drawn["intensity"][b])
            assert result[b, 1, byte] == pytest.approx(min(value ** float(drawn["gamma"][b]), 1.0), abs=1e-5)


def test_clahe_is_of_the_crops_that_were_chosen() -> None:
    images, drawn = tissue(20), drawn_with(20, clahe=0.5)
    assert 4 < int(drawn["clahe"].sum()) < 16
    result, plain = apply_appearance(images, drawn), images.float() / 255
    for actual, image, chosen in zip(result, plain, drawn["clahe"], strict=True):
        expected = equalize_locally(image[None])[0].clamp(0, 1) if chosen else image
        torch.testing.assert_close(actual, expected, rtol=0, atol=1e-5)


def test_a_crop_smaller_than_the_blur() -> None:
    images = tissue(4, 4)
    drawn = draw_appearance(rngs(4), 4, NO_AUGMENTATION.model_copy(update={"blur": 3.0}))
    np.testing.assert_allclose(applied(images, drawn), apply_by_tensors(images, drawn).numpy(), atol=1e-5)
