"""How nearly a model finds the same nuclei in an image that has changed as good as nothing, and why not.

    python benchmarks/stability.py data/tnbc data/consep data/nuinsseg_human data/pannuke data/monuseg
        --model accurate --model fast --brief typed --shifts 4 --causes
        [--fields 3] [-o benchmarks/results/stability.json]
    python benchmarks/stability.py data/tnbc data/consep data/monuseg --model accurate --model fast
        --control -o benchmarks/results/stability_control.json

PQ of a model against itself, pooled over the fields of a set: the field cut out 1 px further in each direction, once
more to the right with no scale stated, saved as JPEG of quality 90, continued by reflection, and by white. Nuclei
count when one of the pair lies more than `--margin` µm within the area that both have; what a border cuts is not
compared. `truth` is PQ against the labels.
`stride` is the field at the model's scale, moved by as many px as one of the network's deepest level has: all that
differs then are the borders of image and tiles. The control is the same move of a network in float that sees a field
of up to `CONTROL_SIDE` px as one tile; nuclei count that lie `CONTROL` px within it. It is near 1, and would be 1 if
the network saw no further; how many pairs it rests on is printed beside it.

The causes are told at the model's scale, one stage exchanged at a time: the network moved by 1, 2, 4 and 8 px of its
grid; one of the two maps alone; the network in float; maps averaged over the 16 positions of blocks of 4 px, and then
the image moved by 1 px, of which resampling and deeper levels are left. Nuclei without a partner are counted by
kind: nothing is found there (and the mean probability is within .05 of the threshold, or not), or it is cut, joined
or outlined otherwise. Fields lie in the middle of the validation images, of all where there are none.
"""

import argparse
import io
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from hemalum.data.dataset import Dataset
from hemalum.inference.plan import representation_of
from hemalum.inference.segment import as_engine, segment
from hemalum.metrics import measure_overlap
from hemalum.models.engines.engine import Engine, make_engine
from hemalum.models.model import Model, load_model
from hemalum.nuclei.nuclei import measure
from hemalum.nuclei.polygons import fill
from hemalum.nuclei.refining import refine
from hemalum.nuclei.separation import flood
from hemalum.slides.resample import Resampler
from inputs import choose_evenly
from record import RESULTS, figures_parser, write_record

Pixels = NDArray[np.uint8]
Labels = NDArray[np.int32]
Maps = tuple[NDArray[np.float32], NDArray[np.float32]]  # foreground, peaks
Area = tuple[slice, slice]
Find = Callable[[Pixels, float | None], Labels]

MOVES = {"up": (-1, 0), "down": (1, 0), "left": (0, -1), "right": (0, 1)}
PAD = 13  # px around: neither a multiple of a stride nor of the ratio of two scales
LEAST_NUCLEI = 10  # of an image, by its labels
NEAR = 0.05  # of the threshold on a nucleus's mean probability
FOUND = 0.2  # share of a nucleus that something covers
BLOCK = 4  # px
CONTROL, CONTROL_SIDE = 80, 1000  # px at the model's scale, and of the image


class Counts:
    """Pairs with an IoU above 0.5, their summed IoU, and what has no partner; they add up over fields."""

    def __init__(self, first: Labels, second: Labels, margin: int) -> None:
        overlap = measure_overlap(first, second)
        pairs = np.flatnonzero(overlap.iou > 0.5)
        one, other = overlap.pair_truth[pairs], overlap.pair_prediction[pairs]
        inside = [_inside(first, overlap.truth_ids, margin), _inside(second, overlap.prediction_ids, margin)]
        counted = inside[0][one] | inside[1][other]
        alone = [inside[0].copy(), inside[1].copy()]
        alone[0][one], alone[1][other] = False, False
        self.ids = overlap.truth_ids[alone[0]], overlap.prediction_ids[alone[1]]
        self.pairs, self.iou = int(counted.sum()), float(overlap.iou[pairs][counted].sum())
        self.alone = sum(int(mask.sum()) for mask in alone)

    def add(self, other: "Counts") -> None:
        self.pairs, self.iou, self.alone = self.pairs + other.pairs, self.iou + other.iou, self.alone + other.alone

    @property
    def figures(self) -> dict[str, float | None]:
        """PQ, the share with a partner (RQ), the mean IoU of those (SQ), and the pairs; None without any nucleus."""
        if not self.pairs and not self.alone:
            return {"pq": None, "rq": None, "sq": None, "pairs": 0}
        rq = self.pairs / max(self.pairs + self.alone / 2, 1)
        sq = self.iou / max(self.pairs, 1)
        return {"pq": round(rq * sq, 3), "rq": round(rq, 3), "sq": round(sq, 3), "pairs": self.pairs}


