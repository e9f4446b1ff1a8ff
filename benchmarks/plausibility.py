"""How often a wrong scale, and labels turned against their images, are named; and how often right ones are doubted.

    python benchmarks/plausibility.py MODEL DATASET… [--split test] [--images 20] [--json FILE]

DATASET is a dataset folder as `hemalum import` writes it; images whose mpp came from nuclei are left out of the first
part. Each image is segmented at its scale, where a warning is a false alarm, and as if it were so many `FACTORS`
times coarser and finer: a warning that points the right way is a hit; how many name the very factor is counted, too.
The warning is meant to begin at 1.6. The comparison's share of the time of segmenting is that at the right scale,
images one after the other as in a folder. Labels are laid on their images as they are, and turned and mirrored in
each way that fits the image's shape. Images with too few nuclei to tell are counted apart. `fit` is the area under
the ROC curve of all labels of a set as they are: the least, and how many are below 0.7 and of how many.
"""

import logging
import re
import time
from pathlib import Path
from typing import Any

import numpy as np

from hemalum.data.dataset import Dataset
from hemalum.data.label_fit import FEWEST, TURNS, area_under_roc, find_misfit, nuclear_signal
from hemalum.data.sample import Sample
from hemalum.inference.plausibility import ScaleCheck
from hemalum.inference.segment import as_engine, segment_source
from hemalum.models.engines.engine import Engine
from hemalum.models.model import Model, load_model
from hemalum.slides.slide import Slide
from inputs import choose_evenly
from record import argument_parser, write_record

FACTORS = (1.2, 1.5, 1.7, 2.0, 2.54)
BACK = {"turned by 90° clockwise": "turned by 90° counterclockwise"}
BACK |= {after: before for before, after in BACK.items()}


class TimedCheck(ScaleCheck):
    """A comparison that knows how long it took, in all."""

    seconds = 0.0

    def doubt(self, *arguments: Any, **options: Any) -> str:
        start = time.perf_counter()
        try:
            return super().doubt(*arguments, **options)
        finally:
            self.seconds += time.perf_counter() - start


def main() -> None:
    parser = argument_parser(__doc__)
    parser.add_argument("model", help="model file or name of a shipped model")
    parser.add_argument("datasets", nargs="+", type=Path)
    parser.add_argument("--split", default="test", help="part of each set, or 'all'")
    parser.add_argument("--images", type=int, default=20, help="at most so many of each set, evenly spread")
    parser.add_argument("--engine", default="auto")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()

    logging.getLogger("hemalum").setLevel(logging.ERROR)  # the warnings are what is counted
    model = load_model(arguments.model)
    engine = as_engine(arguments.engine, model)
    rows: list[dict[str, Any]] = []
    for folder in arguments.datasets:
        dataset = Dataset.open(folder)
        fit = measure_fit(dataset)
        if arguments.split != "all" and any(row.split == arguments.split for row in dataset.rows):
            dataset = dataset.split(arguments.split)
        chosen = choose_evenly(len(dataset.rows), arguments.images)
        row: dict[str, Any] = {"set": folder.name, "images": len(chosen)}
        samples = [dataset[int(index)] for index in chosen]
        row |= measure_scales([one for one in samples if one.mpp_source != "nuclei"], model, engine)
        row |= measure_turns(samples) | {"fit": fit}
        rows.append(row)
        by_factor = row["by_factor"].items()
        hits = ", ".join(f"{name}: {one['hits']} of {one['tries']} ({one['named']})" for name, one in by_factor)
        print(
            f"{folder.name}: {row['false_alarms']} false of {row['images']}; warned (named) at {hits}; {row}",
            flush=True,
        )
        write_record(arguments.json, "plausibility", ["hemalum", "openvino"], rows, model=model.card.name)


def measure_scales(samples: list[Sample], model: Model, engine: Engine) -> dict[str, Any]:
    """Doubts at the right scale and at others, and the comparison's share of the time."""
    check = TimedCheck()
    counts: dict[str, Any] = {"false_alarms": 0, "too_few": 0}
    factors = {f"{factor:g}": {"tries": 0, "hits": 0, "named": 0} for factor in FACTORS}
    total = 0.0
    for sample in samples:
        truth = float(sample.mpp or 0)
        source = Slide.of(sample.image, name=sample.id)
        start = time.perf_counter()
        nuclei = segment_source(source, model, engine, mpp=truth, scale_check=check)
        total += time.perf_counter() - start
        if nuclei.count < 5:  # too few to tell a scale by
            counts["too_few"] += 1
            continue

        def doubt(stated: float, source: Slide = source) -> str:
            """Of the image alone: what others agreed on does not count."""
            result = segment_source(source, model, engine, mpp=stated, scale_check=ScaleCheck())
            return str(result.notes.get("scale_doubt", ""))

        counts["false_alarms"] += doubt(truth) != ""
        for factor in FACTORS:
            for stated in (truth * factor, truth / factor):
                answer = doubt(stated)
                seen = re.search(r"look like about ([0-9.e-]+)", answer)
                one = factors[f"{factor:g}"]
                one["tries"] += 1
                one["hits"] += seen is not None and (float(seen.group(1)) < stated) == (stated > truth)
                one["named"] += f"{truth:.3g} would fit" in answer
    return counts | {"by_factor": factors, "share_of_time": round(check.seconds / total, 3) if total else 0.0}


def measure_turns(samples: list[Sample]) -> dict[str, int]:
    """Labels that are doubted as they are, and turned ones that are named by the turn that brings them back."""
    counts = {"turns": 0, "turns_named": 0, "turns_missed": 0, "false_misfits": 0}
    for sample in samples:
        counts["false_misfits"] += find_misfit(sample.image, sample.instances) is not None
        if len(np.unique(sample.instances)) - 1 < FEWEST:
            continue
        for name, turn in TURNS.items():
            turned = np.ascontiguousarray(turn(sample.instances))
            if turned.shape == sample.instances.shape:
                misfit = find_misfit(sample.image, turned)
                counts["turns"] += 1
                counts["turns_missed"] += misfit is None
                counts["turns_named"] += misfit is not None and misfit.better == BACK.get(name, name)
    return counts


def measure_fit(dataset: Dataset) -> dict[str, Any]:
    """How well the labels of all images of a set lie on them."""
    areas = [
        area_under_roc(nuclear_signal(sample.image), sample.instances > 0)
        for sample in dataset
        if len(np.unique(sample.instances)) - 1 >= FEWEST
    ]
    return {"images": len(areas), "least": round(min(areas), 3), "below_0.7": sum(area < 0.7 for area in areas)}


if __name__ == "__main__":
    main()
