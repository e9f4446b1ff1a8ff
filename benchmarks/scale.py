"""How far `--mpp auto` is off on images whose scale is known.

    python benchmarks/scale.py MODEL DATASET… [--split test] [--factors 1,0.5,2] [--json FILE]

DATASET is a dataset folder as `hemalum import` writes it; images whose mpp came from nuclei are left out, they
would be compared with themselves. Each image is also given shrunk or enlarged by the factors, so that one set
says something about other scales. Printed per set and factor: the median of |log2(estimate / truth)|, as a
factor, the share of images within 20 %, within a factor of 1.5, and the share where nothing could be said.
"""

import math
import statistics
import time
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from hemalum.data.dataset import Dataset
from hemalum.errors import HemalumError
from hemalum.inference.scale import estimate_mpp
from hemalum.inference.segment import as_engine
from hemalum.models.model import load_model
from hemalum.slides.slide import Slide
from inputs import choose_evenly
from record import argument_parser, write_record


def main() -> None:
    parser = argument_parser(__doc__)
    parser.add_argument("model", help="model file or name of a shipped model")
    parser.add_argument("datasets", nargs="+", type=Path)
    parser.add_argument("--split", default="test", help="part of each set, or 'all'")
    parser.add_argument("--factors", default="1", help="sizes that images are given at, comma-separated")
    parser.add_argument("--images", type=int, default=0, help="at most so many of each set, evenly spread")
    parser.add_argument("--engine", default="auto")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()

    model = load_model(arguments.model)
    engine = as_engine(arguments.engine, model)
    rows: list[dict[str, Any]] = []
    print("set                  factor images  off by   bias   20 %   x1.5   none")
    for folder in arguments.datasets:
        dataset = Dataset.open(folder)
        if arguments.split != "all":
            dataset = dataset.split(arguments.split)
        known = [i for i, row in enumerate(dataset.rows) if row.mpp and row.mpp_source != "nuclei"]
        if arguments.images:
            known = [known[int(i)] for i in choose_evenly(len(known), arguments.images)]
        for factor in (float(text) for text in arguments.factors.split(",")):
            factor_rows = []
            for index in known:
                sample = dataset[index]
                size = [round(length * factor) for length in sample.image.shape[1::-1]]
                image = Image.fromarray(sample.image)
                pixels = np.asarray(image.resize(size, Image.Resampling.BICUBIC) if factor != 1 else image)
                truth = float(sample.mpp) / factor
                start = time.perf_counter()
                row = {"set": folder.name, "id": sample.id, "organ": sample.organ, "factor": factor, "truth": truth}
                try:
                    estimate = estimate_mpp(Slide.of(pixels, name=sample.id), model, engine)
                    row |= {"mpp": estimate.mpp, "nuclei": estimate.nuclei, "confidence": estimate.confidence}
                except HemalumError as error:
                    row |= {"mpp": None, "error": str(error)}
                row["seconds"] = time.perf_counter() - start
                factor_rows.append(row)
            rows += factor_rows
            report(folder.name, factor, factor_rows)
    packages = ["hemalum", "torch", "openvino"]
    write_record(arguments.json, "scale", packages, rows, model=model.card.name, digest=model.digest)


def report(name: str, factor: float, rows: list[dict[str, Any]]) -> None:
    """Print one line of the table."""
    errors = [math.log2(row["mpp"] / row["truth"]) for row in rows if row["mpp"]]
    if not errors:
        print(f"{name:20s} {factor:6.2f} {len(rows):6d}   nothing estimated")
        return
    median = statistics.median(abs(value) for value in errors)
    bias = statistics.median(errors)
    near = [sum(abs(value) <= math.log2(limit) for value in errors) / len(rows) for limit in (1.2, 1.5)]
    none = 1 - len(errors) / len(rows)
    print(
        f"{name:20s} {factor:6.2f} {len(rows):6d} {2**median:6.2f}x {2**bias:5.2f}x "
        f"{near[0]:6.0%} {near[1]:6.0%} {none:6.0%}",
        flush=True,
    )


if __name__ == "__main__":
    main()
