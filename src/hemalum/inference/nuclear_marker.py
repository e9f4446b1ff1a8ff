"""Whether the DAB of an image is in its nuclei: Ki-67 and ER against HER2 and cytokeratin.

Brown nuclei are found where their DAB counts as nuclear density; where DAB is in membranes or cytoplasm, that would
turn these into nuclei. Colors alone do not tell the two apart, shapes do. So the parts of the image with the most
DAB contrast are segmented twice, with DAB taken out and with some of it shown as hematoxylin. If DAB is nuclear, most
nuclei of the first are nuclei of the second, and others join them; if not, they are gone. The numbers were chosen on,
and the decision is measured by, `benchmarks/ihc_stain.py`.
"""

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from hemalum.data.stain.he_appearance import NUCLEAR_SHARE, HdabMap
from hemalum.inference.scale import contrast_regions, run_region
from hemalum.inference.staining import Staining
from hemalum.metrics import MatchCounts, match, measure_overlap
from hemalum.models.engines.engine import Engine
from hemalum.models.model import Model
from hemalum.nuclei.dab import dab
from hemalum.slides.slide import Slide
from hemalum.targets.representations import find_representation

TRIED_SHARE = 0.35  # of DAB shown as hematoxylin: with more, outlines of brown nuclei move too far
LEAST_KEPT = 0.7  # share of the nuclei of the first that are met in the second (IoU above 0.5) of a nuclear marker
FEWEST = 5  # nuclei: with fewer there is little to lose, and DAB is shown where it gives more
REGION_UM, LARGEST_REGION = 250.0, 2048  # side of a part of the image, µm and px

Pixels = NDArray[np.uint8]


def show_nuclear_dab(staining: Staining, source: Slide, model: Model, engine: Engine, mpp: float) -> Staining:
    """Show the network part of the DAB of a nuclear marker as hematoxylin; leave all other images as they are."""
    change = staining.change
    if not isinstance(change, HdabMap) or not change.stains.has_dab:
        return staining
    side = min(max(16, round(REGION_UM / mpp)), LARGEST_REGION)
    kept = share_kept(change, contrast_regions(source, dab, side), model, engine, mpp)
    if kept is not None and kept < LEAST_KEPT:
        return staining
    shown = f"{change.stains.description}; a nuclear marker: {NUCLEAR_SHARE:g} of DAB shown as hematoxylin"
    return replace(
        staining,
        change=HdabMap(change.stains, NUCLEAR_SHARE),
        notes=staining.notes | {"network_input": shown},
    )


def share_kept(change: HdabMap, regions: list[Pixels], model: Model, engine: Engine, mpp: float) -> float | None:
    """Share of nuclei, found with DAB taken out, that are also found with some of it.

    None where there are none to lose, or few and more of them with DAB than without.
    """
    card = model.card
    representation = find_representation(card.representation, card.classes)
    total: MatchCounts | None = None
    for region in regions:
        first, second = (
            representation.separate(
                run_region(region, mpp / card.mpp, model, engine, HdabMap(change.stains, share)), card.separation
            )
            for share in (0.0, TRIED_SHARE)
        )
        counts = match(measure_overlap(first, second))
        total = counts if total is None else total + counts
    if total is None:
        return None
    without, with_dab = total.tp + total.fn, total.tp + total.fp
    if without == 0 or (without < FEWEST and with_dab > without):
        return None
    return total.tp / without
