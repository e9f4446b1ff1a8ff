"""The features of a GeoJSON file of any size, one after the other: the file is never held as a whole."""

import gzip
import json
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import numpy as np

from hemalum.compiled import njit
from hemalum.errors import HemalumError, one_line

CHUNK = 8 * 2**20  # bytes read at once
MAX_FEATURE = 256 * 2**20  # bytes of one feature, or of a file that is one
DEPTH, IN_STRING, ESCAPED, MATCHED, IS_KEY, ELEMENTS, START, WRONG = range(8)  # what the scanner keeps
ENDED = 1 << 40  # depth of the elements of a list that is behind
SPACE = b" \t\r\n"  # of JSON
KEY = np.frombuffer(b"features", np.uint8)


def read_features(path: Path | str) -> Iterator[Any]:
    """The features of a FeatureCollection, a list of Features or one Feature, as JSON gives them; `.gz` as well.

    Memory is that of one chunk and one feature. Raises HemalumError for a file that is missing, not JSON in UTF-8,
    cut off or no GeoJSON, when the reading comes to it.
    """
    path = Path(path)
    number = 0
    for number, text in enumerate(_slices(path), start=1):
        try:
            yield json.loads(text)
        except (ValueError, RecursionError) as error:
            raise HemalumError(f"{path}: not JSON (feature {number}: {one_line(error)})") from error


