"""Comparisons: runs, resume, sharing, and everything that is refused before any training."""

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import yaml
from PIL import Image

from builders.trainings import write_short_recipe
from hemalum.data.dataset import Dataset
from hemalum.data.label_pixels import read_label_map
from hemalum.errors import HemalumError
from hemalum.experiments import compare as compare_module
from hemalum.experiments import execute, segmenters
from hemalum.experiments.compare import compare, make_plan
from hemalum.experiments.evaluate import evaluate
from hemalum.experiments.execute import Resources
from hemalum.experiments.plan import one_budget, plan_methods
from hemalum.experiments.records import load_comparison
from hemalum.manifest import write_manifest
from hemalum.metrics import match, measure_overlap
from hemalum.training.recipe import Recipe

CPU = Resources(accelerator="cpu", engine="torch")


@pytest.fixture
def no_cost(monkeypatch: pytest.MonkeyPatch) -> None:
    """Costs are measured in a process of their own, which takes seconds to start."""
    monkeypatch.setattr(compare_module, "measure_cost", lambda *_, **__: {"parameters": 1})


@pytest.fixture(scope="module")
def recipes(recipe: Recipe, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    """Two recipe files, `plain` and `stained`, that train for a moment on any dataset."""
    folder = tmp_path_factory.mktemp("recipes")
    plain = write_short_recipe(folder, recipe, "plain", augment={"stain": 0.0})
    return str(plain), str(write_short_recipe(folder, recipe, "stained", augment={"stain": 0.3}))


@pytest.fixture(scope="module")
def done(recipes: tuple[str, str], mini: Path, dark_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished comparison of two recipes, a model and the floor, over two seeds."""
    out = tmp_path_factory.mktemp("comparison") / "out"
    _, failed = compare([*recipes, f"dark={dark_model}", "classical"], [mini], out, seeds=2, resources=CPU)
    assert not failed
    return out


def test_another_picture_without_labels_is_another_method(recipe: Recipe, tmp_path: Path) -> None:
    """Under the same path; the paths of two recipes alone would say that nothing has changed."""
    folder = tmp_path / "unlabeled"
    folder.mkdir()
    content = recipe.model_dump(mode="json") | {"unlabeled": [{"path": str(folder), "mpp": 0.5}]}
    path = tmp_path / "semi.yaml"
    path.write_text(yaml.safe_dump(content))
    digests = []
    for value in (90, 91, 90):
        Image.fromarray(np.full((40, 40, 3), value, np.uint8)).save(folder / "a.png")
        (method,) = plan_methods(str(path), "full")
        (shortened,) = one_budget([method], 40, False)
        digests.append((method.digest, shortened.digest))
    assert digests[0] == digests[2]
    assert all(a != b for a, b in zip(digests[0], digests[1], strict=True))


def test_every_run_is_there_once(done: Path) -> None:
    comparison = load_comparison(done)
    keys = [(run.method, run.fold, run.seed) for run in comparison.runs]
    assert sorted(keys) == [
        ("classical", 0, 0),
        ("dark", 0, 0),
        ("plain", 0, 1),
        ("plain", 0, 2),
        ("stained", 0, 1),
        ("stained", 0, 2),
    ]
    assert [method.name for method in comparison.methods] == ["plain", "stained", "dark", "classical"]
    assert comparison.description["missing"] == []
    assert "8 crops" in comparison.description["stop_rule"]


def test_a_run_says_what_evaluate_says(done: Path, mini: Path, dark_model: Path) -> None:
    run = next(run for run in load_comparison(done).runs if run.method == "dark")
    alone = evaluate(str(dark_model), mini, engine="torch")
    assert run.summary["instance"]["pooled"]["pq"] == pytest.approx(alone.summary["instance"]["pooled"]["pq"])
    assert [row["dice"] for row in run.per_image] == pytest.approx([row["dice"] for row in alone.per_image])
    assert run.summary["model"] == "dark"


def test_predictions_and_curves_belong_to_the_scores(done: Path, mini: Path) -> None:
    run = next(run for run in load_comparison(done).runs if run.method == "dark")
    test = Dataset.open(mini).split("test")
    tp = pixels = 0
    for sample in test:
        prediction = read_label_map(run.folder / "predictions" / f"{sample.id}.png")
        tp += match(measure_overlap(sample.instances, prediction)).tp
        pixels += prediction.size
    assert run.curves is not None
    nuclei = run.curves["nuclei"]
    assert sum(nuclei["matched"]) == tp > 0
    assert nuclei["truth"] == sum(row["nuclei_truth"] for row in run.per_image)
    assert len(nuclei["probability"]) == sum(row["nuclei_predicted"] for row in run.per_image)
    counted = run.curves["pixel"]
    assert sum(counted["positive"]) + sum(counted["negative"]) == pixels
    assert sum(counted["positive"]) == sum(int((sample.instances > 0).sum()) for sample in test)


def test_costs_are_those_of_the_network(done: Path) -> None:
    runs = {(run.method, run.seed): run for run in load_comparison(done).runs}
    cost = runs["plain", 2].cost
    from hemalum.models.network import build_network

    network = build_network("compact", 2, {"widths": [8, 12, 16], "depths": [0, 1, 1]})
    assert cost["parameters"] == sum(parameter.numel() for parameter in network.parameters())
    assert cost["steps"] == 4
    assert cost["macs"] > 0
    assert cost["latency_ms"] > 0
    assert cost["train_seconds"] == pytest.approx(4 / cost["steps_per_second"])
    assert runs["dark", 0].cost["parameters"] > 0
    assert "parameters" not in runs["classical", 0].cost


def test_seeds_differ(done: Path) -> None:
    runs = done / "runs" / "mini" / "plain"
    one, two = (yaml.safe_load((runs / f"fold0-seed{n}" / "training" / "recipe.yaml").read_text()) for n in (1, 2))
    assert (one.pop("seed"), two.pop("seed")) == (1, 2)
    assert one == two
    assert one["data"] == {"mini": {"weight": 1.0, "balance": None}}


def test_what_is_finished_is_not_run_again(
    done: Path, recipes: tuple[str, str], mini: Path, dark_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(compare_module, "execute_run", _never)
    monkeypatch.setattr(compare_module, "measure_cost", _never)
    comparison, failed = compare([*recipes, f"dark={dark_model}", "classical"], [mini], done, seeds=2, resources=CPU)
    assert len(comparison.runs) == 6
    assert not failed


def _never(*arguments: object, **options: object) -> None:
    raise AssertionError("was run again")


@pytest.mark.usefixtures("no_cost")
def test_a_comparison_grows(recipes: tuple[str, str], mini: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    compare(["classical"], [mini], out, resources=CPU)
    comparison, _ = compare(["plain=" + recipes[0]], {"mini": mini}, out, resources=CPU)
    assert [method.name for method in comparison.methods] == ["classical", "plain"]
    assert len(comparison.runs) == 2


@pytest.mark.fault
def test_labels_corrected_while_a_comparison_runs(mini: Path, tmp_path: Path) -> None:
    corrected = tmp_path / "mini"
    shutil.copytree(mini, corrected)
    plan = make_plan(["classical"], [corrected])
    path = next((corrected / "labels").iterdir())
    Image.fromarray(np.roll(np.asarray(Image.open(path)), 7, axis=0)).save(path)
    with pytest.raises(HemalumError, match="images, labels or split have changed since the comparison was begun"):
        execute.execute_run(plan, plan.methods[0], plan.run_keys[0], tmp_path / "run", CPU)


@pytest.mark.fault
def test_another_comparison_is_refused(done: Path, recipes: tuple[str, str], mini: Path, tmp_path: Path) -> None:
    before = (done / "comparison.yaml").read_bytes()
    with pytest.raises(HemalumError, match="holds another comparison: folds is None there, 2 here"):
        compare([recipes[0]], [mini], done, folds=2)
    with pytest.raises(HemalumError, match="method 'plain' has changed since; give it another name"):
        compare([f"plain={recipes[1]}"], [mini], done)
    with pytest.raises(HemalumError, match="holds another comparison: crops is None there, 40 here"):
        compare([recipes[0]], [mini], done, crops=40)
    corrected = tmp_path / "mini"
    shutil.copytree(mini, corrected)
    path = next((corrected / "labels").iterdir())
    Image.fromarray(np.roll(np.asarray(Image.open(path)), 7, axis=0)).save(path)
    with pytest.raises(HemalumError, match="dataset 'mini', its labels or its split have changed since"):
        compare([recipes[0]], [corrected], done)
    assert (done / "comparison.yaml").read_bytes() == before
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(HemalumError, match="is not empty and holds no comparison"):
        compare([recipes[0]], [mini], tmp_path)
    with pytest.raises(HemalumError, match=r"notes.txt: is a file; name a folder"):
        compare([recipes[0]], [mini], tmp_path / "notes.txt")


@pytest.mark.usefixtures("no_cost")
def test_an_interrupted_training_goes_on(
    recipes: tuple[str, str], mini: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    entire, _ = compare([recipes[0]], [mini], tmp_path / "whole", resources=CPU)

    def stopped(*arguments: object, **options: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(execute, "evaluate", stopped)
        with pytest.raises(KeyboardInterrupt):
            compare([recipes[0]], [mini], tmp_path / "cut", resources=CPU)
    steps: list[int] = []
    cut, _ = compare(
        [recipes[0]],
        [mini],
        tmp_path / "cut",
        resources=CPU,
        on_progress=lambda progress: steps.append(progress.step),
    )
    assert steps == [0]  # the training was over
    assert cut.runs[0].per_image[0]["dice"] == entire.runs[0].per_image[0]["dice"]


@pytest.mark.usefixtures("no_cost")
def test_a_run_that_fails_is_named_and_the_others_go_on(
    recipes: tuple[str, str], mini: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real: Callable[..., None] = compare_module.execute_run

    def some_fail(plan: object, method: object, *arguments: object) -> None:
        if method.name == "plain":  # type: ignore[attr-defined]
            raise HemalumError("the loss is not finite")
        real(plan, method, *arguments)

    monkeypatch.setattr(compare_module, "execute_run", some_fail)
    comparison, failed = compare([*recipes, "classical"], [mini], tmp_path / "out", resources=CPU)
    assert {run.method for run in comparison.runs} == {"stained", "classical"}
    assert failed == [(("mini", "plain", 0, 1), "the loss is not finite")]
    key = {"dataset": "mini", "method": "plain", "fold": 0, "seed": 1}
    assert comparison.description["missing"] == [key | {"reason": "the loss is not finite"}]
    monkeypatch.setattr(compare_module, "execute_run", real)
    mended, failed = compare([*recipes, "classical"], [mini], tmp_path / "out", resources=CPU)
    assert not failed
    assert mended.description["missing"] == []


def test_an_error_that_nobody_foresaw_ends_one_run_only(
    mini: Path, dark_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(compare_module, "measure_cost", lambda *_, **__: {"parameters": 1})
    monkeypatch.setattr(segmenters, "segment_with_scores", _out_of_memory)
    comparison, failed = compare([f"dark={dark_model}", "classical"], [mini], tmp_path / "out", resources=CPU)
    assert [run.method for run in comparison.runs] == ["classical"]
    assert [reason for _, reason in failed] == ["RuntimeError: out of memory"]


def _out_of_memory(*arguments: object, **options: object) -> None:
    raise RuntimeError("out of\nmemory")


def test_a_run_that_another_process_is_at_is_waited_for(
    mini: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, waits = tmp_path / "out", []
    folder = out / "runs" / "mini" / "classical" / "fold0-seed0"
    folder.mkdir(parents=True)
    holder = "import sys, filelock\nwith filelock.FileLock(sys.argv[1]):\n    print('held', flush=True)\n    input()"
    command = [sys.executable, "-c", holder, str(folder / ".lock")]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"

    def sleep(seconds: float) -> None:
        waits.append(seconds)
        process.communicate("\n", timeout=60)

    monkeypatch.setattr(compare_module, "time", SimpleNamespace(sleep=sleep))
    write_manifest(out, "comparison", make_plan(["classical"], [mini]).model_dump(mode="json"))
    comparison, _ = compare(["classical"], [mini], out, resources=CPU)
    assert waits == [compare_module.POLL]
    assert len(comparison.runs) == 1


@pytest.mark.fault
def test_test_images_are_segmented_at_the_scale_that_is_asked_for(
    mini: Path, dark_model: Path, tmp_path: Path, no_cost: None
) -> None:
    """The dataset says 0.5 µm/px, which may come from the true nuclei; a user's image says nothing."""
    used = {}
    for mpp in (None, 0.8, "auto"):
        comparison, failed = compare([f"dark={dark_model}"], [mini], tmp_path / str(mpp), mpp=mpp, resources=CPU)
        assert not failed
        used[mpp] = {row["mpp_used"] for row in comparison.runs[0].per_image}
        assert comparison.runs[0].summary["mpp"] == ("per image" if mpp is None else mpp)
    assert used[None] == {0.5}
    assert used[0.8] == {0.8}
    assert used["auto"] != {0.5}
    with pytest.raises(HemalumError, match=r"mpp"):
        compare([f"dark={dark_model}"], [mini], tmp_path / "None", mpp=0.8, resources=CPU)
    with pytest.raises(HemalumError, match=r"^mpp estimate: want 'auto', or µm per pixel between 0.01 and 100$"):
        make_plan([f"dark={dark_model}"], [mini], mpp="estimate")


def test_folds_are_scored_apart(mini: Path, tmp_path: Path) -> None:
    comparison, _ = compare(["classical"], [mini], tmp_path / "out", folds=3, resources=CPU)
    ids = [row["id"] for run in comparison.runs for row in run.per_image]
    assert sorted(ids) == sorted(row.id for row in Dataset.open(mini).rows)


@pytest.mark.fault
def test_label_maps_of_another_program(done: Path, mini: Path, tmp_path: Path) -> None:
    predictions = done / "runs" / "mini" / "dark" / "fold0-seed0" / "predictions"
    comparison, _ = compare([f"other={predictions}"], [mini], tmp_path / "out", resources=CPU)
    dark = next(run for run in load_comparison(done).runs if run.method == "dark")
    assert comparison.runs[0].summary["instance"] == dark.summary["instance"]
    assert comparison.runs[0].curves is None
    first = next(predictions.glob("*.png"))
    pixels = first.read_bytes()
    first.write_bytes(pixels + b"anything")
    with pytest.raises(HemalumError, match="method 'other' has changed since"):
        compare([f"other={predictions}"], [mini], tmp_path / "out")
    first.rename(tmp_path / "away.png")
    with pytest.raises(HemalumError, match="no label map for 1 of"):
        compare([f"other={predictions}"], [mini], tmp_path / "second")
    assert not (tmp_path / "second").exists()


@pytest.mark.fault
def test_mistakes_are_found_before_any_training(
    recipes: tuple[str, str], mini: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(compare_module, "execute_run", _never)
    plain = recipes[0]
    out = tmp_path / "out"
    for methods, options, message in (
        ([], {}, "nothing to compare: name recipes"),
        (["unett"], {}, "no recipe file and no shipped recipe 'unett', did you mean 'unet'"),
        ([plain, plain], {}, "two methods are called 'plain': give one as NAME=plain"),
        ([plain, f"Plain={plain}"], {}, "two methods are called 'plain'"),
        (["a/b=" + plain], {}, "method 'a/b': a name has letters"),
        (["a="], {}, "method 'a=': give NAME=METHOD"),
        ([plain], {"seeds": 0}, "seeds 0: want 1 to 1000"),
        ([plain], {"crops": 0}, "crops 0: want at least one"),
        ([plain], {"split": "train"}, "split 'train': a comparison is scored on test"),
        ([plain], {"folds": 9}, "5 groups .* cannot be divided into 9 folds"),
        ([plain, "unet"], {}, "do not train under one budget .* give `crops` N"),
    ):
        with pytest.raises(HemalumError, match=message):
            compare(methods, [mini], out, **options)  # type: ignore[arg-type]
    with pytest.raises(HemalumError, match="two datasets are called 'mini'"):
        compare([plain], [mini, mini], out)
    with pytest.raises(HemalumError, match="no such dataset folder"):
        compare([plain], {"x": tmp_path / "none"}, out)
    assert not out.exists()


@pytest.mark.fault
def test_the_same_image_in_two_parts_is_refused(mini: Path, tmp_path: Path) -> None:
    copied = tmp_path / "mini"
    shutil.copytree(mini, copied)
    lines = (copied / "index.csv").read_text().splitlines()
    rows = [line.split(",") for line in lines]
    sha, split = rows[0].index("sha256"), rows[0].index("split")
    train = next(row for row in rows if row[split] == "train")
    test = next(row for row in rows if row[split] == "test")
    test[sha] = train[sha]
    (copied / "index.csv").write_text("\n".join(",".join(row) for row in rows) + "\n")
    with pytest.raises(HemalumError, match="are the same image in two parts, "):
        make_plan(["classical"], [copied])
    with pytest.raises(HemalumError, match="are the same image in two groups, which folds may part"):
        make_plan(["classical"], [copied], folds=3)


def test_crops_make_one_budget(recipes: tuple[str, str]) -> None:
    methods = one_budget([*plan_methods(recipes[0], "full"), *plan_methods("unet", "full")], 320, False)
    plain, unet = (Recipe.model_validate(method.recipe) for method in methods)
    assert (plain.steps * plain.batch, unet.steps * unet.batch) == (320, 320)
    assert (plain.validate_every, unet.validate_every) == (16, 2)


@pytest.mark.parametrize("crops", [20_000, 10_000, 3_000])
def test_crops_make_one_budget_for_batches_that_do_not_divide_them(crops: int) -> None:
    names = ("unet", "fast", "two_stage:unet")  # batches of 16, 32 and 8
    methods = one_budget([method for name in names for method in plan_methods(name, "full")], crops, False)
    for recipe in (Recipe.model_validate(method.recipe) for method in methods):
        assert abs(recipe.steps * recipe.batch - crops) <= recipe.batch / 2
        assert -(-recipe.steps // recipe.validate_every) == 10  # the last step is validated as well


def test_crops_keep_the_shares_of_phases(recipe: Recipe) -> None:
    from hemalum.experiments.plan import _with_crops

    short = _with_crops(recipe, 36)  # phases of 5 and 4 steps, batches of 2
    assert [phase.until.steps for phase in short.phases] == [10, 8]
    least = _with_crops(recipe, 1)
    assert [phase.until.steps for phase in least.phases] == [1, 1]


def test_ids_beyond_16_bits_are_made_small(tmp_path: Path) -> None:
    labels = np.array([[0, 70_000], [70_000, 90_001]])
    execute.write_label_map(tmp_path / "a.png", labels)
    assert read_label_map(tmp_path / "a.png").tolist() == [[0, 1], [1, 2]]


@pytest.mark.fault
def test_files_that_were_damaged_are_named(done: Path, tmp_path: Path) -> None:
    with pytest.raises(HemalumError, match="holds no comparison"):
        load_comparison(tmp_path)
    summary = done / "runs" / "mini" / "classical" / "fold0-seed0" / "summary.json"
    text = summary.read_text()
    try:
        summary.write_text("{")
        with pytest.raises(HemalumError, match=r"summary.json: cannot be read .* remove its run's folder"):
            load_comparison(done)
    finally:
        summary.write_text(text)
    record = summary.with_name("run.json")
    text_of_run = record.read_text()
    try:
        record.write_text("{}")
        with pytest.raises(HemalumError, match=r"run.json: says no cost; remove its run's folder and run again"):
            load_comparison(done)
    finally:
        record.write_text(text_of_run)
    assert json.loads(text)["model"] == "classical"
