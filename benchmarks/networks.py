"""Every network beside the plain U-Net, at published sizes: forward, training step, peak memory, all in one run.

    python benchmarks/networks.py [--device cpu] [--threads 2] [--only NAME …] [--repeats 2] [-o FILE]

Each network runs in a process of its own, so that its peak is its own; medians over repeats after one that does not
count, ratios to U-Net with batch norm. One image of 256 px, or of the size that a network takes; a step takes two
where batch norm after global pooling asks for them, and is given per image. Networks with attention also say what a
forward at 512 px takes. A step that would need more than 20 GB, by what backward keeps, is left out with the reason.
Then blocks that have a clever form are set against the straightforward form of the same equations, in turns.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks
from torch.multiprocessing.reductions import StorageWeakRef

from hemalum.models.network import build_network, option_defaults
from hemalum.networks import NETWORKS, Network
from hemalum.networks.contract import Outputs
from network_blocks import BLOCKS, Pair
from record import figures_parser, peak_memory, write_record

LIMIT = 20 * 2**30  # bytes
SIDE, LARGE = 256, 512
OPTIONS: dict[str, dict[str, Any]] = {
    "unet": {"norm": True},
    "unet_plus_plus": {"norm": True},
    "eunet3plus": {"fusion": "none"},
    "seu_net": {"film": False},
    "two_stage": {"base": {"name": "unet", "options": {"norm": True}}},
}
OUTPUTS = 2  # the fewest that every network gives
ATTENTION = ("attention_unet", "csra_net", "medt", "swin_unet", "transunet")


def make_network(name: str, side: int) -> tuple[Network, int]:
    """The network at its published size for inputs of `side` px, or of the size that it takes."""
    options = OPTIONS.get(name, {}) | ({"size": side} if "size" in option_defaults(name) else {})
    network = build_network(name, OUTPUTS, options)
    return network, network.fixed_window or side


def conditions(network: Network, images: int) -> dict[str, Tensor]:
    inputs = {"organ": torch.zeros(images, dtype=torch.int64)}
    return {key: inputs[key] for key in network.conditions if key in inputs}


def loss(network: Network, x: Tensor) -> Tensor:
    outputs = Outputs.of(network(x, **conditions(network, len(x))))
    return torch.stack([part.square().mean() for part in (outputs.logits, *outputs.aux_logits)]).sum()


def estimate_bytes(name: str, images: int) -> int:
    """Bytes that a step needs: what backward keeps, weights, gradients and AdamW's moments; without computing."""
    with torch.device("meta"):
        network, side = make_network(name, SIDE)
        x = torch.rand(images, 3, side, side)
    kept: dict[StorageWeakRef, int] = {}

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        kept[StorageWeakRef(storage)] = storage.nbytes()  # one entry where several tensors share a storage
        return tensor

    with saved_tensors_hooks(pack, lambda tensor: tensor):
        loss(network.train(), x)
    return 4 * 4 * sum(parameter.numel() for parameter in network.parameters()) + sum(kept.values())


def largest_memory(device: str) -> int:
    """Largest memory so far, bytes: of this process, or of the GPU."""
    return torch.cuda.max_memory_allocated() if device == "cuda" else peak_memory()


def median_seconds(call: Callable[[], object], device: str, repeats: int) -> float:
    times = []
    for index in range(repeats + 1):
        start = time.perf_counter()
        call()
        if device == "cuda":
            torch.cuda.synchronize()
        if index:  # the first warms up
            times.append(time.perf_counter() - start)
    return statistics.median(times)


