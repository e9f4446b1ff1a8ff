"""Fluorescence shown to the network as it is, and as `--stain fluorescence` shows it: as if it were H&E.

    python benchmarks/fluorescence_stain.py data/dsb2018 [--model accurate] [--every 1]
        [-o benchmarks/results/fluorescence_stain.json]

On the validation images of DSB2018 whose column `stain` is grey-fluo, at the scale of the data set's index; PQ pooled
over images and as the mean over images.
"""

import logging
from pathlib import Path

import numpy as np

from hemalum.data.dataset import Dataset
from hemalum.data.stain.he_appearance import FluorescenceMap
from hemalum.data.stain.normalization import sample_image
from hemalum.inference.segment import as_engine, segment
from hemalum.metrics import match, measure_overlap
from hemalum.models.model import load_model
from inputs import change_separation
from record import RESULTS, figures_parser, write_record


def main() -> None:
    parser = figures_parser(__doc__, RESULTS / "fluorescence_stain.json")
    parser.add_argument("data", type=Path)
    parser.add_argument("--model", action="append", default=[])
    parser.add_argument("--every", type=int, default=1, help="take every nth image")
    arguments = parser.parse_args()
    logging.getLogger("hemalum").setLevel(logging.ERROR)  # that a stain is set on purpose
    part = Dataset.open(arguments.data).split("val")
    samples = [sample for sample in part if sample.stain == "grey-fluo"][:: arguments.every]
    rows = []
    for name in arguments.model or ["accurate", "fast"]:
        model = load_model(name)
        # a filter for H&E alone, which would drop what is brown or bright
        model = change_separation(model, min_hematoxylin=0.0)
        engine = as_engine("auto", model)
        forms = {
            "as it is": ("he", lambda image: image),
            "inverted": ("he", lambda image: 255 - image),
            "as H&E": ("he", lambda image: FluorescenceMap.of(sample_image(image)).apply(image)),
        }
        for form, (stain, change) in forms.items():
            counts = []
            for sample in samples:
                nuclei = segment(change(sample.image), model, mpp=sample.mpp, stain=stain, engine=engine)
                counts.append(match(measure_overlap(sample.instances, nuclei.label_map())))
            pooled = sum(counts[1:], counts[0])
            mean = float(np.nanmean([counted.pq for counted in counts]))
            rows.append(
                {"model": model.card.name, "form": form, "pq_pooled": round(pooled.pq, 4), "pq_mean": round(mean, 4)}
            )
            print(rows[-1], flush=True)
    write_record(arguments.output, "fluorescence_stain", ["numpy"], rows, images=len(samples))


if __name__ == "__main__":
    main()
