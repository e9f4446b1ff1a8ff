"""Pages and pictures of slides of squares on a picture without meaning."""

from pathlib import Path

import numpy as np
import pytest
import skimage.color
from PIL import Image

from builders.pages import Page
from builders.slides import draw_picture, save_pyramid
from builders.stores import squares_run, store_squares
from hemalum import cli
from hemalum.errors import HemalumError
from hemalum.inference import find_slide
from hemalum.nuclei.store import NucleiStore, SlideMaps, StoreRun, measure_maps
from hemalum.reports.slides import (
    SlideRow,
    choose_fields,
    draw_contact_sheet,
    draw_map,
    slide_row,
    write_cohort_page,
    write_maps,
    write_slide_page,
)
from hemalum.reports.slides.fields import draw_field
from hemalum.reports.slides.map_picture import NO_CLASS, NO_NUCLEI, SCALE, color_range, color_values
from hemalum.slides import open_slide

SHAPE = (800, 1200)  # px at 0.5 µm: 400 x 600 µm, fields of 200 px
HOSTILE = '<img src=x onerror="alert(1)">.tif'


def scattered(counts: np.ndarray) -> list[tuple[float, float]]:
    """As many centers as `counts` says in each field of 200 px, by row and column."""
    return [
        (200 * column + 20 + 15 * (k % 10), 200 * row + 20 + 15 * (k // 10))
        for (row, column), count in np.ndenumerate(counts)
        for k in range(count)
    ]


COUNTS = np.array([[0, 1, 2, 3, 4, 5], [6, 7, 8, 9, 10, 11], [12, 13, 14, 15, 16, 17], [0, 0, 0, 0, 0, 40]])


def make_slide(path: Path) -> Path:
    return save_pyramid(path, draw_picture(*SHAPE), levels=2)


def run_of(slide: Path, **options: object) -> StoreRun:
    with open_slide(slide) as opened:
        return squares_run(opened.shape, source=slide.name, fingerprint=opened.fingerprint, **options)


@pytest.fixture
def slide(tmp_path: Path) -> Path:
    return make_slide(tmp_path / "a.tif")


@pytest.fixture
def store(slide: Path, tmp_path: Path) -> NucleiStore:
    return store_squares(tmp_path / "a.nuclei", run_of(slide), scattered(COUNTS))


def ranks(maps: SlideMaps, **options: object) -> dict[str, list[int]]:
    fields = choose_fields(maps, SHAPE, **options)
    return {
        rank: [field.count for field in fields if field.rank == rank] for rank in ("densest", "median", "sparsest")
    }


def test_fields_are_the_densest_the_median_and_the_sparsest(store: NucleiStore) -> None:
    assert ranks(measure_maps(store, 50)) == {"densest": [40, 17, 16], "median": [8, 9, 10], "sparsest": [1, 2, 3]}
    assert ranks(measure_maps(store, 100)) == ranks(measure_maps(store, 50))
    first = choose_fields(measure_maps(store, 50), SHAPE)[0]
    assert (first.name, first.x, first.y, first.width, first.height) == ("D1", 1000, 600, 200, 200)
    assert first.density == pytest.approx(40 / 0.01)


def test_fields_lie_within_tissue_and_off_glass(store: NucleiStore) -> None:
    tissue = np.ones((40, 60), np.bool_)
    tissue[39, 59] = False  # the last corner: the field of 40 nuclei is not all tissue
    tissue[0, 10] = False
    maps = measure_maps(store, 50, tissue=tissue)
    assert ranks(maps)["densest"] == [17, 16, 15]
    assert ranks(maps)["sparsest"] == [2, 3, 4]
    pale = np.zeros((40, 60), np.bool_)
    pale[20:30, 50:52] = True  # a fifth of the field of 17
    pale[20:30, 40] = True  # a tenth of that of 16
    assert ranks(maps, pale=pale)["densest"] == [16, 15, 14]


@pytest.mark.parametrize(
    ("counts", "expected"),
    [
        ([], {"densest": [], "median": [], "sparsest": []}),
        ([3], {"densest": [3], "median": [], "sparsest": []}),
        ([3, 5], {"densest": [5], "median": [], "sparsest": [3]}),
        ([3, 5, 4], {"densest": [5], "median": [4], "sparsest": [3]}),
        ([1, 2, 3, 4, 5, 6], {"densest": [6, 5], "median": [3, 4], "sparsest": [1, 2]}),
    ],
)
def test_few_fields_are_shown_once(counts: list[int], expected: dict[str, list[int]], tmp_path: Path) -> None:
    row = np.array([counts + [0] * (6 - len(counts))])
    store = store_squares(tmp_path / "a.nuclei", squares_run(SHAPE), scattered(row))
    assert ranks(measure_maps(store, 50)) == expected


def test_a_slide_smaller_than_a_field_has_none(tmp_path: Path) -> None:
    store = store_squares(tmp_path / "a.nuclei", squares_run((60, 900)), [(10, 10)])
    assert choose_fields(measure_maps(store, 50), (60, 900)) == []


def test_outlines_of_a_field_lie_on_its_pixels(store: NucleiStore, slide: Path) -> None:
    (field,) = [one for one in choose_fields(measure_maps(store, 50), SHAPE) if one.name == "S1"]
    assert (field.x, field.y) == (200, 0)
    with open_slide(slide) as opened:
        drawn = draw_field(store, opened, field, side=400)  # twice as large
        pixels = Image.fromarray(opened.read(200, 0, 200, 200)).resize((400, 400), Image.Resampling.BICUBIC)
    changed = np.argwhere((drawn != np.asarray(pixels)).any(axis=2))
    # the square of 8 px around (20, 20), enlarged: px 32 to 47
    assert (changed.min(axis=0).tolist(), changed.max(axis=0).tolist()) == ([32, 32], [47, 47])
    assert not ((changed > 32) & (changed < 47)).all(axis=1).any()


@pytest.mark.parametrize(("mpp", "px"), [(0.25, 400), (0.2, 500)])
def test_fields_on_the_sheet_lose_no_pixel(tmp_path: Path, mpp: float, px: int) -> None:
    side = round(300 / mpp)  # 300 µm
    pixels = np.random.default_rng(0).integers(60, 180, (side, side, 3), np.uint8)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    store = store_squares(tmp_path / "a.nuclei", squares_run((side, side), mpp=mpp), [(side // 2, side // 2)])
    (field,) = choose_fields(measure_maps(store, 50), (side, side))
    assert (field.width, field.height) == (px, px)
    with open_slide(tmp_path / "a.png", mpp=mpp) as opened:
        sheet = np.asarray(draw_contact_sheet(store, opened, [field]))
    row = pixels[field.y + 3, field.x + 3 : field.x + 63]  # far from the nucleus, the frame and the bar
    starts = np.argwhere((sheet[:, : -len(row)] == row[0]).all(axis=2))
    assert any(np.array_equal(sheet[top, left : left + len(row)], row) for top, left in starts)


def test_colors_are_even_and_end_where_values_do(store: NucleiStore) -> None:
    steps = -np.diff(skimage.color.rgb2lab(SCALE[None] / 255)[0, :, 0])  # of lightness: the more, the darker
    assert steps.max() < 1.6 * steps.min()
    (density, area) = measure_maps(store, 50).layers()
    colors = color_range(density, np.array([[0, 130, np.nan, 990]], np.float32))
    assert (colors.low, colors.high, colors.above) == (0, 1000, False)
    assert color_range(area, np.array([[16.0, 23.0]], np.float32)).low == 16
    assert color_range(density, np.full((2, 2), np.nan, np.float32)).high == 1
    assert color_range(density, np.float32([[0, 50]]), (0, 20)).above
    drawn = color_values(np.array([[0, np.nan, 1000, 5000]], np.float32), colors)
    assert drawn.tolist() == [[[253, 231, 37], [255, 255, 255], [68, 1, 84], [68, 1, 84]]]


def test_a_map_is_drawn_cell_by_cell(tmp_path: Path) -> None:
    run = squares_run((200, 300), class_names=("a", "b"))
    store = store_squares(tmp_path / "a.nuclei", run, [(10, 10), (110, 10), (120, 10)], classes=["a", "b", "b"])
    tissue = np.array([[True, True, True], [True, False, False]])
    maps = measure_maps(store, 50, tissue=tissue)
    zoom = 760 // 3

    def cell(picture: Image.Image, row: int, column: int) -> tuple[int, ...]:
        return picture.getpixel((28 + column * zoom + zoom // 2, 68 + row * zoom + zoom // 2))

    picture = draw_map(maps, "density", limits=(0, 800))
    halfway = color_values(np.float32([[400]]), color_range(next(maps.layers()), np.float32([[1]]), (0, 800)))
    assert cell(picture, 0, 1) == (68, 1, 84)
    assert cell(picture, 0, 0) == tuple(halfway[0, 0].tolist())
    assert cell(picture, 0, 2) == cell(picture, 1, 0) == NO_NUCLEI
    assert cell(picture, 1, 1) == (255, 255, 255)
    classes = draw_map(maps, "majority")
    assert [cell(classes, 0, column) for column in range(3)] == [(0, 230, 118), (255, 214, 0), NO_CLASS]
    with pytest.raises(ValueError, match="no map 'size'"):
        draw_map(maps, "size")


def test_a_page_says_what_the_store_does(store: NucleiStore, tmp_path: Path) -> None:
    store.notes = {"broken_tiles": 2, "left_out_too_large": 3, "stain": "he", "stain_doubt": "it is brown"}
    row = write_slide_page(store, None, tmp_path / "a.html")
    page = Page(tmp_path / "a.html")
    count = int(COUNTS.sum())
    assert f"Nuclei {count}" in page.text
    assert f"{count / 0.24:,.0f}" in page.text  # 400 x 600 µm
    assert page.row("What the nuclei are of", "Fingerprint") == [store.run.fingerprint[:16]]
    assert page.row("What the nuclei are of", "Size") == ["1,200 × 800 px, 0.6 × 0.4 mm"]
    assert page.row("What the nuclei are of", "Scale") == ["0.5 µm per px, from the file"]
    assert page.row("What the nuclei are of", "Model") == ["fast (111111111111)"]
    assert page.row("What the nuclei are of", "Tiles that could not be read") == ["2"]
    assert page.row("What the nuclei are of", "Left out") == ["3 too large for a nucleus"]
    for warning in ("it is brown", "2 tiles could not be read", "3 left out"):
        assert warning in page.text
        assert any(warning in one for one in row.warnings)
    pictures = [attributes for tag, attributes in page.tags if tag == "img"]
    assert len(pictures) == 4  # overview, two maps, contact sheet
    assert all((one["src"] or "").startswith("data:image/") for one in pictures)
    assert "http" not in page.source.replace("http-equiv", "")


def test_nuclei_of_a_size_that_speaks_against_the_scale(slide: Path, tmp_path: Path) -> None:
    for area, expected in ((5.0, True), (40.0, False), (400.0, True)):
        store = store_squares(
            tmp_path / f"{area}.nuclei", run_of(slide), scattered(COUNTS), areas=[area] * int(COUNTS.sum())
        )
        assert any("check the scale, 0.5 µm per px" in one for one in slide_row(store, slide).warnings) == expected


def test_scores_and_classes_on_a_page(slide: Path, tmp_path: Path) -> None:
    run = run_of(slide, class_names=("tumor", "stroma"), dab=True, positive=(0.2, 0.4, 0.6))
    dab, classes = [0.1, 0.3, 0.5, 0.7], ["tumor", "tumor", "tumor", "tumor"]
    store = store_squares(tmp_path / "a.nuclei", run, [(10 * k, 10) for k in range(1, 5)], classes=classes, dab=dab)
    row = write_slide_page(store, slide, tmp_path / "a.html")
    page = Page(tmp_path / "a.html")
    caption = "Nuclei by the mean optical density of their DAB; thresholds 0.2, 0.4, 0.6 (set)"
    assert page.row(caption, "all") == ["1", "1", "1", "1", "75.0 %", "150", page.row(caption, "all")[-1]]
    assert page.row(caption, "stroma") == ["0", "0", "0", "0", "–", "–", "–"]
    assert page.row("Nuclei by class", "tumor")[:2] == ["4", "100.0 %"]
    assert page.row("Nuclei by class", "stroma")[:2] == ["0", "0.0 %"]
    assert (row.scores["Positive"], row.classes["stroma"]) == ("75.0 %", "0.0 %")


def test_a_page_without_nuclei(slide: Path, tmp_path: Path) -> None:
    store = store_squares(tmp_path / "a.nuclei", run_of(slide), [])
    row = write_slide_page(store, slide, tmp_path / "a.html")
    assert "no nuclei were found" in row.warnings
    text = Page(tmp_path / "a.html").text
    assert "No field has tissue all over and a nucleus." in text
    assert "no values" in text
    assert "nan" not in text


def test_a_hostile_name_is_text(tmp_path: Path) -> None:
    slide = make_slide(tmp_path / HOSTILE)
    store = store_squares(tmp_path / "a.nuclei", run_of(slide, class_names=("<b>x",)), [(10, 10)], classes=["<b>x"])
    row = write_slide_page(store, None, tmp_path / "<i>a.html")
    write_cohort_page([row], tmp_path / "cohort.html", failed=[(HOSTILE, "<script>no</script>")])
    for path in (tmp_path / "<i>a.html", tmp_path / "cohort.html"):
        page = Page(path)
        assert HOSTILE in page.text
        assert not [tag for tag, attributes in page.tags if "onerror" in attributes or tag in ("script", "b", "i")]
    links = [attributes["href"] for tag, attributes in Page(tmp_path / "cohort.html").tags if tag == "a"]
    assert "%3Ci%3Ea.html" in links


@pytest.mark.fault
def test_another_slide_is_refused_in_one_line(store: NucleiStore, tmp_path: Path) -> None:
    other = save_pyramid(tmp_path / "b.tif", draw_picture(*SHAPE, seed=9), levels=2)
    with pytest.raises(
        HemalumError, match=r"b\.tif: is not the slide that the nuclei of .*a\.nuclei are of"
    ) as raised:
        write_slide_page(store, other, tmp_path / "a.html")
    assert "\n" not in str(raised.value)
    assert not (tmp_path / "a.html").exists()
    with open_slide(other) as opened, pytest.raises(HemalumError, match="is not the slide"):
        write_maps(store, opened, tmp_path / "maps")
    assert not (tmp_path / "maps").exists()


@pytest.mark.fault
def test_where_a_slide_is_looked_for(store: NucleiStore, slide: Path, tmp_path: Path) -> None:
    assert find_slide(store) == slide
    moved = tmp_path / "slides"
    moved.mkdir()
    slide.rename(moved / "a.tif")
    assert find_slide(store) is None
    assert find_slide(store, moved) == find_slide(store, moved / "a.tif") == moved / "a.tif"
    with pytest.raises(HemalumError, match=r"a\.nuclei: its slide a\.tif is not beside it; say where it is"):
        write_slide_page(store, None, tmp_path / "a.html")
    (tmp_path / "empty").mkdir()
    with pytest.raises(HemalumError, match=r"empty: holds no a\.tif"):
        find_slide(store, tmp_path / "empty")
    with pytest.raises(HemalumError, match="no such file or folder"):
        find_slide(store, tmp_path / "none.tif")
    # a name in a manifest does not lead out of the folder
    outside = store_squares(moved / "b.nuclei", store.run.model_copy(update={"source": "../a.nuclei"}), [])
    assert find_slide(outside) is None


def test_maps_are_files(store: NucleiStore, slide: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    folder = write_maps(store, None, tmp_path / "maps")
    expected = ["1-density.png", "2-area.png", "contact-sheet.png", "maps.ome.zarr", "overview.png"]
    assert sorted(path.name for path in folder.iterdir()) == expected
    assert not caplog.messages
    slide.unlink()
    folder = write_maps(store, None, tmp_path / "less")
    assert "without its slide a.tif, glass is not told from tissue" in caplog.text
    assert sorted(path.name for path in folder.iterdir()) == ["1-density.png", "2-area.png", "maps.ome.zarr"]


def test_a_contact_sheet_has_a_row_for_each_rank(store: NucleiStore, slide: Path) -> None:
    fields = choose_fields(measure_maps(store, 50), SHAPE)
    with open_slide(slide) as opened:
        full = draw_contact_sheet(store, opened, fields)
        one = draw_contact_sheet(store, opened, fields[:1])
    assert full.height - one.height >= 700  # two rows, less legend lines of the narrower one
    assert full.width > one.width


def test_a_cohort_names_what_failed(store: NucleiStore, slide: Path, tmp_path: Path) -> None:
    rows = [slide_row(store, slide), SlideRow("b.svs", "7", "1", "2", "3", "4", warnings=("torn", "blurred"))]
    path = write_cohort_page(rows, tmp_path / "cohort.html", failed=[("c.svs", "is not a slide")])
    page = Page(path)
    caption = "Nuclei of each slide; areas and optical densities are medians"
    assert page.row(caption, "b.svs") == ["", "7", "3", "1", "2", "4", "torn; blurred"]
    assert page.row(caption, "a.tif")[1] == f"{int(COUNTS.sum())}"
    assert page.row("Slides without results", "c.svs") == ["is not a slide"]
    assert not [attributes for tag, attributes in page.tags if tag == "a" and attributes["href"] != "#main"]
    assert "No slide has results." in Page(write_cohort_page([], tmp_path / "none.html")).text


def test_command(store: NucleiStore, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def run(*arguments: object) -> tuple[int, str, str]:
        code = cli.main(["export", *map(str, arguments)])
        return code, *capsys.readouterr()

    assert run(store.path, "--to", "page")[:2] == (0, f"{tmp_path / 'a.html'}\n")
    assert run(store.path, "--to", "maps", "--cell", "100", "-o", tmp_path / "m")[0] == 0
    assert (tmp_path / "m" / "1-density.png").is_file()
    other = store_squares(tmp_path / "b.nuclei", store.run.model_copy(update={"fingerprint": "5" * 64}), [])
    code, _, complaint = run(tmp_path, "--to", "page")
    assert code == 1
    assert "failed: " in complaint
    page = Page(tmp_path / "cohort.html")
    assert "is not the slide" in page.row("Slides without results", other.path.name)[0]
    assert "a.html" in [attributes["href"] for tag, attributes in page.tags if tag == "a"]
    for wrong, message in [
        (("--to", "maps", "--simplify", "1"), "--simplify is not for maps"),
        (("--to", "csv", "--slide", "a.tif"), "--slide is for maps and page; csv has no use for it"),
        (("--to", "pages"), "unknown format 'pages'"),
    ]:
        code, _, complaint = run(store.path, *wrong)
        assert code != 0
        assert message in complaint
