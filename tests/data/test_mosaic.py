"""Neighboring tiles, cut from one field by the test itself."""

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from hemalum.data import mosaic
from hemalum.data.mosaic import edges_of, same_field


def field(seed: int, shape: tuple[int, int] = (256, 384)) -> np.ndarray:
    """A smooth random field, (H, W, 3) uint8, as varied as tissue."""
    noise = gaussian_filter(np.random.default_rng(seed).normal(size=shape), 3)
    gray = np.clip(128 + 40 * noise / noise.std(), 0, 255)
    return np.repeat(gray[..., None], 3, axis=2).astype(np.uint8)


def tiles(image: np.ndarray, size: int = 128) -> list[np.ndarray]:
    return [
        image[y : y + size, x : x + size]
        for y in range(0, image.shape[0], size)
        for x in range(0, image.shape[1], size)
    ]


def groups(images: list[np.ndarray], categories: list[str] | None = None) -> list[int]:
    return same_field([edges_of(image) for image in images], categories or [None] * len(images))


def test_tiles_of_two_fields_are_two_groups() -> None:
    cut = [*tiles(field(1)), *tiles(field(2))]
    order = np.random.default_rng(0).permutation(len(cut))
    firsts = groups([cut[i] for i in order])
    truth = [i // 6 for i in order]
    assert len(set(firsts)) == 2
    assert len(set(zip(firsts, truth, strict=True))) == 2


def test_the_group_is_its_first_tile() -> None:
    assert groups(tiles(field(3))) == [0] * 6


def test_tiles_of_different_fields_stay_apart() -> None:
    apart = [tiles(field(seed))[0] for seed in range(12)]
    assert groups(apart) == list(range(12))


def test_mirrored_tiles_are_no_neighbors() -> None:
    cut = tiles(field(4, (128, 256)))
    assert groups(cut) == [0, 0]
    assert groups([cut[0], cut[1][:, ::-1]]) == [0, 1]


def test_flat_tiles_are_no_neighbors() -> None:
    flat = [np.full((64, 64, 3), level, np.uint8) for level in (0, 0, 240, 240)]
    assert len(set(groups(flat))) == 4


def test_only_tiles_of_one_kind_and_shape_are_compared() -> None:
    cut = tiles(field(5, (128, 256)))
    assert groups(cut, ["H&E", "fluo"]) == [0, 1]
    assert groups([cut[0], cut[1][:120]]) == [0, 1]


def test_frames_of_one_scene_are_one_group() -> None:
    scene = field(6)
    noise = np.random.default_rng(0).integers(-3, 4, scene.shape)
    again = np.clip(scene.astype(int) + noise, 0, 255).astype(np.uint8)
    assert groups([scene, field(7), again]) == [0, 1, 0]


def test_blocks_do_not_matter(monkeypatch: pytest.MonkeyPatch) -> None:
    cut = [*tiles(field(8)), *tiles(field(9)), *tiles(field(10))]
    firsts = groups(cut)
    monkeypatch.setattr(mosaic, "BLOCK", 4)
    assert groups(cut) == firsts


@pytest.mark.parametrize("shape", [(1, 1), (1, 9), (2, 3)])
def test_tiny_images(shape: tuple[int, int]) -> None:
    image = np.random.default_rng(0).integers(0, 255, (*shape, 3), dtype=np.uint8)
    assert groups([image, image.copy(), 255 - image])[2] == 2
