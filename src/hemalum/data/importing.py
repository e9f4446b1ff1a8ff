"""`import`: from a published or private layout to the dataset folder, in one atomic step."""

import inspect
import logging
import os
import shutil
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from hemalum.data.dataset import Dataset, DatasetInfo, Row, SplitInfo, write_index, write_sample
from hemalum.data.label_fit import Misfit, find_misfit
from hemalum.data.mosaic import Edges, edges_of, same_field
from hemalum.data.nucleus_size import REFERENCE_DIAMETER_UM, equivalent_diameters, mpp_from_nuclei, scale_doubt
from hemalum.data.readers import READERS, Reader, looks_like
from hemalum.data.readers.files import safe_name
from hemalum.data.sample import MPP_RANGE, Sample
from hemalum.data.splits import Member, Part, published_split, split_by_group, warn_of_divided
from hemalum.errors import HemalumError, counted
from hemalum.remarks import gather_remarks
from hemalum.settings import as_number, check_seed

log = logging.getLogger(__name__)

SHARES = (0.7, 0.1, 0.2)
# what a reader may ask for and no user gives: the folder that is being written, for reports of the reader's own,
# and the scale, where the reader works in µm
FILLED_IN = ("path", "report_folder", "mpp")
GROUPS = ("image", "mosaic", "source", "organ", "stain")


@dataclass(frozen=True)
class _Entry:
    row: Row
    diameters: NDArray[np.float64]
    kind: tuple[str | None, tuple[int, ...]]
    edges: Edges | None
    part: Part | None
    fold: int | None
    misfit: Misfit | None


def import_dataset(  # noqa: PLR0913 (the verb's options)
    format: str,
    src: Path | str,
    dst: Path | str,
    *,
    mpp: float | Literal["nuclei"] | None = None,
    group: str | None = None,
    split: tuple[float, float, float] | Literal["published"] | None = None,
    fold: int | None = None,
    test_groups: Iterable[str] | None = None,
    stratify: Literal["stain", "organ"] | None = "stain",
    seed: int = 0,
    name: str | None = None,
    title: str | None = None,
    license: str | None = None,
    citation: str | None = None,
    url: str | None = None,
    mpp_note: str = "",
    overwrite: bool = False,
    on_progress: Callable[[Sample], None] | None = None,
    **options: object,
) -> Dataset:
    """Read `src` with the reader `format`, write a dataset folder at `dst`, and open it.

    `mpp` is µm per pixel for all images; None keeps what the index says, or what the publication of the set
    states; "nuclei" sets it per image so that its median nucleus has the reference diameter of 5.2 µm.
    `group` is what the split keeps together: "image", "source", "organ", "stain", "mosaic" (tiles that
    were cut from one field, recognized by their edges), or for `folder` any column of the index; None takes
    the reader's own choice. `split` gives the shares of train, val and test, or is "published": the parts of
    the publication (`fold` where it has folds, counted from 1); a val part that it lacks is cut from its train
    part by group. None takes the published split where there is one that has a test part and keeps groups
    together, else the shares 0.7, 0.1, 0.2. `stratify` spreads a property over all parts where the groups allow
    it; `test_groups` names the test part.
    `options` go to the reader. `on_progress` is called after each image (for progress).

    The folder is built beside `dst` and renamed when complete; a `dst` with something in it is refused
    unless `overwrite`. Raises HemalumError for every mistake in the data or the arguments.
    """
    if format not in READERS:
        raise HemalumError(f"no format {format!r}; formats are {', '.join(READERS)}")
    check_seed(seed)
    reader = READERS[format]
    src, dst = Path(src), Path(dst)
    if not src.exists():
        raise HemalumError(f"{src}: no such file or folder")
    mpp = as_number(mpp, "mpp")
    if isinstance(mpp, str) and mpp != "nuclei":
        raise HemalumError(f"mpp {mpp!r}: give a number in µm per pixel, or 'nuclei'")
    if isinstance(mpp, float | int) and not MPP_RANGE[0] < mpp < MPP_RANGE[1]:
        raise HemalumError(f"mpp {mpp}: µm per pixel must lie between {MPP_RANGE[0]:g} and {MPP_RANGE[1]:g}")
    if format == "folder" and group is not None:
        options["group"] = "image" if group == "mosaic" else group
    takes = inspect.signature(reader.read).parameters
    known = [option for option in takes if option not in FILLED_IN]
    for option in options:
        if option not in known:
            raise HemalumError(f"format {format} has no option {option!r}; it has {', '.join(known) or 'none'}")
        options[option] = _typed(option, options[option], takes[option].annotation)
    _check_split(format, reader, split, fold, test_groups)
    by = group or reader.group
    with gather_remarks(), _atomic_folder(dst, src, overwrite) as folder:
        filled = {"report_folder": folder, "mpp": mpp if isinstance(mpp, float | int) else None}
        filled = {option: value for option, value in filled.items() if option in takes}
        samples = _or_looks_like(_read(reader, src, options, filled), format, src)
        written: list[_Entry] = []
        seen: set[str] = set()
        for sample in samples:
            sample = _prepare(sample, reader, mpp, group if format != "folder" else None)
            if sample.id in seen:
                raise HemalumError(f"{src}: the id {sample.id!r} occurs more than once; name the images apart")
            seen.add(sample.id)
            row = write_sample(folder, sample)
            kind = (sample.stain, sample.image.shape)
            edges = edges_of(sample.image) if by == "mosaic" else None
            diameters, misfit = equivalent_diameters(sample.instances), find_misfit(sample.image, sample.instances)
            written.append(_Entry(row, diameters, kind, edges, sample.part, sample.fold, misfit))
            if on_progress is not None:
                on_progress(sample)
        if not written:
            raise HemalumError(f"{src}: no images of format {format}")
        reader = _complete(reader, src, options)
        if mpp is None:
            mpp_note = mpp_note or reader.mpp_note
        rows = _group_fields(written)
        if mpp == "nuclei":
            rows = _scale_by_nuclei(rows, written)
            mpp_note = mpp_note or (
                f"per image: the median equivalent diameter of its whole nuclei is {REFERENCE_DIAMETER_UM} µm"
            )
        members = [
            Member(
                id=row.id,
                group=row.group,
                stratum=None if stratify is None else getattr(row, stratify),
                source=row.source,
                part=entry.part,
                fold=entry.fold,
            )
            for row, entry in zip(rows, written, strict=True)
        ]
        named = None if test_groups is None else sorted(set(test_groups))
        parts, how = _divide(format, reader, members, split, fold, named, seed)
        rows = [replace(row, split=parts[row.id]) for row in rows]
        warn_of_divided([(row.source, row.split) for row in rows], dst)
        scales = {(row.mpp, row.mpp_source) for row in rows}
        _warn_of_mixed_scales(dst, rows)
        _warn_of_doubts(dst, rows, written)
        info = DatasetInfo(
            name=name or dst.name,
            title=title or (reader.title if format != "folder" else ""),
            license=license or reader.license,
            citation=citation or reader.citation,
            url=url or reader.url,
            source_format=format,
            mpp=rows[0].mpp if len(scales) == 1 else None,
            mpp_source=rows[0].mpp_source if len({source for _, source in scales}) == 1 else None,
            mpp_note=mpp_note,
            classes=dict(reader.classes) if reader.classes and any(row.classes for row in rows) else None,
            images=len(rows),
            nuclei=sum(row.nuclei for row in rows),
            split=SplitInfo.of(
                parts,
                by=by,
                stratified_by=stratify if any(member.stratum for member in members) else None,
                seed=seed,
                **how,
            ),
        )
        write_index(folder, info, rows)
    return Dataset.open(dst)


