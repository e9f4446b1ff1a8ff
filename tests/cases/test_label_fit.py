"""Labels that do not lie on the nuclei of their image: turned, mirrored, shifted, or another image's."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image

from builders.outlines import feature, features_of, rectangle, write_geojson
from builders.scenes import draw_crowd, smooth_field
from hemalum.data.check import Problem, check_dataset
from hemalum.data.importing import import_dataset
from hemalum.data.label_fit import TURNS, area_under_roc, best_turn, find_misfit

pytestmark = pytest.mark.fault

Labels = NDArray[np.int32]
Pixels = NDArray[np.uint8]
# what undoes a turn; the others undo themselves
BACK = {"turned by 90° clockwise": "turned by 90° counterclockwise"}
BACK |= {after: before for before, after in BACK.items()}
CROWD = 25


def stained(labels: Labels, stain: str, seed: int = 0) -> Pixels:
    """An image (H, W, 3) of nuclei, with noise and an uneven ground."""
    inside = (labels > 0)[..., None]
    colors = {
        "H&E": ((80, 55, 130), (228, 170, 205)),
        "gray": ((90, 90, 90), (200, 200, 200)),
        "fluorescence": ((150, 150, 150), (12, 12, 12)),
    }
    nucleus, ground = colors[stain]
    uneven = smooth_field(seed, labels.shape, 6)[..., None] * 24 - 12
    noise = np.random.default_rng(seed).normal(0, 6, labels.shape)[..., None]
    pixels: Pixels = (np.where(inside, nucleus, ground) + uneven + noise).clip(0, 255).astype(np.uint8)
    return pixels


@settings(max_examples=40)
@given(
    seed=st.integers(0, 10_000),
    turn=st.sampled_from(sorted(TURNS)),
    stain=st.sampled_from(["H&E", "gray", "fluorescence"]),
    shape=st.sampled_from([(160, 160), (140, 180)]),
)
def test_the_turn_that_fits_is_named(seed: int, turn: str, stain: str, shape: tuple[int, int]) -> None:
    labels = draw_crowd(seed, shape, CROWD)
    image = stained(labels, stain, seed)
    assert find_misfit(image, labels) is None
    turned = np.ascontiguousarray(TURNS[turn](labels))
    if turned.shape == shape:
        misfit = find_misfit(image, turned)
        assert misfit is not None
        assert misfit.better == BACK.get(turn, turn)
    else:
        assert best_turn(image, turned) == BACK.get(turn, turn)


@settings(max_examples=15)
@given(seed=st.integers(0, 10_000), right=st.integers(-12, 12), down=st.integers(-12, 12))
def test_a_shift_is_named_where_labels_miss_their_nuclei(seed: int, right: int, down: int) -> None:
    labels = draw_crowd(seed, (160, 160), CROWD)
    misfit = find_misfit(stained(labels, "H&E", seed), np.roll(labels, (-down, -right), (0, 1)))
    if np.hypot(right, down) >= 10:
        assert misfit is not None
    if misfit is not None:
        parts = [
            f"{abs(length)} px {names[length < 0]}"
            for length, names in ((right, ("right", "left")), (down, ("down", "up")))
            if length
        ]
        assert misfit.better == f"shifted by {' and '.join(parts)}"


def test_labels_of_nothing_that_is_there() -> None:
    labels = draw_crowd(1, (160, 160), CROWD)
    misfit = find_misfit(stained(np.roll(draw_crowd(2, (160, 160), CROWD), 41, 0), "H&E"), labels)
    assert misfit is not None
    assert misfit.better == ""
    assert misfit.message == f"labels do not lie on the nuclei (area under the ROC curve {misfit.area:.2f})"


def test_nothing_is_said_of_few_nuclei_and_blank_images() -> None:
    labels = draw_crowd(1, (160, 160), CROWD)
    two = np.where(labels <= 2, labels, 0)
    assert find_misfit(stained(np.rot90(two), "H&E"), two) is None
    assert find_misfit(stained(labels, "H&E"), np.zeros_like(labels)) is None


def test_brown_nuclei_count_as_nuclei() -> None:
    labels = draw_crowd(3, (160, 160), CROWD)
    brown = np.where((labels > 0)[..., None], (110, 70, 40), (225, 220, 228)).astype(np.uint8)
    assert find_misfit(brown, labels) is None
    misfit = find_misfit(brown, np.ascontiguousarray(np.rot90(labels)))
    assert misfit is not None
    assert misfit.better == "turned by 90° clockwise"


def test_the_area_is_the_share_of_pairs_in_order() -> None:
    signal = np.array([[1, 2, 3, 3]], np.float32)
    inside = np.array([[False, True, False, True]])
    assert area_under_roc(signal, inside) == pytest.approx(2.5 / 4)
    assert area_under_roc(signal, np.zeros_like(inside)) == 0.5


@pytest.fixture
def save_pairs(tmp_path: Path) -> Callable[..., Path]:
    """Save images and labels as a user's folder; `change` is done to the labels (a dict by number)."""

    def save(change: Callable[[dict[int, Labels]], dict[int, Labels]], shape: tuple[int, int] = (160, 160)) -> Path:
        labels = {number: draw_crowd(number, shape, CROWD) for number in range(4)}
        for kind, arrays in (
            ("images", {number: stained(one, "H&E", number) for number, one in labels.items()}),
            ("labels", {number: one.astype(np.uint16) for number, one in change(labels).items()}),
        ):
            (tmp_path / "user" / kind).mkdir(parents=True)
            for number, pixels in arrays.items():
                Image.fromarray(pixels).save(tmp_path / "user" / kind / f"f{number}.png")
        return tmp_path / "user"

    return save


