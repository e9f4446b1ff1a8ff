"""Our figure beside a printed one, from runs written by hand."""

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from hemalum.experiments.papers import Column, Row, load_paper
from hemalum.experiments.plan import Method
from hemalum.experiments.records import Comparison, Run
from hemalum.experiments.reproduce import Reproduction
from hemalum.experiments.reproduced_tables import (
    ROW_CHOICES,
    Difference,
    TablePart,
    method_name,
    reproduced_value,
    row_settings,
)
from hemalum.reports.reproduction import reproduction_grids
from hemalum.training.recipe import open_recipe


def comparison() -> Comparison:
    """Two methods on one set, two seeds each."""
    runs = []
    for method, offset in (("a.x", 0.1), ("b", 0.0)):
        for seed in (1, 2):
            organs = [
                {"name": "human kidney", "recall": 0.2 * seed + offset, "recall_pooled": 0.3 * seed + offset},
                {"name": "tonsile", "recall": 0.9, "recall_pooled": 0.8},
            ]
            summary: dict[str, Any] = {
                "pixel": {"pooled": {"recall": 0.4 * seed + offset}, "per_image": {"recall": 0.1}},
                "by_organ": organs,
            }
            runs.append(Run("set", method, 0, seed, Path(), [], summary, {"parameters": 7000}, None))
    return Comparison(Path(), (), {"set": Path()}, tuple(runs), "full", {})


def row(**fields: Any) -> Row:
    return Row.model_validate({"method": "m", "values": ["~"], "recipe": "a:x"} | fields)


RECALL = Column(name="recall", dataset="set", metric="pixel.recall", scale=100)


@pytest.mark.parametrize(
    ("fields", "averaging", "mean"),
    [
        ({}, "pooled", 70),  # of 0.5 and 0.9
        ({}, "per_image", 10),
        ({"minus": "b"}, "pooled", 10),
        ({"organs": ["kidney"]}, "per_image", 40),  # of 0.3 and 0.5
        ({"organs": ["Kidney"]}, "pooled", 55),
        ({"organs": ["tonsil", "tonsile"]}, "pooled", 80),
    ],
)
def test_a_figure_is_the_mean_over_runs(fields: dict[str, Any], averaging: str, mean: float) -> None:
    value = reproduced_value(comparison(), "set", row(**fields), RECALL, averaging)
    assert value is not None
    assert value.mean == pytest.approx(mean)
    assert value.runs == 2


def test_every_row_says_what_it_was_given() -> None:
    """Rows of one table may come from recipes that differ in more than their network: the reader has to see it."""
    paper = load_paper("eunet3plus_sam")
    table = paper.table("1")
    names = ("eunet3plus_nuinsseg:unet", "eunet3plus_nuinsseg:guided")
    methods = [
        Method(
            name=method_name(name), kind="recipe", title=name, source=name, digest=name,
            recipe=open_recipe(name, budget).model_dump(mode="json"),
        )
        for name, budget in zip(names, ("small", "full"), strict=True)
    ]  # fmt: skip
    ran = Comparison(Path(), tuple(methods), {"nuinsseg": Path()}, (), "full", {})
    rows = row_settings(table, "nuinsseg", {"paper": ran, "group_split": ran})
    assert [(row.method, row.recipe) for row in rows] == [
        ("U-Net", names[0]), ("Guided eU-Net3+ (SAM)", names[1]),
    ]  # fmt: skip
    first, second = (row.settings for row in rows)
    assert tuple(first) == ROW_CHOICES
    assert (first["stain_normalization"], second["stain_normalization"]) == ("none", "macenko")
    assert first["image_size"].startswith("crops of 128 x 128 px at 0.5")
    assert second["image_size"].startswith("crops of 256 x 256 px at 0.32")
    assert second["optimizer"] == "adam, 0.0001, constant"
    assert row_settings(table, "conic", {"paper": ran, "group_split": ran}) == ()
    part = TablePart("nuinsseg", "nuinsseg", (), (Difference("data", "", "", "", ""),), rows)
    done = Reproduction(paper, ((table, (part,)),), "full", 1, {})
    (grid,) = (grid for grid in reproduction_grids(done) if grid.caption.startswith("What each row was given"))
    assert grid.columns[:2] == ("input", "stain normalization")
    assert [(row.head, row.values[1]) for row in grid.rows] == [
        ("U-Net", "none"),
        ("Guided eU-Net3+ (SAM)", "macenko"),
    ]


def test_what_is_not_there_has_no_figure() -> None:
    assert reproduced_value(comparison(), "other", row(), RECALL, "pooled") is None
    assert reproduced_value(comparison(), "set", row(organs=["liver"]), RECALL, "pooled") is None
    assert reproduced_value(comparison(), "set", row(recipe="c"), RECALL, "pooled") is None


