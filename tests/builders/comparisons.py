"""A small comparison to report on, made of label maps that are known, scored by the real evaluation."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from hemalum.data.dataset import Dataset, DatasetInfo, SplitInfo, write_index, write_sample
from hemalum.data.sample import Sample
from hemalum.experiments.evaluate import evaluate
from hemalum.experiments.plan import Method
from hemalum.experiments.records import Comparison, Run, read_json, read_rows
from hemalum.metrics import measure_overlap
from hemalum.metrics.curves import BINS

SIDE = 48
METHOD_KINDS = {"first": "recipe", "second": "recipe", "floor": "classical"}


def truth(image: int) -> NDArray[np.int32]:
    """Nine square nuclei; image 3 has none."""
    labels = np.zeros((SIDE, SIDE), np.int32)
    for k in range(0 if image == 3 else 9):
        y, x = 4 + 15 * (k // 3), 4 + 15 * (k % 3)
        labels[y : y + 10, x : x + 10] = k + 1
    return labels


def predict(labels: NDArray[np.int32], method: str, image: int, seed: int) -> NDArray[np.int32]:
    """The truth with nuclei overlooked: more by "first" and by "floor", some by chance of the seed."""
    chance = np.random.default_rng([image, seed, len(method)])
    overlooked = chance.random(10) < {"first": 0.3, "second": 0.1}.get(method, 0.6)
    result = np.where(overlooked[labels], 0, labels)
    if method == "floor":  # and a false alarm in a corner
        result[:3, :3] = 99
    return result.astype(np.int32)


def dataset(folder: Path, images: int, patients: int = 3) -> Dataset:
    """Images of so many groups and two organs, all in the test part."""
    folder.mkdir(parents=True)
    rows = []
    for image in range(images):
        labels = truth(image)
        pixels = np.where(labels[..., None] > 0, (110, 70, 140), (235, 205, 220)).astype(np.uint8)
        sample = Sample(
            pixels,
            labels,
            id=f"image{image:02d}",
            source=f"image{image:02d}",
            group=f"patient{image % patients}",
            organ=("liver", "kidney")[image % 2],
            mpp=0.5,
            mpp_source="user",
        )
        rows.append(write_sample(folder, sample))
    split = SplitInfo(by="patient", fractions=(0, 0, 1), seed=0, sha256="ab" * 32, counts={"test": images})
    rows = [replace(row, split="test") for row in rows]
    info = DatasetInfo(name=folder.name, images=images, nuclei=sum(row.nuclei for row in rows), mpp=0.5, split=split)
    write_index(folder, info, rows)
    return Dataset.open(folder)


def comparison(
    tmp: Path,
    *,
    datasets: tuple[str, ...] = ("alpha", "beta"),
    methods: tuple[str, ...] = ("first", "second", "floor"),
    seeds: tuple[int, ...] = (1, 2),
    images: int = 12,
    patients: int = 3,
    missing: tuple[tuple[str, str, int], ...] = (),
    titles: str = "",
) -> Comparison:
    """Train nothing, score everything: runs as `hemalum compare` leaves them."""
    out = tmp / "out"
    runs, absent, paths = [], [], {}
    for name in datasets:
        data = dataset(tmp / "data" / name, images, patients)
        paths[name] = data.path
        for method in methods:
            kind = METHOD_KINDS.get(method, "recipe")
            for seed in seeds if kind == "recipe" else (0,):
                if (name, method, seed) in missing:
                    absent.append({"dataset": name, "method": method, "fold": 0, "seed": seed})
                else:
                    folder = out / "runs" / str(len(runs))  # names may be no file names
                    runs.append(_run(folder, data, name, method, kind, seed))
    return Comparison(
        out=out,
        methods=tuple(_method(m, titles or f"the method {m}") for m in methods),
        datasets=paths,
        runs=tuple(runs),
        budget="small",
        description={
            "crops": 4000,
            "split": "test",
            "folds": None,
            "seeds": list(seeds),
            "leave_out_ambiguous": False,
            "stop_rule": "4,000 crops, best of the validations every 400 crops",
            "command": "hemalum compare first second classical --data alpha",
            "version": "0.1",
            "missing": absent,
            "datasets": {name: {"split_hashes": ["ab" * 32]} for name in datasets},
        },
    )


def _method(name: str, title: str) -> Method:
    kind = METHOD_KINDS.get(name, "recipe")
    return Method.model_validate({"name": name, "kind": kind, "title": title, "source": name, "digest": ""})


def _run(folder: Path, data: Dataset, name: str, method: str, kind: str, seed: int) -> Run:
    (folder / "predictions").mkdir(parents=True)

    def segmenter(sample: Sample) -> NDArray[np.int32]:
        labels = predict(sample.instances, method, int(sample.id[-2:]), seed)
        Image.fromarray(labels.astype(np.uint16)).save(folder / "predictions" / f"{sample.id}.png")
        return labels

    evaluate(segmenter, data).save(folder)
    cost: dict[str, Any] = {"test_images_per_second": 5.0}
    curves = None
    if kind == "recipe":
        cost |= {
            "parameters": 31_000,
            "macs": 2.5e9,
            "macs_at_outputs": 3.5e9,
            "macs_side_px": 256,
            "macs_rule": "one rule",
            "macs_at_outputs_rule": "another rule",
            "train_seconds": 100,
        }
        curves = _curves(data, method, seed)
        (folder / "training").mkdir()
        lines = [f'{{"step": {100 * k}, "phase": "main", "score": {0.1 * k}}}' for k in range(1, 4)]
        (folder / "training" / "log.jsonl").write_text("\n".join([*lines, '{"step": 4']))
    summary = read_json(folder / "summary.json")
    return Run(name, method, 0, seed, folder, read_rows(folder / "per_image.csv"), summary, cost, curves)


def _curves(data: Dataset, method: str, seed: int) -> dict[str, Any]:
    positive, negative = np.zeros(BINS, int), np.zeros(BINS, int)
    probabilities: list[float] = []
    matched: list[bool] = []
    true = 0
    for sample in data:
        labels = predict(sample.instances, method, int(sample.id[-2:]), seed)
        overlap = measure_overlap(sample.instances, labels)
        for probability, pixels in ((900, labels > 0), (100, labels == 0)):
            positive[probability] += int((pixels & (sample.instances > 0)).sum())
            negative[probability] += int((pixels & (sample.instances == 0)).sum())
        probabilities += [0.5 + k / 100 for k in range(len(overlap.prediction_ids))]
        matched += [True] * len(overlap.prediction_ids)
        true += len(overlap.truth_ids)
    return {
        "pixel": {"positive": positive.tolist(), "negative": negative.tolist()},
        "nuclei": {"probability": probabilities, "matched": matched, "truth": true},
    }
