"""The pictures of docs/how-to/review.md: the page of a review, photographed while somebody works at it.

    hemalum segment CMU-1-Small-Region.svs -m fast -o OUT
    python tools/draw_review.py OUT --slide CMU-1-Small-Region.svs
    hemalum refine fast -p my-review -o NEW    # after a review of all fields
    python tools/draw_review.py OUT --slide CMU-1-Small-Region.svs --report NEW/report.html

The slide is OpenSlide's test data (Carnegie Mellon University, CC0). Needs the page (`make page`), playwright and
Chromium, as `make test` has them.
"""

import argparse
import math
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from typing import Any

from PIL import Image
from playwright.sync_api import Browser, Page, sync_playwright

ROOT = Path(__file__).resolve().parents[1]
DESKTOP, TABLET = (1280, 720), (820, 1100)  # px
FIELD = (740, 1978)  # the window that is worked at: its left and top in the slide
TOKEN = "a-token-for-these-pictures"
QUALITIES = range(84, 40, -4)  # of JPEG: the first that is small enough
MOST_BYTES = 195_000
# centers and boxes of the nuclei of the field, px of it
NUCLEI = """[...store.nuclei.value.values()].filter((one) => one.state === "proposed").map(({ id, box, entropy }) => (
  { id, entropy, x: (box[0] + box[2]) / 2, y: (box[1] + box[3]) / 2, left: box[0], top: box[1], right: box[2],
    bottom: box[3] }))"""


@contextmanager
def serve(results: Path, slide: Path, project: Path) -> Iterator[str]:
    """The program as a reviewer starts it; gives the link that it prints."""
    command = [sys.executable, "-m", "hemalum", "review", str(results), "-m", "fast", "-p", str(project)]
    command += ["--slide", str(slide), "--author", "Anna", "--no-browser"]
    process = subprocess.Popen(
        command, env={**os.environ, "HEMALUM_REVIEW_TOKEN": TOKEN, "PYTHONUNBUFFERED": "1"}, stdout=subprocess.PIPE,
        text=True,
    )  # fmt: skip
    assert process.stdout is not None
    try:
        yield process.stdout.readline().split()[-1]
    finally:
        process.terminate()
        process.wait()


class Reviewer:
    """Somebody at the page, who works in px of the field that is open."""

    def __init__(self, browser: Browser, size: tuple[int, int], link: str) -> None:
        self.page: Page = browser.new_page(viewport={"width": size[0], "height": size[1]})
        self.page.goto(link)
        self.wait("store.item.value && viewer.transform()")
        self.wait("store.progress.value?.state === 'done'", 300)
        x, y = FIELD
        self.page.evaluate(f"location.hash = {self.id_at(x, y)!r}")
        self.wait(f"store.windowOf.value?.[0] === {x} && store.windowOf.value?.[1] === {y}")

    def id_at(self, x: int, y: int) -> str:
        """The item whose window begins there."""
        return str(self.ask(f"store.queue.value.find((one) => one.window[0] === {x} && one.window[1] === {y}).id"))

    def ask(self, expression: str) -> Any:
        """The value of an expression of what the page knows."""
        script = "(() => { const { store, viewer } = window.hemalumReview; return %s; })()"
        return self.page.evaluate(script % expression)

    def wait(self, expression: str, seconds: float = 60) -> None:
        """Wait until an expression is true."""
        script = "() => { const { store, viewer } = window.hemalumReview ?? {}; return Boolean(viewer && (%s)); }"
        self.page.wait_for_function(script % expression, timeout=1000 * seconds)

    def wait_until_still(self) -> None:
        """Wait until the image has come and stands still."""
        self.page.wait_for_timeout(1500)
        self.wait("viewer.seadragon.world.getItemAt(0).getFullyLoaded()")
        self.page.wait_for_timeout(700)

    def press(self, *keys: str) -> None:
        """Press keys, and wait until what they did is saved."""
        for key in keys:
            self.page.keyboard.press(key)
        self.wait("store.report.value.state === 'saved'")

    def look_at(self, x: float, y: float, side: float) -> None:
        """Bring a square of the field into view."""
        half = side / 2
        self.ask(f"viewer.fitBox([{x - half} + {FIELD[0]}, {y - half} + {FIELD[1]}, "
                 f"{x + half} + {FIELD[0]}, {y + half} + {FIELD[1]}], 0, true)")  # fmt: skip
        self.wait_until_still()

    def screen_point(self, x: float, y: float) -> tuple[float, float]:
        """Where a point of the field is on the screen."""
        box = self.page.locator(".openseadragon-canvas").bounding_box()
        view = self.ask("viewer.transform()")
        assert box is not None
        return (
            box["x"] + view["left"] + (x + FIELD[0]) * view["scale"],
            box["y"] + view["top"] + (y + FIELD[1]) * view["scale"],
        )

    def choose(self, *nuclei: dict[str, Any]) -> None:
        """Click nuclei, all but the first with Shift."""
        self.press("Escape")
        for i, one in enumerate(nuclei):
            self.page.wait_for_timeout(400)  # two clicks at once are a double click
            if i:
                self.page.keyboard.down("Shift")
            self.page.mouse.click(*self.screen_point(one["x"], one["y"]))
            if i:
                self.page.keyboard.up("Shift")

    def drag(self, points: list[tuple[float, float]], *, release: bool = True) -> None:
        self.page.mouse.move(*self.screen_point(*points[0]))
        self.page.mouse.down()
        for point in points[1:]:
            self.page.mouse.move(*self.screen_point(*point), steps=4)
        if release:
            self.page.mouse.up()

    def picture(self, out: Path, name: str) -> None:
        self.page.wait_for_timeout(300)
        save(self.page, out / f"{name}.jpg")


