"""The journal: what was acknowledged is there, two reviewers lose nothing, and every change can be taken back."""

import os
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from builders.reviews import NAME, PROJECT, draw_labels, make_item, make_journal, owners, square
from hemalum.errors import HemalumError
from hemalum.nuclei.nuclei import Nuclei
from hemalum.review.conflicts import Conflict
from hemalum.review.edits import Edit, accept, add, classify, delete, mark, merge, reject, reshape, split
from hemalum.review.item import ITEM, ItemState
from hemalum.review.journal import Journal
from hemalum.review.nucleus import Nucleus


def same(one: ItemState, other: ItemState) -> bool:
    """Whether two states hold the same nuclei and status."""
    return dict(one) == dict(other) and one.status == other.status


def commit(journal: Journal, edit: Edit, author: str = "Anna") -> None:
    journal.append(NAME, author, edit, journal.state(NAME).version)


def test_an_item_is_in_the_journal_or_not(tmp_path: Path) -> None:
    with make_journal(tmp_path) as journal:
        assert NAME in journal
        assert "another.png" not in journal


def test_labels_are_a_fold_over_events_that_another_process_sees(tmp_path: Path) -> None:
    with make_journal(tmp_path) as journal, Journal.open(tmp_path / "review.sqlite", PROJECT) as second:
        assert (second.state(NAME).label_map() == draw_labels()).all()
        commit(journal, merge(journal.state(NAME), [1, 2]))
        commit(journal, split(journal.state(NAME), 4, [[45, 44], [75, 44]]))
        commit(journal, mark(journal.state(NAME), "reviewed"))
        state, seen = journal.state(NAME), second.state(NAME)
        assert sorted(state) == [3, 5, 6, 7]
        assert same(state, seen)
        assert (state.version, state.next_id, state.status) == (3, 8, "reviewed")
        assert same(second.state(NAME, version=0), journal.state(NAME, version=0))
        assert sorted(second.state(NAME, version=1)) == [3, 4, 5]
        first, *_, last = second.events(NAME)
        assert (first.kind, first.author, first.parent, sorted(first.before.nuclei)) == (
            "merge",
            "Anna",
            0,
            [1, 2, 5],
        )
        assert first.time.endswith("+00:00")
        assert (last.before.status, last.after.status) == ("open", "reviewed")


def test_undo_and_redo_go_back_to_the_beginning_and_forth_again(tmp_path: Path) -> None:
    with make_journal(tmp_path) as journal:
        states = [journal.state(NAME)]
        edits = [
            lambda state: add(state, square(30, 40)),
            lambda state: reshape(state, 5, square(32, 40, 8)),
            lambda state: split(state, 5, [[30, 44], [45, 44]]),
            lambda state: merge(state, [1, 2]),
            lambda state: reject(state, [3]),
            lambda state: accept(state, [3]),
            lambda state: delete(state, [3, 4]),
            lambda state: mark(state, "reviewed"),
        ]
        for edit in edits:
            commit(journal, edit(journal.state(NAME)))
            states.append(journal.state(NAME))
        for _ in range(2):
            for before in reversed(states[:-1]):
                journal.undo(NAME, "Anna", journal.state(NAME).version)
                assert same(journal.state(NAME), before)
            for after in states[1:]:
                journal.redo(NAME, "Anna", journal.state(NAME).version)
                assert same(journal.state(NAME), after)
        assert len(list(journal.events(NAME))) == 5 * len(edits)
        assert journal.state(NAME).next_id == states[-1].next_id


def test_a_change_after_an_undo_ends_what_can_be_made_again(tmp_path: Path) -> None:
    with make_journal(tmp_path) as journal:
        commit(journal, delete(journal.state(NAME), [1]))
        journal.undo(NAME, "Anna", 1)
        commit(journal, delete(journal.state(NAME), [4]))
        with pytest.raises(HemalumError, match=f"there is nothing of Anna to redo in {NAME}"):
            journal.redo(NAME, "Anna", 3)
        journal.undo(NAME, "Anna", 3)
        with pytest.raises(HemalumError, match=f"there is nothing of Anna to undo in {NAME}"):
            journal.undo(NAME, "Anna", 4)
        with pytest.raises(HemalumError, match="there is nothing of Ben to undo"):
            journal.undo(NAME, "Ben", 4)


