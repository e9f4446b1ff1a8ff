"""Settings: pydantic models that know their keys, and those that a recipe writes by name (losses, systems)."""

import math
from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from typing import Annotated, Any, TypeVar, get_args, get_origin

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from hemalum.errors import HemalumError, nearest

MAX_SEED = 2**32 - 1  # what every generator takes, also where a seed is multiplied or drawn on
Seed = Annotated[int, Field(ge=0, le=MAX_SEED)]


def check_seed(seed: int) -> None:
    """Raise HemalumError for a seed that is not a whole number from 0 to `MAX_SEED`."""
    if not isinstance(seed, int) or not 0 <= seed <= MAX_SEED:
        raise HemalumError(f"seed {seed}: want a whole number from 0 to {MAX_SEED}")


def as_number(value: Any, name: str) -> Any:
    """A number of any library as one of Python; None and texts stay. Raises HemalumError for other things."""
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, bool):
        raise HemalumError(f"{name} is {value}: want a number")
    try:
        number = value.item() if hasattr(value, "item") else value
    except (TypeError, ValueError, RuntimeError):
        number = None
    if isinstance(number, bool) or not isinstance(number, int | float):
        raise HemalumError(f"{name} is {value!r}: want one number")
    return number


def as_whole_number(value: Any, name: str) -> Any:
    """A whole number of any library, also 2.0, as one of Python; None stays. Raises HemalumError for other things."""
    number = as_number(value, name)
    if number is None:
        return None
    if isinstance(number, str) or not math.isfinite(number) or number != int(number):
        raise HemalumError(f"{name} is {value!r}: want a whole number")
    return int(number)


