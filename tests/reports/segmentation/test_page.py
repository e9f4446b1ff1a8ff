"""The one-page summary, read back as HTML."""

import base64
import io
import os
import re
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image

from builders.pages import Page
from hemalum.errors import HemalumError
from hemalum.inference.batch import FileResult
from hemalum.models.card import Card, NetworkSpec, Training, TrainingSet
from hemalum.nuclei.io.colors import INTENSITIES, PALETTE, Classes
from hemalum.nuclei.nuclei import Nuclei
from hemalum.nuclei.part import measure
from hemalum.reports.segmentation.page import SummaryPage, column_label, measured_columns, statistics


def nuclei(count: int = 40, mpp: float | None = 0.5, mpp_source: str = "file", classes: Classes | None = None) -> Any:
    """Stands in for Nuclei: only what the page reads."""
    area = np.arange(count, dtype=np.float32)
    columns: dict[str, Any] = {"id": np.arange(1, count + 1), "x": area, "y": area, "area_px": area}
    if mpp is not None:
        columns["area_um2"] = area * mpp**2
    columns |= {"circularity": np.full(count, 0.9, np.float32), "hematoxylin_mean": area / 100}
    density = None if mpp is None else count / (100 * 200 * mpp**2 / 1e6)
    return SimpleNamespace(
        table=pa.table(columns),
        count=count,
        shape=(100, 200),
        mpp=mpp,
        mpp_source=mpp_source,
        density_per_mm2=density,
        area_mm2=None if mpp is None else 100 * 200 * mpp**2 / 1e6,
        classes=classes,
        notes={"stain": "he", "stain_source": "recognized"},
        thresholds=(),
        intensities=None,
    )


def result(name: str, nuclei: Any, seconds: float = 1, **files: Path) -> FileResult:
    return FileResult(Path(name), nuclei, None, files, seconds)


def save_picture(tmp_path: Path, shape: tuple[int, int] = (10, 20)) -> Path:
    pixels = np.random.default_rng(0).integers(0, 255, (*shape, 3), np.uint8)
    Image.fromarray(pixels).save(tmp_path / "overlay.png")
    return tmp_path / "overlay.png"


def write(tmp_path: Path, *results: FileResult, **options: Any) -> Page:
    page = SummaryPage(tmp_path / "summary.html", **options)
    for one in results:
        page.add(one)
    page.write()
    return Page(tmp_path / "summary.html")


def test_says_count_density_and_scale(tmp_path: Path) -> None:
    page = write(tmp_path, result("a.png", nuclei(), 1.25))
    assert "Nuclei 40" in page.text
    assert "Nuclei per mm² 8,000" in page.text  # 40 over 100 × 200 px at 0.5 µm: 0.005 mm²
    assert "0.5 from the file" in page.text
    assert "0.005 mm²" in page.text
    assert "estimate" not in page.text


def test_counts_by_class(tmp_path: Path) -> None:
    class_ids = np.repeat(np.array([1, 3], np.int32), [30, 10])
    classes = Classes(class_ids, ("epithelial", "<other>", "lymphocyte"))
    page = write(tmp_path, result("a.png", nuclei(classes=classes)))
    assert "Nuclei by class Class Nuclei Share Nuclei per mm²" in page.text
    assert "epithelial 30 75.0 % 6,000 <other> 0 0.0 % 0 lymphocyte 10 25.0 % 2,000" in page.text
    swatches = [attributes["style"] for tag, attributes in page.tags if attributes.get("class") == "swatch"]
    assert swatches[2] == "border-color: #{:02x}{:02x}{:02x}".format(*PALETTE[2])
    none = write(tmp_path, result("a.png", nuclei(0, None, "none", Classes(class_ids[:0], ("a",)))))
    assert "a 0 – unknown" in none.text
    assert "by class" not in write(tmp_path, result("a.png", nuclei())).text


