"""The scale of an image: what the user or the file says, else an estimate from its nuclei.

For the estimate, crops with much hematoxylin are segmented at eleven assumed scales. A network is most at home at the
scale it was trained at: there its nuclei are most probable, and it finds more of them. The estimate is the middle of
that peak. The size of the nuclei found is no better guide: it differs between tissues by as much as the peak is off,
and at a wrong scale large nuclei fall into pieces of the expected size. The numbers below were chosen on, and the
error is measured by, `benchmarks/scale.py`. Whether a scale that is stated fits the nuclei is another question
(`hemalum.inference.plausibility`).
"""

import logging
import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hemalum.data.stain.he_appearance import ColorChange
from hemalum.errors import HemalumError
from hemalum.inference.maps import run_image
from hemalum.inference.staining import Staining, find_staining
from hemalum.inference.tta import without_tta
from hemalum.models.engines.engine import Engine
from hemalum.models.model import Model
from hemalum.nuclei.morphology import hematoxylin
from hemalum.nuclei.nuclei import Nuclei
from hemalum.nuclei.part import measure
from hemalum.settings import as_number
from hemalum.slides.artifacts import Artifacts
from hemalum.slides.resample import Resampler
from hemalum.slides.slide import Slide
from hemalum.targets.representations import find_representation

log = logging.getLogger(__name__)

Pixels = NDArray[np.uint8]

ASSUMED = tuple(2 ** (step / 2 - 4) for step in range(11))  # 0.0625 … 2 µm per px
LARGEST = 384  # px of a crop's side at the model's scale
REGION = 1024  # px of a region's side in the image
REGIONS = 2
FEWEST = 5  # nuclei from which a scale can be judged
SHARPNESS = 15.0  # weight of a scale is exp(SHARPNESS · score)
REACH = 2.0  # octaves around the peak that the middle is taken over
COUNT_WEIGHT = 0.02  # score of e times as many nuclei
# the same of nuclei per pixel looked at, for each octave that the model's pixels are longer than FINE: a network for
# long pixels is surest of nuclei that are larger than those of its own scale (`fast`: by 1.25)
DENSITY_WEIGHT = 0.02
FINE = 0.25  # µm per px
MPP_RANGE = (0.02, 5.0)  # µm per px; beyond it nuclei are larger than a tile or smaller than a few pixels
ODD_SIZE = 1.8  # nuclei this much larger or smaller than the model's mean that the scale is doubtful


@dataclass(frozen=True, slots=True)
class Scale:
    """µm per px of an image and where that comes from: "user", "file" or "estimate".

    `doubt` says what speaks against a scale of the first two, "" where nothing does.
    """

    mpp: float
    source: str
    doubt: str = ""


class NoNucleiError(HemalumError):
    """An image in which there is no nucleus at any scale: a result, but not of an estimate."""


@dataclass(frozen=True, slots=True)
class ScaleEstimate:
    """`mpp` µm per px; `confidence` is the mean probability of the `nuclei` found near it, in [0, 1].

    `diameter_um` is their median at `mpp`. `score_by_mpp` holds the score by assumed scale, where there were nuclei.
    """

    mpp: float
    confidence: float
    nuclei: int
    diameter_um: float
    score_by_mpp: dict[float, float]


@dataclass(frozen=True, slots=True)
class ScaleResult:
    """What segmenting at an assumed scale gives.

    `count` nuclei on `area_mm2`, of that mean `probability` and median `diameter_um`.
    """

    mpp: float
    count: int
    area_mm2: float
    probability: float
    diameter_um: float


def check_mpp(mpp: Any) -> Any:
    """Give a scale as a number of Python, a text or None, before a model is made ready.

    Raises HemalumError for one that nobody can mean.
    """
    mpp = as_number(mpp, "mpp")
    if isinstance(mpp, str) and mpp not in ("auto", "estimate"):
        raise HemalumError(f"mpp is a number of µm per px or 'auto', not '{mpp}'")
    if isinstance(mpp, int | float) and (not math.isfinite(mpp) or not MPP_RANGE[0] <= mpp <= MPP_RANGE[1]):
        raise HemalumError(
            f"mpp {mpp:g} µm per px is out of range {MPP_RANGE[0]:g} to {MPP_RANGE[1]:g}: "
            "0.25 is usual for 40x, 0.5 for 20x"
        )
    return mpp


