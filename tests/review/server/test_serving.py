"""The server as a process of its own: its link, its port, its end, and what it has acknowledged."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from hemalum.errors import HemalumError
from hemalum.review.server import serve, serving
from hemalum.review.session import Session
from hemalum.review.sources import id_of

ITEM = f"items/{id_of('kidney_1.png')}"
SOURCE = Path(serving.__file__).parents[3]
PROGRAM = """
import sys
from pathlib import Path
from hemalum.review.session import Session
from hemalum.review.server import serve
project, model, static = sys.argv[1:]
with Session.open(None, model, project) as session:
    serve(session, author="Anna", open_browser=False, on_ready=lambda link: print(link, flush=True),
          static=Path(static))
print("ended", flush=True)
"""


class Server:
    """A running server."""

    def __init__(self, process: "subprocess.Popen[str]", link: str) -> None:
        self.process = process
        self.address, _, self.token = link.partition("/?token=")

    def ask(self, path: str, body: Any = None) -> Any:
        data = None if body is None else json.dumps(body).encode()
        headers = {"Authorization": f"Bearer {self.token}", "Content-Type": "application/json"}
        request = urllib.request.Request(f"{self.address}/api/v1/{path}", data, headers)
        with urllib.request.urlopen(request, timeout=60) as answer:
            return json.load(answer)


@contextmanager
def running(project: Path, model: Path, static: Path) -> Iterator[Server]:
    command = [sys.executable, "-c", PROGRAM, str(project), str(model), str(static)]
    environment = os.environ | {"PYTHONPATH": str(SOURCE)}
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as process:
        try:
            assert process.stdout is not None
            yield Server(process, process.stdout.readline().strip())
        finally:
            process.kill()


@pytest.mark.slow
def test_what_was_acknowledged_is_there_after_kill_9(
    begun: Path, dark_model: Path, static: Path, tmp_path: Path
) -> None:
    project = shutil.copytree(begun, tmp_path / "project")
    acknowledged: list[int] = []
    with running(project, dark_model, static) as server:
        assert server.ask("images")

        def edit() -> None:
            version = 0
            while True:
                kind = "reject" if version % 2 == 0 else "accept"
                try:
                    answer = server.ask(f"{ITEM}/edits", {"kind": kind, "ids": [1 + version % 4], "parent": version})
                except (urllib.error.HTTPError, urllib.error.URLError, OSError):
                    return
                version = answer["version"]
                acknowledged.append(version)

        thread = threading.Thread(target=edit)
        thread.start()
        while len(acknowledged) < 15:
            thread.join(0.01)
            assert thread.is_alive()
        server.process.kill()
        thread.join()
    with running(project, dark_model, static) as server:
        events = [one["id"] for one in server.ask(f"{ITEM}/changes?after=0")["events"]]
        assert set(acknowledged) <= set(events)
        assert len(events) - len(acknowledged) <= 1  # one may have been written and not answered
        undone = server.ask(f"{ITEM}/undo", {"parent": events[-1]})
        assert undone["version"] == events[-1] + 1


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="no such signal")
def test_ctrl_c_ends_it_in_order(begun: Path, dark_model: Path, static: Path, tmp_path: Path) -> None:
    project = shutil.copytree(begun, tmp_path / "project")
    with running(project, dark_model, static) as server:
        assert server.ask("images")
        server.process.send_signal(signal.SIGINT)
        assert server.process.stdout is not None
        assert server.process.stdout.read() == "ended\n"
        assert server.process.wait(10) == 0


def serve_once(
    session: Session, static: Path, monkeypatch: pytest.MonkeyPatch, use: Callable[[str], None], **options: Any
) -> None:
    """Serve in this process, call `use` with the link, and end."""

    def ready(link: str) -> None:
        use(link)
        signal.raise_signal(signal.SIGINT)

    serve(session, author="Anna", on_ready=ready, static=static, **options)


def test_it_listens_on_this_computer_alone(session: Session, static: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HEMALUM_REVIEW_TOKEN", "a-token-of-these-tests")
    listening: list[Any] = []
    real = serving._listen
    monkeypatch.setattr(serving, "_listen", lambda port: listening.append(real(port)) or listening[-1])
    addresses: list[Any] = []

    def use(link: str) -> None:
        addresses.append(listening[0].getsockname())
        assert link == f"http://127.0.0.1:{addresses[0][1]}/?token=a-token-of-these-tests"

    serve_once(session, static, monkeypatch, use, open_browser=False)
    assert addresses[0][0] == "127.0.0.1"
    assert listening[0].fileno() == -1  # closed


def test_the_browser_is_opened_with_the_link(session: Session, static: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened, seen = threading.Event(), []
    monkeypatch.setattr("webbrowser.open", lambda link: (seen.append(link), opened.set()))
    links: list[str] = []
    serve_once(session, static, monkeypatch, links.append, open_browser=True)
    assert opened.wait(10)
    assert seen == links


def test_a_port_that_is_taken_is_passed_over() -> None:
    with socket.socket() as other, serving._listen(0) as first, serving._listen(0) as second:
        other.bind(("127.0.0.1", 0))
        assert first.getsockname()[1] != second.getsockname()[1]


@pytest.mark.fault
def test_a_port_that_cannot_be_had(session: Session, static: Path) -> None:
    options = {"author": "Anna", "open_browser": False, "on_ready": print, "static": static}
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        with pytest.raises(HemalumError) as caught:
            serve(session, port=port, **options)  # type: ignore[arg-type]
    assert str(caught.value) == (
        f"port {port} cannot be had (Address already in use): give another `port`, or none for a free one"
    )
    with pytest.raises(HemalumError, match=r"^`port` is 70000: want 1 to 65535, or 0 for a free one$"):
        serve(session, port=70_000, **options)  # type: ignore[arg-type]


@pytest.mark.fault
def test_a_page_that_is_not_built(session: Session, tmp_path: Path) -> None:
    with pytest.raises(HemalumError) as caught:
        serve(session, author="Anna", open_browser=False, on_ready=print, static=tmp_path)
    assert str(caught.value) == (
        "the review page is not built: run `make page` (needs Node.js 18 or later), or install hemalum from a wheel"
    )


@pytest.mark.fault
@pytest.mark.parametrize("package", ["fastapi", "uvicorn"])
def test_without_the_extra(package: str) -> None:
    program = (
        f"import importlib.util as u; find = u.find_spec; u.find_spec = lambda name: None if name == '{package}' "
        "else find(name)\nimport hemalum.review.server"
    )
    environment = os.environ | {"PYTHONPATH": str(SOURCE)}
    ended = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, env=environment, check=False
    )
    line = f"hemalum.errors.HemalumError: the review page needs {package}: pip install 'hemalum[review]'"
    assert ended.stderr.splitlines()[-1] == line
