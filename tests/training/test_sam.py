"""A recipe with SAM: from training on cached embeddings to a model at work, and what is refused."""

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from lightning_fabric import Fabric

from hemalum.data.augment import crop_of
from hemalum.data.dataset import Dataset
from hemalum.errors import HemalumError
from hemalum.inference.engine import make_engine
from hemalum.inference.model import load_model
from hemalum.models.file import load_card
from hemalum.networks import sam
from hemalum.networks.map_model import build
from hemalum.networks.sam import load_sam
from hemalum.training.embeddings import embed, embed_all
from hemalum.training.recipe import Recipe
from hemalum.training.stream import Facts, Stream, normalise
from hemalum.training.train import train
from hemalum.training.validation import Validation

NETWORK = {"name": "eunet3plus", "options": {"widths": [4, 8, 16], "reduction": 2}}


def recipe_with(encoder: Path | str | None, **changes: object) -> Recipe:
    content = {
        "name": "with_sam",
        "seed": 3,
        "network": NETWORK,
        "representation": "foreground",
        "mpp": 0.5,
        "tile": 32,
        "batch": 2,
        "data": {"mini": {}},
        "sam": None if encoder is None else {"encoder": str(encoder)},
        "phases": [{"name": "main", "loss": "focal_dice", "until": {"steps": 4}}],
        "validate_every": 2,
        "checkpoint_every": 2,
    }
    return Recipe.model_validate(content | changes)


