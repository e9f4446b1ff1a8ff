"""Folds that publications define: TNBC by patient, NuInsSeg by tile as scikit-learn makes them."""

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from sklearn.model_selection import KFold

from hemalum.data.importing import import_dataset
from hemalum.data.readers import READERS, nuinsseg, tnbc
from hemalum.data.splits import Member
from hemalum.errors import HemalumError

ORGANS = ("human bladder", "human brain", "mouse fat (white and brown)_subscapula", "mouse muscle_tibia")


def full_nuinsseg() -> list[Member]:
    """665 members in an order that is not that of their names, ids as the import writes them."""
    members = []
    for number in range(665):
        organ = ORGANS[number % 4]
        name = f"{organ.replace(' ', '_').replace('(', '_').replace(')', '_')}_{number // 4 + 1:03d}"
        members.append(Member(name, organ, source=organ))
    return [members[index] for index in np.random.default_rng(1).permutation(665)]


@pytest.mark.parametrize("fold", range(1, 6))
def test_nuinsseg_folds_are_those_of_scikit_learn(fold: int) -> None:
    members = full_nuinsseg()
    paths = sorted(f"{member.source}/tissue images/{member.id}.png" for member in members)
    train, test = list(KFold(n_splits=5, shuffle=True, random_state=19).split(paths))[fold - 1]
    parts = nuinsseg.published(members, fold)
    names = [path.rpartition("/")[2].removesuffix(".png") for path in paths]
    assert {name for name, part in parts.items() if part == "test"} == {names[index] for index in test}
    assert {name for name, part in parts.items() if part == "train"} == {names[index] for index in train}


def test_nuinsseg_folds_test_each_image_once() -> None:
    members = full_nuinsseg()
    tested = Counter(
        name for fold in range(1, 6) for name, part in nuinsseg.published(members, fold).items() if part == "test"
    )
    assert tested == dict.fromkeys((member.id for member in members), 1)


def save(path: Path, pixels: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)


@pytest.fixture
def nuinsseg_archive(tmp_path: Path) -> Path:
    for organ in ORGANS:
        for number in (1, 2, 3):
            name = f"{organ.replace(' ', '_')}_{number}.png"
            save(tmp_path / f"src/{organ}/tissue images/{name}", np.full((8, 8, 3), 40 * number, np.uint8))
            save(tmp_path / f"src/{organ}/label masks modify/{name}", np.eye(8, dtype=np.uint8))
    return tmp_path / "src"


def test_nuinsseg_folds_need_the_whole_set(nuinsseg_archive: Path, tmp_path: Path) -> None:
    with pytest.raises(HemalumError) as error:
        import_dataset("nuinsseg", nuinsseg_archive, tmp_path / "set", split="published", fold=2)
    assert str(error.value) == (
        "the published folds are made of all 665 images, here are 12; import both species whole, or split by shares"
    )


def test_nuinsseg_is_split_by_organ_unless_asked(
    nuinsseg_archive: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(nuinsseg, "PUBLISHED", {"both": 12, "human": 6, "mouse": 6})
    dataset = import_dataset("nuinsseg", nuinsseg_archive, tmp_path / "shares")
    assert dataset.info.split.published is None
    assert all(len({row.split for row in dataset.rows if row.group == organ}) == 1 for organ in ORGANS)
    assert "published" not in caplog.text
    dataset = import_dataset("nuinsseg", nuinsseg_archive, tmp_path / "published", fold=1)
    assert dataset.info.split.fold == 1
    assert dataset.info.split.counts["test"] == 3
    assert "the published split of nuinsseg does not keep groups together" in caplog.text


def patients(*names: str) -> list[Member]:
    return [Member(f"{name}_{number}", name) for name in names for number in (1, 2)]


ELEVEN = [f"{number:02d}" for number in range(1, 12)]


@pytest.mark.parametrize("fold", [1, 11])
def test_tnbc_leaves_one_patient_out(fold: int) -> None:
    parts = tnbc.published(patients(*ELEVEN), fold)
    assert [name for name, part in parts.items() if part == "test"] == [f"{fold:02d}_1", f"{fold:02d}_2"]
    assert Counter(parts.values()) == {"train": 20, "test": 2}


def test_tnbc_faults() -> None:
    with pytest.raises(HemalumError) as error:
        tnbc.published(patients("01", "03"), 2)
    assert str(error.value) == "fold 2 tests on patient 02, who is not there; patients are 01, 03"
    with pytest.raises(HemalumError) as error:
        tnbc.published(patients(*ELEVEN, "12"), 2)
    assert str(error.value) == (
        "patient 12 is none of the 11 of the published split; take the folders Slide_12 and GT_12 away, or split by "
        "shares"
    )


@pytest.mark.fault
def test_tnbc_import(tmp_path: Path) -> None:
    for patient in ELEVEN:
        for number in (1, 2):
            save(tmp_path / f"src/Slide_{patient}/{patient}_{number}.png", np.full((8, 8, 3), 9, np.uint8))
            save(tmp_path / f"src/GT_{patient}/{patient}_{number}.png", np.eye(8, dtype=np.uint8) * 255)
    shares = import_dataset("tnbc", tmp_path / "src", tmp_path / "shares")
    assert shares.info.split.published is None  # one fold of eleven is no evaluation: it has to be asked for
    fold = import_dataset("tnbc", tmp_path / "src", tmp_path / "fold", split="published", fold=7)
    assert {row.group for row in fold.rows if row.split == "test"} == {"07"}
    assert len({row.group for row in fold.rows if row.split == "val"}) == 1  # a patient, cut from the other ten
    assert fold.info.split.published == READERS["tnbc"].published_rule
    with pytest.raises(HemalumError, match="fold 12: format tnbc has folds 1 to 11"):
        import_dataset("tnbc", tmp_path / "src", tmp_path / "none", fold=12)
