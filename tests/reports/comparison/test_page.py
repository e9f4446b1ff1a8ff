"""The report of a comparison, read back: its numbers against independent computations, its page as HTML."""

import csv
import math
import re
from dataclasses import replace
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet
import pytest
import skimage.color
from numpy.typing import NDArray
from PIL import Image
from scipy.stats import wilcoxon

pytest.importorskip("matplotlib")

from builders.comparisons import comparison
from builders.pages import Page
from hemalum.errors import HemalumError
from hemalum.experiments.records import Run
from hemalum.reports import style as comparison_drawing
from hemalum.reports.comparison.page import headline, write_comparison
from hemalum.reports.comparison.paired_tests import pair_with_reference
from hemalum.reports.comparison.results import by_dataset
from hemalum.reports.comparison.sheet import (
    FALSE_POSITIVE,
    GAINED,
    GRAY,
    LOST,
    MISSED,
    MOST_BYTES,
    PALE,
    STRIPED,
    chosen_images,
    difference_map,
    error_map,
)


def written(tmp_path: Path, **options: Any) -> tuple[Any, Page]:
    made = comparison(tmp_path, **options)
    files = write_comparison(made)
    assert all(file.is_file() for file in files)
    return made, Page(files[0])


@pytest.fixture(scope="module")
def full(tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Page]:
    """Two datasets, three methods, two seeds; one run is missing, the floor has no curves."""
    return written(tmp_path_factory.mktemp("full"), missing=(("beta", "second", 2),))


def scores_of(made: Any, dataset: str, method: str, *path: str) -> list[float]:
    """One value of the summary of each run."""
    values = []
    for run in made.runs:
        if (run.dataset, run.method) == (dataset, method):
            value: Any = run.summary
            for key in path:
                value = value[key]
            values.append(value)
    return values


def image_means(made: Any, dataset: str, method: str, column: str) -> NDArray[np.float64]:
    """(images,) value by image, averaged over seeds, written out with loops."""
    by_image: dict[str, list[float]] = {}
    for run in made.runs:
        if (run.dataset, run.method) == (dataset, method):
            for row in run.per_image:
                by_image.setdefault(row["id"], []).append(math.nan if row[column] is None else row[column])
    return np.array([np.mean(by_image[name]) for name in sorted(by_image)])


def test_main_table_has_mean_and_sd_over_seeds(full: tuple[Any, Page]) -> None:
    made, page = full
    for method in ("first", "second"):
        values = page.row("alpha: main results", method)
        assert values[0] == "2 seeds"
        for column, path in (
            (1, ("pixel", "pooled", "dice")),
            (2, ("pixel", "per_image", "dice")),
            (4, ("instance", "per_image", "pq")),
            (5, ("instance", "pooled", "pq")),
        ):
            a, b = scores_of(made, "alpha", method, *path)
            assert values[column] == f"{(a + b) / 2:.3f} ± {abs(a - b) / math.sqrt(2):.3f}"
    floor = page.row("alpha: main results", "floor")
    assert floor[:2] == ["1 run", f"{scores_of(made, 'alpha', 'floor', 'pixel', 'pooled', 'dice')[0]:.3f}"]


def test_every_metric_stands_under_every_averaging(full: tuple[Any, Page]) -> None:
    made, page = full
    caption = "alpha: every metric under every averaging"
    names = [row[0] for row in page.tables[caption]]
    for name in (
        "Dice, pooled over all pixels",
        "Dice, mean over images",
        "Dice, weighted over background and nuclei (support-weighted), mean over images",
        "PQ, pooled over the nuclei of all images",
        "PQ, mean over images",
        "AJI, pooled over the nuclei of all images",
        "HD95 (px), mean over images",
        "HD95 (µm), mean over images",
        "Boundary F1, pooled over the boundary pixels of all images",
    ):
        assert names.count(name) == 1
    weighted = scores_of(made, "alpha", "floor", "pixel", "support_weighted", "dice")[0]
    assert page.row(caption, names[names.index("Dice, mean over images") + 1])[2] == f"{weighted:.3f}"
    far = scores_of(made, "alpha", "floor", "boundary", "per_image", "hd95_um")[0]
    assert page.row(caption, "HD95 (µm), mean over images")[2] == f"{far:.2f}"


