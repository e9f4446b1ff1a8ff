"""Distillation against a reference written in loops, and what a correction leaves out of it."""

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from hemalum.errors import HemalumError
from hemalum.losses import Distilled, LossInputs, Maps, build_loss, distillation
from hemalum.networks import Outputs
from hemalum.targets.representations import Head

HEADS = (
    Head("softmax", ("red", "blue"), partial=True),
    Head("sigmoid", ("foreground", "distance")),
    Head("tanh", ("horizontal", "vertical")),
)
LOGITS = sum(head.logits for head in HEADS)
MAPS = sum(len(head.channels) for head in HEADS)


def make_tensors(seed: int = 0) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """New and old logits (2, 7, 5, 6), targets (2, 6, 5, 6) of which some are not known, and valid pixels."""
    rng = np.random.default_rng(seed)
    new, old = (torch.from_numpy(rng.normal(0, 2, (2, LOGITS, 5, 6))) for _ in range(2))
    targets = rng.uniform(0, 1, (2, MAPS, 5, 6))
    targets[:, 4:] = rng.uniform(-1, 1, (2, 2, 5, 6))
    targets[0, :2, 1, :3] = math.nan
    return new, old, torch.from_numpy(targets), torch.from_numpy((rng.uniform(size=(2, 1, 5, 6)) < 0.8) * 1.0)


def sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x))


def reference(new: Tensor, old: Tensor, targets: Tensor, valid: Tensor) -> float:
    """The equation of the docstring, pixel by pixel."""
    total, pixels = 0.0, 0
    for b in range(new.shape[0]):
        for i in range(new.shape[2]):
            for j in range(new.shape[3]):
                p, t, y = new[b, :, i, j].tolist(), old[b, :, i, j].tolist(), targets[b, :, i, j].tolist()
                shares_t = [math.exp(z) / sum(map(math.exp, t[:3])) for z in t[:3]]
                shares_p = [math.exp(z) / sum(map(math.exp, p[:3])) for z in p[:3]]
                maps_t = [*shares_t[1:], *map(sigmoid, t[3:5]), *map(math.tanh, t[5:])]
                ranges = [1, 1, 1, 1, 2, 2]
                changed = [abs(a - c) > r / 2 for a, c, r in zip(maps_t, y, ranges, strict=True) if not math.isnan(c)]
                if any(changed) or not valid[b, 0, i, j]:
                    continue
                pixels += 1
                total += sum(a * math.log(a / c) for a, c in zip(shares_t, shares_p, strict=True))
                for a, c in zip(map(sigmoid, t[3:5]), map(sigmoid, p[3:5]), strict=True):
                    total += (a * math.log(a / c) + (1 - a) * math.log((1 - a) / (1 - c))) / 2
                total += sum((math.tanh(a) - math.tanh(c)) ** 2 for a, c in zip(t[5:], p[5:], strict=True)) / 2
    assert 0 < pixels < valid.sum()  # else the test says nothing of U
    return total / pixels


@pytest.mark.parametrize("seed", range(4))
def test_the_equation(seed: int) -> None:
    new, old, targets, valid = make_tensors(seed)
    # near enough to the old maps that many pixels are as they were
    maps = torch.cat([old[:, :3].softmax(1)[:, 1:], old[:, 3:5].sigmoid(), old[:, 5:].tanh()], 1)
    targets[1, :, :3] = maps[1, :, :3] * 0.9
    loss = float(distillation(new, old, targets, HEADS, valid_B1HW=valid))
    assert loss == pytest.approx(reference(new, old, targets, valid), rel=1e-9)


def test_nothing_is_to_be_learned_from_the_same_maps() -> None:
    _, old, targets, valid = make_tensors()
    new = old.clone().requires_grad_()
    loss = distillation(new, old, targets, HEADS, valid_B1HW=valid)
    loss.backward()
    assert float(loss.detach()) == pytest.approx(0, abs=1e-12)
    assert new.grad is not None
    assert float(new.grad.abs().max()) == pytest.approx(0, abs=1e-12)


def test_changed_pixels_get_no_gradient_and_the_teacher_none_at_all() -> None:
    head = (Head("sigmoid", ("foreground",)),)
    old = torch.full((1, 1, 4, 4), 3.0, requires_grad=True)
    new = torch.zeros(1, 1, 4, 4, requires_grad=True)
    targets = torch.ones(1, 1, 4, 4)
    targets[..., 2:] = 0  # a nucleus that a reviewer rejected
    distillation(new, old, targets, head).backward()
    assert new.grad is not None
    assert (new.grad[..., :2] < 0).all()  # towards the old map
    assert (new.grad[..., 2:] == 0).all()
    assert old.grad is None


def test_where_all_is_changed_it_is_0() -> None:
    head = (Head("sigmoid", ("foreground",)),)
    logits = torch.full((1, 1, 4, 4), 3.0)
    assert float(distillation(-logits, logits, torch.zeros(1, 1, 4, 4), head)) == 0


def test_the_loss_adds_it_to_another_one() -> None:
    new, old, targets, _ = (tensor.float() for tensor in make_tensors())
    heads, inputs = HEADS[1:2], slice(3, 5)
    base = LossInputs(Outputs(new[:, inputs]), targets[:, 2:4], heads)
    alone = Maps()(base)
    loss = Distilled(loss=Maps(), weight=3.0)
    assert loss(base) == alone  # validation has no teacher
    taught = LossInputs(Outputs(new[:, inputs]), targets[:, 2:4], heads, teacher=old[:, inputs])
    parts = loss(taught)
    term = distillation(new[:, inputs], old[:, inputs], targets[:, 2:4], heads)
    assert parts.keys() == alone.keys() | {"distillation"}
    assert float(parts["distillation"]) == pytest.approx(3 * float(term))


def test_a_recipe_writes_it_and_reads_it_back() -> None:
    loss = build_loss({"name": "distilled", "loss": {"name": "histo"}, "weight": 2})
    assert isinstance(loss, Distilled)
    assert loss.loss.name == "histo"
    assert loss.needs == loss.loss.needs
    assert loss.only == loss.loss.only
    assert build_loss(loss.model_dump(mode="json")) == loss


@pytest.mark.fault
def test_a_loss_that_there_is_not() -> None:
    with pytest.raises(HemalumError, match="loss 'distilled', 'loss': unknown loss 'mapps', did you mean 'maps'"):
        build_loss({"name": "distilled", "loss": "mapps"})
