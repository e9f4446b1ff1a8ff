"""A review at work: what is reviewed, the model that proposes, and the project that keeps what comes of it."""

import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal, Self

import numpy as np
from numpy.typing import NDArray

from hemalum.data.dataset import pixel_hash
from hemalum.errors import HemalumError
from hemalum.models.engines.engine import Engine
from hemalum.models.model import Model
from hemalum.review.fields import SIDE, cut_windows, window_name
from hemalum.review.item import ItemState
from hemalum.review.kept_fields import NucleusFigures, kept_path, read_kept
from hemalum.review.looking import Looking, Progress
from hemalum.review.opening import open_review
from hemalum.review.project import Project
from hemalum.review.proposals import MapCache, ModelMaps
from hemalum.review.queue import Queued, rank_fields
from hemalum.review.sources import (
    Failure,
    ImageGone,
    ImagePool,
    ImageSource,
    ItemSource,
    Source,
    cut_items,
    id_of,
)
from hemalum.review.uncertainty import pixel_uncertainty, temperature_of
from hemalum.slides import Slide
from hemalum.targets.representations import find_representation

Kind = Literal["probability", "entropy"]


class Session:
    """A review that is open; safe with several threads. Made by `open`; close it, or use it in a `with`.

    `project` keeps what comes of it, `name` is what the source is called, `images` are by id.
    """

    def __init__(
        self, project: Project, source: Source, model: Model, engine: Engine | str, resources: Mapping[str, Any]
    ) -> None:
        """Use `open`."""
        self.project, self.model, self.name = project, model, source.path.name
        self.images: Mapping[str, ImageSource] = {image.id: image for image in source.images}
        self._side = int(project.options.get("side", SIDE))
        self._items = {item.id: item for image in source.images for item in cut_items(image, self._side)}
        self._by_image: dict[str, list[ItemSource]] = {}
        for item in self._items.values():
            self._by_image.setdefault(item.image, []).append(item)
        self._pool, self._maps = ImagePool(), MapCache()
        self._looking = Looking(project, self.images, self._items, self._pool, model, engine, resources)
        self._looking.failures += source.failures
        self._lock = threading.Lock()
        self._checked: set[str] = set()  # items of which this session knows that their image is the one begun with

    @classmethod
    def open(  # noqa: PLR0913 (the verb's options)
        cls,
        source: Path | str | None,
        model: Path | str | Model | None = None,
        project: Path | str | None = None,
        *,
        mpp: float | None = None,
        slide: Path | str | None = None,
        engine: str | Engine = "auto",
        accelerator: str = "auto",
        threads: int | None = None,
        side: int = SIDE,
        recursive: bool = True,
        begin: bool = True,
    ) -> Self:
        """Start the review of a source, or go on with it.

        `source` is a folder of images, an image, a dataset, or segmented slides: a folder of results, or one store.
        Without it, or without `model`, what the project in the folder `project` was begun with is taken; without
        `project` that is SOURCE.review in the working folder. `mpp`, µm per px, replaces what images state; `slide`
        is where slides are that do not lie beside their nuclei. `engine`, `threads` and `accelerator` are as in
        `hemalum.segment`. Images larger than `side` px are cut into windows of at most that. With `begin` False no
        project is started.

        Raises HemalumError where there is nothing to review, the project is of another source, model or scale, or
        the nuclei of a slide are of another model.
        """
        opened = open_review(
            source, model, project, begin=begin, mpp=mpp, slide=slide, side=side, recursive=recursive
        )
        return cls(*opened, engine, {"device": accelerator, "threads": threads})

    def start(self) -> None:
        """Look at the fields in a thread of its own, the smallest first; what is known already is not done again."""
        self._looking.start()

    def wait(self) -> None:
        """Wait until all fields are looked at."""
        self._looking.wait()

    def close(self) -> None:
        """Stop at the next field, and close the journal and all images."""
        self._looking.stop()
        self._pool.close()
        self.project.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def class_names(self) -> tuple[str, ...]:
        """The classes that the model tells apart."""
        return tuple(find_representation(self.model.card.representation, self.model.card.classes).class_names)

    @property
    def progress(self) -> Progress:
        """How far looking at the fields is."""
        return self._looking.progress

    @property
    def failures(self) -> list[Failure]:
        """The images, or windows of them, that cannot be reviewed, and why."""
        with self._looking.lock:
            return list(self._looking.failures)

    @contextmanager
    def open_image(self, id: str) -> Iterator[Slide]:
        """An open image, which several threads may read at once.

        Raises HemalumError where there is no such image; ImageGone where its file is gone, or another one.
        """
        with self._pool.open(self._image(id)) as slide:
            yield slide

    def _image(self, id: str) -> ImageSource:
        image = self.images.get(id)
        if image is None:
            raise HemalumError(f"there is no image {id} in this review")
        return image

    def items(self) -> list[ItemSource]:
        """All items, image by image."""
        return [self._with_look(item) for item in self._items.values()]

    def items_of(self, image: str) -> list[ItemSource]:
        """The items of an image."""
        return [self._with_look(item) for item in self._by_image.get(image, [])]

    def item(self, id: str) -> ItemSource:
        """The item with this id. Raises HemalumError where there is none."""
        item = self._items.get(id)
        if item is None:
            raise HemalumError(f"there is no item {id} in this review")
        return self._with_look(item)

    def _with_look(self, item: ItemSource) -> ItemSource:
        with self._looking.lock:
            return replace(item, looked=item.id in self._looking.fields)

    def item_at(self, image: str, x: float, y: float) -> ItemSource:
        """The item at a point, px of the image. Raises HemalumError for a point outside of it."""
        source = self._image(image)
        height, width = source.shape
        if not (0 <= x <= width and 0 <= y <= height):
            raise HemalumError(f"{source.name}: ({x:g}, {y:g}) lies outside of the image ({width} x {height} px)")
        if image in self._items:
            return self.item(image)
        for window in cut_windows(source.shape, self._side):
            right, bottom = window[0] + window[2], window[1] + window[3]
            # a point on the last edge belongs to the last window
            if (x < right or right == width) and (y < bottom or bottom == height):
                return self.item(id_of(window_name(source.name, window)))
        raise AssertionError("windows cover an image")

    def queue(self, by: str = "entropy", *, stratified: bool = True, seed: int = 0) -> list[Queued]:
        """The fields looked at so far, the first to look at first (`rank_fields`)."""
        with self._looking.lock:
            fields = list(self._looking.fields.values())
        return rank_fields(fields, by, seed=seed, stratified=stratified)

    def state(self, id: str) -> ItemState:
        """The item as it was left; one that is not in the journal yet is looked at, and taken into it, now.

        Raises HemalumError where there is none or it cannot be segmented; ImageGone where its image is gone or
        another than it was begun with.
        """
        item = self.item(id)
        if id not in self._checked:
            if item.name in self.project.journal:
                self.pixels(id)
            else:
                self._looking.begin(item)
            with self._lock:
                self._checked.add(id)
        return self.project.journal.state(item.name)

    def pixels(self, id: str) -> NDArray[np.uint8]:
        """The item's image (H, W, 3) uint8. Raises ImageGone where it is gone or another than it was begun with."""
        item = self.item(id)
        pixels = self._looking.read(item)
        journal = self.project.journal
        if item.name in journal and journal.state(item.name).item.sha256 != pixel_hash(pixels):
            raise ImageGone(f"{item.name}: is another image than when its review was begun; put that one back")
        return pixels

    def maps(self, id: str, kind: Kind) -> NDArray[np.uint8]:
        """What the model thinks of each pixel of an item (H, W): 0 to 255 for a probability of nucleus of 0 to 1, or
        an entropy of 0 to log 2 at the temperature of its card. Raises HemalumError for another kind."""
        if kind not in ("probability", "entropy"):
            raise HemalumError(f"map '{kind}': want probability or entropy")
        values = self._predict(id).probability
        if kind == "entropy":
            values = pixel_uncertainty(values, temperature_of(self.model.card)) / np.float32(np.log(2))
        return np.rint(np.clip(values, 0, 1) * 255).astype(np.uint8)

    def propose(self, id: str, x: float, y: float) -> NDArray[np.float32] | None:
        """The model's outline (M, 2) at a point, px of the item, last point = first; None where it has none.

        It is the nucleus that the model separates there, else what it thinks likelier than what is around it.
        Raises HemalumError for a point outside of the item.
        """
        return self._predict(id).propose(x, y)

    def figures(self, id: str) -> NucleusFigures:
        """What the model is unsure of in the nuclei that an item starts with, by id from 1."""
        count = len(self.state(id).start)
        kept = read_kept(kept_path(self.project.folder, id))
        return kept.figures if kept is not None and len(kept.figures) == count else NucleusFigures.unknown(count)

    def _predict(self, id: str) -> ModelMaps:
        kept = self._maps.get(id)
        if kept is None:
            known, pixels = self.state(id).item, self.pixels(id)
            kept = self._looking.predict(self.item(id), pixels, known.mpp)
            self._maps.keep(id, kept)
        return kept
