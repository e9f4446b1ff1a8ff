"""What a refinement lets train: the decoder, the heads, and what the network is told (FiLM, embedding)."""

import fnmatch
from collections.abc import Sequence

from hemalum.errors import HemalumError
from hemalum.inference.model import Model
from hemalum.names import nearest

# by network, where its last parts have names of their own; of others, every part that is called one of LATE
PATTERNS: dict[str, tuple[str, ...]] = {
    "seu_net": ("up.*", "decoder.*", "head.*", "edge.*", "film.*", "embedding.*"),
    "attention_unet": ("up.*", "gates.*", "decoder.*", "head.*"),
    "compact": ("lateral.*", "decoder.*", "head.*"),
    "ddu_net": ("segmentation.*", "distance.*"),
    "eunet3plus": ("decoder.*", "fuse.*", "head.*"),
    "medt": ("last.*", "head.*"),
    "swin_unet": ("expands.*", "joins.*", "decoder.*", "last.*", "norm.*", "head.*"),
    "two_stage": ("enhance.*",),
    "unet_plus_plus": ("nested.*", "up.*", "head.*", "sides.*"),
}
LATE = ("decoder", "up", "head", "heads", "final", "classifier", "film", "embedding")
_NOT_TRAINED = ("running_mean", "running_var", "num_batches_tracked")


def choose_trainable(model: Model, patterns: Sequence[str] = ()) -> list[str]:
    """Patterns of the parameters that are to train: those given, else the default of the model's network.

    Raises HemalumError for a pattern that nothing matches, and where the network has no default.
    """
    name = model.card.network.name
    parameters = [one for one in model.tensors if not one.endswith(_NOT_TRAINED)]
    parts = sorted({one.partition(".")[0] for one in parameters})
    if patterns:
        for pattern in patterns:
            if not fnmatch.filter(parameters, pattern):
                raise HemalumError(
                    f"--train '{pattern}': no parameter of network '{name}' matches; its parts are {', '.join(parts)}"
                )
        return list(patterns)
    if name in PATTERNS:  # a part that the model was built without is left out
        found = [pattern for pattern in PATTERNS[name] if fnmatch.filter(parameters, pattern)]
    else:
        found = [f"{part}.*" for part in parts if part in LATE]
    if not found:
        raise HemalumError(
            f"network '{name}': which of its parts are the last ones is not known; name them with --train PATTERN, "
            f"such as '{parts[-1]}.*'{nearest('head', parts)}"
        )
    return found
