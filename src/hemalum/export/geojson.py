"""GeoJSON as QuPath reads and writes it: one Feature per nucleus, objectType "detection"."""

import hashlib
import json
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numba import njit
from numpy.typing import NDArray

from hemalum.files import atomic_path

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
}
CLASSIFICATION = '{"name":"Nucleus","color":[0,180,90]}'
BATCH = 4096


def write_geojson(
    path: str | Path,
    coords: NDArray[np.float32],
    offsets: NDArray[np.int64],
    table: pa.Table,
    *,
    note: dict[str, Any] | None = None,
) -> None:
    """Write a FeatureCollection of closed rings `coords` (M, 2) x, y in px, ring i from offsets[i].

    Coordinates are written to a hundredth of a pixel; measurements are the columns of `table` known to
    MEASUREMENTS that are not all null; `note` goes to the top-level member "hemalum". Object ids follow
    from the content, so one result always gives one file. Raises HemalumError when the file cannot be
    written.
    """
    columns = {name: table.column(name).to_numpy() for name in MEASUREMENTS if name in table.column_names}
    columns = {name: values for name, values in columns.items() if np.isfinite(values).any()}
    head = json.dumps({"type": "FeatureCollection", "hemalum": note or {}}, ensure_ascii=False)
    seed = hashlib.sha256(head.encode()).digest() + np.ascontiguousarray(coords).tobytes()
    identity = np.frombuffer(hashlib.shake_128(seed).digest(16 * (len(offsets) - 1)), np.uint8)
    with atomic_path(path) as temporary, temporary.open("wb") as stream:
        stream.write(head[:-1].encode() + b',"features":[')
        for start in range(0, len(offsets) - 1, BATCH):
            stop = min(start + BATCH, len(offsets) - 1)
            rings = _rings(coords[offsets[start] : offsets[stop]], offsets[start : stop + 1] - offsets[start])
            values = {name: column[start:stop] for name, column in columns.items()}
            features = _features(rings, values, identity[16 * start : 16 * stop].tobytes().hex())
            stream.write((",\n" if start else "\n").encode() + ",\n".join(features).encode())
        stream.write(b"\n]}\n")


def _rings(coords: NDArray[np.float32], offsets: NDArray[np.int64]) -> list[str]:
    """Each ring as JSON text [[x,y],…]."""
    hundredths = np.rint(coords.astype(np.float64) * 100).astype(np.int64)
    text, ends = _write(hundredths, offsets)
    whole = text.tobytes().decode("ascii")
    edges = [0, *ends.tolist()]
    return [whole[a:b] for a, b in pairwise(edges)]


def _features(rings: list[str], values: dict[str, NDArray[Any]], hexadecimal: str) -> list[str]:
    # one template for all features: the fastest way that plain Python has to write many numbers
    names = [json.dumps(MEASUREMENTS[name], ensure_ascii=False).replace("%", "%%") for name in values]
    measured = ",".join(f"{name}:%.6g" for name in names)
    template = (
        '{"type":"Feature","id":"%s","geometry":{"type":"Polygon","coordinates":[%s]},'
        f'"properties":{{"objectType":"detection","classification":{CLASSIFICATION},'
        f'"measurements":{{{measured}}}}}}}'
    )
    rows = np.column_stack(list(values.values())).tolist() if values else [[] for _ in rings]
    features = []
    for i, (ring, row) in enumerate(zip(rings, rows, strict=True)):
        h = hexadecimal[32 * i : 32 * i + 32]
        uuid = f"{h[:8]}-{h[8:12]}-4{h[13:16]}-a{h[17:20]}-{h[20:]}"
        text = template % (uuid, ring, *row)
        if not np.isfinite(row).all():  # JSON has no NaN: such a measurement is left out
            known = [(name, value) for name, value in zip(names, row, strict=True) if np.isfinite(value)]
            some = ",".join(f"{name}:{value:.6g}" for name, value in known)
            text = f"{text[: text.index('measurements') + 14]}{{{some}}}}}}}"
        features.append(text)
    return features


@njit(cache=True, nogil=True)
def _write(values: Any, offsets: Any) -> Any:
    """Rings of hundredths as text; also the position after each ring."""
    text = np.empty(50 * values.shape[0] + 4 * offsets.size, np.uint8)
    ends = np.empty(offsets.size - 1, np.int64)
    at = 0
    for i in range(offsets.size - 1):
        text[at] = 91  # [
        at += 1
        for j in range(offsets[i], offsets[i + 1]):
            if j > offsets[i]:
                text[at] = 44  # ,
                at += 1
            text[at] = 91
            at = _number(text, at + 1, values[j, 0])
            text[at] = 44
            at = _number(text, at + 1, values[j, 1])
            text[at] = 93  # ]
            at += 1
        text[at] = 93
        at += 1
        ends[i] = at
    return text[:at].copy(), ends


@njit(cache=True, nogil=True)
def _number(text: Any, at: int, hundredths: int) -> int:
    if hundredths < 0:
        text[at] = 45  # -
        at += 1
        hundredths = -hundredths
    whole, part = hundredths // 100, hundredths % 100
    digits = 1
    power = 10
    while whole >= power:
        digits += 1
        power *= 10
    for k in range(digits - 1, -1, -1):
        text[at + k] = 48 + whole % 10
        whole //= 10
    at += digits
    if part:
        text[at] = 46  # .
        text[at + 1] = 48 + part // 10
        at += 2
        if part % 10:
            text[at] = 48 + part % 10
            at += 1
    return at
