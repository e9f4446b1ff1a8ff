"""Tables and pairs: what a reader sees of cards, datasets, problems and evaluations."""

from pathlib import Path
from typing import Any

import pytest

from hemalum.data.check import Problem
from hemalum.data.dataset import Dataset, DatasetInfo, SplitInfo
from hemalum.models.card import Card, NetworkSpec, Training, TrainingSet
from hemalum.reports.tables import (
    card_pairs,
    dataset_pairs,
    evaluation_tables,
    formats_table,
    metrics_table,
    problems_table,
)


def test_formats_have_a_title_and_a_license() -> None:
    headers, rows = formats_table()
    assert headers[0] == "format"
    assert "folder" in [row[0] for row in rows]
    for row in rows:
        assert len(row) == len(headers)
        assert all(row)


def test_formats_say_what_a_user_asks_first() -> None:
    headers, rows = formats_table()
    by_name = {row[0]: dict(zip(headers, row, strict=True)) for row in rows}
    lizard = by_name["lizard"]
    assert lizard["mpp"] == "0.5"
    assert lizard["license"] == "CC-BY-NC-SA-4.0"
    assert lizard["classes"] == "neutrophil, epithelial, lymphocyte, plasma, eosinophil, connective"
    assert lizard["cite"] == "Graham et al. 2021, doi:10.1109/ICCVW54120.2021.00082"
    assert lizard["get it from"].startswith("https://")
    assert by_name["nuinsseg"]["mpp"] == "0.16 (measured)"
    for name, row in by_name.items():
        local = name in ("folder", "ihc-pairs", "qupath", "combined")
        assert local or "yours" not in (row["size"], row["license"], row["cite"], row["get it from"])


def test_a_published_split_is_said_in_words() -> None:
    split = SplitInfo(
        by="fold", published="three folds", fold=2, note="val: cut", seed=0, sha256="ab", counts={"train": 3}
    )
    info = DatasetInfo(name="p", classes={1: "dead"}, images=3, nuclei=4, split=split)
    pairs = dict(dataset_pairs(Dataset(Path("p"), info, ())))
    assert pairs["split"] == "train 3; as published (fold 2): three folds; val: cut"
    assert pairs["classes"] == "1 dead"


def test_problems_name_where() -> None:
    problems = [Problem("error", "labels/a.png", "size", "no"), Problem("warning", "", "mpp", "none")]
    _, rows = problems_table(problems)
    assert rows == [["error", "size", "labels/a.png", "no"], ["warning", "mpp", "(dataset)", "none"]]


def card(**changes: Any) -> Card:
    values: dict[str, Any] = {"name": "m", "representation": "distance", "mpp": 0.5, "halo": 8, "stride": 8}
    return Card(network=NetworkSpec(name="compact", options={"widths": [8]}), code_version="1", **(values | changes))


def test_a_card_names_data_and_licenses() -> None:
    training = Training(
        recipe="fast",
        recipe_hash="a" * 64,
        command="hemalum train fast",
        steps=3000,
        seed=1,
        date="2026-11-20",
        data=[
            TrainingSet(name="tnbc", license="CC-BY-4.0", citation="Naylor", split_hash="b" * 64, samples=32),
            TrainingSet(name="dsb2018", license="CC0-1.0", split_hash="c" * 64, samples=464),
        ],
    )
    pairs = card_pairs(card(training=training))
    lines = [value for name, value in pairs if name == "data"]
    assert lines == [
        "tnbc: 32 images, CC-BY-4.0, split bbbbbbbbbbbb; Naylor",
        "dsb2018: 464 images, CC0-1.0, split cccccccccccc",
    ]
    assert dict(pairs)["network"] == "compact (widths 8)"
    assert dict(pairs)["trained"] == "2026-11-20, 3,000 steps, seed 1"


