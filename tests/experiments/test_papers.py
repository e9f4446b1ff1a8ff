"""The published figures: complete, well-formed, and in agreement with themselves where they can be."""

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from hemalum.data.readers import READERS
from hemalum.errors import HemalumError
from hemalum.experiments.papers import load_paper, number_of, papers
from hemalum.training.recipe import open_recipe

ROOT = Path(__file__).parents[2]
NAMES = ["al_net", "clin_seg_net", "csra_net", "eunet3plus_sam", "two_stage"]


CITED = {
    "al_net": (
        "Chen, Peng, Yang, Zhao, Zhang",
        "AL-Net: Adaptive Learning for Enhanced Cell Nucleus Segmentation in Pathological Images",
    ),
    "csra_net": (
        "Li, Luo, Wei, Long, Ye",
        "Semi-Supervised Nuclei Instance Segmentation with Category-Adaptive Sampling and Region-Adaptive Attention",
    ),
    "eunet3plus_sam": (
        "Swain, Cheoi, Ko",
        "Enhancing Nuclei Segmentation in Histology Images by Effectively Merging Task-Specific and Foundation "
        "Models",
    ),
    "two_stage": (
        "Gupta, Kumar, Shakya, Phutke, Sharma",
        "A Novel Two-Stage Deep Learning Method for Enhanced Cell Nuclei Segmentation",
    ),
}


@pytest.mark.parametrize("name", CITED)
def test_a_paper_is_cited_by_its_authors_and_title(name: str) -> None:
    authors, title = CITED[name]
    assert load_paper(name).citation.startswith(f"{authors}: {title}, ")
    page = (ROOT / "docs" / "systems" / f"{name}.md").read_text(encoding="utf-8")
    assert f"{authors}: *{title}*, " in " ".join(page.split())
    references = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))["references"]
    (reference,) = [one for one in references if one["title"] == title]
    assert ", ".join(author["family-names"] for author in reference["authors"]) == authors


def test_the_papers_that_ship() -> None:
    assert list(papers()) == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_every_paper_loads_and_says_where_its_figures_come_from(name: str) -> None:
    paper = load_paper(name)
    assert paper.figures
    assert paper.citation
    assert "averaging" in paper.protocol
    for data in paper.datasets.values():
        assert data.get
        assert data.private == (data.stand_in is not None)
        assert set(data.formats) <= set(READERS)


@pytest.mark.parametrize("name", NAMES)
def test_recipes_of_rows_ship(name: str) -> None:
    for table in load_paper(name).tables:
        for recipe in table.recipes:
            open_recipe(recipe, "small")


def test_each_dataset_has_its_own_recipes() -> None:
    table = load_paper("eunet3plus_sam").table("2")
    for name in ("cryonuseg", "nuinsseg", "conic"):
        wanted = [f"eunet3plus_{name}:{activation}" for activation in ("relu", "leaky_relu", "swish", "glu")]
        assert table.recipes_on(name) == wanted
    against = load_paper("eunet3plus_sam").table("1").recipes_on("conic")
    assert against == [f"eunet3plus_conic:{row}" for row in ("unet", "ddu_net", "relu", "glu", "guided", "awgunet")]
    assert load_paper("eunet3plus_sam").table("3").recipes_on("conic")[-1] == "eunet3plus_conic:worded"  # not printed
    table = load_paper("two_stage").table("results")
    assert table.recipes_on("lizard")[:2] == ["two_stage_lizard:unet", "two_stage_lizard:unet_two_stage"]
    assert table.recipes_on("tnbc")[:2] == ["two_stage:unet", "two_stage:unet_two_stage"]
    assert sorted(table.recipes) == sorted(table.recipes_on("lizard") + table.recipes_on("tnbc"))


def test_a_column_without_a_dataset_goes_with_the_first() -> None:
    table = load_paper("clin_seg_net").table("film")
    assert table.columns[0].dataset is None
    assert table.recipes_on("combined") == table.recipes


def test_the_reading_of_al_net_is_what_its_recipe_does() -> None:
    protocol, recipe = load_paper("al_net").protocol, open_recipe("al_net")
    assert protocol["length"].reading == f"{recipe.steps:,} steps of {recipe.batch} crops"
    assert protocol["augmentation"].reading == "flips and quarter turns, no color jitter"
    active = {name for name, value in recipe.augment.model_dump().items() if value}
    assert active == {"flips", "scale"}
    assert recipe.augment.scale == 1


@pytest.mark.parametrize("name", NAMES)
def test_every_row_can_be_run_or_says_why_not(name: str) -> None:
    rows = [row for table in load_paper(name).tables for row in table.rows]
    assert [row.method for row in rows if (row.recipe is None) == (row.otherwise == "")] == []


