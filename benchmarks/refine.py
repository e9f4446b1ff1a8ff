"""What corrections of a reviewer are worth, by how the tiles were chosen: an experiment with a simulated expert.

    python benchmarks/refine.py --data data/nuinsseg_human [--seeds 3] [--out runs/refine] [--tiles 5 10 20 40]
        [--organs brain cerebellum liver melanoma spleen testis] [--against replay|distillation|none]
        [--steps 1000] [--epochs 25] [--lr 0.001] [--brief] [-o benchmarks/results/refine]

A group of organs is left out; a small network learns from the rest. The images of the organs left out are ranked by
entropy, by entropy within each organ in turn, and at random. An expert corrects the first K by the labels, edit by
edit through the journal of a review (`hemalum.review.correct_item`), and the model is refined on them
(`hemalum.review.refine_reviewed`), a quarter of them held out. Measured is recall and PQ of nuclei on other images of
the organs left out, and what became of the test images of the old organs, the guard.

Each seed is another training of the first model, another draw at random and another refinement; which images are in
the pool, in the test and in the guard is the same for all. What is finished in OUT is not done again. Three seeds
take about 40 minutes on a core of its own, and longer on one that is shared; `--brief` is one seed of some minutes,
to see that it works.
"""

import hashlib
import json
import logging
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from hemalum.data.dataset import Dataset, Row, SplitInfo, pixel_hash
from hemalum.experiments.execute import Resources
from hemalum.experiments.measurement import Measurement, measure
from hemalum.inference.segment import as_engine
from hemalum.metrics import MatchCounts
from hemalum.models.model import Model, load_model
from hemalum.reports.style import INK, LINE, SvgFigure, color_of, dash_of, draw, marker_of
from hemalum.review import Item, Project, correct_item, dataset_fields, rank_fields, refine_reviewed
from hemalum.review.fields import Look
from hemalum.training.recipe import Recipe
from hemalum.training.train import MODEL_FILE, train
from record import RESULTS, argument_parser, mean_and_sd, write_record

ORGANS = ["brain", "cerebellum", "liver", "melanoma", "spleen", "testis"]
RANKINGS = {
    "stratified uncertainty": ("entropy", True),
    "uncertainty": ("entropy", False),
    "random": ("random", True),
}
TORCH = Resources(engine="torch", accelerator="cpu", threads=1)
GUARD, TEST, VAL, REPLAY = 24, 40, 24, 80  # images at most
LEFT_OUT, KNOWN = "left_out", "known"


