"""Data sets of the user's own: loaded by a function that is named `package.module:name`."""

import dataclasses
from pathlib import Path

from hkrun.data.dataset import Dataset
from hkrun.errors import DataError, HkrunError, InputError
from hkrun.parts import load_part


def load_own(name: str, *, data_dir: Path | None) -> Dataset:
    """Loads an own data set: calls its function with the directory of `--data`.

    Raises:
        InputError: It cannot be imported, or does not return a sound `Dataset`.
        DataError: The function raises it, or an OSError.
    """
    load = load_part(name)
    try:
        dataset = load(data_dir)
    except HkrunError:
        raise
    except OSError as error:
        raise DataError(f"{name}: {error}") from error
    except Exception as error:  # a stranger's code may raise anything
        told = " ".join(str(error).split())
        raise InputError(f"{name}: fails: {type(error).__name__}: {told}") from error
    if not isinstance(dataset, Dataset):
        raise InputError(f"{name}: must return hkrun.data.Dataset; it returns a {type(dataset).__name__}")
    problems = _find_problems(dataset)
    if problems:
        raise InputError("\n".join(f"{name}: {problem}" for problem in problems))
    return dataclasses.replace(dataset, name=name)


def _find_problems(dataset: Dataset) -> list[str]:
    problems = []
    if len(dataset.classes) < 2:
        problems.append(f"{len(dataset.classes)} classes; it must have two or more")
    for title, split in (("train", dataset.train), ("test", dataset.test)):
        if not len(split):
            problems.append(f"{title} has no images")
        elif not 0 <= int(split.labels.min()) <= int(split.labels.max()) < len(dataset.classes):
            problems.append(f"{title} has labels outside 0 to {len(dataset.classes) - 1}")
    sizes = [tuple(split.images.shape[1:]) for split in (dataset.train, dataset.test)]
    if sizes[0] != sizes[1]:
        problems.append(
            f"images of train have shape {sizes[0]}, those of test {sizes[1]}; they must be equal"
        )
    return problems
