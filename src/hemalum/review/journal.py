"""The journal of corrections: one SQLite file of items and of events on them, which are added and never changed.

    items     name, size, hash of the pixels, and the nuclei that the item starts with
    events    item, author, time, kind, what was before and after, and the version that it was made on

What an item's nuclei are is a fold over its events (`hemalum.review.event.fold`). An event that has been acknowledged
is on the disk: SQLite writes ahead (WAL) and syncs at each commit. Several processes and threads may have a journal
open; they see each other's events when they next ask.
"""

import json
import sqlite3
import threading
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hemalum.errors import HemalumError, nearest, one_line
from hemalum.nuclei.nuclei import Nuclei
from hemalum.nuclei.polygons import Polygons
from hemalum.review.conflicts import check_current, check_rings, check_room
from hemalum.review.edits import Edit
from hemalum.review.event import REDO, UNDO, Event, Side, decode_side, encode_side, fold
from hemalum.review.item import STATUSES, Item, ItemState, Start, Status

FORMAT = 1  # of the file; raised when one written before cannot be read any more
APPLICATION = 0x68656D61  # "hema", in the header of the file
MAX_AUTHOR = 100  # letters
MAX_EVENT = 16 * 2**20  # characters of one side of an event
MAX_START = 256 * 2**20  # bytes of the nuclei that an item starts with, and of any one value in the file
MAX_STATES = 32  # items whose state is kept in memory
WAIT_S = 30  # for another process that is writing

_SCHEMA = f"""
PRAGMA application_id = {APPLICATION};
PRAGMA user_version = {FORMAT};
CREATE TABLE project (id TEXT NOT NULL);
CREATE TABLE items (
    id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE, facts TEXT NOT NULL, classes TEXT NOT NULL,
    class_numbers BLOB NOT NULL, offsets BLOB NOT NULL, coords BLOB NOT NULL
);
CREATE TABLE events (
    id INTEGER PRIMARY KEY AUTOINCREMENT, item INTEGER NOT NULL REFERENCES items (id), author TEXT NOT NULL,
    time TEXT NOT NULL, kind TEXT NOT NULL, before TEXT NOT NULL, after TEXT NOT NULL, parent INTEGER NOT NULL,
    target INTEGER REFERENCES events (id)
);
CREATE INDEX events_of_item ON events (item, id);
""" + "".join(
    f"CREATE TRIGGER {table}_{verb} BEFORE {verb} ON {table} "
    f"BEGIN SELECT RAISE(ABORT, '{table} are never changed'); END;\n"
    for table in ("items", "events")
    for verb in ("UPDATE", "DELETE")
)
_ARRAYS = ("<i4", "<i8", "<f4")  # class_numbers, offsets, coords
_EVENT = "events.id, items.name, author, time, kind, before, after, parent, target"


Write = Callable[[str, Side, Side, int | None], Event]


