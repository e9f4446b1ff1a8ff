"""What was compared, on what and under which rules: the part of a report that makes its numbers checkable."""

from collections import Counter
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, TypeGuard

from hemalum.errors import counted
from hemalum.experiments.provenance import scales_text, seen_text
from hemalum.reports.comparison.results import DatasetResults
from hemalum.reports.grid import Grid, Row
from hemalum.systems.phases import StopCriteria

if TYPE_CHECKING:
    from hemalum.experiments.records import Comparison

HOW_MADE = {
    "recipe": "trained here from its recipe",
    "model": "a trained model, not trained here",
    "classical": "not learned",
    "labels": "label maps made by another program",
}
UNSTATED = "not stated"
UNEQUAL_NOTE = "Crops differ in size or scale: as many crops are not as many pixels or as much tissue."


def protocol(comparison: "Comparison") -> list[tuple[str, str]]:
    """Name and value of each rule of the comparison, in words."""
    plan = comparison.description
    folds, crops = plan.get("folds"), plan.get("crops")
    budget = f"{comparison.budget}; {'each recipe for' if crops else 'crops'} "
    budget += counted(crops, "crop") if crops else "as the recipes say"
    taken = sorted({_steps(m.recipe) * m.recipe["batch"] for m in comparison.methods if _is_complete(m.recipe)})
    if crops and taken not in ([], [crops]):
        budget += f", which in whole batches are {' or '.join(f'{number:,}' for number in taken)}"
    if plan.get("mixed_budgets"):
        budget += "; the recipes' budgets differ, so methods were not trained for equally long"
    untrained = any(method.kind != "recipe" for method in comparison.methods)
    seeds = _words(plan.get("seeds")) + (" (methods that are not trained: one run)" if untrained else "")
    split = "each dataset's own, by group, the same for all methods"
    if folds:
        split = f"{folds} folds by group; every group is tested on once"
    ambiguous = "left out of all counts" if plan.get("leave_out_ambiguous") else "counted like all other pixels"
    scale = plan.get("mpp")
    scale = "estimated from each image" if scale == "auto" else f"{scale:g} µm/px" if scale else "the dataset's"
    estimated = scales_text(_sum_scales(comparison))
    scale += f": {estimated}" if estimated else ""
    done, absent = len(comparison.runs), len(missing(comparison))
    return [
        ("Training budget", budget),
        ("Stop rule", _words(plan.get("stop_rule"))),
        ("Seeds", seeds),
        ("Split", split),
        ("Scored on", f"the {plan['split']} part"),
        ("Scale of test images", scale),
        ("Ambiguous areas", ambiguous),
        *([("Seen in training", seen)] if (seen := "; ".join(_seen(comparison))) else []),
        ("Reference", comparison.methods[0].name if comparison.methods else UNSTATED),
        ("Finished", f"{done} of {counted(done + absent, 'run')}"),
        ("hemalum", _words(plan.get("version"))),
    ]


def _sum_scales(comparison: "Comparison") -> dict[str, int]:
    """Where the scales come from, over the test images of every method that uses one."""
    sources: Counter[str] = Counter()
    for run in comparison.runs:
        sources.update(run.summary.get("mpp_sources") or {})
    return dict(sources)


def _seen(comparison: "Comparison") -> list[str]:
    """What each method's models have seen of the images that they are scored on; nothing where none has any."""
    lines = []
    for run in comparison.runs:
        seen = run.summary.get("seen_in_training")
        if seen and (seen["trained"] or seen["validated"] or seen["unrecorded"]):
            fold = f", fold {run.fold}" if comparison.description.get("folds") else ""
            lines.append(f"{run.method} on {run.dataset}{fold}: {seen_text(seen)}")
    return list(dict.fromkeys(lines))


def _words(value: Any) -> str:
    if value is None or value in ("", []):
        return UNSTATED
    return ", ".join(map(str, value)) if isinstance(value, (list, tuple)) else str(value)


def missing(comparison: "Comparison") -> list[str]:
    """The runs that have not been finished, each with the reason where one is known."""
    lines = []
    for run in comparison.description.get("missing") or []:
        name = f"{run.get('dataset')}: {run.get('method')}"
        if comparison.description.get("folds"):
            name += f", fold {run.get('fold')}"
        if run.get("seed"):
            name += f", seed {run.get('seed')}"
        reason = run.get("reason")
        lines.append(f"{name} ({reason})" if reason else name)
    return lines


def methods_table(comparison: "Comparison") -> Grid:
    """The methods: what each is, how it was made, what its training sees, how many of its runs are finished."""
    rows = []
    sizes = {
        (m.recipe["tile"], m.recipe["mpp"])
        for m in comparison.methods
        if m.recipe and {"tile", "mpp"} <= m.recipe.keys()
    }
    for method in comparison.methods:
        done = sum(run.method == method.name for run in comparison.runs)
        absent = sum(run.get("method") == method.name for run in comparison.description.get("missing") or [])
        title = method.title if method.title != method.name else "–"
        made, sees, crops = HOW_MADE.get(method.kind, method.kind), *_trained_on(method.recipe)
        rows.append(Row(method.name, (title, made, sees, crops, f"{done} of {done + absent}")))
    return Grid(
        caption="Methods; the first is the reference that the others are tested against",
        corner="Method",
        columns=("What it is", "How it was made", "What its training sees", "Steps × batch", "Runs finished"),
        rows=tuple(rows),
        words=frozenset({0, 1, 2}),
        notes=(UNEQUAL_NOTE,) if len(sizes) > 1 else (),
    )


def _trained_on(recipe: Mapping[str, Any] | None) -> tuple[str, str]:
    """Size and scale of a recipe's crops, and how many there are; dashes where nothing is trained here."""
    if not _is_complete(recipe):
        return "–", "–"
    steps, batch = _steps(recipe), recipe["batch"]
    early = any(phase["until"].get("patience") for phase in recipe["phases"])
    crops = f"{steps:,} × {batch:,} = {counted(steps * batch, 'crop')}"
    return f"crops of {recipe['tile']:,} px at {recipe['mpp']:.3g} µm/px", f"at most {crops}" if early else crops


def _is_complete(recipe: Mapping[str, Any] | None) -> TypeGuard[Mapping[str, Any]]:
    return recipe is not None and {"tile", "mpp", "batch", "phases"} <= recipe.keys()


def _steps(recipe: Mapping[str, Any]) -> int:
    """All steps of a recipe, if no phase ends earlier."""
    end = 0
    for phase in recipe["phases"]:
        end = StopCriteria.model_validate(phase["until"]).last_step(end)
    return end


def data_table(comparison: "Comparison", results: list[DatasetResults]) -> Grid:
    """The datasets: what was tested on, and the hash that fixes the split."""
    rows = []
    for dataset in results:
        planned = (comparison.description.get("datasets") or {}).get(dataset.name) or {}
        hashes = planned.get("split_hashes") or [run.summary.get("split_hash") for run in dataset.runs[:1]]
        short = ", ".join(str(value)[:12] for value in hashes if value) or UNSTATED
        counts = (f"{len(dataset.images):,}", f"{dataset.n_groups:,}", f"{dataset.nuclei:,}")
        rows.append(Row(dataset.name, (*counts, short)))
    return Grid(
        caption="Data that the methods were scored on (as far as finished)",
        corner="Dataset",
        columns=("Images", "Groups", "Nuclei", "Split hash, first 12 digits of each fold's"),
        rows=tuple(rows),
        words=frozenset({3}),
    )
