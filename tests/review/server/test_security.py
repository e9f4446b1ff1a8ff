"""Who may ask: the token, the host, the origin; and how much."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from starlette.testclient import TestClient

from hemalum.errors import HemalumError
from hemalum.review.server import create_app, security
from hemalum.review.server.security import MAX_BODY, TOKEN_VARIABLE, TokenBucket, make_token
from hemalum.review.session import Session
from hemalum.review.sources import id_of

TOKEN, ADDRESS = "a-token-of-these-tests", "http://127.0.0.1:8765"
PROJECT = "/api/v1/project"
EDITS = f"/api/v1/items/{id_of('kidney_1.png')}/edits"
EDIT = {"kind": "mark", "status": "skipped", "parent": 0}
NO_TOKEN = {"detail": "the token is missing or of another start: open the link that hemalum printed"}
NO_ORIGIN = {"detail": "the change was asked for by another page than this one"}
NO_HOST = {"detail": "the page is at 127.0.0.1 or localhost alone: open the link that hemalum printed"}


def log_in(visitor: TestClient) -> None:
    assert visitor.get(f"/?token={TOKEN}").status_code == 303


def test_the_link_gives_a_cookie_and_leads_to_the_page(visitor: TestClient) -> None:
    answer = visitor.get(f"/?token={TOKEN}")
    assert (answer.status_code, answer.headers["location"]) == (303, "/")
    cookie = answer.headers["set-cookie"]
    assert cookie.startswith(f"hemalum-review-8765={TOKEN};")
    assert "HttpOnly" in cookie
    assert "SameSite=strict" in cookie
    page = visitor.get("/")
    assert page.status_code == 200
    assert "<title>page</title>" in page.text
    assert visitor.get("/assets/page.js").status_code == 200
    assert visitor.get(PROJECT).status_code == 200


def test_two_reviews_on_two_ports_keep_their_cookies_apart(session: Session, static: Path) -> None:
    visitor = TestClient(create_app(session, token=TOKEN, author="Anna", static=static), base_url=ADDRESS)
    log_in_elsewhere = visitor.get(f"http://127.0.0.1:8766/?token={TOKEN}", follow_redirects=False)
    assert "hemalum-review-8766=" in log_in_elsewhere.headers["set-cookie"]


@pytest.mark.fault
@pytest.mark.parametrize("path", ["/", "/?token=", "/?token=wrong", "/?token=%C3%A9", "/assets/page.js"])
def test_a_page_without_the_token_says_where_the_link_is(visitor: TestClient, path: str) -> None:
    answer = visitor.get(path)
    assert answer.status_code == 401
    assert answer.headers["content-type"].startswith("text/html")
    assert "the link that <code>hemalum review</code> prints" in answer.text
    assert "set-cookie" not in answer.headers


def test_after_a_click_in_another_page_the_page_is_asked_for_once_more(visitor: TestClient) -> None:
    again = "<meta http-equiv=refresh content='0;url=/'>"
    assert again in visitor.get("/", headers={"Sec-Fetch-Site": "cross-site"}).text
    for site in ("same-origin", "same-site", "none"):
        assert again not in visitor.get("/", headers={"Sec-Fetch-Site": site}).text


@pytest.mark.fault
@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Authorization": "Bearer wrong"},
        {"Authorization": f"Basic {TOKEN}"},
        {"Authorization": "Bearer "},
        {"Authorization": f"Bearer {TOKEN}x"},
        {"Authorization": "Bearer t\u00e9".encode("latin-1")},
        {"Cookie": "hemalum-review-8765=wrong"},
        {"Cookie": f"hemalum-review-8766={TOKEN}"},
    ],
)
@pytest.mark.parametrize("path", [PROJECT, "/api/v1/openapi.json", "/api/v1/nothing", f"{PROJECT}?token={TOKEN}"])
def test_the_interface_needs_the_token(visitor: TestClient, path: str, headers: dict[str, str]) -> None:
    answer = visitor.get(path, headers=headers)
    assert (answer.status_code, answer.json()) == (401, NO_TOKEN)


def test_the_token_goes_by_header_or_cookie(visitor: TestClient) -> None:
    assert visitor.get(PROJECT, headers={"Authorization": f"Bearer {TOKEN}"}).status_code == 200
    assert visitor.get(PROJECT, headers={"Cookie": f"hemalum-review-8765={TOKEN}"}).status_code == 200


@pytest.mark.fault
@pytest.mark.parametrize(
    "host", ["evil.example", "127.0.0.1.evil.example:8765", "evil.example:127.0.0.1", "", "[::1]"]
)
def test_another_host_is_refused(client: TestClient, host: str) -> None:
    answer = client.get(PROJECT, headers={"Host": host})
    assert (answer.status_code, answer.json()) == (403, NO_HOST)


@pytest.mark.parametrize("host", ["localhost:8765", "LOCALHOST", "127.0.0.1", "127.0.0.1:9999"])
def test_this_computer_is_not(client: TestClient, host: str) -> None:
    assert client.get(PROJECT, headers={"Host": host}).status_code == 200


@pytest.mark.fault
@pytest.mark.parametrize(
    "origin",
    [None, "null", "http://evil.example", "http://127.0.0.1:8766", "https://127.0.0.1:8765", "http://127.0.0.1"],
)
def test_a_change_with_the_cookie_needs_the_origin(visitor: TestClient, origin: str | None) -> None:
    log_in(visitor)
    answer = visitor.post(EDITS, json=EDIT, headers={} if origin is None else {"Origin": origin})
    assert (answer.status_code, answer.json()) == (403, NO_ORIGIN)


def test_a_change_from_the_page_itself_is_made(visitor: TestClient) -> None:
    log_in(visitor)
    assert visitor.post(EDITS, json=EDIT, headers={"Origin": ADDRESS}).status_code == 200


@pytest.mark.fault
def test_a_change_by_a_page_of_another_site_is_refused_also_with_the_token(client: TestClient) -> None:
    answer = client.post(EDITS, json=EDIT, headers={"Origin": "http://evil.example"})
    assert (answer.status_code, answer.json()) == (403, NO_ORIGIN)


@pytest.mark.fault
def test_what_is_too_large_is_refused(client: TestClient) -> None:
    answer = client.post(EDITS, content=b" " * (MAX_BODY + 1), headers={"Content-Type": "application/json"})
    assert (answer.status_code, answer.json()) == (413, {"detail": "the request is over 8 MB: send less at once"})


@pytest.mark.fault
def test_what_does_not_state_its_length_is_counted(client: TestClient) -> None:
    sent = []

    def parts() -> Iterator[bytes]:
        for _ in range(100):
            sent.append(1)
            yield b" " * 2**20

    answer = client.post(EDITS, content=parts(), headers={"Content-Type": "application/json"})
    assert answer.status_code == 413


def test_a_body_in_parts_arrives_whole(client: TestClient) -> None:
    text = json.dumps(EDIT).encode()
    answer = client.post(EDITS, content=iter([text[:9], b"", text[9:]]), headers={"Content-Type": "application/json"})
    assert (answer.status_code, answer.json()["status"]) == (200, "skipped")


@pytest.mark.fault
def test_changes_come_at_a_bounded_rate(session: Session, static: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(security, "BURST", 3)
    monkeypatch.setattr(security, "WRITES", 0.01)
    app = create_app(session, token=TOKEN, author="Anna", static=static)
    client = TestClient(app, base_url=ADDRESS, headers={"Authorization": f"Bearer {TOKEN}"})
    assert [client.post(EDITS, json={}).status_code for _ in range(3)] == [422] * 3
    answer = client.post(EDITS, json={})
    assert (answer.status_code, answer.json()) == (429, {"detail": "too many changes at once: wait a moment"})
    assert 90 < int(answer.headers["retry-after"]) <= 100
    assert client.get(PROJECT).status_code == 200  # to look is free


def test_a_bucket_fills_with_time() -> None:
    now = [0.0]
    bucket = TokenBucket(rate=2, burst=3, clock=lambda: now[0])
    assert [bucket.take() for _ in range(4)] == [0, 0, 0, 0.5]
    now[0] = 0.25
    assert bucket.take() == pytest.approx(0.25)
    now[0] = 0.5
    assert [bucket.take(), bucket.take()] == [0, 0.5]
    now[0] = 1000
    assert [bucket.take() > 0 for _ in range(4)] == [False, False, False, True]


@pytest.mark.parametrize("path", ["/", PROJECT, "/assets/page.js", "/nothing", "/assets/nothing.js"])
def test_every_answer_says_what_the_page_may_do(client: TestClient, path: str) -> None:
    headers = client.get(path).headers
    policy = headers["content-security-policy"].split("; ")
    assert {"default-src 'self'", "img-src 'self' blob: data:", "frame-ancestors 'none'"} <= set(policy)
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["referrer-policy"] == "no-referrer"
    assert headers["cross-origin-resource-policy"] == "same-origin"
    assert ("no-store" in headers.get("cache-control", "")) == (path != "/assets/page.js")


def test_a_refusal_has_these_headers_as_well(visitor: TestClient) -> None:
    assert visitor.get("/").headers["content-security-policy"].startswith("default-src 'self'")


@pytest.mark.fault
@pytest.mark.parametrize(
    "path",
    [
        "/assets/../secret.txt", "/assets/%2e%2e/secret.txt", "/assets/..%2fsecret.txt",
        "/assets/%2e%2e%2fsecret.txt",
        "/assets//etc/passwd", "/assets/%2fetc%2fpasswd", "/secret.txt", "/assets/", "/assets", "/static/secret.txt",
        "/assets/..%5csecret.txt", "/assets/page.js%00.txt",
    ],
)  # fmt: skip
def test_nothing_but_the_page_is_in_the_page(client: TestClient, path: str) -> None:
    assert client.get(path).status_code == 404


@pytest.mark.fault
def test_a_link_out_of_the_page_leads_nowhere(client: TestClient, static: Path) -> None:
    (static / "assets" / "link.txt").symlink_to(static / "secret.txt")
    assert client.get("/assets/link.txt").status_code == 404


@pytest.mark.fault
@pytest.mark.parametrize("method", ["PUT", "DELETE", "PATCH"])
def test_no_other_method_does_anything(client: TestClient, method: str) -> None:
    assert client.request(method, EDITS, json=EDIT).status_code == 405


def test_without_a_page_there_is_the_interface_alone(session: Session, tmp_path: Path) -> None:
    app = create_app(session, token=TOKEN, author="Anna", static=tmp_path / "none")
    client = TestClient(app, base_url=ADDRESS, headers={"Authorization": f"Bearer {TOKEN}"})
    assert client.get("/").status_code == 404
    assert client.get(PROJECT).status_code == 200


def test_a_token_is_new_each_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(TOKEN_VARIABLE, raising=False)
    tokens = {make_token() for _ in range(100)}
    assert len(tokens) == 100
    assert min(map(len, tokens)) >= 43  # 256 bits
    monkeypatch.setenv(TOKEN_VARIABLE, TOKEN)
    assert make_token() == TOKEN


@pytest.mark.fault
@pytest.mark.parametrize("text", ["short", "with a space in it", "x" * 201, "semicolon;semicolon;"])
def test_a_token_that_is_none(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    monkeypatch.setenv(TOKEN_VARIABLE, text)
    with pytest.raises(HemalumError) as caught:
        make_token()
    assert str(caught.value) == (
        "HEMALUM_REVIEW_TOKEN: want 16 to 200 letters, digits, - or _; without it one is made"
    )
