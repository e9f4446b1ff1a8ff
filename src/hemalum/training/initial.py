"""Where a training starts from: the weights of a model file, also of one that gives other maps."""

import logging
from pathlib import Path

import torch
from torch import Tensor, nn

from hemalum.errors import HemalumError
from hemalum.instances.representations import Representation, find_representation
from hemalum.models.card import Card
from hemalum.models.file import load_model_file

log = logging.getLogger(__name__)

HEAD = "head."  # the last layer of a network, which gives one logit, or a block of them, for each map


def load_initial(network: nn.Module, representation: Representation, path: Path | str, say: bool = True) -> Card:
    """Put the weights of a model file into `network`, whose last layer gives the logits of `representation`.

    Where the file's model gives other maps, the logits of maps that both have are taken, by the name of the map, and
    those of the others stay as they are; with `say` one line of the log names them. All other layers must be
    the same. Gives the file's card. Raises HemalumError when the file cannot be read or does not fit.
    """
    card, arrays = load_model_file(path)
    tensors = {name: torch.from_numpy(value) for name, value in arrays.items()}
    source = find_representation(card.representation, card.classes)
    if source.heads != representation.heads:
        pairs, missing = matching_logits(source, representation)
        for name, fresh in network.state_dict().items():
            if name.startswith(HEAD) and name in tensors:
                tensors[name] = _taken(tensors[name], fresh, source, representation, pairs, path)
        if say:
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


def matching_logits(source: Representation, target: Representation) -> tuple[list[tuple[int, int]], list[str]]:
    """The logits (of `source`, of `target`) of maps that both have, and the maps that `target` alone has.

    Maps are the same where their heads are of one kind and they have one name; the background of a softmax head
    goes with its other maps, if there is one of them in the source.
    """
    places = {
        (head.kind, channel): (start + (head.kind == "softmax") + index, start)
        for head, start in zip(source.heads, _starts(source), strict=True)
        for index, channel in enumerate(head.channels)
    }
    pairs: list[tuple[int, int]] = []
    missing: list[str] = []
    for head, start in zip(target.heads, _starts(target), strict=True):
        background = head.kind == "softmax"
        for index, channel in enumerate(head.channels):
            place = places.get((head.kind, channel))
            if place is None:
                missing.append(channel)
                continue
            if background and (place[1], start) not in pairs:
                pairs.append((place[1], start))
            pairs.append((place[0], start + background + index))
    return pairs, missing


def _starts(representation: Representation) -> list[int]:
    """The first logit of each head."""
    starts = [0]
    for head in representation.heads:
        starts.append(starts[-1] + head.logits)
    return starts[:-1]


def _taken(
    value: Tensor, fresh: Tensor, source: Representation, target: Representation,
    pairs: list[tuple[int, int]], path: Path | str,
) -> Tensor:  # fmt: skip
    """`fresh`, a tensor of the last layer, with the rows of `value` that belong to the same maps."""
    # a sub-pixel head has several rows for each logit, one after the other
    per_logit = len(fresh) // target.logits
    if value.shape != (per_logit * source.logits, *fresh.shape[1:]) or len(fresh) % target.logits:
        raise HemalumError(
            f"{path} does not fit the recipe's network: its last layer is {tuple(value.shape)} for {source.logits} "
            f"logits, the recipe's {tuple(fresh.shape)} for {target.logits}"
        )
    result = fresh.clone(memory_format=torch.contiguous_format)
    rows = result.view(target.logits, per_logit, *fresh.shape[1:])
    old = value.reshape(source.logits, per_logit, *fresh.shape[1:])
    for before, after in pairs:
        rows[after] = old[before]
    return result