def graded(doubt: str = "", classes: tuple[str, ...] = ()) -> Nuclei:
    """Four nuclei: negative, 2+ and two 3+; the last two of another class where there are classes."""
    labels, image = np.zeros((100, 200), np.int32), np.full((100, 200, 3), 255, np.uint8)
    for number, color in enumerate(((200, 190, 220), (170, 125, 95), (75, 35, 20), (75, 35, 20)), start=1):
        labels[10:20, 30 * number : 30 * number + 10] = number
        image[labels == number] = color
    part = measure(labels, image, class_map=np.array([0, 1, 1, 2, 2], np.float32)[labels] if classes else None)
    result = Nuclei.from_parts([part], shape=labels.shape, mpp=0.5, mpp_source="user", class_names=classes)
    result = result.with_dab(image).graded((0.1, 0.2, 0.6))
    notes = {"stain": "hdab", "stain_source": "set"} | ({"stain_doubt": doubt} if doubt else {})
    return replace(result, notes=result.notes | notes)


def test_scores_of_graded_nuclei(tmp_path: Path) -> None:
    page = write(tmp_path, result("a.png", graded()))
    assert "Stain H-DAB set Positive 75.0 % H-score 200 Allred 8 (5 + 3)" in page.text
    assert "from 0.1, 0.2, 0.6 (set) Nuclei Negative 1+ 2+ 3+ Positive share H-score Allred" in page.text
    assert "all 1 0 1 2 75.0 % 200 8 (5 + 3)" in page.text
    assert "DAB around the nucleus, mean (OD)" in page.text
    swatches = [attributes["style"] for tag, attributes in page.tags if attributes.get("class") == "swatch"]
    assert swatches == [
        "border-color: #{:02x}{:02x}{:02x}".format(*INTENSITIES[n]) for n in ("Negative", "1+", "2+", "3+")
    ]
    assert "The stain that was set" not in page.text
    assert "H-score" not in write(tmp_path, result("a.png", nuclei())).text


def test_scores_of_each_class(tmp_path: Path) -> None:
    page = write(tmp_path, result("a.png", graded(classes=("a", "b"))), result("b.png", graded()))
    assert (
        "all 1 0 1 2 75.0 % 200 8 (5 + 3) a 1 0 1 0 50.0 % 100 6 (4 + 2) b 0 0 0 2 100.0 % 300 8 (5 + 3)" in page.text
    )
    assert "a.png 4 800 0.5 user H-DAB, set 75.0 % 200 8 (5 + 3) 1.0" in page.text


def test_a_doubtful_stain_is_said_loudly(tmp_path: Path) -> None:
    page = write(tmp_path, result("a.png", graded("it looks like H&E")), result("b.png", graded()))
    assert "The stain that was set may not be the image's. a.png: it looks like H&E." in page.text
    assert "b.png:" not in page.text
    assert "H-DAB set, but it looks like H&E" in page.text
    assert "H-DAB, set (doubtful)" in page.text
    assert ("p", {"class": "loud", "role": "note"}) in page.tags


def test_an_estimate_is_said_loudly(tmp_path: Path) -> None:
    page = write(tmp_path, result("a.png", nuclei(mpp=0.31, mpp_source="estimate")))
    assert "The scale is an estimate" in page.text
    assert re.search(r"Nuclei per mm² [\d,]+ estimated", page.text)
    assert ("p", {"class": "loud", "role": "note"}) in page.tags


def test_without_a_scale_nothing_is_in_microns(tmp_path: Path) -> None:
    page = write(tmp_path, result("a.png", nuclei(mpp=None, mpp_source="none")))
    assert "Nuclei per mm² unknown" in page.text
    assert "Area (px)" in page.text
    assert "µm²)" not in page.text


def test_no_nuclei_at_all(tmp_path: Path) -> None:
    page = write(tmp_path, result("empty.png", nuclei(0)))
    assert "Nuclei 0" in page.text
    assert not [tag for tag, _ in page.tags if tag == "svg"]


def test_works_offline_and_runs_nothing(tmp_path: Path) -> None:
    page = write(tmp_path, result("a.png", nuclei(), overlay=save_picture(tmp_path)), command="hemalum demo")
    assert not {tag for tag, _ in page.tags} & {"script", "link", "iframe"}
    for _, attributes in page.tags:
        for name in ("src", "href"):
            value = attributes.get(name) or "#"
            assert value.startswith(("data:", "#")) or value == "overlay.png", value
    assert "url(" not in (tmp_path / "summary.html").read_text()


