"""Cross-entropy with Dice, consistency and contrast: by hand, against finite differences, and their bounds."""

import math

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from hemalum.errors import HemalumError
from hemalum.losses import build_loss
from hemalum.losses.loss import LossInputs
from hemalum.losses.maps import masked_cross_entropy, with_background
from hemalum.losses.semi_supervised import consistency, contrast
from hemalum.networks.contract import Outputs
from hemalum.targets.representations import Head

HEADS = (Head("softmax", ("a", "b")),)


def loss_inputs(logits: torch.Tensor, targets: torch.Tensor, valid: torch.Tensor | None = None) -> LossInputs:
    return LossInputs(Outputs(logits), targets, HEADS, valid=valid)


def test_cross_entropy_and_dice_by_hand() -> None:
    # two pixels: class a with probabilities (.25, .5, .25), background with (.5, .25, .25)
    p = torch.tensor([[[[0.25, 0.5]], [[0.5, 0.25]], [[0.25, 0.25]]]])
    targets = torch.tensor([[[[1.0, 0.0]], [[0.0, 0.0]]]])
    parts = build_loss("cross_entropy")(loss_inputs(p.log(), targets))
    assert float(parts["cross_entropy"]) == pytest.approx(math.log(2))
    dice_a, dice_b = 2 * 0.5 / (0.75 + 1), 0.0
    assert float(parts["dice"]) == pytest.approx(1 - (dice_a + dice_b) / 2, abs=1e-5)
    plain = build_loss({"name": "cross_entropy", "dice": 0})(loss_inputs(p.log(), targets))
    assert list(plain) == ["cross_entropy"]


def test_masked_cross_entropy_of_nothing_is_zero() -> None:
    assert masked_cross_entropy(torch.randn(1, 3, 2, 2), torch.zeros(1, 2, 2).long(), torch.zeros(1, 2, 2)) == 0


def test_background_is_what_is_left() -> None:
    targets = torch.tensor([[[[0.25]], [[0.5]]]])
    assert with_background(targets).flatten().tolist() == [0.25, 0.25, 0.5]


def test_consistency_by_hand() -> None:
    # of four pixels, three inside, two kept with cross-entropies log 2 and log 4
    p = torch.tensor([[[[0.5, 0.75, 0.5, 0.5]], [[0.5, 0.25, 0.5, 0.5]]]])
    label = torch.tensor([[[0, 1, 0, 0]]])
    keep, inside = torch.tensor([[[1.0, 1.0, 0.0, 0.0]]]), torch.tensor([[[1.0, 1.0, 1.0, 0.0]]])
    assert float(consistency(p.log(), label, keep, inside)) == pytest.approx((math.log(2) + math.log(4)) / 3)


def unit(degrees: float) -> list[float]:
    return [math.cos(math.radians(degrees)), math.sin(math.radians(degrees))]


def test_contrast_by_hand() -> None:
    # features at 0° and 60°, prototypes at 30° (the pixel's own), 90° and 180°; lengths do not matter
    first, second = (torch.tensor([3 * v for v in unit(d)]).view(1, 2, 1, 1) for d in (0, 60))
    prototypes = 2 * torch.tensor([unit(30), unit(90), unit(180)])
    loss = contrast(first, second, prototypes, torch.zeros(1, 1, 1).long(), torch.ones(1, 1, 1), temperature=0.5)

    def term(view: float) -> float:
        similar = {d: math.exp(math.cos(math.radians(view - d)) / 0.5) for d in (90, 180)}
        positive = math.exp(math.cos(math.radians(60)) / 0.5)
        return -math.log(positive / (positive + sum(similar.values())))

    assert float(loss) == pytest.approx((term(0) + term(60)) / 2, rel=1e-5)


def test_contrast_is_the_mean_over_the_pixels_kept() -> None:
    first, second = torch.tensor([[[[1.0, 0.0]], [[0.0, 1.0]]]]), torch.tensor([[[[1.0, 1.0]], [[1.0, 0.0]]]])
    prototypes = torch.tensor([unit(30), unit(90), unit(180)])
    label, keep = torch.tensor([[[0, 1]]]), torch.tensor([[[1.0, 0.0]]])
    kept = contrast(first[..., :1], second[..., :1], prototypes, label[..., :1], keep[..., :1])
    assert kept > 0.01
    torch.testing.assert_close(contrast(first, second, prototypes, label, keep), kept)


def test_contrast_is_bounded_whatever_the_features() -> None:
    rng = np.random.default_rng(0)
    for scale in (1e-3, 1.0, 1e6):
        first, second, prototypes = (
            torch.tensor(scale * rng.normal(size=shape)) for shape in ((2, 4, 3, 3), (2, 4, 3, 3), (5, 4))
        )
        label = torch.tensor(rng.integers(0, 5, (2, 3, 3)))
        loss = float(contrast(first, second, prototypes, label, torch.ones(2, 3, 3)))
        assert 0 <= loss <= math.log(1 + 4 * math.exp(2 / 0.1))
    assert contrast(first, second, prototypes, label, torch.zeros(2, 3, 3)) == 0


def test_gradients_against_finite_differences() -> None:
    torch.manual_seed(0)
    logits = torch.randn(2, 3, 2, 3, dtype=torch.float64, requires_grad=True)
    targets = F.one_hot(torch.randint(0, 3, (2, 2, 3)), 3).permute(0, 3, 1, 2)[:, 1:].double()
    inside = torch.randint(0, 2, (2, 1, 2, 3)).double()

    def supervised(x: torch.Tensor) -> torch.Tensor:
        return sum(build_loss("cross_entropy")(loss_inputs(x, targets, inside)).values())

    assert torch.autograd.gradcheck(supervised, logits)
    label, keep = torch.randint(0, 3, (2, 2, 3)), torch.randint(0, 2, (2, 2, 3)).double()
    assert torch.autograd.gradcheck(lambda x: consistency(x, label, keep, torch.ones_like(keep)), logits)
    views = [torch.randn(2, 4, 2, 3, dtype=torch.float64, requires_grad=True) for _ in range(2)]
    prototypes = torch.randn(3, 4, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda a, b, k: contrast(a, b, k, label, keep), (*views, prototypes))


@pytest.mark.fault
def test_an_unknown_option_names_the_nearest() -> None:
    with pytest.raises(HemalumError, match="loss 'cross_entropy' has no option 'dise', did you mean 'dice'"):
        build_loss({"name": "cross_entropy", "dise": 1})
