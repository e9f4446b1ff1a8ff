"""The simulated expert: afterwards the nuclei are the true ones, by edits as a reviewer makes them."""

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from builders.reviews import NAME, PROJECT, draw_labels, make_item
from hemalum.errors import HemalumError
from hemalum.nuclei.nuclei import Nuclei
from hemalum.review.journal import Journal
from hemalum.review.nucleus import largest_piece
from hemalum.review.simulate import EXPERT, correct_item

Labels = NDArray[np.int32]


def make_journal(folder: Path, proposed: Labels) -> Journal:
    journal = Journal.create(folder / "review.sqlite", PROJECT)
    journal.add_item(make_item(proposed), Nuclei.from_labels(proposed))
    return journal


def same_pieces(one: Labels, other: Labels) -> bool:
    """Whether two label maps have the same nuclei, whatever their ids."""
    pairs = {(a, b) for a, b in zip(one.ravel().tolist(), other.ravel().tolist(), strict=True)}
    return len(pairs) == len({a for a, _ in pairs}) == len({b for _, b in pairs})


def test_one_edit_for_each_fault(tmp_path: Path) -> None:
    truth = draw_labels()
    proposed = truth.copy()
    proposed[proposed == 4] = 0  # missed
    proposed[50:56, 10:16] = 5  # no nucleus
    proposed[(proposed == 3) & (np.indices(truth.shape)[0] > 17)] = 0  # a poor outline, IoU about 0.7
    with make_journal(tmp_path, proposed) as journal:
        done = correct_item(journal, NAME, truth)
        state = journal.state(NAME)
        by_kind = [event.kind for event in journal.events(NAME)]
        authors = {event.author for event in journal.events(NAME)}
    assert done.edits == Counter(reject=1, reshape=1, add=1)
    assert done.total == 3
    assert done.left == ()
    assert by_kind == ["reject", "reshape", "add", "mark"]
    assert authors == {EXPERT}
    assert state.status == "reviewed"
    assert same_pieces(state.label_map(), truth)


def test_what_is_right_is_left_alone(tmp_path: Path) -> None:
    with make_journal(tmp_path, draw_labels()) as journal:
        done = correct_item(journal, NAME, draw_labels(), poor=1)
        assert done.total == 0
        assert [event.kind for event in journal.events(NAME)] == ["mark"]


def test_two_that_lie_on_each_other_s_place(tmp_path: Path) -> None:
    """Each of two neighbors holds pixels of the other: neither can be drawn before the other has moved."""
    truth, proposed = np.zeros((2, 40, 60), np.int32)
    truth[10:30, 10:30], truth[10:30, 30:50] = 1, 2
    proposed[10:20, 10:34], proposed[20:30, 10:26] = 1, 1
    proposed[10:20, 34:50], proposed[20:30, 26:50] = 2, 2
    with make_journal(tmp_path, proposed) as journal:
        done = correct_item(journal, NAME, truth, poor=1)
        assert same_pieces(journal.state(NAME).label_map(), truth)
    assert done.edits == Counter(delete=1, reshape=1, add=1)
    assert done.left == ()


@pytest.mark.parametrize("seed", range(6))
def test_any_proposal_becomes_the_truth(seed: int, tmp_path: Path) -> None:
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:96, :96]

    def draw(count: int) -> Labels:
        labels = np.zeros((96, 96), np.int32)
        for index in range(1, count + 1):
            cy, cx, a, b = *rng.integers(8, 88, 2), *rng.integers(4, 11, 2)
            labels[((y - cy) / a) ** 2 + ((x - cx) / b) ** 2 < 1] = index
        return labels

    truth = draw(25)
    for id in range(1, 26):
        if (truth == id).any():  # what others have cut off is no nucleus of its own
            truth[(truth == id) & ~largest_piece(truth == id)[0]] = 0
    proposed = np.where(rng.uniform(size=truth.shape) < 0.97, np.roll(truth, (1, -2), (0, 1)), draw(20) + 50)
    proposed = np.ascontiguousarray(proposed * (proposed != 50), np.int32)
    with make_journal(tmp_path, proposed) as journal:
        done = correct_item(journal, NAME, truth, poor=1)
        corrected = journal.state(NAME).label_map()
        by_kind = Counter(event.kind for event in journal.events(NAME))
    del by_kind["mark"]
    assert done.edits == by_kind
    assert done.left == ()
    assert same_pieces(corrected, truth)


def test_outlines_that_are_good_enough_stay(tmp_path: Path) -> None:
    truth = draw_labels()
    proposed = truth.copy()
    proposed[44, 51:53] = 0
    with make_journal(tmp_path, proposed) as journal:
        assert correct_item(journal, NAME, truth).total == 0
        assert correct_item(journal, NAME, truth, poor=1).edits == Counter(reshape=1)


@pytest.mark.fault
def test_a_truth_of_another_size(tmp_path: Path) -> None:
    with make_journal(tmp_path, draw_labels()) as journal, pytest.raises(HemalumError) as caught:
        correct_item(journal, NAME, np.zeros((5, 5), np.int32))
    assert str(caught.value) == f"{NAME}: the truth is (5, 5), the item (60, 80)"
