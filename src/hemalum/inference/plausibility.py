"""Whether the scale that a file or a user states fits the nuclei of the image.

The estimate of `hemalum.inference.scale` and the size of the nuclei that were found at the stated scale are taken
together: where they say another scale, by more than a factor of `APART`, the user is warned. What the numbers below
catch is measured by `benchmarks/plausibility.py`; no program fits them.

The estimate takes longer than segmenting a small field. It is made where nuclei look odd for the scale (`is_odd`),
as those of every second field at the right scale do; first at every second of its scales, and at all of them only
where that speaks against the scale. Of images that are segmented together and state one scale, `AGREED` that fit are
enough: of the others only those with very odd nuclei are looked at.
"""

import logging
import math
from collections import Counter
from dataclasses import dataclass
from typing import Self

import numpy as np

from hemalum.data.nucleus_size import APART, likely_scale
from hemalum.inference.scale import ASSUMED, FEWEST, REGION, Scale, ScaleResult, contrast_regions, summit, try_scales
from hemalum.inference.staining import Staining
from hemalum.inference.tta import without_tta
from hemalum.models.engines.engine import Engine
from hemalum.models.model import Model
from hemalum.nuclei.morphology import hematoxylin
from hemalum.nuclei.nuclei import Nuclei
from hemalum.slides.artifacts import Artifacts
from hemalum.slides.slide import Slide

log = logging.getLogger(__name__)

PEAK_WEIGHT, SIZE_WEIGHT = 0.8, 0.48  # of the estimate, and of the size of the nuclei, in octaves of scale
ROUGH = 0.2  # octaves that the estimate at every second scale may be off by
AGREED = 3  # images of one scale
# µm and nuclei per mm² of usual nuclei, by which what is odd is told: octaves of scale are
# BY_SIZE · log2(diameter) - BY_DENSITY · log2(density), of those over the usual
BY_SIZE, BY_DENSITY, USUAL_DIAMETER, USUAL_DENSITY = 0.92, 0.21, 5.13, 4500.0
ODD, SURE = 0.4, 0.88  # octaves, and mean probability below which nuclei are odd
VERY_ODD, UNSURE = 0.7, 0.86


@dataclass(frozen=True, slots=True)
class SeenNuclei:
    """What is known of the nuclei that were found at a stated scale, in µm of that scale."""

    count: int
    diameter_um: float
    per_mm2: float
    probability: float

    @classmethod
    def of(cls, nuclei: Nuclei) -> Self:
        """Of the result for an image, before a filter."""
        if not nuclei.count or not nuclei.mpp:
            return cls(0, math.nan, 0.0, math.nan)
        area = float(np.nanmedian(nuclei.table.column("area_um2").to_numpy()))
        probability = float(np.nanmean(nuclei.table.column("probability").to_numpy()))
        return cls(nuclei.count, 2 * math.sqrt(area / math.pi), nuclei.density_per_mm2 or 0.0, probability)

    @classmethod
    def at(cls, result: ScaleResult) -> Self:
        """Of what was found in parts of an image or slide."""
        return cls(result.count, result.diameter_um, result.count / result.area_mm2, result.probability)

    def is_odd(self, octaves: float = ODD, sure: float = SURE) -> bool:
        """Whether their size and number, or how sure the network is of them, are unusual at this scale, or few."""
        if self.count < FEWEST:
            return True
        by_size = BY_SIZE * math.log2(self.diameter_um / USUAL_DIAMETER)
        by_density = BY_DENSITY * math.log2(self.per_mm2 / USUAL_DENSITY)
        return abs(by_size - by_density) > octaves or self.probability < sure


class ScaleCheck:
    """Compares stated scales with nuclei, of one image, one slide, or the images that are segmented together."""

    def __init__(self) -> None:
        self._agreed: Counter[float] = Counter()

    def doubt(
        self, source: Slide, model: Model, engine: Engine, scale: Scale, staining: Staining,
        seen: SeenNuclei | None = None, artifacts: Artifacts | None = None,
    ) -> str:  # fmt: skip
        """What speaks against a stated scale, "" for nothing: the log says it, and `Nuclei.notes` do.

        `seen` are the nuclei that were found in all of the image; without, parts of it are segmented. What
        `artifacts` leave out is not looked at. Nothing is said where the scale is an estimate, of other stains than
        H&E, of gray images, and of too few nuclei.
        """
        if scale.source not in ("file", "user") or staining.stain != "he" or staining.gray or staining.doubt:
            return ""
        if seen is not None:
            limits = (VERY_ODD, UNSURE) if self._agreed[scale.mpp] >= AGREED else (ODD, SURE)
            if not seen.is_odd(*limits):
                self._agreed[scale.mpp] += 1
                return ""
        octaves = octaves_apart(source, model, without_tta(engine), scale.mpp, staining, seen, artifacts)
        if octaves is None:
            return ""
        if abs(octaves) <= math.log2(APART):
            self._agreed[scale.mpp] += 1
            return ""
        stated = f"the file states {scale.mpp:.4g}" if scale.source == "file" else f"mpp is given as {scale.mpp:.4g}"
        doubt = f"{stated} µm per px, but its nuclei look like {likely_scale(scale.mpp, octaves)}"
        log.warning("%s: %s; mpp sets it", source.name, doubt)
        return doubt


def octaves_apart(
    source: Slide, model: Model, engine: Engine, mpp: float, staining: Staining, seen: SeenNuclei | None,
    artifacts: Artifacts | None = None,
) -> float | None:  # fmt: skip
    """log2 of how many times coarser than `mpp` µm per px the nuclei look, or None where too few are found to tell.

    Where the first half of the assumed scales gives no reason for doubt, the others are not looked at.
    """
    regions = contrast_regions(source, hematoxylin, REGION, artifacts)
    if seen is None:
        seen = SeenNuclei.at(*try_scales(regions, [mpp], model, engine, staining))
    rough = try_scales(regions, ASSUMED[1::2], model, engine, staining)
    octaves = _octaves(rough, model, mpp, seen)
    if octaves is None or abs(octaves) < math.log2(APART) - ROUGH:
        return octaves
    return _octaves([*rough, *try_scales(regions, ASSUMED[::2], model, engine, staining)], model, mpp, seen)


def _octaves(results: list[ScaleResult], model: Model, mpp: float, seen: SeenNuclei) -> float | None:
    estimate = summit(results, model)
    if estimate is None:
        return None
    by_peak = math.log2(estimate.mpp / mpp)
    usual = model.card.nucleus_diameter_um
    if seen.count < FEWEST:  # at the stated scale; so the size at the estimated one moves the estimate
        return by_peak + SIZE_WEIGHT * math.log2(usual / estimate.diameter_um)
    # pieces of large nuclei have a usual size: the size adds to the estimate, and is no excuse for it
    return max(by_peak, PEAK_WEIGHT * by_peak + SIZE_WEIGHT * math.log2(usual / seen.diameter_um), key=abs)
