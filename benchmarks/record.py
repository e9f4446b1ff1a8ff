"""What benchmarks share: their arguments, peak memory, and what is written beside figures to compare them later."""

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "benchmarks" / "results"


def argument_parser(doc: str | None) -> argparse.ArgumentParser:
    """A parser that shows the program's docstring as it is written."""
    return argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)


def figures_parser(doc: str | None, output: Path | None = None) -> argparse.ArgumentParser:
    """The parser of a program that writes its figures with `write_record`."""
    parser = argument_parser(doc)
    parser.add_argument("-o", "--output", type=Path, default=output, help="write the figures as JSON")
    return parser


def peak_memory() -> int:
    """Largest memory of this process so far, bytes.

    The kernel's VmHWM begins with the program. Linux counts into ru_maxrss what the parent held when it forked.
    """
    status = Path("/proc/self/status")
    lines = [line for line in status.read_text().splitlines() if line.startswith("VmHWM")] if status.exists() else []
    if lines:
        return 1024 * int(lines[0].split()[1])
    import resource  # Windows has none

    return 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def processor() -> str:
    """Name of the processor."""
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.is_file():
        for line in cpuinfo.read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()


def commit() -> str:
    """Hash of the commit that is checked out, with "+" when files differ from it."""
    head = subprocess.run(["git", "rev-parse", "HEAD"], cwd=ROOT, capture_output=True, text=True, check=False)
    changed = subprocess.run(["git", "diff", "--quiet", "HEAD", "--", "src"], cwd=ROOT, check=False)
    return (head.stdout.strip() or "unknown") + ("+" if changed.returncode else "")


def mean_and_sd(values: Sequence[float], digits: int = 3, sign: str = "") -> str:
    """Mean, and ± the sd where there are several values; a dash where there are none."""
    if not values:
        return "–"
    text = f"{statistics.fmean(values):{sign}.{digits}f}"
    return text if len(values) == 1 else f"{text} ± {statistics.stdev(values):.{digits}f}"


def without_folders(argument: str) -> str:
    """An argument of the command; of a path on this machine its last part alone, which says what it is."""
    return f"…/{Path(argument).name}" if Path(argument).is_absolute() else argument


def write_record(path: Path | None, benchmark: str, packages: list[str], results: Any, **extra: Any) -> None:
    """Write results with machine, versions, command, commit and the load the machine was under; None: nowhere."""
    if path is None:
        return
    record = {
        "benchmark": benchmark,
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": " ".join(["python", *map(without_folders, sys.argv)]),
        "commit": commit(),
        "machine": {"system": platform.platform(), "processor": processor(), "cores": os.cpu_count()},
        "load_average": os.getloadavg()[0] if hasattr(os, "getloadavg") else None,
        "versions": {"python": platform.python_version(), **{name: version(name) for name in packages}},
        **extra,
        "results": results,
    }
    path.write_text(json.dumps(record, indent=2) + "\n")
