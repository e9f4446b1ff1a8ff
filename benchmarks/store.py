"""The store of a slide's nuclei: writing, exports and windows, with a million made-up nuclei in 256 regions.

    python benchmarks/store.py -o benchmarks/results/store.json

Each step runs in a process of its own, whose largest memory is measured. Limits: GeoJSON within 30 s and 1 GB, a
window of a thousand nuclei within 20 ms. Beside it in the same run geopandas: GeoJSON of a tenth of the nuclei
(seconds times ten), and the same windows of one GeoParquet file.
"""

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from hemalum.data.annotations import read_objects
from hemalum.nuclei.store import NucleiStore, export_store, open_store
from record import figures_parser, peak_memory, write_record
from synthetic_nuclei import SPACING, synthetic_nuclei, synthetic_run

SIDE = 1536  # px of a region
WINDOW = int(SPACING * 1000**0.5)  # px of a window of a thousand nuclei
WINDOWS = 100
LIMITS = {"geojson_s": 30.0, "peak_mb": 1000.0, "window_ms": 20.0}


def write(path: Path, side: int) -> dict[str, Any]:
    store = NucleiStore.create(path, synthetic_run(side, side, SIDE))
    seconds = 0.0
    for region in store.missing():
        part = synthetic_nuclei(store.run, region)
        start = time.perf_counter()
        store.add(region, *part)
        seconds += time.perf_counter() - start
    start = time.perf_counter()
    store.finish()
    seconds += time.perf_counter() - start
    size = sum(file.stat().st_size for file in path.rglob("*.parquet"))
    return {"nuclei": store.count, "regions": side * side, "seconds": seconds, "mb": size / 1e6}


def export(path: Path, format: str) -> dict[str, Any]:
    small = NucleiStore.create(path.with_name("small.nuclei"), synthetic_run(1, 1, 96))
    if small.missing():
        small.add((0, 0), *synthetic_nuclei(small.run, (0, 0)))
        small.finish()
    warm = path.with_name(f"warm.{format}")
    if not warm.is_dir():
        export_store(small, format, warm)  # compiled loops are loaded
    start, cpu = time.perf_counter(), time.process_time()
    written = export_store(open_store(path), format)
    files = [written] if written.is_file() else [file for file in written.rglob("*") if file.is_file()]
    seconds, cpu_seconds = time.perf_counter() - start, time.process_time() - cpu
    return {"seconds": seconds, "cpu_seconds": cpu_seconds, "mb": sum(file.stat().st_size for file in files) / 1e6}


def read_back(path: Path) -> dict[str, Any]:
    start = time.perf_counter()
    count = sum(1 for _ in read_objects(path.with_suffix(".geojson")))
    return {"objects": count, "seconds": time.perf_counter() - start}


def time_windows(read: Callable[[int, int], int], height: int, width: int) -> dict[str, Any]:
    random = np.random.default_rng(0)
    milliseconds, counts = [], []
    for _ in range(WINDOWS):
        x, y = int(random.integers(0, width - WINDOW)), int(random.integers(0, height - WINDOW))
        start = time.perf_counter()
        counts.append(read(x, y))
        milliseconds.append(1000 * (time.perf_counter() - start))
    return {
        "nuclei": float(np.median(counts)),
        "first_ms": milliseconds[0],
        "median_ms": float(np.median(milliseconds)),
        "p90_ms": float(np.percentile(milliseconds, 90)),
    }


def windows(path: Path) -> dict[str, Any]:
    store = open_store(path)
    return time_windows(lambda x, y: int(store.window(x, y, WINDOW, WINDOW).num_rows), *store.run.shape)


def geopandas_windows(path: Path) -> dict[str, Any]:
    import geopandas

    file = path.with_suffix(".parquet")
    box = lambda x, y: (x, y, x + WINDOW, y + WINDOW)  # noqa: E731
    return time_windows(lambda x, y: len(geopandas.read_parquet(file, bbox=box(x, y))), *open_store(path).run.shape)


def geopandas_geojson(path: Path) -> dict[str, Any]:
    import geopandas

    frame = geopandas.read_parquet(path.with_suffix(".parquet"))
    tenth = frame.iloc[: len(frame) // 10].drop(columns="bbox", errors="ignore")
    start = time.perf_counter()
    tenth.to_file(path.with_name("peer.geojson"), driver="GeoJSON")
    return {"seconds_times_ten": 10 * (time.perf_counter() - start)}


STEPS: dict[str, Callable[[Path], dict[str, Any]]] = {
    "geojson": lambda path: export(path, "geojson"),
    "geojson.gz": lambda path: export(path, "geojson.gz"),
    "csv": lambda path: export(path, "csv"),
    "parquet": lambda path: export(path, "parquet"),
    "spatialdata": lambda path: export(path, "spatialdata"),
    "ome-zarr": lambda path: export(path, "ome-zarr"),
    "thumbnail": lambda path: export(path, "thumbnail"),
    "read back": read_back,
    "window": windows,
    "geopandas: geojson": geopandas_geojson,
    "geopandas: window": geopandas_windows,
}


def run_apart(step: str, path: Path, side: int) -> dict[str, Any]:
    command = [sys.executable, __file__, "--step", step, "--store", str(path), "--side", str(side)]
    figures: dict[str, Any] = json.loads(subprocess.run(command, check=True, capture_output=True).stdout)
    return figures


def main() -> None:
    parser = figures_parser(__doc__)
    parser.add_argument("--side", type=int, default=16, help="regions along each side of the slide")
    parser.add_argument("--step", help="one step of a store that is there (what the program calls itself with)")
    parser.add_argument("--store", type=Path)
    arguments = parser.parse_args()
    if arguments.step:
        step = arguments.step
        figures = write(arguments.store, arguments.side) if step == "write" else STEPS[step](arguments.store)
        print(json.dumps(figures | {"peak_mb": peak_memory() / 1e6}))
        return
    results: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as folder:
        for step in ("write", *STEPS):
            figures = results[step] = run_apart(step, Path(folder) / "slide.nuclei", arguments.side)
            print(f"{step:20}", *(f"{name} {value:,.1f}" for name, value in figures.items()), sep="  ", flush=True)
    kept = {
        "geojson_s": results["geojson"]["seconds"],
        "peak_mb": max(figures["peak_mb"] for step, figures in results.items() if "geopandas" not in step),
        "window_ms": results["window"]["median_ms"],
    }
    for name, limit in LIMITS.items():
        print(f"{name}: {kept[name]:.1f}, limit {limit:g}: {'kept' if kept[name] <= limit else 'BROKEN'}")
    write_record(arguments.output, "store", ["pyarrow", "numpy", "numba", "geopandas"], results, limits=LIMITS)


if __name__ == "__main__":
    main()
