"""Published figures beside ours: both protocols, what is refused, and what the report says."""

import csv
import logging
import math
import shutil
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from builders.papers import MINI_PAPER
from builders.trainings import write_short_recipe
from hemalum.data.dataset import Dataset, write_index, write_sample
from hemalum.data.importing import import_dataset
from hemalum.errors import HemalumError
from hemalum.experiments import compare as compare_module
from hemalum.experiments.execute import Resources
from hemalum.experiments.papers import load_paper
from hemalum.experiments.plan import RunKey
from hemalum.experiments.records import load_comparison
from hemalum.experiments.reproduce import Reproduction, reproduce
from hemalum.experiments.reproduced_tables import NOT_YET, Line
from hemalum.reports.reproduction import published_grid, write_reproduction
from hemalum.training import recipe as shipped
from hemalum.training.recipe import Recipe

CPU = Resources(accelerator="cpu", engine="torch")

PAPER = f"""{MINI_PAPER}
  hidden:
    title: ten images and secret ones
    formats: [combined]
    get: not public
    private: true
    stand_in: mini
    split: {{by: image, fractions: [0.6, 0.2, 0.2], tag: unknown}}
  far:
    title: not at hand
    formats: [tnbc]
    get: hemalum import tnbc SRC data/far
    split: {{by: group, fractions: [0.6, 0.2, 0.2], tag: unknown}}
protocol:
  averaging: {{statement: all pixels together, tag: derived}}
  optimizer: {{statement: "SGD, 0.1", tag: stated}}
  batch: {{statement: not said, reading: "8", tag: unknown}}
tables:
  - id: main
    title: Comparison
    averaging: pooled
    columns:
      - {{name: Dice (%), dataset: mini, metric: pixel.dice, scale: 100}}
      - {{name: IoU, dataset: mini, metric: pixel.iou}}
      - {{name: parameters (k), metric: cost.parameters, scale: 0.001}}
      - {{name: mood, dataset: mini}}
      - {{name: Dice, dataset: hidden, metric: pixel.dice}}
      - {{name: Dice, dataset: far, metric: pixel.dice}}
    rows:
      - {{method: U-Net, values: [81.50, .690, 31.0, 5, ~, .80], sd: [0.40, ~, ~, ~, ~, ~], recipe: plain}}
      - {{method: Best, values: [99.0, .98, 2, 9, .97, .96], note: too good, averaging: per_image}}
  - id: other
    title: Nothing to run
    averaging: pooled
    columns: [{{name: Dice, dataset: mini, metric: pixel.dice}}]
    rows: [{{method: Best, values: [.97]}}]
"""


