"""What CSRA-Net gains over its controls: no unlabeled loss, equal compute, equal weight of the labeled images.

    python benchmarks/csra_controls.py --data data/nuinsseg_human --runs runs/csra_controls --parts 32

Trains the arms of recipe csra_net_controls (`hemalum compare … --mixed-budgets`) at 1/PART of the labels. Training
seeds take turns at three draws of labels, so that 9 seeds are three draws of three. The difference of CSRA-Net to
each control is taken by seed, averaged within a draw, and its 95 % interval is Student's over the draws: what another
draw of labels would give. What is finished is kept, and several processes may share it. Writes
benchmarks/results/systems/csra_net_controls.json and .md, which the page of CSRA-Net quotes.
"""

import argparse
import math
import statistics
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path

from scipy import stats

from hemalum.errors import HemalumError
from hemalum.experiments.compare import compare
from hemalum.experiments.execute import Resources
from hemalum.experiments.records import Comparison
from hemalum.training.recipe import Recipe, open_recipes
from record import argument_parser, mean_and_sd, write_record
from systems import COLUMNS, FOLDER

SHOWN = ("Dice", "IoU pooled", "PQ", "training (s)")
DIFFERENCES = ("Dice", "PQ")
CSRA = "csra"  # the arm that the others are taken from

BySeed = dict[int, float]


def read_values(comparison: Comparison) -> dict[str, dict[str, BySeed]]:
    """Method → column → seed → value."""
    values: dict[str, dict[str, BySeed]] = {
        method.name: {name: {} for name in SHOWN} for method in comparison.methods
    }
    for run in comparison.runs:
        for name in SHOWN:
            value = COLUMNS[name][0](run)
            if value is not None:
                values[run.method][name][run.seed] = value
    return values


def difference(first: BySeed, second: BySeed, draws: int) -> tuple[float, float, int]:
    """Mean of first − second over the draws that both have, half of its 95 % interval, and how many draws there are.

    The interval is NaN for one draw.
    """
    by_draw = defaultdict(list)
    for seed in first.keys() & second.keys():
        by_draw[seed % draws].append(first[seed] - second[seed])
    means = [statistics.fmean(values) for values in by_draw.values()]
    if len(means) < 2:
        return (statistics.fmean(means) if means else math.nan), math.nan, len(means)
    half = float(stats.t.ppf(0.975, len(means) - 1)) * statistics.stdev(means) / math.sqrt(len(means))
    return statistics.fmean(means), half, len(means)


def table(values: Mapping[str, Mapping[str, BySeed]], parts: Sequence[int], draws: int) -> list[str]:
    """A row for each arm: means ± sd over all runs, and CSRA-Net less the arm with its interval."""
    heads = [*SHOWN, *(f"CSRA − this, {name}" for name in DIFFERENCES)]
    lines = [f"| arm | {' | '.join(heads)} |", f"|---|{'---|' * len(heads)}"]
    for part in parts:
        csra = values[f"{CSRA}_{part}"]
        for name, row in values.items():
            if name.rsplit("_", 1)[1] != str(part):
                continue
            cells = [mean_and_sd(list(row[column].values()), COLUMNS[column][1]) for column in SHOWN]
            for column in DIFFERENCES:
                mean, half, _ = difference(csra[column], row[column], draws)
                interval = "" if math.isnan(half) else f" ({mean - half:+.3f} to {mean + half:+.3f})"
                cells.append("" if row is csra or math.isnan(mean) else f"{mean:+.3f}{interval}")
            lines.append(f"| {name} | {' | '.join(cells)} |")
    return lines


def main(arguments: argparse.Namespace) -> None:
    """Run what is left, and record it."""
    recipes = open_recipes(arguments.recipe, arguments.budget)
    arms = [name for part in arguments.parts for name in recipes if name.rsplit("_", 1)[1] == str(part)]
    draws = {recipe.labeled.draws for recipe in map(recipes.__getitem__, arms) if recipe.labeled is not None}
    if len(draws) != 1:
        raise HemalumError(f"the arms of {arguments.recipe} have {sorted(draws)} draws of labels: want one number")
    (turns,) = draws
    comparison, failed = compare(
        [f"{arguments.recipe}:{name}" for name in arms],
        {"nuinsseg_human": arguments.data},
        arguments.runs,
        seeds=arguments.seeds,
        budget=arguments.budget,
        mixed_budgets=True,
        resources=Resources(arguments.accelerator, arguments.threads),
        on_progress=lambda progress: print(
            f"\r{progress.done}/{progress.total} {progress.name} {progress.step}", end=""
        ),
    )
    print()
    for key, reason in failed:
        print(f"failed: {key.name}: {reason}")
    values = read_values(comparison)
    lines = [
        f"CSRA-Net and its controls, NuInsSeg human by image, {arguments.budget} form; {arguments.seeds} trainings "
        f"of each arm over {turns} draws of labels; mean ± sd over trainings; differences with 95 % intervals "
        f"(Student's, over {min(turns, arguments.seeds)} draws).",
        "",
        *table(values, arguments.parts, turns),
    ]
    print("\n".join(lines))
    arguments.output.mkdir(parents=True, exist_ok=True)
    masses = {name: describe_arm(recipes[name]) for name in arms}
    write_record(
        arguments.output / "csra_net_controls.json", "csra_controls", ["hemalum", "torch"], values, arms=masses,
        draws=turns, seeds=arguments.seeds, plan=comparison.description["datasets"],
    )  # fmt: skip
    (arguments.output / "csra_net_controls.md").write_text("\n".join(lines) + "\n", encoding="utf-8")


def describe_arm(recipe: Recipe) -> dict[str, float]:
    """Steps, rate, and the weight of the labeled images' gradient that an arm trains with."""
    phase = recipe.phases[0]
    semi = phase.semi_supervised
    weight = 1.0 if semi is None else semi.supervised * (2 if semi.labeled == "both" else 1)
    return {"steps": recipe.steps, "lr": phase.optimizer.lr, "labeled_weight": weight}


if __name__ == "__main__":
    parser = argument_parser(__doc__)
    parser.add_argument("--data", type=Path, required=True, help="dataset folder of NuInsSeg's human images")
    parser.add_argument("--runs", type=Path, default=Path("runs/csra_controls"))
    parser.add_argument("--recipe", default="csra_net_controls", help="another file with such arms, to try it")
    parser.add_argument("--parts", type=int, nargs="+", default=[32], help="1/PART of the labels: 32, 8")
    parser.add_argument("--seeds", type=int, default=9, help="three for each of three draws of labels")
    parser.add_argument("--budget", choices=("small", "full"), default="small")
    parser.add_argument("--accelerator", default="cpu")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("-o", "--output", type=Path, default=FOLDER, help="folder of the record")
    main(parser.parse_args())
