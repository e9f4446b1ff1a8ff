"""Label maps that another program made, in the place of a model; and label maps as the truth.

Files belong to images by name (`hemalum.data.label_files`): a name with a tail comes before GeoJSON, and GeoJSON
before a bare name, which beside them is likely the photograph. The tail may be missing on either side: `a_masks.png`
and `a_cp_masks.tif` are both `a`.
"""

import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from hemalum.data.annotations import class_numbers
from hemalum.data.dataset import Dataset
from hemalum.data.label_files import JoinedLabels, join_labels, list_label_files, stem_of, without_tail
from hemalum.data.label_formats import LABEL_ENDINGS, is_common
from hemalum.data.label_maps import Instances, read_instances
from hemalum.data.pixels.orientation import EXCHANGED
from hemalum.data.sample import Sample
from hemalum.errors import HemalumError, counted
from hemalum.experiments.segmenters import Segmentation
from hemalum.remarks import remark

log = logging.getLogger(__name__)

Missing = Literal["error", "empty"]


@dataclass(eq=False)
class LabelMaps:
    """A folder of label maps as a segmenter: a callable Sample → (H, W) int32.

    With `components`, the nuclei of a binary mask are its 8-connected components; without, it is refused.
    `missing` "empty" counts an image without a file as one where nothing was found. With `class_names` by id, the
    classifications of GeoJSON files become classes, and a Segmentation is given. `doubts` are the warnings about
    files that were read. Raises HemalumError when `folder` holds no label maps.
    """

    folder: Path
    components: bool = False
    missing: Missing = "error"
    class_names: Mapping[int, str] = field(default_factory=dict)
    counted_as_empty: list[str] = field(default_factory=list)
    doubts: list[str] = field(default_factory=list)
    _files: list[Path] = field(init=False, repr=False)
    _joined: JoinedLabels = field(init=False, repr=False)
    _ids: frozenset[str] = field(init=False, repr=False, default=frozenset())

    def __post_init__(self) -> None:
        self.folder = Path(self.folder)
        if self.missing not in ("error", "empty"):
            raise HemalumError(f"missing {self.missing!r}: want 'error' or 'empty'")
        self._files = _label_files(self.folder)
        self._join(())

    def _join(self, ids: Iterable[str]) -> None:
        # a_masks.png is that of the image "a_masks" where there is one
        self._ids = frozenset(ids)
        self._joined = join_labels(self._files, sorted(self._ids))

    @property
    def name(self) -> str:
        """The name of the folder: what a table calls the method."""
        return self.folder.resolve().name

    def check(self, wanted: Sequence[str], known: Iterable[str] = ()) -> None:
        """Compare the files with the images before the first is read.

        `wanted` are the ids to evaluate, `known` all ids of the dataset: files of neither are named in a warning.
        Raises HemalumError when images have no file, unless `missing` is "empty", or several.
        """
        self._join((*wanted, *known))
        files = {name: self.file_of(name) for name in wanted}
        absent = [name for name, path in files.items() if path is None]
        if len(absent) == len(files):
            raise HemalumError(
                f"{self.folder}: no file belongs to any of {counted(len(files), 'image')}; images are called like "
                f"{wanted[0]!r}, files like {stem_of(self._files[0])!r}"
            )
        if absent and self.missing == "error":
            raise HemalumError(
                f"{self.folder}: no label map for {len(absent)} of {len(files)} images: {_few(absent)}; "
                "add them, or count them as images where nothing was found (--missing empty)"
            )
        self.counted_as_empty = absent
        if absent:
            log.warning(
                "%s: %d images without a label map count as empty: %s", self.folder, len(absent), _few(absent)
            )
        extra = [path.name for path in (*self._joined.unmatched, *self._joined.ambiguous, *self._joined.by_products)]
        if extra:
            log.warning("%s: %s without an image: %s", self.folder, counted(len(extra), "file"), _few(extra))

    def check_dataset(self, dataset: Dataset, split: str | None) -> None:
        """Check the files against the images of a part of a dataset, None: of all of it; see `check`."""
        part = dataset if split is None else dataset.split(split)
        self.check([row.id for row in part.rows], [row.id for row in dataset.rows])

    def __call__(self, sample: Sample) -> NDArray[np.int32] | Segmentation:
        """Give the label map of a sample, with classes where its file has any of `class_names`.

        Raises HemalumError when it is missing or does not fit.
        """
        path = self.file_of(sample.id)
        if path is None:
            if self.missing == "error":
                raise HemalumError(f"{self.folder}: no label map for image {sample.id}")
            if sample.id not in self.counted_as_empty:
                self.counted_as_empty.append(sample.id)
            return np.zeros_like(sample.instances)
        height, width = sample.instances.shape
        read = read_instances(path, (height, width), masks=self.components, prediction=True)
        self.doubts += _warn_of(path, read)
        labels = read.labels
        if self.class_names and read.class_names is not None:
            classes = _classes(path, read.class_names, self.class_names)
            return labels if classes is None else Segmentation(labels, classes)
        if labels.shape != sample.instances.shape:
            raise HemalumError(
                f"{path}: label map is {_size(labels)}, its image {sample.id} is {_size(sample.instances)}; "
                f"save it at the size of the image{EXCHANGED if labels.T.shape == sample.instances.shape else ''}"
            )
        return labels

    def file_of(self, name: str) -> Path | None:
        """The file of an image by its id, if there is one. Raises HemalumError when two fit equally well."""
        if name not in self._ids:
            self._join((*self._ids, name))
        return self._joined.file_of(name)


