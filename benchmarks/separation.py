"""How well each way of separating nuclei can do, and does: from true maps (the oracle) and from predicted ones.

    python benchmarks/separation.py FOLDER --mpp 0.25 [--at 0.25 --at 0.5 …] [--images 50] [-o separation.json]
    python benchmarks/separation.py FOLDER --mpp 0.25 --model MODEL [--marker 0.3,0.5,0.7 …]
        [--beside smoothing=3,merge_depth=0.25 …]

FOLDER holds images/, labels/ and index.csv (columns image, label). The oracle encodes the true labels at each
scale of --at, separates the maps and scores the result, brought to the size of the image, against the truth.
"soft" has the true maps of twice the scale averaged down to it, as a good network's are, and "enlarged" has
these enlarged twice again before separation. With --model the maps come from a network; where its representation is
"combined" all ways are judged on one training. Each --beside is a second rule, the first with some settings
changed, run in turn with it on each image. PQ and AJI are pooled over images; s/mm² is processor time of separation
alone, and the ratio that to the first rule's.
"""

import csv
import itertools
import time
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from hemalum.metrics.instance import AjiSums, MatchCounts, match, measure_overlap, sum_aji
from hemalum.models.card import Card
from hemalum.nuclei.settings import SeparationSettings
from hemalum.targets.representations import REPRESENTATIONS, Representation, select
from inputs import read_pair, resize_labels
from record import figures_parser, write_record

WAYS = ("interior_boundary", "distance", "center_gradient")
Labels = NDArray[np.int32]
Maps = NDArray[np.float32]


class Score(NamedTuple):
    counts: MatchCounts
    aji: AjiSums
    seconds: float


class Pair(NamedTuple):
    image: NDArray[np.uint8]
    labels: Labels


