"""The steps that both ways to refine take, each done once: what lies in the folder already is read again."""

from collections.abc import Callable, Mapping
from pathlib import Path

from hemalum.data.dataset import Dataset
from hemalum.experiments.execute import Resources
from hemalum.experiments.measurement import Measurement, measure
from hemalum.inference.segment import as_engine
from hemalum.models.file import save_model
from hemalum.models.model import Model
from hemalum.training.recipe import Recipe
from hemalum.training.train import MODEL_FILE, train

Report = Callable[[int, int], None]  # done, of how many


def train_copy(
    model: Model, recipe: Recipe, data: Mapping[str, Dataset], folder: Path, resources: Resources, report: Report
) -> Path:
    """Train a copy of a model in `folder`, or go on with it; gives the file of the trained model."""
    path = folder / MODEL_FILE
    if path.is_file():
        return path
    initial = folder.with_name(f"start-{folder.name}.safetensors")  # beside it, as it has to start empty
    save_model(initial, model.card, model.tensors)
    train(
        recipe,
        dict(data),
        folder,
        resume=(folder / "checkpoint.safetensors").exists(),
        accelerator=resources.accelerator,
        threads=resources.threads,
        initial=initial,
        stain=model.card.stain,
        on_progress=lambda step, steps, _: report(step, steps),
    )
    initial.unlink()
    return path


def measure_once(
    path: Path, model: Model, data: Dataset, resources: Resources, report: Report, *, leave_out_ambiguous: bool
) -> Measurement:
    """Measure a model on a dataset and keep that at `path`, or read what is kept there."""
    if path.is_file():
        return Measurement.load(path)
    engine = as_engine(resources.engine, model, threads=resources.threads)
    result = measure(model, data, engine, report, leave_out_ambiguous=leave_out_ambiguous)
    result.save(path)
    return result
