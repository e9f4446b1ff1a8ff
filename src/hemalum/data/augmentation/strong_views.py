"""Strong views of images: color jitter, gray, blur, and boxes that come from another image (CutMix)."""

import math
from collections.abc import Sequence
from typing import Annotated

import kornia
import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from hemalum.settings import Strict

Share = Annotated[float, Field(ge=0, le=1)]


class StrongViews(Strict):
    """How a strong view is made; the defaults are those of UniMatch's public code (Yang et al. 2023)."""

    jitter: Share = Field(0.8, description="share of views whose colors are jittered")
    brightness: float = Field(0.5, ge=0, lt=1, description="factor between 1 - and 1 + this; so the next two")
    contrast: float = Field(0.5, ge=0, lt=1)
    saturation: float = Field(0.5, ge=0, lt=1)
    hue: float = Field(0.25, ge=0, le=0.5, description="shift between - and + this, of the color circle")
    gray: Share = Field(0.2, description="share of views turned gray")
    blur: Share = Field(0.5, description="share of views that are blurred")
    sigma: tuple[float, float] = Field((0.1, 2.0), description="of the Gaussian blur, px")
    cutmix: Share = Field(0.5, description="share of views with a box from another image")
    area: tuple[Share, Share] = Field((0.02, 0.4), description="of the box, of the crop's")
    ratio: tuple[float, float] = Field((0.3, 1 / 0.3), description="of the box's height to its width")


def strengthen(images_BCHW: Tensor, rngs: Sequence[np.random.Generator], settings: StrongViews) -> Tensor:
    """Strong views (B, 3, H, W) of images in [0, 1]; one generator for each image, boxes are drawn apart.

    Brightness, contrast, saturation and hue in this order; the public code shuffles it.
    """
    x = images_BCHW.clone()
    spans = (settings.brightness, settings.contrast, settings.saturation)
    drawn = [
        (
            rng.random() < settings.jitter,
            *(rng.uniform(1 - span, 1 + span) for span in spans),
            rng.uniform(-settings.hue, settings.hue),
            rng.random() < settings.gray,
            rng.random() < settings.blur,
            rng.uniform(*settings.sigma),
        )
        for rng in rngs
    ]
    jitter, brightness, contrast, saturation, hue, gray, blur, sigma = (
        torch.tensor(values) for values in zip(*drawn, strict=True)
    )
    if jitter.any():
        y = kornia.enhance.adjust_brightness_accumulative(x[jitter], brightness[jitter].float())
        y = kornia.enhance.adjust_contrast_with_mean_subtraction(y, contrast[jitter].float())
        y = kornia.enhance.adjust_saturation_with_gray_subtraction(y, saturation[jitter].float())
        x[jitter] = kornia.enhance.adjust_hue(y, 2 * math.pi * hue[jitter].float())
    if gray.any():
        x[gray] = kornia.color.rgb_to_grayscale(x[gray]).expand(-1, 3, -1, -1)
    if blur.any():
        side = 2 * math.ceil(3 * settings.sigma[1]) + 1
        pair = sigma[blur, None].float().expand(-1, 2)
        x[blur] = kornia.filters.gaussian_blur2d(x[blur], (side, side), pair)
    return x.clamp_(0, 1)


def draw_box(rng: np.random.Generator, height: int, width: int, settings: StrongViews) -> tuple[slice, slice] | None:
    """The rows and columns of a box that comes from another image; None for a view without one."""
    if rng.random() >= settings.cutmix:
        return None
    while True:  # a box that does not fit is drawn again
        area, ratio = rng.uniform(*settings.area) * height * width, rng.uniform(*settings.ratio)
        rows, columns = int(math.sqrt(area * ratio)), int(math.sqrt(area / ratio))
        if rows <= height and columns <= width:
            top, left = int(rng.integers(height - rows + 1)), int(rng.integers(width - columns + 1))
            return slice(top, top + rows), slice(left, left + columns)


def partners(count: int) -> list[int]:
    """Where each image of a batch has its box from: its neighbor in pairs; the last of an odd number is alone."""
    return [index ^ 1 if index ^ 1 < count else index for index in range(count)]
