"""SAM's image encoder: what it sees of an image, its authors' own checkpoints, and the controls."""

import math
import pickle
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from hemalum.errors import HemalumError
from hemalum.models.sam import SamEncoder, check_sam, load_sam
from hemalum.models.sam_checkpoint import read_checkpoint

pytest.importorskip("transformers")

Weights = dict[str, Tensor]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An encoder with 8 x 8 tokens in windows of 4, the last block over the whole image."""
    from random_sam import save_random_sam

    return save_random_sam(tmp_path_factory.mktemp("encoder") / "sam", side=128, width=16, layers=3, channels=8)


@pytest.fixture(scope="module")
def weights(folder: Path) -> Weights:
    """The encoder's weights by the names of SAM's authors, and some of what else their files hold."""
    vision = load_sam(folder).vision.state_dict()
    published = {
        "pos_embed": "pos_embed", "patch_embed.proj.weight": "patch_embed.projection.weight",
        "patch_embed.proj.bias": "patch_embed.projection.bias", "neck.0.weight": "neck.conv1.weight",
        "neck.1.weight": "neck.layer_norm1.weight", "neck.1.bias": "neck.layer_norm1.bias",
        "neck.2.weight": "neck.conv2.weight", "neck.3.weight": "neck.layer_norm2.weight",
        "neck.3.bias": "neck.layer_norm2.bias",
    }  # fmt: skip
    for layer in range(3):
        for part, other in (("norm1", "layer_norm1"), ("norm2", "layer_norm2")):
            for kind in ("weight", "bias"):
                published[f"blocks.{layer}.{part}.{kind}"] = f"layers.{layer}.{other}.{kind}"
        for part in ("attn.qkv", "attn.proj", "mlp.lin1", "mlp.lin2"):
            for kind in ("weight", "bias"):
                published[f"blocks.{layer}.{part}.{kind}"] = f"layers.{layer}.{part}.{kind}"
        for part in ("attn.rel_pos_h", "attn.rel_pos_w"):
            published[f"blocks.{layer}.{part}"] = f"layers.{layer}.{part}"
    assert set(published.values()) == set(vision)
    named = {f"image_encoder.{name}": vision[other].clone() for name, other in published.items()}
    return named | {"mask_decoder.iou_token.weight": torch.zeros(1, 8)}


def save(weights: object, path: Path) -> Path:
    torch.save(weights, path)
    return path


@pytest.mark.parametrize("size", [40, 64, 100, 128, 150])
def test_an_image_is_prepared_as_sam_prepares_it(random_sam: Path, size: int) -> None:
    """Mean, standard deviation, order of colors, and resizing, against the preparation that goes with the weights."""
    try:
        from transformers.models.sam.image_processing_pil_sam import SamImageProcessorPil as Processor
    except ImportError:  # before version 5
        from transformers import SamImageProcessor as Processor
    rng = np.random.default_rng(size)
    image = rng.integers(0, 256, (size, size, 3), np.uint8)
    image[..., 0] //= 2  # so that colors differ
    processor = Processor(size={"longest_edge": 64}, pad_size={"height": 64, "width": 64})
    expected = processor(image, return_tensors="pt")["pixel_values"]
    encoder = load_sam(random_sam)
    assert encoder.side == 64
    prepared = encoder.prepare(torch.from_numpy(image).permute(2, 0, 1)[None].float() / 255)
    # there whole gray values are made after rows and again after columns: half of one is lost each time, at most
    one = 1 / 255 / 0.224
    assert float((prepared - expected).abs().max()) <= 1.01 * one
    assert float((prepared - expected).abs().mean()) < 0.4 * one


def test_the_mean_of_what_sam_sees_is_that_of_imagenet(random_sam: Path) -> None:
    color = torch.tensor([0.485, 0.456, 0.406]).view(1, 3, 1, 1)
    deviation = torch.tensor([0.229, 0.224, 0.225]).view(1, 3, 1, 1)
    encoder = load_sam(random_sam)
    torch.testing.assert_close(
        encoder.prepare(color.expand(1, 3, 9, 9)), torch.zeros(1, 3, 64, 64), atol=1e-6, rtol=0
    )
    torch.testing.assert_close(encoder.prepare((color + deviation).expand(1, 3, 99, 99)), torch.ones(1, 3, 64, 64))


def test_a_checkpoint_of_its_authors_is_the_same_encoder(folder: Path, weights: Weights, tmp_path: Path) -> None:
    path = save(weights, tmp_path / "sam_vit_x.pth")
    check_sam(path)
    encoder, published = load_sam(folder), load_sam(path)
    assert published.digest == encoder.digest
    assert published.name == str(path)
    images = torch.rand(2, 3, 50, 50)
    torch.testing.assert_close(published(images), encoder(images))


def reference_encoder(weights: Weights, images: Tensor, heads: int, window: int) -> Tensor:
    """Segment Anything's image encoder (Kirillov et al. 2023, appendix A; ViTDet), from its authors' names."""
    w = {name.removeprefix("image_encoder."): value for name, value in weights.items()}

    def linear(x: Tensor, name: str) -> Tensor:
        return torch.einsum("...i,oi->...o", x, w[f"{name}.weight"]) + w[f"{name}.bias"]

    def norm(x: Tensor, name: str) -> Tensor:  # over the last axis
        centered = x - x.mean(-1, keepdim=True)
        scale = (centered.square().mean(-1, keepdim=True) + 1e-6).sqrt()
        return centered / scale * w[f"{name}.weight"] + w[f"{name}.bias"]

    def attend(x: Tensor, block: str) -> Tensor:
        """Attention within one square of tokens (h, w, C), with relative positions along both axes."""
        height, width, channels = x.shape
        q, k, v = linear(x, f"{block}.attn.qkv").reshape(height, width, 3, heads, -1).unbind(2)
        scores = torch.einsum("ijnc,klnc->nijkl", q, k) / math.sqrt(channels / heads)
        reach = (w[f"{block}.attn.rel_pos_h"].shape[0] - 1) // 2
        for i in range(height):
            for k_row in range(height):
                along = w[f"{block}.attn.rel_pos_h"][i - k_row + reach]
                scores[:, i, :, k_row, :] += torch.einsum("jnc,c->nj", q[i], along)[:, :, None]
        for j in range(width):
            for k_column in range(width):
                along = w[f"{block}.attn.rel_pos_w"][j - k_column + reach]
                scores[:, :, j, :, k_column] += torch.einsum("inc,c->ni", q[:, j], along)[:, :, None]
        share = scores.flatten(3).softmax(-1).reshape(scores.shape)
        mixed = torch.einsum("nijkl,klnc->ijnc", share, v).reshape(height, width, channels)
        return linear(mixed, f"{block}.attn.proj")

    result = []
    for image in images:
        patch = w["patch_embed.proj.weight"].shape[-1]
        cut = image.unfold(1, patch, patch).unfold(2, patch, patch)  # (3, h, w, patch, patch)
        x = torch.einsum("cijpq,ocpq->ijo", cut, w["patch_embed.proj.weight"]) + w["patch_embed.proj.bias"]
        x = x + w["pos_embed"][0]
        layers = len({name.split(".")[1] for name in w if name.startswith("blocks.")})
        for layer in range(layers):
            block = f"blocks.{layer}"
            normed = norm(x, f"{block}.norm1")
            side = x.shape[0] if layer == layers - 1 else window  # the last one over the whole image
            attended = torch.zeros_like(x)
            for top in range(0, x.shape[0], side):
                for left in range(0, x.shape[1], side):
                    part = slice(top, top + side), slice(left, left + side)
                    attended[part] = attend(normed[part], block)
            x = x + attended
            hidden = linear(norm(x, f"{block}.norm2"), f"{block}.mlp.lin1")
            x = x + linear(hidden * 0.5 * (1 + torch.erf(hidden / math.sqrt(2))), f"{block}.mlp.lin2")
        maps = norm(torch.einsum("ijc,oc->ijo", x, w["neck.0.weight"][:, :, 0, 0]), "neck.1")
        maps = torch.nn.functional.conv2d(maps.permute(2, 0, 1)[None], w["neck.2.weight"], padding=1)[0]
        result.append(norm(maps.permute(1, 2, 0), "neck.3").permute(2, 0, 1))
    return torch.stack(result)


def test_a_checkpoint_gives_what_its_equations_give(weights: Weights, tmp_path: Path) -> None:
    torch.manual_seed(0)
    changed = {name: value + 0.1 * torch.randn_like(value) for name, value in weights.items()}
    encoder = load_sam(save(changed, tmp_path / "sam.pth"))
    images = torch.rand(2, 3, 128, 128)
    expected = reference_encoder(changed, encoder.prepare(images), heads=2, window=4)
    torch.testing.assert_close(encoder(images), expected, rtol=1e-3, atol=1e-4)


def test_the_build_of_the_published_encoder_follows_from_its_shapes(tmp_path: Path) -> None:
    """ViT-B as published: 12 blocks of 768, 12 heads, windows of 14, every third block over the whole image."""
    shapes: dict[str, tuple[int, ...]] = {
        "pos_embed": (1, 64, 64, 768), "patch_embed.proj.weight": (768, 3, 16, 16), "neck.0.weight": (256, 768, 1, 1)
    }  # fmt: skip
    for layer in range(12):
        reach = 127 if layer in (2, 5, 8, 11) else 27
        shapes |= {f"blocks.{layer}.attn.rel_pos_h": (reach, 64), f"blocks.{layer}.mlp.lin1.weight": (3072, 1)}
    shapes |= {"blocks.0.attn.qkv.bias": (2304,)}
    tensors = {f"image_encoder.{name}": torch.zeros(shape) for name, shape in shapes.items()}
    build, _ = read_checkpoint(save(tensors, tmp_path / "sam_vit_b.pth"))
    assert build == {
        "hidden_size": 768, "num_channels": 3, "patch_size": 16, "image_size": 1024, "num_hidden_layers": 12,
        "num_attention_heads": 12, "mlp_dim": 3072, "output_channels": 256, "window_size": 14,
        "global_attn_indexes": [2, 5, 8, 11], "qkv_bias": True,
    }  # fmt: skip


class Trap:
    """A pickle of it would write a file when it is read."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, tuple[object, ...]]:
        return Path.touch, (self.path,)


