"""Put a trained model into the package: final card, held-out metrics, half-precision weights.

    python tools/ship.py RUN/model.safetensors NAME --use "H&E" --settings tune.json --data data/tnbc
        --data data/dsb2018 [--transfer benchmarks/results/transfer.json:VARIANT]

    python tools/ship.py --rescore NAME --data data/tnbc --data data/dsb2018

scores a shipped model again under today's program; nothing else of its card changes.

The separation settings are the first of `benchmarks/tune_separation.py`'s file, or those of another model file,
where that finds none clearly better; it knows no stain, so with them goes the least hematoxylin of a nucleus
(docs/decisions.md). Metrics are those of the very file that is shipped, on the sets' test parts, and by organ where
a set has several; those of --transfer are of models of the same network and augmentation, trained for a short time
without the set. The median diameter that `--mpp auto` scales to is that of the training labels.
"""

import argparse
import json
from pathlib import Path

import numpy as np

from hemalum.data.dataset import Dataset
from hemalum.data.nucleus_size import equivalent_diameters
from hemalum.experiments.evaluate import evaluate
from hemalum.models.file import load_int8, load_model_file, save_model
from hemalum.models.model import Model, load_model
from hemalum.nuclei.settings import SeparationSettings
from hemalum.targets.representations import REPRESENTATIONS
from hemalum.training.head import keep_head

WEIGHTS = Path(__file__).resolve().parents[1] / "src" / "hemalum" / "models" / "weights"


def median_diameter(datasets: list[Dataset]) -> float:
    """Median over sets of the median equivalent diameter, µm, of the training part's whole nuclei."""
    medians = []
    for dataset in datasets:
        train = [sample for sample in dataset.split("train") if sample.mpp is not None]
        diameters = np.concatenate([equivalent_diameters(sample.instances) * sample.mpp for sample in train])
        medians.append(float(np.median(diameters)))
    return round(float(np.median(medians)), 2)


def rescore(name: str, datasets: list[Dataset]) -> None:
    """Write the scores of a shipped model anew into its card."""
    path = WEIGHTS / f"{name}.safetensors"
    card, tensors = load_model_file(path)
    short_runs = {key: row for key, row in card.metrics.items() if "not trained on" in key}
    metrics = score(load_model(path), datasets) | short_runs
    save_model(path, card.model_copy(update={"metrics": metrics}), tensors, load_int8(path)[1])


def score(model: Model, datasets: list[Dataset]) -> dict[str, dict[str, float]]:
    """What the model scores on the test parts, and by organ where a set has several."""
    metrics: dict[str, dict[str, float]] = {}
    for dataset in datasets:
        summary = evaluate(model, dataset).summary
        metrics[f"{dataset.info.name} test"] = {
            "images": summary["images"],
            "dice_pooled": round(summary["pixel"]["pooled"]["dice"], 4),
            "aji": round(summary["instance"]["per_image"]["aji"], 4),
            "pq": round(summary["instance"]["per_image"]["pq"], 4),
            "pq_pooled": round(summary["instance"]["pooled"]["pq"], 4),
        }
        if "classes" in summary and len(model.card.classes) > 1:
            metrics[f"{dataset.info.name} test"] |= {
                key: round(summary["classes"][name], 4)
                for key, name in (("mpq", "mpq_image"), ("mpq_plus", "mpq_plus"))
            }
        print(dataset.info.name, metrics[f"{dataset.info.name} test"], flush=True)
        organs = summary["by_organ"]
        for row in organs if len(organs) > 1 else ():
            metrics[f"{dataset.info.name} test, {row['name']}"] = {"images": row["images"], "pq": round(row["pq"], 4)}
    return metrics


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path, nargs="?")
    parser.add_argument("name", nargs="?")
    parser.add_argument("--rescore", metavar="NAME", help="score this shipped model again, and change nothing else")
    parser.add_argument("--use", help="what the model is for and what not, for its card")
    parser.add_argument("--settings", type=Path)
    parser.add_argument("--data", action="append", type=Path, required=True)
    parser.add_argument("--keep", help="representation to keep of a model that was trained on more maps")
    parser.add_argument("--transfer", help="FILE:VARIANT: what benchmarks/transfer.py measured on sets left out")
    parser.add_argument(
        "--min-hematoxylin", type=float, default=0.06, help="nuclei of H&E images with less are left out"
    )
    arguments = parser.parse_args()
    if arguments.rescore:
        rescore(arguments.rescore, [Dataset.open(path) for path in arguments.data])
        return
    if None in (arguments.model, arguments.name, arguments.use, arguments.settings):
        parser.error("MODEL, NAME, --use and --settings are needed, or --rescore")
    card, tensors = load_model_file(arguments.model)
    if arguments.keep:
        tensors = keep_head(tensors, REPRESENTATIONS[card.representation], REPRESENTATIONS[arguments.keep])
        card = card.model_copy(update={"representation": arguments.keep})
    if arguments.settings.suffix == ".json":
        best = json.loads(arguments.settings.read_text())["results"][0]["settings"]
    else:
        best = load_model_file(arguments.settings)[0].separation.model_dump()
    best |= {"min_hematoxylin": arguments.min_hematoxylin}
    datasets = [Dataset.open(path) for path in arguments.data]
    half = {name: value.astype(np.float16) if value.dtype == np.float32 else value for name, value in tensors.items()}
    card = card.model_copy(
        update={
            "name": arguments.name,
            "separation": SeparationSettings(**best),
            "use": arguments.use,
            "nucleus_diameter_um": median_diameter(datasets),
        }
    )
    metrics = score(Model(card, half), datasets)
    if arguments.transfer:
        file, _, variant = arguments.transfer.rpartition(":")
        for row in json.loads(Path(file).read_text())["results"]:
            if row["variant"] == variant:
                metrics[f"{row['left_out']}, not trained on, short run"] = {"pq": round(row["pq"], 4)}
    path = WEIGHTS / f"{arguments.name}.safetensors"
    save_model(path, card.model_copy(update={"metrics": metrics}), half)
    print(f"{path}: {path.stat().st_size / 1e6:.2f} MB")


if __name__ == "__main__":
    main()
