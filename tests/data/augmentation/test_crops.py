"""Augmentation: image and labels move together, draws depend on their seeds alone."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from hemalum.data.augmentation.crops import augment, cut
from hemalum.data.augmentation.settings import NO_AUGMENTATION, AugmentSettings
from hemalum.data.augmentation.warp import TrainingImage
from hemalum.data.stain.jitter import StainProfile, draw_stain_jitter, jitter_stain
from hemalum.data.stain.separation import STAINS


def scene(side: int = 64, label_side: int | None = None) -> TrainingImage:
    """Bright discs on dark ground: the image shows exactly what the labels say."""
    label_side = label_side or side

    def discs(n: int) -> np.ndarray:
        y, x = (np.mgrid[:n, :n] + 0.5) * (64 / n)
        labels = np.zeros((n, n), np.int32)
        for index, (cy, cx, r) in enumerate([(20, 22, 9), (42, 40, 11), (15, 50, 7)], start=1):
            labels[(y - cy) ** 2 + (x - cx) ** 2 < r**2] = index
        return labels

    image = np.where(discs(side)[..., None] > 0, np.uint8(220), np.uint8(30)).repeat(3, axis=2)
    return TrainingImage(np.ascontiguousarray(image), discs(label_side))


def rngs(*seeds: int) -> list[np.random.Generator]:
    return [np.random.default_rng(seed) for seed in seeds]


GEOMETRY = NO_AUGMENTATION.model_copy(update={"flips": True, "rotation": 1.0, "scale": 1.4, "elastic": 3.0})


def test_without_augmentation_the_whole_comes_back() -> None:
    sample = scene()
    images, labels = augment([sample], rngs(0), 64, NO_AUGMENTATION)
    np.testing.assert_allclose(images[0].permute(1, 2, 0).numpy() * 255, sample.image, atol=1e-2)
    np.testing.assert_array_equal(labels[0], sample.labels)


@pytest.mark.parametrize("label_side", [64, 128, 96])
@pytest.mark.parametrize("seed", range(6))
def test_labels_follow_the_image(seed: int, label_side: int) -> None:
    images, labels = augment([scene(64, label_side)], rngs(seed), 48, GEOMETRY)
    seen = images[0, 0].numpy() > 125 / 255
    assert (seen != (labels[0] > 0)).mean() < 0.025  # disagreement on the discs' rims only
    assert (labels[0] > 0).any()


@pytest.mark.parametrize("seed", range(4))
def test_finer_labels_cover_the_same_field(seed: int) -> None:
    images, coarse = augment([scene()], rngs(seed), 48, GEOMETRY)
    same, fine = augment([scene(64, 128)], rngs(seed), 48, GEOMETRY, supersampling=2)
    assert torch.equal(images, same)
    assert fine.shape == (1, 96, 96)
    share = (fine[0] > 0).reshape(48, 2, 48, 2).mean((1, 3))
    assert ((share >= 0.5) != (coarse[0] > 0)).mean() < 0.02


def test_flips_only_are_one_of_the_eight_and_reach_all() -> None:
    sample = scene()
    eight = {
        np.ascontiguousarray(turned).tobytes()
        for flipped in (sample.labels, sample.labels[:, ::-1])
        for turned in (np.rot90(flipped, k) for k in range(4))
    }
    settings = NO_AUGMENTATION.model_copy(update={"flips": True})
    seen = {augment([sample], rngs(seed), 64, settings)[1][0].tobytes() for seed in range(60)}
    assert seen == eight


def test_horizontal_flips_mirror_left_to_right_alone() -> None:
    image, labels = colored_and_labeled()
    settings = NO_AUGMENTATION.model_copy(update={"flips": "horizontal"})
    mirrored = 0
    for seed in range(100):
        crops, cut_labels = augment([TrainingImage(image, labels)], [np.random.default_rng(seed)], 32, settings)
        pixels = crops[0].permute(1, 2, 0).numpy() * 255
        flipped = bool((cut_labels[0] == labels[:, ::-1]).all())
        expected = (image[:, ::-1], labels[:, ::-1]) if flipped else (image, labels)
        np.testing.assert_allclose(pixels, expected[0], atol=0.01)
        np.testing.assert_array_equal(cut_labels[0], expected[1])
        mirrored += flipped
    assert 30 < mirrored < 70


def colored_and_labeled() -> tuple[np.ndarray, np.ndarray]:
    """An image and labels without any symmetry."""
    rng = np.random.default_rng(3)
    return rng.integers(0, 255, (32, 32, 3), np.uint8), rng.integers(0, 9, (32, 32)).astype(np.int32)


def test_a_draw_depends_on_its_own_seed_alone() -> None:
    sample, settings = scene(), AugmentSettings()
    alone = augment([sample], rngs(7), 32, settings)
    among = augment([sample, sample, sample], rngs(3, 7, 9), 32, settings)
    torch.testing.assert_close(alone[0][0], among[0][1], rtol=0, atol=1e-5)
    np.testing.assert_array_equal(alone[1][0], among[1][1])
    again = augment([sample], rngs(7), 32, settings)
    assert torch.equal(alone[0], again[0])
    other = augment([sample], rngs(8), 32, settings)
    assert not torch.equal(alone[0], other[0])


def test_a_draw_depends_on_its_own_seed_alone_with_every_part_switched_on() -> None:
    stains = StainProfile(STAINS[:2], np.array([1.0, 0.6]))
    donors = [StainProfile(STAINS[[0, 2]], np.array([0.8, 1.0])), StainProfile(STAINS[:2], np.array([1.6, 0.4]))]
    sample = replace(scene(), stains=stains)
    settings = AugmentSettings(
        stain_mix=0.5, brown=0.3, dab=0.5, intensity=0.2, jpeg=0.5, clahe=0.3, gray=0.2, rotation=0.5
    )
    seeds = range(12)
    among = augment([sample] * 12, rngs(*seeds), 32, settings, donors=donors)
    assert len({image.numpy().tobytes() for image in among[0]}) == 12
    for seed in seeds:
        alone = augment([sample], rngs(seed), 32, settings, donors=donors)
        assert torch.equal(alone[0][0], among[0][seed])
        np.testing.assert_array_equal(alone[1][0], among[1][seed])
    backwards = augment([sample] * 12, rngs(*reversed(seeds)), 32, settings, donors=donors)
    assert torch.equal(backwards[0].flip(0), among[0])


def test_crops_without_images_have_the_same_labels_and_draws() -> None:
    settings = AugmentSettings(dab=0.5, jpeg=0.5)
    full, bare = (cut([scene()] * 3, rngs(1, 2, 3), 32, settings, images=images) for images in (True, False))
    assert len(bare.images) == 0
    np.testing.assert_array_equal(bare.labels, full.labels)
    assert torch.equal(bare.affine, full.affine)
    assert torch.equal(bare.shift, full.shift)
    assert full.drawn.keys() - bare.drawn.keys() == {"noise"}  # drawn where it is applied
    for name, value in bare.drawn.items():
        assert torch.equal(value, full.drawn[name])


def test_small_images_are_mirrored_not_padded_with_black() -> None:
    white = TrainingImage(np.full((20, 20, 3), 255, np.uint8), np.ones((20, 20), np.int32))
    images, labels = augment([white], rngs(0), 64, GEOMETRY)
    assert images.min() > 0.99
    assert (labels == 1).all()


def test_color_stays_in_range_and_changes_no_label() -> None:
    sample = scene()
    settings = AugmentSettings(flips=False, rotation=0, scale=1, elastic=0, stain=0.6, gray=0.5, noise=0.1)
    images, labels = augment([sample] * 8, rngs(*range(8)), 64, settings)
    assert images.min() >= 0
    assert images.max() <= 1
    assert len({image.numpy().tobytes() for image in images}) == 8
    for label in labels:
        np.testing.assert_array_equal(label, sample.labels)


def test_stain_of_strength_nothing_changes_nothing() -> None:
    matrix, offset = draw_stain_jitter(np.random.default_rng(0), 0.0)
    image = torch.rand(1, 3, 8, 8) * 0.9 + 0.05
    same = jitter_stain(image, torch.from_numpy(matrix)[None], torch.from_numpy(offset)[None])
    torch.testing.assert_close(same, image, rtol=1e-4, atol=1e-5)


def test_stain_moves_along_the_dyes_in_optical_density() -> None:
    """Pure hematoxylin at density 1, its amount doubled by hand, is hematoxylin at density 2."""
    pure = torch.exp(-torch.tensor(STAINS[0])).float().view(1, 3, 1, 1)
    matrix = (np.linalg.inv(STAINS) @ np.diag([2.0, 1.0, 1.0]) @ STAINS).astype(np.float32)
    doubled = jitter_stain(pure, torch.from_numpy(matrix)[None], torch.zeros(1, 3))
    np.testing.assert_allclose(doubled.flatten().numpy(), np.exp(-2 * STAINS[0]), rtol=1e-4)


def test_brown_turns_eosin_into_dab_and_leaves_hematoxylin() -> None:
    """Averaged over draws, pure eosin leaves along DAB's direction and pure hematoxylin along its own."""
    rng = np.random.default_rng(0)
    drawn = [draw_stain_jitter(rng, 0.1, brown=1.0)[0] for _ in range(50)]
    eosin, hematoxylin = (np.mean([stain @ matrix for matrix in drawn], axis=0) for stain in (STAINS[1], STAINS[0]))
    assert eosin @ STAINS[2] / np.linalg.norm(eosin) > 0.995
    assert eosin @ STAINS[1] / np.linalg.norm(eosin) < 0.9
    assert hematoxylin @ STAINS[0] / np.linalg.norm(hematoxylin) > 0.995


