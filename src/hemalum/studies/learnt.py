"""What a model finds in a sample, in the terms of the sample's dataset."""

import numpy as np
from numpy.typing import NDArray

from hemalum.inference.engine import Engine
from hemalum.inference.image import ImageSource
from hemalum.inference.model import Model
from hemalum.inference.probability import segment_with_maps
from hemalum.studies.segmentation import Segmentation


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
