"""The rule by which a refined model is called better, case by case."""

import math

import pytest

from hemalum.errors import HemalumError
from hemalum.review.refinement_decision import Change, Decision, check_tolerance, decide

NAN = math.nan


def held_out(pq: float, dice: float) -> Change:
    return Change("held out", "corrections, test", pq, dice)


def guard(pq: float, dice: float, name: str = "tnbc, test") -> Change:
    return Change("guard", name, pq, dice)


@pytest.mark.parametrize(
    ("here", "guards", "tolerance", "reasons"),
    [
        (held_out(0.03, 0.02), [], 0.01, []),
        (held_out(0.03, 0.02), [guard(-0.005, -0.0099)], 0.01, []),
        (held_out(0.0, 0.0), [guard(0.0, 0.0)], 0.01, []),  # the same is no worse
        (held_out(0.03, -0.01), [], 0.01, []),  # Dice may fall by the tolerance, and by no more
        (held_out(0.03, -0.0101), [], 0.01, ["on the held-out corrections Dice fell by 0.0101, more than 0.01"]),
        (held_out(-0.0001, 0.05), [], 0.01, ["on the held-out corrections PQ fell by 0.0001"]),
        (held_out(-0.0001, 0.05), [], 0.5, ["on the held-out corrections PQ fell by 0.0001"]),
        (held_out(0.03, 0.02), [guard(-0.01, 0.0)], 0.01, []),
        (held_out(0.03, 0.02), [guard(-0.011, 0.1)], 0.01, ["on guard tnbc, test PQ fell by 0.0110, more than 0.01"]),
        (held_out(0.03, 0.02), [guard(0.1, -0.2)], 0.01, ["on guard tnbc, test Dice fell by 0.2000, more than 0.01"]),
        (held_out(0.03, 0.02), [guard(0.1, -0.2)], 0.2, []),
        (held_out(0.03, 0.02), [guard(-0.001, 0)], 0.0, ["on guard tnbc, test PQ fell by 0.0010"]),
        (
            held_out(-0.02, 0.02),
            [guard(0.0, 0.0), guard(-0.3, -0.2, "consep, all")],
            0.01,
            [
                "on the held-out corrections PQ fell by 0.0200",
                "on guard consep, all PQ fell by 0.3000, more than 0.01",
                "on guard consep, all Dice fell by 0.2000, more than 0.01",
            ],
        ),
        # a good guard makes up for no bad one
        (
            held_out(0.3, 0.2),
            [guard(0.5, 0.5), guard(-0.02, 0.0, "consep, all")],
            0.01,
            ["on guard consep, all PQ fell by 0.0200, more than 0.01"],
        ),
        (
            held_out(NAN, 0.0),
            [],
            0.01,
            ["on the held-out corrections PQ cannot be told: no image has nuclei"],
        ),
        (
            held_out(0.1, 0.0),
            [guard(0.1, NAN)],
            0.01,
            ["on guard tnbc, test Dice cannot be told: no image has nuclei"],
        ),
    ],
)
def test_decide(here: Change, guards: list[Change], tolerance: float, reasons: list[str]) -> None:
    assert decide(here, guards, tolerance) == Decision(not reasons, tuple(reasons))


def test_the_interval_stands_beside_the_fall() -> None:
    change = Change("guard", "tnbc, test", -0.05, 0.0, pq_low=-0.08, pq_high=0.01)
    assert decide(held_out(0.1, 0.1), [change]).reasons == (
        "on guard tnbc, test PQ fell by 0.0500 (95 % interval −0.0800 to +0.0100), more than 0.01",
    )


def test_means_decide_and_not_intervals() -> None:
    change = Change("guard", "tnbc, test", -0.005, 0.0, pq_low=-0.3, pq_high=0.2)
    assert decide(held_out(0.1, 0.1), [change]).better


@pytest.mark.fault
@pytest.mark.parametrize("tolerance", [-0.01, 1, 1.5, math.nan, math.inf, True, "0.1"])
def test_a_tolerance_that_is_none(tolerance: float) -> None:
    with pytest.raises(
        HemalumError, match=r"`tolerance` is .*: want by how much a guard may fall, from 0 to below 1"
    ):
        check_tolerance(tolerance)
