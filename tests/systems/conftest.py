"""What several systems are tried on."""

from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image

from hemalum.data.dataset import Dataset
from hemalum.data.importing import import_dataset

NAMES = ("01_1", "03_1", "05_1", "07_1")


@pytest.fixture
def four_tiles(real_data: Path, tmp_path: Path) -> Dataset:
    """Four tiles of TNBC, 96 px at 0.25 µm/px, of two made-up organs, to be trained on and validated on."""
    source = tmp_path / "source"
    for folder in ("images", "labels"):
        (source / folder).mkdir(parents=True)
        for name in NAMES:
            tile = Image.open(real_data / "tnbc" / folder / f"{name}.png").crop((192, 192, 288, 288))
            tile.save(source / folder / f"{name}.png")
    lines = [f"{name}.png,{name}.png,{organ}" for name, organ in zip(NAMES, "abab", strict=True)]
    (source / "index.csv").write_text("\n".join(["image,label,organ", *lines]) + "\n")
    import_dataset("folder", source, tmp_path / "tiles", mpp=0.25, split=(1.0, 0.0, 0.0))
    tiles = Dataset.open(tmp_path / "tiles")
    return replace(tiles, rows=tuple(replace(row, split=split) for split in ("train", "val") for row in tiles.rows))
