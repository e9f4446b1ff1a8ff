"""Words among the options of networks: those that are not known are refused, and the nearest is named.

The lines end as those of `hemalum.errors`, which networks do not import.
"""

from collections.abc import Iterable, Sequence
from difflib import get_close_matches


def nearest(name: str, known: Iterable[str]) -> str:
    """The end of an error line: the nearest known name, or all of them when none is near."""
    known = sorted(known)
    matches = get_close_matches(name, known, n=1)
    return f", did you mean '{matches[0]}'?" if matches else f"; known: {', '.join(known)}"


def check_choice(option: str, value: str, choices: Sequence[str]) -> None:
    """Raise ValueError unless `value` is one of `choices`."""
    if value not in choices:
        raise ValueError(f"{option} '{value}'{nearest(value, choices)}: it can be {', '.join(choices)}")