def save(page: Page, path: Path) -> None:
    """Write what the page shows, in the best quality that is small enough."""
    with Image.open(BytesIO(page.screenshot())) as shot:
        for quality in QUALITIES:
            shot.convert("RGB").save(path, quality=quality, optimize=True, progressive=True)
            if path.stat().st_size <= MOST_BYTES:
                break
    print(path)


def work(reviewer: Reviewer, out: Path) -> None:
    """Review a part of the field, and take a picture of each tool."""
    nuclei: list[dict[str, Any]] = reviewer.ask(NUCLEI)
    middle = min(nuclei, key=lambda one: math.hypot(one["x"] - 440, one["y"] - 340))
    x, y = middle["x"], middle["y"]
    reviewer.look_at(x, y, 170)
    here = [one for one in nuclei if abs(one["x"] - x) < 75 and abs(one["y"] - y) < 75]
    surest = sorted(here, key=lambda one: one["entropy"] or 0)
    reviewer.choose(*surest[: 2 * len(here) // 3])
    reviewer.press("a")
    reviewer.choose(*surest[-3:-1])
    reviewer.press("x")
    reviewer.choose(surest[-1])
    reviewer.picture(out, "review_page")
    # one that was missed: here one that was taken away before
    missed = min(surest[: len(here) // 2], key=lambda one: math.hypot(one["x"] - x, one["y"] - y))
    reviewer.choose(missed)
    reviewer.press("Delete", "c")
    reviewer.page.mouse.click(*reviewer.screen_point(missed["x"], missed["y"]))
    reviewer.wait("store.draft.value")
    reviewer.picture(out, "review_add")
    reviewer.press("Enter", "v", "Escape")
    # a line across the largest, not let go yet
    open_ones = [one for one in here if one is not missed]
    largest = max(open_ones, key=lambda one: (one["right"] - one["left"]) * (one["bottom"] - one["top"]))
    reviewer.look_at(largest["x"], largest["y"], 90)
    reviewer.press("s")
    across = largest["right"] - largest["left"] < largest["bottom"] - largest["top"]
    ends = [(largest["left"] - 4, largest["y"]), (largest["right"] + 4, largest["y"])]
    if not across:
        ends = [(largest["x"], largest["top"] - 4), (largest["x"], largest["bottom"] + 4)]
    reviewer.drag([ends[0], (largest["x"], largest["y"]), ends[1]], release=False)
    reviewer.picture(out, "review_split")
    reviewer.page.mouse.up()
    reviewer.press("Control+z", "v", "Escape")
    # how sure the model is
    reviewer.look_at(x, y, 300)
    reviewer.press("e", "y")
    reviewer.wait("!store.thinking.value && !store.opening.value")
    reviewer.wait_until_still()
    reviewer.picture(out, "review_uncertainty")
    reviewer.press("e", "y", "f")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("results", type=Path)
    parser.add_argument("--slide", type=Path, required=True)
    parser.add_argument("-o", "--output", type=Path, default=ROOT / "docs" / "images")
    parser.add_argument("--report", type=Path, help="draw the report of a refinement, and nothing else")
    arguments = parser.parse_args()
    program = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    options: dict[str, Any] = {
        "executable_path": program,
        "args": ["--no-sandbox", "--disable-gpu", "--disable-background-networking"],
    }
    if arguments.report is not None:
        with sync_playwright() as playwright:
            page = playwright.chromium.launch(**options).new_page(viewport={"width": 1000, "height": 760})
            page.goto(arguments.report.resolve().as_uri())
            page.wait_for_timeout(1000)
            save(page, arguments.output / "review_report.jpg")
        return
    with (
        tempfile.TemporaryDirectory() as folder,
        serve(arguments.results, arguments.slide, Path(folder) / "review") as link,
        sync_playwright() as playwright,
    ):
        browser = playwright.chromium.launch(**options)
        reviewer = Reviewer(browser, DESKTOP, link)
        work(reviewer, arguments.output)
        reviewer.page.close()
        tablet = Reviewer(browser, TABLET, link)
        tablet.wait_until_still()
        tablet.picture(arguments.output, "review_tablet")
        tablet.page.close()
        browser.close()


if __name__ == "__main__":
    main()
