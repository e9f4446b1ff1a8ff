"""Parts of lines: what was probably meant, and how many there are."""

import pytest

from hemalum.errors import counted, nearest


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


def test_one_thing_and_many() -> None:
    assert [counted(n, "warning") for n in (0, 1, 2000)] == ["0 warnings", "1 warning", "2,000 warnings"]
    assert counted(1, "nucleus") == "1 nucleus"
    assert counted(2, "validation image") == "2 validation images"
    assert counted(3, "nucleus") == "3 nuclei"
