"""What a network costs on this machine: parameters, operations, memory, latency.

Measured by a program of its own (`python -m hemalum.experiments.cost FILE`), so that the peak of memory is that of
this network alone. Operations are multiply-accumulates (MACs) of convolutions and matrix products in one forward
pass; activations, norms and pooling are not counted. One MAC is two FLOPs in papers that count those.

Two counts are given, since papers differ by them: a transposed convolution multiplies once for each pixel that it is
given, and some count it as if it did so for each that it gives, four times as much where it doubles the resolution.
"""

import json
import platform
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning_fabric import Fabric
from lightning_fabric.plugins.environments.lightning import LightningEnvironment
from pydantic import TypeAdapter
from torch.utils.flop_counter import FlopCounterMode, conv_flop_count

from hemalum.cache import scratch_folder
from hemalum.errors import HemalumError
from hemalum.models.card import Card
from hemalum.models.input import input_channels
from hemalum.models.network import build_network
from hemalum.systems.phases import Phase
from hemalum.targets.representations import find_representation
from hemalum.training.building import build_for
from hemalum.training.context import TrainContext
from hemalum.training.data_spec import DataSpec
from hemalum.training.encoding import encode_extra
from hemalum.training.fit import open_phase
from hemalum.training.loader import Batch
from hemalum.training.recipe import Recipe
from hemalum.training.train import keep_freed_memory

SIDE = 256  # px of the image whose operations and latency are given, unless the network takes one size alone
COUNTING_RULE = (
    "multiply-accumulates of convolutions and matrix products for one {side} × {side} px input of the network"
)
AT_OUTPUTS_RULE = (
    "the same with transposed convolutions counted at each pixel that they give, as some papers do; more than is "
    "computed"
)
REPEATS = 9


