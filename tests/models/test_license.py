"""The license of a model, by those of its data."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hemalum.errors import HemalumError
from hemalum.models.license import check_license, exceeds_license, license_of_data

STATED = {
    "CC0-1.0": "CC0-1.0",
    "CC0 1.0 Universal": "CC0-1.0",
    "https://creativecommons.org/publicdomain/zero/1.0/": "CC0-1.0",
    "Public Domain": "public domain",
    "CC BY 4.0": "CC-BY-4.0",
    "cc-by-4.0": "CC-BY-4.0",
    "CCBY": "CC-BY",
    "CC BY-SA 3.0 US": "CC-BY-SA-3.0",
    "Attribution 4.0 International (CC BY 4.0)": "CC-BY-4.0",
    "CC_BY_NC_4.0": "CC-BY-NC-4.0",
    "CC BY 4.0 – non-commercial": "CC-BY-NC-4.0",
    "Creative Commons Attribution-NonCommercial-ShareAlike 4.0 International": "CC-BY-NC-SA-4.0",
    "https://creativecommons.org/licenses/by-nc-nd/4.0/": "CC-BY-NC-ND-4.0",
    "BY-NC-SA 4.0": "CC-BY-NC-SA-4.0",
    "MIT": "MIT",
    "Apache-2.0 as stated by InstanSeg's model cards": "Apache-2.0",
    "GPL-3.0-only": "GPL-3.0",
    "liver: CC0-1.0; kidney: CC BY 4.0": "CC-BY-4.0",
    "": "not known: lab states no license",
    "unknown": "not known: lab states no license",
    "license not stated": "not known: lab states no license",
    "N/A": "not known: lab states no license",
    "yours": "not known: lab states no license",
    "research use (no license stated)": "as stated for lab: research use (no license stated)",
    "CC BY 4.0, research only": "as stated for lab: CC BY 4.0, research only",
    "non-commercial use": "as stated for lab: non-commercial use",
    "mit Genehmigung der Klinik": "as stated for lab: mit Genehmigung der Klinik",
    "liver: CC0-1.0; kidney: not stated": "as stated for lab: liver: CC0-1.0; kidney: not stated",
}


@pytest.mark.parametrize("text", STATED)
def test_a_license_is_read_as_datasets_state_it(text: str) -> None:
    assert license_of_data([("lab", text)]) == STATED[text]


@pytest.mark.parametrize(
    ("texts", "expected"),
    [
        (["CC0-1.0", "Apache-2.0", "CC BY 4.0"], "CC-BY-4.0"),
        (["CC0-1.0", "Apache-2.0", "MIT"], "Apache-2.0 AND MIT"),
        (["CC BY 4.0", "CC BY-SA 3.0"], "CC-BY-SA-4.0"),
        (["CC BY-SA 4.0", "CC BY-NC 4.0"], "CC-BY-NC-SA-4.0"),
        (["CC BY-SA 4.0", "CC BY-ND 4.0"], "CC-BY-ND-4.0"),
        (["CC BY-NC 4.0", "GPL-3.0"], "CC-BY-NC-4.0 AND GPL-3.0"),
        (["CC0-1.0", ""], "not known: b states no license"),
        (["CC BY 4.0", ""], "not known: b states no license; for the rest CC-BY-4.0"),
        (["", "", "", "", ""], "not known: a, b, c and 2 more state no license"),
        (
            ["research use", "research use", "", "CC BY-NC-SA 4.0"],
            "not known: c states no license; as stated for a, b: research use; for the rest CC-BY-NC-SA-4.0",
        ),
        ([], "not stated"),
    ],
)
def test_the_most_restrictive_wins(texts: list[str], expected: str) -> None:
    assert license_of_data(zip("abcde", texts, strict=False)) == expected


@settings(max_examples=60, deadline=None)
@given(st.lists(st.sampled_from(sorted(STATED)), min_size=1, max_size=6))
def test_more_data_never_allow_more(texts: list[str]) -> None:
    license = license_of_data([("lab", text) for text in texts])
    for text in texts:
        assert not exceeds_license(license, license_of_data([("lab", text)]))
    assert ("not known" in license) == any(STATED[text].startswith("not known") for text in texts)
    for letters in ("NC", "ND"):
        assert (f"-{letters}" in license) == any(f"-{letters}" in STATED[text] for text in texts)


@pytest.mark.parametrize(
    ("chosen", "data", "more"),
    [
        ("Apache-2.0", "CC-BY-4.0", False),
        ("Apache-2.0", "CC-BY-NC-4.0", True),
        ("CC-BY-NC-SA-4.0", "CC-BY-NC-4.0", False),
        ("CC-BY-4.0", "CC-BY-SA-4.0", True),
        ("MIT", "GPL-3.0", True),
        ("MIT", "as stated for lab: research use", True),
        ("MIT", "not known: lab states no license", False),  # whoever states it may know
        ("by agreement with the clinic", "CC-BY-NC-4.0", False),
    ],
)
def test_a_license_that_the_data_do_not_allow(chosen: str, data: str, more: bool) -> None:
    assert exceeds_license(chosen, data) is more


@pytest.mark.fault
@pytest.mark.parametrize("text", ["", "  ", "x" * 301, "two\nlines", "bell\x07"])
def test_a_license_is_one_line(text: str) -> None:
    with pytest.raises(
        HemalumError, match=r"^license '.*': want one line of 1 to 300 characters, such as CC-BY-4.0$"
    ):
        check_license(text)
