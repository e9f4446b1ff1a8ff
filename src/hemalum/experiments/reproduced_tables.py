"""A paper's tables with the figures of our own runs beside: every line, and every choice of protocol."""

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache

from hemalum.data.dataset import Dataset
from hemalum.errors import HemalumError, counted
from hemalum.experiments.papers import Column, Paper, PublishedTable, Row
from hemalum.experiments.plan import stop_rule
from hemalum.experiments.records import Comparison, Run
from hemalum.metrics import ProbabilityCounts, best_dice
from hemalum.models.card import in_words
from hemalum.models.sam import check_sam
from hemalum.training.recipe import Recipe, open_recipe

PROTOCOLS = ("paper", "group_split")
GROUP_SPLIT_AVERAGING = "per_image"
ERRORS = ("boundary.hd95_px", "boundary.assd_px")  # the lower the better
NOT_YET = "not yet run here"
# what a network is given and how long it learns: rows that differ in them differ in more than their method
ROW_CHOICES = ("input", "stain_normalization", "image_size", "augmentation", "loss", "optimizer", "length")

# of one dataset; empty where no recipe can be run on it
ByProtocol = Mapping[str, Comparison]


@dataclass(frozen=True)
class ReproducedValue:
    """A figure in the printed unit: mean over runs, and their sd (nan for a single one).

    With `bases`, the mean over so many base networks, each the mean of its runs, and the sd over bases.
    """

    mean: float
    sd: float
    runs: int
    bases: int = 0


@dataclass(frozen=True)
class Line:
    """One printed figure and ours beside it; `status` says why there is none of ours."""

    row: Row
    column: Column
    printed: str | None
    sd: str | None
    paper: ReproducedValue | None = None
    group_split: ReproducedValue | None = None
    status: str = ""


@dataclass(frozen=True)
class Difference:
    """One choice of protocol: as published with its tag, and in our runs under both protocols."""

    choice: str
    published: str
    tag: str
    paper: str
    group_split: str


@dataclass(frozen=True)
class RowSettings:
    """What the networks of a printed row were given here, by what each setting is called."""

    method: str
    recipe: str
    settings: Mapping[str, str]


@dataclass(frozen=True)
class TablePart:
    """A table's figures on one dataset, every choice of protocol, and what each row was given.

    `run_on` is what was run in the dataset's place.
    """

    dataset: str
    run_on: str
    lines: tuple[Line, ...]
    differences: tuple[Difference, ...]
    settings: tuple[RowSettings, ...] = ()


def method_name(recipe: str) -> str:
    """What a row's recipe, or its variant, is called as a method of the comparison."""
    return recipe.replace(":", ".")


@cache
def lacks(recipe: str) -> str:
    """What a recipe needs that is not on this machine, in words."""
    sam = open_recipe(recipe).sam
    try:
        if sam is not None:
            check_sam(sam.encoder)
    except HemalumError as error:
        return str(error)
    return ""


def table_parts(paper: Paper, table: PublishedTable, comparisons: Mapping[str, ByProtocol]) -> tuple[TablePart, ...]:
    """The table cut by dataset; columns without one go with the first."""
    parts = []
    for number, dataset in enumerate(table.datasets):
        run_on = paper.runs_on(dataset, comparisons)
        lines = []
        for row in table.rows:
            for index, column in enumerate(table.columns):
                if column.dataset != dataset and not (number == 0 and column.dataset is None):
                    continue
                sd = None if row.sd is None else row.sd[index]
                lines.append(_line(paper, table, row, column, row.values[index], sd, run_on, comparisons))
        differences: tuple[Difference, ...] = ()
        if _used_recipes(table, dataset, comparisons.get(run_on, {})):
            differences = tuple(_differences(paper, table, dataset, run_on, comparisons[run_on]))
        settings = row_settings(table, dataset, comparisons.get(run_on, {}))
        parts.append(TablePart(dataset, run_on, tuple(lines), differences, settings))
    return tuple(parts)


