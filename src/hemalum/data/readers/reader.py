"""What the reader of a public dataset or layout says of it."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from hemalum.data.sample import Sample
from hemalum.data.splits import Member, Part


@dataclass(frozen=True)
class Reader:
    """A format: `read(path, **options)` yields Samples; the rest describes the published data.

    `mpp` is the scale of every image, None where the set states none; `mpp_source` is "published", or
    "nuclei" where we measured it on the labels (then `mpp_note` says how). `group` is what a split keeps
    together: "mosaic", or a word for what the reader puts in Sample.group. `license` is an SPDX id, or says
    in words what is allowed.

    `size` is images, pixels and nuclei as published. `classes` names the class ids (0 is never in it);
    `classes_for(path, **options)` gives them where they depend on the data or the options, and `facts_for(path,
    **options)` whatever else of these fields does, by name. `markers` are glob
    patterns relative to the folder that give the layout away: one that matches says "this looks like me".

    A published split is in `published(members, fold)`, which gives each id its part (fold runs from 1 to
    `folds`, and is 0 where there are none), or in the samples' own `part`; `published_rule` says it in words;
    with `published_unasked=False` it is taken only where it is asked for.
    """

    title: str
    read: Callable[..., Iterator[Sample]]
    group: str
    license: str = ""
    citation: str = ""
    url: str = ""
    mpp: float | None = None
    mpp_source: str = "published"
    mpp_note: str = ""
    size: str = ""
    classes: Mapping[int, str] = field(default_factory=dict)
    classes_for: Callable[..., Mapping[int, str]] | None = None
    facts_for: Callable[..., Mapping[str, Any]] | None = None
    markers: tuple[str, ...] = ()
    published: Callable[[Sequence[Member], int], Mapping[str, Part]] | None = None
    published_rule: str = ""
    folds: int = 0
    published_unasked: bool = True
