"""Nuclei: the one result that every verb returns."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from hemalum.errors import HemalumError, counted
from hemalum.nuclei.dab import DAB_COLUMNS, RING_UM, measure_dab
from hemalum.nuclei.filters import NucleusFilter, add_notes, contains, cut_region
from hemalum.nuclei.ihc_score import GRADES, Allred, IhcScore, Positive, check_positive, grade, otsu_threshold
from hemalum.nuclei.io.colors import INTENSITIES, Classes, Color, combine_classes
from hemalum.nuclei.io.frames import as_anndata, as_spatialdata, require_tables, with_image, write_csv, write_parquet
from hemalum.nuclei.io.geojson import write_geojson
from hemalum.nuclei.io.label_tiff import write_label_tiff
from hemalum.nuclei.io.notebook import show_in_notebook
from hemalum.nuclei.io.overlay import COLOR, NO_CLASSES, shrinking, shrunk_rows, write_overlay
from hemalum.nuclei.morphology import describe
from hemalum.nuclei.part import Part, measure
from hemalum.nuclei.polygons import Polygons, fill, fill_rows, split_pieces
from hemalum.nuclei.table import make_table
from hemalum.settings import as_number


@dataclass(frozen=True, slots=True, eq=False)
class Nuclei:
    """The nuclei of one image: a table, one polygon each, and what is known of the scale.

    `table` (pyarrow) has one row per nucleus: id (uint32, 1..N), x, y (centroid), and the columns of
    `hemalum.nuclei.morphology.describe`; px are pixels of the input image, µm columns are null without
    mpp. `outlines` are the exterior rings in px. `shape` is (H, W) of the input. `mpp_source` is "file",
    "user", "estimate" or "none". `model` and `source` name the model and the image. `class_names` are the classes
    that the model tells apart; where it does, the table has a column `class` with the name of each nucleus's.
    `thresholds` are those that nuclei of an H-DAB image were graded by (`graded`), with the column `intensity`.
    `region` is the area of the image, a shapely geometry in px, that the nuclei are of; None: all of it.
    """

    table: pa.Table
    outlines: Polygons
    shape: tuple[int, int]
    mpp: float | None = None
    mpp_source: str = "none"
    model: str | None = None
    source: str | None = None
    notes: dict[str, Any] = field(default_factory=dict)
    class_names: tuple[str, ...] = ()
    thresholds: tuple[float, ...] = ()
    region: Any = None

    @classmethod
    def from_parts(
        cls,
        parts: Sequence[Part],
        *,
        shape: tuple[int, int],
        scale: tuple[float, float] = (1.0, 1.0),
        mpp: float | None = None,
        mpp_source: str = "none",
        model: str | None = None,
        source: str | None = None,
        notes: dict[str, Any] | None = None,
        class_names: Sequence[str] = (),
        dab: bool = False,
    ) -> "Nuclei":
        """Join the parts of one image; ids follow the first pixel in raster order, whatever the parts were.

        `scale` is input px per separation-grid px in x and y. `class_names` are those of the parts' `class_map`. With
        `dab` the parts were measured for it (`measure_dab`).
        """
        if not parts:
            parts = [measure(np.zeros((1, 1), np.int32))]
            parts[0].raw.update(dict.fromkeys(DAB_COLUMNS if dab else (), np.zeros(0)))
        joined = Polygons.joined([part.polygons for part in parts])
        first = np.concatenate([part.first for part in parts])
        order = np.lexsort((first[:, 1], first[:, 0]))
        raw = {name: np.concatenate([part.raw[name] for part in parts])[order] for name in parts[0].raw}
        columns = describe(raw, scale=scale, mpp=mpp) | {name: raw[name] for name in DAB_COLUMNS if dab}
        if class_names:
            columns["class"] = np.array(["", *class_names], np.object_)[raw.get("class", np.zeros(0, np.int32))]
        table = make_table(columns, mpp, mpp_source, model)
        outlines = joined.take(order).scaled(*scale)
        return cls(table, outlines, shape, mpp, mpp_source, model, source, notes or {}, tuple(class_names))

    @classmethod
    def from_labels(
        cls,
        labels: NDArray[Any],
        image: NDArray[np.uint8] | None = None,
        *,
        mpp: float | None = None,
        mpp_source: str | None = None,
        source: str | None = None,
    ) -> "Nuclei":
        """Measure a label map (H, W) integer from elsewhere; each connected piece of a label is a nucleus.

        Raises HemalumError when the label map is not 2-D or does not fit the image.
        """
        if labels.ndim != 2 or (image is not None and image.shape[:2] != labels.shape):
            raise HemalumError(f"label map {labels.shape} must be (H, W) and as large as the image")
        mpp, (height, width) = as_number(mpp, "mpp"), labels.shape
        part = measure(split_pieces(labels), image)
        origin = mpp_source or ("none" if mpp is None else "user")
        return cls.from_parts([part], shape=(height, width), mpp=mpp, mpp_source=origin, source=source)

    @classmethod
    def concat(cls, results: Sequence["Nuclei"]) -> "Nuclei":
        """Join nuclei found in one image, one after the other; ids are counted anew.

        Raises HemalumError when there are none, or they are not of one image and scale.
        """
        if not results:
            raise HemalumError("nothing to join: give at least one Nuclei")
        first = results[0]
        if any(result.shape != first.shape or result.mpp != first.mpp for result in results):
            raise HemalumError("only nuclei of one image, with one shape and mpp, can be joined")
        if any(result.class_names != first.class_names for result in results):
            raise HemalumError("only nuclei of the same classes can be joined")
        if any(result.thresholds != first.thresholds for result in results):
            raise HemalumError("only nuclei that were graded by the same thresholds can be joined")
        if any(result.region != first.region for result in results):
            raise HemalumError("only nuclei of one region can be joined")
        joined = pa.concat_tables([result.table for result in results])
        ids = pa.array(np.arange(1, joined.num_rows + 1, dtype=np.uint32))
        outlines = Polygons.joined([result.outlines for result in results])
        return replace(first, table=joined.set_column(0, "id", ids), outlines=outlines)

    def with_dab(self, image: NDArray[np.uint8] | Callable[[int, int], NDArray[np.uint8]]) -> "Nuclei":
        """The same nuclei with columns dab_mean, dab_std and dab_ring_mean, optical density of DAB (log10).

        `image` is the H-DAB image (H, W, 3) uint8, or what reads its rows start..stop. The ring is `RING_UM` wide,
        and its column null without mpp. Raises HemalumError for an image of another size.
        """
        if not isinstance(image, np.ndarray):
            read = image
        elif image.shape != (*self.shape, 3) or image.dtype != np.uint8:
            raise HemalumError(f"image is {image.shape} {image.dtype}; the nuclei are of {(*self.shape, 3)} uint8")
        else:
            read = lambda start, stop: image[start:stop]  # noqa: E731
        columns = measure_dab(self.outlines, read, self.shape, ring=RING_UM / self.mpp if self.mpp else 0.0)
        extended = self.table.drop_columns([name for name in columns if name in self.table.column_names])
        position = extended.column_names.index("probability") + 1
        for name, values in columns.items():
            extended = extended.add_column(position, name, pa.array(values.astype(np.float32), from_pandas=True))
            position += 1
        return replace(self, table=extended)

    def graded(self, positive: Positive) -> "Nuclei":
        """The same nuclei, negative or positive by their mean DAB, with a last column `intensity`.

        `positive` is one threshold of optical density, three for 1+, 2+ and 3+, or "otsu". Raises HemalumError for
        other thresholds, or before `with_dab`.
        """
        requested = check_positive(positive)
        if requested is None or "dab_mean" not in self.table.column_names:
            raise HemalumError("nuclei are graded by thresholds of DAB: measure it first, with_dab(image)")
        values = self.table.column("dab_mean").to_numpy().astype(np.float64)
        thresholds = (otsu_threshold(values),) if isinstance(requested, str) else requested
        names = np.array([None, *GRADES[len(thresholds)]], np.object_)[grade(values, thresholds)]
        ungraded = self.table.drop_columns([name for name in ("intensity",) if name in self.table.column_names])
        source = "Otsu of the nuclei" if isinstance(requested, str) else "set"
        return replace(
            self,
            table=ungraded.append_column("intensity", pa.array(names, pa.string())),
            thresholds=thresholds,
            notes=self.notes | {"positive": list(thresholds), "positive_source": source},
        )

    def filter(
        self,
        *,
        min_area_um2: float | None = None,
        max_area_um2: float | None = None,
        min_probability: float | None = None,
        min_hematoxylin: float | None = None,
        min_solidity: float | None = None,
        inside: Any = None,
        outside: Any = None,
    ) -> "Nuclei":
        """The nuclei within all limits that are set; ids stay, so that both tables can be joined.

        `min_hematoxylin` is a mean optical density (log10). `inside` and `outside` are areas of shapely in px of the
        image: a nucleus is where its centroid is, and density is then of the area that is left. The notes say all
        limits (`filter`), and how many nuclei they and areas left out (`left_out_by_filter`, `left_out_by_area`).
        Raises HemalumError for a limit on what was not measured (µm² without mpp), and for what is no area.
        """
        limits = NucleusFilter.of(
            min_area_um2=min_area_um2, max_area_um2=max_area_um2, min_probability=min_probability,
            min_hematoxylin=min_hematoxylin, min_solidity=min_solidity,
        )  # fmt: skip
        columns = {name: self.table.column(name).to_numpy() for name in ("x", "y", *limits.columns)}
        within = limits.keeps(columns)
        kept, region = within.copy(), self.region
        for area, wanted in ((inside, True), (outside, False)):
            if area is not None:
                kept &= contains(area, columns["x"], columns["y"]) == wanted
                region = cut_region(region, self.shape, area, wanted=wanted)
        elsewhere = None if inside is None and outside is None else int(within.sum() - kept.sum())
        notes = add_notes(self.notes, limits.limits, int((~within).sum()), elsewhere)
        return replace(self[kept], region=region, notes=notes)

    def __getitem__(
        self, rows: int | slice | Sequence[int] | NDArray[np.integer[Any]] | NDArray[np.bool_]
    ) -> "Nuclei":
        """Some of the nuclei, by row (0 is the first), slice, list of rows or mask (N,) bool; ids stay.

        Raises IndexError for rows that are not there.
        """
        index = np.arange(len(self))[[rows] if isinstance(rows, int | np.integer) else rows]
        return replace(self, table=self.table.take(pa.array(index)), outlines=self.outlines.take(index))

    def __len__(self) -> int:
        return len(self.outlines)

    def __repr__(self) -> str:
        height, width = self.shape
        scale = "without scale" if self.mpp is None else f"at {self.mpp:.4g} µm/px ({self.mpp_source})"
        density = "" if self.density_per_mm2 is None else f", {self.density_per_mm2:,.0f} per mm²"
        return f"Nuclei({counted(len(self), 'nucleus')}, {width} x {height} px {scale}{density})"

    def _repr_html_(self) -> str:
        return show_in_notebook(self)

    @property
    def count(self) -> int:
        """Number of nuclei."""
        return len(self.outlines)

    @property
    def area_mm2(self) -> float | None:
        """Area of the image, or of the `region` in it that nuclei count in, mm²; None without mpp."""
        pixels = self.shape[0] * self.shape[1] if self.region is None else float(self.region.area)
        return None if self.mpp is None else pixels * self.mpp**2 / 1e6

    @property
    def density_per_mm2(self) -> float | None:
        """Nuclei per mm² of `area_mm2`, None without mpp; an estimate where `mpp_source` is "estimate"."""
        return self.count / self.area_mm2 if self.area_mm2 else None

    @property
    def classes(self) -> Classes | None:
        """The class of each nucleus by number, names and counts; None where the model tells no classes apart."""
        if not self.class_names:
            return None
        return Classes.of(self.table.column("class").to_pylist(), self.class_names)

    @property
    def intensities(self) -> Classes | None:
        """The grade of each nucleus by number, names and counts; None where they have none."""
        if not self.thresholds:
            return None
        names = GRADES[len(self.thresholds)]
        palette = [INTENSITIES[name] for name in names]
        return Classes.of(self.table.column("intensity").to_pylist(), names, palette)

    def ihc_score(self, class_name: str | None = None) -> IhcScore:
        """Score of the graded nuclei, all or those of one class. Raises HemalumError where there are no grades."""
        intensities, classes = self.intensities, self.classes
        if intensities is None:
            raise HemalumError("no nuclei are graded: segment with stain hdab and positive, or use graded()")
        if class_name is None:
            return IhcScore(intensities.counts)
        if classes is None or class_name not in classes.names:
            raise HemalumError(f"there is no class '{class_name}'; classes: {', '.join(self.class_names) or 'none'}")
        grades = intensities.numbers[classes.numbers == list(classes.names).index(class_name) + 1]
        return IhcScore(Classes(grades, intensities.names).counts)

    @property
    def positive_share(self) -> float | None:
        """Share of nuclei that are positive, in [0, 1]; None without nuclei or grades."""
        return self.ihc_score().positive_share if self.thresholds else None

    @property
    def h_score(self) -> float | None:
        """H-score, 0 to 300; None without nuclei or with other than three thresholds."""
        return self.ihc_score().h_score if self.thresholds else None

    @property
    def allred(self) -> Allred | None:
        """Allred's score; None without nuclei or with other than three thresholds."""
        return self.ihc_score().allred if self.thresholds else None

    def polygons(self) -> NDArray[np.object_]:
        """Give the outlines as (N,) shapely polygons in px of the input image."""
        return self.outlines.shapely()

    def label_map(self) -> NDArray[np.uint32]:
        """Give the label map (H, W) uint32 at the size of the input image; values are the table's ids.

        Drawn from the outlines by pixel center, so an enclosed hole belongs to the nucleus around it.
        """
        return fill(self.outlines, self.shape, self.table.column("id").to_numpy())

    def to_pandas(self) -> Any:
        """The table, with the columns of `to_csv`, as a pandas.DataFrame. Raises HemalumError without pandas."""
        require_tables("pandas")
        return self._with_image(None).to_pandas()

    def to_geopandas(self) -> Any:
        """The table with the outlines, px, as a geopandas.GeoDataFrame. Raises HemalumError without geopandas."""
        return require_tables("geopandas").GeoDataFrame(self.to_pandas(), geometry=self.polygons())

    def to_anndata(self) -> Any:
        """Measurements as AnnData, by id; centroids, px, as obsm["spatial"]. Raises HemalumError without anndata."""
        return as_anndata(self.to_pandas(), {"mpp": self.mpp, "mpp_source": self.mpp_source, "model": self.model})

    def to_spatialdata(self) -> Any:
        """Outlines and table as the shapes "nuclei" of SpatialData, in px and µm. Raises HemalumError without it."""
        return as_spatialdata(self.to_geopandas(), self.mpp)

    def to_geojson(self, path: str | Path, *, simplify: float = 0.0, kind: str = "detection") -> None:
        """Write polygons and measurements as GeoJSON that QuPath opens, as its `kind` "detection" or "annotation".

        Outlines may be moved by up to `simplify` px to save points; measurements stay. Objects have the table's id as
        a measurement, and a UUID that follows from image and outline. Graded nuclei are classified by grade, those
        of a model with classes by both. Raises HemalumError for a `simplify` below 0, and where it cannot be written.
        """
        write_geojson(
            path,
            self.outlines,
            self.table,
            image=f"{Path(self.source or '').name} {self.shape}".encode("utf-8", "surrogateescape"),
            simplify=simplify,
            note={
                "mpp": self.mpp,
                "mpp_source": self.mpp_source,
                "model": self.model,
                "source": self.source,
                "shape": list(self.shape),
                **self.notes,
                **({"simplify_px": simplify} if simplify else {}),
                **({"classes": list(self.class_names)} if self.class_names else {}),
                **({"ihc": self.ihc_score().as_dict()} if self.thresholds else {}),
            },
            classes=combine_classes(self.classes, self.intensities),
            kind=kind,
        )

    def _with_image(self, image: str | None) -> pa.Table:
        return with_image(self.table, image, self.mpp, self.mpp_source, source=self.source)

    def to_csv(self, path: str | Path, *, image: str | None = None) -> None:
        """Write the table as CSV: a header and a line per nucleus; null is an empty field.

        Each line names the image (`image`, else the file name of `source`), its mpp and where that is from. Ids are
        those of the GeoJSON and the label map; centroids are in px and µm.
        """
        write_csv(path, self._with_image(image))

    def to_parquet(self, path: str | Path, *, image: str | None = None) -> None:
        """Write the table of `to_csv` as Parquet, with a column `polygon`, a list x, y, x, y … in px per nucleus.

        The schema's metadata keep mpp, its source and the model.
        """
        write_parquet(path, self._with_image(image), self.outlines)

    def to_labels(self, path: str | Path) -> None:
        """Write the label map as TIFF, zlib-compressed in strips, by bands; mpp becomes its resolution.

        uint16 where the ids fit, else uint32. An estimated mpp stands in the description only: programs take a
        resolution for measured. Raises HemalumError for an image without a pixel.
        """
        if min(self.shape) < 1:
            raise HemalumError(f"label map must be (H, W) with at least one pixel, not {self.shape}")
        ids = self.table.column("id").to_numpy()
        rows = fill_rows(self.outlines, self.shape[1], ids)
        write_label_tiff(
            path, self.shape, rows, largest=int(ids.max(initial=0)), mpp=self.mpp, mpp_source=self.mpp_source
        )

    def to_overlay(
        self,
        path: str | Path,
        image: NDArray[np.uint8] | Callable[[int, int], NDArray[np.uint8]],
        *,
        color: Color = COLOR,
    ) -> None:
        """Write the input image with the outlines drawn on it, PNG, by bands: memory does not grow with its height.

        `image` is (H, W, 3) uint8, or what reads its rows start..stop, as `Slide.rows` does. Graded nuclei have the
        color of their grade (positive red, negative blue), others that of their class where they have one, and a
        legend is added below the image. Beyond 150 megapixels, or 32,767 px on a side, the picture is smaller by a
        whole factor, as the log says: few programs open larger ones. Raises HemalumError when the image is not the
        one that the nuclei are of.
        """
        height, width = self.shape
        if isinstance(image, np.ndarray) and image.shape != (height, width, 3):
            raise HemalumError(f"image is {image.shape}; the nuclei are of {(height, width, 3)}")
        read = (lambda start, stop: image[start:stop]) if isinstance(image, np.ndarray) else image
        by = shrinking(self.shape, path)
        classes = self.intensities or self.classes
        numbers = NO_CLASSES if classes is None else classes.numbers
        draw = fill_rows(self.outlines.scaled(1 / by, 1 / by), -(-width // by))
        write_overlay(
            path, (-(-height // by), -(-width // by)), shrunk_rows(read, height, by),
            lambda start, stop: (draw(start, stop), numbers), color=color, classes=classes,
        )  # fmt: skip