def test_the_cost_of_a_network_is_one_figure() -> None:
    column = Column(name="parameters", metric="cost.parameters", scale=0.001)
    value = reproduced_value(comparison(), "set", row(), column, "pooled")
    assert value is not None
    assert (value.mean, value.runs) == (7, 1)
    assert math.isnan(value.sd)


def gains() -> Comparison:
    """Two bases with and without, two seeds each: gains of .1 and .3 in the one, .0 and .1 in the other."""
    dice = {"a": (0.5, 0.6), "a_two": (0.6, 0.9), "b": (0.7, 0.7), "b_two": (0.7, 0.8)}
    runs = []
    for method, values in dice.items():
        for seed, value in enumerate(values, start=1):
            counts = {"positive": [0] * 1000, "negative": [0] * 1000}
            sure = round(10**8 * value / (2 - value))  # of a hundred million: Dice 2 sure / (sure + 10**8)
            counts["positive"][900], counts["positive"][0] = sure, 10**8 - sure
            counts["negative"][0] = 10**12
            summary: dict[str, Any] = {"pixel": {"per_image": {"dice": value}}}
            runs.append(Run("set", method, 0, seed, Path(), [], summary, {}, {"pixel": counts}))
    return Comparison(Path(), (), {"set": Path()}, tuple(runs), "full", {})


@pytest.mark.parametrize("metric", ["pixel.dice", "curve.best_dice"])
def test_a_gain_over_bases_has_the_sd_over_bases(metric: str) -> None:
    """Means of the bases 20 and 5 points: 12.5, with the sd of these two, not of the four runs."""
    column = Column(name="Dice", dataset="set", metric=metric, scale=100)
    over = row(recipe="{base}_two", minus="{base}", over=["a", "b"])
    value = reproduced_value(gains(), "set", over, column, "per_image")
    assert value is not None
    assert value.mean == pytest.approx(12.5, rel=1e-5)
    assert value.sd == pytest.approx(15 / math.sqrt(2), rel=1e-5)
    assert (value.runs, value.bases) == (2, 2)


def test_a_base_that_was_not_run_is_left_out_of_its_gain() -> None:
    column = Column(name="Dice", dataset="set", metric="pixel.dice", scale=100)
    over = row(recipe="{base}_two", minus="{base}", over=["a", "b", "c"])
    value = reproduced_value(gains(), "set", over, column, "per_image")
    assert value is not None
    assert value.bases == 2


@pytest.mark.parametrize(
    ("metric", "al_net", "unet", "share"),
    [
        ("boundary.hd95_px", 8.5, 10.0, 15),
        ("boundary.assd_px", 2.0, 1.0, -100),
        ("boundary.boundary_f1", 0.83, 0.8, 15),  # the error is 1 - F1: 0.17 against 0.2
        ("boundary.hd95_px", 1.0, 0.0, math.nan),
    ],
)
def test_the_share_of_an_error_that_is_saved(metric: str, al_net: float, unet: float, share: float) -> None:
    name = metric.partition(".")[2]
    runs = [
        Run("set", method, 0, 1, Path(), [], {"boundary": {"per_image": {name: value}}}, {}, None)
        for method, value in (("a.x", al_net), ("b", unet))
    ]
    column = Column(name="saved", dataset="set", metric=metric, scale=100, share_saved=True)
    made = Comparison(Path(), (), {"set": Path()}, tuple(runs), "full", {})
    value = reproduced_value(made, "set", row(minus="b"), column, "per_image")
    assert value is not None
    assert value.mean == pytest.approx(share, nan_ok=True)


@pytest.mark.parametrize(("metric", "gflops"), [("macs", 2), ("macs_at_outputs", 3)])
def test_operations_are_those_of_the_printed_side(metric: str, gflops: float) -> None:
    """Counted on 100 px, printed for 224 px, two FLOPs for each multiply-accumulate."""
    column = Column(name="GFLOPs", metric=f"cost.{metric}_per_px", scale=2e-9 * 224**2)
    counted = {"macs": 1e9 * (100 / 224) ** 2, "macs_at_outputs": 1.5e9 * (100 / 224) ** 2, "macs_side_px": 100}
    runs = tuple(replace(run, cost=run.cost | counted) for run in comparison().runs)
    value = reproduced_value(replace(comparison(), runs=runs), "set", row(), column, "pooled")
    assert value is not None
    assert value.mean == pytest.approx(gflops)
    assert reproduced_value(comparison(), "set", row(), column, "pooled") is None  # a record from before