def measure_cost(
    measured: Recipe | Card,
    *,
    data_spec: DataSpec | None = None,
    accelerator: str = "auto",
    threads: int | None = None,
) -> dict[str, Any]:
    """Measure the network of a recipe or of a model's card in a fresh process.

    `data_spec` is what a recipe's network takes from the data: classes and organs.

    Gives parameters, macs, macs_at_outputs, macs_side_px, latency_ms, images_per_second, device, machine, and for a
    recipe peak_memory_mb: what two training steps of the phase that needs most need beside the loaded program,
    resident memory on a CPU, allocated memory of the device on CUDA, None where the system does not say; and
    step_seconds, the second of these steps, as a mean over the steps of all phases. `latency_ms` is one forward pass
    of one image of `macs_side_px` in PyTorch, the fastest of nine; `images_per_second` that of a batch of eight.
    Raises HemalumError when the process fails.
    """
    task = {
        "recipe" if isinstance(measured, Recipe) else "card": measured.model_dump(mode="json"),
        "data_spec": asdict(data_spec or DataSpec()),
        "threads": threads,
        "cpu": accelerator == "cpu",
    }
    with scratch_folder() as folder:
        path = folder / "task.json"
        path.write_text(json.dumps(task), encoding="utf-8")
        command = [sys.executable, "-m", "hemalum.experiments.cost", str(path)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        last = done.stderr.strip().splitlines()[-1] if done.stderr.strip() else f"exit code {done.returncode}"
        raise HemalumError(f"{measured.name}: its cost could not be measured: {last}")
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return result


def _measure(measured: Recipe | Card, data_spec: DataSpec, *, cpu: bool, threads: int | None) -> dict[str, Any]:
    keep_freed_memory()  # as in training
    if threads:
        torch.set_num_threads(threads)
    device = torch.device("cuda" if torch.cuda.is_available() and not cpu else "cpu")
    if isinstance(measured, Recipe):
        network, inputs = build_for(measured, data_spec)[0], input_channels(measured.input)
    else:
        logits = find_representation(measured.representation, measured.classes).logits
        network = build_network(measured.network.name, logits, measured.network.options)
        inputs = input_channels(measured.channels)
    side = network.fixed_window or SIDE
    network = network.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    low = isinstance(measured, Card) or measured.precision == "bf16-mixed"
    peak = step_seconds = None
    if isinstance(measured, Recipe):
        peak, step_seconds = _train_a_moment(measured, data_spec, network, device)
    network.eval()

    def forward(count: int) -> float:
        batch = torch.zeros(count, inputs, side, side, device=device).contiguous(memory_format=torch.channels_last)
        conditions = _conditions(network, batch)
        start = _now(device)
        with torch.inference_mode(), torch.autocast(device.type, torch.bfloat16, enabled=low):
            network(batch, **conditions)
        return _now(device) - start

    macs, macs_at_outputs = count_macs(lambda: forward(1))
    # the fastest: what else the machine does can only add to it
    single = min(forward(1) for _ in range(REPEATS))
    batched = min(forward(8) for _ in range(REPEATS))
    return {
        "parameters": sum(parameter.numel() for parameter in network.parameters()),
        "macs": macs,
        "macs_at_outputs": macs_at_outputs,
        "macs_side_px": side,
        "macs_rule": COUNTING_RULE.format(side=side),
        "macs_at_outputs_rule": AT_OUTPUTS_RULE,
        "mpp": measured.mpp,
        "peak_memory_mb": None if peak is None else round(peak / 2**20, 1),
        "step_seconds": step_seconds,
        "latency_ms": 1000 * single,
        "images_per_second": 8 / batched,
        "device": torch.cuda.get_device_name() if device.type == "cuda" else "CPU",
        "machine": platform.node(),
    }


def count_macs(run: Callable[[], Any]) -> tuple[int, int]:
    """Multiply-accumulates of what `run` computes, and the same with transposed convolutions at their outputs.

    The first is what is computed; the second is how some papers count (docs/systems/clin_seg_net.md).
    """

    def at_outputs(x: Sequence[int], weight: Sequence[int], *_: Any, out_shape: Sequence[int], **__: Any) -> int:
        return conv_flop_count(list(x), list(weight), list(out_shape))

    counts = []
    for rules in ({}, {torch.ops.aten.convolution: at_outputs}):
        with FlopCounterMode(display=False, custom_mapping=rules) as counter:
            run()
        counts.append(int(counter.get_total_flops()) // 2)
    return counts[0], counts[1]


def _conditions(network: Any, batch: Any) -> dict[str, Any]:
    """The network's inputs besides the images, all zeros."""
    shapes = {
        "organ": ((len(batch),), torch.int64),
        "embedding": (
            (len(batch), network.embedding_channels or 0, batch.shape[2] // 8, batch.shape[3] // 8),
            torch.float32,
        ),
    }
    return {
        name: torch.zeros(shapes[name][0], dtype=shapes[name][1], device=batch.device) for name in network.conditions
    }


def _train_a_moment(recipe: Recipe, data_spec: DataSpec, network: Any, device: Any) -> tuple[int | None, float]:
    """Bytes that two training steps of the recipe's phases need at most beside what is there before, and the seconds
    of a step, the second of each phase, as a mean over the steps of all phases."""
    before = _peak(device.type)
    # one process, whatever started the program that measures
    fabric = Fabric(accelerator=device.type, devices=1, precision=recipe.precision, plugins=LightningEnvironment())
    context = TrainContext(recipe, fabric, Path(), data_spec)
    seen: dict[str, float] = {}
    end, seconds = 0, 0.0
    for index, phase in enumerate(recipe.phases):
        # what else differs between phases takes no memory
        kind = repr((phase.train, phase.stage_toggles, phase.loss.name, phase.semi_supervised, phase.optimizer.name))
        if kind not in seen:
            step, batch = open_phase(context, network, index), _blank_batch(context, network, phase)
            step(batch)
            start = _now(device)
            step(batch)
            seen[kind] = _now(device) - start
        last = phase.until.last_step(end)
        seconds += (last - end) * seen[kind]
        end = last
    after = _peak(device.type)
    # Linux sums a peak from counters of each core, which lag: it may be some pages less than before
    peak = None if before is None or after is None else max(0, after - before)
    return peak, seconds / max(end, 1)


def _now(device: Any) -> float:
    """Seconds, when all that the device was asked for is done."""
    if device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter()


def _blank_batch(context: TrainContext, network: Any, phase: Phase) -> Batch:
    recipe, device = context.recipe, context.fabric.device
    batch, side = recipe.batch, recipe.tile

    def blank(count: int) -> Any:
        shape = (count, input_channels(recipe.input), side, side)
        return torch.zeros(shape, device=device).contiguous(memory_format=torch.channels_last)

    images, views = blank(batch), {}
    if phase.semi_supervised is not None:
        views = {
            "weak": blank(batch),
            "strong": blank(batch * phase.semi_supervised.views),
            "labeled": blank(batch),
            "boxes": torch.zeros(phase.semi_supervised.views, batch, side, side, dtype=torch.bool, device=device),
            "inside": torch.ones(batch, side, side, device=device),
            "truth": torch.zeros(batch, side, side, dtype=torch.int64, device=device),
        }
    targets = torch.zeros(batch, len(context.representation.channels), side, side, device=device)
    extra = encode_extra(np.zeros((batch, side, side), np.int32), phase.loss.needs)
    return Batch(images, targets, _conditions(network, images), extra, views)


def _peak(device: str) -> int | None:
    """The most bytes so far."""
    if device == "cuda":
        return torch.cuda.max_memory_allocated()
    status = Path("/proc/self/status")
    if status.is_file():  # Linux: what getrusage says holds for the program that started this one as well
        line = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM:"))
        return int(line.split()[1]) * 1024
    try:
        import resource
    except ImportError:  # Windows
        return None
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most if sys.platform == "darwin" else most * 1024


if __name__ == "__main__":
    task = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    measured = Recipe.model_validate(task["recipe"]) if "recipe" in task else Card.model_validate(task["card"])
    data_spec = TypeAdapter(DataSpec).validate_python(task["data_spec"])
    print(json.dumps(_measure(measured, data_spec, cpu=task["cpu"], threads=task["threads"])))
