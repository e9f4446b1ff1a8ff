"""The formats that `import` reads: one file per public dataset or layout, and this table."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from hemalum.data.formats import dsb2018, folder, nuinsseg, tnbc
from hemalum.data.sample import Sample


@dataclass(frozen=True)
class Reader:
    """A format: `read(path, **options)` yields Samples; the rest describes the published data.

    `mpp` is the scale of every image, None where the set states none; `mpp_source` is "published", or
    "nuclei" where we measured it on the labels (then `mpp_note` says how). `group` is what a split keeps
    together: "mosaic", or a word for what the reader puts in Sample.group. `licence` is an SPDX id.
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
