"""Identifiers are the field's words in US spelling: names that hid what they held do not come back."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
FILES = sorted(path for name in ("benchmarks", "src", "tests", "tools") for path in (ROOT / name).rglob("*.py"))

# they hid what they held, or only this project knew them
RETIRED = """
    AddUp Cell Facts Given Lettering Ours Place Shell Sides Stream Told ToldElsewhereError Until Updates Watcher
    add_up add_up_figures as_it_is beside carried_on carries carry check_switches ending_together enlarge finer
    found gather_facts given gives honest kinds learned learnt likeness open_stream ours own own_figures place
    places said said_once says segment_learnt set_switches settle sides sureness theirs told told_apart trial
    trials two_stream_losses watch whole worth
"""
BRITISH = re.compile(
    "colour|grey|centre|neighbour|behaviour|favour|tumour|licence|fibre|catalogue|artefact|haemat|"
    "labell|modell|levell|analys(?:e|ed|er|ing)(?![a-z])|"
    "(?:normal|optim|organ|recogn|initial|general|local|quant|regular|serial|standard|summar|visual|vector)"
    "is(?:e|ed|er|ers|es|ing|ation|ations)(?![a-z])"
)


def identifiers(source: str) -> Iterator[tuple[int, str]]:
    """Line and name of every identifier, also inside the braces of f-strings; what strings hold is data."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Constant):
            continue
        for _, value in ast.iter_fields(node):
            for name in value if isinstance(value, list) else [value]:
                if isinstance(name, str):
                    yield from ((getattr(node, "lineno", 0), part) for part in name.split("."))


def unwanted(source: str) -> list[tuple[int, str]]:
    """Line and name of the identifiers that are retired or in British spelling."""
    allowed = {"given"} if re.search(r"^from hypothesis import .*\bgiven\b", source, re.MULTILINE) else set()
    return sorted(
        {
            (line, name)
            for line, name in identifiers(source)
            if (name.strip("_") in set(RETIRED.split()) - allowed) or BRITISH.search(name.lower())
        }
    )


@pytest.mark.parametrize(
    ("source", "names"),
    [
        ("def f(told):\n    return told", ["told", "told"]),
        ("class Cell: ...", ["Cell"]),
        ("from a.grey import b as _own", ["_own", "grey"]),
        ("f(kinds=1)", ["kinds"]),
        ("x.said = f'{text} {one.found}'", ["found", "said"]),
        ("normaliser = optimise_all = unlabelled = 1", ["normaliser", "optimise_all", "unlabelled"]),
        ("x = {'colour': 'found'}", []),
        ("organism = analysis = labeled = normalizer = 1", []),
        ("from hypothesis import example, given\n\n@given(x)\ndef f(): ...", []),
    ],
)
def test_names_are_told_from_strings(source: str, names: list[str]) -> None:
    assert sorted(name for _, name in unwanted(source)) == names


def test_no_retired_name_comes_back() -> None:
    lines = [
        f"{path.relative_to(ROOT)}:{line}: {name}"
        for path in FILES
        for line, name in [*unwanted(path.read_text(encoding="utf-8")), *unwanted(path.stem.replace(".", "_"))]
    ]
    assert not lines, "\n".join(lines)
