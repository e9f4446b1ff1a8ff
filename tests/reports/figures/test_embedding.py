"""The picture of an embedding."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from sklearn.decomposition import PCA

from hemalum import cli
from hemalum.reports.figures.embedding import embedding_picture, principal_components


def test_components_against_another_implementation() -> None:
    rng = np.random.default_rng(0)
    embedding = (rng.normal(size=(7, 12, 9)) * np.array([9, 6, 4, 1, 1, 1, 1])[:, None, None]).astype(np.float16)
    components = principal_components(embedding)
    expected = PCA(3).fit_transform(embedding.reshape(7, -1).T.astype(np.float64)).reshape(12, 9, 3)
    signs = np.sign((components * expected).sum((0, 1)))
    np.testing.assert_allclose(components, expected * signs, atol=1e-3)


def test_the_same_whatever_the_sign_of_the_decomposition() -> None:
    embedding = np.zeros((2, 1, 4), np.float32)
    embedding[0, 0] = [-3, -1, 1, 3]
    np.testing.assert_allclose(principal_components(embedding)[0, :, 0], [-3, -1, 1, 3], atol=1e-6)
    assert (principal_components(embedding)[..., 1:] == 0).all()


def test_cells_lie_where_their_pixels_are() -> None:
    image = np.zeros((32, 48, 3), np.uint8)
    embedding = np.zeros((4, 4, 6), np.float32)
    embedding[1, :, 3:] = 1  # the right half
    picture = embedding_picture(image, embedding, 1 / 8)
    assert picture.shape == (32, 48 + 8 + 48, 3)
    right = picture[:, 56:]
    assert (right[:, :24, 0] == 0).all()
    assert (right[:, 24:, 0] == 255).all()


def test_the_verb_writes_it(random_sam: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    image = tmp_path / "tile.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 64, 3), np.uint8)).save(image)
    out = tmp_path / "picture.png"
    assert (
        cli.main(["figure", "embedding", str(image), "--encoder", str(random_sam), "-o", str(out), "--field", "32"])
        == 0
    )
    assert Image.open(out).size == (64 + 8 + 64, 40)
    assert "64 x 40 px, 8 x 5 cells" in capsys.readouterr().out
    assert cli.main(["figure", "embedding", str(image), "--encoder", "facebook/sam-vit-base", "-o", str(out)]) == 2
    assert "huggingface-cli download" in capsys.readouterr().err