def test_of_two_reviewers_the_second_sees_a_conflict_and_both_edits_are_there(tmp_path: Path) -> None:
    with make_journal(tmp_path) as journal:
        seen = journal.state(NAME)  # by both
        journal.append(NAME, "Anna", reshape(seen, 4, square(55, 40, 8)), seen.version)
        edit = delete(seen, [4])
        with pytest.raises(Conflict) as caught:
            journal.append(NAME, "Ben", edit, seen.version)
        time = next(journal.events(NAME)).time[:19].replace("T", " ")
        assert str(caught.value) == (
            f"nucleus 4 was changed by Anna at {time} UTC (reshape) in the meantime: look at it and edit again"
        )
        assert caught.value.edit is edit
        assert (caught.value.touched, caught.value.touch.author, caught.value.touch.event) == (4, "Anna", 1)
        assert [event.author for event in journal.events(NAME)] == ["Anna"]
        # what Anna has not touched, Ben may change on the version that he saw
        journal.append(NAME, "Ben", delete(seen, [1]), seen.version)
        assert sorted(journal.state(NAME)) == [2, 3, 4]


def test_two_who_draw_the_same_nucleus_at_once(tmp_path: Path) -> None:
    with make_journal(tmp_path) as journal:
        seen = journal.state(NAME)
        journal.append(NAME, "Anna", add(seen, square(30, 40)), 0)
        with pytest.raises(Conflict, match="nucleus 5 was changed by Anna at"):
            journal.append(NAME, "Ben", add(seen, square(33, 43)), 0)
        journal.append(NAME, "Ben", add(seen, square(40, 50)), 0)  # beside it, on the version that he saw
        assert sorted(journal.state(NAME)) == [1, 2, 3, 4, 5, 6]


def test_what_was_changed_and_changed_back_is_looked_at_again(tmp_path: Path) -> None:
    with make_journal(tmp_path) as journal:
        seen = journal.state(NAME)
        journal.append(NAME, "Anna", reject(seen, [4]), 0)
        journal.undo(NAME, "Anna", 1)
        with pytest.raises(Conflict, match=r"nucleus 4 was changed by Anna at .* \(undo\)"):
            journal.append(NAME, "Ben", delete(seen, [4]), 0)
        journal.append(NAME, "Ben", delete(journal.state(NAME), [4]), 2)


def test_an_undo_does_not_overwrite_another_reviewer(tmp_path: Path) -> None:
    with make_journal(tmp_path) as journal:
        commit(journal, delete(journal.state(NAME), [4]), "Anna")
        commit(journal, add(journal.state(NAME), square(58, 42)), "Ben")
        with pytest.raises(Conflict, match=r"nucleus 5 was changed by Ben at .* \(add\)"):
            journal.undo(NAME, "Anna", journal.state(NAME).version)
        commit(journal, classify(journal.state(NAME), [1], None), "Anna")
        commit(journal, delete(journal.state(NAME), [1]), "Ben")
        with pytest.raises(Conflict, match=r"nucleus 1 was changed by Ben at .* \(delete\)"):
            journal.undo(NAME, "Anna", journal.state(NAME).version)
        journal.undo(NAME, "Ben", journal.state(NAME).version)
        journal.undo(NAME, "Anna", journal.state(NAME).version)
        assert sorted(journal.state(NAME)) == [1, 2, 3, 5]


def test_two_who_mark_an_item(tmp_path: Path) -> None:
    with make_journal(tmp_path) as journal:
        seen = journal.state(NAME)
        journal.append(NAME, "Anna", mark(seen, "reviewed"), 0)
        with pytest.raises(Conflict, match=r"the item's status was changed by Anna at .* \(mark\)") as caught:
            journal.append(NAME, "Ben", mark(seen, "skipped"), 0)
        assert caught.value.touched == ITEM


