"""Nuclei that were corrected in QuPath, as changes to the items of a review.

What comes back is compared with what was exported: an outline that is as it was then is no change, whoever has
changed that nucleus here since. What was changed in both places is left as it is here, and named.
"""

import hashlib
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from hemalum.data.annotations import Drawing, class_numbers, listed, read_drawing, tell_apart
from hemalum.errors import HemalumError, counted
from hemalum.files import named_path
from hemalum.nuclei.store import from_wkb
from hemalum.review.edits import mark
from hemalum.review.exchange import Versions, read_exports, results_name
from hemalum.review.item import ItemState
from hemalum.review.merge_import import Returned, apply_import
from hemalum.review.nucleus import Ring
from hemalum.review.session import Session
from hemalum.review.slide_corrections import read_window, slide_changes
from hemalum.review.sources import ImageSource, ItemSource

SUFFIXES = (".geojson", ".geojson.gz", ".json")
AUTHOR = "QuPath import"
MAX_BYTES = 2 * 2**30  # of a file: about four million nuclei

Window = tuple[int, int, int, int]


@dataclass(slots=True)
class ImportSummary:
    """What came of an import: numbers of nuclei, and in words what was changed here as well, and which files were not
    taken and why."""

    images: int = 0
    added: int = 0
    deleted: int = 0
    reshaped: int = 0
    classified: int = 0
    conflicts: list[tuple[str, str]] = field(default_factory=list)  # item, what
    failed: list[tuple[Path, str]] = field(default_factory=list)
    remarks: list[str] = field(default_factory=list)

    @property
    def changed(self) -> int:
        """Nuclei that were changed."""
        return self.added + self.deleted + self.reshaped + self.classified


def import_review(
    session: Session, path: Path | str, *, reviewed: bool = False, on_progress: Callable[[str], None] | None = None
) -> ImportSummary:
    """Take the nuclei of GeoJSON files of QuPath as those of the images of a review.

    `path` is a file, or a folder of files called after the images. Each change is an event of the journal by
    "QuPath import"; an outline that is as it was keeps its id and its state. With `reviewed` the items are also
    marked as reviewed: of a slide the windows in which anything was changed. One file after the other is taken, what
    cannot be is named. `on_progress` is called with each name. Raises HemalumError where there is no file, or none of
    an image of this review.
    """
    pairs, others = _matched(session, named_path(path))
    summary = ImportSummary(failed=[(file, "is of no image in this review") for file in others])
    exports = read_exports(session.project.folder)
    for file, image in pairs:
        try:
            _import_image(session, image, file, exports.get(image.name, []), summary, reviewed=reviewed)
        except HemalumError as error:
            summary.failed.append((file, str(error)))
        else:
            summary.images += 1
        if on_progress is not None:
            on_progress(image.name)
    return summary


def key_of(ring: NDArray[np.floating]) -> bytes:
    """The same for one outline wherever it begins and whichever way it goes round: its points to a thousandth px."""
    points = np.unique(np.rint(ring.astype(np.float64) * 1000).astype(np.int64), axis=0)
    return hashlib.blake2b(points.tobytes(), digest_size=16).digest()


def _matched(session: Session, path: Path) -> tuple[list[tuple[Path, ImageSource]], list[Path]]:
    """Files and their images, and files of no image."""
    if path.is_file():
        files = [path]
    elif path.is_dir():
        files = sorted(file for file in path.rglob("*") if file.is_file() and file.name.endswith(SUFFIXES))
    else:
        raise HemalumError(f"{path}: no such file or folder")
    if not files:
        raise HemalumError(f"{path}: holds no GeoJSON ({', '.join(SUFFIXES)})")
    images = {results_name(image): image for image in session.images.values()}
    by_last: dict[str, list[ImageSource]] = {}
    for name, one in images.items():
        by_last.setdefault(name.rpartition("/")[2], []).append(one)
    pairs: list[tuple[Path, ImageSource]] = []
    others: list[Path] = []
    for file in files:
        suffix = next((one for one in SUFFIXES if file.name.endswith(one)), file.suffix)
        name = file.name.removesuffix(suffix)
        relative = name if path.is_file() else (file.relative_to(path).parent / name).as_posix()
        image = images.get(relative)
        if image is None and len(by_last.get(name, [])) == 1:
            image = by_last[name][0]
        if image is None and path.is_file() and len(images) == 1:
            image = next(iter(images.values()))
        if image is None:
            others.append(file)
        else:
            pairs.append((file, image))
    if not pairs:
        example = next(iter(images))
        raise HemalumError(f"{path}: is of no image in this review; files are called after images: {example}.geojson")
    return pairs, others


