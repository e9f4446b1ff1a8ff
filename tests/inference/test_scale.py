"""The scale estimated from nuclei of known size."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from hemalum.inference.scale import NoNucleiError, estimate_mpp, peak
from hemalum.models.card import Card, NetworkSpec
from hemalum.models.model import Model
from hemalum.slides.slide import Slide


@pytest.mark.parametrize("mpp", [0.2, 0.25, 0.33, 0.5, 0.8])
def test_disks_of_the_size_that_the_engine_knows_tell_the_scale(
    make_disks: Callable[..., NDArray[np.uint8]], home_engine: Any, disk_card: Card, mpp: float
) -> None:
    image = make_disks(500, 600, diameter=8 / mpp)
    estimate = estimate_mpp(Slide.of(image), Model(disk_card, {}), home_engine)
    assert estimate.mpp == pytest.approx(mpp, rel=0.1)
    assert estimate.nuclei >= 8
    assert 0.4 < estimate.confidence <= 1


def test_a_peak_is_where_scores_are_highest_not_where_most_were_tried() -> None:
    octaves = np.arange(11) / 2.0
    scores = 1.7 - 0.1 * (octaves - 2.2) ** 2
    assert peak(octaves, scores) == pytest.approx(2.2, abs=0.1)
    near = np.array([2, 3, 4, 5, 6])
    assert peak(octaves[near], scores[near]) == pytest.approx(2.2, abs=0.25)
    assert peak(octaves[:1], scores[:1]) == 0


def test_nothing_to_see_says_nothing(home_engine: Any) -> None:
    card = Card(
        name="x", network=NetworkSpec(name="none"), representation="distance", mpp=0.5, halo=4, stride=4,
        code_version="0",
    )  # fmt: skip
    white = np.full((300, 300, 3), 240, np.uint8)
    with pytest.raises(NoNucleiError, match=r"image: no nuclei at any scale from 0\.062 to 2 µm per px"):
        estimate_mpp(Slide.of(white), Model(card, {}), home_engine)
