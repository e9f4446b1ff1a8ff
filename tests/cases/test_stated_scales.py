"""What files and users state as a scale: none that no microscope has is believed, others only if nuclei fit."""

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image

from builders.slides import save_ome_zarr, save_svs
from hemalum.data.check import Problem, check_dataset
from hemalum.data.importing import import_dataset
from hemalum.data.nucleus_size import likely_scale
from hemalum.errors import HemalumError
from hemalum.inference import plausibility
from hemalum.inference.batch import segment_paths
from hemalum.inference.segment import segment
from hemalum.inference.slide import segment_slide
from hemalum.models.card import Card
from hemalum.models.model import Model
from hemalum.slides import open_slide
from hemalum.slides.readers.scale_tags import DPI

pytestmark = pytest.mark.fault

Pixels = NDArray[np.uint8]
Disks = Callable[..., Pixels]
PICTURE = np.random.default_rng(0).integers(0, 256, (40, 52, 3), dtype=np.uint8)


@pytest.fixture
def disk_model(disk_card: Card) -> Model:
    return Model(disk_card, {"nothing": np.zeros(1, np.float32)})


def ome(folder: Path, size: object, unit: str = "µm") -> Path:
    sizes = {f"PhysicalSize{axis}": size for axis in "XY"} | {f"PhysicalSize{axis}Unit": unit for axis in "XY"}
    path = folder / "a.ome.tif"
    tifffile.imwrite(path, PICTURE, photometric="rgb", tile=(32, 32), metadata={"axes": "YXS"} | sizes)
    return path


def tags(folder: Path, per_unit: float, unit: str = "INCH") -> Path:
    path = folder / "a.tif"
    tifffile.imwrite(path, PICTURE, photometric="rgb", resolution=(per_unit, per_unit), resolutionunit=unit)
    return path


def imagej(folder: Path, per_unit: float, unit: str) -> Path:
    path = folder / "a.tif"
    tifffile.imwrite(path, PICTURE, imagej=True, resolution=(per_unit, per_unit), metadata={"unit": unit})
    return path


def plain(folder: Path, dpi: float, ending: str) -> Path:
    path = folder / f"a.{ending}"
    Image.fromarray(PICTURE).save(path, dpi=(dpi, dpi))
    return path


# how a program writes that a px is so many µm long, in each kind of a file that has room for it
PLACES: dict[str, Callable[[Path, float], Path]] = {
    "tag, inch": lambda folder, mpp: tags(folder, 25400 / mpp),
    "tag, centimeter": lambda folder, mpp: tags(folder, 1e4 / mpp, "CENTIMETER"),
    "ImageJ, inch": lambda folder, mpp: imagej(folder, 25400 / mpp, "inch"),
    "ImageJ, micron": lambda folder, mpp: imagej(folder, 1 / mpp, "micron"),
    "ImageJ, escaped": lambda folder, mpp: imagej(folder, 1 / mpp, "\\u00B5m"),
    "ImageJ, cm": lambda folder, mpp: imagej(folder, 1e4 / mpp, "cm"),
    "OME": ome,
    "OME, nm": lambda folder, mpp: ome(folder, mpp * 1000, "nm"),
    "OME, mm": lambda folder, mpp: ome(folder, mpp / 1000, "mm"),
    "OME, inch": lambda folder, mpp: ome(folder, mpp / 25400, "in"),
    "SVS": lambda folder, mpp: save_svs(folder / "a.svs", PICTURE, stated=f"MPP = {mpp:.6f}"),
    "SVS, comma": lambda folder, mpp: save_svs(
        folder / "a.svs", PICTURE, stated=f"MPP = {mpp:.6f}".replace(".", ",")
    ),
    "Zarr": lambda folder, mpp: save_ome_zarr(folder / "a.zarr", PICTURE, mpp=mpp),
    "PNG": lambda folder, mpp: plain(folder, 25400 / mpp, "png"),
    "BMP": lambda folder, mpp: plain(folder, 25400 / mpp, "bmp"),
}
METERS = ("PNG", "BMP")  # they hold whole px per meter
PLACEHOLDER = "states exactly 1 µm per px, which programs write that know no scale"


