"""Many slides, one after the other, each to a store, its exports and a log."""

import json
import logging
import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache, partial
from pathlib import Path
from typing import Any

from hemalum import __version__
from hemalum.data.pixels.channels import Channel, check_channel
from hemalum.errors import HemalumError, OtherRunError, counted, nearest
from hemalum.inference.batch import failure
from hemalum.inference.cohort import SlideInput
from hemalum.inference.inputs import FORMATS, ImageInput, check_folder, check_names, check_workers
from hemalum.inference.scale import check_mpp, warn_of_odd_median
from hemalum.inference.segment import load_for_organ, open_image
from hemalum.inference.slide import REGION, SlideJob, segment_slide
from hemalum.inference.slide_log import SlideLog
from hemalum.inference.staining import check_stain
from hemalum.inference.summary import Finished, Row, Summary, medians_of, slide_row
from hemalum.manifest import LOCK
from hemalum.models.engines.engine import Engine
from hemalum.models.model import Model
from hemalum.nuclei.filters import FILTERED, NucleusFilter, as_filter
from hemalum.nuclei.ihc_score import Positive
from hemalum.nuclei.io import read_note
from hemalum.nuclei.store import (
    EXPORT_OPTIONS,
    EXPORTS,
    INDEX,
    NucleiStore,
    Region,
    StoreSummary,
    check_simplify,
    export_store,
    summarize,
)
from hemalum.slides import Area, Artifacts, Slide, find_artifacts

log = logging.getLogger(__name__)

PICTURE = 2048  # px of the longer side of what thumbnail draws on


@dataclass(frozen=True, slots=True)
class SlideResult:
    """What became of one slide: its store, its figures and the files by format, or the error in one line.

    `row` is its line of `OUT/summary.csv`.
    """

    path: Path
    name: str
    store: NucleiStore | None = None
    summary: StoreSummary | None = None
    error: str | None = None
    files: dict[str, Path] = field(default_factory=dict)
    seconds: float = 0.0
    row: Row = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class SlideProgress:
    """`share` in [0, 1] of a step ("segment", or the format that is written) of a slide is done.

    `area_mm2` is what of its tissue this step goes over, where that can be told.
    """

    path: Path
    step: str
    share: float
    area_mm2: float | None = None