def _line(
    paper: Paper, table: PublishedTable, row: Row, column: Column, printed: str | None, sd: str | None, run_on: str,
    comparisons: Mapping[str, ByProtocol],
) -> Line:  # fmt: skip
    by_protocol = comparisons.get(run_on, {})
    status = ""
    if row.recipe is None:
        status = row.otherwise or NOT_YET
    elif run_on not in comparisons:
        status = f"needs {run_on}: {paper.datasets[run_on].get}"
    elif column.metric is None:
        status = "not measured here"
    elif not row.is_run(printed):
        status = "not printed"
    if not status:
        methods = {method.name for comparison in by_protocol.values() for method in comparison.methods}
        absent = [recipe for recipe in row.recipes_of(column) if method_name(recipe) not in methods]
        status = next((lacks(recipe) or NOT_YET for recipe in absent), "")
    if status or column.metric is None:
        return Line(row, column, printed, sd, status=status)
    averagings = {
        "paper": row.averaging or table.averaging or GROUP_SPLIT_AVERAGING,
        "group_split": GROUP_SPLIT_AVERAGING,
    }
    values = {
        protocol: reproduced_value(comparison, run_on, row, column, averagings[protocol])
        for protocol, comparison in by_protocol.items()
    }
    missing = all(value is None for value in values.values())
    reason = "no image of it in the test part" if row.organs else "failed"
    return Line(row, column, printed, sd, values["paper"], values["group_split"], reason if missing else "")


def _differences(
    paper: Paper, table: PublishedTable, dataset: str, run_on: str, by_protocol: ByProtocol
) -> list[Difference]:
    data = paper.datasets[dataset]
    imitated, grouped = (Dataset.open(by_protocol[protocol].datasets[run_on]) for protocol in PROTOCOLS)
    recipes = _used_recipes(table, dataset, by_protocol)
    averaging = {row.averaging or table.averaging or GROUP_SPLIT_AVERAGING: None for row in table.rows if row.recipe}
    info = grouped.info
    at_hand = f"{info.title or info.name}: {counted(info.images, 'image')}, {counted(info.nuclei, 'nucleus')}"
    if dataset != run_on:
        at_hand += " (the public part alone)"
    elif data.private:
        at_hand += " (your own in the place of the private part)"
    differences = [
        Difference("data", data.title, "stated", at_hand, at_hand),
        Difference("split", data.split.text, data.split.tag, _split_text(imitated), _split_text(grouped)),
    ]
    for name, item in (dict(paper.protocol) | data.protocol).items():
        if name == "averaging":
            differences.append(Difference(name, item.text, item.tag, ", ".join(averaging), GROUP_SPLIT_AVERAGING))
            continue
        setting = "; ".join(dict.fromkeys(_recipe_text(recipe, name) for recipe in recipes))
        differences.append(Difference(name, item.text, item.tag, setting, setting))
    comparison = by_protocol["group_split"]
    budget = f"{budget_text(comparison.budget, comparison.description.get('crops'))}: "
    budget += "; ".join(dict.fromkeys(map(stop_rule, recipes)))
    seeds = f"{len(comparison.description['seeds'])}"
    differences.append(Difference("budget", "", "", budget, budget))
    differences.append(Difference("runs", "one, as far as is said", "unknown", seeds, seeds))
    return differences


def budget_text(budget: str, crops: int | None) -> str:
    """The budget of all trainings in words, with the crops that each was cut to, if it was."""
    return budget if crops is None else f"{budget}, each training cut to {counted(crops, 'crop')}"


def _used_recipes(table: PublishedTable, dataset: str, by_protocol: ByProtocol) -> list[Recipe]:
    names = {method_name(recipe) for recipe in table.recipes_on(dataset)}
    return [
        Recipe.model_validate(method.recipe)
        for method in (by_protocol["group_split"].methods if by_protocol else ())
        if method.name in names and method.recipe is not None
    ]


def row_settings(table: PublishedTable, dataset: str, by_protocol: ByProtocol) -> tuple[RowSettings, ...]:
    """What each row of a dataset's columns that was run was given: both protocols train it by one recipe."""
    methods = by_protocol["group_split"].methods if by_protocol else ()
    by_name = {method.name: method.recipe for method in methods if method.recipe is not None}
    rows: dict[tuple[str, str], RowSettings] = {}
    for row in table.rows:
        for column in table.columns:
            name = next(iter(row.recipes_of(column)), "")
            if column.dataset not in (dataset, None) or method_name(name) not in by_name:
                continue
            recipe = Recipe.model_validate(by_name[method_name(name)])
            texts = {choice: _recipe_text(recipe, choice) for choice in ROW_CHOICES}
            rows[row.method, name] = RowSettings(row.method, name, texts)
    return tuple(rows.values())


def _split_text(dataset: Dataset) -> str:
    split = dataset.info.split
    counts = "/".join(str(split.counts.get(part, 0)) for part in ("train", "val", "test"))
    return f"by {split.by}, {counts}, hash {split.sha256[:12]}"


