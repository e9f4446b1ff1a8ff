"""Fields of held-out images before and after, as pictures to look at, and what can be counted on them.

    git show ea6866d:src/hemalum/models/weights/accurate.safetensors > before.safetensors
    python benchmarks/fields.py --before before.safetensors --data data/nuinsseg_human --data data/tnbc
        --data data/consep --data data/dsb2018 --best-worst --ihc --slide CMU-1-Small-Region.svs --docs docs/images

Six fields of 64 µm of the test part of each set, of dsb2018 of its purple images: the images are spread over organs
and patients by the rule of `hemalum check --preview`, those with fewer than ten nuclei left out; the field is the
middle of the image or, where fewer than ten nuclei are there, the first of eight places around it that has them.
A set of fewer than six images gives two fields of some. Whole images are segmented, and the field is cut out of
the result. PQ, detections without hematoxylin and outlines with spurs are counted in the fields.

--slide counts on a whole image, and draws the places where the model before found most that has no hematoxylin.
--ihc takes six squares each of scikit-image's immunohistochemistry image and of one more (--also): the model before
sees them as they are, that of today as H-DAB. Sheets of everything go to -o, small ones for the documentation to
--docs. Those hold no pixel of --also, whose license is not known.
"""

import argparse
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage
from skimage.data import immunohistochemistry
from skimage.measure import regionprops
from skimage.morphology import disk

from hemalum.data.dataset import Dataset
from hemalum.data.sample import Sample
from hemalum.demo import POSITIVE
from hemalum.inference.segment import segment
from hemalum.metrics import match, measure_overlap
from hemalum.models.model import Model, load_model
from hemalum.nuclei.io.colors import INTENSITIES, Classes, Color
from hemalum.nuclei.io.overlay import COLOR, draw_outlines
from hemalum.nuclei.nuclei import Nuclei
from hemalum.reports.figures.contact_sheet import Panel, Row, Sheet, draw_sheet
from hemalum.reports.figures.preview import choose_samples
from inputs import resize_labels
from record import RESULTS, ROOT, argument_parser, write_record
from transfer import UNSTAINED, is_left_out

EACH = 6  # fields of a set
FIELD_UM = 64.0
LEAST_NUCLEI = 10  # of an image: PQ of a handful of nuclei says nothing
# where a field lies in its image: the middle, then sides and corners
POSITIONS = ((0.5, 0.5), (0, 0.5), (0.5, 0), (1, 0.5), (0.5, 1), (0, 0), (0, 1), (1, 0), (1, 1))
SPUR_UM = 0.5  # half the width of a spur at most
SHEET, DOCS = 320, 224  # px: side of a picture on a sheet to look at, and in the documentation
IHC_MPP = 0.45  # of scikit-image's image, by the size of its nuclei
BEFORE, TODAY = "accurate, before", ("accurate", "fast")
PALE = (255, 40, 40)
CITED = (
    "Images: NuInsSeg, Mahbod et al. 2024, doi:10.1038/s41597-024-03117-2 (CC BY 4.0); TNBC, Naylor et al. 2019, "
    "doi:10.1109/TMI.2018.2865709 (CC BY 4.0); CoNSeP, Graham et al. 2019, doi:10.1016/j.media.2019.101563 "
    "(Apache-2.0 as stated by InstanSeg's model cards); 2018 Data Science Bowl, Caicedo et al. 2019, "
    "doi:10.1038/s41592-019-0612-7 (CC0)."
)
CITED_IHC = (
    "Image: skimage.data.immunohistochemistry, colon, FHL2 by DAB, Center for Microscopy And Molecular Imaging "
    "(no known copyright restrictions); 0.45 µm/px by the size of its nuclei."
)


