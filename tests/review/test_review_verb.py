"""`hemalum review` on the command line: what it opens, writes and takes back, and one line for each mistake."""

import json
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from builders.reviews import edit, save_fields
from hemalum import cli
from hemalum.data.dataset import Dataset
from hemalum.review.edits import delete, mark, reshape
from hemalum.review.session import Session


@pytest.fixture
def served(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """What the server is asked to serve, in place of a server."""
    calls: list[dict[str, Any]] = []

    def serve(session: Session, **options: Any) -> None:
        options.pop("on_ready")("http://127.0.0.1:8765/?token=abc")
        session.wait()
        calls.append(options | {"name": session.name, "queue": len(session.queue())})

    module = ModuleType("hemalum.review.server")
    module.serve = serve  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "hemalum.review.server", module)
    return calls


@pytest.fixture
def source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two images in a folder; the test works beside it."""
    monkeypatch.chdir(tmp_path)
    return save_fields(tmp_path / "in")


def run(*arguments: object, code: int = 0) -> None:
    assert cli.main([str(one) for one in arguments]) == code


def error_of(capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
    capsys.readouterr()
    run("review", *arguments, code=2)
    (line,) = capsys.readouterr().err.splitlines()
    return line.removeprefix("error: ")


def begin(source: Path, model: Path, project: Path) -> None:
    with Session.open(source, model, project, mpp=0.5, engine="torch", threads=1) as session:
        session.start()
        session.wait()


def test_a_page_is_opened(
    source: Path, dark_model: Path, served: list[dict[str, Any]], capsys: pytest.CaptureFixture[str]
) -> None:
    run("review", source, "-m", dark_model, "--mpp", 0.5, "--author", "Anna", "--port", 9000, "--engine", "torch")
    assert served == [{"port": 9000, "author": "Anna", "open_browser": True, "name": "in", "queue": 2}]
    out = capsys.readouterr().out.splitlines()
    assert out == [
        "in, kept in in.review: http://127.0.0.1:8765/?token=abc",
        "Ctrl-C ends it; everything is saved as you go",
    ]
    run("--quiet", "review", "-p", "in.review", "--no-browser")
    assert served[1]["port"] == 0
    assert served[1]["open_browser"] is False
    assert served[1]["author"]
    assert capsys.readouterr().out.splitlines() == ["in, kept in in.review: http://127.0.0.1:8765/?token=abc"]


def test_out_and_back(source: Path, dark_model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    begin(source, dark_model, Path("p"))
    with Session.open(None, None, "p") as session:
        item = session.items()[0]
        edit(session, item, lambda state: mark(state, "reviewed"))
    run("review", "-p", "p", "--export", "set")
    assert len(Dataset.open("set")) == 1
    run("review", "-p", "p", "--export", "q", "--format", "qupath")
    assert capsys.readouterr().out.splitlines() == ["set", "2 files in q"]
    file = Path("q/a/two.geojson")
    content = json.loads(file.read_text())
    content["features"] = content["features"][1:]
    file.write_text(json.dumps(content))
    run("review", "-p", "p", "--import", "q")
    assert capsys.readouterr().out.splitlines() == ["2 images: 1 deleted"]
    run("review", "-p", "p", "--import", "q", "--reviewed")
    run("review", "-p", "p", "--export", "both")
    assert len(Dataset.open("both")) == 2


def test_what_cannot_be_taken_is_named_and_the_rest_is(
    source: Path, dark_model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    begin(source, dark_model, Path("p"))
    run("review", "-p", "p", "--export", "q", "--format", "geojson")
    file = Path("q/a/two.geojson")
    content = json.loads(file.read_text())
    gone = content["features"].pop(0)
    file.write_text(json.dumps(content))
    Path("q/other.geojson").write_text("{}")
    with Session.open(None, None, "p") as session:
        item = session.items()[0]
        id = int(gone["properties"]["measurements"]["Nucleus ID"])
        edit(session, item, lambda state: delete(state, [id + 1]))
        ring = session.state(item.id)[id].ring
        edit(session, item, lambda state: mark(state, "reviewed"))
        edit(session, item, lambda state: reshape(state, id, (ring - ring.mean(axis=0)) * 0.9 + ring.mean(axis=0)))
    capsys.readouterr()
    run("review", "-p", "p", "--import", "q", code=1)
    shown = capsys.readouterr()
    assert shown.out.splitlines() == ["2 images: nothing has changed"]
    first, second = shown.err.splitlines()
    assert first == "failed: q/other.geojson: is of no image in this review"
    assert second.startswith(f"failed: a/two.png: nucleus {id} was changed by Anna at ")
    assert second.endswith("(reshape) as well, and is left as it is here")


@pytest.mark.fault
def test_outlines_of_an_image_of_another_size(
    source: Path, dark_model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    begin(source, dark_model, Path("p"))
    run("review", "-p", "p", "--export", "q", "--format", "geojson")
    file = Path("q/a/two.geojson")
    content = json.loads(file.read_text())
    for feature in content["features"]:
        rings = feature["geometry"]["coordinates"]
        feature["geometry"]["coordinates"] = [[[9 * x, 9 * y] for x, y in ring] for ring in rings]
    file.write_text(json.dumps(content))
    capsys.readouterr()
    run("review", "-p", "p", "--import", "q", code=1)
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("failed: q/a/two.geojson: feature ")
    assert line.endswith(": export in px of this very image")


@pytest.mark.fault
def test_mistakes_in_the_arguments(
    source: Path, dark_model: Path, served: list[dict[str, Any]], capsys: pytest.CaptureFixture[str]
) -> None:
    (Path("empty")).mkdir()
    Path("full").mkdir()
    Path("full/notes.txt").write_text("mine")
    begin(source, dark_model, Path("p"))
    cases: dict[tuple[object, ...], str] = {
        (): "give SOURCE, what is to be reviewed, or --project, to go on with a review",
        ("nowhere",): "no such file or folder",
        ("empty",): "no images in this folder",
        (source, "-m", "acurate"): "no shipped model and no file is called 'acurate', did you mean 'accurate'?",
        (source, "-p", "full"): "full: is not empty and holds no review; choose another folder",
        ("-p", "full"): "full: holds no review; hemalum review SOURCE -p full begins one",
        (source, "-m", "fast", "-p", "p"): "p holds another review: it is of another model",
        (Path("full").resolve().parent / "in" / "a", "-p", "p"): "p holds another review: source is ",
        (source, "-m", dark_model, "-p", "p", "--mpp", 0.25): "p holds another review: mpp is 0.5 there, 0.25 here",
        (source, "--port", 70000): "Invalid value for '--port'",
        (source, "--port", 0): "Invalid value for '--port'",
        (source, "-m", "model.onnx"): "no such model file: model.onnx",
        (source, "--mpp", "x"): "Invalid value for '--mpp'",
        (source, "--slide", source): "--slide is for segmented slides, and these are images: leave it out",
        (source, "--export", "out"): "in.review: holds no review; hemalum review SOURCE -p in.review begins one",
        ("--export", "out"): "give SOURCE, what is to be reviewed, or --project, to go on with a review",
        ("-p", "p", "--export", "out"): "no item is marked as reviewed",
        ("-p", "p", "--export", "out", "--format", "csv"): "unknown format 'csv'; known: dataset, geojson, qupath",
        ("-p", "p", "--format", "csv"): "--format is for --export: leave it out",
        ("-p", "p", "--reviewed"): "--reviewed is for --import: leave it out",
        ("-p", "p", "--export", "o", "--import", "o"): "give --export or --import, one after the other",
        ("-p", "p", "--import", "nowhere"): "nowhere: no such file or folder",
        ("-p", "p", "--import", "o", "--port", 9000): "--port is for the page, and --export and --import open none",
        ("-p", "p", "--export", "o", "--no-browser"): "--no-browser is for the page, and --export and --import open",
        ("-p", "p", "--export", "o", "--author", "A"): "--author is for the page, and --export and --import open",
    }
    for arguments, expected in cases.items():
        line = error_of(capsys, *arguments)
        assert expected in line, line
    assert served == []
    assert not Path("in.review").exists()
