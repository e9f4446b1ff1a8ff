"""Seconds per mm² of `hemalum segment`, all steps included, beside the network alone and PyTorch eager.

The image is a mosaic of real tiles at 0.5 µm per px, in a TIFF of JPEG tiles on disk, as scanners write it. "All
steps" is opening and reading it, the network, separation, measuring, and writing GeoJSON and CSV. "Network alone"
is the same engine on windows without halo, of the best of a few shapes, with nothing else done. Peak memory is
that of a child process which does one run and nothing more.

    python benchmarks/throughput.py MODEL TILES [--engine openvino] [--json FILE]

TILES is a dataset folder as `hemalum import` writes it, whose images have an mpp.
"""

import argparse
import statistics
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
from numpy.typing import NDArray
from PIL import Image

from hemalum.data.dataset import Dataset
from hemalum.inference.batch import segment_paths
from hemalum.models.engines.engine import Engine, make_engine
from hemalum.models.model import Model, load_model
from record import argument_parser, peak_memory, write_record

MPP = 0.5
SIDES = (4096, 8192)
SHAPES = ((256, 256), (512, 512), (1024, 1024), (1024, 2048), (2048, 2048))


def join_tiles(dataset: Dataset, side: int) -> NDArray[np.uint8]:
    """Real tiles at MPP side by side, (side, side, 3); every repetition of the set is mirrored another way."""
    tiles = []
    for sample in dataset:
        if sample.mpp is None:
            raise SystemExit(f"{dataset.path}: sample {sample.id} has no mpp")
        size = [round(length * sample.mpp / MPP) for length in sample.image.shape[1::-1]]
        tiles.append(np.asarray(Image.fromarray(sample.image).resize(size, Image.Resampling.BILINEAR)))
    high, wide = min(t.shape[0] for t in tiles), min(t.shape[1] for t in tiles)
    down, across = -(-side // high), -(-side // wide)
    picture = np.empty((down * high, across * wide, 3), np.uint8)
    for index in range(down * across):
        row, column = divmod(index, across)
        tile = tiles[index % len(tiles)][:high, :wide]
        turn = index // len(tiles) % 4
        tile = tile[:: -1 if turn & 1 else 1, :: -1 if turn & 2 else 1]
        picture[row * high : (row + 1) * high, column * wide : (column + 1) * wide] = tile
    return picture[:side, :side]


def time_all_steps(path: Path, model: Model, engine: Engine, rounds: int) -> tuple[list[float], int]:
    """Seconds of each round, and the nuclei found."""
    seconds, count = [], 0
    for _ in range(rounds):
        with tempfile.TemporaryDirectory() as out:
            start = time.perf_counter()
            (result,) = segment_paths([path], out, ["geojson", "csv"], model, mpp=MPP, engine=engine)
            seconds.append(time.perf_counter() - start)
            if result.nuclei is None:
                raise SystemExit(result.error)
            count = result.nuclei.count
    return seconds, count


def time_network(picture: NDArray[np.uint8], engine: Engine, mpp: float, rounds: int) -> dict[str, float]:
    """Seconds per mm² by window shape: windows side by side, no halo, `parallel` of them at once.

    The pixels are taken to be at the model's own `mpp`; what is in them does not matter to the network.
    """
    result = {}
    for high, wide in SHAPES:
        windows = [
            np.ascontiguousarray(picture[None, y : y + high, x : x + wide])
            for y in range(0, min(len(picture), 2048) - high + 1, high)
            for x in range(0, picture.shape[1] - wide + 1, wide)
        ]
        seconds = []
        with ThreadPoolExecutor(engine.parallel) as pool:
            list(pool.map(engine.maps, windows[: 2 * engine.parallel]))
            for _ in range(rounds):
                start = time.perf_counter()
                for _maps in pool.map(engine.maps, windows):
                    pass
                seconds.append(time.perf_counter() - start)
        area = len(windows) * high * wide * mpp**2 / 1e6
        result[f"{high}x{wide}"] = statistics.median(seconds) / area
    return result


def measure_peak(model: str, path: Path, engine: str, precision: str | None) -> float:
    """GB at the peak of a process that segments `path` once."""
    command = [sys.executable, __file__, "--child", str(path), model, "-", "--engine", engine]
    command += [] if precision is None else ["--precision", precision]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return float(done.stdout.split()[-1]) / 1e9


def segment_once(path: Path, model: str, engine: str, precision: str | None) -> None:
    """One run, then the peak in bytes."""
    with tempfile.TemporaryDirectory() as out:
        for result in segment_paths(
            [path], out, ["geojson", "csv"], model, mpp=MPP, engine=engine, precision=precision
        ):
            if result.error:
                raise SystemExit(result.error)
    print(peak_memory())


def main() -> None:
    parser = argument_parser(__doc__)
    parser.add_argument("model", help="model file or name of a shipped model")
    parser.add_argument("tiles", help="dataset folder with real tiles")
    parser.add_argument("--engine", default="openvino")
    parser.add_argument("--precision", help="f32 or bf16; default: the engine's own choice")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--no-memory", action="store_true", help="leave the memory runs out")
    parser.add_argument("--no-torch", action="store_true", help="leave PyTorch eager out")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--child", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child:
        segment_once(arguments.child, arguments.model, arguments.engine, arguments.precision)
        return

    model = load_model(arguments.model)
    dataset = Dataset.open(arguments.tiles)
    engine = make_engine(arguments.engine, model, precision=arguments.precision)
    result: dict[str, Any] = {"model": model.card.name, "digest": model.digest, "data": dataset.split_hash}
    with tempfile.TemporaryDirectory() as folder:
        paths = {side: Path(folder) / f"mosaic{side}.tif" for side in SIDES}
        for side, path in paths.items():
            picture = join_tiles(dataset, side)
            tifffile.imwrite(
                path, picture, photometric="rgb", tile=(256, 256), compression="jpeg", compressionargs={"level": 90}
            )
            if side == SIDES[0]:
                first = picture
        del picture
        area = (SIDES[0] * MPP) ** 2 / 1e6
        time_all_steps(paths[SIDES[0]], model, engine, 1)  # numba compiles or loads
        # what is compared is measured in turn, so that a busy machine harms both
        seconds, count = time_all_steps(paths[SIDES[0]], model, engine, arguments.rounds)
        network_seconds = time_network(first, engine, model.card.mpp, arguments.rounds)
        later, _ = time_all_steps(paths[SIDES[0]], model, engine, arguments.rounds)
        result |= {
            "engine": f"{engine.name} {engine.precision}",
            "nuclei_per_mm2": count / area,
            "all_steps_s_per_mm2": statistics.median(seconds + later) / area,
            "network_alone_s_per_mm2": network_seconds,
        }
        best = min(network_seconds.values())
        result["ratio"] = result["all_steps_s_per_mm2"] / best
        rows = [
            ("all steps", result["all_steps_s_per_mm2"]),
            (f"network alone ({min(network_seconds, key=network_seconds.__getitem__)})", best),
        ]
        if not arguments.no_torch:
            eager = time_network(first, make_engine("torch", model, device="cpu"), model.card.mpp, 1)
            result["torch_eager_s_per_mm2"] = eager
            rows.append((f"PyTorch eager f32 ({min(eager, key=eager.__getitem__)})", min(eager.values())))
        print(f"{model.card.name}, {result['engine']}, {SIDES[0]} x {SIDES[0]} px, {count / area:.0f} nuclei per mm²")
        for name, value in rows:
            print(f"  {name:36s} {value:7.3f} s/mm²   {value / best:5.2f} x network alone")
        if not arguments.no_memory:
            del first
            result["peak_memory_gb"] = {
                side: measure_peak(arguments.model, path, arguments.engine, arguments.precision)
                for side, path in paths.items()
            }
            for side, value in result["peak_memory_gb"].items():
                print(f"  peak memory at {side} x {side:<21d} {value:7.2f} GB")
    packages = ["hemalum", "numpy", "numba", "torch", "openvino", "tifffile"]
    write_record(arguments.json, "throughput", packages, result)


if __name__ == "__main__":
    main()
