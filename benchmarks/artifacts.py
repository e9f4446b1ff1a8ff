"""Artifacts painted on real fields: nuclei that are nuclei on them, with artifacts kept and left out.

    python benchmarks/artifacts.py DATASET… -o benchmarks/results/artifacts.json

On every `--every`-th field of imported datasets a pen stroke of each color, an ink drop, a part out of focus and
a fold are painted, one at a time. Counted are nuclei on what was painted, and nuclei elsewhere, before and after; and
on the fields as they are, which share of all of them is left out: on clean tissue that should be none. Limits: nine
of ten nuclei on ink are gone, and of clean fields next to nothing is left out (two fields of CoNSeP have real ink).
"""

import csv
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from skimage.draw import disk, line

from hemalum.data.image import read_image
from hemalum.inference.segment import segment
from hemalum.slides import Slide, describe_artifacts, find_artifacts
from record import figures_parser, write_record

Pixels = NDArray[np.uint8]
Mask = NDArray[np.bool_]

PENS = {
    "blue": (25, 50, 170), "light blue": (60, 130, 220), "green": (20, 120, 60), "black": (28, 26, 30),
    "red": (205, 25, 40), "orange": (250, 130, 20), "yellow": (245, 230, 40), "teal": (10, 140, 150),
    "magenta": (225, 20, 140), "purple": (90, 20, 140),
}  # fmt: skip
WIDTH, RADIUS = 24.0, 22.0  # µm, of a stroke, and of a drop
DEFOCUS = 6.0  # µm


def stroke(shape: tuple[int, int], mpp: float, rng: np.random.Generator) -> Mask:
    """A line across the field, its edges frayed."""
    ends = rng.integers(0, shape[0], 2)
    there = np.zeros(shape, np.bool_)
    there[line(int(ends[0]), 0, int(ends[1]), shape[1] - 1)] = True
    away = ndimage.distance_transform_edt(~there) * mpp
    return np.asarray(away + ndimage.gaussian_filter(rng.normal(0, 20, shape), 3) < WIDTH / 2, np.bool_)


def drop(shape: tuple[int, int], mpp: float, rng: np.random.Generator) -> Mask:
    """A round drop."""
    there = np.zeros(shape, np.bool_)
    center = rng.integers(shape[0] // 4, 3 * shape[0] // 4), rng.integers(shape[1] // 4, 3 * shape[1] // 4)
    there[disk(center, RADIUS / mpp, shape=shape)] = True
    return there


def ink(image: Pixels, there: Mask, color: tuple[int, int, int], rng: np.random.Generator) -> Pixels:
    """Ink as a filter over the tissue, thicker in some places."""
    opacity = np.clip(0.85 + ndimage.gaussian_filter(rng.normal(0, 1, there.shape), 4), 0.6, 1)
    opacity = ndimage.gaussian_filter(there * opacity, 1.0)[..., None]
    return np.rint(image * (1 - opacity) + np.array(color) * opacity).astype(np.uint8)


def defocus(image: Pixels, there: Mask, mpp: float) -> Pixels:
    """The same with a part out of focus."""
    blurred = ndimage.gaussian_filter(image.astype(np.float32), (DEFOCUS / mpp, DEFOCUS / mpp, 0))
    return np.where(there[..., None], np.rint(blurred), image).astype(np.uint8)


def fold(image: Pixels, there: Mask) -> Pixels:
    """Tissue that lies double: its transmission times that of what lies below, shifted."""
    below = np.roll(image, (17, 23), axis=(0, 1)) / 255 * 0.8
    return np.where(there[..., None], np.rint(image * below * (image / 255)), image).astype(np.uint8)


def painted(image: Pixels, mpp: float, rng: np.random.Generator) -> Iterator[tuple[str, Pixels, Mask]]:
    """Name, image and place of each artifact."""
    shape = image.shape[0], image.shape[1]
    for name, color in PENS.items():
        there = stroke(shape, mpp, rng)
        yield f"{name} stroke", ink(image, there, color, rng), there
    there = drop(shape, mpp, rng)
    yield "blue drop", ink(image, there, PENS["blue"], rng), there
    half = np.zeros(shape, np.bool_)
    half[:, shape[1] // 2 :] = True
    yield "out of focus", defocus(image, half, mpp), half
    there = stroke(shape, mpp, rng)
    yield "fold", fold(image, there), there


def fields(folder: Path, every: int) -> Iterator[tuple[str, Pixels, float]]:
    with (folder / "index.csv").open(newline="", encoding="utf-8") as stream:
        rows = list(csv.DictReader(stream))
    for row in rows[::every]:
        yield row["id"], read_image(folder / row["image"]), float(row["mpp"] or 0.5)


def on(image: Pixels, mpp: float, there: Mask, keep: bool) -> NDArray[np.int64]:
    """Nuclei on what was painted, and elsewhere."""
    nuclei = segment(image, "fast", mpp=mpp, stain="he", keep_artifacts=keep)
    x, y = (nuclei.table.column(name).to_numpy().astype(np.int64) for name in ("x", "y"))
    inside = there[np.clip(y, 0, there.shape[0] - 1), np.clip(x, 0, there.shape[1] - 1)]
    return np.array([int(inside.sum()), int((~inside).sum())])


def main() -> None:
    parser = figures_parser(__doc__)
    parser.add_argument("datasets", nargs="+", type=Path)
    parser.add_argument("--every", type=int, default=10, help="fields that are painted on; default: every tenth")
    options = parser.parse_args()
    rng = np.random.default_rng(0)
    clean: dict[str, Any] = {}
    for folder in options.datasets:
        share, total, named = 0.0, 0, {}
        for name, image, mpp in fields(folder, 1):
            seen = find_artifacts(Slide.of(image), mpp=mpp)
            share, total = share + float(seen.left_out.mean()), total + 1
            if seen.codes.any():
                named[name] = describe_artifacts(seen.notes)
        clean[folder.name] = {"fields": total, "left_out_percent": round(100 * share / total, 3), "seen": named}
        print(folder.name, clean[folder.name], flush=True)
    counts: dict[str, NDArray[np.int64]] = {}
    for folder in options.datasets:
        for _, image, mpp in fields(folder, options.every):
            for name, drawn, there in painted(image, mpp, rng):
                both = np.concatenate([on(drawn, mpp, there, True), on(drawn, mpp, there, False)])
                counts[name] = counts.get(name, np.zeros(4, np.int64)) + both
    names = ("on_it_kept", "elsewhere_kept", "on_it_left_out", "elsewhere_left_out")
    figures = {name: dict(zip(names, values.tolist(), strict=True)) for name, values in counts.items()}
    for name, one in figures.items():
        print(
            f"{name:20} on it {one['on_it_kept']:5} → {one['on_it_left_out']:5}, "
            f"elsewhere {one['elsewhere_kept']:6} → {one['elsewhere_left_out']:6}"
        )
    write_record(
        options.output, "artifacts", ["numpy", "scipy", "scikit-image"], {"clean": clean, "painted": figures}
    )


if __name__ == "__main__":
    main()