def _inside(labels: Labels, ids: NDArray[np.int64], margin: int) -> NDArray[np.bool_]:
    """Which nuclei have no pixel within `margin` px of the border."""
    border = labels.copy()
    border[margin : border.shape[0] - margin, margin : border.shape[1] - margin] = 0
    return ~np.isin(ids, np.unique(border))


Table = dict[str, Counts]


def add(table: Table, name: str, counts: Counts) -> None:
    if name in table:
        table[name].add(counts)
    else:
        table[name] = counts


def choose_fields(dataset: Dataset, count: int, side: int) -> Iterator[tuple[Pixels, Labels, float]]:
    """Image and labels of the middle of some images, at most `side` px, and µm per px."""
    rows = [row for row in dataset.rows if row.nuclei >= LEAST_NUCLEI]
    rows = [row for row in rows if row.split == "val"] or rows
    for index in choose_evenly(len(rows), count):
        (sample,) = replace(dataset, rows=(rows[index],))
        top, left = (max(0, (length - side) // 2) for length in sample.instances.shape)
        part = slice(top, top + side), slice(left, left + side)
        yield sample.image[part], sample.instances[part], sample.require_mpp()


def save_as_jpeg(image: Pixels, quality: int = 90) -> Pixels:
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "JPEG", quality=quality)
    return np.asarray(Image.open(buffer))


def move(shape: tuple[int, int], down: int, right: int, by: int) -> tuple[Area, Area, Area]:
    """Of a field with `by` px to spare: the area, the moved area, and what both have, in px of the first."""
    height, width = shape[0] - 2 * by, shape[1] - 2 * by
    common = tuple(slice(max(step, 0), length + min(step, 0)) for step, length in ((down, height), (right, width)))
    return (
        (slice(by, by + height), slice(by, by + width)),
        (slice(by + down, by + down + height), slice(by + right, by + right + width)),
        (common[0], common[1]),
    )


def measure_changes(
    find: Find, model: Model, image: Pixels, labels: Labels, mpp: float, margin: float, estimate: bool
) -> Iterator[tuple[str, Counts]]:
    """The changes of one field, through the whole program."""
    px = round(margin / mpp)
    shape = image.shape[0], image.shape[1]
    area, *_ = move(shape, 0, 0, 1)
    base = np.ascontiguousarray(image[area])
    before = find(base, mpp)
    yield "truth", Counts(labels[area], before, 0)
    for name, (down, right) in MOVES.items():
        _, moved, common = move(shape, down, right, 1)
        again = find(np.ascontiguousarray(image[moved]), mpp)
        back = tuple(
            slice(part.start - step, part.stop - step) for part, step in zip(common, (down, right), strict=True)
        )
        yield name, Counts(before[common], again[back[0], back[1]], px)
    if estimate:
        _, moved, common = move(shape, 0, 1, 1)
        one, other = (find(np.ascontiguousarray(image[part]), None) for part in (area, moved))
        yield "right, scale estimated", Counts(one[common], other[:, :-1], px)
    yield "jpeg 90", Counts(before, find(save_as_jpeg(base), mpp), px)
    around = ((PAD, PAD), (PAD, PAD), (0, 0))
    inside = slice(PAD, PAD + base.shape[0]), slice(PAD, PAD + base.shape[1])
    yield "reflected", Counts(before, find(np.pad(base, around, "reflect"), mpp)[inside], px)
    yield "white", Counts(before, find(np.pad(base, around, constant_values=255), mpp)[inside], px)
    small, stride = scale_image(image, mpp, model.card.mpp), model.card.stride
    first, later = find(small[:-stride, :-stride], model.card.mpp), find(small[stride:, stride:], model.card.mpp)
    px = round(margin / model.card.mpp)
    yield "stride", Counts(first[stride:, stride:], later[:-stride, :-stride], px)


def scale_image(image: Pixels, mpp: float, target: float) -> Pixels:
    shape = image.shape[0], image.shape[1]
    small = max(1, round(shape[0] * mpp / target)), max(1, round(shape[1] * mpp / target))
    return Resampler(shape, small).rows(image, 0, small[0])


class Stages:
    """The stages of one model, one by one, at its scale."""

    def __init__(self, model: Model, engine: Engine, other: Engine | None) -> None:
        self.model, self.engine, self.other = model, engine, other
        self.rule = model.card.separation
        self.reader = representation_of(model).read

    def _maps(self, small: Pixels, engine: Engine, offset: tuple[int, int]) -> NDArray[np.float32]:
        """Raw maps, with the network's blocks lying `offset` px further up and to the left."""
        padding = [
            (one, -(one + length) % self.model.card.stride)
            for one, length in zip(offset, small.shape[:2], strict=True)
        ]
        maps = engine.maps(np.pad(small, (*padding, (0, 0)), "edge")[None])[0]
        return maps[:, offset[0] : offset[0] + small.shape[0], offset[1] : offset[1] + small.shape[1]]

    def _read(self, small: Pixels, engine: Engine, offset: tuple[int, int]) -> Maps:
        foreground, peaks, *_ = self.reader(self._maps(small, engine, offset))
        return foreground, peaks

    def _read_all(self, small: Pixels) -> Maps:
        """With the mean over all positions of blocks."""
        offsets = [(down, right) for down in range(BLOCK) for right in range(BLOCK)]
        mean = np.mean([self._maps(small, self.engine, offset) for offset in offsets], axis=0, dtype=np.float32)
        foreground, peaks, *_ = self.reader(mean)
        return foreground, peaks

    def separate(self, maps: Maps, small: Pixels, shape: tuple[int, int] | None = None) -> Labels:
        """Labels at the model's scale, or of the image's `shape`."""
        labels = refine(flood(*maps, self.rule), self.rule)
        part = measure(labels, small, maps[0], threshold=self.rule.foreground)
        part = part.where(~(part.raw["hematoxylin_mean"] < self.rule.min_hematoxylin))
        height, width = shape or small.shape[:2]
        polygons = part.polygons.scaled(width / small.shape[1], height / small.shape[0])
        return fill(polygons, (height, width)).astype(np.int32)

    def causes(
        self, image: Pixels, mpp: float, margin: float, missing: dict[str, int]
    ) -> Iterator[tuple[str, Counts]]:
        """Counts with one stage exchanged at a time; those without a partner go to `missing`, by kind."""
        px = round(margin / self.model.card.mpp)
        small = scale_image(image, mpp, self.model.card.mpp)
        maps, moved_maps = (self._read(small, self.engine, offset) for offset in ((0, 0), (1, 1)))
        first, second = self.separate(maps, small), self.separate(moved_maps, small)
        counts = Counts(first, second, px)
        self._count_missing(missing, counts, (first, second), (maps[0], moved_maps[0]))
        yield "network: 1 px of its grid", counts
        yield "of that, the foreground alone", Counts(first, self.separate((moved_maps[0], maps[1]), small), px)
        yield "of that, the peaks alone", Counts(first, self.separate((maps[0], moved_maps[1]), small), px)
        for by in (2, 4, 8):
            moved = self.separate(self._read(small, self.engine, (by, by)), small)
            yield f"network: {by} px", Counts(first, moved, px)
        if self.other is not None:
            floats = [self.separate(self._read(small, self.other, offset), small) for offset in ((0, 0), (1, 1))]
            yield "network in float: 1 px", Counts(floats[0], floats[1], px)
            yield "int8 beside float, not moved", Counts(first, floats[0], px)
        area, moved_area, common = move((image.shape[0], image.shape[1]), 1, 1, 1)
        pair = []
        for part in (image[area], image[moved_area]):
            seen = scale_image(np.ascontiguousarray(part), mpp, self.model.card.mpp)
            pair.append(self.separate(self._read_all(seen), seen, (part.shape[0], part.shape[1])))
        yield "image: 1 px, blocks averaged out", Counts(pair[0][common], pair[1][:-1, :-1], round(margin / mpp))

    def control(self, image: Pixels, mpp: float) -> Counts:
        """Moved by as many px as one of the deepest level has, in float, as one tile."""
        small, stride = scale_image(image, mpp, self.model.card.mpp), self.model.card.stride
        ends = small[:-stride, :-stride], small[stride:, stride:]
        one, other = (self.separate(self._read(end, self.other or self.engine, (0, 0)), end) for end in ends)
        return Counts(one[stride:, stride:], other[:-stride, :-stride], CONTROL)

    def _count_missing(
        self, missing: dict[str, int], counts: Counts, pair: tuple[Labels, Labels], maps: tuple[Any, Any]
    ) -> None:
        for ids, labels, other, foreground in zip(counts.ids, pair, pair[::-1], maps, strict=True):
            for one in ids:
                mask = labels == one
                if (other[mask] > 0).mean() > FOUND:
                    kind = "cut, joined or outlined otherwise"
                elif foreground[mask].mean() < self.rule.min_probability + NEAR:
                    kind = "missing, near the threshold"
                else:
                    kind = "missing"
                missing[kind] = missing.get(kind, 0) + 1


def measure_set(
    dataset: Dataset, models: dict[str, Model], arguments: argparse.Namespace
) -> Iterator[tuple[str, int, Table, dict[str, int]]]:
    """By model and number of shifts: the counts of each change, with the causes where nothing is averaged."""
    fields = [] if arguments.control else list(choose_fields(dataset, arguments.fields, arguments.side))
    for name, model in models.items():
        plain = make_engine("auto", model, threads=arguments.threads)
        brief = name in arguments.brief
        for shifts in () if arguments.control else (1,) if brief else dict.fromkeys((1, *arguments.shifts)):
            engine = as_engine(plain, model, shifts=shifts)

            def find(image: Pixels, mpp: float | None, model: Model = model, engine: Engine = engine) -> Labels:
                return segment(image, model, mpp=mpp, engine=engine).label_map().astype(np.int32)

            table: Table = {}
            for image, labels, mpp in fields:
                for change, counts in measure_changes(
                    find, model, image, labels, mpp, arguments.margin, estimate=shifts == 1
                ):
                    add(table, change, counts)
            yield model.card.name, shifts, table, {}
        if (arguments.causes or arguments.control) and not brief:
            other = make_engine("auto", model, threads=arguments.threads, precision="f32")
            stages = Stages(model, plain, None if plain.precision == "f32" else other)
            table, missing = {}, {}
            for image, _, mpp in fields:
                for cause, counts in stages.causes(image, mpp, arguments.margin, missing):
                    add(table, cause, counts)
            for image, _, mpp in choose_fields(dataset, arguments.fields, CONTROL_SIDE):
                add(table, "control", stages.control(image, mpp))
            yield model.card.name, 0, table, missing


def write_table(path: Path, rows: list[dict[str, Any]]) -> None:
    """PQ of each change, and of each cause with its parts, as Markdown."""
    lines = []
    for causes in (False, True):
        some = [row for row in rows if (row["shifts"] == 0) == causes]
        names = list(dict.fromkeys(name for row in some for name in row["changes"]))
        if not some:
            continue
        about = (
            "PQ (RQ, SQ; pairs), one stage exchanged at a time"
            if causes
            else "PQ against itself; truth: against the labels"
        )
        columns = ["model", "set", *names] if causes else ["model", "shifts", "set", *names]
        lines += [about, "", f"| {' | '.join(columns)} |", "|" + "---|" * len(columns)]
        for row in some:
            cells = []
            for name in names:
                one = row["changes"].get(name)
                if one is None or one["pq"] is None:
                    cells.append("")
                    continue
                cells.append(
                    f"{one['pq']:.3f}" + (f" ({one['rq']:.2f}, {one['sq']:.2f}; {one['pairs']})" if causes else "")
                )
            lines.append("| " + " | ".join([*(str(row[name]) for name in columns[: -len(names)]), *cells]) + " |")
        lines.append("")
    path.write_text("\n".join(lines))


def main() -> None:
    parser = figures_parser(__doc__, RESULTS / "stability.json")
    parser.add_argument("datasets", nargs="+", type=Path)
    parser.add_argument("--model", action="append", required=True)
    parser.add_argument("--brief", action="append", default=[], metavar="MODEL", help="without shifts and causes")
    parser.add_argument("--shifts", type=int, action="append", default=[], help="also with so many shifts")
    parser.add_argument("--fields", type=int, default=3, help="of each set")
    parser.add_argument("--side", type=int, default=448, help="px of a field")
    parser.add_argument("--margin", type=float, default=8.0, help="µm at the border that do not count")
    parser.add_argument("--causes", action="store_true", help="also exchange one stage at a time")
    parser.add_argument("--control", action="store_true", help="nothing but the control")
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    models = {name: load_model(name) for name in (*arguments.model, *arguments.brief)}
    rows: list[dict[str, Any]] = []
    for path in arguments.datasets:
        dataset = Dataset.open(path)
        for name, shifts, table, missing in measure_set(dataset, models, arguments):
            row = {"set": dataset.info.name, "model": name, "shifts": shifts}
            rows.append(row | {"changes": {change: counts.figures for change, counts in table.items()}})
            if missing:
                rows[-1]["without_partner"] = missing
            print(row, {change: counts.figures["pq"] for change, counts in table.items()}, missing or "", flush=True)
    rows.sort(key=lambda row: (list(models).index(row["model"]), row["shifts"]))
    if arguments.output is not None:
        write_table(arguments.output.with_suffix(".md"), rows)
    write_record(arguments.output, "stability", ["numpy", "openvino", "pillow"], rows)


if __name__ == "__main__":
    main()
