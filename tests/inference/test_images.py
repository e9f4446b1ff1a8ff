"""Images as Python users have them: each form gives the nuclei of the same picture on disk."""

import io
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image

import hemalum
from hemalum.errors import HemalumError
from hemalum.inference.images import as_pixels
from hemalum.nuclei.nuclei import Nuclei
from hemalum.settings import as_number


@pytest.fixture(scope="module")
def picture() -> NDArray[np.uint8]:
    image = np.full((60, 90, 3), 225, np.uint8)
    image[10:22, 12:25] = image[30:44, 50:66] = (70, 40, 90)
    return image


def result_of(image: Any, model: Path) -> Nuclei:
    result: Nuclei = hemalum.segment(image, model, mpp=0.5, engine="torch", stain="he")
    return result


FORMS: dict[str, Any] = {
    "uint8": lambda image: image,
    "int64": lambda image: image.astype(np.int64),
    "float in [0, 1]": lambda image: image / 255,
    "float32 in [0, 255]": lambda image: image.astype(np.float32),
    "float16": lambda image: (image / 255).astype(np.float16),
    "channels first": lambda image: np.moveaxis(image, -1, 0),
    "not contiguous": lambda image: np.repeat(image, 2, axis=1)[:, ::2],
    "read-only": lambda image: np.broadcast_to(image, image.shape),
    "four channels, opaque": lambda image: np.dstack([image, np.full(image.shape[:2], 255, np.uint8)]),
    "tensor": lambda image: torch.from_numpy(image.copy()),
    "tensor in [0, 1], channels first": lambda image: torch.from_numpy(image.copy()).permute(2, 0, 1) / 255,
    "tensor with gradient": lambda image: (torch.from_numpy(image.copy()) / 255).requires_grad_(),
    "tensor of bfloat16": lambda image: torch.from_numpy(image.copy()).to(torch.bfloat16),
    "PIL": Image.fromarray,
    "PIL with alpha": lambda image: Image.fromarray(image).convert("RGBA"),
    "PIL palette": lambda image: Image.fromarray(image).quantize(8),
    "nested lists": lambda image: np.array(image.tolist()),
}


@pytest.mark.parametrize("form", FORMS)
def test_each_form_is_the_same_picture(form: str, picture: NDArray[np.uint8], dark_model: Path) -> None:
    expected, result = result_of(picture, dark_model), result_of(FORMS[form](picture), dark_model)
    assert expected.count == 2
    np.testing.assert_array_equal(result.label_map(), expected.label_map())


@pytest.mark.parametrize("format", ["PNG", "TIFF", "JPEG", "WEBP"])
def test_open_files(format: str, picture: NDArray[np.uint8], dark_model: Path, tmp_path: Path) -> None:
    stream = io.BytesIO()
    Image.fromarray(picture).save(stream, format, **({"quality": 95} if format != "PNG" else {}))
    stream.seek(0)
    assert result_of(stream, dark_model).count == 2
    path = tmp_path / f"a.{format.lower()}"
    path.write_bytes(stream.getvalue())
    with path.open("rb") as opened:
        assert result_of(opened, dark_model).count == 2


def test_a_list_gives_a_list(picture: NDArray[np.uint8], dark_model: Path) -> None:
    shares: list[float] = []
    results = hemalum.segment(
        [picture, Image.fromarray(picture[:25])], dark_model, mpp=0.5, engine="torch", on_progress=shares.append
    )
    assert [result.count for result in results] == [2, 1]
    assert hemalum.segment([], dark_model, mpp=0.5, engine="torch") == []
    assert shares == sorted(shares)
    assert shares[-1] == 1


@pytest.mark.parametrize("mpp", [np.float32(0.5), np.float64(0.5), np.array(0.5), torch.tensor(0.5), 0.5])
def test_a_scale_of_any_library_counts(mpp: Any, picture: NDArray[np.uint8], dark_model: Path) -> None:
    result = hemalum.segment(picture, dark_model, mpp=mpp, engine="torch")
    assert (result.mpp, result.mpp_source) == (0.5, "user")
    assert type(result.mpp) is float


def test_a_whole_number_is_a_scale(picture: NDArray[np.uint8], dark_model: Path) -> None:
    assert hemalum.segment(picture, dark_model, mpp=np.int64(1), engine="torch").mpp == 1


