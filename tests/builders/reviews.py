"""Items under review: discs that touch or not, with a journal."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from builders.models import DiskEngine, disks
from builders.stores import squares_run
from hemalum.data.dataset import pixel_hash
from hemalum.inference import segment_source
from hemalum.models.card import Card, NetworkSpec
from hemalum.models.model import Model
from hemalum.nuclei.nuclei import Nuclei
from hemalum.nuclei.settings import SeparationSettings
from hemalum.nuclei.store import NucleiStore
from hemalum.review.edits import Edit
from hemalum.review.event import Event, Side, fold
from hemalum.review.item import Item, ItemState, Start
from hemalum.review.journal import Journal
from hemalum.review.nucleus import pixels_of
from hemalum.review.session import Session
from hemalum.review.sources import ItemSource
from hemalum.slides import open_slide

PROJECT = "00ff"
NAME = "kidney_1.png"


def draw_labels(shape: tuple[int, int] = (60, 80)) -> NDArray[np.int32]:
    """Four discs: 1 and 2 touch, 3 lies apart from 2 by one px, 4 is alone."""
    rows, columns = np.mgrid[: shape[0], : shape[1]] + 0.5
    labels = np.zeros(shape, np.int32)
    for number, (y, x, radius) in enumerate([(15, 12, 8), (15, 27, 8), (15, 43, 7), (44, 60, 9)], 1):
        labels[((rows - y) ** 2 + (columns - x) ** 2 <= radius**2) & (labels == 0)] = number
    return labels


def image_of(labels: NDArray[np.int32]) -> NDArray[np.uint8]:
    """Dark where there are nuclei, (H, W, 3) uint8."""
    return np.where(labels[..., None] > 0, (90, 60, 140), (230, 190, 220)).astype(np.uint8)


def make_item(labels: NDArray[np.int32], name: str = NAME, **facts: Any) -> Item:
    """The item of the image of a label map."""
    height, width = labels.shape
    return Item(name, (height, width), pixel_hash(image_of(labels)), **facts)


def make_state(labels: NDArray[np.int32] | None = None, class_names: tuple[str, ...] = ()) -> ItemState:
    """An item that nobody has touched; of the classes, nuclei have none."""
    labels = draw_labels() if labels is None else labels
    start = Start.of(Nuclei.from_labels(labels))
    return ItemState.first(make_item(labels), Start(start.outlines, start.class_numbers, class_names))


def apply(state: ItemState, edit: Edit, author: str = "Anna") -> ItemState:
    """The item after an edit, as the journal would have it."""
    new = dict(enumerate(edit.new, state.next_id))
    status = edit.status or (None, None)
    before = Side({**edit.before, **dict.fromkeys(new)}, status[0])
    after = Side({**dict.fromkeys(edit.before), **edit.after, **new}, status[1])
    event = Event(state.version + 1, NAME, author, "2026-01-01T00:00:00", edit.kind, before, after, state.version)
    return fold(state, [event])


def owners(state: ItemState) -> NDArray[np.int64]:
    """By how many nuclei that count each pixel is held, (H, W)."""
    height, width = state.item.shape
    held = np.zeros((height, width), np.int64)
    for nucleus in state.values():
        if nucleus.counts:
            held += pixels_of(nucleus.ring, (0, 0, width, height))
    return held


def make_journal(folder: Path, name: str = "review.sqlite") -> Journal:
    """A journal with the item of `draw_labels`."""
    journal = Journal.create(folder / name, PROJECT)
    labels = draw_labels()
    journal.add_item(make_item(labels, mpp=0.25, organ="kidney"), Nuclei.from_labels(labels))
    return journal


def square(left: float, top: float, side: float = 6) -> list[list[float]]:
    """A closed outline as the page sends it."""
    right, bottom = left + side, top + side
    return [[left, top], [right, top], [right, bottom], [left, bottom], [left, top]]


def disk_model(**card: Any) -> Model:
    """A model for `DiskEngine`: dark is nucleus."""
    facts: dict[str, Any] = {
        "name": "disks", "network": NetworkSpec(name="none"), "representation": "distance", "mpp": 0.5, "halo": 4,
        "stride": 4, "nucleus_diameter_um": 8.0, "separation": SeparationSettings(min_area=4), "code_version": "0",
    }  # fmt: skip
    return Model(Card(**(facts | card)), {"nothing": np.zeros(1, np.float32)})


def save_fields(folder: Path, names: Sequence[str] = ("b/one.png", "a/two.png"), side: int = 120) -> Path:
    """A folder of images of dark disks, each with another seed."""
    for seed, name in enumerate(names):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(disks(side, side, 16, seed)).save(folder / name)
    return folder


def open_session(source: Path | None, project: Path, model: Model | None = None, **options: Any) -> Session:
    """A review with `DiskEngine`, at 0.5 µm per px."""
    options = {"mpp": 0.5, "engine": DiskEngine()} | options
    return Session.open(source, model or disk_model(), project, **options)


def look_at_all(session: Session) -> Session:
    """The same session, all fields looked at."""
    session.start()
    session.wait()
    return session


def save_slide(folder: Path, shape: tuple[int, int] = (300, 300), name: str = "a", blank_from: int = 10_000) -> Path:
    """A folder of results with the store NAME.nuclei of the disks of NAME.png beside it, 0.5 µm per px.

    From the row `blank_from` on there are none.
    """
    folder.mkdir(parents=True, exist_ok=True)
    image, model = disks(*shape, 16), disk_model()
    image[blank_from:] = image[0, 0]
    Image.fromarray(image).save(folder / f"{name}.png")
    with open_slide(folder / f"{name}.png", mpp=0.5) as slide:
        fingerprint = slide.fingerprint
        nuclei = segment_source(slide, model, DiskEngine(), mpp=0.5)
    run = squares_run(
        shape, fingerprint=fingerprint, source=f"{name}.png", model="disks", model_digest=model.digest,
        settings={"stain": "he"},
    )  # fmt: skip
    store = NucleiStore.create(folder / f"{name}.nuclei", run)
    store.add((0, 0), nuclei, np.arange(1, len(nuclei) + 1))
    store.finish()
    return folder


def edit(session: Session, item: ItemSource, change: Callable[[ItemState], Edit], author: str = "Anna") -> ItemState:
    """The item after an edit of it as it is now."""
    state = session.state(item.id)
    session.project.journal.append(item.name, author, change(state), state.version)
    return session.state(item.id)
