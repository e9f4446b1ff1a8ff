"""The review page in a browser: opened, walked by keyboard, edited, closed in the middle, and by two at once."""

from collections.abc import Callable
from pathlib import Path

import pytest
from playwright.sync_api import Browser, BrowserContext

from builders.review_page import Reviewer, Server
from hemalum.review.project import Project

pytestmark = pytest.mark.slow
AXE = Path(__file__).parents[3] / "web" / "node_modules" / "axe-core" / "axe.min.js"  # `make page` brings it
SIZE = {"width": 1280, "height": 720}
FIRST, SECOND, THIRD, FOURTH = (12, 15), (28, 15), (44, 15), (60, 44)  # centers of the discs, px


def test_opens_with_the_link_and_says_where_it_is_without(context: BrowserContext, server: Server) -> None:
    page = context.new_page()
    answer = page.goto(server.address)
    assert answer is not None
    assert answer.status == 401
    assert "hemalum review" in page.inner_text("body")
    reviewer = Reviewer(context.new_page()).open(server.link)
    assert "token" not in reviewer.page.url
    assert reviewer.page.title() == "images · hemalum review"
    assert reviewer.ids == [1, 2, 3, 4]
    reviewer.page.wait_for_timeout(500)
    assert reviewer.errors == []


def test_the_queue_is_walked_by_keyboard(reviewer: Reviewer) -> None:
    reviewer.wait("store.queue.value.length === 2")  # both fields are looked at
    reviewer.press("ArrowRight")
    assert len(reviewer.ask("[...store.chosen.value]")) == 1
    assert "Nucleus" in reviewer.page.inner_text("#spoken")
    reviewer.press("a", "x")
    reviewer.saved()
    assert sorted(reviewer.ask("[...store.nuclei.value.values()].map(({ state }) => state)")) == [
        "accepted", "proposed", "proposed", "rejected",
    ]  # fmt: skip
    reviewer.press("g")
    reviewer.wait("store.counts.value.proposed === 0")
    first = reviewer.ask("store.item.value.id")
    reviewer.press("w")
    reviewer.wait(f"store.item.value.id !== '{first}'")
    reviewer.press("k")
    reviewer.saved()
    assert reviewer.ask("store.queue.value.map(({ status }) => status)") == ["reviewed", "skipped"]
    reviewer.press("p")
    reviewer.wait(f"store.item.value.id === '{first}'")
    assert reviewer.page.locator(".tally").inner_text() == "1 of 2 reviewed"
    reviewer.press("?")
    reviewer.page.locator("dialog.help").wait_for()
    reviewer.press("Escape")
    reviewer.page.locator("dialog.help").wait_for(state="hidden")
    assert reviewer.errors == []


def test_edits_are_kept_over_a_reload(reviewer: Reviewer) -> None:
    reviewer.press("d")
    reviewer.drag((20, 40), (30, 36), (38, 44), (30, 52), (20, 46), (20, 41))
    reviewer.saved()
    added = reviewer.ids[-1]
    assert added == 5
    reviewer.press("s")
    reviewer.drag((60, 32), (60, 56))
    reviewer.saved()
    assert reviewer.ids == [1, 2, 3, 5, 6, 7]
    reviewer.press("v")
    reviewer.click(*FIRST)
    reviewer.click(*SECOND, shift=True)
    reviewer.press("m")
    reviewer.saved()
    assert reviewer.ids == [3, 5, 6, 7, 8]
    reviewer.click(*THIRD)
    reviewer.press("Delete")
    reviewer.saved()
    assert reviewer.ids == [5, 6, 7, 8]
    reviewer.press("Control+z", "Control+z")
    reviewer.wait("store.nuclei.value.size === 6")
    assert reviewer.ids == [1, 2, 3, 5, 6, 7]
    reviewer.press("Control+Shift+z")
    reviewer.wait("store.nuclei.value.has(8)")
    outlines = reviewer.ask("[...store.nuclei.value.values()].map(({ id, points }) => [id, points]).sort()")
    reviewer.page.reload()
    reviewer.wait("store.item.value !== null")
    assert reviewer.ask("[...store.nuclei.value.values()].map(({ id, points }) => [id, points]).sort()") == outlines
    assert reviewer.page.locator(".events li").first.inner_text().startswith("Anna made a change again")
    assert reviewer.errors == []


