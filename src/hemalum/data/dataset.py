"""The dataset folder: what `import` writes and everything downstream reads.

dataset.yaml   title, license, citation, mpp, counts, split rule, seed and hash (DatasetInfo)
index.csv      one row per image (Row)
images/        PNG, 8-bit RGB
labels/        PNG uint16 (TIFF uint32 where an id exceeds 65535), 0 = background
classes/       PNG uint8 class maps, where the source has classes
ambiguous/     PNG 0/255, where the source marks what its annotators could not tell; 128 where nobody has annotated
"""

import csv
import hashlib
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, Self

import numpy as np
import yaml
from numpy.typing import NDArray
from PIL import Image
from pydantic import BaseModel, ConfigDict, ValidationError

from hemalum.data.image import read_image
from hemalum.data.label_pixels import read_label_map
from hemalum.data.sample import Sample
from hemalum.data.splits import PARTS, Part, split_hash
from hemalum.errors import HemalumError, one_line
from hemalum.settings import explain
from hemalum.tables import TableRow, as_posix, read_table

FORMAT = 2  # 1: keys before version 0.2
INFO_FILE = "dataset.yaml"
INDEX_FILE = "index.csv"
UNANNOTATED = 128  # in a mask of ambiguous areas, where 255 is what the annotators could not tell
OF_SAMPLES = ("id", "source", "group", "organ", "stain", "mpp", "mpp_source")  # columns that are fields of Sample
DECISIVE = ("id", "sha256", "mpp", "organ", "stain", "group", "split")  # say what images are and how they are used


class SplitInfo(BaseModel):
    """How the parts were made; `sha256` is `splits.split_hash` over all samples.

    `published` is the publication's rule in words, None where shares by group made the parts; `fold` is the
    fold of it; `note` says what the publication leaves open and was decided here (where val comes from).
    `fractions` are the shares asked for, None where no share was used.
    """

    model_config = ConfigDict(extra="forbid")

    by: str
    stratified_by: str | None = None
    fractions: tuple[float, float, float] | None = None
    published: str | None = None
    fold: int | None = None
    note: str | None = None
    test_groups: list[str] | None = None
    seed: int
    sha256: str
    counts: dict[str, int]

    @classmethod
    def of(cls, parts: Mapping[str, Part], **how: Any) -> Self:
        """What is said of parts by id; `how` holds the other fields."""
        counts = {part: sum(name == part for name in parts.values()) for part in PARTS}
        return cls(sha256=split_hash(parts), counts=counts, **how)


class DatasetInfo(BaseModel):
    """What dataset.yaml holds. `mpp` is given when all images share it; each row has its own as well."""

    model_config = ConfigDict(extra="forbid")

    format: int = FORMAT
    name: str
    title: str = ""
    license: str = ""
    citation: str = ""
    url: str = ""
    source_format: str = ""
    mpp: float | None = None
    mpp_source: str | None = None
    mpp_note: str = ""
    classes: dict[int, str] | None = None
    images: int
    nuclei: int
    split: SplitInfo


@dataclass(frozen=True, slots=True)
class Row:
    """One line of index.csv. Paths are relative to the dataset folder; `sha256` is over the pixels."""

    id: str
    image: str
    label: str
    source: str
    group: str
    organ: str | None
    stain: str | None
    mpp: float | None
    mpp_source: str | None
    split: Part
    nuclei: int
    sha256: str
    classes: str | None = None
    ambiguous: str | None = None


