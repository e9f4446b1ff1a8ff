"""Comparisons and reproductions on a machine that lacks a SAM encoder."""

from pathlib import Path

import pytest

from builders.papers import MINI_PAPER
from builders.trainings import write_short_recipe
from hemalum.errors import HemalumError
from hemalum.experiments import compare as compare_module
from hemalum.experiments.compare import compare
from hemalum.experiments.execute import Resources
from hemalum.experiments.reproduce import reproduce
from hemalum.training import recipe as shipped
from hemalum.training.recipe import Recipe

CPU = Resources(accelerator="cpu", engine="torch")
MISSING = "huggingface-cli download facebook/sam-vit-base"

PAPER = f"""{MINI_PAPER}
protocol: {{}}
tables:
  - id: main
    title: Fusion
    averaging: pooled
    columns: [{{name: Dice, dataset: mini, metric: pixel.dice}}]
    rows:
      - {{method: without, values: [.8], recipe: "fusion:plain"}}
      - {{method: with SAM, values: [.9], recipe: "fusion:sam"}}
  - id: sam
    title: Encoders
    averaging: pooled
    columns: [{{name: Dice, dataset: mini, metric: pixel.dice}}]
    rows: [{{method: ViT-B, values: [.9], recipe: "fusion:sam"}}]
"""


@pytest.fixture
def shelf(recipe: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A recipe "fusion" with variants "plain" and "sam", the second with an encoder that is not here."""
    pytest.importorskip("transformers")
    folder = tmp_path / "recipes"
    folder.mkdir()
    variants = {"plain": {}, "sam": {"sam": {"encoder": "facebook/sam-vit-base"}}}
    write_short_recipe(folder, recipe, "fusion", variants=variants)
    monkeypatch.setattr(shipped, "_SHIPPED", folder)
    monkeypatch.setattr(compare_module, "measure_cost", lambda *_, **__: {"parameters": 1})
    return folder


@pytest.mark.fault
def test_a_comparison_is_refused_before_any_training(shelf: Path, mini: Path, tmp_path: Path) -> None:
    with pytest.raises(HemalumError, match=f"method 'sam': .*{MISSING}.*or leave the method out"):
        compare(["fusion"], [mini], tmp_path / "out", resources=CPU)
    assert not (tmp_path / "out" / "runs").exists()


@pytest.mark.fault
def test_a_table_that_needs_it_throughout_is_refused(shelf: Path, mini: Path, tmp_path: Path) -> None:
    paper = tmp_path / "paper.yaml"
    paper.write_text(PAPER)
    with pytest.raises(HemalumError, match=MISSING):
        reproduce(paper, "sam", data={"mini": mini}, out=tmp_path / "out", resources=CPU)


@pytest.mark.slow
def test_the_other_rows_of_a_table_are_run(shelf: Path, mini: Path, tmp_path: Path) -> None:
    paper = tmp_path / "paper.yaml"
    paper.write_text(PAPER)
    done = reproduce(paper, "main", data={"mini": mini}, out=tmp_path / "out", resources=CPU)
    ((_, (part,)),) = done.tables
    plain, lacking = part.lines
    assert plain.group_split is not None
    assert plain.status == ""
    assert lacking.group_split is None
    assert MISSING in lacking.status