@dataclass(slots=True, eq=False)
class Field:
    """A square of an image (n, n, 3) uint8 with its truth (n, n), and by model the labels and figures."""

    name: str
    lines: list[str]
    image: NDArray[np.uint8]
    mpp: float
    window: tuple[slice, slice]
    truth: NDArray[np.int32]
    labels: dict[str, NDArray[np.uint32]] = field(default_factory=dict)
    results: dict[str, dict[str, Any]] = field(default_factory=dict)


def choose_fields(dataset: Dataset) -> Iterator[tuple[Any, list[Field]]]:
    """Samples of a set with the fields that are cut from each."""
    rows = [row for row in dataset.rows if row.split == "test" and is_left_out(row) and row.nuclei >= LEAST_NUCLEI]
    chosen = choose_samples(rows, seed=0, count=EACH)
    for number, row in enumerate(chosen):
        (sample,) = replace(dataset, rows=(row,))
        about = row.organ or ("" if row.group == row.id else f"group {row.group}")
        lines = [line for line in (dataset.info.name, row.id, about, f"{sample.mpp:.3g} µm/px") if line]
        fields = []
        for window in choose_windows(sample)[: len(range(number, EACH, len(chosen)))]:
            name = f"{row.id} y {window[0].start} x {window[1].start}"
            fields.append(
                Field(name, lines, sample.image[window], sample.mpp or 1.0, window, sample.instances[window])
            )
        yield sample, fields


def choose_windows(sample: Sample) -> list[tuple[slice, slice]]:
    """Windows of an image: those with enough nuclei in the order of POSITIONS, then the others by their nuclei."""
    side = min(round(FIELD_UM / (sample.mpp or 1)), *sample.image.shape[:2])
    windows = []
    for position in POSITIONS:
        top, left = (round(p * (n - side)) for p, n in zip(position, sample.image.shape[:2], strict=True))
        windows.append((slice(top, top + side), slice(left, left + side)))
    return sorted(windows, key=lambda window: -min(LEAST_NUCLEI, count_nuclei(sample.instances[window])))


def count_nuclei(labels: NDArray[Any]) -> int:
    return len(np.unique(labels[labels > 0]))


def count_spurs(labels: NDArray[Any], mpp: float) -> int:
    """Nuclei with a part thinner than 1 µm that reaches more than 1 µm beyond what is thicker."""
    brush = disk(max(1, round(SPUR_UM / mpp)))
    margin = brush.shape[0]
    spurs = 0
    for region in regionprops(labels.astype(np.int32)):
        mask = np.pad(region.image, margin)
        thick = ndimage.binary_opening(mask, brush)
        if thick.any():
            beyond = ndimage.distance_transform_edt(~thick)[mask].max() * mpp
            spurs += int(beyond > 2 * SPUR_UM)
    return spurs


def score_square(square: Field, name: str, nuclei: Nuclei, labels: NDArray[np.uint32]) -> None:
    """Keep the nuclei of a model in a field, and its figures."""
    inside = labels[square.window]
    ids = np.unique(inside)[1:] if (inside == 0).any() else np.unique(inside)
    density = nuclei.table.column("hematoxylin_mean").to_numpy()[ids.astype(int) - 1]
    counts = match(measure_overlap(square.truth, inside.astype(np.int32)))
    square.labels[name] = inside
    square.results[name] = {
        "pq": counts.pq, "dq": counts.dq, "sq": counts.sq, "nuclei": len(ids),
        "unstained": int((density < UNSTAINED).sum()), "spurs": count_spurs(inside, square.mpp),
        "stain": nuclei.notes["stain"],
    }  # fmt: skip


def draw_square(image: NDArray[np.uint8], labels: NDArray[Any] | None, size: int, **colors: Any) -> NDArray[np.uint8]:
    """A square of an image at a size, with outlines where there are labels."""
    drawn = np.asarray(Image.fromarray(image).resize((size, size), Image.Resampling.LANCZOS))
    if labels is None:
        return drawn
    return draw_outlines(drawn, resize_labels(labels, (size, size)).astype(np.uint32), **colors)