@pytest.mark.parametrize("kind", PLACES)
@pytest.mark.parametrize("dpi", [72, 96, 300])
def test_a_printers_resolution_is_no_scale_wherever_it_stands(
    tmp_path: Path, kind: str, dpi: int, caplog: pytest.LogCaptureFixture
) -> None:
    path = PLACES[kind](tmp_path, 25400 / dpi)
    with caplog.at_level(logging.INFO, "hemalum"), open_slide(path) as slide:
        assert slide.mpp is None
    mpp = 1e6 / round(dpi / 0.0254) if kind in METERS else 25400 / dpi
    doubt = f"states {mpp:.4g} µm per px, {dpi} dots per inch, a printer's or a screen's"
    assert caplog.messages == [f"{path}: the file {doubt}; it is not taken for its scale"]
    assert open_slide(path, mpp=0.25).mpp == 0.25


@pytest.mark.parametrize("kind", sorted(PLACES.keys() - METERS))
def test_one_micron_is_what_programs_write_that_know_nothing(tmp_path: Path, kind: str) -> None:
    with open_slide(PLACES[kind](tmp_path, 1.0)) as slide:
        assert (slide.mpp, slide.scale_doubt) == (None, PLACEHOLDER)


@pytest.mark.parametrize(
    ("size", "unit", "doubt"),
    [
        (0, "µm", "states 0 µm per px, which is no scale"),
        (-1, "µm", "states -1 µm per px, which is no scale"),
        (252, "µm", "states 252 µm per px, which no microscope has (nm for µm?)"),
        (0.00025, "µm", "states 0.00025 µm per px, which no microscope has (mm for µm?)"),
        (2.5e-5, "µm", "states 2.5e-05 µm per px, which no microscope has (cm for µm?)"),
        (0.25, "mm", "states 250 µm per px, which no microscope has (nm for µm?)"),
        (84.667, "µm", "states 84.67 µm per px, 300 dots per inch, a printer's or a screen's"),
        (1e300, "µm", "states 1e+300 µm per px, which no microscope has"),
    ],
)
def test_what_no_microscope_has(tmp_path: Path, size: float, unit: str, doubt: str) -> None:
    with open_slide(ome(tmp_path, size, unit)) as slide:
        assert (slide.mpp, slide.scale_doubt) == (None, doubt)


@pytest.mark.parametrize("size", ["nan", "inf", "", "unknown"])
def test_what_is_no_number_states_nothing(tmp_path: Path, size: str) -> None:
    with open_slide(ome(tmp_path, size)) as slide:
        assert (slide.mpp, slide.scale_doubt) == (None, "")


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(kind=st.sampled_from(sorted(PLACES)), mpp=st.floats(0.03, 4.9).filter(lambda mpp: abs(mpp - 1) > 0.01))
def test_a_microscopes_scale_is_believed_wherever_it_stands(tmp_path: Path, kind: str, mpp: float) -> None:
    with open_slide(PLACES[kind](tmp_path, mpp)) as slide:
        assert slide.mpp == pytest.approx(mpp, rel=1e-3)
        assert slide.scale_doubt == ""


@settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(kind=st.sampled_from(sorted(PLACES)), dpi=st.sampled_from(DPI))
def test_every_known_resolution_of_printers_is_named(tmp_path: Path, kind: str, dpi: int) -> None:
    with open_slide(PLACES[kind](tmp_path, 25400 / dpi)) as slide:
        assert slide.mpp is None
        assert f", {dpi} dots per inch" in slide.scale_doubt


