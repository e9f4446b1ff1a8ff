"""Out to other programs and back: what was not touched is no change, what was touched twice is named."""

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from builders.models import DiskEngine
from builders.reviews import disk_model, edit, look_at_all, open_session, owners, save_fields, save_slide, square
from hemalum.data.annotations import read_drawn_labels, read_objects
from hemalum.data.dataset import Dataset
from hemalum.errors import HemalumError
from hemalum.nuclei.store import Corrections, NucleiStore, export_store, open_store
from hemalum.review.edits import MAX_NUCLEI, accept, add, classify, delete, mark, reject, reshape
from hemalum.review.exchange import MOST_EXPORTS, export_review, read_exports, remember_export
from hemalum.review.importing import AUTHOR, ImportSummary, describe_import, import_review, key_of
from hemalum.review.item import ItemState
from hemalum.review.session import Session
from hemalum.review.sources import ItemSource

Features = list[dict[str, Any]]


@pytest.fixture
def session(tmp_path: Path) -> Iterator[Session]:
    """A review of two images."""
    with look_at_all(open_session(save_fields(tmp_path / "in"), tmp_path / "p")) as session:
        yield session


@pytest.fixture
def slide_session(tmp_path: Path) -> Iterator[Session]:
    """A review of a slide in nine windows; some nuclei lie in two."""
    with look_at_all(open_session(save_slide(tmp_path / "out"), tmp_path / "p", mpp=None, side=100)) as session:
        yield session


def shrink(ring: NDArray[Any], share: float = 0.8) -> NDArray[Any]:
    middle = ring[:-1].mean(axis=0)
    return (ring - middle) * share + middle


def change_file(path: Path, change: Callable[[Features], Features | None]) -> None:
    content = json.loads(path.read_text())
    content["features"] = change(content["features"]) or content["features"]
    path.write_text(json.dumps({"type": "FeatureCollection", "features": content["features"]}))  # as QuPath: no note


def nearest_feature(features: Features, x: float, y: float) -> dict[str, Any]:
    return min(features, key=lambda one: np.hypot(*(np.mean(one["geometry"]["coordinates"][0], axis=0) - [x, y])))


def ring_of(feature: dict[str, Any]) -> NDArray[np.float64]:
    return np.array(feature["geometry"]["coordinates"][0])


def events(session: Session, item: ItemSource) -> list[tuple[str, str, int]]:
    return [
        (event.author, event.kind, len(event.after.nuclei)) for event in session.project.journal.events(item.name)
    ]


def some_edits(session: Session, item: ItemSource) -> ItemState:
    """One rejected, one deleted, one accepted, one reshaped, one drawn."""
    ids = [id for id, one in session.state(item.id).items() if one.counts]
    edit(session, item, lambda state: reject(state, [ids[0]]))
    edit(session, item, lambda state: delete(state, [ids[1]]))
    edit(session, item, lambda state: accept(state, [ids[2]]))
    edit(session, item, lambda state: reshape(state, ids[3], shrink(state[ids[3]].ring)))
    return edit(session, item, lambda state: add(state, square(0.5, 0.5, 5)))


def test_a_dataset_of_what_is_reviewed(session: Session, tmp_path: Path) -> None:
    first = session.items()[0]
    state = some_edits(session, first)
    edit(session, first, lambda state: mark(state, "reviewed"))
    assert export_review(session, tmp_path / "set") == [tmp_path / "set"]
    dataset = Dataset.open(tmp_path / "set")
    assert len(dataset) == 1
    assert (dataset[0].image == session.pixels(first.id)).all()
    assert (dataset[0].instances == state.label_map()).all()


def test_a_file_for_each_image(session: Session, tmp_path: Path) -> None:
    item = session.items()[0]
    state = some_edits(session, item)
    names: list[str] = []
    files = export_review(session, tmp_path / "json", "geojson", on_progress=names.append)
    assert files == [tmp_path / "json" / "a" / "two.geojson", tmp_path / "json" / "b" / "one.geojson"]
    assert names == ["a/two.png", "b/one.png"]
    drawn = read_drawn_labels(files[0], state.item.shape)
    assert ((drawn.labels > 0) == (state.label_map() > 0)).all()
    assert {one.kind for one in read_objects(files[0])} == {"detection"}
    assert json.loads(files[0].read_text())["hemalum"]["review"] == {
        "a/two.png": {"version": state.version, "status": "open"}
    }
    again = export_review(session, tmp_path / "qupath", "qupath")
    assert {one.kind for one in read_objects(again[0])} == {"annotation"}


