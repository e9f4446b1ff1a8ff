"""The card of a model as its training leaves it."""

import datetime
import logging
import shlex
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from hemalum import __version__
from hemalum.data.dataset import Dataset, Row
from hemalum.data.stain.recognition import known_stains
from hemalum.models.card import Card, NetworkSpec, Training, TrainingSet, UnlabeledSet
from hemalum.models.license import exceeds_license, license_of_data
from hemalum.models.seen_images import pack_images
from hemalum.networks import find_network
from hemalum.training.checkpoint import Progress
from hemalum.training.context import TrainContext
from hemalum.training.encoding import mean_and_std
from hemalum.training.fit import PhaseResult
from hemalum.training.recipe import Recipe
from hemalum.training.semi_supervised import TrainingParts

log = logging.getLogger(__name__)

RECOGNIZED = 24  # images of each set whose stain is recognized


def describe(
    context: TrainContext,
    datasets: Sequence[Dataset],
    parts: TrainingParts,
    validated: Mapping[str, Sequence[Row]],
    progress: Progress,
    nucleus_diameter_um: float,
    result: PhaseResult,
) -> Card:
    """The card of a trained model with the best weights of one phase; `validated` has what it was validated on."""
    recipe, stain, output = context.recipe, context.stain, context.output_representation
    mean, std = mean_and_std(recipe.input_range)
    sets = [
        TrainingSet(
            name=dataset.info.name,
            license=dataset.info.license,
            citation=dataset.info.citation,
            split_hash=dataset.split_hash,
            samples=len(labeled),
            unlabeled=len(hidden),
            images=pack_images(row.sha256 for row in (*labeled.rows, *hidden.rows)),
            validated=pack_images(row.sha256 for row in validated.get(name, ())),
        )
        for name, dataset, labeled, hidden in zip(recipe.data, datasets, parts.labeled, parts.hidden, strict=True)
    ]
    training = Training(
        recipe=recipe.name,
        recipe_hash=recipe.digest,
        command=shlex.join([*_name_program(), *sys.argv[1:]]),
        steps=progress.step,
        seed=recipe.seed,
        date=datetime.datetime.now(datetime.UTC).date().isoformat(),
        phase=result.phase if len(recipe.phases) > 1 else None,
        data=sets,
        pretrained=context.pretrained,
        unlabeled=[
            UnlabeledSet(name=source.name, images=len(source.images), sha256=source.sha256, license=source.license)
            for source in parts.sources
        ],
        settings=recipe.model_dump(mode="json"),
        initial=progress.initial,
    )
    return Card(
        name=recipe.name,
        network=_describe_network(context, result),
        representation=output.name,
        mpp=recipe.mpp,
        nucleus_diameter_um=round(nucleus_diameter_um, 2),
        output_upsampling=recipe.output_upsampling,
        channels=recipe.input,
        mean=mean,
        std=std,
        stain=None if stain is None else stain.target,
        native_stains=known_stains(_sample_images(dataset) for dataset in datasets),
        stride=context.stride,
        halo=context.halo,
        window=context.window,
        sam=context.sam,
        classes=list(output.classes) or ["nucleus"],
        organs=list(context.data_spec.organs),
        separation=recipe.separation,
        license=recipe.license or training.license_of_data,
        training=training,
        code_version=__version__,
    )


def report_license(
    recipe: Recipe, datasets: Sequence[Dataset], parts: TrainingParts, initial: Training | None, *, report: bool
) -> None:
    """Log the license of the model to come, in the process that is to `report`.

    A warning where the one that is stated leaves out what its data ask for.
    """
    if not report:
        return
    sets = [(dataset.info.name, dataset.info.license) for dataset in datasets]
    sets += [(source.name, source.license) for source in parts.sources]
    if initial is not None:
        sets += [(one.name, one.license) for one in initial.seen]
        sets += [(one.name, one.license) for one in initial.seen_unlabeled]
    allowed = license_of_data(sets)
    if recipe.license is None:
        log.info("license of the model, by its data: %s", allowed)
    elif exceeds_license(recipe.license, allowed):
        log.warning("the model's license is stated as %s, and its data allow less: %s", recipe.license, allowed)


def _describe_network(context: TrainContext, result: PhaseResult) -> NetworkSpec | None:
    """The network as the card says it, with the stages off that the phase of its weights had off."""
    spec = context.network
    if spec is None:
        return None
    toggles = find_network(spec.name).stage_toggles
    options = {name: value for name, value in spec.options.items() if name not in toggles}
    return spec.model_copy(update={"options": options | dict.fromkeys(result.stages_off, False)})


def _sample_images(dataset: Dataset) -> Iterator[NDArray[np.uint8]]:
    """Some of the training images, spread evenly: enough to tell what they are stained with."""
    train = dataset.split("train")
    for index in np.unique(np.linspace(0, len(train) - 1, min(len(train), RECOGNIZED)).astype(int)):
        yield train[int(index)].image


def _name_program() -> list[str]:
    """What was called: the program `hemalum`, or the script that trained through the Python API."""
    script = Path(sys.argv[0]).name
    return ["python", script] if script.endswith(".py") and script != "__main__.py" else ["hemalum"]
