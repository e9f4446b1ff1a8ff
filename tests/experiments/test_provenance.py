"""What a comparison says of its figures before and after its runs."""

from pathlib import Path
from typing import Any

import pytest

from builders.models import make_model
from hemalum.data.dataset import Dataset
from hemalum.experiments.compare import make_plan
from hemalum.experiments.provenance import count_scales, scale_source, scales_text, seen_text
from hemalum.experiments.records import read_rows
from hemalum.files import write_text
from hemalum.models.card import Training, TrainingSet
from hemalum.models.file import save_model
from hemalum.models.seen_images import pack_images


def save_trained(path: Path, dataset: Dataset, **images: Any) -> Path:
    """A model file that says that it was trained on a set of another name."""
    used = TrainingSet(name="elsewhere", license="", split_hash="s", samples=1, **images)
    training = Training(recipe="r", recipe_hash="0", command="", steps=1, seed=0, date="", data=[used])
    model = make_model()
    save_model(path, model.card.model_copy(update={"training": training}), model.tensors)
    return path


@pytest.mark.parametrize("folds", [None, 2])
def test_a_plan_warns_once_of_a_model_that_has_seen_what_is_to_be_scored(
    mini: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture, folds: int | None
) -> None:
    dataset = Dataset.open(mini)
    test = [row.sha256 for row in dataset.split("test").rows]
    knows = save_trained(tmp_path / "knows.safetensors", dataset, images=pack_images(test[:1]), validated="")
    fresh = save_trained(tmp_path / "fresh.safetensors", dataset, images="", validated="")
    silent = save_trained(tmp_path / "silent.safetensors", dataset)
    make_plan([str(knows), str(fresh), str(silent), "classical"], [mini], folds=folds)
    where, images = ("mini", 10) if folds else ("mini, split test", len(test))
    assert caplog.messages == [
        f"knows has seen images of {where}: 1 learned from, of {images} images; its scores are not those of new "
        "images",
        f"whether silent has seen images of {where} is not known: its file does not tell the images of elsewhere",
    ]


@pytest.mark.parametrize(
    ("counts", "text"),
    [
        ({"trained": 0, "validated": 0, "unrecorded": []}, "none of 4 images"),
        ({"trained": 1, "validated": 2, "unrecorded": []}, "1 learned from and 2 in its validation, of 4 images"),
        (
            {"trained": 1, "validated": 0, "unrecorded": ["a", "b"]},
            "1 learned from, of 4 images; its file does not tell the images of a, b",
        ),
        ({"trained": 0, "validated": 0, "unrecorded": ["a"]}, "not known: its file does not tell the images of a"),
    ],
)
def test_what_has_been_seen_in_words(counts: dict[str, Any], text: str) -> None:
    assert seen_text(counts | {"images": 4}) == text


def test_where_scales_come_from() -> None:
    sources = [
        scale_source(None, "file", 0.5, estimated=False),
        scale_source(None, None, 0.5, estimated=False),
        scale_source(None, "nuclei", 0.5, estimated=False),
        scale_source(0.5, "nuclei", 0.5, estimated=False),
        scale_source("auto", "file", 0.5, estimated=True),
        scale_source(None, None, None, estimated=True),
        scale_source(None, "file", None, estimated=False),  # label maps: no scale is used
    ]
    assert sources == ["file", "dataset", "nuclei", "user", "estimate", "too few nuclei", None]
    assert sum(count_scales(sources).values()) == 6
    assert scales_text({"file": 3}) == ""
    assert scales_text({"estimate": 2, "file": 1}) == "estimated for 2 of 3 images"


def test_tables_of_runs_with_words_in_them_are_read(tmp_path: Path) -> None:
    table = write_text(tmp_path / "per_image.csv", "id,stain,mpp,mpp_source,dice\n1,purple,0.5,nuclei,0.25\n2,,,,\n")
    first, second = read_rows(table)
    assert first == {"id": "1", "stain": "purple", "mpp": 0.5, "mpp_source": "nuclei", "dice": 0.25}
    assert set(without_id(second).values()) == {None}


def without_id(row: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in row.items() if key != "id"}
