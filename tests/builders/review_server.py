"""The server of a review as a program of its own: FOLDER PORT [REGIONS].

Of two small images or, with REGIONS, of a slide of that many by that many regions of 1024 px, 1,849 nuclei each.
"""

import sys
from pathlib import Path

import numpy as np
import tifffile

from builders.review_sessions import MPP, save_images
from builders.reviews import disk_model, open_session
from builders.stores import make_store
from hemalum.review.server import serve
from hemalum.slides import open_slide
from synthetic_nuclei import synthetic_run

REGION = 1024  # px
TILE = 512  # px
LEVELS = 4


def save_large_slide(folder: Path, regions: int) -> Path:
    """A tiled TIFF with its pyramid, of which all tiles are alike, and its store; gives the folder."""
    folder.mkdir()
    path, side = folder / "slide.tif", regions * REGION
    tile = np.full((TILE, TILE, 3), (226, 190, 214), np.uint8)
    tile[::64] = (200, 160, 190)
    with tifffile.TiffWriter(path) as file:
        for level in range(LEVELS):
            shape = (side >> level, side >> level, 3)
            file.write(
                (tile for _ in range((-(-shape[0] // TILE)) ** 2)), shape=shape, dtype=np.uint8, tile=(TILE, TILE),
                photometric="rgb", compression="jpeg", subfiletype=int(level > 0),
                resolution=(40_000 >> level, 40_000 >> level), resolutionunit="CENTIMETER",
            )  # fmt: skip
    with open_slide(path) as slide:
        fingerprint = slide.fingerprint
    facts = {"fingerprint": fingerprint, "source": path.name, "model": "disks", "model_digest": disk_model().digest}
    make_store(folder / "slide.nuclei", synthetic_run(regions, regions, REGION, class_names=(), **facts))
    return folder


def main() -> None:
    folder, port, regions = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
    source = folder / ("slides" if regions else "images")
    if not source.exists():
        _ = save_large_slide(source, regions) if regions else save_images(source)
    with open_session(source, folder / "review", mpp=None if regions else MPP) as session:
        session.start()
        serve(session, port=port, author="Anna", open_browser=False, on_ready=lambda link: print(link, flush=True))


if __name__ == "__main__":
    main()
