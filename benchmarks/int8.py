"""What int8 gains and costs: time of the engine alone, and PQ on held-out images.

    python benchmarks/int8.py MODEL… --data data/tnbc [--split test] [--rounds 6] [-o int8.json]
    python benchmarks/int8.py accurate --ways --data data/tnbc --split val

Each model has an int8 form (`hemalum quantize`). Time is that of one window of a training image of the datasets, on
one thread, the precisions in turns: as ratios of medians to bf16, so that other work on the machine harms all alike.
PQ is the mean over images, `pq_pooled` over nuclei; `loss` is what int8 loses of each, `error` the standard error of
the first. With --ways (extra `int8`) the network is quantized again in other ways, each judged on the same images.
"""

import statistics
import time
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np

from hemalum.data.dataset import Dataset
from hemalum.experiments.evaluate import evaluate
from hemalum.experiments.quantize import training_windows
from hemalum.models.engines.engine import Engine, make_engine
from hemalum.models.engines.int8 import Window, quantize_network, quiet_nncf
from hemalum.models.engines.openvino import convert
from hemalum.models.model import Model, load_model
from record import figures_parser, write_record

BESIDE = "bf16"


def time_engines(engines: dict[str, Engine], windows: list[Window], rounds: int) -> dict[str, dict[str, float]]:
    """Median ms of each on one window, and how many times as fast as bf16 it is."""
    seconds: dict[str, list[float]] = {name: [] for name in engines}
    for _ in range(rounds):
        for images, organ in windows:
            for name, engine in engines.items():
                start = time.perf_counter()
                engine.maps(images, organ)
                seconds[name].append(time.perf_counter() - start)
    medians = {name: statistics.median(values) for name, values in seconds.items()}
    return {
        name: {"ms": round(1000 * value, 2), "times_as_fast": round(medians[BESIDE] / value, 2)}
        for name, value in medians.items()
    }


def score(model: Model, engine: Engine, dataset: Dataset, split: str) -> tuple[Any, float]:
    """PQ of each image, and pooled."""
    result = evaluate(model, dataset, split=split, engine=engine)
    pq = np.array([np.nan if row["pq"] is None else row["pq"] for row in result.per_image], float)
    return pq, float(result.summary["instance"]["pooled"]["pq"])


def compare(model: Model, engines: dict[str, Engine], dataset: Dataset, split: str) -> list[dict[str, Any]]:
    """One row for each engine but bf16, beside which it stands."""
    before, pooled_before = score(model, engines[BESIDE], dataset, split)
    rows = []
    for name, engine in engines.items():
        if name == BESIDE:
            continue
        pq, pooled = score(model, engine, dataset, split)
        loss = (before - pq)[~np.isnan(before - pq)]
        rows.append(
            {
                "model": model.card.name, "set": dataset.info.name, "split": split, "images": len(pq), "way": name,
                "pq": round(float(np.nanmean(before)), 4), "loss": round(float(loss.mean()), 4),
                "error": round(float(loss.std(ddof=1) / len(loss) ** 0.5), 4),
                "pq_pooled": round(pooled_before, 4), "loss_pooled": round(pooled_before - pooled, 4),
            }
        )  # fmt: skip
    return rows


def other_ways(model: Model, windows: list[Window]) -> dict[str, Model]:
    """The model quantized in other ways, by what is different."""
    layers = [
        op.get_friendly_name()
        for op in convert(model.card, model.tensors).get_ordered_ops()
        if op.get_type_name() == "Convolution" and op.get_friendly_name().startswith("__module")
    ]
    with quiet_nncf() as nncf:
        from nncf.quantization.range_estimator import RangeEstimatorParametersSet

        ways = {
            "as shipped": {},
            "widest ranges": {
                "advanced_parameters": nncf.AdvancedQuantizationParameters(
                    activations_range_estimator_params=RangeEstimatorParametersSet.MINMAX
                )
            },
            "asymmetric": {"preset": nncf.QuantizationPreset.MIXED},
            "quick bias correction": {"fast_bias_correction": True},
            "last layer in float": {"ignored_scope": nncf.IgnoredScope(names=layers[-1:])},
        }
    return {name: replace(model, int8=quantize_network(model, windows, **changes)) for name, changes in ways.items()}


def main() -> None:
    parser = figures_parser(__doc__)
    parser.add_argument("models", nargs="+")
    parser.add_argument("--data", action="append", required=True, help="dataset folder")
    parser.add_argument("--split", default="test")
    parser.add_argument("--rounds", type=int, default=6)
    parser.add_argument("--windows", type=int, default=200, help="of training images, to measure ranges on (--ways)")
    parser.add_argument("--ways", action="store_true", help="other ways to quantize, in the place of f32")
    arguments = parser.parse_args()
    datasets = [Dataset.open(path) for path in arguments.data]
    times, rows = {}, []
    for name in arguments.models:
        model = load_model(name)
        engine_of = partial(make_engine, "openvino", threads=1)
        engines = {BESIDE: engine_of(model, precision=BESIDE)}
        count = (arguments.windows if arguments.ways else 24) // len(datasets)
        windows = [
            window
            for dataset in datasets
            for window in training_windows(model, engines[BESIDE], dataset, count, lambda done, total: None)
        ]
        if arguments.ways:
            for way, quantized in other_ways(model, windows).items():
                engines[way] = engine_of(quantized, precision="int8")
        else:
            engines |= {precision: engine_of(model, precision=precision) for precision in ("f32", "int8")}
        times[name] = time_engines(engines, windows[:24] if arguments.ways else windows, arguments.rounds)
        print(name, times[name], flush=True)
        for dataset in datasets:
            for row in compare(model, engines, dataset, arguments.split):
                rows.append(row)
                print(" ".join(f"{key}={value}" for key, value in row.items()), flush=True)
    write_record(
        arguments.output, "int8", ["openvino", "numpy"], rows, times=times,
        made_by={name: stated.made_by for name in arguments.models if (stated := load_model(name).card.int8)},
    )  # fmt: skip


if __name__ == "__main__":
    main()
