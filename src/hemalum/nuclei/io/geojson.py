"""GeoJSON as QuPath reads and writes it: one Feature per nucleus, objectType "detection"."""

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numba import njit
from numpy.typing import NDArray

from hemalum.files import atomic_path
from hemalum.nuclei.io.colors import Classes, Color

# table column → name of the measurement, in QuPath's manner of writing units
MEASUREMENTS = {
    "area_px": "Area px^2",
    "area_um2": "Area µm^2",
    "perimeter_px": "Perimeter px",
    "perimeter_um": "Perimeter µm",
    "major_axis_px": "Major axis px",
    "major_axis_um": "Major axis µm",
    "minor_axis_px": "Minor axis px",
    "minor_axis_um": "Minor axis µm",
    "eccentricity": "Eccentricity",
    "orientation": "Orientation °",
    "solidity": "Solidity",
    "circularity": "Circularity",
    "hematoxylin_mean": "Hematoxylin OD mean",
    "hematoxylin_std": "Hematoxylin OD std",
    "probability": "Probability",
    "dab_mean": "Nucleus: DAB OD mean",
    "dab_std": "Nucleus: DAB OD std dev",
    "dab_ring_mean": "Cytoplasm: DAB OD mean",
}
NUCLEUS = ("Nucleus", (0, 180, 90))  # of what has no class
BATCH = 4096


def write_geojson(
    path: str | Path,
    coords: NDArray[np.float32],
    offsets: NDArray[np.int64],
    table: pa.Table,
    *,
    note: dict[str, Any] | None = None,
    classes: Classes | None = None,
) -> None:
    """Write a FeatureCollection of closed rings `coords` (M, 2) x, y in px, ring i from offsets[i].

    Coordinates are written to a hundredth of a pixel; measurements are the columns of `table` known to
    MEASUREMENTS that are not all null; `note` goes to the top-level member "hemalum". The classification is that
    of `classes`, with its color. Object ids follow from the content, so one result always gives one file. Raises
    HemalumError when the file cannot be written.
    """
    columns = {name: table.column(name).to_numpy() for name in MEASUREMENTS if name in table.column_names}
    columns = {name: values for name, values in columns.items() if np.isfinite(values).any()}
    head = json.dumps({"type": "FeatureCollection", "hemalum": note or {}}, ensure_ascii=False)
    seed = hashlib.sha256(head.encode()).digest() + np.ascontiguousarray(coords).tobytes()
    identity = np.frombuffer(hashlib.shake_128(seed).digest(16 * (len(offsets) - 1)), np.uint8)
    pieces = _encode_pieces(list(columns))
    class_ids = np.zeros(len(offsets) - 1, np.int64) if classes is None else classes.numbers.astype(np.int64)
    marks = _encode_classifications([] if classes is None else list(zip(classes.names, classes.colors, strict=True)))
    with atomic_path(path) as temporary, temporary.open("wb") as stream:
        stream.write(head[:-1].encode() + b',"features":[')
        for start in range(0, len(offsets) - 1, BATCH):
            stop = min(start + BATCH, len(offsets) - 1)
            batch = [column[start:stop] for column in columns.values()] or [np.empty((stop - start, 0))]
            stream.write(
                _write_features(
                    np.rint(coords[offsets[start] : offsets[stop]].astype(np.float64) * 100).astype(np.int64),
                    offsets[start : stop + 1] - offsets[start],
                    np.column_stack(batch).astype(np.float64),
                    identity[16 * start : 16 * stop],
                    *pieces,
                    class_ids[start:stop],
                    *marks,
                    start == 0,
                )
            )
        stream.write(b"\n]}\n")


def _encode_pieces(names: list[str]) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """The text between the values of a feature, one piece after the other, and where each begins.

    First, after the id, after the ring, after the classification, the name of each measurement, last.
    """
    texts = [
        '{"type":"Feature","id":"',
        '","geometry":{"type":"Polygon","coordinates":[',
        ']},"properties":{"objectType":"detection","classification":',
        ',"measurements":{',
        *(json.dumps(MEASUREMENTS[name], ensure_ascii=False) + ":" for name in names),
        "}}}",
    ]
    return _join_texts(texts)


def _encode_classifications(classes: list[tuple[str, Color]]) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """The classification of what has no class, then of each class, one after the other, and where each begins."""
    marks = [NUCLEUS, *classes]
    texts = [
        json.dumps({"name": name, "color": list(color)}, ensure_ascii=False, separators=(",", ":"))
        for name, color in marks
    ]
    return _join_texts(texts)


