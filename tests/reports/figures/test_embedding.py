"""The sheet of embeddings."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.decomposition import PCA

from hemalum import cli
from hemalum.models.sam import load_sam
from hemalum.reports.figures import embedding as module
from hemalum.reports.figures.embedding import (
    SIDE,
    central_field,
    component_picture,
    principal_components,
    write_embeddings,
)


def test_components_against_another_implementation() -> None:
    rng = np.random.default_rng(0)
    embedding = (rng.normal(size=(7, 12, 9)) * np.array([9, 6, 4, 1, 1, 1, 1])[:, None, None]).astype(np.float16)
    components, share = principal_components(embedding)
    fitted = PCA(3).fit(embedding.reshape(7, -1).T.astype(np.float64))
    expected = fitted.transform(embedding.reshape(7, -1).T.astype(np.float64)).reshape(12, 9, 3)
    signs = np.sign((components * expected).sum((0, 1)))
    np.testing.assert_allclose(components, expected * signs, atol=1e-3)
    assert share == pytest.approx(fitted.explained_variance_ratio_.sum())


def test_the_same_whatever_the_sign_of_the_decomposition() -> None:
    embedding = np.zeros((2, 1, 4), np.float32)
    embedding[0, 0] = [-3, -1, 1, 3]
    components, share = principal_components(embedding)
    np.testing.assert_allclose(components[0, :, 0], [-3, -1, 1, 3], atol=1e-6)
    assert (components[..., 1:] == 0).all()
    assert share == 1
    assert principal_components(np.ones((2, 3, 3)))[1] == 0


def test_cells_lie_where_their_pixels_are() -> None:
    components = np.zeros((4, 4, 3), np.float32)
    components[:, 2:, 0] = 1  # the right half
    picture = component_picture(components, 32)
    assert picture.shape == (32, 32, 3)
    assert (picture[:, :16, 0] == 0).all()
    assert (picture[:, 16:, 0] == 255).all()


def test_the_middle_of_an_image_at_another_scale() -> None:
    image = np.zeros((64, 96, 3), np.uint8)
    image[24:40, 40:56] = 200  # 16 px in the middle
    assert (central_field(image, 16) == 200).all()
    halved = central_field(image, 16, 0.5)
    assert (halved[5:11, 5:11] == 200).all()
    assert not halved[:3].any()
    mirrored = central_field(np.arange(4, dtype=np.uint8)[None, :, None].repeat(3, 2).repeat(8, 0), 8)
    assert mirrored[0, :, 0].tolist() == [0, 1, 2, 3, 3, 2, 1, 0]


@pytest.fixture
def tile(tmp_path: Path) -> Path:
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 64, 3), np.uint8)).save(tmp_path / "tile.png")
    return tmp_path / "tile.png"


def test_each_image_is_a_row_and_each_encoder_a_column(
    random_sam: Path, tile: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sheets = []
    real = module.draw_sheet
    monkeypatch.setattr(module, "draw_sheet", lambda sheet: sheets.append(sheet) or real(sheet))
    encoders = [load_sam(random_sam), load_sam(random_sam, "random")]
    shares = write_embeddings(tmp_path / "sheet.png", [tile, tile], encoders, field=32, mpp=0.5, image_mpp=0.25)
    assert np.shape(shares) == (2, 2)
    (sheet,) = sheets
    assert [len(row.panels) for row in sheet.rows] == [3, 3]
    field = central_field(np.asarray(Image.open(tile)), 32, 0.5)  # at the scale that was asked for
    unit = torch.from_numpy(field.copy()).permute(2, 0, 1)[None].float() / 255
    expected, share = principal_components(encoders[1](unit)[0].numpy().astype(np.float16))
    shown = sheet.rows[0].panels[2].picture
    assert np.abs(shown.astype(int) - component_picture(expected, SIDE)).mean() < 2
    assert shares[0][1] == pytest.approx(share, abs=1e-3)


@pytest.mark.fault
def test_the_verb_writes_it(random_sam: Path, tile: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "picture.png"
    asked = ["figure", "embedding", str(tile), "-o", str(out)]
    encoder = ["--encoder", str(random_sam)]
    assert cli.main([*asked, *encoder, *encoder, "--field", "32"]) == 0
    assert Image.open(out).size[0] > 3 * SIDE
    assert "of the variance is shown: random" in capsys.readouterr().out
    recipe = ["--recipe", "eunet3plus_nuinsseg:guided", "--budget", "small"]
    assert cli.main([*asked, *encoder, *recipe, "--mpp", "0.16"]) == 0
    assert cli.main([*asked, *encoder, *recipe]) == 2
    assert "the embedding is at 0.5 µm/px: give the scale of the images, --mpp NUMBER" in capsys.readouterr().err
    assert cli.main([*asked, *recipe, "--mpp", "0.16"]) == 2  # the recipe's encoder
    assert "huggingface-cli download facebook/sam-vit-base" in capsys.readouterr().err
    for option, value in (("--mpp", "0.16"), ("--budget", "small")):
        assert cli.main([*asked, *encoder, option, value]) == 2
        assert f"{option} goes by a recipe: give --recipe as well, or leave it out" in capsys.readouterr().err
    assert cli.main(asked) == 2
    assert "give --encoder, or a --recipe that names one" in capsys.readouterr().err
    assert cli.main([*asked[:-1], str(tmp_path / "x.gif"), *encoder]) == 2
