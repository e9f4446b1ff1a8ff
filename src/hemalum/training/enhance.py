"""Put a second stage on a trained model: the verb `enhance`."""

from pathlib import Path
from typing import Any

from hemalum.models.model import load_model
from hemalum.training.context import ProgressCallback
from hemalum.training.recipe import Budget, Recipe, find_recipe, load_recipe
from hemalum.training.train import Data, train

RECIPE = "enhance"  # shipped; its variants are the two things that can be trained


def enhancement_recipe(
    model: Path | str, *, control: bool = False, budget: Budget = "full", steps: int | None = None
) -> Recipe:
    """Give the recipe that puts a second stage on a model, or trains the model itself for as long.

    `steps` are at most so many for the second stage, and at most so many again for both together. Raises HemalumError
    when the model cannot be read, or has a second stage already.
    """
    loaded = load_model(model)
    variant = "control" if control else "two_stage"
    system: dict[str, Any] = {"base": {"model": str(model)}}
    if steps is not None:
        system |= {"enhance_steps": steps, "joint_steps": steps}
    recipe = load_recipe(find_recipe(RECIPE), budget, variant, {"system": system})
    return recipe.model_copy(update={"name": f"{loaded.card.name}.{variant}"})


def enhance(  # noqa: PLR0913 (the verb's options)
    model: Path | str,
    data: Data,
    out: Path | str,
    *,
    control: bool = False,
    budget: Budget = "full",
    steps: int | None = None,
    resume: bool = False,
    accelerator: str = "auto",
    threads: int | None = None,
    workers: int | None = None,
    on_progress: ProgressCallback | None = None,
) -> Path:
    """Train a second stage on `model` and dataset folders, and give the path of the model file of both.

    The model is a file that hemalum trained, or the name of a shipped one; its weights are where the first stage
    starts. The second stage is trained with the first frozen, then both together; scale, input, maps and separation
    stay the model's. With `control` no stage is put on: the model itself is trained for as many steps and chosen from
    as many validations, which is what a gain has to be set against. `steps` are at most so many for each of the two
    phases. The other options are those of `hemalum.train`. Raises HemalumError as `hemalum.train` does, and for a
    model that has a second stage already.
    """
    recipe = enhancement_recipe(model, control=control, budget=budget, steps=steps)
    return train(
        recipe,
        data,
        out,
        resume=resume,
        accelerator=accelerator,
        threads=threads,
        workers=workers,
        on_progress=on_progress,
    )