def draw_row(square: Field, names: Sequence[str], size: int) -> Row:
    bar = (10 / square.mpp * size / square.image.shape[0], "10 µm")
    panels = [
        Panel(draw_square(square.image, None, size), bar=bar),
        Panel(draw_square(square.image, square.truth, size), note=nuclei_text(count_nuclei(square.truth))),
    ]
    for name in names:
        note = f"PQ {square.results[name]['pq']:.2f}, {nuclei_text(square.results[name]['nuclei'])}"
        panels.append(Panel(draw_square(square.image, square.labels[name], size), note=note))
    return Row(square.lines, panels)


def nuclei_text(nuclei: int) -> str:
    return f"{nuclei} nucleus" if nuclei == 1 else f"{nuclei} nuclei"


def draw_fields(
    path: Path,
    title: str,
    fields: Sequence[Field],
    names: Sequence[str],
    dates: dict[str, str],
    size: int,
    max_bytes: int | None = None,
) -> None:
    sheet = Sheet(
        title=title,
        subtitle="held-out images, fields of 64 µm (smaller where the image is); nothing chosen by hand",
        columns=[("image", ""), ("annotation", ""), *((name, dates[name]) for name in names)],
        rows=[draw_row(square, names, size) for square in fields],
        legend=[(COLOR, "nucleus")],
        footnotes=[CITED],
    )
    save_sheet(path, sheet, max_bytes)


def save_sheet(path: Path, sheet: Sheet, max_bytes: int | None = None) -> None:
    """Write a sheet as JPEG, with `most` bytes at the best quality that keeps to it."""
    picture = draw_sheet(sheet)
    for quality in (85, 80, 75, 70, 65, 60, 55, 50):
        buffer = BytesIO()
        picture.save(buffer, format="JPEG", quality=quality, subsampling=0, optimize=True)
        if max_bytes is None or buffer.tell() <= max_bytes:
            break
    path.write_bytes(buffer.getvalue())
    print(f"{path}  {buffer.tell() / 1000:.0f} kB, quality {quality}", flush=True)


def summarize(fields: Sequence[Field], names: Sequence[str]) -> dict[str, Any]:
    """Means and sums over fields, by model."""
    summary = {}
    for name in names:
        results = [square.results[name] for square in fields]
        nuclei = sum(result["nuclei"] for result in results)
        summary[name] = {
            "pq": float(np.nanmean([result["pq"] for result in results])),
            "nuclei": nuclei,
            "unstained": sum(result["unstained"] for result in results),
            "spurs": sum(result["spurs"] for result in results),
            "fields_not_taken_for_he": sum(result["stain"] != "he" for result in results),
        }
        print(name, summary[name], flush=True)
    return summary


def run_fields(arguments: argparse.Namespace, models: dict[str, Model], dates: dict[str, str]) -> dict[str, Any]:
    chosen = [pair for path in arguments.data for pair in choose_fields(Dataset.open(path))]
    fields = [square for _, squares in chosen for square in squares]
    for name, model in models.items():
        for sample, squares in chosen:
            nuclei = segment(sample.image, model, mpp=sample.mpp, stain=stain_for(name))
            labels = nuclei.label_map()
            for square in squares:
                score_square(square, name, nuclei, labels)
    names = [BEFORE, "accurate"]
    sets: dict[str, list[Field]] = {}
    for square in fields:
        sets.setdefault(square.lines[0], []).append(square)
    for key, part in sets.items():
        draw_fields(arguments.output / f"fields_{key}.jpg", key, part, names, dates, SHEET)
    if arguments.docs:
        shown = [square for part in sets.values() for square in part[::3]]
        title = "Before and after: the first and fourth field of each set"
        draw_fields(arguments.docs / "fields_before_after.jpg", title, shown, names, dates, DOCS, 600_000)
    if arguments.best_worst:
        for name in TODAY:
            ranked = sorted(fields, key=lambda square: -square.results[name]["pq"])
            path = (arguments.docs or arguments.output) / f"models_{name}.jpg"
            title = f"{name}: the two best and the two worst of {len(fields)} fields"
            draw_fields(path, title, ranked[:2] + ranked[-2:], [name], dates, 256, 250_000)
    return {
        "all": summarize(fields, list(models)),
        "sets": {key: summarize(part, list(models)) for key, part in sets.items()},
        "annotation": {
            "nuclei": sum(count_nuclei(square.truth) for square in fields),
            "spurs": sum(count_spurs(square.truth, square.mpp) for square in fields),
        },
        "each": [{"set": square.lines[0], "name": square.name, "models": square.results} for square in fields],
    }