events = st.lists(
    st.tuples(
        st.sampled_from(["Anna", "Ben"]),
        st.sampled_from(["add", "delete", "reject", "accept", "undo", "redo"]),
        st.integers(0, 9),
        st.booleans(),
    ),
    max_size=14,
)


@given(steps=events)
@settings(max_examples=12)
def test_whatever_two_reviewers_do_what_is_refused_changes_nothing(
    tmp_path_factory: pytest.TempPathFactory, steps: list[tuple[str, str, int, bool]]
) -> None:
    with make_journal(tmp_path_factory.mktemp("journal")) as journal:
        stale = journal.state(NAME)
        for author, verb, n, late in steps:
            before = journal.state(NAME)
            looked_at = stale if late else before
            stale = before
            try:
                if verb in ("undo", "redo"):
                    getattr(journal, verb)(NAME, author, looked_at.version)
                else:
                    ids = sorted(looked_at)[n % 4 : n % 4 + 2]
                    simple = {"delete": delete, "reject": reject, "accept": accept}
                    edit = add(looked_at, square(4 * n, 30 + n, 9)) if verb == "add" else simple[verb](looked_at, ids)
                    journal.append(NAME, author, edit, looked_at.version)
            except HemalumError:
                assert same(journal.state(NAME), before)
                assert journal.state(NAME).version == before.version
            assert owners(journal.state(NAME)).max() <= 1
        assert same(journal.state(NAME), journal.state(NAME, version=journal.state(NAME).version))


WRITER = """
import sys
from builders.reviews import NAME, PROJECT, square
from hemalum.review.edits import classify
from hemalum.review.journal import Journal

with Journal.open(sys.argv[1], PROJECT) as journal:
    state = journal.state(NAME)
    n = state.version
    while True:
        event = journal.append(NAME, f"writer {n}", classify(state, [n % 4 + 1], None), state.version)
        print(event.id, event.author, flush=True)
        n += 1
        state = journal.state(NAME)
"""


@pytest.mark.slow
@pytest.mark.skipif(os.name == "nt", reason="Windows has no SIGKILL")
def test_what_was_acknowledged_survives_kill_at_any_moment(tmp_path: Path) -> None:
    make_journal(tmp_path).close()
    path = tmp_path / "review.sqlite"
    rng = np.random.default_rng()
    acknowledged: list[str] = []
    for _ in range(4):
        process = subprocess.Popen(
            [sys.executable, "-c", WRITER, str(path)],
            stdout=subprocess.PIPE,
            text=True,
            env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
        )
        assert process.stdout is not None
        acknowledged.append(process.stdout.readline())
        time.sleep(rng.uniform(0, 0.5))
        process.send_signal(signal.SIGKILL)
        acknowledged += process.stdout.readlines()
        process.wait()
        process.stdout.close()
        with Journal.open(path, PROJECT) as journal:
            written = [f"{event.id} {event.author}\n" for event in journal.events(NAME)]
            # at most the one that was written and not yet acknowledged is there as well
            assert written[: len(acknowledged)] == acknowledged
            assert len(written) - len(acknowledged) <= 1
            acknowledged = written
            commit(journal, mark(journal.state(NAME), "open"), "after the crash")
            acknowledged.append(f"{journal.state(NAME).version} after the crash\n")
    assert len(acknowledged) > 8
    with sqlite3.connect(path) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)


def test_commits_are_synced(tmp_path: Path) -> None:
    with make_journal(tmp_path) as journal:
        settings = {
            name: journal._connection.execute(f"PRAGMA {name}").fetchone()[0]
            for name in ("journal_mode", "synchronous")
        }
    assert settings == {"journal_mode": "wal", "synchronous": 2}


def test_nothing_in_the_file_can_be_changed(tmp_path: Path) -> None:
    with make_journal(tmp_path) as journal:
        commit(journal, delete(journal.state(NAME), [1]))
    connection = sqlite3.connect(tmp_path / "review.sqlite")
    for statement in ("UPDATE events SET author = 'x'", "DELETE FROM events", "DELETE FROM items"):
        with pytest.raises(sqlite3.IntegrityError, match="are never changed"):
            connection.execute(statement)
    connection.close()


