"""The end of an error line that names what was probably meant."""

import pytest

from hemalum.errors import nearest


@pytest.mark.parametrize(
    ("known", "expected"),
    [
        (["fast", "accurate"], ", did you mean 'fast'?"),
        (["typed", "accurate"], "; known: accurate, typed"),
        ([], "; there are none"),
    ],
)
def test_the_nearest_name_or_all_of_them(known: list[str], expected: str) -> None:
    assert nearest("fats", known) == expected
