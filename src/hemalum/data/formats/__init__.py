"""The formats that `import` reads: one file per public dataset or layout, and this table."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from hemalum.data.formats import dsb2018, folder, nuinsseg, tnbc
from hemalum.data.sample import Sample
from hemalum.data.splits import Member, Part


@dataclass(frozen=True)
class Reader:
    """A format: `read(path, **options)` yields Samples; the rest describes the published data.

    `mpp` is the scale of every image, None where the set states none; `mpp_source` is "published", or
    "nuclei" where we measured it on the labels (then `mpp_note` says how). `group` is what a split keeps
    together: "mosaic", or a word for what the reader puts in Sample.group. `licence` is an SPDX id, or says
    in words what is allowed.

    `size` is images, pixels and nuclei as published. `classes` names the class ids (0 is never in it);
    `classes_for(**options)` gives them where they depend on the reader's options. `markers` are glob patterns
    relative to the folder that give the layout away: one that matches says "this looks like me".

    A published split is in `published(members, fold)`, which gives each id its part (fold runs from 1 to
    `folds`, and is 0 where there are none), or in the samples' own `part`; `published_rule` says it in words.
    """

    title: str
    read: Callable[..., Iterator[Sample]]
    group: str
    licence: str = ""
    citation: str = ""
    url: str = ""
    mpp: float | None = None
    mpp_source: str = "published"
    mpp_note: str = ""
    size: str = ""
    classes: Mapping[int, str] = field(default_factory=dict)
    classes_for: Callable[..., Mapping[int, str]] | None = None
    markers: tuple[str, ...] = ()
    published: Callable[[Sequence[Member], int], Mapping[str, Part]] | None = None
    published_rule: str = ""
    folds: int = 0


READERS: dict[str, Reader] = {
    "folder": Reader(
        title="Your own folder: images with label maps or binary masks",
        read=folder.read,
        group="image, or the column named group",
    ),
    "dsb2018": Reader(
        title="2018 Data Science Bowl, stage 1 training set",
        read=dsb2018.read,
        group="mosaic",
        licence="CC0-1.0",
        citation="Caicedo et al., Nucleus segmentation across imaging experiments: the 2018 Data Science "
        "Bowl, Nature Methods 16, 1247-1253 (2019), doi:10.1038/s41592-019-0612-7",
        url="https://bbbc.broadinstitute.org/BBBC038",
    ),
    "tnbc": Reader(
        title="TNBC, triple-negative breast cancer, H&E",
        read=tnbc.read,
        group="patient",
        licence="CC-BY-4.0",
        citation="Naylor et al., Segmentation of nuclei in histopathology images by deep regression of "
        "the distance map, IEEE Trans. Med. Imaging 38, 448-459 (2019), doi:10.1109/TMI.2018.2865709",
        url="https://doi.org/10.5281/zenodo.1175282",
        mpp=0.25,
        mpp_note="40x, as the field takes it",
    ),
    "nuinsseg": Reader(
        title="NuInsSeg, H&E of human and mouse organs",
        read=nuinsseg.read,
        group="organ",
        licence="CC-BY-4.0",
        citation="Mahbod et al., NuInsSeg: a fully annotated dataset for nuclei instance segmentation in "
        "H&E-stained histological images, Scientific Data 11, 295 (2024), doi:10.1038/s41597-024-03117-2",
        url="https://doi.org/10.5281/zenodo.10518968",
        mpp=0.16,
        mpp_source="nuclei",
        mpp_note="measured: median nucleus of the human part (33.5 px) against TNBC (20.9 px at 0.25 µm/px); "
        "commonly given as 0.2 to 0.25",
    ),
}


def looks_like(path: Path) -> list[str]:
    """The formats whose markers are found in a folder, in the order of the table."""
    return [name for name, reader in READERS.items() if _has_marker(path, reader.markers)]


def _has_marker(path: Path, markers: Sequence[str]) -> bool:
    return path.is_dir() and any(next(path.glob(pattern), None) is not None for pattern in markers)
