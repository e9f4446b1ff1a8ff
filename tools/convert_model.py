"""Bring a model file of format 1 (before version 0.2) to today's: the names of some keys of its card changed.

    python tools/convert_model.py OLD.safetensors NEW.safetensors

The weights stay as they are. Files that need it are those that `hemalum info` refuses as format 1.
"""

import json
import sys
from pathlib import Path
from typing import Any

from safetensors import safe_open
from safetensors.numpy import save_file

from hemalum.models.file import CARD_KEY

KEYS = {
    "as_it_is": "native_stains", "carry": "keep_optimizer", "enlarge": "output_upsampling",
    "finer": "target_supersampling", "grey": "gray", "keep": "output_representation", "labelled": "labeled",
    "levelled": "score_plateau", "licence": "license", "optimiser": "optimizer",
    "stain_normalisation": "stain_normalization", "switches": "stage_toggles", "unlabelled": "semi_supervised",
}  # fmt: skip
VALUES = {"centre_gradient": "center_gradient", "grey": "gray"}


def renamed(value: Any) -> Any:
    """The value with today's names, at any depth."""
    if isinstance(value, dict):
        return {KEYS.get(key, key): renamed(one) for key, one in value.items()}
    if isinstance(value, list):
        return [renamed(one) for one in value]
    return VALUES.get(value, value) if isinstance(value, str) else value


def main() -> None:
    if len(sys.argv) != 3 or not Path(sys.argv[1]).is_file() or Path(sys.argv[2]).exists():
        raise SystemExit(f"usage: python {sys.argv[0]} OLD.safetensors NEW.safetensors (which must not exist)")
    with safe_open(sys.argv[1], "numpy") as file:
        metadata, tensors = file.metadata(), {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
    card = renamed(json.loads(metadata[CARD_KEY]))
    if card.get("format") != 1:
        raise SystemExit(f"error: {sys.argv[1]}: is of format {card.get('format')}, not 1")
    save_file(tensors, sys.argv[2], metadata | {CARD_KEY: json.dumps(card | {"format": 2}, ensure_ascii=False)})


if __name__ == "__main__":
    main()
