"""SAM's embedding of images in full: made once, kept on disk, cut where a training crop lies.

An image is covered by fields of `field` px (the last ones mirrored beyond its border), each embedded by itself, and
the embeddings are put together to one map. Entries of the cache are named by what they were made from: the image's
pixels as prepared (so by its scale and colors as well), the encoder's weights and configuration, and the field.
"""

import hashlib
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from hemalum.cache import cached
from hemalum.data.dataset import pixel_hash
from hemalum.errors import HemalumError
from hemalum.models.sam import SamEncoder

log = logging.getLogger(__name__)

KIND = "embeddings"  # of the cache's entries
_FILE = "embedding.npy"
_VERSION = 2  # raise when the same image and encoder give another map

Floats = NDArray[np.float32]
Image = NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class Embedding:
    """An image's embedding on disk: `tokens_per_px` of it along an axis of the image, which is `shape` (H, W) px."""

    path: Path
    shape: tuple[int, int]
    tokens_per_px: float

    def read(self) -> NDArray[np.float16]:
        """The full map, (C, h, w)."""
        values: NDArray[np.float16] = np.load(self.path, mmap_mode="r")
        return values

    def cut(self, affine: Floats, size: int) -> Tensor:
        """The embedding of a crop, (C, n, n) float16, n = size · tokens_per_px rounded, interpolated bilinearly.

        `affine` (2, 3) leads from px of the crop, which is `size` px wide, to px of the image; beyond the image's
        border the map is mirrored, as the image is.
        """
        count = max(1, round(size * self.tokens_per_px))
        centers = (np.arange(count) + 0.5) * (size / count)
        down, across = np.meshgrid(centers, centers, indexing="ij")
        x, y = (row[0] * across + row[1] * down + row[2] for row in affine.astype(np.float64))
        u, v = (
            _mirror(positions, length) * self.tokens_per_px - 0.5
            for positions, length in zip((x, y), (self.shape[1], self.shape[0]), strict=True)
        )
        values = self.read()
        box = [_find_bounds(tokens, length) for tokens, length in zip((v, u), values.shape[1:], strict=True)]
        part = torch.from_numpy(np.ascontiguousarray(values[:, slice(*box[0]), slice(*box[1])], np.float32))
        grid = np.stack(
            [
                (2 * (tokens - start) + 1) / (stop - start) - 1
                for tokens, (start, stop) in zip((u, v), box[::-1], strict=True)
            ],
            axis=-1,
        )
        sampled = F.grid_sample(
            part[None], torch.from_numpy(grid.astype(np.float32))[None], padding_mode="border", align_corners=False
        )
        return sampled[0].half()


Embed = Callable[[Sequence[Image]], list[Embedding]]


def embed_all(
    encoder: SamEncoder,
    images: Sequence[Image],
    field: int,
    share: tuple[int, int] = (0, 1),
    wait: Callable[[], object] = lambda: None,
    shuffle_seed: int | None = None,
) -> list[Embedding]:
    """The embeddings of images, in their order.

    `share` is which of them this process makes, as (which, of how many); after `wait()` it reads those of the others.
    With `shuffle_seed` each image is given that of another one. Raises HemalumError where there is no other.
    """
    log.info("embedding %d images with %s, where that was not done before", len(images), encoder.name)
    for image in images[share[0] :: share[1]]:
        embed(encoder, image, field)
    wait()
    embeddings = [embed(encoder, image, field) for image in images]
    if shuffle_seed is None:
        return embeddings
    return [embeddings[other] for other in pick_others(len(images), shuffle_seed)]


def pick_others(count: int, seed: int) -> list[int]:
    """For each of `count` things another one, each of them once; by the seed. Raises HemalumError for one alone."""
    if count == 1:
        raise HemalumError(
            "sam.control shuffled gives an image the embedding of another, and there is one image alone"
        )
    circle = np.random.default_rng(seed).permutation(count)
    others = np.empty(count, np.int64)
    others[circle] = np.roll(circle, 1)
    return [int(other) for other in others]


def embed(encoder: SamEncoder, image: Image, field: int) -> Embedding:
    """The image's embedding from the cache, where it is made when it is missing or damaged (the log says so)."""

    def make(folder: Path) -> None:
        np.save(folder / _FILE, embed_image(encoder, image, field))

    folder = cached(KIND, make_key(image, encoder, field), make)
    return Embedding(folder / _FILE, (image.shape[0], image.shape[1]), encoder.tokens / field)


def make_key(image: Image, encoder: SamEncoder, field: int) -> str:
    """The name of an image's entry in the cache."""
    return hashlib.sha256(f"{pixel_hash(image)}:{encoder.digest}:{field}:{_VERSION}".encode()).hexdigest()[:40]


def embed_image(encoder: SamEncoder, image: Image, field: int) -> NDArray[np.float16]:
    """Embedding (C, h, w) of an image (H, W, 3) uint8, h = H · tokens / field rounded up, and w likewise."""
    height, width = image.shape[:2]
    padded = np.pad(image, ((0, -height % field), (0, -width % field), (0, 0)), mode="symmetric")
    rows, columns = padded.shape[0] // field, padded.shape[1] // field
    tokens = encoder.tokens
    values = np.empty((encoder.channels, rows * tokens, columns * tokens), np.float16)
    for row in range(rows):
        for column in range(columns):
            part = padded[row * field : (row + 1) * field, column * field : (column + 1) * field]
            pixels = torch.from_numpy(np.ascontiguousarray(part)).permute(2, 0, 1)[None]
            with torch.inference_mode():
                embedding = encoder(pixels.to(encoder.mean.device).float() / 255)[0].cpu().numpy()
            values[:, row * tokens : (row + 1) * tokens, column * tokens : (column + 1) * tokens] = embedding
    h, w = (-(-length * tokens // field) for length in (height, width))
    return np.ascontiguousarray(values[:, :h, :w])


def _mirror(positions: NDArray[np.float64], length: int) -> NDArray[np.float64]:
    """Positions along an axis of `length` px, mirrored at both borders."""
    folded = np.abs(positions) % (2 * length)
    mirrored: NDArray[np.float64] = np.minimum(folded, 2 * length - folded)
    return mirrored


def _find_bounds(tokens: NDArray[np.float64], length: int) -> tuple[int, int]:
    """Which of the `length` tokens of an axis are needed to interpolate at these."""
    return max(0, int(np.floor(tokens.min()))), min(length, int(np.ceil(tokens.max())) + 1)