def find_scale(
    source: Slide, model: Model, engine: Engine, mpp: float | str | Scale | None, staining: Staining | None = None
) -> Scale:
    """Decide an image's mpp: what the user says, else the file, else an estimate: a `Scale`, or from the nuclei.

    A scale of the file at which no nuclei can be seen is none. Raises HemalumError for an impossible number or when
    too little is found to estimate from, NoNucleiError when nothing is.
    """
    series = mpp if isinstance(mpp, Scale) else None
    mpp = None if series else check_mpp(mpp)
    if isinstance(mpp, int | float):
        return Scale(float(mpp), "user")
    why = "states no scale that a microscope has" if source.scale_doubt else "does not say its scale"
    if source.mpp is not None and mpp != "estimate":
        if source.mpp <= MPP_RANGE[1]:
            log.info("%s: %.4g µm per px, from the file", source.name, source.mpp)
            return Scale(source.mpp, "file")
        why = too_coarse(source.mpp)
    if series:
        return series
    estimate = estimate_mpp(source, model, without_tta(engine), staining)
    log.warning("%s %s: %.3g µm per px is an estimate from its nuclei; mpp sets it", source.name, why, estimate.mpp)
    return Scale(estimate.mpp, "estimate")


def too_coarse(mpp: float) -> str:
    """Why a scale that a file states, and a slide may have, is of no use for nuclei."""
    return f"states {mpp:g} µm per px, at which no nuclei can be seen"


def scaled_shape(shape: tuple[int, int], factor: float) -> tuple[int, int]:
    """Height and width of an image at `factor` times its size."""
    return max(1, round(shape[0] * factor)), max(1, round(shape[1] * factor))


def warn_of_odd_size(nuclei: Nuclei, model: Model, name: str) -> None:
    """Say in the log when the nuclei have a size that speaks against the scale."""
    if nuclei.count:
        area = float(np.nanmedian(nuclei.table.column("area_um2").to_numpy()))
        warn_of_odd_median(nuclei.count, area, nuclei.mpp, model, name)


def warn_of_odd_median(count: int, area: float, mpp: float | None, model: Model, name: str) -> None:
    """The same of the median area, µm², of so many nuclei."""
    if count < 20:
        return
    ratio = 2 * math.sqrt(area / math.pi) / model.card.nucleus_diameter_um
    if max(ratio, 1 / ratio) > ODD_SIZE:
        log.warning(
            "%s: at %.3g µm per px the nuclei are %.1f µm across, %.1f is usual: is the scale right?",
            name,
            mpp or math.nan,
            ratio * model.card.nucleus_diameter_um,
            model.card.nucleus_diameter_um,
        )


def estimate_mpp(source: Slide, model: Model, engine: Engine, staining: Staining | None = None) -> ScaleEstimate:
    """Estimate µm per px of an image from its nuclei; its stain is recognized unless `staining` is given.

    Raises NoNucleiError when none is found at any scale, HemalumError when too few are.
    """
    staining = staining or find_staining(source, model, warn=False)
    results = try_scales(contrast_regions(source, hematoxylin, REGION), ASSUMED, model, engine, staining)
    estimate = summit(results, model)
    if estimate is not None:
        return estimate
    if not any(result.count for result in results):
        raise NoNucleiError(
            f"{source.name}: no nuclei at any scale from {ASSUMED[0]:.2g} to {ASSUMED[-1]:g} µm per px: "
            "0 nuclei, scale unknown"
        )
    raise HemalumError(
        f"{source.name}: too few nuclei are found to tell the scale from them: "
        "give it with --mpp (0.25 is usual for 40x, 0.5 for 20x)"
    )


def try_scales(
    regions: list[Pixels], scales: Iterable[float], model: Model, engine: Engine, staining: Staining
) -> list[ScaleResult]:
    """Segment the middles of regions of an image at each of some assumed scales."""
    return [_segment_at(regions, mpp, model, engine, staining.change) for mpp in scales]


