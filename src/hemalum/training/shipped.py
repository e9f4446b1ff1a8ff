"""The recipes that come with the package, by name."""

import re
from pathlib import Path

from hemalum.errors import HemalumError
from hemalum.names import nearest
from hemalum.training.recipe import Budget, Recipe, load_recipe, recipe_variants

_PACKAGE = Path(__file__).resolve().parents[1]
# in a wheel they lie in the package, in a checkout at the root of the repository
_SHELVES = (_PACKAGE / "recipes", _PACKAGE.parents[1] / "recipes")


def shipped_recipes() -> dict[str, Path]:
    """Name → file of every shipped recipe, sorted by name."""
    files = [path for shelf in _SHELVES if shelf.is_dir() for path in shelf.glob("*.yaml")]
    return {path.stem: path for path in sorted(files, key=lambda path: path.stem)}


def find_recipe(recipe: Path | str) -> Path:
    """Give the file of a recipe: a path to one, or the name of a shipped one.

    Raises HemalumError for a name that is neither, with the nearest shipped name.
    """
    path = Path(recipe)
    if path.suffix in (".yaml", ".yml") or path.is_file():
        return path
    shipped = shipped_recipes()
    if str(recipe) not in shipped:
        raise HemalumError(f"no recipe file and no shipped recipe '{recipe}'{nearest(str(recipe), shipped)}")
    return shipped[str(recipe)]


def open_recipe(word: Path | str, budget: Budget = "full") -> Recipe:
    """Load the one recipe that `word` names: a file or a shipped name, `:VARIANT` after it where it has variants.

    Raises HemalumError as `find_recipe` and `load_recipe` do.
    """
    recipe, variant = _split(word)
    return load_recipe(find_recipe(recipe), budget, variant)


def open_recipes(word: Path | str, budget: Budget = "full") -> dict[str, Recipe]:
    """Load what `word` names, by short name: all variants of a recipe that has some, or the one recipe.

    Raises HemalumError as `open_recipe` does.
    """
    recipe, variant = _split(word)
    path = find_recipe(recipe)
    if variant is not None:
        return {variant: load_recipe(path, budget, variant)}
    variants = recipe_variants(path)
    if variants:
        return {one: load_recipe(path, budget, one) for one in variants}
    only = load_recipe(path, budget)
    return {only.name: only}


def _split(word: Path | str) -> tuple[str, str | None]:
    """RECIPE and VARIANT of `RECIPE:VARIANT`."""
    match = re.fullmatch(r"(.+):([\w.+-]+)", str(word))
    if match is None or Path(word).exists():
        return str(word), None
    return match[1], match[2]
