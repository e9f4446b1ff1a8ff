"""`ihc-pairs`: H&E sections with labels derived from IHC sections of the same place (UHS-MelHist-like).

    SRC/he/a.png   SRC/ihc/a.png   [SRC/index.csv]   [SRC/landmarks.csv]

The index has columns `he` and `ihc` (paths from SRC, or from SRC/he and SRC/ihc) and may have id, patient (or
group), organ, mpp and ihc_mpp. landmarks.csv has columns id, he_x, he_y, ihc_x, ihc_y in px of each image.
The IHC section is registered to the H&E, what its chromogen stained becomes the mask (hemalum.data.ihc).
"""

import csv
import logging
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from hemalum.data.ihc.chromogen import Chromogen
from hemalum.data.ihc.derive import MIN_AREA_UM2, MIN_QUALITY, DerivedLabels, Settings, derive
from hemalum.data.ihc.picture import write_picture
from hemalum.data.ihc.registration import Level, load_simpleitk
from hemalum.data.image import read_image
from hemalum.data.readers.files import find_index, find_listed, images_by_stem, safe_name, stated_mpp
from hemalum.data.readers.reader import Reader
from hemalum.data.sample import Sample
from hemalum.errors import HemalumError, near_misses
from hemalum.tables import TableRow, as_posix, read_table

log = logging.getLogger(__name__)

MAX_RATIO = 8.0  # between the scales of two sections; more is a slip of the pen
AXES = ("he_x", "he_y", "ihc_x", "ihc_y")
LANDMARK_COLUMNS = (
    "landmarks",
    "landmark_count",
    "landmark_median_um",
    "landmark_mean_um",
    "landmark_p95_um",
    "landmark_median_px",
)
Landmarks = tuple[NDArray[np.float64], NDArray[np.float64]]


@dataclass(frozen=True, slots=True)
class IhcPair:
    """An H&E file, its IHC file, and what the index says of them."""

    he: Path
    ihc: Path
    id: str
    group: str
    organ: str | None = None
    mpp: float | None = None
    ihc_mpp: float | None = None


def read(  # noqa: PLR0913 (the format's options)
    path: Path | str,
    *,
    images: str = "he",
    labels: str = "ihc",
    index: str | None = None,
    landmarks: str | None = None,
    chromogen: Chromogen = "dab",
    registration: Level = "bspline",
    min_quality: float = MIN_QUALITY,
    min_area_um2: float = MIN_AREA_UM2,
    split_nuclei: bool = True,
    mpp: float | None = None,
    report_folder: Path | None = None,
) -> Iterator[Sample]:
    """Yield the H&E sections whose IHC section fits; the labels hold the nuclei that the chromogen stained.

    `images` and `labels` name the sub-folders of the H&E and IHC sections, `index` and `landmarks` the CSV files
    (by default index.csv and landmarks.csv where they exist). Pixels that the IHC section does not reach are
    `ambiguous`. `mpp` stands for pairs of which the index says nothing. quality.csv and pairs/<id>.png are written
    to `report_folder`. A pair below `min_quality` is left out and named at the end.

    Raises HemalumError for missing partners, unreadable files and bad numbers, when no pair fits, and when
    SimpleITK is not installed.
    """
    path = Path(path)
    settings = Settings(chromogen, registration, min_quality, min_area_um2, split_nuclei)
    pairs = find_pairs(path, he=images, ihc=labels, index=index)
    load_simpleitk()
    landmarks_file = path / (landmarks or "landmarks.csv")
    points = read_landmarks(landmarks_file, pairs) if landmarks is not None or landmarks_file.is_file() else {}
    rows: list[dict[str, object]] = []
    refused: list[str] = []
    for pair in pairs:
        scale = pair.mpp or mpp
        if scale is None:
            raise HemalumError(f"{pair.he}: its scale is not known; give --mpp, or a column mpp in the index")
        he, ihc = read_image(pair.he), read_image(pair.ihc)
        derived = derive(he, ihc, mpp=scale, ihc_mpp=pair.ihc_mpp, settings=settings, landmarks=points.get(pair.id))
        rows.append(_row(pair, derived, scale))
        if report_folder is not None:
            write_picture(report_folder / "pairs" / f"{pair.id}.png", he, ihc, derived, pair.id)
        if derived.refused is not None:
            refused.append(f"{pair.id}: {derived.refused}")
            continue
        yield Sample(
            image=he,
            instances=derived.instances,
            id=pair.id,
            group=pair.group,
            organ=pair.organ,
            stain="H&E",
            mpp=scale,
            mpp_source="user" if pair.mpp is None else "file",
            ambiguous=None if derived.covered.all() else ~derived.covered,
        )
    if len(refused) == len(pairs):
        raise HemalumError(f"{path}: none of the {len(pairs)} pairs fits; {'; '.join(refused[:3])}")
    if report_folder is not None:
        _write_scores(report_folder / "quality.csv", rows)
    if refused:
        log.warning("%s: %d of %d pairs refused: %s", path, len(refused), len(pairs), "; ".join(refused))


