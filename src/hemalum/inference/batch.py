"""Many images, one after the other, each to its own files."""

import hashlib
import json
import logging
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hemalum.data.pixels.channels import Channel, check_channel
from hemalum.errors import HemalumError, counted, nearest, one_line
from hemalum.inference.inputs import FORMATS, ImageInput, check_folder, find_images
from hemalum.inference.plausibility import ScaleCheck
from hemalum.inference.scale import Scale, check_mpp
from hemalum.inference.segment import as_engine, load_for_organ, open_image, segment_source
from hemalum.inference.series import estimate_series
from hemalum.inference.staining import check_stain
from hemalum.inference.summary import Finished, Row, Summary, image_row
from hemalum.models.engines.engine import Engine
from hemalum.models.model import Model
from hemalum.nuclei.filters import NucleusFilter, as_filter
from hemalum.nuclei.ihc_score import Positive
from hemalum.nuclei.nuclei import Nuclei
from hemalum.nuclei.store import EXPORTS, check_simplify
from hemalum.slides import Area, find_roi
from hemalum.slides.artifacts import Artifacts

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class FileResult:
    """What became of one image: its nuclei and the files written by format, or the error in one line.

    `name` is what its files are called, `row` its line of `OUT/summary.csv`. One that an earlier run finished is
    `kept`: it has files and row, but no nuclei. `described` is what `describe` gave of it, then or now.
    """

    path: Path
    nuclei: Nuclei | None = None
    error: str | None = None
    files: dict[str, Path] = field(default_factory=dict)
    seconds: float = 0.0
    name: str = ""
    row: Row = field(default_factory=dict)
    kept: bool = False
    described: dict[str, Any] | None = None


def segment_paths(  # noqa: PLR0913 (the verb's options)
    paths: Iterable[ImageInput | Path | str],
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
    roi: Area | None = None,
    exclude: Area | None = None,
    keep_artifacts: bool = False,
    simplify: float = 0.0,
    channel: Channel | None = None,
    recursive: bool = True,
    overwrite: bool = False,
    describe: Callable[[FileResult], dict[str, Any]] | None = None,
    on_progress: Callable[[Path, float], None] | None = None,
) -> Iterator[FileResult]:
    """Segment images and folders of images; write `OUT/STEM.geojson` and so on; give one result per image.

    Images of sub-folders, without `recursive` passed over, are laid out as they are: `OUT/FOLDER/STEM.geojson`. Each
    image is held in memory; whole slides are for `segment_slides`, and refused.

    An image that fails, for whatever reason, gives a result with `error`, and the others go on. `OUT/summary.csv` has
    a row for each image, and is written at the end, also of a run that is interrupted. An image that an earlier run
    finished by the same settings is not done again (`FileResult.kept`), unless with `overwrite`. `describe` gives
    what else the record keeps of an image, as JSON holds it; one recorded without is done again. `on_progress` is
    called with the image and the share of it that is done. With `mpp` "series" all images that do not say their scale
    get one estimate. Outlines in GeoJSON may be moved by up to `simplify` px to save points. The rest is as for
    `segment`; FORMATS names the formats.

    Raises HemalumError before the first image when a format, the model or the engine is unknown, a path does
    not exist, two images would write the same files, OUT cannot be written, or holds the results of an image by
    other settings; and at the end when the summary cannot be written.
    """
    out = Path(out)
    chosen = check_formats(formats)
    check_simplify(simplify, chosen)
    channel = check_channel(channel)
    images = find_images(paths, out, recursive=recursive)
    series = mpp == "series"
    mpp = None if series else check_mpp(mpp)
    stain = check_stain(stain, positive)
    limits = as_filter(keep)
    loaded = load_for_organ(model, organ, recall)
    check_folder(out)
    runner = as_engine(engine, loaded, device=device, threads=threads, precision=precision, tta=tta, shifts=shifts)
    summary = Summary(out)
    scale = (
        estimate_series(
            images, loaded, runner, stain, summary, max_pixels=max_pixels, channel=channel, overwrite=overwrite
        )
        if series
        else mpp
    )
    recorded = {"series": scale.mpp if isinstance(scale, Scale) else None} if series else mpp
    settings = {
        "model": loaded.digest, "organ": organ, "mpp": recorded, "stain": stain, "recall": recall,
        "positive": None if positive is None else str(positive), "engine": f"{runner.name} {runner.precision}",
        "tta": tta, "shifts": shifts, "filter": None if limits is None else limits.limits,
        "roi": digest_of(roi), "exclude": digest_of(exclude), "keep_artifacts": keep_artifacts,
        "simplify": simplify or None, "channel": channel,
    }  # fmt: skip
    options = {
        "mpp": scale, "stain": stain, "positive": positive, "keep": limits, "scale_check": ScaleCheck(),
        "artifacts": "keep" if keep_artifacts else "leave out",
    }  # fmt: skip
    batch = _Batch(
        out, chosen, loaded, runner, options, (roi, exclude), json.loads(json.dumps(settings)), max_pixels, describe,
        on_progress, summary,
    )  # fmt: skip
    if not overwrite:
        for image in images:
            batch.require_same(image)
    return batch.run(images, overwrite=overwrite)


