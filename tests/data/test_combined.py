"""Several dataset folders as one: what every image keeps, and what is refused."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from hemalum.data.check import check_dataset
from hemalum.data.dataset import Dataset, DatasetInfo, SplitInfo, write_index, write_sample
from hemalum.data.importing import import_dataset
from hemalum.data.sample import Sample
from hemalum.errors import HemalumError

PARTS = ("train", "val", "test")


def write_set(
    folder: Path, *, organ: str, mpp: float, seed: int, classes: dict[int, str] | None = None, ambiguous: bool = False
) -> Dataset:
    """A dataset folder of three images, one in each part; ids and groups are the same in every set."""
    folder.mkdir(parents=True)
    rng = np.random.default_rng(seed)
    labels = np.zeros((20, 20), np.int32)
    labels[3:9, 3:9], labels[12:18, 10:16] = 1, 2
    rows = []
    for part in PARTS:
        sample = Sample(
            image=rng.integers(0, 255, (20, 20, 3), np.uint8),
            instances=labels,
            id=part,
            group=f"patient {part}",
            organ=organ,
            stain="H&E",
            mpp=mpp,
            mpp_source="file",
            classes=None if classes is None else np.array([0, 1, 2], np.int32),
            ambiguous=labels == 2 if ambiguous else None,
        )
        rows.append(replace(write_sample(folder, sample), split=part))
    split = SplitInfo(by="image", seed=0, sha256="0" * 64, counts={})
    info = DatasetInfo(
        name=folder.name, images=3, nuclei=6, license=f"license of {organ}", citation=f"{organ} et al.",
        classes=classes, split=split,
    )  # fmt: skip
    write_index(folder, info, rows)
    return Dataset.open(folder)


@pytest.mark.fault
def test_a_set_that_is_combined_itself_is_taken_by_name_alone(tmp_path: Path) -> None:
    src = tmp_path / "src"
    write_set(src / "public", organ="liver", mpp=0.25, seed=0)
    write_set(src / "pairs", organ="lymph node", mpp=0.5, seed=1)
    first = import_dataset("combined", src, src / "both")
    with pytest.raises(HemalumError, match=r"both: is combined from others; name the sets to take, `option` names"):
        import_dataset("combined", src, src / "both", overwrite=True)
    again = import_dataset("combined", src, src / "both", overwrite=True, names="pairs,public")
    assert len(again) == len(first) == 6


def test_every_image_keeps_what_it_had(tmp_path: Path) -> None:
    public = write_set(tmp_path / "src" / "public", organ="liver", mpp=0.25, seed=0)
    pairs = write_set(tmp_path / "src" / "pairs", organ="lymph node", mpp=0.5, seed=1, ambiguous=True)
    combined = import_dataset("combined", tmp_path / "src", tmp_path / "both", names="public,pairs")
    assert [row.id for row in combined.rows] == [f"{name}_{part}" for name in ("public", "pairs") for part in PARTS]
    for row, origin in zip(combined.rows, (*public.rows, *pairs.rows), strict=True):
        for column in ("organ", "stain", "mpp", "mpp_source", "split", "nuclei", "sha256"):
            assert getattr(row, column) == getattr(origin, column)
    for sample, origin in zip(combined, (*public, *pairs), strict=True):
        np.testing.assert_array_equal(sample.instances, origin.instances)
        assert (sample.ambiguous is None) == (origin.ambiguous is None)
        if origin.ambiguous is not None:
            np.testing.assert_array_equal(sample.ambiguous, origin.ambiguous)
    assert len({row.group for row in combined.rows}) == 6  # patients of two sets are not one
    assert combined.info.license == "public: license of liver; pairs: license of lymph node"
    assert combined.info.citation == "public: liver et al.; pairs: lymph node et al."
    assert combined.info.split.published == "each set's own parts"
    assert [problem.kind for problem in check_dataset(combined.path)] == ["mpp"]  # two scales, each kept


def test_all_sets_are_taken_and_shares_can_divide_them_anew(tmp_path: Path) -> None:
    write_set(tmp_path / "src" / "b", organ="liver", mpp=0.5, seed=0, classes={1: "tumor", 2: "other"})
    write_set(tmp_path / "src" / "a", organ="brain", mpp=0.5, seed=1)
    (tmp_path / "src" / "notes").mkdir()
    both = import_dataset("combined", tmp_path / "src", tmp_path / "both", split=(0.5, 0.25, 0.25), seed=3)
    assert [row.id.partition("_")[0] for row in both.rows] == ["a"] * 3 + ["b"] * 3
    assert both.class_names == {1: "tumor", 2: "other"}
    assert [row.classes is None for row in both.rows] == [True] * 3 + [False] * 3
    assert both.info.split.fractions == (0.5, 0.25, 0.25)


@pytest.mark.fault
def test_what_cannot_be_combined(tmp_path: Path, error_line: Callable[..., str]) -> None:
    def line(**options: object) -> str:
        return error_line(lambda: import_dataset("combined", tmp_path / "src", tmp_path / "both", **options))

    write_set(tmp_path / "src" / "one", organ="liver", mpp=0.5, seed=0, classes={1: "tumor", 2: "other"})
    src = tmp_path / "src"
    assert line() == f"{src}: want two dataset folders or more, each with dataset.yaml; there is one"
    write_set(src / "two", organ="liver", mpp=0.5, seed=1, classes={1: "other", 2: "tumor"})
    assert line() == (
        f"{src}/two: its classes are 1 other, 2 tumor, those of {src}/one 1 tumor, 2 other: "
        "sets with different classes cannot be one"
    )
    assert line(names="one,tow") == f"{src}: no dataset folder 'tow', did you mean 'two'?"
    assert line(names="one,two,one") == "names one, two, one: a set is named twice"
    assert not (tmp_path / "both").exists()
