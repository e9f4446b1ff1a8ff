"""Lion against its equations."""

import pytest
import torch

from hemalum.training.lion import Lion


def test_every_weight_moves_by_exactly_the_rate() -> None:
    weight = torch.nn.Parameter(torch.zeros(5))
    optimiser = Lion([weight], lr=0.125)
    weight.grad = torch.tensor([3.0, -1e-8, 0.0, -1e8, 1e-30])
    optimiser.step()
    assert weight.tolist() == [-0.125, 0.125, 0.0, 0.125, -0.125]


def test_against_the_equations_over_many_steps() -> None:
    torch.manual_seed(0)
    start, lr, decay, first, second = torch.randn(7, 3, dtype=torch.float64), 0.01, 0.3, 0.8, 0.95
    weight = torch.nn.Parameter(start.clone())
    optimiser = Lion([weight], lr=lr, betas=(first, second), weight_decay=decay)
    expected, momentum = start.clone(), torch.zeros_like(start)
    for _ in range(30):
        gradient = torch.randn_like(start)
        weight.grad = gradient.clone()
        optimiser.step()
        expected = expected * (1 - lr * decay)
        expected = expected - lr * torch.sign(first * momentum + (1 - first) * gradient)
        momentum = second * momentum + (1 - second) * gradient
    torch.testing.assert_close(weight.detach(), expected, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(optimiser.state[weight]["momentum"], momentum, rtol=1e-12, atol=1e-12)


def test_a_weight_without_gradient_stays_also_under_decay() -> None:
    idle, used = torch.nn.Parameter(torch.ones(2)), torch.nn.Parameter(torch.ones(2))
    optimiser = Lion([{"params": [idle, used], "weight_decay": 0.5}], lr=0.1)
    used.grad = torch.ones(2)
    optimiser.step()
    assert idle.tolist() == [1, 1]
    assert used.tolist() == pytest.approx([0.85, 0.85])


def test_its_state_can_be_kept_and_loaded() -> None:
    def train(optimiser: Lion, weight: torch.nn.Parameter, steps: range) -> None:
        for step in steps:
            weight.grad = torch.tensor([1.0, -2.0]) * (1 if step % 3 else -4)
            optimiser.step()

    whole = torch.nn.Parameter(torch.zeros(2))
    train(Lion([whole], lr=0.1), whole, range(8))
    first = torch.nn.Parameter(torch.zeros(2))
    before = Lion([first], lr=0.1)
    train(before, first, range(4))
    second = torch.nn.Parameter(first.detach().clone())
    after = Lion([second], lr=0.1)
    after.load_state_dict(before.state_dict())
    train(after, second, range(4, 8))
    assert torch.equal(whole, second)
