"""The plan of a comparison: methods, datasets, folds, seeds and budget, as comparison.yaml.

A plan may grow (more methods, datasets, seeds); what is in it may not change, because finished runs rest on it.
"""

import hashlib
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple, Self

from pydantic import Field, ValidationError

from hemalum.data.dataset import Dataset, Row
from hemalum.errors import HemalumError, counted
from hemalum.experiments.resplit import fold_of
from hemalum.experiments.segmenters import CLASSICAL
from hemalum.manifest import (
    Content,
    check_manifest,
    holds_another,
    manifest_path,
    read_manifest,
    require_equal,
)
from hemalum.settings import Strict
from hemalum.training.recipe import Budget, Recipe, open_recipes
from hemalum.training.unlabeled_images import find_unlabeled

KIND = "comparison"  # of folder
NAME = r"(?!\.)[\w.+-]{1,80}"
VALIDATIONS = 10  # over a training whose length is set with `crops`


class RunKey(NamedTuple):
    """What names a run of a comparison; `fold` and `seed` are 0 where there are none."""

    dataset: str
    method: str
    fold: int
    seed: int

    @property
    def name(self) -> str:
        """The run in words."""
        return f"{self.method} on {self.dataset}, fold {self.fold}, seed {self.seed}"

    def folder(self, out: Path) -> Path:
        """The folder of the run, in the comparison's folder `out`."""
        return out / "runs" / self.dataset / self.method / f"fold{self.fold}-seed{self.seed}"


class Method(Strict):
    """What is compared. `title` is a line for people, `recipe` the recipe as trained, where one is.

    `source` is a recipe, a model file or a folder of label maps; `digest` is of its content.
    """

    name: str
    kind: Literal["recipe", "model", "classical", "labels"]
    title: str
    source: str
    recipe: dict[str, Any] | None = None
    digest: str

    @property
    def trained(self) -> bool:
        """Whether a run of it begins with a training, so that seeds make a difference."""
        return self.kind == "recipe"


class PlannedData(Strict):
    """One dataset; `digest` is that of its images and their truth, `split_hashes` has one hash per fold."""

    path: str
    digest: str
    split_hashes: list[str]


class Plan(Strict):
    """Everything that decides the runs, and how it was asked for."""

    budget: Budget
    crops: int | None = Field(description="training crops of every recipe; None: as each recipe says")
    mixed_budgets: bool
    split: Literal["val", "test"]
    folds: int | None
    seeds: list[int]
    leave_out_ambiguous: bool
    mpp: float | Literal["auto"] | None = Field(
        None, description="scale that test images are segmented at; auto: estimated from each; None: the dataset's"
    )
    methods: list[Method]
    datasets: dict[str, PlannedData]
    stop_rule: str
    command: str
    version: str

    @property
    def run_keys(self) -> list[RunKey]:
        """Every run; a method that is not trained has seed 0 alone."""
        return [
            RunKey(dataset, method.name, fold, seed)
            for dataset in self.datasets
            for fold in range(self.folds or 1)
            for seed in [0, *self.seeds]
            for method in self.methods
            if method.trained == (seed != 0)
        ]

    def joined(self, older: "Plan", out: Path) -> Self:
        """This plan and what an older one in the same folder has besides.

        Raises HemalumError when the two contradict each other.
        """
        settings = {"budget", "crops", "mixed_budgets", "split", "folds", "leave_out_ambiguous", "mpp"}
        require_equal(out, KIND, older.model_dump(include=settings), self.model_dump(include=settings))
        methods = {method.name: method for method in older.methods}
        for method in self.methods:
            known = methods.get(method.name, method)
            if known.digest != method.digest:
                raise holds_another(
                    out,
                    KIND,
                    f"method '{method.name}' has changed since; give it another name (NAME={method.source}) or take "
                    "another folder",
                )
            methods[method.name] = method  # its file may lie elsewhere on this machine
        datasets = dict(older.datasets)
        for name, data in self.datasets.items():
            known_data = datasets.setdefault(name, data)
            if (known_data.digest, known_data.split_hashes) != (data.digest, data.split_hashes):
                raise holds_another(out, KIND, f"dataset '{name}', its labels or its split have changed since")
        seeds = sorted({*self.seeds, *older.seeds})
        return self.model_copy(
            update={
                "methods": list(methods.values()),
                "datasets": datasets | self.datasets,
                "seeds": seeds,
            }
        )

    def start(self, out: Path) -> "Plan":
        """Write the plan into `out`, or join it with the one that is there; gives the plan that holds now.

        Raises HemalumError when `out` holds something else.
        """

        def merge(held: Content) -> Content:
            return self.joined(_validated(out, held), out).model_dump(mode="json")

        return Plan.model_validate(check_manifest(out, KIND, self.model_dump(mode="json"), merge))