def test_paired_tests_against_scipy_and_holm_by_hand(full: tuple[Any, Page]) -> None:
    made, page = full
    rows = page.tables["alpha: paired tests per image, against the reference"]
    first = {column: image_means(made, "alpha", "first", column) for column in ("dice", "aji", "pq", "hd95_px")}
    p = []
    for method in ("second", "floor"):
        start = next(n for n, row in enumerate(rows) if row == [f"{method} − first"])
        for offset, column in enumerate(first, start=1):
            difference = image_means(made, "alpha", method, column) - first[column]
            difference = difference[np.isfinite(difference)].round(12)
            shown = rows[start + offset]
            assert shown[1] == f"{len(difference)} (3)"
            digits = 2 if column == "hd95_px" else 3
            assert shown[2].replace("−", "-") == f"{difference.mean():+.{digits}f}"
            p.append((wilcoxon(difference[difference != 0]).pvalue, shown))
    order = sorted(range(len(p)), key=lambda k: p[k][0])
    so_far = 0.0
    for rank, k in enumerate(order):
        so_far = min(max(so_far, p[k][0] * (len(p) - rank)), 1.0)
        for value, text in ((p[k][0], p[k][1][5]), (so_far, p[k][1][6])):
            assert text == ("< 0.001" if value < 0.001 else f"{value:.3f}")
    # three patients: no test over groups, and the page says that they are few
    assert rows[-1][7] == "–"
    assert "the test needs 6" in page.text
    assert "only 3 groups" in page.text


def test_undefined_is_a_dash(full: tuple[Any, Page]) -> None:
    made, page = full
    empty = [row for run in made.runs for row in run.per_image if row["id"] == "image03"]
    assert any(row["pq"] is None for row in empty)  # nothing there, nothing found
    assert page.row("alpha: recall at equal precision", "Recall at precision 0.80")[2] == "–"
    assert not re.search(r"\bnan\b|\bNone\b", page.text)


def test_says_what_is_missing(full: tuple[Any, Page]) -> None:
    _, page = full
    assert "The comparison is not finished." in page.text
    assert "beta: second, seed 2" in page.text
    assert page.row("beta: main results", "second")[0] == "1 run"
    assert "±" not in "".join(page.row("beta: main results", "second"))


def test_says_how_it_was_made(full: tuple[Any, Page]) -> None:
    _, page = full
    for words in ("each recipe for 4,000 crops", "best of the validations every 400 crops", "hemalum compare first"):
        assert words in page.text
    data = "Data that the methods were scored on (as far as finished)"
    assert page.row(data, "alpha") == ["12", "3", "99", "abababababab"]


def test_recall_at_equal_precision(full: tuple[Any, Page]) -> None:
    made, page = full
    # nothing but true nuclei is found: at every precision, as many as are found at all
    recalls = [
        sum(run.curves["nuclei"]["matched"]) / run.curves["nuclei"]["truth"]
        for run in made.runs
        if (run.dataset, run.method) == ("alpha", "second")
    ]
    rows = page.tables["alpha: recall at equal precision"]
    nuclei = next(n for n, row in enumerate(rows) if row == ["Nuclei, matched at IoU > 0.5"])
    shown = [row for row in rows[nuclei:] if row[0].startswith("Recall at precision")]
    sd = abs(recalls[0] - recalls[1]) / math.sqrt(2)
    assert {row[2] for row in shown} == {f"{np.mean(recalls):.3f} ± {sd:.3f}"}
    works = next(row for row in rows[nuclei:] if row[0].startswith("Recall where"))
    assert works[2] == shown[0][2]


def test_by_organ_and_group(full: tuple[Any, Page]) -> None:
    made, page = full
    values = image_means(made, "alpha", "second", "pq")
    assert page.row("alpha: by group, mean over images", "patient1")[:2] == ["4", "36"]
    # Dice of three methods, AJI of three, PQ of three
    assert page.row("alpha: by group, mean over images", "patient1")[2 + 7] == f"{values[1::3].mean():.3f}"
    assert page.row("alpha: by organ, mean over images", "liver")[2 + 7] == f"{values[0::2].mean():.3f}"