def test_what_comes_back_unchanged_is_no_event(session: Session, tmp_path: Path) -> None:
    item = session.items()[0]
    some_edits(session, item)
    for format in ("geojson", "qupath"):
        export_review(session, tmp_path / format, format)
        before = events(session, item)
        summary = import_review(session, tmp_path / format)
        assert summary == ImportSummary(images=2)
        assert events(session, item) == before
        change_file(tmp_path / format / "a" / "two.geojson", lambda features: features[::-1])
        assert import_review(session, tmp_path / format) == ImportSummary(images=2)
    assert describe_import(summary) == "2 images: nothing has changed"


def test_an_outline_of_any_size_comes_back_as_a_nucleus(session: Session, tmp_path: Path) -> None:
    item = session.items()[0]
    edit(session, item, lambda state: delete(state, list(state)))
    edit(session, item, lambda state: add(state, square(1, 1, 117)))  # in an image of 120 px: elsewhere a region
    export_review(session, tmp_path / "qupath", "qupath")
    assert import_review(session, tmp_path / "qupath") == ImportSummary(images=2)
    path = tmp_path / "qupath" / "a" / "two.geojson"
    frame = {
        "type": "Feature",
        "geometry": {"type": "Polygon", "coordinates": [square(2, 2, 115)]},
        "properties": {"objectType": "annotation"},
    }
    change_file(path, lambda features: [*features, frame])
    remarks = [f"{path}: left out, since it is no nucleus: 1 region"]
    assert import_review(session, tmp_path / "qupath") == ImportSummary(images=2, remarks=remarks)


def test_other_numbers_of_digits_and_beginnings_are_no_change(session: Session, tmp_path: Path) -> None:
    item = session.items()[0]
    export_review(session, tmp_path / "q", "qupath")

    def written_by_others(features: Features) -> None:
        for feature in features:
            ring = ring_of(feature)[:-1]
            ring = np.roll(ring, 3, axis=0)[::-1]
            feature["geometry"]["coordinates"] = [np.concatenate([ring, ring[:1]]).round(1).tolist()]

    change_file(tmp_path / "q" / "a" / "two.geojson", written_by_others)
    assert import_review(session, tmp_path / "q" / "a" / "two.geojson") == ImportSummary(images=1)
    assert events(session, item) == []


def test_what_was_changed_in_qupath(session: Session, tmp_path: Path) -> None:
    item = session.items()[0]
    before = session.state(item.id)
    file = export_review(session, tmp_path / "q", "qupath")[0]
    x, y = before[5].ring.mean(axis=0)

    def correct(features: Features) -> Features:
        moved = nearest_feature(features, x, y)
        moved["geometry"]["coordinates"] = [shrink(ring_of(moved)).round(2).tolist()]
        gone = nearest_feature(features, *before[2].ring.mean(axis=0))
        drawn = {"type": "Feature", "properties": {"objectType": "annotation"}, "geometry": {"type": "Polygon"}}
        drawn["geometry"]["coordinates"] = [square(0.5, 0.5, 6)]
        return [one for one in features if one is not gone] + [drawn]

    change_file(file, correct)
    summary = import_review(session, tmp_path / "q")
    assert (summary.added, summary.deleted, summary.reshaped, summary.classified) == (1, 1, 1, 0)
    assert describe_import(summary) == "2 images: 1 added, 1 deleted, 1 reshaped"
    assert not summary.conflicts
    state = session.state(item.id)
    assert events(session, item) == [(AUTHOR, "delete", 1), (AUTHOR, "reshape", 1), (AUTHOR, "add", 1)]
    assert sorted(state) == sorted({*before, before.next_id} - {2})
    assert state[5].ring == pytest.approx(shrink(before[5].ring), abs=0.02)
    assert [state[id].state for id in (1, 5, before.next_id)] == ["proposed", "accepted", "accepted"]
    assert state[before.next_id].ring.tolist() == square(0.5, 0.5, 6)
    assert import_review(session, tmp_path / "q").changed == 0


def test_what_was_changed_here_since_stays(session: Session, tmp_path: Path) -> None:
    item = session.items()[0]
    export_review(session, tmp_path / "q", "qupath")
    edit(session, item, lambda state: delete(state, [1]))
    edit(session, item, lambda state: reshape(state, 2, shrink(state[2].ring)))
    after = edit(session, item, lambda state: add(state, square(0.5, 0.5, 6)))
    assert import_review(session, tmp_path / "q") == ImportSummary(images=2)
    assert session.state(item.id).version == after.version


