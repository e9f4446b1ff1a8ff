"""From an image to its nuclei: the one call behind `hemalum segment` and `hemalum.segment`."""

import logging
import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hemalum.data.stain.he_appearance import ColorChange
from hemalum.errors import HemalumError
from hemalum.inference.bands import Band, bands
from hemalum.inference.nuclear_marker import show_nuclear_dab
from hemalum.inference.postprocess import separate_bands
from hemalum.inference.scale import estimate_mpp
from hemalum.inference.staining import Staining, check_stain, find_staining
from hemalum.inference.tiles import plan_grid
from hemalum.inference.tta import SymmetricEngine, describe_tta, without_tta
from hemalum.models.engines.engine import Engine, make_engine
from hemalum.models.model import UNKNOWN_ORGAN, Model, load_model
from hemalum.nuclei.ihc_score import Positive
from hemalum.nuclei.nuclei import Nuclei, Part
from hemalum.slides.image_source import ImageSource
from hemalum.targets.representations import find_representation

log = logging.getLogger(__name__)

MPP_RANGE = (0.02, 5.0)  # µm per px; beyond it nuclei are larger than a tile or smaller than a few pixels
NO_ORGAN = "the mean of all organs is taken"  # of their embeddings (docs/systems/clin_seg_net.md)
ODD_SIZE = 1.8  # nuclei this much larger or smaller than the model's mean that the scale is doubtful

_last_engine: dict[tuple[str, str, str, int | None, str | None], Engine] = {}

ProgressCallback = Callable[[float], None]


@dataclass(frozen=True, slots=True)
class Scale:
    """µm per px of an image and where that comes from: "user", "file" or "estimate"."""

    mpp: float
    source: str


def segment(  # noqa: PLR0913 (the verb's options)
    image: Path | str | NDArray[Any],
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
    on_progress: ProgressCallback | None = None,
) -> Nuclei:
    """Find the nuclei of an image: a file, or an array (H, W, 3) uint8 RGB, (H, W) uint8 or uint16 gray.

    `mpp` in µm per px; without it (None or "auto") the file's own is taken, and where it has none the scale is
    estimated from the nuclei, which the result says (`mpp_source`). "estimate" estimates in any case. `model` is a
    file, the name of a shipped model, or a loaded one; `organ` is what the image is of, for a model that tells
    organs apart. `stain` is "he", "hdab" or "fluorescence"; with "auto" it is recognized by the image's colors,
    which the result says (`notes`). Of H-DAB images the DAB of each nucleus is measured; `positive`, one threshold
    of its optical density, three, or "otsu", tells positive from negative nuclei (`Nuclei.graded`). `engine`,
    `device`, `threads` and `precision` are those of `make_engine`. `max_pixels` replaces the limits on the image's
    size. With `tta` the network looks at each window in all eight turns and mirror images, and the mean of the maps
    is taken. `on_progress` is called with the share that is done, in [0, 1].

    Raises HemalumError for what the user can mend: the image, the scale, the model, its organ, the stain, the
    thresholds, the engine.
    """
    check_mpp(mpp)
    stain = check_stain(stain, positive)
    loaded = load_model(model)
    if organ is not None:
        loaded = loaded.with_organ(organ)
    log_organ(loaded)
    runner = as_engine(engine, loaded, device=device, threads=threads, precision=precision, tta=tta)
    if isinstance(image, np.ndarray):
        source = ImageSource.of(image)
    else:
        source = ImageSource.open(image, max_pixels=max_pixels)
    with source:
        return segment_source(
            source, loaded, runner, mpp=mpp, stain=stain, positive=positive, on_progress=on_progress
        )


def as_engine(
    engine: str | Engine,
    model: Model,
    *,
    device: str = "auto",
    threads: int | None = None,
    precision: str | None = None,
    tta: bool = False,
) -> Engine:
    """Give the engine itself, or make the one that is named; the last one made is kept for the next call.

    With `tta` its maps are means over turns and mirror images (`SymmetricEngine`).
    """
    if tta:
        plain = as_engine(engine, model, device=device, threads=threads, precision=precision)
        return SymmetricEngine(without_tta(plain), find_representation(model.card.representation, model.card.classes))
    if not isinstance(engine, str):
        return engine
    key = (engine, model.digest, device, threads, precision)
    made = _last_engine.get(key)
    if made is None:
        made = make_engine(engine, model, device=device, threads=threads, precision=precision)
        _last_engine.clear()
        _last_engine[key] = made
    return made


