"""The formats that `import` reads: one file per public dataset or layout, and this table."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from hemalum.data.formats import folder
from hemalum.data.sample import Sample


@dataclass(frozen=True)
class Reader:
    """A format: `read(path, **options)` yields Samples; the rest describes the published data.

    `mpp` is what the publication states, None where it states none; `group` says in a word what a split
    keeps together.
    """

    title: str
    licence: str
    citation: str
    url: str
    mpp: float | None
    group: str
    read: Callable[..., Iterator[Sample]]


READERS: dict[str, Reader] = {
    "folder": Reader(
        title="Your own folder: images with label maps or binary masks",
        licence="",
        citation="",
        url="",
        mpp=None,
        group="image, or a column of the index",
        read=folder.read,
    ),
}
