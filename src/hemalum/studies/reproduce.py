"""A paper's tables beside our own runs of them: under the paper's protocol, and under an honest one.

    OUT/reproduction.yaml      what is reproduced, on which data
    OUT/data/<name>/           the dataset under the paper's split (images are shared)
    OUT/paper/<name>/          a comparison (hemalum.studies.compare) on it: the paper's protocol
    OUT/honest/<name>/         a comparison on the dataset as it was imported: split by group

Each dataset has comparisons of its own, of the recipes that its columns want: recipes are of one dataset.
The paper's protocol is its way to divide the data and its averaging; the honest one divides by group and takes the
mean over images of the foreground's scores. Training is the same in both, by the row's recipe.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from hemalum.data.dataset import Dataset
from hemalum.errors import HemalumError
from hemalum.files import atomic_path
from hemalum.names import nearest
from hemalum.networks.sam import check_sam
from hemalum.studies.cells import Comparison, load_comparison
from hemalum.studies.compare import Progress, compare, make_plan
from hemalum.studies.own_figures import Ours, method_name, own_figure
from hemalum.studies.plan import PLAN_FILE, name_datasets, stop_rule
from hemalum.studies.published import Column, Paper, PublishedTable, Row, load_paper
from hemalum.studies.resplit import imitate_split, write_resplit
from hemalum.studies.trial import Resources
from hemalum.training.recipe import Budget, Recipe
from hemalum.training.shipped import open_recipe

RECORD = "reproduction.yaml"
HONEST = "per_image"
PROTOCOLS = ("paper", "honest")
NOT_YET = "not yet run here"

# by dataset at hand, then by protocol; nothing by protocol where no recipe can be run
Runs = Mapping[str, Mapping[str, Comparison]]


@dataclass(frozen=True)
class Line:
    """One printed figure and ours beside it; `status` says why there is none of ours."""

    row: Row
    column: Column
    printed: str | None
    sd: str | None
    paper: Ours | None = None
    honest: Ours | None = None
    status: str = ""


@dataclass(frozen=True)
class Difference:
    """One choice of protocol: the paper's with its tag, and ours in both runs."""

    what: str
    says: str
    tag: str
    paper: str
    honest: str


@dataclass(frozen=True)
class OnData:
    """A table's figures on one dataset, and every choice of protocol; `run_on` is what was run in its place."""

    dataset: str
    run_on: str
    lines: tuple[Line, ...]
    differences: tuple[Difference, ...]


@dataclass(frozen=True)
class Reproduction:
    """The tables of a paper beside ours.

    `description` is that of each comparison by protocol and dataset; `failed` are the cells that failed, with the
    reason.
    """

    paper: Paper
    tables: tuple[tuple[PublishedTable, tuple[OnData, ...]], ...]
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
    watch: Callable[[str, Progress], None] | None = None,
) -> Reproduction:
    """Run the rows of a paper's tables (or of one) that have recipes, on the datasets at hand, under both protocols.

    `data` are dataset folders by the paper's names, or by their own where these are the same. `crops` cuts every
    training short. `watch` is told "paper" or "honest" with compare's progress. Runs that are finished in `out` are
    not run again.

    Raises HemalumError, before any training, for unknown papers, tables and datasets, for data that the table does
    not want, when no row can be run, and when `out` holds something else.
    """
    loaded = load_paper(paper)
    tables = [loaded.table(table)] if table is not None else loaded.tables
    datasets = {name: _open(loaded, name, path) for name, path in (name_datasets(data) if data else {}).items()}
    recipes = _recipes(loaded, tables, list(datasets))
    out = Path(out)
    _settle(out, loaded, budget, crops)
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
    runs: dict[str, dict[str, Comparison]] = {name: {} for name in datasets} | _earlier(loaded, out)
    failed: list[tuple[str, str]] = []
    jobs = [
        (protocol, name, {name: sets[name].path})
        for protocol, sets in zip(PROTOCOLS, (imitated, datasets), strict=True)
        for name in datasets
        if recipes[name]
    ]
    for _, name, data_of in jobs:  # all are checked before the first is trained
        make_plan(recipes[name], data_of, seeds=seeds, budget=budget, crops=crops, own_budget=crops is None)
    for protocol, name, data_of in jobs:
        told = None if watch is None else _told(watch, protocol)
        runs[name][protocol], broken = compare(
            recipes[name],
            data_of,
            out / protocol / name,
            seeds=seeds,
            budget=budget,
            crops=crops,
            own_budget=crops is None,
            resources=resources,
            watch=told,
        )
        failed += [(f"{protocol}: {'/'.join(map(str, place))}", reason) for place, reason in broken]
    return Reproduction(
        paper=loaded,
        tables=tuple((one, _sides(loaded, one, runs)) for one in tables),
        budget=budget,
        seeds=seeds,
        description={
            protocol: {name: dict(sides[protocol].description) for name, sides in runs.items() if sides}
            for protocol in PROTOCOLS
        },
        failed=tuple(failed),
    )


