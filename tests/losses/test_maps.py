"""Losses against hand-computed cases and finite differences."""

import math

import numpy as np
import pytest
import torch

from hemalum.losses import build_loss
from hemalum.losses.loss import LossInputs
from hemalum.losses.maps import gradient_error, map_loss, soft_dice
from hemalum.networks.contract import Outputs
from hemalum.targets.representations import REPRESENTATIONS, Head

TYPES = (Head("softmax", ("a", "b"), partial=True),)


def test_soft_dice_by_hand() -> None:
    probability = torch.tensor([[[[0.5, 1.0], [0.0, 0.5]]]])
    target = torch.tensor([[[[1.0, 1.0], [0.0, 0.0]]]])
    assert soft_dice(probability, target).item() == pytest.approx(1 - 2 * 1.5 / (2 + 2), abs=1e-5)


def test_soft_dice_of_two_empty_maps_is_no_loss() -> None:
    assert soft_dice(torch.zeros(1, 1, 4, 4), torch.zeros(1, 1, 4, 4)).item() == pytest.approx(0, abs=1e-5)


def test_sigmoid_head_by_hand() -> None:
    logits = torch.zeros(1, 1, 1, 2)
    target = torch.tensor([[[[1.0, 0.0]]]])
    parts = map_loss(logits, target, (Head("sigmoid", ("foreground",)),))
    assert parts["foreground"].item() == pytest.approx(
        math.log(2) + 0.5, abs=1e-5
    )  # BCE of 0.5, and Dice 2*0.5/(1+1)
    assert set(parts) == {"foreground"}


def test_a_graded_map_has_cross_entropy_against_its_grades_and_no_dice() -> None:
    p, y = (0.25, 0.8), (0.5, 1.0)
    logits = torch.tensor(p).logit().view(1, 1, 1, 2)
    head = (Head("sigmoid", ("foreground", "distance")),)
    parts = map_loss(logits.expand(1, 2, 1, 2), torch.tensor(y).view(1, 1, 1, 2).expand(1, 2, 1, 2), head)
    entropy = -sum(yi * math.log(pi) + (1 - yi) * math.log(1 - pi) for pi, yi in zip(p, y, strict=True)) / 2
    dice = 1 - 2 * (0.25 * 0.5 + 0.8) / (0.25 + 0.8 + 0.5 + 1)
    assert parts["distance"].item() == pytest.approx(entropy, abs=1e-5)
    assert parts["foreground"].item() == pytest.approx(entropy + dice, abs=1e-5)


def test_softmax_head_by_hand() -> None:
    # two pixels: class a with probabilities (.25, .5, .25), background with (.5, .25, .25)
    p = torch.tensor([[[[0.25, 0.5]], [[0.5, 0.25]], [[0.25, 0.25]]]])
    target = torch.tensor([[[[1.0, 0.0]], [[0.0, 0.0]]]])
    dice_a, dice_b = 2 * 0.5 / (0.75 + 1), 0.0
    parts = map_loss(p.log(), target, (Head("softmax", ("a", "b")),))
    assert parts["a_b"].item() == pytest.approx(math.log(2) + 1 - (dice_a + dice_b) / 2, abs=1e-5)


def test_tanh_head_by_hand() -> None:
    """A pixel outside, whose position counts for nothing, and two inside."""
    target = torch.tensor([[[[0.0, -1.0, 1.0]], [[0.0, 0.5, 0.5]]]])
    position = torch.tensor([[[[0.0, 0.5, 0.5]], [[0.3, 0.5, 0.0]]]])
    parts = map_loss(position.atanh(), target, (Head("tanh", ("horizontal", "vertical")),))
    error = (1.5**2 + 0.0 + 0.5**2 + 0.5**2) / 4  # two channels of two pixels
    slope_error = (1.5**2 + 2.0**2) / 2  # the horizontal error is 0, 1.5, -0.5 along x
    assert parts["horizontal_vertical"].item() == pytest.approx(error + slope_error, abs=1e-5)


def test_gradient_error_sees_a_slope_and_not_a_shift() -> None:
    target = torch.zeros(1, 2, 4, 4)
    inside = torch.ones(1, 4, 4)
    assert gradient_error(target + 0.3, target, inside).item() == 0
    slope = torch.arange(4.0).expand(1, 4, 4)
    sloped = torch.stack([slope, torch.zeros(1, 4, 4)], 1)
    assert gradient_error(sloped, target, inside).item() == pytest.approx(1.0)


@pytest.mark.parametrize("name", sorted(REPRESENTATIONS))
def test_gradient_agrees_with_finite_differences(name: str) -> None:
    representation = REPRESENTATIONS[name]
    labels = torch.zeros(6, 6, dtype=torch.int32)
    labels[1:4, 1:4], labels[3:6, 4:6] = 1, 2
    target = torch.from_numpy(representation.encode(labels.numpy()))[None].double()
    torch.manual_seed(0)
    logits = torch.randn(1, representation.logits, 6, 6, dtype=torch.float64, requires_grad=True)
    torch.autograd.gradcheck(lambda x: sum(map_loss(x, target, representation.heads).values()), (logits,))


