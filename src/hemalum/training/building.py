"""The recipe's network, built for the data; what does not fit together is refused before any training."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch

from hemalum.data.dataset import Dataset
from hemalum.errors import HemalumError, nearest
from hemalum.losses.loss import LossInputs
from hemalum.models.card import NetworkSpec, Pretrained, SamEncoding
from hemalum.models.input import input_channels
from hemalum.models.network import build_network, measure_halo, option_defaults
from hemalum.models.sam import SamEncoder
from hemalum.networks import Network, Outputs
from hemalum.systems.phases import Threshold
from hemalum.targets.representations import BY_CLASS, Representation, find_representation
from hemalum.training.context import TrainContext
from hemalum.training.data_spec import DataSpec, gather_data_spec
from hemalum.training.head import find_logits
from hemalum.training.recipe import Recipe
from hemalum.training.sizes import check_images, check_memory
from hemalum.training.weights import check_phases

log = logging.getLogger(__name__)


def check_losses(recipe: Recipe) -> None:
    """Raise HemalumError unless the representations are known and each phase's loss fits the one that is trained."""
    placeholder = ("class",) if recipe.representation in BY_CLASS else ()
    head_types: set[str] = set()
    for name in (recipe.output_representation, recipe.representation):
        if name is not None:
            try:
                head_types = {head.kind for head in find_representation(name, placeholder).heads}
            except HemalumError as error:
                raise HemalumError(f"recipe {recipe.name}: {error}") from error
    for phase in recipe.phases:
        if phase.loss.only is not None and not head_types <= phase.loss.only:
            raise HemalumError(
                f"recipe {recipe.name}: loss '{phase.loss.name}' does not fit representation "
                f"'{recipe.representation}', whose maps are {', '.join(sorted(head_types))}; it takes "
                f"{', '.join(sorted(phase.loss.only))}"
            )
        if phase.loss.needs and recipe.target_supersampling > 1:
            raise HemalumError(
                f"recipe {recipe.name}: loss '{phase.loss.name}' needs maps on the network's grid: "
                "target_supersampling must be 1"
            )


def check_watched_losses(recipe: Recipe, representation: Representation) -> None:
    """Raise HemalumError when a switch watches a part of the loss that a phase's loss does not have.

    Parts of what some networks alone give, such as auxiliary logits, are looked for at the first step.
    """
    blank = torch.zeros(1, representation.logits, 8, 8)
    targets = torch.zeros(1, sum(len(head.channels) for head in representation.heads), 8, 8)
    for phase in recipe.phases:
        when = None if phase.switch is None else phase.switch.when
        if not isinstance(when, Threshold) or when.part is None:
            continue
        extra = {name: torch.zeros(1, 1, 8, 8) for name in phase.loss.needs}
        outputs = Outputs(blank, (blank,), {"presence": torch.zeros(1, 2), "stage1_logits": blank})
        parts = phase.loss(LossInputs(outputs, targets, representation.heads, extra))
        if when.part not in parts:
            raise HemalumError(
                f"phase '{phase.name}': its switch watches the part '{when.part}' of loss '{phase.loss.name}', which "
                f"has none of that name{nearest(when.part, parts)}"
            )


def build_for_data(
    context: TrainContext, datasets: Sequence[Dataset], sam: SamEncoder | None
) -> tuple[Network, TrainContext]:
    """The network on its device, and the context with what the network takes and what follows from it.

    Raises HemalumError when recipe, network and data do not fit together.
    """
    recipe = context.recipe
    check_images(recipe, datasets)
    data_spec = gather_data_spec(recipe, datasets, 0 if sam is None else sam.channels)
    check_network(recipe, data_spec, context.fabric.device, context.fabric.world_size)
    network, spec = build_for(recipe, data_spec)
    context = replace(context, data_spec=data_spec.with_conditions(network.conditions), network=spec)
    unseen = context.data_spec.find_unseen(datasets) if context.data_spec.organs else []
    if unseen:
        log.warning(
            "recipe %s: no training image is of %s: validation and test images of these are seen as of an unknown "
            "organ, which is what a split by organ tests; a split by image has every organ in every part",
            recipe.name,
            ", ".join(unseen),
        )
    if recipe.output_representation is not None:  # what cannot be kept is refused now, not at the end
        find_logits(context.representation, context.output_representation)
    check_phases(network, recipe.phases)
    check_watched_losses(recipe, context.representation)
    network = network.to(context.fabric.device)  # where its halo is measured in no time
    window = find_window(recipe, network)
    halo = find_halo(recipe, network, window)
    encoding = None
    if sam is not None and recipe.sam is not None and window is not None:
        encoding = SamEncoding(
            encoder=recipe.sam.encoder, digest=sam.digest, field=window, control=recipe.sam.control
        )
    pretrained = None
    if network.pretrained_digest is not None:
        source = _split_pretrained(recipe.network.options)[1]
        pretrained = Pretrained(source=str(source), sha256=network.pretrained_digest)
    return network, replace(
        context, stride=network.stride, window=window, halo=halo, sam=encoding, pretrained=pretrained
    )


