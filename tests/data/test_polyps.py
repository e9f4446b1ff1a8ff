"""Polyp sets: a miniature of each layout in which they are handed on, and faults as one change each."""

from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image

from hemalum.data.importing import import_dataset
from hemalum.data.readers import READERS
from hemalum.errors import HemalumError


def two_polyps() -> np.ndarray:
    """(40, 52) uint8 mask of two rectangles, 0 and 255."""
    mask = np.zeros((40, 52), np.uint8)
    mask[4:20, 4:20] = 255
    mask[24:36, 28:48] = 255
    return mask


def save(path: Path, pixels: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix in (".tif", ".tiff"):
        tifffile.imwrite(path, pixels)
    else:
        Image.fromarray(pixels).save(path)


def frame(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (40, 52, 3), dtype=np.uint8)


# what stands for the number in the names of frames and of masks, under each root
LAYOUTS = {
    "etis": [
        ("ETIS-LaribPolypDB/ETIS-LaribPolypDB/{}.tif", "ETIS-LaribPolypDB/Ground Truth/p{}.tif"),
        ("images/{}.png", "masks/{}.png"),
    ],
    "colondb": [
        ("CVC-ColonDB/CVC-ColonDB/{}.tiff", "CVC-ColonDB/CVC-ColonDB/p{}.tiff"),
        ("{}.bmp", "p{}.bmp"),
        ("CVC-ColonDB/images/{}.png", "CVC-ColonDB/masks/{}.png"),
    ],
    "clinicdb": [
        ("CVC-ClinicDB/Original/{}.tif", "CVC-ClinicDB/Ground Truth/{}.tif"),
        ("PNG/Original/{}.png", "PNG/Ground Truth/{}.png"),
        ("images/{}.png", "masks/{}.png"),
    ],
    "kvasir": [
        ("Kvasir-SEG/images/cju0qkwl35piu0993l0dewei{}.jpg", "Kvasir-SEG/masks/cju0qkwl35piu0993l0dewei{}.jpg"),
        ("images/cju0qkwl35piu0993l0dewei{}.png", "masks/cju0qkwl35piu0993l0dewei{}.png"),
    ],
}
CASES = [(name, *layout) for name, layouts in LAYOUTS.items() for layout in layouts]


def build(root: Path, frames: str, masks: str, numbers: Iterable[int] = (1, 2, 10)) -> Path:
    for number in numbers:
        save(root / frames.format(number), frame(number))
        save(root / masks.format(number), two_polyps())
    return root


@pytest.mark.parametrize(("name", "frames", "masks"), CASES)
def test_every_layout(tmp_path: Path, name: str, frames: str, masks: str) -> None:
    build(tmp_path, frames, masks)
    if frames == "CVC-ColonDB/CVC-ColonDB/{}.tiff":  # masks of other things beside
        for number in (1, 2, 10):
            for other in "sc":
                save(tmp_path / f"CVC-ColonDB/CVC-ColonDB/{other}{number}.tiff", two_polyps() * 0)
    samples = list(READERS[name].read(tmp_path))
    assert [sample.id.removeprefix("cju0qkwl35piu0993l0dewei") for sample in samples] == ["1", "2", "10"]
    for sample in samples:
        assert np.array_equal(sample.instances > 0, two_polyps() > 0)
        assert np.unique(sample.instances).tolist() == [0, 1, 2]
        assert (sample.stain, sample.classes, sample.mpp, sample.organ) == (None, None, None, "colon")
        assert sample.group == sample.id
    if not frames.endswith("jpg"):
        assert np.array_equal(samples[2].image, frame(10))


def test_masks_are_cut_at_half_of_their_range(tmp_path: Path) -> None:
    build(tmp_path, "images/{}.png", "masks/{}.png")
    gray = np.full((40, 52), 127, np.uint8)
    gray[3:9, 3:9] = 128
    save(tmp_path / "masks/1.png", gray)
    save(tmp_path / "masks/2.png", two_polyps() // 255)
    save(tmp_path / "masks/10.png", np.zeros((40, 52), np.uint8))
    half, ones, none = READERS["etis"].read(tmp_path)
    assert half.instances.sum() == 36
    assert np.array_equal(ones.instances > 0, two_polyps() > 0)
    assert none.instances.max() == 0


def test_the_log_says_that_videos_are_not_told_apart(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    build(tmp_path, "images/{}.png", "masks/{}.png")
    list(READERS["colondb"].read(tmp_path))
    assert caplog.messages == [
        f"{tmp_path}: the set does not say which frames are of one video, so each frame is a group of its own, and "
        "frames of one video may be on both sides of a split: give the option run=N for runs of N frames"
    ]


def test_consecutive_frames_are_one_group_and_stay_in_one_part(tmp_path: Path) -> None:
    numbers = range(1, 25)
    source = build(tmp_path / "source", "images/{}.png", "masks/{}.png", numbers)
    groups = {int(sample.id): sample.group for sample in READERS["colondb"].read(source, run=4)}
    assert groups == {number: f"run {(number + 3) // 4}" for number in numbers}
    dataset = import_dataset("colondb", source, tmp_path / "out", mpp=0.6, split=(0.5, 0.25, 0.25), run="4")
    parts = {int(row.id): row.split for row in dataset.rows}
    assert set(parts.values()) == {"train", "val", "test"}
    for first in range(1, 25, 4):
        assert len({parts[number] for number in range(first, first + 4)}) == 1


@pytest.mark.fault
def test_runs_that_cannot_be_are_refused(tmp_path: Path, clinic: Path) -> None:
    with pytest.raises(HemalumError, match=r"option run is 3; leave it out: .*metadata\.csv says it$"):
        list(READERS["clinicdb"].read(clinic, run=3))
    source = build(tmp_path / "k", "images/cju0qkwl35piu0993l0dewei{}.png", "masks/cju0qkwl35piu0993l0dewei{}.png")
    with pytest.raises(HemalumError, match="option run is 3; leave it out: its frames are not numbered"):
        list(READERS["kvasir"].read(source, run=3))
    with pytest.raises(HemalumError, match="option run is -1; want 1 or more"):
        list(READERS["colondb"].read(build(tmp_path / "c", "images/{}.png", "masks/{}.png"), run=-1))


@pytest.fixture
def clinic(tmp_path: Path) -> Path:
    """The mirror of ClinicDB that comes with a table of frames and sequences."""
    root = build(tmp_path / "src", "PNG/Original/{}.png", "PNG/Ground Truth/{}.png", range(1, 13))
    build(root, "TIF/Original/{}.tif", "TIF/Ground Truth/{}.tif", range(1, 13))
    lines = ["frame_id,sequence_id,tif_image_path,tif_mask_path,png_image_path,png_mask_path"]
    lines += [
        f"{n},{(n - 1) // 3 + 1},TIF/Original/{n}.tif,TIF/Ground Truth/{n}.tif,PNG/Original/{n}.png,"
        f"PNG/Ground Truth/{n}.png"
        for n in range(1, 13)
    ]
    (root / "metadata.csv").write_text("\n".join(lines) + "\n")
    return root


def test_sequences_are_kept_together(clinic: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    samples = list(READERS["clinicdb"].read(clinic))
    assert [sample.group for sample in samples[:4]] == ["sequence 1"] * 3 + ["sequence 2"]
    assert caplog.messages == []
    dataset = import_dataset("clinicdb", clinic, tmp_path / "set")
    parts = {row.group: {other.split for other in dataset.rows if other.group == row.group} for row in dataset.rows}
    assert len(parts) == 4
    assert all(len(names) == 1 for names in parts.values())


@pytest.mark.parametrize(
    ("old", "new", "line"),
    [
        ("sequence_id", "sequence", "metadata.csv: column 'sequence_id' is missing; its first row is "),
        ("\n5,2,", "\n5,,", "metadata.csv, row 6: frame_id or sequence_id is empty"),
        ("\n5,2,", "\n55,2,", "metadata.csv: no row with frame_id 5; it tells the sequence"),
    ],
)
def test_faults_of_the_table(clinic: Path, old: str, new: str, line: str) -> None:
    file = clinic / "metadata.csv"
    file.write_text(file.read_text().replace(old, new, 1))
    with pytest.raises(HemalumError) as error:
        list(READERS["clinicdb"].read(clinic))
    assert str(error.value).startswith(f"{clinic}/{line}")


def test_faults(tmp_path: Path) -> None:
    root = build(tmp_path, "Original/{}.tif", "Ground Truth/{}.tif")

    def line(name: str = "clinicdb") -> str:
        with pytest.raises(HemalumError) as error:
            list(READERS[name].read(root))
        return str(error.value)

    save(root / "Ground Truth/2.tif", np.zeros((40, 50), np.uint8))
    assert line() == f"{root}/Ground Truth/2.tif: mask is 50 x 40, its frame 52 x 40"
    save(root / "Ground Truth/2.tif", np.full((40, 52), 700, np.uint16))
    assert line() == f"{root}/Ground Truth/2.tif: mask has values up to 700; want 0 to 255, or 0 and 1"
    (root / "Ground Truth/2.tif").unlink()
    assert line() == f"{root}/Ground Truth/2.tif: missing; it is the mask of {root}/Original/2.tif"
    (root / "Original/2.tif").rename(root / "Original/two.tif")
    assert line() == f"{root}/Original/two.tif: no frame of clinicdb, whose frames are numbered"
    for file in (root / "Original").iterdir():
        file.unlink()
    assert line() == f"{root}/Original: no frames"
    assert line("kvasir") == f"{root}: no frames with masks of kvasir; want images/ and masks/*"
    assert line("etis") == (
        f"{root}: no frames with masks of etis; want ETIS-LaribPolypDB/ and Ground Truth/p*; or images/ and masks/*"
    )


@pytest.mark.fault
def test_kvasir_is_told_by_its_names(tmp_path: Path) -> None:
    build(tmp_path, "images/cju{}.jpg", "masks/cju{}.jpg")
    with pytest.raises(
        HemalumError, match=r"images/cju1\.jpg: no frame of etis, whose frames are numbered; it looks"
    ):
        import_dataset("etis", tmp_path, tmp_path / "set")
    build(tmp_path / "other", "images/{}.png", "masks/{}.png")
    with pytest.raises(HemalumError, match=r"no frame of kvasir, whose frames are named like cju0qkwl35piu0993l0dew"):
        list(READERS["kvasir"].read(tmp_path / "other"))
