"""What answers may be other than 200, as the schema lists them."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated, Any

from fastapi import HTTPException, Path

from hemalum.errors import HemalumError
from hemalum.review.server.schema import ConflictAnswer, ErrorAnswer

Responses = dict[int | str, dict[str, Any]]
Id = Annotated[str, Path(max_length=64, description="the first 16 hex digits of sha256 of the name")]


def _error(status: int, description: str, model: type[ErrorAnswer] = ErrorAnswer) -> Responses:
    return {status: {"model": model, "description": description}}


EVERYWHERE = _error(401, "The token is missing or wrong") | _error(403, "Another host or origin than this one")
EVERYWHERE |= _error(421, "The page is of another project, which was served at this address before")
EVERYWHERE |= _error(422, "The request has another shape")
BAD = _error(400, "What is asked for cannot be done")
MISSING = _error(404, "There is no such item, image or tile")
GONE = _error(410, "The image or the store is gone, damaged or another than before")
READING = BAD | MISSING | GONE
WRITING = READING | _error(409, "Another came first", ConflictAnswer)
WRITING |= _error(413, "The request is too large") | _error(429, "Too many changes at once: Retry-After says when")


def bytes_of(media_type: str) -> Responses:
    """The answer is a file of this type."""
    schema = {"type": "string", "format": "binary"}
    return {200: {"content": {media_type: {"schema": schema}}, "description": "The file"}}


@contextmanager
def gone_if_failing() -> Iterator[None]:
    """What fails here, a store, is damaged or another than before: 410."""
    try:
        yield
    except HemalumError as error:
        raise HTTPException(410, str(error)) from error
