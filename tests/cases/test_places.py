"""Places: no home, one that cannot be written, read-only and full ones, and several processes in a fresh one."""

import errno
import logging
import os
import re
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from builders.other_user import as_user, open_folder, require_other_user, run_as
from hemalum.cache import TEMPORARY, VARIABLE, cache_folder, cached, scratch_folder
from hemalum.errors import HemalumError

pytestmark = pytest.mark.fault

posix = pytest.mark.skipif(os.name != "posix", reason="users and limits of POSIX")

PROGRAM = """
import resource, sys
if "full" in sys.argv:
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
from hemalum.compiled import njit

@njit(nogil=True)
def double(number):
    return 2 * number

print(double(21), sum(double.stats.cache_hits.values()))
"""
SAID = (
    r"{folder} cannot be used \({reason}\): compiled functions and converted models are kept in (?P<made>\S+) until "
    r"the program ends; set HEMALUM_CACHE to a folder that can be written\n"
)


@pytest.fixture
def folder() -> Iterator[Path]:
    yield from open_folder()


@pytest.fixture
def program(folder: Path) -> list[str]:
    """A program that calls one compiled function, and prints its result and how often it was taken from the cache."""
    file = folder / "program.py"
    file.write_text(PROGRAM)
    return [str(file)]


@pytest.fixture(autouse=True)
def no_temporary(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(TEMPORARY, "")


@posix
@pytest.mark.parametrize(
    ("environment", "expected", "reason"),
    [
        ({"HOME": "/nonexistent"}, "/nonexistent/.cache/hemalum", "Permission denied"),
        ({"HOME": "/"}, "/.cache/hemalum", "Permission denied"),
        ({}, "~/.cache/hemalum", "there is no home folder"),
        ({VARIABLE: "~/kept"}, "~/kept", "there is no home folder"),
        ({"HOME": "{folder}/locked"}, "{folder}/locked/.cache/hemalum", "Permission denied"),
        ({VARIABLE: "{folder}"}, "{folder}", "Permission denied"),
        ({VARIABLE: "{folder}/locked/cache"}, "{folder}/locked/cache", "Permission denied"),
        ({VARIABLE: "{folder}/program.py"}, "{folder}/program.py", "File exists"),
        ({VARIABLE: "/proc/kept"}, "/proc/kept", "No such file or directory"),
    ],
    ids=lambda value: str(value) if isinstance(value, dict) else "",
)
def test_where_nothing_can_be_kept_a_temporary_folder_is_used(
    folder: Path, program: list[str], environment: dict[str, str], expected: str, reason: str
) -> None:
    require_other_user()
    (folder / "locked").mkdir(mode=0o700)
    environment = {name: value.format(folder=folder) for name, value in environment.items()}
    printed, logged = run_as(program, environment)
    assert printed == "42 0\n"
    match = re.fullmatch(SAID.format(folder=re.escape(expected.format(folder=folder)), reason=reason), logged)
    assert match is not None, logged
    assert not Path(match["made"]).exists()


@posix
def test_a_prepared_cache_serves_users_who_cannot_write_in_it(folder: Path, program: list[str]) -> None:
    require_other_user()
    cache = folder / "cache"
    assert run_as(program, {VARIABLE: str(cache)}, None) == ("42 0\n", "")
    assert run_as(program, {VARIABLE: str(cache)}) == ("42 1\n", "")
    for path in cache.rglob("*"):
        path.chmod(0o700 if path.is_dir() else 0o600)
    printed, logged = run_as(program, {VARIABLE: str(cache)})
    assert printed == "42 0\n"
    assert re.fullmatch(SAID.format(folder=cache, reason="Permission denied"), logged)


@posix
def test_a_folder_within_that_is_another_users_is_done_without(folder: Path, program: list[str]) -> None:
    require_other_user()
    cache = folder / "cache"
    (cache / "compiled").mkdir(parents=True)
    cache.chmod(0o777)
    printed, logged = run_as(program, {VARIABLE: str(cache)})
    assert printed == "42 0\n"
    assert re.fullmatch(SAID.format(folder=cache, reason="Permission denied"), logged)


@posix
def test_where_no_file_can_be_written_functions_are_compiled_in_memory(folder: Path, program: list[str]) -> None:
    printed, logged = run_as([*program, "full"], {VARIABLE: str(folder / "cache")}, None, cwd=folder)
    assert printed == "42 0\n"
    assert re.fullmatch(
        rf"compiled functions cannot be kept: neither {folder}/cache \(File too large\) nor a temporary folder "
        r"\(No usable temporary directory found in \[.*\]?\) can be written: set HEMALUM_CACHE to a .*\n",
        logged,
    ), logged


@posix
def test_several_processes_share_a_fresh_cache(folder: Path, program: list[str]) -> None:
    environment = {VARIABLE: str(folder / "cache")}
    started = [
        subprocess.Popen(as_user(program, environment, None), stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        for _ in range(4)
    ]
    assert [process.communicate()[0].split()[0] for process in started] == [b"42"] * 4
    assert run_as(program, environment, None) == ("42 1\n", "")


@posix
@pytest.mark.parametrize(("suffix", "content"), [(".nbi", b""), (".nbc", b"\x80damaged")])
def test_a_damaged_compiled_function_is_compiled_again(
    folder: Path, program: list[str], suffix: str, content: bytes
) -> None:
    environment = {VARIABLE: str(folder / "cache")}
    run_as(program, environment, None)
    for path in (folder / "cache").rglob(f"*{suffix}"):
        path.write_bytes(content)
    assert run_as(program, environment, None) == ("42 0\n", "")
    assert run_as(program, environment, None) == ("42 1\n", "")


@posix
def test_the_processes_that_a_program_starts_use_its_temporary_folder(folder: Path, program: list[str]) -> None:
    """And say nothing again."""
    start = "import runpy, subprocess, sys\nfor _ in range(2):\n    subprocess.run([sys.executable, *sys.argv[1:]])\n"
    outer = folder / "outer.py"
    outer.write_text("from hemalum.cache import writable_folder\nwritable_folder()\n" + start)
    (folder / "file").write_text("in the way")
    printed, logged = run_as([str(outer), *program], {VARIABLE: str(folder / "file")}, None)
    assert printed == "42 0\n42 1\n"
    assert re.fullmatch(SAID.format(folder=folder / "file", reason="File exists"), logged)


def make(folder: Path) -> None:
    (folder / "made").write_text("x")


def test_an_entry_goes_to_a_temporary_folder_where_the_cache_is_a_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv(VARIABLE, str(tmp_path / "file"))
    entries = {cached("kind", "key", make), cached("kind", "key", make)}
    assert [(entry / "made").read_text() for entry in entries] == ["x"]
    assert [(record.name, record.levelno) for record in caplog.records] == [("hemalum.cache", logging.WARNING)]
    assert caplog.messages[0].startswith(f"{tmp_path / 'file'} cannot be used (")


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)), os.strerror(errno.ENOSPC)),
        (RuntimeError("iostream error"), "the disk may be full"),
    ],
)
def test_an_entry_that_does_not_fit_goes_to_a_temporary_folder(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    error: Exception,
    reason: str,
) -> None:
    monkeypatch.setenv(VARIABLE, str(tmp_path))

    def make_where_it_fits(folder: Path) -> None:
        make(folder)
        if tmp_path in folder.parents:
            raise error

    entry = cached("kind", "key", make_where_it_fits)
    assert (entry / "made").read_text() == "x"
    assert caplog.messages[0].startswith(f"{tmp_path} cannot be used ({reason}): compiled functions and ")
    assert list((tmp_path / "kind").iterdir()) == []