@pytest.mark.fault
def test_a_checkpoint_that_runs_code_is_refused_and_nothing_runs(weights: Weights, tmp_path: Path) -> None:
    sprung = tmp_path / "sprung"
    for name, saved in (("zip.pth", weights | {"trap": Trap(sprung)}), ("plain.pth", None)):
        path = tmp_path / name
        if saved is None:
            path.write_bytes(pickle.dumps(Trap(sprung)))
        else:
            torch.save(saved, path)
        with pytest.raises(HemalumError, match=r"is no checkpoint of tensors alone, and nothing else is read"):
            load_sam(path)
    assert not sprung.exists()


@pytest.mark.fault
def test_what_is_no_checkpoint_of_sam_is_refused(weights: Weights, tmp_path: Path) -> None:
    with pytest.raises(HemalumError, match=r"no SAM checkpoint at '.*none\.pth': get one from https://github"):
        load_sam(tmp_path / "none.pth")
    with pytest.raises(HemalumError, match=r"no SAM checkpoint at '.*none\.pth'"):
        check_sam(tmp_path / "none.pth")
    lacking = {name: value for name, value in weights.items() if "pos_embed" not in name}
    with pytest.raises(HemalumError, match=r"is no SAM checkpoint: it has no image_encoder\.pos_embed"):
        load_sam(save(lacking, tmp_path / "lacking.pth"))
    lacking = {name: value for name, value in weights.items() if "neck.1.bias" not in name}
    with pytest.raises(HemalumError, match=r"is no SAM checkpoint: .*neck\.layer_norm1\.bias"):
        load_sam(save(lacking, tmp_path / "norm.pth"))
    with pytest.raises(HemalumError, match=r"it has no image_encoder\.patch_embed"):
        load_sam(save([torch.zeros(2)], tmp_path / "list.pth"))
    flat = weights | {"image_encoder.pos_embed": torch.zeros(3)}
    with pytest.raises(HemalumError, match="its weights have other shapes"):
        load_sam(save(flat, tmp_path / "flat.pth"))
    wide = weights | {"image_encoder.patch_embed.proj.weight": torch.zeros(16, 3, 2048, 1)}
    with pytest.raises(HemalumError, match="its image_size is 16384, want 8192 at most"):
        load_sam(save(wide, tmp_path / "wide.pth"))
    huge = weights | {"image_encoder.neck.0.weight": torch.zeros(1).expand(10**6, 10**6, 1, 1)}
    with pytest.raises(HemalumError, match=r"its image_encoder\.neck\.0\.weight is larger than the file"):
        load_sam(save(huge, tmp_path / "huge.pth"))
    broken = save(weights, tmp_path / "broken.pth")
    broken.write_bytes(broken.read_bytes()[:-500])
    with pytest.raises(HemalumError, match="is no checkpoint of tensors alone"):
        load_sam(broken)


