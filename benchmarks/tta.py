"""What `--tta` and `--shifts` cost and give: seconds per image and mean PQ with them and without, in the same run.

    python benchmarks/tta.py DATASET… [--model accurate --model fast] [--split test] [--engine openvino] [--threads N]
        [--json FILE]

Each image is segmented in each way, one right after the other, so that all meet the machine as it is.
"""

import statistics
import time
from pathlib import Path
from typing import Any

from hemalum.data.dataset import Dataset
from hemalum.inference.segment import as_engine, segment_source
from hemalum.inference.shifts import COUNTS
from hemalum.metrics import match, measure_overlap
from hemalum.models.engines.engine import make_engine
from hemalum.models.model import load_model
from hemalum.slides.slide import Slide
from record import argument_parser, write_record


def measure(name: str, dataset: Dataset, split: str, engine: str, threads: int | None) -> dict[str, Any]:
    """All ways on a part: mean PQ per image, median seconds, and the ratio of the seconds of each image."""
    model = load_model(name)
    plain = make_engine(engine, model, threads=threads)
    ways = {"plain": plain, "tta": as_engine(plain, model, tta=True)}
    ways |= {f"shifts_{count}": as_engine(plain, model, shifts=count) for count in COUNTS[1:]}
    quality: dict[str, list[float]] = {way: [] for way in ways}
    seconds: dict[str, list[float]] = {way: [] for way in ways}
    for index, sample in enumerate(dataset.split(split)):
        for way, runner in ways.items():
            with Slide.of(sample.image) as source:
                if not index:  # the first call may load and compile
                    segment_source(source, model, runner, mpp=sample.mpp)
                start = time.perf_counter()
                nuclei = segment_source(source, model, runner, mpp=sample.mpp)
                seconds[way].append(time.perf_counter() - start)
            quality[way].append(match(measure_overlap(sample.instances, nuclei.label_map())).pq)
    ratios = {
        way: statistics.median(one / plain for one, plain in zip(values, seconds["plain"], strict=True))
        for way, values in seconds.items()
    }
    return {
        "model": name,
        "dataset": dataset.info.name,
        "split": split,
        "images": len(seconds["plain"]),
        "engine": f"{plain.name} {plain.precision}",
        **{f"pq_{way}": round(statistics.fmean(values), 4) for way, values in quality.items()},
        **{f"seconds_{way}": round(statistics.median(values), 4) for way, values in seconds.items()},
        **{f"ratio_{way}": round(ratio, 2) for way, ratio in ratios.items() if way != "plain"},
    }


def main() -> None:
    """Print the table, and write it as JSON."""
    parser = argument_parser(__doc__)
    parser.add_argument("datasets", nargs="+", type=Path)
    parser.add_argument("--model", action="append")
    parser.add_argument("--split", default="test")
    parser.add_argument("--engine", default="openvino")
    parser.add_argument("--threads", type=int)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    rows = []
    for name in arguments.model or ["accurate", "fast"]:
        for path in arguments.datasets:
            rows.append(measure(name, Dataset.open(path), arguments.split, arguments.engine, arguments.threads))
            print(" ".join(f"{key}={value}" for key, value in rows[-1].items()), flush=True)
    write_record(arguments.json, "tta", ["hemalum", "openvino", "torch"], rows, threads=arguments.threads)


if __name__ == "__main__":
    main()
