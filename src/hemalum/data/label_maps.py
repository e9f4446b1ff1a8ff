"""Label maps and binary masks: which is which, from a mask to instances, from stored numbers to ids."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cc3d
import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from skimage.feature import peak_local_max
from skimage.filters import gaussian
from skimage.segmentation import watershed

from hemalum.data.annotations.drawn_labels import DrawnLabels
from hemalum.data.label_faults import LabelFault, find_faults
from hemalum.data.label_formats import Shape, is_drawn, read_stored_labels
from hemalum.data.label_pixels import to_class_map, to_label_map
from hemalum.errors import HemalumError

MIN_RADIUS_UM = 1.6  # centers nearer than a small nucleus's width are one nucleus
SMOOTHING_UM = 0.5  # stain grain, well below the size of a nucleus


@dataclass(frozen=True, eq=False)
class Instances:
    """The nuclei of a label file.

    `labels` are (H, W) int32, `was_mask` says that they are the components of a binary mask. `class_names` has the
    name of each nucleus's class by its id, None for formats that name no classes. `doubts` are for warnings, `drawn`
    is what a file of outlines says beside its nuclei.
    """

    labels: NDArray[np.int32]
    was_mask: bool = False
    class_names: Sequence[str | None] | None = None
    doubts: tuple[LabelFault, ...] = ()
    drawn: DrawnLabels | None = None


def read_instances(
    path: Path,
    shape: Shape | None = None,
    image_file: Path | None = None,
    *,
    masks: bool = True,
    prediction: bool = False,
) -> Instances:
    """The nuclei of a label file of any format; `shape` is that of its image as seen, which outlines are drawn on.

    Labels that fit only what `image_file` stores, not what its orientation makes of it, are turned with it.

    The nuclei of a binary mask are its connected components (8 neighbors), so touching nuclei are one.

    Raises HemalumError for a file that cannot be read, what is no label map (`label_faults`), and without `masks`
    for a binary mask. A prediction may be as wrong as it likes: of it only shades of gray are refused.
    """
    stored = read_stored_labels(path, shape, image_file)
    labels = to_label_map(stored.pixels, path)
    if is_drawn(path):
        return Instances(labels, class_names=stored.class_names, drawn=stored.drawn)
    mask = is_binary(labels)
    if mask and not masks:
        raise HemalumError(
            f"{path}: a binary mask (0 and {int(labels.max())}), not a label map; export label maps, or take its "
            "connected pieces as nuclei with --components (touching nuclei are then one)"
        )
    if mask:
        labels = components(labels)
    faults = find_faults(labels)
    for fault in faults:
        if fault.refused and (fault.kind == "shades" or not prediction):
            raise HemalumError(f"{path}: {fault.message}")
    return Instances(labels, mask, doubts=tuple(faults))


def read_ids(
    path: Path, shape: Shape | None = None, image_file: Path | None = None
) -> tuple[NDArray[np.int32], DrawnLabels | None]:
    """(H, W) int32 ids of a label file of any format, whatever they mean; of outlines, those that are annotated.

    They are turned as by `read_instances`. Raises HemalumError for a file that cannot be read.
    """
    stored = read_stored_labels(path, shape, image_file)
    return to_label_map(stored.pixels, path) if stored.drawn is None else stored.drawn.annotated(), stored.drawn


def read_class_map(path: Path, shape: Shape | None = None, image_file: Path | None = None) -> NDArray[np.int32]:
    """(H, W) int32 class ids of a file of any format of pixels, as stored but for the turn of `read_instances`.

    Raises HemalumError for a file that cannot be read.
    """
    return to_class_map(read_stored_labels(path, shape, image_file).pixels, path)


def is_binary(stored: NDArray[np.int32]) -> bool:
    """Whether a label file holds a mask: one value besides 0, which is 255 or lies in several pieces."""
    values = np.unique(stored)
    values = values[values != 0]
    if len(values) != 1:
        return False
    return int(values[0]) == 255 or int(cc3d.connected_components(stored != 0, connectivity=8).max()) > 1


def components(mask: NDArray[np.int32] | NDArray[np.bool_]) -> NDArray[np.int32]:
    """(H, W) int32 numbers of the 8-connected components of a mask."""
    numbered: NDArray[np.int32] = cc3d.connected_components(mask != 0, connectivity=8).astype(np.int32)
    return numbered


def to_integers(values: NDArray[Any], where: str, *, largest: int | None = None) -> NDArray[np.int32]:
    """Ids or classes that an array stores in any numeric dtype, as int32 of the same shape.

    `where` (file and field) is for messages; ids run from 0 to `largest`, by default the number of values:
    an image cannot have more nuclei than pixels, and tables by id are as long as the largest id.

    Raises HemalumError for fractions, NaN, negative numbers and numbers that are too large.
    """
    if values.dtype.kind not in "uifb":
        raise HemalumError(f"{where}: holds {values.dtype}, want whole numbers")
    if values.dtype.kind == "f" and not (np.isfinite(values).all() and (values == np.floor(values)).all()):
        raise HemalumError(f"{where}: holds fractions or NaN; ids and classes are whole numbers")
    top = values.size if largest is None else largest
    if values.size and (values.min() < 0 or values.max() > top):
        raise HemalumError(f"{where}: runs from {values.min():g} to {values.max():g}, must lie in 0 to {top}")
    return values.astype(np.int32)


def same_size(
    where: Path | str, labels: NDArray[Any], image: NDArray[np.uint8], words: str = "labels are {}, their image {}"
) -> None:
    """Raise HemalumError, in these words, when labels (H, W) and image (H, W, 3) differ in size."""
    if labels.shape[:2] != image.shape[:2]:
        raise HemalumError(f"{where}: {words.format(size_text(labels), size_text(image))}")


def size_text(pixels: NDArray[Any]) -> str:
    """Width and height of an image or label map as messages have them."""
    return f"{pixels.shape[1]} x {pixels.shape[0]}"


def split_touching(mask: NDArray[np.bool_], mpp: float) -> NDArray[np.int32]:
    """(H, W) int32 nuclei of a mask (H, W) bool: a watershed on the smoothed distance transform. mpp in µm per px."""
    depth = gaussian(ndimage.distance_transform_edt(mask), SMOOTHING_UM / mpp)
    pieces, _ = ndimage.label(mask)
    peaks = peak_local_max(
        depth, min_distance=max(1, round(MIN_RADIUS_UM / mpp)), labels=pieces, exclude_border=False
    )
    markers = np.zeros(mask.shape, np.int32)
    markers[tuple(peaks.T)] = np.arange(1, len(peaks) + 1)
    labels: NDArray[np.int32] = watershed(-depth, markers, mask=mask).astype(np.int32)
    return labels
