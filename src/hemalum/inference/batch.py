"""Many images, one after the other, each to its own files."""

import logging
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hemalum.errors import HemalumError, nearest
from hemalum.inference.inputs import FORMATS, check_folder, check_names, find_images, stem, stems_of
from hemalum.inference.plausibility import ScaleCheck
from hemalum.inference.scale import check_mpp
from hemalum.inference.segment import as_engine, load_for_organ, open_image, segment_source
from hemalum.inference.staining import check_stain
from hemalum.models.engines.engine import Engine
from hemalum.models.model import Model
from hemalum.nuclei.filters import NucleusFilter, as_filter
from hemalum.nuclei.ihc_score import Positive
from hemalum.nuclei.nuclei import Nuclei
from hemalum.nuclei.store import EXPORTS
from hemalum.slides import find_roi
from hemalum.slides.artifacts import Artifacts

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class FileResult:
    """What became of one image: its nuclei and the files written by format, or the error in one line."""

    path: Path
    nuclei: Nuclei | None = None
    error: str | None = None
    files: dict[str, Path] = field(default_factory=dict)
    seconds: float = 0.0


def segment_paths(  # noqa: PLR0913 (the verb's options)
    paths: Iterable[Path | str],
    out: Path | str,
    formats: Sequence[str],
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
    roi: str | None = None,
    exclude: str | None = None,
    keep_artifacts: bool = False,
    on_progress: Callable[[Path, float], None] | None = None,
) -> Iterator[FileResult]:
    """Segment images and folders of images; write `OUT/STEM.geojson` and so on; give one result per image.

    Each image is held in memory; whole slides are for `segment_slides`, and refused.
    An image that cannot be segmented gives a result with `error`, and the others go on. `on_progress` is called
    with the image and the share of it that is done. The rest is as for `segment`; FORMATS names the formats.

    Raises HemalumError before the first image when a format, the model or the engine is unknown, a path does
    not exist, two images would write the same files, or OUT cannot be written; and later when a file cannot
    be written.
    """
    out = Path(out)
    chosen = list(dict.fromkeys(formats))
    for name in chosen:
        if name in EXPORTS and name not in FORMATS:
            raise HemalumError(f"format {name} is for whole slides; for images there are {', '.join(FORMATS)}")
        if name not in FORMATS:
            raise HemalumError(f"unknown format '{name}'{nearest(name, FORMATS)}")
    if not chosen:
        raise HemalumError(f"no format is given; known: {', '.join(FORMATS)}")
    images = find_images(paths, out)
    check_names(stems_of(images), out)
    mpp = check_mpp(mpp)
    stain = check_stain(stain, positive)
    keep = as_filter(keep)
    loaded = load_for_organ(model, organ, recall)
    check_folder(out)
    runner = as_engine(engine, loaded, device=device, threads=threads, precision=precision, tta=tta, shifts=shifts)

    def results() -> Iterator[FileResult]:
        scale_check = ScaleCheck()
        for path in images:
            start = time.perf_counter()
            on_share = None if on_progress is None else lambda share, path=path: on_progress(path, share)
            with ExitStack() as opened:
                try:
                    source = opened.enter_context(open_image(path, mpp, max_pixels))
                    if source.is_whole_slide:
                        raise HemalumError(f"{path}: a whole slide, not an image: segment_slides is for it")
                    seen: list[Artifacts] = []
                    nuclei = segment_source(
                        source, loaded, runner, mpp=mpp, stain=stain, positive=positive, keep=keep,
                        roi=find_roi(source.shape, roi, exclude), on_progress=on_share, scale_check=scale_check,
                        artifacts="keep" if keep_artifacts else "leave out", on_artifacts=seen.append,
                    )  # fmt: skip
                except HemalumError as error:
                    log.debug("%s failed", path, exc_info=True)
                    result = FileResult(path, error=str(error), seconds=time.perf_counter() - start)
                else:
                    # a blank field without a scale has no nuclei, and is not looked at for artifacts
                    pixels = seen[0].marked(source.rows, source.shape[0]) if seen else source.rows
                    files = write(nuclei, out / stem(path), chosen, pixels)
                    result = FileResult(path, nuclei, None, files, time.perf_counter() - start)
            yield result

    return results()


def write(
    nuclei: Nuclei,
    target: Path,
    formats: Sequence[str],
    pixels: NDArray[np.uint8] | Callable[[int, int], NDArray[np.uint8]] | None = None,
) -> dict[str, Path]:
    """Write nuclei in each format as `target` + its ending; overlay draws on `pixels`, or on what reads its rows.

    Raises HemalumError when a file cannot be written; nothing half-written stays.
    """
    writers: dict[str, Callable[[Path], Any]] = {
        "geojson": nuclei.to_geojson,
        "csv": nuclei.to_csv,
        "parquet": nuclei.to_parquet,
        "labels": nuclei.to_labels,
    }
    if pixels is not None:
        writers["overlay"] = lambda path: nuclei.to_overlay(path, pixels)
    files = {name: target.with_name(target.name + FORMATS[name]) for name in formats}
    for name, path in files.items():
        writers[name](path)
    return files
