"""What a network trained on H&E finds in H-DAB images, by the form in which they are shown to it.

    python benchmarks/ihc_stain.py --data data/tnbc --data data/nuinsseg_human [--roi ihc_roi.png] [--model accurate]
        [--images 6] [--pictures FOLDER] [-o benchmarks/results/ihc_stain.json]

Forms: the image as it is; DAB taken out with fixed stain vectors, and with the image's own; with shares of DAB shown
as hematoxylin; and what `--stain hdab` chooses between the last two.

Real images have no truth: of scikit-image's (membranous stain, 0.45 µm/px) and of --roi (a nuclear marker, taken as
0.25 µm/px) it counts nuclei, those that lie in brown (DAB of 0.2 or more in nucleus or ring), and gaps (hematoxylin
and DAB below 0.05), and --pictures keeps the outlines. Simulated ones have: validation images of H&E sets, with half
of the hematoxylin, no eosin to speak of, and DAB in 40 % or 95 % of the nuclei (which hides hematoxylin), along cell
borders, or in the cytoplasm, each of random strength. PQ is pooled over images. `nuclear` is the share of images
that are taken for a nuclear marker.
"""

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import skimage.data
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage

from hemalum.data.dataset import Dataset
from hemalum.data.stain.he_appearance import DAB, HEMATOXYLIN, HdabMap, HdabStains, find_hdab
from hemalum.data.stain.normalization import sample_image
from hemalum.data.stain.separation import STAINS, white_of
from hemalum.inference.segment import as_engine, segment
from hemalum.metrics import MatchCounts, match, measure_overlap
from hemalum.models.engines.engine import Engine
from hemalum.models.model import Model, load_model
from hemalum.nuclei.nuclei import Nuclei
from inputs import change_separation, choose_evenly
from record import RESULTS, figures_parser, write_record

PATTERNS = ("negative", "nuclear", "nearly all nuclei", "membranous", "cytoplasmic")
CHOSEN = "chosen by --stain hdab"
Pixels = NDArray[np.uint8]


def with_image_stains(share: float) -> Callable[[Pixels], Pixels]:
    return lambda image: HdabMap(find_hdab(sample_image(image)), share).apply(image)


def with_fixed_stains(image: Pixels) -> Pixels:
    white = white_of(sample_image(image))
    return HdabMap(HdabStains(HEMATOXYLIN, DAB, white, (), 1.0), 0.0).apply(image)


FORMS: dict[str, Callable[[Pixels], Pixels]] = {
    "as it is": lambda image: image,
    "DAB out, fixed stains": with_fixed_stains,
    "DAB out": with_image_stains(0.0),
    "0.35 of DAB": with_image_stains(0.35),
    "0.6 of DAB": with_image_stains(0.6),
    "1.0 of DAB": with_image_stains(1.0),
}


def simulate(image: Pixels, labels: NDArray[np.int32], mpp: float, pattern: str, seed: int) -> Pixels:
    """An H&E image as H-DAB. Lengths in µm: cells reach 3.5 from the nucleus; optical density is log10."""
    rng = np.random.default_rng(seed)
    white = white_of(image.reshape(-1, 3))
    density = -np.log10((image.astype(np.float64) + 1) / (white + 1))
    blue, pink, _ = np.moveaxis(np.maximum(density @ np.linalg.inv(STAINS), 0), -1, 0)
    blue = blue * min(1.0, 0.25 / max(float(np.percentile(blue, 99)), 0.05))
    count = int(labels.max()) + 1
    grain = 0.75 + 0.17 * ndimage.gaussian_filter(rng.standard_normal(labels.shape), 0.5 / mpp)
    brown = np.zeros(labels.shape)
    if pattern.startswith("n") and pattern != "negative":
        strength = np.where(
            rng.random(count) < (0.4 if pattern == "nuclear" else 0.95), rng.choice([0.25, 0.5, 0.9], count), 0.0
        )
        strength *= rng.uniform(0.8, 1.2, count)
        strength[0] = 0
        brown = ndimage.gaussian_filter(strength[labels], 0.25 / mpp) * grain + 0.02
        hidden = ndimage.gaussian_filter(np.minimum(strength, 1)[labels], 0.25 / mpp)
        blue = blue * (1 - 0.7 * hidden)
    elif pattern != "negative":
        distance, (row, column) = ndimage.distance_transform_edt(labels == 0, return_indices=True)
        nearest, distance = labels[row, column], distance * mpp
        stained = (rng.random(count) < 0.7)[nearest]
        cell = (distance < 3.5) & stained
        if pattern == "membranous":
            border = np.abs(distance - 3.5) < 0.4
            border[:-1] |= (nearest[:-1] != nearest[1:]) & (distance[:-1] < 4.5)
            border[:, :-1] |= (nearest[:, :-1] != nearest[:, 1:]) & (distance[:, :-1] < 4.5)
            brown = 1.8 * ndimage.gaussian_filter((border & stained).astype(float), 0.35 / mpp) + 0.12 * cell
        else:
            strength = rng.uniform(0.3, 0.8, count)[nearest]
            brown = ndimage.gaussian_filter(cell * np.where(labels > 0, 0.35, 1.0), 0.4 / mpp) * strength
        brown = brown * grain
    hematoxylin, dab = np.array([0.65, 0.68, 0.34]), np.array([0.27, 0.52, 0.81])
    mixed = np.outer(blue, hematoxylin / np.linalg.norm(hematoxylin)) + np.outer(0.06 * pink, STAINS[1])
    mixed += np.outer(brown, dab / np.linalg.norm(dab))
    values = 256 * 10 ** -mixed.reshape(image.shape) - 1 + rng.normal(0, 2, image.shape)
    return np.clip(np.rint(values), 0, 250).astype(np.uint8)


