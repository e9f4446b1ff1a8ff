"""Label maps that another program made, in the place of a model; and label maps as the truth.

A file belongs to the image whose id is its name without the ending, or that without a tail:

    a.png   a.tif   a.ome.tif   a.npy   a.geojson   a_cp_masks.png (Cellpose)   a_labels.tif   a-labels.tif …

Where several fit, a name with a tail comes before GeoJSON, and GeoJSON before a bare name, which beside them is
likely the photograph. The tail may be missing on either side: `a_masks.png` and `a_cp_masks.tif` are both `a`.
"""

import logging
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from hemalum.data.annotations.qupath import read_geojson
from hemalum.data.dataset import Dataset
from hemalum.data.image import MAX_PIXELS, check_size, read_label_map, to_label_map
from hemalum.data.label_maps import components as connected
from hemalum.data.label_maps import is_binary
from hemalum.data.sample import Sample
from hemalum.errors import HemalumError, counted
from hemalum.experiments.segmenters import Segmentation
from hemalum.nuclei.polygons import split_pieces

log = logging.getLogger(__name__)

ENDINGS = (".ome.tiff", ".ome.tif", ".tiff", ".tif", ".btf", ".png", ".npy", ".geojson")
# the longest first: _cp_masks is one tail
TAILS = tuple(
    f"{joint}{word}"
    for word in ("cp_masks", "instances", "instance", "labels", "label", "masks", "mask", "pred")
    for joint in ("_", "-", ".")
)
PICKLE = "_seg.npy"
PIECES_MOST = 10  # an id in more pieces than this, on average, is a shade of gray and no nucleus

Missing = Literal["error", "empty"]
Ranked = tuple[int, Path]  # of the files of one image, that of the lowest rank is taken


