"""What a method costs on this machine: parameters, operations, memory, latency.

Run as a program of its own (`python -m hemalum.studies.cost RECIPE.yaml`), so that the peak of memory is that of
this method alone. Operations are multiply-accumulates (MACs) of convolutions and matrix products in one forward
pass; activations, norms and pooling are not counted. One MAC is two FLOPs in papers that count those.
"""

import json
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import yaml

from hemalum.errors import HemalumError
from hemalum.training.recipe import Recipe

SIDE = 256  # px of the image whose operations and latency are given
COUNTING_RULE = (
    f"multiply-accumulates of convolutions and matrix products for one {SIDE} × {SIDE} px input of the network"
)
REPEATS = 5


def measure_cost(recipe: Recipe, *, threads: int | None = None) -> dict[str, Any]:
    """Measure in a fresh process: parameters, macs, macs_side_px, peak_memory_mb, latency_ms, images_per_second.

    `peak_memory_mb` is what two training steps need beside the loaded program: resident memory on a CPU,
    allocated memory of the device on CUDA. `latency_ms` is one forward pass of one SIDE × SIDE px image in
    PyTorch, the median of five; `images_per_second` that of a batch of eight. Raises HemalumError when the
    process fails.
    """
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "recipe.yaml"
        path.write_text(yaml.safe_dump(recipe.model_dump(mode="json")), encoding="utf-8")
        command = [sys.executable, "-m", "hemalum.studies.cost", str(path), str(threads or 0)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        last = done.stderr.strip().splitlines()[-1] if done.stderr.strip() else f"exit code {done.returncode}"
        raise HemalumError(f"recipe {recipe.name}: its cost could not be measured: {last}")
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return result


def _measure(recipe: Recipe, threads: int) -> dict[str, Any]:
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    from hemalum.instances.representations import REPRESENTATIONS
    from hemalum.losses.maps import LOSSES, whole
    from hemalum.networks import build_network
    from hemalum.training.optimisers import build_optimiser

    if threads:
        torch.set_num_threads(threads)
    cuda = torch.cuda.is_available()
    device = torch.device("cuda" if cuda else "cpu")
    representation = REPRESENTATIONS[recipe.representation]
    network = build_network(recipe.network.name, representation.logits, recipe.network.options)
    network = network.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    low = recipe.precision == "bf16-mixed"
    before = _peak(cuda)
    optimiser = build_optimiser(recipe.phases[0], network.parameters())
    images = torch.zeros(recipe.batch, 3, recipe.tile, recipe.tile, device=device)
    images = images.contiguous(memory_format=torch.channels_last)
    targets = torch.zeros(recipe.batch, len(representation.channels), recipe.tile, recipe.tile, device=device)
    for _ in range(2):
        with torch.autocast(device.type, torch.bfloat16, enabled=low):
            logits = network(images)
        loss, _ = LOSSES[recipe.phases[0].loss](logits.float(), targets, representation.heads, whole)
        torch.autograd.backward(loss)
        optimiser.step()
        optimiser.zero_grad(set_to_none=True)
    peak = _peak(cuda) - before
    del images, targets, logits, optimiser
    network.eval()

    def forward(count: int) -> float:
        batch = torch.zeros(count, 3, SIDE, SIDE, device=device).contiguous(memory_format=torch.channels_last)
        start = time.perf_counter()
        with torch.inference_mode(), torch.autocast(device.type, torch.bfloat16, enabled=low):
            network(batch)
        if cuda:
            torch.cuda.synchronize()
        return time.perf_counter() - start

    with FlopCounterMode(display=False) as counter:
        forward(1)
    single = statistics.median(forward(1) for _ in range(REPEATS))
    batched = statistics.median(forward(8) for _ in range(REPEATS))
    return {
        "parameters": sum(parameter.numel() for parameter in network.parameters()),
        "macs": counter.get_total_flops() // 2,
        "macs_side_px": SIDE,
        "macs_rule": COUNTING_RULE,
        "mpp": recipe.mpp,
        "peak_memory_mb": round(peak / 2**20, 1),
        "latency_ms": 1000 * single,
        "images_per_second": 8 / batched,
    }


def _peak(cuda: bool) -> int:
    """Bytes: the largest so far."""
    if cuda:
        import torch

        return torch.cuda.max_memory_allocated()
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


if __name__ == "__main__":
    content = yaml.safe_load(Path(sys.argv[1]).read_text(encoding="utf-8"))
    print(json.dumps(_measure(Recipe.model_validate(content), int(sys.argv[2]))))
