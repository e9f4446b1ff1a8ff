"""The picture of what a model is sure of."""

import math
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from hemalum import cli
from hemalum.errors import HemalumError
from hemalum.models.model import load_model
from hemalum.reports.figures.uncertainty import LARGEST, draw_panels, write_uncertainty


def test_panels_show_the_maps(tmp_path: Path) -> None:
    probability = np.zeros((512, 512), np.float32)
    probability[:, 256:] = 0.5
    picture = np.asarray(draw_panels(np.full((512, 512, 3), 200, np.uint8), probability, probability, "m"))
    panels = {"image": (16, 42), "probability": (544, 42), "entropy": (16, 636), "activation": (544, 636)}
    colors = {
        name: (tuple(picture[y + 100, x + 100]), tuple(picture[y + 100, x + 400])) for name, (x, y) in panels.items()
    }
    dark, bright = (13, 8, 35), (252, 250, 190)
    assert colors["image"] == ((200, 200, 200),) * 2
    assert colors["entropy"] == (dark, bright)  # certain, and even odds
    assert colors["activation"] == (dark, bright)  # from its least to its most
    assert colors["probability"] == (dark, (204, 71, 68))  # the middle of the ramp


def test_the_file(dark_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    image = np.random.default_rng(0).integers(0, 255, (60, 80, 3)).astype(np.uint8)
    Image.fromarray(image).save(tmp_path / "a.png")
    out = str(tmp_path / "u.png")
    assert (
        cli.main(["figure", "uncertainty", str(dark_model), str(tmp_path / "a.png"), "-o", out, "--mpp", "0.5"]) == 0
    )
    printed = capsys.readouterr().out
    entropy = float(printed.split("mean entropy ")[1].split()[0])
    assert 0 <= entropy <= math.log(2)
    with Image.open(out) as picture:
        width, height = picture.size
    assert width == 2 * 480 + 3 * 16  # six times enlarged, twice
    assert height == 2 * (360 + 66) + 3 * 16


@pytest.mark.fault
def test_what_cannot_be_drawn(dark_model: Path, tmp_path: Path) -> None:
    Image.fromarray(np.zeros((20, LARGEST + 4, 3), np.uint8)).save(tmp_path / "wide.png")
    model = load_model(dark_model)
    with pytest.raises(HemalumError, match=r"u\.jpg': the picture is a \.png"):
        write_uncertainty(tmp_path / "u.jpg", tmp_path / "wide.png", model)
    with pytest.raises(HemalumError, match=r"4100 x 20 px is too large .* at most 4096 px a side"):
        write_uncertainty(tmp_path / "u.png", tmp_path / "wide.png", model, mpp=0.5)
    assert not (tmp_path / "u.png").exists()