def recipe_of(seed: int, steps: int) -> Recipe:
    """The first model's training: a small network, on a grid that a core can pay."""
    return Recipe.model_validate({
        "name": "first", "seed": seed, "mpp": 0.4, "tile": 128, "batch": 8, "representation": "distance",
        "network": {"name": "compact", "options": {"widths": [16, 32, 64], "depths": [0, 1, 2]}},
        "phases": [{
            "name": "main", "until": {"steps": steps},
            "optimizer": {"name": "adamw", "lr": 0.004}, "schedule": {"name": "cosine", "warmup": 50},
        }],
        "clip": 5.0, "validate_every": max(1, steps // 3), "validation_images": VAL, "checkpoint_every": 200,
    })  # fmt: skip


def parts_of(dataset: Dataset, organs: Sequence[str]) -> tuple[Dataset, Dataset]:
    """The images of the other organs, with their parts, and those of the organs left out: a pool, and a test part.

    By the hash of each image's id, so that every organ is in every part, and the same for all seeds.
    """
    unknown = set(organs) - {str(row.organ) for row in dataset.rows}
    if unknown:
        raise SystemExit(f"{dataset.path} has no images of {', '.join(sorted(unknown))}")
    by_hash = sorted(dataset.rows, key=lambda row: hashlib.sha256(row.id.encode()).hexdigest())
    known = [row for row in by_hash if row.organ not in organs]
    other = [row for row in by_hash if row.organ in organs]
    guard, val, rest = known[:GUARD], known[GUARD : GUARD + VAL], known[GUARD + VAL :]
    test = min(TEST, len(other) // 2)
    parts = {"test": guard, "val": val, "train": rest}
    return _dataset(dataset, KNOWN, parts), _dataset(dataset, LEFT_OUT, {"test": other[:test], "train": other[test:]})


def _dataset(dataset: Dataset, name: str, parts: dict[Any, list[Row]]) -> Dataset:
    # every image is a group of its own: NuInsSeg does not say which are of one patient
    rows = [replace(row, split=part, group=row.id) for part, listed in parts.items() for row in listed]
    split = SplitInfo.of({row.id: row.split for row in rows}, by="image", seed=0)
    info = dataset.info.model_copy(update={"name": name, "split": split})
    return replace(dataset, rows=tuple(sorted(rows, key=lambda row: row.id)), info=info)


def first_model(known: Dataset, folder: Path, seed: int, steps: int) -> Model:
    """Train the model that does not know the organs left out, or go on, or take it where it is there."""
    path = folder / MODEL_FILE
    if not path.is_file():
        resume = (folder / "checkpoint.safetensors").exists()
        train(recipe_of(seed, steps), {KNOWN: known}, folder, resume=resume, accelerator="cpu", threads=1)
    return load_model(path)


def scores(measured: Measurement) -> dict[str, float]:
    """Recall of nuclei at IoU above 0.5 and PQ, pooled, and Dice of pixels as a mean over images."""
    counts = sum(measured.matches, MatchCounts(0, 0, 0, 0.0))
    dice = measured.scores()["per_image"]["dice"]
    return {"recall": counts.tp / (counts.tp + counts.fn), "pq": counts.pq, "dice": dice}


def points(
    model: Model, looks: dict[str, Look], known: Dataset, left_out: Dataset, folder: Path, seed: int, arguments: Any
) -> Iterator[dict[str, Any]]:
    """Correct and refine for each ranking and number of tiles; a point that is there is read."""
    test = left_out.split("test")
    replayed = replace(known, rows=known.split("train").rows[:: max(1, len(known.split("train")) // REPLAY)])
    samples = {row.id: index for index, row in enumerate(left_out.rows)}
    before = scores(measure(model, test, as_engine("torch", model, threads=1)))
    for ranking, (by, stratified) in RANKINGS.items():
        queue = rank_fields([look.field for look in looks.values()], by, seed=seed, stratified=stratified)
        order = [queued.field.name for queued in queue]
        here = folder / ranking.replace(" ", "_")
        with Project.join(
            here / "project", source=str(left_out.path), model=model.card.name, model_digest=model.digest
        ) as project:
            for tiles in sorted(arguments.tiles):
                path = here / f"{tiles}.json"
                if path.is_file():
                    yield json.loads(path.read_text())
                    continue
                started = time.perf_counter()
                chosen = order[:tiles]
                edits = sum(correct(project, left_out[samples[name]], looks[name]) for name in chosen)
                refined = refine_reviewed(
                    model, project, here / str(tiles), lr=arguments.lr, epochs=arguments.epochs, seed=seed,
                    replay={"replay": replayed, "distillation": None, "none": "none"}[arguments.against],
                    guards=[known], read_image=lambda item: left_out[samples[item.name]].image, resources=TORCH,
                )  # fmt: skip
                after = load_model(refined.model)
                guard = refined.compared[1]
                row = {
                    "seed": seed, "ranking": ranking, "tiles": tiles, "held_out": refined.corrections.count("test"),
                    "edits": edits, "organs": sorted({str(left_out.rows[samples[name]].organ) for name in chosen}),
                    "steps": refined.steps, "before": before,
                    "after": scores(measure(after, test, as_engine("torch", after, threads=1))),
                    "guard_pq": guard.pq.mean_difference, "guard_dice": guard.dice.mean_difference,
                    "guard_before": scores(guard.before), "guard_after": scores(guard.after),
                    "better": refined.decision.better, "reasons": list(refined.decision.reasons),
                    "seconds": round(time.perf_counter() - started, 1),
                }  # fmt: skip
                path.write_text(json.dumps(row))
                yield row


def correct(project: Project, sample: Any, look: Look) -> int:
    """Take an image into the review as the model segments it, and correct it by its labels; gives how many edits."""
    height, width = sample.instances.shape
    item = Item(
        sample.id, (height, width), pixel_hash(sample.image), sample.mpp, sample.mpp_source, source=sample.id,
        group=sample.id, organ=sample.organ,
    )  # fmt: skip
    if project.journal.add_item(item, look.nuclei).status != "reviewed":
        correct_item(project.journal, sample.id, sample.instances)
    return sum(event.kind != "mark" for event in project.journal.events(sample.id))


def table(rows: Sequence[dict[str, Any]]) -> list[str]:
    """Gain and cost of each ranking and number of tiles, mean ± sd over seeds, as Markdown."""
    lines = [
        "| ranking | tiles | edits | recall | PQ | gain in recall per tile | gain in PQ per tile "
        "| gain in PQ per 100 edits | guard PQ | guard Dice | refused |",
        "|---|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|",
    ]
    base = {row["seed"]: row["before"] for row in rows}
    known = [f"{mean_and_sd([one[name] for one in base.values()])}" for name in ("recall", "pq")]
    lines.append(f"| none | 0 | 0 | {known[0]} | {known[1]} | | | | | | |")
    for ranking in RANKINGS:
        for tiles in sorted({row["tiles"] for row in rows}):
            part = [row for row in rows if (row["ranking"], row["tiles"]) == (ranking, tiles)]
            if not part:
                continue

            gains = {name: [row["after"][name] - row["before"][name] for row in part] for name in ("recall", "pq")}
            per_edit = [100 * gain / row["edits"] for gain, row in zip(gains["pq"], part, strict=True)]
            cells = [
                ranking, str(tiles), f"{statistics.fmean(row['edits'] for row in part):.0f}",
                *(mean_and_sd([row["after"][name] for row in part]) for name in ("recall", "pq")),
                *(mean_and_sd([gain / tiles for gain in gains[name]], 4, "+") for name in gains),
                mean_and_sd(per_edit, 4, "+"),
                *(mean_and_sd([row[name] for row in part], sign="+") for name in ("guard_pq", "guard_dice")),
                f"{sum(not row['better'] for row in part)} of {len(part)}",
            ]  # fmt: skip
            lines.append("| " + " | ".join(cells) + " |")
    return lines


def against_random(rows: Sequence[dict[str, Any]]) -> list[str]:
    """What each ranking has over random tiles, of the same seed and number, mean ± sd over seeds."""
    drawn = {(row["seed"], row["tiles"]): row["after"] for row in rows if row["ranking"] == "random"}
    lines = []
    for ranking in list(RANKINGS)[:2]:
        for tiles in sorted({row["tiles"] for row in rows}):
            pairs = [
                (row["after"], drawn[row["seed"], tiles])
                for row in rows
                if (row["ranking"], row["tiles"]) == (ranking, tiles) and (row["seed"], tiles) in drawn
            ]
            texts = [mean_and_sd([a[name] - b[name] for a, b in pairs], sign="+") for name in ("recall", "pq")]
            lines.append(f"- {ranking} less random, {tiles} tiles: recall {texts[0]}, PQ {texts[1]}")
    return lines


def curves(rows: Sequence[dict[str, Any]]) -> SvgFigure:
    """Recall, PQ and the guard's PQ against the number of corrected tiles; a line for each ranking, a dot a seed."""
    tiles = sorted({row["tiles"] for row in rows})
    panels: list[tuple[str, Callable[[dict[str, Any]], float], Callable[[dict[str, Any]], float]]] = [
        ("Recall of nuclei, organs left out", lambda r: r["after"]["recall"], lambda r: r["before"]["recall"]),
        ("PQ, organs left out", lambda r: r["after"]["pq"], lambda r: r["before"]["pq"]),
        ("PQ of the guard, change", lambda r: r["guard_pq"], lambda r: 0.0),
    ]

    def paint(figure: Any) -> None:
        for axes, (title, value, start) in zip(figure.subplots(1, len(panels)), panels, strict=True):
            for number, ranking in enumerate(RANKINGS):
                part = [row for row in rows if row["ranking"] == ranking]
                style = {"color": color_of(number)}
                means = [statistics.fmean(value(row) for row in part if row["tiles"] == k) for k in tiles]
                first = statistics.fmean(start(row) for row in part)
                axes.plot([0, *tiles], [first, *means], label=ranking, linestyle=dash_of(number), **style)
                axes.plot(
                    [row["tiles"] for row in part], [value(row) for row in part], marker_of(number), markersize=3,
                    alpha=0.6, **style,
                )  # fmt: skip
            axes.set_title(title)
            axes.set_xlabel("Corrected tiles")
            axes.grid(visible=True, color=LINE)
        figure.axes[-1].legend(loc="center left", bbox_to_anchor=(1.02, 0.5), labelcolor=INK)

    caption = "Lines: means over seeds. Marks: one seed each."
    return SvgFigure("refine", caption, caption, draw((12.5, 3.4), paint))


def main() -> None:
    """Run what is not there yet, print the table, and write it."""
    parser = argument_parser(__doc__)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, default=Path("runs/refine"))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--tiles", type=int, nargs="+", default=[5, 10, 20, 40])
    parser.add_argument("--organs", nargs="+", default=ORGANS)
    parser.add_argument("--against", choices=["replay", "distillation", "none"], default="replay")
    parser.add_argument("--steps", type=int, default=1000)
    parser.add_argument("--epochs", type=int, default=25)
    parser.add_argument("--lr", type=float, default=1e-3)
    parser.add_argument("--brief", action="store_true", help="one seed, few tiles and steps: to see that it works")
    parser.add_argument("-o", "--output", type=Path, default=RESULTS / "refine", help="without ending")
    arguments = parser.parse_args()
    if arguments.brief:
        arguments.seeds, arguments.tiles, arguments.steps, arguments.epochs = 1, [4, 6], 60, 2
    logging.basicConfig(level=logging.ERROR)  # many images look as if their scale were wrong
    known, left_out = parts_of(Dataset.open(arguments.data), arguments.organs)
    rows: list[dict[str, Any]] = []
    for seed in range(1, arguments.seeds + 1):
        folder = arguments.out / f"seed{seed}"
        model = first_model(known, folder / "first", seed, arguments.steps)
        pool = left_out.split("train")
        fields = dataset_fields(pool, model, as_engine("torch", model, threads=1), flips=False)
        looks = {look.field.name: look for look in fields}
        for row in points(model, looks, known, left_out, folder, seed, arguments):
            rows.append(row)
            print(
                f"seed {seed}, {row['ranking']}, {row['tiles']} tiles ({row['edits']} edits, {row['seconds']:.0f} s):"
                f" recall {row['before']['recall']:.3f} to {row['after']['recall']:.3f}, PQ "
                f"{row['before']['pq']:.3f} to {row['after']['pq']:.3f}, guard PQ {row['guard_pq']:+.3f}, "
                f"{'better' if row['better'] else 'not better'}",
                flush=True,
            )
    lines = [
        "# Corrected tiles and what they are worth", "",
        f"Organs left out: {', '.join(arguments.organs)}; {len(left_out.split('train'))} images to choose from, "
        f"{len(left_out.split('test'))} to measure on, {len(known.split('test'))} of other organs as guard; "
        f"{arguments.seeds} seeds, against forgetting: {arguments.against}. Mean ± sd over seeds.", "",
        *table(rows), "", *against_random(rows),
    ]  # fmt: skip
    print("\n".join(lines))
    if not arguments.brief:
        arguments.output.with_suffix(".md").write_text("\n".join(lines) + "\n")
        arguments.output.with_suffix(".svg").write_text(curves(rows).svg)
        settings = {name: getattr(arguments, name) for name in ("organs", "against", "steps", "epochs", "lr")}
        write_record(
            arguments.output.with_suffix(".json"), "refine", ["hemalum", "torch", "numpy"], rows, settings=settings
        )
    else:
        curves(rows)


if __name__ == "__main__":
    main()
