"""Each finding of `check`: once where it is due, and nothing on data without fault."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Literal

import numpy as np
import pytest
from PIL import Image

from hemalum.data.check import Problem, check_dataset, labels_in_pieces, labels_suspected_merged
from hemalum.data.importing import import_dataset
from hemalum.errors import HemalumError


@pytest.fixture
def dataset(make_folder: Callable[..., Path], tmp_path: Path) -> Path:
    """A faultless dataset folder of ten images in five groups."""
    return import_dataset("folder", make_folder(10), tmp_path / "set", group="patient").path


def put(path: Path, pixels: np.ndarray) -> None:
    Image.fromarray(pixels).save(path)


def of_images(path: Path) -> list[Problem]:
    """What is found in images that show no nuclei where the labels are."""
    return [problem for problem in check_dataset(path) if problem.kind != "misplaced"]


def findings(path: Path) -> list[tuple[str, str, str]]:
    return [(problem.level, problem.file, problem.kind) for problem in check_dataset(path)]


def test_nothing_is_found_where_nothing_is_wrong(dataset: Path, make_folder: Callable[..., Path]) -> None:
    assert check_dataset(dataset) == []
    assert check_dataset(make_folder(4, name="other")) == []
    assert check_dataset(make_folder(4, name="third", index=False)) == [
        Problem("warning", "", "mpp", "4 of 4 images have no mpp; give one at import")
    ]


@pytest.mark.fault
def test_no_folder(tmp_path: Path) -> None:
    with pytest.raises(HemalumError, match="nowhere: no such folder"):
        check_dataset(tmp_path / "nowhere")


def test_broken_description(dataset: Path) -> None:
    (dataset / "index.csv").unlink()
    assert check_dataset(dataset) == [Problem("error", "", "folder", "index.csv: missing; import the data again")]


def test_unreadable_files(dataset: Path) -> None:
    (dataset / "images/tile_0.png").unlink()
    (dataset / "labels/tile_1.png").write_text("text")
    assert check_dataset(dataset) == [
        Problem("error", "images/tile_0.png", "unreadable", "images/tile_0.png: no such file"),
        Problem(
            "error",
            "labels/tile_1.png",
            "unreadable",
            "labels/tile_1.png: not an image that can be read (PNG, JPEG, BMP, TIFF)",
        ),
    ]


def test_sizes_that_differ(dataset: Path, grid_labels: np.ndarray) -> None:
    put(dataset / "labels/tile_0.png", np.pad(grid_labels, ((0, 0), (0, 3))).astype(np.uint16))
    assert check_dataset(dataset) == [
        Problem("error", "labels/tile_0.png", "size", "labels are 55 x 52, the image is 52 x 52")
    ]


def test_changed_files(dataset: Path, grid_labels: np.ndarray) -> None:
    put(dataset / "images/tile_0.png", np.zeros((52, 52, 3), np.uint8))
    put(dataset / "labels/tile_1.png", np.where(grid_labels == 5, 0, grid_labels).astype(np.uint16))
    assert check_dataset(dataset) == [
        Problem("error", "images/tile_0.png", "changed", "pixels are not those of the import; import again"),
        Problem("error", "labels/tile_1.png", "changed", "4 nuclei, the index says 5; import again"),
    ]


def user_folder_with(make_folder: Callable[..., Path], labels: np.ndarray) -> Path:
    """A user's folder whose second label file is replaced."""
    root = make_folder(3)
    put(root / "labels/tile_1.png", labels.astype(np.uint16))
    return root


def test_empty_labels(make_folder: Callable[..., Path], grid_labels: np.ndarray) -> None:
    root = user_folder_with(make_folder, grid_labels * 0)
    assert check_dataset(root) == [Problem("warning", "labels/tile_1.png", "empty", "no nucleus is labeled")]


@pytest.mark.parametrize("value", [1, 255])
def test_binary_mask_given_as_label_map(
    make_folder: Callable[..., Path], grid_labels: np.ndarray, value: int
) -> None:
    root = user_folder_with(make_folder, (grid_labels > 0) * value)
    message = f"one value ({value}) for all nuclei: a binary mask, not a label map"
    assert check_dataset(root) == [Problem("error", "labels/tile_1.png", "binary", message)]


def test_a_single_nucleus_is_no_binary_mask(make_folder: Callable[..., Path], grid_labels: np.ndarray) -> None:
    assert findings(user_folder_with(make_folder, grid_labels == 3)) == []


def test_labels_in_pieces(make_folder: Callable[..., Path], grid_labels: np.ndarray) -> None:
    broken = grid_labels.copy()
    broken[:, 40] = 0  # through discs 2 and 4
    root = user_folder_with(make_folder, broken)
    assert check_dataset(root) == [Problem("warning", "labels/tile_1.png", "pieces", "labels 2, 4 in several pieces")]