class Journal:
    """A journal that is open. Close it, or use it in a `with`."""

    def __init__(self, path: Path, connection: sqlite3.Connection) -> None:
        """Use `create` or `open`."""
        self.path = path
        self._connection = connection
        self._lock = threading.RLock()
        self._states: dict[str, ItemState] = {}

    @classmethod
    def create(cls, path: Path | str, project: str) -> "Journal":
        """A new journal of the project with this id. Raises HemalumError where a file is there already."""
        path = Path(path)
        try:
            path.open("xb").close()
        except OSError as error:
            raise HemalumError(f"{path}: cannot be created ({error.strerror})") from error
        journal = cls(path, _connect(path))
        with journal._writing() as connection:
            for statement in _statements(_SCHEMA):
                connection.execute(statement)
            connection.execute("INSERT INTO project VALUES (?)", (project,))
        return journal

    @classmethod
    def open(cls, path: Path | str, project: str) -> "Journal":
        """The journal of the project with this id.

        Raises HemalumError where it is missing, no journal, of another project or format, or cannot be written.
        """
        path = Path(path)
        if not path.is_file():
            raise HemalumError(f"{path}: the journal of corrections is missing; put it back from a copy")
        journal = cls(path, _connect(path))
        try:
            journal._check(project)
        except BaseException:
            journal.close()
            raise
        return journal

    def _check(self, project: str) -> None:
        with self._reading() as connection:
            application = connection.execute("PRAGMA application_id").fetchone()[0]
            version = connection.execute("PRAGMA user_version").fetchone()[0]
            if application != APPLICATION:
                raise HemalumError(f"{self.path}: is not a journal of corrections")
            if version != FORMAT:
                raise HemalumError(
                    f"{self.path}: is a journal of format {version}, this version of hemalum reads format {FORMAT}"
                )
            row = connection.execute("SELECT id FROM project").fetchone()
            if row is None or row[0] != project:
                raise HemalumError(f"{self.path}: is the journal of another project; put this project's own back")

    def close(self) -> None:
        """Close the file; what was acknowledged is in it."""
        with self._lock:
            self._connection.close()

    def __enter__(self) -> "Journal":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def add_item(self, item: Item, nuclei: Nuclei) -> ItemState:
        """Take an item under review with the nuclei that it starts with, or find it as it was left.

        Of two nuclei over one pixel the later keeps it (`Start.of`). An item that is there keeps the nuclei that it
        began with. Raises HemalumError where its image is another than before, or the nuclei do not fit it.
        """
        if nuclei.shape != item.shape:
            raise HemalumError(
                f"{item.name}: the nuclei are of an image {_size(nuclei.shape)}, not {_size(item.shape)}"
            )
        with self._lock:
            if item.name not in self:
                self._insert(item, Start.of(nuclei))
            state = self.state(item.name)
            held = state.item
            if held.shape != item.shape:
                raise HemalumError(
                    f"{item.name}: is {_size(item.shape)}, and was {_size(held.shape)} when it was begun"
                )
            if held.sha256 != item.sha256:
                raise HemalumError(f"{item.name}: is another image than when it was begun; put that one back")
            return state

    def _insert(self, item: Item, start: Start) -> None:
        arrays: tuple[NDArray[Any], ...] = (start.class_numbers, start.outlines.offsets, start.outlines.coords)
        if max(array.nbytes for array in arrays) > MAX_START:
            raise HemalumError(f"{item.name}: has too many nuclei for one item: review regions of it")
        packed = [zlib.compress(array.astype(kind).tobytes(), 1) for array, kind in zip(arrays, _ARRAYS, strict=True)]
        with self._writing() as connection:
            # another process may have been faster: then its nuclei are those that the item starts with
            connection.execute(
                "INSERT INTO items (name, facts, classes, class_numbers, offsets, coords) VALUES (?, ?, ?, ?, ?, ?) "
                "ON CONFLICT (name) DO NOTHING",
                (item.name, json.dumps(asdict(item)), json.dumps(start.class_names), *packed),
            )

    def names(self) -> list[str]:
        """The names of all items, in the order in which they were added."""
        with self._reading() as connection:
            return [name for (name,) in connection.execute("SELECT name FROM items ORDER BY id")]

    def statuses(self) -> dict[str, Status]:
        """The status of each item, by name in the order in which they were added, without folding its events."""
        query = (
            "SELECT name, (SELECT json_extract(after, '$.status') FROM events WHERE item = items.id "
            "AND kind IN ('mark', 'undo', 'redo') AND json_extract(after, '$.status') IS NOT NULL "
            "ORDER BY events.id DESC LIMIT 1) FROM items ORDER BY id"
        )
        with self._reading() as connection:
            rows = connection.execute(query).fetchall()
        unknown = [name for name, status in rows if status not in (None, *STATUSES)]
        if unknown:
            raise HemalumError(f"{self.path}: item '{unknown[0]}' is damaged (a status that there is not)")
        return {name: status or "open" for name, status in rows}

    def __contains__(self, name: object) -> bool:
        with self._reading() as connection:
            return connection.execute("SELECT 1 FROM items WHERE name = ?", (name,)).fetchone() is not None

    def state(self, name: str, version: int | None = None) -> ItemState:
        """An item's nuclei as they are now, or as they were at a version. Raises HemalumError for another name."""
        with self._lock:
            if version is not None:
                first = self._first(name)
                return fold(first, (event for event in self.events(name) if event.id <= version))
            state = self._states.pop(name, None) or self._first(name)
            events = list(self.events(name, after=state.version))
            state = fold(state, events) if events else state
            self._states[name] = state  # the last one used is the last to go
            while len(self._states) > MAX_STATES:
                del self._states[next(iter(self._states))]
            return state

    def _first(self, name: str) -> ItemState:
        with self._reading() as connection:
            query = "SELECT facts, classes, class_numbers, offsets, coords FROM items WHERE name = ?"
            row = connection.execute(query, (name,)).fetchone()
        if row is None:
            raise HemalumError(f"there is no item '{name}' in {self.path}{nearest(name, self.names())}")
        try:
            facts = json.loads(row[0])
            item = Item(**{**facts, "shape": tuple(facts["shape"])})
            # copied: what is compiled would be compiled again for arrays that cannot be written to
            numbers, offsets, coords = (
                np.frombuffer(_unpack(blob), kind).copy() for blob, kind in zip(row[2:], _ARRAYS, strict=True)
            )
            start = Start(Polygons(coords.reshape(-1, 2), offsets), numbers, tuple(json.loads(row[1])))
            if len(numbers) != len(offsets) - 1 or offsets[-1] != len(start.outlines.coords):
                raise ValueError("numbers of nuclei that differ")
        except (ValueError, TypeError, KeyError, IndexError, zlib.error) as error:
            raise HemalumError(f"{self.path}: item '{name}' is damaged ({one_line(error)})") from error
        return ItemState.first(item, start)

    def events(self, name: str, after: int = 0) -> Iterator[Event]:
        """The events on an item, oldest first; those after an id."""
        query = f"SELECT {_EVENT} FROM events JOIN items ON items.id = events.item WHERE name = ? AND events.id > ?"
        with self._reading() as connection:
            rows = connection.execute(f"{query} ORDER BY events.id", (name, after)).fetchall()
        return map(self._as_event, rows)

    def event(self, id: int) -> Event:
        """The event with this id. Raises HemalumError where there is none."""
        query = f"SELECT {_EVENT} FROM events JOIN items ON items.id = events.item WHERE events.id = ?"
        with self._reading() as connection:
            row = connection.execute(query, (id,)).fetchone()
        if row is None:
            raise HemalumError(f"{self.path}: there is no event {id}")
        return self._as_event(row)

    def _as_event(self, row: tuple[Any, ...]) -> Event:
        id, name, author, time, kind, before, after, parent, target = row
        try:
            return Event(id, name, author, time, kind, decode_side(before), decode_side(after), parent, target)
        except HemalumError as error:
            raise HemalumError(f"{self.path}: event {id} {error}") from error

    def append(self, name: str, author: str, edit: Edit, parent: int) -> Event:
        """Write an edit of an item, made on its version `parent`; when this returns, it is on the disk.

        New nuclei get ids here. Raises Conflict where what the edit touches has been changed since, or where its
        outlines lie on those of another that came first; HemalumError for an edit that no reviewer could make.
        """
        with self._committing(name, author, parent) as (state, write):
            new = dict(enumerate(edit.new, state.next_id))
            status = edit.status or (None, None)
            before = Side({**edit.before, **dict.fromkeys(new)}, status[0])
            after = Side({**dict.fromkeys(edit.before), **edit.after, **new}, status[1])
            if not after.touched or not edit.after.keys() <= edit.before.keys():
                raise HemalumError("the edit changes nothing, or what it does not name")
            check_current(state, before, parent, edit)
            check_rings(state.item, before, after)
            check_room(state, before, after, edit)
            return write(edit.kind, before, after, None)

    def undo(self, name: str, author: str, parent: int) -> Event:
        """Take back the author's last change to an item that is not taken back yet, as an event of its own.

        Raises Conflict where another has changed what it touched since, HemalumError where nothing is left to undo.
        """
        return self._turn(name, author, parent, UNDO)

    def redo(self, name: str, author: str, parent: int) -> Event:
        """Make again what the author took back last; a change in between ends what can be made again.

        Raises Conflict and HemalumError as `undo` does.
        """
        return self._turn(name, author, parent, REDO)

    def _turn(self, name: str, author: str, parent: int, kind: str) -> Event:
        with self._committing(name, author, parent) as (state, write):
            targets = (state.done if kind == UNDO else state.undone).get(author, ())
            if not targets:
                raise HemalumError(f"there is nothing of {author} to {kind} in {name}")
            target = self.event(targets[-1])
            before, after = (target.after, target.before) if kind == UNDO else (target.before, target.after)
            check_current(state, before, parent, None)
            check_room(state, before, after, None)
            return write(kind, before, after, target.id)

    @contextmanager
    def _committing(self, name: str, author: str, parent: int) -> Iterator[tuple[ItemState, Write]]:
        """The item as it is while nobody else can write, and what writes an event on it."""
        if not isinstance(author, str) or not author.strip() or len(author) > MAX_AUTHOR or not author.isprintable():
            raise HemalumError(f"an author must have 1 to {MAX_AUTHOR} letters")
        with self._writing() as connection:
            state = self.state(name)
            if not 0 <= parent <= state.version:
                raise HemalumError(f"{name}: there is no version {parent}; it is at version {state.version}")

            def write(kind: str, before: Side, after: Side, target: int | None) -> Event:
                texts = encode_side(before), encode_side(after)
                if max(map(len, texts)) > MAX_EVENT:
                    raise HemalumError("the edit changes too much at once: choose fewer nuclei")
                time = datetime.now(UTC).isoformat(timespec="microseconds")
                cursor = connection.execute(
                    "INSERT INTO events (item, author, time, kind, before, after, parent, target) "
                    "SELECT id, ?, ?, ?, ?, ?, ?, ? FROM items WHERE name = ?",
                    (author, time, kind, *texts, parent, target, name),
                )
                return Event(int(cursor.lastrowid or 0), name, author, time, kind, before, after, parent, target)

            yield state, write

    @contextmanager
    def _writing(self) -> Iterator[sqlite3.Connection]:
        """A transaction that writes: all of it is on the disk afterwards, or none."""
        with self._reading() as connection:
            connection.execute("BEGIN IMMEDIATE")
            try:
                yield connection
                connection.execute("COMMIT")
            except BaseException:
                if connection.in_transaction:
                    connection.execute("ROLLBACK")
                raise

    @contextmanager
    def _reading(self) -> Iterator[sqlite3.Connection]:
        """The connection, for one thread at a time; what SQLite says becomes a line."""
        with self._lock:
            try:
                yield self._connection
            except sqlite3.Error as error:
                raise HemalumError(f"{self.path}: cannot be read or written ({one_line(error)})") from error


