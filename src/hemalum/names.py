"""Suggestions for misspelt names."""

from collections.abc import Iterable
from difflib import get_close_matches


def nearest(name: str, known: Iterable[str]) -> str:
    """Give the end of an error line: the nearest known name, or all of them when none is near."""
    known = sorted(known)
    match = get_close_matches(name, known, n=1)
    return f", did you mean '{match[0]}'?" if match else f"; known: {', '.join(known)}"
