"""The channel that a user names, in every kind of file with stains side by side, and what is refused."""

import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image

from builders.slides import draw_picture, save_ome_zarr, save_pyramid
from hemalum import cli, segment
from hemalum.data.image import read_image
from hemalum.data.pixels.channels import check_channel, find_channel
from hemalum.errors import HemalumError
from hemalum.inference.batch import segment_paths
from hemalum.inference.slide import segment_slide
from hemalum.inference.slide_batch import segment_slides
from hemalum.models.card import Card
from hemalum.models.model import Model
from hemalum.nuclei.store import open_store
from hemalum.slides import open_slide

NAMES = ["Pan CK", "DAPI", "CD3", "CD8"]
COLOR = draw_picture(96, 80)
PLANES = np.stack([np.roll(COLOR[..., 0], 7 * shift, axis=1) // (shift + 1) for shift in range(4)])  # (4, 96, 80)
REFUSED = (
    "an image in color, and `channel` is for stains side by side, as in fluorescence: leave it out, or save the "
    "channel as a gray image"
)


def save_channels(path: Path, form: str, planes: NDArray[Any] = PLANES) -> Path:
    about: dict[str, Any] = {"axes": "CYX", "Channel": {"Name": NAMES}}
    if form == "ome":
        tifffile.imwrite(path / "a.ome.tif", planes, photometric="minisblack", metadata=about)
        return path / "a.ome.tif"
    if form == "ome, decoded whole":
        options = {"photometric": "minisblack", "compression": "lzma"}
        tifffile.imwrite(path / "a.ome.tif", planes, metadata=about, **options)
        return path / "a.ome.tif"
    if form == "ome, tiled":
        options = {"photometric": "minisblack", "tile": (32, 32), "compression": "zlib"}
        tifffile.imwrite(path / "a.ome.tif", planes, metadata=about, **options)
        return path / "a.ome.tif"
    if form == "imagej":
        tifffile.imwrite(path / "a.tif", planes, imagej=True, metadata={"axes": "CYX", "Labels": NAMES})
        return path / "a.tif"
    if form == "samples":
        last = np.moveaxis(planes, 0, 2)
        tifffile.imwrite(path / "a.tif", last, photometric="minisblack", planarconfig="contig", extrasamples=[0] * 3)
        return path / "a.tif"
    made = save_ome_zarr(path / "a.zarr", COLOR, levels=1)
    array = zarr.create_array(
        str(made / "0"), shape=planes.shape, dtype=planes.dtype, chunks=(1, 64, 64), overwrite=True
    )
    array[...] = planes
    group = zarr.open_group(str(made))
    group.attrs["ome"] = dict(group.attrs["ome"]) | {"omero": {"channels": [{"label": name} for name in NAMES]}}  # type: ignore[call-overload]
    return made


FORMS = ("ome", "ome, decoded whole", "ome, tiled", "imagej", "samples", "ome-zarr")


def shown(path: Path, channel: str | int) -> NDArray[np.uint8]:
    with open_slide(path, channel=channel, mpp=0.5) as slide:
        pixels = slide.rows(0, 96)
        copied = pickle.loads(pickle.dumps(slide))  # as workers get it
        assert np.array_equal(copied.rows(0, 96), pixels)
        copied.close()
    if path.is_file():
        assert np.array_equal(read_image(path, channel=check_channel(channel)), pixels)
    return pixels


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_the_channel_that_is_named_is_read(
    tmp_path: Path, form: str, dtype: Any, caplog: pytest.LogCaptureFixture
) -> None:
    path = save_channels(tmp_path, form, PLANES.astype(dtype))
    for index, name in enumerate(NAMES):
        pixels = shown(path, index + 1)
        assert np.array_equal(pixels[..., 0], pixels[..., 2])
        if dtype == np.uint8:
            assert np.array_equal(pixels[..., 0], PLANES[index])
        else:  # stretched, so that only the order of the pixels stays
            assert np.corrcoef(pixels[..., 0].ravel(), PLANES[index].ravel())[0, 1] > 0.98
        if form != "samples":  # which has no names
            assert np.array_equal(shown(path, name.lower().replace(" ", "  ")), pixels)
    assert "is taken" not in caplog.text  # nothing was chosen for the user


@pytest.mark.fault
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("channel", ["CD4", "5", "0", "Hoechst"])
def test_a_channel_that_is_not_there_lists_those_that_are(tmp_path: Path, form: str, channel: str) -> None:
    path = save_channels(tmp_path, form)
    with pytest.raises(HemalumError) as caught:
        open_slide(path, channel=channel)
    listed = "1 to 4, without names" if form == "samples" else "1 'Pan CK', 2 'DAPI', 3 'CD3', 4 'CD8'"
    near = ", did you mean 'CD8'?" if channel == "CD4" and form != "samples" else ""
    assert str(caught.value) == f"{path}: no channel '{channel}'{near}; it has {listed}"


def save_color(folder: Path, form: str) -> Path:
    path = folder / f"a.{form.partition(' ')[0]}"
    if form in ("png", "jpg", "bmp", "webp"):
        Image.fromarray(COLOR).save(path)
    elif form == "tif":
        tifffile.imwrite(path, COLOR, photometric="rgb")
    elif form == "tif lzma":
        tifffile.imwrite(path, COLOR, photometric="rgb", compression="lzma")
    elif form == "tif planes":
        tifffile.imwrite(path, np.moveaxis(COLOR, 2, 0), photometric="rgb", planarconfig="separate")
    elif form == "tif levels":
        save_pyramid(path, COLOR, levels=2)
    elif form == "ome.tif named":
        names = {"axes": "CYX", "Channel": {"Name": ["Red", "Green", "Blue"]}}
        tifffile.imwrite(path, np.moveaxis(COLOR, 2, 0), photometric="minisblack", metadata=names)
    elif form == "tif cmyk":
        Image.fromarray(COLOR).convert("CMYK").save(path)
    else:
        Image.fromarray(COLOR).convert("P").save(path)
    return path


@pytest.mark.fault
@pytest.mark.parametrize(
    "form",
    [
        "png",
        "jpg",
        "bmp",
        "webp",
        "tif",
        "tif lzma",
        "tif planes",
        "tif levels",
        "ome.tif named",
        "tif cmyk",
        "png P",
    ],
)
def test_a_channel_of_a_color_image_is_refused(tmp_path: Path, form: str) -> None:
    path = save_color(tmp_path, form)
    for channel in ("DAPI", "1"):
        with pytest.raises(HemalumError) as caught:
            open_slide(path, channel=channel)
        assert str(caught.value) == f"{path}: {REFUSED}"


@pytest.mark.parametrize("name", ["a.png", "a.tif", "a.bmp"])
def test_a_gray_image_has_one_channel(tmp_path: Path, name: str) -> None:
    Image.fromarray(PLANES[0]).save(tmp_path / name)
    assert np.array_equal(shown(tmp_path / name, 1)[..., 0], PLANES[0])
    with pytest.raises(HemalumError) as caught:
        open_slide(tmp_path / name, channel=2)
    assert str(caught.value) == f"{tmp_path / name}: no channel '2'; it has 1 alone"


@pytest.mark.fault
def test_names_that_say_too_little(tmp_path: Path) -> None:
    assert find_channel("2", 3, ["2", "a", "b"], "x") == 0  # a name goes before a number
    with pytest.raises(HemalumError) as caught:
        find_channel("DAPI", 3, ["DAPI", "CD3", "dapi"], "x")
    assert str(caught.value) == "x: 2 channels are called 'DAPI' (1 'DAPI', 2 'CD3', 3 'dapi'): give the number"
    for channel in ("", " ", True):
        with pytest.raises(HemalumError, match="want the name of a channel, or its number from 1"):
            check_channel(channel)
    with pytest.raises(HemalumError, match="`channel` is for files; give the channel of an array as"):
        segment(COLOR, channel="DAPI")


@settings(max_examples=60, deadline=None)
@given(st.text(max_size=8), st.lists(st.text(max_size=8), max_size=5))
def test_any_name_finds_its_channel_or_says_which_there_are(channel: str, titles: list[str]) -> None:
    count, refused = max(1, len(titles)), ""
    try:
        assert 0 <= find_channel(check_channel(channel) or "", count, titles, "a.tif") < count
    except HemalumError as error:
        refused = str(error)
    assert "\n" not in refused
    assert not refused or refused.startswith(("a.tif: ", "`channel` "))


@pytest.fixture(scope="module")
def model(disk_card: Card) -> Model:
    return Model(disk_card, {})


@pytest.fixture
def stained(tmp_path: Path, make_disks: Callable[..., NDArray[np.uint8]]) -> Path:
    """Two channels: many disks and few."""
    planes = np.stack([make_disks(160, 160, 16, seed=1)[..., 1], np.full((160, 160), 240, np.uint8)])
    planes[1, :60] = planes[0, :60]
    path = tmp_path / "many.ome.tif"
    about = {"axes": "CYX", "Channel": {"Name": ["a", "b"]}}
    tifffile.imwrite(path, planes, photometric="minisblack", metadata=about)
    return path


def test_one_channel_in_every_call(
    stained: Path, tmp_path: Path, model: Model, disk_engine: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    options: dict[str, Any] = {"mpp": 0.5, "engine": disk_engine, "stain": "he"}
    single = {name: segment(stained, model, channel=name, **options) for name in ("a", "b")}
    assert single["b"].notes["channel"] == "b"
    assert not np.array_equal(single["a"].label_map(), single["b"].label_map())
    (batch,) = segment_paths([stained], tmp_path / "out", ["csv"], model, channel=2, **options)
    assert batch.nuclei is not None
    assert np.array_equal(batch.nuclei.label_map(), single["b"].label_map())
    store = segment_slide(stained, tmp_path / "slides", model, channel="b", tissue_mask=False, **options)
    assert store.count == single["b"].count
    assert store.notes["channel"] == "b"
    assert cli.main(["segment", str(stained), "-o", str(tmp_path / "o"), "--mpp", "0.5", "--channel", "c"]) == 2
    assert "many.ome.tif: no channel 'c'; it has 1 'a', 2 'b'" in capsys.readouterr().err


@pytest.mark.fault
def test_a_second_run_with_another_channel_is_refused(
    stained: Path, tmp_path: Path, model: Model, disk_engine: Any
) -> None:
    options: dict[str, Any] = {"mpp": 0.5, "engine": disk_engine, "stain": "he", "tissue_mask": False}
    errors = []
    for channel in ("b", "b", "a", None):
        (result,) = segment_slides([stained], tmp_path, ["csv"], model, channel=channel, **options)
        errors.append(result.error)
    assert errors[:2] == [None, None]
    assert all("many.nuclei" in str(error) and "channel" in str(error) for error in errors[2:])
    assert open_store(tmp_path / "many.nuclei").run.settings["channel"] == "b"
