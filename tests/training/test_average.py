"""The averaged weights, against their recurrence written out."""

from types import SimpleNamespace

import torch
from torch import nn

from hemalum.training.loop import Loop


def test_averaged_weights_follow_the_recurrence() -> None:
    """w̄ ← d·w̄ + (1 - d)·w with d = min(ema, (1 + n) / (10 + n)); counters are copied."""
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(2, 3, 1), nn.BatchNorm2d(3))
    average = {name: value.detach().clone() for name, value in network.state_dict().items()}
    expected = {name: value.double().clone() for name, value in average.items()}
    loop = SimpleNamespace(
        recipe=SimpleNamespace(ema=0.6), progress=SimpleNamespace(step=0), network=network, average=average
    )
    for step in (0, 1, 2, 40, 41):
        with torch.no_grad():
            for parameter in network.parameters():
                parameter.add_(torch.randn_like(parameter))
            network[1].running_mean.add_(1)
            network[1].num_batches_tracked.add_(1)
        loop.progress.step = step
        Loop._follow(loop)  # type: ignore[arg-type]
        decay = min(0.6, (1 + step) / (10 + step))
        for name, value in network.state_dict().items():
            if value.is_floating_point():
                expected[name] = decay * expected[name] + (1 - decay) * value.double()
            else:
                expected[name] = value.double()
    assert int(average["1.num_batches_tracked"]) == 5
    for name, value in expected.items():
        torch.testing.assert_close(average[name].double(), value, rtol=1e-5, atol=1e-6)