def read_plan(out: Path) -> Plan:
    """The plan of the comparison in `out`. Raises HemalumError when it holds none."""
    if not holds_comparison(out):
        raise HemalumError(f"{out}: holds no comparison ({manifest_path(out, KIND).name} is missing)")
    return _validated(out, read_manifest(out, KIND))


def holds_comparison(out: Path) -> bool:
    """Whether `out` is the folder of a comparison."""
    return manifest_path(out, KIND).is_file()


def _validated(out: Path, content: Content) -> Plan:
    try:
        return Plan.model_validate(content)
    except ValidationError as error:
        raise HemalumError(
            f"{manifest_path(out, KIND)}: is not the plan of a comparison ({' '.join(str(error).split())[:160]})"
        ) from error


def plan_methods(word: str, budget: Budget) -> list[Method]:
    """Read `[NAME=]WHAT`: one method, or the variants of a recipe.

    WHAT is a shipped recipe or a recipe file (all its variants, or one as RECIPE:VARIANT), "classical", a model file
    (.safetensors), `model:NAME` for a shipped model, or a folder of label maps made by another program. Several
    variants are called NAME.VARIANT where there is a NAME. Raises HemalumError for anything else.
    """
    name, equals, spec = word.partition("=")
    if not equals or (not re.fullmatch(NAME, name) and Path(word).exists()):  # a path may have an equals sign
        name, spec = "", word
    if not spec:
        raise HemalumError(f"method '{word}': give NAME=METHOD, or METHOD alone")
    if spec == CLASSICAL:
        title = "Otsu on hematoxylin and distance watershed: the floor, not trained"
        return [_method(name or spec, "classical", title, CLASSICAL, CLASSICAL)]
    if spec.startswith("model:") or spec.endswith(".safetensors"):
        from hemalum.models.model import load_model

        source = spec.removeprefix("model:")
        loaded = load_model(source)
        title = f"model {loaded.card.name}, trained elsewhere"
        return [_method(name or Path(source).stem, "model", title, source, loaded.digest)]
    if Path(spec).is_dir():
        title = "label maps made by another program"
        return [_method(name or Path(spec).resolve().name, "labels", title, spec, _content(Path(spec)))]
    recipes = open_recipes(spec, budget)
    single = len(recipes) == 1
    return [
        _method(
            (name or variant) if single else f"{name}.{variant}" if name else variant,
            "recipe",
            recipe.description if single else f"{variant}: {recipe.description}",
            spec if single else f"{spec}:{variant}",
            digest_recipe(recipe),
            recipe.model_dump(mode="json"),
        )
        for variant, recipe in recipes.items()
    ]


def _method(
    name: str, kind: str, title: str, source: str, digest: str, recipe: dict[str, Any] | None = None
) -> Method:
    if not re.fullmatch(NAME, name):
        raise HemalumError(f"method '{name}': a name has letters, digits and _.+- only; give one as NAME={source}")
    return Method.model_validate(
        {"name": name, "kind": kind, "title": title or name, "source": source, "recipe": recipe, "digest": digest}
    )


def _content(folder: Path) -> str:
    """sha256 over the names and bytes of a folder's files: label maps that were written anew are another method."""
    digest = hashlib.sha256()
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        digest.update(f"{path.relative_to(folder).as_posix()}:{path.stat().st_size}:".encode())
        with path.open("rb") as stream:
            digest.update(hashlib.file_digest(stream, "sha256").digest())
    return digest.hexdigest()


def digest_recipe(recipe: Recipe) -> str:
    """Of a recipe, and of the pixels of its unlabeled images, of which it says only where they lie."""
    if not recipe.unlabeled:
        return recipe.digest
    digest = hashlib.sha256(recipe.digest.encode())
    for source in find_unlabeled(recipe.unlabeled, recipe.mpp, recipe.field):
        digest.update(source.sha256.encode())
    return digest.hexdigest()


def one_budget(methods: Sequence[Method], crops: int | None, own_budgets: bool) -> list[Method]:
    """The methods with recipes that all train for one budget under one stop rule.

    With `crops`, every recipe trains for so many crops, up to whole batches, validates ten times and keeps the
    best: phases keep their shares. Without, the recipes have to agree, unless `own_budgets`.
    Raises HemalumError when they do not.
    """
    result, rules = [], {}
    for method in methods:
        if method.recipe is not None:
            recipe = Recipe.model_validate(method.recipe)
            if crops is not None:
                recipe = _with_crops(recipe, crops)
                changed = {"recipe": recipe.model_dump(mode="json"), "digest": digest_recipe(recipe)}
                method = method.model_copy(update=changed)
            rules[method.name] = stop_rule(recipe)
        result.append(method)
    if crops is None and len(set(rules.values())) > 1 and not own_budgets:
        differing = "; ".join(f"{name}: {rule}" for name, rule in rules.items())
        raise HemalumError(
            f"the recipes do not train under one budget ({differing}): give --crops N for all, or --mixed-budgets to "
            "compare them as they are"
        )
    return result


