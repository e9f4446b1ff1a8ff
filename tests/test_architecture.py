"""Imports point one way: each room knows only the rooms below it (docs/decisions.md)."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[1] / "src" / "hemalum"

# from the ground up; rooms on one floor do not know each other
FLOORS = [
    {"errors"},
    {"cache", "files", "names"},
    {"models"},
    {"data", "metrics", "export"},
    {"instances"},
    {"networks"},  # above instances: a map's activation and loss belong to its representation
    {"losses"},
    {"systems"},
    {"training"},
    {"inference"},
    {"slides", "review"},
    {"studies"},
    {"report"},
    {"demo"},
    {"console", "arguments"},
    {"cli"},
    {"__main__"},
]
FLOOR = {room: level for level, rooms in enumerate(FLOORS) for room in rooms}
PLAIN = {"__version__"}  # what the package itself holds, without importing a room


def imported_rooms(source: str, room: str) -> Iterator[tuple[int, str]]:
    """Line and room of each import of this package in `source`, wherever in the file it stands."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            if node.level:
                yield node.lineno, f"relative import in {room}"
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


def broken_imports(source: str, room: str) -> list[tuple[int, str]]:
    """The imports in a file of `room` that point upwards, sideways or to an unknown room."""
    return [
        (line, other)
        for line, other in imported_rooms(source, room)
        if other != room and not (other in FLOOR and FLOOR[other] < FLOOR[room])
    ]


# the package's own __init__ is left out: its table of lazy imports is the way in from outside
FILES = sorted(path.relative_to(PACKAGE) for path in PACKAGE.rglob("*.py") if path.parent != PACKAGE)
FILES += sorted(path.relative_to(PACKAGE) for path in PACKAGE.glob("*.py") if path.stem != "__init__")


@pytest.mark.parametrize("path", FILES, ids=str)
def test_imports_point_down(path: Path) -> None:
    room = path.parts[0].removesuffix(".py")
    assert room in FLOOR, f"{room} has no floor: give it one in FLOORS"
    broken = broken_imports((PACKAGE / path).read_text(encoding="utf-8"), room)
    assert not broken, "\n".join(f"{path}:{line}: {room} imports {other}" for line, other in broken)


@pytest.mark.parametrize(
    ("source", "room", "expected"),
    [
        ("from hemalum.data.sample import Sample", "metrics", [(1, "data")]),  # sideways
        (
            "def f():\n    import hemalum.inference.segment\n",
            "training",
            [(2, "inference")],
        ),  # inside a function
        ("from hemalum import segment", "systems", [(1, "segment")]),  # through the package's front door
        ("from hemalum import instances", "data", [(1, "instances")]),
        ("import hemalum", "data", [(1, "hemalum")]),
        ("from . import sample", "data", [(1, "relative import in data")]),
        ("if TYPE_CHECKING:\n    from hemalum.cli import app\n", "report", [(2, "cli")]),
        ("from hemalum import __version__\nfrom hemalum.errors import HemalumError", "models", []),
        ("from hemalum.data.sample import Sample\nimport numpy", "data", []),
        ("from hemalum.inference.segment import segment", "cli", []),
    ],
)
def test_the_check_itself(source: str, room: str, expected: list[tuple[int, str]]) -> None:
    assert broken_imports(source, room) == expected


def test_files_are_short_enough_to_read() -> None:
    long = {str(path): n for path in FILES if (n := len((PACKAGE / path).read_text().splitlines())) > 400}
    assert not long, f"over 400 lines: {long}"


def test_no_homeless_modules() -> None:
    assert not [path for path in FILES if path.stem in {"utils", "helpers", "misc", "common", "base"}]
