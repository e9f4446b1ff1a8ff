"""What is decided before the first tile: scale, stain, tiles and cells. It decides every nucleus that is found."""

import logging
import math
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from hemalum.inference.cells import MARGIN, CellNuclei, separate_cell
from hemalum.inference.grid import CELL_HALO, Box, TileGrid, cut_cells, plan_tiles
from hemalum.inference.maps import TileMaps, scaled_pixels
from hemalum.inference.nuclear_marker import show_nuclear_dab
from hemalum.inference.scale import Scale, find_scale, scaled_shape
from hemalum.inference.staining import Staining, find_staining
from hemalum.inference.tta import describe_tta, without_tta
from hemalum.models.engines.engine import Engine
from hemalum.models.model import Model
from hemalum.nuclei import describe
from hemalum.nuclei.dab import DAB_COLUMNS, RING_UM, measure_dab
from hemalum.nuclei.filters import FILTERED, NucleusFilter
from hemalum.nuclei.nuclei import Nuclei
from hemalum.nuclei.part import Part
from hemalum.nuclei.polygons import Polygons
from hemalum.slides.artifacts import Artifacts
from hemalum.slides.roi import Roi
from hemalum.slides.slide import Slide
from hemalum.slides.tissue import Tissue
from hemalum.targets.representations import Representation, find_representation

log = logging.getLogger(__name__)

NO_ORGAN = "the mean of all organs is taken"  # of their embeddings (docs/systems/clin_seg_net.md)

COARSE = 2.2  # times the model's µm per px: more than a 20x slide is for a model of 40x
PALE = "left_out_without_hematoxylin"  # note of a result
TWICE = "left_out_found_twice"  # note of a result
IN_ARTIFACTS = "left_out_in_artifacts"  # note of a result


@dataclass(frozen=True, slots=True, eq=False)
class Plan:
    """How a slide of `slide_shape` (H, W) px is segmented; it can be pickled.

    `shape` (h, w) is its size at the model's scale, of which maps and label maps have `upsampling` times as many px.
    `tissue` and `roi` limit what is looked at, `keep` which nuclei count; those in what `artifacts` leave out do not.
    """

    slide_shape: tuple[int, int]
    shape: tuple[int, int]
    upsampling: int
    scale: Scale
    staining: Staining
    tiles: TileGrid
    cells: list[list[Box]]
    tissue: Tissue | None = None
    roi: Roi | None = None
    keep: NucleusFilter | None = None
    artifacts: Artifacts | None = None

    @property
    def pixel(self) -> tuple[float, float]:
        """px of level 0 for one of the separation grid, in x and y."""
        height, width = self.shape
        return (
            self.slide_shape[1] / (width * self.upsampling),
            self.slide_shape[0] / (height * self.upsampling),
        )

    def window(self, box: Box) -> tuple[int, int, int, int]:
        """x, y, width, height in whole px of level 0 that hold a box."""
        x, y = (self.upsampling * side for side in self.pixel)
        left, top = int(box.left * x), int(box.top * y)
        right = min(math.ceil(box.right * x), self.slide_shape[1])
        bottom = min(math.ceil(box.bottom * y), self.slide_shape[0])
        return left, top, right - left, bottom - top

    def looked_at(self) -> Any:
        """Where nuclei count, as shapely in px: `roi` without what `artifacts` leave out. None: anywhere."""
        clear = None if self.artifacts is None else self.artifacts.clear_area()
        if self.roi is None or clear is None:
            return clear if self.roi is None else self.roi.geometry
        return self.roi.geometry & clear

    def covers(self, box: Box) -> bool:
        """Whether a box has tissue, and a part of the region of interest in it or near it.

        A nucleus whose centroid is in the region may begin outside: its pixels must be the same without a region.
        """
        return (self.tissue is None or self.tissue.covers(*self.window(box))) and (
            self.roi is None or self.roi.meets(*self.window(box.grown(CELL_HALO, self.shape)))
        )