def check_network(recipe: Recipe, data_spec: DataSpec, device: torch.device, processes: int = 1) -> None:
    """Raise HemalumError unless the recipe's network and its tiles go together and into memory; holds no weights."""
    options = _split_pretrained(recipe.network.options)[0]
    bare = recipe.model_copy(update={"network": recipe.network.model_copy(update={"options": options})})
    with torch.device("meta"):
        network, _ = build_for(bare, data_spec)
    find_window(recipe, network)
    weights = sum(parameter.numel() for parameter in network.parameters())
    logits = find_representation(recipe.representation, data_spec.classes).logits
    check_memory(recipe, weights, logits, device, processes)


def build_for(recipe: Recipe, data_spec: DataSpec) -> tuple[Network, NetworkSpec]:
    """Build the recipe's network for the data, and give it as the card says it: with all options that follow.

    Raises HemalumError when there is no such network or its options do not fit.
    """
    options = dict(recipe.network.options)
    if recipe.input != "RGB":
        options.setdefault("inputs", 1)
    if data_spec.organs:
        options.setdefault("organs", len(data_spec.organs))
    channels = data_spec.embedding_channels
    if channels and "embedding" in option_defaults(recipe.network.name):
        options.setdefault("embedding", channels)
    logits = find_representation(recipe.representation, data_spec.classes).logits
    network = build_network(recipe.network.name, logits, options)
    if channels and network.embedding_channels not in (None, channels):
        raise HemalumError(
            f"recipe {recipe.name}: its network takes an embedding of {network.embedding_channels} channels and the "
            f"SAM encoder has {channels}: leave out the option 'embedding'"
        )
    # the model file holds all weights: no need to fetch others under them
    return network, NetworkSpec(name=recipe.network.name, options=_split_pretrained(options)[0])


def _split_pretrained(options: Mapping[str, Any]) -> tuple[dict[str, Any], str | None]:
    """A network's options without `pretrained`, its own or that of its base, and what that was."""
    rest = dict(options)
    source = rest.pop("pretrained", None)
    base = rest.get("base")
    if isinstance(base, Mapping) and base.get("options"):
        base_options, base_source = _split_pretrained(base["options"])
        rest["base"], source = {**base, "options": base_options}, source or base_source
    return rest, source


def find_window(recipe: Recipe, network: Network) -> int | None:
    """The side of every input of the trained network, in px; None where it takes any size.

    Raises HemalumError when the recipe's tiles do not fit the network.
    """
    window, stride = network.fixed_window, network.stride
    if window is not None and recipe.tile != window:
        raise HemalumError(
            f"recipe {recipe.name}: tile is {recipe.tile}, its network takes {window} x {window} px: make them equal"
        )
    if recipe.tile % stride:
        raise HemalumError(f"recipe {recipe.name}: tile {recipe.tile} is not a multiple of the network's {stride}")
    wants = "embedding" in network.conditions
    if wants != (recipe.sam is not None):
        what = "needs an embedding: give 'sam' with an encoder" if wants else "takes no embedding: leave out 'sam'"
        raise HemalumError(f"recipe {recipe.name}: its network {what}")
    if recipe.sam is not None:
        field = recipe.sam.field or recipe.tile
        if field % stride:
            raise HemalumError(f"recipe {recipe.name}: sam.field {field} is not a multiple of the network's {stride}")
        return field
    return recipe.tile if window is not None or network.global_context else None


def find_halo(recipe: Recipe, network: Network, window: int | None) -> int:
    """How far around a tile's core the trained network looks, px: measured, or an eighth of its window."""
    if window is None:
        return measure_halo(network, network.stride, inputs=input_channels(recipe.input))
    return max(network.stride, window // 8 // network.stride * network.stride)
