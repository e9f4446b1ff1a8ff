"""Reading slides beside OpenSlide, and nuclei that the tissue mask leaves out.

    python benchmarks/slides.py --slide SLIDE… --dataset FOLDER… [-o benchmarks/results/slides.json]

Reading: processor seconds for all windows of 1024 px, both readers in one run, and the greatest difference between
a window of the second level and the same place of that level read as one, in gray levels. Tissue: each image of a
dataset (25 of them, evenly drawn) is mirrored to six times its size, since a field of 1000 px is 31 px in the mask,
and nuclei whose center lies outside the mask are counted. A mask of everything would lose none, so the share of
the area that the mask leaves out stands beside them, of the fields (mean) and of the slides.
"""

import time
from pathlib import Path
from typing import Any

import numpy as np
from scipy import ndimage

import hemalum
from hemalum.slides import Slide, find_tissue, tissue
from record import RESULTS, figures_parser, write_record

WINDOW = 1024
IMAGES = 25
MIRRORED = 5


def read_beside_openslide(path: Path) -> dict[str, Any]:
    """Seconds per megapixel of both, and how much windows of the second level differ."""
    import openslide

    slide, reference = hemalum.open_slide(path, mpp=0.25), openslide.OpenSlide(str(path))
    height, width = slide.shape
    windows = [
        (x, y, min(WINDOW, width - x), min(WINDOW, height - y))
        for y in range(0, height, WINDOW)
        for x in range(0, width, WINDOW)
    ]
    seconds: list[list[float]] = [[], []]
    for _ in range(3):  # opened anew: both keep decoded tiles
        slide, reference = hemalum.open_slide(path, mpp=0.25), openslide.OpenSlide(str(path))
        start = time.process_time()
        for window in windows:
            slide.read(*window)
        middle = time.process_time()
        for x, y, wide, tall in windows:
            np.asarray(reference.read_region((x, y), 0, (wide, tall)).convert("RGB"))
        seconds[0].append(middle - start)
        seconds[1].append(time.process_time() - middle)
    own_seconds, other = (float(np.median(times)) / (height * width / 1e6) for times in seconds)
    figures: dict[str, Any] = {"file": path.name, "hemalum_s_per_mp": own_seconds, "openslide_s_per_mp": other}
    equal = [
        np.array_equal(slide.read(*w), np.asarray(reference.read_region(w[:2], 0, w[2:]).convert("RGB")))
        for w in windows
    ]
    figures["windows"], figures["equal"] = len(windows), sum(equal)
    if len(slide.levels) > 1:
        figures["level_1_difference"] = level_difference(slide, reference)
    figures["area_left_out"] = 1 - find_tissue(hemalum.open_slide(path)).share
    return figures


def level_difference(slide: Slide, reference: Any) -> dict[str, int]:
    """Greatest difference between windows of 200 px of level 1 and that level read as one, gray levels."""
    shape, factor = slide.levels[1].shape, reference.level_downsamples[1]
    level = slide.read_scaled(shape, slice(0, shape[0]), slice(0, shape[1])).astype(int)
    full = np.asarray(reference.read_region((0, 0), 1, shape[::-1]).convert("RGB")).astype(int)
    most = {"hemalum": 0, "openslide": 0}
    for at in range(0, min(shape) - 200, 97):
        rows = slice(at, at + 200)
        window = slide.read_scaled(shape, rows, rows)
        most["hemalum"] = max(most["hemalum"], int(np.abs(window - level[rows, rows]).max()))
        corner = round(at * factor), round(at * factor)
        window = np.asarray(reference.read_region(corner, 1, (200, 200)).convert("RGB"))
        most["openslide"] = max(most["openslide"], int(np.abs(window - full[rows, rows]).max()))
    return most


def count_lost(path: Path) -> dict[str, Any]:
    """Nuclei of a dataset, and those outside the tissue mask."""
    dataset = hemalum.Dataset.open(path)
    nuclei, lost, worst, left_out = 0, 0, ("", 0), []
    for index in range(0, len(dataset), max(1, len(dataset) // IMAGES)):
        sample = dataset[index]
        height, width = sample.image.shape[:2]
        mirrored = np.pad(sample.image, ((0, MIRRORED * height), (0, MIRRORED * width), (0, 0)), "symmetric")
        mask = find_tissue(Slide.of(mirrored, mpp=sample.mpp or 0.25)).mask
        ids = np.unique(sample.instances)[1:]
        centers = np.array(ndimage.center_of_mass(sample.instances > 0, sample.instances, ids)).reshape(-1, 2)
        y, x = (centers * (np.array(mask.shape) / mirrored.shape[:2])).astype(int).T
        outside = int((~mask[y, x]).sum())
        nuclei, lost = nuclei + len(ids), lost + outside
        left_out.append(float(1 - mask.mean()))
        worst = max(worst, (sample.id, outside), key=lambda one: one[1])
    return {
        "dataset": path.name,
        "nuclei": nuclei,
        "lost": lost,
        "most_in_one_image": worst[1],
        "image": worst[0],
        "area_left_out": float(np.mean(left_out)),
    }


def main() -> None:
    parser = figures_parser(__doc__, RESULTS / "slides.json")
    parser.add_argument("--slide", type=Path, nargs="*", default=[])
    parser.add_argument("--dataset", type=Path, nargs="*", default=[])
    arguments = parser.parse_args()
    tissue.SMALL = 0  # a mirrored field may be smaller than a slide
    results = {
        "reading": [read_beside_openslide(path) for path in arguments.slide],
        "tissue": [count_lost(path) for path in arguments.dataset],
    }
    for row in results["reading"] + results["tissue"]:
        print(
            "  ".join(
                f"{key} {value:.4f}" if isinstance(value, float) else f"{key} {value}" for key, value in row.items()
            )
        )
    write_record(
        arguments.output, "slides", ["tifffile", "imagecodecs", "openslide-python", "openslide-bin"], results
    )


if __name__ == "__main__":
    main()