def _slices(path: Path) -> Iterator[bytes]:
    """The text of each feature. A document of another form goes through `_as_one_feature`."""
    state = np.zeros(8, np.int64)
    state[[ELEMENTS, START]] = -1
    spans = np.empty((CHUNK // 2 + 1, 2), np.int64)  # an object has at least two bytes
    buffer, at = b"", 0
    frame, gap, number = b"", b"", 0  # what is before the first feature, and since the last one
    with _opened(path) as file:
        while chunk := _read(file, path):
            if not buffer:
                chunk = _without_mark(chunk, path)
            buffer = buffer[at:] + chunk if at else buffer + chunk
            scanned = len(buffer) - len(chunk)
            at = 0
            count = _scan(np.frombuffer(buffer, np.uint8), scanned, state, spans)
            for start, stop in spans[:count].tolist():
                gap += buffer[at:start]
                number += 1
                if number == 1:
                    frame = gap + b"0"
                elif gap.strip(SPACE) != b"," and not state[WRONG]:
                    raise HemalumError(f"{path}: not JSON (feature {number}: want one comma before it)")
                yield buffer[start:stop]
                gap, at = b"", stop
            if state[WRONG]:
                raise HemalumError(f"{path}: not GeoJSON: the list of features holds something that is no object")
            if state[ELEMENTS] < 0:  # the features may still come: what was read may be one Feature
                if len(buffer) > MAX_FEATURE:
                    raise HemalumError(
                        f"{path}: not GeoJSON: no list of features in its first {MAX_FEATURE >> 20} MB"
                    )
                continue
            end = int(state[START]) if state[START] >= 0 else len(buffer)
            gap, at = gap + buffer[at:end], end
            state[START] = 0 if state[START] >= 0 else -1
            if max(len(buffer) - at, len(gap)) > MAX_FEATURE:
                raise HemalumError(f"{path}: not GeoJSON: a feature of more than {MAX_FEATURE >> 20} MB")
    if state[ELEMENTS] < 0:
        yield _as_one_feature(buffer, path)
    elif state[DEPTH] != 0 or state[IN_STRING]:
        raise HemalumError(f"{path}: not JSON (the file is cut off); export it again")
    else:
        try:
            json.loads(frame + gap)
        except (ValueError, RecursionError) as error:
            raise HemalumError(f"{path}: not JSON (around the features: {one_line(error)})") from error


def _without_mark(start: bytes, path: Path) -> bytes:
    """The start of the file without UTF-8's mark. Raises HemalumError for UTF-16 and UTF-32."""
    if start[:1] in (b"\xff", b"\xfe", b"\x00") or start[1:2] == b"\x00":
        raise HemalumError(f"{path}: not JSON in UTF-8: it looks like UTF-16 or UTF-32; save it as UTF-8")
    return start.removeprefix(b"\xef\xbb\xbf")


def _as_one_feature(text: bytes, path: Path) -> bytes:
    """The text of a file that is one Feature. Raises HemalumError for any other."""
    try:
        content = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise HemalumError(f"{path}: not JSON ({one_line(error)})") from error
    if isinstance(content, dict) and content.get("type") == "Feature":
        return text
    raise HemalumError(f"{path}: not GeoJSON: want a FeatureCollection or a list of Features")


@contextmanager
def _opened(path: Path) -> Iterator[IO[bytes]]:
    try:
        with path.open("rb") as file:
            packed = file.read(2) == b"\x1f\x8b"
            file.seek(0)
            if not packed:
                yield file
                return
            with gzip.GzipFile(fileobj=file) as unpacked:
                yield unpacked  # type: ignore[misc]
    except OSError as error:
        raise HemalumError(f"{path}: cannot be read ({error.strerror or error})") from error


def _read(file: IO[bytes], path: Path) -> bytes:
    try:
        return file.read(CHUNK)
    except (EOFError, zlib.error) as error:  # gzip's words for a file that is cut off or damaged
        raise HemalumError(f"{path}: cannot be read ({one_line(error)})") from error


@njit(nogil=True)
def _scan(text: Any, at: int, state: Any, spans: Any) -> int:
    """Find the objects in the list of features from byte `at` on: start and end of each that ends here.

    The list is the document itself, or the member "features" of the object that is the document. Where an object
    begins that does not end, `state` has its start. Braces within strings do not count.
    """
    count = 0
    for k in range(at, text.size):
        byte = text[k]
        if state[IN_STRING]:
            _step_string(byte, state)
        elif byte == 34:  # quote
            state[IN_STRING] = 1
            state[MATCHED] = 0 if state[DEPTH] == 1 and state[ELEMENTS] < 0 else -1
            state[WRONG] |= state[DEPTH] == state[ELEMENTS]
        elif byte == 123 or byte == 91:  # { [
            _step_open(byte, k, state)
        elif byte == 125 or byte == 93:  # } ]
            state[DEPTH] -= 1
            if state[DEPTH] == state[ELEMENTS] and state[START] >= 0:
                spans[count, 0] = state[START]
                spans[count, 1] = k + 1
                count += 1
                state[START] = -1
            elif state[ELEMENTS] > 0 and state[DEPTH] == state[ELEMENTS] - 1:
                state[ELEMENTS] = ENDED  # what follows are other members
        elif byte == 44:  # comma
            state[IS_KEY] = 0
        elif byte != 58 and byte > 32:  # neither colon nor white space: a number or a word
            state[WRONG] |= state[DEPTH] == state[ELEMENTS]
    return count


@njit(nogil=True, inline="always")
def _step_string(byte: int, state: Any) -> None:
    """Within a string: its end, and whether it is the key that is looked for."""
    if state[ESCAPED]:
        state[ESCAPED] = 0
        state[MATCHED] = -1
    elif byte == 92:  # backslash
        state[ESCAPED] = 1
    elif byte == 34:
        state[IN_STRING] = 0
        state[IS_KEY] = state[MATCHED] == KEY.size
    elif state[MATCHED] >= 0:
        matches = state[MATCHED] < KEY.size and byte == KEY[state[MATCHED]]
        state[MATCHED] = state[MATCHED] + 1 if matches else -1


@njit(nogil=True, inline="always")
def _step_open(byte: int, k: int, state: Any) -> None:
    """At a brace or bracket: the list of features, an object in it, or another value."""
    depth = state[DEPTH]
    if byte == 91 and state[ELEMENTS] < 0 and (depth == 0 or (depth == 1 and state[IS_KEY])):
        state[ELEMENTS] = depth + 1
    elif depth == state[ELEMENTS]:
        state[WRONG] |= byte == 91
        state[START] = k
    state[DEPTH] = depth + 1
    state[IS_KEY] = 0