def test_images_saved_with_a_printers_resolution_are_estimated(
    tmp_path: Path, make_disks: Disks, disk_model: Model, home_engine: Any, caplog: pytest.LogCaptureFixture
) -> None:
    image = make_disks(400, 400, diameter=32)
    inch = {"resolution": (300, 300)}
    tifffile.imwrite(tmp_path / "plain.tif", image, photometric="rgb", resolutionunit="INCH", **inch)
    tifffile.imwrite(tmp_path / "resaved.tif", image, imagej=True, metadata={"unit": "inch"}, **inch)
    paths = [tmp_path / "plain.tif", tmp_path / "resaved.tif"]
    results = list(segment_paths(paths, tmp_path / "out", ["csv"], disk_model, engine=home_engine))
    assert [result.error for result in results] == [None, None]
    first, second = (result.nuclei for result in results)
    assert first is not None
    assert second is not None
    assert (first.count, first.mpp, first.mpp_source) == (second.count, second.mpp, "estimate")
    for path in paths:
        line = (
            f"{path} states no scale that a microscope has: {first.mpp:.3g} µm per px is an estimate from its nuclei"
        )
        assert f"{line}; mpp sets it" in caplog.messages


@pytest.mark.parametrize(
    ("mpp", "why"), [(1.0, PLACEHOLDER), (8.0, "states 8 µm per px, at which no nuclei can be seen")]
)
def test_slides_ask_for_a_scale(tmp_path: Path, disk_model: Model, home_engine: Any, mpp: float, why: str) -> None:
    path = PLACES["SVS"](tmp_path, mpp)
    with pytest.raises(HemalumError) as caught:
        segment_slide(path, tmp_path / "out", disk_model, engine=home_engine)
    assert str(caught.value) == (
        f"{path}: the file {why}, and that of a slide is not estimated; "
        "give it with `mpp` (0.25 is usual for 40x, 0.5 for 20x)"
    )


BLANKS: dict[str, Pixels] = {
    "white": np.full((200, 200, 3), 255, np.uint8),
    "gray glass": np.full((200, 200, 3), 236, np.uint8),
    "one channel": np.full((200, 200), 240, np.uint8),
    "noise": np.random.default_rng(0).normal(235, 3, (200, 200, 3)).clip(0, 255).astype(np.uint8),
    "vignette": np.repeat(
        (250 - 40 * np.hypot(*np.mgrid[-1:1:200j, -1:1:200j])).astype(np.uint8)[..., None], 3, axis=2
    ),
}


@pytest.mark.parametrize("name", BLANKS)
def test_a_blank_field_has_no_nuclei(
    tmp_path: Path, disk_model: Model, disk_engine: Any, caplog: pytest.LogCaptureFixture, name: str
) -> None:
    path = tmp_path / "blank.png"
    Image.fromarray(BLANKS[name]).save(path)
    formats = ["csv", "geojson", "parquet", "labels", "overlay"]
    (result,) = segment_paths([path], tmp_path / "out", formats, disk_model, engine=disk_engine)
    assert result.error is None
    assert result.nuclei is not None
    assert (result.nuclei.count, result.nuclei.mpp, result.nuclei.mpp_source) == (0, None, "none")
    assert result.nuclei.density_per_mm2 is None
    assert sorted(result.files) == sorted(formats)
    assert all(file.stat().st_size for file in result.files.values())
    assert caplog.messages == [
        f"{path}: no nuclei at any scale from 0.062 to 2 µm per px: 0 nuclei, scale unknown; mpp sets it"
    ]


def test_a_blank_field_is_graded_as_others(disk_model: Model, disk_engine: Any) -> None:
    for positive in (0.2, "otsu"):
        nuclei = segment(BLANKS["white"], disk_model, engine=disk_engine, positive=positive)
        assert nuclei.count == 0
        assert "intensity" in nuclei.table.column_names


