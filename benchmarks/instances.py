"""Seconds per mm² from maps to measured outlines, beside the same steps in scikit-image.

    python benchmarks/instances.py [-n 15] [-o instances.json]

A drawn scene of 1 mm² at 0.5 µm/px with 5,000 nuclei, some of them touching, made into maps, blurred and
disturbed as a network's would be. Steps: separation (maps → labels), outlines, morphology with stain.
Wall and processor time are medians; on a busy machine the processor time is the fairer one. Goal: at most
0.15 s per mm² together.
"""

import statistics
import time
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from skimage.measure import find_contours, label, regionprops_table
from skimage.segmentation import watershed

from hemalum.nuclei.morphology import describe, hematoxylin, moments
from hemalum.nuclei.nuclei import Nuclei
from hemalum.nuclei.part import measure
from hemalum.nuclei.polygons import trace
from hemalum.nuclei.settings import SeparationSettings
from hemalum.targets.representations import REPRESENTATIONS
from record import figures_parser, write_record

SIZE = 2000
MPP = 0.5
GOAL = 0.15


def draw_scene(nuclei: int, size: int, seed: int = 0) -> NDArray[np.int32]:
    """Ellipses of 5 to 11 µm, none over another by more than a quarter; a third lies beside another one."""
    rng = np.random.default_rng(seed)
    labels = np.zeros((size, size), np.int32)
    centers: list[tuple[float, float]] = []
    while len(centers) < nuclei:
        a = rng.uniform(5, 9)
        b = a * rng.uniform(0.6, 1)
        if centers and rng.random() < 1 / 3:
            y, x = centers[rng.integers(len(centers))]
            turn = rng.uniform(0, 2 * np.pi)
            y, x = y + 14 * np.sin(turn), x + 14 * np.cos(turn)
        else:
            y, x = rng.uniform(0, size, 2)
        top, left = int(y - a) - 1, int(x - a) - 1
        rows = np.arange(max(top, 0), min(int(y + a) + 2, size))
        columns = np.arange(max(left, 0), min(int(x + a) + 2, size))
        if not len(rows) or not len(columns):
            continue
        angle = rng.uniform(0, np.pi)
        dy, dx = rows[:, None] + 0.5 - y, columns[None, :] + 0.5 - x
        u, v = dx * np.cos(angle) + dy * np.sin(angle), dy * np.cos(angle) - dx * np.sin(angle)
        inside = (u / a) ** 2 + (v / b) ** 2 <= 1
        window = labels[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
        free = inside & (window == 0)
        if inside.sum() and free.sum() >= 0.75 * inside.sum():
            centers.append((y, x))
            window[free] = len(centers)
    return labels


def disturb(maps: NDArray[np.float32], seed: int = 1) -> NDArray[np.float32]:
    """Blur maps and add smooth noise, clipped to their range."""
    rng = np.random.default_rng(seed)
    out = np.empty_like(maps)
    for c, channel in enumerate(maps):
        noise = ndimage.gaussian_filter(rng.standard_normal(channel.shape).astype(np.float32), 2)
        blurred = ndimage.gaussian_filter(channel, 0.8) + 0.05 * noise / noise.std()
        out[c] = np.clip(blurred, channel.min(), 1)
    return out


def draw_image(labels: NDArray[np.int32], seed: int = 2) -> NDArray[np.uint8]:
    rng = np.random.default_rng(seed)
    color = np.where((labels > 0)[..., None], np.array([110, 70, 150]), np.array([225, 170, 205]))
    return np.clip(color + rng.normal(0, 12, (*labels.shape, 3)), 0, 255).astype(np.uint8)


def median_time(step: Callable[[], Any], repeats: int) -> dict[str, float]:
    step()
    wall, cpu = [], []
    for _ in range(repeats):
        w, c = time.perf_counter(), time.process_time()
        step()
        wall.append(time.perf_counter() - w)
        cpu.append(time.process_time() - c)
    return {
        "wall_s": round(statistics.median(wall), 4),
        "fastest_s": round(min(wall), 4),
        "cpu_s": round(statistics.median(cpu), 4),
    }


def time_scikit_image(
    maps: NDArray[np.float32], image: NDArray[np.uint8], settings: SeparationSettings
) -> dict[str, dict[str, float]]:
    """The usual way: marker watershed, regionprops_table, find_contours round each nucleus."""
    times = {}

    def timed(name: str, step: Callable[[], Any]) -> Any:
        w, c = time.perf_counter(), time.process_time()
        result = step()
        wall = time.perf_counter() - w
        times[name] = {
            "wall_s": round(wall, 4),
            "fastest_s": round(wall, 4),
            "cpu_s": round(time.process_time() - c, 4),
        }
        return result

    foreground, distance = maps

    def separate() -> Any:
        inside = foreground >= settings.foreground
        return watershed(-distance, label(inside & (distance >= settings.marker)), mask=inside)

    labels = timed("separation", separate)
    boxes = ndimage.find_objects(labels)

    def outline() -> None:
        for n, box in enumerate(boxes, 1):
            find_contours(np.pad(labels[box] == n, 1), 0.5)

    timed("outlines", outline)
    names = [
        "area",
        "centroid",
        "perimeter_crofton",
        "axis_major_length",
        "axis_minor_length",
        "eccentricity",
        "orientation",
        "solidity",
        "intensity_mean",
        "intensity_std",
    ]
    timed("morphology", lambda: regionprops_table(labels, hematoxylin(image), properties=names))
    return times


def main() -> None:
    parser = figures_parser(__doc__)
    parser.add_argument("-n", type=int, default=15, help="repeats of our steps (the peer runs once)")
    parser.add_argument("--density", type=int, default=5000, help="nuclei per mm²")
    parser.add_argument("--no-peer", action="store_true", help="leave scikit-image out")
    arguments = parser.parse_args()

    area = (SIZE * MPP / 1000) ** 2
    truth = draw_scene(round(arguments.density * area), SIZE)
    image = draw_image(truth)
    settings = SeparationSettings()
    rows: dict[str, dict[str, dict[str, float]]] = {}
    counts = {}
    for name in ("distance", "interior_boundary", "center_gradient"):
        way = REPRESENTATIONS[name]
        maps = disturb(way.encode(truth))
        labels = way.separate(maps, settings)
        probability = way.foreground(maps)
        outlines = trace(labels)

        def together(way=way, maps=maps) -> Nuclei:  # type: ignore[no-untyped-def]
            separated = way.separate(maps, settings)
            part = measure(separated, image, way.foreground(maps))
            return Nuclei.from_parts([part], shape=separated.shape, mpp=MPP, mpp_source="user")

        steps: dict[str, Callable[[], Any]] = {
            "separation": lambda way=way, maps=maps: way.separate(maps, settings),
            "outlines": lambda labels=labels: trace(labels),
            "morphology": lambda labels=labels, outlines=outlines, probability=probability: describe(
                moments(labels, outlines, image, probability), mpp=MPP
            ),
            "together": together,
        }
        rows[name] = {step: median_time(call, arguments.n) for step, call in steps.items()}
        counts[name] = int(labels.max())
        if name == "distance" and not arguments.no_peer:
            rows["scikit-image"] = time_scikit_image(maps, image, settings)
            rows["scikit-image"]["together"] = {
                key: round(sum(step[key] for step in rows["scikit-image"].values()), 4)
                for key in ("wall_s", "fastest_s", "cpu_s")
            }

    print(f"1 mm² at {MPP} µm/px, {int(truth.max())} nuclei; s per mm²; goal {GOAL} together")
    print(f"{'':20}{'step':14}{'wall':>9}{'fastest':>9}{'cpu':>9}{'found':>8}")
    for name, steps_of in rows.items():
        for step, times in steps_of.items():
            count = counts.get(name, "") if step == "together" else ""
            print(
                f"{name:20}{step:14}{times['wall_s'] / area:9.4f}{times['fastest_s'] / area:9.4f}"
                f"{times['cpu_s'] / area:9.4f}{count:>8}"
            )
    packages = ["hemalum", "numpy", "numba", "scikit-image", "shapely", "pyarrow"]
    write_record(
        arguments.output,
        "instances",
        packages,
        rows,
        nuclei=int(truth.max()),
        mm2=area,
        repeats=arguments.n,
    )


if __name__ == "__main__":
    main()
