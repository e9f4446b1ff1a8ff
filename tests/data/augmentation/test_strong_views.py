"""Strong views against their definitions, pixel by pixel: units and order of the jitter, gray, blur, and place."""

import colorsys
from typing import Any

import numpy as np
import pytest
import torch
from scipy import ndimage

from hemalum.data.augmentation.strong_views import StrongViews, strengthen

NOTHING: dict[str, Any] = {
    "jitter": 1, "brightness": 0, "contrast": 0, "saturation": 0, "hue": 0, "gray": 0, "blur": 0
}  # fmt: skip
LUMINANCE = np.array([0.299, 0.587, 0.114])


def rngs(count: int = 3) -> list[np.random.Generator]:
    return [np.random.default_rng([11, n]) for n in range(count)]


def drawn(settings: StrongViews) -> list[dict[str, float]]:
    """What each generator draws, in order: whether and how far, for each part."""
    result = []
    for rng in rngs():
        values = {"jitter": rng.random()}
        for name in ("brightness", "contrast", "saturation"):
            span = getattr(settings, name)
            values[name] = rng.uniform(1 - span, 1 + span)
        values["hue"] = rng.uniform(-settings.hue, settings.hue)
        values |= {"gray": rng.random(), "blur": rng.random(), "sigma": rng.uniform(*settings.sigma)}
        result.append(values)
    return result


def brighten(x_hwc: np.ndarray, factor: float) -> np.ndarray:
    return np.clip(x_hwc * factor, 0, 1)


def change_contrast(x_hwc: np.ndarray, factor: float) -> np.ndarray:
    mean = (x_hwc @ LUMINANCE).mean()
    return np.clip(mean + factor * (x_hwc - mean), 0, 1)


def saturate(x_hwc: np.ndarray, factor: float) -> np.ndarray:
    gray = (x_hwc @ LUMINANCE)[..., None]
    return np.clip(gray + factor * (x_hwc - gray), 0, 1)


def turn_hue(x_hwc: np.ndarray, share: float) -> np.ndarray:
    """By a share of the color circle."""
    result = np.empty_like(x_hwc)
    for i, row in enumerate(x_hwc):
        for j, (r, g, b) in enumerate(row):
            h, s, v = colorsys.rgb_to_hsv(r, g, b)
            result[i, j] = colorsys.hsv_to_rgb((h + share) % 1, s, v)
    return result


PARTS = {"brightness": brighten, "contrast": change_contrast, "saturation": saturate, "hue": turn_hue}


def images() -> torch.Tensor:
    return torch.rand(3, 3, 6, 8, generator=torch.Generator().manual_seed(0))


def views_of(settings: StrongViews) -> np.ndarray:
    return strengthen(images(), rngs(), settings).permute(0, 2, 3, 1).numpy().astype(np.float64)


def weak() -> np.ndarray:
    return images().permute(0, 2, 3, 1).numpy().astype(np.float64)


@pytest.mark.parametrize("part", list(PARTS))
def test_each_jitter_has_the_unit_that_it_says(part: str) -> None:
    settings = StrongViews(**(NOTHING | {part: 0.25}))
    for view, x, values in zip(views_of(settings), weak(), drawn(settings), strict=True):
        np.testing.assert_allclose(view, PARTS[part](x, values[part]), atol=2e-3)
    assert np.abs(views_of(settings) - weak()).max() > 0.05


def test_jitter_comes_in_one_order() -> None:
    settings = StrongViews(**(NOTHING | {"brightness": 0.5, "contrast": 0.5, "saturation": 0.5, "hue": 0.25}))
    for view, x, values in zip(views_of(settings), weak(), drawn(settings), strict=True):
        for part, change in PARTS.items():
            x = change(x, values[part])
        np.testing.assert_allclose(view, x, atol=5e-3)


def test_gray_is_luminance_and_the_blur_is_in_pixels() -> None:
    gray = views_of(StrongViews(**(NOTHING | {"gray": 1})))
    np.testing.assert_allclose(gray, np.repeat((weak() @ LUMINANCE)[..., None], 3, axis=-1), atol=1e-5)
    settings = StrongViews(**(NOTHING | {"blur": 1, "sigma": (0.5, 1.0)}))
    for view, x, values in zip(views_of(settings), weak(), drawn(settings), strict=True):
        expected = np.stack(
            [ndimage.gaussian_filter(x[..., c], values["sigma"], mode="mirror", radius=3) for c in range(3)], axis=-1
        )
        np.testing.assert_allclose(view, expected, atol=1e-5)


def test_a_strong_view_shows_each_thing_where_the_weak_one_does() -> None:
    # a dark corner of a light image stays in its corner, whatever happens to its color
    x = torch.full((40, 3, 16, 16), 0.8)
    x[:, :, :6, :4] = 0.2
    strong = strengthen(x, rngs(40), StrongViews())
    for view in strong.mean(1):
        inner, mirrored, turned = view[:3, :2].mean(), view[:3, -2:].mean(), view[-3:, :2].mean()
        assert inner < mirrored - 0.1
        assert inner < turned - 0.1
