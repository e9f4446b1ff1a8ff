"""A store as one file for other programs, written part by part: memory does not grow with the slide."""

import gzip
import json
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import IO, Any

import numpy as np
import pyarrow as pa
import pyarrow.csv
from numpy.typing import NDArray

from hemalum.errors import HemalumError, nearest
from hemalum.files import atomic_path, new_folder, write_text
from hemalum.nuclei.ihc_score import GRADES, IhcScore
from hemalum.nuclei.io.colors import INTENSITIES, Classes, combine_classes
from hemalum.nuclei.io.frames import CSV_OPTIONS, csv_table, with_image
from hemalum.nuclei.io.geojson import FeatureWriter
from hemalum.nuclei.io.object_ids import number_outlines
from hemalum.nuclei.nuclei import Nuclei
from hemalum.nuclei.polygons import Polygons, check_tolerance
from hemalum.nuclei.store.label_image import write_label_image
from hemalum.nuclei.store.parts import from_wkb, number_names, part_writer
from hemalum.nuclei.store.rows import ReadScaled, write_labels, write_slide_overlay
from hemalum.nuclei.store.store import NucleiStore
from hemalum.nuclei.store.thumbnail import write_thumbnail

log = logging.getLogger(__name__)

GZIP_LEVEL = 4  # 6 is twice as slow and 4 % smaller
# name of a format → what is put behind the name of the slide
EXPORTS = {
    "geojson": ".geojson",
    "geojson.gz": ".geojson.gz",
    "csv": ".csv",
    "parquet": ".parquet",
    "labels": "_labels.tif",
    "overlay": "_overlay.png",
    "ome-zarr": "_labels.ome.zarr",
    "spatialdata": ".spatialdata.zarr",
    "thumbnail": "_thumbnail.png",
}
# name of an option → the formats that it is for
EXPORT_OPTIONS = {
    "kind": ("geojson", "geojson.gz"),
    "simplify": ("geojson", "geojson.gz"),
    "canvas": ("geojson", "geojson.gz"),
    "corrections": ("geojson", "geojson.gz"),
    "picture": ("thumbnail", "overlay"),
}

OnProgress = Callable[[float], None]


@dataclass(frozen=True, slots=True, eq=False)
class Corrections:
    """What is corrected in a store: ids (N,) of nuclei that are left out, and others in px of the slide, with ids."""

    without: NDArray[np.int64]
    others: Nuclei
    note: Mapping[str, Any] = field(default_factory=dict)


def export_store(
    store: NucleiStore,
    format: str,
    path: Path | str | None = None,
    *,
    kind: str = "detection",
    simplify: float = 0.0,
    canvas: bool = False,
    picture: NDArray[np.uint8] | ReadScaled | None = None,
    image: str | None = None,
    corrections: Corrections | None = None,
    on_progress: OnProgress | None = None,
) -> Path:
    """Write all nuclei of a store in a format of `EXPORTS`, beside it unless `path` says where; gives the path.

    For GeoJSON: `kind` is "detection" or "annotation", QuPath's objectType; outlines may be moved by up to `simplify`
    px to save points; with `canvas` coordinates count from the corner of the scanner's canvas instead of the slide's
    bounds, for programs that show all of it. Thumbnail draws on `picture`, which shows the whole slide at any size,
    (H, W, 3) uint8; overlay on what reads its pixels, `Slide.read_scaled`; without it both draw on white.
    `image` is what tables call the slide, else its file name. `corrections` are for GeoJSON. `on_progress` is called
    with the share that is done.

    Raises HemalumError for an unknown format, an option that is for another format, a picture that is not for this
    one, a damaged part, a folder that is there, and where a file cannot be written; nothing half-written stays.
    """
    chosen = {
        "kind": kind != "detection",
        "simplify": simplify != 0,
        "canvas": canvas,
        "picture": picture is not None,
        "corrections": corrections is not None,
    }
    check_export_options(format, {option: option for option, some in chosen.items() if some})
    path = store.path.with_name(store.name + EXPORTS[format]) if path is None else Path(path)
    advance = on_progress or (lambda _: None)
    if not store.complete:
        log.warning(
            "%s: the run is not complete; what is written are the %d regions that are there",
            store.path,
            len(store.finished),
        )
    if format in ("geojson", "geojson.gz"):
        shift = store.run.offset if canvas else (0, 0)
        with atomic_path(path) as temporary, _open_binary(temporary, format) as stream:
            _write_geojson(store, stream, kind, simplify, shift, corrections, advance)
    elif format == "csv":
        _write_csv(store, path, image, advance)
    elif format == "parquet":
        with atomic_path(path) as temporary:
            _write_parquet(store, temporary, advance, image=image)
    elif format == "spatialdata":
        _write_spatialdata(store, path, advance)
    elif format == "ome-zarr":
        write_label_image(store, path, advance)
    elif format == "labels":
        write_labels(store, path, advance)
    elif format == "overlay":
        if isinstance(picture, np.ndarray):
            raise HemalumError("overlay draws on what reads a slide (Slide.read_scaled), not on one picture of it")
        write_slide_overlay(store, path, picture, partial(_classes_of, store), advance)
    else:
        if callable(picture):
            raise HemalumError("thumbnail draws on one picture of a slide (Slide.thumbnail), not on what reads it")
        write_thumbnail(store, path, picture, advance)
    return path


