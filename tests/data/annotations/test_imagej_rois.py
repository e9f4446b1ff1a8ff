"""RoiSet zips: entries written byte by byte as ImageJ does; each fault one change of a valid zip."""

import struct
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hemalum.data.annotations import imagej_rois as roi_set
from hemalum.data.annotations.imagej_rois import read_roi_set
from hemalum.data.annotations.outlines import draw_outlines
from hemalum.errors import HemalumError

POLYGON, RECT, OVAL, LINE, FREEHAND, POINT = 0, 1, 2, 3, 7, 10


def roi(kind: int, box: tuple[int, int, int, int], points: Sequence[tuple[int, int]] = ()) -> bytes:
    """A .roi file (version 227, big-endian): header of 64 bytes, then x and y from the box's corner."""
    top, left, bottom, right = box
    head = struct.pack(">4shBBhhhhH", b"Iout", 227, kind, 0, top, left, bottom, right, len(points))
    x, y = [x - left for x, _ in points], [y - top for _, y in points]
    return head.ljust(64, b"\0") + struct.pack(f">{2 * len(points)}h", *x, *y)


SQUARE = roi(FREEHAND, (10, 20, 14, 26), [(20, 10), (26, 10), (26, 14), (20, 14)])
TRIANGLE = roi(POLYGON, (30, 5, 40, 15), [(5, 30), (15, 40), (5, 40)])


def pack(path: Path, entries: list[tuple[str, bytes]], **options: Any) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, **options) as archive:
        for name, content in entries:
            archive.writestr(name, content)
    return path


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return pack(tmp_path / "RoiSet.zip", [("0035-0010.roi", TRIANGLE), ("0012-0023.roi", SQUARE)])


def test_outlines_in_the_order_of_their_names(path: Path) -> None:
    outlines = read_roi_set(path)
    assert [outline.name for outline in outlines] == ["0012-0023.roi", "0035-0010.roi"]
    assert outlines[0].rings[0].tolist() == [[20, 10], [26, 10], [26, 14], [20, 14]]
    labels = draw_outlines(outlines, (64, 64), path)
    expected = np.zeros((64, 64), np.int32)
    expected[10:14, 20:26] = 1
    assert np.array_equal(labels == 1, expected == 1)
    assert (labels == 2).sum() == pytest.approx(50, abs=5)


def test_rectangles_and_ovals(tmp_path: Path) -> None:
    rect, oval = roi(RECT, (2, 3, 6, 10)), roi(OVAL, (20, 20, 40, 50))
    labels = draw_outlines(read_roi_set(pack(tmp_path / "a.zip", [("a.roi", rect), ("b.roi", oval)])), (64, 64), "a")
    assert (labels == 1).sum() == 28
    assert (labels == 2).sum() == pytest.approx(np.pi * 10 * 15, rel=0.03)


def test_what_macos_adds_is_passed_over(tmp_path: Path) -> None:
    hidden = [("__MACOSX/", b""), ("__MACOSX/._0012-0023.roi", b"\0\5\x16\7"), (".DS_Store", b"\0")]
    assert len(read_roi_set(pack(tmp_path / "a.zip", [("0012-0023.roi", SQUARE), *hidden]))) == 1


@pytest.mark.parametrize(
    ("name", "content", "line"),
    [
        ("setup.exe", b"MZ", "entry 'setup.exe' is no .roi file; want a RoiSet of ImageJ"),
        ("../0001.roi", SQUARE, "entry '../0001.roi' leads out of the archive; this is no RoiSet of ImageJ"),
        ("a/../../1.roi", SQUARE, "entry 'a/../../1.roi' leads out of the archive; this is no RoiSet of ImageJ"),
        ("/etc/0001.roi", SQUARE, "entry '/etc/0001.roi' leads out of the archive; this is no RoiSet of ImageJ"),
        ("C:\\0001.roi", SQUARE, "entry 'C:\\\\0001.roi' leads out of the archive; this is no RoiSet of ImageJ"),
        ("0001.roi", b"", "entry '0001.roi' is no ROI that can be read ("),
        ("0001.roi", b"Jout" + SQUARE[4:], "entry '0001.roi' is no ROI that can be read ("),
        ("0001.roi", SQUARE[:70], "entry '0001.roi' is no ROI that can be read ("),
        ("0001.roi", roi(LINE, (0, 0, 9, 9)), "entry '0001.roi' is a line, which encloses nothing; outline the nuc"),
        ("0001.roi", roi(POINT, (5, 5, 5, 5), [(5, 5)]), "entry '0001.roi' is a point, which encloses nothing; out"),
        ("0001.roi", b"\0" * 5_000_000, "entry '0001.roi' unpacks to 5,000,000 bytes from "),
    ],
)  # fmt: skip
def test_faults_of_an_entry(tmp_path: Path, name: str, content: bytes, line: str) -> None:
    path = pack(tmp_path / "RoiSet.zip", [("0012-0023.roi", SQUARE), (name, content)])
    with pytest.raises(HemalumError) as error:
        read_roi_set(path)
    assert str(error.value).startswith(f"{path}: {line}")
    assert "\n" not in str(error.value)
    assert list(tmp_path.iterdir()) == [path]  # nothing was unpacked