@dataclass(frozen=True)
class Dataset(Sequence[Sample]):
    """A dataset folder, or one part of it. Images are decoded when asked for, nothing is kept.

    `len(dataset)`, `dataset[i]` and iteration give Samples; `rows` gives the index without reading images.
    """

    path: Path
    info: DatasetInfo
    rows: tuple[Row, ...]

    @classmethod
    def open(cls, path: Path | str) -> Self:
        """Open a dataset folder; only the two text files are read.

        Raises HemalumError when the folder, dataset.yaml or index.csv is missing or not as written.
        """
        path = Path(path)
        if not path.is_dir():
            raise HemalumError(f"{path}: no such dataset folder")
        info = _read_info(path / INFO_FILE)
        rows = tuple(_read_rows(path / INDEX_FILE))
        if not rows:
            raise HemalumError(f"{path / INDEX_FILE}: no images are listed")
        return cls(path, info, rows)

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return replace(self, rows=self.rows[index])
        return self._read(self.rows[index])

    def __iter__(self) -> Iterator[Sample]:
        return map(self._read, self.rows)

    def split(self, part: str) -> Self:
        """The samples of "train", "val" or "test" (may be none). Raises HemalumError for other names."""
        if part not in PARTS:
            raise HemalumError(f"split {part!r}: parts are {', '.join(PARTS)}")
        return replace(self, rows=tuple(row for row in self.rows if row.split == part))

    @property
    def class_names(self) -> dict[int, str]:
        """Names of the classes of nuclei by id, in the order of the ids, without 0; empty where there are none."""
        return {number: name for number, name in sorted((self.info.classes or {}).items()) if number > 0}

    @property
    def split_hash(self) -> str:
        """sha256 of the whole dataset's split, also when only a part of it is open."""
        return self.info.split.sha256

    def digest(self) -> str:
        """sha256 over all that a training learns from and a measurement looks at, image by image in their order."""
        return hash_lines(self.lines())

    def lines(self) -> list[str]:
        """What `digest` is over, for one over more than one dataset.

        The names of the classes, then a line for each row: the columns of `DECISIVE`, and what its label map, class
        map and ambiguous mask hold now, which is read. Raises HemalumError for a file that cannot be read.
        """
        with ThreadPoolExecutor(max(1, min(16, os.cpu_count() or 1))) as pool:
            truths = list(pool.map(self._hash_truth, self.rows))
        rows = [":".join(str(getattr(row, column)) for column in DECISIVE) for row in self.rows]
        return [str(self.class_names), *(f"{row}:{truth}" for row, truth in zip(rows, truths, strict=True))]

    def _hash_truth(self, row: Row) -> str:
        files = (row.label, row.classes, row.ambiguous)
        return ":".join("" if file is None else pixel_hash(read_label_map(self.path / file)) for file in files)

    def _read(self, row: Row) -> Sample:
        instances = read_label_map(self.path / row.label)
        classes = None
        if row.classes is not None:
            classes = classes_by_instance(instances, read_label_map(self.path / row.classes))
        ambiguous = unannotated = None
        if row.ambiguous is not None:
            marks = read_label_map(self.path / row.ambiguous)
            ambiguous, unannotated = marks > 0, marks == UNANNOTATED
        return Sample(
            image=read_image(self.path / row.image),
            instances=instances,
            classes=classes,
            ambiguous=ambiguous,
            unannotated=unannotated if unannotated is not None and unannotated.any() else None,
            **{name: getattr(row, name) for name in OF_SAMPLES},
        )


def write_sample(folder: Path, sample: Sample) -> Row:
    """Write the images of one sample into a dataset folder and give its row; the split comes later."""
    image = f"images/{sample.id}.png"
    # level 1: a third larger than the default, five times as fast, and fast to decode in training
    _save_png(folder / image, sample.image)
    if sample.instances.min() < 0:
        raise HemalumError(f"sample {sample.id}: label map has negative ids")
    if sample.instances.max() <= np.iinfo(np.uint16).max:
        label = f"labels/{sample.id}.png"
        _save_png(folder / label, sample.instances.astype(np.uint16))
    else:
        import tifffile

        label = f"labels/{sample.id}.tif"
        (folder / label).parent.mkdir(exist_ok=True)
        tifffile.imwrite(folder / label, sample.instances.astype(np.uint32), compression="zlib")
    classes = ambiguous = None
    if sample.classes is not None:
        if sample.classes.min() < 0 or sample.classes.max() > 255:
            raise HemalumError(f"sample {sample.id}: classes must be 0 to 255")
        classes = f"classes/{sample.id}.png"
        _save_png(folder / classes, sample.classes.astype(np.uint8)[sample.instances])
    if sample.ambiguous is not None:
        ambiguous = f"ambiguous/{sample.id}.png"
        marks = sample.ambiguous.astype(np.uint8) * np.uint8(255)
        if sample.unannotated is not None:
            marks[sample.unannotated] = UNANNOTATED
        _save_png(folder / ambiguous, marks)
    return Row(
        image=image,
        label=label,
        split="train",
        nuclei=int(np.count_nonzero(np.bincount(sample.instances.ravel())[1:])),
        sha256=pixel_hash(sample.image),
        classes=classes,
        ambiguous=ambiguous,
        **{name: getattr(sample, name) for name in OF_SAMPLES},
    )


