"""Lion against its equations, and schedules by hand."""

import pytest
import torch

from hemalum.systems.phases import Phase
from hemalum.training.optimizers import Lion, compute_rate


def test_every_weight_moves_by_exactly_the_rate() -> None:
    weight = torch.nn.Parameter(torch.zeros(5))
    optimizer = Lion([weight], lr=0.125)
    weight.grad = torch.tensor([3.0, -1e-8, 0.0, -1e8, 1e-30])
    optimizer.step()
    assert weight.tolist() == [-0.125, 0.125, 0.0, 0.125, -0.125]


def test_against_the_equations_over_many_steps() -> None:
    torch.manual_seed(0)
    start, lr, decay, first, second = torch.randn(7, 3, dtype=torch.float64), 0.01, 0.3, 0.8, 0.95
    weight = torch.nn.Parameter(start.clone())
    optimizer = Lion([weight], lr=lr, betas=(first, second), weight_decay=decay)
    expected, momentum = start.clone(), torch.zeros_like(start)
    for _ in range(30):
        gradient = torch.randn_like(start)
        weight.grad = gradient.clone()
        optimizer.step()
        expected = expected * (1 - lr * decay)
        expected = expected - lr * torch.sign(first * momentum + (1 - first) * gradient)
        momentum = second * momentum + (1 - second) * gradient
    torch.testing.assert_close(weight.detach(), expected, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(optimizer.state[weight]["momentum"], momentum, rtol=1e-12, atol=1e-12)


def test_a_weight_without_gradient_stays_also_under_decay() -> None:
    idle, used = torch.nn.Parameter(torch.ones(2)), torch.nn.Parameter(torch.ones(2))
    optimizer = Lion([{"params": [idle, used], "weight_decay": 0.5}], lr=0.1)
    used.grad = torch.ones(2)
    optimizer.step()
    assert idle.tolist() == [1, 1]
    assert used.tolist() == pytest.approx([0.85, 0.85])


def test_its_state_can_be_kept_and_loaded() -> None:
    def train(optimizer: Lion, weight: torch.nn.Parameter, steps: range) -> None:
        for step in steps:
            weight.grad = torch.tensor([1.0, -2.0]) * (1 if step % 3 else -4)
            optimizer.step()

    uninterrupted = torch.nn.Parameter(torch.zeros(2))
    train(Lion([uninterrupted], lr=0.1), uninterrupted, range(8))
    first = torch.nn.Parameter(torch.zeros(2))
    before = Lion([first], lr=0.1)
    train(before, first, range(4))
    second = torch.nn.Parameter(first.detach().clone())
    after = Lion([second], lr=0.1)
    after.load_state_dict(before.state_dict())
    train(after, second, range(4, 8))
    assert torch.equal(uninterrupted, second)


def test_schedules_by_hand() -> None:
    def phase(**schedule: object) -> Phase:
        return Phase.model_validate(
            {"name": "p", "optimizer": {"name": "adamw", "lr": 1.0}, "schedule": schedule, "until": {"steps": 110}}
        )

    cosine = phase(name="cosine", warmup=10, final=0.1)
    assert compute_rate(cosine, 0, 110, 0) == pytest.approx(0.1)
    assert compute_rate(cosine, 9, 110, 0) == pytest.approx(1.0)
    assert compute_rate(cosine, 60, 110, 0) == pytest.approx(0.55)
    assert compute_rate(cosine, 110, 110, 0) == pytest.approx(0.1)
    plateau = phase(name="plateau", factor=0.5, patience=2)
    assert [compute_rate(plateau, 50, 110, cuts) for cuts in range(3)] == [1.0, 0.5, 0.25]
    assert compute_rate(phase(name="constant"), 99, 110, 0) == 1.0
