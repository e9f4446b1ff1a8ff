"""Items and the changes made to them, over HTTP."""

import io
import threading
from typing import Any

import numpy as np
import pytest
from PIL import Image
from starlette.testclient import TestClient

from builders.reviews import square
from hemalum.review.nucleus import MAX_POINTS
from hemalum.review.session import Session
from hemalum.review.sources import id_of

API = "/api/v1"
ONE, TWO = (f"{API}/items/{id_of(name)}" for name in ("kidney_1.png", "kidney_2.png"))


def edit(client: TestClient, kind: str, parent: int = 0, author: str = "Anna", **options: Any) -> Any:
    return client.post(f"{ONE}/edits", json={"kind": kind, "parent": parent, "author": author, **options})


def detail(answer: Any) -> tuple[int, str]:
    return answer.status_code, answer.json()["detail"]


def test_the_project_says_what_is_reviewed(client: TestClient) -> None:
    content = client.get(f"{API}/project").json()
    assert (content["name"], content["model"], content["author"]) == ("images", "dark", "Anna")
    assert content["counts"] == {"items": 2, "reviewed": 0, "skipped": 0, "open": 2}
    assert content["progress"] == {"state": "done", "done": 2, "total": 2, "message": None}
    assert content["rankings"] == ["entropy", "disagreement", "outliers", "random"]
    assert content["limits"] == {"points": 5000, "nuclei": 1000}
    edit(client, "mark", status="reviewed")
    assert client.get(f"{API}/project").json()["counts"] == {"items": 2, "reviewed": 1, "skipped": 0, "open": 1}


@pytest.mark.fault
def test_a_page_of_another_project(client: TestClient) -> None:
    id = client.get(f"{API}/project").json()["id"]
    client.headers["X-Hemalum-Project"] = id
    assert edit(client, "accept", ids=[1]).status_code == 200
    client.headers["X-Hemalum-Project"] = "0" * 32
    line = "the program at this address reviews images in another project now"
    assert detail(edit(client, "accept", ids=[2])) == (421, line)
    assert detail(client.get(f"{ONE}/nuclei")) == (421, line)
    client.headers["X-Hemalum-Project"] = id
    assert client.get(ONE).json()["version"] == 1


def test_the_queue_is_in_order_and_by_status(client: TestClient, session: Session) -> None:
    queue = client.get(f"{API}/queue", params={"by": "random", "seed": 5, "stratified": False}).json()
    expected = [one.field.name for one in session.queue("random", stratified=False, seed=5)]
    assert [one["name"] for one in queue["items"]] == expected
    assert [one["rank"] for one in queue["items"]] == [1, 2]
    first = next(one for one in queue["items"] if one["name"] == "kidney_1.png")
    assert first["id"] == id_of("kidney_1.png")
    assert (first["nuclei"], first["status"], first["of"]) == (4, "open", 2)
    assert "drawn at random (seed 5)" in first["reason"]
    edit(client, "mark", status="skipped")
    names = {
        status: sorted(one["name"] for one in client.get(f"{API}/queue", params={"status": status}).json()["items"])
        for status in ("open", "skipped", "reviewed", "all")
    }
    assert names["skipped"] == ["kidney_1.png"]
    assert names["reviewed"] == []
    assert names["open"] == ["kidney_2.png"]
    assert names["all"] == ["kidney_1.png", "kidney_2.png"]


@pytest.mark.fault
@pytest.mark.parametrize(
    ("query", "line"),
    [
        ("by=size", "by: Input should be 'entropy', 'disagreement', 'outliers' or 'random'"),
        ("seed=-1", "seed: Input should be greater than or equal to 0"),
        ("status=done", "status: Input should be 'open', 'reviewed', 'skipped' or 'all'"),
    ],
)
def test_a_queue_that_there_is_not(client: TestClient, query: str, line: str) -> None:
    assert detail(client.get(f"{API}/queue?{query}")) == (422, line)