def test_without_any_place_a_line_says_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv(VARIABLE, str(tmp_path / "file"))

    def no_room(**_: object) -> str:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("tempfile.mkdtemp", no_room)
    with pytest.raises(HemalumError) as raised:
        cached("kind", "key", make)
    assert re.fullmatch(
        rf"neither {re.escape(str(tmp_path / 'file'))} \(.*\) nor a temporary folder \(No space left on device\) can "
        "be written: set HEMALUM_CACHE to a folder that can",
        str(raised.value),
    )


def test_work_goes_on_where_the_temporary_folder_is_full(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, str(tmp_path))
    with scratch_folder() as folder:
        assert tmp_path not in folder.parents

    def no_room(**_: object) -> str:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("tempfile.mkdtemp", no_room)
    with scratch_folder() as folder:
        make(folder)
        assert folder.parent == tmp_path
    assert list(tmp_path.iterdir()) == []


@posix
def test_an_entry_can_be_read_by_those_whom_the_umask_lets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, str(tmp_path))
    before = os.umask(0o022)
    try:
        entry = cached("kind", "key", make)
    finally:
        os.umask(before)
    assert stat.S_IMODE(entry.stat().st_mode) == 0o755


def test_a_relative_cache_folder_stays_where_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv(VARIABLE, "kept")
    assert cache_folder() == tmp_path / "kept"


def test_openvino_sends_no_statistics() -> None:
    """It would write in the home folder, and end where there is none."""
    code = (
        "import hemalum.models.engines.openvino, openvino.tools.ovc.telemetry_utils as used; print(used.tm.__name__)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "openvino.tools.ovc.telemetry_stub\n"


@posix
@pytest.mark.slow
def test_segment_runs_for_a_user_without_a_home(folder: Path) -> None:
    require_other_user()
    rng = np.random.default_rng(0)
    Image.fromarray(rng.integers(150, 255, (64, 64, 3), np.uint8)).save(folder / "f.png")
    folder.chmod(0o777)
    command = ["-m", "hemalum", "segment", "f.png", "-o", "o", "--mpp", "0.25", "--precision", "f32"]
    _, logged = run_as(command, {"HOME": "/nonexistent"}, cwd=folder)
    expected = SAID.format(folder="/nonexistent/.cache/hemalum", reason="Permission denied")
    assert len(re.findall(f"^warning: {expected}", logged, re.MULTILINE)) == 1
    assert (folder / "o" / "f.geojson").is_file()
