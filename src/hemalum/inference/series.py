"""One scale for all images of a series that do not say theirs."""

import logging
from collections.abc import Sequence
from contextlib import ExitStack

import numpy as np

from hemalum.errors import HemalumError, counted
from hemalum.inference.inputs import ImageInput
from hemalum.inference.scale import Scale, estimate_mpp
from hemalum.inference.segment import open_image
from hemalum.inference.staining import find_staining
from hemalum.inference.summary import Summary
from hemalum.inference.tta import without_tta
from hemalum.models.engines.engine import Engine
from hemalum.models.model import Model

log = logging.getLogger(__name__)

SAMPLE = 9  # images that are looked at
WIDEST = 0.7  # octaves between the 10th and 90th percentile: two objectives are one apart


def estimate_series(
    images: Sequence[ImageInput],
    model: Model,
    engine: Engine,
    stain: str,
    summary: Summary,
    *,
    max_pixels: int | None = None,
    channel: str | None = None,
) -> Scale | None:
    """The median of the scales, µm per px, that nuclei of up to `SAMPLE` images tell; None where all say their own.

    A run that goes on takes the scale that it began with, from its `summary`. Raises HemalumError where nothing can
    be told, and where the images look like more than one series.
    """
    for one in summary.finished.values():
        began = one.settings.get("mpp")
        if isinstance(began, dict):
            return Scale(began["series"], "estimate")
    silent, estimates, reasons = 0, [], []
    for at in dict.fromkeys(np.linspace(0, len(images) - 1, min(len(images), SAMPLE)).astype(int).tolist()):
        with ExitStack() as stack:
            try:
                source = stack.enter_context(open_image(images[at].path, None, max_pixels, channel))
                if source.mpp is not None:
                    continue
                silent += 1
                staining = find_staining(source, model, stain, warn=False)
                estimates.append(estimate_mpp(source, model, without_tta(engine), staining).mpp)
            except HemalumError as error:  # one that cannot be read is named when its turn comes
                reasons.append(str(error))
    if not estimates:
        if not silent:
            return None
        raise HemalumError(
            f"mpp 'series': no image tells its scale by its nuclei ({reasons[0]}); give it as a number"
        )
    low, high = np.percentile(np.log2(estimates), [10, 90], method="nearest")  # of a few images all
    if high - low > WIDEST:
        raise HemalumError(
            f"mpp 'series': the images are no series of one scale: their nuclei tell {min(estimates):.3g} to "
            f"{max(estimates):.3g} µm per px; segment them apart, or give --mpp NUMBER"
        )
    mpp = float(np.median(estimates))
    log.warning(
        "%.3g µm per px is an estimate from %s, for all images that do not say their scale; mpp sets it",
        mpp,
        counted(len(estimates), "image"),
    )
    return Scale(mpp, "estimate")