def segment_source(
    source: ImageSource,
    model: Model,
    engine: Engine,
    *,
    mpp: float | str | None = None,
    stain: str = "auto",
    positive: Positive = None,
    on_progress: ProgressCallback | None = None,
    on_band: Callable[[Band], None] | None = None,
) -> Nuclei:
    """Find the nuclei of an open image; see `segment`. `on_band` sees each band's maps before separation."""
    staining = find_staining(source, model, check_stain(stain, positive))
    scale = find_scale(source, model, engine, mpp, staining)
    staining = show_nuclear_dab(staining, source, model, without_tta(engine), scale.mpp)
    shape = scaled_shape(source.shape, scale.mpp / model.card.mpp)
    parts: list[Part] = []
    unstained = 0
    for part, done in _parts(source, model, engine, shape, staining.change, on_band):
        if staining.stain == "he" and model.card.separation.min_hematoxylin:
            stained = ~(part.raw["hematoxylin_mean"] < model.card.separation.min_hematoxylin)
            unstained += int((~stained).sum())
            part = part.where(stained)
        parts.append(part)
        if on_progress is not None:
            on_progress(done)
    if on_progress is not None:
        on_progress(1.0)
    upsampling = model.card.output_upsampling
    nuclei = Nuclei.from_parts(
        parts,
        shape=source.shape,
        scale=(source.shape[1] / (shape[1] * upsampling), source.shape[0] / (shape[0] * upsampling)),
        mpp=scale.mpp,
        mpp_source=scale.source,
        model=model.card.name,
        source=source.name,
        notes={"engine": f"{engine.name} {engine.precision}"}
        | describe_tta(engine)
        | staining.notes
        | describe_organ(model)
        | ({"left_out_without_hematoxylin": unstained} if unstained else {}),
        class_names=find_representation(model.card.representation, model.card.classes).class_names,
    )
    if scale.source != "estimate":
        _doubt(nuclei, model, source.name)
    if staining.stain == "hdab":
        nuclei = nuclei.with_dab(source.read)
    return nuclei if positive is None else nuclei.graded(positive)


def log_organ(model: Model) -> None:
    """Say once what a model that tells organs apart takes an image for, where nobody said its organ."""
    if model.organ == UNKNOWN_ORGAN:
        log.info(
            "model '%s' tells organs apart and none is given: %s; --organ NAME sets it", model.card.name, NO_ORGAN
        )


def describe_organ(model: Model) -> dict[str, str]:
    """What the result says of it."""
    return {} if model.organ is None else {"organ": model.card.organ or f"not given: {NO_ORGAN}"}


def check_mpp(mpp: float | str | None) -> None:
    """Raise HemalumError for a scale that nobody can mean: before a model is made ready."""
    if isinstance(mpp, str) and mpp not in ("auto", "estimate"):
        raise HemalumError(f"mpp is a number of µm per px or 'auto', not '{mpp}'")
    if isinstance(mpp, int | float) and (not math.isfinite(mpp) or not MPP_RANGE[0] <= mpp <= MPP_RANGE[1]):
        raise HemalumError(
            f"mpp {mpp:g} µm per px is out of range {MPP_RANGE[0]:g} to {MPP_RANGE[1]:g}: "
            "0.25 is usual for 40x, 0.5 for 20x"
        )


def find_scale(
    source: ImageSource, model: Model, engine: Engine, mpp: float | str | None, staining: Staining | None = None
) -> Scale:
    """Decide an image's mpp: what the user says, else the file, else an estimate from the nuclei.

    Raises HemalumError for an impossible number or when nothing is found to estimate from.
    """
    check_mpp(mpp)
    if isinstance(mpp, int | float):
        return Scale(float(mpp), "user")
    if source.mpp is not None and mpp != "estimate":
        if not MPP_RANGE[0] <= source.mpp <= MPP_RANGE[1]:
            raise HemalumError(
                f"{source.name}: the file states {source.mpp:g} µm per px, at which no nuclei can be seen: give --mpp"
            )
        log.info("%s: %.4g µm per px, from the file", source.name, source.mpp)
        return Scale(source.mpp, "file")
    estimate = estimate_mpp(source, model, without_tta(engine), staining)
    log.warning(
        "%s does not say its scale: %.3g µm per px is an estimate from its nuclei; --mpp NUMBER sets it",
        source.name,
        estimate.mpp,
    )
    return Scale(estimate.mpp, "estimate")


def scaled_shape(shape: tuple[int, int], factor: float) -> tuple[int, int]:
    """Height and width of an image at `factor` times its size."""
    return max(1, round(shape[0] * factor)), max(1, round(shape[1] * factor))


def _parts(
    source: ImageSource, model: Model, engine: Engine, shape: tuple[int, int], change: ColorChange | None,
    on_band: Callable[[Band], None] | None,
) -> Any:  # fmt: skip
    """Parts of the result with the share of the image that is done after each."""
    card = model.card
    representation = find_representation(card.representation, card.classes).smoothed(card.separation)
    grid = plan_grid(
        card, shape, reach=representation.reach, upsampling=card.output_upsampling, parallel=engine.parallel
    )
    done = 0.0

    def observed_bands() -> Any:
        nonlocal done
        for band in bands(
            source, engine, representation, shape, grid, stride=card.stride, upsampling=card.output_upsampling,
            change=change, organ=model.organ,
        ):  # fmt: skip
            done = band.stop / shape[0]
            if on_band is not None:
                on_band(band)
            yield band

    for part in separate_bands(observed_bands(), shape, card.separation, upsampling=card.output_upsampling):
        yield part, done


def _doubt(nuclei: Nuclei, model: Model, name: str) -> None:
    """Say so when the nuclei have a size that speaks against the scale."""
    if nuclei.count < 20:
        return
    area = float(np.nanmedian(nuclei.table.column("area_um2").to_numpy()))
    ratio = 2 * math.sqrt(area / math.pi) / model.card.nucleus_diameter_um
    if max(ratio, 1 / ratio) > ODD_SIZE:
        log.warning(
            "%s: at %.3g µm per px the nuclei are %.1f µm across, %.1f is usual: is the scale right?",
            name,
            nuclei.mpp or math.nan,
            ratio * model.card.nucleus_diameter_um,
            model.card.nucleus_diameter_um,
        )
