"""A network's last layer, `head`, by the maps that it gives: which to take from other weights, and which to keep.

The layer has one row of weights for each logit, or a block of rows where it makes sub-pixels, one after the other.
"""

import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from hemalum.errors import HemalumError
from hemalum.models.card import Card
from hemalum.models.file import Tensors, load_model_file
from hemalum.targets.representations import Head, Representation, find_representation

log = logging.getLogger(__name__)

HEAD = "head."  # how the names of the layer's weights begin


def load_initial(network: nn.Module, representation: Representation, path: Path | str, report: bool = True) -> Card:
    """Put the weights of a model file into `network`, whose last layer gives the logits of `representation`.

    Where the file's model gives other maps, the logits of maps that both have are taken, by the name of the map, and
    those of the others stay as they are; with `report` one line of the log names them. All other layers must be
    the same. Gives the file's card. Raises HemalumError when the file cannot be read or does not fit.
    """
    card, arrays = load_model_file(path)
    tensors = {name: torch.from_numpy(value) for name, value in arrays.items()}
    source = find_representation(card.representation, card.classes)
    if source.heads != representation.heads:
        pairs, missing = match_logits(source, representation)
        for name, fresh in network.state_dict().items():
            if name.startswith(HEAD) and name in tensors:
                tensors[name] = _take_rows(tensors[name], fresh, source, representation, pairs, path)
        if report:
            unused = [channel for channel in source.channels if channel not in representation.channels]
            log.info(
                "%s starts with all layers but the last: %s%s",
                path,
                f"{', '.join(missing)} start afresh" if missing else "all maps are taken",
                f"; its maps {', '.join(unused)} are not used" if unused else "",
            )
    try:
        network.load_state_dict(tensors)
    except RuntimeError as error:
        raise HemalumError(f"{path} does not fit the recipe's network: {str(error).splitlines()[-1]}") from error
    return card


def match_logits(source: Representation, target: Representation) -> tuple[list[tuple[int, int]], list[str]]:
    """The logits (of `source`, of `target`) of maps that both have, and the maps that `target` alone has.

    Maps are the same where their heads are of one kind and they have one name; the background of a softmax head
    goes with its other maps, if there is one of them in the source.
    """
    logits_by_map = {
        (head.kind, channel): (start + (head.kind == "softmax") + index, start)
        for head, start in _with_starts(source)
        for index, channel in enumerate(head.channels)
    }
    pairs: list[tuple[int, int]] = []
    missing: list[str] = []
    for head, start in _with_starts(target):
        background = head.kind == "softmax"
        for index, channel in enumerate(head.channels):
            if (head.kind, channel) not in logits_by_map:
                missing.append(channel)
                continue
            logit, first = logits_by_map[head.kind, channel]
            if background and (first, start) not in pairs:
                pairs.append((first, start))
            pairs.append((logit, start + background + index))
    return pairs, missing


def keep_head(tensors: Tensors, trained: Representation, kept: Representation) -> Tensors:
    """Drop what the last layer gives beside the maps of `kept`; the rest is untouched.

    Raises HemalumError when `trained` lacks a head of `kept`.
    """
    logits = find_logits(trained, kept)

    def select(value: NDArray[Any]) -> NDArray[Any]:
        grouped = value.reshape(trained.logits, -1, *value.shape[1:])
        return grouped[logits].reshape(-1, *value.shape[1:])

    return {name: select(value) if name.startswith(HEAD) else value for name, value in tensors.items()}


def find_logits(trained: Representation, kept: Representation) -> list[int]:
    """Which logits of `trained` are those of `kept`, in its order. Raises HemalumError when it lacks some."""
    pairs, missing = match_logits(trained, kept)
    for head in kept.heads:
        if not set(missing).isdisjoint(head.channels):
            raise HemalumError(f"representation '{trained.name}' has no maps {', '.join(head.channels)} to keep")
    return [source for source, _ in pairs]


def _with_starts(representation: Representation) -> Iterator[tuple[Head, int]]:
    """Each head and its first logit."""
    start = 0
    for head in representation.heads:
        yield head, start
        start += head.logits


def _take_rows(
    value: Tensor, fresh: Tensor, source: Representation, target: Representation,
    pairs: list[tuple[int, int]], path: Path | str,
) -> Tensor:  # fmt: skip
    """`fresh`, a tensor of the last layer, with the rows of `value` that belong to the same maps."""
    per_logit = len(fresh) // target.logits
    if value.shape != (per_logit * source.logits, *fresh.shape[1:]) or len(fresh) % target.logits:
        raise HemalumError(
            f"{path} does not fit the recipe's network: its last layer is {tuple(value.shape)} for {source.logits} "
            f"logits, the recipe's {tuple(fresh.shape)} for {target.logits}"
        )
    result = fresh.clone(memory_format=torch.contiguous_format)
    rows = result.view(target.logits, per_logit, *fresh.shape[1:])
    source_rows = value.reshape(source.logits, per_logit, *fresh.shape[1:])
    for source_logit, target_logit in pairs:
        rows[target_logit] = source_rows[source_logit]
    return result