def test_page_is_safe_and_stands_alone(full: tuple[Any, Page]) -> None:
    _, page = full
    assert not re.search(r"https?://|//[a-z]+\.[a-z]", page.source)
    assert "script" not in {tag for tag, _ in page.tags}
    policy = next(values["content"] for _, values in page.tags if "http-equiv" in values)
    assert policy is not None
    assert "default-src 'none'" in policy
    for tag, values in page.tags:
        assert not any(name.startswith("on") for name in values)
        if tag == "img":
            assert (values["src"] or "").startswith("data:image/")
            assert values["alt"]
        if tag == "a":
            assert (values["href"] or "").startswith("#")
        if tag == "th":
            assert values["scope"]
    ids = [values["id"] for _, values in page.tags if "id" in values]
    assert len(ids) == len(set(ids))
    targets = {values["href"] for tag, values in page.tags if tag in ("a", "use")}
    assert {f"#{name}" for name in ids} >= targets
    assert len(page.source) < 3.5e6


def test_figures_are_there(full: tuple[Any, Page]) -> None:
    made, page = full
    names = {path.name for path in (made.out / "figures").iterdir()}
    wanted = "per-image-dice per-image-pq per-image-aji precision-recall-pixels precision-recall-nuclei reliability"
    for name in [*wanted.split(), "f1-by-iou", "training"]:
        assert f"alpha-{name}.svg" in names
    svgs = [values for tag, values in page.tags if tag == "svg"]
    assert len(svgs) == len(names)
    assert all(values["aria-labelledby"] for values in svgs)
    markdown = (made.out / "report.md").read_text(encoding="utf-8")
    linked = re.findall(r"\]\((figures/[^)]+)\)", markdown)
    assert {f"figures/{name}" for name in names} == set(linked)


def test_markdown_has_the_same_numbers(full: tuple[Any, Page]) -> None:
    made, page = full
    lines = (made.out / "report.md").read_text(encoding="utf-8").replace("**", "").splitlines()
    for caption in ("alpha: main results", "beta: main results"):
        line = "| " + " | ".join(["first", *page.row(caption, "first")]) + " |"
        assert line in lines


def test_tables_in_long_form(full: tuple[Any, Page]) -> None:
    made, _ = full
    tables = made.out / "tables"
    scores = pyarrow.parquet.read_table(tables / "scores.parquet").to_pylist()
    wanted = {"dataset": "alpha", "method": "second", "fold": 0, "seed": 2, "metric": "dice", "averaging": "pooled"}
    values = [row["value"] for row in scores if wanted.items() <= row.items()]
    assert values == [scores_of(made, "alpha", "second", "pixel", "pooled", "dice")[1]]
    with (tables / "scores.csv").open(newline="", encoding="utf-8") as stream:
        lines = list(csv.DictReader(stream))
    assert len(lines) == len(scores)
    assert [float(line["value"]) if line["value"] else None for line in lines] == [row["value"] for row in scores]
    images = pyarrow.parquet.read_table(tables / "per_image.parquet").to_pylist()
    assert len(images) == sum(len(run.per_image) for run in made.runs)
    assert any(row["pq"] is None for row in images)
    tests = pyarrow.parquet.read_table(tables / "tests.parquet").to_pylist()
    assert {row["family"] for row in tests} == {"against the reference", "all pairs"}
    costs = pyarrow.parquet.read_table(tables / "costs.parquet").to_pylist()
    assert {row["parameters"] for row in costs} == {31_000, None}


def test_same_results_same_bytes(full: tuple[Any, Page]) -> None:
    made, _ = full
    files = [path for path in made.out.rglob("*") if "runs" not in path.parts and path.is_file()]
    before = {path: path.read_bytes() for path in files}
    assert {path: path.read_bytes() for path in write_comparison(made)} == before


def test_names_are_only_text(tmp_path: Path) -> None:
    evil = "<script>alert(1)</script>"
    money = 'a $x_1$ | "b" & _c_'
    made, page = written(tmp_path, methods=(evil, money), datasets=("alpha",), images=3, titles="<b onload=x>")
    assert page.row("alpha: main results", evil)
    assert page.row("alpha: main results", money)
    assert {tag for tag, _ in page.tags} & {"script", "b"} <= {"b"}
    assert "<script" not in page.source
    assert "onload=x&gt;" in page.source
    markdown = (made.out / "report.md").read_text(encoding="utf-8")
    assert "<script" not in markdown
    assert not re.search(r"(?<!\\)\| \"b\"", markdown)
    for figure in (made.out / "figures").iterdir():
        assert "<script" not in figure.read_text(encoding="utf-8")


