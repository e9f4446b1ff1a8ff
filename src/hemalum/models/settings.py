"""Settings that a recipe writes by name: losses, systems."""

from collections.abc import Mapping
from typing import Any, TypeVar

from pydantic import ValidationError

from hemalum.errors import HemalumError
from hemalum.models.card import Strict
from hemalum.names import nearest

T = TypeVar("T", bound=Strict)


def build_named(kind: str, spec: Any, table: Mapping[str, type[T]]) -> T:
    """Give the settings of `kind` that `spec` writes: a name in `table`, or a mapping of `name` and options.

    Raises HemalumError for an unknown name or option (the nearest is named), or a value that is not possible.
    """
    content = {"name": spec} if isinstance(spec, str) else spec
    if not isinstance(content, dict) or not isinstance(content.get("name"), str):
        raise HemalumError(f"'{kind}' is a name, or a mapping with 'name' and its options")
    name = content["name"]
    if name not in table:
        raise HemalumError(f"unknown {kind} '{name}'{nearest(name, table)}")
    try:
        return table[name].model_validate(content)
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(part) for part in first["loc"])
        if first["type"] == "extra_forbidden":
            known = nearest(key, table[name].model_fields)
            raise HemalumError(f"{kind} '{name}' has no option '{key}'{known}") from error
        raise HemalumError(f"{kind} '{name}', '{key}': {str(first['msg']).removeprefix('Value error, ')}") from error
