"""A public set and pairs of one's own, combined, go through training, comparison and refinement as one dataset."""

import shutil
from pathlib import Path

import pytest
import yaml

from hemalum.data.importing import import_dataset
from hemalum.experiments import compare as compare_module
from hemalum.experiments.compare import compare
from hemalum.experiments.execute import Resources
from hemalum.experiments.refine import refine
from hemalum.models.file import load_model_file
from hemalum.training.recipe import Recipe
from hemalum.training.train import train

CPU = Resources(engine="torch", accelerator="cpu")


@pytest.fixture(scope="module")
def combined(organs: Path, mini: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    source = tmp_path_factory.mktemp("sets")
    shutil.copytree(organs, source / "public")
    shutil.copytree(mini, source / "pairs")
    target = tmp_path_factory.mktemp("combined") / "combined"
    import_dataset("combined", source, target)
    return target


def test_a_model_is_trained_compared_and_refined_on_both(
    combined: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(compare_module, "measure_cost", lambda *_, **__: {"parameters": 1})
    content = {
        "name": "tiny",
        "system": {"name": "clin_seg_net", "network": {"widths": [4, 8], "embedding": 3}, "steps": 4},
        "ema": 0,
        "mpp": 0.5,
        "tile": 32,
        "batch": 4,
        "validate_every": 4,
    }
    (tmp_path / "tiny.yaml").write_text(yaml.safe_dump(content))
    model = train(Recipe.model_validate(content), [combined], tmp_path / "run", accelerator="cpu")
    card, _ = load_model_file(model)
    assert card.organs == ["brain", "liver"]
    assert card.training is not None
    assert [used.name for used in card.training.data] == ["combined"]

    comparison, failed = compare(
        [str(tmp_path / "tiny.yaml"), "classical"], [combined], tmp_path / "out", resources=CPU
    )
    assert not failed
    sets = {row["id"].partition("_")[0] for run in comparison.runs for row in run.per_image}
    assert sets == {"public", "pairs"}

    refined = refine(model, combined, tmp_path / "refined", top=1, epochs=1, draws=1, resources=CPU)
    assert {image.organ for image in refined.chosen["refined"]} == {"brain", "liver", None}
    assert set(refined.arms) == {"before", "threshold", "refined", "random-1"}
