"""The whole loop at the command line: a slide is segmented, reviewed over HTTP, corrected in another program as well,
and the model is refined on what came of it."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from shapely.geometry import shape as as_geometry
from starlette.testclient import TestClient

from builders.models import disks
from builders.slides import save_ome_pyramid
from builders.trainings import RECIPE
from hemalum import cli
from hemalum.models import load_model
from hemalum.review.server import create_app
from hemalum.review.session import Session
from hemalum.training.recipe import Recipe
from hemalum.training.train import train

pytestmark = pytest.mark.slow
TOKEN = "a-token-of-these-tests"
API = "http://127.0.0.1:8765/api/v1"
SIDE = 1300  # px: four windows
FIRST = "slide 0,0,650,650"


@pytest.fixture(scope="module")
def model(mini: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model that was trained until it finds dark discs."""
    recipe = Recipe.model_validate(
        RECIPE | {"phases": [{"name": "first", "until": {"steps": 40}}], "validate_every": 20}
    )
    return train(recipe, [mini], tmp_path_factory.mktemp("model") / "run", threads=1)


def run(*arguments: object) -> int:
    return cli.main([str(one) for one in arguments])


def features(path: Path) -> list[dict[str, Any]]:
    """The nuclei of a GeoJSON file."""
    content = json.loads(path.read_text())
    assert content["type"] == "FeatureCollection"
    return list(content["features"])


class Reviewer:
    """Somebody who corrects over HTTP, as the page does."""

    def __init__(self, session: Session) -> None:
        app = create_app(session, token=TOKEN, author="Anna")
        self.client = TestClient(app, headers={"Authorization": f"Bearer {TOKEN}"}, base_url=API)

    def get(self, path: str) -> Any:
        answer = self.client.get(f"{API}{path}")
        assert answer.status_code == 200, answer.text
        return answer.json()

    def edit(self, item: str, kind: str, **what: Any) -> Any:
        """What an edit of the item as it is now has changed."""
        parent = self.get(f"/items/{item}")["version"]
        answer = self.client.post(f"{API}/items/{item}/edits", json={"kind": kind, "parent": parent, **what})
        assert answer.status_code == 200, answer.text
        return answer.json()


def test_from_a_slide_to_a_refined_model(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    save_ome_pyramid(Path("slide.ome.tif"), np.tile(disks(SIDE // 4, SIDE // 4, 12), (4, 4, 1)), levels=2)
    assert run("segment", "slide.ome.tif", "-m", model, "-o", "results", "--engine", "torch", "--stain", "he") == 0

    # every window is reviewed; the first in earnest
    with Session.open("results", model, "review", engine="torch", threads=1) as session:
        session.start()
        session.wait()
        reviewer = Reviewer(session)
        queue = reviewer.get("/queue")["items"]
        assert len(queue) == 4
        for entry in queue:
            ids = [one["id"] for one in reviewer.get(f"/items/{entry['id']}/nuclei")["nuclei"]]
            reviewer.edit(entry["id"], "reject", ids=ids[:1])
            reviewer.edit(entry["id"], "accept", ids=ids[1:20])
            if entry["name"] == FIRST:
                before = len(ids)
                reviewer.edit(entry["id"], "delete", ids=ids[1:3])
            reviewer.edit(entry["id"], "mark", status="reviewed")
        assert reviewer.get("/project")["counts"]["reviewed"] == 4
        first = next(one["id"] for one in queue if one["name"] == FIRST)
        assert reviewer.get(f"/items/{first}")["counts"]["nuclei"] == before - 3

    # out, corrected elsewhere, and back
    assert run("review", "-p", "review", "--export", "edit", "--format", "qupath") == 0
    path = Path("edit/slide.geojson")
    content = json.loads(path.read_text())
    gone = content["features"].pop()
    path.write_text(json.dumps(content))
    capsys.readouterr()
    assert run("review", "-p", "review", "--import", "edit") == 0
    assert capsys.readouterr().out.splitlines() == ["1 image: 1 deleted"]

    # what others read
    assert run("review", "-p", "review", "--export", "out", "--format", "geojson") == 0
    nuclei = features(Path("out/slide.geojson"))
    assert len(nuclei) == len(content["features"])
    assert gone["geometry"] not in [one["geometry"] for one in nuclei]
    assert all(as_geometry(one["geometry"]).area > 0 for one in nuclei)
    assert run("review", "-p", "review", "--export", "labels") == 0
    assert run("check", "labels") == 0

    # the model learns from it, and the exit code says whether it is better
    capsys.readouterr()
    code = run(
        "--quiet", "refine", model, "--project", "review", "-o", "refined", "--epochs", 1, "--engine", "torch",
        "--threads", 1,
    )  # fmt: skip
    better = load_model("refined/model.safetensors").card.refinement
    assert better is not None
    assert (better.items, better.held_out) == (3, 1)
    assert code == (0 if better.better else 3)
    (go_on_with,) = capsys.readouterr().out.splitlines()
    assert go_on_with == ("refined/model.safetensors" if better.better else str(model))
    assert "Refinement on a review" in Path("refined/report.html").read_text()
    assert run("segment", "slide.ome.tif", "-m", go_on_with, "-o", "again", "--engine", "torch", "--stain", "he") == 0