class Strict(BaseModel):
    """Unknown keys are errors, and so are numbers that are not finite; values do not change after loading."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    @classmethod
    def option_paths(cls) -> dict[str, str]:
        """Give where each option is written, dotted, by its name; the shallowest where nested settings share one."""
        nested = [
            (option, f"{name}.{path}")
            for name, field in cls.model_fields.items()
            for part in (type(field.default), *(settings for settings, _ in _nested(field.annotation, name)))
            if issubclass(part, Strict)
            for option, path in part.option_paths().items()
        ]
        paths = {name: name for name in cls.model_fields}
        for option, path in sorted(nested, key=lambda pair: pair[1].count(".")):
            paths.setdefault(option, path)
        return paths


RENAMED = {  # keys of version 0.1, and values of them, and what they became
    "carry": "keep_optimizer",
    "centre_gradient": "center_gradient",
    "enlarge": "output_upsampling",
    "finer": "target_supersampling",
    "grey": "gray",
    "keep": "output_representation",
    "labelled": "labeled",
    "levelled": "score_plateau",
    "optimiser": "optimizer",
    "sides": "aux_logits",
    "stain_normalisation": "stain_normalization",
    "switches": "stage_toggles",
    "unlabelled": "semi_supervised",
}

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
        # an option that is misspelled is missing as well
        first = next((one for one in error.errors() if one["type"] == "extra_forbidden"), error.errors()[0])
        key = ".".join(str(part) for part in first["loc"])
        if first["type"] == "extra_forbidden":
            if first["loc"][-1] in RENAMED:
                renamed = RENAMED[str(first["loc"][-1])]
                raise HemalumError(f"{kind} '{name}': '{key}' is called '{renamed}' since version 0.2") from error
            hint = _option_hint(table[name], first["loc"])
            raise HemalumError(f"{kind} '{name}' has no option '{key}'{hint}") from error
        raise HemalumError(f"{kind} '{name}', '{key}': {str(first['msg']).removeprefix('Value error, ')}") from error


def _option_hint(settings: type[Strict], path: Sequence[str | int]) -> str:
    """The end of a line on an option that is not known at `path`: where the nearest one stands."""
    option, paths = str(path[-1]), settings.option_paths()
    models, location = _walk(settings, path[:-1])
    if option in paths and paths[option].split(".")[:-1] == list(location):  # in another form of the same settings
        return nearest(option, {name for part in models for name in part.model_fields})
    match = get_close_matches(option, paths, n=1)
    return (
        f", did you mean '{paths[match[0]]}'?" if match else nearest(".".join(map(str, path)), settings.model_fields)
    )


def merge(content: Mapping[str, Any], changes: Mapping[str, Any], where: str) -> dict[str, Any]:
    """Give `content` with `changes`: mappings key by key, lists of named things (phases) by name, all else replaced.

    A mapping that is given another `name` (of a network, an optimizer) is another thing, and replaced as a whole; a
    name alone is the mapping of that name. Raises HemalumError for a change to a thing of a list that is not there,
    and for one that is no mapping.
    """
    if not isinstance(changes, Mapping):
        raise HemalumError(f"{where}: want a mapping of the keys that differ, not {changes!r}")
    result: dict[str, Any] = dict(content)
    for key, change in changes.items():
        old = result.get(key)
        if isinstance(old, str) and isinstance(change, Mapping):
            old = {"name": old}
        if isinstance(old, Mapping) and isinstance(change, Mapping):
            another = "name" in change and change["name"] != old.get("name", change["name"])
            result[key] = change if another else merge(old, change, where)
        elif isinstance(old, list) and isinstance(change, Mapping):
            result[key] = _merge_named(old, change, f"{where} changes {key}")
        else:
            result[key] = change
    return result


def _merge_named(items: list[Any], changes: Mapping[str, Any], where: str) -> list[dict[str, Any]]:
    """Give mappings that have a name with the changes of each by its name."""
    if not all(isinstance(item, Mapping) and isinstance(item.get("name"), str) for item in items):
        raise HemalumError(f"{where} by name, but it is a list of other things: give it whole")
    names = [item["name"] for item in items]
    for name in changes:
        if name not in names:
            raise HemalumError(f"{where}, '{name}'{nearest(str(name), names)}")
    return [merge(item, changes.get(item["name"], {}), f"{where}, '{item['name']}'") for item in items]


def require_finite(value: Any) -> None:
    """Raise ValueError for a number, alone or within lists and mappings, that is not finite."""
    if isinstance(value, float) and not math.isfinite(value):
        raise ValueError(f"want a finite number, not {value}")
    for part in value.values() if isinstance(value, Mapping) else value if isinstance(value, list | tuple) else ():
        require_finite(part)


def as_plain(value: Any) -> Any:
    """Give settings, and what holds some, as the mappings and lists that a recipe would write."""
    if isinstance(value, BaseModel):
        return value.model_dump(mode="json")
    if isinstance(value, Mapping):
        return {key: as_plain(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [as_plain(part) for part in value]
    return value


def explain(error: ValidationError, model: type[BaseModel], elsewhere: Mapping[str, str] | None = None) -> str:
    """Give what is wrong with a mapping of `model`, as the end of an error line.

    Unknown keys come first, the outermost before those within, and all of them: a key that stands in the wrong place
    is named with the one where it belongs, as `phases[0].loss`; `elsewhere` has such places beside those of the
    model, by key. Any other gets the nearest key that is known where it stands.
    """
    errors = error.errors()
    unknown = sorted((one for one in errors if one["type"] == "extra_forbidden"), key=lambda one: len(one["loc"]))
    if unknown:
        return "; and ".join(dict.fromkeys(_unknown_key(model, one["loc"], elsewhere or {}) for one in unknown))
    first = errors[0]
    where = ".".join(str(part) for part in first["loc"])
    if first["type"] == "literal_error" and str(first["input"]) in RENAMED:
        return f"'{where}': '{first['input']}' is called '{RENAMED[first['input']]}' since version 0.2"
    message = str(first["msg"]).removeprefix("Value error, ")
    return f"'{where}': {message}" if where else message


def _unknown_key(model: type[BaseModel], path: Sequence[str | int], elsewhere: Mapping[str, str]) -> str:
    where, key = ".".join(str(part) for part in path), str(path[-1])
    models, location = _walk(model, path[:-1])
    known = {name for part in models for name in part.model_fields}
    if key in RENAMED and RENAMED[key] in known:
        return f"key '{where}' is called '{RENAMED[key]}' since version 0.2"
    if "options" in known:
        return f"unknown key '{where}'; the options of a network stand under '{where.removesuffix(key)}options'"
    belongs = key_locations(model).get(key, [])
    if key in elsewhere and len(location) <= 1:
        belongs = [*belongs, tuple(elsewhere[key].split("."))]
    if not belongs or location in [one[:-1] for one in belongs]:  # the latter: in another form of the same settings
        return f"unknown key '{where}'{nearest(key, known)}"
    # the nearest: what shares the most with where it stands, and then the outermost
    best = min(belongs, key=lambda one: (-_shared(one, location), len(one)))
    return f"unknown key '{where}'; it belongs {_into(_at_index(best, path))}"


def key_locations(model: type[BaseModel]) -> dict[str, list[tuple[str, ...]]]:
    """Give by key where it may stand in a mapping of `model`: `phases[0]`, `loss`; `NAME` is a mapping's own key."""
    locations: dict[str, list[tuple[str, ...]]] = {}

    def visit(part: type[BaseModel], path: tuple[str, ...], above: tuple[type, ...]) -> None:
        for name, field in part.model_fields.items():
            if (*path, name) not in locations.setdefault(name, []):
                locations[name].append((*path, name))
            for nested, steps in _nested(field.annotation, name):
                if nested not in above:
                    visit(nested, path + steps, (*above, nested))

    visit(model, (), (model,))
    return locations


