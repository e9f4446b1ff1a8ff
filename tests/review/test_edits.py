"""Edits by their pixels: what they name changes as drawn, and no other nucleus loses or gains a pixel."""

import numpy as np
import pytest
import shapely
from hypothesis import event, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from builders.reviews import apply, draw_labels, make_state, owners, square
from builders.scenes import draw_crowd
from hemalum.errors import HemalumError
from hemalum.review.edits import Edit, Points, accept, add, classify, delete, mark, merge, reject, reshape, split
from hemalum.review.item import ItemState
from hemalum.review.nucleus import MAX_POINTS


def centers_inside(points: Points, shape: tuple[int, int]) -> NDArray[np.bool_]:
    """Pixels whose center lies in the polygon, by shapely: the reference."""
    rows, columns = np.mgrid[: shape[0], : shape[1]] + 0.5
    inside: NDArray[np.bool_] = shapely.contains_xy(shapely.Polygon(points), columns, rows)
    return inside


def test_an_added_outline_holds_the_centers_inside_of_it() -> None:
    state = make_state()
    points = [[40.2, 30.1], [52.7, 33.3], [47.1, 47.8], [38.9, 41.0]]
    before, after = state.label_map(), apply(state, add(state, points)).label_map()
    drawn = centers_inside(points, before.shape)
    free = drawn & (before == 0)
    assert drawn.sum() > 90
    assert ((after == 5) == free).all()
    assert (after[~free] == before[~free]).all()


def test_an_outline_over_neighbors_gets_what_is_free_and_they_keep_theirs() -> None:
    state = make_state()
    before = state.label_map()
    points = square(10, 18, 14)  # over the lower parts of 1 and 2
    drawn = centers_inside(points, before.shape)
    assert (drawn & (before == 1)).sum() > 10
    assert (drawn & (before == 2)).sum() > 10
    after = apply(state, add(state, points)).label_map()
    assert (after[before > 0] == before[before > 0]).all()
    lost = drawn & (before == 0) & (after != 5)  # crumbs that the two cut off
    assert not ((after == 5) & ~drawn).any()
    assert lost.sum() <= 0.1 * (drawn & (before == 0)).sum()


def test_delete_and_reject_leave_no_pixel_and_reject_leaves_the_nucleus() -> None:
    state = make_state()
    for edit, there in ((delete(state, [2, 4]), False), (reject(state, [2, 4]), True)):
        after = apply(state, edit)
        assert (after.label_map() == np.where(np.isin(draw_labels(), [2, 4]), 0, draw_labels())).all()
        assert [id in after for id in (1, 2, 3, 4)] == [True, there, True, there]
    again = apply(apply(state, reject(state, [2])), accept(apply(state, reject(state, [2])), [2]))
    assert (again.label_map() == draw_labels()).all()
    assert again[2].state == "accepted"


def test_split_by_a_line_gives_each_pixel_to_its_side() -> None:
    state = make_state()
    after = apply(state, split(state, 4, [[50.0, 30.0], [70.25, 58.0]]))
    labels, before = after.label_map(), draw_labels()
    rows, columns = np.mgrid[: before.shape[0], : before.shape[1]] + 0.5
    side = (columns - 50) * 28 - (rows - 30) * 20.25 > 0
    parts = [(labels == id) for id in (5, 6)]
    assert sorted(after) == [1, 2, 3, 5, 6]
    assert all(part.sum() > 80 for part in parts)
    assert ((parts[0] | parts[1]) == (before == 4)).all()
    # one part is all that lies on one side
    assert any((part == ((before == 4) & side)).all() for part in parts)


def test_split_by_a_bent_line_through_a_concave_nucleus() -> None:
    shape = (40, 40)
    labels = np.zeros(shape, np.int32)
    labels[5:35, 5:12] = labels[28:35, 5:35] = labels[5:35, 28:35] = 1  # a U
    state = make_state(labels)
    after = apply(state, split(state, 1, [[2.0, 15.0], [20.0, 16.0], [38.0, 15.0]]))
    counts = np.bincount(after.label_map().ravel())[2:]
    assert len(counts) == 3
    assert counts.sum() == (labels == 1).sum()


def test_merge_joins_pixels_of_touching_nuclei_exactly() -> None:
    state = make_state()
    after = apply(state, merge(state, [1, 2]))
    before = draw_labels()
    assert sorted(after) == [3, 4, 5]
    assert ((after.label_map() == 5) == np.isin(before, [1, 2])).all()


def test_merge_bridges_a_gap_of_two_pixels_and_no_more() -> None:
    for gap, joined in ((1, True), (2, True), (3, False)):
        labels = np.zeros((20, 40), np.int32)
        labels[5:15, 5:15], labels[5:15, 15 + gap : 25 + gap] = 1, 2
        state = make_state(labels)
        if joined:
            expected = np.zeros(labels.shape, np.int32)
            expected[5:15, 5 : 25 + gap] = 3
            assert (apply(state, merge(state, [1, 2])).label_map() == expected).all()
        else:
            with pytest.raises(HemalumError, match="nuclei 1 and 2 do not touch: reshape one of them first"):
                merge(state, [1, 2])


