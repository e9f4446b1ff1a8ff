"""Programs that run as a user who owns nothing, without a home, as in containers and batch systems."""

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
UNKNOWN = 54321  # no user of this number is known to the system
SETPRIV = shutil.which("setpriv")


def as_user(command: list[str], environment: dict[str, str], user: int | None = UNKNOWN) -> list[str]:
    """The command that runs `command` as `user`, or as the caller where that is None, with this environment alone."""
    known = {"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT / "src"), "OMP_NUM_THREADS": "1"} | environment
    change = [] if user is None else [str(SETPRIV), f"--reuid={user}", f"--regid={user}", "--clear-groups"]
    return ["env", "-i", *(f"{name}={value}" for name, value in known.items()), *change, sys.executable, *command]


def run_as(
    command: list[str], environment: dict[str, str], user: int | None = UNKNOWN, cwd: Path | None = None
) -> tuple[str, str]:
    """Standard output and error of Python with the arguments `command`, which has to end well."""
    started = as_user(command, environment, user)
    done = subprocess.run(started, capture_output=True, text=True, check=False, timeout=1800, cwd=cwd)
    assert done.returncode == 0, done.stderr
    return done.stdout, done.stderr


def require_other_user() -> None:
    """Skip the test where nobody else can be run as, or can read this program."""
    if SETPRIV is None or not hasattr(os, "geteuid") or os.geteuid() != 0:
        pytest.skip("only root can run a program as another user")
    seen = subprocess.run(as_user(["-c", "import hemalum.compiled"], {}), capture_output=True, check=False)
    if seen.returncode:
        pytest.skip("another user cannot read this program")


def open_folder() -> Iterator[Path]:
    """A folder that everybody can enter, which pytest's own are not."""
    folder = Path(tempfile.mkdtemp(prefix="places-"))
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder)
