"""The contact sheet: what is chosen, what is drawn, and that it is the same again."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from builders.stains import normalize_stain
from hemalum.data.augmentation.settings import AugmentSettings
from hemalum.data.dataset import Dataset
from hemalum.data.dataset import Row as IndexRow
from hemalum.data.importing import import_dataset
from hemalum.data.stain.normalization import StainNormalization
from hemalum.data.stain.target import fit_stain_target
from hemalum.errors import HemalumError
from hemalum.nuclei.io.colors import PALETTE
from hemalum.reports.figures.contact_sheet import MARGIN, Panel, Row, Sheet, draw_sheet
from hemalum.reports.figures.preview import PICTURE, choose_samples, make_sheet, write_preview

PAIR = np.array([[0.61, 0.79, 0.45], [0.22, 0.80, 0.56]])


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    """Eight images of 144 x 144 px at 0.5 µm/px with two classes of disks; one image is blank."""
    source = tmp_path_factory.mktemp("source")
    for name in ("images", "labels", "classes"):
        (source / name).mkdir()
    y, x = np.mgrid[:144, :144]
    lines = ["image,label,patient,organ"]
    for number in range(8):
        rng = np.random.default_rng(number)
        labels = np.zeros((144, 144), np.uint8)
        for index in range(16):
            cy, cx = (index // 4) * 34 + 20, (index % 4) * 34 + 20
            labels[(y - cy) ** 2 + (x - cx) ** 2 < 64] = index + 1
        amount = np.stack([np.where(labels, 1.2, 0.1), np.where(labels, 0.2, 0.6)], axis=-1)
        amount *= rng.uniform(0.7, 1.3, amount.shape)
        amount[:10] = 0
        if number == 5:
            amount[:] = 0
        pixels = np.rint(255 * np.exp(-amount @ (PAIR * rng.uniform(0.85, 1.15, 3)))).astype(np.uint8)
        Image.fromarray(pixels).save(source / "images" / f"{number}.png")
        Image.fromarray(labels).save(source / "labels" / f"{number}.png")
        classes = np.where(labels == 0, 0, 2 - labels % 2).astype(np.uint8)
        Image.fromarray(classes).save(source / "classes" / f"{number}.png")
        lines.append(f"{number}.png,{number}.png,p{number},{('breast', 'colon')[number % 2]}")
    (source / "index.csv").write_text("\n".join(lines) + "\n")
    target = tmp_path_factory.mktemp("data") / "set"
    made = import_dataset("folder", source, target, mpp=0.5, group="patient", license="CC0-1.0", name="set")
    info = made.info.model_copy(update={"classes": {1: "odd", 2: "even"}, "citation": "Nobody et al., Nowhere"})
    return replace(made, info=info)


@pytest.fixture(scope="module")
def sheet(dataset: Dataset) -> Sheet:
    return make_sheet(dataset, 0, AugmentSettings())


def test_the_sheet_says_what_it_shows(sheet: Sheet, dataset: Dataset) -> None:
    assert len(sheet.rows) == 6
    assert [name for name, _ in sheet.columns] == [
        "image", "labels", "stain jitter, weak", "stain jitter, strong", "all augmentation",
        "Macenko", "Reinhard", "Vahadane",
    ]  # fmt: skip
    assert [len(row.panels) for row in sheet.rows] == [8] * 6
    assert {panel.picture.shape for row in sheet.rows for panel in row.panels} == {(PICTURE, PICTURE, 3)}
    assert sheet.subtitle == "set  ·  8 images  ·  128 nuclei  ·  CC0-1.0  ·  fields of 64 µm"
    assert sheet.legend == [(PALETTE[0], "odd"), (PALETTE[1], "even")]
    assert "Nobody et al., Nowhere (CC0-1.0)" in sheet.footnotes[1]
    ids = {row.id for row in dataset.rows}
    for row in sheet.rows:
        assert row.lines[0] in ids
        assert "0.5 µm/px" in row.lines


def test_the_scale_bar_is_twenty_micrometers_long(sheet: Sheet) -> None:
    bar = sheet.rows[0].panels[0].bar
    assert bar is not None
    # 64 µm are as wide as a picture
    assert bar == (pytest.approx(PICTURE * 20 / 64), "20 µm")


def test_outlines_have_the_colors_of_their_classes(sheet: Sheet) -> None:
    for row in sheet.rows:
        image, outlined = (panel.picture.astype(int) for panel in row.panels[:2])
        changed = np.abs(outlined - image).max(axis=-1) > 40
        assert 0.01 < changed.mean() < 0.4
        for color in PALETTE[:2]:
            assert (np.abs(outlined - color).max(axis=-1) < 8).any(), row.lines[0]


def test_normalized_pictures_are_the_normalization(sheet: Sheet, dataset: Dataset) -> None:
    target = fit_stain_target(StainNormalization(method="reinhard"), {"set": dataset})
    for row in sheet.rows:
        sample = next(sample for sample in dataset if sample.id == row.lines[0])
        full = normalize_stain(sample.image, target).astype(int)
        shown = row.panels[6]
        if shown.note:
            continue
        # some window of the normalized image, at the sheet's scale, has the colors of what is shown
        assert abs(shown.picture.mean() - full.mean()) < 25


def test_an_unfit_image_is_said_to_be(dataset: Dataset) -> None:
    blank = replace(dataset, rows=tuple(sorted(dataset.rows, key=lambda row: row.id != "5"))[:5])
    sheet = make_sheet(blank, 0, AugmentSettings())
    row = next(row for row in sheet.rows if row.lines[0] == "5")
    assert [panel.note for panel in row.panels[5:]] == ["unchanged: too little tissue"] * 3
    for panel in row.panels[5:]:
        np.testing.assert_array_equal(panel.picture, row.panels[0].picture)


def test_the_same_seed_gives_the_same_picture(dataset: Dataset, tmp_path: Path) -> None:
    one, again, other = (
        write_preview(dataset, tmp_path / f"{name}.png", seed=seed).read_bytes()
        for name, seed in (("a", 1), ("b", 1), ("c", 2))
    )
    assert one == again != other
    with Image.open(tmp_path / "a.png") as picture:
        assert picture.mode == "RGB"
        border = np.asarray(picture)
    for edge in (border[:MARGIN], border[-MARGIN:], border[:, :MARGIN], border[:, -MARGIN:]):
        assert edge.min() == 255  # nothing runs out of the sheet


def index_row(id: str, **values: object) -> IndexRow:
    fields: dict = {
        "id": id, "image": "", "label": "", "source": id, "group": id, "organ": None, "stain": None, "mpp": None,
        "mpp_source": None, "split": "train", "nuclei": 5, "sha256": "",
    }  # fmt: skip
    return IndexRow(**(fields | values))


def test_samples_are_spread() -> None:
    rows = [index_row(f"a{n}", stain="H&E", organ="breast") for n in range(50)]
    rows += [index_row(f"b{n}", stain="H&E", organ="colon") for n in range(2)]
    rows += [index_row("c", stain="IHC", organ="breast"), index_row("d", stain="gray", nuclei=0)]
    chosen = choose_samples(rows, seed=3)
    assert len(chosen) == 6
    assert {row.stain for row in chosen} == {"H&E", "IHC"}  # the one without nuclei is not needed
    assert {row.organ for row in chosen} == {"breast", "colon"}
    assert {row.id for row in choose_samples(rows[:1] + rows[-1:], seed=0)} == {"a0", "d"}


@pytest.mark.fault
def test_a_wrong_ending_is_named(dataset: Dataset, tmp_path: Path) -> None:
    with pytest.raises(HemalumError, match=r"preview '.*sheet\.pdf': the picture is a \.png or a \.jpg"):
        write_preview(dataset, tmp_path / "sheet.pdf")


@pytest.mark.parametrize("plain", [False, True])
def test_long_names_stay_in_their_place(plain: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if plain:  # no matplotlib: Pillow's own type
        monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    panel = Panel(
        np.full((60, 60, 3), 200, np.uint8), note="µ a note that is far too long for it", bar=(20.0, "20 µm")
    )
    sheet = Sheet(
        title="t" * 400,
        subtitle="é" * 400,
        columns=[("a heading that is too long", "x" * 90)] * 2,
        rows=[Row(["an id without any end " * 9, "0.5 µm/px"], [panel, panel])],
        legend=[((0, 0, 0), f"class {n} with a long name") for n in range(5)],
        footnotes=["word " * 80],
    )
    drawn = np.asarray(draw_sheet(sheet))
    assert drawn[:, -MARGIN:].min() == 255
    assert drawn[:, :MARGIN].min() == 255
    assert drawn[-MARGIN:].min() == 255