def test_one_method_has_no_tests(tmp_path: Path) -> None:
    _, page = written(tmp_path, methods=("first",), datasets=("alpha",))
    assert not any("paired tests" in caption for caption in page.tables)
    assert "In short" not in page.text
    assert "<strong>" not in page.source


def test_one_image(tmp_path: Path) -> None:
    _, page = written(tmp_path, datasets=("alpha",), seeds=(1,), images=1)
    assert "Only image: image00" in page.text
    tests = page.tables["alpha: paired tests per image, against the reference"]
    row = next(row for row in tests if row[0] == "PQ")
    assert row[1] == "1"
    assert row[3] == "–"  # an interval
    assert row[5:8] == ["–"] * 3
    assert "±" not in "".join(page.row("alpha: main results", "first"))
    assert "better" not in " ".join(re.findall(r"<li>(.*? against .*?)</li>", page.source))


def test_all_images_of_one_group(tmp_path: Path) -> None:
    made = comparison(tmp_path, datasets=("alpha",), images=24)
    # the fold is the group, as in a published test part
    runs = [replace(run, per_image=[row | {"group": "fold3"} for row in run.per_image]) for run in made.runs]
    page = Page(write_comparison(replace(made, runs=tuple(runs)))[0])
    rows = page.tables["alpha: paired tests per image, against the reference"]
    assert [
        "Metric",
        "Images",
        "Mean difference",
        "95 % interval",
        "Effect size",
        "p",
        "p, Holm",
        "80 % power",
    ] in rows
    row = next(row for row in rows if row[0] == "PQ")
    assert row[1] == "23"
    assert " to " in row[3]
    assert "–" not in row
    sentences = re.findall(r"<li>(second against .*?)</li>", page.source)
    assert re.search(r"PQ \+0\.\d+ \(.*?\), better", sentences[0])
    note = "one group (fold3): images are taken as independent, which makes the interval too narrow"
    assert page.text.count(note) == 3  # below the findings and below both tables of tests
    assert "only 1 group" not in page.text.lower()


def sentences_of(page: Page) -> list[str]:
    return re.findall(r"<li>(\w+ against .*?)</li>", page.source)


def test_one_training_decides_nothing(tmp_path: Path) -> None:
    made = comparison(tmp_path, datasets=("alpha",), seeds=(1,), images=24, patients=24)
    second, floor = sentences_of(Page(write_comparison(made)[0]))
    assert second.count(", not decided (one training of second and of first)") == 2  # PQ and Dice
    assert floor.count(", not decided (one training of first)") == 2  # the floor is not trained
    for verdict in ("better", "worse", "no difference shown"):
        assert verdict not in second + floor
    table = pyarrow.parquet.read_table(made.out / "tables" / "tests.parquet").to_pylist()
    assert {row["verdict"] for row in table} == {"not decided"}


def test_several_trainings_decide(tmp_path: Path) -> None:
    made = comparison(tmp_path, datasets=("alpha",), seeds=(1, 2, 3), images=24, patients=24)
    page = Page(write_comparison(made)[0])
    second, floor = sentences_of(page)
    assert re.search(r"PQ \+0\.\d+ \(\+.*?\), better; Dice .*, better\.", second)
    assert re.search(r"PQ −0\.\d+ \(−.*?\), worse; Dice .*, worse\.", floor)
    assert "drawing the trainings of each method (seeds) and images" in page.text
    table = pyarrow.parquet.read_table(made.out / "tables" / "tests.parquet").to_pylist()
    pq = next(row for row in table if (row["method"], row["metric"]) == ("floor", "pq"))
    assert (pq["verdict"], pq["undecided"], pq["trainings_a"], pq["trainings_b"]) == ("worse", None, 1, 3)


def test_few_groups_decide_nothing(full: tuple[Any, Page]) -> None:
    _, page = full
    second = sentences_of(page)[0]
    assert second.count(", not decided (only 3 groups differ; the test needs 6)") == 2
    assert "--folds tests on every group" in page.text


