"""An expert for experiments: corrects an item until its nuclei are those of a known truth, edit by edit.

Every change goes through the journal, as those of a reviewer do, so that what an experiment counts is what a person
would have done: a proposal that is no nucleus is rejected, one with a poor outline is drawn anew, one that is
missing is added.
"""

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from hemalum.errors import HemalumError
from hemalum.metrics import measure_overlap
from hemalum.review import edits
from hemalum.review.edits import Edit
from hemalum.review.journal import Journal
from hemalum.review.nucleus import Ring, largest_piece, trace_piece

EXPERT = "simulated expert"
MATCHED = 0.5  # IoU above which a nucleus is a true one
POOR = 0.8  # IoU with the truth below which an outline is drawn anew

Labels = NDArray[np.int32]


@dataclass(frozen=True, slots=True, eq=False)
class Corrected:
    """What the expert did to an item: the number of `edits` by kind, and the true nuclei that could not be drawn.

    `left` has the ids of these in the truth; neighbors hold their pixels that were good enough to stay.
    """

    edits: Counter[str]
    left: tuple[int, ...]

    @property
    def total(self) -> int:
        """All edits; that the item is marked as reviewed is none."""
        return sum(self.edits.values())


def correct_item(
    journal: Journal, name: str, truth: NDArray[np.integer[Any]], *, author: str = EXPERT, poor: float = POOR
) -> Corrected:
    """Correct an item of a journal by a true label map (H, W), 0 = background, and mark it as reviewed.

    Nuclei that match no true one at IoU above 0.5 are rejected; matched ones whose IoU is below `poor` are drawn
    anew, so all that differ with 1; what is missing is added. Where two outlines stand in each other's way, the worse
    ones are deleted first. A true nucleus in several pieces has its largest one; holes are filled. Of nuclei that a
    person corrected before nothing is spared. Raises HemalumError where the truth is of another size.
    """
    state = journal.state(name)
    if truth.shape != state.item.shape:
        raise HemalumError(f"{name}: the truth is {truth.shape}, the item {state.item.shape}")
    true = np.ascontiguousarray(truth, np.int32)
    rings = _true_rings(true)
    expert = _Expert(journal, name, author, rings, Counter())
    overlap = measure_overlap(true, state.label_map())
    pairs = np.flatnonzero(overlap.iou > MATCHED)  # each nucleus is in one at most
    matched = {
        int(overlap.prediction_ids[overlap.pair_prediction[k]]): (
            int(overlap.truth_ids[overlap.pair_truth[k]]),
            float(overlap.iou[k]),
        )
        for k in pairs
    }
    for id in state.counting()[0].tolist():
        if id not in matched:
            expert.make(edits.reject, [id])
    missing = set(rings) - {true_id for true_id, _ in matched.values()}
    poor_ones = sorted((iou, id, true_id) for id, (true_id, iou) in matched.items() if iou < poor)
    missing |= expert.reshape_all({id: true_id for _, id, true_id in poor_ones})
    left = tuple(id for id in sorted(missing) if not expert.add(id))
    expert.make(edits.mark, "reviewed")
    del expert.counts["mark"]
    return Corrected(expert.counts, left)


@dataclass(frozen=True, slots=True, eq=False)
class _Expert:
    """Makes edits of one item; `rings` are the true outlines by true id, `counts` the edits made by kind."""

    journal: Journal
    name: str
    author: str
    rings: dict[int, Ring]
    counts: Counter[str]

    def make(self, edit_of: Callable[..., Edit], *what: Any) -> None:
        """Make an edit of the item as it is now. Raises HemalumError where no reviewer could."""
        state = self.journal.state(self.name)
        edit = edit_of(state, *what)
        self.journal.append(self.name, self.author, edit, state.version)
        self.counts[edit.kind] += 1

    def add(self, true_id: int) -> bool:
        """Add a true nucleus, without what others hold; False where nothing of it can be drawn."""
        try:
            self.make(edits.add, self.rings[true_id])
        except HemalumError:
            return False
        return True

    def reshape_all(self, targets: Mapping[int, int]) -> set[int]:
        """Draw nuclei anew as the true ones by id, the worst first; gives the true ones whose own had to be deleted.

        One that would lie on another waits until that one is drawn anew as well. Where several wait for each other,
        the worst of them is deleted.
        """
        waiting, deleted = dict(targets), set()
        while waiting:
            drawn = [id for id in targets if id in waiting and self._reshape(id, waiting)]
            if not drawn:
                worst = next(iter(waiting))
                self.make(edits.delete, [worst])
                deleted.add(waiting.pop(worst))
        return deleted

    def _reshape(self, id: int, waiting: dict[int, int]) -> bool:
        """Draw a nucleus anew and take it off those that wait; False where one of these is in the way."""
        ring = self.rings[waiting[id]]
        state = self.journal.state(self.name)
        in_the_way = {other for _, other in edits.find_shared(state, {id: replace(state[id], ring=ring)}, {id})}
        if in_the_way & waiting.keys():
            return False
        try:
            self.make(edits.reshape, id, ring)
        except HemalumError:
            return False
        del waiting[id]
        return True


def _true_rings(truth: Labels) -> dict[int, Ring]:
    """The outline of the largest piece of each true nucleus, by id."""
    rings = {}
    for id, area in enumerate(ndimage.find_objects(truth), start=1):
        if area is not None:
            rows, columns = area
            piece, _ = largest_piece(truth[area] == id)
            rings[id] = trace_piece(piece, (columns.start, rows.start, columns.stop, rows.stop))
    return rings