@dataclass(frozen=True, slots=True)
class _Batch:
    """What all images of a run have in common."""

    out: Path
    formats: list[str]
    model: Model
    engine: Engine
    options: dict[str, Any]  # of `segment_source`
    areas: tuple[Any, Any]  # roi and exclude
    settings: dict[str, Any]  # as the record keeps them
    max_pixels: int | None
    describe: Callable[[FileResult], dict[str, Any]] | None
    on_progress: Callable[[Path, float], None] | None
    summary: Summary

    def run(self, images: Sequence[ImageInput], *, overwrite: bool) -> Iterator[FileResult]:
        """Segment one after the other; see `segment_paths`."""
        kept = 0
        try:
            for image in images:
                start = time.perf_counter()
                try:
                    result = (None if overwrite else self.kept(image)) or self.segment(image)
                except Exception as error:  # whatever one image comes to, the others go on
                    log.debug("%s failed", image.path, exc_info=True)
                    reason = failure(image.path, error)
                    self.summary.fail(image.image, image.name, "image", reason)
                    seconds = time.perf_counter() - start
                    result = FileResult(image.path, error=reason, seconds=seconds, name=image.name)
                kept += result.kept
                yield result
        finally:
            if kept:
                log.info("%s: %s of an earlier run kept; overwrite does them again", self.out, counted(kept, "image"))
            self.summary.write()

    def kept(self, image: ImageInput) -> FileResult | None:
        """The result of an earlier run, where the image is what it was and all is there that is wanted."""
        held = self.summary.finished.get(image.name)
        if held is None or not held.is_of(image.path) or (self.describe is not None and held.described is None):
            return None
        files = {name: self.out / held.files[name] for name in self.formats if name in held.files}
        if len(files) < len(self.formats) or not all(file.is_file() for file in files.values()):
            return None
        return FileResult(image.path, None, None, files, 0.0, image.name, held.row, True, held.described)

    def require_same(self, image: ImageInput) -> None:
        """Raise HemalumError where an image's results are there by other settings."""
        held = self.summary.finished.get(image.name)
        way_out = "choose another folder, or --overwrite"
        if held is None:
            return
        if held.path != str(image.path.resolve()) and Path(held.path).exists():
            raise HemalumError(
                f"{self.out / image.name}.*: results of another image are there, {held.path}: {way_out}"
            )
        if not held.is_of(image.path):
            return
        for name, here in self.settings.items():
            there = held.settings.get(name)
            if (
                name == "mpp"
                and isinstance(here, dict)
                and isinstance(there, dict)
                and None in (*here.values(), *there.values())
            ):
                continue  # where all images of a run say their scale, none has that of the series
            if there != here:
                raise HemalumError(
                    f"{self.out / image.name}.*: results by other settings are there ({name} is {_shown(there)} "
                    f"there, {_shown(here)} here): {way_out}"
                )

    def segment(self, image: ImageInput) -> FileResult:
        """Segment an image, write its files and its line of the record."""
        start = time.perf_counter()
        on_share = None if self.on_progress is None else partial(self.on_progress, image.path)
        with open_image(image.path, self.options["mpp"], self.max_pixels, self.settings["channel"]) as source:
            if source.is_whole_slide:
                raise HemalumError(f"{image.path}: a whole slide, not an image: segment_slides is for it")
            seen: list[Artifacts] = []
            nuclei = segment_source(
                source, self.model, self.engine, roi=find_roi(source.shape, *self.areas), on_progress=on_share,
                on_artifacts=seen.append, **self.options,
            )  # fmt: skip
            # a blank field without a scale has no nuclei, and is not looked at for artifacts
            pixels = seen[0].marked(source.rows, source.shape[0]) if seen else source.rows
            files = write(
                nuclei, self.out / image.name, self.formats, pixels, image=image.image,
                simplify=self.settings["simplify"] or 0.0,
            )  # fmt: skip
            row = image_row(image.image, image.name, nuclei, source, time.perf_counter() - start)
        result = FileResult(image.path, nuclei, None, files, time.perf_counter() - start, image.name, row)
        if self.describe is not None:
            result = replace(result, described=self.describe(result))
        relative = self._older_files(image) | {
            name: file.relative_to(self.out).as_posix() for name, file in files.items()
        }
        self.summary.add(
            Finished.now(
                image.name, image.path, settings=self.settings, files=relative, row=row, described=result.described
            )
        )
        return result

    def _older_files(self, image: ImageInput) -> dict[str, str]:
        """Files of an image in other formats, of the same run; those of another image or settings are removed."""
        held = self.summary.finished.get(image.name)
        if held is None:
            return {}
        if held.is_of(image.path) and held.settings == self.settings:
            return held.files
        for name, file in held.files.items():
            if name not in self.formats and (self.out / file).is_file():
                (self.out / file).unlink()
                log.info("%s: removed, as it is of an earlier state of the image or other settings", self.out / file)
        return {}


