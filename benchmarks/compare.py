"""What `hemalum compare` costs beside the trainings and evaluations that it is there for.

    python benchmarks/compare.py --data data/tnbc [--recipe unet] [--seeds 2] [-o benchmarks/results/compare.json]

Runs a comparison in a temporary folder and takes the time of its parts: `train` and `evaluate` as they would be
without it, and the rest: plan, cost of each method (once), label maps and curves that are kept, report.
"""

import tempfile
import time
from collections import Counter
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Any

from hemalum.experiments import compare as compare_module
from hemalum.experiments import execute
from hemalum.experiments.execute import Resources
from hemalum.reports.comparison import page as report
from record import figures_parser, write_record

LIMIT = 0.02  # of the time spent in training


def main() -> None:
    parser = figures_parser(__doc__)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--recipe", default="unet")
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--crops", type=int)
    arguments = parser.parse_args()

    seconds: Counter[str] = Counter()

    def timed(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        @wraps(function)
        def run(*args: Any, **options: Any) -> Any:
            start = time.perf_counter()
            try:
                return function(*args, **options)
            finally:
                seconds[name] += time.perf_counter() - start

        return run

    # timed from outside: `compare` itself stays free of clocks, and the counting of curves has no public name
    execute.train = timed("train", execute.train)  # type: ignore[assignment]
    execute.evaluate = timed("evaluate", execute.evaluate)  # type: ignore[assignment]
    execute.write_label_map = timed("label maps", execute.write_label_map)
    execute._Recorder._count = timed("curves", execute._Recorder._count)  # type: ignore[method-assign]
    compare_module.measure_cost = timed("cost of methods", compare_module.measure_cost)
    compare_module.Plan.start = timed("plan", compare_module.Plan.start)  # type: ignore[method-assign]
    with tempfile.TemporaryDirectory() as folder:
        start = time.perf_counter()
        done, failed = compare_module.compare(
            [arguments.recipe], [arguments.data], Path(folder) / "out", seeds=arguments.seeds, budget="small",
            crops=arguments.crops, resources=Resources(),
        )  # fmt: skip
        timed("report", report.write_comparison)(done)
        total = time.perf_counter() - start
    if failed:
        raise SystemExit(f"failed: {failed}")
    kept = seconds["label maps"] + seconds["curves"]  # inside evaluate, but only for the comparison
    overhead = total - seconds["train"] - (seconds["evaluate"] - kept)
    rows = [
        {"part": name, "seconds": value, "share_of_training": value / seconds["train"]}
        for name, value in [*seconds.items(), ("overhead in all", overhead), ("total", total)]
    ]
    for row in rows:
        print(f"{row['part']:18}{row['seconds']:9.2f} s{row['share_of_training']:9.2%}")
    untimed = {"train", "evaluate", "label maps", "curves", "cost of methods", "plan", "report"} - set(seconds)
    if untimed:
        raise SystemExit(f"not called, so not timed: {', '.join(sorted(untimed))}")
    share = overhead / seconds["train"]
    print(f"overhead {share:.2%} of the training time, limit {LIMIT:.0%}: {'met' if share <= LIMIT else 'MISSED'}")
    write_record(
        arguments.output, "compare", ["hemalum", "torch", "openvino"], rows,
        overhead=share, limit=LIMIT, recipe=arguments.recipe, seeds=arguments.seeds,
        data={name: data["digest"] for name, data in done.description["datasets"].items()},
    )  # fmt: skip


if __name__ == "__main__":
    main()
