"""A review at work: fields are looked at once, items begin with the model's nuclei, and nothing is mixed up."""

import json
import shutil
import threading
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from builders.models import DiskEngine, disks
from builders.reviews import disk_model, edit, look_at_all, open_session, save_fields, save_slide
from hemalum.data.dataset import Dataset, pixel_hash
from hemalum.errors import HemalumError
from hemalum.manifest import read_manifest
from hemalum.models import load_model
from hemalum.models.model import Model
from hemalum.nuclei.store import open_store
from hemalum.review.edits import delete, mark
from hemalum.review.fields import store_fields
from hemalum.review.item import Start
from hemalum.review.kept_fields import kept_path, read_kept
from hemalum.review.session import Session
from hemalum.review.sources import ImageGone, id_of
from hemalum.review.store_windows import window_nuclei


@dataclass
class CountingEngine(DiskEngine):
    """Counts its windows."""

    windows: int = 0

    def maps(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        self.windows += len(images)
        return super().maps(images)


def test_a_folder_of_images(tmp_path: Path) -> None:
    source = save_fields(tmp_path / "in")
    with look_at_all(open_session(source, tmp_path / "p")) as session:
        assert session.name == "in"
        assert session.class_names == ()
        assert (session.progress.state, session.progress.done, session.progress.total) == ("done", 2, 2)
        assert session.progress.message is None
        assert [(one.field.name, one.field.stratum, one.of) for one in session.queue()] == [
            ("a/two.png", "a", 1),
            ("b/one.png", "b", 1),
        ]
        assert [one.of for one in session.queue("random", stratified=False, seed=3)] == [2, 2]
        item = session.items()[0]
        assert (item.name, item.window, item.looked) == ("a/two.png", None, True)
        state = session.state(item.id)
        assert (state.version, state.status) == (0, "open")
        assert state.item.mpp == 0.5
        assert (state.item.mpp_source, state.item.group, state.item.source) == ("user", "a/two.png", "a/two.png")
        pixels = session.pixels(item.id)
        assert (pixels == np.asarray(Image.open(source / "a" / "two.png"))).all()
        assert state.item.sha256 == pixel_hash(pixels)
        figures = session.figures(item.id)
        assert len(figures) == len(state.start) == len(state) > 5
        assert (figures.disagreement < 0.05).all()
        assert figures.probability == pytest.approx(1, abs=0.05)
        assert figures.distance == pytest.approx(figures.probability - disk_model().card.separation.foreground)
        assert not np.isnan(figures.entropy).any()


def test_a_restart_does_nothing_again(tmp_path: Path) -> None:
    source = save_fields(tmp_path / "in")
    first, second = CountingEngine(), CountingEngine()
    with look_at_all(open_session(source, tmp_path / "p", engine=first)) as session:
        queue = [(one.field.name, one.reason) for one in session.queue()]
        id = session.items()[0].id
        figures = session.figures(id)
    assert first.windows >= 8  # two images, each as it is and in three mirror images
    with look_at_all(open_session(source, tmp_path / "p", engine=second)) as session:
        assert [(one.field.name, one.reason) for one in session.queue()] == queue
        assert session.figures(id).entropy.tolist() == figures.entropy.tolist()
    assert second.windows == 0


def test_the_project_alone_is_enough_to_go_on(tmp_path: Path, dark_model: Path) -> None:
    source = save_fields(tmp_path / "in")
    model = shutil.copy(dark_model, tmp_path / "mine.safetensors")
    with Session.open(source, model, tmp_path / "p", mpp=0.5, threads=1) as session:
        digest = session.model.digest
    manifest = read_manifest(tmp_path / "p", "review")
    assert manifest["source"] == str(source)
    assert manifest["model_path"] == str(model)
    with Session.open(None, None, tmp_path / "p") as session:
        assert session.model.digest == digest
        assert [one.mpp for one in session.images.values()] == [0.5, 0.5]
    Path(model).unlink()
    with pytest.raises(HemalumError, match=r"p: its model '.*' is no longer at .*mine\.safetensors; say where it is"):
        Session.open(None, None, tmp_path / "p")
    with Session.open(None, dark_model, tmp_path / "p") as session:
        assert session.model.digest == digest


def test_the_project_lies_where_one_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save_fields(tmp_path / "in")
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    with Session.open(Path("../in"), disk_model(), mpp=0.5, engine=DiskEngine()) as session:
        assert session.project.folder == Path("in.review")
    assert (tmp_path / "here" / "in.review" / "review.yaml").is_file()


def test_an_item_is_looked_at_when_it_is_opened(tmp_path: Path) -> None:
    engine = CountingEngine()
    with open_session(save_fields(tmp_path / "in"), tmp_path / "p", engine=engine) as session:
        item = session.items()[1]
        assert not item.looked
        assert session.queue() == []
        assert len(session.state(item.id)) > 5
        assert session.item(item.id).looked
        assert [one.field.name for one in session.queue()] == [item.name]
        windows = engine.windows
        session.state(item.id)
        assert engine.windows == windows


def test_several_threads_open_one_item(tmp_path: Path) -> None:
    once, engine = CountingEngine(), CountingEngine()
    look_at_all(open_session(save_fields(tmp_path / "in"), tmp_path / "alone", engine=once)).close()
    with open_session(save_fields(tmp_path / "in"), tmp_path / "p", engine=engine) as session:
        id = session.items()[0].id
        session.start()
        threads = [threading.Thread(target=session.state, args=(id,)) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        session.wait()
        assert session.project.journal.names().count("a/two.png") == 1
        assert session.progress.state == "done"
        assert engine.windows == once.windows


def test_images_of_a_dataset(mini: Path, dark_model: Path, tmp_path: Path) -> None:
    sample = Dataset.open(mini)[0]
    with Session.open(mini, dark_model, tmp_path / "p", engine="torch", threads=1) as session:
        state = session.state(id_of(sample.id))
        item = state.item
        assert (item.organ, item.group, item.mpp) == (sample.organ, sample.group, sample.mpp)
        assert item.mpp_source == sample.mpp_source
        assert item.sha256 == pixel_hash(sample.image)
        assert len(session.images) == len(Dataset.open(mini))
        assert load_model(dark_model).digest == session.project.model_digest


def test_large_images_are_cut_into_windows(tmp_path: Path) -> None:
    source = save_fields(tmp_path / "in", ["large.png"], side=130)
    with look_at_all(open_session(source, tmp_path / "p", side=100)) as session:
        image = next(iter(session.images))
        assert [item.window for item in session.items()] == [
            (0, 0, 65, 65), (65, 0, 65, 65), (0, 65, 65, 65), (65, 65, 65, 65)
        ]  # fmt: skip
        assert session.item_at(image, 64.9, 65).window == (0, 65, 65, 65)
        assert session.item_at(image, 130, 130).window == (65, 65, 65, 65)
        assert len(session.queue()) == 4
        item = session.item_at(image, 70, 10)
        assert session.pixels(item.id).shape == (65, 65, 3)
        assert session.state(item.id).item.group == "large.png"
        with pytest.raises(HemalumError, match=r"large\.png: \(131, 5\) lies outside of the image \(130 x 130 px\)"):
            session.item_at(image, 131, 5)


def test_a_segmented_slide_is_ranked_from_its_table(tmp_path: Path) -> None:
    engine = CountingEngine()
    out = save_slide(tmp_path / "out")
    with look_at_all(open_session(out, tmp_path / "p", mpp=None, side=150, engine=engine)) as session:
        assert engine.windows == 0
        fields = store_fields(open_store(out / "a.nuclei"), side=150)
        assert sorted(one.field.name for one in session.queue()) == sorted(field.name for field in fields)
        assert session.queue()[0].field.of_nuclei
        item = session.item_at(next(iter(session.images)), 160, 10)
        state = session.state(item.id)
        assert engine.windows == 0
        height, width = state.item.shape
        assert (height, width) == (150, 150)
        coords = state.start.outlines.coords
        assert (coords >= 0).all()
        assert (coords <= 150).all()
        figures = session.figures(item.id)
        assert len(figures) == len(state.start)
        assert np.isnan(figures.disagreement).all()
        assert figures.distance == pytest.approx(np.abs(figures.probability - 0.5))
        assert session.maps(item.id, "probability").shape == (150, 150)
        assert engine.windows > 0


def test_nuclei_of_a_window_are_cut_at_its_border(tmp_path: Path) -> None:
    store = open_store(save_slide(tmp_path / "out") / "a.nuclei")
    label_map = store.nuclei().label_map()
    for window in ((0, 0, 150, 150), (150, 150, 150, 150), (110, 40, 90, 100)):
        there = window_nuclei(store, window)
        x, y, width, height = window
        cut = label_map[y : y + height, x : x + width]
        assert (there.nuclei.label_map() > 0).sum() == (cut > 0).sum()
        assert len(there.ids) == len(there.nuclei) == np.unique(cut[cut > 0]).size
        start = Start.of(there.nuclei)
        assert len(start) == len(there.nuclei)
        for ring, id in zip(there.outlines.shapely(), there.ids, strict=True):
            column = store.window(x, y, width, height, columns=["id", "x", "y"]).to_pandas().set_index("id")
            assert ring.centroid.x == pytest.approx(column.loc[id, "x"], abs=0.5)


def test_a_window_without_nuclei_can_be_opened(tmp_path: Path) -> None:
    out = save_slide(tmp_path / "out", (310, 200), blank_from=150)
    store = open_store(out / "a.nuclei")
    with look_at_all(open_session(out, tmp_path / "p", mpp=None, side=64)) as session:
        queued = {one.field.name for one in session.queue()}
        empty = [item for item in session.items() if item.name not in queued]
        assert empty
        for item in empty:
            assert item.window is not None
            assert len(session.state(item.id)) == len(window_nuclei(store, item.window).ids)
        assert any(len(session.state(item.id)) == 0 for item in empty)


def test_maps_are_grays(tmp_path: Path) -> None:
    with open_session(save_fields(tmp_path / "in"), tmp_path / "p") as session:
        id = session.items()[0].id
        probability, entropy = session.maps(id, "probability"), session.maps(id, "entropy")
        dark = session.pixels(id)[..., 0] < 100
        assert probability.dtype == entropy.dtype == np.uint8
        assert probability[dark].min() > 200
        assert probability[~dark].max() < 60
        p = probability.astype(float) / 255
        expected = -(p * np.log2(p, where=p > 0, out=np.zeros_like(p)))
        expected -= (1 - p) * np.log2(1 - p, where=p < 1, out=np.zeros_like(p))
        assert np.abs(entropy / 255 - expected).max() < 0.03
        state = session.state(id)
        x, y = state[1].ring.mean(axis=0)
        ring = session.propose(id, float(x), float(y))
        assert ring is not None
        assert len(ring) > 8


def test_edits_stay(tmp_path: Path) -> None:
    source = save_fields(tmp_path / "in")
    with open_session(source, tmp_path / "p") as session, open_session(source, tmp_path / "p") as other:
        item = session.items()[0]
        edit(session, item, lambda state: delete(state, [1]))
        assert 1 not in other.state(item.id)
        edit(other, item, lambda state: mark(state, "reviewed"), "Bert")
        assert session.state(item.id).status == "reviewed"
    with open_session(None, tmp_path / "p") as session:
        assert session.state(item.id).version == 2


def test_images_that_cannot_be_read_are_named_and_the_rest_goes_on(tmp_path: Path) -> None:
    source = save_fields(tmp_path / "in")
    content = (source / "a" / "two.png").read_bytes()
    (source / "a" / "cut.png").write_bytes(content[: len(content) // 2])
    (source / "a" / "text.png").write_text("no image")
    with look_at_all(open_session(source, tmp_path / "p")) as session:
        assert sorted(failure.name for failure in session.failures) == ["a/cut.png", "a/text.png"]
        assert len(session.queue()) == 2
        progress = session.progress
        assert progress.state == "done"
        assert progress.message in (
            "cannot be reviewed: a/text.png, a/cut.png",
            "cannot be reviewed: a/cut.png, a/text.png",
        )


@pytest.mark.fault
def test_what_is_not_there(tmp_path: Path) -> None:
    with open_session(save_fields(tmp_path / "in"), tmp_path / "p") as session:
        with pytest.raises(HemalumError, match="there is no item abc in this review"):
            session.state("abc")
        with pytest.raises(HemalumError, match="there is no image abc in this review"):
            session.item_at("abc", 1, 1)
        with pytest.raises(HemalumError, match="map 'heat': want probability or entropy"):
            session.maps(session.items()[0].id, "heat")  # type: ignore[arg-type]
        with pytest.raises(HemalumError, match="ranking 'sure': want entropy"):
            session.queue("sure")


@pytest.mark.fault
def test_an_image_replaced_since_it_was_begun(tmp_path: Path) -> None:
    source = save_fields(tmp_path / "in")
    with open_session(source, tmp_path / "p") as session:
        item = session.items()[0]
        session.state(item.id)
    Image.fromarray(disks(120, 120, 16, seed=9)).save(source / "a" / "two.png")
    line = r"a/two\.png: is another image than when its review was begun; put that one back"
    with open_session(source, tmp_path / "p") as session:
        with pytest.raises(ImageGone, match=line):
            session.state(item.id)
        with pytest.raises(ImageGone, match=line):
            session.pixels(item.id)
        assert len(session.state(session.items()[1].id)) > 5
    (source / "a" / "two.png").unlink()
    with open_session(source, tmp_path / "p") as session:
        assert [one.name for one in session.items()] == ["b/one.png"]


@pytest.mark.fault
def test_an_image_removed_while_it_is_open(tmp_path: Path) -> None:
    source = save_fields(tmp_path / "in")
    with open_session(source, tmp_path / "p") as session:
        item = session.items()[0]
        session.state(item.id)
        (source / "a" / "two.png").unlink()
        with pytest.raises(ImageGone, match=r"two\.png: is gone \(No such file or directory\); put it back"):
            session.pixels(item.id)
        assert len(session.state(item.id)) > 5  # what is in the journal can be read


@pytest.mark.fault
def test_a_project_of_something_else(tmp_path: Path) -> None:
    source, other = save_fields(tmp_path / "in"), save_fields(tmp_path / "other")
    open_session(source, tmp_path / "p").close()
    with pytest.raises(HemalumError, match=r"p holds another review: source is .*in there, .*other here"):
        open_session(other, tmp_path / "p")
    with pytest.raises(HemalumError, match="p holds another review: it is of another model, 'disks'; take that one"):
        open_session(
            source, tmp_path / "p", disk_model(mpp=0.25).__class__(disk_model().card, {"w": np.ones(2, "f4")})
        )
    with pytest.raises(HemalumError, match=r"p holds another review: mpp is 0\.5 there, 0\.25 here"):
        open_session(source, tmp_path / "p", mpp=0.25)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "notes.txt").write_text("mine")
    with pytest.raises(HemalumError, match="full: is not empty and holds no review; choose another folder"):
        open_session(source, tmp_path / "full")
    with pytest.raises(HemalumError, match="full: holds no review"):
        open_session(None, tmp_path / "full")
    with pytest.raises(HemalumError, match="give SOURCE, what is to be reviewed, or `project`, to go on"):
        Session.open(None)
    with pytest.raises(HemalumError, match="new: holds no review"):
        open_session(source, tmp_path / "new", begin=False)
    assert not (tmp_path / "new").exists()


@pytest.mark.fault
@pytest.mark.parametrize(("before", "after"), [("mpp: 0.5", "mpp: fine"), ("side: 1024", "size: 3")])
def test_options_that_nobody_wrote(tmp_path: Path, before: str, after: str) -> None:
    open_session(save_fields(tmp_path / "in"), tmp_path / "p").close()
    manifest = tmp_path / "p" / "review.yaml"
    manifest.write_text(manifest.read_text().replace(before, after))
    name, value = after.split(": ")
    with pytest.raises(HemalumError, match=rf"review\.yaml: options\.{name} is '?{value}'?, not as written"):
        open_session(None, tmp_path / "p", mpp=None)


@pytest.mark.fault
def test_a_field_that_is_too_large(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with look_at_all(open_session(save_fields(tmp_path / "in"), tmp_path / "p")) as session:
        id = session.items()[0].id
    monkeypatch.setattr("hemalum.review.kept_fields.MAX_BYTES", 100)
    with pytest.raises(HemalumError, match=r"cannot be read \(too large\); remove it, and the field is"):
        read_kept(kept_path(tmp_path / "p", id))


@pytest.mark.fault
def test_the_nuclei_of_another_model(tmp_path: Path) -> None:
    out = save_slide(tmp_path / "out")
    model = disk_model()
    other = Model(model.card.model_copy(update={"name": "mine"}), {"w": np.ones(2, np.float32)})
    with pytest.raises(
        HemalumError,
        match=rf"a\.nuclei: its nuclei are of model 'disks' \({model.digest[:12]}\), and this is 'mine' "
        rf"\({other.digest[:12]}\): give that one by `model`, or segment the slide again",
    ):
        open_session(out, tmp_path / "p", other, mpp=None)
    renamed = Model(model.card.model_copy(update={"name": "mine"}), model.tensors)
    open_session(out, tmp_path / "p", renamed, mpp=None).close()  # the digest decides


@pytest.mark.fault
def test_a_field_that_is_damaged_is_looked_at_again(tmp_path: Path) -> None:
    source = save_fields(tmp_path / "in")
    with look_at_all(open_session(source, tmp_path / "p")) as session:
        id = session.items()[0].id
    path = kept_path(tmp_path / "p", id)
    content = json.loads(path.read_text())
    for damaged in ("", "[]", json.dumps(content | {"format": 9}), json.dumps(content | {"area": "a"})):
        path.write_text(damaged)
        with pytest.raises(HemalumError, match=rf"{id}\.json: cannot be read \(.*\); remove it, and the field is"):
            read_kept(path)
        with look_at_all(open_session(source, tmp_path / "p")) as session:
            assert len(session.queue()) == 2
        assert read_kept(path) is not None


@pytest.mark.fault
def test_a_failure_of_the_network_is_named(tmp_path: Path) -> None:
    class Broken(DiskEngine):
        def maps(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
            raise RuntimeError("out of memory")

    with look_at_all(open_session(save_fields(tmp_path / "in"), tmp_path / "p", engine=Broken())) as session:
        assert session.progress.state == "failed"
        assert session.progress.message == "out of memory"
