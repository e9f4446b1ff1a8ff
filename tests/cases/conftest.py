"""What the tests of bad and unusual input share."""

from collections.abc import Callable

import pytest

from hemalum.errors import HemalumError


@pytest.fixture
def error_line() -> Callable[[Callable[[], object]], str]:
    """A function that gives the one line that a call fails with."""

    def error_line(call: Callable[[], object]) -> str:
        with pytest.raises(HemalumError) as caught:
            call()
        (line,) = str(caught.value).splitlines()
        return line

    return error_line