@pytest.mark.parametrize("count", [1, 4])
def test_one_to_four_nuclei_tell_no_scale(disk_model: Model, disk_engine: Any, count: int) -> None:
    image = np.full((220, 220, 3), (235, 205, 220), np.uint8)
    for number in range(count):
        image[20:40, 20 + 50 * number : 40 + 50 * number] = (60, 40, 110)
    with pytest.raises(HemalumError, match="too few nuclei are found to tell the scale from them"):
        segment(image, disk_model, engine=disk_engine)


# the disks are those that the engine knows at 0.5 µm per px
WRONG = {
    "twice": (0.98, "0.49 would fit, 1/2 of it (another level of a pyramid, or another objective?)"),
    "half": (0.25, "0.5 would fit, 2 times as much (another level of a pyramid, or another objective?)"),
    "four times": (2.0, "0.5 would fit, 1/4 of it (another level of a pyramid, or another objective?)"),
    "a quarter": (0.125, "0.5 would fit, 4 times as much (another level of a pyramid, or another objective?)"),
    "cm for inch": (0.5 / 2.54, "0.5 would fit, 2.54 times as much (inch and centimeter mixed up?)"),
    "inch for cm": (0.5 * 2.54, "0.5 would fit, 1/2.54 of it (inch and centimeter mixed up?)"),
}


@pytest.mark.parametrize("case", WRONG)
def test_a_scale_that_the_nuclei_speak_against(
    tmp_path: Path,
    make_disks: Disks,
    disk_model: Model,
    home_engine: Any,
    caplog: pytest.LogCaptureFixture,
    case: str,
) -> None:
    mpp, fits = WRONG[case]
    image = make_disks(420, 420, diameter=16)
    given_by_user = segment(image, disk_model, mpp=mpp, engine=home_engine).notes["scale_doubt"]
    assert given_by_user.startswith(f"mpp is given as {mpp:.4g} µm per px, but its nuclei look like about 0.")
    assert given_by_user.endswith(f": {fits}")
    assert caplog.messages[-1] == f"image: {given_by_user}; mpp sets it"
    caplog.clear()
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, image, photometric="rgb", resolution=(1e4 / mpp, 1e4 / mpp), resolutionunit="CENTIMETER")
    stated = segment(path, disk_model, engine=home_engine).notes.get("scale_doubt", "")
    assert stated == given_by_user.replace("mpp is given as", "the file states")
    lines = [line for line in caplog.messages if "look like" in line]
    assert lines == [f"{path}: {stated}; mpp sets it"]


@pytest.mark.parametrize("mpp", [0.42, 0.5, 0.6])
def test_a_scale_that_fits_is_not_doubted(make_disks: Disks, disk_model: Model, home_engine: Any, mpp: float) -> None:
    nuclei = segment(make_disks(420, 420, diameter=16), disk_model, mpp=mpp, engine=home_engine)
    assert "scale_doubt" not in nuclei.notes


def test_nothing_is_said_where_nuclei_tell_nothing(
    make_disks: Disks, disk_model: Model, home_engine: Any, disk_engine: Any
) -> None:
    image = make_disks(420, 420, diameter=16)
    silent = {
        "gray": (image.mean(axis=2).astype(np.uint8), "auto", home_engine),
        "fluorescence": (255 - image.mean(axis=2).astype(np.uint8), "auto", home_engine),
        "H-DAB": (image, "hdab", home_engine),
        "tiny": (image[:20, :20], "auto", disk_engine),
        "blank": (BLANKS["white"], "auto", disk_engine),
    }
    for name, (pixels, stain, engine) in silent.items():
        assert "scale_doubt" not in segment(pixels, disk_model, mpp=1.3, stain=stain, engine=engine).notes, name