def test_verdict_is_that_of_groups_where_there_are_groups(tmp_path: Path) -> None:
    made = comparison(tmp_path, datasets=("alpha",), methods=("first", "second"), images=40, patients=8)
    # one patient of eight carries the difference: shown by image and not by group
    pq = {"patient0": 0.9, "patient1": 0.52, "patient2": 0.52, "patient3": 0.51, "patient4": 0.49}
    changed = {"first": lambda _: 0.5, "second": lambda group: pq.get(group, 0.48)}
    runs = [
        replace(
            run, per_image=[row | {"pq": changed[run.method](row["group"]), "dice": None} for row in run.per_image]
        )
        for run in made.runs
    ]
    made = replace(made, runs=tuple(runs))
    write_comparison(made)
    table = pyarrow.parquet.read_table(made.out / "tables" / "tests.parquet").to_pylist()
    tested = next(row for row in table if row["metric"] == "pq")
    assert tested["n_groups"] == 8
    assert tested["p_groups_holm"] > 0.05
    assert tested["verdict"] == "no difference shown"
    # all patients better: shown over groups as well
    changed["second"] = lambda group: 0.6 + int(group[-1]) / 100
    runs = [replace(run, per_image=[row | {"pq": changed[run.method](row["group"])} for row in run.per_image])
            for run in runs]  # fmt: skip
    write_comparison(replace(made, runs=tuple(runs)))
    table = pyarrow.parquet.read_table(made.out / "tables" / "tests.parquet").to_pylist()
    tested = next(row for row in table if row["metric"] == "pq")
    assert tested["p_groups_holm"] < 0.05
    assert tested["verdict"] == "better"


def test_a_difference_within_the_spread_of_trainings_is_none(tmp_path: Path) -> None:
    made = comparison(tmp_path, datasets=("alpha",), methods=("first", "second"), images=16, patients=16)
    results = by_dataset(made)[0]
    for spread, verdict in ((0.1, "no difference shown"), (0.001, "better")):
        value = {("first", 1): 0.5 - spread, ("first", 2): 0.5 + spread, ("second", 1): 0.55, ("second", 2): 0.56}
        runs = [
            replace(run, per_image=[row | {"pq": value[run.method, run.seed]} for row in run.per_image])
            for run in made.runs
        ]
        tests = pair_with_reference(replace(results, runs=tuple(runs)))
        tested = next(tested for tested in tests if tested.column == "pq")
        assert tested.adjusted < 0.05  # on every image the mean over trainings is better
        assert tested.verdict == verdict


def test_only_complete_seeds_are_trainings(tmp_path: Path) -> None:
    made = comparison(tmp_path, datasets=("alpha",), seeds=(1, 2, 3), images=6)
    runs = [replace(run, per_image=run.per_image[:4]) if run.seed == 3 else run for run in made.runs]
    results = by_dataset(replace(made, runs=tuple(runs)))[0]
    values = results.training_values(made.methods[0], "dice")
    wanted = [[row["dice"] for row in run.per_image] for run in made.runs if run.method == "first"][:2]
    np.testing.assert_allclose(values, np.array(wanted, float))
    alone = by_dataset(replace(made, runs=tuple(run for run in runs if run.seed != 2)))[0]
    assert alone.training_values(made.methods[0], "dice").shape == (1, 6)
    assert results.training_values(made.methods[2], "dice").shape == (1, 6)  # not trained


def test_says_what_each_training_sees(tmp_path: Path) -> None:
    made = comparison(tmp_path, datasets=("alpha",), seeds=(1,), images=3)
    phases = [{"until": {"steps": 500, "patience": None}}, {"until": {"steps": 300, "patience": None}}]
    small = {"tile": 128, "mpp": 0.5, "batch": 16, "phases": phases}
    large = {"tile": 256, "mpp": 0.25, "batch": 8, "phases": [{"until": {"steps": 1600, "patience": 3}}]}
    caption = "Methods; the first is the reference that the others are tested against"
    note = "as many crops are not as many pixels"
    for second, words in (
        (large, ["crops of 256 px at 0.25 µm/px", "at most 1,600 × 8 = 12,800 crops"]),
        (small, ["crops of 128 px at 0.5 µm/px", "800 × 16 = 12,800 crops"]),
    ):
        methods = [
            method.model_copy(update={"recipe": recipe})
            for method, recipe in zip(made.methods, (small, second, None), strict=True)
        ]
        page = Page(write_comparison(replace(made, methods=tuple(methods)))[0])
        assert page.row(caption, "first")[2:4] == ["crops of 128 px at 0.5 µm/px", "800 × 16 = 12,800 crops"]
        assert page.row(caption, "second")[2:4] == words
        assert page.row(caption, "floor")[2:4] == ["–", "–"]
        assert (note in page.text) == (second is large)


