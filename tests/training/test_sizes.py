"""Recipes whose sizes cannot be: one line, before anything is written and without the memory that they ask for."""

import csv
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from builders.trainings import RECIPE
from hemalum.errors import HemalumError
from hemalum.training import sizes
from hemalum.training.recipe import Recipe, load_recipe
from hemalum.training.train import train

pytestmark = pytest.mark.fault

COMPACT = {"name": "compact", "options": {"widths": [8, 12, 16], "depths": [0, 1, 1]}}


def compact(**options: Any) -> dict[str, Any]:
    return {"network": {"name": "compact", "options": COMPACT["options"] | options}}  # type: ignore[operator]


# refused as the recipe is read
IN_THE_RECIPE: dict[str, tuple[dict[str, Any], str]] = {
    "batch 0": ({"batch": 0}, "'batch': Input should be greater than or equal to 1"),
    "batch below 0": ({"batch": -4}, "'batch': Input should be greater than or equal to 1"),
    "half a crop": ({"batch": 2.5}, "'batch': Input should be a valid integer"),
    "tile 0": ({"tile": 0}, "'tile': Input should be greater than or equal to 16"),
    "tile huge": ({"tile": 100_000}, "'tile': Input should be less than or equal to 8192"),
    "mpp 0": ({"mpp": 0}, "'mpp': Input should be greater than 0.01"),
    "mpp below 0": ({"mpp": -0.5}, "'mpp': Input should be greater than 0.01"),
    "mpp in m": ({"mpp": 5e-7}, "'mpp': Input should be greater than 0.01"),
    "mpp in nm": ({"mpp": 500}, "'mpp': Input should be less than 100"),
    "mpp NaN": ({"mpp": float("nan")}, "'mpp': Input should be"),
    "steps 0": (
        {"phases": [{"name": "one", "until": {"steps": 0}}]},
        "'phases.0.until.steps': Input should be greater",
    ),
    "validate 0": ({"validate_every": 0}, "'validate_every': Input should be greater than or equal to 1"),
    "upsampling": ({"output_upsampling": 64}, "'output_upsampling': Input should be less than or equal to 4"),
    "widths": (
        compact(widths=[10**6, 12, 16]),
        "'network.options': 'widths': 1e+06 is too large; want at most 16,384",
    ),
    "many": (compact(widths=[8] * 300), "'network.options': 'widths': a list of 300 is too long; want at most 256"),
}
# refused with the network and the data
WITH_THE_DATA: dict[str, tuple[dict[str, Any], str]] = {
    "tile below stride": (
        compact(widths=[8] * 6, depths=[0] * 6),
        "recipe mini: tile 32 is not a multiple of the network's 64",
    ),
    "tile between strides": ({"tile": 36}, "recipe mini: tile 36 is not a multiple of the network's 8"),
    "widths over memory": (compact(widths=[16384] * 3), "recipe mini: its network has "),
    "widths below 0": (compact(widths=[-8, 12, 16]), "network 'compact' cannot be built with these options: "),
    "widths of text": (compact(widths="wide"), "network 'compact' "),
    "no widths": (compact(widths=[]), "network 'compact' "),
    "batch over memory": (
        {"batch": 10**9},
        "recipe mini: a batch of 1,000,000,000 crops of 32 x 32 px takes at least 26,702.9 GiB of the 64.0 GiB there "
        "are: take a smaller batch or tile",
    ),
    "tile over memory": (
        {"tile": 8192, "batch": 64},
        "recipe mini: a batch of 64 crops of 8,192 x 8,192 px takes at ",
    ),
    "mpp too fine": ({"mpp": 0.0101}, "recipe mini: mpp 0.0101 enlarges image "),
    "mpp too coarse": ({"mpp": 50.0}, "recipe mini: mpp 50 leaves 0.6 px of image "),
}


@pytest.fixture(autouse=True)
def memory(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> None:
    """64 GiB, of which images have 1 MiB."""
    fine = "fine" in request.node.name
    monkeypatch.setattr(sizes, "total_memory", lambda device: 2.0**20 if fine else 64 * 2.0**30)


@pytest.mark.parametrize("case", IN_THE_RECIPE)
def test_a_recipe_with_an_impossible_size_is_refused_as_it_is_read(tmp_path: Path, case: str) -> None:
    import yaml

    changes, expected = IN_THE_RECIPE[case]
    path = tmp_path / "mini.yaml"
    path.write_text(yaml.safe_dump(RECIPE | changes))
    with pytest.raises(HemalumError) as caught:
        load_recipe(path)
    assert str(caught.value).startswith(f"{path}: {expected}")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("case", WITH_THE_DATA)
def test_what_no_machine_holds_is_refused_before_anything_is_written(mini: Path, tmp_path: Path, case: str) -> None:
    changes, expected = WITH_THE_DATA[case]
    with pytest.raises(HemalumError) as caught:
        train(Recipe.model_validate(RECIPE | changes), [mini], tmp_path / "run", accelerator="cpu")
    assert str(caught.value).startswith(expected)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("column", "value", "where", "expected"),
    [
        ("mpp", "", "train", "sample {id} has no mpp: import its dataset with `mpp` NUMBER or `mpp` nuclei"),
        ("split", "test", "val", "no validation images: the datasets' val parts are empty"),
        ("split", "test", "train", "no training images: the datasets' train parts are empty"),
    ],
)
def test_data_that_cannot_be_trained_on_leave_no_folder(
    mini: Path, recipe: Recipe, tmp_path: Path, column: str, value: str, where: str, expected: str
) -> None:
    data = shutil.copytree(mini, tmp_path / "mini")
    with (data / "index.csv").open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    first = next(row["id"] for row in rows if row["split"] == where)
    rows = [row | ({column: value} if row["split"] == where else {}) for row in rows]
    with (data / "index.csv").open("w", newline="") as stream:
        writer = csv.DictWriter(stream, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    with pytest.raises(HemalumError) as caught:
        train(recipe, [data], tmp_path / "run", accelerator="cpu")
    assert str(caught.value) == expected.format(id=first)
    assert not (tmp_path / "run").exists()


def test_the_memory_of_this_machine_is_known(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    assert sizes.total_memory(torch.device("cpu")) > 2**28
