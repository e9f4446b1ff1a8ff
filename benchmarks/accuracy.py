"""Accuracy beside cost: models (and the classical floor) on the held-out parts of datasets.

    python benchmarks/accuracy.py --model classical --model fast --data data/tnbc [--auto] [-o accuracy.json]

Each row is one model on one set under the set's own scale, as `hemalum evaluate` scores it; `--auto` adds rows in
which the scale is estimated from the nuclei; `--enlarge 2` adds rows with maps enlarged before separation. Cost is
seconds per mm², all images together, in this run.
"""

from pathlib import Path
from typing import Any

from hemalum.data.dataset import Dataset
from hemalum.experiments.evaluate import evaluate
from hemalum.experiments.segmenters import CLASSICAL
from hemalum.models.engines.engine import make_engine
from hemalum.models.model import load_model
from inputs import change_card
from record import figures_parser, write_record

COLUMNS = ("dice_pooled", "dice", "aji", "pq", "pq_pooled", "dq_pooled", "sq_pooled", "s_per_mm2")


def measure_row(name: str, dataset: Dataset, model: Any, **options: Any) -> dict[str, Any]:
    summary = evaluate(model, dataset, **options).summary
    pixel, instance = summary["pixel"], summary["instance"]
    return {
        "model": name,
        "set": summary["dataset"],
        "images": summary["images"],
        "split": summary["split"],
        "split_hash": summary["split_hash"],
        "dice_pooled": pixel["pooled"]["dice"],
        "dice": pixel["per_image"]["dice"],
        "aji": instance["per_image"]["aji"],
        "pq": instance["per_image"]["pq"],
        "pq_pooled": instance["pooled"]["pq"],
        "dq_pooled": instance["pooled"]["dq"],
        "sq_pooled": instance["pooled"]["sq"],
        "s_per_mm2": summary["seconds"]["segment_per_mm2"],
    }


def main() -> None:
    parser = figures_parser(__doc__, Path("accuracy.json"))
    parser.add_argument("--model", action="append", default=[], help="model file, shipped model, or 'classical'")
    parser.add_argument("--data", action="append", type=Path, required=True, help="dataset folder")
    parser.add_argument("--split", default="test")
    parser.add_argument("--enlarge", type=int, action="append", default=[], dest="upsampling", metavar="N")
    parser.add_argument("--precision", action="append", default=[], help="also with f32 or bf16 by name")
    parser.add_argument("--auto", action="store_true", help="also with the scale estimated from the nuclei")
    arguments = parser.parse_args()
    rows: list[dict[str, Any]] = []
    print("model                    set               " + " ".join(f"{name:>11}" for name in COLUMNS))
    for path in arguments.data:
        dataset = Dataset.open(path)
        for name in arguments.model:
            variants: list[tuple[str, Any, dict[str, Any]]] = []
            if name == CLASSICAL:
                variants.append((name, CLASSICAL, {}))
            else:
                model = load_model(name)
                variants.append((model.card.name, model, {}))
                if arguments.auto:
                    variants.append((f"{model.card.name}, scale estimated", model, {"mpp": "auto"}))
                for times in arguments.upsampling:
                    variants.append(
                        (f"{model.card.name}, enlarged {times}x", change_card(model, output_upsampling=times), {})
                    )
                for precision in arguments.precision:
                    engine = make_engine("auto", model, precision=precision)
                    variants.append((f"{model.card.name}, {precision}", model, {"engine": engine}))
            for label, variant, options in variants:
                figures = measure_row(label, dataset, variant, split=arguments.split, **options)
                rows.append(figures)
                text = " ".join(f"{figures[c]:11.4f}" if figures[c] is not None else " " * 11 for c in COLUMNS)
                print(f"{label:24} {figures['set']:17} {text}", flush=True)
    write_record(arguments.output, "accuracy", ["torch", "openvino", "numpy", "numba"], rows)


if __name__ == "__main__":
    main()