def test_says_how_many_crops_whole_batches_are(tmp_path: Path) -> None:
    made = comparison(tmp_path, datasets=("alpha",), seeds=(1,), images=3)
    recipe = {
        "tile": 128,
        "mpp": 0.5,
        "batch": 16,
        "phases": [{"until": {"steps": 1}}, {"until": {"steps": 2, "total": 2}}],
    }
    methods = tuple(
        method.model_copy(update={"recipe": known})
        for method, known in zip(made.methods, (recipe, None, None), strict=True)
    )
    page = Page(write_comparison(replace(made, methods=methods, description={**made.description, "crops": 40}))[0])
    assert "each recipe for 40 crops, which in whole batches are 32" in page.text
    assert "2 × 16 = 32 crops" in page.text


def test_undefined_with_one_seed_is_left_out(tmp_path: Path) -> None:
    made = comparison(tmp_path, datasets=("alpha",))
    undefined = {("second", 1): {"image00"}, ("second", 2): {"image00", "image05"}}
    runs = [
        replace(
            run,
            per_image=[
                row | ({"hd95_px": None} if row["id"] in undefined.get((run.method, run.seed), ()) else {})
                for row in run.per_image
            ],
        )
        for run in made.runs
    ]
    made = replace(made, runs=tuple(runs))
    results = by_dataset(made)[0]
    wanted = image_means(made, "alpha", "second", "hd95_px")
    assert np.isnan(wanted[[0, 5]]).all()
    np.testing.assert_allclose(results.image_values(made.methods[1], "hd95_px"), wanted)
    counts = [sum(np.isnan(image_means(made, "alpha", method.name, "hd95_px"))) for method in made.methods]
    page = Page(write_comparison(made)[0])
    assert counts[1] > counts[0] > 0
    assert f"HD95 (px): first {counts[0]}, second {counts[1]}, floor {counts[2]} of 12." in page.text
    assert "undefined in at least one run: " in page.text
    tests = page.tables["alpha: paired tests per image, against the reference"]
    shown = next(row for row in tests if row[0] == "HD95 (px)")[1]
    first = image_means(made, "alpha", "first", "hd95_px")
    assert shown == f"{np.isfinite(wanted - first).sum()} (3)"


def test_why_a_run_is_missing(tmp_path: Path) -> None:
    made = comparison(tmp_path, datasets=("alpha",), missing=(("alpha", "second", 2),))
    absent = [run | {"reason": "no memory left on the device"} for run in made.description["missing"]]
    made = replace(made, description=made.description | {"missing": absent})
    page = Page(write_comparison(made)[0])
    assert "alpha: second, seed 2 (no memory left on the device)" in page.text
    markdown = (made.out / "report.md").read_text(encoding="utf-8")
    assert "- alpha: second, seed 2 (no memory left on the device)" in markdown


def test_nothing_finished(tmp_path: Path) -> None:
    missing = tuple(("beta", m, s) for m in ("first", "second") for s in (1, 2))
    _, page = written(tmp_path, methods=("first", "second"), missing=missing)
    assert "No run on this dataset is finished." in page.text


def test_reference_missing_on_one_dataset(tmp_path: Path) -> None:
    missing = (("alpha", "first", 1), ("alpha", "first", 2))
    _, page = written(tmp_path, datasets=("alpha",), missing=missing)
    assert [row[0] for row in page.tables["alpha: main results"][1:]] == ["second", "floor"]
    assert "alpha: paired tests per image, against the reference" not in page.tables


def test_means_of_other_images_are_named(tmp_path: Path) -> None:
    made = comparison(tmp_path, datasets=("alpha",))
    partly = [replace(run, per_image=run.per_image[:5]) if run.method == "second" else run for run in made.runs]
    page = Page(write_comparison(replace(made, runs=tuple(partly)))[0])
    assert "Not every method has been scored on all 12 images: second on 5." in page.text


