"""The server of the review page: tiles, outlines, items and edits over HTTP, on a slide of a million made-up nuclei.

    python benchmarks/review.py -o benchmarks/results/review.json

Makes a pyramidal TIFF of JPEG tiles as scanners write it (levels of 1, 1/4 and 1/16) and a store of nuclei on it,
starts the server as a process of its own, and asks for what a page asks for: each tile once, at places drawn at
random, so that none was asked for before. Times are those of the client, from asking to the last byte. `view` is all
that a window of 1280 x 720 px shows at one place, on six connections as browsers open them.

`page` opens the page in Chromium (1280 x 720 px, no GPU): the time from the link until an item and its nuclei are
shown, the second time, as the first one starts the browser; and frames per second while it is panned with more than
20,000 outlines loaded for what is in view.

Limits at the 95th percentile: tile 50 ms, outlines 100 ms, edit 100 ms; page 2 s, 30 frames a second. Beside them in
the same run, `floor` is the same server's answer to what needs no work at all.
"""

import json
import math
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from http.client import HTTPConnection
from itertools import pairwise, product
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
from numpy.typing import NDArray
from playwright.sync_api import Response, sync_playwright
from scipy import ndimage

from hemalum.models import load_model
from hemalum.nuclei.store import NucleiStore
from hemalum.slides import open_slide
from record import figures_parser, peak_memory, write_record
from synthetic_nuclei import synthetic_nuclei, synthetic_run

SIDE = 1536  # px of a region
TILE = 512  # px of a tile of the slide, and of the page
FACTORS = (1, 4, 16)  # of the slide's levels
VIEW = (1280, 720)
CONNECTIONS = 6
LIMITS = {"tile": 50.0, "outlines": 100.0, "edit": 100.0}  # ms at the 95th percentile
PAGE_LIMITS = {"ready_s": 2.0, "frames_per_s": 30.0}  # at most, and at least
IN_VIEW = 20_000  # outlines, while the page is panned
READ = "(() => { const { store, viewer } = window.hemalumReview ?? { viewer: null }; return %s; })()"
READY = "viewer !== null && store.nuclei.value.size > 0 && viewer.transform() !== null"
PAN = """
async () => {
  const { viewer } = window.hemalumReview;
  const times = [];
  for (let start = performance.now(); performance.now() < start + 3000; ) {
    viewer.move(Math.sin(times.length / 20) * 0.02, Math.cos(times.length / 20) * 0.02);
    times.push(await new Promise(requestAnimationFrame));
  }
  return times;
}
"""  # the times of the frames, ms

Figures = dict[str, float]


def save_slide(path: Path, side: int) -> None:
    """A slide of `side` px: spots and grain in the colors of H&E, as hard to compress as tissue."""
    random = np.random.default_rng(0)
    spots = ndimage.gaussian_filter(random.normal(size=(2048, 2048)), 5, mode="wrap")
    grain = random.normal(size=(2048, 2048, 3)) * 6
    share = 1 / (1 + np.exp(-6 * spots / spots.std()))[..., None]
    picture = np.clip((230, 180, 210) * (1 - share) + (95, 60, 150) * share + grain, 0, 255).astype(np.uint8)

    def tiles(length: int) -> Iterator[NDArray[np.uint8]]:
        for _ in range(math.ceil(length / TILE) ** 2):
            top, left = random.integers(0, 2048 - TILE, 2)
            yield picture[top : top + TILE, left : left + TILE]

    with tifffile.TiffWriter(path, bigtiff=True) as writer:
        for factor in FACTORS:
            length = side // factor
            writer.write(
                tiles(length), shape=(length, length, 3), dtype=np.uint8, tile=(TILE, TILE), photometric="rgb",
                compression="jpeg", compressionargs={"level": 85}, subfiletype=1 if factor > 1 else 0,
                resolution=(40_000 / factor, 40_000 / factor), resolutionunit="CENTIMETER",
            )  # fmt: skip