def check_export_options(format: str, chosen: Mapping[str, str]) -> None:
    """Raise HemalumError unless `format` is one of `EXPORTS` that takes all options chosen.

    They are keys of `EXPORT_OPTIONS`, each with what its user calls it.
    """
    if format not in EXPORTS:
        raise HemalumError(f"unknown format '{format}'{nearest(format, EXPORTS)}")
    for option, name in chosen.items():
        takers = EXPORT_OPTIONS[option]
        if format not in takers:
            raise HemalumError(f"{name} is for {' and '.join(takers)}; {format} has no use for it: leave it out")


def check_simplify(simplify: float, formats: Sequence[str]) -> float:
    """Give `simplify`, px, back; raise HemalumError where it is no such number, or for none of the formats."""
    takers = EXPORT_OPTIONS["simplify"]
    if check_tolerance(simplify) and not set(formats) & set(takers):
        raise HemalumError(
            f"--simplify is for {' and '.join(takers)}; none of them is written ({', '.join(formats)}): leave it out"
        )
    return simplify


@contextmanager
def _open_binary(path: Path, format: str) -> Iterator[IO[bytes]]:
    with path.open("wb") as file:
        if format == "geojson":
            yield file
            return
        # without time and name inside, the same nuclei give the same bytes
        with gzip.GzipFile("", "wb", GZIP_LEVEL, file, 0) as packed:
            yield packed  # type: ignore[misc]


def _classes_of(store: NucleiStore, table: pa.Table) -> Classes | None:
    """The class of each row as QuPath shows it: that of the model, of staining intensity, or both."""
    classes = intensities = None
    if store.run.class_names:
        classes = Classes(number_names(table.column("class"), store.run.class_names), store.run.class_names)
    if store.thresholds:
        names = GRADES[len(store.thresholds)]
        palette = [INTENSITIES[name] for name in names]
        intensities = Classes(number_names(table.column("intensity"), names), names, palette)
    return combine_classes(classes, intensities)


def _tables(store: NucleiStore, advance: OnProgress, columns: list[str] | None = None) -> Iterator[pa.Table]:
    regions = max(1, len(store.finished))
    for number, table in enumerate(store.tables(columns), start=1):
        yield table
        advance(number / regions)


def _describe(store: NucleiStore) -> dict[str, Any]:
    run = store.run
    described = {
        "mpp": run.mpp,
        "mpp_source": run.mpp_source,
        "model": run.model,
        "source": run.source,
        "shape": list(run.shape),
        **store.notes,
    }
    if not store.complete:
        described["complete"] = False
    if run.class_names:
        described["classes"] = list(run.class_names)
    if store.thresholds:
        names = GRADES[len(store.thresholds)]
        counts = np.zeros(len(names) + 1, np.int64)
        for table in store.tables(["intensity"]):
            counts += np.bincount(number_names(table.column("intensity"), names), minlength=len(counts))
        described["positive"] = list(store.thresholds)
        described["ihc"] = IhcScore(dict(zip(names, counts[1:].tolist(), strict=True))).as_dict()
    return described


