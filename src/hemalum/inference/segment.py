"""From an image to its nuclei: the one call behind `hemalum segment` and `hemalum.segment`."""

import logging
from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, ExitStack, nullcontext
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, Literal, overload

from hemalum.cpus import count_cpus
from hemalum.data.pixels.channels import Channel, check_channel
from hemalum.errors import HemalumError, counted
from hemalum.inference.cells import TOO_LARGE, BoxMaps, run_ahead
from hemalum.inference.images import as_path, as_pixels, is_stream, stream_name
from hemalum.inference.plan import IN_ARTIFACTS, NO_ORGAN, CellSegmenter, empty_result, make_plan
from hemalum.inference.plausibility import ScaleCheck, SeenNuclei
from hemalum.inference.scale import NoNucleiError, Scale, check_mpp, warn_of_odd_size
from hemalum.inference.shifts import check_shifts
from hemalum.inference.staining import check_stain, find_staining
from hemalum.inference.tta import with_looks
from hemalum.models.engines.engine import Engine, make_engine
from hemalum.models.model import UNKNOWN_ORGAN, Model, load_model
from hemalum.nuclei.filters import NucleusFilter, as_filter
from hemalum.nuclei.ihc_score import Positive
from hemalum.nuclei.nuclei import Nuclei
from hemalum.nuclei.part import Part
from hemalum.settings import as_whole_number
from hemalum.slides.artifacts import Artifacts, find_artifacts, warn_of_artifacts
from hemalum.slides.roi import Area, Roi, find_roi
from hemalum.slides.slide import Slide, open_slide
from hemalum.targets.representations import find_representation

log = logging.getLogger(__name__)

_last_engine: dict[tuple[str, str, str, int | None, str | None], Engine] = {}

ProgressCallback = Callable[[float], None]


@overload
def segment(image: list[Any], model: Path | str | Model | None = None, **options: Any) -> list[Nuclei]: ...


@overload
def segment(image: Any, model: Path | str | Model | None = None, **options: Any) -> Nuclei: ...


def segment(  # type: ignore[misc]  # noqa: PLR0913 (the verb's options)
    image: Any,
    model: Path | str | Model | None = None,
    *,
    mpp: float | str | None = None,
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
    keep: NucleusFilter | Mapping[str, float] | None = None,
    roi: Area | None = None,
    exclude: Area | None = None,
    keep_artifacts: bool = False,
    channel: Channel | None = None,
    on_progress: ProgressCallback | None = None,
) -> Any:
    """Find the nuclei of an image: a file or open file, an image of PIL, or an array or tensor: (H, W, 3) RGB of
    uint8, or of floats in [0, 1] or [0, 255], also (3, H, W); gray (H, W), also uint16. Of a list of images it gives
    a list.

    `mpp` in µm per px; without it (None or "auto") the file's own is taken, and where it has none the scale is
    estimated from the nuclei, which the result says (`mpp_source`). "estimate" estimates in any case. A stated scale
    that the nuclei speak against is named in the log and in `notes`. An image without nuclei at any scale has 0, and
    `mpp` None. `model` is a
    file, the name of a shipped model, or a loaded one; `organ` is what the image is of, for a model that tells
    organs apart. `stain` is "he", "hdab" or "fluorescence"; with "auto" it is recognized by the image's colors,
    which the result says (`notes`). Of H-DAB images the DAB of each nucleus is measured; `positive`, one threshold
    of its optical density, three, or "otsu", tells positive from negative nuclei (`Nuclei.graded`). `engine`,
    `device`, `threads` and `precision` are those of `make_engine`. `max_pixels` replaces the limits on the image's
    size. With `tta` the network looks at each window in all eight turns and mirror images, and the mean of the maps
    is taken; with `shifts` 2, 4 or 8 it looks from so many places, and nuclei hang less on where the image begins.
    `recall` takes the threshold of the model's card that keeps so much (`hemalum calibrate`). `keep` are limits on
    what was measured (`NucleusFilter`, or a mapping of its limits); of nuclei whose centroid lies in `roi` and not in
    `exclude` alone there is a result, and density is of that area: "X,Y,WIDTH,HEIGHT" or four numbers in px of the
    image, a GeoJSON file, or an area of shapely. Nuclei in ink and in areas out of focus are left out, as the log and
    the notes say, unless `keep_artifacts`.
    `channel`, a name or a number from 1, is the one to look at in a file with stains side by side.
    `on_progress` is called with the share that is done, in [0, 1].

    Raises HemalumError for what the user can mend: the image, the scale, the model, its organ, the stain, the
    thresholds, the engine, the shifts.
    """
    mpp = check_mpp(mpp)
    stain = check_stain(stain, positive)
    keep = as_filter(keep)
    loaded = load_for_organ(model, organ, recall)
    runner = as_engine(engine, loaded, device=device, threads=threads, precision=precision, tta=tta, shifts=shifts)
    images, results = image if isinstance(image, list) else [image], []
    scale_check = ScaleCheck()
    for number, one in enumerate(images):
        with ExitStack() as stack:
            source = stack.enter_context(_open_any(one, stack, mpp, max_pixels, check_channel(channel)))
            share = None if on_progress is None else partial(_report, on_progress, number, len(images))
            result = segment_source(
                source, loaded, runner, mpp=mpp, stain=stain, positive=positive, keep=keep,
                roi=find_roi(source.shape, roi, exclude), on_progress=share,
                artifacts="keep" if keep_artifacts else "leave out", scale_check=scale_check,
            )  # fmt: skip
            results.append(result)
    return results if isinstance(image, list) else results[0]


