"""Fixtures that the tests of every package may use."""

import logging
import os
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import settings

from builders.trained_models import save_dark_model, save_two_class_model
from hemalum.errors import HemalumError

if TYPE_CHECKING:
    from hemalum.training.recipe import Recipe

# the first example of a property may wait for numba to compile; timings are no business of tests
settings.register_profile("hemalum", deadline=None)
settings.load_profile("hemalum")

pytest_plugins = ["builders.models"]

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="session", autouse=True)
def session_cache(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> Iterator[Path]:
    """No test reads or writes the user's cache; a model is converted once for all tests.

    Compiled functions stay in pytest's own cache: to compile them takes a minute.
    """
    folder = tmp_path_factory.mktemp("cache")
    with suppress(OSError):  # Windows has links for administrators only
        (folder / "compiled").symlink_to(request.config.cache.mkdir("compiled"), target_is_directory=True)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HEMALUM_CACHE", str(folder))
        yield folder


def reset_logging() -> None:
    logger = logging.getLogger("hemalum")
    logger.handlers, logger.propagate = [], True
    logger.setLevel(logging.NOTSET)


@pytest.fixture(autouse=True)
def fresh_logging() -> Iterator[None]:
    """What the command line sets up for its log lines ends with the test or the fixture that called it."""
    reset_logging()
    yield
    reset_logging()


@pytest.fixture(scope="session")
def random_sam(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a little SAM with random weights; a test that asks for it is skipped without the extra `sam`."""
    pytest.importorskip("transformers")
    from random_sam import save_random_sam

    return save_random_sam(tmp_path_factory.mktemp("sam") / "random", side=64, width=16, layers=2, channels=8)


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder with the real datasets; a test that asks for it is skipped where it is absent."""
    folder = Path(os.environ.get("HEMALUM_TEST_DATA", ROOT.parent / "shared" / "data"))
    if not (folder / "tnbc" / "index.csv").is_file():
        pytest.skip(f"no real data at {folder}: HEMALUM_TEST_DATA names the folder with tnbc/, dsb2018/ …")
    return folder


@pytest.fixture(scope="session")
def dark_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model file that takes dark pixels for nucleus; see `builders.trained_models`."""
    return save_dark_model(tmp_path_factory.mktemp("model") / "dark.safetensors")


@pytest.fixture(scope="session")
def two_class_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model file that takes dark pixels for nucleus, of class "red" or "blue"; see `builders.trained_models`."""
    return save_two_class_model(tmp_path_factory.mktemp("classes") / "two.safetensors")


@pytest.fixture(scope="session")
def recipe() -> "Recipe":
    """A recipe for the dataset `mini` that trains in seconds."""
    from builders.trainings import RECIPE
    from hemalum.training.recipe import Recipe

    return Recipe.model_validate(RECIPE)


@pytest.fixture(scope="session")
def mini(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A dataset folder "mini" of ten images in five groups, with dark discs as nuclei."""
    from builders.trainings import import_mini

    return import_mini(tmp_path_factory.mktemp("data"))


@pytest.fixture
def error_line() -> Callable[[Callable[[], object]], str]:
    """A function that gives the one line that a call fails with."""

    def error_line(call: Callable[[], object]) -> str:
        with pytest.raises(HemalumError) as caught:
            call()
        (line,) = str(caught.value).splitlines()
        return line

    return error_line
