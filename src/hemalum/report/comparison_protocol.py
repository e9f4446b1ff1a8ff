"""What was compared, on what and under which rules: the part of a report that makes its numbers checkable."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from hemalum.report.comparison_results import DatasetResults, counted
from hemalum.report.comparison_tables import Grid, Row

if TYPE_CHECKING:
    from hemalum.studies.cells import Comparison

KINDS = {
    "recipe": "trained here from its recipe",
    "model": "a trained model, not trained here",
    "classical": "not learnt",
    "labels": "label maps made by another program",
}
NOT_SAID = "not stated"
UNEQUAL_NOTE = "Crops differ in size or scale: as many crops are not as many pixels or as much tissue."


def protocol(comparison: "Comparison") -> list[tuple[str, str]]:
    """Name and value of each rule of the comparison, in words."""
    said = comparison.description
    folds, crops = said.get("folds"), said.get("crops")
    budget = f"{comparison.budget}; {'each recipe for' if crops else 'crops'} "
    budget += f"{crops:,} crops" if crops else "as the recipes say"
    if said.get("own_budget"):
        budget += "; the recipes' budgets differ, so methods were not trained for equally long"
    return [
        ("Training budget", budget),
        ("Stop rule", _words(said.get("stop_rule"))),
        (
            "Seeds",
            _words(said.get("seeds"))
            + (" (methods that are not trained: one run)" if _untrained(comparison) else ""),
        ),
        (
            "Split",
            f"{folds} folds by group; every group is tested on once"
            if folds
            else "each dataset's own, by group, the same for all methods",
        ),
        ("Scored on", f"the {said.get('part') or 'test'} part"),
        (
            "Ambiguous areas",
            "left out of all counts" if said.get("leave_out_ambiguous") else "counted like all other pixels",
        ),
        ("Reference", comparison.methods[0].name if comparison.methods else NOT_SAID),
        ("Finished", _finished(comparison)),
        ("hemalum", _words(said.get("version"))),
    ]


def command(comparison: "Comparison") -> str:
    """The command that made the comparison."""
    return str(comparison.description.get("command") or "")


def _untrained(comparison: "Comparison") -> bool:
    return any(method.kind != "recipe" for method in comparison.methods)


def _words(value: Any) -> str:
    if value is None or value in ("", []):
        return NOT_SAID
    return ", ".join(map(str, value)) if isinstance(value, (list, tuple)) else str(value)


def _finished(comparison: "Comparison") -> str:
    done, absent = len(comparison.cells), len(missing(comparison))
    return f"{done} of {counted(done + absent, 'run')}"


def missing(comparison: "Comparison") -> list[str]:
    """The runs that have not been finished, each with the reason where one is known."""
    lines = []
    for cell in comparison.description.get("missing") or []:
        place = f"{cell.get('dataset')}: {cell.get('method')}"
        if comparison.description.get("folds"):
            place += f", fold {cell.get('fold')}"
        if cell.get("seed"):
            place += f", seed {cell.get('seed')}"
        reason = cell.get("reason")
        lines.append(f"{place} ({reason})" if reason else place)
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
        done = sum(cell.method == method.name for cell in comparison.cells)
        absent = sum(cell.get("method") == method.name for cell in comparison.description.get("missing") or [])
        title = method.title if method.title != method.name else "–"
        made, sees, crops = KINDS.get(method.kind, method.kind), *_trained_on(method.recipe)
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
    if not recipe or not {"tile", "mpp", "batch", "phases"} <= recipe.keys():
        return "–", "–"
    steps, batch = sum(phase["until"]["steps"] for phase in recipe["phases"]), recipe["batch"]
    early = any(phase["until"].get("patience") for phase in recipe["phases"])
    crops = f"{steps:,} × {batch:,} = {steps * batch:,} crops"
    return f"crops of {recipe['tile']:,} px at {recipe['mpp']:.3g} µm/px", f"at most {crops}" if early else crops


def data_table(comparison: "Comparison", results: list[DatasetResults]) -> Grid:
    """The datasets: what was tested on, and the hash that fixes the split."""
    rows = []
    for own in results:
        stated = (comparison.description.get("datasets") or {}).get(own.name) or {}
        hashes = stated.get("split_hashes") or [cell.summary.get("split_hash") for cell in own.cells[:1]]
        short = ", ".join(str(value)[:12] for value in hashes if value) or NOT_SAID
        rows.append(Row(own.name, (f"{len(own.images):,}", f"{own.n_groups:,}", f"{own.nuclei:,}", short)))
    return Grid(
        caption="Data that the methods were scored on (as far as finished)",
        corner="Dataset",
        columns=("Images", "Groups", "Nuclei", "Split hash, first 12 digits of each fold's"),
        rows=tuple(rows),
        words=frozenset({3}),
    )
