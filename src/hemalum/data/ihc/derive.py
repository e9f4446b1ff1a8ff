"""One pair, from the two images to instances on the H&E section."""

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from skimage.morphology import remove_small_objects

from hemalum.data.ihc.chromogen import (
    CHROMOGENS,
    EOSIN,
    VECTORS,
    Chromogen,
    chromogen_mask,
    deconvolve,
    misnamed,
    optical_density,
    tissue_mask,
)
from hemalum.data.ihc.quality import LandmarkError, Quality, error_at, error_of_patches, measure_quality
from hemalum.data.ihc.registration import LEVELS, Alignment, Level, make_field, register
from hemalum.data.ihc.search import Field, search
from hemalum.data.label_maps import components, split_touching
from hemalum.errors import HemalumError

MIN_TISSUE = 0.01  # of the image; below it a section is blank
MIN_QUALITY = 0.25
MIN_AREA_UM2 = 8.0  # a disc 3.2 µm across, as for the classical segmentation
MIRROR_MARGIN = 1.5  # a mirrored section fits that many times better than the one at hand

Image = NDArray[np.uint8]
Mask = NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Settings:
    """How masks are derived; see docs/how-to/ihc.md. Raises HemalumError for values out of range."""

    chromogen: Chromogen = "dab"
    registration: Level = "bspline"
    min_quality: float = MIN_QUALITY
    min_area_um2: float = MIN_AREA_UM2
    split: bool = True

    def __post_init__(self) -> None:
        if self.chromogen not in CHROMOGENS:
            raise HemalumError(f"chromogen {self.chromogen!r}: choices are {', '.join(CHROMOGENS)}")
        if self.registration not in LEVELS:
            raise HemalumError(f"registration {self.registration!r}: choices are {', '.join(LEVELS)}")
        if not 0 <= self.min_quality <= 1:
            raise HemalumError(f"min_quality {self.min_quality}: give a number from 0 to 1")
        if not self.min_area_um2 >= 0:
            raise HemalumError(f"min_area_um2 {self.min_area_um2}: give an area in µm²")


@dataclass(frozen=True, slots=True, eq=False)
class DerivedLabels:
    """What came of a pair, on the grid of the H&E image (H, W).

    `instances` int32, `covered` bool (False where the IHC section has no pixels: nothing is known there), `warped`
    the IHC section (H, W, 3) uint8. `refused` says why the pair is no good, None where it is; then the pictures
    may be there all the same. `landmarks` is the error where it could be measured. `mpp` is that of the grid,
    `threshold` that of the chromogen, `positive` the share of tissue above it.
    """

    mpp: float
    instances: NDArray[np.int32]
    covered: Mask
    warped: Image
    refused: str | None
    quality: Quality = field(default_factory=Quality)
    landmarks: LandmarkError | None = None
    alignment: Alignment | None = None
    threshold: float = 0.0
    positive: float = 0.0

    @property
    def level(self) -> str:
        """The registration step that was kept."""
        return "none" if self.alignment is None else self.alignment.level


