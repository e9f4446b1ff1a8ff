"""What a folder of results holds: started once, gone on with by the same, refused for anything else."""

import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from hemalum.errors import HemalumError
from hemalum.manifest import FORMAT, LOCK, Content, check_manifest, lock_folder, read_manifest

CONTENT = {"top": "10%", "lr": 1e-4, "train": ["head.*"]}


def test_a_folder_is_started_and_gone_on_with(tmp_path: Path) -> None:
    out = tmp_path / "new" / "out"
    assert check_manifest(out, "refinement", CONTENT) == CONTENT
    before = (out / "refinement.yaml").read_bytes()
    assert yaml.safe_load(before) == {"format": FORMAT, **CONTENT}
    assert check_manifest(out, "refinement", CONTENT) == CONTENT == read_manifest(out, "refinement")
    assert (out / "refinement.yaml").read_bytes() == before


@pytest.mark.fault
def test_anything_else_is_refused_and_nothing_written(tmp_path: Path) -> None:
    check_manifest(tmp_path, "refinement", CONTENT)
    before = (tmp_path / "refinement.yaml").read_bytes()
    with pytest.raises(HemalumError, match=r"holds another refinement: lr is 0\.0001 there, 0\.1 here"):
        check_manifest(tmp_path, "refinement", CONTENT | {"lr": 0.1})
    assert (tmp_path / "refinement.yaml").read_bytes() == before
    with pytest.raises(HemalumError, match="is not empty and holds no comparison; choose another folder"):
        check_manifest(tmp_path, "comparison", CONTENT)
    with pytest.raises(HemalumError, match=r"refinement\.yaml: is a file; name a folder"):
        check_manifest(tmp_path / "refinement.yaml", "refinement", CONTENT)


def test_content_may_grow_by_a_rule(tmp_path: Path) -> None:
    def merge(held: Content) -> Content:
        return {"seeds": sorted({*held["seeds"], 3})}

    check_manifest(tmp_path, "comparison", {"seeds": [1, 2]})
    assert check_manifest(tmp_path, "comparison", {"seeds": [3]}, merge) == {"seeds": [1, 2, 3]}
    assert read_manifest(tmp_path, "comparison") == {"seeds": [1, 2, 3]}


@pytest.mark.fault
@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("paper: al_net\n", r"reproduction\.yaml: is of format 1, this version of hemalum reads format 2"),
        ("format: 3\n", "is of format 3, this version"),
        ("- paper\n", "is not the manifest of a reproduction"),
        ("paper: [", "cannot be read"),
    ],
)
def test_a_manifest_of_another_version_or_a_damaged_one(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "reproduction.yaml").write_text(text)
    with pytest.raises(HemalumError, match=message):
        check_manifest(tmp_path, "reproduction", {"paper": "al_net"})
    assert (tmp_path / "reproduction.yaml").read_text() == text


def test_a_folder_is_locked_by_one_process_at_a_time(tmp_path: Path) -> None:
    holder = "import sys, filelock\nwith filelock.FileLock(sys.argv[1]):\n    print('held', flush=True)\n    input()"
    command = [sys.executable, "-c", holder, str(tmp_path / LOCK)]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    with lock_folder(tmp_path, wait=False) as locked:
        assert not locked
    process.communicate("\n", timeout=60)
    with lock_folder(tmp_path, wait=False) as locked:
        assert locked
    check_manifest(tmp_path, "comparison", {})  # the lock does not count as content