def check_formats(formats: Sequence[str]) -> list[str]:
    """The formats, each once. Raises HemalumError for none, and for one that is not for images."""
    chosen = list(dict.fromkeys([formats] if isinstance(formats, str) else formats))
    for name in chosen:
        if name in EXPORTS and name not in FORMATS:
            raise HemalumError(f"format {name} is for whole slides; for images there are {', '.join(FORMATS)}")
        if name not in FORMATS:
            raise HemalumError(f"unknown format '{name}'{nearest(name, FORMATS)}")
    if not chosen:
        raise HemalumError(f"no format is given; known: {', '.join(FORMATS)}")
    return chosen


def failure(path: Path, error: Exception) -> str:
    """Why an input failed, in one line; what nobody foresaw says its kind, and what shows more of it."""
    if isinstance(error, HemalumError):
        return str(error)
    if isinstance(error, OSError):
        return f"{path}: {error.strerror or error}"
    return f"{path}: {type(error).__name__}: {one_line(error)} (unforeseen: please report it, with --debug)"


def _shown(value: object) -> str:
    """A setting in an error line."""
    if isinstance(value, dict):
        return ", ".join(f"{name} {one:g}" for name, one in value.items())
    return f"{value:.16}…" if isinstance(value, str) and len(value) > 60 else str(value)


def digest_of(area: object) -> str | None:
    """What tells one region of interest from another: the text, and for a file what it holds."""
    if area is None or not isinstance(area, str | Path):
        return None if area is None else str(area)
    try:
        return f"{Path(area).name} {hashlib.sha256(Path(area).read_bytes()).hexdigest()[:16]}"
    except (OSError, ValueError):
        return str(area)


def write(
    nuclei: Nuclei,
    target: Path,
    formats: Sequence[str],
    pixels: NDArray[np.uint8] | Callable[[int, int], NDArray[np.uint8]] | None = None,
    *,
    image: str | None = None,
    simplify: float = 0.0,
) -> dict[str, Path]:
    """Write nuclei in each format as `target` + its ending; overlay draws on `pixels`, or on what reads its rows.

    `image` is what the tables call the image.

    Raises HemalumError when a file cannot be written; nothing half-written stays.
    """
    writers: dict[str, Callable[[Path], Any]] = {
        "geojson": partial(nuclei.to_geojson, simplify=simplify),
        "csv": partial(nuclei.to_csv, image=image),
        "parquet": partial(nuclei.to_parquet, image=image),
        "labels": nuclei.to_labels,
    }
    if pixels is not None:
        writers["overlay"] = lambda path: nuclei.to_overlay(path, pixels)
    files = {name: target.with_name(target.name + FORMATS[name]) for name in formats}
    for name, path in files.items():
        writers[name](path)
    return files
