"""Corrected labels as Nuclei, Sample, dataset folder and GeoJSON: the same nuclei in each."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import shapely
from numpy.typing import NDArray

from builders.reviews import NAME, apply, draw_labels, image_of, make_item, make_journal, make_state, square
from hemalum.data.dataset import Dataset
from hemalum.errors import HemalumError
from hemalum.nuclei.nuclei import Nuclei
from hemalum.review.edits import add, classify, delete, mark, merge, reject
from hemalum.review.item import Item, ItemState
from hemalum.review.journal import Journal
from hemalum.review.labels import corrected_nuclei, corrected_sample, export_dataset

IMAGE = image_of(draw_labels())


def make_corrected() -> ItemState:
    """1 and 2 merged to 5 (stroma), 3 rejected, 4 without a class, 6 added (tumor)."""
    state = make_state(class_names=("tumor", "stroma"))
    state = replace(state, item=make_item(draw_labels(), mpp=0.25, organ="kidney"))
    state = apply(state, classify(state, [1, 2], "stroma"))
    state = apply(state, merge(state, [1, 2]))
    state = apply(state, reject(state, [3]))
    return apply(state, add(state, square(20, 40, 8), "tumor"))


def expected_labels() -> NDArray[np.int32]:
    labels = draw_labels()
    labels[np.isin(labels, [1, 2])] = 5
    labels[labels == 3] = 0
    labels[40:48, 20:28] = 6
    return labels


def test_nuclei_are_measured_on_the_corrected_pixels_and_keep_their_ids() -> None:
    nuclei = corrected_nuclei(make_corrected(), IMAGE)
    table = {row["id"]: row for row in nuclei.table.to_pylist()}
    assert {id: row["class"] for id, row in table.items()} == {5: "stroma", 4: "", 6: "tumor"}
    assert {id: row["area_px"] for id, row in table.items()} == {
        id: (expected_labels() == id).sum() for id in (4, 5, 6)
    }
    assert (table[6]["x"], table[6]["y"], table[6]["area_um2"]) == (24, 44, 64 / 16)
    assert table[6]["hematoxylin_mean"] < table[4]["hematoxylin_mean"]  # it was drawn on background
    assert (nuclei.label_map() == expected_labels()).all()
    assert nuclei.outlines.shapely()[table[6]["id"] == nuclei.table.column("id").to_numpy()][0].area == 64
    without = corrected_nuclei(make_corrected())
    assert without.table.column("hematoxylin_mean").null_count == 3


def test_geojson_has_the_corrected_outlines_and_classes(tmp_path: Path) -> None:
    corrected_nuclei(make_corrected(), IMAGE, model="fast").to_geojson(tmp_path / "out.geojson")
    content = json.loads((tmp_path / "out.geojson").read_text())
    features = {one["properties"]["measurements"]["Nucleus ID"]: one for one in content["features"]}
    assert {id: one["properties"]["classification"]["name"] for id, one in features.items()} == {
        4: "Nucleus",
        5: "stroma",
        6: "tumor",
    }
    drawn = shapely.Polygon(features[6]["geometry"]["coordinates"][0])
    assert drawn.equals(shapely.box(20, 40, 28, 48))
    assert content["hemalum"]["review"] == {"version": 4, "status": "open"}


def test_sample_has_the_corrected_pixels_and_classes() -> None:
    sample = corrected_sample(make_corrected(), IMAGE)
    assert (sample.instances == expected_labels()).all()
    assert sample.classes is not None
    assert sample.classes[[4, 5, 6]].tolist() == [0, 2, 1]
    assert (sample.id, sample.mpp, sample.organ) == (NAME, 0.25, "kidney")


def test_an_item_without_nuclei() -> None:
    state = make_state()
    state = apply(state, delete(state, [1, 2, 3, 4]))
    assert len(corrected_nuclei(state, IMAGE)) == 0
    assert corrected_sample(state, IMAGE).instances.max() == 0


def add_other(journal: Journal) -> NDArray[np.int32]:
    """A second item, reviewed as it is."""
    labels = np.flipud(draw_labels()).copy()
    item = make_item(labels, "liver 2.png", organ="liver", mpp=0.25)
    state = journal.add_item(item, Nuclei.from_labels(labels))
    journal.append(item.name, "Ben", mark(state, "reviewed"), 0)
    return labels


def test_what_is_reviewed_becomes_a_dataset(tmp_path: Path) -> None:
    with make_journal(tmp_path) as journal:
        labels = add_other(journal)
        images = {NAME: IMAGE, "liver 2.png": image_of(labels)}
        journal.append(NAME, "Anna", delete(journal.state(NAME), [4]), 0)
        dataset = export_dataset(journal, tmp_path / "one", lambda item: images[item.name])
        assert [row.id for row in dataset.rows] == ["liver_2.png"]
        journal.append(NAME, "Anna", mark(journal.state(NAME), "reviewed"), journal.state(NAME).version)
        dataset = export_dataset(journal, tmp_path / "both", lambda item: images[item.name], shares=(0.5, 0.0, 0.5))
    reopened = Dataset.open(tmp_path / "both")
    assert dataset.info == reopened.info
    assert sorted(row.split for row in reopened.rows) == ["test", "train"]
    samples = {sample.id: sample for sample in reopened}
    assert (samples[NAME].instances == np.where(draw_labels() == 4, 0, draw_labels())).all()
    assert (samples[NAME].image == IMAGE).all()
    assert (samples["liver_2.png"].instances > 0).sum() == (labels > 0).sum()
    assert (reopened.info.nuclei, reopened.info.mpp, samples[NAME].organ) == (7, 0.25, "kidney")


@pytest.mark.fault
def test_datasets_that_cannot_be_written(tmp_path: Path) -> None:
    def missing(item: Item) -> NDArray[np.uint8]:
        raise FileNotFoundError(2, "No such file or directory", item.name)

    with make_journal(tmp_path) as journal:
        with pytest.raises(HemalumError, match=r"review\.sqlite: no item is marked as reviewed"):
            export_dataset(journal, tmp_path / "out", lambda item: IMAGE)
        labels = add_other(journal)
        with pytest.raises(HemalumError, match=r"liver 2\.png: is another image than the one that was reviewed; put"):
            export_dataset(journal, tmp_path / "out", lambda item: IMAGE)
        with pytest.raises(HemalumError, match=r"liver 2\.png: its image cannot be read \(.*No such file"):
            export_dataset(journal, tmp_path / "out", missing)
        assert [path.name for path in tmp_path.iterdir() if path.is_dir()] == []
        (tmp_path / "full").mkdir()
        (tmp_path / "full" / "notes.txt").write_text("mine")
        with pytest.raises(HemalumError, match="full: is there already; remove it or name another"):
            export_dataset(journal, tmp_path / "full", lambda item: image_of(labels))
        item = make_item(labels, "liver_2.png")
        state = journal.add_item(item, Nuclei.from_labels(labels))
        journal.append(item.name, "Ben", mark(state, "reviewed"), 0)
        with pytest.raises(
            HemalumError, match=r"liver_2\.png: no file can be called by its name alone; rename the im"
        ):
            export_dataset(journal, tmp_path / "out", lambda item: image_of(labels))