def read_pairs(folder: Path, limit: int) -> list[Pair]:
    """Every k-th pair of the index, so that few images still cover the set."""
    with (folder / "index.csv").open() as stream:
        rows = list(csv.DictReader(stream))
    return [Pair(*read_pair(folder, row)) for row in rows[:: max(1, len(rows) // limit)][:limit]]


def upsample_maps(maps: Maps, factor: int) -> Maps:
    size = (maps.shape[2] * factor, maps.shape[1] * factor)
    return np.stack(
        [np.asarray(Image.fromarray(channel).resize(size, Image.Resampling.BILINEAR)) for channel in maps]
    )


def separate(way: Representation, maps: Maps, truth: Labels, settings: SeparationSettings) -> Score:
    start = time.process_time()
    labels = way.separate(maps, settings)
    seconds = time.process_time() - start
    overlap = measure_overlap(truth, resize_labels(labels, truth.shape))
    return Score(match(overlap), sum_aji(overlap), seconds)


def pool(scores: list[Score], mm2: float) -> dict[str, float]:
    counts = sum((score.counts for score in scores[1:]), scores[0].counts)
    aji = sum((score.aji for score in scores[1:]), scores[0].aji)
    return {
        "pq": round(counts.pq, 4),
        "dq": round(counts.dq, 4),
        "sq": round(counts.sq, 4),
        "aji": round(aji.value, 4),
        "s_per_mm2": round(sum(score.seconds for score in scores) / mm2, 4),
    }


def oracle_maps(way: Representation, pair: Pair, mpp: float, at: float, kind: str) -> Maps:
    height, width = pair.labels.shape
    rows, columns = max(1, round(height * mpp / at)), max(1, round(width * mpp / at))
    if kind == "":
        return way.encode(resize_labels(pair.labels, (rows, columns)))
    fine = way.encode(resize_labels(pair.labels, (2 * rows, 2 * columns)))
    maps = fine.reshape(len(fine), rows, 2, columns, 2).mean((2, 4), dtype=np.float32)
    return upsample_maps(maps, 2) if kind == "enlarged" else maps


def predicted_maps(model_file: Path, pairs: list[Pair], mpp: float) -> tuple[list[Maps], float, Card]:
    """Maps of full images, the scale of their pixels, and the model's card."""
    import torch

    from hemalum.models.file import load_model_file
    from hemalum.models.map_model import build_map_model

    card, tensors = load_model_file(model_file)
    model = build_map_model(card, tensors)
    all_maps = []
    for pair in pairs:
        height, width = (max(1, round(n * mpp / card.mpp)) for n in pair.labels.shape)
        image = np.asarray(Image.fromarray(pair.image).resize((width, height), Image.Resampling.BILINEAR))
        pad = [(0, -height % card.stride), (0, -width % card.stride), (0, 0)]
        batch = torch.from_numpy(np.pad(image, pad, mode="reflect")[None])
        with torch.inference_mode():
            maps = model(batch)[0].numpy()
        all_maps.append(
            np.ascontiguousarray(maps[:, : height * card.output_upsampling, : width * card.output_upsampling])
        )
    return all_maps, card.mpp / card.output_upsampling, card


def read_numbers(text: str) -> list[float]:
    return [float(part) for part in text.split(",")]


def read_changes(text: str) -> dict[str, float]:
    return {name: float(value) for name, value in (part.split("=") for part in text.split(","))}


def print_rows(rows: list[dict[str, Any]]) -> None:
    print(
        f"{'maps':24}{'way':20}{'thresh':>7}{'marker':>7}{'depth':>7}"
        f"{'PQ':>8}{'DQ':>8}{'SQ':>8}{'AJI':>8}{'s/mm²':>8}{'ratio':>7}"
    )
    for row in rows:
        print(
            f"{row['maps']:24}{row['way']:20}{row['foreground']:7.2f}{row['marker']:7.2f}{row['min_depth']:7.2f}"
            f"{row['pq']:8.4f}{row['dq']:8.4f}{row['sq']:8.4f}{row['aji']:8.4f}{row['s_per_mm2']:8.3f}{row['time_ratio']:7.2f}"
        )


def main() -> None:
    parser = figures_parser(__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--mpp", type=float, required=True, help="µm per pixel of the images")
    parser.add_argument("--at", type=float, action="append", help="scales of the maps (default 0.25 and 0.5)")
    parser.add_argument("--images", type=int, default=50, help="at most so many images, spread over the set")
    parser.add_argument("--model", type=Path, help="model file")
    parser.add_argument("--foreground", type=read_numbers, help="thresholds to try, comma-separated")
    parser.add_argument("--marker", type=read_numbers, help="marker thresholds to try")
    parser.add_argument("--depth", type=read_numbers, help="depths to try")
    parser.add_argument(
        "--beside", type=read_changes, action="append", default=[], dest="changes",
        metavar="SETTING=VALUE,SETTING=VALUE", help="a second rule",
    )  # fmt: skip
    arguments = parser.parse_args()

    pairs = read_pairs(arguments.folder, arguments.images)
    mm2 = sum(pair.labels.size for pair in pairs) * arguments.mpp**2 / 1e6
    usual = SeparationSettings()
    # label → for each way the maps of all images
    sources: dict[str, dict[str, list[Maps]]] = {}
    if arguments.model:
        maps, at, card = predicted_maps(arguments.model, pairs, arguments.mpp)
        usual, trained = card.separation, REPRESENTATIONS[card.representation]
        sources[f"predicted {at:g} µm/px"] = {
            name: [select(image_maps, trained, REPRESENTATIONS[name]) for image_maps in maps]
            for name in (WAYS if card.representation == "combined" else [card.representation])
        }
    else:
        for at, kind in itertools.product(arguments.at or (0.25, 0.5), ("", "soft", "enlarged")):
            if kind and at < 1.5 * arguments.mpp:
                continue  # the truth has no finer detail to average
            sources[f"true {at:g} µm/px {kind}"] = {
                name: [oracle_maps(REPRESENTATIONS[name], pair, arguments.mpp, at, kind) for pair in pairs]
                for name in WAYS
            }
    grid = itertools.product(
        arguments.foreground or [usual.foreground],
        arguments.marker or [usual.marker],
        arguments.depth or [usual.min_depth],
    )
    rules = [
        usual.model_copy(update={"foreground": foreground, "marker": marker, "min_depth": depth})
        for foreground, marker, depth in grid
    ]
    rules += [SeparationSettings(**{**rules[0].model_dump(), **changes}) for changes in arguments.changes]
    rows = []
    for source, by_way in sources.items():
        for name, maps in by_way.items():
            way = REPRESENTATIONS[name]
            for rule in rules:
                way.separate(maps[0], rule)  # compile
            scores = [
                [separate(way, image_maps, pair.labels, rule) for rule in rules]
                for image_maps, pair in zip(maps, pairs, strict=True)
            ]
            for i, (rule, of_rule) in enumerate(zip(rules, zip(*scores, strict=True), strict=True)):
                figures = pool(list(of_rule), mm2)
                first = rows[-i]["s_per_mm2"] if i else figures["s_per_mm2"]
                ratio = round(figures["s_per_mm2"] / first, 2)
                rows.append({"maps": source, "way": name, **rule.model_dump(), **figures, "time_ratio": ratio})
    nuclei = sum(len(np.unique(pair.labels)) - 1 for pair in pairs)
    print(f"{arguments.folder.name}: {len(pairs)} images, {mm2:.2f} mm², {nuclei} nuclei")
    print_rows(rows)
    write_record(
        arguments.output,
        "separation",
        ["hemalum", "numpy", "numba", "edt"],
        rows,
        data={"folder": arguments.folder.name, "images": len(pairs), "mm2": mm2, "mpp": arguments.mpp},
        model=str(arguments.model) if arguments.model else None,
    )


if __name__ == "__main__":
    main()
