"""The server of a review whose nuclei are known, as a program of its own: FOLDER PORT [REGIONS].

With REGIONS it has a slide as well, of as many by as many regions of 1024 px with 1,849 nuclei each.
"""

import sys
from pathlib import Path

import numpy as np
import tifffile

from builders.review_sessions import make_session
from builders.stores import fill_store
from hemalum.nuclei.store import NucleiStore, open_store
from hemalum.review.server import serve
from synthetic_nuclei import synthetic_run

REGION = 1024  # px
TILE = 512  # px


def write_slide(path: Path, side: int) -> None:
    """A tiled TIFF of side x side px with its pyramid; all tiles are alike."""
    tile = np.full((TILE, TILE, 3), (226, 190, 214), np.uint8)
    tile[::64] = (200, 160, 190)
    with tifffile.TiffWriter(path) as file:
        for level in range(4):
            shape = (side >> level, side >> level, 3)
            file.write(
                (tile for _ in range((-(-shape[0] // TILE)) ** 2)), shape=shape, dtype=np.uint8, tile=(TILE, TILE),
                photometric="rgb", compression="jpeg", subfiletype=int(level > 0),
                resolution=(40_000 >> level, 40_000 >> level), resolutionunit="CENTIMETER",
            )  # fmt: skip


def main() -> None:
    folder, port, regions = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]) if len(sys.argv) > 3 else 0
    slides = []
    if regions:
        slide, store = folder / "slide.tif", folder / "slide.nuclei"
        if not slide.exists():
            write_slide(slide, regions * REGION)
            made = fill_store(NucleiStore.create(store, synthetic_run(regions, regions, REGION)))
            made.finish(notes={"engine": "torch f32"})
        slides.append((slide, open_store(store)))
    session = make_session(folder, *slides)
    serve(session, port=port, author="Anna", open_browser=False, on_ready=lambda link: print(link, flush=True))


if __name__ == "__main__":
    main()
