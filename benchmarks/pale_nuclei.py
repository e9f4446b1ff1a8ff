"""How pale annotated nuclei are: how many have a mean optical density of hematoxylin below some limits.

    python benchmarks/pale_nuclei.py data/tnbc data/nuinsseg_human data/dsb2018 data/consep [-o pale_nuclei.json]

All parts; of dsb2018 the purple images. What a card's `min_hematoxylin` would lose of the truth.
"""

from pathlib import Path

import numpy as np

from hemalum.data.dataset import Dataset
from record import figures_parser, write_record
from transfer import is_left_out, mean_hematoxylin

LIMITS = (0.05, 0.06, 0.08, 0.1)  # log10


def main() -> None:
    parser = figures_parser(__doc__, Path("pale_nuclei.json"))
    parser.add_argument("datasets", type=Path, nargs="+")
    arguments = parser.parse_args()
    results = {}
    for path in arguments.datasets:
        dataset = Dataset.open(path)
        means = []
        for index, row in enumerate(dataset.rows):
            if not is_left_out(row):
                continue
            sample = dataset[index]
            means.append(mean_hematoxylin(sample.image, sample.instances))
        density = np.concatenate(means)
        results[dataset.info.name] = {"nuclei": len(density)} | {
            f"below {limit}": int((density < limit).sum()) for limit in LIMITS
        }
        print(dataset.info.name, results[dataset.info.name], flush=True)
    total = {key: sum(row[key] for row in results.values()) for key in next(iter(results.values()))}
    print("all", total)
    write_record(arguments.output, "pale_nuclei", ["numpy"], results | {"all": total})


if __name__ == "__main__":
    main()