def _read(reader: Reader, src: Path, options: dict[str, Any], filled: Mapping[str, Any]) -> Iterator[Sample]:
    """The samples. The names of classes that the data states are looked for once, and put among the options."""
    if reader.classes_for is not None and "class_names" in inspect.signature(reader.read).parameters:
        options["class_names"] = dict(reader.classes_for(path=src, **options))
    yield from reader.read(src, **options, **filled)


def _complete(reader: Reader, src: Path, options: Mapping[str, Any]) -> Reader:
    """The reader with what it says of this data."""
    facts = {} if reader.facts_for is None else dict(reader.facts_for(path=src, **options))
    if reader.classes_for is not None:
        facts["classes"] = reader.classes_for(path=src, **options)
    return replace(reader, **facts)


def _typed(option: str, value: object, kind: object) -> object:
    """The value of a reader's option, text on a command line. Raises HemalumError for one of another kind."""
    if kind is bool and not isinstance(value, bool):
        raise HemalumError(f"option {option} is {value!r}; want true or false")
    if kind in (int, float) and isinstance(value, str | bool):
        try:
            number: int | float = int(str(value)) if kind is int else float(str(value))
        except ValueError:
            raise HemalumError(
                f"option {option} is {value!r}; want a {'whole ' if kind is int else ''}number"
            ) from None
        return number
    return value


def _check_split(
    format: str,
    reader: Reader,
    split: tuple[float, float, float] | str | None,
    fold: int | None,
    test_groups: Iterable[str] | None,
) -> None:
    """Raise HemalumError for a split, fold and test groups that do not go together."""
    if isinstance(split, str) and split != "published":
        raise HemalumError(f"split {split!r}: give three shares (train, val, test), or 'published'")
    if split == "published" and test_groups is not None:
        raise HemalumError("the published split names its test part itself; leave out the test groups")
    if split == "published" and not reader.published_rule:
        known = ", ".join(name for name, other in READERS.items() if other.published_rule)
        raise HemalumError(f"format {format} has no published split; formats that have one: {known or 'none'}")
    if fold is None:
        return
    if split not in (None, "published") or test_groups is not None:
        raise HemalumError(f"fold {fold}: folds belong to the published split; leave out the shares or the fold")
    if not 1 <= fold <= reader.folds:
        has = f"has folds 1 to {reader.folds}" if reader.folds else "has no published folds"
        raise HemalumError(f"fold {fold}: format {format} {has}")