def test_some_row_of_every_paper_can_be_run() -> None:
    runnable = [name for name in NAMES if any(table.recipes for table in load_paper(name).tables)]
    assert runnable == ["al_net", "clin_seg_net", "csra_net", "eunet3plus_sam", "two_stage"]


def overlap_rows() -> Iterator[tuple[Any, ...]]:
    """(paper, table, dataset, row, averaging, figures by metric as (low, high)) of rows with Dice and IoU."""
    for name in NAMES:
        paper = load_paper(name)
        for table in paper.tables:
            for dataset in table.datasets:
                for row in table.rows:
                    figures = {}
                    for column, text in zip(table.columns, row.values, strict=True):
                        value = number_of(text)
                        if column.dataset == dataset and column.metric and value is not None:
                            unit = 10.0 ** -len(text.partition(".")[2])  # rounded, or cut
                            span = (value - unit / 2) / column.scale, (value + unit) / column.scale
                            figures[column.metric] = span
                    if {"pixel.dice", "pixel.iou"} <= set(figures):
                        yield name, table.id, dataset, row, row.averaging or table.averaging, figures


def iou_of(dice: float) -> float:
    return dice / (2 - dice)


def fits_pooled(figures: dict[str, tuple[float, float]]) -> bool:
    """Whether Dice, IoU and, where printed, precision and recall can be of one table of pixels."""
    dice, iou = figures["pixel.dice"], figures["pixel.iou"]
    if iou[1] < iou_of(dice[0]) or iou[0] > iou_of(dice[1]):
        return False
    if not {"pixel.precision", "pixel.recall"} <= set(figures):
        return True
    low, high = (
        2 * p * r / (p + r) for p, r in zip(figures["pixel.precision"], figures["pixel.recall"], strict=True)
    )
    return low <= dice[1] and high >= dice[0]


ROWS = list(overlap_rows())


@pytest.mark.parametrize("case", ROWS, ids=lambda case: f"{case[0]}-{case[1]}-{case[2]}-{case[3].method}")
def test_the_averaging_that_was_derived_fits_the_digits(case: tuple[Any, ...]) -> None:
    name, _, _, _, averaging, figures = case
    if averaging == "pooled":
        assert fits_pooled(figures)
    elif name == "clin_seg_net":  # tagged as means over images because they do not fit
        assert not fits_pooled(figures)


def test_impossible_rows_are_those_that_say_so() -> None:
    """IoU is a convex function of Dice: the mean of one is at least that of the mean of the other."""
    impossible = {
        (name, table, dataset, row.method)
        for name, table, dataset, row, _, figures in ROWS
        if figures["pixel.iou"][1] < iou_of(figures["pixel.dice"][0]) - 1e-9
    }
    assert impossible == {
        ("two_stage", "results", "tnbc", "U-Net†"),
        ("eunet3plus_sam", "1", "cryonuseg", "DDU-Net"),
    }
    for name, table, dataset, row, _, _ in ROWS:
        if (name, table, dataset, row.method) in impossible:
            assert "at least" in row.note


def test_headlines_as_printed() -> None:
    table = load_paper("al_net").table("dsb2018")
    assert table.rows[0].values == ["92.96", "86.86"]
    table = load_paper("eunet3plus_sam").table("1")
    assert table.rows[0].values[1] == ".610"  # with its last digit
    assert table.rows[4].values == [".8942", ".8164", ".9399", ".8938", ".9351", ".8869"]
    gains = load_paper("csra_net").table("pannuke")
    assert gains.rows[0].values[-2:] == ["+12.75", "+10.70"]
    refined = load_paper("clin_seg_net").table("refinement").rows[1]
    assert (refined.values[4], refined.sd[4]) == (".9053", ".0898")


def test_the_ten_logged_runs_have_the_mean_that_is_given() -> None:
    rows = load_paper("eunet3plus_sam").table("runs").rows
    accuracy = [number_of(row.values[0]) for row in rows[:10]]
    mean = sum(accuracy) / 10
    sd = math.sqrt(sum((value - mean) ** 2 for value in accuracy) / 9)
    assert mean == pytest.approx(number_of(rows[10].values[0]), abs=5e-4)
    assert sd == pytest.approx(number_of(rows[10].sd[0]), abs=5e-4)


def test_numbers_of_figures() -> None:
    assert [number_of(text) for text in (".810", "+12.75", "-165.1", "~77", ">80", "+1.0..1.3", None)] == [
        0.81,
        12.75,
        -165.1,
        77,
        None,
        None,
        None,
    ]


SMALL = """
title: t
citation: c
figures: f
datasets:
  one: {title: t, formats: [tnbc], get: g, split: {by: image, counts: [3, 1, 1], tag: stated}}
protocol: {averaging: {statement: pooled, tag: stated}}
tables:
  - id: a
    title: t
    averaging: pooled
    columns: [{name: Dice, dataset: one, metric: pixel.dice}]
    rows: [{method: m, values: [0.50]}]
"""


