"""Label maps and binary masks: telling them apart, and from a mask to instances."""

from pathlib import Path

import cc3d
import numpy as np
from numpy.typing import NDArray

from hemalum.data.image import read_label_map


def read_instances(path: Path) -> tuple[NDArray[np.int32], bool]:
    """(H, W) int32 instances of a label file, and whether it was a binary mask.

    The nuclei of a binary mask are its connected components (8 neighbours), so touching nuclei are one.
    """
    stored = read_label_map(path)
    if is_binary(stored):
        return components(stored), True
    return stored, False


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
