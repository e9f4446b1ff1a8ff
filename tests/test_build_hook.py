"""The page of the review in wheels: built where it is not there, and one line where it cannot be."""

import importlib.util
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

ROOT = Path(__file__).parents[1]


class Interface:
    """What hatchling gives a hook to stand on."""

    def __init__(self, root: Path) -> None:
        self.root = str(root)


@pytest.fixture
def hook(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The hook, for a checkout without a page; hatchling need not be installed."""
    interface = ModuleType("hatchling.builders.hooks.plugin.interface")
    interface.BuildHookInterface = Interface  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, interface.__name__, interface)
    for name in ("hatchling", "hatchling.builders", "hatchling.builders.hooks", "hatchling.builders.hooks.plugin"):
        monkeypatch.setitem(sys.modules, name, ModuleType(name))
    spec = importlib.util.spec_from_file_location("hatch_build", ROOT / "hatch_build.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    (tmp_path / "web").mkdir()
    return module.PageHook(tmp_path)


def program(folder: Path, script: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A program `npm` that is all there is on PATH."""
    folder.mkdir()
    (folder / "npm").write_text(f"#!/bin/sh\n{script}\n")
    (folder / "npm").chmod(0o755)
    monkeypatch.setenv("PATH", str(folder))


@pytest.mark.skipif(sys.platform == "win32", reason="npm is a shell script here")
def test_builds_the_page_with_npm(hook: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program(tmp_path / "bin", 'echo "$@" >> ../asked', monkeypatch)
    hook.initialize("standard", {})
    assert (tmp_path / "asked").read_text() == "ci --no-audit --no-fund\nrun build\n"


@pytest.mark.parametrize("version", ["editable", "standard"])
def test_needs_no_node_where_the_page_is_there_or_the_install_editable(
    hook: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, version: str
) -> None:
    monkeypatch.setenv("PATH", "")
    if version == "standard":
        page = tmp_path / "src/hemalum/review/static/index.html"
        page.parent.mkdir(parents=True)
        page.write_text("page")
    hook.initialize(version, {})


@pytest.mark.fault
def test_a_wheel_without_node_is_one_line(hook: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    with pytest.raises(SystemExit) as stopped:
        hook.initialize("standard", {})
    assert stopped.value.code == (
        "error: the page of `hemalum review` is built with Node.js 18 or later and npm, which are not here: "
        "install them, or install hemalum from a wheel, or from this folder with `pip install -e .`"
    )


@pytest.mark.fault
@pytest.mark.skipif(sys.platform == "win32", reason="npm is a shell script here")
def test_a_build_that_fails_is_one_line(hook: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program(tmp_path / "bin", "exit 3", monkeypatch)
    with pytest.raises(SystemExit) as stopped:
        hook.initialize("standard", {})
    assert (
        stopped.value.code == f"error: the page of `hemalum review` is not built: npm ci failed in {tmp_path / 'web'}"
    )
