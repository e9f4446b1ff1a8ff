"""Whether the probabilities of models hold: calibration error and log loss of pixels, before and at a temperature.

    python benchmarks/calibration.py DATASET… [--model accurate --model fast --model typed] [--engine openvino]
        [--threads N] [-o FILE]

The temperature is fitted on the validation images, and looked at on the test images. `curve` is the reliability
curve there: mean probability, share that is nucleus, and pixels, of each of 15 equal bins.
"""

from pathlib import Path
from typing import Any

from hemalum.data.dataset import Dataset
from hemalum.experiments.measurement import measure
from hemalum.inference.segment import as_engine
from hemalum.metrics import (
    ProbabilityCounts,
    calibration_error,
    fit_temperature,
    negative_log_likelihood,
    reliability,
)
from hemalum.models.engines.engine import Engine
from hemalum.models.model import Model, load_model
from record import figures_parser, write_record


def pixels(model: Model, part: Dataset, engine: Engine) -> ProbabilityCounts:
    """The pixels of all images of a part by probability, without ambiguous ones."""
    measured = measure(model, part, engine, leave_out_ambiguous=True)
    return ProbabilityCounts(measured.positive.sum(axis=0), measured.negative.sum(axis=0))


def row(name: str, dataset: Dataset, engine: str, threads: int | None) -> dict[str, Any]:
    """One model on one dataset."""
    model = load_model(name)
    runner = as_engine(engine, model, threads=threads)
    val, test = (dataset.split(part) for part in ("val", "test"))
    temperature = fit_temperature(pixels(model, val, runner))
    counts = pixels(model, test, runner)
    best = fit_temperature(counts)
    curve = reliability(counts)
    return {
        "model": name,
        "dataset": dataset.info.name,
        "images": [len(val), len(test)],
        "engine": f"{runner.name} {runner.precision}",
        "temperature": round(temperature, 3),
        "temperature_of_test": round(best, 3),
        "ece": round(calibration_error(counts), 4),
        "ece_at_temperature": round(calibration_error(counts, temperature=temperature), 4),
        "nll": round(negative_log_likelihood(counts), 4),
        "nll_at_temperature": round(negative_log_likelihood(counts, temperature), 4),
        "curve": {
            "predicted": [round(float(value), 4) for value in curve.predicted],
            "observed": [round(float(value), 4) for value in curve.observed],
            "pixels": curve.count.tolist(),
        },
    }


def main() -> None:
    """Print the table, and write it as JSON."""
    parser = figures_parser(__doc__)
    parser.add_argument("datasets", nargs="+", type=Path)
    parser.add_argument("--model", action="append")
    parser.add_argument("--engine", default="openvino")
    parser.add_argument("--threads", type=int)
    arguments = parser.parse_args()
    rows = []
    for name in arguments.model or ["accurate", "fast", "typed"]:
        for path in arguments.datasets:
            rows.append(row(name, Dataset.open(path), arguments.engine, arguments.threads))
            print(" ".join(f"{key}={value}" for key, value in rows[-1].items() if key != "curve"), flush=True)
    write_record(arguments.output, "calibration", ["hemalum", "openvino", "torch"], rows, threads=arguments.threads)


if __name__ == "__main__":
    main()