def _recipe_text(recipe: Recipe, choice: str) -> str:
    """What a recipe does where a paper's protocol has the item `choice`."""
    first = recipe.phases[0]
    if choice == "image_size":
        return f"crops of {recipe.tile} x {recipe.tile} px at {recipe.mpp:g} µm/px; tested on whole images"
    if choice == "input":
        channels = {"gray": "luminance"}.get(recipe.input, recipe.input)
        return f"{channels} in [0, 1]" if recipe.input_range == "[0, 1]" else f"{channels}, {recipe.input_range}"
    if choice == "stain_normalization":
        return "none" if recipe.stain_normalization is None else recipe.stain_normalization.method
    if choice == "augmentation":
        active = {name: value for name, value in recipe.augment.model_dump().items() if value}
        if active.get("scale") == 1:
            del active["scale"]
        return (
            ", ".join(name if value is True else f"{name} {in_words(value)}" for name, value in active.items())
            or "none"
        )
    if choice == "loss":
        return f"{' then '.join(phase.loss.name for phase in recipe.phases)} on {recipe.representation}"
    if choice == "optimizer":
        return f"{first.optimizer.name}, {first.optimizer.lr:g}, {first.schedule.name}"
    if choice == "batch":
        return str(recipe.batch)
    if choice == "length":
        return stop_rule(recipe)
    if choice == "threshold":
        return f"{recipe.separation.foreground:g}"
    if choice == "network":
        return recipe.network.text
    return "–"


def reproduced_value(
    comparison: Comparison, dataset: str, row: Row, column: Column, averaging: str
) -> ReproducedValue | None:
    """The figure of the first recipe; less that of the second run by run, or the share saved, where there are
    two.

    Of a row over several bases it is the mean over those that both have run, ± their sd.
    """
    kind = str(column.metric).partition(".")[0]
    by_base: list[list[float]] = []
    for recipes in row.recipes_by_base(column).values():
        by_recipe = [_by_run(comparison, dataset, recipe, row, column, averaging) for recipe in recipes]
        first, *subtracted = by_recipe
        shared = [key for key in first if all(key in other for other in subtracted)]
        values = [_combine(column, first[key], [other[key] for other in subtracted]) for key in shared]
        if values:
            by_base.append(values)
    if not by_base:
        return None
    if row.over:
        means = [statistics.fmean(values) for values in by_base]
        return ReproducedValue(statistics.fmean(means), _sd(means), min(map(len, by_base)), len(means))
    values = by_base[0]
    if kind == "cost":  # the same network each time
        return ReproducedValue(values[0], math.nan, 1)
    return ReproducedValue(statistics.fmean(values), _sd(values), len(values))


def _sd(values: Sequence[float]) -> float:
    return statistics.stdev(values) if len(values) > 1 else math.nan


def _combine(column: Column, value: float, subtracted: list[float]) -> float:
    if not column.share_saved:
        return value - sum(subtracted)
    error, before = ((_error(column, one / column.scale)) for one in (value, *subtracted))
    return column.scale * (before - error) / before if before else math.nan


def _error(column: Column, value: float) -> float:
    return value if column.metric in ERRORS else 1 - value


def _by_run(
    comparison: Comparison, dataset: str, recipe: str, row: Row, column: Column, averaging: str
) -> dict[tuple[int, int], float]:
    """A recipe's figures by fold and seed."""
    kind, _, metric = str(column.metric).partition(".")
    values = {}
    for run in comparison.runs:
        if run.dataset == dataset and run.method == method_name(recipe):
            value = _value_of(run, kind, metric, row.organs, averaging)
            if value is not None:
                values[run.fold, run.seed] = float(value) * column.scale
    return values


def _value_of(run: Run, kind: str, metric: str, organs: list[str], averaging: str) -> float | None:
    """A figure of one run; of one organ's images, where the row is of an organ."""
    value: float | None
    if kind == "cost":
        value = run.cost.get(metric.removesuffix("_per_px"))
        if value is not None and metric.endswith("_per_px"):
            value /= run.cost["macs_side_px"] ** 2
    elif kind == "curve":
        value = None if run.curves is None else best_dice(ProbabilityCounts(**run.curves["pixel"]))[0]
    elif organs:
        rows = [row for row in run.summary.get("by_organ", []) if _bare(row["name"]) in map(_bare, organs)]
        value = rows[0].get(metric if averaging == "per_image" else f"{metric}_{averaging}") if rows else None
    else:
        value = run.summary.get(kind, {}).get(averaging, {}).get(metric)
    return value


def _bare(organ: str) -> str:
    """An organ's name without what some readers put before it."""
    return organ.casefold().removeprefix("human ").strip()
