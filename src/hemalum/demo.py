"""The demonstration: a real image that comes with scikit-image, segmented with the shipped model."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from hemalum.errors import HemalumError
from hemalum.files import atomic_path
from hemalum.inference.batch import FileResult, segment_paths
from hemalum.inference.staining import check_stain
from hemalum.models.model import load_model
from hemalum.nuclei.nuclei import Nuclei
from hemalum.reports.segmentation.batch import Batch, collect
from hemalum.reports.segmentation.page import SummaryPage

NAME = "immunohistochemistry.png"
FORMATS = ("geojson", "csv", "overlay")
POSITIVE = 0.2  # optical density of DAB


@dataclass(frozen=True, slots=True)
class Demo:
    """What the demonstration gave: the nuclei, the seconds it took, and everything written."""

    nuclei: Nuclei
    seconds: float
    batch: Batch


def run_demo(
    out: Path | str,
    *,
    model: Path | str | None = None,
    stain: str = "hdab",
    engine: str = "auto",
    command: str = "hemalum demo",
    on_progress: Callable[[Path, float], None] | None = None,
) -> Demo:
    """Segment `skimage.data.immunohistochemistry()` and write outlines, GeoJSON, CSV and the page into `out`.

    The image (512 × 512, H and DAB, colon) is part of scikit-image's wheel: nothing is downloaded. It does not say
    its scale, so the scale is estimated, and everything in µm and per mm² is marked so. Nuclei are positive or
    negative by their DAB, unless `stain` is another one than "hdab" or "auto".

    Raises HemalumError when `out` cannot be written, no model is at hand, or the stain is unknown.
    """
    from skimage.data import immunohistochemistry

    out = Path(out)
    loaded = load_model(model)
    check_stain(stain)
    with atomic_path(out / NAME) as temporary:
        Image.fromarray(immunohistochemistry()).save(temporary, format="PNG")
    page = SummaryPage(out / "summary.html", card=loaded.card, command=command, title="hemalum demo")
    done: list[FileResult] = []
    positive = POSITIVE if stain in ("hdab", "auto") else None
    results = segment_paths(
        [out / NAME],
        out,
        FORMATS,
        loaded,
        stain=stain,
        positive=positive,
        engine=engine,
        overwrite=True,
        on_progress=on_progress,
    )
    batch = collect(results, page, done.append)
    (result,) = done
    if result.nuclei is None:
        raise HemalumError(result.error or "the demonstration image could not be segmented")
    return Demo(result.nuclei, result.seconds, batch)
