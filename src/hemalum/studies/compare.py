"""Compare methods on datasets under one protocol: the verb `compare`."""

import logging
import shlex
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock, Timeout

from hemalum import __version__
from hemalum.data.dataset import Dataset, Row
from hemalum.errors import HemalumError
from hemalum.inference.model import load_model
from hemalum.models.card import Card
from hemalum.networks.sam import check_sam
from hemalum.studies.cells import CELL_FILE, FAILED_FILE, Comparison, cell_folder, load_comparison, write_json
from hemalum.studies.cost import measure_cost
from hemalum.studies.plan import (
    PLAN_FILE,
    Plan,
    PlannedData,
    PlannedMethod,
    name_datasets,
    one_budget,
    plan_data,
    plan_methods,
    read_plan,
    stop_rule,
    write_plan,
)
from hemalum.studies.trial import Resources, label_maps, run_cell
from hemalum.training.building import gather_facts
from hemalum.training.recipe import Budget, Recipe

log = logging.getLogger(__name__)

LOCK = ".lock"
POLL = 5.0  # seconds between two looks at a cell that another process is at

Place = tuple[str, str, int, int]


@dataclass(frozen=True)
class Progress:
    """Said to the watcher: which cell is at work, how many are done of how many, and where its training is."""

    place: Place
    done: int
    total: int
    step: int = 0
    steps: int = 0

    @property
    def name(self) -> str:
        """The cell in words."""
        return cell_name(self.place)


def compare(
    methods: Sequence[str],
    data: Mapping[str, Path | str] | Sequence[Path | str],
    out: Path | str,
    *,
    folds: int | None = None,
    seeds: int = 1,
    budget: Budget = "full",
    crops: int | None = None,
    own_budget: bool = False,
    part: str = "test",
    leave_out_ambiguous: bool = False,
    resources: Resources | None = None,
    watch: Callable[[Progress], None] | None = None,
) -> tuple[Comparison, list[tuple[Place, str]]]:
    """Train and evaluate every method on every dataset, fold and seed; give the comparison and what failed.

    `methods` are `[NAME=]WHAT` as `plan.plan_methods` reads them; the first is what the others are tested
    against. `data` are dataset folders, by name or by their own names. Each recipe is trained on the train part of
    one dataset at a time, keeps its best validation, and is scored on `part`. With `folds`, the dataset's groups are
    dealt into that many parts, each the test part once; without, the dataset's own split holds. `seeds` trainings
    differ in everything random. `crops` sets the training of all recipes; otherwise they have to agree in budget
    and stop rule, unless `own_budget`.

    A finished cell in `out` is never run again, and one that was interrupted goes on. Several processes, on one
    machine or on machines that share `out`, divide the cells among them; each ends when all are done. A cell that
    fails is named in the result, the others go on.

    Raises HemalumError for everything that is wrong with methods, data or `out`, before any training.
    """
    out, resources = Path(out), resources or Resources()
    plan = make_plan(
        methods, data, folds=folds, seeds=seeds, budget=budget, crops=crops, own_budget=own_budget, part=part,
        leave_out_ambiguous=leave_out_ambiguous,
    )  # fmt: skip
    plan = _settle(plan, out)
    _check_encoders(plan, out)
    _measure_costs(plan, out, resources)
    failed = _run_all(plan, out, resources, watch)
    here = {name: Path(data.path) for name, data in plan.datasets.items()}
    return load_comparison(out, here), failed


def make_plan(
    methods: Sequence[str],
    data: Mapping[str, Path | str] | Sequence[Path | str],
    *,
    folds: int | None = None,
    seeds: int = 1,
    budget: Budget = "full",
    crops: int | None = None,
    own_budget: bool = False,
    part: str = "test",
    leave_out_ambiguous: bool = False,
) -> Plan:
    """Check everything that a comparison is asked for and give its plan; nothing is written."""
    if part not in ("val", "test"):
        raise HemalumError(f"part '{part}': a comparison is scored on test (or, while developing, on val)")
    if not 1 <= seeds <= 1000:
        raise HemalumError(f"seeds {seeds}: want at least one")
    if crops is not None and crops < 1:
        raise HemalumError(f"crops {crops}: want at least one")
    planned = [method for word in methods for method in plan_methods(word, budget)]
    if not planned:
        raise HemalumError("nothing to compare: name recipes, models or 'classical'")
    names = [method.name for method in planned]
    for name in names:
        if [other.lower() for other in names].count(name.lower()) > 1:  # folders that some systems cannot tell apart
            raise HemalumError(f"two methods are called '{name}': give one as NAME={name}")
    planned = one_budget(planned, crops, own_budget)
    datasets = {name: _planned_data(name, path, folds, part) for name, path in name_datasets(data).items()}
    for method in planned:
        if method.kind == "labels":
            for name, planned_data in datasets.items():
                _check_label_maps(method, name, Path(planned_data.path), None if folds else part)
    rules = dict.fromkeys(stop_rule(Recipe.model_validate(m.recipe)) for m in planned if m.recipe is not None)
    return Plan(
        budget=budget,
        crops=crops,
        own_budget=own_budget,
        part=part,
        folds=folds,
        seeds=list(range(1, seeds + 1)),
        leave_out_ambiguous=leave_out_ambiguous,
        methods=planned,
        datasets=datasets,
        stop_rule="; ".join(rules),
        command=shlex.join(["hemalum", *sys.argv[1:]]),
        version=__version__,
    )


