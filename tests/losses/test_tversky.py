"""The Tversky loss and HistoLoss against hand-computed cases and finite differences."""

import math

import pytest
import torch

from hemalum.losses import build_loss
from hemalum.losses.loss import LossInputs
from hemalum.losses.maps import soft_dice
from hemalum.losses.tversky import tversky
from hemalum.networks.contract import Outputs
from hemalum.targets.representations import Head

WITH_EDGE = (Head("sigmoid", ("foreground", "edge")),)
ALONE = (Head("sigmoid", ("foreground",)),)


def loss_inputs(logits: torch.Tensor, targets: torch.Tensor, heads: tuple[Head, ...]) -> LossInputs:
    return LossInputs(outputs=Outputs(logits), targets=targets, heads=heads)


def test_tversky_by_hand() -> None:
    probability = torch.tensor([[[[0.5, 1.0], [0.0, 0.5]]]])
    target = torch.tensor([[[[1.0, 1.0], [0.0, 0.0]]]])
    # TP 1.5, FP 0.5, FN 0.5
    expected = 1 - 1.5 / (1.5 + 0.2 * 0.5 + 0.8 * 0.5)
    assert tversky(probability, target, 0.2, 0.8).item() == pytest.approx(expected, abs=1e-5)


def test_missing_a_nucleus_costs_more_than_inventing_one() -> None:
    target = torch.tensor([[[[1.0, 1.0, 0.0, 0.0]]]])
    missed, invented = torch.tensor([[[[1.0, 0.0, 0.0, 0.0]]]]), torch.tensor([[[[1.0, 1.0, 1.0, 0.0]]]])
    assert tversky(missed, target, 0.3, 0.7) == pytest.approx(1 - 1 / 1.7, abs=1e-5)
    assert tversky(invented, target, 0.3, 0.7) == pytest.approx(1 - 2 / 2.3, abs=1e-5)


def test_with_both_weights_at_a_half_it_is_dice() -> None:
    torch.manual_seed(0)
    probability, target = torch.rand(2, 3, 5, 7), (torch.rand(2, 3, 5, 7) > 0.5).float()
    torch.testing.assert_close(tversky(probability, target, 0.5, 0.5), soft_dice(probability, target))


def test_nothing_there_and_nothing_found_is_no_loss() -> None:
    assert tversky(torch.zeros(1, 1, 4, 4), torch.zeros(1, 1, 4, 4), 0.3, 0.7).item() == pytest.approx(0, abs=1e-5)


def test_parts_of_a_shared_batch_have_the_loss_of_the_whole() -> None:
    torch.manual_seed(0)
    probability, target = torch.rand(4, 1, 5, 5), (torch.rand(4, 1, 5, 5) > 0.5).float()
    sums: list[torch.Tensor] = []

    def note(part: torch.Tensor) -> torch.Tensor:
        sums.append(part)
        return part

    for half in (slice(0, 2), slice(2, 4)):
        tversky(probability[half], target[half], 0.3, 0.7, note)
    full_batch = tversky(probability, target, 0.3, 0.7)
    for half in (slice(0, 2), slice(2, 4)):
        shared = tversky(probability[half], target[half], 0.3, 0.7, lambda _: sums[0] + sums[1])
        torch.testing.assert_close(shared, full_batch)


def test_histo_by_hand() -> None:
    logits = torch.zeros(1, 2, 1, 2)
    targets = torch.tensor([[[[1.0, 0.0]], [[1.0, 1.0]]]])
    parts = build_loss("histo")(loss_inputs(logits, targets, WITH_EDGE))
    # at a probability of ½ every BCE is ln 2; of the foreground TP ½, FP ½, FN ½
    assert {name: float(part) for name, part in parts.items()} == pytest.approx(
        {"bce": 0.3 * math.log(2), "tversky": 0.7 * (1 - 0.5 / (0.5 + 0.15 + 0.35)), "edge": 0.2 * math.log(2)},
        abs=1e-5,
    )


def test_histo_looks_at_each_map_for_its_own_term() -> None:
    targets = torch.tensor([[[[1.0, 0.0]], [[0.0, 1.0]]]])
    logits = torch.zeros(1, 2, 1, 2)
    other = logits.clone()
    other[:, 1] = torch.tensor([3.0, -2.0])  # the edge map alone
    loss = build_loss({"name": "histo", "bce": 0.5, "tversky": 0.5, "edge": 1.0})
    before, after = loss(loss_inputs(logits, targets, WITH_EDGE)), loss(loss_inputs(other, targets, WITH_EDGE))
    assert before["bce"] == after["bce"]
    assert before["tversky"] == after["tversky"]
    wrong = (math.log1p(math.exp(3)) + math.log1p(math.exp(2))) / 2
    assert float(after["edge"]) == pytest.approx(wrong, rel=1e-5)


def test_histo_knows_the_edge_map_by_its_name() -> None:
    torch.manual_seed(0)
    logits, targets = torch.randn(2, 2, 3, 4), (torch.rand(2, 2, 3, 4) > 0.5).float()
    loss, edge_first = build_loss("histo"), (Head("sigmoid", ("edge", "foreground")),)
    expected = loss(loss_inputs(logits, targets, WITH_EDGE))
    parts = loss(loss_inputs(logits.flip(1), targets.flip(1), edge_first))
    assert {name: float(part) for name, part in parts.items()} == pytest.approx(
        {name: float(part) for name, part in expected.items()}
    )


def test_histo_without_an_edge_map_has_two_terms() -> None:
    parts = build_loss("histo")(loss_inputs(torch.zeros(1, 1, 2, 2), torch.ones(1, 1, 2, 2), ALONE))
    assert list(parts) == ["bce", "tversky"]


@pytest.mark.parametrize("name", ["tversky", "histo"])
def test_gradient_agrees_with_finite_differences(name: str) -> None:
    torch.manual_seed(0)
    targets = (torch.rand(2, 2, 4, 4) > 0.5).double()
    logits = torch.randn(2, 2, 4, 4, dtype=torch.float64, requires_grad=True)
    loss = build_loss(name)
    torch.autograd.gradcheck(lambda x: sum(loss(loss_inputs(x, targets, WITH_EDGE)).values()), (logits,))
