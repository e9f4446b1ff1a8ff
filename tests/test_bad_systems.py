"""What users get wrong about systems: each ends in one line that says what, where and what to do."""

import copy
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from PIL import Image

from hemalum import cli
from hemalum.models.card import Card, NetworkSpec
from hemalum.models.file import save_model

RECIPE: dict[str, Any] = {
    "name": "bad",
    "network": {"name": "unet", "options": {"widths": [4, 8]}},
    "representation": "foreground",
    "mpp": 0.5,
    "tile": 32,
    "batch": 2,
    "phases": [{"name": "only", "loss": "bce", "until": {"steps": 4}}],
    "validate_every": 2,
    "checkpoint_every": 1,
}
Train = Callable[..., str]


@pytest.fixture
def train(mini: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Train:
    """Train the recipe above with changes, through the command line; give the one line of its end."""

    def run(changes: dict[str, Any], data: Path = mini, code: int = 2) -> str:
        path = tmp_path / "recipe.yaml"
        path.write_text(yaml.safe_dump(copy.deepcopy(RECIPE) | changes))
        arguments = ["--quiet", "train", str(path), "--data", f"mini={data}", "-o", str(tmp_path / "run")]
        assert cli.main([*arguments, "--accelerator", "cpu", "--threads", "1"]) == code
        printed = capsys.readouterr()
        assert printed.out == ""
        lines = [line for line in printed.err.splitlines() if not line.startswith("warning")]
        assert len(lines) == 1, printed.err
        return lines[0].removeprefix("error: ").replace(str(tmp_path), "TMP").replace(str(data), "DATA")

    return run


def phase(**changes: Any) -> dict[str, Any]:
    return {"phases": [RECIPE["phases"][0] | changes]}


MISTAKES: dict[str, tuple[dict[str, Any], str]] = {
    "system": (
        {"system": "two_stge"},
        "TMP/recipe.yaml: unknown system 'two_stge', did you mean 'two_stage'?",
    ),
    "system's option": (
        {"system": {"name": "clin_seg_net", "widths": [4, 8]}},
        "TMP/recipe.yaml: system 'clin_seg_net' has no option 'widths', did you mean 'network.widths'?",
    ),
    "system's nested option": (
        {"system": {"name": "clin_seg_net", "optimizer": {"lrr": 0.1}}},
        "TMP/recipe.yaml: system 'clin_seg_net' has no option 'optimizer.adam.lrr', did you mean 'optimizer.lr'?",
    ),
    "system's network's option": (
        {"system": {"name": "clin_seg_net", "network": {"widhts": [4, 8]}}},
        "TMP/recipe.yaml: network 'seu_net' has no option 'widhts', did you mean 'widths'?",
    ),
    "system's loss's option": (
        {"system": {"name": "clin_seg_net", "loss": {"bse": 1}}},
        "TMP/recipe.yaml: system 'clin_seg_net', 'loss': loss 'histo' has no option 'bse', did you mean 'bce'?",
    ),
    "network": (
        {"network": {"name": "deeplabv3plu"}},
        "unknown network 'deeplabv3plu', did you mean 'deeplabv3plus'?",
    ),
    "network's option": (
        {"network": {"name": "unet", "options": {"width": [4]}}},
        "network 'unet' does not take these options: UNet.__init__() got an unexpected keyword argument 'width'",
    ),
    "loss": (
        phase(loss="histoo"),
        "TMP/recipe.yaml: 'phases.0.loss': unknown loss 'histoo', did you mean 'histo'?",
    ),
    "loss's option": (
        phase(loss={"name": "histo", "tverski": 0.7}),
        "TMP/recipe.yaml: 'phases.0.loss': loss 'histo' has no option 'tverski', did you mean 'tversky'?",
    ),
    "loss for other maps": (
        phase(loss="cross_entropy"),
        "recipe bad: loss 'cross_entropy' does not fit representation 'foreground', whose maps are sigmoid; it takes "
        "softmax",
    ),
    "representation": (
        {"representation": "foreground_edges"},
        "recipe bad: unknown representation 'foreground_edges', did you mean 'foreground_edge'?",
    ),
    "no classes": (
        {"representation": "semantic"} | phase(loss="cross_entropy"),
        "recipe bad tells classes apart and DATA has none: take another recipe, or classes: nucleus, which takes all "
        "nuclei as one",
    ),
    "stride": (
        {"tile": 36, "network": {"name": "unet", "options": {"widths": [4, 8, 16, 32]}}},
        "recipe bad: tile 36 is not a multiple of the network's 8",
    ),
    "size": (
        {"tile": 64, "network": {"name": "medt"}},
        "recipe bad: tile is 64, its network takes 128 x 128 px: make them equal",
    ),
    "no encoder": (
        {"network": {"name": "eunet3plus", "options": {"widths": [4, 8, 16]}}},
        "recipe bad: its network needs an embedding: give 'sam' with an encoder",
    ),
    "SAM's weights": (
        {"network": {"name": "eunet3plus"}, "sam": {"encoder": "facebook/sam-vit-base"}},
        "the weights of SAM encoder 'facebook/sam-vit-base' are not on this machine: huggingface-cli download "
        "facebook/sam-vit-base (or: hf download), or give the path of a folder with them",
    ),
    "SAM's folder": (
        {"network": {"name": "eunet3plus"}, "sam": {"encoder": "./none"}},
        "no SAM encoder at './none': give a folder, or a name such as facebook/sam-vit-base, facebook/sam-vit-large, "
        "facebook/sam-vit-huge",
    ),
}


@pytest.mark.parametrize("what", MISTAKES)
def test_a_mistake_in_a_recipe(train: Train, tmp_path: Path, what: str) -> None:
    changes, message = MISTAKES[what]
    if what.startswith("SAM"):
        pytest.importorskip("transformers")
    assert train(changes) == message
    assert not (tmp_path / "run").exists() or not list((tmp_path / "run").iterdir())


def test_sam_without_its_extra(train: Train, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "transformers", None)
    message = train({"network": {"name": "eunet3plus"}, "sam": {"encoder": "facebook/sam-vit-base"}})
    assert message == "SAM encoder 'facebook/sam-vit-base' needs transformers: pip install \"hemalum[sam]\""


@pytest.fixture(scope="session")
def rare(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A dataset of ten images; each has a nucleus of class a and one of b or of c, so none holds all classes."""
    from hemalum.data.importing import import_dataset

    source, target = tmp_path_factory.mktemp("rare"), tmp_path_factory.mktemp("rare_data") / "mini"
    for folder in ("images", "labels", "classes"):
        (source / folder).mkdir()
    labels = np.zeros((64, 64), np.uint16)
    labels[10:22, 10:22], labels[40:52, 30:42] = 1, 2
    image = np.where(labels[..., None] > 0, [110, 80, 160], [230, 190, 215]).astype(np.uint8)
    lines = ["image,label,group"]
    for number in range(10):
        classes = (labels > 0).astype(np.uint8)
        classes[labels == 2] = 2 + number % 2
        Image.fromarray(np.roll(image, number, axis=0)).save(source / "images" / f"{number}.png")
        Image.fromarray(np.roll(labels, number, axis=0)).save(source / "labels" / f"{number}.png")
        Image.fromarray(np.roll(classes, number, axis=0)).save(source / "classes" / f"{number}.png")
        lines.append(f"{number}.png,{number}.png,g{number}")
    (source / "index.csv").write_text("\n".join(lines) + "\n")
    import_dataset("folder", source, target, mpp=0.5, class_names="a,b,c", name="mini")
    return target


def test_a_labeled_fraction_that_leaves_a_class_empty(train: Train, rare: Path) -> None:
    changes = {"representation": "semantic", "labeled": {"fraction": "1/8"}} | phase(
        loss="cross_entropy", semi_supervised={}
    )
    assert train(changes, rare) == (
        "recipe bad, DATA: labeled fraction 1/8 leaves class 'b' without an image: it is 1 of 7 images, and 3 hold "
        "that class; label more"
    )


@pytest.mark.fault
def test_an_organ_that_is_not_in_the_embedding(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Refused before the image is even opened, by segment and export alike."""
    organs = ["human brain", "human kidney"]
    card = Card(
        name="organs", network=NetworkSpec(name="seu_net", options={"widths": [4, 8], "organs": 2, "embedding": 4}),
        representation="foreground_edge", mpp=0.5, halo=0, stride=2, window=32, organs=organs, code_version="0",
    )  # fmt: skip
    model = tmp_path / "organs.safetensors"
    save_model(model, card, {"nothing": np.zeros(1, np.float32)})
    image = tmp_path / "image.png"
    Image.fromarray(np.zeros((40, 40, 3), np.uint8)).save(image)
    for words in (["segment", str(image), "-o", str(tmp_path), "-m", str(model)], ["export", str(model), "out.onnx"]):
        assert cli.main([*words, "--organ", "human brian"]) == 2
        assert capsys.readouterr().err == (
            "error: model 'organs' does not know organ 'human brian', did you mean 'human brain'?\n"
        )
    assert cli.main(["segment", str(image), "-o", str(tmp_path), "-m", str(model), "--organ", "colon"]) == 2
    assert capsys.readouterr().err == (
        "error: model 'organs' does not know organ 'colon'; known: human brain, human kidney\n"
    )


def test_a_loss_that_is_not_finite(train: Train, tmp_path: Path) -> None:
    """It stops before the weights are spoilt, names the batch, and what was saved before goes on."""
    message = train(phase(optimizer={"name": "sgd", "lr": 1e30}, until={"steps": 50}))
    head, _, rest = message.partition(", on a batch of these images: ")
    images, _, tail = rest.partition("; the last good weights are in ")
    assert head.startswith("the loss is not finite at step ")
    assert head.endswith(" of phase 'only'")
    assert all(name.startswith("mini/") for name in images.split(", "))
    assert tail == "TMP/run/checkpoint.safetensors; lower the learning rate or set clip"
    assert (tmp_path / "run" / "checkpoint.safetensors").exists()
    assert not (tmp_path / "run" / "model.safetensors").exists()