def _or_looks_like(samples: Iterator[Sample], format: str, src: Path) -> Iterator[Sample]:
    """The samples; a reader that finds nothing of its own is told whose layout this is."""
    first = None
    try:
        first = next(samples, None)
    except HemalumError as error:
        others = looks_like(src)
        if not others or format in others:
            raise
        formats = " or ".join(f"'{name}'" for name in others)
        raise HemalumError(f"{error}; it looks like format {formats}") from error
    if first is not None:
        yield first
    yield from samples


def _divide(
    format: str,
    reader: Reader,
    members: Sequence[Member],
    split: tuple[float, float, float] | str | None,
    fold: int | None,
    test_groups: list[str] | None,
    seed: int,
) -> tuple[dict[str, Part], dict[str, Any]]:
    """Parts by id, and how they were made, as SplitInfo has it."""
    shares = split if isinstance(split, tuple) else SHARES
    asked = split == "published" or fold is not None
    unasked = reader.published_unasked and bool(reader.published_rule)
    if asked or (split is None and test_groups is None and unasked):
        number = (fold or 1) if reader.folds else 0
        try:
            published = published_split(members, reader.published, number, seed=seed)
        except HemalumError:
            if asked:
                raise
        else:
            cut = ""
            if published.apart:
                cut = f"{counted(len(published.apart), 'group')} in several parts, e.g. {published.apart[0]!r}"
            complete = {"train", "test"} <= set(published.parts.values())
            if asked and cut:
                log.warning("the published split of %s does not keep groups together: %s", format, cut)
            if asked or (complete and not cut):
                note = "; ".join(text for text in (published.note, cut) if text) or None
                return published.parts, {"published": reader.published_rule, "fold": number or None, "note": note}
            log.warning(
                "not split as published (%s); shares %s by group instead",
                cut or "a part of the publication is not here",
                ", ".join(f"{share:g}" for share in shares),
            )
    parts = split_by_group(members, shares, test_groups=test_groups, seed=seed)
    return parts, {"fractions": shares, "test_groups": test_groups}


def _warn_of_mixed_scales(dst: Path, rows: Sequence[Row]) -> None:
    """A set of mixed scales is allowed, since each image has its own, but nobody should find out later."""
    counts = Counter(row.mpp for row in rows if row.mpp_source != "nuclei")
    if len(counts) > 1:
        shown = ", ".join(
            f"{'none' if mpp is None else f'{mpp:g}'} ({counted(count, 'image')})"
            for mpp, count in counts.most_common(4)
        )
        log.warning("%s: the images differ in scale: mpp %s%s", dst, shown, ", …" if len(counts) > 4 else "")


def _warn_of_doubts(dst: Path, rows: Sequence[Row], written: Sequence[_Entry]) -> None:
    """Labels that do not lie on nuclei, and nuclei of an unlikely size: one line each, for all images."""
    misfits = [(entry.row.id, entry.misfit) for entry in written if entry.misfit is not None]
    if misfits:
        name, first = next((pair for pair in misfits if pair[1].better), misfits[0])
        log.warning(
            "%s: the labels of %d of %s do not lie on the nuclei (%s: %s); hemalum check names each",
            dst, len(misfits), counted(len(written), "image"), name,
            f"{first.better} they fit" if first.better else f"area under the ROC curve {first.area:.2f}",
        )  # fmt: skip
    scales = [None if row.mpp_source == "nuclei" else row.mpp for row in rows]
    doubt = scale_doubt([entry.diameters for entry in written], scales)
    if doubt:
        log.warning("%s: %s; mpp sets it", dst, doubt)


def _prepare(sample: Sample, reader: Reader, mpp: float | str | None, group: str | None) -> Sample:
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
    safe = safe_name(sample.id)
    if not safe:
        raise HemalumError(f"sample {sample.id!r}: the id has no letter or digit to name a file by")
    return replace(sample, id=safe)


def _group_fields(written: Sequence[_Entry]) -> list[Row]:
    """The rows; where edges were asked for, tiles of one field share the group of the first of them."""
    rows = [entry.row for entry in written]
    edges = [entry.edges for entry in written if entry.edges is not None]
    if len(edges) < len(rows):
        return rows
    firsts = same_field(edges, [entry.kind for entry in written])
    return [replace(row, group=rows[first].id) for row, first in zip(rows, firsts, strict=True)]


def _scale_by_nuclei(rows: Sequence[Row], written: Sequence[_Entry]) -> list[Row]:
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
def _atomic_folder(dst: Path, src: Path, overwrite: bool) -> Iterator[Path]:
    """A fresh folder beside `dst` that becomes `dst` on success and vanishes on any exception."""
    if dst.exists() and not dst.is_dir():
        raise HemalumError(f"{dst}: is a file; name a folder")
    occupied = dst.is_dir() and any(dst.iterdir())
    if occupied and not overwrite:
        raise HemalumError(f"{dst}: is not empty; choose another folder, or give --overwrite")
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
