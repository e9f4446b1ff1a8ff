"""Whether two checkouts find the same nuclei: label maps and tables to the last bit, outlines to .01 px.

    python benchmarks/same_nuclei.py OLD_CHECKOUT --model accurate --model fast IMAGE… [--mpp 0.25]

Runs `hemalum segment` of this checkout and of the old one on the same images, and the demo, and compares what they
write; the version, the command and the times may differ. Ends with 1 when a nucleus does.
"""

import csv
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from hemalum.data.label_pixels import read_label_map
from record import ROOT, argument_parser


def run_program(checkout: Path, *arguments: str) -> None:
    """Run the program of a checkout; its messages are shown only when it fails."""
    command = [sys.executable, "-m", "hemalum", *arguments]
    environment = os.environ | {"PYTHONPATH": str(checkout / "src")}
    completed = subprocess.run(command, env=environment, capture_output=True, text=True, cwd=checkout)
    if completed.returncode:
        sys.exit(f"{checkout}: {' '.join(command)}\n{completed.stderr}")


def read_nuclei(path: Path) -> Any:
    """What a result file says of its nuclei."""
    if path.suffix == ".tif":
        return read_label_map(path).tolist()
    if path.suffix == ".csv":
        with path.open(newline="", encoding="utf-8") as file:
            return list(csv.reader(file))
    features = json.loads(path.read_text(encoding="utf-8"))["features"]
    return [(feature["geometry"], feature["properties"]) for feature in features]


def are_close(old: Any, new: Any) -> bool:
    """Whether features are the same: coordinates to half of .01 px, all that 0.1 wrote, figures to five digits."""
    return len(old) == len(new) and all(
        is_close(ring, other_ring, 0.006) and is_close(figures, other_figures, 1e-6)
        for (ring, figures), (other_ring, other_figures) in zip(old, new, strict=True)
    )


def is_close(old: Any, new: Any, tolerance: float) -> bool:
    """Whether two contents are equal but for numbers, which may differ by `tolerance` and one part in 100,000."""
    if isinstance(old, dict) and isinstance(new, dict):
        return old.keys() == new.keys() and all(is_close(old[key], new[key], tolerance) for key in old)
    if isinstance(old, list | tuple) and isinstance(new, list | tuple):
        return len(old) == len(new) and all(
            is_close(one, other, tolerance) for one, other in zip(old, new, strict=True)
        )
    if isinstance(old, int | float) and isinstance(new, int | float):
        return abs(old - new) <= tolerance + 1e-5 * abs(old)
    return bool(old == new)


def main() -> int:
    parser = argument_parser(__doc__)
    parser.add_argument("old", type=Path, help="checkout of the version to compare with")
    parser.add_argument("images", nargs="+", type=Path)
    parser.add_argument("--model", action="append", required=True)
    parser.add_argument("--mpp", default="auto")
    arguments = parser.parse_args()
    images = [str(path.resolve()) for path in arguments.images]
    differing = 0
    with tempfile.TemporaryDirectory() as folder:
        outputs = {"old": Path(folder) / "old", "new": Path(folder) / "new"}
        for name, checkout in (("old", arguments.old.resolve()), ("new", ROOT)):
            run_program(checkout, "demo", "-o", str(outputs[name] / "demo"))
            for model in arguments.model:
                options = ["-m", model, "--mpp", arguments.mpp, "-f", "geojson,csv,labels"]
                run_program(checkout, "segment", *images, *options, "-o", str(outputs[name] / model))
        files = sorted(path for path in outputs["old"].rglob("*") if path.suffix in (".tif", ".csv", ".geojson"))
        for path in files:
            relative = path.relative_to(outputs["old"])
            old, new = read_nuclei(path), read_nuclei(outputs["new"] / relative)
            is_same = are_close(old, new) if path.suffix == ".geojson" else old == new
            differing += not is_same
            count = int(np.max(old)) if path.suffix == ".tif" else len(old) - (path.suffix == ".csv")
            print(f"{'same' if is_same else 'DIFFERENT':10} {count:6} nuclei  {relative}")
    print(f"{len(files)} files, {differing} different")
    return int(differing > 0)


if __name__ == "__main__":
    sys.exit(main())
