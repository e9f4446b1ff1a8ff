"""`import`: from a published or private layout to the dataset folder, in one atomic step."""

import inspect
import os
import re
import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from hemalum.data.dataset import Dataset, DatasetInfo, Row, SplitInfo, write_index, write_sample
from hemalum.data.formats import READERS, Reader
from hemalum.data.mosaic import Edges, edges_of, same_field
from hemalum.data.nucleus_size import REFERENCE_DIAMETER_UM, equivalent_diameters, mpp_from_nuclei
from hemalum.data.sample import Sample
from hemalum.data.splits import PARTS, Member, split_by_group, split_hash
from hemalum.errors import HemalumError

GROUPS = ("image", "mosaic", "source", "organ", "stain")


@dataclass(frozen=True)
class _Written:
    row: Row
    diameters: NDArray[np.float64]
    kind: tuple[str | None, tuple[int, ...]]
    edges: Edges | None


def import_dataset(
    format: str,
    src: Path | str,
    dst: Path | str,
    *,
    mpp: float | Literal["nuclei"] | None = None,
    group: str | None = None,
    split: tuple[float, float, float] = (0.7, 0.1, 0.2),
    test_groups: Iterable[str] | None = None,
    stratify: Literal["stain", "organ"] | None = "stain",
    seed: int = 0,
    name: str | None = None,
    title: str | None = None,
    licence: str | None = None,
    citation: str | None = None,
    url: str | None = None,
    mpp_note: str = "",
    overwrite: bool = False,
    on_sample: Callable[[Sample], None] | None = None,
    **options: object,
) -> Dataset:
    """Read `src` with the reader `format`, write a dataset folder at `dst`, and open it.

    `mpp` is µm per pixel for all images; None keeps what the index says, or what the publication of the set
    states; "nuclei" sets it per image so that its median nucleus has the reference diameter of 5.2 µm.
    `group` is what the split keeps together: "image", "source", "organ", "stain", "mosaic" (tiles that
    were cut from one field, recognised by their edges), or for `folder` any column of the index; None takes
    the reader's own choice. `split` gives the shares of train, val and test;
    `stratify` spreads a property over all parts where the groups allow it; `test_groups` names the test part.
    `options` go to the reader. `on_sample` is called after each image (for progress).

    The folder is built beside `dst` and renamed when complete; a `dst` with something in it is refused
    unless `overwrite`. Raises HemalumError for every mistake in the data or the arguments.
    """
    reader = _reader(format)
    src, dst = Path(src), Path(dst)
    if not src.exists():
        raise HemalumError(f"{src}: no such folder")
    if isinstance(mpp, str) and mpp != "nuclei":
        raise HemalumError(f"mpp {mpp!r}: give a number in µm per pixel, or 'nuclei'")
    if isinstance(mpp, float | int) and not 0.01 < mpp < 100:
        raise HemalumError(f"mpp {mpp}: µm per pixel must lie between 0.01 and 100")
    if format == "folder" and group is not None:
        options["group"] = "image" if group == "mosaic" else group
    known = [option for option in inspect.signature(reader.read).parameters if option != "path"]
    for option in options:
        if option not in known:
            raise HemalumError(f"format {format} has no option {option!r}; it has {', '.join(known) or 'none'}")
    by = group or reader.group
    if mpp is None and not mpp_note:
        mpp_note = reader.mpp_note
    samples = reader.read(src, **options)
    with _folder_beside(dst, src, overwrite) as folder:
        written: list[_Written] = []
        seen: set[str] = set()
        for sample in samples:
            sample = _prepared(sample, reader, mpp, group if format != "folder" else None)
            if sample.id in seen:
                raise HemalumError(f"{src}: the id {sample.id!r} occurs more than once; name the images apart")
            seen.add(sample.id)
            row = write_sample(folder, sample)
            kind = (sample.stain, sample.image.shape)
            edges = edges_of(sample.image) if by == "mosaic" else None
            written.append(_Written(row, equivalent_diameters(sample.instances), kind, edges))
            if on_sample is not None:
                on_sample(sample)
        if not written:
            raise HemalumError(f"{src}: no images of format {format}")
        rows = _grouped(written)
        if mpp == "nuclei":
            rows = _scaled(rows, written)
            mpp_note = mpp_note or (
                f"per image: the median equivalent diameter of its whole nuclei is {REFERENCE_DIAMETER_UM} µm"
            )
        members = [Member(row.id, row.group, None if stratify is None else getattr(row, stratify)) for row in rows]
        named = None if test_groups is None else sorted(set(test_groups))
        parts = split_by_group(members, split, test_groups=named, seed=seed)
        rows = [replace(row, split=parts[row.id]) for row in rows]
        scales = {(row.mpp, row.mpp_source) for row in rows}
        info = DatasetInfo(
            name=name or dst.name,
            title=title or (reader.title if format != "folder" else ""),
            licence=licence or reader.licence,
            citation=citation or reader.citation,
            url=url or reader.url,
            source_format=format,
            mpp=rows[0].mpp if len(scales) == 1 else None,
            mpp_source=rows[0].mpp_source if len({source for _, source in scales}) == 1 else None,
            mpp_note=mpp_note,
            images=len(rows),
            nuclei=sum(row.nuclei for row in rows),
            split=SplitInfo(
                by=by,
                stratified_by=stratify if stratify and any(m.stratum for m in members) else None,
                fractions=split,
                test_groups=named,
                seed=seed,
                sha256=split_hash(parts),
                counts={part: sum(row.split == part for row in rows) for part in PARTS},
            ),
        )
        write_index(folder, info, rows)
    return Dataset.open(dst)