def segment_slides(  # noqa: PLR0913 (the verb's options)
    slides: Sequence[SlideInput | ImageInput | Path | str],
    out: Path | str,
    formats: Sequence[str],
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
    max_pixels: int | None = None,
    tta: bool = False,
    shifts: int = 1,
    recall: float | None = None,
    tissue_mask: bool = True,
    keep_artifacts: bool = False,
    roi: Area | None = None,
    exclude: Area | None = None,
    keep: NucleusFilter | Mapping[str, float] | None = None,
    simplify: float = 0.0,
    channel: Channel | None = None,
    region: int = REGION,
    workers: int | None = None,
    scheduler: str | None = None,
    overwrite: bool = False,
    command: str = "",
    on_progress: Callable[[SlideProgress], None] | None = None,
) -> Iterator[SlideResult]:
    """Segment slides into `OUT/NAME.nuclei`, export them, and log each in `OUT/NAME.log`; give one result per slide.

    What a slide says of itself (`read_cohort`) goes before the options. A slide that fails, for whatever reason,
    gives a result with `error`, and the others go on. `OUT/summary.csv` has a row for each slide. A slide that is
    finished is not done again, and neither are its exports, unless they are older than its store; with `overwrite`
    what is there is removed first. Outlines in GeoJSON may be moved by up to `simplify` px to save points. `command`
    stands in the logs. The rest is as for `segment_slide`; `EXPORTS` names the formats.

    Raises HemalumError before the first slide when a format, the model, an organ or a setting cannot be, two slides
    have one name, or OUT cannot be written; and at the end when the summary cannot be written.
    """
    out = Path(out)
    inputs = [SlideInput.of(slide) for slide in slides]
    chosen = check_slide_formats(formats)
    check_simplify(simplify, chosen)
    channel = check_channel(channel)
    check_names([(slide.name, str(slide.path)) for slide in inputs], out)
    mpp = check_mpp(mpp)
    check_workers(workers)
    for one in dict.fromkeys((stain, *(slide.stain for slide in inputs if slide.stain))):
        check_stain(one, positive)
    organs = dict.fromkeys(slide.organ or organ for slide in inputs)
    models = {one: load_for_organ(model, one, recall) for one in organs}
    check_folder(out)
    options = {
        "positive": positive, "engine": engine, "device": device, "threads": threads, "precision": precision,
        "tta": tta, "shifts": shifts, "tissue_mask": tissue_mask, "region": region, "workers": workers,
        "keep": as_filter(keep), "exclude": exclude, "keep_artifacts": keep_artifacts,
    }  # fmt: skip
    if scheduler is not None:
        options["scheduler"] = scheduler

    summary_of_all = Summary(out)

    def results() -> Iterator[SlideResult]:
        try:
            for one in inputs:
                yield result_of(one)
        finally:
            summary_of_all.write()

    def result_of(one: SlideInput) -> SlideResult:
        start = time.perf_counter()
        report = _Reporter(one.path, on_progress)
        settings = options | {"stain": one.stain or stain, "roi": one.roi or roi, "name": Path(one.name).name}
        try:
            folder, name = (out / one.name).parent, Path(one.name).name
            check_folder(folder)
            with SlideLog(folder / f"{name}.log") as record:
                record.note(f"hemalum {__version__}: {command or 'segment_slides'}")
                scale = mpp if one.mpp is None else one.mpp
                with open_image(one.path, scale, max_pixels, check_channel(one.channel) or channel) as slide:
                    network = models[one.organ or organ]
                    if overwrite:
                        _remove_store(folder / f"{name}.nuclei")
                    store = _segment(slide, folder, network, scale, settings, record=record, report=report)
                    summary = _summarize(store, network, slide.name, record)
                    files = _export(store, slide, chosen, simplify, image=one.image, record=record, report=report)
                seconds = time.perf_counter() - start
                nuclei = counted(summary.count, "nucleus")
                record.announce(f"{one.path}: {nuclei}, {report.speed(seconds)}")
            row = slide_row(one.image, one.name, store, summary, seconds)
            relative = {format: file.relative_to(out).as_posix() for format, file in files.items()}
            summary_of_all.add(Finished.now(one.name, one.path, settings={}, files=relative, row=row))
        except Exception as error:  # whatever one slide comes to, the others go on
            log.debug("%s failed", one.path, exc_info=True)
            reason = failure(one.path, error)
            if not isinstance(error, OtherRunError):  # then the row of what is there holds
                summary_of_all.fail(one.image, one.name, "slide", reason)
            return SlideResult(one.path, one.name, error=reason, seconds=time.perf_counter() - start)
        return SlideResult(one.path, one.name, store, summary, None, files, seconds, row)

    return results()


def check_slide_formats(formats: Sequence[str]) -> list[str]:
    """The formats, each once. Raises HemalumError for none, and for one that is not for slides."""
    chosen = list(dict.fromkeys([formats] if isinstance(formats, str) else formats))
    for name in chosen:
        if name not in EXPORTS:
            raise HemalumError(f"unknown format '{name}'{nearest(name, {*EXPORTS, *FORMATS})}")
    if not chosen:
        raise HemalumError(f"no format is given; known: {', '.join(EXPORTS)}")
    return chosen


class _Reporter:
    """Progress of one slide, and what is left of it for the log."""

    def __init__(self, path: Path, on_progress: Callable[[SlideProgress], None] | None) -> None:
        self.path, self._on_progress = path, on_progress
        self.area: float | None = None
        self.began = time.perf_counter()

    def start(self, job: SlideJob, missing: list[Region]) -> None:
        """Segmenting begins."""
        self.area, self.began = job.area_mm2(missing), time.perf_counter()
        self("segment", 0.0)

    def __call__(self, step: str, share: float) -> None:
        if self._on_progress is not None:
            self._on_progress(SlideProgress(self.path, step, share, self.area if step == "segment" else None))

    def speed(self, seconds: float) -> str:
        """Seconds, and where something was segmented tissue per second."""
        rate = f", {self.area / seconds:.3g} mm²/s" if self.area and seconds else ""
        return f"{seconds:.1f} s{rate}"