@pytest.mark.fault
@pytest.mark.parametrize("mpp", [True, [0.5, 0.5], object(), np.array([0.25, 0.5]), 1 + 2j, b"0.5"])
def test_no_scale(mpp: Any) -> None:
    with pytest.raises(HemalumError, match=r"^mpp is .*: want (one|a) number$"):
        as_number(mpp, "mpp")


def cut_off(format: str) -> Any:
    encoded = io.BytesIO()
    pixels = np.random.default_rng(0).integers(0, 255, (200, 200, 3)).astype(np.uint8)
    Image.fromarray(pixels).save(encoded, format)
    return Image.open(io.BytesIO(encoded.getvalue()[: len(encoded.getvalue()) // 2]))


BAD: dict[str, tuple[Any, str]] = {
    "a stack": (np.zeros((2, 8, 8, 3), np.uint8), "(2, 8, 8, 3) is a stack of images: give a list, list(images)"),
    "a mask": (np.zeros((8, 8), bool), "is a mask of True and False, not a picture"),
    "texts": (np.array([["a"]]), "cannot take ndarray of <U1; want (H, W)"),
    "objects": (np.array([[None]]), "cannot take ndarray of object; want (H, W)"),
    "a number": (3.5, "has shape (); want (H, W)"),
    "nothing": (np.zeros((0, 4, 3)), "has shape (0, 4, 3); want (H, W)"),
    "five channels": (np.zeros((8, 8, 5), np.uint8), "has shape (8, 8, 5); want (H, W)"),
    "two numbers": (np.zeros(2), "has shape (2,); want (H, W)"),
    "negative floats": (np.full((8, 8, 3), -0.5), "floats from -0.5 to -0.5; want [0, 1] or [0, 255]"),
    "standardized": (np.linspace(-2, 2, 192).reshape(8, 8, 3), "floats from -2 to 2; want [0, 1] or [0, 255]"),
    "large floats": (np.full((8, 8), 4000.0), "floats from 4000 to 4000; want [0, 1] or [0, 255]"),
    "not a number": (
        np.full((8, 8), np.nan),
        "holds values that are no numbers (nan); fill them first, as with 1 for white",
    ),
    "color of 16 bits": (np.full((8, 8, 3), 4000, np.uint16), "uint16 from 4000 to 4000; want (H, W)"),
    "negative": (np.full((8, 8), -4, np.int16), "int16 from -4 to -4; want (H, W)"),
    "a tuple of two": (
        (np.zeros((20, 20, 3), np.uint8), np.zeros((20, 30, 3), np.uint8)),
        "is no one array of numbers; of several images give a list",
    ),
    "sparse": (torch.zeros(8, 8).to_sparse(), "Tensor cannot be read (can't convert Sparse layout tensor"),
    "without data": (torch.zeros(8, 8, device="meta"), "Tensor cannot be read (Cannot copy out of meta tensor"),
    "PIL, cut off": (cut_off("PNG"), "PngImageFile cannot be read (image file is truncated"),
    "JPEG of PIL, cut off": (cut_off("JPEG"), "JpegImageFile cannot be read (image file is truncated"),
    "complex": (np.zeros((8, 8), np.complex64), "cannot take ndarray of complex64; want (H, W)"),
}


@pytest.mark.fault
@pytest.mark.parametrize("case", BAD)
def test_what_is_no_picture(case: str) -> None:
    image, line = BAD[case]
    with pytest.raises(HemalumError, match=f"^image: {re.escape(line)}"):
        as_pixels(image)


@pytest.mark.fault
@pytest.mark.parametrize(
    ("stream", "line"),
    [
        (io.StringIO("text"), "image: the file is open as text; open it with mode 'rb'"),
        (io.BytesIO(b""), "image: the open file has nothing left to read: seek(0) first"),
        (io.BytesIO(b"no image at all"), "image: the open file is no image that can be read"),
    ],
)
def test_open_files_that_cannot_be_read(stream: Any, line: str, dark_model: Path) -> None:
    with pytest.raises(HemalumError, match=f"^{re.escape(line)}$"):
        hemalum.segment(stream, dark_model, mpp=0.5, engine="torch")


class Odd:
    """An open file that gives `block`, or fails with it."""

    def __init__(self, block: Any) -> None:
        self.block = block

    def read(self, size: int) -> Any:
        if isinstance(self.block, Exception):
            raise self.block
        return self.block


@pytest.mark.fault
@pytest.mark.parametrize(
    ("block", "line"),
    [
        (ConnectionError("peer is\ngone"), "image: the open file cannot be read (peer is gone)"),
        (5, "image: the open file gives int, not bytes; open it with mode 'rb'"),
        ("text", "image: the open file gives str, not bytes; open it with mode 'rb'"),
        (None, "image: the open file has nothing left to read: seek(0) first"),
    ],
)
def test_open_files_of_other_libraries(block: Any, line: str, dark_model: Path) -> None:
    with pytest.raises(HemalumError, match=f"^{re.escape(line)}$"):
        hemalum.segment(Odd(block), dark_model, mpp=0.5, engine="torch")


@pytest.mark.fault
@pytest.mark.parametrize(
    ("mode", "line"),
    [
        ("wb", "the file is open for writing; open it with mode 'rb'"),
        ("closed", "the file is closed; open it again"),
        ("r", "the file is open as text; open it with mode 'rb'"),
    ],
)
def test_files_opened_for_something_else(mode: str, line: str, dark_model: Path, tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    Image.new("RGB", (30, 30)).save(path)
    with path.open("rb" if mode == "closed" else mode) as stream:
        if mode == "closed":
            stream.close()
        with pytest.raises(HemalumError, match=f"^{re.escape(f'{path}: {line}')}$"):
            hemalum.segment(stream, dark_model, mpp=0.5, engine="torch")


def test_an_open_file_is_called_by_its_name(
    picture: NDArray[np.uint8], dark_model: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "a.png"
    Image.fromarray(picture).save(path)
    caplog.set_level("INFO", "hemalum")
    with path.open("rb") as stream:
        named = hemalum.segment(stream, dark_model, mpp=0.5, engine="torch")
    nameless = hemalum.segment(io.BytesIO(path.read_bytes()), dark_model, mpp=0.5, engine="torch")
    assert (named.source, nameless.source) == (str(path), "image")
    named.to_geojson(tmp_path / "stream.geojson")
    result_of(path, dark_model).to_geojson(tmp_path / "path.geojson")
    ids = [
        [one["id"] for one in json.loads((tmp_path / f"{name}.geojson").read_text())["features"]]
        for name in ("stream", "path")
    ]
    assert ids[0] == ids[1]
    assert "hemalum_" not in caplog.text
    assert "hemalum_" not in (tmp_path / "stream.geojson").read_text()


@pytest.mark.fault
def test_errors_know_an_open_file_by_its_name(dark_model: Path, tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    Image.effect_noise((90, 60), 90).convert("RGB").save(path)
    path.write_bytes(path.read_bytes()[:3000])
    with path.open("rb") as stream, pytest.raises(HemalumError) as caught:
        hemalum.segment(stream, dark_model, mpp=0.5, engine="torch")
    assert str(caught.value) == f"{path}: image is damaged or truncated (image file is truncated)"
    small = io.BytesIO()
    Image.new("RGB", (9, 9)).save(small, "PNG")
    small.seek(0)
    with pytest.raises(HemalumError, match=r"^image: image is 9 x 9 px; "):
        hemalum.segment(small, dark_model, mpp=0.5, engine="torch")


def test_gray_of_16_bits_stays() -> None:
    gray = np.arange(64, dtype=np.uint16).reshape(8, 8) * 1000
    np.testing.assert_array_equal(as_pixels(gray), gray)
    np.testing.assert_array_equal(as_pixels(gray[..., None].astype(np.int32)), gray)
    np.testing.assert_array_equal(as_pixels(Image.fromarray(gray)), gray)


def test_the_rule_for_floats_is_of_the_whole_image() -> None:
    image = np.zeros((4, 4, 3))
    image[0, 0] = 1.0
    assert as_pixels(image).max() == 255
    image[0, 0] = 2.0
    assert as_pixels(image).max() == 2
    assert as_pixels(np.full((2, 2), 0.5)).tolist() == [[128, 128], [128, 128]]  # 127.5, to the even one
