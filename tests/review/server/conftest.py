"""Reviews of two images and of a slide, begun once, and a browser of each."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from starlette.testclient import TestClient

from builders.review_sessions import MPP, save_images, save_slide
from hemalum.review.server import create_app
from hemalum.review.session import Session

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


@pytest.fixture(scope="session")
def begun(tmp_path_factory: pytest.TempPathFactory, dark_model: Path) -> Path:
    """A project whose two images the model has looked at."""
    folder = tmp_path_factory.mktemp("review")
    with Session.open(save_images(folder / "images"), dark_model, folder / "project", mpp=MPP) as session:
        session.start()
        session.wait()
    return folder / "project"


@pytest.fixture
def session(begun: Path, dark_model: Path, tmp_path: Path) -> Iterator[Session]:
    """A review of kidney_1.png and kidney_2.png (80 x 60 px), as the model has found their four nuclei each."""
    project = shutil.copytree(begun, tmp_path / "project")
    with Session.open(None, dark_model, project) as session:
        session.start()
        session.wait()
        yield session


@pytest.fixture
def slide_session(dark_model: Path, tmp_path: Path) -> Iterator[Session]:
    """A review of a slide (720 x 480 px) with a store of 600 nuclei."""
    source = save_slide(tmp_path / "slides", dark_model)
    with Session.open(source, dark_model, tmp_path / "slides.review") as session:
        session.start()
        session.wait()
        yield session


def connect(session: Session, static: Path) -> TestClient:
    """A browser without the token."""
    app = create_app(session, token=TOKEN, author="Anna", static=static)
    return TestClient(app, base_url=ADDRESS, follow_redirects=False)


@pytest.fixture
def visitor(session: Session, static: Path) -> TestClient:
    """A browser without the token."""
    return connect(session, static)


@pytest.fixture
def client(visitor: TestClient) -> TestClient:
    """A program with the token."""
    visitor.headers["Authorization"] = f"Bearer {TOKEN}"
    return visitor


@pytest.fixture
def slides(slide_session: Session, static: Path) -> TestClient:
    """A program with the token, for the slide."""
    client = connect(slide_session, static)
    client.headers["Authorization"] = f"Bearer {TOKEN}"
    return client
