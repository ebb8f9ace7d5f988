"""Where search spaces and recipes are found."""

from pathlib import Path

from hkrun.config import nearest
from hkrun.datasets import RECIPE_OF_OWN
from hkrun.errors import InputError, NotFoundError
from hkrun.user_parts import is_own

_PACKAGE = Path(__file__).resolve().parents[1]


def _folders() -> list[Path]:
    """The folders of search spaces, first wins: working directory, installed package, repository."""
    folders = [Path.cwd() / "search_spaces", _PACKAGE / "search_spaces"]
    if (_PACKAGE.parent / "pyproject.toml").is_file():
        folders.append(_PACKAGE.parent / "search_spaces")
    return folders


def sweep_names() -> list[str]:
    """The names of all search spaces that can be run by name, sorted."""
    return sorted({path.stem for folder in _folders() for path in folder.glob("*.toml")})


def find_sweep(name_or_file: str) -> Path:
    """The file of a search space, by its name or path.

    Raises:
        NotFoundError: There is none.
    """
    path = Path(name_or_file)
    if path.suffix == ".toml" or path.name != name_or_file:
        if path.is_file():
            return path
        problem = "is a folder; give the path of a .toml file" if path.is_dir() else "no such file"
        raise NotFoundError(f"{name_or_file}: {problem}")
    for folder in _folders():
        if (folder / f"{name_or_file}.toml").is_file():
            return folder / f"{name_or_file}.toml"
    names = sweep_names()
    raise NotFoundError(
        f"{name_or_file}: no such search space; give the path of a .toml file or one of: "
        f"{', '.join(names) or 'none'}{nearest(name_or_file, names)}"
    )


def is_shipped(path: Path) -> bool:
    """Whether a search space comes with hkrun."""
    return path.parent in _folders()[1:]


def find_recipe(dataset: str, *, beside: Path | None) -> Path:
    """The file of a data set's recipe.

    Beside a search space given by its path, the `recipes` folder there comes first.

    Returns:
        `recipes/<dataset>.toml`. For a data set of the user's own, `package.module:name`, that is
        `recipes/<name>.toml`, or where there is none the recipe of `folder`, a starting point for any images.

    Raises:
        InputError: There is none.
    """
    folders = ([beside.parent] if beside is not None else []) + _folders()
    names = [dataset.rpartition(":")[2], RECIPE_OF_OWN] if is_own(dataset) else [dataset]
    for name in names:
        for folder in folders:
            path = folder / "recipes" / f"{name}.toml"
            if path.is_file():
                return path
    raise InputError(f"recipes/{names[0]}.toml: no such recipe in {', '.join(map(str, folders))}")