def write_index(folder: Path, info: DatasetInfo, rows: Sequence[Row]) -> None:
    """Write dataset.yaml and index.csv of a dataset folder."""
    names = [field.name for field in fields(Row)]
    with (folder / INDEX_FILE).open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow(names)
        for row in rows:
            values = [getattr(row, name) for name in names]
            writer.writerow(["" if value is None else value for value in values])
    text = yaml.safe_dump(
        info.model_dump(mode="json", exclude_none=True), sort_keys=False, allow_unicode=True, width=110
    )
    (folder / INFO_FILE).write_text(text, encoding="utf-8")


def hash_lines(lines: Iterable[str]) -> str:
    """sha256 of lines of text."""
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def pixel_hash(image: NDArray[np.uint8] | NDArray[np.int32]) -> str:
    """sha256 of shape and pixels: equal for the same image or label map whatever file format it came in."""
    digest = hashlib.sha256(f"{image.shape}".encode())
    digest.update(np.ascontiguousarray(image).data)
    return digest.hexdigest()


def classes_by_instance(instances: NDArray[np.int32], class_map: NDArray[np.int32]) -> NDArray[np.int32]:
    """(max id + 1,) int32: the class of each instance, taken from the most frequent class on its pixels."""
    if class_map.shape != instances.shape:
        raise HemalumError(f"class map is {class_map.shape}, its label map {instances.shape}")
    count = int(instances.max()) + 1
    classes, most = np.zeros(count, np.int32), np.zeros(count, np.int64)
    for number in np.unique(class_map):  # one class at a time: a table of ids by classes may not fit
        votes = np.bincount(instances[class_map == number], minlength=count)
        classes[votes > most] = number
        np.maximum(most, votes, out=most)
    classes[0] = 0
    return classes


def _save_png(path: Path, pixels: NDArray[np.uint8] | NDArray[np.uint16]) -> None:
    path.parent.mkdir(exist_ok=True)
    Image.fromarray(pixels).save(path, compress_level=1)


def _read_info(path: Path) -> DatasetInfo:
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise HemalumError(f"{path}: missing; is this a folder that `hemalum import` wrote?") from None
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise HemalumError(f"{path}: cannot be read ({one_line(error)})") from error
    if isinstance(content, Mapping) and content.get("format", FORMAT) != FORMAT:
        raise HemalumError(f"{path}: dataset format {content['format']}, this version reads {FORMAT}; import again")
    try:
        return DatasetInfo.model_validate(content)
    except ValidationError as error:
        raise HemalumError(f"{path}: {explain(error, DatasetInfo)}") from error


def _read_rows(path: Path) -> Iterator[Row]:
    if not path.exists():
        raise HemalumError(f"{path}: missing; import the data again")
    return map(_parse_row, read_table(path, [field.name for field in fields(Row)][:-2]))


def _parse_row(line: TableRow) -> Row:
    where = line.where
    values: dict[str, Any] = {field.name: line.get(field.name) or None for field in fields(Row)}
    for name in ("id", "image", "label", "source", "group", "nuclei", "sha256"):
        if values[name] is None:
            raise HemalumError(f"{where}: {name} is empty")
    for name in ("image", "label", "classes", "ambiguous"):
        if values[name] is not None:
            file = values[name] = as_posix(values[name])
            if Path(file).is_absolute() or ".." in Path(file).parts:
                raise HemalumError(f"{where}: {name} {file!r} points outside the dataset folder")
    if values["split"] not in PARTS:
        raise HemalumError(f"{where}: split is {values['split']!r}, must be one of {', '.join(PARTS)}")
    values["mpp"] = line.value("mpp")
    try:
        values["nuclei"] = int(values["nuclei"])
    except ValueError:
        raise HemalumError(f"{where}: nuclei is {values['nuclei']!r}, not a number") from None
    return Row(**values)
