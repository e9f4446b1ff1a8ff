"""A session of a review without a model: what was segmented is known, and images and slides are read from disk."""

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from builders.reviews import draw_labels, image_of
from hemalum.data.dataset import pixel_hash
from hemalum.errors import HemalumError
from hemalum.nuclei.nuclei import Nuclei
from hemalum.nuclei.store import NucleiStore
from hemalum.review import Field, Item, ItemState, Project, Queued, rank_fields
from hemalum.review.fields import cut_windows, store_fields, window_text
from hemalum.slides import Slide, open_slide

CLASSES = ("tumor", "lymphocyte")


@dataclass(frozen=True)
class Source:
    id: str
    name: str
    path: Path
    shape: tuple[int, int]
    mpp: float | None
    store: NucleiStore | None = None

    @property
    def is_slide(self) -> bool:
        return self.store is not None


@dataclass(frozen=True)
class Looked:
    id: str
    name: str
    image: str
    window: tuple[int, int, int, int] | None
    stratum: str = ""
    looked: bool = True


def id_of(name: str) -> str:
    return hashlib.sha256(name.encode()).hexdigest()[:16]


@dataclass
class KnownSession:
    """`label_maps` by image are the nuclei of plain images; those of a slide are in its store."""

    project: Project
    images: dict[str, Source]
    label_maps: dict[str, NDArray[np.int32]]
    name: str = "images"
    class_names: tuple[str, ...] = ()
    failures: list[Any] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._items = {}
        for image in self.images.values():
            windows = cut_windows(image.shape, 1024) if image.is_slide else [None]
            for window in windows:
                name = image.name if window is None else f"{image.name} {window_text(window)}"
                self._items[id_of(name)] = Looked(id_of(name), name, image.id, window)
        self._slides = {id: open_slide(image.path, mpp=image.mpp) for id, image in self.images.items()}
        self.progress = SimpleNamespace(state="done", done=len(self._items), total=len(self._items), message=None)

    @contextmanager
    def open_image(self, id: str) -> Iterator[Slide]:
        image = self.images[id]
        if not image.path.exists():
            raise HemalumError(f"{image.path}: is gone (No such file or directory); put it back and open it again")
        yield self._slides[id]

    def items(self) -> list[Looked]:
        return list(self._items.values())

    def item(self, id: str) -> Looked:
        if id not in self._items:
            raise HemalumError(f"there is no item '{id}'")
        return self._items[id]

    def item_at(self, image: str, x: float, y: float) -> Looked:
        for item in self._items.values():
            left, top, width, height = item.window or (0, 0, *self.images[image].shape[::-1])
            if item.image == image and left <= x < left + width and top <= y < top + height:
                return item
        raise HemalumError("the point lies outside of the image")

    def queue(self, by: str = "entropy", *, stratified: bool = True, seed: int = 0) -> list[Queued]:
        fields = []
        for image in self.images.values():
            if image.store is not None:
                fields += [
                    Field(
                        f"{image.name} {window_text(one.window)}",
                        "",
                        one.entropy,
                        0.0,
                        one.area,
                        one.solidity,
                        one.window,
                    )
                    for one in store_fields(image.store)
                    if one.window is not None
                ]
                continue
            area = np.bincount(self.label_maps[image.id].ravel())[1:].astype(np.float64)
            fields.append(Field(image.name, "", 0.1, 0.2, area, np.ones(area.size)))
        return rank_fields(fields, by, stratified=stratified, seed=seed)

    def pixels(self, id: str) -> NDArray[np.uint8]:
        item = self.item(id)
        with self.open_image(item.image) as slide:
            return slide.read(*(item.window or (0, 0, *slide.shape[::-1])))

    def state(self, id: str) -> ItemState:
        item = self.item(id)
        if item.name in self.project.journal.names():
            return self.project.journal.state(item.name)
        pixels, image = self.pixels(id), self.images[item.image]
        if image.store is not None:
            nuclei = image.store.nuclei(item.window)
        else:
            nuclei = Nuclei.from_labels(self.label_maps[image.id])
        shape = pixels.shape[:2]
        self.project.journal.add_item(Item(item.name, shape, pixel_hash(pixels), mpp=image.mpp), nuclei)
        return self.project.journal.state(item.name)

    def maps(self, id: str, kind: str) -> NDArray[np.uint8]:
        return self.pixels(id)[..., 0 if kind == "probability" else 1]

    def figures(self, id: str) -> Any:
        count = len(self.state(id).start)
        values = np.linspace(0, 0.5, count)
        values[:1] = np.nan
        return SimpleNamespace(entropy=values, distance=values, disagreement=values, probability=values)

    def propose(self, id: str, x: float, y: float) -> NDArray[np.float32] | None:
        labels = self.label_maps.get(self.item(id).image)
        if labels is None or not labels[int(y), int(x)]:
            return None
        return np.array([(x - 2, y - 2), (x + 2, y - 2), (x + 2, y + 2), (x - 2, y - 2)], np.float32)

    def close(self) -> None:
        self.project.close()


def make_session(folder: Path, *stores: tuple[Path, NucleiStore]) -> KnownSession:
    """Two images of four nuclei, and slides with their stores."""
    sources, label_maps = {}, {}
    for number in (1, 2):
        labels, path = draw_labels(), folder / f"kidney_{number}.png"
        Image.fromarray(image_of(labels)).save(path)
        source = Source(id_of(path.name), path.name, path, labels.shape, 0.25)
        sources[source.id], label_maps[source.id] = source, labels
    for path, store in stores:
        source = Source(id_of(path.name), path.name, path, store.run.shape, store.run.mpp, store)
        sources[source.id] = source
    project = Project.join(folder / "images.review", source=str(folder), model="dark", model_digest="0" * 64)
    return KnownSession(project, sources, label_maps)