def _nested(annotation: Any, name: str) -> list[tuple[type[BaseModel], tuple[str, ...]]]:
    """The settings that an annotation names, each with the steps that lead to them from the field's settings."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [(annotation, (name,))]
    kind, parts = get_origin(annotation), get_args(annotation)
    if kind is list:
        return [(nested, (f"{name}[0]",)) for part in parts for nested, _ in _nested(part, name)]
    if kind is dict:
        return [(nested, (name, "NAME")) for part in parts for nested, _ in _nested(part, name)]
    return [one for part in parts for one in _nested(part, name)]


def _walk(model: type[BaseModel], path: Sequence[str | int]) -> tuple[list[type[BaseModel]], tuple[str, ...]]:
    """The settings that may stand at `path`, as pydantic writes it, and the way there as `key_locations` does.

    What is no field in it (a list's index, a mapping's key, the name that tells a union's models apart) stays
    where it is; a name takes the model that it names.
    """
    models, location = [model], tuple[str, ...]()
    for step in path:
        annotations = [part.model_fields[str(step)].annotation for part in models if str(step) in part.model_fields]
        nested = [one for annotation in annotations for one in _nested(annotation, str(step))]
        named = [part for part in models if "name" in part.model_fields and part.model_fields["name"].default == step]
        if nested:
            location += nested[0][1]
        models = [part for part, _ in nested] or named or models
    return models, location


def _shared(one: Sequence[str], other: Sequence[str]) -> int:
    return next((index for index, pair in enumerate(zip(one, other, strict=False)) if pair[0] != pair[1]), len(other))


def _at_index(location: Sequence[str], path: Sequence[str | int]) -> list[str]:
    """The place with the index that `path` has of the same list."""
    steps = list(location)
    if len(path) > 1 and isinstance(path[1], int) and steps[0] == f"{path[0]}[0]":
        steps[0] = f"{path[0]}[{path[1]}]"
    return steps


def _into(location: Sequence[str]) -> str:
    """The words for where a key belongs, and the place itself."""
    written = ".".join(location)
    if len(location) == 1:
        return f"to the top level ({written})"
    container = location[-2]
    if container.endswith("]"):
        items = container.partition("[")[0]
        one = f"a {items.removesuffix('s')}" if items.endswith("s") else f"an entry of '{items}'"
        return f"into {one} ({written})"
    if container == "NAME":
        return f"into an entry of '{location[-3]}' ({written})"
    return f"into '{container}' ({written})"