def test_reshape_keeps_id_and_class() -> None:
    state = make_state(class_names=("tumor", "stroma"))
    state = apply(state, classify(state, [4], "stroma"))
    points = square(50, 34, 12)
    after = apply(state, reshape(state, 4, points))
    assert (after[4].class_name, after[4].state) == ("stroma", "accepted")
    assert ((after.label_map() == 4) == centers_inside(points, state.item.shape)).all()


def test_ids_are_never_used_again() -> None:
    state = make_state()
    state = apply(state, add(state, square(30, 40)))
    state = apply(state, delete(state, [5]))
    state = apply(state, add(state, square(30, 40)))
    assert sorted(state) == [1, 2, 3, 4, 6]


def test_status_of_the_item() -> None:
    state = make_state()
    assert apply(state, mark(state, "reviewed")).status == "reviewed"


BOWTIE = [[30, 40], [40, 50], [40, 40], [30, 50]]


@pytest.mark.fault
@pytest.mark.parametrize(
    ("points", "message"),
    [
        (BOWTIE, r"the outline crosses itself at \(35, 45\): draw it without"),
        ([[30, 40], [40, 50]], "the outline has fewer than three points: draw it around the nucleus"),
        ([[30, 40], [40, 50], [30, 40], [30.001, 40]], "the outline has fewer than three points"),
        ([[30, 40], [35, 45], [40, 50]], "the outline has no area"),
        ([[70, 50], [90, 50], [70, 55]], r"leaves the image \(80 x 60 px\) at \(90, 50\): draw it inside"),
        ([[-1, 50], [9, 50], [7, 55]], r"leaves the image \(80 x 60 px\) at \(-1, 50\)"),
        ([[1, float("nan")], [9, 50], [7, 55]], "is not a list of points .* of finite numbers"),
        ([[1, 2, 3]] * 4, "is not a list of points"),
        ([["a", "b"]] * 4, "is not a list of points"),
        ([[1, 2], [3]], "is not a list of points"),
        ([], "is not a list of points"),
        (square(0, 0, 5) * 250_000, f"has 1,250,000 points; at most {MAX_POINTS:,} are taken: simplify it"),
        (square(30.6, 40.6, 0.3), "the outline holds not one pixel: draw it larger"),
        (square(57, 41, 4), "the outline lies wholly on nucleus 4: delete or reshape what is there"),
        (square(48, 32, 25), "the outline goes round nucleus 4: delete or merge what is inside"),
        ([[20, 2], [35, 2], [35, 28], [20, 28]], "the outline is cut into pieces by nucleus 2: draw one on each"),
    ],
)  # fmt: skip
def test_outlines_that_are_refused(points: list[list[float]], message: str) -> None:
    state = make_state()
    with pytest.raises(HemalumError, match=message):
        add(state, points)


@pytest.mark.fault
@pytest.mark.parametrize(
    ("points", "message"),
    [
        ([[55, 44], [65, 44]], "the line does not cut nucleus 4 in two: begin and end it outside of the outline"),
        ([[1, 50], [9, 50]], "the line does not cut nucleus 4 in two"),
        ([[55, 44]], "the line has fewer than two points: draw it across the nucleus"),
        ([[45, 40], [75, 40], [75, 50], [60, 30]], "the line crosses itself: draw it once across the nucleus"),
        ([[45, 40], [99, 40]], r"the line leaves the image \(80 x 60 px\) at \(99, 40\): draw it inside"),
    ],
)
def test_lines_that_are_refused(points: list[list[float]], message: str) -> None:
    with pytest.raises(HemalumError, match=message):
        split(make_state(), 4, points)


@pytest.mark.fault
def test_nuclei_and_classes_that_there_are_not() -> None:
    state = make_state(class_names=("tumor", "stroma"))
    deleted = apply(state, delete(state, [2]), author="Ben")
    with pytest.raises(HemalumError, match=r"nucleus 2 is not there: Ben at 2026-01-01 00:00:00 UTC \(delete\)"):
        reshape(deleted, 2, square(20, 40))
    with pytest.raises(HemalumError, match=r"nucleus 77 is not there$"):
        delete(state, [77])
    with pytest.raises(HemalumError, match="no nucleus is chosen"):
        delete(state, [])
    with pytest.raises(HemalumError, match="1,001 nuclei are chosen; at most 1,000 are changed at once"):
        delete(state, range(1, 1002))
    with pytest.raises(HemalumError, match=r"there is no class 'stromal', did you mean 'stroma'\?"):
        classify(state, [1], "stromal")
    with pytest.raises(HemalumError, match="there is no class 'x'; known: stroma, tumor"):
        add(state, square(30, 40), "x")
    with pytest.raises(HemalumError, match="give two or more nuclei to merge"):
        merge(state, [1, 1])
    rejected = apply(state, reject(state, [2]))
    for call in (
        lambda: merge(rejected, [1, 2]),
        lambda: reshape(rejected, 2, square(20, 10)),
        lambda: split(rejected, 2, [[10, 15], [50, 15]]),
    ):
        with pytest.raises(HemalumError, match="nucleus 2 is rejected: accept it first"):
            call()
    with pytest.raises(HemalumError, match="status 'done'; known: open, reviewed, skipped"):
        mark(state, "done")  # type: ignore[arg-type]