@pytest.mark.fault
@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("values: [0.50]", "values: [0.50, 0.4]", "row 'm' has 2 values, the table 1 columns"),
        ("values: [0.50]", "values: [high]", "want a number as printed"),
        ("values: [0.50]", "values: [0.50], sd: []", "has 0 sd"),
        ("pixel.dice", "pixel.dise", "unknown metric 'pixel.dise', did you mean 'pixel.dice'?"),
        ("dataset: one, ", "", "needs the dataset"),
        ("dataset: one", "dataset: two", "no dataset 'two'"),
        ("counts: [3, 1, 1], ", "", "want counts or fractions"),
        ("counts: [3, 1, 1]", "fractions: [0.5, 0.1, 0.1]", "must sum to 1"),
        ("    averaging: pooled\n", "", "needs an averaging"),
        ("title: t\n", "tilte: t\n", "unknown key 'tilte', did you mean 'title'?"),
        ("figures:", "figurs:", "unknown key 'figurs', did you mean 'figures'?"),
        ("get: g", "gett: g", "unknown key 'datasets.one.gett', did you mean 'get'?"),
        ("by: image", "bye: image", "unknown key 'datasets.one.split.bye', did you mean 'by'?"),
        ("id: a", "idd: a", "unknown key 'tables.0.idd', did you mean 'id'?"),
        ("{name: Dice", "{nmae: Dice", "unknown key 'tables.0.columns.0.nmae', did you mean 'name'?"),
        ("{method: m", "{metod: m", "unknown key 'tables.0.rows.0.metod', did you mean 'method'?"),
        ("[{method: m", "[{method: m, values: [~]}, {method: m", "two rows have one name"),
        ("values: [0.50]", "recipe: 'x:{base}', values: [0.50]", "'over' go together"),
        ("values: [0.50]", "recipe: unet, over: [unet], values: [0.50]", "'over' go together"),
        (
            "values: [0.50]",
            "recipe: 'unet_{}', values: [0.50]",
            "row 'm' has {} in its recipe, column 'Dice' no variant",
        ),
    ],
)
def test_what_is_wrong_with_a_file_is_said(tmp_path: Path, old: str, new: str, message: str) -> None:
    path = tmp_path / "paper.yaml"
    path.write_text(SMALL)
    assert load_paper(path).table("a").rows[0].values == ["0.50"]
    path.write_text(SMALL.replace(old, new, 1))
    with pytest.raises(HemalumError, match=message):
        load_paper(path)


@pytest.mark.fault
def test_the_nearest_name_is_named() -> None:
    with pytest.raises(HemalumError, match="no paper 'alnet', did you mean 'al_net'"):
        load_paper("alnet")
    with pytest.raises(HemalumError, match=r"al_net has no table 'dsb'.*'dsb2018'"):
        load_paper("al_net").table("dsb")


def test_both_headlines_of_two_stages_are_sums_over_its_printed_table() -> None:
    """The abstract's gains are Lizard's; TNBC's by the same sum are printed beside them."""
    paper = load_paper("two_stage")
    results, gain = paper.table("results"), paper.table("gain").rows[0]
    values = [[number_of(text) or math.nan for text in row.values] for row in results.rows]
    printed = [number_of(text) for text in gain.values if text is not None]
    sds = [number_of(text) for text in gain.sd or [] if text is not None]
    for column in range(8):
        differences = [
            100 * (with_second[column] - alone[column])
            for alone, with_second in zip(values[::2], values[1::2], strict=True)
        ]
        # the abstract's are cut or of more digits than its table has: within a tenth or so
        assert sum(differences) / 3 == pytest.approx(printed[column], abs=0.1)
        mean = sum(differences) / 3
        sd = math.sqrt(sum((value - mean) ** 2 for value in differences) / 2)
        assert sd == pytest.approx(sds[column], abs=0.12)
    assert gain.values[:4] == ["+0.8", "+1.5", "+1.4", "+1.6"]
    assert gain.values[5:9] == ["+3.6", "-0.5", "+3.1", "+2.7"]
    assert "recall falls" in gain.note


def test_gains_are_run_against_base_and_control_of_every_base() -> None:
    table = load_paper("two_stage").table("gain")
    bases = ("unet", "micro_net", "unet_plus_plus")
    wanted = {f"two_stage:{base}{form}" for base in bases for form in ("", "_two_stage", "_control")}
    assert set(table.recipes_on("tnbc")) == wanted
    assert table.rows[0].recipes_by_base(table.columns[5]) == {
        base: [f"two_stage:{base}_two_stage", f"two_stage:{base}"] for base in bases
    }