def _told(watch: Callable[[str, Progress], None], protocol: str) -> Callable[[Progress], None]:
    return lambda progress: watch(protocol, progress)


def _open(paper: Paper, name: str, path: Path | str) -> Dataset:
    if name not in paper.datasets:
        raise HemalumError(f"{paper.name} has no dataset '{name}'{nearest(name, paper.datasets)}")
    wanted = paper.datasets[name]
    if wanted.private:
        raise HemalumError(
            f"dataset '{name}' of {paper.name} is private; give {wanted.stand_in}=PATH, its public part"
        )
    dataset = Dataset.open(path)
    if dataset.info.source_format and dataset.info.source_format not in wanted.formats:
        raise HemalumError(
            f"{path} was imported as {dataset.info.source_format}, {name} of {paper.name} is {wanted.formats[0]}: "
            f"{wanted.get}"
        )
    return dataset


def _earlier(paper: Paper, out: Path) -> dict[str, dict[str, Comparison]]:
    """The comparisons that `out` holds already; those on datasets that are given are replaced when they are run."""
    return {
        name: {protocol: load_comparison(out / protocol / name) for protocol in PROTOCOLS}
        for name in paper.datasets
        if all((out / protocol / name / PLAN_FILE).is_file() for protocol in PROTOCOLS)
    }


def _recipes(paper: Paper, tables: Sequence[PublishedTable], at_hand: Sequence[str]) -> dict[str, list[str]]:
    """The methods to run on each dataset at hand: the recipes that its columns want, and this machine can run."""
    what = f"{paper.name} {tables[0].id}" if len(tables) == 1 else paper.name
    runnable = [table for table in tables if table.recipes]
    if not runnable:
        raise HemalumError(f"{what}: no row has a recipe yet; hemalum reproduce lists what can be run")
    wanted = dict.fromkeys(paper.runs_on(name) for table in runnable for name in table.datasets)
    unused = [name for name in at_hand if name not in wanted]
    if unused:
        raise HemalumError(f"{what} has nothing to run on '{unused[0]}'; it runs on {', '.join(wanted)}")
    if not at_hand:
        needs = "; ".join(f"{name}: {paper.datasets[name].get}" for name in wanted)
        raise HemalumError(f"{what} needs data: --data NAME=PATH ({needs})")
    recipes = {
        here: dict.fromkeys(
            recipe
            for table in runnable
            for name in table.datasets
            if paper.runs_on(name) == here
            for recipe in table.recipes_on(name)
        )
        for here in at_hand
    }
    able = {here: [recipe for recipe in found if not _lacks(recipe)] for here, found in recipes.items()}
    if not any(able.values()):
        lacking = [_lacks(recipe) for found in recipes.values() for recipe in found]
        raise HemalumError(f"{what}: {lacking[0] if lacking else 'no row can be run on ' + ', '.join(at_hand)}")
    return {here: [f"{method_name(recipe)}={recipe}" for recipe in found] for here, found in able.items()}


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


def _settle(out: Path, paper: Paper, budget: Budget, crops: int | None) -> None:
    """Write what is reproduced here, or compare it with what `out` says."""
    record = {"paper": paper.name, "budget": budget, "crops": crops}
    path = out / RECORD
    if path.is_file():
        try:
            there = yaml.safe_load(path.read_text(encoding="utf-8"))
        except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
            raise HemalumError(f"{path}: cannot be read ({' '.join(str(error).split())})") from error
        for key, value in record.items():
            if not isinstance(there, dict) or there.get(key) != value:
                held = there.get(key) if isinstance(there, dict) else None
                raise HemalumError(f"{out} holds another reproduction: {key} is {held} there, {value} here")
        return
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise HemalumError(f"{out}: is not empty and holds no reproduction; choose another folder")
    with atomic_path(path) as temporary:
        temporary.write_text(yaml.safe_dump(record, sort_keys=False), encoding="utf-8")


def _sides(paper: Paper, table: PublishedTable, runs: Runs) -> tuple[OnData, ...]:
    """The table cut by dataset; columns without one go with the first."""
    parts = []
    for number, dataset in enumerate(table.datasets):
        run_on = paper.runs_on(dataset)
        lines = []
        for row in table.rows:
            for place, column in enumerate(table.columns):
                if column.dataset != dataset and not (number == 0 and column.dataset is None):
                    continue
                sd = None if row.sd is None else row.sd[place]
                lines.append(_line(paper, table, row, column, row.values[place], sd, run_on, runs))
        differences: tuple[Difference, ...] = ()
        if _used(table, dataset, runs.get(run_on, {})):
            differences = tuple(_differences(paper, table, dataset, run_on, runs[run_on]))
        parts.append(OnData(dataset, run_on, tuple(lines), differences))
    return tuple(parts)