@pytest.fixture(scope="module")
def own_sam(random_sam: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return shutil.copytree(random_sam, tmp_path_factory.mktemp("own") / "sam")


@pytest.fixture(scope="module")
def trained(own_sam: Path, mini: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return train(recipe_with(own_sam), [mini], tmp_path_factory.mktemp("run") / "run", accelerator="cpu", threads=1)


def test_the_card_keeps_the_encoder(trained: Path, own_sam: Path) -> None:
    card = load_card(trained)
    assert card.sam is not None
    assert (card.sam.encoder, card.sam.field, card.window) == (str(own_sam), 32, 32)
    assert card.sam.digest == load_sam(own_sam).digest
    assert card.network.options["embedding"] == 8


def test_the_model_embeds_its_windows_itself(trained: Path, own_sam: Path) -> None:
    model = load_model(trained)
    whole = build(model.card, model.tensors)
    images = torch.randint(0, 256, (2, 32, 32, 3), dtype=torch.uint8)
    unit = images.permute(0, 3, 1, 2).float() / 255
    logits = whole.network(normalise(unit), embedding=load_sam(own_sam)(unit))
    torch.testing.assert_close(whole(images), logits.sigmoid(), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("engine", ["torch", "openvino", "onnx"])
def test_every_engine_gives_the_same(trained: Path, engine: str) -> None:
    if engine == "onnx":
        pytest.importorskip("onnxruntime")
    model = load_model(trained)
    images = np.random.default_rng(0).integers(0, 256, (3, 32, 32, 3), np.uint8)
    expected = build(model.card, model.tensors)(torch.from_numpy(images)).numpy()
    found = make_engine(engine, model, device="cpu", precision="f32").maps(images)
    np.testing.assert_allclose(found, expected, atol=1e-4)


def test_images_of_any_size_are_segmented(trained: Path) -> None:
    from hemalum import segment

    image = np.random.default_rng(0).integers(0, 256, (50, 71, 3), np.uint8)
    nuclei = segment(image, model=trained, mpp=0.5, engine="torch", device="cpu")
    assert nuclei.label_map().shape == (50, 71)


def test_a_second_training_computes_no_embedding(
    trained: Path, own_sam: Path, mini: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise AssertionError("the encoder was called")

    monkeypatch.setattr(sam.SamEncoder, "forward", refuse)
    again = train(recipe_with(own_sam), [mini], tmp_path / "again", accelerator="cpu", threads=1)
    first, second = load_model(trained).tensors, load_model(again).tensors
    assert all(np.array_equal(first[name], second[name]) for name in first)


def test_the_stream_gives_each_crop_its_part(own_sam: Path, mini: Path) -> None:
    recipe, encoder = recipe_with(own_sam), load_sam(own_sam)
    part = [Dataset.open(mini).split("train")]
    facts = Facts(conditions=("embedding",), embedding=8)
    stream = Stream(recipe, part, facts=facts, embed=lambda images: embed_all(encoder, images, 32))
    given = stream.batch(3).conditions["embedding"]
    assert given.shape == (2, 8, 4, 4)
    assert given.dtype == torch.float16
    for (epoch, place, index), one in zip(stream._draws(3), given, strict=True):
        rng = np.random.default_rng([recipe.seed, epoch, place])
        affine = crop_of(stream.prepared[index], rng, recipe.tile, recipe.augment)
        assert torch.equal(one, embed(encoder, stream.prepared[index].image, 32).cut(affine, recipe.tile))
    batch = next(stream.batches(3, 4))
    assert torch.equal(batch.conditions["embedding"], given)


def test_validation_sees_windows_as_the_model_will(own_sam: Path, mini: Path) -> None:
    """An encoder's fields and windows are the same where an image is one window: then the two agree."""
    recipe, encoder = recipe_with(own_sam, tile=64), load_sam(own_sam)
    part = [Dataset.open(mini).split("val")]
    facts = Facts(conditions=("embedding",), embedding=8)
    validation = Validation(
        recipe, part, 4, facts=facts, window=64, embed=lambda images: embed_all(encoder, images, 64)
    )
    sample = part[0][0]
    seen = {}

    class Watched(torch.nn.Module):
        def forward(self, x: torch.Tensor, embedding: torch.Tensor) -> torch.Tensor:
            seen.setdefault("embedding", embedding)
            return x[:, :1]

    validation.score(Watched(), Fabric(accelerator="cpu", devices=1))
    unit = torch.from_numpy(sample.image.copy()).permute(2, 0, 1)[None].float() / 255
    torch.testing.assert_close(seen["embedding"].float(), encoder(unit), rtol=2e-3, atol=2e-3)


def test_windows_of_validation_are_put_together(mini: Path, recipe: Recipe) -> None:
    part = [Dataset.open(mini).split("val")]

    class Plain(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            assert x.shape[2:] in ((32, 32), (64, 64))
            return x[:, :2] * 3

    fabric = Fabric(accelerator="cpu", devices=1)
    cut, whole = (Validation(recipe, part, 8, window=window).score(Plain(), fabric) for window in (32, None))
    assert cut == whole


def test_a_network_and_a_recipe_that_do_not_fit(own_sam: Path, mini: Path, tmp_path: Path) -> None:
    compact = {"name": "compact", "options": {"widths": [8, 12], "depths": [0, 1]}}
    cases = [
        (recipe_with(None), "its network needs an embedding: give 'sam'"),
        (recipe_with(own_sam, network=compact), "takes no embedding: leave out 'sam'"),
        (recipe_with(own_sam, sam={"encoder": str(own_sam), "field": 30}), r"sam\.field 30 is not a multiple"),
    ]  # fmt: skip
    for number, (recipe, message) in enumerate(cases):
        with pytest.raises(HemalumError, match=message):
            train(recipe, [mini], tmp_path / str(number), accelerator="cpu")


def test_missing_weights_are_refused_before_anything_is_written(mini: Path, tmp_path: Path) -> None:
    with pytest.raises(HemalumError, match="huggingface-cli download facebook/sam-vit-base"):
        train(recipe_with("facebook/sam-vit-base"), [mini], tmp_path / "run", accelerator="cpu")
    assert not (tmp_path / "run").exists()


def test_another_encoder_under_the_same_name_is_refused(trained: Path, own_sam: Path, mini: Path) -> None:
    from transformers import SamModel

    kept = own_sam.with_name("kept")
    shutil.copytree(own_sam, kept)
    try:
        other = SamModel.from_pretrained(own_sam)
        with torch.no_grad():
            other.vision_encoder.neck.conv1.weight.add_(1)
        other.save_pretrained(own_sam)
        with pytest.raises(HemalumError, match=r"trained with another SAM encoder than '.*sam' is now"):
            make_engine("torch", load_model(trained), device="cpu")
        with pytest.raises(HemalumError, match="the data or its split has changed since"):
            train(recipe_with(own_sam), [mini], trained.parent, resume=True, accelerator="cpu")
    finally:
        shutil.rmtree(own_sam)
        kept.rename(own_sam)