def test_what_was_changed_in_both_is_named(session: Session, tmp_path: Path) -> None:
    item = session.items()[0]
    state = session.state(item.id)
    file = export_review(session, tmp_path / "q", "qupath")[0]

    def correct(features: Features) -> Features:
        for id in (3, 5, 6):
            feature = nearest_feature(features, *state[id].ring.mean(axis=0))
            feature["geometry"]["coordinates"] = [shrink(ring_of(feature)).tolist()]
        gone = [nearest_feature(features, *state[id].ring.mean(axis=0)) for id in (4, 7)]
        return [one for one in features if not any(one is other for other in gone)]

    change_file(file, correct)
    edit(session, item, lambda state: reject(state, [3]))
    edit(session, item, lambda state: reshape(state, 4, shrink(state[4].ring)))
    edit(session, item, lambda state: reshape(state, 5, shrink(state[5].ring, 0.9)))
    edit(session, item, lambda state: delete(state, [7]))
    before = session.state(item.id)
    summary = import_review(session, tmp_path / "q")
    assert sorted(name for name, _ in summary.conflicts) == ["a/two.png"] * 3
    lines = sorted(line for _, line in summary.conflicts)
    for line, id, kind in zip(lines, (3, 4, 5), ("reject", "reshape", "reshape"), strict=True):
        assert line.startswith(f"nucleus {id} was changed by Anna at ")
        assert line.endswith(f"UTC ({kind}) as well, and is left as it is here")
    assert (summary.added, summary.deleted, summary.reshaped) == (0, 0, 1)  # 6 alone; of 7 both say the same
    after = session.state(item.id)
    assert all(after.get(id) == before.get(id) for id in (3, 4, 5, 7))


def test_a_file_from_elsewhere_is_compared_with_the_model(session: Session, tmp_path: Path) -> None:
    item = session.items()[0]
    export_review(session, tmp_path / "q", "qupath")
    (session.project.folder / "exports.json").unlink()
    edit(session, item, lambda state: reshape(state, 2, shrink(state[2].ring)))
    assert import_review(session, tmp_path / "q") == ImportSummary(images=2)


def test_of_several_exports_the_one_that_it_is_like(session: Session, tmp_path: Path) -> None:
    item = session.items()[0]
    export_review(session, tmp_path / "first", "qupath")
    edit(session, item, lambda state: delete(state, [1, 2]))
    export_review(session, tmp_path / "second", "qupath")
    assert import_review(session, tmp_path / "first").changed == 0  # 1 and 2 are not drawn again
    assert import_review(session, tmp_path / "second").changed == 0


def test_outlines_that_cross_are_taken_by_their_pixels(session: Session, tmp_path: Path) -> None:
    item = session.items()[0]
    state = session.state(item.id)
    file = export_review(session, tmp_path / "q", "qupath")[0]

    first = state[1].ring.mean(axis=0)

    def correct(features: Features) -> None:
        moved = nearest_feature(features, *state[2].ring.mean(axis=0))
        ring = ring_of(moved)
        onto = ring - ring.mean(axis=0) + first + [10, 0]  # over a part of its neighbor
        moved["geometry"]["coordinates"] = [onto.tolist()]
        bow = [[60.0, 100.0], [80.0, 119.0], [80.0, 100.0], [60.0, 119.0], [60.0, 100.0]]
        crossing = {"type": "Feature", "properties": {}, "geometry": {"type": "Polygon", "coordinates": [bow]}}
        features.append(crossing)

    change_file(file, correct)
    summary = import_review(session, tmp_path / "q")
    assert summary.conflicts == []
    after = session.state(item.id)
    assert after[1] == state[1]  # what is not changed keeps its pixels
    assert 2 not in after
    assert owners(after).max() == 1
    assert summary.added >= 2


