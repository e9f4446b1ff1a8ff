"""Tries separation settings on predicted maps, and chooses by what transfers: leaving one set out at a time.

    python benchmarks/tune_separation.py MODEL --data data/tnbc --data data/dsb2018:val:colour --data data/consep:all
        [--grid foreground=0.4,0.5 --grid min_depth=0.1,0.2 ...] [--cache maps/] [-o tune.json]

A set is FOLDER[:PART[:STAIN]][@MODEL], PART one of val (the usual), train, all (both); never test. With @MODEL its
maps are those of another model of the same scale, best one that was trained without this set. Maps are made once per
image and kept in --cache; every combination of the grid is scored as mean PQ per image against the labels at their
own resolution. The settings for a set are those with the best mean over the other sets; what they reach on the set
left out is the figure to trust. The first of the file's results, best by the mean over all sets, is what
`tools/ship.py` puts into the card.
"""

import itertools
import multiprocessing
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from hemalum.data.dataset import Dataset, Row
from hemalum.metrics import match, measure_overlap
from hemalum.models.engines.engine import Engine, make_engine
from hemalum.models.model import Model, load_model
from hemalum.nuclei.nuclei import Nuclei
from hemalum.nuclei.part import measure
from hemalum.nuclei.settings import SeparationSettings
from hemalum.targets.representations import find_representation
from inputs import choose_evenly, scaled_image
from record import figures_parser, write_record

SHOWN = 12  # rows of the table, and of the file


def default_grid(pixel: float) -> dict[str, tuple[float, ...]]:
    """Values to try on a separation grid of `pixel` µm: those that are lengths or areas follow it."""
    return {
        "foreground": (0.35, 0.4, 0.45, 0.5),
        "marker": (0.8,),
        "min_depth": (0.05,),
        "smoothing": (max(1, round(0.16 / pixel**2)),),
        "merge_depth": (0.2, 0.25, 0.3, 0.4),
        "min_marker_area": (max(3, round(2.2 / pixel**2)),),
        "min_probability": (0.65, 0.75),
        "straighten": (max(1, round(0.75 / pixel)),),
        "spur_width": (max(1, round(0.5 / pixel)),),
    }


class Cached(NamedTuple):
    """Maps (C, h, w) float16 and labels (H, W) of one image, in a file."""

    set: str
    file: Path


def choose_rows(rows: Sequence[Row], part: str, stain: str) -> list[Row]:
    """The rows of a part and a stain, "" for the usual: those of `val`, any stain."""
    if part == "test":
        raise SystemExit("error: settings are never chosen on a test part")
    parts = ("train", "val") if part == "all" else (part or "val",)
    return [row for row in rows if row.split in parts and (not stain or row.stain == stain)]


def cache_maps(model: Model, engine: Engine, data: str, folder: Path, limit: int) -> list[Cached]:
    data, _, other_model = data.partition("@")
    if other_model:
        replacement = load_model(other_model)
        if (replacement.card.mpp, replacement.card.output_upsampling) != (
            model.card.mpp,
            model.card.output_upsampling,
        ):
            raise SystemExit(f"{other_model} is not of the scale of {model.card.name}")
        model, engine = replacement, make_engine("auto", replacement)
    path, part, stain = [*data.split(":"), "", ""][:3]
    dataset = Dataset.open(path)
    rows = choose_rows(dataset.rows, part, stain)
    part_of_set = replace(dataset, rows=tuple(rows))
    card, cached = model.card, []
    for index in choose_evenly(len(rows), limit):
        file = folder / f"{model.digest[:12]}-{dataset.info.name}-{rows[index].id}.npz"
        cached.append(Cached(dataset.info.name, file))
        if file.exists():
            continue
        sample = part_of_set[index]
        image, (height, width) = scaled_image(sample, card)
        maps = engine.maps(image[None])[0]
        maps = maps[:, : height * card.output_upsampling, : width * card.output_upsampling].astype(np.float16)
        np.savez(file, maps=maps, truth=sample.instances, image=sample.image)
    return cached


Way = tuple[str, list[str]]  # name of a representation, and its classes


def separate_maps(maps: NDArray[np.float32], way: Way, shape: tuple[int, int], settings: SeparationSettings) -> Any:
    """Label map on the image's own grid."""
    representation = find_representation(*way)
    labels = representation.separate(maps, settings)
    if labels.shape == shape:
        return labels
    part = measure(labels, None, representation.foreground(maps), threshold=settings.foreground)
    scale = (shape[1] / labels.shape[1], shape[0] / labels.shape[0])
    return Nuclei.from_parts([part], shape=shape, scale=scale).label_map()


def score(file: Path, way: Way, candidates: list[SeparationSettings]) -> list[float]:
    """PQ of one image under each of the settings; nan where it has no nucleus."""
    with np.load(file) as stored:
        maps, truth = stored["maps"].astype(np.float32), stored["truth"]
    return [
        match(measure_overlap(truth, separate_maps(maps, way, truth.shape, settings))).pq for settings in candidates
    ]