def test_an_item_goes_on_where_it_was_left_whatever_is_proposed_now(tmp_path: Path) -> None:
    item = make_item(draw_labels(), mpp=0.25, organ="kidney")
    with make_journal(tmp_path) as journal:
        commit(journal, delete(journal.state(NAME), [1]))
    with Journal.open(tmp_path / "review.sqlite", PROJECT) as journal:
        state = journal.add_item(item, Nuclei.from_labels(np.zeros_like(draw_labels())))
        assert state.item == item
        assert sorted(state) == [2, 3, 4]


@pytest.mark.fault
def test_images_that_are_not_the_one_under_review(tmp_path: Path) -> None:
    with make_journal(tmp_path) as journal:
        smaller, other = draw_labels()[:50], np.zeros_like(draw_labels())
        with pytest.raises(HemalumError, match=f"{NAME}: is 80 x 50 px, and was 80 x 60 px when it was begun"):
            journal.add_item(make_item(smaller), Nuclei.from_labels(smaller))
        with pytest.raises(HemalumError, match=f"{NAME}: is another image than when it was begun; put that one back"):
            journal.add_item(make_item(other), Nuclei.from_labels(other))
        with pytest.raises(HemalumError, match="the nuclei are of an image 80 x 50 px, not 80 x 60 px"):
            journal.add_item(make_item(draw_labels()), Nuclei.from_labels(smaller))
        with pytest.raises(HemalumError, match=r"there is no item 'kidney_2.png' in .*did you mean 'kidney_1.png'"):
            journal.state("kidney_2.png")
        with pytest.raises(HemalumError, match="an item's name must have 1 to 1,000 letters"):
            make_item(other, name="x" * 1001)


def rewrite(path: Path, *statements: str) -> None:
    with sqlite3.connect(path) as connection:
        for statement in statements:
            connection.execute(statement)
    connection.close()


@pytest.mark.fault
def test_files_that_are_no_journal_of_this_project(tmp_path: Path) -> None:
    make_journal(tmp_path).close()
    path = tmp_path / "review.sqlite"
    with pytest.raises(
        HemalumError, match=r"review\.sqlite: is the journal of another project; put this project's own"
    ):
        Journal.open(path, "another")
    with pytest.raises(HemalumError, match=r"review\.sqlite: cannot be created \(File exists\)"):
        Journal.create(path, PROJECT)
    rewrite(path, "PRAGMA user_version = 7")
    with pytest.raises(HemalumError, match="is a journal of format 7, this version of hemalum reads format 1"):
        Journal.open(path, PROJECT)
    rewrite(path, "PRAGMA application_id = 1")
    with pytest.raises(HemalumError, match="is not a journal of corrections"):
        Journal.open(path, PROJECT)
    with pytest.raises(
        HemalumError, match=r"gone\.sqlite: the journal of corrections is missing; put it back from a"
    ):
        Journal.open(tmp_path / "gone.sqlite", PROJECT)
    (tmp_path / "text.sqlite").write_text("corrections\n" * 1000)
    with pytest.raises(
        HemalumError, match=r"text\.sqlite: is no journal that can be written \(file is not a database"
    ):
        Journal.open(tmp_path / "text.sqlite", PROJECT)


@pytest.mark.fault
@pytest.mark.parametrize(
    "text",
    ["", "{", "[]", '{"nuclei": 3}', '{"nuclei": {"-1": null}}', '{"nuclei": {"1": [[1, 2], null, "accepted"]}}',
     '{"nuclei": {"1": [[1, 2, 3, 4, 5, 6, 1, 2], null, "eaten"]}}', '{"nuclei": {}, "status": "x"}', "[" * 100_000],
)  # fmt: skip
def test_a_damaged_event_is_named(tmp_path: Path, text: str) -> None:
    with make_journal(tmp_path) as journal:
        commit(journal, delete(journal.state(NAME), [1]))
    connection = sqlite3.connect(tmp_path / "review.sqlite")
    connection.execute("DROP TRIGGER events_UPDATE")
    connection.execute("UPDATE events SET after = ?", (text,))
    connection.commit()
    connection.close()
    with (
        Journal.open(tmp_path / "review.sqlite", PROJECT) as journal,
        pytest.raises(HemalumError, match=r"review\.sqlite: event 1 is damaged"),
    ):
        journal.state(NAME)


