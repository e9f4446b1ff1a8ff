"""From a slide to a store of its nuclei, region by region: the call behind `hemalum segment` for slides.

A region is a block of cells, and a cell looks at no other cell, so the nuclei are the same whatever the regions are,
however many workers there are, and wherever a run was interrupted. A finished region is on disk.
"""

import logging
import math
from collections import Counter
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager, ExitStack, closing, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from hemalum.cpus import count_cpus
from hemalum.errors import HemalumError, counted, printable
from hemalum.inference.cells import LARGEST, TOO_LARGE, CellNuclei, run_ahead
from hemalum.inference.grid import CELL, CELL_HALO, Box
from hemalum.inference.inputs import check_workers, stem
from hemalum.inference.plan import IN_ARTIFACTS, CellSegmenter, Plan, make_plan, representation_of
from hemalum.inference.plausibility import ScaleCheck
from hemalum.inference.sample import sample_tissue
from hemalum.inference.scale import MPP_RANGE, check_mpp, too_coarse
from hemalum.inference.segment import as_engine, keep_open, load_for_organ
from hemalum.inference.staining import check_stain
from hemalum.inference.tta import describe_tta
from hemalum.manifest import lock_folder
from hemalum.models.engines.engine import Engine
from hemalum.models.model import Model
from hemalum.nuclei.filters import NucleusFilter, as_filter
from hemalum.nuclei.ihc_score import Positive, check_positive
from hemalum.nuclei.store import SUFFIX, NucleiStore, RegionGrid, StoreRun, raster_ids
from hemalum.nuclei.store.run import Region
from hemalum.settings import as_whole_number
from hemalum.slides.artifacts import find_artifacts, warn_of_artifacts
from hemalum.slides.roi import Area, find_roi, tissue_in
from hemalum.slides.slide import Slide
from hemalum.slides.tissue import Tissue, all_tissue, find_tissue

if TYPE_CHECKING:
    from distributed import Client

log = logging.getLogger(__name__)

REGION = 4096  # px at the model's scale: side of a region

ProgressCallback = Callable[[float], None]
StartCallback = Callable[["SlideJob", list[Region]], None]
BrokenAt = tuple[int, int, int]  # level, x and y of a tile that could not be read


def segment_slide(  # noqa: PLR0913 (the verb's options)
    slide: Slide | Path | str,
    out: Path | str,
    model: Path | str | Model | None = None,
    *,
    mpp: float | None = None,
    organ: str | None = None,
    stain: str = "auto",
    positive: Positive = None,
    engine: str | Engine = "auto",
    device: str = "auto",
    threads: int | None = None,
    precision: str | None = None,
    tta: bool = False,
    shifts: int = 1,
    recall: float | None = None,
    tissue_mask: bool = True,
    keep_artifacts: bool = False,
    roi: Area | None = None,
    exclude: Area | None = None,
    keep: NucleusFilter | Mapping[str, float] | None = None,
    channel: str | int | None = None,
    region: int = REGION,
    name: str | None = None,
    workers: int | None = None,
    scheduler: "str | Client | None" = None,
    on_start: StartCallback | None = None,
    on_progress: ProgressCallback | None = None,
) -> NucleiStore:
    """Find the nuclei of a slide into the store `out`/STEM.nuclei; gives it. Memory does not grow with the slide.

    A store of the same run that is there is gone on with. `mpp`, µm per px, replaces what the file states; it is
    needed where that is nothing. Nuclei are looked for where there is tissue, or everywhere without `tissue_mask`,
    but not in ink and out of focus unless `keep_artifacts`; with `roi`, X,Y,WIDTH,HEIGHT in px of level 0 or a
    GeoJSON file, only those whose centroid lies inside count, and none of those in `exclude`. `channel` is as for
    `open_slide`. `region` is the side in px, at the model's scale, of what is written at once: it changes memory and
    the number of files, never the nuclei. `name` replaces STEM. `workers` is how many cells are separated at once:
    `threads`, or all cores, where it is not set. With `scheduler`, tcp://HOST:PORT, a scheduler file or a client of
    Dask, its workers do the regions (docs/how-to/cluster.md); `model` is then a file or a name, `engine` a name, and
    `threads` counts for each. `on_start` is called with what is going to be done and the regions that are missing,
    `on_progress` with the share that is done: 1 when all is. A `Slide` stays open. The rest: `hemalum.segment`.

    Raises HemalumError as `hemalum.segment` does; for a slide without a scale; for a region of interest that is
    empty; where the folder holds another run, or another process writes to it; where the scheduler or one of its
    workers cannot do it.
    """
    mpp = check_mpp(mpp)
    if isinstance(mpp, str):
        raise HemalumError(f"mpp '{mpp}': the scale of a slide is not estimated; give it as a number, µm per px")
    region, threads = as_whole_number(region, "region"), as_whole_number(threads, "threads")
    if region is None or region < 1:
        raise HemalumError(f"region is {region}: want 1 px or more")
    check_workers(workers)
    stain = check_stain(stain, positive)
    with ExitStack() as stack:
        client = None if scheduler is None else stack.enter_context(_reach(scheduler, model, engine, slide, workers))
        loaded = load_for_organ(model, organ, recall)
        runner = as_engine(
            engine, loaded, device=device, threads=threads, precision=precision, tta=tta, shifts=shifts
        )
        opened = stack.enter_context(keep_open(slide, mpp, channel))
        job = plan_slide(
            opened, loaded, runner, out, mpp=mpp, stain=stain, positive=positive, tissue_mask=tissue_mask, roi=roi,
            exclude=exclude, keep=as_filter(keep), region=region, name=name, keep_artifacts=keep_artifacts,
        )  # fmt: skip
        store = NucleiStore.create(job.store, job.run)
        with hold(store):
            missing = store.missing()
            if not store.complete:
                job = _check_scale(job, opened, loaded, runner)
            if on_start is not None:
                on_start(job, missing)
            if store.complete and not missing:
                log.info("%s: is complete; nothing is left to segment", store.path)
                if on_progress is not None:
                    on_progress(1.0)
                return store
            if len(missing) < len(job.regions):
                log.info(
                    "%s: %d of %d regions are finished", store.path, len(job.regions) - len(missing), len(job.regions)
                )
            with CellSegmenter(opened, loaded, runner, job.plan) as segmenter:
                if client is None:
                    at_once = workers or threads or count_cpus()
                    shares = segment_regions(segmenter, store, job, missing, workers=at_once)
                else:
                    shares = _segment_there(client, segmenter, store, job, missing, device, threads)
                with closing(shares):
                    for share in shares:
                        if on_progress is not None:
                            on_progress(share)
                notes = segmenter.notes
            finish(store, job, notes)
            if on_progress is not None:
                on_progress(1.0)
    return store


