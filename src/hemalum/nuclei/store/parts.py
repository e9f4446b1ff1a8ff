"""One region's nuclei as a GeoParquet file, and back: the columns with their units, the polygons as WKB.

GeoParquet 1.1 (https://geoparquet.org/releases/v1.1.0): the column `geometry` is WKB, the column `bbox` covers it, so
that a reader skips the row groups that lie elsewhere. Coordinates are px of level 0, y downwards, without a CRS.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute
import pyarrow.parquet
from numpy.typing import NDArray

from hemalum.errors import HemalumError, one_line
from hemalum.files import atomic_path
from hemalum.nuclei.polygons import Polygons

# column → its unit; all are float32, null where they are not known
MEASURES = {
    "area_px": "px²",
    "area_um2": "µm²",
    "perimeter_px": "px",
    "perimeter_um": "µm",
    "major_axis_px": "px",
    "major_axis_um": "µm",
    "minor_axis_px": "px",
    "minor_axis_um": "µm",
    "eccentricity": "",
    "orientation": "°",
    "solidity": "",
    "circularity": "",
    "hematoxylin_mean": "OD",
    "hematoxylin_std": "OD",
    "probability": "",
}
DAB_MEASURES = {"dab_mean": "OD", "dab_std": "OD", "dab_ring_mean": "OD"}
NOTES = "hemalum"  # key of a part's notes in the metadata of its file
BOX = ("xmin", "ymin", "xmax", "ymax")
ROW_GROUP = 1024  # nuclei; a window of a thousand then reads little that it does not give
WKB_HEADER = np.frombuffer(b"\x01\x03\x00\x00\x00\x01\x00\x00\x00", np.uint8)  # little-endian, polygon, one ring
HEADER_BYTES = 13  # with the number of points


def make_schema(class_names: Sequence[str] = (), *, dab: bool = False, graded: bool = False) -> pa.Schema:
    """The columns of a store: of a model with classes `class`, of H-DAB the measures of DAB, and `intensity`."""
    fields = [
        pa.field("id", pa.int64(), nullable=False),
        pa.field("x", pa.float64(), metadata={"unit": "px"}),
        pa.field("y", pa.float64(), metadata={"unit": "px"}),
        *(
            pa.field(name, pa.float32(), metadata={"unit": unit} if unit else None)
            for name, unit in {**MEASURES, **(DAB_MEASURES if dab else {})}.items()
        ),
        *([pa.field("class", pa.string())] if class_names else []),
        *([pa.field("intensity", pa.string())] if graded else []),
        pa.field("bbox", pa.struct([pa.field(name, pa.float32()) for name in BOX])),
        pa.field("geometry", pa.binary()),
    ]
    return pa.schema(fields)


def make_table(schema: pa.Schema, table: pa.Table, outlines: Polygons, ids: NDArray[Any]) -> pa.Table:
    """The rows of a part from the table and outlines of `Nuclei`, in an order in which neighbors are near.

    Raises HemalumError when a column is missing or unknown, or ids are negative, repeated, or of another number.
    """
    ids = np.asarray(ids).astype(np.int64)
    if not len(ids) == len(outlines) == table.num_rows:
        raise HemalumError(f"{table.num_rows} nuclei, {len(outlines)} outlines and {len(ids)} ids: want one of each")
    if len(np.unique(ids)) < len(ids) or (len(ids) and ids.min() < 0):
        raise HemalumError("ids of nuclei must be different whole numbers from 0")
    expected = [name for name in schema.names if name not in ("bbox", "geometry")]
    if set(table.column_names) != set(expected):
        missing = ", ".join(sorted(set(expected) - set(table.column_names))) or "none"
        unknown = ", ".join(sorted(set(table.column_names) - set(expected))) or "none"
        raise HemalumError(f"the store has other columns than these nuclei: missing {missing}; unknown {unknown}")
    low, high = outlines.bounds()
    order = _near_order(low + high)
    columns = {name: table.column(name).take(order).combine_chunks() for name in expected}
    columns["id"] = pa.array(ids[order])
    boxes = [pa.array(values[order]) for values in (low[:, 0], low[:, 1], high[:, 0], high[:, 1])]
    columns["bbox"] = pa.StructArray.from_arrays(boxes, names=list(BOX))
    columns["geometry"] = to_wkb(outlines.take(order))
    return pa.table([columns[field.name].cast(field.type) for field in schema], schema=schema)


def write_part(path: Path, table: pa.Table, notes: Mapping[str, Any] | None = None) -> None:
    """Write one region, whole or not at all, with what there is to say of it (`part_notes`).

    Raises HemalumError when it cannot be written.
    """
    bounds = box_of(table) if table.num_rows else None
    texts = {NOTES: notes} if notes else None
    with atomic_path(path) as temporary, part_writer(temporary, table.schema, bounds, texts) as writer:
        if table.num_rows:  # an empty row group has no statistics
            writer.write_table(table, ROW_GROUP)


def part_writer(
    path: Path,
    schema: pa.Schema,
    bounds: NDArray[np.float64] | None,
    metadata: Mapping[str, Any] | None = None,
    compression: str = "lz4",
) -> Any:
    """A GeoParquet file in the making (`pyarrow.parquet.ParquetWriter`) of nuclei within `bounds` (4,) x, y, x, y.

    A window of a store compressed by LZ4 is read in half the time of one by Zstandard, which is a third smaller.
    """
    texts = {key: json.dumps(value, ensure_ascii=False) for key, value in (metadata or {}).items()}
    plain = [name for name in schema.names if name not in ("bbox", "geometry")]
    return pa.parquet.ParquetWriter(
        path,
        schema.with_metadata({"geo": json.dumps(_geo_metadata(bounds)), **texts}),
        compression=compression,
        use_dictionary=[name for name in ("class", "intensity", "image", "mpp_source") if name in plain],
        write_statistics=plain + [f"bbox.{name}" for name in BOX],
    )


def _geo_metadata(bounds: NDArray[np.float64] | None) -> dict[str, Any]:
    column: dict[str, Any] = {
        "encoding": "WKB",
        "geometry_types": [] if bounds is None else ["Polygon"],
        "crs": None,
        "edges": "planar",
        "covering": {"bbox": {name: ["bbox", name] for name in BOX}},
    }
    if bounds is not None:
        column["bbox"] = bounds.tolist()
    return {"version": "1.1.0", "primary_column": "geometry", "columns": {"geometry": column}}


def read_part(path: Path, schema: pa.Schema, columns: Sequence[str] | None = None) -> pa.Table:
    """The rows of one region. Raises HemalumError when the file is damaged, or of another schema."""
    with open_part(path, schema) as file:
        return file.read(columns=columns, use_threads=False)


@contextmanager
def open_part(path: Path, schema: pa.Schema) -> Iterator[Any]:
    """A part opened for reading (`pyarrow.parquet.ParquetFile`).

    Raises HemalumError when it is damaged, or has other columns than `schema`, that of its store.
    """
    try:
        with pa.parquet.ParquetFile(path) as file:
            if not file.schema_arrow.equals(schema):
                raise HemalumError(
                    f"{path}: {_difference(file.schema_arrow, schema)}; it is of another store, or of another "
                    "version: remove it and run again: it alone is made anew"
                )
            yield file
    except (OSError, pa.ArrowException) as error:
        raise HemalumError(
            f"{path}: is damaged ({one_line(error)}); remove it and run again: it alone is made anew"
        ) from error


def _difference(held: pa.Schema, expected: pa.Schema) -> str:
    missing, unknown = set(expected.names) - set(held.names), set(held.names) - set(expected.names)
    if missing or unknown:
        names = [("lacks", missing), ("has besides", unknown)]
        return "; ".join(f"{word} the columns {', '.join(sorted(some))}" for word, some in names if some)
    for mine, field in zip(held, expected, strict=False):
        if not mine.equals(field):
            return f"column {mine.name} is {mine.type} where {field.name} ({field.type}) stands in the store"
    return "has columns twice"


def part_notes(file: Any) -> dict[str, Any]:
    """What was said of an opened part when it was written; {} where nothing was."""
    text = (file.metadata.metadata or {}).get(NOTES.encode())
    try:
        notes = {} if text is None else json.loads(text)
    except ValueError:
        notes = None
    return notes if isinstance(notes, dict) else {}


def part_bounds(file: Any) -> NDArray[np.float64] | None:
    """Bounds (4,) x, y, x, y of all nuclei of an opened part; None for an empty part."""
    if file.metadata.num_rows == 0:
        return None
    try:
        geo = json.loads(file.metadata.metadata[b"geo"])
        box = np.array(geo["columns"]["geometry"]["bbox"], np.float64)
        if box.shape == (4,) and np.isfinite(box).all():
            return box
    except (KeyError, TypeError, ValueError):
        pass  # of a file that went through another program
    return box_of(file.read(columns=["bbox"], use_threads=False))


def groups_near(metadata: Any, window: NDArray[np.float64]) -> list[int]:
    """The row groups whose nuclei may touch a window (4,) x, y, x, y, by their statistics."""
    first = metadata.num_columns - 1 - len(BOX)  # they stand before the last column, the geometry
    near = []
    for number in range(metadata.num_row_groups):
        known = [metadata.row_group(number).column(first + k).statistics for k in range(4)]
        if not all(one is not None and one.has_min_max for one in known):
            near.append(number)
            continue
        low, high = [one.min for one in known[:2]], [one.max for one in known[2:]]
        if low[0] < window[2] and low[1] < window[3] and high[0] > window[0] and high[1] > window[1]:
            near.append(number)
    return near


def number_names(column: Any, names: Sequence[str]) -> NDArray[np.int32]:
    """Numbers (N,) from 1 of the values of a column of text, in the order of `names`; 0 for any other and null."""
    positions = pa.compute.index_in(column, value_set=pa.array(names, pa.string())).fill_null(-1)
    numbers: NDArray[np.int32] = (positions.to_numpy() + 1).astype(np.int32)
    return numbers


def box_of(table: pa.Table) -> NDArray[np.float64]:
    """Bounds (4,) x, y, x, y of the nuclei of a table of at least one row."""
    boxes = boxes_of(table)
    return np.concatenate([boxes[:, :2].min(axis=0), boxes[:, 2:].max(axis=0)])


def boxes_of(table: pa.Table) -> NDArray[np.float64]:
    """The column `bbox` as (N, 4) x, y, x, y."""
    box = table.column("bbox").combine_chunks()
    return np.column_stack([box.field(name).to_numpy(zero_copy_only=False) for name in BOX]).astype(np.float64)


def _near_order(centers: NDArray[np.float32]) -> NDArray[np.int64]:
    """Order of centers (N, 2) along Morton's curve over a grid of 256 by 256, so that row groups are compact."""
    if len(centers) == 0:
        return np.zeros(0, np.int64)
    low = centers.min(axis=0).astype(np.float64)
    extent = np.maximum(centers.max(axis=0) - low, 1e-9)
    cells = np.minimum((centers - low) / extent * 256, 255).astype(np.int64)
    code = np.zeros(len(centers), np.int64)
    for bit in range(8):
        code |= ((cells[:, 0] >> bit) & 1) << (2 * bit) | ((cells[:, 1] >> bit) & 1) << (2 * bit + 1)
    return np.argsort(code, kind="stable").astype(np.int64)


