"""p1 and p2 of one network beside each other: nuclei counted by hand, pictures, and what is refused."""

from dataclasses import astuple
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from hemalum.cli import main
from hemalum.data.dataset import Dataset
from hemalum.errors import HemalumError
from hemalum.experiments.stages import compare_nuclei, compare_stages, open_stages
from hemalum.models.card import Card, NetworkSpec
from hemalum.models.file import save_model
from hemalum.models.network import build_network
from hemalum.reports.figures.stages import newly_found_map


def squares(*numbers: int, shrunk: tuple[int, ...] = ()) -> NDArray[np.int32]:
    """Squares of 6 px by their place in a row; those `shrunk` have a quarter of their pixels."""
    labels = np.zeros((8, 80), np.int32)
    for number in numbers:
        side = 3 if number in shrunk else 6
        labels[1 : 1 + side, 10 * number + 2 : 10 * number + 2 + side] = number + 1
    return labels


def test_nuclei_are_counted_as_by_hand() -> None:
    truth = squares(0, 1, 2, 3, 4)
    first = squares(0, 1, 3, 6, shrunk=(3,))  # finds 0 and 1, touches 3, and 6 is none
    second = squares(0, 2, 3, 6, 7)  # finds 0, 2 and 3; 1 is lost, 6 and 7 are none
    counted = compare_nuclei(truth, first, second)
    # nuclei, found by each, newly found (2 and 3), of these untouched by p1 (2), lost (1), false of each
    assert astuple(counted) == (5, 2, 3, 2, 1, 1, 2, 2)
    assert astuple(counted + counted) == tuple(2 * count for count in astuple(counted))
    back = compare_nuclei(truth, second, first)
    assert (back.newly_found, back.untouched, back.lost) == (1, 1, 2)


def test_the_printed_difference_is_white_where_the_second_stage_alone_has_a_nucleus() -> None:
    first, second = squares(0, 1), squares(1, 2)
    drawn = newly_found_map(first, second)
    assert {tuple(color) for color in drawn.reshape(-1, 3).tolist()} == {(0, 0, 0), (255, 255, 255)}
    np.testing.assert_array_equal(drawn[..., 0] == 255, squares(2) > 0)


@pytest.fixture(scope="module")
def two_stage_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model by hand on the dark discs of `mini`: p1 finds no pixel, p2 those whose red is below a half."""
    network = build_network("two_stage", 1, {"base": {"name": "unet", "options": {"widths": [2, 3]}}, "width": 2})
    tensors = {name: np.zeros(value.shape, np.float32) for name, value in network.state_dict().items()}
    tensors["base.head.bias"][:] = -2
    tensors["enhance.0.weight"][0, 0, 1, 1] = -1  # 0.6 - red, then as it is through both other layers
    tensors["enhance.0.bias"][0] = 0.6
    for layer in (2, 4):
        tensors[f"enhance.{layer}.weight"][0, 0, 1, 1] = 1
    tensors["enhance.6.weight"][0, 0] = 100
    tensors["enhance.6.bias"][:] = -1
    card = Card(
        name="hand", network=NetworkSpec(name="two_stage", options={
            "base": {"name": "unet", "options": {"widths": [2, 3]}}, "width": 2,
        }),
        representation="foreground", mpp=0.5, halo=16, stride=2, mean=(0, 0, 0), std=(1, 1, 1), code_version="0",
        separation={"min_area": 5},
    )  # fmt: skip
    path = tmp_path_factory.mktemp("model") / "hand.safetensors"
    save_model(path, card, tensors)
    return path


def test_both_stages_are_of_one_network(two_stage_model: Path, mini: Path) -> None:
    compared = compare_stages(two_stage_model, mini, engine="torch")
    dataset = Dataset.open(mini).split("test")
    assert [image.id for image in compared.images] == [row.id for row in dataset.rows]
    nuclei = compared.nuclei
    assert nuclei.nuclei == sum(row.nuclei for row in dataset.rows)
    assert (nuclei.found_p1, nuclei.lost, nuclei.false_p1) == (0, 0, 0)
    assert nuclei.newly_found == nuclei.untouched == nuclei.found_p2 > 0
    assert compared.dice[0] == 0
    assert compared.dice[1] > 0.9
    assert compared.best_dice[1] >= 0.9 > compared.best_dice[0]
    first, second = open_stages(two_stage_model, dataset, engine="torch")(dataset[0])
    assert first.probability is not None
    np.testing.assert_allclose(first.probability, 1 / (1 + np.exp(2)), atol=1e-3)
    assert second.labels.max() > 0


def test_the_verb_draws_a_row_for_each_model(
    two_stage_model: Path, mini: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    heights = []
    for count in (1, 2):
        path = tmp_path / f"{count}.png"
        words = ["--data", str(mini), "-o", str(path), "--engine", "torch"]
        assert main(["figure", "stages", *[str(two_stage_model)] * count, *words]) == 0
        heights.append(Image.open(path).height)
    assert heights[1] - heights[0] > 300
    printed = capsys.readouterr().out
    assert "newly found" in printed
    assert "hand" in printed


@pytest.mark.fault
@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["fast"], "model 'fast' has one stage, of network 'compact'"),
        (["{model}", "--image", "no"], "no image 'no' in the part that is drawn"),
        (["{model}", "fast", "--image", "no"], "no image 'no' in the part that is drawn"),  # before any model
        (["{model}", "--split", "tset"], "tset"),
    ],
)
def test_what_cannot_be_drawn(
    words: list[str], message: str, two_stage_model: Path, mini: Path, tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    words = [*(word.format(model=two_stage_model) for word in words), "--engine", "torch"]
    assert main(["figure", "stages", *words, "--data", str(mini), "-o", str(tmp_path / "out.png")]) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "out.png").exists()


@pytest.mark.fault
def test_a_part_without_images(two_stage_model: Path, mini: Path, tmp_path: Path) -> None:
    dataset = Dataset.open(mini).split("test")
    with pytest.raises(HemalumError, match="no images in part 'val'"):
        compare_stages(two_stage_model, dataset, split="val")
