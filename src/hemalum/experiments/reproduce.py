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
from functools import partial
from pathlib import Path
from typing import Any

from hemalum.data.dataset import Dataset
from hemalum.errors import HemalumError, nearest
from hemalum.experiments.compare import Progress, begin_plan, make_plan, run_plan
from hemalum.experiments.duration import log_duration
from hemalum.experiments.execute import Resources
from hemalum.experiments.papers import Paper, PublishedTable, load_paper
from hemalum.experiments.plan import holds_comparison, name_datasets
from hemalum.experiments.records import Comparison, load_comparison
from hemalum.experiments.reproduced_tables import PROTOCOLS, TablePart, lacks, method_name, table_parts
from hemalum.experiments.resplit import imitate_split, write_resplit
from hemalum.manifest import check_manifest
from hemalum.training.recipe import Budget


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
    options: dict[str, Any] = {"seeds": seeds, "budget": budget, "crops": crops, "mixed_budgets": crops is None}
    plans = {  # all are checked before the first is trained
        (protocol, name): make_plan(recipes[name], {name: sets[name].path}, **options)
        for protocol, sets in zip(PROTOCOLS, (imitated, datasets), strict=True)
        for name in datasets
        if recipes[name]
    }
    resources = resources or Resources()
    folders = {(protocol, name): out / protocol / name for protocol, name in plans}
    plans = {key: begin_plan(plan, folders[key], resources) for key, plan in plans.items()}
    log_duration([(plan, folders[key]) for key, plan in plans.items()])
    for (protocol, name), plan in plans.items():
        report = None if on_progress is None else partial(on_progress, protocol)
        done, failures = run_plan(plan, folders[protocol, name], resources, report)
        comparisons[name][protocol] = done
        failed += [(f"{protocol}: {'/'.join(map(str, key))}", reason) for key, reason in failures]
    return Reproduction(
        paper=loaded,
        tables=tuple((printed, table_parts(loaded, printed, comparisons)) for printed in tables),
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
    dataset = Dataset.open(path)
    if published.private and dataset.info.source_format not in published.formats:
        raise HemalumError(
            f"dataset '{name}' of {paper.name} is private; give {published.stand_in}=PATH, its public part, or one's "
            f"own in its place: {published.get}"
        )
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
    needed = dict.fromkeys(paper.runs_on(name, at_hand) for table in runnable for name in table.datasets)
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
            if paper.runs_on(name, at_hand) == dataset
            for recipe in table.recipes_on(name)
        )
        for dataset in at_hand
    }
    able = {dataset: [recipe for recipe in wanted if not lacks(recipe)] for dataset, wanted in recipes.items()}
    if not any(able.values()):
        lacking = [lacks(recipe) for wanted in recipes.values() for recipe in wanted]
        raise HemalumError(f"{subject}: {lacking[0] if lacking else 'no row can be run on ' + ', '.join(at_hand)}")
    return {name: [f"{method_name(recipe)}={recipe}" for recipe in usable] for name, usable in able.items()}