@dataclass(eq=False)
class LabelMaps:
    """A folder of label maps as a segmenter: a callable Sample → (H, W) int32.

    With `components`, the nuclei of a binary mask are its 8-connected components; without, it is refused.
    `missing` "empty" counts an image without a file as one where nothing was found. With `class_names` by id, the
    classifications of GeoJSON files become classes, and a Segmentation is given. Raises HemalumError when
    `folder` holds no label maps.
    """

    folder: Path
    components: bool = False
    missing: Missing = "error"
    class_names: Mapping[int, str] = field(default_factory=dict)
    counted_as_empty: list[str] = field(default_factory=list)
    _files: dict[str, list[Ranked]] = field(init=False, repr=False)  # by the ids that they may belong to
    _ids: frozenset[str] = field(init=False, repr=False, default=frozenset())

    def __post_init__(self) -> None:
        self.folder = Path(self.folder)
        if self.missing not in ("error", "empty"):
            raise HemalumError(f"missing {self.missing!r}: want 'error' or 'empty'")
        self._files = defaultdict(list)
        for path, stem in sorted(_label_files(self.folder), key=lambda file: _is_pickle(file[0])):
            if _is_pickle(path):
                self._files[stem[: -len("_seg")]].append((3, path))
                continue
            rank = 1 if path.suffix.lower() == ".geojson" else 2
            self._files[stem].append((rank, path))
            bare = without_tail(stem)
            if bare != stem:
                self._files[bare].append((0 if rank == 2 else 1, path))

    @property
    def name(self) -> str:
        """The name of the folder: what a table calls the method."""
        return self.folder.resolve().name

    def check(self, wanted: Sequence[str], known: Iterable[str] = ()) -> None:
        """Compare the files with the images before the first is read.

        `wanted` are the ids to evaluate, `known` all ids of the dataset: files of neither are named in a warning.
        Raises HemalumError when images have no file, unless `missing` is "empty", or several.
        """
        self._ids = frozenset(wanted) | frozenset(known)
        files = {name: self.file_of(name) for name in wanted}
        absent = [name for name, path in files.items() if path is None]
        if len(absent) == len(files):
            raise HemalumError(
                f"{self.folder}: no file belongs to any of {counted(len(files), 'image')}; images are called like "
                f"{wanted[0]!r}, files like {next(iter(self._files))!r}"
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
        used = {path for name in self._ids for _, path in self._files_of(name)}
        extra = sorted(path.name for path in {path for ranked in self._files.values() for _, path in ranked} - used)
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
        if self.class_names and path.suffix.lower() == ".geojson":
            drawn, names = read_geojson(path, (height, width))
            classes = _classes(path, names, self.class_names)
            return drawn if classes is None else Segmentation(drawn, classes)
        labels = read_labels(path, (height, width), components=self.components)
        if labels.shape != sample.instances.shape:
            raise HemalumError(
                f"{path}: label map is {_size(labels)}, its image {sample.id} is {_size(sample.instances)}; "
                "save it at the size of the image"
            )
        return labels

    def _files_of(self, name: str) -> list[Ranked]:
        # a_masks.png is that of the image "a_masks" where there is one
        others = self._ids - {name}
        return sorted(file for file in self._files.get(name, []) if _stem(file[1].name) not in others)

    def file_of(self, name: str) -> Path | None:
        """The file of an image by its id, if there is one. Raises HemalumError when two fit equally well."""
        files = self._files_of(name)
        if not files:
            return None
        (rank, first), *others = files
        if others and others[0][0] == rank:
            raise HemalumError(f"{others[0][1]}: a second label map for image {name}, beside {first.name}; keep one")
        return first


@dataclass(eq=False)
class Truth:
    """A folder of label maps as the truth: iterates over Samples with blank images, by name.

    For scoring label maps against label maps where the images are not at hand; `ids` are the names without
    tail. `mpp` is µm per pixel of all of them. Raises HemalumError as `LabelMaps` does, and for GeoJSON, which
    has no size.
    """

    folder: Path
    components: bool = False
    mpp: float | None = None
    ids: list[str] = field(init=False)

    def __post_init__(self) -> None:
        self.folder = Path(self.folder)
        self.ids = sorted({without_tail(stem) for _, stem in _label_files(self.folder)})

    @property
    def name(self) -> str:
        """What the summary calls the dataset."""
        return self.folder.resolve().name

    def __iter__(self) -> Iterator[Sample]:
        maps = LabelMaps(self.folder, components=self.components)
        for name in self.ids:
            path = maps.file_of(name)
            if path is None:
                raise HemalumError(f"{self.folder}: the label map of {name} is gone")
            labels = read_labels(path, None, components=self.components)
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


def read_labels(path: Path, shape: tuple[int, int] | None, *, components: bool = False) -> NDArray[np.int32]:
    """Read one label map (H, W) int32 of any form named above; `shape` (H, W) is what GeoJSON is drawn on.

    Raises HemalumError for a pickle, a binary mask (unless `components`: then its 8-connected pieces), a picture
    in the place of a label map, and what `read_label_map` and `read_geojson` refuse.
    """
    suffix = path.suffix.lower()
    if suffix == ".geojson":
        if shape is None:
            raise HemalumError(f"{path}: GeoJSON does not say the size of its image; as truth, give label maps")
        return read_geojson(path, shape)[0]
    labels = _read_npy(path) if suffix == ".npy" else read_label_map(path)
    if is_binary(labels):
        if not components:
            raise HemalumError(
                f"{path}: a binary mask (0 and {int(labels.max())}), not a label map; export label maps, or take its "
                "connected pieces as nuclei with --components (touching nuclei are then one)"
            )
        return connected(labels)
    ids = np.count_nonzero(np.unique(labels))
    pieces = int(split_pieces(labels).max())
    if pieces > PIECES_MOST * ids:
        raise HemalumError(
            f"{path}: {ids} values lie in {pieces} pieces: a picture or a map of probability, not a label map"
        )
    return labels


def _classes(path: Path, names: Sequence[str | None], class_names: Mapping[int, str]) -> NDArray[np.int32] | None:
    """Class by id of polygons with these classifications, None where no name is a class of the dataset.

    0 for a polygon without a classification. Raises HemalumError where only some are: they would count as false.
    """
    ids = {name.casefold(): number for number, name in class_names.items()}
    present = sorted({name for name in names if name is not None})
    unknown = [name for name in present if name.casefold() not in ids]
    if len(unknown) == len(present):
        return None
    if unknown:
        raise HemalumError(
            f"{path}: classification {unknown[0]!r} is no class of the dataset; "
            f"classes are {', '.join(class_names.values())}"
        )
    return np.array([0 if name is None else ids[name.casefold()] for name in names], np.int32)


def without_tail(stem: str) -> str:
    """A file's name without ending, without the tail that a program added."""
    lower = stem.lower()
    for tail in TAILS:
        if lower.endswith(tail) and len(stem) > len(tail):
            return stem[: -len(tail)]
    return stem


def _stem(name: str) -> str | None:
    """The name without its ending; None for a file that holds no label map."""
    lower = name.lower()
    ending = next((ending for ending in ENDINGS if lower.endswith(ending)), None)
    return None if ending is None or name.startswith(".") or len(name) == len(ending) else name[: -len(ending)]


def _is_pickle(path: Path) -> bool:
    return path.name.lower().endswith(PICKLE)


def _label_files(folder: Path) -> list[tuple[Path, str]]:
    if not folder.is_dir():
        raise HemalumError(f"{folder}: no such folder of label maps")
    try:
        files = sorted(path for path in folder.iterdir() if path.is_file())
    except OSError as error:
        raise HemalumError(f"{folder}: folder cannot be read ({error.strerror or error})") from error
    label_files = [(path, stem) for path in files if (stem := _stem(path.name)) is not None]
    if not label_files:
        inside = [path for path in sorted(folder.iterdir()) if path.is_dir() and path.name in ("labels", "masks")]
        hint = f"; did you mean {inside[0]}?" if inside else ""
        raise HemalumError(f"{folder}: no label maps in this folder ({', '.join(ENDINGS)}){hint}")
    return label_files


def _read_npy(path: Path) -> NDArray[np.int32]:
    if _is_pickle(path):
        raise HemalumError(
            f"{path}: Cellpose's _seg.npy is a pickle, which is never loaded; save the masks as images "
            "(cellpose --save_tif, or cellpose.io.save_masks)"
        )
    try:
        # mapped: a header that promises more than the file holds takes no memory
        stored = np.load(path, mmap_mode="r", allow_pickle=False)
    except OSError as error:
        raise HemalumError(f"{path}: cannot be read ({error.strerror or error})") from error
    except Exception as error:  # NumPy's parser lets TokenError, IndentationError and TypeError through as well
        if "pickle" in str(error).lower() or "object" in str(error).lower():
            raise HemalumError(f"{path}: holds Python objects, which are never loaded; save a plain array") from error
        raise HemalumError(f"{path}: not a NumPy array file ({' '.join(str(error).split())[:120]})") from error
    if not isinstance(stored, np.ndarray) or stored.ndim != 2:
        held = f"shape {stored.shape}" if isinstance(stored, np.ndarray) else "several arrays"
        raise HemalumError(f"{path}: want one label map (H, W), this has {held}")
    check_size(path, stored.shape[0], stored.shape[1], MAX_PIXELS)
    return to_label_map(np.asarray(stored), path)


def _few(names: Sequence[str]) -> str:
    return ", ".join(names[:8]) + (", …" if len(names) > 8 else "")


def _size(labels: NDArray[np.int32]) -> str:
    return f"{labels.shape[1]} x {labels.shape[0]}"