def test_dataset_has_moved(tmp_path: Path) -> None:
    made = comparison(tmp_path, datasets=("alpha",), methods=("first", "second"))
    page = Page(write_comparison(replace(made, datasets={"alpha": tmp_path / "gone"}))[0])
    assert "img" not in {tag for tag, _ in page.tags}
    assert f"No pictures: the images of alpha were not found at {tmp_path / 'gone'}." in page.text
    assert "A click enlarges a picture" not in page.text
    assert page.row("alpha: main results", "first")


def test_one_picture_is_gone(tmp_path: Path) -> None:
    made = comparison(tmp_path, datasets=("alpha",), methods=("first", "second"), seeds=(1,), images=3)
    assert "Not shown" not in Page(write_comparison(made)[0]).text
    row = made.dataset("alpha").rows[0]
    (made.datasets["alpha"] / row.image).unlink()
    page = Page(write_comparison(made)[0])
    assert re.search(rf"Not shown: {row.id} \(\w+\), not found or not readable at ", page.text)
    assert len([tag for tag, _ in page.tags if tag == "img"]) == 2 * (2 + 2 + 1)


@pytest.mark.parametrize(("rivals", "wanted"), [(("b",), ["b"]), (("b", "c"), ["b", "c"]), (("b", "c", "d"), ["b"])])
def test_each_of_few_methods_is_set_against_the_first(
    tmp_path: Path, rivals: tuple[str, ...], wanted: list[str]
) -> None:
    _, page = written(tmp_path, datasets=("alpha",), methods=("a", *rivals), seeds=(1,), images=1)
    titles = re.findall(r"<figcaption><b>(.*?)</b>", page.source)
    assert titles == ["Image", "Truth", "a", *rivals, *(f"a or {name}" for name in wanted)]
    assert ("only the other method is right" in page.text) == (len(wanted) > 1)
    assert ("only b is right" in page.text) == (len(wanted) == 1)


def test_classes(tmp_path: Path) -> None:
    made = comparison(tmp_path, datasets=("alpha",), methods=("first", "second"), seeds=(1,))
    runs: list[Run] = []
    for run, value in zip(made.runs, (0.25, 0.5), strict=True):
        by_class = {"mpq_tissue": 3 * value, "mpq_image": value, "mpq_plus": None, "pq_pooled": [value, 2 * value]}
        recalled = {"nuclei": [1200, 3], "recall": [value, None]}
        named = run.summary | {"class_names": {"1": "immune", "2": "tumor"}, "found_by_class": recalled}
        if run.method == "second":
            named |= {"classes": by_class}
        runs.append(replace(run, summary=named))
    page = Page(write_comparison(replace(made, runs=tuple(runs)))[0])
    caption = "alpha: by class of nucleus"
    assert page.row(caption, "Recall of immune (1,200 nuclei), whatever class they are given") == ["0.250", "0.500"]
    assert page.row(caption, "Recall of tumor (3 nuclei), whatever class they are given") == ["–", "–"]
    assert page.row(caption, "PQ, pooled, tumor") == ["–", "1.000"]
    assert page.row(caption, "mPQ by tissue: mean over classes, images and tissues") == ["–", "1.500"]
    assert page.row(caption, "mPQ by image: mean over the classes of an image, then over images") == ["–", "0.500"]
    assert page.row(caption, "mPQ+: counts of each class pooled, then mean over classes") == ["–", "–"]


def test_sheet_colors() -> None:
    truth = np.array([[1, 1, 0, 0]])
    first, second = np.array([[5, 0, 7, 0]]), np.array([[5, 6, 7, 0]])
    gray, missed, false, white = error_map(truth, first, 4)[0].tolist()
    assert len({*map(tuple, (gray, missed, false, white))}) == 4
    assert gray[0] == gray[1] == gray[2] < 255
    assert missed[0] == max(missed)  # warm
    assert missed[0] > missed[1] > missed[2]
    assert false[2] == max(false)  # cool
    assert false[0] < 40
    # stripes tell without any color: what is missed has two lightnesses, what is false has one
    empty, full = np.zeros((24, 24), int), np.ones((24, 24), int)
    assert len(np.unique(error_map(full, empty, 24).reshape(-1, 3), axis=0)) == 2
    assert len(np.unique(error_map(empty, full, 24).reshape(-1, 3), axis=0)) == 1
    assert white == [255] * 3
    both, only_second, neither, right = map(tuple, difference_map(truth, first, second, 4)[0].tolist())
    assert both == right == (255, 255, 255)
    assert len({both, only_second, neither}) == 3
    assert difference_map(truth, second, first, 4)[0, 1].tolist() != list(only_second)