def test_a_card_names_what_the_weights_it_started_from_have_seen() -> None:
    def trained(steps: int, names: str, initial: Training | None = None) -> Training:
        sets = [TrainingSet(name=name, license="CC0-1.0", split_hash="c" * 64, samples=1) for name in names]
        return Training(
            recipe="r", recipe_hash="a" * 64, command="", steps=steps, seed=1, date="2026-11-20", data=sets,
            initial=initial,
        )  # fmt: skip

    pairs = card_pairs(card(training=trained(30, "ab", trained(20, "bc", trained(1000, "cd")))))
    assert [value.partition(":")[0] for name, value in pairs if name == "data"] == ["a", "b", "c", "d"]
    assert [value for name, value in pairs if name == "started from"] == [
        "weights of 2026-11-20, 20 steps, recipe r (aaaaaaaaaaaa)",
        "weights of 2026-11-20, 1,000 steps, recipe r (aaaaaaaaaaaa)",
    ]


def test_a_card_says_what_its_model_is_for() -> None:
    assert dict(card_pairs(card(use="nuclei in H&E")))["use"] == "nuclei in H&E"
    assert "use" not in dict(card_pairs(card()))


def test_a_card_without_training() -> None:
    assert "trained" not in dict(card_pairs(card()))


def test_metrics_of_sets_that_differ() -> None:
    headers, rows = metrics_table({"a": {"PQ": 0.61234}, "b": {"Dice": 0.9, "PQ": 0.5}})
    assert headers == ["held-out set", "PQ", "Dice"]
    assert rows == [["a", "0.6123", ""], ["b", "0.5", "0.9"]]


def summary(**changes: Any) -> dict[str, Any]:
    pixel = {"precision": 0.5, "recall": 1.0, "dice": 2 / 3, "iou": 0.5}
    boundary = {"hd95_px": 3.0, "hd95_um": float("nan")}
    instance = {"aji": 0.25, "pq": 0.125, "ap_55": 0.1}
    group = {"images": 2, "pq": 0.125}
    values = {
        "model": "classical",
        "dataset": "tnbc",
        "split": "test",
        "mpp": "per image",
        "images": 4,
        "nuclei_truth": 1200,
        "nuclei_predicted": 1100,
        "pixel": {"pooled": pixel, "per_image": pixel, "support_weighted": pixel},
        "boundary": {"pooled": boundary, "per_image": boundary},
        "instance": {"pooled": instance, "per_image": instance},
        "by_group": [{"name": "01", **group}, {"name": "02", **group}],
        "by_organ": [{"name": "breast", **group}],
    }
    return values | changes


def test_every_averaging_is_named() -> None:
    tables = evaluation_tables(summary())
    assert tables[0][0] == "classical on tnbc, split test: 4 images, 1,200 nuclei, 1,100 found; scale: per image"
    (pixels, boundary, instances, groups) = (table for _, table in tables)
    assert pixels[0] == ["pixels", "precision", "recall", "dice", "iou"]
    assert pixels[1][0] == ["pooled", "0.5", "1", "0.6667", "0.5"]
    assert [row[0] for row in pixels[1]] == ["pooled", "mean over images", "support-weighted"]
    assert boundary[1][0] == ["pooled", "3", "–"]  # undefined is not zero
    assert instances[0] == ["instances", "aji", "pq"]
    assert groups == (["group", "images", "pq"], [["01", "2", "0.125"], ["02", "2", "0.125"]])


@pytest.mark.parametrize("groups", [1, 4])
def test_one_group_or_a_group_per_image_says_nothing_new(groups: int) -> None:
    by_group = [{"name": str(n), "images": 1, "pq": 0.5} for n in range(groups)]
    assert len(evaluation_tables(summary(by_group=by_group))) == 3


def test_a_card_says_what_its_network_is_shown_and_told() -> None:
    plain = dict(card_pairs(card()))
    assert "halo, stride" in plain
    assert plain["input"] == "RGB, standardized: (x − 0.5) / 0.25"
    assert not {"windows", "organs"} & set(plain)
    pairs = dict(card_pairs(card(channels="gray", window=128, organs=["brain", "liver"])))
    assert pairs["input"] == "gray, one channel, standardized: (x − 0.5) / 0.25"
    assert pairs["windows"] == "128 px a side: a pixel depends on the whole window"
    assert pairs["organs"] == "brain, liver"
    assert "halo, stride" not in pairs
