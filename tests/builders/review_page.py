"""The server of a review in a process of its own, and somebody at its page."""

import os
import socket
import subprocess
import sys
from pathlib import Path

from playwright.sync_api import ConsoleMessage, Page

from review import READ  # what the page gives to the console: all that it knows, and the image as it is shown

TOKEN = "a-token-of-these-tests"
TESTS = Path(__file__).parents[1]


class Server:
    """The server in a process of its own, always at the same address (port 0: a free one) and with the same token."""

    def __init__(self, folder: Path, regions: int = 0, port: int = 0) -> None:
        self.folder, self.regions = folder, regions
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = port or free.getsockname()[1]
        self.address = f"http://127.0.0.1:{self.port}"
        self.link = f"{self.address}/?token={TOKEN}"
        self.start()

    def start(self) -> None:
        paths = [str(TESTS), str(TESTS.parent / "benchmarks"), os.environ.get("PYTHONPATH", "")]
        self.process = subprocess.Popen(
            [sys.executable, "-m", "builders.review_server", str(self.folder), str(self.port), str(self.regions)],
            env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, paths)), "HEMALUM_REVIEW_TOKEN": TOKEN},
            stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        assert self.process.stdout is not None
        assert self.process.stdout.readline().strip() == self.link

    def kill(self) -> None:
        """As `kill -9` does."""
        self.process.kill()
        self.process.wait()
        assert self.process.stdout is not None
        self.process.stdout.close()


class Reviewer:
    """Somebody at the page: what is seen and done, in px of the item."""

    def __init__(self, page: Page) -> None:
        self.page = page
        self.errors: list[str] = []
        page.on("console", self._note)
        page.on("pageerror", lambda error: self.errors.append(str(error)))

    def _note(self, message: ConsoleMessage) -> None:
        if message.type == "error":
            self.errors.append(message.text)

    def open(self, link: str) -> "Reviewer":
        self.page.goto(link)
        self.wait("store.item.value !== null", seconds=90)  # the server may have to compile first
        self.wait("viewer.transform() !== null")
        return self

    def ask(self, expression: str) -> object:
        """The value of an expression of what the page knows."""
        return self.page.evaluate(READ % expression)

    def wait(self, expression: str, seconds: float = 15) -> None:
        """Wait until an expression is true."""
        for _ in range(round(seconds * 20)):
            if self.page.evaluate(READ % f"viewer !== null && Boolean({expression})"):
                return
            self.page.wait_for_timeout(50)
        raise AssertionError(f"not after {seconds} s: {expression}; notice: {self.ask('store.notice.value?.text')}")

    def saved(self) -> None:
        """Wait until the page says that all is saved."""
        self.wait("store.report.value.state === 'saved'")
        assert self.page.locator("#saved").inner_text() == "Saved"

    def screen_point(self, x: float, y: float) -> tuple[float, float]:
        """Where a point of the item is on the screen."""
        box = self.page.locator(".openseadragon-canvas").bounding_box()
        view = self.ask("viewer.transform()")
        assert box is not None
        assert isinstance(view, dict)
        return box["x"] + view["left"] + x * view["scale"], box["y"] + view["top"] + y * view["scale"]

    def click(self, x: float, y: float, *, shift: bool = False) -> None:
        if shift:
            self.page.keyboard.down("Shift")
        self.page.mouse.click(*self.screen_point(x, y))
        if shift:
            self.page.keyboard.up("Shift")

    def drag(self, *points: tuple[float, float]) -> None:
        self.page.mouse.move(*self.screen_point(*points[0]))
        self.page.mouse.down()
        for point in points[1:]:
            self.page.mouse.move(*self.screen_point(*point), steps=4)
        self.page.mouse.up()

    def press(self, *keys: str) -> None:
        for key in keys:
            self.page.keyboard.press(key)

    @property
    def ids(self) -> list[int]:
        ids = self.ask("[...store.nuclei.value.keys()].sort((a, b) => a - b)")
        assert isinstance(ids, list)
        return ids

    def state(self, id: int) -> object:
        return self.ask(f"store.nuclei.value.get({id})?.state")
