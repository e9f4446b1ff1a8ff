"""`etis`, `colondb`, `clinicdb`, `kvasir`: polyps in colonoscopy, one binary mask for each frame.

    etis      SRC/ETIS-LaribPolypDB/1.tif           SRC/Ground Truth/p1.tif
    colondb   SRC/1.tiff (or .bmp)                  SRC/p1.tiff   (s1, c1, … are other masks)
    clinicdb  SRC/Original/1.tif                    SRC/Ground Truth/1.tif      [SRC/metadata.csv]
              SRC/PNG/Original/1.png                SRC/PNG/Ground Truth/1.png  (a mirror; TIF/ beside it)
    kvasir    SRC/images/cju….jpg                   SRC/masks/cju….jpg          SRC/kavsir_bboxes.json
    any       SRC/images/1.png                      SRC/masks/1.png             (as repackaged by several hosts)

Sources: Silva et al., IJCARS 9, 283 (2014); Bernal et al., Pattern Recognition 45, 3166 (2012); Bernal et al.,
Computerized Medical Imaging and Graphics 43, 99 (2015); Jha et al., MultiMedia Modeling 2020, 451.
"""

import logging
import re
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from hemalum.data.image import IMAGE_SUFFIXES, read_image
from hemalum.data.label_maps import components, same_size
from hemalum.data.label_pixels import read_label_map
from hemalum.data.readers.files import first_file, read_csv
from hemalum.data.readers.reader import Reader
from hemalum.data.sample import Sample
from hemalum.errors import HemalumError

log = logging.getLogger(__name__)

SEQUENCES = "metadata.csv"  # comes with a mirror of ClinicDB: columns frame_id and sequence_id among others


class Layout(NamedTuple):
    """Sub-folders of the frames and of their masks, and what a mask's name has before the frame's."""

    frames: str
    masks: str
    prefix: str = ""


REPACKAGED = Layout("images", "masks")
LAYOUTS = {
    "etis": (Layout("ETIS-LaribPolypDB", "Ground Truth", "p"), REPACKAGED),
    "colondb": (REPACKAGED, Layout("Original", "Ground Truth"), Layout(".", ".", "p")),
    "clinicdb": (
        Layout("Original", "Ground Truth"),
        Layout("PNG/Original", "PNG/Ground Truth"),
        Layout("TIF/Original", "TIF/Ground Truth"),
        REPACKAGED,
    ),
    "kvasir": (REPACKAGED,),
}


def read(name: str, path: Path | str, run: int = 0) -> Iterator[Sample]:
    """Yield the frames of the set `name` in the order of their numbers.

    `path` holds the folders, itself or up to two below. Frames of one video are numbered in a row: with `run`, so
    many consecutive numbers are one group, which keeps a video together unless it crosses into the next run.

    A mask is cut at half of its range (JPEG masks have values between); each 8-connected component is one
    object. The group is the video sequence where a metadata.csv says it, else the frame itself: the
    sets do not say which frames are of one video, which the log repeats.

    Raises HemalumError for missing folders or masks, unreadable files, sizes that do not fit, and frames
    that metadata.csv does not name.
    """
    root, layout = _find_layout(name, Path(path))
    frames = _frames(name, root / layout.frames, layout.prefix)
    sequences = _sequences(root)
    if run < 0 or (run and (sequences is not None or name == "kvasir")):
        reason = f"{root / SEQUENCES} says it" if sequences is not None else "its frames are not numbered"
        raise HemalumError(f"option run is {run}; " + ("want 1 or more" if run < 0 else f"leave it out: {reason}"))
    if run:
        log.warning("%s: a video that crosses from one run of %d frames to the next is in two groups", root, run)
    elif sequences is None and name != "kvasir":
        log.warning(
            "%s: the set does not say which frames are of one video, so each frame is a group of its own, and frames "
            "of one video may be on both sides of a split: give the option run=N for runs of N frames",
            root,
        )
    for file in frames:
        if sequences is not None and file.stem not in sequences:
            raise HemalumError(f"{root / SEQUENCES}: no row with frame_id {file.stem}; it tells the sequence")
        image = read_image(file)
        stem = root / layout.masks / f"{layout.prefix}{file.stem}"
        candidates = [Path(f"{stem}{suffix}") for suffix in (file.suffix, *IMAGE_SUFFIXES)]
        mask_file = first_file(*candidates, role=f"is the mask of {file}")
        yield Sample(
            image=image,
            instances=components(_mask(mask_file, image)),
            id=file.stem,
            group=_group(file.stem, sequences, run),
            organ="colon",
        )


def _group(frame: str, sequences: dict[str, str] | None, run: int) -> str:
    if sequences is not None:
        return f"sequence {sequences[frame]}"
    return f"run {(int(frame) - 1) // run + 1}" if run else ""


def _find_layout(name: str, path: Path) -> tuple[Path, Layout]:
    for below in ("", "*/", "*/*/"):
        roots = sorted(folder for folder in path.glob(below)) if below else [path]
        for layout in LAYOUTS[name]:
            for root in roots:
                if _holds(root, layout):
                    return root, layout
    wanted = "; or ".join(f"{layout.frames}/ and {layout.masks}/{layout.prefix}*" for layout in LAYOUTS[name])
    raise HemalumError(f"{path}: no frames with masks of {name}; want {wanted}")


