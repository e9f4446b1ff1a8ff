"""A recipe with SAM: from training on cached embeddings to a model at work, and what is refused."""

import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from pydantic import ValidationError

from builders.trainings import make_context
from hemalum.data.augmentation.warp import crop_of
from hemalum.data.dataset import Dataset
from hemalum.errors import HemalumError
from hemalum.models import sam
from hemalum.models.engines.engine import make_engine
from hemalum.models.file import load_card
from hemalum.models.map_model import build_map_model
from hemalum.models.model import load_model
from hemalum.models.sam import load_sam
from hemalum.training.context import TrainContext
from hemalum.training.data_spec import DataSpec
from hemalum.training.embeddings import Embed, Embedding, embed, embed_all
from hemalum.training.encoding import normalize_images
from hemalum.training.loader import TrainLoader
from hemalum.training.recipe import Recipe
from hemalum.training.train import train
from hemalum.training.validation import Validation

_embed = embed  # of which tests have parameters of this name

DATA_SPEC = DataSpec(conditions=("embedding",), embedding_channels=8)
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
def sam_folder(random_sam: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return shutil.copytree(random_sam, tmp_path_factory.mktemp("encoder") / "sam")


@pytest.fixture(scope="module")
def trained(sam_folder: Path, mini: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return train(
        recipe_with(sam_folder), [mini], tmp_path_factory.mktemp("run") / "run", accelerator="cpu", threads=1
    )


def test_the_card_keeps_the_encoder(trained: Path, sam_folder: Path) -> None:
    card = load_card(trained)
    assert card.sam is not None
    assert (card.sam.encoder, card.sam.field, card.window) == (str(sam_folder), 32, 32)
    assert card.sam.digest == load_sam(sam_folder).digest
    assert card.network.options["embedding"] == 8


def test_the_model_embeds_its_windows_itself(trained: Path, sam_folder: Path) -> None:
    model = load_model(trained)
    map_model = build_map_model(model.card, model.tensors)
    images = torch.randint(0, 256, (2, 32, 32, 3), dtype=torch.uint8)
    unit = images.permute(0, 3, 1, 2).float() / 255
    logits = map_model.network(normalize_images(unit), embedding=load_sam(sam_folder)(unit))
    torch.testing.assert_close(map_model(images), logits.sigmoid(), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("engine", ["torch", "openvino", "onnx"])
def test_every_engine_gives_the_same(trained: Path, engine: str) -> None:
    if engine == "onnx":
        pytest.importorskip("onnxruntime")
    model = load_model(trained)
    images = np.random.default_rng(0).integers(0, 256, (3, 32, 32, 3), np.uint8)
    expected = build_map_model(model.card, model.tensors)(torch.from_numpy(images)).numpy()
    maps = make_engine(engine, model, device="cpu", precision="f32").maps(images)
    np.testing.assert_allclose(maps, expected, atol=1e-4)


def test_images_of_any_size_are_segmented(trained: Path) -> None:
    from hemalum import segment

    image = np.random.default_rng(0).integers(0, 256, (50, 71, 3), np.uint8)
    nuclei = segment(image, model=trained, mpp=0.5, engine="torch", device="cpu")
    assert nuclei.label_map().shape == (50, 71)


def test_a_second_training_computes_no_embedding(
    trained: Path, sam_folder: Path, mini: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise AssertionError("the encoder was called")

    monkeypatch.setattr(sam.SamEncoder, "forward", refuse)
    again = train(recipe_with(sam_folder), [mini], tmp_path / "again", accelerator="cpu", threads=1)
    first, second = load_model(trained).tensors, load_model(again).tensors
    assert all(np.array_equal(first[name], second[name]) for name in first)


def test_the_stream_gives_each_crop_its_part(sam_folder: Path, mini: Path) -> None:
    recipe, encoder = recipe_with(sam_folder), load_sam(sam_folder)
    part = [Dataset.open(mini).split("train")]
    context = make_context(recipe, data_spec=DATA_SPEC)
    loader = TrainLoader(context, part, embed=lambda images: embed_all(encoder, images, 32))
    embeddings = loader.batch(3).conditions["embedding"]
    assert embeddings.shape == (2, 8, 4, 4)
    assert embeddings.dtype == torch.float16
    for draw, embedding in zip(loader.draws(3), embeddings, strict=True):
        rng = np.random.default_rng([recipe.seed, draw.epoch, draw.position])
        sample = loader.prepared[draw.sample]
        affine = crop_of(sample, rng, recipe.tile, recipe.augment)
        assert torch.equal(embedding, embed(encoder, sample.image, 32).cut(affine, recipe.tile))
    batch = next(loader.batches(3, 4))
    assert torch.equal(batch.conditions["embedding"], embeddings)


def test_validation_sees_windows_as_the_model_will(sam_folder: Path, mini: Path) -> None:
    """An encoder's fields and windows are the same where an image is one window: then the two agree."""
    recipe, encoder = recipe_with(sam_folder, tile=64), load_sam(sam_folder)
    part = [Dataset.open(mini).split("val")]
    context = make_context(recipe, data_spec=DATA_SPEC, stride=4, window=64)
    validation = Validation(context, part, embed=lambda images: embed_all(encoder, images, 64))
    sample = part[0][0]
    inputs = {}

    class Recorder(torch.nn.Module):
        def forward(self, x: torch.Tensor, embedding: torch.Tensor) -> torch.Tensor:
            inputs.setdefault("embedding", embedding)
            return x[:, :1]

    validation.score(Recorder())
    unit = torch.from_numpy(sample.image.copy()).permute(2, 0, 1)[None].float() / 255
    torch.testing.assert_close(inputs["embedding"].float(), encoder(unit), rtol=2e-3, atol=2e-3)


@pytest.mark.parametrize(
    "control",
    [pytest.param("shuffled", marks=pytest.mark.slow), "zeroed", pytest.param("random", marks=pytest.mark.slow)],
)
def test_a_control_trains_and_its_model_knows_it(control: str, sam_folder: Path, mini: Path, tmp_path: Path) -> None:
    recipe = recipe_with(sam_folder, sam={"encoder": str(sam_folder), "control": control})
    path = train(recipe, [mini], tmp_path / "run", accelerator="cpu", threads=1)
    model = load_model(path)
    assert model.card.sam is not None
    assert model.card.sam.control == control
    assert (model.card.sam.digest == load_sam(sam_folder).digest) == (control == "shuffled")
    images = np.random.default_rng(0).integers(0, 256, (2, 32, 32, 3), np.uint8)
    unit = torch.from_numpy(images).permute(0, 3, 1, 2).float() / 255
    seen = {
        "shuffled": load_sam(sam_folder)(unit),  # in use each image has its own: there is no other
        "zeroed": torch.zeros(2, 8, 4, 4),
        "random": load_sam(sam_folder, "random")(unit),
    }[control]
    map_model = build_map_model(model.card, model.tensors)
    expected = map_model.network(normalize_images(unit), embedding=seen).sigmoid()
    torch.testing.assert_close(map_model(torch.from_numpy(images)), expected, rtol=1e-4, atol=1e-5)
    if control == "zeroed":  # the one whose graph is another
        maps = make_engine("openvino", model, device="cpu", precision="f32").maps(images)
        np.testing.assert_allclose(maps, expected.numpy(), atol=1e-4)


def test_a_shuffled_training_sees_the_embeddings_of_other_images(
    sam_folder: Path, mini: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both what it trains on and what it validates on."""
    calls: list[tuple[list[Path], list[Path]]] = []
    for kind in (TrainLoader, Validation):
        monkeypatch.setattr(kind, "__init__", _recording(kind.__init__, calls))
    recipe = recipe_with(sam_folder, sam={"encoder": str(sam_folder), "control": "shuffled"})
    train(recipe, [mini], tmp_path / "run", accelerator="cpu", threads=1)
    assert len(calls) == 2
    for expected, seen in calls:
        assert set(expected) == set(seen)
        assert all(one != other for one, other in zip(expected, seen, strict=True))


def _recording(init: Callable[..., None], calls: list[tuple[list[Path], list[Path]]]) -> Callable[..., None]:
    def wrapped(self: object, context: TrainContext, datasets: Sequence[Dataset], embed: Embed) -> None:
        def record(images: Sequence[NDArray[np.uint8]]) -> list[Embedding]:
            entries = embed(images)
            assert context.recipe.sam is not None
            encoder = load_sam(context.recipe.sam.encoder)
            calls.append(([_embed(encoder, image, 32).path for image in images], [one.path for one in entries]))
            return entries

        init(self, context, datasets, record)

    return wrapped


def test_a_trained_model_is_asked_with_other_embeddings(
    trained: Path, mini: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The study of benchmarks/sam_controls.py, against the model itself."""
    import sam_controls

    dataset = Dataset.open(mini).split("test")
    rows = sam_controls.probe(dataset, trained)
    assert list(rows) == ["of the image", "another image's", "zeros", "random numbers"]
    assert rows["of the image"]["changed"] == 0
    assert all(0 <= row["changed"] <= 1 and 0 <= row["dice"] <= 1 for row in rows.values())
    model = load_model(trained)
    maps = build_map_model(model.card, model.tensors)
    images, _ = sam_controls.middle_windows(dataset, 0.5, 32, None)
    embedded = sam_controls.embeddings_of(maps, images)
    seen = maps((255 * images).round().to(torch.uint8).permute(0, 2, 3, 1))[:, 0] >= 0.5
    assert torch.equal(sam_controls.predict(maps, images, embedded["of the image"]), seen)
    assert torch.equal(embedded["another image's"][1], embedded["of the image"][0])
    nothing = (
        maps.network(normalize_images(images), embedding=torch.zeros_like(embedded["of the image"]))[:, 0].sigmoid()
        >= 0.5
    )
    assert rows["zeros"]["changed"] == pytest.approx(float((nothing != seen).double().mean()))
    sam_controls.main([str(mini), str(trained), "-o", str(tmp_path / "record.json")])
    assert "| another image's |" in capsys.readouterr().out
    assert (tmp_path / "record.json").is_file()


def test_an_unknown_control_is_named(sam_folder: Path) -> None:
    with pytest.raises(ValidationError, match="'shuffled', 'zeroed' or 'random'"):
        recipe_with(sam_folder, sam={"encoder": str(sam_folder), "control": "shuffle"})


@pytest.mark.fault
def test_a_network_and_a_recipe_that_do_not_fit(sam_folder: Path, mini: Path, tmp_path: Path) -> None:
    compact = {"name": "compact", "options": {"widths": [8, 12], "depths": [0, 1]}}
    cases = [
        (recipe_with(None), "its network needs an embedding: give 'sam'"),
        (recipe_with(sam_folder, network=compact), "takes no embedding: leave out 'sam'"),
        (recipe_with(sam_folder, sam={"encoder": str(sam_folder), "field": 30}), r"sam\.field 30 is not a multiple"),
        (
            recipe_with(sam_folder, network=NETWORK | {"options": NETWORK["options"] | {"embedding": 5}}),
            "its network takes an embedding of 5 channels and the SAM encoder has",
        ),
    ]  # fmt: skip
    for number, (recipe, message) in enumerate(cases):
        with pytest.raises(HemalumError, match=message):
            train(recipe, [mini], tmp_path / str(number), accelerator="cpu")


@pytest.mark.fault
def test_missing_weights_are_refused_before_anything_is_written(mini: Path, tmp_path: Path) -> None:
    with pytest.raises(HemalumError, match="huggingface-cli download facebook/sam-vit-base"):
        train(recipe_with("facebook/sam-vit-base"), [mini], tmp_path / "run", accelerator="cpu")
    assert not (tmp_path / "run").exists()


@pytest.mark.fault
def test_another_encoder_under_the_same_name_is_refused(trained: Path, sam_folder: Path, mini: Path) -> None:
    from transformers import SamModel

    backup = sam_folder.with_name("backup")
    shutil.copytree(sam_folder, backup)
    try:
        other = SamModel.from_pretrained(sam_folder)
        with torch.no_grad():
            other.vision_encoder.neck.conv1.weight.add_(1)
        other.save_pretrained(sam_folder)
        with pytest.raises(HemalumError, match=r"trained with another SAM encoder than '.*sam' is now"):
            make_engine("torch", load_model(trained), device="cpu")
        with pytest.raises(HemalumError, match="the data, its labels or its split have changed since"):
            train(recipe_with(sam_folder), [mini], trained.parent, resume=True, accelerator="cpu")
    finally:
        shutil.rmtree(sam_folder)
        backup.rename(sam_folder)