@pytest.mark.fault
def test_edits_and_authors_that_no_page_sends(tmp_path: Path) -> None:
    with make_journal(tmp_path) as journal:
        state = journal.state(NAME)
        edit = delete(state, [1])
        for author in ("", " ", "x" * 101, "A\nB"):
            with pytest.raises(HemalumError, match="an author must have 1 to 100 letters"):
                journal.append(NAME, author, edit, 0)
        for parent in (-1, 1):
            with pytest.raises(HemalumError, match=f"there is no version {parent}; it is at version 0"):
                journal.append(NAME, "Anna", edit, parent)
        ring = np.array(square(30, 40), np.float32)
        wrong = {
            "an outline must be closed and lie in the image": ring + 60,
            "the outline crosses itself": ring[[0, 2, 1, 3, 0]],
            "an outline must be .* three points and more": ring[:3],
            "nucleus 5 would lie on pixels of nucleus 4": ring + np.float32([26, 0]),
        }
        for message, outline in wrong.items():
            with pytest.raises(HemalumError, match=message):
                journal.append(NAME, "Anna", Edit("add", new=(Nucleus(outline),)), 0)
        for edit, message in (
            (Edit("delete"), "the edit changes nothing"),
            (Edit("delete", after={1: state[1]}), "or what it does not name"),
            (
                Edit("delete", before={1: state[2]}),
                "nucleus 1 is not as the edit has it: the edit is of another item",
            ),
            (Edit("delete", before={9: state[2]}), "nucleus 9 is not as the edit has it"),
        ):
            with pytest.raises(HemalumError, match=message):
                journal.append(NAME, "Anna", edit, 0)
        assert journal.state(NAME).version == 0


def test_the_status_of_each_item_is_that_of_its_state(tmp_path: Path) -> None:
    with make_journal(tmp_path) as journal:
        labels = draw_labels()
        journal.add_item(make_item(labels, "liver.png"), Nuclei.from_labels(labels))
        steps = [
            lambda: commit(journal, mark(journal.state(NAME), "reviewed")),
            lambda: commit(journal, accept(journal.state(NAME), [1])),
            lambda: commit(journal, mark(journal.state(NAME), "skipped"), "Ben"),
            lambda: journal.undo(NAME, "Ben", journal.state(NAME).version),
            lambda: journal.undo(NAME, "Anna", journal.state(NAME).version),  # the accepted nucleus: no status in it
            lambda: journal.redo(NAME, "Ben", journal.state(NAME).version),
        ]
        seen = []
        for step in steps:
            step()
            statuses = journal.statuses()
            assert list(statuses.items()) == [(name, journal.state(name).status) for name in (NAME, "liver.png")]
            seen.append(statuses[NAME])
        assert seen == ["reviewed", "reviewed", "skipped", "reviewed", "reviewed", "skipped"]


@pytest.mark.fault
def test_a_status_that_there_is_not(tmp_path: Path) -> None:
    with make_journal(tmp_path) as journal:
        commit(journal, mark(journal.state(NAME), "reviewed"))
    connection = sqlite3.connect(tmp_path / "review.sqlite")
    connection.execute("DROP TRIGGER events_UPDATE")
    connection.execute("""UPDATE events SET after = '{"nuclei": {}, "status": "done"}'""")
    connection.commit()
    connection.close()
    with (
        Journal.open(tmp_path / "review.sqlite", PROJECT) as journal,
        pytest.raises(
            HemalumError, match=r"review\.sqlite: item 'kidney_1\.png' is damaged \(a status that there is not\)"
        ),
    ):
        journal.statuses()