def _reach(
    scheduler: "str | Client", model: Path | str | Model | None, engine: str | Engine, slide: Slide | Path | str,
    workers: int | None,
) -> "AbstractContextManager[Client]":  # fmt: skip
    from hemalum.inference import cluster  # dask is an extra

    cluster.check_cluster_input(model, engine, slide, workers)
    return cluster.connect(scheduler)


def _segment_there(
    client: "Client", segmenter: CellSegmenter, store: NucleiStore, job: "SlideJob", regions: Sequence[Region],
    device: str, threads: int | None,
) -> Generator[float, None, None]:  # fmt: skip
    from hemalum.inference import cluster

    order = cluster.make_order(segmenter, store, job, device, threads)
    return cluster.segment_on_cluster(client, order, store, regions)


@dataclass(frozen=True, slots=True, eq=False)
class SlideJob:
    """What segmenting one slide is: its plan, where its store is and what decides it. It can be pickled.

    `side` is that of a region, in cells; `sample` is what stain and scale are told by, and does not travel.
    """

    plan: Plan
    store: Path
    run: StoreRun
    side: int
    sample: Slide | None = None

    @property
    def regions(self) -> list[Region]:
        """All regions, by row and column."""
        grid = self.run.grid
        return [(row, column) for row in range(grid.rows) for column in range(grid.columns)]

    def cells(self, region: Region) -> list[Box]:
        """The cells of a region in which there is something to look for."""
        row, column = (self.side * number for number in region)
        cells = [
            cell for line in self.plan.cells[row : row + self.side] for cell in line[column : column + self.side]
        ]
        return [cell for cell in cells if self.plan.covers(cell)]

    def area_mm2(self, regions: Iterable[Region]) -> float:
        """Area of tissue, mm², in those cells of regions in which there is something to look for.

        Of a cell that a region of interest cuts, as much of its tissue as of its area: for progress, not for density.
        """
        plan, pixels = self.plan, 0.0
        for region in regions:
            for cell in self.cells(region):
                window = plan.window(cell)
                share = 1.0 if plan.tissue is None else plan.tissue.share_in(*window)
                share *= 1.0 if plan.roi is None else plan.roi.share_in(*window)
                pixels += window[2] * window[3] * share
        return pixels * plan.scale.mpp**2 / 1e6