def test_an_item_and_its_nuclei(client: TestClient, session: Session) -> None:
    item = client.get(ONE).json()
    assert (item["window"], item["width"], item["height"], item["mpp"]) == ([0, 0, 80, 60], 80, 60, 0.5)
    assert (item["version"], item["status"], item["can_undo"], item["can_redo"]) == (0, "open", False, False)
    assert item["counts"] == {"nuclei": 4, "proposed": 4, "accepted": 0, "rejected": 0, "added": 0}
    nuclei = client.get(f"{ONE}/nuclei").json()
    assert nuclei["version"] == 0
    assert [one["id"] for one in nuclei["nuclei"]] == [1, 2, 3, 4]
    first = nuclei["nuclei"][0]
    points = np.array(first["points"]).reshape(-1, 2)
    assert (points[0] != points[-1]).any()  # open
    x, y = points.T
    area = abs(np.dot(x, np.roll(y, 1)) - np.dot(y, np.roll(x, 1))) / 2
    assert area == pytest.approx(np.pi * 7**2, rel=0.05)
    assert (points * 8 == np.rint(points * 8)).all()
    assert (first["state"], first["by"], first["class_name"]) == ("proposed", None, None)
    figures = session.figures(id_of("kidney_1.png"))
    for name in ("entropy", "disagreement", "distance", "probability"):
        assert first[name] == pytest.approx(getattr(figures, name)[0], abs=1e-4)


def test_each_kind_of_edit(client: TestClient) -> None:
    added = edit(client, "add", points=square(2, 40)).json()
    assert added["version"] == 1
    assert added["counts"] == {"nuclei": 5, "proposed": 4, "accepted": 1, "rejected": 0, "added": 1}
    (new,) = added["changed"]
    assert (new["id"], new["points"], new["by"]) == (5, [2, 40, 8, 40, 8, 46, 2, 46], "Anna")
    assert [(one["kind"], one["author"]) for one in added["events"]] == [("add", "Anna")]
    assert edit(client, "reshape", 1, ids=[5], points=square(2, 40, 9)).json()["changed"][0]["points"][2] == 11
    halves = edit(client, "split", 2, ids=[5], points=[[0, 44], [20, 44]]).json()
    assert (halves["removed"], [one["id"] for one in halves["changed"]]) == ([5], [6, 7])
    merged = edit(client, "merge", 3, ids=[6, 7]).json()
    assert (merged["removed"], [one["id"] for one in merged["changed"]]) == ([6, 7], [8])
    assert edit(client, "delete", 4, ids=[8]).json()["removed"] == [8]
    assert edit(client, "accept", 5, ids=[1, 2]).json()["counts"]["accepted"] == 2
    assert edit(client, "reject", 6, ids=[3]).json()["counts"] == {
        "nuclei": 3, "proposed": 1, "accepted": 2, "rejected": 1, "added": 0,
    }  # fmt: skip
    assert edit(client, "classify", 7, ids=[4]).status_code == 200
    assert edit(client, "mark", 8, status="reviewed").json()["status"] == "reviewed"
    events = client.get(f"{ONE}/changes?after=0").json()["events"]
    assert [one["kind"] for one in events] == [
        "add", "reshape", "split", "merge", "delete", "accept", "reject", "classify", "mark",
    ]  # fmt: skip


def test_undo_and_redo_are_each_authors_own(client: TestClient) -> None:
    edit(client, "add", points=square(2, 40))
    edit(client, "reject", 1, author="Ben", ids=[4])
    undone = client.post(f"{ONE}/undo", json={"parent": 2, "author": "Anna"}).json()
    assert (undone["removed"], undone["can_undo"], undone["can_redo"]) == ([5], False, True)
    assert client.get(f"{ONE}?author=Ben").json()["can_undo"]
    assert not client.get(ONE).json()["can_undo"]  # Anna's, who started it
    again = client.post(f"{ONE}/redo", json={"parent": undone["version"]}).json()
    assert ([one["id"] for one in again["changed"]], again["can_undo"], again["can_redo"]) == ([5], True, False)


@pytest.mark.fault
def test_nothing_to_undo_or_redo(client: TestClient) -> None:
    answer = client.post(f"{ONE}/undo", json={"parent": 0, "author": "Anna"})
    assert detail(answer) == (400, "there is nothing of Anna to undo in kidney_1.png")
    answer = client.post(f"{ONE}/redo", json={"parent": 0, "author": "Ben"})
    assert detail(answer) == (400, "there is nothing of Ben to redo in kidney_1.png")


