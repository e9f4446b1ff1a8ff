"""What a training leaves: the tensors that the model keeps, and its card."""

import datetime
import shlex
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hemalum import __version__
from hemalum.data.dataset import Dataset
from hemalum.data.stain_normalisation import StainNormaliser
from hemalum.data.stain_recognition import known_stains
from hemalum.errors import HemalumError
from hemalum.instances.representations import Representation, find_representation
from hemalum.models.card import Card, NetworkSpec, Training, TrainingSet
from hemalum.models.file import Tensors
from hemalum.training.checkpoint import Progress
from hemalum.training.recipe import Recipe
from hemalum.training.stream import MEAN, STD, Facts

RECOGNISED = 24  # images of each set whose stain is recognised


def keep_head(tensors: Tensors, trained: Representation, kept: Representation) -> Tensors:
    """Drop what the network's last layer, `head`, gives beside the maps of `kept`; the rest is untouched.

    Raises HemalumError when `trained` lacks a head of `kept`.
    """
    rows = kept_rows(trained, kept)

    def chosen(value: NDArray[Any]) -> NDArray[Any]:
        # a sub-pixel head has several rows for each logit, one after the other
        grouped = value.reshape(trained.logits, -1, *value.shape[1:])
        return grouped[rows].reshape(-1, *value.shape[1:])

    return {name: chosen(value) if name.startswith("head.") else value for name, value in tensors.items()}


def kept_rows(trained: Representation, kept: Representation) -> list[int]:
    """Which logits of `trained` are those of `kept`, in its order. Raises HemalumError when it lacks some."""
    rows: list[int] = []
    for head in kept.heads:
        start = 0
        for own in trained.heads:
            if own.kind == head.kind and set(head.channels) <= set(own.channels):
                background = own.kind == "softmax"
                rows += [start] * background
                rows += [start + background + own.channels.index(channel) for channel in head.channels]
                break
            start += own.logits
        else:
            raise HemalumError(f"representation '{trained.name}' has no maps {', '.join(head.channels)} to keep")
    return rows


def _some_images(dataset: Dataset) -> Iterator[NDArray[np.uint8]]:
    """Some of the training images, spread evenly: enough to tell what they are stained with."""
    train = dataset.split("train")
    for index in np.unique(np.linspace(0, len(train) - 1, min(len(train), RECOGNISED)).astype(int)):
        yield train[int(index)].image


def _program() -> list[str]:
    """What was called: the program `hemalum`, or the script that trained through the Python API."""
    script = Path(sys.argv[0]).name
    return ["python", script] if script.endswith(".py") and script != "__main__.py" else ["hemalum"]


def describe(
    recipe: Recipe, datasets: Sequence[Dataset], progress: Progress, spec: NetworkSpec, facts: Facts,
    seen: Mapping[str, Any], diameter: float, stain: StainNormaliser | None,
) -> Card:  # fmt: skip
    """The card of a trained model; `seen` are the card's fields that say what the network sees of an image."""
    representation = find_representation(recipe.keep or recipe.representation, facts.classes)
    sets = [
        TrainingSet(
            name=dataset.info.name,
            licence=dataset.info.licence,
            citation=dataset.info.citation,
            split_hash=dataset.split_hash,
            samples=len(dataset.split("train")),
        )
        for dataset in datasets
    ]
    return Card(
        name=recipe.name,
        network=spec,
        representation=representation.name,
        mpp=recipe.mpp,
        nucleus_diameter_um=round(diameter, 2),
        enlarge=recipe.enlarge,
        channels=recipe.input,
        mean=MEAN,
        std=STD,
        stain=None if stain is None else stain.target,
        as_it_is=known_stains(_some_images(dataset) for dataset in datasets),
        **seen,
        classes=list(representation.classes) or ["nucleus"],
        organs=list(facts.organs),
        separation=recipe.separation,
        training=Training(
            recipe=recipe.name,
            recipe_hash=recipe.digest,
            command=shlex.join([*_program(), *sys.argv[1:]]),
            steps=progress.step,
            seed=recipe.seed,
            date=datetime.datetime.now(datetime.UTC).date().isoformat(),
            data=sets,
            settings=recipe.model_dump(mode="json"),
            initial=progress.initial,
        ),
        code_version=__version__,
    )
