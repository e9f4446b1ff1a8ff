"""The server on this computer: its address, the link with the token, and its end."""

import socket
import sys
import threading
import webbrowser
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import uvicorn
from starlette.types import ASGIApp

from hemalum.errors import HemalumError, one_line
from hemalum.review.server.application import STATIC, create_app
from hemalum.review.server.security import make_token
from hemalum.review.session import Session

HOST = "127.0.0.1"
PORT = 8765
PORTS = 100  # tried one after the other
ENDING = 3  # s for what is being answered when the server ends


def serve(
    session: Session,
    *,
    port: int = 0,
    author: str,
    open_browser: bool,
    on_ready: Callable[[str], None],
    static: Path | None = None,
) -> None:
    """Serve the review page of an open session on this computer alone, until Ctrl-C.

    `on_ready` gets the link, with the token, once the server answers. Port 0 is 8765, or the next that is free.
    Raises HemalumError where the page is not built, and for a port that is taken or that there is not.
    """
    if not ((static or STATIC) / "index.html").is_file():
        raise HemalumError(
            "the review page is not built: run `make page` (needs Node.js 18 or later), or install hemalum "
            "from a wheel"
        )
    token = make_token()
    app = create_app(session, token=token, author=author, static=static)
    with _listen(port) as listening:
        link = f"http://{HOST}:{listening.getsockname()[1]}/?token={token}"

        def ready() -> None:
            on_ready(link)
            if open_browser:  # a browser of the terminal would hold the server up
                threading.Thread(target=webbrowser.open, args=(link,), daemon=True).start()

        _Server(app, ready).run_until_stopped(listening)


class _Server(uvicorn.Server):
    """A server that says when it is ready."""

    def __init__(self, app: ASGIApp, ready: Callable[[], None]) -> None:
        super().__init__(
            uvicorn.Config(
                app, lifespan="off", log_level="warning", access_log=False, server_header=False, proxy_headers=False,
                ws="none", timeout_graceful_shutdown=ENDING,
            )
        )  # fmt: skip
        self._ready = ready

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if self.started:
            self._ready()

    def run_until_stopped(self, listening: socket.socket) -> None:
        """Answer requests until Ctrl-C."""
        with suppress(KeyboardInterrupt):  # raised again by uvicorn, once all is closed
            self.run(sockets=[listening])


def _listen(port: int) -> socket.socket:
    """A socket on this computer's own address. Raises HemalumError where the port cannot be had."""
    if not 0 <= port <= 65_535:
        raise HemalumError(f"--port is {port}: want 1 to 65535, or 0 for a free one")
    for candidate in [port] if port else [*range(PORT, PORT + PORTS), 0]:
        listening = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)  # asyncio: no delay
        if sys.platform != "win32":  # there it would share the port with another program
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listening.bind((HOST, candidate))
            listening.listen(128)
        except OSError as error:
            listening.close()
            reason = error.strerror or one_line(error)
            continue
        return listening
    raise HemalumError(f"port {port} cannot be had ({reason}): give another --port, or none for a free one")
