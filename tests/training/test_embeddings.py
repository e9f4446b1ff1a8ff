"""SAM's embeddings: what loads, what is kept, when it is made again, and where a crop's part of it lies."""

import logging
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from hemalum.cache import cache_folder
from hemalum.data.augmentation.crops import augment
from hemalum.data.augmentation.settings import AugmentSettings
from hemalum.data.augmentation.warp import TrainingImage, crop_of
from hemalum.errors import HemalumError
from hemalum.models.sam import SamEncoder, load_sam
from hemalum.training import embeddings
from hemalum.training.embeddings import Embedding, embed, embed_all, embed_image

FIELD = 32  # px; the little encoder makes 4 x 4 tokens of it


@pytest.fixture
def image() -> NDArray[np.uint8]:
    return np.random.default_rng(0).integers(0, 256, (48, 64, 3), np.uint8)


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HEMALUM_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


class Counted:
    """How often an encoder is called."""

    def __init__(self, encoder: SamEncoder) -> None:
        self.calls = 0
        encoder.register_forward_hook(self._count)

    def _count(self, *_: object) -> None:
        self.calls += 1


def test_an_encoder_loads_frozen_and_knows_its_content(random_sam: Path, tmp_path: Path) -> None:
    encoder = load_sam(random_sam)
    assert not any(parameter.requires_grad for parameter in encoder.parameters())
    assert not encoder.train().training
    out = encoder(torch.rand(2, 3, 20, 20))
    assert out.shape == (2, encoder.channels, encoder.tokens, encoder.tokens)
    assert out.std() > 0.1
    moved = shutil.copytree(random_sam, tmp_path / "elsewhere")
    assert load_sam(moved).digest == encoder.digest


def test_the_vision_part_alone_loads_as_well(random_sam: Path, tmp_path: Path) -> None:
    from transformers import SamVisionModel

    SamVisionModel.from_pretrained(random_sam).save_pretrained(tmp_path / "vision")
    assert load_sam(tmp_path / "vision").digest == load_sam(random_sam).digest


@pytest.mark.fault
def test_what_is_missing_is_said_with_how_to_get_it(
    random_sam: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(HemalumError, match="huggingface-cli download facebook/sam-vit-base"):
        load_sam("facebook/sam-vit-base")
    with pytest.raises(HemalumError, match=r"no SAM encoder at '.*nowhere': give a folder"):
        load_sam(tmp_path / "nowhere")
    broken = shutil.copytree(random_sam, tmp_path / "broken")
    weights = broken / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1000])
    with pytest.raises(HemalumError, match="holds no SAM encoder that can be loaded"):
        load_sam(broken)
    monkeypatch.setitem(__import__("sys").modules, "transformers", None)
    with pytest.raises(HemalumError, match=r'needs transformers: pip install "hemalum\[sam\]"'):
        load_sam(random_sam)


