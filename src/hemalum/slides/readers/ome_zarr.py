"""OME-Zarr 0.4 (Zarr v2) and 0.5 (Zarr v3): the levels of the first image of a folder."""

import itertools
import json
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hemalum.data.pixels.channels import find_channel
from hemalum.data.pixels.samples import HISTOGRAM, Display, Stored, histogram, spreads_of
from hemalum.data.pixels.tiff import choose_channels
from hemalum.errors import HemalumError, one_line
from hemalum.remarks import remark
from hemalum.slides.readers.reader import (
    MAX_PIXELS_DECODED,
    BrokenTile,
    BrokenTiles,
    Pixels,
    Shape,
    consistent_levels,
    read_mended,
    tiles_in,
)
from hemalum.slides.readers.scale_tags import MICRONS, Scale

MAX_METADATA = 16 << 20  # bytes of one JSON file
# others may run code that the file brings (pickle), or are not known
CODECS = {
    "bytes", "transpose", "blosc", "gzip", "zstd", "crc32c", "sharding_indexed", "zlib", "lz4", "lzma", "bz2",
    "shuffle", "delta", "packbits",
}  # fmt: skip
METADATA = ("zarr.json", ".zgroup", ".zattrs")
Axes = dict[str, int]


def is_zarr(path: Path) -> bool:
    """Whether the folder is a Zarr group."""
    return path.is_dir() and any((path / name).is_file() for name in METADATA)


class ZarrReader:
    """An OME-Zarr image of 8 or 16 bits; see `Reader`."""

    offset = 0, 0

    def __init__(self, path: Path, channel: str | None = None) -> None:
        self.path, self.format = path, "OME-Zarr"
        self.broken = BrokenTiles(path)
        folder, multiscale = _find_image(path)
        axes = [str(axis.get("name", "")).lower() for axis in _list(multiscale, "axes", path)]
        if not {"y", "x"} <= set(axes) or len(set(axes)) != len(axes):
            raise HemalumError(f"{path}: OME-Zarr with axes {', '.join(axes) or 'of no name'}; y and x are needed")
        self.axes: Axes = {name: index for index, name in enumerate(axes)}
        datasets = _list(multiscale, "datasets", path)
        arrays = [_open_array(path, folder, entry, len(axes)) for entry in datasets]
        shapes = [(array.shape[self.axes["y"]], array.shape[self.axes["x"]]) for array in arrays]
        numbers = consistent_levels(shapes, path)
        self.arrays = [arrays[number] for number in numbers]
        self.shapes: tuple[Shape, ...] = tuple((int(shapes[number][0]), int(shapes[number][1])) for number in numbers)
        stored = self._find_stored(_channels(folder), channel)
        self.display = Display(stored, self.arrays[0].dtype, spreads_of(self._count), path)
        self.stated = _stated(multiscale, datasets[0], self.axes, path)
        names = [str(datasets[number]["path"]) for number in numbers]
        self.files = _identifying_files(path, folder, names)

    def read_level(self, level: int, y: int, x: int, height: int, width: int) -> Pixels:
        """Give (height, width, 3) RGB of a window of a level. A chunk that is left out is white in color, else 0."""

        def read(y: int, x: int, height: int, width: int) -> Pixels:
            pixels = self._read(level, y, x, height, width)
            return self._whiten(level, y, x, pixels, self.display.rgb(pixels))

        return read_mended(
            read, (y, x, height, width),
            level=level, shape=self.shapes[level], tile=self._chunk(level), broken=self.broken,
        )  # fmt: skip

    def close(self) -> None:
        """Nothing stays open."""

    def _find_stored(self, titles: list[str], channel: str | None) -> Stored:
        """What the channels are, by the names that the file gives them; `channel` is the one that a user names."""
        first = self.arrays[0]
        for axis in set(self.axes) - {"c", "y", "x"}:
            if first.shape[self.axes[axis]] > 1:
                remark(self.path, f"{first.shape[self.axes[axis]]} pictures along {axis}; the first is taken")
        channels = int(first.shape[self.axes["c"]]) if "c" in self.axes else 1
        if first.dtype not in (np.uint8, np.uint16):
            raise HemalumError(f"{self.path}: {first.dtype} pixels; save the image with 8 bits per channel")
        for array in self.arrays:
            if array.dtype != first.dtype or ("c" in self.axes and array.shape[self.axes["c"]] != channels):
                raise HemalumError(f"{self.path}: its levels have pixels of several kinds; export the image again")
        stored = Stored(bits=8 * first.dtype.itemsize)
        titles = titles if len(titles) == channels else []
        if channels == 1:
            if channel is not None:
                find_channel(channel, 1, titles, self.path)
            return stored
        return choose_channels(channels, titles, self.path, stored, channel=channel)

    def _chunk(self, level: int) -> Shape:
        array = self.arrays[level]
        chunks = array.shards or array.chunks
        return int(chunks[self.axes["y"]]), int(chunks[self.axes["x"]])

    def _read(self, level: int, y: int, x: int, height: int, width: int) -> NDArray[Any]:
        """(height, width, channels) as stored."""
        window: list[Any] = [0] * len(self.axes)
        window[self.axes["y"]], window[self.axes["x"]] = slice(y, y + height), slice(x, x + width)
        if "c" in self.axes:
            window[self.axes["c"]] = slice(None)
        pixels: NDArray[Any] = np.asarray(self.arrays[level][tuple(window)])
        kept = [name for name in sorted(self.axes, key=self.axes.__getitem__) if name in "cyx"]
        pixels = pixels.transpose([kept.index(name) for name in ("y", "x", "c") if name in kept])
        return pixels if "c" in kept else pixels[..., None]

    def _count(self) -> NDArray[np.int64]:
        """How often each value occurs in each channel of the finest level; chunks that cannot be read have no say."""
        channels = int(self.arrays[0].shape[self.axes["c"]]) if "c" in self.axes else 1
        counts = np.zeros((channels, HISTOGRAM), np.int64)
        for y, x, height, width in tiles_in((0, 0, *self.shapes[0]), self.shapes[0], self._chunk(0)):
            try:
                pixels = self._read(0, y, x, height, width)
            except Exception as error:
                self.broken.add(BrokenTile(0, x, y, width, height, one_line(error)))
                continue
            for channel in range(channels):
                counts[channel] += histogram(pixels[..., channel])
        return counts

    def _whiten(self, level: int, y: int, x: int, pixels: NDArray[Any], shown: Pixels) -> Pixels:
        """White where chunks are left out, or hold nothing but 0: of an image in color they were not scanned."""
        if not self.display.is_color or pixels.any(axis=2).all():
            return shown
        chunk = self.arrays[level].chunks
        tall, wide = int(chunk[self.axes["y"]]), int(chunk[self.axes["x"]])
        height, width = pixels.shape[:2]
        for top, left, rows, columns in tiles_in((y, x, height, width), self.shapes[level], (tall, wide)):
            part = np.s_[max(top - y, 0) : top + rows - y, max(left - x, 0) : left + columns - x]
            if not pixels[part].any() and not self._read(level, top, left, rows, columns).any():
                shown[part] = 255
        return shown


