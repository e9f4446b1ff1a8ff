"""What the card of a model says that was refined on the corrections of a reviewer."""

from typing import Literal

from pydantic import Field

from hemalum.errors import counted
from hemalum.settings import Strict


class ScoreChange(Strict):
    """How the model changed on one set of images: means over images before and after, and the difference's interval.

    None where no image has the score, or too few for an interval (95 %, by bootstrap).
    """

    kind: Literal["held out", "guard"] = Field(description="corrections that were not learned from, or other images")
    data: str
    split: str = Field(description="its part; all: the whole")
    digest: str = Field(description="of images and labels (`Dataset.digest`)")
    images: int = Field(ge=1)
    pq_before: float | None = None
    pq_after: float | None = None
    pq_low: float | None = None
    pq_high: float | None = None
    dice_before: float | None = None
    dice_after: float | None = None
    dice_low: float | None = None
    dice_high: float | None = None

    @property
    def text(self) -> str:
        """The change in words."""
        scores = [("PQ", self.pq_before, self.pq_after), ("Dice", self.dice_before, self.dice_after)]
        parts = [f"{name} {a:.3f} to {b:.3f}" for name, a, b in scores if a is not None and b is not None]
        what = "held-out corrections" if self.kind == "held out" else f"guard {self.data}, {self.split}"
        return f"{what}: {', '.join(parts) or 'no scores'}, {counted(self.images, 'image')}"


class RefinedFrom(Strict):
    """The model that it was refined from, on which corrections, and what that was worth."""

    parent: str = Field(description="name of the model")
    ancestors: list[str] = Field(min_length=1, description="digests of the models before it, the parent first")
    project: str = Field(description="id of the review")
    items: int = Field(ge=1, description="that were learned from")
    held_out: int = Field(ge=1, description="items that were not, and that the change was measured on")
    events: dict[str, int] = Field(description="what reviewers did in all of these, by kind")
    corrections: str = Field(description="sha256 over the items, their pixels and the version of each")
    split_hash: str = Field(description="over which item is in which part")
    kept_by: str = Field(description="what kept it from forgetting: replay of a dataset, distillation, or nothing")
    tolerance: float = Field(ge=0, lt=1, description="by which a guard may fall")
    better: bool = Field(description="whether nothing that was measured got worse")
    decision: str = Field(description="why")
    changes: list[ScoreChange] = Field(min_length=1)

    @property
    def pairs(self) -> list[tuple[str, str]]:
        """All of it in words, with what each is."""
        events = ", ".join(f"{count:,} {kind}" for kind, count in self.events.items() if kind != "mark")
        return [
            ("refined from", f"{self.parent} ({self.ancestors[0][:12]}); against forgetting: {self.kept_by}"),
            (
                "corrections",
                f"review {self.project[:12]}, {counted(self.items, 'item')} learned from, {self.held_out} held out "
                f"(split {self.split_hash[:12]}); {events}",
            ),
            *(("measured", change.text) for change in self.changes),
            ("decision", self.decision),
        ]
