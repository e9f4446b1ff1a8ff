"""The one-page summary: a single HTML file that works offline, with pictures and figures inside it."""

import os
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import numpy as np
from markupsafe import Markup
from numpy.typing import NDArray
from PIL import Image

from hemalum import __version__
from hemalum.data.stain.recognition import STAIN_TITLES
from hemalum.errors import HemalumError
from hemalum.files import write_text
from hemalum.inference.batch import FileResult
from hemalum.inference.plan import IN_ARTIFACTS
from hemalum.inference.summary import Row
from hemalum.models.card import Card
from hemalum.nuclei.filters import FILTERED, filter_text
from hemalum.nuclei.io import small_picture
from hemalum.nuclei.io.colors import Color
from hemalum.reports.files import data_uri, render
from hemalum.reports.numbers import number_text
from hemalum.reports.segmentation.histogram import histogram_svg
from hemalum.slides import describe_artifacts

if TYPE_CHECKING:
    import pyarrow

    from hemalum.nuclei.nuclei import Nuclei

PAGE_BYTES = 30_000_000  # that a mail or a browser still takes
FRAME_BYTES = 500  # of a picture's caption and tags
PICTURE_SIDE = 1400  # px, at most
PICTURE_BYTES = 15_000  # some 200 px of tissue: where there is room for less, only the first images have one
SCALE_TEXTS = {
    "file": "from the file",
    "user": "given by the user",
    "estimate": "estimated from the nuclei",
    "none": "unknown: nothing in µm can be said",
}
_UNITS = {"um2": "µm²", "um": "µm", "px2": "px²", "px": "px"}
# an orientation has no mean on a line: 1° and 179° are neighbors
_NOT_MEASURED = {"id", "x", "y", "orientation"}
_LABELS = {
    "hematoxylin_mean": "Hematoxylin, mean (OD)",
    "hematoxylin_std": "Hematoxylin, spread (OD)",
    "dab_mean": "DAB, mean (OD)",
    "dab_std": "DAB, spread (OD)",
    "dab_ring_mean": "DAB around the nucleus, mean (OD)",
}
_HISTOGRAMS = ("area", "circularity", "hematoxylin_mean", "dab_mean")