def derive(
    he: Image,
    ihc: Image,
    *,
    mpp: float,
    ihc_mpp: float | None = None,
    settings: Settings | None = None,
    landmarks: tuple[NDArray[np.float64], NDArray[np.float64]] | None = None,
) -> DerivedLabels:
    """Derive the nuclei of an H&E image (H, W, 3) uint8 from an IHC image (h, w, 3) uint8.

    `mpp` is in µm per pixel; `ihc_mpp` where the IHC section has another. `landmarks` are (N, 2) points x, y in px
    of the H&E and of the IHC image. A pair that does not fit is not an error: `refused` says why. Raises
    HemalumError where SimpleITK is missing.
    """
    settings = settings or Settings()
    ihc_mpp = ihc_mpp or mpp
    he_density, density = optical_density(he), optical_density(ihc)
    he_tissue, tissue = tissue_mask(he_density, mpp), tissue_mask(density, ihc_mpp)
    for name, mask in (("H&E", he_tissue), ("IHC", tissue)):
        if mask.mean() < MIN_TISSUE:
            return _nothing(he, mpp, f"the {name} section has no tissue")
    other = misnamed(density, tissue, settings.chromogen)
    if other is not None:
        return _nothing(he, mpp, f"the chromogen looks {other}, not {settings.chromogen}: give chromogen {other}")
    hematoxylin, amount = deconvolve(density, VECTORS[settings.chromogen])
    fixed = make_field(deconvolve(he_density, np.array(EOSIN))[0], he_tissue, mpp)
    moving = make_field(hematoxylin, tissue, ihc_mpp)
    alignment = register(fixed, moving, settings.registration)
    if alignment is None:
        return _nothing(he, mpp, "the tissue of the two sections does not overlap")
    shape = (he.shape[0], he.shape[1])

    def onto(pixels: NDArray[Any], *, smooth: bool = False, fill: float = 0) -> NDArray[Any]:
        return alignment.warp(pixels, ihc_mpp, shape, mpp, smooth=smooth, fill=fill)

    covered = onto(np.ones(tissue.shape, np.bool_))
    quality = measure_quality(he_tissue, onto(tissue), covered, alignment)
    staining = chromogen_mask(amount, tissue, ihc_mpp, min_area_um2=settings.min_area_um2)
    mask = onto(staining.mask)
    return DerivedLabels(
        mpp=mpp,
        instances=_instances(mask, mpp, settings),
        covered=covered,
        warped=onto(ihc, smooth=True, fill=255),
        quality=quality,
        landmarks=_landmark_error(alignment, fixed, moving, landmarks, mpp, ihc_mpp),
        alignment=alignment,
        threshold=staining.threshold,
        positive=staining.share,
        refused=_verdict(quality, fixed, moving, settings.min_quality),
    )


def _verdict(quality: Quality, fixed: Field, moving: Field, least: float) -> str | None:
    if quality.score >= least:
        return None
    text = f"quality {quality.score:.2f} is below {least:g}"
    mirror = moving._replace(signal=moving.signal[:, ::-1], tissue=moving.tissue[:, ::-1])
    best = max((position.score for position in search(fixed, moving)), default=0.0)
    flipped = max((position.score for position in search(fixed, mirror)), default=0.0)
    if flipped > MIRROR_MARGIN * best:
        return f"{text}; the IHC section looks mirrored: flip it"
    return f"{text} (overlap {quality.overlap:.2f}, coverage {quality.coverage:.2f}, " + (
        f"correlation {quality.correlation:.2f}, clarity {quality.clarity:.2f})"
    )


def _landmark_error(
    alignment: Alignment,
    fixed: Field,
    moving: Field,
    landmarks: tuple[NDArray[np.float64], NDArray[np.float64]] | None,
    mpp: float,
    ihc_mpp: float,
) -> LandmarkError | None:
    if landmarks is not None:
        return error_at(alignment, (landmarks[0] + 0.5) * mpp, (landmarks[1] + 0.5) * ihc_mpp)
    signal, tissue = alignment.onto(moving, fixed)
    return error_of_patches(fixed, signal, fixed.tissue & tissue)


def _instances(mask: Mask, mpp: float, settings: Settings) -> NDArray[np.int32]:
    kept = remove_small_objects(mask, max_size=round(settings.min_area_um2 / mpp**2) - 1)
    return split_touching(kept, mpp) if settings.split else components(kept)


def _nothing(he: Image, mpp: float, reason: str) -> DerivedLabels:
    shape = he.shape[:2]
    return DerivedLabels(
        mpp=mpp,
        instances=np.zeros(shape, np.int32),
        covered=np.zeros(shape, np.bool_),
        warped=np.full_like(he, 255),
        refused=reason,
    )
