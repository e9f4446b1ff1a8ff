"""Errors that a user can cause, and parts of lines that a user reads."""

import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from difflib import get_close_matches


class HemalumError(Exception):
    """A mistake in what the user gave: one line that says what is wrong, where, and what to do.

    The command line prints the line and ends with exit code 2; `--debug` shows the traceback. A line is written with
    the options of the command line, as `give --mpp NUMBER`; in Python it names the parameter, as "give `mpp` NUMBER".
    """

    def __str__(self) -> str:
        line = super().__str__()
        return line if _commands else name_parameters(line)


_commands: list[str] = []  # the command lines at work in this process


@contextmanager
def speaking_of_options(command: str) -> Iterator[None]:
    """While a command line is at work, errors name its options."""
    _commands.append(command)
    try:
        yield
    finally:
        _commands.remove(command)


def name_parameters(line: str) -> str:
    """The line with the parameters of Python in the place of the options of the command line."""
    return _OPTION.sub(
        lambda match: f"`{match[2].replace('-', '_')}=False`" if match[1] else f"`{match[2].replace('-', '_')}`", line
    )


# an option of this program: other programs' have underscores
_OPTION = re.compile(r"(?<![\w-])--(no-)?([a-z]+(?:-[a-z]+)*)(?![\w-])")


class PeerFailedError(HemalumError):
    """Another process of the same run has failed first and says why; the command line stays silent about this one."""


class OtherRunError(HemalumError):
    """Results of other settings, which are not overwritten unasked."""


def nearest(name: str, known: Iterable[str]) -> str:
    """Give the end of an error line: the nearest known name, or all of them when none is near."""
    known = sorted(known)
    if not known:
        return "; there are none"
    match = get_close_matches(str(name), known, n=1)
    return f", did you mean '{match[0]}'?" if match else f"; known: {', '.join(known)}"


def near_misses(name: str, known: Iterable[str]) -> str:
    """Give the end of an error line for a name that joins nothing: up to three known ones like it; empty for none.

    Where some differ in capitals, separators, leading zeros or an ending alone, no others are named.
    """
    known = sorted({*known} - {name})
    alike = [one for one in known if _join_key(one) == _join_key(name)]
    quoted = [f"'{one}'" for one in (alike or get_close_matches(name, known, n=3, cutoff=0.75))[:3]]
    if not quoted:
        return ""
    return f", did you mean {', '.join(quoted[:-1])}{' or ' if quoted[1:] else ''}{quoted[-1]}?"


def _join_key(name: str) -> str:
    """What is left of a name, as of an image, without its ending: letters, and numbers without leading zeros."""
    stem = re.sub(r"\.[a-z]{2,4}\d?$", "", name.casefold())
    return "".join(part.lstrip("0") or "0" if part.isdigit() else part for part in re.findall(r"\d+|[^\W\d_]+", stem))


def counted(n: int, noun: str) -> str:
    """Give a number of things as a part of any line: `1 image`, `2,000 images`."""
    return f"{n:,} {noun if n == 1 else {'nucleus': 'nuclei'}.get(noun, noun + 's')}"


def duration_text(seconds: float) -> str:
    """`2 h 05 min`, `3 min 20 s` or `7 s`."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min" if hours else f"{minutes} min {rest:02d} s" if minutes else f"{rest} s"


def one_line(error: Exception, longest: int = 120) -> str:
    """Give what another library's exception says, as a part of an error line; its type where it says nothing."""
    return " ".join(str(error).split())[:longest] or type(error).__name__


def printable(text: str) -> str:
    """Text as it may go to a terminal: control characters, and those that turn its direction, are written out.

    File names and what files say of themselves may hold any.
    """
    return _UNPRINTABLE.sub(lambda match: match[0].encode("unicode_escape").decode("ascii"), text)


# but for tab and newline: C0, delete, C1, separators of lines, marks of direction, halves of surrogate pairs
_UNPRINTABLE = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029\u200e\u200f\u202a-\u202e\u2066-\u2069\ud800-\udfff]"
)
