"""The published systems by name: a network and a list of phases each, in one file, readable in one sitting."""

from typing import Any

from pydantic import ValidationError

from hemalum.errors import HemalumError
from hemalum.names import nearest
from hemalum.systems.al_net import ALNet
from hemalum.systems.clin_seg_net import ClinSegNet
from hemalum.systems.csra_net import CSRANet
from hemalum.systems.eunet3plus import EUNet3PlusSam
from hemalum.systems.system import SystemSettings
from hemalum.systems.two_stage import TwoStageEnhancement

SYSTEMS: dict[str, type[SystemSettings]] = {
    "al_net": ALNet,
    "clin_seg_net": ClinSegNet,
    "csra_net": CSRANet,
    "eunet3plus": EUNet3PlusSam,
    "two_stage": TwoStageEnhancement,
}


def build_system(spec: Any) -> SystemSettings:
    """Give the system that a recipe writes: its name, or a mapping of `name` and options.

    Raises HemalumError for an unknown name or option (the nearest is named), or a value that is not possible.
    """
    content = {"name": spec} if isinstance(spec, str) else spec
    if not isinstance(content, dict) or not isinstance(content.get("name"), str):
        raise HemalumError("'system' is a name, or a mapping with 'name' and its options")
    name = content["name"]
    if name not in SYSTEMS:
        raise HemalumError(f"unknown system '{name}'{nearest(name, SYSTEMS)}")
    try:
        return SYSTEMS[name].model_validate(content)
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(part) for part in first["loc"])
        if first["type"] == "extra_forbidden":
            known = nearest(key, SYSTEMS[name].model_fields)
            raise HemalumError(f"system '{name}' has no option '{key}'{known}") from error
        raise HemalumError(f"system '{name}', '{key}': {str(first['msg']).removeprefix('Value error, ')}") from error