def test_what_the_model_proposes_is_added_with_enter(reviewer: Reviewer) -> None:
    reviewer.click(*FOURTH)
    reviewer.press("Delete", "c")
    reviewer.saved()
    reviewer.click(*FOURTH)
    reviewer.wait("store.draft.value?.kind === 'propose'")
    assert reviewer.ids == [1, 2, 3]
    reviewer.press("Enter")
    reviewer.saved()
    assert reviewer.ids == [1, 2, 3, 5]
    reviewer.click(2, 58)
    reviewer.wait("store.notice.value !== null")
    assert reviewer.ask("store.notice.value.text") == "The model sees no nucleus there: draw it (D)"


def test_an_outline_is_drawn_point_by_point_and_reshaped(reviewer: Reviewer) -> None:
    reviewer.press("d")
    for point in ((20, 40), (34, 40), (34, 54), (20, 54)):
        reviewer.click(*point)
        reviewer.page.wait_for_timeout(350)  # not a double click
    reviewer.press("Enter")
    reviewer.saved()
    before = reviewer.ask("Math.max(...store.nuclei.value.get(5).ring.map(([x]) => x))")
    reviewer.press("r")
    reviewer.drag((30, 43), (42, 43), (42, 50), (30, 50))
    reviewer.saved()
    assert before == pytest.approx(34, abs=0.2)
    assert reviewer.ask("Math.max(...store.nuclei.value.get(5).ring.map(([x]) => x))") == pytest.approx(42, abs=0.5)
    assert reviewer.errors == []


@pytest.mark.fault
def test_a_drawing_that_the_server_refuses_stays(reviewer: Reviewer) -> None:
    reviewer.press("d")
    x, y = THIRD
    reviewer.drag((x - 3, y), (x, y - 3), (x + 3, y), (x, y + 3), (x - 3, y + 0.5))
    banner = reviewer.page.locator(".banner[role=alert]")
    banner.wait_for()
    assert banner.inner_text().startswith("Not saved (add): ")
    assert reviewer.page.locator("#saved").inner_text() == "1 edit not saved"
    reviewer.page.reload()
    banner.wait_for()
    banner.get_by_role("button", name="Discard").click()
    reviewer.saved()
    reviewer.wait("store.item.value !== null")
    assert reviewer.ids == [1, 2, 3, 4]


@pytest.mark.fault
def test_an_edit_while_the_server_is_gone_is_saved_when_it_is_back(reviewer: Reviewer, server: Server) -> None:
    reviewer.click(*FIRST)
    reviewer.press("a")
    reviewer.saved()
    server.kill()
    reviewer.click(*FOURTH)
    reviewer.press("x")
    reviewer.press("d")
    reviewer.drag((20, 40), (30, 36), (38, 44), (30, 52), (20, 46), (20, 41))
    reviewer.wait("store.report.value.state === 'waiting'")
    assert reviewer.page.locator("#saved").inner_text() == "Not saved: the program does not answer"
    assert "2 edits are kept here" in reviewer.page.locator(".banner[role=alert]").inner_text()
    server.start()
    reviewer.wait("store.report.value.state === 'saved'", seconds=30)
    reviewer.wait("store.nuclei.value.size === 5")
    reviewer.page.reload()
    reviewer.wait("store.item.value !== null")
    assert [reviewer.state(id) for id in (1, 4, 5)] == ["accepted", "rejected", "accepted"]
    events = reviewer.page.locator(".events li")
    events.nth(2).wait_for()
    assert events.count() == 3


@pytest.mark.fault
def test_edits_of_one_project_never_go_into_another_at_its_address(
    reviewer: Reviewer, server: Server, tmp_path: Path
) -> None:
    server.kill()
    reviewer.click(*FIRST)
    reviewer.press("a")
    reviewer.wait("store.report.value.state === 'waiting'")
    (tmp_path / "another").mkdir()
    other = Server(tmp_path / "another", port=server.port)
    try:
        reviewer.wait("store.report.value.message.includes('in another project now')", seconds=30)
        visitor = Reviewer(reviewer.page.context.new_page()).open(server.link)
        visitor.press("ArrowRight")
        visitor.page.wait_for_timeout(1000)  # in which it would take over what the first page keeps
        assert [visitor.state(id) for id in visitor.ids] == ["proposed"] * 4
        assert visitor.ask("store.report.value.pending.length + store.report.value.failed.length") == 0
        visitor.page.close()
        with Project.open(tmp_path / "another" / "review") as project:
            assert [project.journal.state(name).version for name in project.journal.names()] == [0, 0]
    finally:
        other.kill()
    server.start()
    reviewer.wait("store.report.value.state === 'saved'", seconds=30)
    assert reviewer.state(1) == "accepted"


