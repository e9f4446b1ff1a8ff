"""Opening what lies in a folder of results."""

from pathlib import Path

from hemalum.errors import HemalumError
from hemalum.files import named_path
from hemalum.manifest import manifest_path, read_manifest
from hemalum.nuclei.store.store import KIND, SUFFIX, NucleiStore


def open_store(path: Path | str) -> NucleiStore:
    """Open the store of a slide's nuclei, a folder STEM.nuclei.

    Raises HemalumError when there is none, or it is damaged or of another format.
    """
    path = Path(path)
    if not manifest_path(path, KIND).is_file():
        what = "holds no nuclei" if path.is_dir() else "no such folder"
        raise HemalumError(f"{path}: {what}; results of a slide are in a folder NAME{SUFFIX}")
    return NucleiStore(path, read_manifest(path, KIND))


def find_stores(path: Path | str) -> list[Path]:
    """The stores of a folder of results, by name, or the one that `path` is. Raises HemalumError for none."""
    path = named_path(path)
    if manifest_path(path, KIND).is_file():
        return [path]
    stores = sorted(folder for folder in path.glob(f"*{SUFFIX}") if manifest_path(folder, KIND).is_file())
    if not stores:
        what = f"holds no folder NAME{SUFFIX}" if path.is_dir() else "no such folder"
        raise HemalumError(f"{path}: {what}; results of a slide are in a folder NAME{SUFFIX}")
    return stores
