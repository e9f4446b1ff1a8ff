"""The recipes that come with the package, by name."""

from pathlib import Path

from hemalum.errors import HemalumError
from hemalum.names import nearest

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
