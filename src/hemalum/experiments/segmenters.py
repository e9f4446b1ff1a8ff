"""Whatever can be scored as a function of a sample: a model, the classical floor, label maps, any callable."""

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hemalum.data.sample import Sample
from hemalum.errors import HemalumError
from hemalum.experiments.label_maps import LabelMaps, is_label_folder
from hemalum.experiments.segmentation import CLASSICAL, Scale, Segmentation, Segmenter, scale_of
from hemalum.inference.probability import segment_with_maps
from hemalum.inference.scale import estimate_mpp
from hemalum.inference.segment import NO_ORGAN, as_engine, segment_source
from hemalum.inference.tta import describe_tta, without_tta
from hemalum.models.engines.engine import Engine
from hemalum.models.model import Model, load_model
from hemalum.slides.image_source import ImageSource
from hemalum.targets.representations import find_representation

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class NamedSegmenter:
    """A segmenter with what a summary says of it, and the split hashes that its training has seen, by dataset."""

    segmenter: Segmenter
    description: dict[str, Any]
    seen: dict[str, set[str]] = field(default_factory=dict)


def build_segmenter(
    model: Any,
    *,
    data: str,
    classes: Mapping[int, str],
    organs: Iterable[str | None] = (),
    mpp: Scale = None,
    engine: str | Engine = "auto",
    threads: int | None = None,
    tta: bool = False,
    name: str | None = None,
    probabilities: bool = False,
) -> NamedSegmenter:
    """A model, or whatever else `evaluate` takes, as a segmenter of the samples of the dataset called `data`.

    `classes` are the dataset's by id, `organs` those to expect, `mpp` the scale as in `evaluate`. `name` is what
    messages call the model. With `probabilities` a model gives them too. Raises HemalumError when the classes of
    model and dataset differ, or `tta` is asked of what runs no network.
    """
    fixed = _without_network(model, mpp)
    if fixed is None:
        return _model_segmenter(
            load_model(model), mpp=mpp, engine=engine, threads=threads, tta=tta, classes=classes, data=data,
            organs=organs, name=name, probabilities=probabilities,
        )  # fmt: skip
    if tta:
        raise HemalumError(
            f"tta turns what a network sees, and '{fixed.description['model']}' runs none: leave it out"
        )
    if isinstance(fixed.segmenter, LabelMaps):
        fixed.segmenter.class_names = classes
    return fixed


def _without_network(model: Any, mpp: Scale) -> NamedSegmenter | None:
    """What segments without a network; None for a model."""
    if isinstance(model, str) and model == CLASSICAL:
        return NamedSegmenter(_classical_segmenter(mpp), {"model": CLASSICAL, "engine": None})
    if is_label_folder(model):
        model = LabelMaps(Path(model))
    if isinstance(model, LabelMaps):
        return NamedSegmenter(model, {"model": model.name, "engine": None, "label_maps": str(model.folder)})
    if callable(model):
        return NamedSegmenter(model, {"model": getattr(model, "__name__", type(model).__name__), "engine": None})
    return None


def _classical_segmenter(mpp: Scale) -> Segmenter:
    from hemalum.systems.classical import segment_classical

    def segmenter(sample: Sample) -> Segmentation:
        scale = scale_of(sample, mpp)
        known = None if scale == "auto" else scale
        return Segmentation(segment_classical(sample.image, known), mpp=known)

    return segmenter


def _model_segmenter(
    model: Model, *, mpp: Scale, engine: str | Engine, threads: int | None, tta: bool, classes: Mapping[int, str],
    data: str, organs: Iterable[str | None], name: str | None, probabilities: bool,
) -> NamedSegmenter:  # fmt: skip
    card = model.card
    class_names = find_representation(card.representation, card.classes).class_names
    ids = class_ids(class_names, classes, name or card.name, data)
    runner = as_engine(engine, model, threads=threads, tta=tta)
    by_organ = model_by_organ(model, organs)

    def segmenter(sample: Sample) -> Segmentation:
        scale, chosen = scale_of(sample, mpp), by_organ(sample.organ)
        if scale == "auto":
            try:
                scale = estimate_mpp(ImageSource.of(sample.image), chosen, without_tta(runner)).mpp
            except HemalumError:  # too few nuclei to estimate from; a user would be left with nothing, too
                return Segmentation(np.zeros_like(sample.instances))
        if probabilities or ids is not None:
            return segment_with_scores(sample.image, chosen, runner, mpp=scale, ids=ids)
        with ImageSource.of(sample.image) as source:
            nuclei = segment_source(source, chosen, runner, mpp=scale)
        return Segmentation(nuclei.label_map(), mpp=nuclei.mpp)

    seen: dict[str, set[str]] = {}
    for used in card.training.seen if card.training is not None else []:
        seen.setdefault(used.name, set()).add(used.split_hash)
    description = {"model": card.name, "engine": f"{runner.name} {runner.precision}", **describe_tta(runner)}
    return NamedSegmenter(segmenter, description, seen)


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
    with ImageSource.of(image) as source:
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
