"""The formats that `import` reads: one file per public dataset or layout, with its facts, and this table."""

from pathlib import Path

from hemalum.data.readers import (
    combined,
    conic,
    consep,
    cryonuseg,
    dsb2018,
    folder,
    ihc_pairs,
    kumar,
    lizard,
    monuseg,
    nuinsseg,
    pannuke,
    polyps,
    qupath,
    tnbc,
)
from hemalum.data.readers.reader import Reader as Reader

READERS: dict[str, Reader] = {
    "folder": folder.READER,
    "dsb2018": dsb2018.READER,
    "tnbc": tnbc.READER,
    "nuinsseg": nuinsseg.READER,
    "lizard": lizard.READER,
    "conic": conic.READER,
    "pannuke": pannuke.READER,
    "consep": consep.READER,
    "kumar": kumar.READER,
    "monuseg": monuseg.READER,
    "cryonuseg": cryonuseg.READER,
    "etis": polyps.READERS["etis"],
    "colondb": polyps.READERS["colondb"],
    "clinicdb": polyps.READERS["clinicdb"],
    "kvasir": polyps.READERS["kvasir"],
    "ihc-pairs": ihc_pairs.READER,
    "qupath": qupath.READER,
    "combined": combined.READER,
}


def looks_like(path: Path) -> list[str]:
    """The formats whose markers are found in a folder, in the order of the table."""
    if not path.is_dir():
        return []
    return [name for name, reader in READERS.items() if any(any(path.glob(marker)) for marker in reader.markers)]