@dataclass(eq=False)
class Truth:
    """A folder of label maps as the truth: iterates over Samples with blank images, by name.

    For scoring label maps against label maps where the images are not at hand; `ids` are the names without
    tail. `mpp` is µm per pixel of all of them; `doubts` as of `LabelMaps`. Raises HemalumError as `LabelMaps` does,
    and for GeoJSON, which has no size.
    """

    folder: Path
    components: bool = False
    mpp: float | None = None
    ids: list[str] = field(init=False)
    doubts: list[str] = field(init=False, default_factory=list)

    def __post_init__(self) -> None:
        self.folder = Path(self.folder)
        self.ids = sorted({without_tail(stem_of(path)) for path in _label_files(self.folder) if not is_common(path)})

    @property
    def name(self) -> str:
        """What the summary calls the dataset."""
        return self.folder.resolve().name

    def __iter__(self) -> Iterator[Sample]:
        maps = LabelMaps(self.folder, components=self.components)
        maps.check(self.ids)
        for name in self.ids:
            path = maps.file_of(name)
            if path is None:
                raise HemalumError(f"{self.folder}: the label map of {name} is gone")
            read = read_instances(path, masks=self.components)
            labels = read.labels
            self.doubts += _warn_of(path, read)
            # one white pixel, seen everywhere: nobody looks at the picture
            blank = np.broadcast_to(np.uint8(255), (*labels.shape, 3))
            source = None if self.mpp is None else "user"
            yield Sample(blank, labels, id=name, source=name, group=name, mpp=self.mpp, mpp_source=source)


def evaluation_inputs(
    model: str | Path,
    dataset: Path | str | None,
    truth: Path | str | None,
    *,
    components: bool = False,
    missing: str = "error",
    mpp: float | None = None,
) -> tuple[str | Path | LabelMaps, Path | str | Truth]:
    """What `evaluate` scores and against what: a model or label maps, and a dataset or `Truth`.

    Raises HemalumError for combinations that mean nothing.
    """
    if (dataset is None) == (truth is None):
        raise HemalumError("give one of DATASET and --truth FOLDER: a dataset folder, or a folder of true label maps")
    maps = None
    if is_label_folder(model):
        maps = LabelMaps(Path(model), components=components, missing=missing)  # type: ignore[arg-type]
    elif truth is not None:
        raise HemalumError(
            f"{model}: no such folder; --truth compares label maps with label maps, "
            "a model needs the images of a DATASET"
        )
    elif components or missing != "error":
        raise HemalumError(f"--components and --missing are for a folder of label maps; there is no folder {model}")
    if truth is not None:
        return maps or model, Truth(Path(truth), components=components, mpp=mpp)
    return maps or model, dataset or ""


def is_label_folder(model: object) -> bool:
    """Whether a "model" is a folder of label maps; the name of a shipped model never is."""
    from hemalum.models.model import shipped_models

    return isinstance(model, (str, Path)) and str(model) not in shipped_models() and Path(model).is_dir()


def _classes(path: Path, names: Sequence[str | None], class_names: Mapping[int, str]) -> NDArray[np.int32] | None:
    """Class by id of polygons with these classifications, None where no name is a class of the dataset.

    0 for a polygon without a classification. Raises HemalumError where only some are: they would count as false.
    """
    numbers = class_numbers(names, class_names)
    present = sorted({name for name in names if name is not None and numbers.get(name) != 0})
    unknown = [name for name in present if name not in numbers]
    if len(unknown) == len(present):
        return None
    if unknown:
        raise HemalumError(
            f"{path}: classification {unknown[0]!r} is no class of the dataset; "
            f"classes are {', '.join(class_names.values())}"
        )
    return np.array([numbers[name] for name in names], np.int32)


def _label_files(folder: Path) -> list[Path]:
    if not folder.is_dir():
        raise HemalumError(f"{folder}: no such folder of label maps")
    files = list_label_files(folder)
    if not files:
        inside = [path for path in sorted(folder.iterdir()) if path.is_dir() and path.name in ("labels", "masks")]
        hint = f"; did you mean {inside[0]}?" if inside else ""
        raise HemalumError(f"{folder}: no label maps in this folder ({', '.join(LABEL_ENDINGS)}){hint}")
    return files


def _warn_of(path: Path, read: Instances) -> list[str]:
    """The doubts about a label file, which the log is told as well."""
    doubts = [(doubt.message, str(doubt.kind)) for doubt in read.doubts]
    if read.drawn is not None and read.drawn.others:
        doubts.append((f"left out, since it is no nucleus: {read.drawn.others}", "no nucleus"))
    for message, kind in doubts:
        remark(path, message, kind)
    return [f"{path}: {message}" for message, _ in doubts]


def _few(names: Sequence[str]) -> str:
    return ", ".join(names[:8]) + (", …" if len(names) > 8 else "")


def _size(labels: NDArray[np.int32]) -> str:
    return f"{labels.shape[1]} x {labels.shape[0]}"