@pytest.mark.parametrize("name", sorted(REPRESENTATIONS))
def test_the_truth_costs_less_than_anything_near(name: str) -> None:
    representation = REPRESENTATIONS[name]
    labels = torch.zeros(8, 8, dtype=torch.int32)
    labels[2:6, 2:6] = 1
    target = torch.from_numpy(representation.encode(labels.numpy()))[None]
    logits = []
    start = 0
    for head in representation.heads:
        part = target[:, start : start + len(head.channels)]
        start += len(head.channels)
        if head.kind == "softmax":
            probability = torch.cat([1 - part.sum(1, keepdim=True), part], 1)
            logits.append((probability + 1e-4).log())
        elif head.kind == "tanh":
            logits.append(torch.atanh(part.clamp(-0.999, 0.999)))
        else:
            logits.append(torch.logit(part.clamp(1e-4, 1 - 1e-4)))
    perfect = torch.cat(logits, 1)
    torch.manual_seed(0)
    best = sum(map_loss(perfect, target, representation.heads).values())
    for _ in range(5):
        near = map_loss(perfect + torch.randn_like(perfect), target, representation.heads)
        assert sum(near.values()) > best


def test_binary_cross_entropy_by_hand() -> None:
    logits = torch.tensor([0.0, 2.0, -1.0, 3.0]).view(1, 1, 2, 2)
    target = torch.tensor([1.0, 0.0, 0.0, 1.0]).view(1, 1, 2, 2)
    parts = build_loss("bce")(LossInputs(Outputs(logits), target, REPRESENTATIONS["foreground"].heads))
    probability = 1 / (1 + np.exp([0.0, -2.0, 1.0, -3.0]))
    expected = -np.log([probability[0], 1 - probability[1], 1 - probability[2], probability[3]]).mean()
    assert list(parts) == ["bce"]
    assert float(parts["bce"]) == pytest.approx(expected, rel=1e-6)


def test_a_partial_head_counts_only_pixels_whose_target_is_known() -> None:
    generator = torch.Generator().manual_seed(1)
    logits = torch.randn(2, 3, 4, 5, generator=generator, requires_grad=True)
    class_map = torch.randint(0, 4, (2, 4, 5), generator=generator)  # 0 background, 3 unknown
    target = torch.stack([(class_map == class_id).float() for class_id in (1, 2)], 1)
    target[(class_map == 3)[:, None].expand_as(target)] = math.nan
    entropies, overlap, total = [], [0.0, 0.0], [0.0, 0.0]
    for image, row, column in np.ndindex(2, 4, 5):
        class_id = int(class_map[image, row, column])
        if class_id == 3:
            continue
        exponentials = [math.exp(value) for value in logits[image, :, row, column].tolist()]
        shares = [value / sum(exponentials) for value in exponentials]
        entropies.append(-math.log(shares[class_id]))
        for channel in (0, 1):
            truth = float(class_id == channel + 1)
            overlap[channel] += shares[channel + 1] * truth
            total[channel] += shares[channel + 1] + truth
    dice = sum(1 - 2 * shared / both for shared, both in zip(overlap, total, strict=True)) / 2
    assert 5 < len(entropies) < 36
    loss = map_loss(logits, target, TYPES)["a_b"]
    assert loss.item() == pytest.approx(sum(entropies) / len(entropies) + dice, abs=1e-5)
    loss.backward()
    unknown = (class_map == 3)[:, None].expand_as(logits)
    assert (logits.grad[unknown] == 0).all()
    assert (logits.grad[~unknown] != 0).all()


def test_a_batch_without_any_known_class_costs_nothing() -> None:
    logits = torch.randn(1, 3, 4, 4, requires_grad=True)
    loss = map_loss(logits, torch.full((1, 2, 4, 4), math.nan), TYPES)["a_b"]
    loss.backward()
    assert loss.item() == pytest.approx(0, abs=1e-6)
    assert (logits.grad == 0).all()


def test_parts_of_a_batch_share_what_is_known() -> None:
    """One part knows most of its classes and the other few: the mean is over all known pixels, not over the parts."""
    logits = torch.randn(2, 3, 6, 6, generator=torch.Generator().manual_seed(2))
    target = torch.zeros(2, 2, 6, 6)
    target[:, 0, :2], target[:, 1, 2:4] = 1, 1
    target[1, :, 1:] = math.nan
    sums: list[list[torch.Tensor]] = [[], []]
    for part, part_sums in enumerate(sums):

        def note(value: torch.Tensor, part_sums: list[torch.Tensor] = part_sums) -> torch.Tensor:
            part_sums.append(value)
            return value

        map_loss(logits[part : part + 1], target[part : part + 1], TYPES, note)
    added = iter([first + second for first, second in zip(*sums, strict=True)])
    shared = map_loss(logits[:1], target[:1], TYPES, lambda _: next(added))["a_b"]
    assert shared.item() == pytest.approx(map_loss(logits, target, TYPES)["a_b"].item(), rel=1e-5)
