"""Crops cut from images in one tensor are those that the warp cuts one by one."""

import numpy as np
import pytest
import torch

from hemalum.data.augmentation.image_bank import ImageBank
from hemalum.data.augmentation.settings import NO_AUGMENTATION
from hemalum.data.augmentation.warp import TrainingImage, draw_geometry, warp_image

SIZES = [(64, 90), (33, 41), (100, 57), (5, 7)]  # with crops of 48 px the last ones are mirrored more than once
PARTS = {
    "mirror": {"flips": True},
    "rotation": {"rotation": 1.0},
    "zoom": {"scale": 2.0},
    "elastic": {"elastic": 4.0},
    "all": {"flips": True, "rotation": 1.0, "scale": 2.0, "elastic": 4.0},
}


@pytest.mark.parametrize("part", PARTS)
def test_the_bank_cuts_as_the_warp_does(part: str) -> None:
    settings, size = NO_AUGMENTATION.model_copy(update=PARTS[part]), 48
    rng = np.random.default_rng(0)
    samples = [
        TrainingImage(rng.integers(0, 256, (*shape, 3)).astype(np.uint8), np.zeros(shape, np.int32))
        for shape in SIZES
    ]
    bank = ImageBank([sample.image for sample in samples], torch.device("cpu"))
    index = np.array([2, 0, 3, 1, 1, 0, 2, 3, 0, 2])
    drawn = [draw_geometry(samples[i], np.random.default_rng(seed), size, settings) for seed, i in enumerate(index)]
    expected = np.empty((len(index), size, size, 3), np.uint8)
    for (affine, shift), i, out in zip(drawn, index, expected, strict=True):
        warp_image(samples[i], affine, shift, size, out)
    affine, shift = (torch.from_numpy(np.stack(parts)) for parts in zip(*drawn, strict=True))
    crops = bank.cut(torch.from_numpy(index), affine, shift, size)
    assert crops.shape == (len(index), 3, size, size)
    assert crops.dtype == torch.uint8
    difference = np.abs(crops.permute(0, 2, 3, 1).numpy().astype(int) - expected)
    assert difference.max() <= 1
    assert (difference > 0).mean() < 0.01


def test_a_mirrored_border_has_each_pixel_twice() -> None:
    image = np.array([[10, 20, 30]], np.uint8)[..., None].repeat(3, axis=2)
    bank = ImageBank([np.full((4, 4, 3), 99, np.uint8), image], torch.device("cpu"))
    left = torch.tensor([[[1.0, 0.0, -4.0], [0.0, 1.0, 0.0]]])
    row = bank.cut(torch.tensor([1]), left, torch.zeros(1, 2, 6, 6), 11)[0, 0, 0]
    assert row.tolist() == [30, 30, 20, 10, 10, 20, 30, 30, 20, 10, 10]
