"""A paper's tables beside runs of our own: under the paper's protocol, and with a split by group.

    OUT/reproduction.yaml      what is reproduced, on which data
    OUT/data/<name>/           the dataset under the paper's split (images are shared)
    OUT/paper/<name>/          a comparison (hemalum.experiments.compare) on it: the paper's protocol
    OUT/group_split/<name>/    a comparison on the dataset as it was imported: split by group

Each dataset has comparisons of its own, of the recipes that its columns want: recipes are of one dataset.
The paper's protocol is its way to divide the data and its averaging; the group split divides by group and takes
the mean over images of the foreground's scores. Training is the same in both, by the row's recipe.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache, partial
from pathlib import Path
from typing import Any

from hemalum.data.dataset import Dataset
from hemalum.errors import HemalumError, nearest
from hemalum.experiments.compare import Progress, compare, make_plan
from hemalum.experiments.papers import Column, Paper, PublishedTable, Row, load_paper
from hemalum.experiments.plan import holds_comparison, name_datasets, stop_rule
from hemalum.experiments.records import Comparison, load_comparison
from hemalum.experiments.reproduced_values import ReproducedValue, method_name, reproduced_value
from hemalum.experiments.resources import Resources
from hemalum.experiments.resplit import imitate_split, write_resplit
from hemalum.manifest import check_manifest
from hemalum.models.sam import check_sam
from hemalum.training.recipe import Budget, Recipe, open_recipe

PROTOCOLS = ("paper", "group_split")
GROUP_SPLIT_AVERAGING = "per_image"
NOT_YET = "not yet run here"

# of one dataset; empty where no recipe can be run on it
ByProtocol = Mapping[str, Comparison]


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
class TablePart:
    """A table's figures on one dataset, and every choice of protocol; `run_on` is what was run in its place."""

    dataset: str
    run_on: str
    lines: tuple[Line, ...]
    differences: tuple[Difference, ...]


@dataclass(frozen=True)
class Reproduction:
    """The tables of a paper beside ours.

    `description` is that of each comparison by protocol and dataset; `failed` are the runs that failed, with the
    reason.
    """

    paper: Paper
    tables: tuple[tuple[PublishedTable, tuple[TablePart, ...]], ...]
    budget: Budget
    seeds: int
    description: Mapping[str, Any]
    failed: tuple[tuple[str, str], ...] = field(default=())


def reproduce(
    paper: str | Path,
    table: str | None = None,
    *,
    data: Mapping[str, Path | str] | Sequence[Path | str],
    out: Path | str,
    budget: Budget = "full",
    seeds: int = 1,
    crops: int | None = None,
    resources: Resources | None = None,
    on_progress: Callable[[str, Progress], None] | None = None,
) -> Reproduction:
    """Run the rows of a paper's tables (or of one) that have recipes, on the datasets at hand, under both protocols.

    `data` are dataset folders by the paper's names, or by their own where these are the same. `crops` cuts every
    training short. `on_progress` is called with the protocol and compare's progress. Runs that are finished in `out`
    are not run again.

    Raises HemalumError, before any training, for unknown papers, tables and datasets, for data that the table does
    not want, when no row can be run, and when `out` holds something else.
    """
    loaded = load_paper(paper)
    tables = [loaded.table(table)] if table is not None else loaded.tables
    datasets = {name: _open(loaded, name, path) for name, path in (name_datasets(data) if data else {}).items()}
    recipes = _recipes(loaded, tables, list(datasets))
    out = Path(out)
    check_manifest(out, "reproduction", {"paper": loaded.name, "budget": budget, "crops": crops})
    imitated = {
        name: write_resplit(
            dataset,
            imitate_split(dataset, loaded.datasets[name].split),
            out / "data" / name,
            by=loaded.datasets[name].split.by,
            note=f"imitates the split of {loaded.name}",
        )
        for name, dataset in datasets.items()
    }
    comparisons: dict[str, dict[str, Comparison]] = {name: {} for name in datasets} | _earlier(loaded, out)
    failed: list[tuple[str, str]] = []
    jobs = [
        (protocol, name, {name: sets[name].path})
        for protocol, sets in zip(PROTOCOLS, (imitated, datasets), strict=True)
        for name in datasets
        if recipes[name]
    ]
    for _, name, paths in jobs:  # all are checked before the first is trained
        make_plan(recipes[name], paths, seeds=seeds, budget=budget, crops=crops, mixed_budgets=crops is None)
    for protocol, name, paths in jobs:
        comparisons[name][protocol], failures = compare(
            recipes[name],
            paths,
            out / protocol / name,
            seeds=seeds,
            budget=budget,
            crops=crops,
            mixed_budgets=crops is None,
            resources=resources,
            on_progress=None if on_progress is None else partial(on_progress, protocol),
        )
        failed += [(f"{protocol}: {'/'.join(map(str, key))}", reason) for key, reason in failures]
    return Reproduction(
        paper=loaded,
        tables=tuple((printed, _parts(loaded, printed, comparisons)) for printed in tables),
        budget=budget,
        seeds=seeds,
        description={
            protocol: {
                name: dict(by_protocol[protocol].description)
                for name, by_protocol in comparisons.items()
                if by_protocol
            }
            for protocol in PROTOCOLS
        },
        failed=tuple(failed),
    )