def _holds(root: Path, layout: Layout) -> bool:
    if not ((root / layout.frames).is_dir() and (root / layout.masks).is_dir()):
        return False
    # frames and masks in one folder: only the names tell
    return layout.frames != layout.masks or any(root.glob(f"{layout.prefix}[0-9]*.*"))


def _frames(name: str, folder: Path, prefix: str) -> list[Path]:
    files = [
        file
        for file in folder.iterdir()
        if file.is_file()
        and file.suffix.lower() in IMAGE_SUFFIXES
        and not file.name.startswith(".")
        and (not prefix or file.stem[0].isdigit())
    ]
    if not files:
        raise HemalumError(f"{folder}: no frames")
    files.sort(key=lambda file: [int(t) if t.isdigit() else t for t in re.split(r"(\d+)", file.stem)])
    for file in files:
        # repackaged, the four sets have the same folders: only the names tell Kvasir's from the others'
        if file.stem.isdigit() == (name == "kvasir"):
            usual = "named like cju0qkwl35piu0993l0dewei2" if name == "kvasir" else "numbered"
            raise HemalumError(f"{file}: no frame of {name}, whose frames are {usual}")
    return files


def _mask(file: Path, image: NDArray[np.uint8]) -> NDArray[np.bool_]:
    lossy = file.suffix.lower() in (".jpg", ".jpeg")
    values = read_image(file).mean(axis=2) if lossy else read_label_map(file)
    same_size(file, values, image, "mask is {}, its frame {}")
    if values.max() > 255:
        raise HemalumError(f"{file}: mask has values up to {values.max():g}; want 0 to 255, or 0 and 1")
    mask: NDArray[np.bool_] = values > (0.5 if values.max() <= 1 else 127.5)
    return mask


def _sequences(root: Path) -> dict[str, str] | None:
    """Sequence by frame from metadata.csv, None where there is none."""
    file = root / SEQUENCES
    if not file.is_file():
        return None
    sequences = {}
    for where, row in read_csv(file, ("frame_id", "sequence_id")):
        if not row["frame_id"] or not row["sequence_id"]:
            raise HemalumError(f"{where}: frame_id or sequence_id is empty")
        sequences[row["frame_id"]] = row["sequence_id"]
    return sequences


READERS = {
    "etis": Reader(
        title="ETIS-LaribPolypDB, polyps in colonoscopy, binary",
        read=partial(read, "etis"),
        group="image: its videos are not told apart",
        license="research use (no license stated)",
        citation="Silva et al., Toward embedded detection of polyps in WCE images for early diagnosis of colorectal "
        "cancer, Int. J. Computer Assisted Radiology and Surgery 9, 283-293 (2014), doi:10.1007/s11548-013-0926-3",
        url="https://polyp.grand-challenge.org/EtisLarib/",
        size="196 frames of 1225 x 966 px",
        markers=("ETIS-LaribPolypDB/*.tif", "*/ETIS-LaribPolypDB/*.tif", "ETIS-LaribPolypDB/images"),
    ),
    "colondb": Reader(
        title="CVC-ColonDB, polyps in colonoscopy, binary",
        read=partial(read, "colondb"),
        group="image: its videos are not told apart",
        license="research use (no license stated)",
        citation="Bernal et al., Towards automatic polyp detection with a polyp appearance model, Pattern "
        "Recognition 45, 3166-3182 (2012), doi:10.1016/j.patcog.2012.03.002",
        url="https://mv.cvc.uab.es/projects/colon-qa/cvccolondb",
        size="300 frames of 15 videos (380 as repackaged), 574 x 500 px",
        markers=("p[0-9]*.tiff", "p[0-9]*.bmp", "*/p[0-9]*.tiff", "*/p[0-9]*.bmp", "CVC-ColonDB/images"),
    ),
    "clinicdb": Reader(
        title="CVC-ClinicDB, polyps in colonoscopy, binary",
        read=partial(read, "clinicdb"),
        group="video where a metadata.csv says it, else image",
        license="research use (no license stated)",
        citation="Bernal et al., WM-DOVA maps for accurate polyp highlighting in colonoscopy, Computerized Medical "
        "Imaging and Graphics 43, 99-111 (2015), doi:10.1016/j.compmedimag.2015.02.007",
        url="https://polyp.grand-challenge.org/CVCClinicDB/",
        size="612 frames of 384 x 288 px",
        markers=("Original/[0-9]*", "*/Original/[0-9]*", "CVC-ClinicDB/images"),
    ),
    "kvasir": Reader(
        title="Kvasir-SEG, polyps in colonoscopy, binary",
        read=partial(read, "kvasir"),
        group="image",
        license="research and education (stated by its authors)",
        citation="Jha et al., Kvasir-SEG: a segmented polyp dataset, MultiMedia Modeling, 451-462 (2020), "
        "doi:10.1007/978-3-030-37734-2_37",
        url="https://datasets.simula.no/kvasir-seg/",
        size="1,000 frames of 332 x 487 to 1920 x 1072 px",
        markers=("kavsir_bboxes.json", "*/kavsir_bboxes.json", "images/cju*.jpg", "*/images/cju*.jpg"),
    ),
}
