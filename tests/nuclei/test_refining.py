"""Cuts become straight and spurs go; nothing else changes."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import ArrayLike, NDArray
from scipy import ndimage

from builders.scenes import draw_crowd, draw_ellipses, smooth_field
from hemalum.nuclei.refining import refine
from hemalum.nuclei.separation import flood
from hemalum.nuclei.settings import SeparationSettings

STRAIGHT = SeparationSettings(straighten=2)
TRIM = SeparationSettings(spur_width=2)
BOTH = SeparationSettings(straighten=3, spur_width=2)

scenes = st.builds(
    lambda seed, shape, sigma: flood(
        smooth_field(seed, shape, sigma),
        smooth_field(seed + 1, shape, sigma),
        SeparationSettings(min_area=1, min_depth=0.05, marker=0.9),
    ),
    seed=st.integers(0, 10**6),
    shape=st.tuples(st.integers(1, 60), st.integers(1, 60)),
    sigma=st.floats(0.6, 4),
)


def two_halves(edge: ArrayLike) -> NDArray[np.int32]:
    """A block of 20 x 40 px cut in two at the column `edge` (20,)."""
    labels = np.zeros((26, 46), np.int32)
    labels[3:23, 3:43] = 1 + (np.arange(40)[None] >= np.asarray(edge)[:, None])
    return labels


def test_a_jagged_cut_becomes_straight() -> None:
    jagged = two_halves([20, 22, 18, 20, 23, 17, 20, 19, 21, 20, 20, 22, 18, 20, 21, 19, 17, 20, 22, 20])
    refined = refine(jagged, STRAIGHT)
    edges = (refined[3:23] == 1).sum(axis=1)
    assert ((refined > 0) == (jagged > 0)).all()
    assert np.abs(np.diff(edges)).max() <= 1 < np.abs(np.diff((jagged[3:23] == 1).sum(axis=1))).max()
    assert abs(int((refined == 1).sum()) - int((jagged == 1).sum())) < 15


def test_a_straight_cut_stays_where_it_is() -> None:
    straight = two_halves([20] * 20)
    assert (refine(straight, STRAIGHT) == straight).all()


def test_an_oblique_cut_stays_oblique() -> None:
    oblique = two_halves(10 + np.arange(20))
    assert (refine(oblique, STRAIGHT) == oblique)[8:18].all()  # its ends turn a little towards the outline


@pytest.mark.parametrize("turns", range(4))
def test_a_sliver_along_a_nucleus_goes_to_it_from_any_side(turns: int) -> None:
    """Each of its pixels has more of the large one around it; the last of them stays, for no nucleus goes."""
    labels = np.zeros((14, 16), np.int32)
    labels[2:9, 3:13] = 1
    labels[9, 6:10] = 2
    turned = np.rot90(labels, turns)
    refined = refine(np.ascontiguousarray(turned), STRAIGHT)
    assert sorted(np.bincount(refined.ravel())[1:]) == [1, 73]
    assert ((refined > 0) == (turned > 0)).all()


def test_a_spur_goes_and_the_nucleus_stays_as_it_was() -> None:
    plain = draw_ellipses((40, 60), [(20, 20, 12, 10, 0.5)])
    spurred = plain.copy()
    spurred[19:21, 30:50] = 1
    refined = refine(spurred, TRIM)
    assert refined[19:21, 36:].sum() == 0
    assert (refined[plain > 0] == 1).all()
    assert refined.sum() - plain.sum() <= 4


def test_a_spur_is_longer_than_twice_its_width() -> None:
    labels = np.zeros((30, 40), np.int32)
    labels[5:25, 5:20] = 1
    labels[14:16, 20:24] = 1
    assert (refine(labels, TRIM) == labels).all()
    labels[14:16, 24] = 1
    assert (refine(labels, TRIM) > 0).sum() == 20 * 15


@pytest.mark.parametrize("angle", [0, 0.3, 0.8, 1.2])
@pytest.mark.parametrize("half", [1.3, 1.6, 2.5])
def test_spindle_nuclei_are_kept(angle: float, half: float) -> None:
    truth = draw_ellipses((60, 60), [(30, 30, 20, half, angle)])
    pieces = ndimage.label(truth)[0]
    labels = (pieces == np.bincount(pieces.ravel())[1:].argmax() + 1).astype(np.int32)
    refined = refine(labels, TRIM)
    assert refined.sum() >= 0.9 * labels.sum()


def test_a_thin_bridge_is_no_spur() -> None:
    labels = draw_ellipses((40, 70), [(20, 15, 10, 10, 0)])
    labels[draw_ellipses((40, 70), [(20, 55, 10, 10, 0)]) > 0] = 1
    labels[20, 20:50] = 1
    assert (refine(labels, TRIM) == labels).all()


def test_a_ring_round_a_hole_is_no_spur() -> None:
    labels = np.zeros((30, 40), np.int32)
    labels[3:20, 3:20] = 1
    labels[6:16, 19:32] = 1
    labels[8:14, 20:30] = 0
    assert (refine(labels, TRIM) == labels).all()


def test_without_settings_nothing_happens() -> None:
    labels = draw_crowd(3)
    assert refine(labels, SeparationSettings()) is labels


def test_hand_drawn_nuclei_lose_next_to_nothing() -> None:
    labels = draw_crowd(11, (200, 220), 90)
    refined = refine(labels, BOTH)
    assert (refined > 0).sum() > 0.997 * (labels > 0).sum()


@given(labels=scenes, rule=st.sampled_from([STRAIGHT, TRIM, BOTH]))
@settings(max_examples=200)
def test_each_nucleus_stays_one_piece_and_none_goes(labels: NDArray[np.int32], rule: SeparationSettings) -> None:
    before = labels.copy()
    refined = refine(labels, rule)
    assert (labels == before).all()
    assert refined.max(initial=0) == labels.max(initial=0)
    ids, first = np.unique(refined, return_index=True)
    assert ids.max() == len(ids) - (0 in ids)
    assert (np.diff(first[ids > 0]) > 0).all()
    assert not (refined[labels == 0]).any()
    for n in ids[ids > 0]:
        assert ndimage.label(refined == n)[1] == 1
    if not rule.spur_width:
        assert ((refined > 0) == (labels > 0)).all()


@given(labels=scenes)
@settings(max_examples=100)
def test_only_thin_dead_ends_go(labels: NDArray[np.int32]) -> None:
    """Against an opening done nucleus by nucleus: what it keeps stays, and a nucleus loses a tenth at most."""
    refined = refine(labels, TRIM)
    for n in range(1, labels.max() + 1):
        nucleus = labels == n
        opened = ndimage.binary_opening(nucleus, np.ones((3, 3)))
        gone = nucleus & (refined == 0)
        assert not (gone & opened).any()
        assert gone.sum() <= 0.1 * nucleus.sum() + 1
        for piece in range(1, ndimage.label(gone)[1] + 1):
            spur = ndimage.label(gone)[0] == piece
            reach = ndimage.binary_dilation(opened, iterations=4, mask=nucleus)
            assert (spur & ~reach).any()


@given(labels=scenes, cut=st.integers(0, 60))
@settings(max_examples=100)
def test_nuclei_apart_do_not_matter(labels: NDArray[np.int32], cut: int) -> None:
    """Without the nuclei of other connected pieces of foreground, those of one come out the same."""
    pieces = ndimage.label(labels > 0)[0]
    chosen = pieces == cut % (pieces.max() + 1)
    separate = refine(np.where(chosen, labels, 0), BOTH)
    together = np.where(chosen, refine(labels, BOTH), 0)
    assert ((separate > 0) == (together > 0)).all()
    pairs = np.unique(np.stack([separate[separate > 0], together[together > 0]]), axis=1).T
    assert len(np.unique(pairs[:, 0])) == len(pairs) == len(np.unique(pairs[:, 1]))