@pytest.fixture(scope="module")
def paper(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("paper") / "paper.yaml"
    path.write_text(PAPER)
    return path


@pytest.fixture(scope="module")
def shelf(recipe: Recipe, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A recipe "plain" among the shipped ones; costs are not measured, which takes a process of its own."""
    folder = tmp_path_factory.mktemp("recipes")
    write_short_recipe(folder, recipe, "plain")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(shipped, "_SHIPPED", folder)
        patch.setattr(compare_module, "measure_cost", lambda *_, **__: {"parameters": 12_345})
        yield folder


@pytest.fixture(scope="module")
def done(paper: Path, shelf: Path, mini: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Reproduction, Path]:
    out = tmp_path_factory.mktemp("reproduction") / "out"
    return reproduce(paper, "main", data={"mini": mini}, out=out, seeds=2, resources=CPU), out


def refuse(*_args: object, **_kept: object) -> None:
    raise AssertionError("training was begun")


def lines_of(reproduction: Reproduction, dataset: str) -> dict[tuple[str, str], Line]:
    ((_, parts),) = reproduction.tables
    (part,) = (part for part in parts if part.dataset == dataset)
    return {(line.row.method, line.column.name): line for line in part.lines}


@pytest.mark.slow
def test_the_two_protocols_divide_the_same_images_differently(done: tuple[Reproduction, Path], mini: Path) -> None:
    _, out = done
    original, imitated = Dataset.open(mini), Dataset.open(out / "data" / "mini")
    assert load_comparison(out / "group_split" / "mini").description["datasets"]["mini"]["split_hashes"] == [
        original.split_hash
    ]
    assert load_comparison(out / "paper" / "mini").description["datasets"]["mini"]["split_hashes"] == [
        imitated.split_hash
    ]
    parts = defaultdict(set)
    for row in imitated.rows:
        parts[row.group].add(row.split)
    assert any(len(splits) > 1 for splits in parts.values())  # by image: a group on both sides
    assert [row.sha256 for row in original.rows] == [row.sha256 for row in imitated.rows]
    assert (imitated[0].instances == original[0].instances).all()


@pytest.mark.slow
def test_ours_are_the_averages_that_each_protocol_asks_for(done: tuple[Reproduction, Path]) -> None:
    reproduction, out = done
    lines = lines_of(reproduction, "mini")
    for protocol, averaging in (("paper", "pooled"), ("group_split", "per_image")):
        summaries = [run.summary["pixel"][averaging] for run in load_comparison(out / protocol / "mini").runs]
        assert len(summaries) == 2
        first, second = (100 * summary["dice"] for summary in summaries)
        value = getattr(lines["U-Net", "Dice (%)"], protocol)
        assert value.mean == pytest.approx((first + second) / 2)
        assert value.sd == pytest.approx(abs(first - second) / math.sqrt(2))
        assert value.runs == 2
        iou = getattr(lines["U-Net", "IoU"], protocol)
        assert iou.mean == pytest.approx(sum(summary["iou"] for summary in summaries) / 2)
    assert lines["U-Net", "parameters (k)"].group_split.mean == pytest.approx(12.345)


@pytest.mark.slow
def test_what_was_not_run_says_why(done: tuple[Reproduction, Path]) -> None:
    reproduction, _ = done
    lines = lines_of(reproduction, "mini")
    assert lines["Best", "IoU"].status == NOT_YET
    assert lines["U-Net", "mood"].status == "not measured here"
    assert lines["U-Net", "mood"].group_split is None
    assert lines_of(reproduction, "far")["U-Net", "Dice"].status == "needs far: hemalum import tnbc SRC data/far"


@pytest.mark.slow
def test_a_private_set_is_run_on_its_public_part(done: tuple[Reproduction, Path]) -> None:
    reproduction, _ = done
    ((_, parts),) = reproduction.tables
    hidden = parts[1]
    assert (hidden.dataset, hidden.run_on) == ("hidden", "mini")
    line = lines_of(reproduction, "hidden")["U-Net", "Dice"]
    assert line.printed is None
    assert line.paper.mean == pytest.approx(lines_of(reproduction, "mini")["U-Net", "Dice (%)"].paper.mean / 100)
    assert "the public part alone" in hidden.differences[0].group_split


def test_ones_own_set_takes_the_place_of_a_private_one(
    paper: Path, shelf: Path, mini: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A row that is printed on a private set is run on a combined one where that is given."""
    shutil.copytree(mini, tmp_path / "src" / "public")
    pairs, data = tmp_path / "src" / "pairs", Dataset.open(mini)
    pairs.mkdir()
    samples = (replace(sample, image=255 - sample.image) for sample in data)  # the same image in two parts is refused
    write_index(pairs, data.info, [write_sample(pairs, sample) for sample in samples])
    combined = import_dataset("combined", tmp_path / "src", tmp_path / "both", split=(0.6, 0.2, 0.2)).path
    monkeypatch.setattr(compare_module, "execute_run", refuse)
    result = reproduce(paper, "main", data={"hidden": combined}, out=tmp_path / "out", resources=CPU)
    assert {reason for _, reason in result.failed} == {"AssertionError: training was begun"}
    assert Dataset.open(tmp_path / "out" / "data" / "hidden").rows[0].id.startswith("pairs_")
    ((_, parts),) = result.tables
    assert [(part.dataset, part.run_on) for part in parts][:2] == [("mini", "mini"), ("hidden", "hidden")]
    assert "your own in the place of the private part" in parts[1].differences[0].group_split


def test_the_time_of_both_protocols_is_said_before_the_first_training(
    paper: Path,
    shelf: Path,
    mini: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO)
    monkeypatch.setattr(compare_module, "measure_cost", lambda *_, **__: {"step_seconds": 90.0})
    monkeypatch.setattr(compare_module, "execute_run", refuse)
    reproduce(paper, "main", data={"mini": mini}, out=tmp_path / "out", seeds=3, resources=CPU)
    lines = [record.message for record in caplog.records]
    (first,) = [number for number, line in enumerate(lines) if "to do" in line]
    assert lines[first].startswith(
        "6 runs to do, with 6 trainings of 24 steps in all: about 36 min 00 s here, estimated"
    )
    assert first < min(number for number, line in enumerate(lines) if "training was begun" in line)


@pytest.mark.slow
def test_every_difference_of_protocol_is_listed(done: tuple[Reproduction, Path]) -> None:
    reproduction, _ = done
    ((_, parts),) = reproduction.tables
    listed = {one.choice: one for one in parts[0].differences}
    assert list(listed) == ["data", "split", "averaging", "optimizer", "batch", "budget", "runs"]
    assert listed["split"].paper.startswith("by image, 6/2/2, hash ")
    assert listed["split"].group_split.startswith("by patient, ")
    assert "copies on both sides" in listed["split"].published
    assert (listed["averaging"].paper, listed["averaging"].group_split) == ("pooled", "per_image")
    assert listed["optimizer"].published == "SGD, 0.1"
    assert listed["optimizer"].group_split.startswith("adamw, ")
    assert listed["runs"].group_split == "2"
    assert "8 crops" in listed["budget"].group_split


@pytest.mark.slow
def test_the_report_has_three_columns(done: tuple[Reproduction, Path], tmp_path: Path) -> None:
    reproduction, _ = done
    files = write_reproduction(reproduction, tmp_path, "hemalum reproduce paper main")
    assert [path.name for path in files] == ["report.html", "report.md", "results.csv", "protocol.csv"]
    text = (tmp_path / "report.md").read_text()
    assert "| method | figure | published | ours, the paper's protocol | ours, split by group |" in text
    (line,) = [line for line in text.splitlines() if line.startswith("| U-Net | Dice (%)")]
    assert "| 81.50 ± 0.40 |" in line
    assert line.count("(2 runs)") == 2
    assert "| Best \\[1\\] | IoU | 0.98 | not yet run here |" in text
    assert "\\[1\\] Best: too good." in text
    assert "What each row was given here; mini" in text
    assert any(line.startswith("| U-Net | RGB") and "| none | crops of " in line for line in text.splitlines())
    page = (tmp_path / "report.html").read_text()
    assert "hemalum reproduce paper main" in page
    assert page.count("<table>") == 7  # three datasets, rows and protocols of the two that were run
    with (tmp_path / "results.csv").open() as stream:
        rows = list(csv.DictReader(stream))
    (row,) = [row for row in rows if (row["method"], row["figure"]) == ("U-Net", "Dice (%)")]
    assert float(row["group_split"]) == lines_of(reproduction, "mini")["U-Net", "Dice (%)"].group_split.mean
    assert (row["published"], row["paper_averaging"]) == ("81.50", "pooled")
    assert (row["input"][:3], row["stain_normalization"]) == ("RGB", "none")
    assert "group_split" in (tmp_path / "protocol.csv").read_text()


@pytest.mark.fault
@pytest.mark.slow
def test_what_is_finished_is_not_run_again(
    done: tuple[Reproduction, Path],
    paper: Path,
    shelf: Path,
    mini: Path,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    reproduction, out = done
    monkeypatch.setattr(compare_module, "execute_run", refuse)
    again = reproduce(paper, "main", data=[mini], out=out, seeds=2, resources=CPU)
    assert again.tables == reproduction.tables
    with pytest.raises(HemalumError, match="holds another reproduction: budget is full there, small here"):
        reproduce(paper, "main", data={"mini": mini}, out=out, budget="small", resources=CPU)
    other = tmp_path / "other.yaml"
    other.write_text(PAPER)
    with pytest.raises(HemalumError, match="holds another reproduction: paper is paper there, other here"):
        reproduce(other, "main", data={"mini": mini}, out=out, resources=CPU)


# what is refused before any training


@pytest.mark.fault
@pytest.mark.parametrize(
    ("table", "names", "message"),
    [
        ("main", [], "needs data: `data` NAME=PATH .mini: hemalum import folder.*far: hemalum import tnbc"),
        ("main", ["minni"], "paper has no dataset 'minni', did you mean 'mini'"),
        ("main", ["hidden"], "'hidden' of paper is private; give mini=PATH"),
        ("main", ["far"], "was imported as folder, far of paper is tnbc: hemalum import tnbc"),
        ("mian", ["mini"], "paper has no table 'mian', did you mean 'main'"),
        ("other", ["mini"], "paper other: no row has a recipe yet"),
    ],
)
def test_what_is_refused(
    paper: Path,
    shelf: Path,
    mini: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    table: str,
    names: list[str],
    message: str,
) -> None:
    monkeypatch.setattr(compare_module, "execute_run", refuse)
    with pytest.raises(HemalumError, match=message):
        reproduce(paper, table, data=dict.fromkeys(names, mini), out=tmp_path / "out", resources=CPU)
    assert not (tmp_path / "out").exists()


@pytest.mark.fault
def test_a_folder_with_something_else_is_refused(paper: Path, shelf: Path, mini: Path, tmp_path: Path) -> None:
    (tmp_path / "comparison.yaml").write_text("")
    with pytest.raises(HemalumError, match="is not empty and holds no reproduction"):
        reproduce(paper, "main", data={"mini": mini}, out=tmp_path, resources=CPU)


@pytest.mark.fault
def test_data_that_no_row_runs_on_is_refused(shelf: Path, mini: Path, tmp_path: Path) -> None:
    with pytest.raises(HemalumError, match="al_net dsb2018 has nothing to run on 'etis'; it runs on dsb2018"):
        reproduce("al_net", "dsb2018", data={"etis": mini}, out=tmp_path / "out", resources=CPU)


GAINS = f"""{MINI_PAPER}
protocol:
  averaging: {{statement: all pixels together, tag: derived}}
tables:
  - id: gains
    title: Ours less theirs
    averaging: pooled
    columns:
      - {{name: Dice 1/2, dataset: mini, metric: pixel.dice, scale: 100, variant: "2"}}
      - {{name: Dice 1/1, dataset: mini, metric: pixel.dice, scale: 100, variant: "1"}}
    rows:
      - {{method: ours − theirs, values: [+1.5, ~], recipe: "pair:ours_{{}}", minus: "pair:theirs_{{}}"}}
"""


@pytest.mark.slow
def test_differences_are_taken_run_by_run(shelf: Path, recipe: Recipe, mini: Path, tmp_path: Path) -> None:
    paper = tmp_path / "gains.yaml"
    paper.write_text(GAINS)
    table = load_paper(paper).table("gains")
    assert table.recipes == ["pair:ours_2", "pair:theirs_2"]  # nothing is printed at 1/1
    assert published_grid(table).rows[0].values[-1] == "recipe pair:ours_{} − pair:theirs_{}"
    content = yaml.safe_load((shelf / "plain.yaml").read_text()) | {"name": "pair"}
    variants = {f"{who}_{n}": {"clip": clip} for who, clip in (("ours", 1.0), ("theirs", 0.1)) for n in (1, 2)}
    (shelf / "pair.yaml").write_text(yaml.safe_dump(content | {"variants": variants}))
    out = tmp_path / "out"
    reproduction = reproduce(paper, data={"mini": mini}, out=out, seeds=2, resources=CPU)
    lines = lines_of(reproduction, "mini")
    assert lines["ours − theirs", "Dice 1/1"].status == "not printed"
    runs = {
        (run.method, run.seed): 100 * run.summary["pixel"]["pooled"]["dice"]
        for run in load_comparison(out / "paper" / "mini").runs
    }
    seeds = sorted({seed for _, seed in runs})
    each = [runs["pair.ours_2", seed] - runs["pair.theirs_2", seed] for seed in seeds]
    value = lines["ours − theirs", "Dice 1/2"].paper
    assert value.mean == pytest.approx(sum(each) / 2)
    assert value.sd == pytest.approx(abs(each[0] - each[1]) / math.sqrt(2))


TWO_SETS = f"""{MINI_PAPER}
  twin:
    title: ten images again
    formats: [folder]
    get: by hand
    split: {{by: image, fractions: [0.6, 0.2, 0.2], tag: unknown}}
protocol:
  averaging: {{statement: all pixels together, tag: derived}}
  optimizer: {{statement: not said, tag: unknown}}
tables:
  - id: main
    title: Each set by its own recipe
    averaging: pooled
    columns:
      - {{name: Dice, dataset: mini, metric: pixel.dice, variant: mini}}
      - {{name: Dice, dataset: twin, metric: pixel.dice, variant: twin}}
    rows:
      - {{method: own, values: [.8, .7], recipe: "of_{{}}"}}
      - {{method: shared, values: [~, ~], recipe: plain}}
  - id: twin_only
    title: On one set
    averaging: pooled
    columns: [{{name: IoU, dataset: twin, metric: pixel.iou}}]
    rows: [{{method: other, values: [.6], recipe: "other"}}]
"""


@pytest.fixture
def two_sets(shelf: Path, tmp_path: Path) -> Path:
    content = yaml.safe_load((shelf / "plain.yaml").read_text())
    for name in ("of_mini", "of_twin", "other"):
        (shelf / f"{name}.yaml").write_text(yaml.safe_dump(content | {"name": name}))
    path = tmp_path / "two_sets.yaml"
    path.write_text(TWO_SETS)
    return path


def test_each_dataset_trains_only_the_recipes_of_its_columns(
    two_sets: Path, mini: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def fail(*_args: object, **_kept: object) -> None:
        raise HemalumError("not in this test")

    monkeypatch.setattr(compare_module, "execute_run", fail)
    reproduction = reproduce(two_sets, data={"mini": mini, "twin": mini}, out=tmp_path / "out", resources=CPU)
    assert [name for name, _ in reproduction.failed] == [
        f"{protocol}: {dataset}/{method}/0/1"
        for protocol in ("paper", "group_split")
        for dataset, methods in (("mini", ["of_mini", "plain"]), ("twin", ["of_twin", "plain", "other"]))
        for method in methods
    ]
    assert list(reproduction.description["paper"]) == ["mini", "twin"]


@pytest.mark.slow
def test_a_dataset_that_is_added_joins_those_that_were_run(
    two_sets: Path, mini: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    first = reproduce(two_sets, "main", data={"mini": mini}, out=out, resources=CPU)
    assert lines_of(first, "mini")["own", "Dice"].group_split is not None
    assert lines_of(first, "twin")["own", "Dice"].status == "needs twin: by hand"
    execute_run: Callable[..., None] = compare_module.execute_run
    ran: list[tuple[str, str]] = []

    def noted(plan: Any, method: Any, key: RunKey, *args: Any) -> None:
        ran.append((key.dataset, key.method))
        execute_run(plan, method, key, *args)

    monkeypatch.setattr(compare_module, "execute_run", noted)
    both = reproduce(two_sets, "main", data={"twin": mini}, out=out, resources=CPU)
    assert ran == [("twin", "of_twin"), ("twin", "plain")] * 2
    assert lines_of(both, "mini") == lines_of(first, "mini")
    for method, recipe in (("own", "of_twin"), ("shared", "plain")):
        (run,) = [c for c in load_comparison(out / "paper" / "twin").runs if c.method == recipe]
        assert lines_of(both, "twin")[method, "Dice"].paper.mean == run.summary["pixel"]["pooled"]["dice"]
    # a row that nobody has run on the data of an earlier command says so
    all_tables = reproduce(two_sets, data={"mini": mini}, out=out, resources=CPU)
    (line,) = all_tables.tables[1][1][0].lines
    assert (line.status, line.group_split) == (NOT_YET, None)