def plan_slide(  # noqa: PLR0913 (all that decides the nuclei)
    slide: Slide,
    model: Model,
    engine: Engine,
    out: Path | str,
    *,
    mpp: float | None = None,
    stain: str = "auto",
    positive: Positive = None,
    tissue_mask: bool = True,
    keep_artifacts: bool = False,
    roi: Area | None = None,
    exclude: Area | None = None,
    keep: NucleusFilter | None = None,
    region: int = REGION,
    name: str | None = None,
) -> SlideJob:
    """Look at a slide once and decide everything that its nuclei depend on; nothing is written yet."""
    if mpp is None and (slide.mpp is None or slide.mpp > MPP_RANGE[1]):
        why = slide.scale_doubt or ("states no scale" if slide.mpp is None else too_coarse(slide.mpp))
        raise HemalumError(
            f"{slide.name}: the file {why}, and that of a slide is not estimated; "
            "give it with --mpp (0.25 is usual for 40x, 0.5 for 20x)"
        )
    area = find_roi(slide.shape, roi, exclude)
    artifacts = find_artifacts(slide, mpp=mpp, keep=keep_artifacts)
    seen = find_tissue(slide, mpp=mpp) if tissue_mask else all_tissue(slide, "no mask was asked for", mpp=mpp)
    tissue = artifacts.without(seen)
    if not tissue.mask.any():
        log.warning("%s: no tissue is seen; without the tissue mask all of it is looked at", slide.name)
    sample = sample_tissue(slide, tissue, mpp or slide.mpp)
    plan = make_plan(
        slide, model, engine, mpp=mpp, stain=stain, sample=sample, roi=area, keep=keep, artifacts=artifacts,
        tissue=tissue if tissue_mask or artifacts.left_out.any() else None,
    )  # fmt: skip
    side = max(1, round(region / CELL))
    rows, columns = len(plan.cells), len(plan.cells[0])
    grid = RegionGrid(
        rows=math.ceil(rows / side),
        columns=math.ceil(columns / side),
        height=slide.shape[0] / rows * side,
        width=slide.shape[1] / columns * side,
    )
    thresholds = check_positive(positive)
    run = StoreRun(
        fingerprint=slide.fingerprint,
        shape=slide.shape,
        grid=grid,
        source=printable(Path(slide.name).name),
        model=model.card.name,
        model_digest=model.digest,
        mpp=plan.scale.mpp,
        mpp_source=plan.scale.source,
        class_names=representation_of(model).class_names,
        dab=plan.staining.stain == "hdab",
        positive=thresholds,
        offset=slide.offset,
        settings=_settings(plan, model, engine, tissue, tissue_mask) | slide.channel_note,
    )
    return SlideJob(plan, Path(out) / ((name or stem(slide.name)) + SUFFIX), run, side, sample)


def _check_scale(job: SlideJob, slide: Slide, model: Model, engine: Engine) -> SlideJob:
    """The job with what speaks against its scale, which is also said."""
    plan, sample = job.plan, job.sample or slide
    artifacts = plan.artifacts if sample is slide else None  # a sample of a large slide has none
    doubt = ScaleCheck().doubt(sample, model, engine, plan.scale, plan.staining, artifacts=artifacts)
    return replace(job, plan=replace(plan, scale=replace(plan.scale, doubt=doubt)))


@contextmanager
def hold(store: NucleiStore) -> Iterator[None]:
    """Keep other programs from segmenting into the same store. Raises HemalumError where one does."""
    with lock_folder(store.path / "parts", wait=False) as held:
        if not held:
            raise HemalumError(f"{store.path}: another process is segmenting into it")
        yield


def segment_regions(
    segmenter: CellSegmenter, store: NucleiStore, job: SlideJob, regions: Sequence[Region], *, workers: int
) -> Generator[float, None, None]:
    """Segment regions and write their parts, in order; gives the share that is done after each cell.

    `workers` cells are separated at once, while the next ones are read and run, and finished regions are written.
    """
    tasks = [(region, cells) for region in regions for cells in (job.cells(region),)]
    total = sum(len(cells) for _, cells in tasks) + 1  # with finishing
    done = 0
    # the cells end before the maps that they wait for are closed, whatever happens
    with (
        ThreadPoolExecutor(1, thread_name_prefix="writer") as pool,
        closing(
            run_ahead(segmenter.segment, (cell for _, cells in tasks for cell in cells), workers)
        ) as cell_results,
    ):
        written: Future[None] | None = None
        for region, cells in tasks:
            gathered = []
            for _ in cells:
                gathered.append(next(cell_results))
                done += 1
                yield done / total
            if written is not None:
                written.result()
            broken = broken_near(segmenter, store, region)
            written = pool.submit(write_region, segmenter, store, region, gathered, broken)
        if written is not None:
            written.result()


