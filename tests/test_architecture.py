"""Imports point one way: each package knows only those below it (docs/decisions.md)."""

import ast
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path

import pytest

SOURCE = Path(__file__).resolve().parents[1] / "src" / "hemalum"

# from the ground up; packages on one floor do not know each other
FLOORS = [
    {"cpus", "errors", "networks"},  # networks stand on torch, and on nothing of this package
    {"remarks"},
    {"cache", "files", "settings", "tables"},
    {"compiled", "manifest"},
    {"metrics", "nuclei"},
    {"targets", "data"},
    {"losses", "slides"},
    {"models"},
    {"systems"},
    {"training"},
    {"inference"},
    {"experiments"},
    {"review"},
    {"reports"},
    {"demo"},
    {"cli"},
    {"__main__"},
]
FLOOR = {package: level for level, packages in enumerate(FLOORS) for package in packages}
PLAIN = {"__version__"}  # what the package itself holds, without importing a package


def imported_packages(source: str, package: str) -> Iterator[tuple[int, str]]:
    """Line and package of each import of this package in `source`, wherever in the file it stands."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            if node.level:
                yield node.lineno, f"relative import in {package}"
                continue
            if node.module == "hemalum":
                names = [f"hemalum.{alias.name}" for alias in node.names if alias.name not in PLAIN]
            else:
                names = [node.module or ""]
        else:
            continue
        for name in names:
            parts = name.split(".")
            if parts[0] == "hemalum":
                yield node.lineno, parts[1] if len(parts) > 1 else "hemalum"


def broken_imports(source: str, package: str) -> list[tuple[int, str]]:
    """The imports in a file of `package` that point upwards, sideways or to an unknown package."""
    return [
        (line, other)
        for line, other in imported_packages(source, package)
        if other != package and not (other in FLOOR and FLOOR[other] < FLOOR[package])
    ]


# the package's own __init__ is left out: it is the way in from outside
FILES = sorted(path.relative_to(SOURCE) for path in SOURCE.rglob("*.py") if path.parent != SOURCE)
FILES += sorted(path.relative_to(SOURCE) for path in SOURCE.glob("*.py") if path.stem != "__init__")


@pytest.mark.parametrize("path", FILES, ids=str)
def test_imports_point_down(path: Path) -> None:
    package = path.parts[0].removesuffix(".py")
    assert package in FLOOR, f"{package} has no floor: give it one in FLOORS"
    broken = broken_imports((SOURCE / path).read_text(encoding="utf-8"), package)
    assert not broken, "\n".join(f"{path}:{line}: {package} imports {other}" for line, other in broken)


@pytest.mark.parametrize(
    ("source", "package", "expected"),
    [
        ("from hemalum.data.sample import Sample", "metrics", [(1, "data")]),  # sideways
        (
            "def f():\n    import hemalum.inference.segment\n",
            "training",
            [(2, "inference")],
        ),  # inside a function
        ("from hemalum.errors import nearest", "networks", [(1, "errors")]),
        ("from hemalum import segment", "systems", [(1, "segment")]),  # through the package's front door
        ("from hemalum import instances", "data", [(1, "instances")]),
        ("import hemalum", "data", [(1, "hemalum")]),
        ("from . import sample", "data", [(1, "relative import in data")]),
        ("if TYPE_CHECKING:\n    from hemalum.cli import app\n", "reports", [(2, "cli")]),
        ("from hemalum import __version__\nfrom hemalum.errors import HemalumError", "models", []),
        ("from hemalum.data.sample import Sample\nimport numpy", "data", []),
        ("from hemalum.inference.segment import segment", "cli", []),
    ],
)
def test_the_check_itself(source: str, package: str, expected: list[tuple[int, str]]) -> None:
    assert broken_imports(source, package) == expected


def public_names(folder: Path) -> dict[str, str]:
    """Names and their modules as the package of a folder lists them, in its stub."""
    nodes = ast.parse((folder / "__init__.pyi").read_text(encoding="utf-8")).body
    return {a.name: node.module or "" for node in nodes if isinstance(node, ast.ImportFrom) for a in node.names}


LISTED = sorted(path.parent for path in SOURCE.rglob("__init__.pyi"))


@pytest.mark.parametrize("folder", LISTED, ids=lambda folder: folder.name)
def test_public_names_are_what_the_modules_hold(folder: Path) -> None:
    name = ".".join(("hemalum", *folder.relative_to(SOURCE).parts))
    names = public_names(folder)
    package = import_module(name)
    assert package.__all__ == sorted(names)
    for public, module in names.items():
        assert getattr(package, public) is getattr(import_module(f"{name}.{module}"), public)
    # of a function and a module with one name, the one imported first would hide the other
    assert not {path.stem for path in folder.iterdir()} & set(names)


def test_packages_use_only_public_names_of_each_other() -> None:
    missing = []
    for path in FILES:
        tree = ast.parse((SOURCE / path).read_text(encoding="utf-8"))
        for node in ast.walk(tree):
            parts = (node.module or "").split(".") if isinstance(node, ast.ImportFrom) else []
            module = SOURCE.joinpath(*parts[1:]).with_suffix(".py")
            folder = module.parent
            if parts[:1] != ["hemalum"] or not module.is_file():
                continue
            if folder not in LISTED or folder in (SOURCE, (SOURCE / path).parent):
                continue
            modules = {entry.stem for entry in folder.iterdir()}
            names = {alias.name for alias in node.names}
            missing += [f"{path}: {node.module}.{name}" for name in names - set(public_names(folder)) - modules]
    assert not missing, "\n".join(missing)


def test_files_are_short_enough_to_read() -> None:
    long = {str(path): n for path in FILES if (n := len((SOURCE / path).read_text().splitlines())) > 400}
    assert not long, f"over 400 lines: {long}"


def test_no_homeless_modules() -> None:
    assert not [path for path in FILES if path.stem in {"utils", "helpers", "misc", "common", "base"}]
