"""What a published system is: what its paper adds, over the options of its network, losses and optimizer."""

from collections.abc import Collection, Mapping
from typing import Any, ClassVar

from pydantic import BaseModel, model_validator

from hemalum.errors import HemalumError, nearest
from hemalum.models.network import option_defaults
from hemalum.networks import find_network
from hemalum.settings import Strict, as_plain, merge

_OF_THE_DATA = frozenset({"outputs", "inputs", "organs"})  # options of networks that the training's data decide


class SystemSettings(Strict):
    """Options of a system: the parts and the schedule of its paper, with the paper's value or our reading as default.

    Options of the network, the loss and the optimizer are declared where these are, and nested here: `network`,
    `loss`, `optimizer` … The default of each has the paper's values; a mapping changes these key by key, unless it
    names another network, loss or optimizer.
    """

    networks: ClassVar[tuple[str, ...]] = ()  # those that `network` may hold options of

    name: str

    @model_validator(mode="before")
    @classmethod
    def _change_defaults(cls, content: Any) -> Any:
        if not isinstance(content, Mapping):
            return content
        defaults = {
            key: as_plain(field.default)
            for key, field in cls.model_fields.items()
            if key in content and isinstance(field.default, BaseModel | dict)
        }
        return merge(defaults, content, f"system '{content.get('name')}'")

    @classmethod
    def option_paths(cls) -> dict[str, str]:
        """See `Strict`; the options of the networks are among them."""
        nested = {option: f"network.{option}" for name in cls.networks for option in network_options(name)}
        return super().option_paths() | nested | {name: name for name in cls.model_fields}

    def to_recipe(self) -> dict[str, Any]:
        """Give the keys of a recipe that the system decides: network, representation, phases and what else it needs.

        What a recipe says itself goes over them. Raises HemalumError for an option that the network does not have.
        """
        raise NotImplementedError


def network_options(name: str) -> dict[str, Any]:
    """Give the options of a registered network that a recipe may write, with their defaults.

    Raises HemalumError for an unknown name.
    """
    defaults = option_defaults(name)
    decided = {*_OF_THE_DATA, *find_network(name).stage_toggles}  # phases turn stages on and off
    return {option: as_plain(default) for option, default in defaults.items() if option not in decided}


def complete_network(name: str, options: Mapping[str, Any], left_out: Collection[str] = ()) -> dict[str, Any]:
    """Give a recipe's `network` with all of its options, the default where `options` has none.

    So a run and its model say all that they are made of, whatever the defaults become. `left_out` are not written
    unless they are among the options. Raises HemalumError for an unknown network or option (the nearest is named), or
    a value of another kind than the default; the network itself checks the rest when it is built.
    """
    defaults = network_options(name)
    for option, value in options.items():
        if option == "options" and isinstance(value, Mapping):
            raise HemalumError(
                f"network '{name}' has no option 'options': a system's network takes its options directly, without it"
            )
        if option not in defaults:
            raise HemalumError(f"network '{name}' has no option '{option}'{nearest(option, defaults)}")
        expected = _expected_kind(value, defaults[option])
        if expected:
            raise HemalumError(f"network '{name}', '{option}': want {expected}, not {value!r}")
    written = {option: default for option, default in defaults.items() if option not in left_out}
    return {"name": name, "options": written | dict(options)}


def _expected_kind(value: Any, default: Any) -> str:
    """What a value like the default is, where `value` is none."""
    match default:
        case bool() if not isinstance(value, bool):
            return "true or false"
        case int() if not isinstance(default, bool) and (type(value) is not int or value < 1):
            return "a whole number from 1 on"
        case float() if type(value) not in (int, float):
            return "a number"
        case str() if not isinstance(value, str):
            return "a name"
        case list() if not isinstance(value, list | tuple):
            return "a list"
    return ""
