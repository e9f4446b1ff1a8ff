"""One run of a comparison: train where there is something to train, segment the test part, score it."""

import json
import shutil
import time
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from hemalum.data.dataset import Dataset
from hemalum.data.sample import Sample
from hemalum.errors import HemalumError
from hemalum.experiments.evaluate import build_segmenter, evaluate
from hemalum.experiments.label_maps import LabelMaps
from hemalum.experiments.plan import Method, Plan, RunKey
from hemalum.experiments.records import PREDICTIONS, RUN_FILE, TRAINING, write_json
from hemalum.experiments.resplit import fold_of
from hemalum.experiments.segmenters import CLASSICAL, Segmentation, Segmenter
from hemalum.metrics import measure_overlap
from hemalum.metrics.curves import ProbabilityCounts, count_probabilities
from hemalum.training.context import ProgressCallback
from hemalum.training.recipe import Recipe, Source
from hemalum.training.train import train

MATCHED = 0.5  # IoU above which a predicted nucleus matches a true one


@dataclass(frozen=True)
class Resources:
    """What an experiment may use of the machine, as in `hemalum.train` and `hemalum.segment`."""

    accelerator: str = "auto"
    threads: int | None = None
    engine: str = "auto"


def execute_run(
    plan: Plan, method: Method, key: RunKey, folder: Path, resources: Resources,
    on_progress: ProgressCallback | None = None,
) -> None:  # fmt: skip
    """Train, evaluate and write everything of one run into `folder`; a training that was begun is gone on with.

    Raises HemalumError when the training or the evaluation fails; what was trained stays for the next attempt.
    """
    planned = plan.datasets[key.dataset]
    dataset = Dataset.open(planned.path)
    if dataset.digest() != planned.digest:
        raise HemalumError(f"{dataset.path}: images, labels or split have changed since the comparison was begun")
    if plan.folds is not None:
        dataset = fold_of(dataset, key.fold, plan.folds)
    cost: dict[str, Any] = {}
    model: Path | LabelMaps | str = Path(method.source)
    if method.recipe is not None:
        model, cost = _train(
            Recipe.model_validate(method.recipe), key, dataset, folder / TRAINING, resources, on_progress
        )
    elif method.kind == "labels":
        model = label_maps(method, key.dataset)
    elif method.kind == "classical":
        model = CLASSICAL
    built = build_segmenter(
        model, data=dataset.info.name, classes=dataset.class_names,
        organs=[row.organ for row in dataset.split(plan.split).rows], engine=resources.engine,
        threads=resources.threads, name=method.name, probabilities=True, mpp=plan.mpp,
    )  # fmt: skip
    recorder = _Recorder(built.segmenter, folder / PREDICTIONS, plan.leave_out_ambiguous)
    evaluation = evaluate(
        replace(built, segmenter=recorder), dataset, split=plan.split, mpp=plan.mpp,
        leave_out_ambiguous=plan.leave_out_ambiguous,
    )  # fmt: skip
    evaluation.summary["model"] = method.name
    evaluation.save(folder)
    if recorder.pixels is not None:
        write_json(folder / "curves.json", recorder.curves())
    cost["evaluation_seconds"] = sum(row["seconds_segment"] + row["seconds_metrics"] for row in evaluation.per_image)
    cost["test_images_per_second"] = len(recorder.seconds) / sum(recorder.seconds)
    record = key._asdict() | {"digest": method.digest, "split_hash": dataset.split_hash, "cost": cost}
    write_json(folder / RUN_FILE, record)


def _train(
    recipe: Recipe, key: RunKey, dataset: Dataset, folder: Path, resources: Resources,
    on_progress: ProgressCallback | None,
) -> tuple[Path, dict[str, Any]]:  # fmt: skip
    source = recipe.data.get(key.dataset, Source())
    seeded = recipe.model_copy(update={"seed": key.seed, "data": {key.dataset: source}})
    path = train(
        seeded, {key.dataset: dataset}, folder, resume=(folder / "checkpoint.safetensors").exists(),
        accelerator=resources.accelerator, threads=resources.threads, on_progress=on_progress,
    )  # fmt: skip
    return path, _training_cost(folder / "log.jsonl")


def _training_cost(log: Path) -> dict[str, Any]:
    """Steps and the time spent in them, without validation, over all sessions of a training."""
    steps, seconds = 0, 0.0
    for line in log.read_text(encoding="utf-8").splitlines():
        row = json.loads(line)
        if "steps_per_second" not in row:  # what a phase starts from: no step lies behind it
            continue
        seconds += (row["step"] - steps) / row["steps_per_second"]
        steps = row["step"]
    return {"steps": steps, "train_seconds": seconds, "steps_per_second": steps / seconds}


def label_maps(method: Method, data: str) -> LabelMaps:
    """Another program's label maps for a dataset: in a sub-folder of its name where there is one."""
    folder = Path(method.source)
    return LabelMaps(folder / data if (folder / data).is_dir() else folder)


@dataclass
class _Recorder:
    """A segmenter that keeps its results: label maps as files, probabilities as counts."""

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
        sample.require_mpp()
        start = time.perf_counter()
        result = self.segmenter(sample)
        self.seconds.append(time.perf_counter() - start)
        segmentation = Segmentation.of(result)
        write_label_map(self.folder / f"{sample.id}.png", segmentation.labels)
        if segmentation.probability is not None and segmentation.nucleus_probability is not None:
            self._count(sample, segmentation.labels, segmentation.probability, segmentation.nucleus_probability)
        return segmentation

    def _count(
        self,
        sample: Sample,
        labels: NDArray[np.integer[Any]],
        probability: NDArray[np.float32],
        confidence: NDArray[np.float32],
    ) -> None:
        left_out = sample.left_out(ambiguous=self.leave_out_ambiguous)
        counts = count_probabilities(probability, sample.instances > 0, left_out)
        self.pixels = counts if self.pixels is None else self.pixels + counts
        overlap = measure_overlap(sample.instances, labels, ambiguous=left_out)
        matched = np.zeros(len(overlap.prediction_ids), np.bool_)
        matched[overlap.pair_prediction[overlap.iou > MATCHED]] = True
        self.nuclei.append((confidence[overlap.prediction_ids], matched))
        self.truth += len(overlap.truth_ids)

    def curves(self) -> dict[str, Any]:
        """The counts over all images, as `Run.curves` holds them."""
        pixels = self.pixels or ProbabilityCounts.none()
        confidence = np.concatenate([one for one, _ in self.nuclei])
        matched = np.concatenate([one for _, one in self.nuclei])
        return {
            "pixel": {"positive": pixels.positive.tolist(), "negative": pixels.negative.tolist()},
            "nuclei": {
                "probability": [round(float(value), 6) for value in confidence],
                "matched": matched.tolist(),
                "truth": self.truth,
            },
        }


def write_label_map(path: Path, labels: NDArray[np.integer[Any]]) -> None:
    """Write a label map as PNG uint16; its ids, which name nothing outside this map, are made small first."""
    if labels.max(initial=0) > np.iinfo(np.uint16).max:
        labels = np.unique(labels, return_inverse=True)[1].reshape(labels.shape)
    Image.fromarray(labels.astype(np.uint16)).save(path, compress_level=1)