def to_wkb(outlines: Polygons) -> pa.Array:
    """The rings as WKB polygons, little-endian doubles."""
    lengths = np.diff(outlines.offsets)
    starts = HEADER_BYTES * np.arange(len(outlines) + 1) + 16 * outlines.offsets
    data = np.empty(int(starts[-1]), np.uint8)
    headers = starts[:-1, None] + np.arange(HEADER_BYTES)
    points = np.ones(len(data), np.bool_)
    points[headers] = False
    data[headers[:, :9]] = WKB_HEADER
    data[headers[:, 9:]] = lengths.astype("<u4").view(np.uint8).reshape(-1, 4)
    data[points] = np.ascontiguousarray(outlines.coords, "<f8").view(np.uint8).ravel()
    buffers = [None, pa.py_buffer(starts.astype(np.int32)), pa.py_buffer(data)]
    return pa.Array.from_buffers(pa.binary(), len(outlines), buffers)


def from_wkb(column: Any) -> Polygons:
    """The rings of a column of `to_wkb`. Raises HemalumError for other geometries."""
    array = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
    if len(array) == 0:
        return Polygons(np.zeros((0, 2), np.float32), np.zeros(1, np.int64))
    _, where, bytes_ = array.buffers()
    starts = np.frombuffer(where, np.int32)[array.offset : array.offset + len(array) + 1].astype(np.int64)
    data = np.frombuffer(bytes_, np.uint8)[starts[0] : starts[-1]]
    starts -= starts[0]
    headers = starts[:-1, None] + np.arange(HEADER_BYTES)
    lengths = np.diff(starts) - HEADER_BYTES
    if (lengths % 16).any() or not (data[headers[:, :9]] == WKB_HEADER).all():
        raise HemalumError("the store holds geometries that are no polygons of one ring; hemalum writes no others")
    points = np.ones(len(data), np.bool_)
    points[headers] = False
    coords = data[points].view("<f8").reshape(-1, 2).astype(np.float32)
    return Polygons(coords, np.concatenate([[0], np.cumsum(lengths // 16)]).astype(np.int64))