def test_more_changes_than_one_event_holds(session: Session, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hemalum.review.merge_import.MAX_NUCLEI", 3)
    item = session.items()[0]
    count = len(session.state(item.id))
    file = export_review(session, tmp_path / "q", "qupath")[0]

    def shrink_all(features: Features) -> None:
        for feature in features:
            feature["geometry"]["coordinates"] = [shrink(ring_of(feature)).tolist()]

    change_file(file, shrink_all)
    assert import_review(session, tmp_path / "q").reshaped == count
    sizes = [size for _, _, size in events(session, item)]
    assert max(sizes) == 3
    assert sum(sizes) == count < MAX_NUCLEI


def test_windows_of_a_large_image_are_one_file(tmp_path: Path) -> None:
    source = save_fields(tmp_path / "in", ["large.png"], side=130)
    with look_at_all(open_session(source, tmp_path / "p", side=100)) as session:
        image, item = next(iter(session.images)), session.items()[3]
        edit(session, item, lambda state: delete(state, [1]))
        files = export_review(session, tmp_path / "json", "geojson")
        assert [file.name for file in files] == ["large.geojson"]
        drawn = read_drawn_labels(files[0], (130, 130))
        for one in session.items():
            assert one.window is not None
            x, y, width, height = one.window
            there = drawn.labels[y : y + height, x : x + width] > 0
            assert (there == (session.state(one.id).label_map() > 0)).all()
        assert import_review(session, tmp_path / "json") == ImportSummary(images=1)
        assert session.images[image].name == "large.png"


def covered(session: Session, path: Path, shape: tuple[int, int] = (300, 300)) -> NDArray[np.bool_]:
    labels: NDArray[np.bool_] = read_drawn_labels(path, shape).labels > 0
    return labels


def window_edits(session: Session) -> tuple[ItemSource, list[int], list[int]]:
    """The first window, its nuclei that go on beyond it, and those that do not."""
    item = session.items()[0]
    state = session.state(item.id)
    across = [id for id, one in state.items() if one.bounds[2] > 99 or one.bounds[3] > 99]
    inside = [id for id in state if id not in across]
    return item, across, inside


def test_a_slide_is_written_whole(slide_session: Session, tmp_path: Path) -> None:
    session = slide_session
    store = open_store(tmp_path / "out" / "a.nuclei")
    before = store.nuclei().label_map()
    item, across, inside = window_edits(session)
    assert len(across) > 2
    edit(session, item, lambda state: reject(state, [inside[0], across[0]]))
    edit(session, item, lambda state: reshape(state, inside[1], shrink(state[inside[1]].ring)))
    edit(session, item, lambda state: reshape(state, across[1], shrink(state[across[1]].ring, 0.6)))
    state = edit(session, item, lambda state: add(state, square(0.5, 0.5, 4)))
    (file,) = export_review(session, tmp_path / "json", "geojson")
    assert file.name == "a.geojson"
    labels = covered(session, file)
    # elsewhere as in the store, but for what was rejected and goes on there
    rejected = before == before[tuple(np.rint(state[across[0]].ring.mean(axis=0)).astype(int)[::-1])]
    expected = (before > 0) & ~rejected
    expected[:100, :100] = state.label_map() > 0
    assert (labels == expected).all()
    objects = list(read_objects(file))
    assert len(objects) == len(store) - 2 + 1
    ids = [one.measurements["Nucleus ID"] for one in objects]
    assert len(set(ids)) == len(ids)
    assert all(one.measurements["Area µm^2"] > 0 for one in objects)


def test_a_slide_that_comes_back_unchanged_is_no_event(slide_session: Session, tmp_path: Path) -> None:
    session = slide_session
    item, across, inside = window_edits(session)
    edit(session, item, lambda state: reject(state, [inside[0], across[0]]))
    edit(session, item, lambda state: reshape(state, across[1], shrink(state[across[1]].ring, 0.6)))
    edit(session, item, lambda state: add(state, square(0.5, 0.5, 4)))
    (file,) = export_review(session, tmp_path / "q", "qupath")
    begun = session.project.journal.names()
    assert import_review(session, file) == ImportSummary(images=1)
    assert session.project.journal.names() == begun
    change_file(file, lambda features: features[::-1])
    assert import_review(session, file) == ImportSummary(images=1)


def test_what_was_changed_in_another_window_of_a_slide(slide_session: Session, tmp_path: Path) -> None:
    session = slide_session
    item, _, inside = window_edits(session)
    edit(session, item, lambda state: accept(state, [inside[0]]))
    (file,) = export_review(session, tmp_path / "q", "qupath")
    other = session.item_at(next(iter(session.images)), 250, 250)
    gone: list[NDArray[np.float64]] = []

    def correct(features: Features) -> Features:
        one = nearest_feature(features, 240, 240)
        gone.append(ring_of(one).mean(axis=0))
        return [feature for feature in features if feature is not one]

    change_file(file, correct)
    summary = import_review(session, file, reviewed=True)
    assert (summary.deleted, summary.reshaped, summary.added, summary.conflicts) == (1, 0, 0, [])
    assert sorted(session.project.journal.names()) == sorted([item.name, other.name])
    assert events(session, other) == [(AUTHOR, "delete", 1), (AUTHOR, "mark", 0)]
    assert [session.state(one.id).status for one in (item, other)] == ["open", "reviewed"]
    labels = covered(session, export_review(session, tmp_path / "again", "geojson")[0])
    x, y = np.rint(gone[0]).astype(int)
    assert not labels[y, x]


def test_a_nucleus_deleted_across_windows_goes_from_both(slide_session: Session, tmp_path: Path) -> None:
    session = slide_session
    item, across, _ = window_edits(session)
    ring = session.state(item.id)[across[0]].ring
    (file,) = export_review(session, tmp_path / "q", "qupath")
    x, y = ring.mean(axis=0)
    change_file(
        file, lambda features: [one for one in features if one is not nearest_feature(features, float(x), float(y))]
    )
    summary = import_review(session, file)
    assert summary.deleted == 2  # its part in each window
    assert summary.conflicts == []
    assert import_review(session, file) == ImportSummary(images=1)
    again = export_review(session, tmp_path / "again", "qupath")[0]
    assert len(list(read_objects(again))) == len(list(read_objects(file)))


def test_classes_go_out_and_come_back(tmp_path: Path) -> None:
    class TwoClasses(DiskEngine):
        def maps(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
            nuclei = super().maps(images)
            return np.stack([nuclei[:, 0], nuclei[:, 0] * 0], axis=1)

    model = disk_model(classes=["tumor", "stroma"], representation="semantic")
    source = save_fields(tmp_path / "in")
    with look_at_all(open_session(source, tmp_path / "p", model, engine=TwoClasses())) as session:
        item = session.items()[0]
        assert session.class_names == ("tumor", "stroma")
        edit(session, item, lambda state: classify(state, [1], "stroma"))
        file = export_review(session, tmp_path / "q", "qupath")[0]
        assert import_review(session, tmp_path / "q") == ImportSummary(images=2)
        x, y = session.state(item.id)[2].ring.mean(axis=0)

        def as_stroma(features: Features) -> None:
            nearest_feature(features, x, y)["properties"]["classification"] = {"name": "Stroma"}

        change_file(file, as_stroma)
        summary = import_review(session, tmp_path / "q")
        assert (summary.classified, summary.changed) == (1, 1)
        assert describe_import(summary) == "2 images: 1 of another class"
        assert session.state(item.id)[2].class_name == "stroma"
        change_file(file, lambda features: features[0]["properties"].update(classification={"name": "Blood"}))
        failed = import_review(session, tmp_path / "q").failed
        assert [(path, reason.removeprefix(f"{path}: ")) for path, reason in failed] == [
            (file, "class 'Blood' is not among those of the model: tumor, stroma")
        ]


def test_keys_of_outlines() -> None:
    ring = np.array(square(10.25, 20.125))
    assert key_of(ring) == key_of(ring[::-1]) == key_of(np.roll(ring[:-1], 2, axis=0)) == key_of(ring + 0.0004)
    assert key_of(ring) != key_of(ring + 0.002)


@pytest.mark.fault
def test_nothing_to_export(tmp_path: Path) -> None:
    with open_session(save_fields(tmp_path / "in"), tmp_path / "p") as session:
        with pytest.raises(HemalumError, match=r"review\.sqlite: no item is marked as reviewed"):
            export_review(session, tmp_path / "set")
        with pytest.raises(HemalumError, match="p: nothing has been looked at yet, so there is nothing to export"):
            export_review(session, tmp_path / "set", "geojson")
        with pytest.raises(HemalumError, match="unknown format 'geojsn', did you mean 'geojson'"):
            export_review(session, tmp_path / "set", "geojsn")
    assert not (tmp_path / "set").exists()


@pytest.mark.fault
def test_a_folder_that_is_there_is_not_written_over(session: Session, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine.txt").write_text("mine")
    with pytest.raises(HemalumError, match="out: is there already; remove it or name another"):
        export_review(session, tmp_path / "out", "geojson")


@pytest.mark.fault
def test_files_that_are_none_of_this_review(session: Session, tmp_path: Path) -> None:
    with pytest.raises(HemalumError, match="nowhere: no such file or folder"):
        import_review(session, tmp_path / "nowhere")
    (tmp_path / "files").mkdir()
    with pytest.raises(HemalumError, match=r"files: holds no GeoJSON \(\.geojson, \.geojson\.gz, \.json\)"):
        import_review(session, tmp_path / "files")
    (tmp_path / "files" / "other.geojson").write_text("{}")
    with pytest.raises(
        HemalumError,
        match=r"files: is of no image in this review; files are called after images: a/two\.geojson",
    ):
        import_review(session, tmp_path / "files")
    export_review(session, tmp_path / "q", "geojson")
    (tmp_path / "q" / "other.geojson").write_text("{}")
    (tmp_path / "q" / "a" / "two.geojson").write_text("no JSON")
    summary = import_review(session, tmp_path / "q")
    assert summary.images == 1
    assert (tmp_path / "q" / "other.geojson", "is of no image in this review") in summary.failed
    assert {path.name for path, _ in summary.failed} == {"other.geojson", "two.geojson"}


@pytest.mark.fault
def test_a_file_that_is_too_large(session: Session, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    export_review(session, tmp_path / "q", "geojson")
    monkeypatch.setattr("hemalum.review.importing.MAX_BYTES", 2000)
    summary = import_review(session, tmp_path / "q")
    assert summary.images == 0
    assert all("has more than 0 GB: export a part of the objects" in reason for _, reason in summary.failed)


@pytest.mark.fault
def test_nuclei_of_a_larger_image(session: Session, tmp_path: Path) -> None:
    file = export_review(session, tmp_path / "q", "geojson")[0]

    def move(features: Features) -> None:
        features[0]["geometry"]["coordinates"] = [square(500, 500)]

    change_file(file, move)
    ((path, reason),) = import_review(session, tmp_path / "q").failed
    assert path == file
    assert "its image is 120 x 120 px: export in px of this very image" in reason


@pytest.mark.fault
def test_corrections_of_a_store_are_for_geojson(tmp_path: Path) -> None:
    store = open_store(save_slide(tmp_path / "out") / "a.nuclei")
    corrections = Corrections(np.array([1]), store.nuclei()[:0])
    line = r"corrections is for geojson and geojson\.gz; csv has no use for it: leave it out"
    with pytest.raises(HemalumError, match=line):
        export_store(store, "csv", tmp_path / "a.csv", corrections=corrections)


@pytest.mark.fault
def test_a_slide_that_was_segmented_again(slide_session: Session, tmp_path: Path) -> None:
    session = slide_session
    item, _, inside = window_edits(session)
    edit(session, item, lambda state: delete(state, [inside[0]]))
    store = open_store(tmp_path / "out" / "a.nuclei")
    nuclei, run = store.nuclei(), store.run
    nuclei = nuclei[nuclei.table.column("x").to_numpy() + nuclei.table.column("y").to_numpy() > 100]
    shutil.rmtree(store.path)
    again = NucleiStore.create(store.path, run)
    again.add((0, 0), nuclei, np.arange(2, len(nuclei) + 2))
    again.finish()
    session.close()
    line = r"a 0,0,100,100: .*a\.nuclei holds other nuclei than when its review was begun; put that one back"
    with open_session(None, tmp_path / "p", mpp=None) as session, pytest.raises(HemalumError, match=line):
        export_review(session, tmp_path / "json", "geojson")
    assert not (tmp_path / "json").exists()


@pytest.mark.fault
def test_a_record_of_exports_that_is_damaged(tmp_path: Path) -> None:
    for text in ("[]", "{", '{"a": [3]}', '{"a": [{"b": "x"}]}'):
        (tmp_path / "exports.json").write_text(text)
        with pytest.raises(HemalumError, match=r"exports\.json: cannot be read .* remove it, and what comes back is"):
            read_exports(tmp_path)


def test_the_last_exports_are_remembered(tmp_path: Path) -> None:
    for version in range(MOST_EXPORTS + 5):
        remember_export(tmp_path, {"a": {"a": version}})
    remember_export(tmp_path, {"a": {"a": 10}})
    assert read_exports(tmp_path)["a"][-1] == {"a": 10}
    assert len(read_exports(tmp_path)["a"]) == MOST_EXPORTS
