"""What a model finds in a sample, in the terms of the sample's dataset."""

import logging
from collections.abc import Callable, Iterable

import numpy as np
from numpy.typing import NDArray

from hemalum.errors import HemalumError
from hemalum.inference.engine import Engine
from hemalum.inference.image import ImageSource
from hemalum.inference.model import Model
from hemalum.inference.probability import segment_with_maps
from hemalum.inference.segment import NO_ORGAN
from hemalum.studies.segmentation import Segmentation

log = logging.getLogger(__name__)


def model_by_organ(model: Model, organs: Iterable[str | None]) -> Callable[[str | None], Model]:
    """How a model is told the organ of each sample; itself where it tells none apart or has been told one for all.

    `organs` are those to expect: what the model does not know among them is named in one warning, and has the
    model's rule for unknown organs.
    """
    if not model.card.organs or model.card.organ is not None:
        return lambda organ: model
    models: dict[str | None, Model] = {}

    def told(organ: str | None) -> Model:
        if organ not in models:
            try:
                models[organ] = model.with_organ(organ)
            except HemalumError:
                models[organ] = model
        return models[organ]

    unknown = [organ for organ in dict.fromkeys(organs) if told(organ).card.organ is None]
    if unknown:
        names = ", ".join("images without an organ" if organ is None else f"'{organ}'" for organ in unknown)
        log.warning("model '%s' does not know %s: %s", model.card.name, names, NO_ORGAN)
    return told


def segment_learnt(
    image: NDArray[np.uint8],
    model: Model,
    engine: Engine,
    *,
    mpp: float | str | None,
    ids: NDArray[np.int32] | None = None,
) -> Segmentation:
    """Segment an image (H, W, 3) with everything that can be scored: probabilities and, with `ids`, classes.

    `ids` are the dataset's class ids by the model's numbers (`class_ids`). Raises HemalumError as `segment` does.
    """
    with ImageSource.of(image) as source:
        nuclei, maps = segment_with_maps(source, model, engine, mpp=mpp)
    rows = nuclei.table.column("id").to_numpy()
    sureness = np.zeros(nuclei.count + 1, np.float32)
    sureness[rows] = nuclei.table.column("probability").to_numpy()
    classes = pixel_classes = None
    if ids is not None and nuclei.classes is not None and maps.classes is not None:
        classes = np.zeros(nuclei.count + 1, np.int32)
        classes[rows] = ids[nuclei.classes.numbers]
        pixel_classes = ids[maps.classes]
    return Segmentation(
        nuclei.label_map(),
        classes=classes,
        mpp=nuclei.mpp,
        probability=maps.probability,
        nucleus_probability=sureness,
        pixel_classes=pixel_classes,
    )
