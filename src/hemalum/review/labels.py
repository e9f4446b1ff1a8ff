"""Corrected labels of an item as what the rest of the program takes: `Nuclei`, `Sample`, a dataset folder."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from hemalum.data.dataset import Dataset, DatasetInfo, Row, SplitInfo, pixel_hash, write_index, write_sample
from hemalum.data.readers.files import safe_name
from hemalum.data.sample import Sample
from hemalum.data.splits import Member, Part, split_by_group
from hemalum.errors import HemalumError, one_line
from hemalum.files import new_folder
from hemalum.nuclei.nuclei import Nuclei
from hemalum.nuclei.part import measure
from hemalum.review.item import Item, ItemState
from hemalum.review.journal import Journal

SHARES = (0.7, 0.1, 0.2)  # of train, val and test
KIND = "review"  # what a dataset says that it was made of


def corrected_nuclei(state: ItemState, image: NDArray[np.uint8] | None = None, *, model: str | None = None) -> Nuclei:
    """The nuclei of an item that count, measured; ids are those of the item, and so they have gaps.

    `image` (H, W, 3) uint8 is the item's, for the measurements of stain. `to_geojson` writes them for QuPath. Raises
    HemalumError for another image.
    """
    item, names = state.item, state.start.class_names
    if image is not None:
        _check_image(item, image)
    ids, outlines, classes = state.counting()
    labels = state.label_map()
    present, first = np.unique(labels, return_index=True)
    order = np.argsort(first[present > 0])  # that of `measure`: of first pixels; every nucleus holds one
    part = measure(labels, image)
    part.raw["class"] = classes[order]
    nuclei = Nuclei.from_parts(
        [part],
        shape=item.shape,
        mpp=item.mpp,
        mpp_source=item.mpp_source or ("none" if item.mpp is None else "user"),
        model=model,
        source=item.source or item.name,
        notes={"review": {"version": state.version, "status": state.status}},
        class_names=names,
    )
    table = nuclei.table.set_column(0, "id", pa.array(ids[order].astype(np.uint32)))
    return replace(nuclei, table=table, outlines=outlines.take(order))


def corrected_sample(state: ItemState, image: NDArray[np.uint8]) -> Sample:
    """The item's image (H, W, 3) uint8 with its nuclei that count, as training takes them; ids are the item's.

    Classes are numbered from 1 in the order of the item's class names. Raises HemalumError for another image.
    """
    item, names = state.item, state.start.class_names
    _check_image(item, image)
    labels, classes = state.label_map(), None
    if names:
        ids, _, numbers = state.counting()
        classes = np.zeros(int(labels.max()) + 1, np.int32)
        classes[ids] = numbers
    return Sample(
        image=image,
        instances=labels,
        id=safe_name(item.name),
        source=item.source or "",
        group=item.group or "",
        organ=item.organ,
        stain=item.stain,
        mpp=item.mpp,
        mpp_source=item.mpp_source,
        classes=classes,
    )


def export_dataset(
    journal: Journal,
    out: Path | str,
    read_image: Callable[[Item], NDArray[np.uint8]],
    *,
    shares: tuple[float, float, float] = SHARES,
    parts: Mapping[str, Part] | None = None,
    seed: int = 0,
    on_progress: Callable[[Item], None] | None = None,
) -> Dataset:
    """Write all items that are marked as reviewed as a dataset folder, whole or not at all, and open it.

    `read_image` gives the image (H, W, 3) uint8 of an item. The parts train, val and test get their `shares` by
    group; `parts` gives them by the name of the item instead. Raises HemalumError where no item is reviewed, `out`
    holds something, an image is gone or another than was reviewed, or items differ in their classes.
    """
    out = Path(out)
    states = [state for name in journal.names() if (state := journal.state(name)).status == "reviewed"]
    if not states:
        raise HemalumError(f"{journal.path}: no item is marked as reviewed")
    class_names = _common_classes(states)
    with new_folder(out) as folder:
        rows: list[Row] = []
        for state in states:
            sample = corrected_sample(state, _read(read_image, state.item))
            if not sample.id or sample.id in {row.id for row in rows}:
                raise HemalumError(f"{state.item.name}: no file can be called by its name alone; rename the image")
            rows.append(write_sample(folder, sample))
            if on_progress is not None:
                on_progress(state.item)
        if parts is None:
            by_id = split_by_group([Member(row.id, row.group) for row in rows], shares, seed=seed)
            split = SplitInfo.of(by_id, by="group", fractions=shares, seed=seed)
        else:
            by_id = {row.id: parts[state.item.name] for row, state in zip(rows, states, strict=True)}
            split = SplitInfo.of(by_id, by="group", note="as the caller gave them", seed=seed)
        rows = [replace(row, split=by_id[row.id]) for row in rows]
        scales = {(row.mpp, row.mpp_source) for row in rows}
        info = DatasetInfo(
            name=out.name,
            title="Corrected labels",
            source_format=KIND,
            mpp=rows[0].mpp if len(scales) == 1 else None,
            mpp_source=rows[0].mpp_source if len(scales) == 1 else None,
            classes=dict(enumerate(class_names, start=1)) or None,
            images=len(rows),
            nuclei=sum(row.nuclei for row in rows),
            split=split,
        )
        write_index(folder, info, rows)
    return Dataset.open(out)


def _common_classes(states: Sequence[ItemState]) -> tuple[str, ...]:
    names = states[0].start.class_names
    for state in states:
        if state.start.class_names != names:
            raise HemalumError(f"{state.item.name}: has other classes than {states[0].item.name}: export them apart")
    return names


def _read(read_image: Callable[[Item], NDArray[np.uint8]], item: Item) -> NDArray[np.uint8]:
    try:
        return read_image(item)
    except OSError as error:
        raise HemalumError(f"{item.name}: its image cannot be read ({one_line(error)})") from error


def _check_image(item: Item, image: NDArray[np.uint8]) -> None:
    """Raise HemalumError for another image than the one that was reviewed."""
    if image.shape != (*item.shape, 3) or pixel_hash(image) != item.sha256:
        raise HemalumError(f"{item.name}: is another image than the one that was reviewed; put that one back")
