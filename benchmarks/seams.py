"""Nuclei found cell by cell beside those of the whole image, separated at once.

    python benchmarks/seams.py DATASET… --model fast [--model accurate] [--megapixels 24] [--side 256 …]
        [-o benchmarks/results/seams.json]

Images of the datasets, at the model's scale, lie side by side in a mosaic. Its maps are made once, and separated
whole and by cells of several sizes with the halo that is in use, and narrower ones. Nuclei count by their first
pixel: `differ` have another outline or another measure than in the whole, `twice` are found by two cells, `lost` by
none, `extra` by a cell alone. `grown` are cells that had to look further than the halo, `left_out` what is too large.
"""

import time
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hemalum.data.dataset import Dataset
from hemalum.inference.cells import TOO_LARGE, BoxMaps, separate_cell
from hemalum.inference.grid import CELL_HALO, Box, cut_cells, plan_tiles
from hemalum.inference.maps import TileMaps
from hemalum.inference.plan import representation_of
from hemalum.models.engines.engine import make_engine
from hemalum.models.model import Model, load_model
from hemalum.nuclei.part import Part, measure
from hemalum.nuclei.refining import refine
from hemalum.nuclei.separation import flood
from hemalum.slides.resample import Resampler
from record import RESULTS, figures_parser, write_record

Pixels = NDArray[np.uint8]
WIDTH = 4096  # px of a mosaic
SIDES = (256, 512, 1024)
HALOS = (32, 64, CELL_HALO)


def make_mosaic(folders: list[Path], mpp: float, pixels: int) -> Pixels:
    """(H, W, 3) of at most so many pixels: the images of each dataset in rows, cut to the lowest of them."""
    shelves: list[Pixels] = []
    for folder in folders:
        by_height: dict[int, list[Pixels]] = {}
        for sample in Dataset.open(folder):
            if sum(shelf.shape[0] for shelf in shelves) * WIDTH >= pixels:
                break
            height, width = (max(1, round(side * sample.require_mpp() / mpp)) for side in sample.instances.shape)
            image = Resampler(sample.instances.shape, (height, width)).rows(sample.image, 0, height)
            row = by_height.setdefault(height, [])
            row.append(image)
            if sum(one.shape[1] for one in row) >= WIDTH:
                shelves.append(np.concatenate(row, axis=1)[:, :WIDTH])
                row.clear()
    return np.concatenate(shelves)


def signatures(part: Part) -> dict[tuple[int, int], bytes]:
    """Outline and measures of each nucleus to the last bit, by its first pixel."""
    measures = np.column_stack([np.asarray(values, np.float64) for values in part.raw.values()])
    starts = part.polygons.offsets
    return {
        (int(row), int(column)): part.polygons.coords[starts[k] : starts[k + 1]].tobytes() + measures[k].tobytes()
        for k, (row, column) in enumerate(part.first)
    }


def compare(
    expected: dict[tuple[int, int], bytes], maps: BoxMaps, model: Model, side: int, halo: int
) -> dict[str, Any]:
    """Separate by cells and count."""
    shape, upsampling = maps.box.shape, model.card.output_upsampling
    reads = 0

    def read(box: Box) -> BoxMaps:
        nonlocal reads
        reads += 1
        rows, columns = box.slices(maps.box, upsampling)
        return BoxMaps(box, maps.image[box.slices(maps.box)], np.ascontiguousarray(maps.maps[:, rows, columns]))

    by_cell: dict[tuple[int, int], bytes] = {}
    twice, left_out, start = 0, 0, time.process_time()
    cells = [core for line in cut_cells(shape, side) for core in line]
    for core in cells:
        cell = separate_cell(read, core, shape, model.card.separation, upsampling=upsampling, halo=halo)
        nuclei = signatures(cell.part)
        twice += len(nuclei.keys() & by_cell.keys())
        by_cell |= nuclei
        left_out += cell.left_out[TOO_LARGE]
    common = expected.keys() & by_cell.keys()
    return {
        "cell": side, "halo": halo, "cells": len(cells), "nuclei": len(by_cell),
        "differ": sum(expected[key] != by_cell[key] for key in common), "twice": twice,
        "lost": len(expected.keys() - by_cell.keys()), "extra": len(by_cell.keys() - expected.keys()),
        "left_out": left_out, "grown": reads - len(cells), "cpu_s": round(time.process_time() - start, 1),
    }  # fmt: skip


def main() -> None:
    parser = figures_parser(__doc__, RESULTS / "seams.json")
    parser.add_argument("datasets", nargs="+", type=Path)
    parser.add_argument("--model", action="append", required=True)
    parser.add_argument("--megapixels", type=float, default=24)
    parser.add_argument("--side", type=int, nargs="+", default=SIDES)
    parser.add_argument("--halo", type=int, nargs="+", default=HALOS)
    arguments = parser.parse_args()
    results = []
    for name in arguments.model:
        model = load_model(name)
        card, engine = model.card, make_engine("auto", model)
        image = make_mosaic(arguments.datasets, card.mpp, int(arguments.megapixels * 1e6))
        shape = image.shape[0], image.shape[1]
        way = representation_of(model)
        tiles = plan_tiles(card, shape, reach=way.reach)
        with TileMaps(
            lambda box, image=image: image[box.top : box.bottom, box.left : box.right],
            shape, engine, way, tiles, upsampling=card.output_upsampling, organ=model.organ,
        ) as tile_maps:  # fmt: skip
            maps = tile_maps.read(Box(0, 0, *shape))
        foreground, peaks, *classes = maps.maps
        rule = card.separation
        labels = refine(flood(foreground, peaks, rule), rule)
        expected = signatures(
            measure(
                labels, maps.image, foreground,
                class_map=classes[0] if classes else None, threshold=rule.foreground,
            )
        )  # fmt: skip
        counts = {"model": name, "engine": engine.name, "mpp": card.mpp, "height": shape[0], "width": shape[1]}
        print(counts | {"nuclei": len(expected)}, flush=True)
        for side in arguments.side:
            for halo in arguments.halo:
                row = counts | {"whole": len(expected)} | compare(expected, maps, model, side, halo)
                results.append(row)
                print({key: value for key, value in row.items() if key not in counts}, flush=True)
    total: Counter[str] = Counter()
    for row in results:
        if row["halo"] == CELL_HALO:
            total.update({key: row[key] for key in ("differ", "twice", "lost", "extra")})
    print(f"with a halo of {CELL_HALO} px: {dict(total)}")
    packages = ["numpy", "numba", "openvino"]
    datasets = {path.name: Dataset.open(path).split_hash for path in arguments.datasets}
    write_record(arguments.output, "seams", packages, results, datasets=datasets)


if __name__ == "__main__":
    main()
