"""Sources of a review: two small images of four nuclei each, and a slide with its store."""

from pathlib import Path

import numpy as np
from PIL import Image

from builders.reviews import image_of
from builders.stores import make_store, small_run
from hemalum.models import load_model
from hemalum.slides import open_slide

NAMES = ("kidney_1.png", "kidney_2.png")
SLIDE = "slide"  # slide.png, and slide.nuclei
SHAPE = (60, 80)
DISCS = ((15, 12, 7), (15, 28, 7), (15, 44, 7), (44, 60, 9))  # y, x, radius
MPP = 0.5  # of the images: the scale of the model "dark"


def save_images(folder: Path) -> Path:
    """Two images of four dark discs, numbered as in `DISCS`; gives the folder."""
    folder.mkdir(parents=True)
    rows, columns = np.mgrid[: SHAPE[0], : SHAPE[1]] + 0.5
    labels = np.zeros(SHAPE, np.int32)
    for number, (y, x, radius) in enumerate(DISCS, 1):
        labels[(rows - y) ** 2 + (columns - x) ** 2 <= radius**2] = number
    for name in NAMES:
        Image.fromarray(image_of(labels)).save(folder / name)
    return folder


def save_slide(folder: Path, model: Path) -> Path:
    """A picture of 720 x 480 px at 0.25 µm per px, whose pixels say where they are, and 600 nuclei of its own."""
    folder.mkdir(parents=True)
    rows, columns = np.mgrid[:480, :720]
    pixels = np.stack([rows % 256, columns % 256, (rows + columns) % 256], axis=2).astype(np.uint8)
    path = folder / f"{SLIDE}.png"
    Image.fromarray(pixels).save(path)
    with open_slide(path) as slide:
        fingerprint = slide.fingerprint
    digest = load_model(model).digest
    run = small_run(fingerprint=fingerprint, source=path.name, model="dark", model_digest=digest)
    make_store(folder / f"{SLIDE}.nuclei", run)
    return folder
