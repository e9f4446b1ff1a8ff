"""A slide of more than 200,000 nuclei: panned and zoomed, from their density to a field that is edited."""

from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import pytest
from playwright.sync_api import BrowserContext, Response

from builders.review_page import Reviewer, Server
from review import PAN

pytestmark = pytest.mark.slow
REGIONS = 11


def test_pans_and_zooms(
    context: BrowserContext, tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    server = Server(tmp_path, REGIONS)
    outlines: dict[str, int] = {}
    densities: list[str] = []

    def note(response: Response) -> None:
        if response.url.endswith(".bin") and response.ok:
            outlines[response.url] = int.from_bytes(response.body()[:4], "little")
        elif "/density/" in response.url and response.ok:
            densities.append(response.url)

    reviewer = Reviewer(context.new_page())
    reviewer.page.on("response", note)
    try:
        reviewer.open(server.link)
        image = reviewer.ask("store.image.value")
        assert isinstance(image, dict)
        assert image["nuclei"] > 200_000
        assert reviewer.ask("store.nuclei.value.size") > 1_500
        # so near that outlines are drawn, more than 20,000 of them
        outlines.clear()
        reviewer.ask("viewer.zoom(0.17 / viewer.transform().scale)")
        for _ in range(120):  # until the tiles have come
            if sum(outlines.values()) > 20_000:
                break
            reviewer.page.wait_for_timeout(500)
        assert sum(outlines.values()) > 20_000
        reviewer.page.wait_for_timeout(1000)
        times = reviewer.page.evaluate(PAN)
        frames = (len(times) - 1) / (times[-1] - times[0]) * 1000
        slowest = max(after - before for before, after in pairwise(times))
        record_property("frames_per_second", round(frames, 1))
        print(f"{sum(outlines.values()):,} outlines: {frames:.1f} frames/s, the longest {slowest:.0f} ms")
        assert frames > 5  # that it moves at all: how fast is for a machine with nothing else to do
        # so far out that their density takes their place
        reviewer.press(*["-"] * 12)
        for _ in range(120):
            if densities:
                break
            reviewer.page.wait_for_timeout(500)
        assert densities
        # a click on another field opens it
        before = reviewer.ask("store.item.value.id")
        box = reviewer.page.locator(".openseadragon-canvas").bounding_box()
        assert box is not None
        reviewer.press("v", "f")
        reviewer.page.wait_for_timeout(1000)
        reviewer.page.mouse.click(box["x"] + box["width"] - 20, box["y"] + box["height"] / 2)
        reviewer.wait(f"store.item.value.id !== '{before}'", seconds=60)
        reviewer.press("ArrowRight", "a")
        reviewer.saved()
        assert reviewer.ask("store.counts.value.accepted") == 1
        assert reviewer.errors == []
    finally:
        server.kill()