def _reader(format: str) -> Reader:
    if format not in READERS:
        raise HemalumError(f"no format {format!r}; formats are {', '.join(READERS)}")
    return READERS[format]


def _prepared(sample: Sample, reader: Reader, mpp: float | str | None, group: str | None) -> Sample:
    """The sample as it is stored: scale and group as asked, id fit for a file name."""
    if isinstance(mpp, float | int):
        sample = replace(sample, mpp=float(mpp), mpp_source="user")
    elif mpp == "nuclei":
        sample = replace(sample, mpp=None, mpp_source=None)
    elif sample.mpp is None and reader.mpp is not None:
        sample = replace(sample, mpp=reader.mpp, mpp_source=reader.mpp_source)
    if group is not None:
        if group not in GROUPS:
            raise HemalumError(f"group {group!r}: choices are {', '.join(GROUPS)}")
        kept = sample.id if group in ("image", "mosaic") else getattr(sample, group)
        if kept is None:
            raise HemalumError(f"sample {sample.id} has no {group}; choose another group")
        sample = replace(sample, group=kept)
    safe = re.sub(r"[^\w.-]+", "_", sample.id).lstrip(".")
    if not safe:
        raise HemalumError(f"sample {sample.id!r}: the id has no letter or digit to name a file by")
    return replace(sample, id=safe)


def _grouped(written: Sequence[_Written]) -> list[Row]:
    """The rows; where edges were asked for, tiles of one field share the group of the first of them."""
    rows = [entry.row for entry in written]
    edges = [entry.edges for entry in written if entry.edges is not None]
    if len(edges) < len(rows):
        return rows
    firsts = same_field(edges, [entry.kind for entry in written])
    return [replace(row, group=rows[first].id) for row, first in zip(rows, firsts, strict=True)]


def _scaled(rows: Sequence[Row], written: Sequence[_Written]) -> list[Row]:
    scales = mpp_from_nuclei([entry.diameters for entry in written], [entry.kind for entry in written])
    return [
        replace(row, mpp=scale, mpp_source=None if scale is None else "nuclei")
        for row, scale in zip(rows, scales, strict=True)
    ]


def _sync(folder: Path) -> None:
    """Have every file on the disk before the folder gets its final name."""
    for file in folder.rglob("*"):
        if file.is_file():
            with file.open("rb+") as stream:
                os.fsync(stream.fileno())


@contextmanager
def _folder_beside(dst: Path, src: Path, overwrite: bool) -> Iterator[Path]:
    """A fresh folder beside `dst` that becomes `dst` on success and vanishes on any exception."""
    if dst.exists() and not dst.is_dir():
        raise HemalumError(f"{dst}: is a file; name a folder")
    occupied = dst.is_dir() and any(dst.iterdir())
    if occupied and not overwrite:
        raise HemalumError(f"{dst}: is not empty; choose another folder or overwrite it")
    if dst.is_dir() and src.resolve().is_relative_to(dst.resolve()):
        raise HemalumError(f"{dst}: holds the source {src}; choose another folder")
    parent = dst.resolve().parent
    fresh = parent / f".{dst.name}.{os.getpid()}.part"
    old = parent / f".{dst.name}.{os.getpid()}.old"
    try:
        parent.mkdir(parents=True, exist_ok=True)
        fresh.mkdir()
        yield fresh
        _sync(fresh)
        if occupied:
            dst.rename(old)
        elif dst.is_dir():
            dst.rmdir()
        fresh.replace(dst)
    except OSError as error:
        raise HemalumError(f"cannot write {dst}: {error.strerror or error}") from error
    finally:
        shutil.rmtree(fresh, ignore_errors=True)
        if dst.exists():
            shutil.rmtree(old, ignore_errors=True)
        elif old.exists():
            old.rename(dst)
