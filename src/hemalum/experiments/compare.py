"""Compare methods on datasets under one protocol: the verb `compare`."""

import logging
import shlex
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from hemalum import __version__
from hemalum.data.dataset import Dataset
from hemalum.errors import HemalumError
from hemalum.experiments.cost import measure_cost
from hemalum.experiments.duration import log_duration
from hemalum.experiments.execute import Resources, execute_run, label_maps
from hemalum.experiments.plan import (
    Method,
    Plan,
    PlannedData,
    RunKey,
    name_datasets,
    one_budget,
    plan_data,
    plan_methods,
    stop_rule,
)
from hemalum.experiments.provenance import warn_before
from hemalum.experiments.records import FAILED_FILE, Comparison, cost_file, is_finished, load_comparison, write_json
from hemalum.experiments.segmenters import Scale
from hemalum.manifest import lock_folder
from hemalum.models.card import Card
from hemalum.models.model import load_model
from hemalum.models.sam import check_sam
from hemalum.settings import as_number
from hemalum.training.data_spec import gather_data_spec
from hemalum.training.recipe import Budget, Recipe

log = logging.getLogger(__name__)

POLL = 5.0  # seconds between two looks at a run that another process is at


@dataclass(frozen=True)
class Progress:
    """Passed to `on_progress`: the run at work, how many are done of how many, and where its training is."""

    key: RunKey
    done: int
    total: int
    step: int = 0
    steps: int = 0

    @property
    def name(self) -> str:
        """The run in words."""
        return self.key.name


def compare(  # noqa: PLR0913 (the verb's options)
    methods: Sequence[str],
    data: Mapping[str, Path | str] | Sequence[Path | str],
    out: Path | str,
    *,
    folds: int | None = None,
    seeds: int = 1,
    budget: Budget = "full",
    crops: int | None = None,
    mixed_budgets: bool = False,
    split: str = "test",
    leave_out_ambiguous: bool = False,
    mpp: Scale = None,
    resources: Resources | None = None,
    on_progress: Callable[[Progress], None] | None = None,
) -> tuple[Comparison, list[tuple[RunKey, str]]]:
    """Train and evaluate every method on every dataset, fold and seed; give the comparison and what failed.

    `methods` are `[NAME=]WHAT` as `plan.plan_methods` reads them; the first is what the others are tested
    against. `data` are dataset folders, by name or by their own names. Each recipe is trained on the train part of
    one dataset at a time, keeps its best validation, and is scored on `split`. With `folds`, the dataset's groups are
    dealt into that many parts, each the test part once; without, the dataset's own split holds. `seeds` trainings
    differ in everything random. `crops` sets the training of all recipes; otherwise they have to agree in budget
    and stop rule, unless `mixed_budgets`. Test images are segmented at the scale that the dataset has for each, or at
    `mpp` µm per pixel; "auto" estimates it from each image, as a user's images have it where the dataset's scale
    comes from the true nuclei.

    A finished run in `out` is never run again, and one that was interrupted goes on. Several processes, on one
    machine or on machines that share `out`, divide the runs among them; each ends when all are done. A run that
    fails is named in the result, the others go on.

    Raises HemalumError for everything that is wrong with methods, data or `out`, before any training.
    """
    plan = make_plan(
        methods, data, folds=folds, seeds=seeds, budget=budget, crops=crops, mixed_budgets=mixed_budgets, split=split,
        leave_out_ambiguous=leave_out_ambiguous, mpp=mpp,
    )  # fmt: skip
    out, resources = Path(out), resources or Resources()
    plan = begin_plan(plan, out, resources)
    log_duration([(plan, out)])
    return run_plan(plan, out, resources, on_progress)


def begin_plan(plan: Plan, out: Path, resources: Resources) -> Plan:
    """Join a plan with the one in `out`, and measure what its methods cost; gives the plan that holds now."""
    plan = plan.start(out)
    _check_encoders(plan, out)
    _measure_costs(plan, out, resources)
    return plan


def run_plan(
    plan: Plan, out: Path, resources: Resources, on_progress: Callable[[Progress], None] | None
) -> tuple[Comparison, list[tuple[RunKey, str]]]:
    """Run what is left of a plan that `begin_plan` gave; see `compare`."""
    failed = _execute_all(plan, out, resources, on_progress)
    return load_comparison(out, {name: Path(data.path) for name, data in plan.datasets.items()}), failed


