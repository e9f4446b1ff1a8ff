"""Registration of an IHC section to its H&E section: rigid, then affine, then B-spline (SimpleITK)."""

import math
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from hemalum.data.ihc.search import Field, Position, search
from hemalum.errors import HemalumError

if TYPE_CHECKING:
    import SimpleITK as sitk

Level = Literal["rigid", "affine", "bspline"]
LEVELS: tuple[Level, ...] = get_args(Level)
Float = NDArray[np.float32]
Mask = NDArray[np.bool_]

FINEST_UM = 0.5  # a nucleus is a dozen such pixels across; finer grids cost time and bring no accuracy
MAX_SIDE = 1500  # px of the finest grid
SMOOTHING_UM = 1.0  # of the hematoxylin signal: grain is not the same in two sections, nuclei may be
CONTROL_UM = 30.0  # least distance of the B-spline's control points: stretched tissue, not single nuclei
MESHES = (2, 4, 8)  # cells along the shorter side, coarse to fine
# share of their distance that control points may move; up to 0.48 a cubic B-spline cannot fold (Choi & Lee 2000).
# Less than that, because where a section has no nuclei nothing else holds the spline
MAX_BEND = 0.15
MAX_STRETCH = 1.25  # an affine map that stretches or squeezes by more has lost its way
SAME_ANGLE = 20.0  # degrees; a position found this near is the same one, found again
ITERATIONS = 150
BINS = 32


def load_simpleitk() -> Any:
    """The module SimpleITK. Raises HemalumError when the extra is not installed."""
    try:
        import SimpleITK
    except ImportError as error:
        raise HemalumError('registration of IHC to H&E needs SimpleITK: pip install "hemalum[ihc]"') from error
    return SimpleITK


@dataclass(frozen=True, slots=True, eq=False)
class Alignment:
    """Where each point of the H&E section lies on the IHC section.

    `level` is the finest step that was kept, `correlation` that of the hematoxylin over the tissue of both, and
    `clarity` how far the position stands out: 1 - (the best score at another angle) / (its own), from the
    search; near 0 the position is one of many that fit as well.
    Coordinates are µm from the upper left corner of the upper left pixel, x first.
    """

    transform: "sitk.Transform"
    level: Level
    correlation: float
    clarity: float

    def points(self, points: NDArray[np.float64]) -> NDArray[np.float64]:
        """(N, 2) points of the H&E section to (N, 2) points of the IHC section, µm."""
        transform: Any = self.transform
        moved = [transform.TransformPoint((float(x), float(y))) for x, y in points]
        return np.array(moved, np.float64).reshape(-1, 2)

    def warp(
        self, pixels: NDArray[Any], mpp: float, shape: tuple[int, int], onto: float, *, smooth: bool, fill: float = 0
    ) -> NDArray[Any]:
        """Bring an image of the IHC section (h, w[, C]) at `mpp` to an H&E grid of `shape` at `onto` µm per px.

        Linear where `smooth`, else nearest; `fill` where the IHC section has no pixels.
        """
        sitk = load_simpleitk()
        boolean = pixels.dtype == np.bool_
        image = _image(pixels.astype(np.uint8) if boolean else pixels, (mpp, mpp))
        interpolator = sitk.sitkLinear if smooth else sitk.sitkNearestNeighbor
        warped = sitk.Resample(
            image,
            (shape[1], shape[0]),
            self.transform,
            interpolator,
            (onto / 2, onto / 2),
            (onto, onto),
            (1.0, 0.0, 0.0, 1.0),
            float(fill),
            image.GetPixelID(),
        )
        result: NDArray[Any] = sitk.GetArrayFromImage(warped)
        return result.astype(np.bool_) if boolean else result

    def onto(self, moving: Field, fixed: Field) -> tuple[Float, Mask]:
        """Signal and tissue of the IHC section on the grid of the H&E section."""
        return _Pair(fixed, moving).resample(self.transform)


def make_field(hematoxylin: Float, tissue: Mask, mpp: float) -> Field:
    """A section on the grid that registration works on, its hematoxylin smoothed and scaled to 0..1."""
    from skimage.transform import resize

    height, width = hematoxylin.shape
    factor = max(FINEST_UM / mpp, max(height, width) / MAX_SIDE, 1.0)
    signal, kept = hematoxylin, tissue
    if factor > 1:
        shape = (max(round(height / factor), 1), max(round(width / factor), 1))
        signal = resize(signal, shape, order=1, anti_aliasing=True)
        kept = resize(tissue.astype(np.float32), shape, order=1, anti_aliasing=True) > 0.5
    spacing = (width * mpp / signal.shape[1], height * mpp / signal.shape[0])
    signal = ndimage.gaussian_filter(
        signal.astype(np.float32), (SMOOTHING_UM / spacing[1], SMOOTHING_UM / spacing[0])
    )
    # the few darkest pixels (folds, pigment) must not decide
    top = float(np.percentile(signal[kept], 99)) if kept.any() else 1.0
    return Field(np.clip(signal / max(top, 1e-6), 0, 1), kept, spacing)