def _report(on_progress: ProgressCallback, number: int, of: int, share: float) -> None:
    on_progress((number + share) / of)


def _open_any(
    image: Any, stack: ExitStack, mpp: float | str | None, max_pixels: int | None, channel: str | None
) -> Slide:
    """An image in any form that `segment` takes; what it needs for that stays until `stack` ends."""
    if isinstance(image, Slide):
        raise HemalumError(f"{image.name}: is a slide that is open; segment_slide takes it, or segment(its path)")
    if is_stream(image):
        return _open_copy(image, stack, mpp, max_pixels, channel)
    if isinstance(image, str | Path):
        return open_image(image, mpp, max_pixels, channel)
    if channel is not None:
        raise HemalumError("image: --channel is for files; give the channel of an array as (H, W)")
    return Slide.of(as_pixels(image))


def _open_copy(
    stream: Any, stack: ExitStack, mpp: float | str | None, max_pixels: int | None, channel: str | None
) -> Slide:
    """An open file, which its results and errors know by its own name, and not by that of its copy on disk."""
    name = stream_name(stream)
    path = stack.enter_context(as_path(stream))
    try:
        return open_image(path, mpp, max_pixels, channel, name=name)
    except HemalumError as error:
        raise HemalumError(str(error).replace(str(path), name)) from error


def open_image(
    path: Path | str, mpp: float | str | Scale | None, max_pixels: int | None = None, channel: Channel | None = None,
    *, name: str | None = None,
) -> Slide:  # fmt: skip
    """Open an image or slide; where the user says its scale, what the file says of it does not matter."""
    stated = float(mpp) if isinstance(mpp, int | float) else None
    return open_slide(path, mpp=stated, max_pixels=max_pixels, channel=channel, name=name)


def keep_open(slide: Slide | Path | str, mpp: float | None, channel: Channel | None) -> AbstractContextManager[Slide]:
    """A slide that is closed at the end, unless it was open before."""
    if not isinstance(slide, Slide):
        return open_image(slide, mpp, channel=channel)
    if channel is not None:
        raise HemalumError(f"{slide.name}: is a slide that is open; open_slide takes the --channel")
    return nullcontext(slide)


def load_for_organ(model: Path | str | Model | None, organ: str | None, recall: float | None = None) -> Model:
    """Load a model (`load_model`) and set it to an organ; say so where it tells organs apart and none is given.

    `recall` sets the threshold for so much, of that organ where it has one of its own.
    """
    loaded = load_model(model)
    if organ is not None:
        loaded = loaded.with_organ(organ)
    if loaded.organ == UNKNOWN_ORGAN:
        log.info("model '%s' tells organs apart and none is given: %s; organ sets it", loaded.card.name, NO_ORGAN)
    return loaded.with_recall(recall)