def make_plan(
    slide: Slide,
    model: Model,
    engine: Engine,
    *,
    mpp: float | str | Scale | None = None,
    stain: str = "auto",
    sample: Slide | None = None,
    tissue: Tissue | None = None,
    roi: Roi | None = None,
    keep: NucleusFilter | None = None,
    artifacts: Artifacts | None = None,
) -> Plan:
    """Decide how to segment a slide; `stain` is as `check_stain` gives it.

    Stain, scale and marker are told by `sample`, a part of the slide at its inside scale, or all of it. Raises
    HemalumError as `find_staining` and `find_scale` do.
    """
    card = model.card
    seen = slide if sample is None else sample
    staining = find_staining(seen, model, stain)
    scale = find_scale(seen, model, engine, mpp, staining)
    if scale.mpp > COARSE * card.mpp:
        log.warning(
            "%s: has %.3g µm per px, and %s is for %.3g: enlarged %.1f times it shows no more than it holds, "
            "and small nuclei are missed",
            slide.name, scale.mpp, card.name, card.mpp, scale.mpp / card.mpp,
        )  # fmt: skip
    staining = show_nuclear_dab(staining, seen, model, without_tta(engine), scale.mpp)
    shape = scaled_shape(slide.shape, scale.mpp / card.mpp)
    tiles = plan_tiles(card, shape, reach=representation_of(model).reach)
    return Plan(
        slide.shape, shape, card.output_upsampling, scale, staining, tiles, cut_cells(shape), tissue, roi,
        keep, artifacts,
    )  # fmt: skip


def take_once(parts: list[Part]) -> tuple[list[Part], int]:
    """Parts without the nuclei whose first pixel another one of them has, and how many these were."""
    if not parts:
        return [], 0
    first = np.concatenate([part.first for part in parts])
    kept = np.zeros(len(first), np.bool_)
    kept[np.unique(first, axis=0, return_index=True)[1]] = True
    if kept.all():
        return parts, 0
    ends = np.cumsum([len(part) for part in parts])[:-1]
    taken = [part.where(mask) for part, mask in zip(parts, np.split(kept, ends), strict=True)]
    return taken, int((~kept).sum())


def representation_of(model: Model) -> Representation:
    """What the model's maps are, with the smoothing of its separation."""
    return find_representation(model.card.representation, model.card.classes).smoothed(model.card.separation)