def register(fixed: Field, moving: Field, level: Level = "bspline") -> Alignment | None:
    """Find where each point of `fixed` (H&E) lies on `moving` (IHC); None where nothing overlaps.

    All rotations and shifts are tried on a coarse image, the best six refined. The rigid step maximizes the
    correlation of hematoxylin over the tissue of both, affine and B-spline their mutual information (Mattes);
    each starts from the one before and is kept only when hematoxylin correlates better. One thread and every
    pixel: the same pair gives the same transform on every run. Raises HemalumError when SimpleITK is missing.
    """
    sitk = load_simpleitk()
    threads = sitk.ProcessObject.GetGlobalDefaultNumberOfThreads()
    sitk.ProcessObject.SetGlobalDefaultNumberOfThreads(1)
    try:
        pair = _Pair(fixed, moving)
        positions = search(fixed, moving)
        if not positions:
            return None
        starts = [pair.rigid(_euler(position), coarse=True) for position in positions]
        chosen = max(range(len(starts)), key=lambda number: pair.correlation(starts[number]))
        rigid = pair.rigid(starts[chosen], coarse=False)
        alignment = Alignment(
            rigid,
            "rigid",
            pair.correlation(rigid),
            _clarity(positions, [start.GetAngle() for start in starts], chosen),
        )
        if level != "rigid":
            affine = pair.affine(alignment.transform)
            if pair.plausible(affine):
                alignment = pair.better(alignment, affine, "affine")
        if level == "bspline":
            alignment = pair.better(alignment, pair.bspline(alignment.transform), "bspline")
        return alignment if math.isfinite(alignment.correlation) else None
    finally:
        sitk.ProcessObject.SetGlobalDefaultNumberOfThreads(threads)


