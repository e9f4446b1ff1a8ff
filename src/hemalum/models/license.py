"""The license of a trained model, as far as it follows from the licenses of its data."""

import re
from collections.abc import Iterable
from dataclasses import dataclass

from hemalum.errors import HemalumError

UNSTATED = "not stated"
LONGEST = 300  # characters of a license that a user states
MOST_NAMED = 3  # sets that a line names

_PUBLIC_DOMAIN = {
    "CC0-1.0": r"\bcc[ -]?(?:0|zero)\b|publicdomain/zero",
    "public domain": r"\bpddl\b|\bpublic domain\b",
}
_NOTICE = {  # ask for a notice alone, which CC BY does as well
    "MIT": r"(?-i:\bMIT\b)",
    "Apache-2.0": r"\bapache\b",
    "BSD-3-Clause": r"\bbsd\b",
    "ODC-By-1.0": r"\bodc[ -]by\b",
    "CDLA-Permissive-2.0": r"\bcdla[ -]permissive\b",
}
_SAME_LICENSE = {  # ask for themselves on what is made of the work
    "ODbL-1.0": r"\bodbl\b",
    "CDLA-Sharing-1.0": r"\bcdla[ -]sharing\b",
    "AGPL-3.0": r"\bagpl",
    "LGPL-3.0": r"\blgpl",
    "GPL-3.0": r"\bgpl",
}
_NAMES = _PUBLIC_DOMAIN | _NOTICE | _SAME_LICENSE
_WORDS = {  # of the licenses of Creative Commons, to their letters
    r"creative\s*commons(?:\.org/licenses/)?": "cc ",
    r"\bccby": "cc by",
    r"\battribution\b": "cc by",
    r"\bnon[ -]?commercial\b": "nc",
    r"\bshare[ -]?alike\b": "sa",
    r"\bno[ -]?deriv\w*": "nd",
    r"\bby(?=[ _/-]+(?:nc|sa|nd)\b)": "cc by",
}
_CONDITIONS = ("NC", "ND", "SA")
_FURTHER = re.compile(  # what no name of a license says, or a set among several of which nothing is known
    r"\bresearch|\bacademi|\beducation|\b(?:no|not for|without) commercial|(?<!-)\bonly\b|\binternal\b|"
    r"\bnot stated\b|\bunknown\b"
)
_NOTHING = re.compile(
    r"\W*(?:(?:no |the )?licen[cs]e )?(?:is )?(?:unknown|not (?:known|stated)|stated|none|n/?a|yours)?\W*"
)


@dataclass(frozen=True, slots=True)
class Terms:
    """What a license text asks for: the names that it is known by, or no name, and then its own words count.

    `conditions` are those of Creative Commons beside the attribution: NC, ND, SA; None where it is none of these.
    """

    text: str
    names: frozenset[str] = frozenset()
    conditions: frozenset[str] | None = None
    version: str = ""

    @classmethod
    def of(cls, text: str) -> "Terms":
        """Read a license as a dataset states it: SPDX, its full name, its address, or words."""
        text = " ".join(text.split())
        plain = text.replace("_", " ")
        for words, letters in _WORDS.items():
            plain = re.sub(words, letters, plain, flags=re.IGNORECASE)
        names = frozenset(name for name, pattern in _NAMES.items() if re.search(pattern, plain, re.IGNORECASE))
        tokens = set(re.findall(r"[a-z]+", plain.lower()))
        conditions = None
        if "cc" in tokens and tokens & {"by", "nc", "nd", "sa"}:
            conditions = frozenset(name for name in _CONDITIONS if name.lower() in tokens)
        further = _FURTHER.search(plain.lower()) or (conditions is None and "nc" in tokens)
        if further:  # words that ask for more than the license's name says
            return cls(text)
        version = re.search(r"\bcc\b.*?\b(\d\.\d)\b", plain, re.IGNORECASE)
        return cls(text, names, conditions, "" if version is None else version[1])

    @property
    def stated(self) -> bool:
        """Whether the text says anything."""
        return _NOTHING.fullmatch(self.text.lower()) is None

    @property
    def named(self) -> bool:
        """Whether it is a license that is known here by name."""
        return bool(self.names) or self.conditions is not None


def license_of_data(sets: Iterable[tuple[str, str]]) -> str:
    """What data of these names and licenses allow for a model that learned from them; `UNSTATED` without any.

    The most restrictive wins: public domain, then licenses that ask for a notice, then CC BY; conditions of Creative
    Commons (NC, ND, SA) add up, and what asks for itself on works made of it (GPL, ODbL) stands beside. A license
    that is none of these is repeated in its own words; a set that states none is named: what it allows is not known.
    """
    terms = [(name, Terms.of(text)) for name, text in dict.fromkeys(sets)]
    silent = [name for name, one in terms if not one.stated]
    in_words: dict[str, list[str]] = {}
    for name, one in terms:
        if one.stated and not one.named:
            in_words.setdefault(one.text, []).append(name)
    parts = [f"not known: {_listed(silent)} {'states' if len(silent) == 1 else 'state'} no license"] if silent else []
    parts += [f"as stated for {_listed(names)}: {text}" for text, names in in_words.items()]
    joint = _join([one for _, one in terms if one.named])
    if joint and not (parts and joint in _PUBLIC_DOMAIN):
        parts.append(f"for the rest {joint}" if parts else joint)
    return "; ".join(parts) or UNSTATED


def check_license(text: str) -> str:
    """A license as a card holds it. Raises HemalumError where it is empty, too long or not one line."""
    if not text.strip() or len(text) > LONGEST or not text.isprintable():
        raise HemalumError(f"license {text[:40]!r}: want one line of 1 to {LONGEST} characters, such as CC-BY-4.0")
    return text.strip()


def exceeds_license(license: str, data: str) -> bool:
    """Whether a license leaves out a condition that data, by their license, ask for as far as they can be told."""
    chosen, asked = Terms.of(license), Terms.of(data)
    if not chosen.named:
        return False
    if asked.named:
        kept = chosen.conditions or frozenset()
        lost = (asked.conditions or frozenset()) - kept - ({"SA"} if "ND" in kept else set())
        return bool(lost or asked.names & _SAME_LICENSE.keys() - chosen.names)
    return _FURTHER.search(data.lower()) is not None


def _join(terms: list[Terms]) -> str:
    names = frozenset[str]().union(*(one.names for one in terms))
    commons = [one for one in terms if one.conditions is not None]
    parts = sorted(names & _SAME_LICENSE.keys())
    if commons:
        conditions = frozenset[str]().union(*(one.conditions or () for one in commons))
        letters = ["NC"] if "NC" in conditions else []
        letters += ["ND"] if "ND" in conditions else ["SA"] if "SA" in conditions else []
        version = max(one.version for one in commons)
        parts.insert(0, "-".join(["CC-BY", *letters, *([version] if version else [])]))
    return " AND ".join(parts or sorted(names & _NOTICE.keys()) or sorted(names)[:1])


def _listed(names: list[str]) -> str:
    more = f" and {len(names) - MOST_NAMED} more" if len(names) > MOST_NAMED else ""
    return ", ".join(names[:MOST_NAMED]) + more
