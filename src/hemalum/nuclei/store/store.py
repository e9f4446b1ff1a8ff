"""The store: a folder that many processes fill region by region, and that is read without loading it.

    STEM.nuclei/nuclei.yaml              what decides the results (StoreRun), and what is known when all is done
    STEM.nuclei/parts/<row>_<column>.parquet   the nuclei of one region; an empty region has an empty part
    STEM.nuclei/regions.parquet          once complete: number and bounds of the nuclei of each part

A part is written beside and renamed, so it is there whole or not at all, and what is there is finished. A store is
complete with just the parts that regions.parquet lists.
"""

import time
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.dataset
import shapely
from numpy.typing import NDArray

from hemalum.errors import HemalumError, OtherRunError, nearest
from hemalum.files import named_path
from hemalum.manifest import check_manifest, lock_folder, manifest_path, read_manifest, write_manifest
from hemalum.nuclei.ihc_score import GRADES, grade, otsu_threshold
from hemalum.nuclei.io.frames import require_tables
from hemalum.nuclei.nuclei import Nuclei
from hemalum.nuclei.polygons import Polygons
from hemalum.nuclei.store.index import (
    PartIndex,
    check_grid,
    check_listed,
    check_number,
    list_parts,
    part_name,
    read_index,
    survey_parts,
    write_index,
)
from hemalum.nuclei.store.parts import (
    boxes_of,
    from_wkb,
    groups_near,
    make_schema,
    make_table,
    open_part,
    part_notes,
    read_part,
    write_part,
)
from hemalum.nuclei.store.run import Region, StoreRun, StoreState, first_difference, read_content

Notes = Mapping[str, Any]

KIND = "nuclei"
SUFFIX = ".nuclei"
INDEX = "regions.parquet"
LEFTOVER_SECONDS = 600  # a part that nobody has written to for so long is of a process that was killed