def make_plan(
    methods: Sequence[str],
    data: Mapping[str, Path | str] | Sequence[Path | str],
    *,
    folds: int | None = None,
    seeds: int = 1,
    budget: Budget = "full",
    crops: int | None = None,
    mixed_budgets: bool = False,
    split: str = "test",
    leave_out_ambiguous: bool = False,
    mpp: Scale = None,
) -> Plan:
    """Check everything that a comparison is asked for and give its plan; nothing is written."""
    if split not in ("val", "test"):
        raise HemalumError(f"split '{split}': a comparison is scored on test (or, while developing, on val)")
    if not 1 <= seeds <= 1000:
        raise HemalumError(f"seeds {seeds}: want 1 to 1000")
    mpp = as_number(mpp, "mpp")
    if mpp is not None and mpp != "auto" and (isinstance(mpp, str) or not 0.01 < mpp < 100):
        raise HemalumError(f"mpp {mpp}: want 'auto', or µm per pixel between 0.01 and 100")
    if crops is not None and crops < 1:
        raise HemalumError(f"crops {crops}: want at least one")
    planned = [method for word in methods for method in plan_methods(word, budget)]
    if not planned:
        raise HemalumError("nothing to compare: name recipes, models or 'classical'")
    names = [method.name for method in planned]
    for name in names:
        if [other.lower() for other in names].count(name.lower()) > 1:  # folders that some systems cannot tell apart
            raise HemalumError(f"two methods are called '{name}': give one as NAME={name}")
    planned = one_budget(planned, crops, mixed_budgets)
    datasets = {name: plan_data(path, folds, split) for name, path in name_datasets(data).items()}
    for method in planned:
        for name, planned_data in datasets.items() if method.kind == "labels" else ():
            label_maps(method, name).check_dataset(Dataset.open(planned_data.path), None if folds else split)
    for method in planned:
        _warn_of_seen(method, datasets, None if folds else split)
    rules = dict.fromkeys(stop_rule(Recipe.model_validate(m.recipe)) for m in planned if m.recipe is not None)
    return Plan(
        budget=budget,
        crops=crops,
        mixed_budgets=mixed_budgets,
        split=split,
        folds=folds,
        seeds=list(range(1, seeds + 1)),
        leave_out_ambiguous=leave_out_ambiguous,
        mpp=mpp,
        methods=planned,
        datasets=datasets,
        stop_rule="; ".join(rules),
        command=shlex.join(["hemalum", *sys.argv[1:]]),
        version=__version__,
    )


def _warn_of_seen(method: Method, datasets: Mapping[str, PlannedData], split: str | None) -> None:
    """Warn where a model, or what a recipe starts from, was trained on images that are to be scored."""
    recipe = None if method.recipe is None else Recipe.model_validate(method.recipe)
    source = method.source if method.kind == "model" else None
    if recipe is not None and recipe.initial is not None:
        source = recipe.initial.model
    if source is not None:
        opened = {name: Dataset.open(data.path) for name, data in datasets.items()}
        warn_before(method.name, load_model(source).card, opened, split)


def _check_encoders(plan: Plan, out: Path) -> None:
    """Raise HemalumError where a method that is still to be trained needs a SAM encoder that is not here."""
    for method in plan.methods:
        sam = None if method.recipe is None else Recipe.model_validate(method.recipe).sam
        folders = [key.folder(out) for key in plan.run_keys if key.method == method.name]
        if sam is not None and not all(map(is_finished, folders)):
            try:
                check_sam(sam.encoder)
            except HemalumError as error:
                raise HemalumError(f"method '{method.name}': {error}; or leave the method out") from error


def _measure_costs(plan: Plan, out: Path, resources: Resources) -> None:
    """Measure each network once; two processes would disturb each other's times, so one does it at a time."""
    with lock_folder(out / "costs"):
        for method in plan.methods:
            path = cost_file(out, method.name)
            if method.kind not in ("recipe", "model") or path.exists():
                continue
            measured: Recipe | Card
            data_spec = None
            if method.recipe is not None:
                measured = Recipe.model_validate(method.recipe)
                data_spec = gather_data_spec(measured, [Dataset.open(next(iter(plan.datasets.values())).path)])
            else:
                measured = load_model(method.source).card
            log.info("%s: measuring what its network costs", method.name)
            cost = measure_cost(
                measured, data_spec=data_spec, accelerator=resources.accelerator, threads=resources.threads
            )
            write_json(path, cost)


def _execute_all(
    plan: Plan, out: Path, resources: Resources, on_progress: Callable[[Progress], None] | None
) -> list[tuple[RunKey, str]]:
    """Execute what nobody has run or is running; then wait for what others are at, or take it over when they end."""
    methods = {method.name: method for method in plan.methods}
    failed: dict[RunKey, str] = {}
    while True:
        pending = [key for key in plan.run_keys if not is_finished(key.folder(out)) and key not in failed]
        if not pending:
            return list(failed.items())
        progressed = False
        for key in pending:
            folder = key.folder(out)
            with lock_folder(folder, wait=False) as locked:
                if not locked or is_finished(folder):
                    continue
                progressed = True
                (folder / FAILED_FILE).unlink(missing_ok=True)
                try:
                    execute_run(
                        plan, methods[key.method], key, folder, resources,
                        _training_progress(on_progress, key, plan, out),
                    )  # fmt: skip
                except Exception as error:  # whatever it is, it is this run's, and the others go on
                    failed[key] = _reason(error)
                    write_json(folder / FAILED_FILE, {"reason": failed[key]})
                    log.error("%s: %s", key.name, failed[key])
                    log.debug("as it was raised:", exc_info=True)
        if not progressed:
            time.sleep(POLL)


def _reason(error: Exception) -> str:
    """Why a run failed, in a line; errors that nobody foresaw keep the name of their kind."""
    message = " ".join(str(error).split()) or "no reason given"
    return message if isinstance(error, HemalumError) else f"{type(error).__name__}: {message}"


def _training_progress(
    on_progress: Callable[[Progress], None] | None, key: RunKey, plan: Plan, out: Path
) -> Callable[[int, int, dict[str, float]], None] | None:
    """What a run's training calls; says at once that the run is begun."""
    if on_progress is None:
        return None
    report = on_progress
    done = sum(is_finished(other.folder(out)) for other in plan.run_keys)
    total = len(plan.run_keys)
    report(Progress(key, done, total))
    return lambda step, steps, _: report(Progress(key, done, total, step, steps))