class CellSegmenter:
    """Finds the nuclei of the cells of one slide, in any order; several threads may do so at once.

    Use it as a context manager.
    """

    def __init__(self, slide: Slide, model: Model, engine: Engine, plan: Plan) -> None:
        self.slide, self.model, self.engine, self.plan = slide, model, engine, plan
        self.maps = TileMaps(
            scaled_pixels(slide, plan.shape), plan.shape, engine, representation_of(model), plan.tiles,
            upsampling=plan.upsampling, change=plan.staining.change, organ=model.organ,
            wanted=None if plan.tissue is None and plan.roi is None else plan.covers,
        )  # fmt: skip

    def __enter__(self) -> Self:
        self.maps.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.maps.__exit__(kind, error, trace)

    def segment(self, core: Box) -> CellNuclei:
        """The nuclei of a cell that count, with their DAB where the slide is H-DAB."""
        plan, rule = self.plan, self.model.card.separation
        stain = plan.staining.stain
        cell = separate_cell(
            self.maps.read, core, plan.shape, rule, upsampling=plan.upsampling,
            margin=max(MARGIN, math.ceil(self._ring / (min(plan.pixel) * plan.upsampling)) + 1),
            with_neighbors=stain == "hdab",
        )  # fmt: skip
        if stain == "hdab":
            cell.part.raw.update(self._measure_dab(cell))
        kept: NDArray[np.bool_] = np.ones(len(cell.part), np.bool_)
        if stain == "he" and rule.min_hematoxylin:
            kept = ~(cell.part.raw["hematoxylin_mean"] < rule.min_hematoxylin)
            cell.left_out[PALE] += int((~kept).sum())
        if plan.roi is not None:
            x, y = plan.pixel
            kept &= plan.roi.contains(cell.part.raw["x"] * x, cell.part.raw["y"] * y)
        if plan.artifacts is not None:
            x, y = plan.pixel
            inside = kept & plan.artifacts.leave_out(cell.part.raw["x"] * x, cell.part.raw["y"] * y)
            cell.left_out[IN_ARTIFACTS] += int(inside.sum())
            kept &= ~inside
        if plan.keep is not None:
            measured = describe(cell.part.raw, scale=plan.pixel, mpp=plan.scale.mpp)
            wanted = plan.keep.keeps(measured)
            cell.left_out[FILTERED] += int((kept & ~wanted).sum())
            kept &= wanted
        return cell if kept.all() else cell.where(kept)

    @property
    def _ring(self) -> float:
        """Width in px of level 0 of the ring around a nucleus in which DAB is measured."""
        return RING_UM / self.plan.scale.mpp

    def _measure_dab(self, cell: CellNuclei) -> dict[str, NDArray[np.float64]]:
        """DAB of the nuclei of a cell and of rings around them, which leave out all else that was found there.

        As `Nuclei.with_dab` on the whole slide measures it, but that what is left out as too large, or lies outside
        the region of interest, is left out of rings as well.
        """
        inside = len(cell.part)
        if inside == 0:
            return dict.fromkeys(DAB_COLUMNS, np.zeros(0))
        # drawn in the order of the whole slide: a nucleus inside another's ring comes after it
        first = np.concatenate([cell.part.first, cell.neighbors.first])
        order = np.lexsort((first[:, 1], first[:, 0]))
        outlines = Polygons.joined([cell.part.polygons, cell.neighbors.polygons]).scaled(*self.plan.pixel)
        coords = outlines.coords[: outlines.offsets[inside]]
        ring = self._ring
        low = np.maximum(np.floor(coords.min(axis=0) - ring) - 1, 0).astype(int)
        high = np.minimum(np.ceil(coords.max(axis=0) + ring) + 1, self.plan.slide_shape[::-1]).astype(int)
        (left, top), (width, height) = low.tolist(), (high - low).tolist()
        moved = Polygons((outlines.coords - low).astype(np.float32), outlines.offsets).take(order)
        columns = measure_dab(
            moved, lambda start, stop: self.slide.read(left, top + start, width, stop - start), (height, width),
            ring=ring,
        )  # fmt: skip
        position = np.argsort(order)[:inside]
        return {name: values[position] for name, values in columns.items()}

    def nuclei(self, parts: Iterable[Part], left_out: Counter[str]) -> Nuclei:
        """The nuclei of cells as one result, in px of the whole slide.

        Of a clump two cells may see different parts, and give the same nucleus (`hemalum.inference.cells`): it is
        taken once, and counted in `left_out`, which the notes hold.
        """
        plan, model, slide = self.plan, self.model, self.slide
        taken, twice = take_once(list(parts))
        left_out[TWICE] += twice
        return Nuclei.from_parts(
            taken,
            shape=slide.shape,
            scale=plan.pixel,
            mpp=plan.scale.mpp,
            mpp_source=plan.scale.source,
            model=model.card.name,
            source=slide.name,
            notes=self.notes | {name: count for name, count in left_out.items() if count},
            class_names=representation_of(model).class_names,
            dab=plan.staining.stain == "hdab",
        )

    @property
    def notes(self) -> dict[str, Any]:
        """What the result says of how it came to be."""
        doubt = self.plan.scale.doubt
        return {
            **_notes(self.model, self.engine, self.plan.staining),
            **({"scale_doubt": doubt} if doubt else {}),
            **self.slide.channel_note,
            **({} if self.plan.artifacts is None else self.plan.artifacts.notes),
            **({} if self.plan.keep is None else {"filter": self.plan.keep.limits}),
            **({} if self.plan.roi is None else {"roi": self.plan.roi.name}),
        }


def empty_result(source: Slide, model: Model, engine: Engine, staining: Staining) -> Nuclei:
    """The result for an image without nuclei, whose scale is unknown."""
    return Nuclei.from_parts(
        [],
        shape=source.shape,
        model=model.card.name,
        source=source.name,
        notes=_notes(model, engine, staining),
        class_names=representation_of(model).class_names,
        dab=staining.stain == "hdab",
    )


def _notes(model: Model, engine: Engine, staining: Staining) -> dict[str, Any]:
    return {
        "engine": f"{engine.name} {engine.precision}",
        **describe_tta(engine),
        **staining.notes,
        **({} if model.organ is None else {"organ": model.card.organ or f"not given: {NO_ORGAN}"}),
        **({} if model.card.recall_note is None else {"threshold": model.card.recall_note}),
    }