def _connect(path: Path) -> sqlite3.Connection:
    connection = None
    try:
        connection = sqlite3.connect(path, timeout=WAIT_S, isolation_level=None, check_same_thread=False)
        connection.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, MAX_START + 2**20)
        mode = connection.execute("PRAGMA journal_mode = WAL").fetchone()[0]
        connection.execute("PRAGMA synchronous = FULL")
        connection.execute("PRAGMA foreign_keys = ON")
        connection.execute("PRAGMA trusted_schema = OFF")
    except sqlite3.Error as error:
        if connection is not None:
            connection.close()
        raise HemalumError(f"{path}: is no journal that can be written ({one_line(error)})") from error
    if mode != "wal":
        connection.close()
        raise HemalumError(f"{path}: this file system keeps no journal safely: put the project on a local disk")
    return connection


def _unpack(blob: bytes) -> bytes:
    """What was packed, in bounded memory."""
    unpacking = zlib.decompressobj()
    content = unpacking.decompress(blob, MAX_START)
    if unpacking.unconsumed_tail or not unpacking.eof:
        raise ValueError("too large, or cut short")
    return content


def _statements(script: str) -> Iterator[str]:
    """The statements of a script; a trigger holds semicolons of its own."""
    statement = ""
    for line in script.splitlines(keepends=True):
        statement += line
        if sqlite3.complete_statement(statement):
            yield statement
            statement = ""


def _size(shape: tuple[int, int]) -> str:
    return f"{shape[1]} x {shape[0]} px"