def test_controls_are_what_they_are_called(folder: Path, tmp_path: Path) -> None:
    images = torch.rand(2, 3, 40, 40)
    plain, zeroed, drawn = load_sam(folder), load_sam(folder, "zeroed"), load_sam(folder, "random")
    assert zeroed(images).shape == plain(images).shape
    assert not zeroed(images).any()
    state = torch.random.get_rng_state()
    again = load_sam(folder, "random")
    assert torch.equal(torch.random.get_rng_state(), state)  # a training's draws stay as they are
    torch.testing.assert_close(drawn(images), again(images))
    assert drawn(images).std() > 0.1
    across = torch.corrcoef(torch.stack([plain(images).flatten(), drawn(images).flatten()]))[0, 1]
    assert abs(float(across)) < 0.5
    assert (drawn(images)[0] - drawn(images)[1]).abs().mean() > 1e-3  # a function of the image still
    assert load_sam(folder, "shuffled").digest == plain.digest
    assert len({encoder.digest for encoder in (plain, zeroed, drawn)}) == 3
    assert drawn.digest == again.digest
    # whatever weights are there, the drawn ones are those of the build
    other = shutil.copytree(folder, tmp_path / "other")
    changed: SamEncoder = load_sam(other)
    from safetensors.torch import load_file, save_file

    tensors = load_file(other / "model.safetensors")
    tensors["vision_encoder.neck.conv1.weight"] += 1
    save_file(tensors, other / "model.safetensors", metadata={"format": "pt"})
    assert load_sam(other).digest != changed.digest
    assert load_sam(other, "random").digest == drawn.digest
