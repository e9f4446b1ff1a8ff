"""The picture of docs/how-to/ihc-scoring.md: an H-DAB image, what the network is shown of it, and the graded nuclei.

    python tools/draw_ihc_scoring.py [MODEL] [-o docs/images/ihc-scoring.png]

The image is scikit-image's (`skimage.data.immunohistochemistry`, no known copyright), taken as 0.45 µm per pixel.
"""

import argparse
from pathlib import Path

import numpy as np
import skimage.data
from PIL import Image

from hemalum.inference.segment import segment
from hemalum.inference.staining import find_staining
from hemalum.models.model import load_model
from hemalum.nuclei.io.overlay import draw_legend, draw_outlines
from hemalum.slides.slide import Slide

ROOT = Path(__file__).resolve().parents[1]
MPP, POSITIVE = 0.45, (0.2, 0.4, 0.6)
TOP, LEFT, SIDE = 60, 210, 250  # px: the part of the image that is shown
LARGER, GAP = 2, 8  # by how much it is enlarged, and px between panels


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", nargs="?", default="accurate")
    parser.add_argument("-o", "--output", type=Path, default=ROOT / "docs" / "images" / "ihc-scoring.png")
    arguments = parser.parse_args()
    image = skimage.data.immunohistochemistry()
    model = load_model(arguments.model)
    nuclei = segment(image, model, mpp=MPP, positive=POSITIVE)
    change = find_staining(Slide.of(image), model, "hdab").change
    shown = image if change is None else change.apply(image)
    labels = nuclei.label_map()
    panels = []
    for pixels in (image, shown):
        cut = Image.fromarray(pixels[TOP : TOP + SIDE, LEFT : LEFT + SIDE])
        panels.append(np.asarray(cut.resize((LARGER * SIDE, LARGER * SIDE), Image.Resampling.LANCZOS)))
    lines = labels[TOP : TOP + SIDE, LEFT : LEFT + SIDE].repeat(LARGER, axis=0).repeat(LARGER, axis=1)
    drawn = draw_outlines(panels[0], lines, classes=nuclei.intensities)
    for axis in (0, 1):  # lines two pixels wide
        moved, line = np.roll(drawn, 1, axis), np.roll((drawn != panels[0]).any(axis=2), 1, axis)
        drawn[line] = moved[line]
    gap = np.full((LARGER * SIDE, GAP, 3), 255, np.uint8)
    row = np.concatenate([panels[0], gap, panels[1], gap, drawn], axis=1)
    picture = np.concatenate([row, draw_legend(row.shape[1], nuclei.intensities)])
    Image.fromarray(picture).save(arguments.output, optimize=True)
    score = nuclei.ihc_score()
    print(f"{nuclei.count} nuclei, {score.counts}, H-score {score.h_score:.0f}, Allred {score.allred}")


if __name__ == "__main__":
    main()
