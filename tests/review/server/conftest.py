"""A session of two images and a slide, and a browser that has the token."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from starlette.testclient import TestClient

from builders.review_sessions import KnownSession, make_session
from builders.stores import make_store
from hemalum.review.server import create_app

TOKEN = "a-token-of-these-tests"
ADDRESS = "http://127.0.0.1:8765"
INDEX = "<!doctype html><title>page</title>"


@pytest.fixture
def static(tmp_path: Path) -> Path:
    """A page as it is built."""
    folder = tmp_path / "static"
    (folder / "assets").mkdir(parents=True)
    (folder / "index.html").write_text(INDEX)
    (folder / "assets" / "page.js").write_text("export {}")
    (folder / "secret.txt").write_text("not to be seen")
    return folder


@pytest.fixture
def session(tmp_path: Path) -> Iterator[KnownSession]:
    """Images kidney_1.png and kidney_2.png (80 x 60 px), and slide.png (720 x 480 px) with a store of 600 nuclei."""
    folder = tmp_path / "source"
    folder.mkdir()
    store = make_store(folder / "slide.nuclei")
    height, width = store.run.shape
    rows, columns = np.mgrid[:height, :width]
    Image.fromarray(np.stack([rows % 256, columns % 256, (rows + columns) % 256], 2).astype(np.uint8)).save(
        folder / "slide.png"
    )
    session = make_session(folder, (folder / "slide.png", store))
    yield session
    session.close()


@pytest.fixture
def visitor(session: KnownSession, static: Path) -> TestClient:
    """A browser without the token."""
    app = create_app(session, token=TOKEN, author="Anna", static=static)
    return TestClient(app, base_url=ADDRESS, follow_redirects=False)


@pytest.fixture
def client(visitor: TestClient) -> TestClient:
    """A program with the token."""
    visitor.headers["Authorization"] = f"Bearer {TOKEN}"
    return visitor
