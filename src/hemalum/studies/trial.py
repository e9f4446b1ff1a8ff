"""One cell of a comparison: train where there is something to train, segment the test part, score it."""

import json
import shutil
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from hemalum.data.dataset import Dataset
from hemalum.data.sample import Sample
from hemalum.errors import HemalumError
from hemalum.inference.model import load_model
from hemalum.inference.segment import as_engine
from hemalum.instances.representations import find_representation
from hemalum.metrics import measure_overlap
from hemalum.metrics.curves import ProbabilityCounts, count_probabilities
from hemalum.studies.cells import CELL_FILE, write_json
from hemalum.studies.classes import class_ids
from hemalum.studies.evaluate import evaluate
from hemalum.studies.folds import fold_of
from hemalum.studies.label_maps import LabelMaps
from hemalum.studies.learnt import model_by_organ, segment_learnt
from hemalum.studies.plan import Plan, PlannedMethod
from hemalum.studies.segmentation import Segmentation, Segmenter
from hemalum.training.loop import Watcher
from hemalum.training.recipe import Recipe, Source
from hemalum.training.train import train

MATCHED = 0.5  # IoU above which a predicted nucleus matches a true one


@dataclass(frozen=True)
class Resources:
    """What a cell may use: see `hemalum.train` and `hemalum.segment`."""

    accelerator: str = "auto"
    threads: int | None = None
    engine: str = "auto"


def run_cell(
    plan: Plan, method: PlannedMethod, data: str, fold: int, seed: int, folder: Path, resources: Resources,
    watch: Watcher | None = None,
) -> None:  # fmt: skip
    """Train, evaluate and write everything of one cell into `folder`; a training that was begun is gone on with.

    Raises HemalumError when the training or the evaluation fails; what was trained stays for the next attempt.
    """
    dataset = Dataset.open(plan.datasets[data].path)
    if plan.folds is not None:
        dataset = fold_of(dataset, fold, plan.folds)
    if dataset.split_hash != plan.datasets[data].split_hashes[fold]:
        raise HemalumError(f"{dataset.path}: the split has changed since the comparison was begun")
    cost: dict[str, Any] = {}
    model: Path | None = None
    if method.recipe is not None:
        model, cost = _train(
            Recipe.model_validate(method.recipe), data, dataset, seed, folder / "run", resources, watch
        )
    elif method.kind == "model":
        model = Path(method.source)
    recorder = _Recorder(
        _segmenter(method, dataset, data, plan.part, model, resources),
        folder / "predictions",
        plan.leave_out_ambiguous,
    )
    evaluation = evaluate(recorder, dataset, split=plan.part, leave_out_ambiguous=plan.leave_out_ambiguous)
    evaluation.summary["model"] = method.name
    evaluation.save(folder)
    if recorder.pixels is not None:
        write_json(folder / "curves.json", recorder.curves())
    cost["evaluation_seconds"] = sum(row["seconds_segment"] + row["seconds_metrics"] for row in evaluation.per_image)
    cost["test_images_per_second"] = len(recorder.seconds) / sum(recorder.seconds)
    cell = {
        "method": method.name,
        "digest": method.digest,
        "dataset": data,
        "fold": fold,
        "seed": seed,
        "split_hash": dataset.split_hash,
        "cost": cost,
    }
    write_json(folder / CELL_FILE, cell)


def _train(
    recipe: Recipe, data: str, dataset: Dataset, seed: int, run: Path, resources: Resources, watch: Watcher | None
) -> tuple[Path, dict[str, Any]]:
    own = recipe.data.get(data, Source())
    seeded = recipe.model_copy(update={"seed": seed, "data": {data: own}})
    path = train(
        seeded, {data: dataset}, run, resume=(run / "checkpoint.safetensors").exists(),
        accelerator=resources.accelerator, threads=resources.threads, watch=watch,
    )  # fmt: skip
    return path, _training_cost(run / "log.jsonl")


def _training_cost(log: Path) -> dict[str, Any]:
    """Steps and the time spent in them, without validation, over all sessions of a training."""
    steps, seconds = 0, 0.0
    for line in log.read_text(encoding="utf-8").splitlines():
        row = json.loads(line)
        seconds += (row["step"] - steps) / row["steps_per_second"]
        steps = row["step"]
    return {"steps": steps, "train_seconds": seconds, "steps_per_second": steps / seconds}


