"""Fixtures that every room's tests may use."""

import os
from pathlib import Path

import pytest
from hypothesis import settings

# the first example of a property may wait for numba to compile; timings are no business of tests
settings.register_profile("hemalum", deadline=None)
settings.load_profile("hemalum")

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder with the real datasets; a test that asks for it is skipped where it is absent."""
    folder = Path(os.environ.get("HEMALUM_TEST_DATA", ROOT.parent / "shared" / "data"))
    if not (folder / "tnbc" / "index.csv").is_file():
        pytest.skip(f"no real data at {folder}: HEMALUM_TEST_DATA names the folder with tnbc/, dsb2018/ …")
    return folder
