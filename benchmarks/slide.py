"""Time and memory of segmenting a whole slide, all steps, beside StarDist on the same cores in the same run.

    python benchmarks/slide.py make DATASET… -o runs/slide.tif [--side 20480]
    python benchmarks/slide.py windows SLIDE [--model fast] [-o FILE]
    python benchmarks/slide.py run SLIDE… [--model fast] [--stardist ENV --labels DATASET] [--rounds 2] [-o FILE]

`make` writes a pyramidal TIFF of JPEG tiles at 0.25 µm per px, as scanners do: real tiles at their own scale side by
side on an ellipse, glass (a third of the slide) around it. `run` segments each slide in a process of its own, which
does nothing else: read, network, separation, store, GeoJSON and CSV. Seconds are per mm² of tissue as `find_tissue`
sees it; memory is the process's largest; `cpu` is the share of the cores' time that was used between the first and
the last finished cell. `network` is the engine alone on windows of the size of a tile, all of them full, per mm²
that a tile answers for.

`windows` times the engine alone by the size of the window, precisions in turns, per mm² of all windows and of what
tiles of that size answer for.

StarDist (Config2D of its H&E model: 32 rays, grid 2 x 2; weights at random, so the maps mean nothing) is given its
best case: windows of 1024 px at 0.5 µm per px from memory, network and NMS alone, and NMS on the maps that true
labels of a dataset give. ENV is a folder in which an environment is made at first use.
"""

import json
import os
import subprocess
import sys
import tempfile
import time
import venv
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
from numpy.typing import NDArray
from PIL import Image

from hemalum.data.dataset import Dataset
from hemalum.inference.plan import representation_of
from hemalum.models.engines.engine import Engine, make_engine
from hemalum.models.model import load_model
from hemalum.slides import find_tissue, open_slide
from record import argument_parser, processor, write_record

MPP = 0.25
TILE = 256
GLASS = 242
TISSUE_AXIS = 0.47  # half axes of the ellipse, of the slide's side: 69 % of it
STARDIST = ["stardist==0.9.2", "tensorflow-cpu>=2.16,<3"]
HERE = Path(__file__).resolve().parent


