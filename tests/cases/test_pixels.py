"""Pixels mean what the file says: by photometric interpretation, samples and names, never by the number of planes."""

import logging
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
import pytest
import tifffile
from numpy.typing import NDArray
from PIL import Image

from builders.slides import draw_picture, read_both, save_ome_zarr
from hemalum.data.image import read_image
from hemalum.data.label_pixels import read_label_map
from hemalum.errors import HemalumError
from hemalum.slides import open_slide

pytestmark = pytest.mark.fault

COLOR = draw_picture(96, 80)
GRAY = COLOR[..., 0].copy()
FAINT = np.where(GRAY > 180, GRAY, GRAY // 16)  # bright things on a dark ground
CHANNELS = "the first is taken; if the nuclei are in another, channel names it"
BRIGHT = "three channels, bright ones: taken as red, green and blue, though the file does not say so"


def warnings_of(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]


def as_rgb(gray: NDArray[np.uint8]) -> NDArray[np.uint8]:
    return np.repeat(gray[..., None], 3, axis=2)


@pytest.mark.parametrize("count", [2, 4, 5, 7])
@pytest.mark.parametrize("form", ["ome", "imagej", "pages"])
def test_the_number_of_planes_says_nothing(
    tmp_path: Path, count: int, form: str, caplog: pytest.LogCaptureFixture
) -> None:
    planes = np.stack([FAINT, *[np.full_like(FAINT, 9)] * (count - 1)])
    path = tmp_path / ("a.ome.tif" if form == "ome" else "a.tif")
    options: dict[str, Any] = {"imagej": True} if form == "imagej" else {"photometric": "minisblack"}
    tifffile.imwrite(path, planes, metadata={"axes": "CYX"} if form != "pages" else None, **options)
    assert np.array_equal(read_both(path), as_rgb(FAINT))
    line = f"{count} channels; {CHANNELS}" if form != "pages" else f"a stack of {count} pictures; the first is taken"
    assert warnings_of(caplog) == [f"{path}: {line}"]


@pytest.mark.parametrize("planar", ["contig", "separate"])
@pytest.mark.parametrize(("extra", "opaque"), [("unspecified", True), ("unassalpha", False), ("assocalpha", False)])
def test_a_fourth_sample_is_transparency_where_the_file_says_so(
    tmp_path: Path, planar: str, extra: str, opaque: bool, caplog: pytest.LogCaptureFixture
) -> None:
    alpha = np.full(GRAY.shape, 255, np.uint8)
    alpha[:40] = 51  # a fifth
    color = np.where(alpha[..., None] == 51, COLOR // 5, COLOR) if extra == "assocalpha" else COLOR
    pixels = np.dstack([color, alpha])
    path = tmp_path / "a.tif"
    tifffile.imwrite(
        path,
        np.moveaxis(pixels, 2, 0) if planar == "separate" else pixels,
        photometric="rgb",
        extrasamples=[extra],
        planarconfig=planar,
        tile=(32, 32),
    )
    read = read_both(path)
    assert np.array_equal(read[40:], COLOR[40:])
    over = COLOR if opaque else np.rint(0.2 * COLOR + 0.8 * 255)
    assert np.abs(read[:40].astype(int) - over[:40]).max() <= 1
    left_out = "1 of 4 samples per pixel is neither color nor said to be transparency; left out"
    assert warnings_of(caplog) == [f"{path}: {left_out if opaque else 'transparent pixels laid over white'}"]


@pytest.mark.parametrize(
    ("names", "taken"),
    [
        (["Membrane", "DAPI", "FITC"], 1),
        (["488", "561", "Hoechst 33342"], 2),
        (["Actin", "cell nuclei"], 1),
        (["A", "B", "C", "D", "DRAQ5", "F"], 4),
    ],
)
def test_the_channel_of_a_nuclear_stain_is_taken(
    tmp_path: Path, names: list[str], taken: int, caplog: pytest.LogCaptureFixture
) -> None:
    planes = np.stack([np.full_like(FAINT, 60 + 20 * index) for index in range(len(names))])
    planes[taken] = FAINT
    path = tmp_path / "a.ome.tif"
    tifffile.imwrite(path, planes, photometric="minisblack", metadata={"axes": "CYX", "Channel": {"Name": names}})
    assert np.array_equal(read_both(path), as_rgb(FAINT))
    assert warnings_of(caplog) == [
        f"{path}: {len(names)} channels; channel {taken + 1}, {names[taken]!r}, is taken; if the nuclei are in "
        "another, channel names it"
    ]


def test_three_planes_are_colors_where_they_are_named_or_bright(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    planes = np.moveaxis(COLOR, 2, 0)
    named = {"axes": "CYX", "Channel": {"Name": ["Red", "Green", "Blue"]}}
    tifffile.imwrite(tmp_path / "named.ome.tif", planes, photometric="minisblack", metadata=named)
    assert np.array_equal(read_both(tmp_path / "named.ome.tif"), COLOR)
    assert not warnings_of(caplog)
    tifffile.imwrite(tmp_path / "bright.tif", planes, imagej=True, metadata={"axes": "CYX"})
    caplog.set_level(logging.INFO)
    assert np.array_equal(read_both(tmp_path / "bright.tif"), COLOR)
    assert not warnings_of(caplog)
    assert caplog.records[0].getMessage() == f"{tmp_path / 'bright.tif'}: {BRIGHT}"


@pytest.mark.parametrize("wide", [False, True])
@pytest.mark.parametrize("form", ["planes", "samples"])
def test_three_dark_channels_are_no_colors(
    tmp_path: Path, form: str, wide: bool, caplog: pytest.LogCaptureFixture
) -> None:
    """Fluorescence of three stains: of the second and third, nothing is drawn over the nuclei."""
    path = tmp_path / "a.tif"
    planes = np.stack([FAINT, np.roll(FAINT, 30, 0), np.roll(FAINT, 30, 1)]).astype(np.uint16 if wide else np.uint8)
    if form == "planes":
        tifffile.imwrite(path, planes * (40 if wide else 1), imagej=True, metadata={"axes": "CYX"})
    else:
        tifffile.imwrite(
            path, np.moveaxis(planes * (40 if wide else 1), 0, 2), photometric="minisblack", planarconfig="contig",
            extrasamples=[0, 0],
        )  # fmt: skip
    read = read_both(path)
    assert (read == read[..., :1]).all()
    assert np.corrcoef(read[..., 0].ravel(), FAINT.ravel())[0, 1] > 0.99
    assert warnings_of(caplog)[0] == f"{path}: 3 channels; {CHANNELS}"


def test_ome_channels_that_emit_light_are_no_colors(tmp_path: Path) -> None:
    path = tmp_path / "a.ome.tif"
    about = {"axes": "CYX", "Channel": {"Name": ["a", "b", "c"], "EmissionWavelength": [450, 520, 600]}}
    tifffile.imwrite(path, np.moveaxis(COLOR, 2, 0), photometric="minisblack", metadata=about)
    assert np.array_equal(read_both(path), as_rgb(GRAY))


@pytest.mark.parametrize("channels", [2, 4, 5])
def test_ome_zarr_channels(tmp_path: Path, channels: int, caplog: pytest.LogCaptureFixture) -> None:
    import zarr

    path = save_ome_zarr(tmp_path / "a.zarr", COLOR, levels=1)
    array = zarr.create_array(
        str(path / "0"), shape=(channels, *GRAY.shape), dtype="uint8", chunks=(1, 64, 64), overwrite=True
    )
    array[...] = np.stack([FAINT, *[np.full_like(FAINT, 7)] * (channels - 1)])
    with open_slide(path) as slide:
        assert np.array_equal(slide.rows(0, 96), as_rgb(FAINT))
    assert warnings_of(caplog) == [f"{path}: {channels} channels; {CHANNELS}"]


def blank_top(dtype: Any = np.uint8) -> NDArray[Any]:
    picture = COLOR.astype(dtype)
    picture[:32] = 255 if dtype == np.uint8 else 0
    return picture


def leave_out(path: Path, count: int) -> None:
    """Take the first tiles of every plane out of a TIFF, as scanners leave out glass: offset and length 0."""
    with tifffile.TiffFile(path, mode="r+") as tiff:
        page: Any = tiff.pages[0]
        offsets, counts = list(page.dataoffsets), list(page.databytecounts)
        tiles = len(offsets) // (int(page.samplesperpixel) if int(page.planarconfig) == 2 else 1)
        for index in range(len(offsets)):
            if index % tiles < count:
                offsets[index] = counts[index] = 0
        page.tags["TileOffsets"].overwrite(offsets)
        page.tags["TileByteCounts"].overwrite(counts)


@pytest.mark.parametrize(
    "options",
    [
        {"compression": "zlib"},
        {"compression": "jpeg", "compressionargs": {"level": 99}},
        {"compression": "lzw", "planarconfig": "separate"},
        {},
    ],
)
def test_tiles_that_are_left_out_are_glass(
    tmp_path: Path, options: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    path, picture = tmp_path / "a.tif", blank_top()
    planar = options.get("planarconfig") == "separate"
    pixels = np.moveaxis(picture, 2, 0) if planar else picture
    tifffile.imwrite(path, pixels, photometric="rgb", tile=(32, 32), **options)
    dense = read_both(path)
    leave_out(path, 3)
    read = read_both(path)
    assert np.array_equal(read[32:], dense[32:])
    assert (read[:32] == 255).all()
    assert not warnings_of(caplog)


def test_left_out_tiles_of_gray_are_0(tmp_path: Path) -> None:
    for photometric, dtype in (("minisblack", np.uint8), ("miniswhite", np.uint8), ("minisblack", np.uint16)):
        path = tmp_path / "a.tif"
        gray = blank_top(np.uint16)[..., 0].astype(dtype)
        tifffile.imwrite(path, gray, photometric=photometric, tile=(32, 32), compression="zlib")
        dense = read_both(path)
        leave_out(path, 3)
        assert np.array_equal(read_both(path), dense)


def test_left_out_chunks_of_a_color_zarr_are_glass(tmp_path: Path) -> None:
    path = save_ome_zarr(tmp_path / "a.zarr", COLOR, levels=1)
    (path / "0" / "c" / "0" / "0" / "1").unlink()
    expected = COLOR.copy()
    expected[:64, 64:] = 255
    with open_slide(path) as slide:
        assert np.array_equal(slide.rows(0, 96), expected)
        assert np.array_equal(slide.read(60, 10, 20, 20), expected[10:30, 60:80])


@pytest.mark.parametrize("dtype", [np.bool_, np.uint8, np.uint16])
def test_white_is_zero_turns_photographs_round_and_never_labels(tmp_path: Path, dtype: Any) -> None:
    stored = (GRAY > 128) if dtype == np.bool_ else GRAY.astype(dtype)
    black, white = tmp_path / "black.tif", tmp_path / "white.tif"
    tifffile.imwrite(black, stored, photometric="minisblack")
    tifffile.imwrite(white, stored, photometric="miniswhite")
    assert np.array_equal(read_both(white), 255 - read_both(black))
    assert np.array_equal(read_label_map(white), read_label_map(black))


def save_plain(path: Path, form: str) -> NDArray[np.uint8]:
    """Save a picture in a form that is no 8-bit RGB, and give the RGB that it stands for."""
    color, gray = Image.fromarray(COLOR), Image.fromarray(GRAY)
    wide = COLOR.astype(np.uint16)
    if form == "palette.png":
        picture = color.quantize(16)
        picture.save(path)
        return np.asarray(picture.convert("RGB"))
    if form == "palette-alpha.png":
        picture = color.quantize(16)
        picture.save(path, transparency=3)
        over = np.asarray(picture.convert("RGB")).copy()
        over[np.asarray(picture) == 3] = 255
        return over
    if form == "gif.gif":
        picture = color.quantize(16)
        picture.save(path)
        return np.asarray(picture.convert("RGB"))
    if form == "bit.png" or form == "bit.bmp":
        Image.fromarray(GRAY > 99).save(path)
        return as_rgb(np.where(GRAY > 99, 255, 0).astype(np.uint8))
    if form == "cmyk.jpg":
        color.convert("CMYK").save(path, quality=95)
        return np.asarray(Image.open(path).convert("RGB"))
    if form == "webp.webp":
        color.save(path, lossless=True)
        return COLOR
    if form == "webp-alpha.webp":
        Image.fromarray(np.dstack([COLOR, np.where(GRAY > 99, 255, 0).astype(np.uint8)])).save(path, lossless=True)
        return np.where(GRAY[..., None] > 99, COLOR, 255).astype(np.uint8)
    if form == "16.png":
        path.write_bytes(imagecodecs.png_encode(wide * 257))
        return COLOR
    if form == "12.jp2":
        path.write_bytes(imagecodecs.jpeg2k_encode(wide * 16 + 15, level=0, bitspersample=12))
        return np.rint((wide.astype(int) * 16 + 15) * 255 / 4095).astype(np.uint8)
    if form == "8.jp2":
        path.write_bytes(imagecodecs.jpeg2k_encode(COLOR, level=0))
        return COLOR
    if form == "16.jp2":
        path.write_bytes(imagecodecs.jpeg2k_encode(wide * 257, level=0))
        return COLOR
    if form == "gray.jp2":
        path.write_bytes(imagecodecs.jpeg2k_encode(GRAY, level=0))
        return as_rgb(GRAY)
    if form == "8.jxr":
        path.write_bytes(imagecodecs.jpegxr_encode(COLOR, level=1.0))
        return COLOR
    if form == "gray.jxr":
        path.write_bytes(imagecodecs.jpegxr_encode(GRAY, level=1.0))
        return as_rgb(GRAY)
    if form == "16.jxr":
        path.write_bytes(imagecodecs.jpegxr_encode(wide * 257, level=1.0))
        return COLOR
    if form == "gray-alpha.png":
        Image.merge("LA", [gray, Image.fromarray(np.full_like(GRAY, 255))]).save(path)
        return as_rgb(GRAY)
    if form == "gray-transparent.png":
        gray.save(path, transparency=int(GRAY[0, 0]))
        return as_rgb(np.where(GRAY[0, 0] == GRAY, 255, GRAY).astype(np.uint8))
    raise AssertionError(form)


FORMS = (
    "palette.png", "palette-alpha.png", "gif.gif", "bit.png", "bit.bmp", "cmyk.jpg", "webp.webp", "webp-alpha.webp",
    "16.png", "12.jp2", "8.jp2", "16.jp2", "gray.jp2", "8.jxr", "gray.jxr", "16.jxr", "gray-alpha.png",
    "gray-transparent.png",
)  # fmt: skip


@pytest.mark.parametrize("form", FORMS)
def test_plain_formats(tmp_path: Path, form: str) -> None:
    path = tmp_path / form
    expected = save_plain(path, form)
    assert np.abs(read_both(path).astype(int) - expected).max() <= 1


@pytest.mark.parametrize(("form", "kind"), [("webp.webp", "WebP"), ("8.jp2", "JPEG 2000"), ("cmyk.jpg", "JPEG")])
def test_labels_in_formats_that_change_ids_are_refused(tmp_path: Path, form: str, kind: str) -> None:
    path = tmp_path / form
    save_plain(path, form)
    with pytest.raises(HemalumError) as caught:
        read_label_map(path)
    assert str(caught.value) == f"{path}: a label map cannot be a {kind} (it changes ids); use PNG or TIFF"


@pytest.mark.parametrize("share", [0.2, 0.6, 0.97])
@pytest.mark.parametrize("form", ["16.png", "16.jp2", "8.jxr", "webp.webp", "cmyk.jpg"])
def test_truncated_files_are_refused_in_a_line(tmp_path: Path, form: str, share: float) -> None:
    path = tmp_path / form
    save_plain(path, form)
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * share)])
    with pytest.raises(HemalumError) as caught:
        read_image(path)
    assert str(caught.value).startswith(f"{path}: ")
    assert "\n" not in str(caught.value)


def test_cmyk_says_that_its_profile_is_not_used(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "a.jpg"
    save_plain(path, "cmyk.jpg")
    read_image(path)
    assert warnings_of(caplog) == [f"{path}: CMYK is turned into RGB without its color profile; colors may be off"]


def test_what_is_said_is_said_once_and_again_of_another_file(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, np.stack([GRAY, GRAY]), photometric="minisblack", metadata=None)
    for _ in range(3):
        read_both(path)
    assert warnings_of(caplog) == [f"{path}: a stack of 2 pictures; the first is taken"]
    tifffile.imwrite(path, np.stack([GRAY] * 3), photometric="minisblack", metadata=None)
    read_both(path)
    assert warnings_of(caplog)[1:] == [f"{path}: a stack of 3 pictures; the first is taken"]


def test_other_pictures_in_a_file_are_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "a.tif"
    with tifffile.TiffWriter(path) as tiff:
        tiff.write(COLOR, photometric="rgb", metadata=None)
        tiff.write(COLOR[:50], photometric="rgb", metadata=None)
        tiff.write(COLOR[::4, ::4], photometric="rgb", metadata=None)  # a thumbnail: nobody misses it
    assert np.array_equal(read_both(path), COLOR)
    assert warnings_of(caplog) == [f"{path}: 2 pictures in one file; the first is taken"]


def test_animated_images_are_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    for name in ("a.gif", "a.webp", "a.png"):
        frames = [Image.fromarray(COLOR), Image.fromarray(255 - COLOR)]
        frames[0].save(tmp_path / name, save_all=True, append_images=frames[1:])
        read_image(tmp_path / name)
        assert warnings_of(caplog)[-1] == f"{tmp_path / name}: 2 pictures in one file; the first is taken"


@pytest.mark.parametrize("name", ["a.png", "a.tif", "tiles.tif"])
def test_transparency_of_0_all_over_is_left_out(tmp_path: Path, name: str, caplog: pytest.LogCaptureFixture) -> None:
    """Some programs fill in 0 for want of a transparency; laid over white nothing would be left."""
    path, pixels = tmp_path / name, np.dstack([COLOR, np.zeros_like(GRAY)])
    if name == "a.png":
        Image.fromarray(pixels).save(path)
    else:
        tile = (32, 32) if name == "tiles.tif" else None
        tifffile.imwrite(path, pixels, photometric="rgb", extrasamples=["unassalpha"], tile=tile)
    assert np.array_equal(read_both(path), COLOR)
    assert warnings_of(caplog) == [f"{path}: transparent all over: its transparency is left out"]


@pytest.mark.parametrize("bits", [1, 2, 4])
def test_few_bits_are_spread_over_all_shades(tmp_path: Path, bits: int) -> None:
    shades = (GRAY >> (8 - bits)).astype(np.uint8)
    for photometric in ("minisblack", "miniswhite"):
        path = tmp_path / "a.tif"
        tifffile.imwrite(path, shades, photometric=photometric, bitspersample=bits)
        expected = np.rint(shades * (255 / (2**bits - 1))).astype(np.uint8)
        assert np.array_equal(read_both(path), as_rgb(expected if photometric == "minisblack" else 255 - expected))


@pytest.mark.parametrize("compression", ["group3", "group4", "tiff_lzw", "tiff_adobe_deflate", "packbits", "raw"])
def test_scans_of_one_bit(tmp_path: Path, compression: str) -> None:
    path = tmp_path / "a.tif"
    Image.fromarray(GRAY > 128).save(path, compression=compression)
    assert np.array_equal(read_both(path), as_rgb(np.where(GRAY > 128, 255, 0).astype(np.uint8)))


@pytest.mark.parametrize("axes", ["ZCYX", "CZYX", "TCYX", "TZCYX"])
@pytest.mark.parametrize("imagej", [True, False])
def test_channels_within_stacks(tmp_path: Path, axes: str, imagej: bool, caplog: pytest.LogCaptureFixture) -> None:
    if imagej and axes == "CZYX":
        pytest.skip("ImageJ keeps its own order")
    lengths = {"T": 2, "Z": 3, "C": 4}
    stack = np.zeros([lengths[axis] for axis in axes[:-2]] + list(GRAY.shape), np.uint8) + 13
    stack[(0,) * (len(axes) - 2)] = FAINT
    path = tmp_path / ("a.tif" if imagej else "a.ome.tif")
    tifffile.imwrite(path, stack, photometric="minisblack", metadata={"axes": axes}, imagej=imagej)
    assert np.array_equal(read_both(path), as_rgb(FAINT))
    count = int(np.prod([lengths[axis] for axis in axes[:-2] if axis != "C"]))
    assert warnings_of(caplog) == [
        f"{path}: a stack of {count} pictures; the first is taken", f"{path}: 4 channels; {CHANNELS}",
    ]  # fmt: skip


def test_a_micrograph_of_the_second_channel_in_a_stack_by_name(tmp_path: Path) -> None:
    stack = np.full((3, 2, *GRAY.shape), 13, np.uint8)
    stack[0, 1] = FAINT
    path = tmp_path / "a.ome.tif"
    names = {"axes": "ZCYX", "Channel": {"Name": ["Phalloidin", "DAPI"]}}
    tifffile.imwrite(path, stack, photometric="minisblack", metadata=names)
    assert np.array_equal(read_both(path), as_rgb(FAINT))


@pytest.mark.parametrize("mode", ["P", "CMYK", "LA", "1", "I;16", "F", "L", "RGBA", "YCbCr"])
def test_every_mode_of_pillow_as_tiff(tmp_path: Path, mode: str) -> None:
    """What is written by Pillow is read as Pillow shows it, but for gray that is stretched."""
    path = tmp_path / "a.tif"
    picture = Image.fromarray(COLOR)
    made = Image.fromarray(GRAY.astype(np.uint16) * 3) if mode == "I;16" else picture.convert(mode)
    made.save(path)
    read = read_both(path)
    if mode in ("I;16", "F"):
        gray = GRAY if mode == "I;16" else np.asarray(picture.convert("L"))
        assert np.corrcoef(read[..., 0].ravel(), gray.ravel())[0, 1] > 0.999
    else:
        limit = 3 if mode == "YCbCr" else 1
        assert np.abs(read.astype(int) - np.asarray(made.convert("RGB"))).max() <= limit


def test_the_names_of_a_qptiff(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "a.qptiff"
    with tifffile.TiffWriter(path) as tiff:
        for name in ("FITC", "DAPI", "Cy3"):
            about = f"<PerkinElmer-QPI-ImageDescription><ImageType>FullResolution</ImageType><Name>{name}</Name>"
            plane = FAINT if name == "DAPI" else np.full_like(FAINT, 99)
            tiff.write(
                plane, photometric="minisblack", software="PerkinElmer-QPI", metadata=None,
                description=f"{about}</PerkinElmer-QPI-ImageDescription>",
            )  # fmt: skip
    with open_slide(path) as slide:
        assert np.array_equal(slide.rows(0, 96), as_rgb(FAINT))
    assert warnings_of(caplog) == [
        f"{path}: 3 channels; channel 2, 'DAPI', is taken; if the nuclei are in another, channel names it"
    ]


@pytest.mark.fault
@pytest.mark.parametrize("brand", [b"heic", b"heix", b"mif1"])
@pytest.mark.parametrize("name", ["a.heic", "a.jpg"])  # some programs rename it
def test_heic_is_refused_with_the_way_out(tmp_path: Path, brand: bytes, name: str) -> None:
    path = tmp_path / name
    path.write_bytes(b"\0\0\0\x18ftyp" + brand + bytes(4) + b"mif1heic" + bytes(500))
    for read in (read_image, open_slide):
        with pytest.raises(HemalumError) as caught:
            read(path)
        assert str(caught.value) == (
            f"{path}: HEIC, as phones save pictures, is not read: convert it to PNG or TIFF (docs/concepts/pixels.md)"
        )