def make_source(folder: Path, regions: int) -> Path:
    """The slide, and its nuclei in `regions` by `regions` regions."""
    folder.mkdir(parents=True)
    path = folder / "slide.tif"
    save_slide(path, regions * SIDE)
    with open_slide(path) as slide:
        fingerprint = slide.fingerprint
    model = load_model(None)
    run = synthetic_run(
        regions, regions, SIDE, fingerprint=fingerprint, source=path.name, model=model.card.name,
        model_digest=model.digest,
    )  # fmt: skip
    store = NucleiStore.create(folder / "slide.nuclei", run)
    for region in store.missing():
        store.add(region, *synthetic_nuclei(run, region))
    store.finish()
    return folder


def serve_folder(folder: Path) -> None:
    """The server, as `hemalum review` starts it; without the page where that is not built."""
    import hemalum.review
    from hemalum.review.server import serve
    from hemalum.review.session import Session

    static = Path(hemalum.review.__file__).parent / "static"
    if not (static / "index.html").is_file():
        static = folder / "static"
        static.mkdir(exist_ok=True)
        (static / "index.html").write_text("<!doctype html>")
    with Session.open(folder / "source", None, folder / "project") as session:
        session.start()
        serve(
            session, author="Anna", open_browser=False, on_ready=lambda link: print(link, flush=True), static=static
        )
    print(json.dumps({"peak_mb": peak_memory() / 1e6}), flush=True)


