"""Weights in training: their average, against its recurrence written out, and the modes of what is frozen."""

import torch
from torch import nn

from hemalum.training.weights import copy_weights, set_mode, update_average


def test_averaged_weights_follow_the_recurrence() -> None:
    """w̄ ← d·w̄ + (1 - d)·w with d = min(ema, (1 + n) / (10 + n)); counters are copied."""
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(2, 3, 1), nn.BatchNorm2d(3))
    average = copy_weights(network)
    expected = {name: value.double().clone() for name, value in average.items()}
    for step in (0, 1, 2, 40, 41):
        with torch.no_grad():
            for parameter in network.parameters():
                parameter.add_(torch.randn_like(parameter))
            network[1].running_mean.add_(1)
            network[1].num_batches_tracked.add_(1)
        update_average(average, network, 0.6, step)
        decay = min(0.6, (1 + step) / (10 + step))
        for name, value in network.state_dict().items():
            if value.is_floating_point():
                expected[name] = decay * expected[name] + (1 - decay) * value.double()
            else:
                expected[name] = value.double()
    assert int(average["1.num_batches_tracked"]) == 5
    for name, value in expected.items():
        torch.testing.assert_close(average[name].double(), value, rtol=1e-5, atol=1e-6)


def test_what_is_frozen_is_in_eval_mode_with_its_dropout() -> None:
    network = nn.Sequential(
        nn.Sequential(nn.Conv2d(1, 1, 1), nn.Dropout(), nn.BatchNorm2d(1)),
        nn.Sequential(nn.Conv2d(1, 1, 1), nn.Dropout()),
    )
    for parameter in network[0].parameters():
        parameter.requires_grad_(False)
    set_mode(network)
    assert [module.training for module in network[0].modules()] == [False] * 4
    assert [module.training for module in network[1].modules()] == [True] * 3