def test_changes_tell_what_another_did(client: TestClient) -> None:
    edit(client, "reject", ids=[1], author="Ben")
    edit(client, "delete", 1, ids=[2], author="Ben")
    changes = client.get(f"{ONE}/changes", params={"after": 0, "author": "Anna"}).json()
    assert (changes["version"], changes["removed"], changes["can_undo"]) == (2, [2], False)
    assert [(one["id"], one["state"], one["by"]) for one in changes["changed"]] == [(1, "rejected", "Ben")]
    assert [(one["id"], one["author"], one["kind"]) for one in changes["events"]] == [
        (1, "Ben", "reject"), (2, "Ben", "delete"),
    ]  # fmt: skip
    later = client.get(f"{ONE}/changes?after=1").json()
    assert (later["changed"], later["removed"]) == ([], [2])
    assert client.get(f"{ONE}/changes?after=2").json()["events"] == []


@pytest.mark.fault
def test_the_second_of_two_authors_sees_a_conflict(client: TestClient) -> None:
    first = edit(client, "reshape", ids=[4], points=square(55, 40), author="Ben").json()
    answer = edit(client, "reject", ids=[4])
    content = answer.json()
    assert answer.status_code == 409
    assert (content["touched"], content["author"], content["version"]) == (4, "Ben", first["version"])
    assert content["time"] == first["events"][0]["time"]
    assert content["detail"].startswith("nucleus 4 was changed by Ben at ")
    assert edit(client, "reject", content["version"], ids=[4]).status_code == 200
    # also of one that is gone by now, and where another has drawn
    edit(client, "delete", 2, ids=[3], author="Ben")
    answer = edit(client, "accept", 2, ids=[3])
    assert answer.status_code == 409
    assert answer.json()["touched"] == 3
    edit(client, "add", 3, points=square(2, 40), author="Ben")
    answer = edit(client, "add", 3, points=square(4, 42))
    assert answer.status_code == 409
    assert answer.json()["touched"] == 5