def score_all(cached: list[Cached], way: Way, candidates: list[SeparationSettings], workers: int) -> dict[str, Any]:
    """Mean PQ per image by set, one number per settings."""
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, mp_context=context) as pool:
        futures = [pool.submit(score, image.file, way, candidates) for image in cached]
        scores = np.array([future.result() for future in futures])
    names = np.array([image.set for image in cached])
    return {str(name): np.nanmean(scores[names == name], axis=0) for name in dict.fromkeys(names)}


def leave_one_out(by_set: dict[str, Any]) -> list[dict[str, Any]]:
    """For each set, the settings that are best on the others, and what they reach on it."""
    rows = []
    for name in by_set:
        others = np.mean([pq for other_set, pq in by_set.items() if other_set != name], axis=0)
        best = int(np.argmax(others))
        rows.append({"left_out": name, "index": best, "pq": float(by_set[name][best])})
    return rows


def print_table(by_set: dict[str, Any], candidates: list[SeparationSettings], fields: list[str], order: Any) -> None:
    print("  ".join([*(f"{name:>11.11}" for name in fields), *(f"{name:>9.9}" for name in by_set), "     mean"]))
    for i in order:
        values = [f"{getattr(candidates[i], name):11g}" for name in fields]
        pq = [float(by_set[name][i]) for name in by_set]
        print("  ".join([*values, *(f"{value:9.4f}" for value in pq), f"{np.mean(pq):9.4f}"]))


def read_grid(parts: list[str], pixel: float) -> dict[str, tuple[float, ...]]:
    grid = default_grid(pixel)
    for part in parts:
        name, _, values = part.partition("=")
        if name not in SeparationSettings.model_fields:
            raise SystemExit(f"--grid {part}: the settings are {', '.join(SeparationSettings.model_fields)}")
        grid[name] = tuple(float(value) for value in values.split(","))
    return grid


def main() -> None:
    parser = figures_parser(__doc__, Path("tune.json"))
    parser.add_argument("model")
    parser.add_argument("--data", action="append", required=True, help="FOLDER[:PART[:STAIN]][@MODEL]")
    parser.add_argument("--images", type=int, default=30, help="at most so many of each set, spread evenly")
    parser.add_argument("--grid", action="append", default=[], help="SETTING=VALUE,VALUE: replaces the usual values")
    parser.add_argument("--min-area-um2", type=float, default=4.0, help="smallest nucleus")
    parser.add_argument("--cache", type=Path, default=Path("tune_maps"), help="folder that maps are kept in")
    parser.add_argument("--workers", type=int, default=2)
    arguments = parser.parse_args()
    model = load_model(arguments.model)
    card = model.card
    pixel = card.mpp / card.output_upsampling
    grid = read_grid(arguments.grid, pixel)
    arguments.cache.mkdir(parents=True, exist_ok=True)
    engine = make_engine("auto", model)
    start = time.perf_counter()
    cached = [
        image
        for data in arguments.data
        for image in cache_maps(model, engine, data, arguments.cache, arguments.images)
    ]
    print(f"maps of {len(cached)} images: {time.perf_counter() - start:.0f} s", flush=True)
    min_area = max(1, round(arguments.min_area_um2 / pixel**2))
    candidates = [
        SeparationSettings(**{"min_area": min_area, **dict(zip(grid, values, strict=True))})
        for values in itertools.product(*grid.values())
    ]
    candidates.insert(0, card.separation)  # today's, as what all others are compared with
    start = time.perf_counter()
    by_set = score_all(cached, (card.representation, card.classes), candidates, arguments.workers)
    print(f"{len(candidates)} settings: {time.perf_counter() - start:.0f} s")
    means = np.mean(list(by_set.values()), axis=0)
    order = np.argsort(-means, kind="stable")
    print("the card's:")
    print_table(by_set, candidates, list(grid), [0])
    print("best by the mean over all sets:")
    print_table(by_set, candidates, list(grid), order[:SHOWN])
    print("chosen on the other sets, scored on the set left out:")
    folds = leave_one_out(by_set)
    for fold in folds:
        print_table(by_set, candidates, list(grid), [fold["index"]])
        print(f"    {fold['left_out']} left out: {fold['pq']:.4f}, the card's {by_set[fold['left_out']][0]:.4f}")
    print(f"mean over left-out sets: {np.mean([fold['pq'] for fold in folds]):.4f}, the card's {means[0]:.4f}")
    rows = [
        {
            "settings": candidates[i].model_dump(),
            "pq": {name: float(pq[i]) for name, pq in by_set.items()},
            "mean": float(means[i]),
        }
        for i in order[:SHOWN]
    ]
    for fold in folds:
        fold["settings"] = candidates[fold.pop("index")].model_dump()
    write_record(
        arguments.output,
        "tune_separation",
        ["openvino", "numpy"],
        rows,
        model={"name": card.name, "digest": model.digest},
        card={name: float(pq[0]) for name, pq in by_set.items()},
        left_out=folds,
    )


if __name__ == "__main__":
    main()
