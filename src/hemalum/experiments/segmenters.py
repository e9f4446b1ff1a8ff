"""What is scored: the segmentation of a sample, the scale that it is made at, and a model as a segmenter."""

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from hemalum.data.sample import Sample
from hemalum.errors import HemalumError
from hemalum.inference.plan import NO_ORGAN
from hemalum.inference.probability import segment_with_maps
from hemalum.inference.scale import estimate_mpp
from hemalum.inference.segment import segment_source
from hemalum.inference.tta import describe_tta, without_tta
from hemalum.models.card import Card
from hemalum.models.engines.engine import Engine
from hemalum.models.model import Model
from hemalum.slides.slide import Slide

log = logging.getLogger(__name__)

CLASSICAL = "classical"  # the floor: Otsu on hematoxylin and a distance watershed

Scale = float | Literal["auto"] | None


@dataclass(frozen=True, slots=True, eq=False)
class Segmentation:
    """What a segmenter may return when it knows more than the label map.

    `labels` is (H, W) integer, 0 = background; `classes` is (max id + 1,) int32 by id. `mpp` is the scale that was
    assumed, µm per pixel; `estimated` says that it was estimated from the image, or, where there is none, that this
    failed. `probability` (H, W) float32 is that of nucleus, `nucleus_probability` (max id + 1,) float32 that of each
    nucleus by id, both in [0, 1]. `pixel_classes` (H, W) int32 is the class of each pixel before nuclei were
    separated, 0 = background; without it a pixel has the class of its nucleus.
    """

    labels: NDArray[np.integer[Any]]
    classes: NDArray[np.int32] | None = None
    mpp: float | None = None
    probability: NDArray[np.float32] | None = None
    nucleus_probability: NDArray[np.float32] | None = None
    pixel_classes: NDArray[np.int32] | None = None
    estimated: bool = False

    @classmethod
    def of(cls, result: "NDArray[np.integer[Any]] | Segmentation") -> "Segmentation":
        """What a segmenter has returned, a bare label map included."""
        return result if isinstance(result, Segmentation) else cls(result)


Segmenter = Callable[[Sample], NDArray[np.integer[Any]] | Segmentation]


@dataclass(frozen=True)
class NamedSegmenter:
    """A segmenter with what a summary says of it, and its card, where it is a model.

    `organs` are those that it tells apart by the sample's.
    """

    segmenter: Segmenter
    description: dict[str, Any]
    card: Card | None = None
    organs: tuple[str, ...] = ()


def scale_of(sample: Sample, mpp: Scale) -> float | Literal["auto"]:
    """The scale to segment a sample at: the one requested, else its own, else an estimate."""
    if mpp is not None:
        return mpp
    return "auto" if sample.mpp is None else sample.mpp


def model_segmenter(
    model: Model, engine: Engine, ids: NDArray[np.int32] | None, organs: Iterable[str | None], mpp: Scale,
    probabilities: bool,
) -> NamedSegmenter:  # fmt: skip
    """A model as a segmenter; with the class ids of `class_ids` it tells classes of nuclei apart."""
    card = model.card
    by_organ = model_by_organ(model, organs)

    def segmenter(sample: Sample) -> Segmentation:
        scale, chosen = scale_of(sample, mpp), by_organ(sample.organ)
        estimated = scale == "auto"
        if scale == "auto":
            try:
                scale = estimate_mpp(Slide.of(sample.image), chosen, without_tta(engine)).mpp
            except HemalumError:  # too few nuclei to estimate from; a user would be left with nothing, too
                return Segmentation(np.zeros_like(sample.instances), estimated=True)
        if probabilities or ids is not None:
            segmentation = segment_with_scores(sample.image, chosen, engine, mpp=scale, ids=ids)
            return replace(segmentation, estimated=estimated)
        with Slide.of(sample.image) as source:
            nuclei = segment_source(source, chosen, engine, mpp=scale)
        return Segmentation(nuclei.label_map(), mpp=nuclei.mpp, estimated=estimated)

    description = {"model": card.name, "engine": f"{engine.name} {engine.precision}", **describe_tta(engine)}
    if card.recall_note is not None:
        description["threshold"] = card.recall_note
    return NamedSegmenter(segmenter, description, card, () if card.organ else tuple(card.organs))


def model_for_organ(model: Model, organ: str | None) -> Model:
    """The model for images of `organ`, with its rule for unknown ones where it does not know it.

    Itself where it tells no organs apart, or has been set to one for all.
    """
    if not model.card.organs or model.card.organ is not None:
        return model
    try:
        return model.with_organ(organ)
    except HemalumError:
        return model


def model_by_organ(model: Model, organs: Iterable[str | None]) -> Callable[[str | None], Model]:
    """`model_for_organ` as a function of the organ; each is made once.

    `organs` are those to expect: what the model does not know among them is named in one warning.
    """
    if not model.card.organs or model.card.organ is not None:
        return lambda organ: model
    by_organ = cache(lambda organ: model_for_organ(model, organ))
    unknown = [organ for organ in dict.fromkeys(organs) if by_organ(organ).card.organ is None]
    if unknown:
        names = ", ".join("images without an organ" if organ is None else f"'{organ}'" for organ in unknown)
        log.warning("model '%s' does not know %s: %s", model.card.name, names, NO_ORGAN)
    return by_organ


def segment_with_scores(
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
    with Slide.of(image) as source:
        nuclei, maps = segment_with_maps(source, model, engine, mpp=mpp)
    rows = nuclei.table.column("id").to_numpy()
    confidence = np.zeros(nuclei.count + 1, np.float32)
    confidence[rows] = nuclei.table.column("probability").to_numpy()
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
        nucleus_probability=confidence,
        pixel_classes=pixel_classes,
    )


def class_ids(names: Sequence[str], classes: Mapping[int, str], model: str, data: str) -> NDArray[np.int32] | None:
    """(n + 1,) int32: the dataset's class id for each number of the model's classes `names`, 0 for none.

    None where the model or the dataset has no `classes`: then there is nothing to compare. Upper and lower case are
    one. Raises HemalumError, naming those that differ, unless both have the same names.
    """
    if not names or not classes:
        return None
    ids = {name.casefold(): number for number, name in classes.items()}
    model_names = {name.casefold(): name for name in names}
    only_model = [name for key, name in model_names.items() if key not in ids]
    only_data = [name for name in classes.values() if name.casefold() not in model_names]
    if only_model or only_data:
        parts = [(f"only {model} has", only_model), (f"only {data} has", only_data)]
        differing = "; ".join(f"{who} {', '.join(map(repr, unmatched))}" for who, unmatched in parts if unmatched)
        raise HemalumError(
            f"model {model} and dataset {data} have different classes of nuclei: {differing}; what means the same "
            "must be called the same (dataset.yaml holds the names of the dataset's)"
        )
    return np.array([0, *(ids[name.casefold()] for name in names)], np.int32)
