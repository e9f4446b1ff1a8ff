"""A model in int8: ranges from training images, cost from validation images, both in one new model file."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hemalum.data.dataset import Dataset
from hemalum.errors import HemalumError
from hemalum.experiments.evaluate import evaluate
from hemalum.experiments.segmenters import model_for_organ
from hemalum.inference.plan import CellSegmenter, make_plan
from hemalum.models.card import Int8, Int8Set
from hemalum.models.engines.engine import Engine, make_engine, require
from hemalum.models.engines.int8 import Window, check_int8, nncf_version, quantize_network
from hemalum.models.file import save_model
from hemalum.models.model import Model, load_model
from hemalum.slides.slide import Slide
from hemalum.targets.representations import find_representation

Progress = Callable[[str, int, int], None]  # what, done, of how many


def quantize(
    model: Path | str | Model,
    data: Path | str | Dataset | Sequence[Path | str | Dataset],
    out: Path | str,
    *,
    windows: int = 200,
    threads: int | None = None,
    on_progress: Progress | None = None,
) -> Model:
    """Write the model to `out` with an int8 form of its network beside the weights, and give it.

    The ranges of int8 are measured on `windows` windows of the training images of the datasets, as many of each; PQ
    pooled over all their validation images, with int8 and without, stands in the card. OpenVINO computes in int8 by
    default where no dataset loses more than `hemalum.models.engines.openvino.SMALL_COST`. `on_progress` is called
    with what is done, how much of it, and of how much. `out` may be the model's own file.

    Raises HemalumError when the extra `int8` is missing, a dataset lacks training or validation images, or the model
    cannot be quantized.
    """
    report = on_progress or (lambda what, done, total: None)
    loaded = load_model(model)
    require("openvino", "openvino")
    check_int8(loaded)
    listed = [data] if isinstance(data, (str, Path, Dataset)) else list(data)
    datasets = [one if isinstance(one, Dataset) else Dataset.open(one) for one in listed]
    _check_data(datasets, windows)
    plain = replace(loaded, card=loaded.card.model_copy(update={"int8": None}), int8=None)
    engine = make_engine("openvino", plain, threads=threads)
    counts = [len(part) for part in np.array_split(np.arange(windows), len(datasets))]
    seen = [
        training_windows(plain, engine, dataset, count, partial(report, f"{dataset.info.name}: training images"))
        for dataset, count in zip(datasets, counts, strict=True)
    ]
    report("quantizing", 0, 1)
    quantized = replace(plain, int8=quantize_network(plain, [window for one in seen for window in one]))
    report("quantizing", 1, 1)
    engines = {
        engine.precision: engine,
        "int8": make_engine("openvino", quantized, threads=threads, precision="int8"),
    }
    sets = []
    for dataset, calibration in zip(datasets, seen, strict=True):
        before, after = (_scores(plain, runner, dataset, report) for runner in engines.values())
        sets.append(
            Int8Set(
                name=dataset.info.name, split_hash=dataset.split_hash, windows=len(calibration),
                images=len(dataset.split("val")), pq=before["pq"], pq_int8=after["pq"],
                mpq=before.get("mpq"), mpq_int8=after.get("mpq"),
            )
        )  # fmt: skip
    card = plain.card.model_copy(update={"int8": Int8(made_by=nncf_version(), precision=engine.precision, sets=sets)})
    save_model(out, card, quantized.tensors, quantized.int8)
    return replace(quantized, card=card, path=Path(out))


def training_windows(
    model: Model, engine: Engine, dataset: Dataset, count: int, report: Callable[[int, int], None]
) -> list[Window]:
    """At most `count` windows of training images as the network sees them: scale, colors and margins are inference's.

    Images and their windows are chosen evenly, so that one choice is always the same.
    """
    part = dataset.split("train")
    images = _evenly(len(part), count)
    channels = find_representation(model.card.representation, model.card.classes).channels
    recorder = Recorder(len(channels), model.card.output_upsampling)
    for number, index in enumerate(images):
        report(number, len(images))
        sample = part[index]
        chosen = model_for_organ(model, sample.organ)
        with Slide.of(sample.image, name=sample.id) as slide:
            plan = make_plan(slide, chosen, engine, mpp=sample.mpp)
            tiles = list(product(range(len(plan.tiles.rows)), range(len(plan.tiles.columns))))
            wanted = math.ceil((count - len(recorder.windows)) / (len(images) - number))
            with CellSegmenter(slide, chosen, recorder, plan) as segmenter:
                for tile in _evenly(len(tiles), wanted):
                    segmenter.maps.read(plan.tiles.core(tiles[tile]))
    report(len(images), len(images))
    return recorder.windows


@dataclass
class Recorder:
    """An engine that keeps what it is shown, and whose maps are empty."""

    channels: int
    upsampling: int
    windows: list[Window] = field(default_factory=list)
    name: str = "recorder"
    precision: str = "f32"
    parallel: int = 1
    batch: int = 1

    def maps(self, images: NDArray[np.uint8], organ: int | None = None) -> NDArray[np.float32]:
        """See `Engine.maps`."""
        self.windows.append((images.copy(), organ))
        height, width = (side * self.upsampling for side in images.shape[1:3])
        return np.zeros((len(images), self.channels, height, width), np.float32)


def _check_data(datasets: Sequence[Dataset], windows: int) -> None:
    if not datasets:
        raise HemalumError("quantizing needs a dataset with training and validation images: give one with --data")
    if windows < len(datasets):
        raise HemalumError(f"{windows} windows are too few for {len(datasets)} datasets: at least one of each")
    for dataset in datasets:
        for name, part, use in (("training", "train", "measure ranges"), ("validation", "val", "measure PQ")):
            if not len(dataset.split(part)):
                raise HemalumError(f"{dataset.path}: no {name} images to {use} on")


def _scores(model: Model, engine: Engine, dataset: Dataset, report: Progress) -> dict[str, float]:
    """PQ over the nuclei of all validation images, and mPQ+ where these have the model's classes.

    Raises HemalumError where no image has nuclei.
    """
    part = dataset.split("val")
    what = f"{dataset.info.name}: validation images in {engine.precision}"

    def on_image(number: int, row: Any) -> None:
        report(what, number + 1, len(part))

    report(what, 0, len(part))
    summary = evaluate(model, part, split="val", engine=engine, on_progress=on_image).summary
    scores = {"pq": summary["instance"]["pooled"]["pq"]}
    if len(model.card.classes) > 1 and "classes" in summary:
        scores["mpq"] = summary["classes"]["mpq_plus"]
    if any(value is None or math.isnan(value) for value in scores.values()):
        raise HemalumError(f"{dataset.path}: its validation images have too few nuclei to measure what int8 costs")
    return {name: round(float(value), 4) for name, value in scores.items()}


def _evenly(count: int, limit: int) -> list[int]:
    """At most `limit` numbers below `count`, spread from the first to the last; the middle one where it is one."""
    if limit == 1:
        return [count // 2]
    return sorted({round(number) for number in np.linspace(0, count - 1, min(count, limit))})
