"""Whether a data set is whole: what `hkrun data verify` finds."""

from pathlib import Path

from hkrun.data import Dataset, StreamedDataset, find_function, load_dataset
from hkrun.data.imagenet import FOLDER
from hkrun.data.listing import describe_shared, describe_turned
from hkrun.data.shards import Place, find_damage
from hkrun.data.streams import inspect_images
from hkrun.datasets import find_dataset
from hkrun.errors import DataError


def verify_dataset(name: str, *, data_dir: Path | str | None) -> tuple[list[str], list[str]]:
    """What is wrong with a data set, and what a user should know besides, a line each; it is read whole.

    Nothing is downloaded.
    """
    try:
        reader = find_dataset(name).reader
        if reader and isinstance(data_dir, Path):
            _, problems, notes = find_function(reader)(data_dir=data_dir)
            return problems, list(notes)
        dataset = load_dataset(name, data_dir=data_dir, download=False)
    except DataError as error:
        return error.problems, []
    if isinstance(dataset, Dataset):
        return [], list(dataset.notes)  # loading it has read and checked all
    if dataset.packed:
        assert data_dir is not None
        damaged = [problem for _, problem in find_damage(Place.below(data_dir, FOLDER)) if problem]
        if damaged:
            return damaged, []  # what they hold cannot be told apart from what they should
    return _verify_streamed(dataset)


def _verify_streamed(dataset: StreamedDataset) -> tuple[list[str], list[str]]:
    problems: list[str] = []
    turned: list[str] = []
    known: dict[bytes, str] = {}
    shared: list[str] = []
    for part, split in (("train", dataset.train), ("val", dataset.test)):
        for name, image in inspect_images(split):
            path = f"{part}/{name}"
            if image.problem:
                problems.append(f"{path}: {image.problem}")
                continue
            if image.turned:
                turned.append(path)
            if part == "train":
                known.setdefault(image.digest, path)
            elif image.digest in known:
                shared.append(f"{path} = {known[image.digest]}")
    return problems, [*dataset.notes, *describe_turned(turned), *describe_shared(shared)]