def _segmenter(
    method: PlannedMethod, dataset: Dataset, data: str, part: str, model: Path | None, resources: Resources
) -> Segmenter:
    if method.kind == "labels":
        return label_maps(method, data, dataset.class_names)
    if model is None:
        from hemalum.systems.classical import segment_classical

        return lambda sample: segment_classical(sample.image, sample.mpp)
    loaded = load_model(model)
    engine = as_engine(resources.engine, loaded, threads=resources.threads)
    names = find_representation(loaded.card.representation, loaded.card.classes).told_apart
    ids = class_ids(names, dataset.class_names, method.name, dataset.info.name)
    told = model_by_organ(loaded, [row.organ for row in dataset.split(part).rows])
    return lambda sample: segment_learnt(sample.image, told(sample.organ), engine, mpp=sample.mpp, ids=ids)


def label_maps(method: PlannedMethod, data: str, class_names: Mapping[int, str] | None = None) -> LabelMaps:
    """Another program's label maps for a dataset: in a sub-folder of its name where there is one."""
    folder = Path(method.source)
    return LabelMaps(folder / data if (folder / data).is_dir() else folder, class_names=class_names or {})


@dataclass
class _Recorder:
    """A segmenter that keeps what it gives: label maps as files, probabilities as counts."""

    segmenter: Segmenter
    folder: Path
    leave_out_ambiguous: bool
    pixels: ProbabilityCounts | None = None
    nuclei: list[tuple[NDArray[np.float32], NDArray[np.bool_]]] = field(default_factory=list)
    truth: int = 0
    seconds: list[float] = field(default_factory=list)

    def __post_init__(self) -> None:
        shutil.rmtree(self.folder, ignore_errors=True)  # of an attempt that was not finished
        self.folder.mkdir(parents=True)

    def __call__(self, sample: Sample) -> Segmentation:
        if sample.mpp is None:
            raise HemalumError(f"sample {sample.id} has no mpp: import its dataset with --mpp NUMBER or --mpp nuclei")
        start = time.perf_counter()
        given = self.segmenter(sample)
        self.seconds.append(time.perf_counter() - start)
        found = given if isinstance(given, Segmentation) else Segmentation(given)
        write_label_map(self.folder / f"{sample.id}.png", found.labels)
        if found.probability is not None and found.nucleus_probability is not None:
            self._count(sample, found, found.probability, found.nucleus_probability)
        return found

    def _count(
        self, sample: Sample, found: Segmentation, probability: NDArray[np.float32], sureness: NDArray[np.float32]
    ) -> None:
        left_out = sample.ambiguous if self.leave_out_ambiguous else None
        counts = count_probabilities(probability, sample.instances > 0, left_out)
        self.pixels = counts if self.pixels is None else self.pixels + counts
        overlap = measure_overlap(sample.instances, found.labels, ambiguous=left_out)
        matched = np.zeros(len(overlap.prediction_ids), np.bool_)
        matched[overlap.pair_prediction[overlap.iou > MATCHED]] = True
        self.nuclei.append((sureness[overlap.prediction_ids], matched))
        self.truth += len(overlap.truth_ids)

    def curves(self) -> dict[str, Any]:
        """The counts over all images, as `Cell.curves` holds them."""
        pixels = self.pixels or ProbabilityCounts.none()
        sureness = np.concatenate([one for one, _ in self.nuclei])
        matched = np.concatenate([one for _, one in self.nuclei])
        return {
            "pixel": {"positive": pixels.positive.tolist(), "negative": pixels.negative.tolist()},
            "nuclei": {
                "probability": [round(float(value), 6) for value in sureness],
                "matched": matched.tolist(),
                "truth": self.truth,
            },
        }


def write_label_map(path: Path, labels: NDArray[np.integer[Any]]) -> None:
    """Write a label map as PNG uint16; its ids, which name nothing outside this map, are made small first."""
    if labels.max(initial=0) > np.iinfo(np.uint16).max:
        labels = np.unique(labels, return_inverse=True)[1].reshape(labels.shape)
    Image.fromarray(labels.astype(np.uint16)).save(path, compress_level=1)