def _write_geojson(
    store: NucleiStore, stream: IO[bytes], kind: str, simplify: float, shift: tuple[int, int],
    corrections: Corrections | None, advance: OnProgress,
) -> None:  # fmt: skip
    plain = store.schema.empty_table()
    writer = FeatureWriter(
        stream,
        store.schema.names,
        note=_describe(store)
        | ({"offset": list(shift)} if any(shift) else {})
        | ({"simplify_px": simplify} if simplify else {})
        | ({} if corrections is None else dict(corrections.note)),
        classes=_classes_of(store, plain),
        image=store.run.fingerprint.encode(),
        kind=kind,
    )

    def write(table: pa.Table, outlines: Polygons) -> None:
        drawn, classes = outlines.simplified(simplify), _classes_of(store, table)
        writer.write(
            drawn.coords + np.array(shift, np.float64),
            drawn.offsets,
            table,
            number_outlines(outlines),
            None if classes is None else classes.numbers,
        )

    for table in _tables(store, advance):
        if corrections is not None:
            table = table.filter(pa.array(~np.isin(table.column("id").to_numpy(), corrections.without)))
        write(table, from_wkb(table.column("geometry")))
    if corrections is not None:
        write(_with_columns(corrections.others.table, store.schema), corrections.others.outlines)
    writer.close()


def _with_columns(table: pa.Table, schema: pa.Schema) -> pa.Table:
    """A table with the plain columns of a store; what it lacks is null."""
    for column in schema:
        if column.name not in (*table.column_names, "bbox", "geometry"):
            table = table.append_column(column, pa.nulls(table.num_rows, column.type))
    return table


def _with_image(store: NucleiStore, image: str | None, table: pa.Table) -> pa.Table:
    return with_image(table, image, store.run.mpp, store.run.mpp_source, source=store.run.source)


def _write_csv(store: NucleiStore, path: Path, image: str | None, advance: OnProgress) -> None:
    columns = [name for name in store.schema.names if name not in ("bbox", "geometry")]
    schema = _with_image(store, image, store.schema.empty_table().select(columns)).schema
    with (
        atomic_path(path) as temporary,
        pyarrow.csv.CSVWriter(temporary, schema, write_options=CSV_OPTIONS) as writer,
    ):
        for table in _tables(store, advance, columns):
            writer.write_table(csv_table(_with_image(store, image, table)))


def _write_parquet(
    store: NucleiStore, path: Path, advance: OnProgress, pandas_index: str | None = None, image: str | None = None
) -> None:
    metadata: dict[str, Any] = {"hemalum": _describe(store)}
    if pandas_index is not None:
        column = {"name": pandas_index, "field_name": pandas_index, "pandas_type": "int64", "numpy_type": "int64"}
        metadata["pandas"] = {
            "index_columns": [pandas_index],
            "column_indexes": [],
            "columns": [column | {"metadata": None}],
        }
    # spatialdata knows its element by its name, and its tables by theirs
    form: Callable[[pa.Table], pa.Table] = lambda table: table  # noqa: E731
    if pandas_index is None:
        form = partial(_with_image, store, image)
    with part_writer(path, form(store.schema.empty_table()).schema, store.bounds, metadata, "zstd") as writer:
        for table in _tables(store, advance):
            if table.num_rows:  # an empty row group has no statistics
                writer.write_table(form(table))


def _write_spatialdata(store: NucleiStore, path: Path, advance: OnProgress) -> None:
    """The folder that spatialdata reads: one element of shapes, its measures beside the outlines.

    Written by its format (container 0.2, shapes 0.3, Zarr 3), which its versions from 0.5 on read; the library
    itself would hold all shapes in memory.
    """
    axes = [{"name": name, "type": "space", "unit": "unit"} for name in ("x", "y")]

    def system(name: str, transformation: dict[str, Any]) -> dict[str, Any]:
        return {**transformation, "input": {"name": "xy", "axes": axes}, "output": {"name": name, "axes": axes}}

    systems = [system("global", {"type": "identity"})]
    if store.run.mpp is not None:
        systems.append(system("microns", {"type": "scale", "scale": [store.run.mpp] * 2}))
    groups: dict[str, dict[str, Any]] = {
        ".": {"spatialdata_attrs": {"version": "0.2"}, "hemalum": _describe(store)},
        "shapes": {},
        "shapes/nuclei": {
            "encoding-type": "ngff:shapes",
            "axes": ["x", "y"],
            "coordinateTransformations": systems,
            "spatialdata_attrs": {"version": "0.3"},
        },
    }
    with new_folder(path) as folder:
        for name, attributes in groups.items():
            group = {"zarr_format": 3, "node_type": "group", "attributes": attributes}
            write_text(folder / name / "zarr.json", json.dumps(group, ensure_ascii=False))
        _write_parquet(store, folder / "shapes/nuclei/shapes.parquet", advance, pandas_index="id")