def _open(paper: Paper, name: str, path: Path | str) -> Dataset:
    if name not in paper.datasets:
        raise HemalumError(f"{paper.name} has no dataset '{name}'{nearest(name, paper.datasets)}")
    published = paper.datasets[name]
    if published.private:
        raise HemalumError(
            f"dataset '{name}' of {paper.name} is private; give {published.stand_in}=PATH, its public part"
        )
    dataset = Dataset.open(path)
    if dataset.info.source_format and dataset.info.source_format not in published.formats:
        raise HemalumError(
            f"{path} was imported as {dataset.info.source_format}, {name} of {paper.name} is {published.formats[0]}: "
            f"{published.get}"
        )
    return dataset


def _earlier(paper: Paper, out: Path) -> dict[str, dict[str, Comparison]]:
    """The comparisons that `out` holds already; those on datasets that are given are replaced when they are run."""
    return {
        name: {protocol: load_comparison(out / protocol / name) for protocol in PROTOCOLS}
        for name in paper.datasets
        if all(holds_comparison(out / protocol / name) for protocol in PROTOCOLS)
    }


def _recipes(paper: Paper, tables: Sequence[PublishedTable], at_hand: Sequence[str]) -> dict[str, list[str]]:
    """The methods to run on each dataset at hand: the recipes that its columns want, and this machine can run."""
    subject = f"{paper.name} {tables[0].id}" if len(tables) == 1 else paper.name
    runnable = [table for table in tables if table.recipes]
    if not runnable:
        raise HemalumError(f"{subject}: no row has a recipe yet; hemalum reproduce lists what can be run")
    needed = dict.fromkeys(paper.runs_on(name) for table in runnable for name in table.datasets)
    unused = [name for name in at_hand if name not in needed]
    if unused:
        raise HemalumError(f"{subject} has nothing to run on '{unused[0]}'; it runs on {', '.join(needed)}")
    if not at_hand:
        needs = "; ".join(f"{name}: {paper.datasets[name].get}" for name in needed)
        raise HemalumError(f"{subject} needs data: --data NAME=PATH ({needs})")
    recipes = {
        dataset: dict.fromkeys(
            recipe
            for table in runnable
            for name in table.datasets
            if paper.runs_on(name) == dataset
            for recipe in table.recipes_on(name)
        )
        for dataset in at_hand
    }
    able = {dataset: [recipe for recipe in wanted if not _lacks(recipe)] for dataset, wanted in recipes.items()}
    if not any(able.values()):
        lacking = [_lacks(recipe) for wanted in recipes.values() for recipe in wanted]
        raise HemalumError(f"{subject}: {lacking[0] if lacking else 'no row can be run on ' + ', '.join(at_hand)}")
    return {name: [f"{method_name(recipe)}={recipe}" for recipe in usable] for name, usable in able.items()}


@cache
def _lacks(recipe: str) -> str:
    """What a recipe needs that is not on this machine, in words."""
    sam = open_recipe(recipe).sam
    try:
        if sam is not None:
            check_sam(sam.encoder)
    except HemalumError as error:
        return str(error)
    return ""


def _parts(paper: Paper, table: PublishedTable, comparisons: Mapping[str, ByProtocol]) -> tuple[TablePart, ...]:
    """The table cut by dataset; columns without one go with the first."""
    parts = []
    for number, dataset in enumerate(table.datasets):
        run_on = paper.runs_on(dataset)
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
        parts.append(TablePart(dataset, run_on, tuple(lines), differences))
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
    elif printed is None and row.varies:
        status = "not printed"
    if not status:
        methods = {method.name for comparison in by_protocol.values() for method in comparison.methods}
        absent = [recipe for recipe in row.recipes_of(column) if method_name(recipe) not in methods]
        status = next((_lacks(recipe) or NOT_YET for recipe in absent), "")
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
    at_hand = f"{info.title or info.name}: {info.images:,} images, {info.nuclei:,} nuclei"
    if dataset != run_on:
        at_hand += " (the public part alone)"
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
    budget = f"{comparison.budget}: {'; '.join(dict.fromkeys(map(stop_rule, recipes)))}"
    seeds = f"{len(comparison.description['seeds'])}"
    differences.append(Difference("budget", "", "", budget, budget))
    differences.append(Difference("runs", "one, as far as is said", "unknown", seeds, seeds))
    return differences


def _used_recipes(table: PublishedTable, dataset: str, by_protocol: ByProtocol) -> list[Recipe]:
    names = {method_name(recipe) for recipe in table.recipes_on(dataset)}
    return [
        Recipe.model_validate(method.recipe)
        for method in (by_protocol["group_split"].methods if by_protocol else ())
        if method.name in names and method.recipe is not None
    ]


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
        return {"RGB": "RGB", "gray": "luminance"}.get(recipe.input, recipe.input)
    if choice == "augmentation":
        active = {name: value for name, value in recipe.augment.model_dump().items() if value}
        if active.get("scale") == 1:
            del active["scale"]
        return ", ".join(name if value is True else f"{name} {value:g}" for name, value in active.items()) or "none"
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
        options = ", ".join(f"{name} {value}" for name, value in recipe.network.options.items())
        return f"{recipe.network.name} ({options})"
    return "–"