@pytest.mark.fault
def test_what_was_rejected_is_not_accepted_over_another() -> None:
    state = make_state()
    state = apply(state, reject(state, [4]))
    state = apply(state, add(state, square(57, 41, 6)))
    with pytest.raises(
        HemalumError, match="nucleus 4 would lie on pixels of nucleus 5: delete or reshape that first"
    ):
        accept(state, [4])


@pytest.mark.fault
def test_a_merged_nucleus_does_not_go_round_another() -> None:
    labels = np.zeros((30, 30), np.int32)
    labels[5:25, 5:25] = 1
    labels[5:25, 15:25] = 2
    labels[12:18, 12:18] = 3
    state = make_state(labels)
    with pytest.raises(
        HemalumError, match="the merged nucleus would go round nucleus 3: merge that as well, or delete"
    ):
        merge(state, [1, 2])


def test_nuclei_to_start_with_share_no_pixel_even_where_one_goes_round_another() -> None:
    labels = np.zeros((30, 30), np.int32)
    labels[5:25, 5:25] = 1
    labels[12:18, 12:18] = 2
    state = make_state(labels)
    assert len(state) == 2
    assert owners(state).max() == 1
    after = state.label_map()
    assert ((after == 2) == (labels == 2)).all()
    # the outer one is opened by a slit one pixel wide
    assert not ((after == 1) & (labels != 1)).any()
    assert ((labels == 1) & (after != 1)).sum() == 7


VERBS = ("add", "reshape", "split", "merge", "delete", "reject", "accept")
# a verb, which nucleus, and where to draw: middle, radii of a star's points, share of the height that a line cuts at
steps = st.tuples(
    st.sampled_from(VERBS),
    st.integers(0, 10**6),
    st.tuples(st.floats(12, 78), st.floats(12, 58)),
    st.lists(st.floats(1, 12), min_size=3, max_size=9),
    st.floats(0, 1),
)
Step = tuple[str, int, tuple[float, float], list[float], float]


def make_edit(state: ItemState, step: Step) -> tuple[Edit, set[int]]:
    """The edit of a step, and the ids that it names."""
    verb, choice, middle, radii, share = step
    ids = sorted(state)
    chosen = ids[choice % len(ids)]
    angles = np.linspace(0, 2 * np.pi, len(radii), endpoint=False)
    star = np.array(middle) + np.array(radii)[:, None] * np.column_stack([np.cos(angles), np.sin(angles)])
    ring = state[chosen].ring
    if verb == "add":
        return add(state, star), set()
    if verb == "reshape":
        return reshape(state, chosen, star), {chosen}
    if verb == "split":
        (left, top), (right, bottom) = ring.min(axis=0), ring.max(axis=0)
        height = top + share * (bottom - top)
        return split(state, chosen, [[max(left - 2, 0), height], [min(right + 2, 90), bottom + top - height]]), {
            chosen
        }
    if verb == "merge":
        pair = {chosen, *(id for id, _ in state.near([ring], {chosen})[:1])}
        return merge(state, pair), pair
    simple = {"delete": delete, "reject": reject, "accept": accept}[verb]
    return simple(state, [chosen]), {chosen}


@given(seed=st.integers(0, 10**6), edits=st.lists(steps, min_size=1, max_size=8))
@settings(max_examples=25)
def test_no_edit_touches_the_pixels_of_a_nucleus_that_it_does_not_name(seed: int, edits: list[Step]) -> None:
    state = make_state(draw_crowd(seed, (70, 90), 15))
    for step in edits:
        if not len(state):
            return
        before = state.label_map()
        try:
            edit, named = make_edit(state, step)
        except HemalumError:
            continue
        event(edit.kind)  # hypothesis counts them: --hypothesis-show-statistics
        new = range(state.next_id, state.next_id + len(edit.new))
        state = apply(state, edit)
        after = state.label_map()
        mine = np.isin(before, list(named))
        others = (before > 0) & ~mine
        assert (after[others] == before[others]).all()
        assert owners(state).max() <= 1
        if edit.kind == "split":
            # but for centers on the line itself, or within 1/64 px of where it meets the outline
            assert (np.isin(after, new) != mine).sum() <= 2
        if edit.kind == "merge":
            assert (after[mine] == new[0]).all()
