"""Files of pairs, the reader, and the import: what comes out, and what a user can get wrong."""

import csv
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from hemalum.data.importing import import_dataset
from hemalum.data.readers import ihc_pairs
from hemalum.data.readers.ihc_pairs import find_pairs, read_landmarks
from hemalum.errors import HemalumError
from ihc_synthesis import Warp, make_pair

from .conftest import MPP, make_tile


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two pairs that fit, of one patient, and one whose IHC section is of another place."""
    root = tmp_path / "melanoma"
    warp = Warp.draw(np.random.default_rng(7), (256, 256), bend=1.5)
    for number in range(3):
        tile = make_tile(number + 1)
        pair = make_pair(tile.image, tile.labels, number, warp=warp)
        ihc = make_tile(50).image if number == 2 else pair.ihc
        for kind, pixels in (("he", pair.he), ("ihc", ihc)):
            (root / kind).mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels).save(root / kind / f"roi_{number}.png")
    return root


def write(path: Path, text: str) -> Path:
    path.write_text(text)
    return path


def test_index_joins_and_describes(folder: Path) -> None:
    (folder / "ihc/roi_1.png").rename(folder / "ihc/sox10.png")
    write(
        folder / "index.csv",
        "he,ihc,patient,organ,mpp,ihc_mpp\nroi_1.png,sox10.png,P4,lymph node,0.25,0.5\n"
        "he/roi_0.png,ihc/roi_0.png,,,,\n",
    )
    first, second = find_pairs(folder)
    assert (first.id, first.group, first.organ, first.mpp, first.ihc_mpp) == ("roi_1", "P4", "lymph node", 0.25, 0.5)
    assert first.ihc == folder / "ihc/sox10.png"
    assert (second.id, second.group, second.organ, second.mpp) == ("roi_0", "roi_0", None, None)


def test_landmarks_are_read(folder: Path) -> None:
    path = write(folder / "landmarks.csv", "id,he_x,he_y,ihc_x,ihc_y\nroi_0,1,2,3,4\nroi_0,5,6,7,8.5\n")
    points = read_landmarks(path, find_pairs(folder))
    assert np.array_equal(points["roi_0"][0], [[1, 2], [5, 6]])
    assert np.array_equal(points["roi_0"][1], [[3, 4], [7, 8.5]])


@pytest.mark.parametrize(
    ("index", "message"),
    [
        ("he,mask\nroi_0.png,roi_0.png\n", "index.csv: column 'ihc' is missing; want he,ihc"),
        ("he,ihc\nroi_0.png,\n", "index.csv, row 2: ihc is empty"),
        ("he,ihc\nroi_0.png,roi_9.png\n", "row 2: ihc 'roi_9.png' is neither in"),
        ("he,ihc,mpp\nroi_0.png,roi_0.png,fine\n", "row 2: mpp is 'fine', not a number"),
        ("he,ihc,mpp\nroi_0.png,roi_0.png,250\n", "row 2: mpp 250 µm/px is out of range"),
        ("he,ihc,mpp,ihc_mpp\nroi_0.png,roi_0.png,0.25,5\n", "mpp 0.25 and ihc_mpp 5 differ more than 8 times"),
        ("he,ihc,ihc_mpp\nroi_0.png,roi_0.png,0.5\n", "row 2: ihc_mpp is given without mpp; give both"),
        ("he,ihc\nroi_0.png,roi_0.png\nroi_0.png,roi_1.png\n", "the id 'roi_0' occurs 2 times"),
        ("he,ihc\n", "index.csv: no pairs"),
    ],
)
def test_faults_of_an_index(folder: Path, index: str, message: str) -> None:
    write(folder / "index.csv", index)
    with pytest.raises(HemalumError) as raised:
        find_pairs(folder)
    assert message in str(raised.value)


@pytest.mark.fault
@pytest.mark.parametrize(("kind", "other"), [("he", "ihc"), ("ihc", "he")])
def test_a_missing_partner_is_named(folder: Path, kind: str, other: str) -> None:
    (folder / kind / "roi_1.png").unlink()
    with pytest.raises(HemalumError, match=rf"{other}/roi_1.png: its partner roi_1\.\* is missing in .*{kind}"):
        find_pairs(folder)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("id,he_x,he_y,ihc_x,ihc_y\nroi_7,1,2,3,4\n", "row 2: no pair has the id 'roi_7'"),
        ("id,he_x,he_y,ihc_x,ihc_y\nroi_0,1,two,3,4\n", "row 2: he_y is 'two', not a number"),
        ("id,x,y\n", "column 'he_x' is missing"),
    ],
)
def test_faults_of_landmarks(folder: Path, text: str, message: str) -> None:
    path = write(folder / "landmarks.csv", text)
    with pytest.raises(HemalumError) as raised:
        read_landmarks(path, find_pairs(folder))
    assert message in str(raised.value)


def test_import_keeps_what_fits_and_names_the_rest(
    folder: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    pytest.importorskip("SimpleITK")
    write(
        folder / "index.csv",
        "he,ihc,patient\nroi_0.png,roi_0.png,P1\nroi_1.png,roi_1.png,P1\nroi_2.png,roi_2.png,P2\n",
    )
    write(folder / "landmarks.csv", "id,he_x,he_y,ihc_x,ihc_y\nroi_0,10,20,10,20\n")
    dataset = import_dataset("ihc-pairs", folder, tmp_path / "out", mpp=MPP, registration="rigid")
    assert [(row.id, row.group, row.stain, row.mpp) for row in dataset.rows] == [
        ("roi_0", "P1", "H&E", MPP),
        ("roi_1", "P1", "H&E", MPP),
    ]
    assert dataset[0].instances.max() > 5
    assert dataset[0].ambiguous.any()  # the corners that the turned section leaves
    assert "derived" in dataset.info.license
    with (dataset.path / "quality.csv").open() as stream:
        scores = {row["id"]: row for row in csv.DictReader(stream)}
    assert [scores[f"roi_{number}"]["imported"] for number in range(3)] == ["yes", "yes", "no"]
    assert float(scores["roi_0"]["quality"]) > 0.25 > float(scores["roi_2"]["quality"])
    assert (scores["roi_0"]["landmarks"], scores["roi_0"]["landmark_count"]) == ("from file", "1")
    assert "1 of 3 pairs refused: roi_2: quality 0." in caplog.text
    for number in range(3):
        assert Image.open(dataset.path / f"pairs/roi_{number}.png").width > 1000


def test_all_refused_is_an_error_and_leaves_nothing(folder: Path, tmp_path: Path) -> None:
    pytest.importorskip("SimpleITK")
    for number in range(3):
        Image.fromarray(np.full((256, 256, 3), 245, np.uint8)).save(folder / "ihc" / f"roi_{number}.png")
    with pytest.raises(HemalumError) as raised:
        import_dataset("ihc-pairs", folder, tmp_path / "out", mpp=MPP)
    assert "none of the 3 pairs fits; roi_0: the IHC section has no tissue; roi_1:" in str(raised.value)
    assert not (tmp_path / "out").exists()


@pytest.mark.fault
def test_a_wrong_chromogen_is_named(folder: Path, tmp_path: Path) -> None:
    pytest.importorskip("SimpleITK")
    tile = make_tile(1)
    for number in range(3):
        pair = make_pair(tile.image, tile.labels, 3, chromogen="red", positive=0.6)
        Image.fromarray(pair.ihc).save(folder / "ihc" / f"roi_{number}.png")
    with pytest.raises(HemalumError, match="the chromogen looks red, not dab: give chromogen red"):
        import_dataset("ihc-pairs", folder, tmp_path / "out", mpp=MPP, chromogen="dab")


@pytest.mark.fault
def test_no_scale(folder: Path) -> None:
    pytest.importorskip("SimpleITK")
    with pytest.raises(HemalumError, match=r"roi_0.png: its scale is not known; give `mpp`, or a column mpp"):
        next(ihc_pairs.read(folder))


@pytest.mark.fault
def test_an_unreadable_file_is_named(folder: Path) -> None:
    pytest.importorskip("SimpleITK")
    (folder / "ihc/roi_0.png").write_bytes(b"\x89PNG\r\n\x1a\nrubbish")
    with pytest.raises(HemalumError, match=r"ihc/roi_0.png: "):
        next(ihc_pairs.read(folder, mpp=MPP))


def test_no_simpleitk(folder: Path) -> None:
    """In a process of its own, where the import fails."""
    program = (
        "import sys; sys.modules['SimpleITK'] = None\n"
        "from hemalum.data.readers import ihc_pairs\n"
        "from hemalum.errors import HemalumError\n"
        "try:\n    next(ihc_pairs.read(sys.argv[1], mpp=0.5))\n"
        "except HemalumError as error:\n    print(error)\n"
    )
    done = subprocess.run([sys.executable, "-c", program, str(folder)], capture_output=True, text=True, check=True)
    assert done.stdout == 'registration of IHC to H&E needs SimpleITK: pip install "hemalum[ihc]"\n'