def _join_texts(texts: list[str]) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    encoded = [text.encode() for text in texts]
    starts = np.cumsum([0] + [len(text) for text in encoded]).astype(np.int64)
    return np.frombuffer(b"".join(encoded), np.uint8), starts


@njit(cache=True, nogil=True)
def _write_features(
    coords: Any, offsets: Any, values: Any, identity: Any, pieces: Any, starts: Any, class_ids: Any, marks: Any,
    mark_starts: Any, first: bool,
) -> Any:  # fmt: skip
    """The features as UTF-8; `coords` in hundredths of px, `identity` 16 bytes each. NaN is left out."""
    count, measured = values.shape
    # a coordinate takes up to 22 bytes with its comma, a measurement up to 24, an id 36
    longest = 0
    for k in range(mark_starts.size - 1):
        longest = max(longest, mark_starts[k + 1] - mark_starts[k])
    capacity = 50 * coords.shape[0] + count * (pieces.size + longest + 30 * measured + 80)
    text = np.empty(capacity, np.uint8)
    at = 0
    for i in range(count):
        if i or not first:
            text[at] = 44  # ,
            at += 1
        text[at] = 10  # new line
        at = _copy(text, at + 1, pieces, starts[0], starts[1])
        at = _write_uuid(text, at, identity, 16 * i)
        at = _copy(text, at, pieces, starts[1], starts[2])
        at = _write_ring(text, at, coords, offsets[i], offsets[i + 1])
        at = _copy(text, at, pieces, starts[2], starts[3])
        at = _copy(text, at, marks, mark_starts[class_ids[i]], mark_starts[class_ids[i] + 1])
        at = _copy(text, at, pieces, starts[3], starts[4])
        has_previous = False
        for k in range(measured):
            value = values[i, k]
            if not np.isfinite(value):
                continue
            if has_previous:
                text[at] = 44
                at += 1
            has_previous = True
            at = _copy(text, at, pieces, starts[4 + k], starts[5 + k])
            at = _write_measurement(text, at, value)
        at = _copy(text, at, pieces, starts[4 + measured], starts[5 + measured])
    return text[:at]


@njit(cache=True, nogil=True)
def _copy(text: Any, at: int, pieces: Any, start: int, stop: int) -> int:
    for k in range(start, stop):
        text[at] = pieces[k]
        at += 1
    return at


@njit(cache=True, nogil=True)
def _write_uuid(text: Any, at: int, identity: Any, start: int) -> int:
    """A UUID of version 4's form from 16 bytes."""
    for k in range(16):
        if k == 4 or k == 6 or k == 8 or k == 10:
            text[at] = 45  # -
            at += 1
        byte = int(identity[start + k])
        if k == 6:
            byte = 0x40 | (byte & 0x0F)
        elif k == 8:
            byte = 0xA0 | (byte & 0x0F)
        for digit in (byte >> 4, byte & 0x0F):
            text[at] = 48 + digit if digit < 10 else 87 + digit
            at += 1
    return at


@njit(cache=True, nogil=True)
def _write_ring(text: Any, at: int, coords: Any, start: int, stop: int) -> int:
    """[[x,y],…]"""
    text[at] = 91  # [
    at += 1
    for j in range(start, stop):
        if j > start:
            text[at] = 44  # ,
            at += 1
        text[at] = 91
        at = _write_number(text, at + 1, coords[j, 0], 2)
        text[at] = 44
        at = _write_number(text, at + 1, coords[j, 1], 2)
        text[at] = 93  # ]
        at += 1
    text[at] = 93
    return at + 1


@njit(cache=True, nogil=True)
def _write_measurement(text: Any, at: int, value: float) -> int:
    """Six digits, of which at least one and at most six stand behind the point."""
    decimals = 6
    limit = 1.0
    while decimals > 1 and abs(value) >= limit:
        decimals -= 1
        limit *= 10.0
    return _write_number(text, at, int(np.rint(value * 10.0**decimals)), decimals)


@njit(cache=True, nogil=True)
def _write_number(text: Any, at: int, units: int, decimals: int) -> int:
    """`units` of 10^-decimals, without zeros at the end."""
    if units < 0:
        text[at] = 45  # -
        at += 1
        units = -units
    while decimals and units % 10 == 0:
        units //= 10
        decimals -= 1
    digits = decimals + 1
    power = 10**digits
    while units >= power:
        digits += 1
        power *= 10
    point = decimals > 0
    end = at + digits + point
    for k in range(digits):
        position = end - 1 - k - (point and k >= decimals)
        text[position] = 48 + units % 10
        units //= 10
    if point:
        text[end - 1 - decimals] = 46  # .
    return end
