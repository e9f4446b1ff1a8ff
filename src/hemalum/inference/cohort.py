"""A cohort: a table of slides, one a row, with what is known of each."""

from dataclasses import dataclass
from pathlib import Path

from hemalum.errors import HemalumError
from hemalum.inference.inputs import ImageInput, stem
from hemalum.inference.scale import check_mpp
from hemalum.inference.staining import read_stain
from hemalum.slides.roi import read_rectangle
from hemalum.tables import TableRow, listed_path, near_files, read_table

COLUMNS = ("path", "mpp", "organ", "stain", "roi", "name", "channel")


@dataclass(frozen=True, slots=True)
class SlideInput:
    """One slide to segment; what is None is as for all the others. `name` is what its results are called."""

    path: Path
    name: str
    mpp: float | None = None
    organ: str | None = None
    stain: str | None = None
    roi: str | None = None
    channel: str | None = None

    @property
    def image(self) -> str:
        """What tables call it: its file, below the folder of its results."""
        return ImageInput(self.path, self.name).image

    @classmethod
    def of(cls, slide: "SlideInput | ImageInput | Path | str") -> "SlideInput":
        """A slide of which nothing else is known, if it is none yet."""
        if isinstance(slide, ImageInput):
            return cls(slide.path, slide.name)
        return slide if isinstance(slide, SlideInput) else cls(Path(slide), stem(slide))


def read_cohort(path: Path | str) -> list[SlideInput]:
    """Read a table of slides (CSV or .xlsx): `path`, and where wanted mpp, organ, stain, roi, name,
    channel.

    Paths of slides and of GeoJSON files with regions are relative to the table. A cell that is empty says nothing.

    Raises HemalumError, with the row, for a table that cannot be read, columns that are not known or missing, empty
    and missing paths, numbers that are none, and two slides whose results would have the same name.
    """
    path = Path(path)
    slides: list[SlideInput] = []
    numbers: dict[str, int] = {}
    wanted = f"; the first row names the columns: {', '.join(COLUMNS)}"
    for row in read_table(path, ("path",), wanted, known=COLUMNS):
        slide = _slide(row, path.parent, row.where)
        first = numbers.setdefault(slide.name.casefold(), row.number)
        if first != row.number:
            raise HemalumError(
                f"{path}, rows {first} and {row.number}: both would write {slide.name}.*; give one another name in "
                "the column name"
            )
        slides.append(slide)
    if not slides:
        raise HemalumError(f"{path}: names no slides")
    return slides


def _slide(row: TableRow, folder: Path, where: str) -> SlideInput:
    cells = {name: row[name] for name in COLUMNS if row.get(name)}
    if "path" not in cells:
        raise HemalumError(f"{where}: path is empty")
    path = listed_path(folder, cells["path"])
    if path is None:
        missing = folder / cells["path"]
        raise HemalumError(f"{where}: {missing}: no such file or folder{near_files([missing.parent], cells['path'])}")
    name = cells.get("name") or stem(path)
    if Path(name).name != name or name.startswith("."):
        raise HemalumError(f"{where}: name '{name}': want a name for files, without a folder or a leading dot")
    stain = cells.get("stain")
    if stain is not None:
        try:
            stain = read_stain(stain)
        except HemalumError as error:
            raise HemalumError(f"{where}: {error}") from None
    roi = cells.get("roi")
    if roi is not None and "," in roi:
        try:
            read_rectangle(roi)
        except HemalumError as error:
            raise HemalumError(f"{where}: {error}") from None
    elif roi is not None:
        outlines = listed_path(folder, roi)
        if outlines is None or not outlines.is_file():
            raise HemalumError(f"{where}: roi '{folder / roi}': no such file")
        roi = str(outlines)
    return SlideInput(path, name, _mpp(row, where), cells.get("organ"), stain, roi, cells.get("channel"))


def _mpp(row: TableRow, where: str) -> float | None:
    try:
        mpp = row.value("mpp")
    except HemalumError:
        raise HemalumError(f"{where}: mpp '{row['mpp']}': want a number, µm per pixel") from None
    if mpp is None:
        return None
    try:
        check_mpp(mpp)
    except HemalumError as error:
        raise HemalumError(f"{where}: {error}") from None
    return mpp
