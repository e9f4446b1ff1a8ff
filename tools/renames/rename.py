"""Rename identifiers in this repository: python tools/renames/rename.py LIST.txt

Each line of the list is `OLD NEW [GLOB …]`: OLD becomes NEW wherever it is a name in a Python file, also inside the
braces of f-strings, in the files that match a glob (all of src, tests, benchmarks and tools without one). A line
`~REGEX~REPLACEMENT [GLOB …]` is replaced in the text of every matching file, Markdown, YAML and templates too.
"""

import io
import re
import sys
import tokenize
from fnmatch import fnmatch
from pathlib import Path

ROOTS = ("src", "tests", "benchmarks", "tools", "docs")
TEXT = {".py", ".md", ".yaml", ".j2", ".css", ".toml"}
BRACES = re.compile(r"\{[^{}]*\}")


def replace_names(source: str, names: dict[str, str]) -> str:
    """The source with every name token replaced that is a key of `names`."""
    lines = source.splitlines(keepends=True)
    pattern = re.compile(rf"\b(?:{'|'.join(map(re.escape, names))})\b")
    edits: list[tuple[tuple[int, int], tuple[int, int], str]] = []
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        new = token.string
        if token.type == tokenize.NAME:
            new = names.get(token.string, token.string)
        elif token.type == tokenize.STRING and re.match(r"[rR]?[fF]", token.string):
            new = BRACES.sub(lambda m: pattern.sub(lambda n: names[n[0]], m[0]), token.string)
        if new != token.string:
            edits.append((token.start, token.end, new))
    for (row, column), (end_row, end_column), new in reversed(edits):
        tail = lines[end_row - 1][end_column:]
        lines[row - 1 : end_row] = (lines[row - 1][:column] + new + tail).splitlines(keepends=True)
    return "".join(lines)


def main() -> int:
    rules = [line.split() for line in Path(sys.argv[1]).read_text().splitlines() if line.strip() and line[0] != "#"]
    names = [(rule[0], rule[1], rule[2:]) for rule in rules if not rule[0].startswith("~")]
    texts = [
        (re.compile(rule[0].split("~")[1]), rule[0].split("~")[2].replace(r"\s", " "), rule[1:])
        for rule in rules
        if rule[0][0] == "~"
    ]
    root = Path(__file__).resolve().parents[2]
    paths = [path for name in ROOTS for path in sorted((root / name).rglob("*")) if path.suffix in TEXT]
    paths += [path for path in sorted(root.glob("*")) if path.suffix in {".md", ".toml"}]
    for path in paths:
        here = path.relative_to(root).as_posix()
        if here == "tools/renames/rename.py" or "/results/" in here:
            continue
        source = text = path.read_text(encoding="utf-8")
        chosen = {old: new for old, new, globs in names if not globs or any(fnmatch(here, glob) for glob in globs)}
        if path.suffix == ".py" and chosen:
            text = replace_names(text, chosen)
        for pattern, replacement, globs in texts:
            if not globs or any(fnmatch(here, glob) for glob in globs):
                text = pattern.sub(replacement, text)
        if text != source:
            path.write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
