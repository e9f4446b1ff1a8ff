"""How long the trainings of comparisons will take, said before the first of them."""

import logging
from collections.abc import Sequence
from pathlib import Path

from hemalum.errors import counted, duration_text
from hemalum.experiments.plan import Plan
from hemalum.experiments.records import cost_file, is_finished, read_json
from hemalum.training.recipe import Recipe

log = logging.getLogger(__name__)


def log_duration(plans: Sequence[tuple[Plan, Path]]) -> None:
    """Log how many runs of plans, each with its folder, are left, and how long their trainings take.

    An estimate: the steps of each recipe times the seconds of its step, as its cost was measured.
    """
    runs = trainings = steps = 0
    seconds = 0.0
    unknown: dict[str, None] = {}
    for plan, out in plans:
        methods = {method.name: method for method in plan.methods}
        for key in plan.run_keys:
            if is_finished(key.folder(out)):
                continue
            runs += 1
            recipe = methods[key.method].recipe
            if recipe is None:
                continue
            step = read_json(cost_file(out, key.method)).get("step_seconds")
            if not isinstance(step, int | float):  # measured by an earlier version
                unknown[key.method] = None
                continue
            count = Recipe.model_validate(recipe).steps
            trainings, steps, seconds = trainings + 1, steps + count, seconds + count * step
    if trainings:
        log.info(
            "%s to do, with %s of %s in all: about %s here, estimated from one measured step of each method; "
            "validations and tests add to it, early stops take from it",
            counted(runs, "run"), counted(trainings, "training"), counted(steps, "step"), duration_text(seconds),
        )  # fmt: skip
    elif runs:
        log.info("%s to do, none of them a training", counted(runs, "run"))
    if unknown:
        log.info("how long the trainings of %s take is not known", ", ".join(unknown))
