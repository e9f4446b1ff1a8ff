"""What figures rest on: images that a model has seen in its training, and scales that were estimated."""

import logging
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from hemalum.data.dataset import Dataset
from hemalum.errors import counted
from hemalum.models.card import Card
from hemalum.models.seen_images import Packed, SeenImages, SetKey, pack_images

log = logging.getLogger(__name__)

USER, ESTIMATE, NO_ESTIMATE = "user", "estimate", "too few nuclei"  # where the scale of an image comes from
OF_NUCLEI = "nuclei"  # of a dataset that sets it from the true ones


def count_seen(card: Card, pixel_hashes: Sequence[str], dataset: Dataset | None = None) -> dict[str, Any]:
    """How many images a model was `trained` and `validated` on, of how many, and sets that its card does not tell.

    `dataset` is the one that the images are of: a card that has its name and split and no hashes means its parts.
    """
    at_hand = {}
    if dataset is not None:
        parts = (pack_images(row.sha256 for row in dataset.split(part).rows) for part in ("train", "val"))
        at_hand[SetKey(dataset.info.name, dataset.split_hash)] = Packed(*parts)
    seen = SeenImages.of(card.training, at_hand)
    uses = Counter(seen.use_of(one) for one in pixel_hashes)
    return {
        "images": len(pixel_hashes),
        "trained": uses["trained"],
        "validated": uses["validated"],
        "unrecorded": list(seen.unrecorded),
    }


def seen_text(counts: Mapping[str, Any]) -> str:
    """What a model has seen of the images that it is scored on, in words."""
    parts = [f"{counts['trained']:,} learned from"] if counts["trained"] else []
    parts += [f"{counts['validated']:,} in its validation"] if counts["validated"] else []
    text = f"{' and '.join(parts)}, of {counted(counts['images'], 'image')}" if parts else ""
    if not counts["unrecorded"]:
        return text or f"none of {counted(counts['images'], 'image')}"
    unknown = f"its file does not tell the images of {', '.join(counts['unrecorded'])}"
    return f"{text}; {unknown}" if text else f"not known: {unknown}"


def warn_of_seen(model: str, where: str, counts: Mapping[str, Any]) -> None:
    """Log in a line what a model has seen of the images that it is scored on, or that this cannot be known."""
    if counts["trained"] or counts["validated"]:
        log.warning(
            "%s has seen images of %s: %s; its scores are not those of new images", model, where, seen_text(counts)
        )
    elif counts["unrecorded"]:
        log.warning("whether %s has seen images of %s is %s", model, where, seen_text(counts))


def warn_before(model: str, card: Card, datasets: Mapping[str, Dataset], split: str | None) -> None:
    """The same before anything is scored, by the index of each dataset; `split` None: of all its images."""
    for name, dataset in datasets.items():
        part = dataset if split is None else dataset.split(split)
        warn_of_seen(model, describe_part(name, split), count_seen(card, [row.sha256 for row in part.rows], dataset))


def describe_part(name: str, split: str | None) -> str:
    """A dataset and its part, for messages."""
    return name if split is None else f"{name}, split {split}"


def scale_source(mpp: float | str | None, stated: str | None, scale: float | None, estimated: bool) -> str | None:
    """Where the scale that an image was segmented at comes from; None where none was used.

    `mpp` is what `evaluate` was asked for, `stated` the source that the dataset says, `scale` what was used.
    """
    if estimated:
        return NO_ESTIMATE if scale is None else ESTIMATE
    if scale is None:
        return None
    return (stated or "dataset") if mpp is None else USER


def count_scales(sources: Iterable[str | None]) -> dict[str, int]:
    """How many images have their scale from where; images that none was used for are left out."""
    return dict(Counter(source for source in sources if source is not None).most_common())


def scales_text(sources: Mapping[str, int]) -> str:
    """How many scales are estimates, or were set from the true nuclei; nothing where none is."""
    total = sum(sources.values())
    estimated, failed = sources.get(ESTIMATE, 0), sources.get(NO_ESTIMATE, 0)
    parts = [f"estimated for {estimated + failed:,} of {counted(total, 'image')}"] if estimated + failed else []
    parts += [f"{failed:,} of these with too few nuclei for it, where none counts as found"] if failed else []
    parts += [f"set from the true nuclei for {sources[OF_NUCLEI]:,} of {total:,}"] if OF_NUCLEI in sources else []
    return ", ".join(parts)
