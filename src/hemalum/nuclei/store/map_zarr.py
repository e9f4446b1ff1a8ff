"""Maps of a slide as OME-Zarr: one image with a channel for each, which lies on the slide in any viewer."""

from pathlib import Path
from typing import Any

import numpy as np

from hemalum.files import new_folder
from hemalum.nuclei.store.maps import SlideMaps

CHUNK = 512  # cells
SMALLEST = 128  # cells, longer side of the last level


def write_map_zarr(maps: SlideMaps, path: Path | str, *, name: str = "maps") -> Path:
    """Write maps as a multiscale image (OME-NGFF 0.5, Zarr 3) with axes c, y, x, float32; gives the path.

    Channels are `maps.layers()`; nan is where there is nothing to say. Scale and translation are in µm, so that the
    maps lie on the slide. Each further level halves the grid, and is made of the sums, not of means of means.

    Raises HemalumError when `path` is there, and when it cannot be written.
    """
    import zarr  # half a second, which reading a store does not need

    levels = [maps]
    while max(levels[-1].shape) > SMALLEST:
        levels.append(levels[-1].coarser(2))
    layers = list(maps.layers())
    with new_folder(path) as folder:
        group = zarr.open_group(folder, mode="w", zarr_format=3)
        group.attrs["ome"] = _metadata(levels, name) | {
            "omero": {"channels": [{"label": layer.name, "active": not n} for n, layer in enumerate(layers)]}
        }
        group.attrs["hemalum"] = {
            "channels": [{"name": layer.name, "title": layer.title, "unit": layer.unit} for layer in layers]
        }
        for number, level in enumerate(levels):
            array = group.create_array(
                str(number), shape=(len(layers), *level.shape), chunks=(1, CHUNK, CHUNK), dtype=np.float32,
                fill_value=np.nan, dimension_names=("c", "y", "x"),
            )  # fmt: skip
            for channel, layer in enumerate(level.layers()):
                array[channel] = layer.values
    return Path(path)


def _metadata(levels: list[SlideMaps], name: str) -> dict[str, Any]:
    datasets = []
    for number, level in enumerate(levels):
        # the center of the first cell, where 0 is the center of the slide's first pixel
        first = [(side - level.mpp) / 2 for side in level.side]
        transformations = [
            {"type": "scale", "scale": [1.0, *level.side]},
            {"type": "translation", "translation": [0.0, *first]},
        ]
        datasets.append({"path": str(number), "coordinateTransformations": transformations})
    axes = [{"name": "c", "type": "channel"}]
    axes += [{"name": axis, "type": "space", "unit": "micrometer"} for axis in "yx"]
    return {"version": "0.5", "multiscales": [{"name": name, "axes": axes, "datasets": datasets, "type": "mean"}]}
