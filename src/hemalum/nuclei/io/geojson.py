"""GeoJSON as QuPath reads and writes it: one Feature per nucleus, objectType "detection" or "annotation"."""

import gzip
import json
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import IO, Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from hemalum.compiled import njit
from hemalum.errors import HemalumError, nearest
from hemalum.files import atomic_path
from hemalum.nuclei.io.colors import Classes, Color
from hemalum.nuclei.io.object_ids import make_uuids, number_outlines
from hemalum.nuclei.polygons import Polygons

# table column → name of the measurement, in QuPath's manner of writing units
MEASUREMENTS = {
    "id": "Nucleus ID",
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
KINDS = ("detection", "annotation")
DECIMALS = 3  # of a coordinate in px
BATCH = 4096
MAX_NOTE = 1 << 20  # bytes


def write_geojson(
    path: str | Path,
    outlines: Polygons,
    table: pa.Table,
    *,
    image: bytes,
    simplify: float = 0.0,
    note: dict[str, Any] | None = None,
    classes: Classes | None = None,
    kind: str = "detection",
) -> None:
    """Write a FeatureCollection of outlines in px, moved by up to `simplify` px to save points.

    As `FeatureWriter` writes it. Object ids follow from `image`, which says what image it is, and from the outlines,
    so a nucleus keeps its id whatever else is left out. Raises HemalumError when the file cannot be written.
    """
    numbers, drawn = number_outlines(outlines), outlines.simplified(simplify)
    coords, offsets = drawn.coords, drawn.offsets
    with atomic_path(path) as temporary, temporary.open("wb") as stream:
        writer = FeatureWriter(stream, table.column_names, note=note, classes=classes, image=image, kind=kind)
        for start in range(0, len(drawn), BATCH):
            stop = min(start + BATCH, len(drawn))
            writer.write(
                coords[offsets[start] : offsets[stop]],
                offsets[start : stop + 1] - offsets[start],
                table.slice(start, stop - start),
                numbers[start:stop],
                None if classes is None else classes.numbers[start:stop],
            )
        writer.close()


class FeatureWriter:
    """Writes a FeatureCollection part by part, in memory of one part.

    Coordinates are written to a thousandth of a pixel. Measurements are the `columns` known to MEASUREMENTS, with
    the digits that give back the float32; NaN and null are left out, and lengths and areas by an estimated scale are
    marked as such. `note` goes to the top-level member "hemalum". The classification is that of `classes`, with its
    color. An object's id is a UUID that follows from `image`, which says what image it is, and the number of the
    nucleus (`number_outlines`). `kind` is "detection" or "annotation", QuPath's objectType.
    """

    def __init__(
        self,
        stream: IO[bytes],
        columns: Sequence[str],
        *,
        note: dict[str, Any] | None = None,
        classes: Classes | None = None,
        image: bytes = b"",
        kind: str = "detection",
    ) -> None:
        if kind not in KINDS:
            raise HemalumError(f"objects of kind '{kind}'{nearest(kind, KINDS)}")
        self.stream = stream
        self.columns = [name for name in columns if name in MEASUREMENTS]
        self.image = image
        mark = " (estimated scale)" if (note or {}).get("mpp_source") == "estimate" else ""
        names = [MEASUREMENTS[name] + (mark if "µm" in MEASUREMENTS[name] else "") for name in self.columns]
        self.pieces = _encode_pieces(names, kind)
        self.marks = _encode_classifications(
            [] if classes is None else list(zip(classes.names, classes.colors, strict=True))
        )
        self.empty = True
        head = json.dumps({"type": "FeatureCollection", "hemalum": note or {}}, ensure_ascii=False)
        stream.write(head[:-1].encode("utf-8", "backslashreplace") + b',"features":[')

    def write(
        self,
        coords: NDArray[Any],
        offsets: NDArray[np.int64],
        table: pa.Table,
        numbers: NDArray[np.uint64],
        class_numbers: NDArray[np.int32] | None = None,
    ) -> None:
        """Write closed rings (M, 2) x, y in px, ring i from offsets[i]; `numbers` (N,) are unique in the file."""
        count = len(offsets) - 1
        if count == 0:
            return
        columns = [table.column(name).to_numpy() for name in self.columns] or [np.empty((count, 0))]
        classes = np.zeros(count, np.int64) if class_numbers is None else class_numbers.astype(np.int64)
        self.stream.write(
            _write_features(
                np.rint(coords.astype(np.float64) * 10**DECIMALS).astype(np.int64),
                np.ascontiguousarray(offsets, np.int64),
                np.column_stack(columns).astype(np.float64),
                make_uuids(self.image, numbers),
                *self.pieces,
                classes,
                *self.marks,
                self.empty,
            )
        )
        self.empty = False

    def close(self) -> None:
        """End the collection; the stream stays open."""
        self.stream.write(b"\n]}\n")


def read_note(path: Path) -> dict[str, Any]:
    """The note of a file that `FeatureWriter` wrote, `.gz` as well; empty for whatever else."""
    try:
        with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as stream:
            head, mark, _ = stream.read(MAX_NOTE).partition(b',"features":[')
        note = json.loads(head + b"}")["hemalum"] if mark else {}
    except (OSError, EOFError, ValueError, LookupError, TypeError, zlib.error):
        return {}
    return note if isinstance(note, dict) else {}


def _encode_pieces(names: list[str], kind: str) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """The text between the values of a feature, one piece after the other, and where each begins.

    First, after the id, after the ring, after the classification, the name of each measurement, last.
    """
    texts = [
        '{"type":"Feature","id":"',
        '","geometry":{"type":"Polygon","coordinates":[',
        f']}},"properties":{{"objectType":"{kind}","classification":',
        ',"measurements":{',
        *(json.dumps(name, ensure_ascii=False) + ":" for name in names),
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


@njit(nogil=True)
def _write_features(
    coords: Any, offsets: Any, values: Any, identity: Any, pieces: Any, starts: Any, class_ids: Any, marks: Any,
    mark_starts: Any, first: bool,
) -> Any:  # fmt: skip
    """The features as UTF-8; `coords` in thousandths of px, `identity` 16 bytes each. NaN is left out."""
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


@njit(nogil=True)
def _copy(text: Any, at: int, pieces: Any, start: int, stop: int) -> int:
    for k in range(start, stop):
        text[at] = pieces[k]
        at += 1
    return at


@njit(nogil=True)
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


@njit(nogil=True)
def _write_ring(text: Any, at: int, coords: Any, start: int, stop: int) -> int:
    """[[x,y],…]"""
    text[at] = 91  # [
    at += 1
    for j in range(start, stop):
        if j > start:
            text[at] = 44  # ,
            at += 1
        text[at] = 91
        at = _write_number(text, at + 1, coords[j, 0], DECIMALS)
        text[at] = 44
        at = _write_number(text, at + 1, coords[j, 1], DECIMALS)
        text[at] = 93  # ]
        at += 1
    text[at] = 93
    return at + 1


@njit(nogil=True)
def _write_measurement(text: Any, at: int, value: float) -> int:
    """The six to nine digits that give back the float32, at most 17 behind the point."""
    exponent = 0
    if value != 0.0:
        exponent = int(np.floor(np.log10(abs(value))))
    decimals, units = 0, 0.0
    for digits in range(6, 10):
        decimals = min(max(digits - 1 - exponent, 0), 17)
        units = np.rint(value * 10.0**decimals)
        if np.float32(units / 10.0**decimals) == np.float32(value):
            break
    end: int = _write_number(text, at, int(units), decimals)
    return end


@njit(nogil=True)
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
