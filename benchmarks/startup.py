"""Time that a user waits before anything happens: `import hemalum` and `hemalum --help`.

    python benchmarks/startup.py [-n 15] [-o startup.json]

Each figure is the median over fresh processes, beside an interpreter that does nothing, in the same run.
"""

import statistics
import subprocess
import sys
import time

from record import figures_parser, write_record

CASES = {
    "python, nothing": ([sys.executable, "-c", "pass"], None),
    "import hemalum": ([sys.executable, "-c", "import hemalum"], 0.3),
    "hemalum --version": ([sys.executable, "-m", "hemalum", "--version"], 0.5),
    "hemalum --help": ([sys.executable, "-m", "hemalum", "--help"], 0.5),
    "hemalum segment --help": ([sys.executable, "-m", "hemalum", "segment", "--help"], 0.5),
}


def time_command(command: list[str]) -> float:
    start = time.perf_counter()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - start


def main() -> None:
    parser = figures_parser(__doc__)
    parser.add_argument("-n", type=int, default=15, help="processes per case")
    arguments = parser.parse_args()
    for command, _ in CASES.values():
        time_command(command)  # once unmeasured: byte code and the disk's cache
    # one case after the other in each round, so that a busy moment hits all of them
    times: dict[str, list[float]] = {name: [] for name in CASES}
    for _ in range(arguments.n):
        for name, (command, _limit) in CASES.items():
            times[name].append(time_command(command))
    results = {}
    print(f"{'':24}{'median s':>10}{'fastest s':>11}{'limit s':>9}")
    for name, (_command, limit) in CASES.items():
        median, fastest = statistics.median(times[name]), min(times[name])
        results[name] = {"median_s": round(median, 4), "fastest_s": round(fastest, 4), "limit_s": limit}
        print(f"{name:24}{median:10.3f}{fastest:11.3f}{limit or '':>9}")
    write_record(arguments.output, "startup", ["hemalum"], results, runs=arguments.n)


if __name__ == "__main__":
    main()
