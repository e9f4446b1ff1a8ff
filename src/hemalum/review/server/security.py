"""Who may ask, and how much: this computer's own browser, with the token of this start, in bounded amounts.

A page of another site must neither read nor change anything. It is kept out by the token, which is in no page; by the
names that a request may be sent to, so that no name of a stranger leads here (DNS rebinding); and by the origin that
a browser states for what changes something (cross-site request forgery).
"""

import hmac
import os
import re
import secrets
import threading
import time
from collections.abc import Callable
from urllib.parse import parse_qs

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import cookie_parser
from starlette.responses import HTMLResponse, JSONResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from hemalum.errors import HemalumError

PREFIX = "/api/v1"
TOKEN_VARIABLE = "HEMALUM_REVIEW_TOKEN"
TOKEN = re.compile(r"[A-Za-z0-9_-]{16,200}")
HOST = re.compile(r"(?:127\.0\.0\.1|localhost)(?::\d{1,5})?", re.IGNORECASE)
MAX_BODY = 8 * 2**20  # bytes
WRITES, BURST = 20.0, 100  # a second, and at once
READING = ("GET", "HEAD", "OPTIONS")

HEADERS = {
    "Content-Security-Policy": (
        "default-src 'self'; img-src 'self' blob: data:; style-src 'self' 'unsafe-inline'; object-src 'none'; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
}
NO_TOKEN = (
    "<!doctype html><html lang=en><meta charset=utf-8><title>hemalum review</title>{again}"
    "<p>This page opens with the link that <code>hemalum review</code> prints in the terminal where it was started: "
    "it ends in <code>?token=…</code> and is new at each start.</p></html>"
)


ONCE_MORE = "<meta http-equiv=refresh content='0;url=/'>"


def make_token() -> str:
    """The token of this start: that of HEMALUM_REVIEW_TOKEN, else one that nobody can guess.

    Raises HemalumError for one of the variable that is short, or has letters that a link cannot hold.
    """
    stated = os.environ.get(TOKEN_VARIABLE)
    if not stated:
        return secrets.token_urlsafe(32)
    if not TOKEN.fullmatch(stated):
        raise HemalumError(f"{TOKEN_VARIABLE}: want 16 to 200 letters, digits, - or _; without it one is made")
    return stated


class TokenBucket:
    """Lets `rate` through in a second, and `burst` at once; several threads may ask."""

    def __init__(self, rate: float, burst: int, clock: Callable[[], float] = time.monotonic) -> None:
        self.rate, self.burst, self._clock = rate, burst, clock
        self._left, self._last = float(burst), clock()
        self._lock = threading.Lock()

    def take(self) -> float:
        """Take one; gives 0, or where none is left in how many seconds one will be."""
        with self._lock:
            now = self._clock()
            self._left = min(self.burst, self._left + (now - self._last) * self.rate)
            self._last = now
            if self._left < 1:
                return (1 - self._left) / self.rate
            self._left -= 1
            return 0.0


class Guard:
    """Stands before an application: refuses what may not be asked, and says to browsers what its pages may do."""

    def __init__(self, app: ASGIApp, token: str, bucket: TokenBucket | None = None) -> None:
        self.app, self._token = app, token.encode()
        self._bucket = bucket or TokenBucket(WRITES, BURST)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] == "lifespan":
            await self.app(scope, receive, send)
            return
        if scope["type"] != "http":
            await send({"type": "websocket.close", "code": 1008})
            return
        send = _with_headers(scope, send)
        headers = Headers(scope=scope)
        answer = self._refuse(scope, headers)
        if answer is None and scope["method"] not in READING:
            body = await _read_body(headers, receive)
            if body is None:
                answer = _error(413, f"the request is over {MAX_BODY // 2**20} MB: send less at once")
            else:
                receive = _again(body, receive)
        await (answer or self.app)(scope, receive, send)

    def _refuse(self, scope: Scope, headers: Headers) -> Response | None:
        hosts = headers.getlist("host")
        if len(hosts) != 1 or not HOST.fullmatch(hosts[0]):
            return _error(403, "the page is at 127.0.0.1 or localhost alone: open the link that hemalum printed")
        cookie = f"hemalum-review-{(scope.get('server') or ('', 0))[1]}"  # cookies are one for all ports
        bearer = headers.get("authorization", "").partition("Bearer ")[2]
        with_bearer = bool(bearer) and self._is_token(bearer)
        reading = scope["method"] in READING
        in_link = parse_qs(scope["query_string"].decode("latin-1")).get("token") if scope["path"] == "/" else None
        if in_link and reading:
            if not self._is_token(in_link[0]):
                return _no_token()
            answer = RedirectResponse("/", 303)
            answer.set_cookie(cookie, self._token.decode(), httponly=True, samesite="strict")
            return answer
        if not with_bearer and not self._is_token(cookie_parser(headers.get("cookie", "")).get(cookie, "")):
            if scope["path"].startswith("/api/"):
                detail = "the token is missing or of another start: open the link that hemalum printed"
                return _error(401, detail, {"WWW-Authenticate": "Bearer"})
            # after a click on the link in a page, as of a terminal in a browser, no cookie comes with the way to "/":
            # asked for by this page itself, it does
            return _no_token(again=headers.get("sec-fetch-site") == "cross-site")
        if reading:
            return None
        origins = headers.getlist("origin")
        if origins != [f"http://{hosts[0]}"] and not (with_bearer and not origins):
            return _error(403, "the change was asked for by another page than this one")
        seconds = self._bucket.take()
        if seconds:
            return _error(429, "too many changes at once: wait a moment", {"Retry-After": str(int(seconds) + 1)})
        return None

    def _is_token(self, text: str) -> bool:
        return hmac.compare_digest(text.encode("utf-8", "replace"), self._token)


def _no_token(*, again: bool = False) -> Response:
    return HTMLResponse(NO_TOKEN.format(again=ONCE_MORE if again else ""), 401)


def _error(status: int, detail: str, headers: dict[str, str] | None = None) -> JSONResponse:
    return JSONResponse({"detail": detail}, status, headers)


def _with_headers(scope: Scope, send: Send) -> Send:
    async def send_with_headers(message: Message) -> None:
        if message["type"] == "http.response.start":
            headers = MutableHeaders(raw=message["headers"])
            for name, value in HEADERS.items():
                headers.setdefault(name, value)
            if not scope["path"].startswith("/assets/") or message["status"] >= 400:
                headers.setdefault("Cache-Control", "no-store")
            message["headers"] = headers.raw
        await send(message)

    return send_with_headers


async def _read_body(headers: Headers, receive: Receive) -> bytes | None:
    """The body of a request in bounded memory, also where it does not state its length; None for one too large."""
    length = headers.get("content-length", "0")
    if not length.isdecimal() or len(length) > 15 or int(length) > MAX_BODY:
        return None
    parts, size, more = [], 0, True
    while more:
        message = await receive()
        if message["type"] != "http.request":  # the browser has gone
            break
        parts.append(message.get("body", b""))
        size += len(parts[-1])
        if size > MAX_BODY:
            return None
        more = message.get("more_body", False)
    return b"".join(parts)


def _again(body: bytes, receive: Receive) -> Receive:
    """What gives a body that was read, and then what comes after it."""
    waiting = [{"type": "http.request", "body": body, "more_body": False}]

    async def receive_again() -> Message:
        return waiting.pop() if waiting else await receive()

    return receive_again
