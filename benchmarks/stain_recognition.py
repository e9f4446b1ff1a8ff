"""Wrong guesses of `--stain auto` on all real images at hand.

    python benchmarks/stain_recognition.py DATA [-o benchmarks/results/stain_recognition.json]

DATA is the folder with dsb2018/, nuinsseg_human/, tnbc/, consep_train/, slides/, ihc/ and original_layouts/ (those
that are absent are left out). The truth is what each set is, for DSB2018 its column `stain`: grey-fluo is
fluorescence, purple H&E-like color and gray bright-field count as H&E, for there is no other name for them. The H-DAB
images are ihc/ and the one of scikit-image. How near to the limits they come is given by the extremes of the shares
that decide.
"""

import csv
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import skimage.data
import tifffile
from PIL import Image

from hemalum.data.stain.normalization import sample_image
from hemalum.data.stain.recognition import recognize_stain
from record import RESULTS, figures_parser, write_record

DSB = {"grey-fluo": "fluorescence", "colour": "he", "grey-bright": "he"}


def read_pixels(path: Path) -> np.ndarray:
    image = tifffile.imread(path, key=0) if path.suffix in (".svs", ".tif") else np.asarray(Image.open(path))
    image = np.repeat(image[..., None], 3, axis=2) if image.ndim == 2 else image[..., :3]
    return np.ascontiguousarray(image)


def iterate_images(data: Path) -> Iterator[tuple[str, str, str, np.ndarray]]:
    """Set, true stain, name and pixels."""
    index = data / "dsb2018" / "index.csv"
    if index.is_file():
        with index.open() as stream:
            for row in csv.DictReader(stream):
                kind = row["stain"]
                yield f"dsb2018 {kind}", DSB[kind], row["image"], read_pixels(index.parent / "images" / row["image"])
    for name in ("nuinsseg_human", "tnbc", "consep_train"):
        for path in sorted((data / name / "images").glob("*")):
            yield name, "he", path.name, read_pixels(path)
    for path in sorted((data / "slides").glob("*.svs")):
        yield "slides", "he", path.name, read_pixels(path)
    for path in sorted((data / "original_layouts").rglob("*")):
        relative = path.relative_to(data / "original_layouts")
        if path.suffix not in (".png", ".tif") or "masks" in relative.parts:
            continue
        pixels = read_pixels(path)
        if pixels.dtype == np.uint8:
            gray = relative.parts[0] == "dsb2018" and bool((pixels[..., 0] == pixels[..., 1]).all())
            kind = "fluorescence" if gray else "he"
            name = f"original_layouts {relative.parts[0]}" + (" gray" if gray else "")
            yield name, kind, path.name, pixels
    for path in sorted((data / "ihc").glob("*.png")):
        yield "ihc", "hdab", path.name, read_pixels(path)
    yield "scikit-image", "hdab", "immunohistochemistry", skimage.data.immunohistochemistry()


def main() -> None:
    parser = figures_parser(__doc__, RESULTS / "stain_recognition.json")
    parser.add_argument("data", type=Path)
    arguments = parser.parse_args()
    sets: dict[str, dict[str, Any]] = {}
    wrong: list[dict[str, str]] = []
    for name, truth, file, pixels in iterate_images(arguments.data):
        guess = recognize_stain(sample_image(pixels))
        row = sets.setdefault(name, {"truth": truth, "images": 0, "guesses": Counter(), "brown": [], "pink": []})
        row["images"] += 1
        row["guesses"][guess.stain] += 1
        row["brown"].append(guess.brown)
        row["pink"].append(guess.pink)
        if guess.stain != truth:
            wrong.append({"set": name, "image": file, "truth": truth, "guess": guess.stain})
    rows = []
    for name, row in sets.items():
        brown, pink = row.pop("brown"), row.pop("pink")
        rows.append(
            {
                "set": name,
                **row,
                "brown": [round(min(brown), 4), round(max(brown), 4)],
                "least_pink": round(min(pink), 4),
            }
        )
        print(f"{name:36} {row['truth']:13} {row['images']:4} images, guessed {dict(row['guesses'])}")
    total = sum(row["images"] for row in rows)
    print(f"wrong: {len(wrong)} of {total}", *wrong, sep="\n")
    write_record(arguments.output, "stain_recognition", ["numpy"], {"images": total, "wrong": wrong, "sets": rows})


if __name__ == "__main__":
    main()