def _segment(
    slide: Slide,
    out: Path,
    model: Model,
    mpp: float | None,
    settings: dict[str, Any],
    *,
    record: SlideLog,
    report: _Reporter,
) -> NucleiStore:
    levels = counted(len(slide.levels), "level")
    record.note(f"{slide.name}: {slide.format}, {slide.shape[1]} x {slide.shape[0]} px, {levels}")

    def on_start(job: SlideJob, missing: list[Region]) -> None:
        report.start(job, missing)
        record.note(f"settings: {json.dumps(job.run.model_dump(mode='json'), ensure_ascii=False)}")
        if missing:
            record.announce(f"{slide.name}: about {report.area:.2g} mm² in {counted(len(missing), 'region')}")

    store = segment_slide(
        slide, out, model, mpp=mpp, on_start=on_start, on_progress=lambda share: report("segment", share), **settings
    )
    for tile in slide.broken:
        record.note(f"broken: level {tile.level}, x {tile.x}, y {tile.y}: {tile.reason}", logging.WARNING)
    return store


def _summarize(store: NucleiStore, model: Model, name: str, record: SlideLog) -> StoreSummary:
    """Figures of the nuclei, which go to the log too; with a warning where their size speaks against the scale."""
    summary = summarize(store, medians_of(store.schema.names))
    median = summary.median("area_um2")
    if median is not None and "scale_doubt" not in store.notes:
        warn_of_odd_median(summary.count, median, store.run.mpp, model, name)
    left_out = store.notes.get(FILTERED, 0)
    if left_out and not summary.count:
        log.warning("%s: the filter leaves none of %s", name, counted(left_out, "nucleus"))
    score = summary.ihc_score()
    counts = {"nuclei": summary.count, **summary.classes} | ({} if score is None else score.counts)
    figures = {"area_mm2": summary.area_mm2, "area_of": summary.area_of, "per_mm2": summary.per_mm2}
    record.note(f"result: {json.dumps(counts | figures | store.notes, ensure_ascii=False)}")
    return summary


def _export(
    store: NucleiStore,
    slide: Slide,
    formats: Sequence[str],
    simplify: float,
    *,
    image: str,
    record: SlideLog,
    report: _Reporter,
) -> dict[str, Path]:
    """Write what is not there yet, is older than the store, or has outlines that were simplified otherwise."""
    files = {name: store.path.with_name(store.name + EXPORTS[name]) for name in formats}
    artifacts = cache(lambda: find_artifacts(slide, mpp=store.run.mpp))  # for two pictures once
    finished = (store.path / INDEX).stat().st_mtime_ns
    for name, path in files.items():
        options: dict[str, Any] = {"simplify": simplify} if name in EXPORT_OPTIONS["simplify"] else {}
        fresh = path.exists() and path.stat().st_mtime_ns >= finished
        if fresh and (not options or read_note(path).get("simplify_px", 0) == simplify):
            record.announce(f"{path}: is there, and no older than the nuclei: kept")
            continue
        start = time.perf_counter()
        if name in ("thumbnail", "overlay"):
            options["picture"] = _marked(slide, artifacts(), name)
        if name in ("csv", "parquet"):
            options["image"] = image
        export_store(store, name, path, on_progress=partial(report, name), **options)
        record.note(f"{path}: written in {time.perf_counter() - start:.1f} s")
    return files


def _remove_store(path: Path) -> None:
    """Remove the nuclei of an earlier run. Raises HemalumError where other files lie among them."""
    if not (path / "nuclei.yaml").is_file():
        return
    others = sorted({entry.name for entry in path.iterdir()} - {"nuclei.yaml", "parts", INDEX, LOCK})
    if others:
        raise HemalumError(f"{path}: is not overwritten, as a file of yours is in it: {others[0]}")
    try:
        shutil.rmtree(path)
    except OSError as error:
        raise HemalumError(f"{path}: cannot be removed ({error.strerror or error})") from error


def _marked(slide: Slide, artifacts: Artifacts, name: str) -> Any:
    """What a picture of the nuclei is drawn on: the slide, with its artifacts tinted."""
    if name == "thumbnail":
        picture = slide.thumbnail(PICTURE)
        return artifacts.mark(picture, 0, len(picture))
    return lambda shape, rows, columns: artifacts.mark(
        slide.read_scaled(shape, rows, columns), rows.start, shape[0]
    )  # fmt: skip
