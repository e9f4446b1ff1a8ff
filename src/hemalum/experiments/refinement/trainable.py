"""What a refinement lets train: by default the modules that a network declares as its late ones."""

import fnmatch
from collections.abc import Sequence

from hemalum.errors import HemalumError, nearest
from hemalum.models.model import Model
from hemalum.networks import NETWORKS

_NOT_TRAINED = ("running_mean", "running_var", "num_batches_tracked")


def choose_trainable(model: Model, patterns: Sequence[str] = ()) -> list[str]:
    """Patterns of the parameters that are to train: `patterns`, else the late modules of the model's network.

    A late module that the model was built without is left out. Raises HemalumError for a pattern that nothing
    matches, and where the network has no late modules.
    """
    name = model.card.network.name
    parameters = [parameter for parameter in model.tensors if not parameter.endswith(_NOT_TRAINED)]
    parts = sorted({parameter.partition(".")[0] for parameter in parameters})
    if patterns:
        for pattern in patterns:
            if not fnmatch.filter(parameters, pattern):
                raise HemalumError(
                    f"--trainable '{pattern}': no parameter of network '{name}' matches; "
                    f"its parts are {', '.join(parts)}"
                )
        return list(patterns)
    late = [] if name not in NETWORKS else [f"{module}.*" for module in NETWORKS[name].late_modules]
    matching = [pattern for pattern in late if fnmatch.filter(parameters, pattern)]
    if not matching:
        raise HemalumError(
            f"network '{name}': which of its parts are the last ones is not known; name them with "
            f"--trainable PATTERN, such as '{parts[-1]}.*'{nearest('head', parts)}"
        )
    return matching
