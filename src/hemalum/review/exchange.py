"""Corrected nuclei for other programs: as a dataset, as GeoJSON, or as GeoJSON that can be edited in QuPath."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from hemalum.errors import HemalumError, nearest, one_line
from hemalum.files import new_folder, write_text
from hemalum.inference import stem
from hemalum.nuclei.nuclei import Nuclei
from hemalum.nuclei.polygons import Polygons
from hemalum.nuclei.store import Corrections, export_store
from hemalum.review.item import ItemState
from hemalum.review.labels import corrected_nuclei, export_dataset
from hemalum.review.session import Session
from hemalum.review.slide_corrections import measure_corrected, slide_changes
from hemalum.review.sources import ImageSource, ItemSource, id_of

FORMATS = ("dataset", "geojson", "qupath")
RECORD = "exports.json"  # in a project: the versions of the items in each export
MOST_EXPORTS = 16  # of an image that are remembered
MAX_RECORD = 64 * 2**20  # bytes

Versions = dict[str, int]  # of items, by name


def export_review(
    session: Session, out: Path | str, format: str = "dataset", *, on_progress: Callable[[str], None] | None = None
) -> list[Path]:
    """Write what was reviewed into a new folder; gives the files, or the folder of a dataset.

    "dataset" is the items marked as reviewed, as a dataset folder (`export_dataset`). "geojson" is a file for each
    image under review: the nuclei of its items as they are now; of a slide all nuclei, those that were not changed as
    in its store. "qupath" is the same as annotations, which can be edited in QuPath. `on_progress` is called with
    each name.

    Raises HemalumError for another format, where `out` holds something, where nothing is reviewed, and for an image
    that is gone or another one.
    """
    if format not in FORMATS:
        raise HemalumError(f"unknown format '{format}'{nearest(format, FORMATS)}")
    advance = on_progress or (lambda _: None)
    if format == "dataset":
        export_dataset(
            session.project.journal, out, lambda item: session.pixels(id_of(item.name)),
            on_progress=lambda item: advance(item.name),
        )  # fmt: skip
        return [Path(out)]
    names = set(session.project.journal.names())
    begun = [
        (image, items)
        for image in session.images.values()
        if (items := [item for item in session.items_of(image.id) if item.name in names])
    ]
    if not begun:
        raise HemalumError(f"{session.project.folder}: nothing has been looked at yet, so there is nothing to export")
    kind = "annotation" if format == "qupath" else "detection"
    files: list[str] = []
    versions: dict[str, Versions] = {}
    with new_folder(out) as folder:
        for image, items in begun:
            states = [(item, session.state(item.id)) for item in items]
            versions[image.name] = {item.name: state.version for item, state in states}
            files.append(f"{results_name(image)}.geojson")
            path = folder / files[-1]
            path.parent.mkdir(parents=True, exist_ok=True)
            if image.is_slide:
                _write_slide(session, image, states, path, kind)
            else:
                _image_nuclei(session, image, states).to_geojson(path, kind=kind)
            advance(image.name)
    remember_export(session.project.folder, versions)
    return [Path(out) / file for file in files]


def results_name(image: ImageSource) -> str:
    """What the files of an image are called, without ending."""
    if image.is_slide:
        return image.name
    folder, slash, name = image.name.rpartition("/")
    return f"{folder}{slash}{stem(name) if image.path.name == name else name}"


def _image_nuclei(session: Session, image: ImageSource, states: list[tuple[ItemSource, ItemState]]) -> Nuclei:
    """The nuclei of all items of an image, in px of it."""
    parts = []
    for item, state in states:
        nuclei = corrected_nuclei(state, session.pixels(item.id), model=session.project.model)
        parts.append(nuclei if item.window is None else _moved(nuclei, item.window, image.shape))
    first = parts[0]
    review = {item.name: {"version": state.version, "status": state.status} for item, state in states}
    notes = {**first.notes, "review": review}
    if len(parts) == 1:
        return replace(first, notes=notes)
    table = pa.concat_tables([part.table for part in parts])
    ids = pa.array(np.arange(1, table.num_rows + 1, dtype=np.uint32))
    outlines = Polygons.joined([part.outlines for part in parts])
    return replace(first, table=table.set_column(0, "id", ids), outlines=outlines, notes=notes, source=image.name)


def _moved(nuclei: Nuclei, window: tuple[int, int, int, int], shape: tuple[int, int]) -> Nuclei:
    """Nuclei of a window in px of the image."""
    table = nuclei.table
    for name, shift in (("x", window[0]), ("y", window[1])):
        values = pa.array(table.column(name).to_numpy() + shift)
        table = table.set_column(table.column_names.index(name), name, values)
    coords = nuclei.outlines.coords + np.array(window[:2], np.float32)
    return replace(nuclei, table=table, outlines=Polygons(coords, nuclei.outlines.offsets), shape=shape)


def _write_slide(
    session: Session, image: ImageSource, states: list[tuple[ItemSource, ItemState]], path: Path, kind: str
) -> None:
    store = image.require_store()
    changes = slide_changes(store, ((item.window, state) for item, state in states if item.window is not None))
    with session.open_image(image.id) as slide:
        others = measure_corrected(changes.windows, slide, store, store.run.class_names)
    review = {item.name: {"version": state.version, "status": state.status} for item, state in states}
    export_store(
        store, "geojson", path, kind=kind, corrections=Corrections(changes.without, others, {"review": review})
    )


def remember_export(project: Path, versions: dict[str, Versions]) -> None:
    """Add the versions of items, by image, that were written; what comes back is compared with them."""
    known = read_exports(project)
    for name, items in versions.items():
        earlier = [one for one in known.get(name, []) if one != items]
        known[name] = [*earlier, items][-MOST_EXPORTS:]
    write_text(project / RECORD, json.dumps(known, separators=(",", ":")))


def read_exports(project: Path) -> dict[str, list[Versions]]:
    """The versions of the items of each image in its exports, the last one last. Raises HemalumError for what is not
    as written."""
    path = project / RECORD
    if not path.is_file():
        return {}
    try:
        if path.stat().st_size > MAX_RECORD:
            raise ValueError("too large")
        content: Any = json.loads(path.read_text(encoding="utf-8"))
        return {
            str(image): [{str(item): int(version) for item, version in one.items()} for one in exports]
            for image, exports in content.items()
        }
    except (OSError, ValueError, TypeError, AttributeError, RecursionError) as error:
        raise HemalumError(
            f"{path}: cannot be read ({one_line(error)}); remove it, and what comes back is compared "
            "with what the model proposed"
        ) from error