def _line(
    paper: Paper, table: PublishedTable, row: Row, column: Column, printed: str | None, sd: str | None, run_on: str,
    runs: Runs,
) -> Line:  # fmt: skip
    sides = runs.get(run_on, {})
    status = ""
    if row.recipe is None:
        status = row.otherwise or NOT_YET
    elif run_on not in runs:
        status = f"needs {run_on}: {paper.datasets[run_on].get}"
    elif column.metric is None:
        status = "not measured here"
    elif printed is None and row.varies:
        status = "not printed"
    recipes = row.recipes_of(column)
    if not status:
        absent = [recipe for recipe in recipes if method_name(recipe) not in _names(sides)]
        status = next((_lacks(recipe) or NOT_YET for recipe in absent), "")
    if status or column.metric is None:
        return Line(row, column, printed, sd, status=status)
    ours = {
        protocol: own_figure(run, run_on, row, column, averaging)
        for (protocol, run), averaging in zip(
            sides.items(), (row.averaging or table.averaging or HONEST, HONEST), strict=True
        )
    }
    missing = all(value is None for value in ours.values())
    nothing = "no image of it in the test part" if row.organs else "failed"
    return Line(row, column, printed, sd, ours["paper"], ours["honest"], nothing if missing else "")


def _names(sides: Mapping[str, Comparison]) -> set[str]:
    return {method.name for run in sides.values() for method in run.methods}


def _differences(
    paper: Paper, table: PublishedTable, dataset: str, run_on: str, sides: Mapping[str, Comparison]
) -> list[Difference]:
    wanted = paper.datasets[dataset]
    at_hand = {name: Dataset.open(run.datasets[run_on]) for name, run in sides.items()}
    info = at_hand["honest"].info
    here = f"{info.title or info.name}: {info.images:,} images, {info.nuclei:,} nuclei"
    if dataset != run_on:
        here += " (the public part alone)"
    averaging = {row.averaging or table.averaging or HONEST: None for row in table.rows if row.recipe}
    items = dict(paper.protocol) | wanted.protocol
    found = [Difference("data", wanted.title, "stated", here, here)]
    split = wanted.split
    sizes = "/".join(map(str, split.counts or split.fractions or ()))
    found.append(
        Difference(
            "split",
            f"by {split.by}, {sizes}" + (f"; {split.note}" if split.note else ""),
            split.tag,
            _split_said(at_hand["paper"]),
            _split_said(at_hand["honest"]),
        )
    )
    for what, item in items.items():
        says = "; ".join(part for part in (item.says, item.note) if part)
        if what == "averaging":
            found.append(Difference(what, says, item.tag, ", ".join(averaging), HONEST))
            continue
        ours = "; ".join(dict.fromkeys(_recipe_said(recipe, what) for recipe in _used(table, dataset, sides)))
        found.append(Difference(what, says, item.tag, ours, ours))
    rules = "; ".join(dict.fromkeys(stop_rule(recipe) for recipe in _used(table, dataset, sides)))
    budget = f"{sides['honest'].budget}: {rules}"
    seeds = f"{len(sides['honest'].description['seeds'])}"
    found.append(Difference("budget", "", "", budget, budget))
    found.append(Difference("runs", "one, as far as is said", "unknown", seeds, seeds))
    return found


def _used(table: PublishedTable, dataset: str, sides: Mapping[str, Comparison]) -> list[Recipe]:
    recipes = {method_name(recipe) for recipe in table.recipes_on(dataset)}
    return [
        Recipe.model_validate(method.recipe)
        for method in (sides["honest"].methods if sides else ())
        if method.name in recipes and method.recipe is not None
    ]


def _split_said(dataset: Dataset) -> str:
    split = dataset.info.split
    counts = "/".join(str(split.counts.get(part, 0)) for part in ("train", "val", "test"))
    return f"by {split.by}, {counts}, hash {split.sha256[:12]}"


def _recipe_said(recipe: Recipe, what: str) -> str:
    """What a recipe does where a paper's protocol has the item `what`."""
    first = recipe.phases[0]
    if what == "image_size":
        return f"crops of {recipe.tile} x {recipe.tile} px at {recipe.mpp:g} µm/px; tested on whole images"
    if what == "input":
        return {"RGB": "RGB", "grey": "luminance"}.get(recipe.input, recipe.input)
    if what == "augmentation":
        active = {name: value for name, value in recipe.augment.model_dump().items() if value}
        if active.get("scale") == 1:
            del active["scale"]
        return ", ".join(name if value is True else f"{name} {value:g}" for name, value in active.items()) or "none"
    if what == "loss":
        return f"{' then '.join(phase.loss.name for phase in recipe.phases)} on {recipe.representation}"
    if what == "optimiser":
        return f"{first.optimiser.name}, {first.optimiser.lr:g}, {first.schedule.name}"
    if what == "batch":
        return str(recipe.batch)
    if what == "length":
        return stop_rule(recipe)
    if what == "threshold":
        return f"{recipe.separation.foreground:g}"
    if what == "network":
        options = ", ".join(f"{name} {value}" for name, value in recipe.network.options.items())
        return f"{recipe.network.name} ({options})"
    return "–"
