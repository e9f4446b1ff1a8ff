"""The one channel that a user names, of a file with stains side by side."""

from collections.abc import Sequence
from pathlib import Path

from hemalum.errors import HemalumError, nearest

Channel = str | int


def check_channel(channel: Channel | None) -> str | None:
    """A channel as it is kept: its name, or its number from 1. Raises HemalumError for what is neither."""
    if channel is None:
        return None
    text = " ".join(str(channel).split())
    if isinstance(channel, bool) or not text:
        raise HemalumError(f"--channel {channel!r}: want the name of a channel, or its number from 1")
    return text


def find_channel(channel: str, count: int, titles: Sequence[str], name: Path | str) -> int:
    """Index from 0 of the channel with this name, whatever its case, or this number from 1.

    `titles` are the names of `count` channels, or none. Raises HemalumError, which lists them, where it is not there
    or several have its name.
    """
    plain = [" ".join(title.split()).casefold() for title in titles]
    indices = [index for index, title in enumerate(plain) if title == channel.casefold()]
    if len(indices) == 1:
        return indices[0]
    listed = ", ".join(f"{index + 1} '{title}'" if title else f"{index + 1}" for index, title in enumerate(titles))
    listed = listed or (f"1 to {count}, without names" if count > 1 else "1 alone")
    if indices:
        raise HemalumError(f"{name}: {len(indices)} channels are called '{channel}' ({listed}): give the number")
    if channel.isdecimal() and 1 <= int(channel) <= count:
        return int(channel) - 1
    known = [title for title in titles if title]
    near = nearest(channel, known).partition(";")[0] if known and not channel.isdecimal() else ""
    raise HemalumError(f"{name}: no channel '{channel}'{near}; it has {listed}")


def refuse_color(channel: str | None, name: Path | str) -> None:
    """Raise HemalumError where a channel is named of an image in color."""
    if channel is not None:
        raise HemalumError(
            f"{name}: an image in color, and --channel is for stains side by side, as in fluorescence: leave it out, "
            "or save the channel as a gray image"
        )