# how readers without one kind of cone see linear RGB (Machado, Oliveira & Fernandes 2009, severity 1)
COLOR_BLIND = {
    "protanopia": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
    "deuteranopia": [
        [0.367322, 0.860646, -0.227968],
        [0.280085, 0.672501, 0.047413],
        [-0.011820, 0.042940, 0.968881],
    ],
    "tritanopia": [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.303900]],
}


def seen_by(color: tuple[int, int, int], matrix: list[list[float]]) -> Any:
    """CIELAB of a color as such a reader sees it."""
    value = np.array(color) / 255
    linear = np.where(value <= 0.04045, value / 12.92, ((value + 0.055) / 1.055) ** 2.4)
    mixed = np.clip(np.array(matrix) @ linear, 0, 1)
    rgb = np.where(mixed <= 0.0031308, 12.92 * mixed, 1.055 * mixed ** (1 / 2.4) - 0.055)
    return skimage.color.rgb2lab(rgb[None, None])


@pytest.mark.parametrize("kind", COLOR_BLIND)
@pytest.mark.parametrize("colors", [(GRAY, FALSE_POSITIVE, MISSED), (GAINED, LOST, PALE)])
def test_color_blind_readers_tell_the_colors_of_a_picture_apart(kind: str, colors: tuple[Any, ...]) -> None:
    seen = {color: seen_by(color, COLOR_BLIND[kind]) for color in colors}
    for first, second in combinations(colors, 2):
        assert skimage.color.deltaE_ciede2000(seen[first], seen[second]).item() > 14
    for dark, light in STRIPED.items():  # told without any color: by lightness
        assert seen_by(light, COLOR_BLIND[kind])[..., 0] - seen_by(dark, COLOR_BLIND[kind])[..., 0] > 20


@pytest.mark.parametrize("length", [100, 320, 1000, 3000])
def test_stripes_are_still_seen_when_the_picture_is_shrunk(length: int) -> None:
    full, empty = np.ones((length // 4, length), int), np.zeros((length // 4, length), int)
    for drawn in (error_map(full, empty, 320), difference_map(full, empty, full, 320)):
        picture = Image.fromarray(drawn)
        picture.thumbnail((320, 320), Image.Resampling.BOX)
        lightness = skimage.color.rgb2lab(np.asarray(picture) / 255)[..., 0]
        assert np.ptp(lightness[20]) > 15


def test_sheet_shows_best_median_and_worst(full: tuple[Any, Page]) -> None:
    made, page = full
    results = by_dataset(made)[0]
    pq = {row["id"]: row["pq"] for row in results.runs_of(made.methods[0])[0].per_image if row["pq"] is not None}
    chosen = dict(chosen_images(results))
    assert pq[chosen["Best"]] == max(pq.values())
    assert pq[chosen["Worst"]] == min(pq.values())
    assert pq[chosen["Median"]] == sorted(pq.values(), reverse=True)[len(pq) // 2]
    pictures = [values for tag, values in page.tags if tag == "img"]
    assert len(pictures) == 2 * 3 * (2 + 3 + 2)  # image and truth, methods, each against the first
    assert sum(len(values["src"] or "") for values in pictures) <= MOST_BYTES


def test_console_headline(full: tuple[Any, Page]) -> None:
    made, page = full
    (title, (columns, rows)), _ = headline(made)
    assert title == "alpha: main results"
    assert columns[0] == "Method"
    assert rows[0] == ["first", *page.row(title, "first")]


def test_no_two_methods_look_alike() -> None:
    from hemalum.reports.style import color_of, dash_of, marker_of

    looks = [(color_of(k), str(dash_of(k)), marker_of(k)) for k in range(32)]
    assert len(set(looks)) == 32


@pytest.mark.fault
def test_without_matplotlib(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(comparison_drawing.importlib.util, "find_spec", lambda _: None)
    with pytest.raises(HemalumError, match=r"pip install 'hemalum\[report\]'"):
        comparison_drawing.require_report()