@pytest.mark.fault
def test_what_two_change_at_once_is_a_conflict_and_nothing_is_lost(
    reviewer: Reviewer, another: Callable[[str], Reviewer]
) -> None:
    ben = another("Ben")
    reviewer.page.route("**/changes?*", lambda _: None)  # so that the page does not hear of it yet
    ben.click(*FOURTH)
    ben.press("x")
    ben.saved()
    reviewer.press("s")
    reviewer.drag((60, 32), (60, 56))
    banner = reviewer.page.locator(".banner[role=alert]")
    banner.wait_for()
    reviewer.page.unroute("**/changes?*")
    assert "nucleus 4 was changed by Ben at" in banner.inner_text()
    reviewer.wait("store.nuclei.value.get(4).state === 'rejected'")
    banner.get_by_role("button", name="Discard").click()
    reviewer.press("v")
    reviewer.click(*FIRST)
    reviewer.press("a")
    reviewer.saved()
    ben.wait("store.nuclei.value.get(1).state === 'accepted'")
    assert ben.ask("store.events.value.map(({ author, kind }) => `${author} ${kind}`)") == [
        "Ben reject",
        "Anna accept",
    ]


@pytest.mark.fault
def test_what_goes_wrong_by_itself_is_said(reviewer: Reviewer) -> None:
    refusal = {"status": 400, "json": {"detail": "the disk is full"}}
    reviewer.page.route("**/changes?*", lambda route: route.fulfill(**refusal))
    reviewer.wait("store.notice.value?.text === 'the disk is full'")
    reviewer.page.unroute("**/changes?*")
    # an item that could not be marked is not shown as marked
    reviewer.wait("store.queue.value.length === 2")
    reviewer.page.route("**/edits", lambda route: route.fulfill(**refusal))
    reviewer.press("w")
    banner = reviewer.page.locator(".banner[role=alert]", has_text="the disk is full").first
    banner.wait_for()
    assert banner.inner_text().startswith("Not saved (mark")
    reviewer.wait("store.queue.value.every(({ status }) => status === 'open')")
    # a browser that keeps nothing more
    reviewer.page.evaluate(
        "() => { Storage.prototype.setItem = () => { throw new DOMException('', 'QuotaExceededError'); }; }"
    )
    reviewer.press("ArrowRight", "a")
    reviewer.wait("store.notice.value?.text.startsWith('The browser has no room for what is not saved yet')")


@pytest.mark.fault
def test_a_token_of_another_start_is_said(reviewer: Reviewer, context: BrowserContext) -> None:
    context.clear_cookies()
    reviewer.page.locator(".banner[role=alert]").wait_for()
    text = reviewer.page.locator(".banner[role=alert]").inner_text()
    assert text.startswith("This page may not ask the program any more. Open the link again")


def test_panels_are_drawers_on_a_tablet(context: BrowserContext, server: Server) -> None:
    reviewer = Reviewer(context.new_page())
    reviewer.page.set_viewport_size({"width": 820, "height": 1180})
    reviewer.open(server.link)
    queue = reviewer.page.locator(".side.left")
    assert not queue.is_visible()
    reviewer.page.get_by_role("button", name="Queue", exact=True).first.click()
    queue.wait_for()
    second = reviewer.page.locator(".entry").nth(1)
    second.click()
    reviewer.wait("store.queue.value[1].id === store.item.value.id")
    queue.wait_for(state="hidden")
    reviewer.page.get_by_role("button", name="Facts and layers").click()
    reviewer.page.locator(".side.right").wait_for()
    assert reviewer.errors == []


def test_axe_finds_nothing_that_keeps_people_out(browser: Browser, server: Server) -> None:
    context = browser.new_context(viewport=SIZE, bypass_csp=True)  # or the page would not let axe in
    try:
        reviewer = Reviewer(context.new_page()).open(server.link)
        for state in ("open", "a nucleus chosen", "keys shown", "narrow"):
            if state == "a nucleus chosen":
                reviewer.press("ArrowRight")
            elif state == "keys shown":
                reviewer.press("?")
            elif state == "narrow":
                reviewer.press("Escape")
                reviewer.page.set_viewport_size({"width": 820, "height": 1180})
            reviewer.page.evaluate(AXE.read_text(encoding="utf-8"))
            violations = reviewer.page.evaluate("axe.run()")["violations"]
            assert [(state, one["id"], [node["html"] for node in one["nodes"]]) for one in violations] == []
    finally:
        context.close()
