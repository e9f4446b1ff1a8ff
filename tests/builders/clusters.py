"""A Dask scheduler and its workers as programs of their own, which a test may kill."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

SOURCE = Path(__file__).resolve().parents[2] / "src"


class DaskCluster:
    """A scheduler on this machine, with workers of one thread each; `scheduler` is the path of its file."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.scheduler = folder / "scheduler.json"
        self.workers: dict[str, subprocess.Popen[bytes]] = {}
        self.process = self._start("scheduler", "--host", "127.0.0.1", "--port", "0")
        end = time.monotonic() + 60
        while not self.scheduler.exists():
            if self.process.poll() is not None or time.monotonic() > end:
                raise RuntimeError((folder / "scheduler.log").read_text())
            time.sleep(0.05)

    def add_worker(self, name: str) -> None:
        """Start a worker without a nanny: one that is killed stays away."""
        self.workers[name] = self._start("worker", "--no-nanny", "--nthreads", "1", "--name", name, log=name)

    def kill_worker(self, name: str) -> None:
        """As the kernel ends what takes too much memory."""
        os.kill(self.workers[name].pid, signal.SIGKILL)
        self.workers.pop(name).wait()

    def close(self) -> None:
        """End all of it."""
        for process in (*self.workers.values(), self.process):
            process.kill()
            process.wait()

    def _start(self, program: str, *options: str, log: str | None = None) -> "subprocess.Popen[bytes]":
        arguments = ["--scheduler-file", str(self.scheduler), "--no-dashboard", *options]
        path = os.pathsep.join([str(SOURCE), os.environ.get("PYTHONPATH", "")])
        environment = os.environ | {"PYTHONPATH": path}
        with (self.folder / f"{log or program}.log").open("wb") as stream:
            return subprocess.Popen(
                [sys.executable, "-m", f"distributed.cli.dask_{program}", *arguments],
                env=environment, stdout=stream, stderr=stream, cwd=self.folder,
            )  # fmt: skip