def test_names_are_escaped(tmp_path: Path) -> None:
    page = write(
        tmp_path,
        result("<script>alert(1).png", nuclei(), overlay=save_picture(tmp_path)),
        FileResult(Path("<i>x</i>"), error="<i>x</i>: not & an image"),
        command="hemalum segment '<b>'",
    )
    assert not {tag for tag, _ in page.tags} & {"script", "b", "i"}
    assert "<script>alert(1).png" in page.text
    assert "failed: not & an image" in page.text


def test_pictures_are_embedded_bounded_and_described(tmp_path: Path) -> None:
    page = write(tmp_path, result("a.png", nuclei(), overlay=save_picture(tmp_path, (300, 3000))))
    (attributes,) = [attributes for tag, attributes in page.tags if tag == "img"]
    head, data = (attributes["src"] or "").split(",")
    assert head == "data:image/jpeg;base64"
    with Image.open(io.BytesIO(base64.b64decode(data))) as image:
        assert image.size == (1400, 140)
    assert attributes["alt"] == "a.png with the outlines of 40 nuclei drawn on it"
    assert "shrunk from 3,000 × 300" in page.text


def test_a_broken_picture_does_not_stop_the_page(tmp_path: Path) -> None:
    (tmp_path / "overlay.png").write_bytes(b"no picture")
    page = write(tmp_path, result("a.png", nuclei(), overlay=tmp_path / "overlay.png"))
    assert "could not be put into this page" in page.text


def sizes_of(page: Page) -> list[int]:
    """Width of each picture, px."""
    return [int(attributes["width"] or 0) for tag, attributes in page.tags if tag == "img"]


@pytest.mark.slow
def test_five_hundred_images_make_a_page_of_thirty_megabytes_with_a_picture_each(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hemalum.reports.segmentation.page.histogram_svg", lambda *_: "x" * 4000)
    picture = save_picture(tmp_path, (240, 320))  # noise: nothing takes more bytes
    one = nuclei()
    page = write(tmp_path, *(result(f"{n}.png", one, overlay=picture) for n in range(500)))
    assert 20_000_000 < (tmp_path / "summary.html").stat().st_size <= 30_000_000
    assert len(sizes_of(page)) == 500
    assert 64 <= min(sizes_of(page)) <= max(sizes_of(page)) < 320


@pytest.mark.parametrize(("room", "pictures"), [(2_000_000, 40), (450_000, 30), (1, 0)])
def test_a_page_without_room_for_all_pictures_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, room: int, pictures: int
) -> None:
    picture = save_picture(tmp_path, (120, 160))
    images = [result(f"{n}.png", nuclei(), overlay=picture) for n in range(40)]
    bare = len(write(tmp_path, *(result(f"{n}.png", nuclei()) for n in range(40))).source.encode())
    monkeypatch.setattr("hemalum.reports.segmentation.page.PAGE_BYTES", bare + 40 * 100 + room)
    page = write(tmp_path, *images)
    assert len(sizes_of(page)) == pictures
    assert page.text.count(f"The page has room for {pictures} pictures; the overlay is a file.") == 40 - pictures
    assert len(page.source.encode()) < bare + 40 * 300 + max(room, 1)
    assert len(set(sizes_of(page))) <= 1


def test_every_link_within_the_page_has_its_target(tmp_path: Path) -> None:
    page = write(tmp_path, result("a", nuclei()), result("b", nuclei()), FileResult(Path("c"), error="broken"))
    ids = [attributes["id"] for _, attributes in page.tags if "id" in attributes]
    assert len(ids) == len(set(ids))
    wanted = [a["href"][1:] for _, a in page.tags if (a.get("href") or "").startswith("#")]  # type: ignore[index]
    wanted += [a["aria-labelledby"] for _, a in page.tags if "aria-labelledby" in a]  # type: ignore[misc]
    assert wanted
    assert set(wanted) <= set(ids)


