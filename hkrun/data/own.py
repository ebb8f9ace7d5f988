"""Data sets of the user's own: loaded by a function that is named `package.module:name`."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import torch

from hkrun.data.dataset import Dataset, Split, find_shared_images
from hkrun.data.listing import describe_shared, name_first
from hkrun.errors import DataError, HkrunError, InputError
from hkrun.user_parts import load_part


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
    except (Exception, SystemExit) as error:  # a stranger's code may raise anything
        told = " ".join(str(error).split())
        raise InputError(f"{name}: fails: {type(error).__name__}: {told}") from error
    if not isinstance(dataset, Dataset):
        raise InputError(f"{name}: must return hkrun.data.Dataset; it returns a {type(dataset).__name__}")
    problems = _find_problems(dataset) or dataset.find_constant_channels()
    if problems:
        raise InputError("\n".join(f"{name}: {problem}" for problem in problems))
    shared = find_shared_images(dataset.train, dataset.test)
    notes = describe_shared([f"test image {there} = training image {here}" for there, here in shared])
    return dataclasses.replace(dataset, name=name, notes=(*dataset.notes, *notes))


def _find_problems(dataset: Dataset) -> list[str]:
    problems = []
    if len(dataset.classes) < 2:
        problems.append(f"{len(dataset.classes)} classes; it must have two or more")
    for title, split in (("train", dataset.train), ("test", dataset.test)):
        problems += [f"{title} {problem}" for problem in _find_problems_of_split(split, dataset.classes)]
    sizes = [tuple(split.images.shape[1:]) for split in (dataset.train, dataset.test)]
    if sizes[0] != sizes[1]:
        problems.append(
            f"images of train have shape {sizes[0]}, those of test {sizes[1]}; they must be equal"
        )
    if not problems:
        highest = [int(split.images.max()) for split in (dataset.train, dataset.test)]
        if min(highest) <= 1 < max(highest):
            problems.append(
                f"images of train have values up to {highest[0]}, those of test up to {highest[1]}; "
                "both must have one scale, such as 0 to 255"
            )
    return problems


def _find_problems_of_split(split: Split, classes: Sequence[str]) -> list[str]:
    if not len(split):
        return ["has no images"]
    if not split.images.numel():
        return [f"has images without pixels: their shape is {tuple(split.images.shape[1:])}"]
    if not 0 <= int(split.labels.min()) <= int(split.labels.max()) < len(classes):
        return [f"has labels outside 0 to {len(classes) - 1}"]
    counts = torch.bincount(split.labels, minlength=len(classes)).tolist()
    missing = [str(name) for name, count in zip(classes, counts, strict=True) if not count]
    return (
        [f"has no image of {len(missing)} class(es): {name_first(missing, len(missing))}"] if missing else []
    )
