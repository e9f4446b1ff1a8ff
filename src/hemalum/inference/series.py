"""One scale for all images of a series that do not say theirs."""

import logging
import math
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

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
    overwrite: bool = False,
) -> Scale | None:
    """The median of the scales, µm per px, that nuclei of up to `SAMPLE` images tell; None where all say their own.

    A run that goes on takes the scale that it began with, from its `summary`, and looks at the new images only. An
    image that looks like another scale is named. Raises HemalumError where nothing can be told, and where the images,
    or they and those before, look like more than one series.
    """
    began, images = (None, images) if overwrite else _begun(images, summary)
    estimates, reasons = _look(images, model, engine, stain, max_pixels, channel)
    if not estimates:
        if not reasons or began:
            return began
        raise HemalumError(
            f"mpp 'series': no image tells its scale by its nuclei ({reasons[0]}); give it as a number"
        )
    values = list(estimates.values())
    octaves = np.log2(values)
    low, high = np.percentile(octaves, [10, 90], method="nearest")  # of a few images all
    if high - low > WIDEST:
        raise HemalumError(
            f"mpp 'series': the images are no series of one scale: their nuclei tell {min(values):.3g} to "
            f"{max(values):.3g} µm per px; segment them apart, or give --mpp NUMBER"
        )
    middle = float(np.median(octaves))
    if began and abs(math.log2(began.mpp) - middle) > WIDEST / 2:
        raise HemalumError(
            f"mpp 'series': {summary.out} was begun at {began.mpp:.3g} µm per px, and the nuclei of these images "
            f"tell {2**middle:.3g}; segment them into another folder"
        )
    scale = began or Scale(float(np.median(values)), "estimate")
    for path, mpp in estimates.items():
        if abs(math.log2(mpp / scale.mpp)) > WIDEST:
            log.warning(
                "%s: its nuclei look like %.3g µm per px, and the series has %.3g: is it of another scanner?",
                path, mpp, scale.mpp,
            )  # fmt: skip
    log.warning(
        "%.3g µm per px is an estimate from %s, for all images that do not say their scale; mpp sets it",
        scale.mpp,
        "the run before" if began else counted(len(estimates), "image"),
    )
    return scale


def _begun(images: Sequence[ImageInput], summary: Summary) -> tuple[Scale | None, list[ImageInput]]:
    """The scale that a run began with, and the images that it does not know."""
    scales = [one.settings.get("mpp") for one in summary.finished.values()]
    known = [scale["series"] for scale in scales if isinstance(scale, dict) and scale["series"]]
    new = [image for image in images if image.name not in summary.finished]
    return (Scale(known[0], "estimate"), new) if known else (None, list(images))


def _look(
    images: Sequence[ImageInput],
    model: Model,
    engine: Engine,
    stain: str,
    max_pixels: int | None,
    channel: str | None,
) -> tuple[dict[Path, float], list[str]]:
    """The scales that some images tell, and why others tell none; those that say their scale are neither."""
    estimates, reasons = {}, []
    for at in dict.fromkeys(np.linspace(0, len(images) - 1, min(len(images), SAMPLE)).astype(int).tolist()):
        path = images[at].path
        with ExitStack() as stack:
            try:
                source = stack.enter_context(open_image(path, None, max_pixels, channel))
                if source.mpp is None:
                    staining = find_staining(source, model, stain, warn=False)
                    estimates[path] = estimate_mpp(source, model, without_tta(engine), staining).mpp
            except (HemalumError, OSError) as error:  # one that cannot be read is named when its turn comes
                reasons.append(str(error))
    return estimates, reasons
