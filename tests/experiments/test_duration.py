"""How long trainings take is said before the first one, for all comparisons at once."""

import json
import logging
from pathlib import Path

import pytest
import torch

from builders.trainings import write_short_recipe
from hemalum.errors import HemalumError
from hemalum.experiments import compare as compare_module
from hemalum.experiments import cost
from hemalum.experiments.compare import begin_plan, compare, make_plan
from hemalum.experiments.duration import log_duration
from hemalum.experiments.execute import Resources
from hemalum.experiments.plan import Plan
from hemalum.experiments.records import RUN_FILE
from hemalum.training.building import build_for
from hemalum.training.data_spec import DataSpec
from hemalum.training.recipe import Recipe

ESTIMATE = (
    "here, estimated from one measured step of each method; validations and tests add to it, early stops take from it"
)
SECONDS = {"plain": 3600.0, "stained": 60.0}


@pytest.fixture
def plan(recipe: Recipe, mini: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Plan:
    """Two recipes of four steps and the floor, over two seeds; a step takes an hour or a minute."""
    methods = [str(write_short_recipe(tmp_path, recipe, name, augment={"stain": 0.1})) for name in SECONDS]
    monkeypatch.setattr(compare_module, "measure_cost", lambda one, **_: {"step_seconds": SECONDS[one.name]})
    return make_plan([*methods, "classical"], [mini], seeds=2)


def line_of(caplog: pytest.LogCaptureFixture) -> str:
    (line,) = [record.message for record in caplog.records if "to do" in record.message]
    return line


def test_the_time_of_all_trainings(plan: Plan, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    begun = [(begin_plan(plan, tmp_path / name, Resources()), tmp_path / name) for name in ("paper", "groups")]
    log_duration(begun)
    hours = f"{2 * 2 * 4 * (3600 + 60) // 3600} h 16 min"
    assert line_of(caplog) == f"10 runs to do, with 8 trainings of 32 steps in all: about {hours} {ESTIMATE}"
    caplog.clear()
    for key in plan.run_keys:
        for _, out in begun[: 1 if key.method == "stained" else 2]:
            key.folder(out).mkdir(parents=True)
            (key.folder(out) / RUN_FILE).write_text("{}")
    log_duration(begun)  # what is finished is not counted
    assert line_of(caplog) == f"2 runs to do, with 2 trainings of 8 steps in all: about 8 min 00 s {ESTIMATE}"


def test_without_trainings_no_time_is_made_up(mini: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    plan = begin_plan(make_plan(["classical"], [mini]), tmp_path, Resources())
    log_duration([(plan, tmp_path)])
    assert line_of(caplog) == "1 run to do, none of them a training"


@pytest.mark.fault
def test_what_was_not_measured_is_named(plan: Plan, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    out = tmp_path / "out"
    begun = begin_plan(plan, out, Resources())
    (out / "costs" / "plain.json").write_text(json.dumps({"parameters": 1}))
    log_duration([(begun, out)])
    assert line_of(caplog).startswith("5 runs to do, with 2 trainings of 8 steps in all: about 8 min 00 s")
    assert "how long the trainings of plain take is not known" in caplog.text


def test_it_is_said_before_the_first_training(
    plan: Plan, mini: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    lines: list[str] = []

    def train(*_: object) -> None:
        lines.append(line_of(caplog))
        raise HemalumError("no training here")

    monkeypatch.setattr(compare_module, "execute_run", train)
    compare([str(tmp_path / "plain.yaml")], [mini], tmp_path / "out", resources=Resources())
    assert lines == [f"1 run to do, with 1 training of 4 steps in all: about 4 h 00 min {ESTIMATE}"]


def test_a_step_is_the_mean_over_the_steps_of_all_phases(recipe: Recipe, monkeypatch: pytest.MonkeyPatch) -> None:
    one = recipe.phases[0]
    phases = [
        one.model_copy(update={"name": name, "train": train, "until": one.until.model_copy(update={"steps": steps})})
        for name, train, steps in (("all", one.train, 1), ("head", ("head.*",), 3), ("again", one.train, 4))
    ]
    clock = iter([0.0, 2.0, 10.0, 16.0])  # 2 s a step of all, 6 s one of the head
    monkeypatch.setattr(cost, "_now", lambda _: next(clock))
    changed = recipe.model_copy(update={"phases": phases})
    network = build_for(changed, DataSpec())[0]
    _, seconds = cost._train_a_moment(changed, DataSpec(), network, torch.device("cpu"))
    assert seconds == pytest.approx((1 * 2 + 3 * 6 + 4 * 2) / 8)