def test_files_are_linked_relative_to_the_page(tmp_path: Path) -> None:
    page = write(tmp_path, result("a", nuclei(), csv=tmp_path / "sub" / "a b#.csv"))
    assert [a["href"] for tag, a in page.tags if tag == "a" and a.get("class") != "skip"] == ["sub/a%20b%23.csv"]


def test_model_digest(tmp_path: Path) -> None:
    card = Card(
        name="tiny",
        network=NetworkSpec(name="compact"),
        representation="distance",
        mpp=0.5,
        halo=8,
        stride=8,
        code_version="0",
        metrics={"tnbc": {"PQ": 0.61234}},
        training=Training(
            recipe="default",
            recipe_hash="0" * 64,
            command="hemalum train",
            steps=12000,
            seed=0,
            date="2026-11-20",
            data=[TrainingSet(name="tnbc", license="CC BY 4.0", split_hash="f" * 64, samples=35)],
            initial=Training(
                recipe="first",
                recipe_hash="1" * 64,
                command="hemalum train",
                steps=700,
                seed=0,
                date="2026-11-19",
                data=[TrainingSet(name="older", license="CC0-1.0", split_hash="e" * 64, samples=3)],
            ),
        ),
        use="nuclei in H&E",
    )
    text = write(tmp_path, result("a", nuclei()), card=card).text
    assert "Model: tiny" in text
    assert "tnbc: 35 images, CC BY 4.0; split ffffffffffff" in text
    assert "PQ 0.6123" in text
    assert "12,000 steps" in text
    assert "weights of 2026-11-19, recipe first, 700 steps" in text
    assert "older: 3 images, CC0-1.0; split eeeeeeeeeeee" in text
    assert "nuclei in H&E" in text


def test_statistics_against_numpy() -> None:
    rows = {row[0]: row[1:] for row in statistics(nuclei(101).table)}
    area = np.arange(101) * 0.25
    expected = [np.median(area), area.mean(), area.std(), *np.percentile(area, [5, 95])]
    assert [float(text) for text in rows["Area (µm²)"]] == pytest.approx(expected, rel=1e-3)
    assert "Area (px)" not in rows
    assert "Id" not in rows


def test_columns_without_a_value_are_left_out() -> None:
    table = pa.table({"id": [1, 2], "area_px": [3.0, 4.0], "area_um2": pa.array([None, None], pa.float32())})
    assert measured_columns(table) == ["area_px"]


def test_an_angle_has_no_mean() -> None:
    assert measured_columns(pa.table({"id": [1], "orientation": [179.0], "solidity": [0.9]})) == ["solidity"]


@pytest.mark.parametrize(
    ("name", "label"),
    [
        ("area_um2", "Area (µm²)"),
        ("major_axis_px", "Major axis (px)"),
        ("hematoxylin_mean", "Hematoxylin, mean (OD)"),
    ],
)
def test_column_labels(name: str, label: str) -> None:
    assert column_label(name) == label


@pytest.mark.fault
@pytest.mark.skipif(os.geteuid() == 0 if hasattr(os, "geteuid") else True, reason="root may write anywhere")
def test_a_folder_that_cannot_be_written(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(HemalumError, match="cannot write"):
        SummaryPage(tmp_path / "summary.html").write()


@pytest.mark.fault
def test_a_file_where_the_folder_should_be(tmp_path: Path) -> None:
    (tmp_path / "out").write_text("")
    with pytest.raises(HemalumError, match="cannot write"):
        SummaryPage(tmp_path / "out" / "summary.html").write()


def test_many_doubts_are_counted_and_tissue_is_said(tmp_path: Path) -> None:
    doubted = nuclei()
    doubted.notes = {"scale_doubt": "its nuclei look like about 0.25"}
    row = {"image": "liver/a.png", "area_mm2": 1.0, "tissue_mm2": 0.5, "nuclei_per_mm2_tissue": 1234.4}
    write(tmp_path, *(replace(result(f"{n}.png", doubted), row=row) for n in range(7)))
    page = (tmp_path / "summary.html").read_text(encoding="utf-8")
    assert page.count("its nuclei look like about 0.25") == 5
    assert "And 2 more images, marked below." in page
    assert page.count("1,234 per mm² of tissue") == 7
    assert '<h2 id="image-1">liver/a.png</h2>' in page
