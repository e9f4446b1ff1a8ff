"""The class of a nucleus, from the most probable class of each of its pixels."""

from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray


def vote(
    labels: NDArray[np.int32],
    ids: NDArray[np.int32],
    kinds: NDArray[np.float32],
    probability: NDArray[np.float32] | None = None,
    threshold: float = 0.0,
) -> NDArray[np.int32]:
    """Give the class (N,) int32 of the nuclei `ids` of a label map (H, W): that of most of their pixels.

    `kinds` (H, W) float32 is the class of each pixel, a whole number from 1. Pixels whose `probability` is below
    `threshold` do not vote (a filled hole is nucleus and looks like background). Of classes with equally many votes
    the first is taken. Whole votes are counted, so a nucleus gets one class whichever band it is in.
    """
    rank = np.full(int(ids.max(initial=0)) + 1, -1, np.int64)
    rank[ids] = np.arange(len(ids))
    votes = np.zeros((len(ids), int(kinds.max(initial=0)) + 1), np.int64)
    weighed = probability if probability is not None else np.zeros((0, 0), np.float32)
    _count(labels, rank, kinds, np.ascontiguousarray(weighed), np.float32(threshold), votes)
    votes[:, :1] = 0
    winner: NDArray[np.int32] = votes.argmax(axis=1).astype(np.int32)
    return winner


@njit(cache=True, nogil=True)
def _count(labels: Any, rank: Any, kinds: Any, probability: Any, threshold: Any, votes: Any) -> None:
    weighed = probability.shape[0] > 0
    for y in range(labels.shape[0]):
        for x in range(labels.shape[1]):
            n = labels[y, x]
            if n and (not weighed or probability[y, x] >= threshold):
                votes[rank[n], int(kinds[y, x])] += 1