def segment_form(image: Pixels, form: str, model: Model, engine: Engine, mpp: float) -> Nuclei:
    if form == CHOSEN:
        return segment(image, model, mpp=mpp, stain="hdab", engine=engine)
    return segment(FORMS[form](image), model, mpp=mpp, stain="he", engine=engine)


def is_nuclear(nuclei: Nuclei) -> bool:
    return "nuclear marker" in nuclei.notes.get("network_input", "")


def main() -> None:
    parser = figures_parser(__doc__, RESULTS / "ihc_stain.json")
    parser.add_argument("--data", action="append", type=Path, default=[])
    parser.add_argument("--roi", type=Path, help="region of a nuclear marker")
    parser.add_argument("--model", action="append", default=[])
    parser.add_argument("--images", type=int, default=6, help="of each set, spread evenly over its validation part")
    parser.add_argument("--pictures", type=Path)
    arguments = parser.parse_args()
    logging.getLogger("hemalum").setLevel(logging.ERROR)  # that a stain is set on purpose
    real = {"scikit-image": (skimage.data.immunohistochemistry(), 0.45)}
    if arguments.roi:
        real[arguments.roi.stem] = (np.asarray(Image.open(arguments.roi).convert("RGB")), 0.25)
    samples = []
    for path in arguments.data:
        part = Dataset.open(path).split("val")
        samples += [part[int(i)] for i in choose_evenly(len(part), arguments.images)]
    rows: list[dict[str, Any]] = []
    for name in arguments.model or ["accurate", "fast"]:
        model = load_model(name)
        # a filter for H&E alone, which would drop what is brown or bright
        model = change_separation(model, min_hematoxylin=0.0)
        engine = as_engine("auto", model)
        for form in (*FORMS, CHOSEN):
            row: dict[str, Any] = {"model": model.card.name, "form": form, "real": {}, "pq": {}, "nuclear": {}}
            for title, (image, mpp) in real.items():
                nuclei = segment_form(image, form, model, engine, mpp)
                # what the network was shown must not be what is measured
                measured = Nuclei.from_labels(nuclei.label_map(), image, mpp=mpp).with_dab(image).table
                inside, around, blue = (
                    measured.column(key).to_numpy() for key in ("dab_mean", "dab_ring_mean", "hematoxylin_mean")
                )
                row["real"][title] = {
                    "nuclei": nuclei.count,
                    "in_brown": int((np.fmax(inside, around) >= 0.2).sum()),
                    "gaps": int(((blue < 0.05) & (inside < 0.05)).sum()),
                }
                if form == CHOSEN:
                    row["nuclear"][title] = is_nuclear(nuclei)
                if arguments.pictures:
                    arguments.pictures.mkdir(parents=True, exist_ok=True)
                    nuclei.to_overlay(arguments.pictures / f"{model.card.name}_{title}_{form}.png", image)
            for pattern in PATTERNS if samples else ():
                total: MatchCounts | None = None
                nuclear = 0
                for seed, sample in enumerate(samples):
                    image = simulate(sample.image, sample.instances, sample.mpp, pattern, seed)
                    nuclei = segment_form(image, form, model, engine, sample.mpp)
                    nuclear += is_nuclear(nuclei)
                    counts = match(measure_overlap(sample.instances, nuclei.label_map()))
                    total = counts if total is None else total + counts
                row["pq"][pattern] = round(total.pq, 4) if total is not None else None
                if form == CHOSEN:
                    row["nuclear"][pattern] = f"{nuclear} of {len(samples)}"
            rows.append(row)
            print(row["model"], form, row["real"], row["pq"], row["nuclear"], flush=True)
    write_record(arguments.output, "ihc_stain", ["numpy", "scipy", "scikit-image"], rows, images=len(samples))


if __name__ == "__main__":
    main()
