"""Artifacts painted on real fields: nuclei on them and elsewhere, and which of them are left out.

    python benchmarks/artifacts.py data/tnbc data/consep data/nuinsseg_human data/pannuke data/cryonuseg data/monuseg
        data/dsb2018 [--fields 4] -o benchmarks/results/artifacts.json

`clean`: every field as it is: which share of the area is left out on the mean, and what is named.
`painted`: on `--fields` fields of each set whose scale is known, at most `SIDE` px, one at a time: a pen stroke of
each color, an ink drop, a fold, an edge of a coverslip and, to compare it with, the same place as it is; and beside
the field its mirror image, out of focus by a Gaussian of each sigma.
Counted are nuclei that `fast` finds on what was painted (`on_it`) and elsewhere, and of both those that are left out.
Those left out elsewhere that lie in a nucleus of the labels (`labeled`) are what leaving out costs. `seen` is the
share of what was painted that is recognized. `sets` has the same for all pens, by set.

Limits, else the program fails: of clean fields at most `CLEAN` is left out (two fields of CoNSeP have real ink);
of the nuclei on ink at least `ON_INK` are left out, and for each of them at most `COST` labeled ones elsewhere; out
of focus by `DEFOCUSED` or more, at least `SEEN` of the area is seen (pale areas are not looked at, and neither is a
margin of half a window), and at no sigma anything is left out elsewhere.
"""

import logging
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from skimage.draw import disk, line

from hemalum.data.dataset import Dataset
from hemalum.inference.segment import as_engine, segment_source
from hemalum.models.model import load_model
from hemalum.nuclei.nuclei import Nuclei
from hemalum.slides import Slide, describe_artifacts, find_artifacts
from inputs import choose_evenly
from record import figures_parser, write_record

Pixels = NDArray[np.uint8]
Labels = NDArray[np.int32]
Mask = NDArray[np.bool_]
Finder = Callable[[Pixels, float], Nuclei]
FOCUS = "out of focus"

PENS = {
    "blue": (25, 50, 170), "light blue": (60, 130, 220), "green": (20, 120, 60), "black": (28, 26, 30),
    "red": (205, 25, 40), "orange": (250, 130, 20), "yellow": (245, 230, 40), "teal": (10, 140, 150),
    "magenta": (225, 20, 140), "purple": (90, 20, 140),
}  # fmt: skip
WIDTH, RADIUS = 24.0, 22.0  # µm, of a stroke, and of a drop
SIGMAS = (0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0)  # µm
SIDE = 512  # px of a field
CLEAN, ON_INK, COST, DEFOCUSED, SEEN = 0.01, 0.75, 0.2, 1.5, 0.4


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


def defocus(image: Pixels, there: Mask, sigma: float) -> Pixels:
    """The same with a part out of focus, by `sigma` px."""
    blurred = ndimage.gaussian_filter(image.astype(np.float32), (sigma, sigma, 0))
    return np.where(there[..., None], np.rint(blurred), image).astype(np.uint8)


def fold(image: Pixels, there: Mask) -> Pixels:
    """Tissue that lies double: its transmission times that of what lies below, shifted."""
    below = np.roll(image, (17, 23), axis=(0, 1)) / 255 * 0.8
    return np.where(there[..., None], np.rint(image * below * (image / 255)), image).astype(np.uint8)


def coverslip(image: Pixels, there: Mask, mpp: float) -> Pixels:
    """An edge of glass across the field: a dark gray line, and beside it a pale rim, as light is bent."""
    away = ndimage.distance_transform_edt(~there) * mpp
    dark = 0.55 * np.exp(-((away / (WIDTH / 4)) ** 2))[..., None]
    rim = 0.12 * np.exp(-(((away - WIDTH) / (WIDTH / 2)) ** 2))[..., None]
    below = image * (1 - dark)
    return np.rint(below + (255 - below) * rim).astype(np.uint8)


def painted(image: Pixels, mpp: float) -> Iterator[tuple[str, Pixels, Mask]]:
    """Name, image and place of each artifact; those out of focus lie in an image of twice the width."""
    rng = np.random.default_rng(0)
    shape = image.shape[0], image.shape[1]
    for name, color in PENS.items():
        there = stroke(shape, mpp, rng)
        yield f"{name} stroke", ink(image, there, color, rng), there
    there = drop(shape, mpp, rng)
    yield "blue drop", ink(image, there, PENS["blue"], rng), there
    there = stroke(shape, mpp, rng)
    yield "fold", fold(image, there), there
    there = stroke(shape, mpp, rng)
    yield "coverslip edge", coverslip(image, there, mpp), there
    yield "its place as it is", image, there
    both = np.concatenate([image, image[:, ::-1]], axis=1)
    there = np.repeat(np.arange(both.shape[1])[None] >= shape[1], shape[0], axis=0)
    for sigma in SIGMAS:
        yield f"{FOCUS} {sigma:g} µm", defocus(both, there, sigma / mpp), there