def test_intensity_scales_all_channels_alike() -> None:
    flat = TrainingImage(np.full((32, 32, 3), (120, 80, 40), np.uint8), np.zeros((32, 32), np.int32))
    settings = NO_AUGMENTATION.model_copy(update={"intensity": 0.4})
    images, _ = augment([flat] * 6, rngs(*range(6)), 32, settings)
    factors = images[:, :, 0, 0] / (torch.tensor([120.0, 80.0, 40.0]) / 255)
    torch.testing.assert_close(factors, factors[:, :1].expand(-1, 3), rtol=1e-5, atol=1e-5)
    assert factors.min() >= 0.6
    assert factors.max() <= 1.4
    assert len(set(factors[:, 0].tolist())) == 6


def test_clahe_evens_out_a_dark_half_and_keeps_to_its_share() -> None:
    texture = np.random.default_rng(0).integers(-6, 7, (64, 64, 1))
    image = np.full((64, 64, 3), 200) + texture
    image[:, :32] = 60 + texture[:, :32]
    sample = TrainingImage(image.astype(np.uint8), np.zeros((64, 64), np.int32))
    plain = augment([sample], rngs(0), 64, NO_AUGMENTATION)[0]
    every = augment([sample], rngs(0), 64, NO_AUGMENTATION.model_copy(update={"clahe": 1.0}))[0]
    contrast = [images[0, 1, 8:-8, 8:24].std() for images in (plain, every)]
    assert contrast[1] > 1.5 * contrast[0]
    some = augment([sample] * 40, rngs(*range(40)), 64, NO_AUGMENTATION.model_copy(update={"clahe": 0.5}))[0]
    changed = sum(not torch.equal(one, plain[0]) for one in some)
    assert 10 < changed < 30
