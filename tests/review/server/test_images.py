"""Images, and tiles of their pixels and nuclei, over HTTP."""

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from starlette.testclient import TestClient

from hemalum.review.session import Session
from hemalum.review.sources import id_of

API = "/api/v1/images"
IMAGE, SLIDE = (f"{API}/{id_of(name)}" for name in ("kidney_1.png", "slide"))


def test_images_are_listed(client: TestClient, slides: TestClient) -> None:
    listed = client.get(API).json() + slides.get(API).json()
    assert [(one["name"], one["width"], one["height"], one["nuclei"], one["is_slide"]) for one in listed] == [
        ("kidney_1.png", 80, 60, None, False), ("kidney_2.png", 80, 60, None, False), ("slide", 720, 480, 600, True),
    ]  # fmt: skip


def test_an_image_its_pyramid_and_its_items(client: TestClient) -> None:
    image = client.get(IMAGE).json()
    assert (image["levels"], image["tile_size"], image["outlines_from"], image["nuclei_scale"]) == (1, 512, None, [])
    edits = f"/api/v1/items/{id_of('kidney_1.png')}/edits"
    assert image["items"] == [{"id": id_of("kidney_1.png"), "window": None, "status": "open"}]
    client.post(edits, json={"kind": "mark", "status": "reviewed", "parent": 0})
    assert client.get(IMAGE).json()["items"][0]["status"] == "reviewed"


def test_a_slide_its_pyramid_and_its_items(slides: TestClient, slide_session: Session) -> None:
    slide = slides.get(SLIDE).json()
    assert (slide["levels"], slide["outlines_from"], slide["is_slide"]) == (2, 0, True)
    assert [(one["window"], one["status"]) for one in slide["items"]] == [([0, 0, 720, 480], None)]
    nuclei = slide_session.images[id_of("slide")].store
    assert nuclei is not None
    table = nuclei.window(0, 0, 720, 480, columns=["x", "y"])
    x, y = (table.column(name).to_numpy() // 64 for name in "xy")
    counts = np.unique(y * 100 + x, return_counts=True)[1]
    assert slide["nuclei_scale"] == [0, pytest.approx(np.percentile(counts, 99) / (64 * 0.25e-3) ** 2)]


def test_a_tile_is_what_the_slide_has_there(slides: TestClient, slide_session: Session) -> None:
    answer = slides.get(f"{SLIDE}/tiles/1/1_0.jpg")
    assert answer.headers["content-type"] == "image/jpeg"
    assert answer.headers["cache-control"] == "private, max-age=3600"
    assert "Cookie" in answer.headers["vary"]  # another start may show another image of this name
    shown = np.asarray(Image.open(io.BytesIO(answer.content)))
    assert shown.shape == (480, 208, 3)
    with slide_session.open_image(id_of("slide")) as slide:
        pixels = slide.read(512, 0, 208, 480)
    assert np.abs(shown[8:248, 8:200].astype(int) - pixels[8:248, 8:200]).mean() < 4  # JPEG
    coarse = np.asarray(Image.open(io.BytesIO(slides.get(f"{SLIDE}/tiles/0/0_0.jpg").content)))
    assert coarse.shape == (240, 360, 3)


@pytest.mark.fault
@pytest.mark.parametrize("position", ["0/1_0", "0/0_1", "1/2_0", "2/0_0", "1/2147483648_0"])
def test_a_tile_outside_of_the_image(slides: TestClient, position: str) -> None:
    answer = slides.get(f"{SLIDE}/tiles/{position}.jpg")
    level, where = position.split("/")
    assert (answer.status_code, answer.json()) == (
        404,
        {"detail": f"slide: there is no tile {where} on level {level}"},
    )


@pytest.mark.fault
@pytest.mark.parametrize("position", ["-1/0_0", "0/-1_0", "0/a_0", "99/0_0", "0/0_99999999999999999999"])
def test_a_tile_that_no_image_has(slides: TestClient, position: str) -> None:
    assert slides.get(f"{SLIDE}/tiles/{position}.jpg").status_code == 422


@pytest.mark.fault
@pytest.mark.parametrize(
    "path", ["", "/tiles/0/0_0.jpg", "/outlines/0/0_0.bin", "/density/0/0_0.png", "/item?x=1&y=1"]
)
def test_an_image_that_there_is_not(slides: TestClient, path: str) -> None:
    answer = slides.get(f"{API}/..%2f..%2fetc{path}")
    assert answer.status_code == 404
    answer = slides.get(f"{API}/passwd{path}")
    assert (answer.status_code, answer.json()) == (404, {"detail": "there is no image 'passwd'"})


@pytest.mark.fault
def test_an_image_that_is_removed_while_it_is_open(slides: TestClient, slide_session: Session) -> None:
    path = slide_session.images[id_of("slide")].path
    assert slides.get(f"{SLIDE}/tiles/1/0_0.jpg").status_code == 200
    path.unlink()
    answer = slides.get(f"{SLIDE}/tiles/1/1_0.jpg")
    assert answer.status_code == 410
    assert answer.json()["detail"].startswith(f"{path}: is gone")
    assert slides.get(f"{SLIDE}").status_code == 200


def test_outlines_and_density(slides: TestClient, client: TestClient) -> None:
    answer = slides.get(f"{SLIDE}/outlines/1/0_0.bin")
    assert answer.headers["content-type"] == "application/octet-stream"
    assert int.from_bytes(answer.content[:4], "little") > 100
    answer = slides.get(f"{SLIDE}/density/0/0_0.png")
    assert (answer.status_code, answer.json()) == (404, {"detail": "slide: there is no density on level 0"})
    answer = client.get(f"{IMAGE}/outlines/0/0_0.bin")
    assert (answer.status_code, answer.json()) == (404, {"detail": "kidney_1.png: there are no outlines on level 0"})


@pytest.mark.fault
def test_a_store_that_is_damaged_while_it_is_open(slides: TestClient, slide_session: Session, tmp_path: Path) -> None:
    store = slide_session.images[id_of("slide")].store
    assert store is not None
    assert slides.get(SLIDE).status_code == 200
    store.part_path((0, 0)).write_bytes(b"PAR1")
    answer = slides.get(f"{SLIDE}/outlines/1/0_0.bin")
    assert answer.status_code == 410
    assert "is damaged" in answer.json()["detail"]


def test_the_item_at_a_point(slides: TestClient) -> None:
    item = slides.get(f"{SLIDE}/item?x=719.5&y=0").json()
    assert item["window"] == [0, 0, 720, 480]
    assert slides.get(f"/api/v1/items/{item['id']}").json() == item


@pytest.mark.fault
def test_a_point_outside_of_the_image(slides: TestClient) -> None:
    answer = slides.get(f"{SLIDE}/item?x=720&y=0")
    assert (answer.status_code, answer.json()) == (
        404, {"detail": "slide: (720, 0) lies outside of its 720 x 480 px"},
    )  # fmt: skip
    assert slides.get(f"{SLIDE}/item?x=nan&y=0").status_code == 422
