"""Nuclei: the one result that every verb returns."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from hemalum.errors import HemalumError
from hemalum.export import geojson, labels, overlay, table
from hemalum.export.colours import Classes
from hemalum.instances.morphology import Columns, describe, moments
from hemalum.instances.polygons import Polygons, fill, split_pieces, trace
from hemalum.instances.vote import vote


@dataclass(frozen=True, slots=True, eq=False)
class Part:
    """Finished nuclei of one band of an image, measured on the separation grid."""

    polygons: Polygons
    first: NDArray[np.int32]
    raw: Columns

    def __len__(self) -> int:
        return len(self.polygons)


def measure(
    labels: NDArray[np.int32],
    image: NDArray[np.uint8] | None = None,
    probability: NDArray[np.float32] | None = None,
    *,
    kinds: NDArray[np.float32] | None = None,
    threshold: float | None = None,
    origin: tuple[int, int] = (0, 0),
    smooth: bool = True,
) -> Part:
    """Outline and measure every nucleus of a label map (H, W) int32 whose labels are 4-connected pieces.

    `image` (H, W, 3) uint8, or smaller by a whole factor, and `probability` (H, W) float32 belong to the same
    pixels; with a `threshold`, outlines lie where the probability crosses it. `origin` is row and column of
    labels[0, 0] on the whole separation grid. `kinds` (H, W) float32, the most probable class of each pixel from 1,
    gives each nucleus a class by `vote`. A nucleus gives the same numbers to the last bit whichever band it is
    measured in.
    """
    along = None if threshold is None else probability
    outlines = trace(labels, along, threshold or 0.5, smooth=smooth, origin=origin)
    raw = moments(labels, outlines, image, probability)
    if kinds is not None:
        raw["class"] = vote(labels, outlines.ids, kinds, probability, threshold or 0.0)
    return Part(outlines.polygons, outlines.first, raw)


@dataclass(frozen=True, slots=True, eq=False)
class Nuclei:
    """The nuclei of one image: a table, one polygon each, and what is known of the scale.

    `table` (pyarrow) has one row per nucleus: id (uint32, 1..N), x, y (centroid), and the columns of
    `hemalum.instances.morphology.describe`; px are pixels of the input image, µm columns are null without
    mpp. `outlines` are the exterior rings in px. `shape` is (H, W) of the input. `mpp_source` is "file",
    "user", "estimate" or "none". `model` and `source` name the model and the image. `class_names` are the classes
    that the model tells apart; where it does, the table has a last column `class` with the name of each nucleus's.
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
    ) -> "Nuclei":
        """Join the parts of one image; ids follow the first pixel in raster order, whatever the parts were.

        `scale` is input px per separation-grid px in x and y. `class_names` are those of the parts' `kinds`.
        """
        joined = Polygons.joined([part.polygons for part in parts])
        first = np.concatenate([np.zeros((0, 2), np.int32), *(part.first for part in parts)])
        order = np.lexsort((first[:, 1], first[:, 0]))
        names = parts[0].raw if parts else measure(np.zeros((1, 1), np.int32)).raw
        raw = {name: np.concatenate([part.raw[name] for part in parts] or [names[name]]) for name in names}
        raw = {name: values[order] for name, values in raw.items()}
        columns = describe(raw, scale=scale, mpp=mpp)
        if class_names:
            columns["class"] = np.array(["", *class_names], np.object_)[raw.get("class", np.zeros(0, np.int32))]
        return cls(
            _table(columns, mpp, mpp_source, model),
            joined.take(order).scaled(*scale),
            shape,
            mpp,
            mpp_source,
            model,
            source,
            notes or {},
            tuple(class_names),
        )

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
        height, width = labels.shape
        part = measure(split_pieces(labels), image)
        origin = mpp_source or ("none" if mpp is None else "user")
        return cls.from_parts([part], shape=(height, width), mpp=mpp, mpp_source=origin, source=source)

    @classmethod
    def concat(cls, several: Sequence["Nuclei"]) -> "Nuclei":
        """Join nuclei found in one image, one after the other; ids are counted anew.

        Raises HemalumError when there are none, or they are not of one image and scale.
        """
        if not several:
            raise HemalumError("nothing to join: give at least one Nuclei")
        head = several[0]
        if any(one.shape != head.shape or one.mpp != head.mpp for one in several):
            raise HemalumError("only nuclei of one image, with one shape and mpp, can be joined")
        if any(one.class_names != head.class_names for one in several):
            raise HemalumError("only nuclei of the same classes can be joined")
        joined = pa.concat_tables([one.table for one in several])
        ids = pa.array(np.arange(1, joined.num_rows + 1, dtype=np.uint32))
        return cls(
            joined.set_column(0, "id", ids),
            Polygons.joined([one.outlines for one in several]),
            head.shape,
            head.mpp,
            head.mpp_source,
            head.model,
            head.source,
            head.notes,
            head.class_names,
        )

    def __len__(self) -> int:
        return len(self.outlines)

    @property
    def count(self) -> int:
        """Number of nuclei."""
        return len(self.outlines)

    @property
    def area_mm2(self) -> float | None:
        """Area of the image in mm², None without mpp."""
        return None if self.mpp is None else self.shape[0] * self.shape[1] * self.mpp**2 / 1e6

    @property
    def density_per_mm2(self) -> float | None:
        """Nuclei per mm² of image, None without mpp; an estimate where `mpp_source` is "estimate"."""
        return self.count / self.area_mm2 if self.area_mm2 else None

    @property
    def classes(self) -> Classes | None:
        """The class of each nucleus by number, names and counts; None where the model tells no classes apart."""
        if not self.class_names:
            return None
        numbers = {name: number for number, name in enumerate(self.class_names, start=1)}
        names = self.table.column("class").to_pylist()
        return Classes(np.array([numbers.get(name, 0) for name in names], np.int32), self.class_names)

    def polygons(self) -> NDArray[np.object_]:
        """Give the outlines as (N,) shapely polygons in px of the input image."""
        return self.outlines.shapely()

    def polygons_um(self) -> NDArray[np.object_]:
        """Give the outlines as (N,) shapely polygons in µm. Raises HemalumError without mpp."""
        if self.mpp is None:
            raise HemalumError("no mpp is known for this image, so there are no µm: give mpp")
        return self.outlines.scaled(self.mpp, self.mpp).shapely()

    def label_map(self) -> NDArray[np.uint32]:
        """Give the label map (H, W) uint32 at the size of the input image; values are the table's ids.

        Drawn from the outlines by pixel centre, so an enclosed hole belongs to the nucleus around it.
        """
        return fill(self.outlines, self.shape)

    def to_geojson(self, path: str | Path, *, simplify: float = 0.0) -> None:
        """Write polygons and measurements as GeoJSON that QuPath opens.

        Outlines may be moved by up to `simplify` px to save points.
        """
        outlines = self.outlines.simplified(simplify)
        geojson.write_geojson(
            path,
            outlines.coords,
            outlines.offsets,
            self.table,
            note={
                "mpp": self.mpp,
                "mpp_source": self.mpp_source,
                "model": self.model,
                "source": self.source,
                "shape": list(self.shape),
                **self.notes,
                **({"classes": list(self.class_names)} if self.class_names else {}),
            },
            classes=self.classes,
        )

    def to_csv(self, path: str | Path) -> None:
        """Write the table as CSV."""
        table.write_csv(path, self.table)

    def to_parquet(self, path: str | Path) -> None:
        """Write the table as Parquet, with a `polygon` column of x, y, x, y … in px."""
        table.write_parquet(path, self.table, self.outlines.coords, self.outlines.offsets)

    def to_labels(self, path: str | Path) -> None:
        """Write the label map as compressed TIFF, uint32."""
        labels.write_labels(path, self.label_map(), mpp=self.mpp)

    def to_overlay(
        self, path: str | Path, image: NDArray[np.uint8], *, colour: tuple[int, int, int] = overlay.COLOUR
    ) -> None:
        """Write the input image (H, W, 3) uint8 with the outlines drawn on it, PNG.

        Where nuclei have classes, each has the colour of its class, and a legend is added below the image. Raises
        HemalumError when the image is not the one that the nuclei are of.
        """
        overlay.write_overlay(path, image, self.label_map(), colour=colour, classes=self.classes)


def _table(columns: Columns, mpp: float | None, mpp_source: str, model: str | None) -> pa.Table:
    count = len(columns["x"])
    arrays = {"id": pa.array(np.arange(1, count + 1, dtype=np.uint32))}
    for name, values in columns.items():
        # a thousandth of a pixel is more than any outline knows
        if name == "class":
            arrays[name] = pa.array(values, pa.string())
            continue
        kept = np.round(values, 3) if name in ("x", "y") else values.astype(np.float32)
        arrays[name] = pa.array(kept, from_pandas=True)
    metadata = {"mpp": str(mpp), "mpp_source": mpp_source, "model": str(model)}
    return pa.table(arrays).replace_schema_metadata({f"hemalum.{key}": v for key, v in metadata.items()})