def test_touching_labels_and_corners_are_one_piece() -> None:
    labels = np.array([[1, 1, 2, 2], [1, 1, 2, 2], [0, 0, 3, 0], [0, 0, 0, 3]], np.int32)
    assert labels_in_pieces(labels) == []
    labels[0, 0] = 3
    assert labels_in_pieces(labels) == [3]


def ellipse(labels: np.ndarray, number: int, center: tuple[int, int], half_axes: tuple[float, float]) -> None:
    y, x = np.mgrid[: labels.shape[0], : labels.shape[1]]
    inside = ((y - center[0]) / half_axes[0]) ** 2 + ((x - center[1]) / half_axes[1]) ** 2 <= 1
    labels[inside] = number


@pytest.fixture
def discs_of_ten() -> np.ndarray:
    """(120, 160) int32: eight discs of radius 10 px."""
    labels = np.zeros((120, 160), np.int32)
    for number in range(8):
        ellipse(labels, number + 1, (20 + 30 * (number // 4), 20 + 40 * (number % 4)), (10, 10))
    return labels


@pytest.mark.parametrize("distance", [13, 18, 19])
def test_two_nuclei_under_one_label(discs_of_ten: np.ndarray, distance: int) -> None:
    ellipse(discs_of_ten, 9, (95, 40), (10, 10))
    ellipse(discs_of_ten, 9, (95, 40 + distance), (10, 10))
    # at a distance of 13 the neck is 2 * sqrt(100 - 42) = 15 px wide: an oval, rightly passed
    assert labels_suspected_merged(discs_of_ten) == ([9] if distance > 13 else [])


def test_a_clump_without_necks_is_suspected_by_its_area(discs_of_ten: np.ndarray) -> None:
    ellipse(discs_of_ten, 9, (95, 80), (22, 62))
    assert labels_suspected_merged(discs_of_ten) == [9]


@pytest.mark.parametrize("half_axes", [(5, 30), (12, 20), (16, 16)])
def test_single_nuclei_of_unusual_shape_are_passed(discs_of_ten: np.ndarray, half_axes: tuple[int, int]) -> None:
    ellipse(discs_of_ten, 9, (95, 80), half_axes)
    assert labels_suspected_merged(discs_of_ten) == []


def test_touching_nuclei_with_their_own_labels_are_passed(discs_of_ten: np.ndarray) -> None:
    ellipse(discs_of_ten, 9, (95, 40), (10, 10))
    ellipse(discs_of_ten, 10, (95, 58), (10, 10))
    assert labels_suspected_merged(discs_of_ten) == []


def test_few_nuclei_have_no_typical_size() -> None:
    labels = np.zeros((60, 100), np.int32)
    ellipse(labels, 1, (30, 30), (10, 10))
    ellipse(labels, 1, (30, 48), (10, 10))
    ellipse(labels, 2, (30, 80), (10, 10))
    assert labels_suspected_merged(labels) == []


def test_merged_labels_are_named(tmp_path: Path, discs_of_ten: np.ndarray) -> None:
    ellipse(discs_of_ten, 9, (95, 40), (10, 10))
    ellipse(discs_of_ten, 9, (95, 58), (10, 10))
    for kind in ("images", "labels"):
        (tmp_path / "user" / kind).mkdir(parents=True)
    put(tmp_path / "user/images/a.png", np.zeros((120, 160, 3), np.uint8))
    put(tmp_path / "user/labels/a.png", discs_of_ten.astype(np.uint16))
    import_dataset("folder", tmp_path / "user", tmp_path / "set", mpp=0.25)
    message = "label 9 may be several nuclei (necked, or very large)"
    assert check_dataset(tmp_path / "set") == [Problem("warning", "labels/a.png", "merged", message)]


def test_the_same_image_in_two_parts_is_an_error(make_folder: Callable[..., Path], tmp_path: Path) -> None:
    root = make_folder(10)
    clean = import_dataset("folder", root, tmp_path / "clean", group="patient")
    train, test = clean.split("train").rows[0], clean.split("test").rows[0]
    shutil.copy(root / train.image, root / test.image)
    path = import_dataset("folder", root, tmp_path / "set", group="patient").path
    (problem,) = check_dataset(path)
    first, second = sorted([train, test], key=lambda row: int(row.id.removeprefix("tile_")))
    message = f"same image as {first.image}, but in {second.split}, that in {first.split}"
    assert problem == Problem("error", second.image, "duplicate", message)


def test_the_same_image_twice_in_one_part_is_a_warning(make_folder: Callable[..., Path], tmp_path: Path) -> None:
    root = make_folder(10)
    shutil.copy(root / "images/tile_0.png", root / "images/tile_1.png")  # of one patient
    path = import_dataset("folder", root, tmp_path / "set", group="patient").path
    assert check_dataset(path) == [
        Problem("warning", "images/tile_1.png", "duplicate", "same image as images/tile_0.png")
    ]


def test_a_split_edited_by_hand(dataset: Path) -> None:
    lines = (dataset / "index.csv").read_text().splitlines()
    number = next(i for i, line in enumerate(lines) if ",test," in line)
    lines[number] = lines[number].replace(",test,", ",train,")
    (dataset / "index.csv").write_text("\n".join(lines) + "\n")
    group = lines[number].split(",")[4]
    assert check_dataset(dataset) == [
        Problem(
            "error", "", "split", "the split in index.csv is not the one in dataset.yaml (hash differs); import again"
        ),
        Problem("error", "", "split", f"group '{group}' is in test and train"),
    ]


def test_neighbors_in_different_parts(tmp_path: Path, grid_labels: np.ndarray) -> None:
    from scipy.ndimage import gaussian_filter

    for kind in ("images", "labels"):
        (tmp_path / "user" / kind).mkdir(parents=True)
    noise = gaussian_filter(np.random.default_rng(0).normal(size=(208, 208)), 3)
    gray = np.clip(128 + 40 * noise / noise.std(), 0, 255).astype(np.uint8)
    for y in range(4):
        for x in range(4):
            put(tmp_path / f"user/images/{y}{x}.png", gray[52 * y : 52 * y + 52, 52 * x : 52 * x + 52])
            put(tmp_path / f"user/labels/{y}{x}.png", grid_labels.astype(np.uint8))
    by_image = import_dataset("folder", tmp_path / "user", tmp_path / "image", mpp=0.5, group="image").path
    (problem,) = of_images(by_image)
    assert (problem.level, problem.kind) == ("warning", "neighbors")
    assert "look like cuts of one field" in problem.message
    by_mosaic = import_dataset("folder", tmp_path / "user", tmp_path / "mosaic", mpp=0.5, group="mosaic").path
    assert of_images(by_mosaic) == []
    rows = [line.split(",") for line in (by_image / "index.csv").read_text().splitlines()]
    column = rows[0].index("stain")
    for number, row in enumerate(rows[1:]):
        row[column] = f"stain {number}"
    (by_image / "index.csv").write_text("".join(",".join(row) + "\n" for row in rows))
    assert of_images(by_image) == []  # one field has one stain


def test_missing_and_unlikely_scale(make_folder: Callable[..., Path], tmp_path: Path) -> None:
    root = make_folder(4, index=False)
    without = import_dataset("folder", root, tmp_path / "without").path
    assert check_dataset(without) == [Problem("warning", "", "mpp", "4 of 4 images have no mpp; give one at import")]
    wrong = import_dataset("folder", root, tmp_path / "wrong", mpp=4.0).path
    (problem,) = check_dataset(wrong)
    # discs of radius 6: 113 px, 12.0 px across, 48 µm at 4 µm/px
    assert problem.message == (
        "at mpp 4 the median nucleus is 48.0 µm across, 5.2 is usual: "
        "the nuclei look like about 0.43, 0.11 times as much"
    )


def test_extra_maps(make_folder: Callable[..., Path], tmp_path: Path, grid_labels: np.ndarray) -> None:
    root = make_folder(2, index=False)
    (root / "types").mkdir()
    for number in range(2):
        put(root / f"types/tile_{number}.png", (grid_labels > 0).astype(np.uint8))
    path = import_dataset("folder", root, tmp_path / "set", mpp=0.5).path
    assert check_dataset(path) == []
    put(path / "classes/tile_0.png", np.zeros((52, 9), np.uint8))
    (path / "classes/tile_1.png").unlink()
    assert check_dataset(path) == [
        Problem("error", "classes/tile_0.png", "size", "is 9 x 52, the labels are 52 x 52"),
        Problem("error", "classes/tile_1.png", "unreadable", "classes/tile_1.png: no such file"),
    ]


def test_every_missing_pair_of_a_user_folder_is_named(make_folder: Callable[..., Path]) -> None:
    root = make_folder(4)
    (root / "images/tile_1.png").unlink()
    (root / "labels/tile_3.png").unlink()
    assert check_dataset(root) == [
        Problem(
            "error", "", "folder", f"index.csv, row 3: image 'tile_1.png' is neither in images nor in {root}, did "
            "you mean 'tile_3.png', 'tile_2.png' or 'tile_0.png'?",
        ),
        Problem(
            "error", "", "folder", f"index.csv, row 5: label 'tile_3.png' is neither in labels nor in {root}, did "
            "you mean 'tile_2.png', 'tile_1.png' or 'tile_0.png'?",
        ),
    ]  # fmt: skip


def test_the_real_sets_are_sound(real_data: Path) -> None:
    """No errors in TNBC as given; its few merged labels are two nuclei each when looked at."""
    problems = check_dataset(real_data / "tnbc")
    assert [problem.level for problem in problems] == ["warning"] * len(problems)
    assert {problem.kind for problem in problems} == {"merged", "mpp"}
    assert len(problems) < 6


def test_many_labels_in_pieces_are_counted(make_folder: Callable[..., Path]) -> None:
    stripes = np.zeros((52, 52), np.int32)
    for number in range(1, 9):
        stripes[number * 5, 5:47] = number
    stripes[:, 25] = 0
    stripes[0, 0] = 9
    message = "labels 1, 2, 3, 4, 5 and 3 more in several pieces (8 of 9)"
    problems = check_dataset(user_folder_with(make_folder, stripes))
    assert Problem("warning", "labels/tile_1.png", "pieces", message) in problems


@pytest.fixture
def classified(make_folder: Callable[..., Path], tmp_path: Path, grid_labels: np.ndarray) -> Path:
    """A dataset of four images whose five nuclei are of the classes 1, 1, 2, 2, 2, which dataset.yaml names."""
    root = make_folder(4, name="classified")
    (root / "classes").mkdir()
    for number in range(4):
        put(root / f"classes/tile_{number}.png", np.array([0, 1, 1, 2, 2, 2], np.uint8)[grid_labels])
    path = import_dataset("folder", root, tmp_path / "set", group="patient").path
    text = (path / "dataset.yaml").read_text()
    (path / "dataset.yaml").write_text(text.replace("images: 4", "classes: {1: round, 2: long}\nimages: 4"))
    return path


@pytest.mark.parametrize(
    ("classes", "level", "message"),
    [
        ([0, 1, 7, 9, 2, 2], "error", "class 7 is not in dataset.yaml (2 nuclei of such classes); classes are 1, 2"),
        ([0, 0, 1, 2, 2, 2], "warning", "1 of 5 nuclei have no class (0)"),
    ],
)
def test_classes(
    classified: Path, grid_labels: np.ndarray, classes: list[int], level: Literal["error", "warning"], message: str
) -> None:
    assert check_dataset(classified) == []
    put(classified / "classes/tile_2.png", np.array(classes, np.uint8)[grid_labels])
    assert check_dataset(classified) == [Problem(level, "classes/tile_2.png", "classes", message)]


def test_class_ids_beyond_a_byte(make_folder: Callable[..., Path], grid_labels: np.ndarray) -> None:
    root = make_folder(2)
    (root / "classes").mkdir()
    for number in range(2):
        put(root / f"classes/tile_{number}.png", (grid_labels * (1 + 99 * number)).astype(np.uint16))
    message = "class ids up to 500; they must be 0 to 255"
    assert check_dataset(root) == [Problem("error", "classes/tile_1.png", "classes", message)]


@pytest.mark.parametrize(("other", "warned"), [("0.51", False), ("1.0", True)])
def test_mixed_scales(make_folder: Callable[..., Path], tmp_path: Path, other: str, warned: bool) -> None:
    root = make_folder(4)
    index = (root / "index.csv").read_text()
    (root / "index.csv").write_text(index.replace("tile_3.png,p1,0.5", f"tile_3.png,p1,{other}"))
    message = "the images differ in scale: mpp 0.5 (3 images), 1 (1 image); each is used at its own, if that is meant"
    expected = [Problem("warning", "", "mpp", message)] if warned else []
    assert check_dataset(root) == expected
    assert check_dataset(import_dataset("folder", root, tmp_path / "set", group="patient").path) == expected


def test_copies_across_the_split(make_folder: Callable[..., Path], tmp_path: Path) -> None:
    root = make_folder(10)
    clean = import_dataset("folder", root, tmp_path / "clean", group="patient")
    train, test = clean.split("train").rows[0], clean.split("test").rows[0]
    blobs = Image.fromarray(np.random.default_rng(5).integers(0, 256, (7, 7, 3), dtype=np.uint8)).resize((52, 52))
    blobs.save(root / train.image)
    blobs.transpose(Image.Transpose.FLIP_LEFT_RIGHT).save(root / test.image)
    path = import_dataset("folder", root, tmp_path / "set", group="patient").path
    first, second = sorted([train.image, test.image])
    message = (
        "2 images show the same as an image of another part: re-encoded, flipped, turned, or frames of one video "
        f"(e.g. {first} and {second}); give them one group"
    )
    assert of_images(path) == [Problem("warning", "", "similar", message)]


@pytest.mark.fault
def test_a_folder_called_images_is_named_as_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "images").mkdir()
    monkeypatch.chdir(tmp_path)
    (problem,) = check_dataset("images")
    assert problem.message.startswith("images: no such folder; want images/ and labels/")