def _find_image(path: Path) -> tuple[Path, dict[str, Any]]:
    """The folder of the first image and its entry of `multiscales`; bioformats2raw puts images in folders 0, 1 …"""
    for folder in (path, path / "0"):
        attributes = _attributes(folder)
        scales = attributes.get("multiscales")
        if isinstance(scales, list) and scales and isinstance(scales[0], dict):
            version = str(attributes.get("version") or scales[0].get("version") or "")
            if not version.startswith(("0.4", "0.5")):
                raise HemalumError(f"{path}: OME-Zarr of version {version or 'unknown'}; 0.4 and 0.5 are read")
            return folder, scales[0]
    raise HemalumError(f"{path}: a Zarr folder without an OME-Zarr image (multiscales); give the image's own folder")


def _channels(folder: Path) -> list[str]:
    """Names of the channels, where the file has any."""
    omero = _attributes(folder).get("omero")
    channels = omero.get("channels") if isinstance(omero, dict) else None
    if not isinstance(channels, list) or not all(isinstance(one, dict) for one in channels):
        return []
    return [str(one.get("label", "")) for one in channels]


def _attributes(folder: Path) -> dict[str, Any]:
    if (folder / "zarr.json").is_file():
        attributes = _json(folder / "zarr.json").get("attributes", {})
        ome = attributes.get("ome", {}) if isinstance(attributes, dict) else {}
        return ome if isinstance(ome, dict) else {}
    return _json(folder / ".zattrs") if (folder / ".zattrs").is_file() else {}


