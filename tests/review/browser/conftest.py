"""A browser, and a server of its own for each test, which can be killed and started again."""

import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, BrowserContext, Request, sync_playwright

from builders.review_page import Reviewer, Server
from hemalum.review.server.application import STATIC

PROGRAMS = ("chromium", "chromium-browser", "google-chrome")
SIZE = {"width": 1280, "height": 720}


def need(what: str) -> None:
    """Skip where something is not at hand; in continuous integration that is a failure."""
    if os.environ.get("CI") == "true":
        pytest.fail(f"{what}: `make test` brings it")
    pytest.skip(f"{what}: `make test` brings it")


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    """Chromium without a window."""
    if not (STATIC / "index.html").is_file():
        need("the page is not built")
    with sync_playwright() as playwright:
        bundled = playwright.chromium.executable_path
        program = next(filter(None, map(shutil.which, PROGRAMS)), bundled if Path(bundled).exists() else None)
        if program is None:
            need("there is no Chromium")
        browser = playwright.chromium.launch(
            executable_path=program, args=["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
        )
        yield browser
        browser.close()


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    """Two images of four nuclei, 80 x 60 px."""
    server = Server(tmp_path)
    yield server
    server.kill()


@pytest.fixture
def requests() -> list[str]:
    """The addresses that the pages of a test asked for."""
    return []


@pytest.fixture
def context(browser: Browser, requests: list[str]) -> Iterator[BrowserContext]:
    context = browser.new_context(viewport=SIZE)
    context.on("request", lambda request: _note(requests, request))
    yield context
    context.close()
    foreign = [url for url in requests if not url.startswith(("http://127.0.0.1:", "data:", "blob:"))]
    assert foreign == []


def _note(requests: list[str], request: Request) -> None:
    requests.append(request.url)


@pytest.fixture
def reviewer(context: BrowserContext, server: Server) -> Reviewer:
    """Somebody who has opened the first item."""
    return Reviewer(context.new_page()).open(server.link)


@pytest.fixture
def another(browser: Browser, server: Server) -> Iterator[Callable[[str], Reviewer]]:
    """Opens the page as somebody else, in a browser of their own."""
    contexts = []

    def open(name: str) -> Reviewer:
        contexts.append(browser.new_context(viewport=SIZE))
        contexts[-1].add_init_script(f"localStorage.setItem('hemalum.author', '\"{name}\"')")
        return Reviewer(contexts[-1].new_page()).open(server.link)

    yield open
    for context in contexts:
        context.close()
