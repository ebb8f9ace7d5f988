"""What is changed of a search space: data set, seeds, and keys; by the command line or by Python."""

import re
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from hkrun.config import Setting
from hkrun.spaces.dicts import read_value
from hkrun.spaces.toml_tables import Problems, leaves

Seeds = str | int | Sequence[int]
Overrides = Sequence[str] | Mapping[str, object]

_MAX_SEEDS = 100_000
_MAX_SEED = 2**63 - 1  # the store keeps seeds as 64-bit integers
_TOML_MARKS = re.compile(r"[\"'\[\]{}\x00-\x1f]")


@dataclass(frozen=True, kw_only=True)
class Arguments:
    """The checked arguments: None or empty where nothing was given."""

    dataset: str | None
    seeds: tuple[int, ...] | None
    overrides: tuple[Setting, ...]


def read_arguments(
    problems: Problems,
    *,
    dataset: str | None,
    seeds: Seeds | None,
    epochs: str | int | None,
    overrides: Overrides,
) -> Arguments:
    """Reads the arguments; what is wrong with them goes to `problems`.

    Those of the command line are text. Overrides in a mapping are Python's, and messages name its arguments.
    """
    typed = not isinstance(overrides, Mapping)
    dashes = "--" if typed else ""
    found: list[Setting | None]
    if isinstance(overrides, Mapping):
        found = list(_read_mapping(problems, overrides))
    else:
        found = [_read_override(problems, text, where=f"argument {text!r}") for text in overrides]
    if epochs is not None:
        where = f"{dashes}epochs"
        found.append(
            _read_override(problems, f"student.epochs={epochs}", where=where)
            if typed
            else Setting(key="student.epochs", value=epochs, where=where)
        )
    settings = [setting for setting in found if setting is not None]
    given: dict[str, Setting] = {}
    if dataset is not None:
        given["dataset"] = Setting(key="dataset", value=dataset, where=f"{dashes}dataset")
    for setting in settings:
        if setting.key in given and given[setting.key].value != setting.value:
            problems.found.append(f"{setting.where}: {setting.key}: given twice, with different values")
        given[setting.key] = setting
    problems.learn_keys({setting.key: setting.value for setting in given.values()})
    checked = dict(zip(given, problems.check(given.values()), strict=True))
    chosen = given.pop("dataset", None)
    if checked.get("dataset") is None:
        chosen = None  # what follows from a wrong name would only hide the mistake
    return Arguments(
        dataset=str(chosen.value) if chosen is not None else None,
        seeds=_read_seeds(problems, seeds, where=f"{dashes}seeds") if seeds is not None else None,
        overrides=tuple(given.values()),
    )


def check_seeds(value: object) -> tuple[tuple[int, ...], list[str]]:
    """The seeds of a number N, 0..N-1, or of a list, none where they are wrong; and the problems."""
    if type(value) is int:
        if 1 <= value <= _MAX_SEEDS:
            return tuple(range(value)), []
        return (), [f"{value} is out of range; a number of seeds from 1 to {_MAX_SEEDS}"]
    if not isinstance(value, list):
        return (), [f"{value!r} is neither a number of seeds such as 20 nor a list such as [0, 1, 2]"]
    if not 1 <= len(value) <= _MAX_SEEDS:
        return (), [f"a list of {len(value)} seeds; it must have 1 to {_MAX_SEEDS}"]
    wrong = [seed for seed in value if type(seed) is not int or not 0 <= seed <= _MAX_SEED]
    problems = [f"{seed!r} is no seed; seeds are integers from 0 to 2**63 - 1" for seed in wrong]
    valid = [seed for seed in value if seed not in wrong]
    repeated = (
        sorted({seed for seed in valid if valid.count(seed) > 1}) if len(set(valid)) < len(valid) else []
    )
    problems += [f"seed {seed} is repeated" for seed in repeated]
    return tuple(valid) if not problems else (), problems


def _read_seeds(problems: Problems, given: Seeds, *, where: str) -> tuple[int, ...] | None:
    value = read_value(given, (where,), problems.found) if not isinstance(given, str) else given
    if isinstance(given, str) and where.startswith("--"):
        try:
            # "20" is a number of seeds; "20," and "1,2" are lists.
            value = [int(part) for part in given.rstrip(",").split(",")] if "," in given else int(given)
        except ValueError:
            problems.found.append(
                f"{where}: {given!r} is neither a number of seeds such as 20 nor a list such as 0,1,2"
            )
            return None
    seeds, found = check_seeds(value)
    problems.found += [f"{where}: {problem}" for problem in found]
    return seeds


def _read_mapping(problems: Problems, overrides: Mapping[str, object]) -> Iterator[Setting]:
    """Keys, nested or dotted, and their values."""
    found: list[str] = []
    data = read_value(overrides, (), found)
    problems.found += [f"overrides: {problem}" for problem in found]
    assert isinstance(data, dict)
    for path, value in leaves(data):
        key = ".".join(path)
        if key == "seeds":
            problems.found.append("overrides: seeds are no key of a cell; they are an argument of their own")
        else:
            yield Setting(key=key, value=value, where="overrides")


def _read_override(problems: Problems, text: str, *, where: str) -> Setting | None:
    key, equals, value = (part.strip() for part in text.partition("="))
    if not equals or not key:
        problems.found.append(f"{where}: overrides are written key.path=value, such as student.epochs=30")
        return None
    if key == "seeds":
        problems.found.append(f"{where}: seeds are no key of a cell; use --seeds {value}")
        return None
    try:
        return Setting(key=key, value=_read_value(value), where=where)
    except tomllib.TOMLDecodeError:
        problems.found.append(f"{where}: {key}: {value!r} is not a TOML value")
        return None


def _read_value(text: str) -> object:
    """A TOML value; what is none but a plain word is a string."""
    try:
        return tomllib.loads(f"value = {text}")["value"] if "\n" not in text else text
    except tomllib.TOMLDecodeError:
        if _TOML_MARKS.search(text):
            raise
        return text