def _row(pair: IhcPair, derived: DerivedLabels, mpp: float) -> dict[str, object]:
    """One line of quality.csv."""
    quality, error = derived.quality, derived.landmarks
    landmarks: dict[str, object] = dict.fromkeys(LANDMARK_COLUMNS, "")
    if error is not None:
        landmarks = {
            "landmarks": "from file" if error.source == "landmarks" else "matched patches",
            "landmark_count": error.count,
            "landmark_median_um": f"{error.median:.3f}",
            "landmark_mean_um": f"{error.mean:.3f}",
            "landmark_p95_um": f"{error.p95:.3f}",
            "landmark_median_px": f"{error.median / mpp:.2f}",
        }
    return {
        "id": pair.id,
        "imported": "no" if derived.refused else "yes",
        "quality": f"{quality.score:.3f}",
        "overlap": f"{quality.overlap:.3f}",
        "coverage": f"{quality.coverage:.3f}",
        "correlation": f"{quality.correlation:.3f}",
        "clarity": f"{quality.clarity:.3f}",
        "registration": derived.level,
        **landmarks,
        "threshold": f"{derived.threshold:.3f}",
        "positive_share": f"{derived.positive:.4f}",
        "nuclei": int(derived.instances.max()),
        "reason": derived.refused or "",
    }


def _write_scores(path: Path, rows: list[dict[str, object]]) -> None:
    with path.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.DictWriter(stream, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def find_pairs(path: Path, *, he: str = "he", ihc: str = "ihc", index: str | None = None) -> list[IhcPair]:
    """The pairs of a folder in the order of the index, or of their names; never empty.

    Raises HemalumError, naming file or row, for missing folders, partners or columns and numbers out of range.
    """
    listed = find_index(path, index)
    pairs = list(_from_index(path, listed, he, ihc) if listed else _by_stem(path, he, ihc))
    if not pairs:
        raise HemalumError(f"{listed or path / he}: no pairs")
    for name, count in Counter(pair.id for pair in pairs).items():
        if count > 1:
            raise HemalumError(f"{path}: the id {name!r} occurs {count} times; name the pairs apart")
    return pairs


def read_landmarks(path: Path, pairs: list[IhcPair]) -> dict[str, Landmarks]:
    """Points by pair id, each two (N, 2) float64 of x, y in px (H&E, IHC). Raises HemalumError naming the row."""
    known = {pair.id for pair in pairs}
    rows_by_id: dict[str, list[list[float]]] = defaultdict(list)
    for row in read_table(path, ("id", *AXES), f"; want id,{','.join(AXES)}"):
        name = safe_name(row["id"])
        if name not in known:
            raise HemalumError(f"{row.where}: no pair has the id {row['id']!r}{near_misses(name, known)}")
        rows_by_id[name].append([_coordinate(row, axis) for axis in AXES])
    arrays = {name: np.array(points, np.float64) for name, points in rows_by_id.items()}
    return {name: (points[:, :2], points[:, 2:]) for name, points in arrays.items()}


def _by_stem(path: Path, he: str, ihc: str) -> Iterator[IhcPair]:
    sections: list[dict[str, Path]] = []
    for folder in (path / he, path / ihc):
        if not folder.is_dir():
            raise HemalumError(f"{folder}: no such folder; want {he}/ and {ihc}/, or an index.csv with he,ihc")
        files, faults = images_by_stem(folder)
        if faults:
            raise faults[0]
        sections.append(files)
    for mine, other, folder in ((sections[0], sections[1], path / ihc), (sections[1], sections[0], path / he)):
        alone = sorted(set(mine) - set(other))
        if alone:
            raise HemalumError(f"{mine[alone[0]]}: its partner {alone[0]}.* is missing in {folder}")
    for stem, file in sections[0].items():
        yield IhcPair(file, sections[1][stem], safe_name(stem), safe_name(stem))


def _from_index(path: Path, listed: Path, he: str, ihc: str) -> Iterator[IhcPair]:
    for row in read_table(listed, ("he", "ihc"), "; want he,ihc"):
        where = row.where
        files = find_listed(path, he, row, "he", where), find_listed(path, ihc, row, "ihc", where)
        name = safe_name(row.get("id") or Path(as_posix(row["he"])).stem)
        mpp, ihc_mpp = stated_mpp(row), stated_mpp(row, "ihc_mpp")
        if ihc_mpp is not None and mpp is None:
            raise HemalumError(f"{where}: ihc_mpp is given without mpp; give both")
        if mpp is not None and ihc_mpp is not None and not 1 / MAX_RATIO <= ihc_mpp / mpp <= MAX_RATIO:
            raise HemalumError(f"{where}: mpp {mpp:g} and ihc_mpp {ihc_mpp:g} differ more than {MAX_RATIO:g} times")
        group = row.get("patient") or row.get("group") or name
        yield IhcPair(*files, name, group, row.get("organ") or None, mpp, ihc_mpp)


def _coordinate(row: TableRow, name: str) -> float:
    value = row.value(name)
    if value is None:
        raise HemalumError(f"{row.where}: {name} is {row[name]!r}, not a number")
    return value


READER: Reader = Reader(
    title="H&E sections with labels derived from IHC sections (UHS-MelHist-like); nuclei positive for the marker",
    read=read,
    group="patient, or the pair",
    license="yours; the labels are derived by registration, not drawn",
    markers=("ihc/*.png", "ihc/*.tif", "ihc/*.jpg"),
)