def as_engine(
    engine: str | Engine,
    model: Model,
    *,
    device: str = "auto",
    threads: int | None = None,
    precision: str | None = None,
    tta: bool = False,
    shifts: int = 1,
) -> Engine:
    """Give the engine itself, or make the one that is named; the last one made is kept for the next call.

    With `tta` its maps are means over turns and mirror images (`SymmetricEngine`), with `shifts` over so many shifts
    (`ShiftedEngine`).
    """
    threads = as_whole_number(threads, "threads")
    if tta or check_shifts(shifts) != 1:
        plain = as_engine(engine, model, device=device, threads=threads, precision=precision)
        representation = find_representation(model.card.representation, model.card.classes)
        return with_looks(plain, representation, tta, check_shifts(shifts))
    if not isinstance(engine, str):
        if not hasattr(engine, "parallel"):
            raise HemalumError(f"engine is {engine!r}: want the name of one, as 'auto' or 'torch'")
        return engine
    key = (engine, model.digest, device, threads, precision)
    made = _last_engine.get(key)
    if made is None:
        made = make_engine(engine, model, device=device, threads=threads, precision=precision)
        _last_engine.clear()
        _last_engine[key] = made
    return made


def segment_source(  # noqa: PLR0913 (the verb's options, and who looks on)
    source: Slide,
    model: Model,
    engine: Engine,
    *,
    mpp: float | str | Scale | None = None,
    stain: str = "auto",
    positive: Positive = None,
    keep: NucleusFilter | None = None,
    roi: Roi | None = None,
    artifacts: Literal["ignore", "keep", "leave out"] = "ignore",
    on_progress: ProgressCallback | None = None,
    on_artifacts: Callable[[Artifacts], None] | None = None,
    on_maps: Callable[[BoxMaps], None] | None = None,
    scale_check: ScaleCheck | None = None,
) -> Nuclei:
    """Find the nuclei of an open image; see `segment`. `on_maps` sees the maps of each cell's core.

    `artifacts` are looked for and left out, looked for and kept, or not looked for; `on_artifacts` sees them.
    `scale_check`, one for all images that are segmented together, compares a stated scale with the nuclei; without
    it nothing does.
    """
    stain = check_stain(stain, positive)
    try:
        plan = make_plan(source, model, engine, mpp=mpp, stain=stain, roi=roi)
    except NoNucleiError as error:
        log.warning("%s; mpp sets it", error)
        nuclei = empty_result(source, model, engine, find_staining(source, model, stain, warn=False))
        return _finish(nuclei, keep, positive)
    if artifacts != "ignore":
        plan = replace(plan, artifacts=find_artifacts(source, mpp=plan.scale.mpp, keep=artifacts == "keep"))
    cells = [core for row in plan.cells for core in row if plan.covers(core)]
    parts: list[Part] = []
    left_out: Counter[str] = Counter()
    done, total = 0, sum(core.shape[0] * core.shape[1] for core in cells)
    with CellSegmenter(source, model, engine, plan) as segmenter:
        for cell in run_ahead(segmenter.segment, cells, count_cpus()):
            if on_maps is not None:
                on_maps(segmenter.maps.read(cell.core))
            parts.append(cell.part)
            left_out += cell.left_out
            done += cell.core.shape[0] * cell.core.shape[1]
            if on_progress is not None:
                on_progress(done / total)
        nuclei = replace(segmenter.nuclei(parts, left_out), region=plan.looked_at())
    if left_out[TOO_LARGE]:
        log.warning("%s: left out what is too large for a nucleus, in %d places", source.name, left_out[TOO_LARGE])
    if plan.artifacts is not None:
        warn_of_artifacts(plan.artifacts, left_out[IN_ARTIFACTS], source.name)
        if on_artifacts is not None:
            on_artifacts(plan.artifacts)
    doubt = ""
    if scale_check is not None:
        seen = SeenNuclei.of(nuclei)
        doubt = scale_check.doubt(source, model, engine, plan.scale, plan.staining, seen, artifacts=plan.artifacts)
    if doubt:
        nuclei = replace(nuclei, notes=nuclei.notes | {"scale_doubt": doubt})
    elif plan.scale.source != "estimate":
        warn_of_odd_size(nuclei, model, source.name)
    return _finish(nuclei, keep, positive)


def _finish(nuclei: Nuclei, keep: NucleusFilter | None, positive: Positive) -> Nuclei:
    """What the user wants of the nuclei: last, so that ids and the scale are those of all that was found."""
    kept = nuclei if keep is None else nuclei.filter(**keep.limits)
    if nuclei.count and not kept.count:
        log.warning("%s: the filter leaves none of %s", nuclei.source or "image", counted(nuclei.count, "nucleus"))
    return kept if positive is None else kept.graded(positive)
