"""What an index says of its images is read alike, and refused alike, by import and by check."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from builders.scenes import draw_crowd
from hemalum.data.check import Problem, check_dataset
from hemalum.data.importing import import_dataset
from hemalum.errors import HemalumError

pytestmark = pytest.mark.fault


def folder_of(root: Path, index: str, count: int = 2) -> Path:
    """Images and label maps with nuclei as large as they are at 0.45 µm per px, and an index."""
    for number in range(count):
        labels = draw_crowd(number, (160, 160), 12)
        shown = np.where(labels[..., None] > 0, (80, 55, 130), (228, 170, 205)).astype(np.uint8)
        for kind, pixels in (("images", shown), ("labels", labels.astype(np.uint16))):
            (root / kind).mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels).save(root / kind / f"f{number}.png")
    (root / "index.csv").write_text(index, encoding="utf-8")
    return root


def in_both_ways(root: Path, destination: Path) -> tuple[str, list[Problem]]:
    """What import refuses, without the name of the folder, and what check finds in the index."""
    with pytest.raises(HemalumError) as refused:
        import_dataset("folder", root, destination)
    assert not destination.exists()
    return str(refused.value).replace(f"{root}/", ""), [p for p in check_dataset(root) if p.level == "error"]


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("0", "mpp 0 µm/px is out of range"),
        ("-1", "mpp -1 µm/px is out of range"),
        ("500", "mpp 500 µm/px is out of range"),
        ("inf", "mpp is 'inf', not a number"),
        ("40x", "mpp is '40x', not a number"),
        ('"1,234"', "mpp is '1,234', which can be read in two ways; write 1234 or 1.234"),
    ],
)
def test_a_scale_that_cannot_be(tmp_path: Path, text: str, line: str) -> None:
    root = folder_of(tmp_path / "src", f"image,label,mpp\nf0.png,f0.png,0.45\nf1.png,f1.png,{text}\n")
    refused, problems = in_both_ways(root, tmp_path / "dst")
    assert refused == f"index.csv, row 3: {line}"
    assert problems == [Problem("error", "", "folder", refused)]


@pytest.mark.parametrize("text", ["nan", "n/a", "-", ""])
def test_a_scale_that_nobody_knows(tmp_path: Path, text: str) -> None:
    root = folder_of(tmp_path / "src", f"image,label,mpp\nf0.png,f0.png,0.45\nf1.png,f1.png,{text}\n")
    lines = [problem.message for problem in check_dataset(root) if problem.kind == "mpp"]
    assert lines == ["1 of 2 images have no mpp; give one at import"]
    assert [row.mpp for row in import_dataset("folder", root, tmp_path / "dst").rows] == [0.45, None]


def test_a_decimal_comma_is_read_by_check_as_by_import(tmp_path: Path) -> None:
    root = folder_of(tmp_path / "src", "image;label;mpp\nf0.png;f0.png;0,45\nf1.png;f1.png;2,5\n")
    lines = [problem.message for problem in check_dataset(root) if problem.kind == "mpp"]
    assert lines[0].startswith("the images differ in scale: mpp 0.45 (1 image), 2.5 (1 image)")
    assert [row.mpp for row in import_dataset("folder", root, tmp_path / "dst").rows] == [0.45, 2.5]


@pytest.mark.parametrize(
    ("column", "first", "second", "line"),
    [
        ("group", "a", "", "index.csv, row 3: group is empty; a split goes by it"),
        ("Group", "", "b", "index.csv, row 2: group is empty; a split goes by it"),
        ("id", "a", "..", "index.csv, row 3: id '..' has no letter or digit to name a file by"),
        ("id", "a", "a", "the id 'a' occurs 2 times; name the images apart"),
        ("id", "a b", "a_b", "the id 'a_b' occurs 2 times; name the images apart"),
        ("id", "a/b", "a?b", "the id 'a_b' occurs 2 times; name the images apart"),
    ],
)
def test_ids_and_groups_that_cannot_be(tmp_path: Path, column: str, first: str, second: str, line: str) -> None:
    root = folder_of(
        tmp_path / "src", f"image,label,mpp,{column}\nf0.png,f0.png,0.45,{first}\nf1.png,f1.png,0.45,{second}\n"
    )
    refused, problems = in_both_ways(root, tmp_path / "dst")
    assert refused.removeprefix(f"{root}: ") == line
    assert [problem.message.removeprefix(f"{root}: ") for problem in problems] == [line]


def test_an_empty_group_is_no_fault_where_no_split_goes_by_it(tmp_path: Path) -> None:
    root = folder_of(tmp_path / "src", "image,label,mpp,group\nf0.png,f0.png,0.45,\nf1.png,f1.png,0.45,\n")
    dataset = import_dataset("folder", root, tmp_path / "dst", group="image")
    assert [row.group for row in dataset.rows] == ["f0", "f1"]


@pytest.mark.parametrize("text", ["images", "images/", "sub", "images/sub", ".", "SUB", ".."])
def test_an_index_that_names_a_folder(tmp_path: Path, text: str) -> None:
    root = folder_of(tmp_path / "src", f"image,label,mpp\nf0.png,f0.png,0.45\n{text},f1.png,0.45\n")
    (root / "images" / "sub").mkdir()
    refused, problems = in_both_ways(root, tmp_path / "dst")
    assert refused == f"index.csv, row 3: image '{text}' is a folder; name a file in it"
    assert [problem.message for problem in problems] == [refused]