class NucleiStore:
    """The nuclei of one slide on disk. Made by `create` or `open_store`; safe with many processes at once."""

    def __init__(self, path: Path, content: Mapping[str, Any]) -> None:
        self.path = named_path(path)
        self.run, state = read_content(manifest_path(self.path, KIND), content)
        self.complete, self.thresholds, self.notes = state.complete, state.thresholds, state.notes
        self._number = state.parts
        self.schema = make_schema(self.run.class_names, dab=self.run.dab, graded=self.run.positive is not None)
        self._seen: PartIndex | None = None

    @classmethod
    def create(cls, path: Path | str, run: StoreRun) -> "NucleiStore":
        """Start a store, or go on with the one of the same run that is there.

        Raises HemalumError when the folder holds another run's nuclei, or something else, or cannot be written.
        """
        path = Path(path)
        requested = run.model_dump(mode="json")

        def join(held: Mapping[str, Any]) -> Mapping[str, Any]:
            difference = first_difference({key: held.get(key) for key in requested}, requested)
            if difference:
                raise OtherRunError(
                    f"{path}: holds the nuclei of another run ({difference}); choose another folder, or --overwrite"
                )
            return held

        content = check_manifest(path, KIND, requested | StoreState().model_dump(mode="json"), join)
        store = cls(path, content)
        try:
            store._parts.mkdir(exist_ok=True)
        except OSError as error:
            raise HemalumError(f"cannot create {store._parts}: {error.strerror}") from error
        if store.complete:
            index = read_index(path / INDEX)
            if index is None or index.regions != store.finished:
                store._reopen()
        return store

    def __repr__(self) -> str:
        state = "complete" if self.complete else "not complete"
        try:
            state = f"{self.count:,} nuclei in {len(self.finished)} regions, {state}"
        except HemalumError as error:
            state = str(error)
        return f"NucleiStore({str(self.path)!r}: {state})"

    def __len__(self) -> int:
        return self.count

    @property
    def name(self) -> str:
        """The folder's name without its ending: the slide's."""
        return self.path.name.removesuffix(SUFFIX)

    @property
    def _parts(self) -> Path:
        return self.path / "parts"

    def part_path(self, region: Region) -> Path:
        """Where the nuclei of a region are."""
        return self._parts / part_name(region)

    # -- writing

    @property
    def finished(self) -> list[Region]:
        """The regions that are there, by row and column."""
        return list_parts(self._parts)

    def missing(self, regions: Iterable[Region] | None = None) -> list[Region]:
        """Those of the regions that are not there yet, in their order; without `regions`, of the whole grid."""
        grid = self.run.grid
        there = set(self.finished)
        wanted = (
            [(row, column) for row in range(grid.rows) for column in range(grid.columns)]
            if regions is None
            else regions
        )
        return [(row, column) for row, column in wanted if (row, column) not in there]

    def add(self, region: Region, nuclei: Nuclei, ids: NDArray[Any], notes: Mapping[str, Any] | None = None) -> Path:
        """Write the nuclei of one region, also none; gives the part's path. A region that is there is replaced.

        A store that was complete no longer is, until `finish`.

        The nuclei are in px of the whole slide. `ids` (N,) whole numbers are unique in the slide (`raster_ids`); the
        table's own count within the region and are not kept. Nuclei are graded where the run says by what. `notes`,
        plain values, stay with the part (`part_notes`).

        Raises HemalumError for a region outside the grid, for other columns than the store's, or when the part
        cannot be written.
        """
        grid = self.run.grid
        if not (0 <= region[0] < grid.rows and 0 <= region[1] < grid.columns):
            raise HemalumError(f"{self.path}: region {region} is not in its grid of {grid.rows} x {grid.columns}")
        positive = self.run.positive
        if isinstance(positive, tuple) and not nuclei.thresholds:
            nuclei = nuclei.graded(positive)
        table = nuclei.table
        if positive == "otsu" and "intensity" not in table.column_names:
            table = table.append_column("intensity", pa.nulls(table.num_rows, pa.string()))
        path, part = self.part_path(region), make_table(self.schema, table, nuclei.outlines, ids)
        if self.complete or (self.path / INDEX).exists():
            self._reopen()
        write_part(path, part, notes)
        self._seen = None
        return path

    def _reopen(self) -> None:
        """Say that the store is not complete: a region is missing, or will be another."""
        with lock_folder(self.path):
            content = read_manifest(self.path, KIND) | {"complete": False, "parts": None, "thresholds": []}
            write_manifest(self.path, KIND, content)
            try:
                (self.path / INDEX).unlink(missing_ok=True)
            except OSError as error:
                raise HemalumError(f"cannot remove {self.path / INDEX}: {error.strerror}") from error
        self.complete, self.thresholds, self._number, self._seen = False, (), None, None

    def finish(self, regions: Iterable[Region] | None = None, notes: Mapping[str, Any] | None = None) -> None:
        """Say that all regions are there; `notes`, plain values, go to the manifest and into every export.

        Grades the nuclei by Otsu's threshold where the run asks for it. Raises HemalumError when a region is missing.
        """
        missing = self.missing(regions)
        if missing:
            raise HemalumError(f"{self.path}: {len(missing)} regions are not finished, the first is {missing[0]}")
        thresholds = self._grade_by_otsu() if self.run.positive == "otsu" else self.run.positive or ()
        with lock_folder(self.path):
            there = check_grid(self.path, self.finished, self.run.grid)
            index = self._survey(there)
            write_index(self.path / INDEX, index)
            content = read_manifest(self.path, KIND)
            self.notes = read_content(manifest_path(self.path, KIND), content)[1].notes | dict(notes or {})
            content |= {"complete": True, "parts": len(there), "notes": self.notes}
            write_manifest(self.path, KIND, content | {"thresholds": [float(one) for one in thresholds]})
            for leftover in self._parts.glob(".*.part.parquet"):
                with suppress(OSError):
                    if time.time() - leftover.stat().st_mtime > LEFTOVER_SECONDS:
                        leftover.unlink()
        self.complete, self.thresholds, self._number, self._seen = True, tuple(thresholds), len(there), index

    def _grade_by_otsu(self) -> tuple[float, ...]:
        """Fill the column `intensity` of every part; the measures stay, so doing it again changes nothing."""
        values = self.dataset.to_table(columns=["dab_mean"]).column(0).to_numpy().astype(np.float64)
        threshold = otsu_threshold(values)
        names = np.array([None, *GRADES[1]], np.object_)
        for region in self._regions():
            with open_part(self.part_path(region), self.schema) as file:
                table, notes = file.read(use_threads=False), part_notes(file)
            grades = names[grade(table.column("dab_mean").to_numpy().astype(np.float64), (threshold,))]
            position = table.column_names.index("intensity")
            graded = table.set_column(position, "intensity", pa.array(grades, pa.string())).cast(self.schema)
            write_part(self.part_path(region), graded, notes)
        return (threshold,)

    # -- reading

    def part_notes(self) -> Iterator[dict[str, Any]]:
        """What was said of each part when it was written."""
        for region in self._regions():
            with open_part(self.part_path(region), self.schema) as file:
                yield part_notes(file)

    @property
    def dataset(self) -> pa.dataset.Dataset:
        """All parts as one table that is read when it is asked (`pyarrow.dataset`), with the store's columns.

        Raises HemalumError for a part that is damaged or of another schema.
        """
        regions = self._regions()
        self._survey(regions)  # pyarrow would fill columns that a part lacks with null
        files = [str(self.part_path(region)) for region in regions]
        return pa.dataset.dataset(files, schema=self.schema, format="parquet")

    @property
    def count(self) -> int:
        """Number of nuclei."""
        return int(self._index().counts.sum())

    @property
    def bounds(self) -> NDArray[np.float64] | None:
        """Bounds (4,) x, y, x, y in px of all nuclei; None where there are none."""
        boxes = self._index().bounds
        return np.array([*boxes[:, :2].min(axis=0), *boxes[:, 2:].max(axis=0)]) if self.count else None

    def tables(self, columns: Sequence[str] | None = None) -> Iterator[pa.Table]:
        """The rows part by part, by row and column of their regions; the next one is read meanwhile."""
        paths = [self.part_path(region) for region in self._regions()]
        with ThreadPoolExecutor(1) as reader:
            ahead: deque[Future[pa.Table]] = deque()
            ahead.extend(reader.submit(read_part, path, self.schema, columns) for path in paths[:1])
            for path in paths[1:]:
                table = ahead.popleft().result()
                ahead.append(reader.submit(read_part, path, self.schema, columns))
                yield table
            for last in ahead:
                yield last.result()

    def window(
        self,
        x: float,
        y: float,
        width: float,
        height: float,
        *,
        columns: Sequence[str] | None = None,
        centers: bool = False,
    ) -> pa.Table:
        """The rows of the nuclei that touch a window in px of level 0, by id; only the parts that lie there are read.

        A nucleus touches it when its bounding box does. With `centers` those whose centroid is inside are given: of
        windows side by side each nucleus is then in one. Raises HemalumError for an unknown column.
        """
        asked = np.array([x, y, x + width, y + height], np.float64)
        wanted = self._known(self.schema.names if columns is None else columns)
        needed = list(dict.fromkeys([*wanted, "id", "x", "y", "bbox"]))
        tables = []
        for region in self._index().near(asked):
            with open_part(self.part_path(region), self.schema) as file:
                groups = groups_near(file.metadata, asked)
                if not groups:
                    continue
                table = file.read_row_groups(groups, columns=needed, use_threads=False)
            if centers:
                centroids = np.column_stack([table.column("x").to_numpy(), table.column("y").to_numpy()])
                inside = (centroids >= asked[:2]).all(axis=1) & (centroids < asked[2:]).all(axis=1)
            else:
                boxes = boxes_of(table)
                inside = (boxes[:, :2] < asked[2:]).all(axis=1) & (boxes[:, 2:] > asked[:2]).all(axis=1)
            tables.append(table.take(np.flatnonzero(inside)))
        if not tables:
            return self.schema.empty_table().select(wanted)
        joined = pa.concat_tables(tables)
        return joined.take(np.argsort(joined.column("id").to_numpy())).select(wanted)

    def nuclei(self, window: tuple[int, int, int, int] | None = None) -> Nuclei:
        """The nuclei that touch a window x, y, width, height as `Nuclei` in px of it; without a window, all.

        Its region is that of the run in the window; glass and artifacts in it are not known here (`summarize`).
        Ids count from 1 in the order of the store's. All of a slide need its memory: some 2 GB for a million.
        """
        height, width = self.run.shape
        x, y, width, height = (0, 0, width, height) if window is None else window
        if width < 1 or height < 1:
            raise HemalumError(f"window {x},{y},{width},{height}: width and height must be at least 1 px")
        if window is None:
            table = pa.concat_tables([self.schema.empty_table(), *self.tables()])
            table = table.take(np.argsort(table.column("id").to_numpy()))
        else:
            table = self.window(x, y, width, height)
        rings = from_wkb(table.column("geometry"))
        outlines = Polygons(rings.coords - np.array([x, y], np.float32), rings.offsets)
        columns = {name: table.column(name) for name in self.schema.names if name not in ("bbox", "geometry")}
        columns["id"] = pa.array(np.arange(1, table.num_rows + 1, dtype=np.uint32))
        for name, shift in (("x", x), ("y", y)):
            columns[name] = pa.array(np.round(table.column(name).to_numpy() - shift, 3))
        run = self.run
        metadata = {"mpp": str(run.mpp), "mpp_source": run.mpp_source, "model": str(run.model)}
        return Nuclei(
            pa.table(columns).replace_schema_metadata({f"hemalum.{key}": value for key, value in metadata.items()}),
            outlines,
            (height, width),
            run.mpp,
            run.mpp_source,
            run.model,
            run.source,
            self.notes | ({} if window is None else {"window": list(window)}),
            run.class_names,
            self.thresholds or (run.positive if isinstance(run.positive, tuple) else ()),
            self._region(x, y, width, height),
        )

    def _region(self, x: int, y: int, width: int, height: int) -> Any:
        """The run's region of interest in a window, in px of it; None where it has none."""
        outlines = self.run.settings.get("roi")
        if outlines is None:
            return None
        inside = shapely.intersection(shapely.from_wkt(outlines), shapely.box(x, y, x + width, y + height))
        return shapely.transform(inside, lambda points: points - [x, y])

    def to_pandas(self, columns: Sequence[str] | None = None) -> Any:
        """The table without outlines as a pandas.DataFrame. Raises HemalumError without pandas."""
        require_tables("pandas")
        plain = [name for name in self.schema.names if name not in ("bbox", "geometry")]
        return self.dataset.to_table(columns=self._known(plain if columns is None else columns)).to_pandas()

    def to_geopandas(self, window: tuple[float, float, float, float] | None = None) -> Any:
        """The table with outlines as a geopandas.GeoDataFrame, all or those that touch a window x, y, width, height.

        Raises HemalumError without geopandas.
        """
        geopandas = require_tables("geopandas")
        table = self.dataset.to_table() if window is None else self.window(*window)
        outlines = from_wkb(table.column("geometry")).shapely()
        return geopandas.GeoDataFrame(table.drop_columns(["bbox", "geometry"]).to_pandas(), geometry=outlines)

    def _known(self, columns: Sequence[str]) -> list[str]:
        """The columns asked for. Raises HemalumError for one that the store does not have."""
        for name in columns:
            if name not in self.schema.names:
                raise HemalumError(f"{self.path}: no column '{name}'{nearest(name, self.schema.names)}")
        return list(columns)

    def _regions(self) -> list[Region]:
        """The regions that are read: those of a complete store, or those that are there by now."""
        return self._index().regions if self.complete else check_grid(self.path, self.finished, self.run.grid)

    def _index(self) -> PartIndex:
        """What is known of the parts; looked up again while parts may come."""
        if self._seen is not None and self.complete:
            return self._seen
        there = check_grid(self.path, self.finished, self.run.grid)
        if self._seen is None or self._seen.regions != there:
            stored = read_index(self.path / INDEX) if self.complete else None
            if stored is not None:
                check_listed(self.path, stored.regions, there)
            elif self.complete:
                check_number(self.path, self._number, len(there))
            self._seen = stored or self._survey(there)
        return self._seen

    def _survey(self, regions: list[Region]) -> PartIndex:
        return survey_parts(regions, [self.part_path(region) for region in regions], self.schema)