@dataclass
class Review:
    """A server that runs: its link, and who asks it."""

    link: str
    count: int  # of each thing that is asked for
    random: np.random.Generator = field(default_factory=lambda: np.random.default_rng(0))

    def __post_init__(self) -> None:
        self.host, _, self.token = self.link.removeprefix("http://").partition("/?token=")
        self._local = threading.local()
        self.image = self.ask("/images")[0]["id"]
        self.pyramid: dict[str, Any] = self.ask(f"/images/{self.image}")

    def fetch(self, path: str, body: Any = None) -> tuple[float, bytes]:
        """Milliseconds, and what comes; each thread has a connection of its own."""
        if not hasattr(self._local, "connection"):
            self._local.connection = HTTPConnection(self.host, timeout=60)
            self._local.connection.connect()
        start = time.perf_counter()
        self._local.connection.request(
            "GET" if body is None else "POST", f"/api/v1{path}", None if body is None else json.dumps(body),
            {"Authorization": f"Bearer {self.token}", "Content-Type": "application/json"},
        )  # fmt: skip
        answer = self._local.connection.getresponse()
        content = answer.read()
        if answer.status != 200:
            raise RuntimeError(f"{path}: {answer.status} {content[:200]!r}")
        return 1000 * (time.perf_counter() - start), content

    def ask(self, path: str, body: Any = None) -> Any:
        """What comes as JSON."""
        return json.loads(self.fetch(path, body)[1])

    def draw_tiles(self, levels: range) -> list[tuple[int, int, int]]:
        """Tiles (level, x, y) of these levels, drawn at random: as many of each level as of the others, if it has."""
        tiles = []
        for level in levels:
            factor = 2 ** (self.pyramid["levels"] - 1 - level)
            across, down = (-(-self.pyramid[name] // (factor * TILE)) for name in ("width", "height"))
            all_of_it = list(product([level], range(across), range(down)))
            chosen = self.random.permutation(len(all_of_it))[: -(-self.count // len(levels))]
            tiles += [all_of_it[k] for k in chosen]
        return [tiles[k] for k in self.random.permutation(len(tiles))]

    def time_tiles(self, kind: str, ending: str, levels: range) -> Figures:
        """Each tile once."""
        answers = [
            self.fetch(f"/images/{self.image}/{kind}/{z}/{x}_{y}.{ending}") for z, x, y in self.draw_tiles(levels)
        ]
        kb = float(np.mean([len(content) for _, content in answers])) / 1000 if answers else 0.0
        return summarize([ms for ms, _ in answers]) | {"kb": kb}


def summarize(milliseconds: list[float]) -> Figures:
    """How many, the median and the 95th percentile."""
    if not milliseconds:
        return {"count": 0}
    median, p95 = np.percentile(milliseconds, [50, 95])
    return {"count": len(milliseconds), "median_ms": float(median), "p95_ms": float(p95)}


def ask_for_nothing(review: Review) -> Figures:
    return summarize([review.fetch("/images")[0] for _ in range(review.count)])


def ask_for_tiles(review: Review) -> Figures:
    return review.time_tiles("tiles", "jpg", range(review.pyramid["levels"]))


def ask_for_outlines(review: Review) -> Figures:
    return review.time_tiles("outlines", "bin", range(review.pyramid["outlines_from"], review.pyramid["levels"]))


def ask_for_densities(review: Review) -> Figures:
    return review.time_tiles("density", "png", range(review.pyramid["outlines_from"]))


def ask_for_views(review: Review) -> Figures:
    """All tiles and outlines that a window shows, at full size and at a quarter, at places not asked for before."""
    milliseconds = []
    last = review.pyramid["levels"] - 1
    with ThreadPoolExecutor(CONNECTIONS) as browser:
        for number in range(max(2, review.count // 10)):
            level = last - 2 * (number % 2)
            factor = 2 ** (last - level)
            left, top = (
                int(review.random.integers(0, max(1, review.pyramid[name] // factor - side)))
                for name, side in zip(("width", "height"), VIEW, strict=True)
            )
            columns, rows = (
                range(start // TILE, (start + side) // TILE + 1)
                for start, side in zip((left, top), VIEW, strict=True)
            )
            layers = [("tiles", "jpg")] + ([("outlines", "bin")] if level >= review.pyramid["outlines_from"] else [])
            paths = [
                f"/images/{review.image}/{kind}/{level}/{x}_{y}.{ending}"
                for x in columns
                for y in rows
                for kind, ending in layers
            ]
            start = time.perf_counter()
            list(browser.map(review.fetch, paths))
            milliseconds.append(1000 * (time.perf_counter() - start))
    return summarize(milliseconds)


def open_items(review: Review) -> Figures:
    """An item that nobody has opened: itself, and its nuclei."""
    milliseconds = []
    items = review.pyramid["items"]
    for k in review.random.permutation(len(items))[: max(2, review.count // 10)]:
        first, _ = review.fetch(f"/items/{items[k]['id']}")
        milliseconds.append(first + review.fetch(f"/items/{items[k]['id']}/nuclei")[0])
    return summarize(milliseconds)


def edit_items(review: Review) -> Figures:
    """Accepted, rejected, reshaped and drawn, each answered when it is on the disk."""
    id = review.pyramid["items"][0]["id"]
    version, nuclei = (review.ask(f"/items/{id}/nuclei")[name] for name in ("version", "nuclei"))
    milliseconds = []
    for number in range(review.count):
        nucleus = nuclei[number % len(nuclei)]
        edit: dict[str, Any] = {"kind": ("accept", "reject", "accept", "reshape")[number % 4], "parent": version}
        edit["ids"] = [nucleus["id"]]
        if edit["kind"] == "reshape":
            edit["points"] = np.reshape(nucleus["points"], (-1, 2)).tolist()
        ms, content = review.fetch(f"/items/{id}/edits", edit)
        milliseconds.append(ms)
        version = json.loads(content)["version"]
        time.sleep(0.06)  # no reviewer is faster than the server allows
    return summarize(milliseconds)


def ask_for_changes(review: Review) -> Figures:
    """What the page asks every three seconds."""
    id = review.pyramid["items"][0]["id"]
    version = review.ask(f"/items/{id}")["version"]
    return summarize([review.fetch(f"/items/{id}/changes?after={version}")[0] for _ in range(review.count)])


def open_page(review: Review) -> Figures:
    """The page in a browser: until it is ready, and while it is panned."""
    outlines: dict[str, int] = {}

    def note(response: Response) -> None:
        if response.url.endswith(".bin") and response.ok:
            outlines[response.url] = int.from_bytes(response.body()[:4], "little")

    with sync_playwright() as playwright:
        program = next(filter(None, map(shutil.which, ("chromium", "google-chrome"))), None)
        browser = playwright.chromium.launch(
            executable_path=program, args=["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
        )
        page = browser.new_page(viewport={"width": VIEW[0], "height": VIEW[1]})
        page.on("response", note)
        for _ in range(2):
            start = time.perf_counter()
            page.goto(review.link)
            while not page.evaluate(READ % READY):  # the page lets no text be run that waits by itself
                page.wait_for_timeout(20)
            ready = time.perf_counter() - start
        outlines.clear()
        page.evaluate(READ % "viewer.zoom(0.17 / viewer.transform().scale)")
        deadline = time.perf_counter() + 60
        while sum(outlines.values()) < IN_VIEW and time.perf_counter() < deadline:
            page.wait_for_timeout(200)
        page.wait_for_timeout(1000)
        seen = sum(outlines.values())
        times = page.evaluate(PAN)
        browser.close()
    longest = max(after - before for before, after in pairwise(times))
    frames = (len(times) - 1) / (times[-1] - times[0]) * 1000
    return {"ready_s": ready, "outlines": seen, "frames_per_s": frames, "longest_ms": longest}


STEPS: dict[str, Callable[[Review], Figures]] = {
    "floor": ask_for_nothing,
    "tile": ask_for_tiles,
    "outlines": ask_for_outlines,
    "density": ask_for_densities,
    "view": ask_for_views,
    "item": open_items,
    "edit": edit_items,
    "changes": ask_for_changes,
    "page": open_page,
}


def show(name: str, figures: Figures) -> None:
    print(f"{name:10}", *(f"{key} {value:,.1f}" for key, value in figures.items()), sep="  ", flush=True)


def measure(folder: Path, count: int) -> dict[str, Figures]:
    """Start the server, take every step, and end it."""
    start = time.perf_counter()
    command = [sys.executable, __file__, "--serve", str(folder)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=os.environ) as process:
        try:
            assert process.stdout is not None
            link = process.stdout.readline().strip()
            ready = time.perf_counter() - start
            review = Review(link, count)
            results: dict[str, Figures] = {
                "start": {
                    "link_s": ready,
                    "slide_s": time.perf_counter() - start - ready,
                    "nuclei": review.pyramid["nuclei"],
                }
            }
            for name, step in STEPS.items():
                results[name] = step(review)
                show(name, results[name])
            process.send_signal(2)
            results["start"] |= json.loads(process.stdout.read())
        finally:
            process.kill()
    return results


def main() -> None:
    parser = figures_parser(__doc__)
    parser.add_argument("--regions", type=int, default=16, help="along each side of the slide; one has 4,096 nuclei")
    parser.add_argument("--count", type=int, default=300, help="how often each thing is asked for")
    parser.add_argument("--folder", type=Path, help="keep slide and store here, and take what is there")
    parser.add_argument("--serve", type=Path, help="only serve (what the program calls itself with)")
    arguments = parser.parse_args()
    if arguments.serve:
        serve_folder(arguments.serve)
        return
    with tempfile.TemporaryDirectory() as temporary:
        folder = arguments.folder or Path(temporary) / "review"
        if not (folder / "source").exists():
            make_source(folder / "source", arguments.regions)
        results = measure(folder, arguments.count)
    show("start", results["start"])
    for name, limit in LIMITS.items():
        p95 = results[name]["p95_ms"]
        print(f"{name}: {p95:.1f} ms, limit {limit:g}: {'kept' if p95 <= limit else 'BROKEN'}")
    page = results["page"]
    ready, frames = (page[name] for name in PAGE_LIMITS)
    kept = ready <= PAGE_LIMITS["ready_s"] and frames >= PAGE_LIMITS["frames_per_s"] and page["outlines"] >= IN_VIEW
    print(f"page: ready in {ready:.1f} s, {frames:.0f} frames a second: {'kept' if kept else 'BROKEN'}")
    packages = ["fastapi", "uvicorn", "pyarrow", "numpy", "shapely", "pillow"]
    write_record(arguments.output, "review", packages, results, limits=LIMITS | PAGE_LIMITS)


if __name__ == "__main__":
    main()
