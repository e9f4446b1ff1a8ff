"""Kumar: miniatures of both layouts, and the published assignment of its 30 images."""

from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import tifffile
from scipy.io import savemat

from hemalum.data.importing import import_dataset
from hemalum.data.readers import kumar, looks_like

FILES = {
    "train": ["TCGA-A7-A13E-01Z-00-DX1", "TCGA-18-5592-01Z-00-DX1", "TCGA-HE-7130-01Z-00-DX1"],
    "test_same": ["TCGA-E2-A1B5-01Z-00-DX1"],
    "test_diff": ["TCGA-NH-A8F7-01A-01-TS1"],
}


@pytest.fixture
def archive(tmp_path: Path, grid_labels: np.ndarray, colors: Callable[..., np.ndarray]) -> Path:
    root = tmp_path / "kumar"
    for part, names in FILES.items():
        for kind in ("Images", "Labels"):
            (root / part / kind).mkdir(parents=True)
        for number, name in enumerate(names):
            tifffile.imwrite(root / part / "Images" / f"{name}.tif", colors((52, 52), number))
            savemat(root / part / "Labels" / f"{name}.mat", {"inst_map": grid_labels})
    return root


def test_parts_organs_and_patients(archive: Path, grid_labels: np.ndarray, colors: Callable[..., np.ndarray]) -> None:
    samples = list(kumar.read(archive))
    assert [(sample.part, sample.organ) for sample in samples] == [
        ("train", "liver"),
        ("train", "breast"),
        ("train", "kidney"),
        ("test", "breast"),
        ("test", "colon"),
    ]
    assert samples[1].group == "A7-A13E"
    assert np.array_equal(samples[1].image, colors((52, 52), 0))
    assert np.array_equal(samples[1].instances, grid_labels)
    assert looks_like(archive) == ["kumar"]


def test_the_published_assignment() -> None:
    assert Counter(len(cases) for cases in kumar.ORGANS.values()) == {6: 4, 2: 3}
    assert len(kumar.ORGAN_OF) == 30
    parts = Counter(kumar.part_of(f"TCGA-{case}-01Z-00-DX1") for case in kumar.ORGAN_OF)
    assert parts == {"train": 16, "test": 14}
    assert Counter(kumar.ORGAN_OF[case] for case in kumar.TEST_SAME) == dict.fromkeys(
        ["breast", "liver", "kidney", "prostate"], 2
    )
    assert kumar.part_of("TCGA-XX-0000-01Z-00-DX1") is None


@pytest.fixture
def outlines(tmp_path: Path, colors: Callable[..., np.ndarray]) -> Path:
    """Tissue Images/*.tif and Annotations/*.xml, a square of 4 x 4 px in each."""
    root = tmp_path / "first"
    for number, name in enumerate(name for names in FILES.values() for name in names):
        for folder in ("Tissue Images", "Annotations"):
            (root / folder).mkdir(parents=True, exist_ok=True)
        tifffile.imwrite(root / "Tissue Images" / f"{name}.tif", colors((52, 52), number))
        vertices = "".join(f'<Vertex X="{x}" Y="{y}" Z="0"/>' for x, y in [(10, 20), (14, 20), (14, 24), (10, 24)])
        (root / "Annotations" / f"{name}.xml").write_text(
            '<Annotations MicronsPerPixel="0.252000"><Annotation Id="1"><Regions><Region Id="1">'
            f"<Vertices>{vertices}</Vertices></Region></Regions></Annotation></Annotations>"
        )
    return root


def test_outlines_of_the_first_release(outlines: Path) -> None:
    samples = list(kumar.read(outlines))
    assert len(samples) == 5
    expected = np.zeros((52, 52), np.int32)
    expected[20:24, 10:14] = 1
    for sample in samples:
        assert np.array_equal(sample.instances, expected)
        assert (sample.mpp, sample.mpp_source) == (0.252, "file")
    assert {sample.id for sample in samples if sample.part == "test"} == {
        "TCGA-E2-A1B5-01Z-00-DX1",
        "TCGA-NH-A8F7-01A-01-TS1",
    }


@pytest.mark.parametrize("layout", ["archive", "outlines"])
def test_import_keeps_the_published_test_part(request: pytest.FixtureRequest, tmp_path: Path, layout: str) -> None:
    dataset = import_dataset("kumar", request.getfixturevalue(layout), tmp_path / "set")
    assert dataset.info.split.counts == {"train": 2, "val": 1, "test": 2}
    assert dataset.info.split.by == "patient"


@pytest.mark.fault
def test_faults(archive: Path, outlines: Path, error_line: Callable[..., str], tmp_path: Path) -> None:
    file = archive / "test_same" / "Labels" / "TCGA-E2-A1B5-01Z-00-DX1.mat"
    savemat(file, {"inst_map": np.zeros((52, 40))})
    assert error_line(lambda: list(kumar.read(archive))) == (
        f"{file}: inst_map: labels are 40 x 52, their image 52 x 52"
    )
    file.unlink()
    assert error_line(lambda: list(kumar.read(archive))).startswith(f"{file}: missing; it holds the labels of")
    xml = outlines / "Annotations" / "TCGA-18-5592-01Z-00-DX1.xml"
    xml.unlink()
    assert error_line(lambda: list(kumar.read(outlines))).startswith(f"{xml}: missing; it holds the outlines of")
    (tmp_path / "other").mkdir()
    assert "want the unpacked Kumar set" in error_line(lambda: list(kumar.read(tmp_path / "other")))