class SummaryPage:
    """The page in the making: results are added as they come, and only what the page shows of them is kept.

    Pictures share what room is left in 30 MB, each no larger than 1400 px on the longer side: 500 images have one
    each. Of more than about a thousand only the first have one.
    """

    def __init__(
        self, path: Path | str, *, card: Card | None = None, command: str = "", title: str = "Nuclei"
    ) -> None:
        self.path = Path(path)
        self.card, self.command, self.title = card, command, title
        self.images: list[dict[str, Any]] = []
        self.overlays: list[Path | None] = []
        self.failed: list[tuple[str, str]] = []

    def add(self, result: FileResult) -> None:
        """Add one image, segmented or not."""
        if result.row or result.nuclei is not None:
            shown = result.described or self.describe(result)
            self.images.append(shown | {"histograms": [Markup(one) for one in shown["histograms"]]})
            self.overlays.append(result.files.get("overlay"))
        else:
            reason = result.error or "no result"
            self.failed.append((str(result.path), reason.removeprefix(f"{result.path}: ")))

    def describe(self, result: FileResult) -> dict[str, Any]:
        """What the page shows of a segmented image, as JSON holds it."""
        if result.nuclei is None:
            raise HemalumError(f"{result.path}: has no nuclei to show")
        return _image(result, result.nuclei, self.path.parent)

    def write(self) -> None:
        """Write the page, atomically. Raises HemalumError when it cannot be written."""
        self._add_pictures(PAGE_BYTES - len(self._render().encode()))
        write_text(self.path, self._render())

    def _add_pictures(self, room: int) -> None:
        """Put pictures of no more than so many bytes in all into the page."""
        shown = [(image, path) for image, path in zip(self.images, self.overlays, strict=True) if path is not None]
        fitting = min(len(shown), max(0, room) // PICTURE_BYTES)
        for image, path in shown[:fitting]:
            image |= _embed(path, room // fitting - FRAME_BYTES)
        for image, _ in shown[fitting:]:
            image["picture_caption"] = f"The page has room for {fitting} pictures; the overlay is a file."

    def _render(self) -> str:
        return render(
            "segmentation/page.html.j2",
            title=self.title,
            made=datetime.now().astimezone().strftime("%Y-%m-%d %H:%M"),
            version=__version__,
            card=self.card,
            command=self.command,
            failed=self.failed,
            images=self.images,
            any_estimate=any(image["estimated"] for image in self.images),
            scale_doubts=[(image["name"], image["scale_doubt"]) for image in self.images if image["scale_doubt"]],
            doubts=[(image["name"], image["stain_doubt"]) for image in self.images if image["stain_doubt"]],
            class_doubts=[image["class_doubt"] for image in self.images if image["class_doubt"]],
        )


def statistics(table: "pyarrow.Table") -> list[tuple[str, ...]]:
    """Median, mean, standard deviation, 5th and 95th percentile of each measured column, as text.

    A length or area is given once: in µm where the table has it, in pixels otherwise.
    """
    rows = []
    for name in measured_columns(table):
        values = _values(table, name)
        figures = [np.median(values), values.mean(), values.std(), *np.percentile(values, [5, 95])]
        rows.append((column_label(name), *(f"{figure:.4g}" for figure in figures)))
    return rows


def measured_columns(table: "pyarrow.Table") -> list[str]:
    """Names of the columns with a measurement, without those in px that are also there in µm."""
    names = [
        name
        for name in table.column_names
        if name not in _NOT_MEASURED and _is_number(table.column(name).type) and len(_values(table, name))
    ]
    in_microns = {stem for name in names for stem, unit in [_unit(name)] if unit.startswith("µm")}
    return [name for name in names if not (_unit(name)[1].startswith("px") and _unit(name)[0] in in_microns)]


def column_label(name: str) -> str:
    """A column's name as a reader wants it: `area_um2` → `Area (µm²)`, `area_px` → `Area (px)`."""
    if name in _LABELS:
        return _LABELS[name]
    stem, unit = _unit(name)
    words = stem.replace("_", " ")
    return words[:1].upper() + words[1:] + (f" ({unit})" if unit else "")


def _unit(name: str) -> tuple[str, str]:
    stem, _, last = name.rpartition("_")
    return (stem, _UNITS[last]) if stem and last in _UNITS else (name, "")


def _is_number(kind: Any) -> bool:
    import pyarrow

    return bool(pyarrow.types.is_floating(kind) or pyarrow.types.is_integer(kind))


def _values(table: "pyarrow.Table", name: str) -> NDArray[np.float64]:
    column = table.column(name).drop_null()
    values: NDArray[np.float64] = np.asarray(column.to_numpy(), dtype=np.float64)
    finite: NDArray[np.float64] = values[np.isfinite(values)]
    return finite


def _image(result: FileResult, nuclei: "Nuclei", folder: Path) -> dict[str, Any]:
    height, width = nuclei.shape
    columns = {_unit(name)[0]: name for name in measured_columns(nuclei.table)}
    return {
        "name": result.row.get("image", result.path.name),
        "count": f"{nuclei.count:,}",
        "density": density_text(nuclei),
        "of_tissue": _of_tissue(result.row),
        "mpp": number_text(nuclei.mpp),
        "mpp_source": nuclei.mpp_source,
        "mpp_text": scale_text(nuclei.mpp_source, nuclei.notes.get("scale_doubt")),
        "scale_doubt": nuclei.notes.get("scale_doubt", ""),
        "estimated": nuclei.mpp_source == "estimate",
        "size": f"{width:,} × {height:,} px",
        "area": "" if nuclei.area_mm2 is None else f"{nuclei.area_mm2:.4g} mm²",
        "filter": filter_text(nuclei.notes.get("filter", {})),
        "left_out": f"{nuclei.notes.get(FILTERED, 0):,}",
        "roi": nuclei.notes.get("roi", ""),
        "seconds": f"{result.seconds:.1f}",
        "stain": stain_text(nuclei, doubt=False),
        "stain_doubt": nuclei.notes.get("stain_doubt", ""),
        "class_doubt": nuclei.notes.get("class_doubt", ""),
        "artifacts": describe_artifacts(nuclei.notes),
        "in_artifacts": f"{nuclei.notes.get(IN_ARTIFACTS, 0):,}",
        "recall": nuclei.notes.get("threshold", ""),
        "classes": by_class(nuclei),
        "scores": score_texts(nuclei),
        "grades": by_grade(nuclei),
        "thresholds": thresholds_text(nuclei),
        "histograms": [
            histogram_svg(_values(nuclei.table, columns[stem]), column_label(columns[stem]))
            for stem in _HISTOGRAMS
            if stem in columns
        ],
        "statistics": statistics(nuclei.table),
        "files": [(file.name, _link(file, folder)) for file in result.files.values()],
        "picture": "",
        "picture_caption": "",
    }


def _of_tissue(row: Row) -> str:
    """Nuclei per mm² of tissue, where that is less than what was looked at."""
    tissue, area = row.get("tissue_mm2"), row.get("area_mm2")
    return f"{row['nuclei_per_mm2_tissue']:,.0f} per mm²" if tissue and area and tissue < 0.99 * area else ""


def density_text(nuclei: "Nuclei") -> str:
    """Nuclei per mm² as text, `unknown` without a scale; whether it is an estimate is said beside it."""
    density = nuclei.density_per_mm2
    return "unknown" if density is None or not np.isfinite(density) else f"{density:,.0f}"


def scale_text(source: str, doubt: str | None = None) -> str:
    """Where a scale is from, and whether there is a doubt."""
    return SCALE_TEXTS.get(source, source) + (", doubtful" if doubt else "")


def by_class(nuclei: "Nuclei") -> list[dict[str, str]]:
    """Name, color, count, share and density of each class as text; none where the model tells none apart."""
    if nuclei.classes is None:
        return []
    area = nuclei.area_mm2
    return [
        {
            "name": name,
            "color": _hex(color),
            "count": f"{count:,}",
            "share": f"{100 * count / nuclei.count:.1f} %" if nuclei.count else "–",
            "density": f"{count / area:,.0f}" if area else "unknown",
        }
        for color, (name, count) in zip(nuclei.classes.colors, nuclei.classes.counts.items(), strict=True)
    ]


def stain_text(nuclei: "Nuclei", *, doubt: bool = True) -> str:
    """The stain, where that is from and, with `doubt`, what speaks against it; empty where nothing is known of it."""
    name = nuclei.notes.get("stain")
    if name is None:
        return ""
    doubted = nuclei.notes.get("stain_doubt") if doubt else None
    return f"{STAIN_TITLES[name]}, {nuclei.notes['stain_source']}" + (f", but {doubted}" if doubted else "")


def score_texts(nuclei: "Nuclei", class_name: str | None = None) -> dict[str, str]:
    """Scores of graded nuclei by name, as text: positive share, with three thresholds H-score and Allred."""
    if not nuclei.thresholds:
        return {}
    score = nuclei.ihc_score(class_name)
    texts = {"positive": "–" if score.positive_share is None else f"{100 * score.positive_share:.1f} %"}
    if len(nuclei.thresholds) > 1:
        texts["H-score"] = "–" if score.h_score is None else f"{score.h_score:.0f}"
        texts["Allred"] = "–" if score.allred is None else str(score.allred)
    return texts


def thresholds_text(nuclei: "Nuclei") -> str:
    """The thresholds that nuclei were graded by, and where they come from."""
    values = ", ".join(f"{value:g}" for value in nuclei.thresholds)
    return f"{values} ({nuclei.notes.get('positive_source', 'set')})" if values else ""


def by_grade(nuclei: "Nuclei") -> dict[str, Any]:
    """Graded nuclei: `grades` with name and color, `rows` for all and for each class with counts and scores."""
    intensities = nuclei.intensities
    if intensities is None:
        return {}
    rows = []
    for name in (None, *nuclei.class_names):
        counts = [f"{count:,}" for count in nuclei.ihc_score(name).counts.values()]
        rows.append((name or "all", [*counts, *score_texts(nuclei, name).values()]))
    return {
        "grades": [{"name": n, "color": _hex(c)} for n, c in zip(intensities.names, intensities.colors, strict=True)],
        "scores": ["Positive share", *list(score_texts(nuclei))[1:]],
        "rows": rows,
    }


def _hex(color: Color) -> str:
    return "#{:02x}{:02x}{:02x}".format(*color)


def _link(file: Path, folder: Path) -> str:
    """Link relative to the page, so that the folder can be moved; empty on another drive."""
    try:
        return quote(os.fsencode(Path(os.path.relpath(file, folder)).as_posix()))
    except ValueError:
        return ""


def _embed(picture: Path, most: int) -> dict[str, Any]:
    """A picture as the page has it, in no more than `most` bytes."""
    try:
        image, full = small_picture(picture, PICTURE_SIDE)
        while len(data := data_uri(image, "jpeg", quality=88, subsampling=0)) > most and max(image.size) > 1:
            side = int(max(image.size) * min(0.9, (most / len(data)) ** 0.5))
            image.thumbnail((max(1, side), max(1, side)), Image.Resampling.LANCZOS)
    except (OSError, ValueError, Image.DecompressionBombError) as error:
        return {"picture_caption": f"The picture could not be put into this page: {error}"}
    width, height = image.size
    caption = "Outlines as segmented."
    if image.size != full:
        caption += f" Shown at {width} × {height} px, shrunk from {full[0]:,} × {full[1]:,}."
    return {"picture": data, "picture_width": width, "picture_height": height, "picture_caption": caption}