def summit(results: Iterable[ScaleResult], model: Model) -> ScaleEstimate | None:
    """The estimate from what was found at assumed scales; None where too few nuclei were."""
    fit = [result for result in results if result.count >= FEWEST]
    if not fit:
        return None
    scores = np.array([_score(result, model) for result in fit])
    mpp = float(2 ** peak(np.log2([result.mpp for result in fit]), scores))
    nearest = min(fit, key=lambda result: abs(math.log2(result.mpp / mpp)))
    return ScaleEstimate(
        mpp,
        nearest.probability,
        nearest.count,
        nearest.diameter_um * mpp / nearest.mpp,
        {result.mpp: float(score) for result, score in zip(fit, scores, strict=True)},
    )


def _score(result: ScaleResult, model: Model) -> float:
    card_mpp = model.card.mpp
    density = result.count * card_mpp**2 / (result.area_mm2 * 1e6)  # nuclei per px of the network's input
    coarser = min(max(math.log2(card_mpp / FINE), 0.0), 1.0)
    return (
        result.probability
        + COUNT_WEIGHT * math.log(result.count)
        + DENSITY_WEIGHT * coarser * math.log(density)
    )  # fmt: skip


def peak(octaves: NDArray[np.float64], scores: NDArray[np.float64]) -> float:
    """Give the middle of the highest peak: the mean position weighted by score, near itself (mean shift)."""
    weights = np.exp(SHARPNESS * (scores - scores.max()))
    middle = float(octaves[np.argmax(scores)])
    for _ in range(50):
        near = weights * np.exp(-(((octaves - middle) / REACH) ** 2))
        moved = float((near * octaves).sum() / near.sum())
        if abs(moved - middle) < 1e-4:
            return moved
        middle = moved
    return middle


def _segment_at(
    regions: list[Pixels], mpp: float, model: Model, engine: Engine, change: ColorChange | None
) -> ScaleResult:
    card = model.card
    factor = mpp / card.mpp
    representation = find_representation(card.representation, card.classes)
    pixel = card.mpp / card.output_upsampling  # µm of the grid that nuclei are separated on
    probabilities, areas, seen = [], [], 0
    for region in regions:
        crop = _middle(region, LARGEST / factor)
        maps = run_region(crop, factor, model, engine, change)
        labels = representation.separate(maps, card.separation)
        part = measure(labels, None, representation.foreground(maps))
        probabilities.append(part.raw["probability"])
        areas.append(part.raw["area"])
        seen += labels.size
    probability, area = np.concatenate(probabilities), np.concatenate(areas)
    return ScaleResult(
        mpp,
        len(area),
        seen * pixel**2 / 1e6,
        float(probability.mean()) if len(area) else 0.0,
        2 * math.sqrt(float(np.median(area)) / math.pi) * pixel if len(area) else math.nan,
    )


def run_region(
    region: Pixels, factor: float, model: Model, engine: Engine, change: ColorChange | None
) -> NDArray[np.float32]:
    """Maps of a part of an image, brought to `factor` times its size, or as near as the model's stride allows."""
    stride = model.card.stride
    high, wide = (max(1, round(side * factor / stride)) * stride for side in region.shape[:2])
    resampled = Resampler((region.shape[0], region.shape[1]), (high, wide)).rows(region, 0, high)
    return run_image(engine, resampled if change is None else change.apply(resampled), model)


def _middle(region: Pixels, side: float) -> Pixels:
    size = max(16, math.ceil(side))
    top, left = (max((length - size) // 2, 0) for length in region.shape[:2])
    return region[top : top + size, left : left + size]


def contrast_regions(
    source: Slide, amount: Callable[[Pixels], NDArray[np.float32]], side: int, artifacts: Artifacts | None = None
) -> list[Pixels]:
    """The parts of the image, at most `side` px wide and high, in which the `amount` of a stain varies most.

    What `artifacts` leave out is white in them.
    """
    height, width = source.shape
    tops = np.unique(np.linspace(0, max(height - side, 0), min(5, -(-height // side))).astype(int))
    lefts = np.unique(np.linspace(0, max(width - side, 0), min(5, -(-width // side))).astype(int))
    candidates: list[tuple[float, Pixels]] = []
    for top in tops:
        for left in lefts:
            region = source.read(int(left), int(top), min(side, width), min(side, height))
            if artifacts is not None:
                region = artifacts.blank(region, int(left), int(top))
            candidates.append((float(amount(region[::4, ::4]).std()), region))
        candidates = sorted(candidates, key=lambda pair: -pair[0])[:REGIONS]
    return [region for _, region in candidates]