def misplaced(folder: Path) -> list[Problem]:
    return [problem for problem in check_dataset(folder) if problem.kind == "misplaced"]


def test_check_and_import_name_the_turn(
    save_pairs: Callable[..., Path], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = save_pairs(lambda labels: labels | {2: np.rot90(labels[2])})
    (problem,) = misplaced(folder)
    assert (problem.level, problem.file) == ("warning", "labels/f2.png")
    assert problem.message.startswith("labels do not lie on the nuclei (area under the ROC curve 0.")
    assert "); turned by 90° clockwise they fit (" in problem.message
    import_dataset("folder", folder, tmp_path / "set", mpp=0.25)
    assert (
        f"{tmp_path / 'set'}: the labels of 1 of 4 images do not lie on the nuclei "
        "(f2: turned by 90° clockwise they fit); hemalum check names each" in caplog.messages
    )
    assert misplaced(tmp_path / "set") == [problem]


def test_check_names_exchanged_pairs(save_pairs: Callable[..., Path]) -> None:
    first, second = misplaced(save_pairs(lambda labels: labels | {1: labels[3], 3: labels[1]}))
    assert (first.file, second.file) == ("labels/f1.png", "labels/f3.png")
    assert "; those of labels/f3.png fit it (" in first.message
    assert "; those of labels/f1.png fit it (" in second.message


def test_check_looks_for_labels_of_another_image_among_outlines(save_pairs: Callable[..., Path]) -> None:
    folder = save_pairs(lambda labels: labels | {1: labels[3], 2: np.roll(labels[0], 41, 0)})
    (folder / "labels" / "f3.png").unlink()
    write_geojson(folder / "labels" / "f3.geojson", features_of(draw_crowd(1, (160, 160), CROWD)))
    exchanged = {problem.file: problem.message for problem in misplaced(folder)}
    assert "; those of labels/f3.geojson fit it (" in exchanged["labels/f1.png"]
    assert "; those of labels/f1.png fit it (" in exchanged["labels/f3.geojson"]
    assert "fit" not in exchanged["labels/f2.png"]


def test_outlines_beyond_their_regions_are_not_looked_for(save_pairs: Callable[..., Path]) -> None:
    """What lies beyond the annotated regions counts nowhere, so it is no label of another image either."""
    folder = save_pairs(lambda labels: labels | {1: np.roll(labels[0], 41, 0)})
    (folder / "labels" / "f3.png").unlink()
    detections = features_of(draw_crowd(1, (160, 160), CROWD), "detection")
    region = feature(rectangle(0, 0, 40, 40), name="Region*")
    write_geojson(folder / "labels" / "f3.geojson", [region, *detections])
    (problem,) = [problem for problem in misplaced(folder) if problem.file == "labels/f1.png"]
    assert "fit" not in problem.message


def test_check_names_the_turn_of_labels_of_another_size(save_pairs: Callable[..., Path]) -> None:
    folder = save_pairs(lambda labels: labels | {1: np.rot90(labels[1], -1)}, (120, 160))
    (problem,) = [problem for problem in check_dataset(folder) if problem.kind == "size"]
    assert problem == Problem(
        "error",
        "labels/f1.png",
        "size",
        "labels are 120 x 160, the image is 160 x 120; turned by 90° counterclockwise they fit",
    )


def test_labels_that_fit_are_not_spoken_of(
    save_pairs: Callable[..., Path], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = save_pairs(lambda labels: labels)
    import_dataset("folder", folder, tmp_path / "set", mpp=0.25)
    assert not misplaced(folder) + misplaced(tmp_path / "set")
    assert not [line for line in caplog.messages if "do not lie" in line]