@pytest.mark.fault
def test_of_edits_made_at_once_none_is_lost(client: TestClient) -> None:
    answers = []

    def draw(number: int) -> None:
        points = square(2 + 9 * number, 28, 4)
        answers.append(edit(client, "add", author=f"Author {number}", points=points).status_code)

    threads = [threading.Thread(target=draw, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert answers == [200] * 8
    changes = client.get(f"{ONE}/changes?after=0").json()
    assert (len(changes["events"]), changes["counts"]["added"]) == (8, 8)


BOWTIE = [[2, 40], [8, 46], [8, 40], [2, 46]]


@pytest.mark.fault
@pytest.mark.parametrize(
    ("options", "line"),
    [
        ({"kind": "add", "points": BOWTIE}, "the outline crosses itself at (5, 43): draw it without"),
        ({"kind": "add", "points": [[1, 1], [2, 2]]},
         "the outline has fewer than three points: draw it around the nucleus"),
        ({"kind": "add"}, "the outline has fewer than three points: draw it around the nucleus"),
        ({"kind": "add", "points": square(76, 2)},
         "the outline leaves the image (80 x 60 px) at (82, 2): draw it inside"),
        ({"kind": "add", "points": square(1e300, 2)},
         "the outline leaves the image (80 x 60 px) at (1e+300, 2): draw it inside"),
        ({"kind": "add", "points": square(2, 40), "class_name": "tumor"},
         "there is no class 'tumor'; there are none"),
        ({"kind": "delete"}, "no nucleus is chosen"),
        ({"kind": "delete", "ids": [9]}, "nucleus 9 is not there"),
        ({"kind": "merge", "ids": [1, 4]}, "nuclei 1 and 4 do not touch: reshape one of them first"),
        ({"kind": "split", "ids": [1, 2], "points": [[0, 0], [9, 9]]}, "choose one nucleus to split, not 2"),
        ({"kind": "reshape", "points": square(2, 40)}, "choose one nucleus to reshape, not 0"),
        ({"kind": "split", "ids": [1], "points": [[0, 15]]},
         "the line has fewer than two points: draw it across the nucleus"),
        ({"kind": "mark"}, "give the status of the item: open, reviewed or skipped"),
        ({"kind": "reject", "ids": [1], "parent": 7}, "kidney_1.png: there is no version 7; it is at version 0"),
        ({"kind": "reject", "ids": [1], "author": "\n"}, "an author must have 1 to 100 letters"),
    ],
)  # fmt: skip
def test_an_edit_that_no_reviewer_can_make(client: TestClient, options: dict[str, Any], line: str) -> None:
    answer = client.post(f"{ONE}/edits", json={"parent": 0, "author": "Anna", **options})
    assert detail(answer) == (400, line)
    assert client.get(ONE).json()["version"] == 0


@pytest.mark.fault
@pytest.mark.parametrize(
    ("body", "line"),
    [
        ("{}", "parent: Field required"),
        ('{"kind": "grow", "parent": 0}', "kind: Input should be 'add', 'delete', 'split', 'merge', 'reshape', "
         "'classify', 'accept', 'reject' or 'mark'"),
        ('{"kind": "add", "parent": 0, "points": [[NaN, 1], [2, 3], [4, 5]]}',
         "points.0.0: Input should be a finite number"),
        ('{"kind": "add", "parent": 0, "points": [[1, 1e999]]}', "points.0.1: Input should be a finite number"),
        ('{"kind": "add", "parent": 0, "points": [[1]]}',
         "points.0: List should have at least 2 items after validation, not 1"),
        ('{"kind": "delete", "parent": 0, "ids": [0]}', "ids.0: Input should be greater than or equal to 1"),
        ('{"kind": "delete", "parent": -1}', "parent: Input should be greater than or equal to 0"),
        ('{"kind": "delete", "parent": 0, "path": "/etc"}', "path: Extra inputs are not permitted"),
        ('{"kind": "delete", "parent": 0, "author": "' + "x" * 101 + '"}',
         "author: String should have at most 100 characters"),
        ("[]", "body: Input should be a valid dictionary or object to extract fields from"),
    ],
)  # fmt: skip
def test_a_request_of_another_shape(client: TestClient, body: str, line: str) -> None:
    answer = client.post(f"{ONE}/edits", content=body, headers={"Content-Type": "application/json"})
    assert detail(answer) == (422, line)


@pytest.mark.fault
@pytest.mark.parametrize("body", ["[" * 100_000, "\x00", '{"parent": ' + "9" * 10_000 + "}"])
def test_what_is_no_json(client: TestClient, body: str) -> None:
    answer = client.post(f"{ONE}/edits", content=body, headers={"Content-Type": "application/json"})
    assert answer.status_code in (400, 422)
    assert client.get(ONE).status_code == 200


@pytest.mark.fault
def test_an_outline_of_a_million_points(client: TestClient) -> None:
    points = [[1, 1]] * 1_000_000
    answer = edit(client, "add", points=points)
    assert detail(answer) == (
        422, f"points: List should have at most {MAX_POINTS + 1} items after validation, not 1000000",
    )  # fmt: skip
    answer = edit(client, "delete", ids=list(range(1, 1002)))
    assert detail(answer) == (422, "ids: List should have at most 1000 items after validation, not 1001")


@pytest.mark.fault
@pytest.mark.parametrize("path", ["", "/nuclei", "/changes?after=0", "/proposal?x=1&y=1", "/maps/entropy.png"])
def test_an_item_that_there_is_not(client: TestClient, path: str) -> None:
    answer = client.get(f"{API}/items/0123456789abcdef{path}")
    assert detail(answer) == (404, "there is no item 0123456789abcdef in this review")


@pytest.mark.fault
def test_a_version_that_there_is_not(client: TestClient) -> None:
    answer = client.get(f"{ONE}/changes?after=3")
    assert detail(answer) == (400, "kidney_1.png: there is no version 3; it is at version 0")


def test_the_models_outline_at_a_point(client: TestClient) -> None:
    points = np.array(client.get(f"{ONE}/proposal?x=12&y=15").json()["points"]).reshape(-1, 2)
    assert (points[0] != points[-1]).any()
    np.testing.assert_allclose([points.min(axis=0), points.max(axis=0)], [[5, 8], [19, 22]], atol=1)
    assert client.get(f"{ONE}/proposal?x=2&y=40").json() == {"points": None}


@pytest.mark.fault
def test_a_point_outside_of_the_item(client: TestClient) -> None:
    answer = client.get(f"{ONE}/proposal?x=80&y=0")
    assert detail(answer) == (404, "kidney_1.png: (80, 0) lies outside of its 80 x 60 px")


def test_maps_are_gray_pictures_of_the_item(client: TestClient, session: Session) -> None:
    answer = client.get(f"{ONE}/maps/entropy.png")
    assert (answer.headers["content-type"], answer.headers["cache-control"]) == ("image/png", "no-store")
    shown = np.asarray(Image.open(io.BytesIO(answer.content)))
    np.testing.assert_array_equal(shown, session.maps(id_of("kidney_1.png"), "entropy"))


def test_other_items_stay_as_they_are(client: TestClient) -> None:
    edit(client, "delete", ids=[1, 2, 3, 4])
    assert client.get(TWO).json()["counts"]["nuclei"] == 4
