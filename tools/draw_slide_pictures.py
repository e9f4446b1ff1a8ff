"""The pictures of docs/how-to/slide-pictures.md: density and contact sheet of a slide.

    hemalum segment CMU-1-Small-Region.svs -m typed -o OUT
    python tools/draw_slide_pictures.py OUT/CMU-1-Small-Region.nuclei --slide CMU-1-Small-Region.svs

The slide is OpenSlide's test data (Carnegie Mellon University, CC0).
"""

import argparse
from pathlib import Path

from PIL import Image

from hemalum.nuclei.store import measure_maps, open_store
from hemalum.reports.slides import choose_fields, draw_contact_sheet, draw_map
from hemalum.reports.slides.fields import find_pale
from hemalum.slides import find_tissue, open_slide

ROOT = Path(__file__).resolve().parents[1]
WIDTH = 800  # px of the contact sheet


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("store", type=Path)
    parser.add_argument("--slide", type=Path, required=True)
    parser.add_argument("-o", "--output", type=Path, default=ROOT / "docs" / "images")
    arguments = parser.parse_args()
    store = open_store(arguments.store)
    with open_slide(arguments.slide, mpp=store.run.mpp) as slide:
        tissue = find_tissue(slide)
        maps = measure_maps(store, tissue=tissue.mask)
        draw_map(maps, "density").save(arguments.output / "slide-density.png", optimize=True)
        fields = choose_fields(maps, slide.shape, pale=find_pale(slide, tissue.mask.shape), each=2)
        sheet = draw_contact_sheet(store, slide, fields)
    sheet.thumbnail((WIDTH, 2 * WIDTH), Image.Resampling.LANCZOS)
    sheet.save(arguments.output / "slide-contact-sheet.jpg", quality=78, optimize=True)


if __name__ == "__main__":
    main()