def _import_image(
    session: Session,
    image: ImageSource,
    file: Path,
    exports: Sequence[Versions],
    summary: ImportSummary,
    *,
    reviewed: bool,
) -> None:
    if file.stat().st_size > MAX_BYTES:
        raise HemalumError(f"{file}: has more than {MAX_BYTES // 2**30} GB: export a part of the objects")
    nuclei, left_out = _nuclei_of(session, image, read_drawing(file), exports)
    nuclei.check_within(image.shape)
    if left_out:
        summary.remarks.append(f"{file}: left out, since it is no nucleus: {listed(left_out)}")
    returned = _returned(nuclei, session, file)
    if image.is_slide:
        items = _touched_windows(session, image, returned)
    else:
        exported = {name for one in exports for name in one}
        items = [item for item in session.items_of(image.id) if not exported or item.name in exported]
    for item in items:
        state = session.state(item.id)
        rings = _rings_as_written(image, item, state)
        keys = {id: key_of(ring) for id, ring in rings.items()}
        window = item.window or (0, 0, image.shape[1], image.shape[0])
        version = _base_version(session, image, item, exports, returned)
        base = session.project.journal.state(item.name, version)
        base_keys = {id: key_of(ring) for id, ring in _rings_as_written(image, item, base).items()}
        apply_import(session.project.journal, state, base, keys, base_keys, returned.within(window), AUTHOR, summary)
        state = session.state(item.id)
        if reviewed and state.status != "reviewed":
            session.project.journal.append(item.name, AUTHOR, mark(state, "reviewed"), state.version)


def _nuclei_of(
    session: Session, image: ImageSource, drawing: Drawing, exports: Sequence[Versions]
) -> tuple[Drawing, Counter[str]]:
    """The nuclei of a file, and what else is in it by words. An outline that was exported is none but a nucleus."""
    roles = tell_apart(drawing, image.shape)
    if not len(roles.regions):
        return roles.nuclei, roles.left_out
    exported = _exported_keys(session, image, exports)
    offsets, coords = roles.regions.paths.offsets, roles.regions.paths.coords
    exported_names = {
        name for i, name in enumerate(roles.regions.names) if key_of(coords[offsets[i] : offsets[i + 1]]) in exported
    }
    names = exported_names.union(roles.nuclei.names)
    return drawing.take(np.array([name in names for name in drawing.names])), roles.left_out - Counter(
        {"region": len(exported_names)}
    )


def _exported_keys(session: Session, image: ImageSource, exports: Sequence[Versions]) -> set[bytes]:
    """What tells the outlines of an image that were exported, or would be now."""
    journal = session.project.journal
    keys = set()
    for item in session.items_of(image.id):
        if item.name in journal:
            versions = {one[item.name] for one in exports if item.name in one} | {journal.state(item.name).version}
            for version in versions:
                keys |= {
                    key_of(ring)
                    for ring in _rings_as_written(image, item, journal.state(item.name, version)).values()
                }
    for table in image.store.tables(["geometry"]) if image.store is not None else ():
        outlines = from_wkb(table.column("geometry"))
        keys |= {key_of(outlines.coords[start:stop]) for start, stop in pairwise(outlines.offsets.tolist())}
    return keys