def stop_rule(recipe: Recipe) -> str:
    """A recipe's budget in words: equal for two recipes exactly when they train as long and stop alike."""
    patience = sorted({phase.until.patience or 0 for phase in recipe.phases})
    early = "" if patience == [0] else f", stopped after {'/'.join(map(str, patience))} validations without gain"
    monitors = {"pq": "PQ", "dice": "Dice", "miou": "mIoU", "loss": "loss"}
    by = "/".join(dict.fromkeys(monitors[phase.until.monitor] for phase in recipe.phases))
    epochs = [
        f"{phase.until.epochs:,} epochs of {phase.until.epochs_of} images"
        for phase in recipe.phases
        if phase.until.epochs
    ]
    most = "".join(f"{text}, at most " for text in epochs)
    return (
        f"{most}{counted(recipe.steps * recipe.batch, 'crop')}, the best of the validations (by {by}) every "
        f"{counted(recipe.validate_every * recipe.batch, 'crop')}{early}"
    )


def _with_crops(recipe: Recipe, crops: int) -> Recipe:
    steps = max(len(recipe.phases), round(crops / recipe.batch))
    total, phases, taken = recipe.steps, [], 0
    for index, phase in enumerate(recipe.phases):
        left, until = len(recipe.phases) - index - 1, phase.until
        wanted = max(1, round(steps * until.steps / total))
        share = min(wanted, steps - taken - left) if left or until.total is not None else steps - taken
        taken += share
        change: dict[str, int | None] = {"steps": share, "epochs": None, "patience": None}
        if until.total is not None:  # it takes what the phases before leave
            change |= {"steps": wanted, "total": max(1, round(steps * until.total / total))}
        phases.append(phase.model_copy(update={"until": until.model_copy(update=change)}))
    every = -(-steps // VALIDATIONS)  # rounded up: the end is a validation too, and never the eleventh
    return recipe.model_copy(update={"phases": phases, "validate_every": every})


def plan_data(path: Path, folds: int | None, split: str) -> PlannedData:
    """Describe a dataset as the plan does.

    Raises HemalumError when it cannot be opened, divided or compared on: images without a scale, the same image in
    two parts, an empty part.
    """
    dataset = Dataset.open(path)
    parts = [dataset] if folds is None else [fold_of(dataset, fold, folds) for fold in range(folds)]
    check_scales(dataset)
    _check_copies(dataset, folds)
    for needed in ("train", "val", split) if folds is None else ():
        if not dataset.split(needed).rows:
            raise HemalumError(f"{path}: its {needed} part is empty; import it with other shares, or give --folds")
    return PlannedData(
        path=str(path.resolve()),
        digest=dataset.digest(),
        split_hashes=[part.split_hash for part in parts],
    )


def check_scales(dataset: Dataset) -> None:
    """Raise HemalumError where images of a dataset have no scale."""
    scaleless = [row.id for row in dataset.rows if row.mpp is None]
    if scaleless:
        raise HemalumError(
            f"{dataset.path}: {len(scaleless)} images have no mpp (such as {scaleless[0]}): import it with "
            "--mpp NUMBER or --mpp nuclei"
        )


def _check_copies(dataset: Dataset, folds: int | None) -> None:
    """Refuse a dataset with the same image in two parts, or in two groups that folds may part."""
    first: dict[str, Row] = {}
    for row in dataset.rows:
        other = first.setdefault(row.sha256, row)
        if (row.group != other.group) if folds else (row.split != other.split):
            where = "groups, which folds may part" if folds else f"parts, {other.split} and {row.split}"
            raise HemalumError(
                f"{dataset.path}: {other.id} and {row.id} are the same image in two {where}: remove one and import "
                "again"
            )


def name_datasets(data: Mapping[str, Path | str] | Sequence[Path | str]) -> dict[str, Path]:
    """Datasets by name: as given, or by their own. Raises HemalumError when a name comes twice or has a slash."""
    if isinstance(data, Mapping):
        named = {name: Path(path) for name, path in data.items()}
    else:
        named = {}
        for path in map(Path, data):
            name = Dataset.open(path).info.name
            if name in named:
                raise HemalumError(f"two datasets are called '{name}': give --data NAME=PATH for each")
            named[name] = path
    for name in named:
        if not re.fullmatch(r"[\w.+ -]{1,80}", name) or name.startswith("."):
            raise HemalumError(f"dataset '{name}': a name has letters, digits, spaces and _.+- only; give NAME=PATH")
    if not named:
        raise HemalumError("nothing to compare on: give --data PATH")
    return named