class _Pair:
    """Two fields as SimpleITK images, and the steps of their registration."""

    def __init__(self, fixed: Field, moving: Field) -> None:
        self.sitk = load_simpleitk()
        self.extent = fixed.extent
        self.fixed, self.moving = _image(fixed.signal, fixed.spacing), _image(moving.signal, moving.spacing)
        self.fixed_tissue = _image(fixed.tissue.astype(np.uint8), fixed.spacing)
        self.moving_tissue = _image(moving.tissue.astype(np.uint8), moving.spacing)
        # levels: from about 4 µm per pixel down to the grid's own
        finest = max(fixed.spacing)
        self.shrink = [factor for factor in (8, 4, 2, 1) if factor == 1 or factor * finest <= 4.5]

    def method(self, shrink: Sequence[int]) -> Any:
        method = self.sitk.ImageRegistrationMethod()
        method.SetMetricAsCorrelation()
        method.SetMetricFixedMask(self.fixed_tissue)
        method.SetMetricMovingMask(self.moving_tissue)
        method.SetMetricSamplingStrategy(method.NONE)
        method.SetInterpolator(self.sitk.sitkLinear)
        method.SetShrinkFactorsPerLevel(list(shrink))
        method.SetSmoothingSigmasPerLevel([factor / 2 if factor > 1 else 0.0 for factor in shrink])
        method.SmoothingSigmasAreSpecifiedInPhysicalUnitsOff()
        method.SetNumberOfThreads(1)
        return method

    def rigid(self, start: Any, *, coarse: bool) -> Any:
        transform = self.sitk.Euler2DTransform(start)
        return self._descend(transform, self.shrink[:1] if coarse else self.shrink[1:] or self.shrink)

    def affine(self, rigid: Any) -> Any:
        transform = self.sitk.AffineTransform(2)
        transform.SetCenter(rigid.GetCenter())
        transform.SetMatrix(rigid.GetMatrix())
        transform.SetTranslation(rigid.GetTranslation())
        return self._descend(transform, self.shrink, mutual=True)

    def bspline(self, affine: Any) -> Any:
        steps = [affine]
        shorter = min(self.extent)
        for mesh_size in MESHES:
            distance = shorter / mesh_size
            if distance < CONTROL_UM and len(steps) > 1:
                break
            mesh = [max(round(side / distance), 1) for side in self.extent]
            spline = self.sitk.BSplineTransformInitializer(self.fixed, mesh, 3)
            method = self.method(self.shrink[-2:])
            method.SetMetricAsMattesMutualInformation(BINS)
            method.SetMovingInitialTransform(self.sitk.CompositeTransform(steps))
            method.SetInitialTransform(spline, inPlace=True)
            method.SetOptimizerAsLBFGSB(
                gradientConvergenceTolerance=1e-6,
                numberOfIterations=ITERATIONS // 5,
                costFunctionConvergenceFactor=1e9,
                lowerBound=-MAX_BEND * distance,
                upperBound=MAX_BEND * distance,
            )
            self._run(method)
            steps.append(spline)  # a composite applies its last member first
        return self.sitk.CompositeTransform(steps)

    def _descend(self, transform: Any, shrink: Sequence[int], *, mutual: bool = False) -> Any:
        method = self.method(shrink)
        if mutual:
            method.SetMetricAsMattesMutualInformation(BINS)
        method.SetInitialTransform(transform, inPlace=True)
        method.SetOptimizerAsRegularStepGradientDescent(
            learningRate=2.0,
            minStep=0.01,
            numberOfIterations=ITERATIONS,
            relaxationFactor=0.6,
            estimateLearningRate=method.Once,
            maximumStepSizeInPhysicalUnits=1.0,
        )
        method.SetOptimizerScalesFromPhysicalShift()
        self._run(method)
        return transform

    def _run(self, method: Any) -> None:
        # where the two no longer overlap SimpleITK gives up; what was reached by then has its correlation measured
        with suppress(RuntimeError):
            method.Execute(self.fixed, self.moving)

    def resample(self, transform: Any) -> tuple[Float, Mask]:
        """Signal and tissue of the moving section on the grid of the fixed one."""
        sitk = self.sitk
        signal = sitk.Resample(self.moving, self.fixed, transform, sitk.sitkLinear, 0.0)
        tissue = sitk.Resample(self.moving_tissue, self.fixed, transform, sitk.sitkNearestNeighbor, 0)
        return sitk.GetArrayFromImage(signal), sitk.GetArrayFromImage(tissue).astype(np.bool_)

    def correlation(self, transform: Any) -> float:
        """Pearson correlation over the tissue of both; minus infinity where too little is left of it."""
        moved, there = self.resample(transform)
        here = self.sitk.GetArrayViewFromImage(self.fixed_tissue).astype(np.bool_)
        both = here & there
        if both.sum() < max(100, 0.1 * here.sum()):
            return -math.inf
        a = self.sitk.GetArrayViewFromImage(self.fixed)[both].astype(np.float64)
        b = moved[both].astype(np.float64)
        spread = float(a.std() * b.std())
        return float(((a - a.mean()) * (b - b.mean())).mean() / spread) if spread > 0 else -math.inf

    def better(self, known: Alignment, transform: Any, level: Level) -> Alignment:
        """The new transform where it correlates better than the `known` one, else that."""
        correlation = self.correlation(transform)
        return (
            replace(known, transform=transform, level=level, correlation=correlation)
            if correlation > known.correlation
            else known
        )

    @staticmethod
    def plausible(affine: Any) -> bool:
        """Whether an affine map stretches and squeezes no more than sections do."""
        stretch = np.linalg.svd(np.array(affine.GetMatrix()).reshape(2, 2), compute_uv=False)
        return bool(stretch.max() <= MAX_STRETCH and stretch.min() >= 1 / MAX_STRETCH)


def _clarity(positions: Sequence[Position], angles: Sequence[float], chosen: int) -> float:
    """How far the chosen position stands out from those that ended at other angles: 0 (not at all) to 1."""
    near = math.cos(math.radians(SAME_ANGLE))
    same = [math.cos(angle - angles[chosen]) >= near for angle in angles]
    here = max(position.score for position, is_same in zip(positions, same, strict=True) if is_same)
    others = [position.score for position, is_same in zip(positions, same, strict=True) if not is_same]
    return max(0.0, 1 - max(others, default=0.0) / here)


def _euler(position: Position) -> Any:
    sitk = load_simpleitk()
    transform = sitk.Euler2DTransform()
    transform.SetCenter(position.center)
    transform.SetAngle(position.angle)
    transform.SetTranslation([to - here for to, here in zip(position.target, position.center, strict=True)])
    return transform


def _image(pixels: NDArray[Any], spacing: tuple[float, float]) -> Any:
    """An image whose physical space starts at the corner of its first pixel, whatever the size of the pixels."""
    image = load_simpleitk().GetImageFromArray(np.ascontiguousarray(pixels), isVector=pixels.ndim == 3)
    image.SetSpacing(spacing)
    image.SetOrigin((spacing[0] / 2, spacing[1] / 2))
    return image
