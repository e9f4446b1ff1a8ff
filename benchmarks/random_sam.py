"""Save a small SAM with random weights, to run on machines without the pretrained ones.

    python benchmarks/random_sam.py OUT [--side 128] [--width 32] [--layers 2] [--seed 0]

What is trained with it says nothing of SAM: its embedding is a random function of the image. It goes the same way as
a pretrained one (`sam: {encoder: OUT}`), with 256 channels and tokens of 16 px of its own input.
"""

from pathlib import Path

import torch
from transformers import SamConfig, SamModel

from record import argument_parser


def save_random_sam(
    out: Path, *, side: int = 128, width: int = 32, layers: int = 2, channels: int = 256, seed: int = 0
) -> Path:
    """Write a SAM of random weights, as `save_pretrained` does, and give its folder."""
    torch.manual_seed(seed)
    vision = {
        "hidden_size": width, "num_hidden_layers": layers, "num_attention_heads": 2, "image_size": side,
        "patch_size": 16, "output_channels": channels, "window_size": 4, "global_attn_indexes": [layers - 1],
        "initializer_range": 0.05,
    }  # fmt: skip
    prompts = {"hidden_size": channels, "image_size": side, "patch_size": 16}
    masks = {"hidden_size": channels, "mlp_dim": 64, "num_hidden_layers": 1, "num_attention_heads": 2}
    model = SamModel(SamConfig(vision_config=vision, prompt_encoder_config=prompts, mask_decoder_config=masks))
    for name, parameter in model.vision_encoder.named_parameters():
        if "pos" in name:  # zeros, as transformers makes them
            torch.nn.init.normal_(parameter, std=0.05)
    model.save_pretrained(out)
    return out


def main() -> None:
    parser = argument_parser(__doc__)
    parser.add_argument("out", type=Path)
    parser.add_argument("--side", type=int, default=128, help="px of its input, a multiple of 16")
    parser.add_argument("--width", type=int, default=32)
    parser.add_argument("--layers", type=int, default=2)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    save_random_sam(
        arguments.out, side=arguments.side, width=arguments.width, layers=arguments.layers, seed=arguments.seed
    )
    print(f"{arguments.out}: a SAM of random weights; its embeddings mean nothing")


if __name__ == "__main__":
    main()