@pytest.mark.fault
@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_an_entry_twice(tmp_path: Path) -> None:
    path = pack(tmp_path / "RoiSet.zip", [("a.roi", SQUARE), ("a.roi", TRIANGLE)])
    with pytest.raises(HemalumError, match=r"RoiSet\.zip: entry 'a\.roi' is there 2 times; save the RoiSet again"):
        read_roi_set(path)


@pytest.mark.fault
def test_encrypted_entries(path: Path) -> None:
    content = bytearray(path.read_bytes())
    for signature, offset in ((b"PK\1\2", 8), (b"PK\3\4", 6)):  # the flags in both headers of the first entry
        content[content.index(signature) + offset] |= 1
    path.write_bytes(content)
    with pytest.raises(HemalumError, match=r"entry '0035-0010\.roi' is encrypted; save the RoiSet without a pass"):
        read_roi_set(path)


@pytest.mark.fault
def test_a_size_that_the_entry_does_not_have(path: Path) -> None:
    """The header says less than there is: what comes out is cut there and fails its checksum."""
    content = bytearray(path.read_bytes())
    at = content.index(b"PK\1\2") + 24
    content[at : at + 4] = struct.pack("<I", 70)
    path.write_bytes(content)
    with pytest.raises(HemalumError, match=r"RoiSet\.zip: not a zip archive, or damaged \(Bad CRC-32"):
        read_roi_set(path)


@pytest.mark.fault
def test_limits(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(roi_set, "MAX_BYTES", 100)
    with pytest.raises(HemalumError, match=r"RoiSet\.zip: unpacks to 156 bytes, over the limit of 100 for a RoiSet"):
        read_roi_set(path)
    monkeypatch.setattr(roi_set, "MAX_ENTRIES", 1)
    with pytest.raises(HemalumError, match=r"RoiSet\.zip: 2 entries are over the limit of 1 for a RoiSet"):
        read_roi_set(path)


@pytest.mark.fault
def test_files_that_are_none(tmp_path: Path) -> None:
    with pytest.raises(HemalumError, match=r"none\.zip: no such file"):
        read_roi_set(tmp_path / "none.zip")
    (tmp_path / "text.zip").write_text("text")
    with pytest.raises(HemalumError, match=r"text\.zip: not a zip archive, or damaged \(File is not a zip file\)"):
        read_roi_set(tmp_path / "text.zip")
    with pytest.raises(HemalumError, match=r"empty\.zip: holds no \.roi file; want a RoiSet of ImageJ"):
        read_roi_set(pack(tmp_path / "empty.zip", []))


def test_the_real_items_against_an_independent_parse(real_data: Path, tmp_path: Path) -> None:
    cases = sorted((real_data / "original_layouts/cryonuseg").glob("TCGA-*.zip"))
    if not cases:
        pytest.skip("no CryoNuSeg items")
    for case in cases:
        with zipfile.ZipFile(case) as archive:
            rois = tmp_path / f"{case.stem}.zip"
            rois.write_bytes(archive.read("RoiSet.zip"))
        lines = {}
        with zipfile.ZipFile(rois) as archive:
            for name in sorted(archive.namelist()):
                content = archive.read(name)
                top, left, _, _, count = struct.unpack(">hhhhH", content[8:18])
                x, y = np.frombuffer(content, ">i2", 2 * count, 64).reshape(2, count).astype(float)
                lines[name] = x + left, y + top
        outlines = read_roi_set(rois)
        assert [outline.name for outline in outlines] == list(lines)
        labels = draw_outlines(outlines, (512, 512), rois)
        pixels = [pixels_inside(*line) for line in lines.values()]
        assert labels.max() == len(set(pixels))  # one case has one nucleus twice
        for nucleus in pixels:
            assert (labels[tuple(np.transpose(sorted(nucleus)))] > 0).all()


def pixels_inside(x: np.ndarray, y: np.ndarray) -> frozenset[tuple[int, int]]:
    """(row, column) of the pixels around which a line turns: the angles under which its steps are seen, summed.

    Those that lie on the line are left out: either answer is right.
    """
    rows, columns = np.arange(int(y.min()), min(int(y.max()), 512)), np.arange(int(x.min()), min(int(x.max()), 512))
    dx, dy = x - (columns[None, :, None] + 0.5), y - (rows[:, None, None] + 0.5)
    ex, ey = np.roll(dx, -1, axis=2), np.roll(dy, -1, axis=2)
    steps = np.arctan2(dx * ey - dy * ex, dx * ex + dy * ey)
    on_the_line = np.isclose(np.abs(steps), np.pi).any(axis=2)
    inside = (np.abs(steps.sum(axis=2)) > np.pi) & ~on_the_line
    assert inside.any()
    return frozenset((int(rows[i]), int(columns[j])) for i, j in np.argwhere(inside))
