"""Which reviewed items are held out from training: decided once, by the hash of a name, and noted in the project.

    PROJECT/held_out.json    the part of each unit, the groups that are divided by image, the images by window

A unit is what stays together: the group of an image (its patient, as a dataset says it), else the image. Where all
reviewed items are of one group its images are units, and where they are of one image its windows.
"""

import hashlib
import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hemalum.data import Part
from hemalum.errors import HemalumError, counted, one_line
from hemalum.files import write_text
from hemalum.manifest import lock_folder
from hemalum.review.item import Item

FILE = "held_out.json"
HOLDOUT = 0.25
FEWEST_WINDOWS = 4  # of one image


def check_holdout(share: float) -> None:
    """Raise HemalumError for a share that is none."""
    if not 0 < share < 1:
        raise HemalumError(f"--holdout is {share}: want a share between 0 and 1, such as 0.25")


def group_of(item: Item) -> str:
    """What an item is kept together with: its group, else its image."""
    return item.group or _image_of(item)


def hold_out(folder: Path, items: Sequence[Item], share: float) -> tuple[dict[str, Part], tuple[str, ...]]:
    """The part of each item, "train" or "test" (held out), and the images that are divided by window.

    A share of the units is held out, at least one; of windows of one image likewise. What was decided before holds,
    so that nothing held out is ever learned from, and nothing learned from is measured on. Images that come after one
    was divided by window are units as a whole. Raises HemalumError where there is nothing left for one of the parts.
    """
    with lock_folder(folder):
        held = _Held.read(folder / FILE)
        units = held.units(items)
        if len(set(units.values())) == 1 and not held.parts.keys() & set(units.values()):
            held.by_image |= {group_of(items[0])}
            units = held.units(items)
        if len(set(units.values())) == 1 and not held.parts.keys() & set(units.values()):
            if len(items) < FEWEST_WINDOWS:
                are = "is" if len(items) == 1 else "are"
                raise HemalumError(
                    f"{folder}: {counted(len(items), 'item')} of 1 image {are} marked as reviewed; refining needs "
                    f"items of 2 images at least, or {FEWEST_WINDOWS} of one, so that some can be held out"
                )
            held.by_window |= {_image_of(items[0])}
            units = held.units(items)
        divided = {_image_of(item) for item in items} & held.by_window
        for image in sorted(divided):
            held.assign({units[item.name] for item in items if _image_of(item) == image}, share)
        # windows of one image are in both parts already, and another image says more than they do
        others = {units[item.name] for item in items if _image_of(item) not in divided}
        held.assign(others, share, all_but=0 if divided else 1)
        parts = {name: held.parts[unit] for name, unit in units.items()}
        _check_both(folder, parts, len(set(units.values())))
        held.write(folder / FILE)
    return parts, tuple(sorted(divided))


@dataclass
class _Held:
    """What is noted: parts of units, groups whose images are units, images whose windows are."""

    parts: dict[str, Part] = field(default_factory=dict)
    by_image: set[str] = field(default_factory=set)
    by_window: set[str] = field(default_factory=set)

    def units(self, items: Iterable[Item]) -> dict[str, str]:
        """The unit of each item, by its name."""
        return {item.name: self._unit(item) for item in items}

    def _unit(self, item: Item) -> str:
        image = _image_of(item)
        if image in self.by_window:
            return item.name
        return image if group_of(item) in self.by_image else group_of(item)

    def assign(self, units: set[str], share: float, *, all_but: int = 1) -> None:
        """Give parts to the units that have none, in the order of their hashes; `all_but` so many are held out."""
        wanted = min(max(1, round(share * len(units))), len(units) - all_but)
        missing = max(0, wanted - sum(self.parts.get(unit) == "test" for unit in units))
        for index, unit in enumerate(sorted(units - self.parts.keys(), key=_hash)):
            self.parts[unit] = "test" if index < missing else "train"

    @classmethod
    def read(cls, path: Path) -> "_Held":
        """What a project's file says; nothing where there is none. Raises HemalumError when it is damaged."""
        if not path.exists():
            return cls()
        try:
            content: Any = json.loads(path.read_text(encoding="utf-8"))
            parts, lists = dict(content["parts"]), [content["by_image"], content["by_window"]]
            named = all(isinstance(names, list) and all(isinstance(one, str) for one in names) for names in lists)
            if not named or not set(parts.values()) <= {"train", "test"}:
                raise ValueError("not parts train and test, and lists of names")
        except (OSError, ValueError, TypeError, KeyError, RecursionError) as error:
            raise HemalumError(f"{path}: cannot be read ({one_line(error)}); put it back from a copy") from error
        return cls(parts, set(lists[0]), set(lists[1]))

    def write(self, path: Path) -> None:
        """Note it."""
        content = {"parts": self.parts, "by_image": sorted(self.by_image), "by_window": sorted(self.by_window)}
        write_text(path, json.dumps(content, indent=2) + "\n")


def _check_both(folder: Path, parts: dict[str, Part], units: int) -> None:
    for part, what, other in (("test", "held out", "learned from"), ("train", "learned from", "held out")):
        if part not in parts.values():
            raise HemalumError(
                f"{folder}: all reviewed items, of {counted(units, 'image')}, were {other} before, which does not "
                f"change; review another image, to be {what}"
            )


def _image_of(item: Item) -> str:
    """The image of an item; a window is called by its image and place."""
    return item.source or re.sub(r" \d+,\d+,\d+,\d+$", "", item.name)


def _hash(unit: str) -> str:
    return hashlib.sha256(unit.encode("utf-8", "surrogateescape")).hexdigest()