class Mosaic:
    """Real tiles side by side at MPP, on an ellipse within a square of `side` px."""

    def __init__(self, datasets: list[Dataset], side: int) -> None:
        self.side = side
        tiles = []
        for dataset in datasets:
            for sample in dataset:
                size = [round(length * sample.require_mpp() / MPP) for length in sample.image.shape[1::-1]]
                tiles.append(np.asarray(Image.fromarray(sample.image).resize(size, Image.Resampling.BICUBIC)))
        self.pitch = min(min(tile.shape[:2]) for tile in tiles)
        self.tiles = [tile[: self.pitch, : self.pitch] for tile in tiles]

    def read(self, y: int, x: int, height: int, width: int) -> NDArray[np.uint8]:
        """Pixels of a window, (height, width, 3) uint8; white beyond the square."""
        window = np.full((height, width, 3), GLASS, np.uint8)
        across = -(-self.side // self.pitch)
        for row in range(y // self.pitch, -(-(y + height) // self.pitch)):
            for column in range(x // self.pitch, -(-(x + width) // self.pitch)):
                number = row * across + column
                tile = self.tiles[number % len(self.tiles)]
                turn = number // len(self.tiles) % 4
                tile = tile[:: -1 if turn & 1 else 1, :: -1 if turn & 2 else 1]
                top, left = row * self.pitch - y, column * self.pitch - x
                part = window[max(top, 0) : top + self.pitch, max(left, 0) : left + self.pitch]
                part[...] = tile[max(-top, 0) :, max(-left, 0) :][: part.shape[0], : part.shape[1]]
        rows, columns = np.ogrid[y : y + height, x : x + width]
        middle, axis = self.side / 2, self.side * TISSUE_AXIS
        outside = ((rows - middle) / axis) ** 2 + ((columns - middle) / axis) ** 2 > 1
        window[outside] = GLASS
        return window

    def tiles_of(self, factor: int) -> Iterator[NDArray[np.uint8]]:
        """The tiles of a level whose pixels are means of `factor` by `factor`, row by row."""
        step = TILE * factor
        for y in range(0, self.side, step):
            for x in range(0, self.side, step):
                pixels = self.read(y, x, step, step)
                if factor > 1:
                    blocks = pixels.reshape(TILE, factor, TILE, factor, 3).mean(axis=(1, 3), dtype=np.float32)
                    pixels = np.rint(blocks).astype(np.uint8)
                yield pixels


def make_slide(datasets: list[Dataset], path: Path, side: int) -> None:
    """Write the pyramid, level by level; memory does not grow with the slide."""
    mosaic = Mosaic(datasets, side)
    factors = [factor for factor in (1, 4, 16) if side // factor >= TILE]
    options: dict[str, Any] = {
        "tile": (TILE, TILE), "photometric": "rgb", "compression": "jpeg", "compressionargs": {"level": 85},
        "dtype": np.uint8, "metadata": None, "resolutionunit": "CENTIMETER",
    }  # fmt: skip
    with tifffile.TiffWriter(path, bigtiff=True) as writer:
        for number, factor in enumerate(factors):
            writer.write(
                mosaic.tiles_of(factor), shape=(side // factor, side // factor, 3),
                subifds=len(factors) - 1 if not number else 0, subfiletype=1 if number else 0,
                resolution=(1e4 / MPP / factor, 1e4 / MPP / factor), **options,
            )  # fmt: skip
            print(f"level {number}: {side // factor} px", flush=True)


RUN = """
import json, sys, time, resource
from pathlib import Path
import hemalum
from hemalum.nuclei.store import export_store
from record import peak_memory
slide, model, out = sys.argv[1:]
start = time.perf_counter()
marks = []
mark = lambda share: marks.append((time.perf_counter(), time.process_time()))
store = hemalum.segment_slide(slide, out, model, on_progress=mark)
segmented = time.perf_counter() - start
for form in ("geojson", "csv"):
    export_store(store, form)
print(json.dumps({
    "seconds": time.perf_counter() - start, "segment_seconds": segmented, "nuclei": store.count,
    "peak_mib": round(peak_memory() / 2**20), "tissue_mm2": store.notes["tissue_mm2"],
    "cpu_seconds": marks[-1][1] - marks[0][1], "wall_seconds": marks[-1][0] - marks[0][0],
}))
"""


def segment(slide: Path, model: str) -> dict[str, Any]:
    """One run in a process of its own."""
    cores = len(os.sched_getaffinity(0))
    with tempfile.TemporaryDirectory() as folder:
        done = subprocess.run(
            [sys.executable, "-c", RUN, str(slide), model, folder], cwd=HERE, capture_output=True, text=True,
            check=False,
        )  # fmt: skip
    if done.returncode:
        raise SystemExit(f"error: {slide}, {model}: {done.stderr[-2000:]}")
    row: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    area = row["tissue_mm2"]
    return {
        "slide": slide.name,
        "model": model,
        "s_per_mm2": round(row["seconds"] / area, 4),
        "segment_s_per_mm2": round(row["segment_seconds"] / area, 4),
        "cpu": round(row["cpu_seconds"] / row["wall_seconds"] / cores, 3),
        **{key: row[key] for key in ("peak_mib", "nuclei", "tissue_mm2")},
    }


def time_network(engine: Engine, mpp: float, slide: Path, window: int = 256) -> float:
    """Seconds per mm² of the engine alone: windows of 4 megapixels of tissue in the middle of the slide, twice."""
    opened = open_slide(slide)
    side = 2048
    left, top = (round((length * MPP / mpp - side) / 2) for length in opened.shape[::-1])
    shape = round(opened.shape[0] * MPP / mpp), round(opened.shape[1] * MPP / mpp)
    field = opened.read_scaled(shape, slice(top, top + side), slice(left, left + side))
    starts = range(0, side - window + 1, window)
    crops = [field[None, y : y + window, x : x + window] for y in starts for x in starts]
    with ThreadPoolExecutor(engine.parallel) as pool:
        list(pool.map(engine.maps, crops))
        start = time.perf_counter()
        list(pool.map(engine.maps, crops + crops))
        seconds = time.perf_counter() - start
    return seconds / (2 * len(crops) * (window * mpp) ** 2 / 1e6)


def time_windows(arguments: Any) -> None:
    """The table of windows, and the record."""
    rows = []
    for name in arguments.model or ["fast", "accurate"]:
        model = load_model(name)
        engines = [make_engine("openvino", model, precision=precision) for precision in ("int8", "bf16")]
        halo = min(model.card.halo, model.card.tiling.halo) + representation_of(model).reach
        for window in (256, 320, 384, 512, 640):
            for engine in engines:
                seconds = time_network(engine, model.card.mpp, arguments.slide, window)
                row = {"model": name, "precision": engine.precision, "window": window, "s_per_mm2": round(seconds, 4)}
                row["s_per_mm2_of_cores"] = round(seconds * (window / (window - 2 * halo)) ** 2, 4)
                rows.append(row)
                print(row, flush=True)
    write_record(arguments.output, "slide_windows", ["openvino", "numpy"], rows, processor=processor())


STARDIST_RUN = """
import json, sys, time
import numpy as np
from stardist.models import Config2D, StarDist2D
from stardist import star_dist
from stardist.nms import non_maximum_suppression
from scipy.ndimage import distance_transform_edt, find_objects
data = np.load(sys.argv[1])
model = StarDist2D(Config2D(n_rays=32, grid=(2, 2), n_channel_in=3), name=None, basedir=None)
maps = []
for labels in data["labels"]:
    edt = np.zeros(labels.shape, np.float32)
    for k, box in enumerate(find_objects(labels), start=1):
        if box is not None:
            inside = labels[box] == k
            distance = distance_transform_edt(np.pad(inside, 1))[1:-1, 1:-1]
            edt[box][inside] = (distance / distance.max())[inside]
    maps.append((edt[::2, ::2], star_dist(labels, 32)[::2, ::2]))
model.predict(data["images"][0] / np.float32(255))
start = time.perf_counter()
for image in data["images"]:
    model.predict(image / np.float32(255))
network = time.perf_counter() - start
start = time.perf_counter()
found = sum(len(non_maximum_suppression(d, p, grid=(2, 2), prob_thresh=0.5, nms_thresh=0.4)[0]) for p, d in maps)
print(json.dumps({"network": network, "nms": time.perf_counter() - start, "nuclei": found}))
"""


def time_stardist(environment: Path, datasets: list[Dataset], windows: int = 12) -> dict[str, Any]:
    """Seconds per mm² of StarDist's network and NMS on windows of 1024 px at 0.5 µm per px."""
    python = environment / "bin" / "python"
    if not python.exists():
        venv.create(environment, with_pip=True)
        subprocess.run([python, "-m", "pip", "install", "-q", *STARDIST], check=True)
    side, mpp = 1024, 0.5
    images = np.full((windows, side, side, 3), GLASS, np.uint8)
    labels = np.zeros((windows, side, side), np.int32)
    samples = [sample for dataset in datasets for sample in dataset]
    number = 0
    for window in range(windows):  # fields side by side
        y = 0
        while y < side:
            x = tall = 0
            while x < side:
                sample = samples[number % len(samples)]
                number += 1
                size = [round(length * sample.require_mpp() / mpp) for length in sample.image.shape[1::-1]]
                field = np.asarray(Image.fromarray(sample.image).resize(size, Image.Resampling.BILINEAR))
                ids = np.asarray(Image.fromarray(sample.instances).resize(size, Image.Resampling.NEAREST))
                part = images[window, y : y + size[1], x : x + size[0]]
                part[...] = field[: part.shape[0], : part.shape[1]]
                ids = np.where(ids > 0, ids + labels[window].max(), 0)
                labels[window, y : y + size[1], x : x + size[0]] = ids[: part.shape[0], : part.shape[1]]
                x, tall = x + size[0], max(tall, size[1])
            y += tall
    with tempfile.TemporaryDirectory() as folder:
        np.savez(Path(folder) / "fields.npz", images=images, labels=labels)
        done = subprocess.run(
            [python, "-c", STARDIST_RUN, str(Path(folder) / "fields.npz")],
            capture_output=True, text=True, check=False,
        )  # fmt: skip
    if done.returncode:
        raise SystemExit(f"error: StarDist: {done.stderr[-2000:]}")
    row = json.loads(done.stdout.splitlines()[-1])
    area = windows * (side * mpp) ** 2 / 1e6
    return {
        "model": "stardist",
        "network_s_per_mm2": round(row["network"] / area, 4),
        "nms_s_per_mm2": round(row["nms"] / area, 4),
        "s_per_mm2": round((row["network"] + row["nms"]) / area, 4),
        "nuclei": row["nuclei"],
    }


def run(arguments: Any) -> None:
    """Rounds in turns; the table, and the record."""
    rows: list[dict[str, Any]] = []
    models = arguments.model or ["fast", "accurate"]
    for number in range(arguments.rounds):
        if arguments.stardist is not None:
            labels = [Dataset.open(path) for path in arguments.labels]
            rows.append({"round": number} | time_stardist(arguments.stardist, labels))
            print(rows[-1], flush=True)
        for model in models:
            for slide in arguments.slides:
                loaded = load_model(model)
                network = time_network(make_engine("auto", loaded), loaded.card.mpp, slide)
                row = {"round": number} | segment(slide, model) | {"network_s_per_mm2": round(network, 4)}
                rows.append(row)
                print(row, flush=True)
    ratios = {}
    for model in models:
        mine = [row["s_per_mm2"] for row in rows if row["model"] == model]
        others = [row["s_per_mm2"] for row in rows if row["model"] == "stardist"]
        if others:
            ratios[model] = round(float(np.median(others) / np.median(mine)), 2)
            print(f"{model}: {ratios[model]} times as fast as StarDist", flush=True)
    shares = {path.name: round(find_tissue(open_slide(path)).share, 3) for path in arguments.slides}
    write_record(
        arguments.output, "slide", ["openvino", "numpy", "numba", "tifffile"], rows, tissue_share=shares,
        times_as_fast_as_stardist=ratios, stardist=STARDIST, processor=processor(),
    )  # fmt: skip


def main() -> None:
    parser = argument_parser(__doc__)
    verbs = parser.add_subparsers(dest="verb", required=True)
    making, running, sizing = verbs.add_parser("make"), verbs.add_parser("run"), verbs.add_parser("windows")
    sizing.add_argument("slide", type=Path)
    sizing.add_argument("--model", action="append", default=[])
    sizing.add_argument("-o", "--output", type=Path, default=Path("slide_windows.json"))
    making.add_argument("datasets", nargs="+", type=Path)
    making.add_argument("-o", "--output", type=Path, required=True)
    making.add_argument("--side", type=int, default=20_480, help="px; a multiple of 4096")
    running.add_argument("slides", nargs="+", type=Path)
    running.add_argument("--model", action="append", default=[])
    running.add_argument("--stardist", type=Path, metavar="ENV")
    running.add_argument("--labels", type=Path, action="append", default=[], help="datasets, for StarDist's NMS")
    running.add_argument("--rounds", type=int, default=2)
    running.add_argument("-o", "--output", type=Path, default=Path("slide.json"))
    arguments = parser.parse_args()
    if arguments.verb == "make":
        make_slide([Dataset.open(path) for path in arguments.datasets], arguments.output, arguments.side)
    elif arguments.verb == "windows":
        time_windows(arguments)
    else:
        run(arguments)


if __name__ == "__main__":
    main()
