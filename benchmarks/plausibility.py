"""How often a wrong scale, and labels turned against their images, are named; and how often right ones are doubted.

    python benchmarks/plausibility.py MODEL DATASET… [--split test] [--images 20] [--json FILE]

DATASET is a dataset folder as `hemalum import` writes it; images whose mpp came from nuclei are left out of the first
part. Each image is segmented at its scale and as if it were 2, 2.54, 1/2 and 1/2.54 times that: a warning at its own
is a false alarm, and one that points the right way at another is a hit; how many name the very factor is counted,
too. The comparison's share of the time of segmenting is that at the right scale, images one after the other as in a
folder. Labels are laid on their images as they are, and turned and mirrored in each way that fits the image's shape.
Images with too few nuclei to tell are counted apart.
"""

import logging
import re
import time
from pathlib import Path
from typing import Any

import numpy as np

from hemalum.data.dataset import Dataset
from hemalum.data.label_fit import FEWEST, TURNS, find_misfit
from hemalum.data.sample import Sample
from hemalum.inference.plausibility import ScaleCheck
from hemalum.inference.segment import as_engine, segment_source
from hemalum.models.engines.engine import Engine
from hemalum.models.model import Model, load_model
from hemalum.slides.slide import Slide
from inputs import choose_evenly
from record import argument_parser, write_record

FACTORS = (2.0, 2.54, 1 / 2, 1 / 2.54)
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
    print("set                  images   false    hits of tries  named   share of time | turns named, false")
    for folder in arguments.datasets:
        dataset = Dataset.open(folder)
        if arguments.split != "all" and any(row.split == arguments.split for row in dataset.rows):
            dataset = dataset.split(arguments.split)
        chosen = choose_evenly(len(dataset.rows), arguments.images)
        row: dict[str, Any] = {"set": folder.name, "images": len(chosen)}
        samples = [dataset[int(index)] for index in chosen]
        row |= measure_scales([one for one in samples if one.mpp_source != "nuclei"], model, engine)
        row |= measure_turns(samples)
        rows.append(row)
        print(
            f"{folder.name:20s} {row['images']:6d} {row['false_alarms']:7d} {row['hits']:7d} of {row['tries']:5d} "
            f"{row['named']:6d} {row['share_of_time']:14.0%}  | {row['turns_named']} of {row['turns']}, "
            f"{row['false_misfits']}",
            flush=True,
        )
        write_record(arguments.json, "plausibility", ["hemalum", "openvino"], rows, model=model.card.name)


def measure_scales(samples: list[Sample], model: Model, engine: Engine) -> dict[str, Any]:
    """Doubts at the right scale and at others, and the comparison's share of the time."""
    check = TimedCheck()
    counts = {"false_alarms": 0, "tries": 0, "hits": 0, "named": 0, "too_few": 0}
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
        # alone, as one image is: what others agreed on does not count
        alone = segment_source(source, model, engine, mpp=truth, scale_check=ScaleCheck()).notes.get("scale_doubt")
        counts["false_alarms"] += alone is not None
        for factor in FACTORS:
            stated = truth * factor
            result = segment_source(source, model, engine, mpp=stated, scale_check=ScaleCheck())
            doubt = result.notes.get("scale_doubt", "")
            seen = re.search(r"look like about ([0-9.e-]+)", doubt)
            counts["tries"] += 1
            counts["hits"] += seen is not None and (float(seen.group(1)) < stated) == (factor > 1)
            counts["named"] += f"{truth:.3g} would fit" in doubt
    return counts | {"share_of_time": check.seconds / total if total else 0.0}


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


if __name__ == "__main__":
    main()