def stain_for(name: str) -> str:
    """The model before knew one stain; those of today recognize it."""
    return "he" if name == BEFORE else "auto"


def run_slide(arguments: argparse.Namespace, models: dict[str, Model], dates: dict[str, str]) -> dict[str, Any]:
    """Count on a whole image, and draw where the model before found most that has no hematoxylin."""
    image = np.ascontiguousarray(tifffile.imread(arguments.slide, key=0)[..., :3])
    mpp = arguments.slide_mpp
    results = {name: segment(image, models[name], mpp=mpp, stain=stain_for(name)) for name in (BEFORE, "accurate")}
    counts, pale = {}, {}
    for name, nuclei in results.items():
        pale[name] = nuclei.table.column("hematoxylin_mean").to_numpy() < UNSTAINED
        counts[name] = {"nuclei": nuclei.count, "unstained": int(pale[name].sum())}
        print(f"{arguments.slide.name}: {name} {counts[name]}", flush=True)
    side = round(2 * FIELD_UM / mpp)
    y, x = (results[BEFORE].table.column(key).to_numpy()[pale[BEFORE]] for key in ("y", "x"))
    grid = [n // side for n in image.shape[:2]]
    sums = np.histogram2d(y, x, bins=grid, range=[(0, n * side) for n in grid])[0]
    labels = {name: nuclei.label_map() for name, nuclei in results.items()}
    rows = []
    for position in np.argsort(-sums.ravel(), kind="stable")[:EACH]:
        top, left = (int(n) * side for n in divmod(int(position), grid[1]))
        window = slice(top, top + side), slice(left, left + side)
        panels = [Panel(draw_square(image[window], None, SHEET))]
        for name in results:
            inside = labels[name][window]
            ids = np.unique(inside[inside > 0]).astype(int) - 1
            colors = Classes(pale[name].astype(np.int32) + 1, ("stained", "unstained"), (COLOR, PALE))
            note = f"{int(pale[name][ids].sum())} of {len(ids)} without hematoxylin"
            panels.append(Panel(draw_square(image[window], inside, SHEET, classes=colors), note=note))
        rows.append(Row([f"y {top}, x {left}"], panels))
    legend: list[tuple[Color, str]] = [(COLOR, "nucleus"), (PALE, f"hematoxylin below {UNSTAINED}")]
    columns = [("image", ""), *((name, dates[name]) for name in results)]
    save_sheet(
        arguments.output / "slide.jpg", Sheet(arguments.slide.name, "squares of 128 µm", columns, rows, legend, [])
    )
    # of those without hematoxylin, what a rule took off and not the network
    counts["accurate"]["left_out_by_rule"] = int(results["accurate"].notes.get("left_out_without_hematoxylin", 0))
    return {"image": arguments.slide.name, "mpp": mpp, "models": counts}


def run_ihc(arguments: argparse.Namespace, models: dict[str, Model], dates: dict[str, str]) -> dict[str, Any]:
    """Draw squares of brown images; the counts are of the whole images."""
    images = {"brown": (immunohistochemistry(), IHC_MPP)}
    if arguments.also:
        images["brown_also"] = (np.asarray(Image.open(arguments.also).convert("RGB")), arguments.also_mpp)
    counts = {}
    for name, (image, mpp) in images.items():
        before = segment(image, models[BEFORE], mpp=mpp, stain="he")
        today = segment(image, models["accurate"], mpp=mpp, stain="hdab", positive=POSITIVE)
        grades = today.intensities
        counts[name] = {
            "mpp": mpp,
            BEFORE: before.count,
            "accurate": today.count,
            **(grades.counts if grades else {}),
        }
        print(f"{name}: {counts[name]}", flush=True)
        old, new = before.label_map(), today.label_map()
        docs = arguments.docs if name == "brown" else None
        side, size = min(image.shape[0] // 2, image.shape[1] // 3), 256 if docs else SHEET
        rows = []
        for number in range(EACH):
            top = (2 * (number // 3) + 1) * image.shape[0] // 4 - side // 2
            left = (2 * (number % 3) + 1) * image.shape[1] // 6 - side // 2
            window = slice(top, top + side), slice(left, left + side)
            panels = [
                Panel(draw_square(image[window], None, size), bar=(20 / mpp * size / side, "20 µm")),
                Panel(draw_square(image[window], old[window], size), note=nuclei_text(count_nuclei(old[window]))),
                Panel(
                    draw_square(image[window], new[window], size, classes=grades),
                    note=nuclei_text(count_nuclei(new[window])),
                ),
            ]
            rows.append(Row([f"square {number + 1}"], panels))
        columns = [
            ("image", ""),
            (BEFORE, f"{dates[BEFORE]}, no stain set"),
            ("accurate", f"hdab, positive from {POSITIVE}"),
        ]
        legend = [(COLOR, "nucleus"), *((INTENSITIES[key], key.lower()) for key in ("Negative", "Positive"))]
        notes = [CITED_IHC] if name == "brown" else []
        sheet = Sheet("H-DAB, before and after", f"squares of {side * mpp:.0f} µm", columns, rows, legend, notes)
        if docs:
            save_sheet(docs / "brown_before_after.jpg", sheet, 400_000)
        else:
            save_sheet(arguments.output / f"{name}.jpg", sheet)
    return counts


def main() -> None:
    parser = argument_parser(__doc__)
    parser.add_argument("--before", type=Path, required=True, help="model file of the accurate model before")
    parser.add_argument("--data", action="append", type=Path, required=True)
    parser.add_argument("--best-worst", action="store_true", help="draw the best and worst fields of each model")
    parser.add_argument("--slide", type=Path, help="count on the first page of this TIFF as well")
    parser.add_argument("--slide-mpp", type=float, default=0.499)
    parser.add_argument("--ihc", action="store_true", help="draw brown squares as well")
    parser.add_argument("--also", type=Path, help="one more brown image, for the sheets in -o only")
    parser.add_argument("--also-mpp", type=float, default=0.25)
    parser.add_argument("--docs", type=Path, help="folder for the small pictures of the documentation")
    parser.add_argument("-o", "--output", type=Path, default=ROOT / "out/fields")
    parser.add_argument("--record", type=Path, default=RESULTS / "fields.json")
    arguments = parser.parse_args()
    arguments.output.mkdir(parents=True, exist_ok=True)
    models = {BEFORE: load_model(arguments.before)} | {name: load_model(name) for name in TODAY}
    dates = {
        name: f"trained {model.card.training.date}" if model.card.training else "" for name, model in models.items()
    }
    results: dict[str, Any] = {"models": {name: model.digest for name, model in models.items()}}
    results["fields"] = run_fields(arguments, models, dates)
    if arguments.slide:
        results["slide"] = run_slide(arguments, models, dates)
    if arguments.ihc:
        results["ihc"] = run_ihc(arguments, models, dates)
    write_record(arguments.record, "fields", ["numpy", "torch"], results)


if __name__ == "__main__":
    main()
