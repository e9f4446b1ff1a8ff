"""`ihc-pairs`: H&E sections with labels derived from IHC sections of the same place (UHS-MelHist-like).

    SRC/he/a.png   SRC/ihc/a.png   [SRC/index.csv: he,ihc,patient,organ,mpp,ihc_mpp]   [SRC/landmarks.csv]

The IHC section is registered to the H&E, what its chromogen stained becomes the mask (hemalum.data.ihc).
"""

import csv
import logging
from collections.abc import Iterator
from pathlib import Path

from hemalum.data.ihc.chromogen import Chromogen
from hemalum.data.ihc.derive import MIN_AREA_UM2, MIN_QUALITY, Derived, Settings, derive
from hemalum.data.ihc.pairs import IhcPair, find_pairs, read_landmarks
from hemalum.data.ihc.picture import write_picture
from hemalum.data.ihc.registration import Level, load_simpleitk
from hemalum.data.image import read_image
from hemalum.data.readers.reader import Reader
from hemalum.data.sample import Sample
from hemalum.errors import HemalumError

log = logging.getLogger(__name__)

COLUMNS = (
    "id",
    "imported",
    "quality",
    "overlap",
    "coverage",
    "correlation",
    "clarity",
    "registration",
    "landmarks",
    "landmark_count",
    "landmark_median_um",
    "landmark_mean_um",
    "landmark_p95_um",
    "landmark_median_px",
    "threshold",
    "positive_share",
    "nuclei",
    "reason",
)


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
            source=pair.id,
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


def _row(pair: IhcPair, derived: Derived, mpp: float) -> dict[str, object]:
    quality, error = derived.quality, derived.landmarks
    row: dict[str, object] = {
        "id": pair.id,
        "imported": "no" if derived.refused else "yes",
        "quality": f"{quality.score:.3f}",
        "overlap": f"{quality.overlap:.3f}",
        "coverage": f"{quality.coverage:.3f}",
        "correlation": f"{quality.correlation:.3f}",
        "clarity": f"{quality.clarity:.3f}",
        "registration": derived.level,
        "threshold": f"{derived.threshold:.3f}",
        "positive_share": f"{derived.positive:.4f}",
        "nuclei": int(derived.instances.max()),
        "reason": derived.refused or "",
    }
    if error is not None:
        row |= {
            "landmarks": "given" if error.source == "landmarks" else "matched patches",
            "landmark_count": error.count,
            "landmark_median_um": f"{error.median:.3f}",
            "landmark_mean_um": f"{error.mean:.3f}",
            "landmark_p95_um": f"{error.p95:.3f}",
            "landmark_median_px": f"{error.median / mpp:.2f}",
        }
    return row


def _write_scores(path: Path, rows: list[dict[str, object]]) -> None:
    with path.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.DictWriter(stream, COLUMNS, restval="", lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


READER = Reader(
    title="H&E sections with labels derived from IHC sections (UHS-MelHist-like); nuclei positive for the marker",
    read=read,
    group="patient, or the pair",
    license="yours; the labels are derived by registration, not drawn",
    markers=("ihc/*.png", "ihc/*.tif", "ihc/*.jpg"),
)
