"""Binary cross-entropy by hand, with further heads, an inner network and weights of pixels, and its gradient."""

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from hemalum.errors import HemalumError
from hemalum.losses import build_loss
from hemalum.losses.loss import LossInputs
from hemalum.networks.contract import Outputs
from hemalum.targets.representations import Head

HEADS = (Head("sigmoid", ("foreground",)),)
TARGETS = torch.tensor([1.0, 0.0, 0.0, 1.0]).view(1, 1, 2, 2)
LAST, MIDDLE, COARSE, FIRST = (
    torch.tensor(values).view(1, 1, 2, 2)
    for values in ([0.0, 2.0, -1.0, 3.0], [1.0, 1.0, 1.0, 1.0], [0.0, 0.0, 0.0, 0.0], [-2.0, 0.5, -0.5, 1.0])
)


def by_hand(logits: Tensor, weights: tuple[float, ...] = (1, 1, 1, 1)) -> float:
    """The mean of weight · -[y log p + (1 - y) log(1 - p)], pixel by pixel."""
    total = 0.0
    for logit, y, weight in zip(logits.flatten().tolist(), TARGETS.flatten().tolist(), weights, strict=True):
        p = 1 / (1 + math.exp(-logit))
        total -= weight * (y * math.log(p) + (1 - y) * math.log(1 - p))
    return total / 4


def parts(spec: Any, outputs: Outputs, epoch: int = 1, **extra: Tensor) -> dict[str, float]:
    loss = build_loss(spec)(LossInputs(outputs, TARGETS, HEADS, extra, epoch=epoch))
    return {name: pytest.approx(float(value), rel=1e-5) for name, value in loss.items()}


def test_alone() -> None:
    assert parts("bce", Outputs(LAST)) == {"bce": by_hand(LAST)}
    assert parts({"name": "bce", "aux_logits": "by_epoch", "stage1_weight": 0.5}, Outputs(LAST)) == {
        "bce": by_hand(LAST)
    }


def test_the_mean_over_all_heads() -> None:
    assert parts("bce", Outputs(LAST, (MIDDLE, COARSE))) == {
        "bce": by_hand(LAST) / 3,
        "bce_aux": (by_hand(MIDDLE) + by_hand(COARSE)) / 3,
    }


@pytest.mark.parametrize("epoch", [1, 4])
def test_auxiliary_heads_fade_by_epoch(epoch: int) -> None:
    outputs = Outputs(LAST, (MIDDLE, COARSE))
    spec = {"name": "bce", "aux_logits": "by_epoch"}
    assert parts(spec, outputs, epoch) == {
        "bce": by_hand(LAST),
        "bce_aux": (by_hand(MIDDLE) + by_hand(COARSE)) / epoch,
    }
    assert build_loss(spec).factors(LossInputs(outputs, TARGETS, HEADS, epoch=epoch)) == {
        "aux_logits_weight": 1 / epoch
    }


def test_the_first_stage_weighs_what_is_asked_for() -> None:
    outputs = Outputs(LAST, (MIDDLE,), {"stage1_logits": FIRST})
    assert parts({"name": "bce", "aux_logits": "none"}, outputs) == {"bce": by_hand(LAST)}
    assert parts({"name": "bce", "aux_logits": "none", "stage1_weight": 0.5}, outputs) == {
        "bce": by_hand(LAST),
        "bce_stage1": by_hand(FIRST) / 2,
    }


def test_pixels_weigh_what_the_map_says() -> None:
    weights = (1.0, 5.0, 2.0, 1.0)
    assert parts("border_bce", Outputs(LAST), border_weight=torch.tensor(weights).view(1, 1, 2, 2)) == {
        "bce": by_hand(LAST, weights)
    }
    assert build_loss("border_bce").needs == ("border_weight",)


@pytest.mark.parametrize("aux_logits", ["mean", "by_epoch"])
def test_its_gradient_is_that_of_finite_differences(aux_logits: str) -> None:
    torch.manual_seed(0)
    logits = [torch.randn(2, 1, 3, 3, dtype=torch.float64, requires_grad=True) for _ in range(3)]
    targets = (torch.rand(2, 1, 3, 3) > 0.5).double()
    extra = {"border_weight": 1 + 10 * torch.rand(2, 1, 3, 3, dtype=torch.float64)}

    def loss(last: Tensor, aux: Tensor, first: Tensor) -> Tensor:
        outputs = Outputs(last, (aux,), {"stage1_logits": first})
        built = build_loss({"name": "border_bce", "aux_logits": aux_logits, "stage1_weight": 0.5})
        return torch.stack(list(built(LossInputs(outputs, targets, HEADS, extra, epoch=3)).values())).sum()

    assert torch.autograd.gradcheck(loss, logits)


@pytest.mark.fault
def test_values_that_are_not_possible() -> None:
    with pytest.raises(HemalumError, match="loss 'bce', 'aux_logits': Input should be 'mean', 'by_epoch' or 'none'"):
        build_loss({"name": "bce", "aux_logits": "sum"})
    with pytest.raises(HemalumError, match="loss 'bce', 'stage1_weight': Input should be greater than or equal to 0"):
        build_loss({"name": "bce", "stage1_weight": -1})
