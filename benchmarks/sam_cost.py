"""What SAM's image encoders cost for one field: parameters, multiply-accumulates, time and memory at 1024 px.

    python benchmarks/sam_cost.py [--device cpu] [--threads 2] [--repeats 3] [--counts-alone] [-o FILE]

Built as published, with random weights: their cost does not depend on the weights. A field of any size is enlarged
to 1024 px, so that a window of 256 px costs as much. Multiply-accumulates are counted as everywhere in hemalum
(`experiments.cost`): convolutions and matrix products. Each encoder runs in a process of its own, so that its peak of
memory is its own: resident memory on a CPU, allocated memory of the device on CUDA. `--counts-alone` times nothing.
"""

import argparse
import json
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode
from transformers import SamVisionConfig, SamVisionModel

from hemalum.models.sam import SamEncoder
from record import figures_parser, peak_memory, write_record

FIELD = 256  # px of what is embedded
BUILDS: dict[str, dict[str, Any]] = {
    "ViT-B": {"hidden_size": 768, "num_hidden_layers": 12, "num_attention_heads": 12, "global": [2, 5, 8, 11]},
    "ViT-L": {"hidden_size": 1024, "num_hidden_layers": 24, "num_attention_heads": 16, "global": [5, 11, 17, 23]},
    "ViT-H": {"hidden_size": 1280, "num_hidden_layers": 32, "num_attention_heads": 16, "global": [7, 15, 23, 31]},
}


def build(name: str) -> SamVisionModel:
    options = dict(BUILDS[name])
    blocks = options.pop("global")
    return SamVisionModel(SamVisionConfig(**options, global_attn_indexes=blocks))


def count(name: str) -> dict[str, float]:
    """Parameters, and multiply-accumulates of one image; without computing."""
    with torch.device("meta"):
        vision = build(name).eval()
        image = torch.empty(1, 3, 1024, 1024)
    with torch.inference_mode(), FlopCounterMode(display=False) as counter:
        vision(image)
    parameters = sum(parameter.numel() for parameter in vision.parameters())
    return {"parameters": parameters, "macs": counter.get_total_flops() // 2}


def measure(name: str, device: str, repeats: int) -> dict[str, float]:
    """Seconds of one field, the median over `repeats` after one that does not count, and the peak of memory."""
    model = build(name)
    encoder = SamEncoder(model.vision_encoder, model.config, name).to(device)
    field = torch.rand(1, 3, FIELD, FIELD, device=device)
    seconds = []
    with torch.inference_mode():
        for _ in range(repeats + 1):
            start = time.perf_counter()
            encoder(field)
            if device == "cuda":
                torch.cuda.synchronize()
            seconds.append(time.perf_counter() - start)
    peak = torch.cuda.max_memory_allocated() if device == "cuda" else peak_memory()
    return {"seconds": statistics.median(seconds[1:]), "peak_bytes": peak}


def measure_alone(name: str, arguments: argparse.Namespace) -> dict[str, float]:
    """`measure` in a fresh process."""
    command = [sys.executable, __file__, "--one", name, "--device", arguments.device]
    command += ["--repeats", str(arguments.repeats), "--threads", str(arguments.threads)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    result: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return result


def main() -> None:
    parser = figures_parser(__doc__, Path("sam_cost.json"))
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--counts-alone", action="store_true")
    parser.add_argument("--one", choices=BUILDS, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    if arguments.one:
        print(json.dumps(measure(arguments.one, arguments.device, arguments.repeats)))
        return
    rows: dict[str, dict[str, float]] = {}
    print("| encoder | parameters (M) | GMACs | s a field | peak (GB) |\n|---|---|---|---|---|")
    for name in BUILDS:
        rows[name] = count(name) | ({} if arguments.counts_alone else measure_alone(name, arguments))
        row = rows[name]
        timed = f"{row['seconds']:.2f} | {row['peak_bytes'] / 1e9:.1f}" if "seconds" in row else "– | –"
        print(f"| {name} | {row['parameters'] / 1e6:.1f} | {row['macs'] / 1e9:.0f} | {timed} |", flush=True)
    write_record(
        arguments.output, "sam_cost", ["torch", "transformers"], rows, field=FIELD, side=1024,
        device=torch.cuda.get_device_name() if arguments.device == "cuda" else "CPU", threads=arguments.threads,
    )  # fmt: skip


if __name__ == "__main__":
    main()