class Counts:
    """Nuclei and px on what was painted, and elsewhere; they add up over fields."""

    def __init__(self, image: Pixels, labels: Labels, there: Mask, mpp: float, finder: Finder) -> None:
        nuclei = finder(image, mpp)
        seen = find_artifacts(Slide.of(image), mpp=mpp)
        x, y = (nuclei.table.column(name).to_numpy() for name in ("x", "y"))
        out = seen.leave_out(x, y)
        at = np.clip(y.astype(int), 0, there.shape[0] - 1), np.clip(x.astype(int), 0, there.shape[1] - 1)
        on = there[at]
        rows, columns = np.mgrid[: there.shape[0] : 4, : there.shape[1] : 4]
        area = there[::4, ::4]
        left = seen.leave_out(columns.ravel().astype(float), rows.ravel().astype(float)).reshape(area.shape)
        self.values = np.array(
            [
                on.sum(), (on & out).sum(), (~on).sum(), (~on & out).sum(), (~on & out & (labels[at] > 0)).sum(),
                area.mean() * 1e6, (left & area).mean() * 1e6,
            ]
        ).astype(np.int64)  # fmt: skip

    @staticmethod
    def figures(values: NDArray[np.int64]) -> dict[str, Any]:
        names = ("on_it", "on_it_left_out", "elsewhere", "elsewhere_left_out", "labeled")
        counts = dict(zip(names, values.tolist(), strict=False))
        return counts | {"seen": round(float(values[6] / values[5]), 3)}


def look_at_clean(dataset: Dataset) -> dict[str, Any]:
    """What is named on the fields of a set as they are."""
    share, named = 0.0, {}
    for sample in dataset:
        seen = find_artifacts(Slide.of(sample.image), mpp=sample.mpp)
        share += float(seen.left_out.mean())
        if seen.codes.any():
            named[sample.id] = describe_artifacts(seen.notes)
    return {"fields": len(dataset), "left_out_percent": round(100 * share / len(dataset), 3), "seen": named}


def passed_limits(clean: dict[str, Any], figures: dict[str, Any]) -> list[str]:
    """Which limits are passed."""
    wrong = [
        f"{name}: {one['left_out_percent']} % of clean fields is left out"
        for name, one in clean.items()
        if one["left_out_percent"] > 100 * CLEAN
    ]
    pens = [one for name, one in figures.items() if name.endswith(("stroke", "drop"))]
    on, gone, cost = (sum(one[name] for one in pens) for name in ("on_it", "on_it_left_out", "labeled"))
    print(f"all pens: {gone} of {on} on ink are left out, and {cost} labeled ones elsewhere")
    if gone < ON_INK * on or cost > COST * gone:
        wrong.append(f"ink: {gone} of {on} are left out, and {cost} labeled ones elsewhere")
    for sigma in SIGMAS:
        one = figures[f"{FOCUS} {sigma:g} µm"]
        if one["elsewhere_left_out"] or (sigma >= DEFOCUSED and one["seen"] < SEEN):
            wrong.append(f"{sigma} µm: {one}")
    return wrong


def main() -> None:
    parser = figures_parser(__doc__)
    parser.add_argument("datasets", nargs="+", type=Path)
    parser.add_argument("--fields", type=int, default=4, help="of each set that are painted on; default: 4")
    options = parser.parse_args()
    logging.getLogger("hemalum").setLevel(logging.ERROR)  # what is warned of is counted here
    model = load_model("fast")
    engine = as_engine("auto", model)

    def find(image: Pixels, mpp: float) -> Nuclei:
        with Slide.of(image) as source:
            return segment_source(source, model, engine, mpp=mpp, stain="he")

    clean: dict[str, Any] = {}
    painted_counts: dict[str, NDArray[np.int64]] = {}
    sets: dict[str, NDArray[np.int64]] = {}
    for folder in options.datasets:
        dataset = Dataset.open(folder)
        clean[folder.name] = look_at_clean(dataset)
        print(folder.name, {name: value for name, value in clean[folder.name].items() if name != "seen"}, flush=True)
        rows = [row for row in range(len(dataset.rows)) if dataset.rows[row].mpp_source != "nuclei"]
        for index in choose_evenly(len(rows), options.fields) if rows else ():
            sample = dataset[rows[int(index)]]
            image, labels, mpp = sample.image[:SIDE, :SIDE], sample.instances[:SIDE, :SIDE], sample.require_mpp()
            for name, drawn, there in painted(image, mpp):
                wide = np.concatenate([labels, labels[:, ::-1]], axis=1)
                values = Counts(drawn, wide, there, mpp, find).values
                painted_counts[name] = painted_counts.get(name, np.zeros_like(values)) + values
                if name.endswith(("stroke", "drop")):
                    sets[folder.name] = sets.get(folder.name, np.zeros_like(values)) + values
    figures = {name: Counts.figures(values) for name, values in painted_counts.items()}
    by_set = {name: Counts.figures(values) for name, values in sets.items()}
    for name, one in (figures | by_set).items():
        print(
            f"{name:20} {one['on_it_left_out']:4} of {one['on_it']:4} on it left out, elsewhere "
            f"{one['elsewhere_left_out']:3} of {one['elsewhere']:5}, {one['labeled']} labeled; seen {one['seen']:.0%}"
        )
    write_record(
        options.output, "artifacts", ["numpy", "scipy", "scikit-image"],
        {"clean": clean, "painted": figures, "sets": by_set},
    )  # fmt: skip
    if wrong := passed_limits(clean, figures):
        raise SystemExit("; ".join(wrong))


if __name__ == "__main__":
    main()