def _json(path: Path) -> dict[str, Any]:
    try:
        if path.stat().st_size > MAX_METADATA:
            raise HemalumError(f"{path}: metadata of over {MAX_METADATA:,} bytes")
        value = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        raise HemalumError(f"{path}: Zarr metadata cannot be read ({one_line(error)})") from error
    if not isinstance(value, dict):
        raise HemalumError(f"{path}: Zarr metadata is not a JSON object")
    return value


def _list(multiscale: dict[str, Any], key: str, path: Path) -> list[dict[str, Any]]:
    value = multiscale.get(key)
    if not isinstance(value, list) or not all(isinstance(entry, dict) for entry in value):
        raise HemalumError(f"{path}: OME-Zarr without {key}; write it as version 0.4 or 0.5")
    if not value and key == "datasets":
        raise HemalumError(f"{path}: the slide has no levels with pixels; scan or export it again")
    return value


def _open_array(path: Path, folder: Path, entry: dict[str, Any], axes: int) -> Any:
    import zarr  # kept out of the import of the package: it costs 0.2 s

    name = entry.get("path")
    if not isinstance(name, str) or not (folder / name).resolve().is_relative_to(folder.resolve()):
        raise HemalumError(f"{path}: OME-Zarr level {name!r} lies outside its folder")
    level = folder / name
    metadata = next((level / file for file in ("zarr.json", ".zarray") if (level / file).is_file()), None)
    if metadata is None:
        raise HemalumError(f"{path}: level {name} is missing (no zarr.json or .zarray); copy the folder again")
    unknown = _codecs(_json(metadata), path) - CODECS
    if unknown:
        raise HemalumError(f"{path}: level {name} is stored with {', '.join(sorted(unknown))}, which is not read")
    try:
        array = zarr.open_array(str(level), mode="r")
    except Exception as error:  # zarr raises many
        raise HemalumError(f"{path}: level {name} is damaged ({one_line(error)})") from error
    if array.ndim != axes:
        raise HemalumError(f"{path}: level {name} has {array.ndim} dimensions and {axes} axes are named")
    if int(np.prod(array.chunks, dtype=np.float64)) > 4 * MAX_PIXELS_DECODED:
        raise HemalumError(f"{path}: level {name} has chunks of {array.chunks}; write smaller ones")
    return array


def _entries(metadata: dict[str, Any], key: str, path: Path) -> list[Any]:
    """A list that may be left out. Raises HemalumError for anything else."""
    value = metadata.get(key)
    if value is None:
        return []
    if not isinstance(value, list):
        raise HemalumError(f"{path}: OME-Zarr whose {key} is no list; write it as version 0.4 or 0.5")
    return value


def _codecs(metadata: dict[str, Any], path: Path) -> set[str]:
    """Names of all codecs and filters that reading an array would run."""
    names: set[str] = set()
    lists = [_entries(metadata, key, path) for key in ("filters", "codecs", "index_codecs")]
    for entry in [metadata.get("compressor"), *itertools.chain(*lists)]:
        if isinstance(entry, dict):
            names.add(str(entry.get("id") or entry.get("name")))
            inner = entry.get("configuration")
            if isinstance(inner, dict):  # of a shard
                names |= _codecs({key: inner.get(key) for key in ("codecs", "index_codecs")}, path)
        elif entry is not None:
            names.add(str(entry))
    return names


def _stated(multiscale: dict[str, Any], dataset: dict[str, Any], axes: Axes, path: Path) -> Scale | None:
    """µm per px in x and y, where the axes have a unit of length. Raises HemalumError for transformations of none."""
    scale = []
    for name in "xy":
        factor = MICRONS.get(str(multiscale["axes"][axes[name]].get("unit", "")).lower())
        if factor is None:
            return None
        for owner in (dataset, multiscale):
            for change in _entries(owner, "coordinateTransformations", path):
                if isinstance(change, dict) and change.get("type") == "scale":
                    try:
                        factor *= float(change["scale"][axes[name]])
                    except (KeyError, IndexError, OverflowError, TypeError, ValueError):
                        return None
        scale.append(factor)
    return scale[0], scale[1]


def _identifying_files(path: Path, folder: Path, levels: list[str]) -> tuple[Path, ...]:
    """Metadata, and the chunks of the coarsest level: it shows all of the slide."""
    folders = [path, folder, *(folder / name for name in levels)]
    files = [
        one / name for one in dict.fromkeys(folders) for name in (*METADATA, ".zarray") if (one / name).is_file()
    ]
    return (
        *files,
        *sorted(file for file in (folder / levels[-1]).rglob("*") if file.is_file() and file not in files),
    )
