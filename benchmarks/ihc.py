"""How well IHC sections are registered to H&E, and how well the mask comes out, on pairs made from real tiles.

    python benchmarks/ihc.py FOLDER… --mpp 0.25 [--pairs 10] [-o benchmarks/results/ihc.json]
    python benchmarks/ihc.py FOLDER --mpp 0.25 --large
    python benchmarks/ihc.py FOLDER --mpp 0.25 --picture docs/images/ihc.jpg

FOLDER holds images/, labels/ and index.csv (columns image, label). Each tile becomes an H&E section and an IHC
section of another staining, turned, shifted, sheared and bent by a warp that is known
(`ihc_synthesis`). The error is the distance between where the registration takes a pixel and where it
belongs, over the H&E tissue whose partner lies on the IHC section; Dice is that of the derived mask against the
true one where the IHC section covers the H&E.

Then the quality score of pairs that belong together, of consecutive sections that share a part of their
nuclei, of mirrored sections, and of sections of different tiles: the level below which pairs are refused has to
part them. --large registers one field of 4 x 3 tiles of one patient, and --picture draws the first pair, instead.
"""

import csv
import statistics
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from hemalum.data.ihc.chromogen import CHROMOGENS, Chromogen, optical_density, tissue_mask
from hemalum.data.ihc.derive import MIN_QUALITY, DerivedLabels, Settings, derive
from hemalum.data.ihc.picture import draw_pair
from hemalum.data.ihc.registration import LEVELS
from ihc_synthesis import KnownPair, make_pair, mirrored
from inputs import read_pair
from record import figures_parser, write_record

Tile = tuple[str, NDArray[np.uint8], NDArray[np.int32]]


def read_tiles(folders: list[Path], count: int) -> list[Tile]:
    """Tiles spread over the folders and over each of them."""
    tiles = []
    for number, folder in enumerate(folders):
        with (folder / "index.csv").open() as stream:
            rows = list(csv.DictReader(stream))
        share = count // len(folders) + (number < count % len(folders))
        for row in rows[len(rows) // (2 * share) :: max(1, len(rows) // share)][:share]:
            tiles.append((f"{folder.name}/{row['image']}", *read_pair(folder, row)))
    return tiles


def measure_pair(pair: KnownPair, derived: DerivedLabels, mpp: float) -> dict[str, Any]:
    tissue = tissue_mask(optical_density(pair.he), mpp)
    if derived.alignment is None:
        return {"level": "none", "quality": 0.0}
    errors = pair.errors_of(derived.alignment, tissue, mpp)
    mask, truth = (derived.instances > 0) & derived.covered, pair.positive & derived.covered
    return {
        "level": derived.level,
        "mean_px": float(errors.mean()),
        "p95_px": float(np.percentile(errors, 95)),
        "dice": float(2 * (mask & truth).sum() / max(int(mask.sum() + truth.sum()), 1)),
        "quality": derived.quality.score,
        "patches_px": None if derived.landmarks is None else derived.landmarks.median / mpp,
    }


def measure_levels(
    tiles: list[Tile], mpp: float, chromogens: Sequence[Chromogen] = CHROMOGENS
) -> list[dict[str, Any]]:
    """Every tile with every chromogen and every level of registration."""
    rows = []
    print(f"{'level':8} {'stain':5} {'mean px':>8} {'p95 px':>8} {'Dice':>6} {'quality':>8} {'s':>6}")
    print("medians over the pairs")
    for level in LEVELS:
        for chromogen in chromogens:
            level_rows = []
            for number, (name, image, labels) in enumerate(tiles):
                pair = make_pair(image, labels, number, chromogen=chromogen)
                begin = time.process_time()
                derived = derive(pair.he, pair.ihc, mpp=mpp, settings=Settings(chromogen, level))
                seconds = time.process_time() - begin
                row = {"tile": name, "asked": level, "chromogen": chromogen, "seconds": seconds}
                level_rows.append(row | measure_pair(pair, derived, mpp))
            rows += level_rows
            kept = [row for row in level_rows if row["level"] != "none"]
            middle = [statistics.median(row[key] for row in kept) for key in ("mean_px", "p95_px", "dice", "quality")]
            seconds = statistics.median(row["seconds"] for row in level_rows)
            text = f"{middle[0]:8.2f} {middle[1]:8.2f} {middle[2]:6.3f} {middle[3]:8.2f} {seconds:6.1f}"
            print(f"{level:8} {chromogen:5} {text}", flush=True)
    return rows


def score_pair_types(tiles: list[Tile], mpp: float) -> dict[str, list[float]]:
    """The quality score by kind of pair, registered affinely."""
    scores_by_type: dict[str, list[float]] = {}
    for kind in ("one section", "70 % shared", "40 % shared", "mirrored", "another tile"):
        values = []
        for number, (_, image, labels) in enumerate(tiles):
            shared = {"70 % shared": 0.7, "40 % shared": 0.4}.get(kind, 1.0)
            pair = make_pair(image, labels, number, shared=shared)
            pair = mirrored(pair) if kind == "mirrored" else pair
            he = tiles[(number + 1) % len(tiles)][1] if kind == "another tile" else pair.he
            values.append(derive(he, pair.ihc, mpp=mpp, settings=Settings("dab", "affine")).quality.score)
        scores_by_type[kind] = values
        refused = sum(value < MIN_QUALITY for value in values)
        text = f"{min(values):.2f} {statistics.median(values):.2f} {max(values):.2f}"
        print(f"{kind:14} quality min, median, max {text}; {refused} of {len(values)} refused", flush=True)
    return scores_by_type


def join_tiles(tiles: list[Tile]) -> Tile:
    """Twelve tiles of one size as one field, 4 wide and 3 high."""
    images, labels, last = [], [], 0
    for _, image, marked in tiles:
        images.append(image)
        labels.append(np.where(marked > 0, marked + last, 0))
        last = int(labels[-1].max())
    rows = [np.hstack(images[i : i + 4]) for i in (0, 4, 8)], [np.hstack(labels[i : i + 4]) for i in (0, 4, 8)]
    return "field", np.vstack(rows[0]), np.vstack(rows[1]).astype(np.int32)


def draw_picture(tile: Tile, mpp: float, path: Path) -> None:
    """The picture of a pair, at half its size and as JPEG."""
    pair = make_pair(tile[1], tile[2], 0)
    drawn = draw_pair(pair.he, pair.ihc, derive(pair.he, pair.ihc, mpp=mpp), Path(tile[0]).stem)
    small = Image.fromarray(drawn)
    small.thumbnail((1100, 1100), Image.Resampling.LANCZOS)
    small.save(path, quality=82)


def main() -> None:
    parser = figures_parser(__doc__)
    parser.add_argument("folders", nargs="+", type=Path)
    parser.add_argument("--mpp", type=float, default=0.25)
    parser.add_argument("--pairs", type=int, default=10)
    parser.add_argument("--large", action="store_true")
    parser.add_argument("--picture", type=Path)
    arguments = parser.parse_args()
    if arguments.large:
        measure_levels([join_tiles(read_tiles(arguments.folders[:1], 12))], arguments.mpp, ("dab",))
        return
    tiles = read_tiles(arguments.folders, arguments.pairs)
    if arguments.picture:
        draw_picture(tiles[0], arguments.mpp, arguments.picture)
        return
    results = {"steps": measure_levels(tiles, arguments.mpp), "scores": score_pair_types(tiles, arguments.mpp)}
    write_record(arguments.output, "ihc", ["SimpleITK", "numpy", "scikit-image"], results, mpp=arguments.mpp)


if __name__ == "__main__":
    main()