def _returned(nuclei: Drawing, session: Session, file: Path) -> Returned:
    """The nuclei of a file in px of the image. Raises HemalumError for a class that the model does not tell apart."""
    names = session.class_names
    used = [None, *nuclei.class_names]
    classes: list[str | None] = [None] * len(nuclei)
    if names:
        # of a nucleus that was graded the first part is its class
        plain = [None if name is None else name.partition(": ")[0] for name in used]
        numbers = class_numbers(plain, dict(enumerate(names, start=1)))
        unknown = next((name for name in nuclei.class_names_used() if name.partition(": ")[0] not in numbers), None)
        if unknown is not None:
            raise HemalumError(f"{file}: class '{unknown}' is not among those of the model: {', '.join(names)}")
        by_number = [None if numbers[name] == 0 else names[numbers[name] - 1] for name in plain]
        classes = [by_number[number] for number in nuclei.classes.tolist()]
    offsets, coords = nuclei.paths.offsets, nuclei.paths.coords
    keys = [key_of(coords[offsets[i] : offsets[i + 1]]) for i in range(len(nuclei))]
    return Returned(nuclei.paths, classes, keys)


def _rings_as_written(image: ImageSource, item: ItemSource, state: ItemState) -> dict[int, Ring]:
    """The outlines of the nuclei that count, in px of the image, as an export writes them; by id."""
    window = item.window or (0, 0, 0, 0)
    origin = np.array(window[:2], np.float32)
    rings = {id: (one.ring + origin).astype(np.float32) for id, one in state.items() if one.counts}
    if image.store is not None:
        there = read_window(image.store, window, state)
        offsets, coords = there.outlines.offsets, there.outlines.coords
        untouched = [id for id in rings if id <= len(state.start) and id not in state.changes]
        rings |= {id: coords[offsets[id - 1] : offsets[id]] for id in untouched}
    return rings


def _base_version(
    session: Session, image: ImageSource, item: ItemSource, exports: Sequence[Versions], returned: Returned
) -> int:
    """The version of an item that a file was exported at: of those remembered the one that it is most like."""
    versions = sorted({one[item.name] for one in exports if item.name in one} | ({0} if not exports else set()))
    if len(versions) < 2:
        return versions[0] if versions else 0
    there = set(returned.keys)

    def agreement(version: int) -> tuple[int, int]:
        rings = _rings_as_written(image, item, session.project.journal.state(item.name, version))
        keys = {key_of(ring) for ring in rings.values()}
        return 2 * len(keys & there) - len(keys), -version

    return max(versions, key=agreement)


def _touched_windows(session: Session, image: ImageSource, returned: Returned) -> list[ItemSource]:
    """The windows of a slide in which anything is not as an export would write it now."""
    store = image.require_store()
    items = session.items_of(image.id)
    names = set(session.project.journal.names())
    begun = [
        (item.window, session.state(item.id)) for item in items if item.name in names and item.window is not None
    ]
    changes = slide_changes(store, begun)
    there = set(returned.keys)
    known: set[bytes] = set()
    boxes: list[NDArray[np.float64]] = []

    def compare(ring: Ring) -> None:
        key = key_of(ring)
        known.add(key)
        if key not in there:
            boxes.append(np.concatenate([ring.min(axis=0), ring.max(axis=0)]).astype(np.float64))

    for table in store.tables(["id", "geometry"]):
        outlines = from_wkb(table.column("geometry"))
        gone = np.isin(table.column("id").to_numpy(), changes.without)
        for row in np.flatnonzero(~gone).tolist():
            compare(outlines.coords[outlines.offsets[row] : outlines.offsets[row + 1]])
    for one in (one for window in changes.windows for one in window):
        compare(one.ring)
    boxes += [returned.box(i) for i, key in enumerate(returned.keys) if key not in known]
    if not boxes:
        return []
    bounds = np.stack(boxes)
    chosen = []
    for item in items:
        x, y, width, height = item.require_window()
        meets = (bounds[:, 0] < x + width) & (bounds[:, 2] > x) & (bounds[:, 1] < y + height) & (bounds[:, 3] > y)
        if meets.any():
            chosen.append(item)
    return chosen


def describe_import(summary: ImportSummary) -> str:
    """What was changed, in one line."""
    parts = {"added": summary.added, "deleted": summary.deleted, "reshaped": summary.reshaped}
    parts |= {"of another class": summary.classified}
    changes = ", ".join(f"{count:,} {what}" for what, count in parts.items() if count) or "nothing has changed"
    return f"{counted(summary.images, 'image')}: {changes}"
