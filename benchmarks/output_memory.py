"""Memory that the files of a large image take: label map, overlay and page, each at two heights.

    python benchmarks/output_memory.py -o benchmarks/results/output_memory.json

Each step runs in a process of its own, whose largest memory is measured, and what the nuclei alone take is measured
beside it. Limit: four times the height takes at most 1.2 times the memory.
"""

import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hemalum.inference.batch import FileResult
from hemalum.nuclei.nuclei import Nuclei
from hemalum.nuclei.polygons import Polygons
from hemalum.reports.segmentation.page import SummaryPage
from record import figures_parser, peak_memory, write_record

WIDTH = 4096
HEIGHTS = (6000, 24_000)
STEPS = ("nuclei", "labels", "overlay", "page")
LIMIT = 1.2


def make_nuclei(height: int) -> Nuclei:
    """A thousand nuclei in ten rows, spread over an image: only its size differs."""
    labels = np.zeros((480, WIDTH), np.int32)
    for number in range(1000):
        y, x = divmod(number, 100)
        labels[10 + 45 * y : 30 + 45 * y, 10 + 40 * x : 30 + 40 * x] = number + 1
    some = Nuclei.from_labels(labels, mpp=0.5)
    coords = some.outlines.coords.copy()
    row = (coords[:, 1] - 10) // 45
    coords[:, 1] += row * (height // 10 - 45)
    return Nuclei(some.table, Polygons(coords, some.outlines.offsets), (height, WIDTH), 0.5, "user")


def pixels(start: int, stop: int) -> NDArray[np.uint8]:
    return np.full((stop - start, WIDTH, 3), (226, 178, 206), np.uint8)


def run(step: str, height: int, folder: Path) -> int:
    """Peak memory of one step, bytes."""
    nuclei, overlay = make_nuclei(height), folder / f"{height}.png"
    if step == "labels":
        nuclei.to_labels(folder / "labels.tif")
    elif step == "overlay":
        nuclei.to_overlay(overlay, pixels)
    elif step == "page":
        page = SummaryPage(folder / "summary.html")
        page.add(FileResult(Path("a.tif"), nuclei, None, {"overlay": overlay}))
        page.write()
    return peak_memory()


def main() -> None:
    parser = figures_parser(__doc__)
    parser.add_argument("--step", nargs=3, help="for itself")
    options = parser.parse_args()
    if options.step:
        step, height, folder = options.step
        print(json.dumps(run(step, int(height), Path(folder))))
        return
    figures: dict[str, Any] = {"width_px": WIDTH, "heights_px": list(HEIGHTS), "limit": LIMIT}
    with tempfile.TemporaryDirectory() as folder:
        for step in STEPS:
            peaks = []
            for height in HEIGHTS:
                command = [sys.executable, __file__, "--step", step, str(height), folder]
                done = subprocess.run(command, capture_output=True, text=True, check=True)
                peaks.append(json.loads(done.stdout.splitlines()[-1]) / 1e6)
            ratio = peaks[1] / peaks[0]
            figures[step] = {"peak_mb": [round(peak) for peak in peaks], "ratio": round(ratio, 3)}
            print(f"{step:8} {peaks[0]:7.0f} MB {peaks[1]:7.0f} MB, {ratio:.2f} times", flush=True)
    write_record(options.output, "output_memory", ["numpy", "pillow", "tifffile"], figures)
    if any(figures[step]["ratio"] > LIMIT for step in STEPS):
        raise SystemExit(f"more than {LIMIT} times the memory at {HEIGHTS[1] // HEIGHTS[0]} times the height")


if __name__ == "__main__":
    main()