def broken_near(segmenter: CellSegmenter, store: NucleiStore, region: Region) -> list[BrokenAt]:
    """The tiles that could not be read and that a region may have needed: its part names them, whoever found them."""
    grid, levels = store.run.grid, segmenter.slide.levels
    reach = (LARGEST + segmenter.plan.tiles.side) * segmenter.plan.upsampling * max(segmenter.plan.pixel)
    top, left = region[0] * grid.height - reach, region[1] * grid.width - reach
    bottom, right = top + grid.height + 2 * reach, left + grid.width + 2 * reach
    return [
        (tile.level, tile.x, tile.y)
        for tile in segmenter.slide.broken
        for size in (levels[tile.level].downsample,)
        if tile.x * size < right and (tile.x + tile.width) * size > left
        and tile.y * size < bottom and (tile.y + tile.height) * size > top
    ]  # fmt: skip


def write_region(
    segmenter: CellSegmenter,
    store: NucleiStore,
    region: Region,
    cells: Sequence[CellNuclei],
    broken: Sequence[BrokenAt],
) -> None:
    """Write the nuclei of the cells of a region as its part, with what was left out and could not be read."""
    left_out: Counter[str] = sum((cell.left_out for cell in cells), Counter())
    nuclei = segmenter.nuclei((cell.part for cell in cells), left_out)
    first = np.concatenate([np.zeros((0, 2), np.int32), *(cell.part.first for cell in cells)])
    # sorted and unique like the nuclei, which follow their first pixel
    ids = np.unique(raster_ids(first, segmenter.plan.shape[1] * segmenter.plan.upsampling))
    store.add(region, nuclei, ids, {"left_out": dict(+left_out), "broken": list(broken)})


def finish(store: NucleiStore, job: SlideJob, notes: dict[str, Any]) -> None:
    """Complete a store of which all regions are there; its notes say what was left out, broken, and looked at."""
    left_out: Counter[str] = Counter()
    broken: set[BrokenAt] = set()
    for counts in store.part_notes():
        left_out += Counter(counts.get("left_out", {}))
        broken |= {(level, x, y) for level, x, y in counts.get("broken", [])}
    if left_out[TOO_LARGE]:
        log.warning("%s: left out what is too large for a nucleus, in %d places", store.name, left_out[TOO_LARGE])
    if broken:
        log.warning("%s: %s could not be read, and count as blank", store.name, counted(len(broken), "tile"))
    plan = job.plan
    if plan.artifacts is not None:
        warn_of_artifacts(plan.artifacts, left_out[IN_ARTIFACTS], store.name)
    areas: dict[str, float] = {}
    # without a mask, what is not left out as artifacts
    kind = "clear" if job.run.settings["tissue_mask"] is None else "tissue"
    if plan.tissue is not None and plan.tissue.area_mm2 is not None:
        areas[f"{kind}_mm2"] = round(plan.tissue.area_mm2, 4)
    if plan.roi is not None:
        areas["roi_mm2"] = round(plan.roi.area * plan.scale.mpp**2 / 1e6, 4)
        if plan.tissue is not None:
            areas[f"roi_{kind}_mm2"] = round(tissue_in(plan.roi, plan.tissue) * plan.scale.mpp**2 / 1e6, 4)
    store.finish(notes=notes | dict(left_out) | ({"broken_tiles": len(broken)} if broken else {}) | areas)


def _settings(plan: Plan, model: Model, engine: Engine, tissue: Tissue, tissue_mask: bool) -> dict[str, Any]:
    """Whatever else decides the nuclei, as plain values: what an option says before what follows from it."""
    artifacts = None if plan.artifacts is None else plan.artifacts.digest
    return {
        "engine": f"{engine.name} {engine.precision}",
        "organ": model.card.organ,
        **({} if model.card.recall_note is None else {"threshold": model.card.recall_note}),
        **describe_tta(engine),
        **plan.staining.notes,
        "tile": [model.card.tiling.window, model.card.tiling.halo],
        "cell": [CELL, CELL_HALO],
        **({} if artifacts is None else {"keep_artifacts": artifacts == "kept"}),
        "tissue_mask": tissue.digest if tissue_mask else None,
        **({} if artifacts is None else {"artifacts": artifacts}),
        "roi": None if plan.roi is None else plan.roi.geometry.wkt,
        **({} if plan.keep is None else {"filter": plan.keep.limits}),
    }
