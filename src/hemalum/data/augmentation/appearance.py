"""How a training crop looks: stain, color, blur and noise, drawn on the CPU and applied on any device.

The draws need each sample's own generator and take microseconds; applying them takes most of the time of
augmentation. So the two are apart: loader processes draw, and whoever holds the pixels applies (the loader itself for
a training on a CPU, the GPU for a training there). Both see the same draws.
"""

import io
from collections.abc import Mapping, Sequence
from functools import cache

import kornia
import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from hemalum.data.augmentation.compiled_appearance import BROWN, BYTE_DEVIATION, LUMA, paint
from hemalum.data.augmentation.settings import AugmentSettings
from hemalum.data.stain.jitter import StainProfile, draw_stain_jitter, jitter_stain, stain_transfer
from hemalum.data.stain.simulated_dab import draw_dab

_CLAHE_LIMIT, _CLAHE_TILES = 2.0, 8  # clip limit, and tiles along each side of a crop (Zuiderveld 1994)
_SHARP = 0.2  # px: a smaller sigma of blur changes nothing
_RADIUS = 4  # px of the blur's kernel
_QUALITY = (30, 91)  # of JPEG, from and below


def draw_appearance(  # noqa: C901 (one draw after the other)
    rngs: Sequence[np.random.Generator],
    size: int,
    settings: AugmentSettings,
    profiles: Sequence[StainProfile | None] | None = None,
    donors: Sequence[StainProfile] = (),
    labels: NDArray[np.int32] | None = None,
    noise: bool = True,
) -> dict[str, Tensor]:
    """Draw how each of B crops (size × size px) is to look, with its own generator; for `apply_appearance`.

    Gives by name: `matrix` (B, 3, 3) and `offset` (B, 3) of optical density, `kernel` (B, 2·radius + 1) of the blur,
    `noise` (B, 3, size, size) uint8, and factors (B,), those that `settings` switch on. With `stain_mix`, a
    crop whose `profile` is known may be moved towards the stains of one of the `donors`. `labels` (B, size, size)
    are the nuclei that simulated DAB needs. Without `noise`, its pixels are left to who applies: they are most of
    what is drawn.
    """
    count = len(rngs)
    drawn: dict[str, Tensor] = {}

    def draw(name: str, low: float, high: float) -> Tensor:
        drawn[name] = torch.tensor([rng.uniform(low, high) for rng in rngs], dtype=torch.float32)
        return drawn[name]

    if settings.jpeg:
        quality = [int(rng.integers(*_QUALITY)) * (rng.random() < settings.jpeg) for rng in rngs]
        drawn["jpeg"] = torch.tensor(quality)
    if settings.stain or settings.brown or settings.stain_mix or settings.dab:
        changes = [draw_stain_jitter(rng, settings.stain, settings.brown) for rng in rngs]
        matrices = [matrix for matrix, _ in changes]
        if settings.stain_mix and donors:
            for index, (rng, profile) in enumerate(zip(rngs, profiles or [None] * count, strict=True)):
                donor, share, chosen = donors[int(rng.integers(len(donors)))], rng.uniform(), rng.random()
                if profile is not None and chosen < settings.stain_mix:
                    matrices[index] = (stain_transfer(profile, donor, share) @ matrices[index]).astype(np.float32)
        if settings.dab and labels is not None:
            brown = np.zeros((count, 1, size, size), np.uint8)
            direction = np.zeros((count, 3), np.float32)
            for index, (rng, nuclei) in enumerate(zip(rngs, labels, strict=True)):
                if rng.random() < settings.dab:
                    dab = draw_dab(nuclei, rng)
                    brown[index, 0] = np.minimum(dab.amount / BROWN, 255)
                    direction[index] = dab.direction @ matrices[index]
                    matrices[index] = (dab.matrix @ matrices[index]).astype(np.float32)
            drawn["brown"], drawn["direction"] = torch.from_numpy(brown), torch.from_numpy(direction)
        drawn["matrix"] = torch.from_numpy(np.stack(matrices))
        drawn["offset"] = torch.from_numpy(np.stack([offset for _, offset in changes]))
    if settings.saturation or settings.gray:
        color = draw("saturation", 1 - settings.saturation, 1 + settings.saturation)
        drawn["saturation"] = color * (draw("gray", 0, 1) >= settings.gray)
        del drawn["gray"]
    if settings.contrast:
        draw("contrast", 1 - settings.contrast, 1 + settings.contrast)
    if settings.brightness:
        draw("brightness", -settings.brightness, settings.brightness)
    if settings.intensity:
        draw("intensity", 1 - settings.intensity, 1 + settings.intensity)
    if settings.clahe:
        drawn["clahe"] = draw("clahe", 0, 1) < settings.clahe
    if settings.gamma:
        draw("gamma", 1 - settings.gamma, 1 + settings.gamma)
    if settings.blur:
        drawn["kernel"] = _gaussian(draw("kernel", -settings.blur, settings.blur))
    if settings.noise:
        draw("deviation", 0, settings.noise)
        if noise:  # uniform, not Gaussian: drawn as bytes it costs a tenth, and the network cannot tell
            pixels = np.empty((count, size, size, 3), np.uint8)
            for crop, rng in zip(pixels, rngs, strict=True):
                # a generator's words as they come: its `bytes` takes four times as long
                crop.ravel()[:] = rng.bit_generator.random_raw(-(-crop.size // 8)).view(np.uint8)[: crop.size]
            drawn["noise"] = torch.from_numpy(pixels).permute(0, 3, 1, 2)
    return drawn


def _gaussian(sigma_B: Tensor) -> Tensor:
    """Kernels (B, 2·radius + 1) that sum to 1; one pixel where sigma is below what can be seen, or negative."""
    offsets = torch.arange(-_RADIUS, _RADIUS + 1, dtype=torch.float32)
    kernels = torch.exp(-0.5 * (offsets / sigma_B.clamp_min(1e-3)[:, None]).square())
    kernels[sigma_B <= _SHARP] = (offsets == 0).float()
    return kernels / kernels.sum(dim=1, keepdim=True)


def apply_appearance(
    images_BCHW: Tensor,
    drawn: Mapping[str, Tensor],
    mean: Sequence[float] = (0, 0, 0),
    std: Sequence[float] = (1, 1, 1),
) -> Tensor:
    """Crops (B, 3, H, W) uint8 as they were drawn to look: (B, 3, H, W) float32 on their device, channels last.

    Values in [0, 1], less `mean` and by `std`. What was drawn is on the crops' device as well, except `jpeg`, which
    says which crops to compress.
    """
    if "jpeg" in drawn:
        images_BCHW = _compress(images_BCHW, drawn["jpeg"])
    if images_BCHW.device.type != "cpu":
        return normalize(apply_by_tensors(images_BCHW, drawn), mean, std)
    count, channels, height, width = images_BCHW.shape
    pixels = np.ascontiguousarray(images_BCHW.permute(0, 2, 3, 1).numpy())
    out = np.empty((count, height, width, channels), np.float32)
    arrays = {name: value.numpy() for name, value in drawn.items()}
    means, deviations = np.array(mean, np.float32), np.array(std, np.float32)
    result = torch.from_numpy(out).permute(0, 3, 1, 2)
    for index in range(count):
        if "clahe" in drawn and drawn["clahe"][index]:
            one = {name: value[index : index + 1] for name, value in drawn.items()}
            result[index] = normalize(apply_by_tensors(images_BCHW[index : index + 1], one), mean, std)[0]
        else:
            crop = {name: value[index] for name, value in arrays.items()}
            paint(pixels[index], crop, means, deviations, out[index])
    return result


def apply_by_tensors(images_BCHW: Tensor, drawn: Mapping[str, Tensor]) -> Tensor:
    """As `apply_appearance` but for JPEG and the normalization, by tensor operations: for any device."""
    x = images_BCHW.float() / 255
    if "matrix" in drawn:
        brown = drawn["brown"] * BROWN if "brown" in drawn else None
        x = jitter_stain(x, drawn["matrix"], drawn["offset"], brown, drawn.get("direction"))
    if "saturation" in drawn:
        gray = LUMA[0] * x[:, :1] + LUMA[1] * x[:, 1:2] + LUMA[2] * x[:, 2:]
        x = torch.lerp(gray.expand_as(x), x, _each(drawn["saturation"])).clamp_(0, 1)
    if "contrast" in drawn:
        x = (x * _each(drawn["contrast"])).clamp_(0, 1)
    if "brightness" in drawn:
        x = (x + _each(drawn["brightness"])).clamp_(0, 1)
    if "intensity" in drawn:
        x = x * _each(drawn["intensity"])
    if "clahe" in drawn and drawn["clahe"].any():
        x[drawn["clahe"]] = equalize_locally(x[drawn["clahe"]])
    if "gamma" in drawn:
        x = x.pow(_each(drawn["gamma"]))
    if "kernel" in drawn:
        x = _blur(x, drawn["kernel"])
    if "noise" in drawn:
        x = x + (drawn["noise"].float() - 127.5) * _each(drawn["deviation"] / BYTE_DEVIATION)
    return x.clamp_(0, 1)


def normalize(images_BCHW: Tensor, mean: Sequence[float], std: Sequence[float]) -> Tensor:
    """The images less `mean` and by `std`, one number for each channel, channels last."""
    means, deviations = (_numbers(tuple(values), images_BCHW.device) for values in (mean, std))
    return ((images_BCHW - means) / deviations).contiguous(memory_format=torch.channels_last)


@cache
def _numbers(values: tuple[float, ...], device: torch.device) -> Tensor:
    """A number for each channel (1, C, 1, 1), kept on the device: copying them there waits for all its work."""
    return torch.tensor(values, dtype=torch.float32, device=device).view(1, -1, 1, 1)


def _compress(images_BCHW: Tensor, quality_B: Tensor) -> Tensor:
    """The images after JPEG at their quality (on the CPU), 0 for none, as scanners and viewers write them."""
    chosen = quality_B.nonzero().flatten()
    if not len(chosen):
        return images_BCHW
    result = images_BCHW.clone()
    if images_BCHW.device.type != "cpu":
        where, quality = (part.to(images_BCHW.device, non_blocking=True) for part in (chosen, quality_B[chosen]))
        return result.index_copy_(0, where, compress_by_tensors(images_BCHW[where], quality))
    for index in chosen.tolist():
        buffer = io.BytesIO()
        pixels = np.ascontiguousarray(images_BCHW[index].permute(1, 2, 0).numpy())
        Image.fromarray(pixels).save(buffer, "JPEG", quality=int(quality_B[index]))
        decoded = np.array(Image.open(buffer))
        result[index] = torch.from_numpy(decoded).permute(2, 0, 1)
    return result


def compress_by_tensors(images_BCHW: Tensor, quality_B: Tensor) -> Tensor:
    """Images uint8 after JPEG by tensor operations, on any device; all but what PIL writes."""
    height, width = images_BCHW.shape[2:]
    padded = F.pad(images_BCHW.float() / 255, (0, -width % 16, 0, -height % 16), "replicate")
    coded = kornia.enhance.jpeg_codec_differentiable(padded, quality_B.float())[:, :, :height, :width]
    return (coded * 255 + 0.5).clamp(0, 255).to(torch.uint8)


def _each(factor_B: Tensor) -> Tensor:
    return factor_B.view(-1, 1, 1, 1)


def _blur(images_BCHW: Tensor, kernels_BK: Tensor) -> Tensor:
    """Each image under its own separable kernel, mirrored at the border."""
    count, channels, height, width = images_BCHW.shape
    radius = kernels_BK.shape[1] // 2
    if min(height, width) <= radius:
        return images_BCHW
    stacked = images_BCHW.reshape(1, count * channels, height, width)
    weights = kernels_BK.repeat_interleave(channels, dim=0)[:, None, None]
    across = F.conv2d(F.pad(stacked, (radius, radius, 0, 0), "reflect"), weights, groups=count * channels)
    down = F.conv2d(
        F.pad(across, (0, 0, radius, radius), "reflect"), weights.transpose(2, 3), groups=count * channels
    )
    return down.reshape(images_BCHW.shape)


def equalize_locally(images_BCHW: Tensor) -> Tensor:
    """Contrast-limited adaptive histogram equalization (Zuiderveld 1994) of the luminance; colors keep their hue."""
    images = images_BCHW.clamp(0, 1)
    # each tile needs an even number of px
    tiles = max(1, min(_CLAHE_TILES, images.shape[2] // 2, images.shape[3] // 2))
    lab = kornia.color.rgb_to_lab(images)
    lightness = kornia.enhance.equalize_clahe(lab[:, :1] / 100, _CLAHE_LIMIT, (tiles, tiles)) * 100
    result: Tensor = kornia.color.lab_to_rgb(torch.cat([lightness, lab[:, 1:]], dim=1))
    return result