@pytest.mark.fault
def test_weights_that_are_none_of_sam_are_refused(random_sam: Path, tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    partial = shutil.copytree(random_sam, tmp_path / "partial")
    tensors = load_file(partial / "model.safetensors")
    del tensors["vision_encoder.neck.conv1.weight"]
    save_file(tensors, partial / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(HemalumError, match=r"its weights lack .*neck\.conv1\.weight"):
        load_sam(partial)


def test_fields_are_put_together(random_sam: Path, image: NDArray[np.uint8]) -> None:
    encoder = load_sam(random_sam)
    embedding = embed_image(encoder, image, FIELD)
    assert embedding.dtype == np.float16
    assert embedding.shape == (encoder.channels, 48 * 4 // FIELD, 64 * 4 // FIELD)
    field = torch.from_numpy(image[:32, 32:]).permute(2, 0, 1)[None].float() / 255
    np.testing.assert_allclose(embedding[:, :4, 4:], encoder(field)[0].numpy(), atol=2e-3)
    mirrored = np.concatenate([image[32:, :32], image[32:, :32][::-1]])  # 16 rows are there, 16 are not
    field = torch.from_numpy(mirrored).permute(2, 0, 1)[None].float() / 255
    np.testing.assert_allclose(embedding[:, 4:, :4], encoder(field)[0, :, :2].numpy(), atol=2e-3)


def test_a_second_time_nothing_is_computed(random_sam: Path, image: NDArray[np.uint8], cache: Path) -> None:
    encoder = load_sam(random_sam)
    counted = Counted(encoder)
    first = embed(encoder, image, FIELD)
    assert counted.calls == 4
    assert first.path.is_relative_to(cache)
    again = embed(encoder, image, FIELD)
    assert (again, counted.calls) == (first, 4)
    np.testing.assert_array_equal(first.read(), embed_image(encoder, image, FIELD))


def test_another_image_field_or_encoder_is_another_entry(
    random_sam: Path, image: NDArray[np.uint8], cache: Path, tmp_path: Path
) -> None:
    from transformers import SamModel

    encoder = load_sam(random_sam)
    model = SamModel.from_pretrained(random_sam)
    with torch.no_grad():
        model.vision_encoder.neck.conv1.weight[0, 0] += 0.5
    model.save_pretrained(tmp_path / "changed")
    other = load_sam(tmp_path / "changed")
    entries = [
        embed(encoder, image, FIELD), embed(encoder, image, 16), embed(encoder, image[::-1], FIELD),
        embed(other, image, FIELD),
    ]  # fmt: skip
    assert len({entry.path for entry in entries}) == 4
    assert not np.array_equal(entries[0].read(), entries[3].read())


def test_a_damaged_entry_is_made_again_and_said(
    random_sam: Path, image: NDArray[np.uint8], cache: Path, caplog: pytest.LogCaptureFixture
) -> None:
    encoder = load_sam(random_sam)
    counted = Counted(encoder)
    entry = embed(encoder, image, FIELD)
    content = entry.path.read_bytes()
    entry.path.write_bytes(content[:-2] + b"xx")
    with caplog.at_level(logging.WARNING):
        assert embed(encoder, image, FIELD) == entry
    assert counted.calls == 8
    assert entry.path.read_bytes() == content
    assert [record.message for record in caplog.records] == [f"{entry.path.parent} is damaged; it is made again"]


def test_each_process_makes_its_share(random_sam: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    encoder = load_sam(random_sam)
    images = [np.full((16, 16, 3), value, np.uint8) for value in (10, 20, 30)]
    counted, made = Counted(encoder), []
    entries = embed_all(encoder, images, FIELD, (1, 2), lambda: made.append(counted.calls))
    assert made == [1]  # the second of three; here nobody makes the others, so they are made after the wait
    assert [entry.path for entry in entries] == [embed(encoder, image, FIELD).path for image in images]
    assert embeddings.KIND in {folder.name for folder in cache_folder().iterdir()}


@pytest.mark.fault
def test_a_control_gives_each_image_the_embedding_of_another(random_sam: Path, cache: Path) -> None:
    encoder = load_sam(random_sam)
    rng = np.random.default_rng(0)
    images = [rng.integers(0, 256, (16, 16, 3), np.uint8) for _ in range(7)]
    plain = [entry.path for entry in embed_all(encoder, images, FIELD)]
    shuffled = [entry.path for entry in embed_all(encoder, images, FIELD, shuffle_seed=3)]
    assert set(shuffled) == set(plain)
    assert all(one != other for one, other in zip(shuffled, plain, strict=True))
    assert shuffled == [entry.path for entry in embed_all(encoder, images, FIELD, shuffle_seed=3)]
    assert shuffled != [entry.path for entry in embed_all(encoder, images, FIELD, shuffle_seed=4)]
    assert embed_all(encoder, [], FIELD, shuffle_seed=3) == []
    with pytest.raises(HemalumError, match=r"sam\.control shuffled .* one image alone"):
        embed_all(encoder, images[:1], FIELD, shuffle_seed=3)


@pytest.fixture
def ramp(tmp_path: Path) -> Embedding:
    """An embedding of an image of 40 x 64 px, a cell to 4 px, that says where it is: channels x and y in px."""
    y, x = np.mgrid[:10, :16] * 4.0 + 2
    np.save(tmp_path / "ramp.npy", np.stack([x, y]).astype(np.float16))
    return Embedding(tmp_path / "ramp.npy", (40, 64), 0.25)


def test_a_crop_in_place_is_a_slice(ramp: Embedding) -> None:
    affine = np.array([[1, 0, 16], [0, 1, 8]], np.float32)
    np.testing.assert_array_equal(ramp.cut(affine, 24).numpy(), ramp.read()[:, 2:8, 4:10])


def test_a_crop_beyond_the_border_is_mirrored(ramp: Embedding) -> None:
    affine = np.array([[1, 0, 48], [0, 1, -8]], np.float32)
    expected = np.pad(ramp.read(), ((0, 0), (2, 0), (0, 4)), mode="symmetric")[:, :8, 12:20]
    np.testing.assert_array_equal(ramp.cut(affine, 32).numpy(), expected)


@pytest.mark.parametrize("seed", range(6))
def test_crop_and_embedding_lie_on_each_other(ramp: Embedding, seed: int) -> None:
    """The image is the same ramp as its embedding, so that crop and cut must agree, however turned and zoomed."""
    y, x = np.mgrid[:40, :64]
    image = np.stack([x * 2, y * 2, y * 0], -1).astype(np.uint8)
    settings = AugmentSettings(
        rotation=1, scale=1.2, elastic=0, stain=0, brightness=0, contrast=0, saturation=0, gamma=0, gray=0, blur=0,
        noise=0,
    )  # fmt: skip
    sample = TrainingImage(image, np.zeros((40, 64), np.int32))
    crop, _ = augment([sample], [np.random.default_rng(seed)], 16, settings)
    affine = crop_of(sample, np.random.default_rng(seed), 16, settings)
    cut = ramp.cut(affine, 16).float()
    pooled = torch.nn.functional.avg_pool2d(crop[0, :2] * 255 / 2, 4)[:, :, :] + 0.5
    # half a px: near the border a mirrored ramp is none
    assert float((cut - pooled).abs().median()) < 0.5


def test_the_cells_of_a_crop_are_rounded(ramp: Embedding) -> None:
    affine = np.array([[1, 0, 0], [0, 1, 0]], np.float32)
    assert ramp.cut(affine, 18).shape == (2, 4, 4)
    assert ramp.cut(affine, 1).shape == (2, 1, 1)
