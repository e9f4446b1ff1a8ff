"""Whether a refined model may be called better: one rule over how scores have changed, and the words for it."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from hemalum.errors import HemalumError

TOLERANCE = 0.01  # by which a guard may fall, in PQ and in Dice
_ROUNDING = 1e-9


@dataclass(frozen=True, slots=True)
class Change:
    """How a model changed on one set of images: mean differences of PQ and Dice per image, new less old.

    `low` and `high` are the ends of the 95 % interval of each. nan: no image has the score.
    """

    kind: Literal["held out", "guard"]
    name: str
    pq: float
    dice: float
    pq_low: float = math.nan
    pq_high: float = math.nan
    dice_low: float = math.nan
    dice_high: float = math.nan

    @property
    def title(self) -> str:
        """What was measured on, in words."""
        return "the held-out corrections" if self.kind == "held out" else f"guard {self.name}"


@dataclass(frozen=True, slots=True)
class Decision:
    """Whether the new model is to be used, and what speaks against it where it is not."""

    better: bool
    reasons: tuple[str, ...] = ()


def decide(held_out: Change, guards: Sequence[Change], tolerance: float = TOLERANCE) -> Decision:
    """The new model is better where the held-out corrections did not get worse, and no guard fell.

    The held-out corrections got worse where PQ fell at all, or Dice by more than `tolerance`; a guard fell where PQ
    or Dice did by more than `tolerance`. What cannot be told (nan) is no proof of better. The rule looks at means;
    their intervals are for the reader.
    """
    reasons = _falls(held_out, 0.0, tolerance)
    for guard in guards:
        reasons += _falls(guard, tolerance, tolerance)
    return Decision(not reasons, tuple(reasons))


def check_tolerance(tolerance: float) -> float:
    """The tolerance, or HemalumError where it is none."""
    if not isinstance(tolerance, int | float) or isinstance(tolerance, bool) or not 0 <= tolerance < 1:
        raise HemalumError(f"--tolerance is {tolerance}: want by how much a guard may fall, from 0 to below 1")
    return float(tolerance)


def _falls(change: Change, pq_allowed: float, dice_allowed: float) -> list[str]:
    """What speaks against the new model on one set of images."""
    lines = []
    for score, value, low, high, allowed in (
        ("PQ", change.pq, change.pq_low, change.pq_high, pq_allowed),
        ("Dice", change.dice, change.dice_low, change.dice_high, dice_allowed),
    ):
        if math.isnan(value):
            lines.append(f"on {change.title} {score} cannot be told: no image has nuclei")
        elif value < -allowed - _ROUNDING:
            interval = "" if math.isnan(low) else f" (95 % interval {low:+.4f} to {high:+.4f})"
            more = f", more than {allowed:g}" if allowed else ""
            lines.append(f"on {change.title} {score} fell by {-value:.4f}{interval}{more}")
    return [line.replace("-0.", "−0.") for line in lines]