def measure_network(name: str, side: int, device: str, repeats: int) -> dict[str, Any]:
    """Measure one network, in this process; at LARGE a forward alone."""
    network, side = make_network(name, side)
    network = network.to(device, memory_format=torch.channels_last)
    x = torch.rand(1, 3, side, side, device=device).contiguous(memory_format=torch.channels_last)
    measured: dict[str, Any] = {
        "side": side,
        "parameters": sum(parameter.numel() for parameter in network.parameters()),
        "idle": largest_memory(device),
    }
    network.eval()
    with torch.inference_mode():
        seconds = median_seconds(lambda: network(x, **conditions(network, 1)), device, repeats)
    measured["forward"] = {"seconds": seconds, "peak": largest_memory(device)}
    if side == LARGE:
        return measured
    network.train()
    try:
        loss(network, x)
    except ValueError:  # batch norm over one value per channel
        x = x.repeat(2, 1, 1, 1)
    need = estimate_bytes(name, len(x))
    if need > LIMIT:
        measured["step"] = {"left_out": f"a step would need about {need / 2**30:.0f} GB"}
        return measured
    optimizer = torch.optim.AdamW(network.parameters())

    def step() -> None:
        loss(network, x).backward()
        optimizer.step()
        optimizer.zero_grad()

    seconds = median_seconds(step, device, max(1, repeats // 2)) / len(x)
    measured["step"] = {"seconds": seconds, "peak": largest_memory(device), "images": len(x), "estimate": need}
    return measured


def measure_in_process(name: str, side: int, arguments: argparse.Namespace) -> dict[str, Any]:
    """Run `measure_network` in a process of its own."""
    command = [
        sys.executable, __file__, "--work", name, str(side), "--device", arguments.device, "--threads",
        str(arguments.threads), "--repeats", str(arguments.repeats),
    ]  # fmt: skip
    environment = os.environ | {"OMP_NUM_THREADS": str(arguments.threads)}
    completed = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if completed.returncode:
        reason = (completed.stderr.strip().splitlines() or [f"ended with {completed.returncode}"])[-1]
        return {task: {"failed": reason} for task in ("forward", "step")}
    return dict(json.loads(completed.stdout.splitlines()[-1]))


def format_row(name: str, measured: dict[str, Any], reference: dict[str, Any]) -> str:
    def figures(task: str) -> str:
        cost = measured[task]
        if "seconds" not in cost:
            return str(cost.get("left_out") or cost.get("failed"))
        ratio = cost["seconds"] / reference[task].get("seconds", float("nan"))
        return f"{1000 * cost['seconds']:7.0f} ms ({ratio:5.2f}) {cost['peak'] / 2**30:5.2f} GB"

    large = measured.get("large", {}).get("forward", {})
    more = f"   {large['peak'] / 2**30:.2f} GB at {LARGE} px" if "peak" in large else ""
    parameters, side = measured.get("parameters", 0) / 1e6, measured.get("side", 0)
    return f"{name:15} {parameters:7.2f} M {side:4} px  {figures('forward')}   {figures('step')}{more}"


def compare(pair: Pair, device: str, rounds: int) -> dict[str, Any]:
    """The block and the straightforward form of it, forward and backward, in turns; after a check that they agree."""
    torch.manual_seed(0)
    block, plain, x = pair.make()
    block, x = block.to(device), x.to(device).requires_grad_()
    with torch.no_grad():
        torch.testing.assert_close(plain(block, x), block(x), rtol=1e-3, atol=1e-3)

    def run_block() -> None:
        block(x).square().mean().backward()

    def run_plain() -> None:
        plain(block, x).square().mean().backward()

    turns = [(median_seconds(run_block, device, 1), median_seconds(run_plain, device, 1)) for _ in range(rounds)]
    return {
        "block": pair.name,
        "ours": statistics.median(turn[0] for turn in turns),
        "plain": statistics.median(turn[1] for turn in turns),
        "ratio": statistics.median(turn[0] / turn[1] for turn in turns),
    }


def main() -> None:
    parser = figures_parser(__doc__, Path("networks.json"))
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--repeats", type=int, default=2, help="of a forward; a step has half as many")
    parser.add_argument("--rounds", type=int, default=5, help="turns of the blocks")
    parser.add_argument("--only", nargs="+", choices=sorted(NETWORKS), default=sorted(NETWORKS))
    parser.add_argument("--work", nargs=2, help=argparse.SUPPRESS)  # given to the processes that this one starts
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    if arguments.work:
        name, side = arguments.work
        print(json.dumps(measure_network(name, int(side), arguments.device, arguments.repeats)))
        return
    results: dict[str, Any] = {}
    print("network         parameters   input  forward (ratio), peak         step per image (ratio), peak")
    for name in ["unet", *(name for name in arguments.only if name != "unet")]:
        measured = measure_in_process(name, SIDE, arguments)
        if name in ATTENTION:
            measured["large"] = measure_in_process(name, LARGE, arguments)
        results[name] = measured
        print(format_row(name, measured, results["unet"]), flush=True)
    print(f"\n{'block, forward and backward':44} {'ours':>11} {'plain':>11}  ratio")
    pairs = []
    for pair in BLOCKS:
        row = compare(pair, arguments.device, arguments.rounds)
        pairs.append(row)
        print(f"{row['block']:44} {1000 * row['ours']:8.1f} ms {1000 * row['plain']:8.1f} ms  {row['ratio']:5.2f}")
    write_record(
        arguments.output, "networks", ["torch"], {"networks": results, "blocks": pairs}, device=arguments.device,
        threads=arguments.threads, options=OPTIONS, outputs=OUTPUTS,
    )  # fmt: skip


if __name__ == "__main__":
    main()