def _planned_data(name: str, path: Path, folds: int | None, part: str) -> PlannedData:
    planned = plan_data(name, path, folds)
    dataset = Dataset.open(path)
    scaleless = [row.id for row in dataset.rows if row.mpp is None]
    if scaleless:
        raise HemalumError(
            f"{path}: {len(scaleless)} images have no mpp (such as {scaleless[0]}): import it with --mpp NUMBER or "
            "--mpp nuclei"
        )
    _check_copies(path, dataset, folds)
    if folds is None:
        for needed in ("train", "val", part):
            if not dataset.split(needed).rows:
                raise HemalumError(
                    f"{path}: its {needed} part is empty; import it with other shares, or give --folds"
                )
    return planned


def _check_copies(path: Path, dataset: Dataset, folds: int | None) -> None:
    """Refuse a dataset with the same image in two parts, or in two groups that folds may part."""
    first: dict[str, Row] = {}
    for row in dataset.rows:
        other = first.setdefault(row.sha256, row)
        if (row.group != other.group) if folds else (row.split != other.split):
            where = "groups, which folds may part" if folds else f"parts, {other.split} and {row.split}"
            raise HemalumError(
                f"{path}: {other.id} and {row.id} are the same image in two {where}: remove one and import again"
            )


def _check_label_maps(method: PlannedMethod, name: str, path: Path, part: str | None) -> None:
    dataset = Dataset.open(path)
    tested = dataset if part is None else dataset.split(part)
    label_maps(method, name).check([row.id for row in tested.rows], [row.id for row in dataset.rows])


def _settle(plan: Plan, out: Path) -> Plan:
    """Write the plan, or join it with the one that `out` holds."""
    if out.exists() and not out.is_dir():
        raise HemalumError(f"{out}: is a file; name a folder")
    if out.exists() and not (out / PLAN_FILE).exists() and any(p.name != LOCK for p in out.iterdir()):
        raise HemalumError(f"{out}: is not empty and holds no comparison; choose another folder")
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise HemalumError(f"cannot create {out}: {error.strerror}") from error
    with FileLock(out / LOCK):
        if (out / PLAN_FILE).exists():
            plan = plan.joined(read_plan(out / PLAN_FILE), out)
        write_plan(out / PLAN_FILE, plan)
    return plan


def _check_encoders(plan: Plan, out: Path) -> None:
    """Raise HemalumError where a method that is still to be trained needs a SAM encoder that is not here."""
    for method in plan.methods:
        sam = None if method.recipe is None else Recipe.model_validate(method.recipe).sam
        folders = [cell_folder(out, *place) for place in plan.places() if place[1] == method.name]
        if sam is not None and not all((folder / CELL_FILE).is_file() for folder in folders):
            try:
                check_sam(sam.encoder)
            except HemalumError as error:
                raise HemalumError(f"method '{method.name}': {error}; or leave the method out") from error


def _measure_costs(plan: Plan, out: Path, resources: Resources) -> None:
    """Measure each network once; two processes would disturb each other's times, so one does it at a time."""
    (out / "costs").mkdir(exist_ok=True)
    with FileLock(out / "costs" / LOCK):
        for method in plan.methods:
            path = out / "costs" / f"{method.name}.json"
            if method.kind not in ("recipe", "model") or path.exists():
                continue
            measured: Recipe | Card
            facts = None
            if method.recipe is not None:
                measured = Recipe.model_validate(method.recipe)
                facts = gather_facts(measured, [Dataset.open(next(iter(plan.datasets.values())).path)])
            else:
                measured = load_model(method.source).card
            cost = measure_cost(measured, facts=facts, accelerator=resources.accelerator, threads=resources.threads)
            write_json(path, cost)


def _run_all(
    plan: Plan, out: Path, resources: Resources, watch: Callable[[Progress], None] | None
) -> list[tuple[Place, str]]:
    """Run what nobody has run or is running; then wait for what others are at, or take it over when they end."""
    places = list(plan.places())
    methods = {method.name: method for method in plan.methods}
    failed: dict[Place, str] = {}
    while True:
        pending = [p for p in places if not (cell_folder(out, *p) / CELL_FILE).is_file() and p not in failed]
        if not pending:
            return list(failed.items())
        progressed = False
        for place in pending:
            folder = cell_folder(out, *place)
            folder.mkdir(parents=True, exist_ok=True)
            try:
                with FileLock(folder / LOCK, timeout=0):
                    if (folder / CELL_FILE).is_file():
                        continue
                    progressed = True
                    (folder / FAILED_FILE).unlink(missing_ok=True)
                    try:
                        run_cell(
                            plan, methods[place[1]], place[0], place[2], place[3], folder, resources,
                            _cell_watcher(watch, place, out, places),
                        )  # fmt: skip
                    except Exception as error:  # whatever it is, it is this cell's, and the others go on
                        failed[place] = _reason(error)
                        write_json(folder / FAILED_FILE, {"reason": failed[place]})
                        log.error("%s: %s", cell_name(place), failed[place])
                        log.debug("as it was raised:", exc_info=True)
            except Timeout:
                continue
        if not progressed:
            time.sleep(POLL)


def _reason(error: Exception) -> str:
    """Why a cell failed, in a line; errors that nobody foresaw keep the name of their kind."""
    said = " ".join(str(error).split()) or "no reason given"
    return said if isinstance(error, HemalumError) else f"{type(error).__name__}: {said}"


def cell_name(place: Place) -> str:
    """A cell in words."""
    dataset, method, fold, seed = place
    return f"{method} on {dataset}, fold {fold}, seed {seed}"


def _cell_watcher(
    watch: Callable[[Progress], None] | None, place: Place, out: Path, places: Sequence[Place]
) -> Callable[[int, int, dict[str, float]], None] | None:
    if watch is None:
        return None
    said = watch
    done = sum((cell_folder(out, *other) / CELL_FILE).is_file() for other in places)
    said(Progress(place, done, len(places)))
    return lambda step, steps, _: said(Progress(place, done, len(places), step, steps))