def test_images_of_one_scale_that_agree_are_not_all_compared(
    tmp_path: Path, make_disks: Disks, disk_model: Model, home_engine: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    compared = []

    def compare(*arguments: Any) -> float:
        compared.append(arguments[0].name)
        return 0.0

    monkeypatch.setattr(plausibility, "octaves_apart", compare)
    monkeypatch.setattr(
        plausibility.SeenNuclei, "is_odd", lambda _, octaves=plausibility.ODD, sure=0: octaves == plausibility.ODD
    )
    paths = []
    for number in range(plausibility.AGREED + 2):
        paths.append(tmp_path / f"{number}.png")
        Image.fromarray(make_disks(100, 100, diameter=16)).save(paths[-1])
    list(segment_paths(paths, tmp_path / "out", ["csv"], disk_model, mpp=0.5, engine=home_engine))
    assert len(compared) == plausibility.AGREED


def test_a_doubted_slide_says_so_in_its_store(
    tmp_path: Path, make_disks: Disks, disk_model: Model, home_engine: Any
) -> None:
    path = save_svs(tmp_path / "a.svs", make_disks(420, 420, diameter=16), stated="MPP = 0.125")
    store = segment_slide(path, tmp_path / "out", disk_model, engine=home_engine, tissue_mask=False)
    assert store.notes["scale_doubt"].startswith("the file states 0.125 µm per px, but its nuclei look like about 0.")


@pytest.mark.parametrize(
    ("mpp", "octaves", "text"),
    [
        (0.5, -1.0, "about 0.25: 0.25 would fit, 1/2 of it (another level of a pyramid, or another objective?)"),
        (0.098, 1.5, "about 0.28: 0.249 would fit, 2.54 times as much (inch and centimeter mixed up?)"),
        (0.25, 6.0, "about 16, 64 times as much"),
    ],
)
def test_likely_scales(mpp: float, octaves: float, text: str) -> None:
    assert likely_scale(mpp, octaves) == text


def dataset_of(folder: Path, mpp: str) -> Path:
    """A folder of images whose nuclei are 20 px across."""
    y, x = np.mgrid[:160, :160]
    labels = np.zeros((160, 160), np.uint16)
    for number, (row, column) in enumerate(np.ndindex(4, 4), start=1):
        labels[(y - 20 - 40 * row) ** 2 + (x - 20 - 40 * column) ** 2 < 100] = number
    image = np.where(labels[..., None] > 0, (60, 40, 110), (235, 205, 220)).astype(np.uint8)
    for kind, pixels in (("images", image), ("labels", labels)):
        (folder / kind).mkdir(parents=True)
        Image.fromarray(pixels).save(folder / kind / "a.png")
    (folder / "index.csv").write_text(f"image,label,mpp\na.png,a.png,{mpp}\n")
    return folder


@pytest.mark.parametrize(
    ("mpp", "fits"),
    [
        ("0.5", "0.25 would fit, 1/2 of it (another level of a pyramid, or another objective?)"),
        ("0.0984", "0.25 would fit, 2.54 times as much (inch and centimeter mixed up?)"),
    ],
)
def test_the_scale_of_labeled_images_is_compared_with_them(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, mpp: str, fits: str
) -> None:
    source, size = dataset_of(tmp_path / "user", mpp), f"{19.71 * float(mpp):.1f}"
    import_dataset("folder", source, tmp_path / "set")
    (line,) = [line for line in caplog.messages if "median nucleus" in line]
    assert line.startswith(f"{tmp_path / 'set'}: at mpp {mpp} the median nucleus is {size} µm across, 5.2 is usual: ")
    assert line.endswith(f": {fits}; mpp sets it")
    for folder in (source, tmp_path / "set"):
        (problem,) = [one for one in check_dataset(folder) if one.kind == "mpp"]
        assert problem == Problem("warning", "", "mpp", problem.message)
        assert problem.message.endswith(f": {fits}")


@pytest.mark.parametrize("mpp", ["0.18", "0.25", "0.35"])
def test_scales_of_labeled_images_that_fit(tmp_path: Path, mpp: str) -> None:
    assert not [one for one in check_dataset(dataset_of(tmp_path / "user", mpp)) if one.kind == "mpp"]
