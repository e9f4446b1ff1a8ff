"""Which files hold labels, and how each is read: the one list for import, check, evaluate and compare.

A format is a row of `LABEL_FORMATS`. Its reader gives what the file stores; what the numbers mean is decided in
`label_maps`, for all formats alike.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hemalum.data.annotations.arrays import read_mat
from hemalum.data.annotations.drawn_labels import DrawnLabels, read_drawn_labels
from hemalum.data.image import MAX_PIXELS, check_size, labels_as_seen
from hemalum.data.label_pixels import read_stored
from hemalum.errors import HemalumError, one_line

PICKLE = "_seg.npy"

Shape = tuple[int, int]  # height and width of an image, px


@dataclass(frozen=True, eq=False)
class StoredLabels:
    """What a label file stores: (H, W) or (H, W, channels) numbers of any dtype.

    `class_names` has the name of each nucleus's class by its id, None for one without; it is None for formats that
    name no classes. `drawn` is what a file of outlines says beside that.
    """

    pixels: NDArray[Any]
    class_names: Sequence[str | None] | None = None
    drawn: DrawnLabels | None = None


@dataclass(frozen=True)
class LabelFormat:
    """How files of one ending are read: a function of path and, for outlines, the shape and the file of their image.

    `outlines` are drawn, each a nucleus of its own, so they are no mask and have no size of their own. `classes` says
    whether a class map may come in this format. Files of other kinds are called so too where the ending is `common`:
    one that belongs to no image, or stands beside a label file, is passed over without a word.
    """

    read: Callable[[Path, Shape | None, Path | None], StoredLabels]
    outlines: bool = False
    classes: bool = True
    common: bool = False


def read_stored_labels(path: Path, shape: Shape | None = None, image_file: Path | None = None) -> StoredLabels:
    """What a label file of any format stores; `shape` is that of its image as seen, which outlines are drawn on.

    Labels that fit only what `image_file` stores, not what its orientation makes of it, are turned with it.

    Raises HemalumError for a name of no format, and what the format's reader refuses.
    """
    label_format = format_of(path.name)
    if label_format is None:
        raise HemalumError(f"{path}: no format of label files; these are read: {', '.join(LABEL_ENDINGS)}")
    stored = label_format.read(path, shape, image_file)
    if shape is None or image_file is None or label_format.outlines:
        return stored
    return replace(stored, pixels=labels_as_seen(stored.pixels, path, shape, image_file))


def format_of(name: str) -> LabelFormat | None:
    """The format of a file by its name; None for a file that holds no labels."""
    ending = label_ending(name)
    return None if ending is None else LABEL_FORMATS[ending]


def is_drawn(path: Path) -> bool:
    """Whether a label file holds outlines, so that each is a nucleus and its size is that of its image."""
    label_format = format_of(path.name)
    return label_format is not None and label_format.outlines


def is_common(path: Path) -> bool:
    """Whether files of other kinds have the ending of this label file too."""
    label_format = format_of(path.name)
    return label_format is not None and label_format.common


def label_ending(name: str) -> str | None:
    """The ending of a label file's name, in lower case; None where it is no such file."""
    lower = name.lower()
    match = next((ending for ending in LABEL_ENDINGS if lower.endswith(ending)), None)
    return None if match is None or name.startswith(".") or len(name) == len(match) else match


def _pixels(path: Path, *_: object) -> StoredLabels:
    return StoredLabels(read_stored(path))


def _npy(path: Path, *_: object) -> StoredLabels:
    if path.name.lower().endswith(PICKLE):
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
        raise HemalumError(f"{path}: not a NumPy array file ({one_line(error)})") from error
    if isinstance(stored, np.ndarray) and stored.ndim == 3 and 1 in (stored.shape[0], stored.shape[2]):
        stored = stored[0] if stored.shape[0] == 1 else stored[..., 0]
    if not isinstance(stored, np.ndarray) or stored.ndim != 2:
        held = f"shape {stored.shape}" if isinstance(stored, np.ndarray) else "several arrays"
        raise HemalumError(f"{path}: want one label map (H, W), this has {held}")
    check_size(path, stored.shape[0], stored.shape[1], MAX_PIXELS)
    return StoredLabels(np.asarray(stored))


def _mat(path: Path, *_: object) -> StoredLabels:
    return StoredLabels(read_mat(path, {"inst_map": (None, None)})["inst_map"])


def _outlines(path: Path, shape: Shape | None, image_file: Path | None) -> StoredLabels:
    if shape is None:
        kind = "GeoJSON does" if "json" in path.name.lower() else "outlines do"
        raise HemalumError(f"{path}: {kind} not say the size of its image; as truth, give label maps")
    drawn = read_drawn_labels(path, shape, image_file)
    return StoredLabels(drawn.labels, drawn.class_names, drawn)


_OUTLINES = LabelFormat(_outlines, outlines=True, classes=False)
_PERHAPS_OUTLINES = LabelFormat(_outlines, outlines=True, classes=False, common=True)
_PIXELS = LabelFormat(_pixels)
LABEL_FORMATS: dict[str, LabelFormat] = {
    ".ome.tiff": _PIXELS,
    ".ome.tif": _PIXELS,
    ".tiff": _PIXELS,
    ".tif": _PIXELS,
    ".btf": _PIXELS,
    ".png": _PIXELS,
    ".bmp": _PIXELS,
    ".npy": LabelFormat(_npy),
    ".mat": LabelFormat(_mat, classes=False),  # HoVer-Net and its kin: inst_map
    ".geojson": _OUTLINES,  # QuPath, as the next three
    ".geojson.gz": _OUTLINES,
    ".json": _PERHAPS_OUTLINES,
    ".json.gz": _PERHAPS_OUTLINES,
    ".xml": _PERHAPS_OUTLINES,  # Aperio ImageScope
    ".roi": _OUTLINES,  # ImageJ, as the next
    ".zip": _PERHAPS_OUTLINES,
}
LABEL_ENDINGS = tuple(sorted(LABEL_FORMATS, key=lambda ending: (-len(ending), ending)))
