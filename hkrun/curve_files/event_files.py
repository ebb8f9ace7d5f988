"""The runs of a folder of TensorBoard's event files: each folder with such files is one."""

import importlib.util
import logging
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from hkrun.config import nearest
from hkrun.curve_files.numbering import quoted_list
from hkrun.curve_files.rows import widen
from hkrun.curve_files.run_names import read_run_names
from hkrun.curve_files.sources import Columns, Run, Source, refuse
from hkrun.errors import InputError

_PATTERN = "*tfevents*"
_ALL = {"scalars": 0, "tensors": 0}  # 0: each point, not a sample of them


def holds_events(path: Path) -> bool:
    """Whether a path is a folder, or a file that is called like TensorBoard's."""
    return path.is_dir() or "tfevents" in path.name


def read_event_files(path: Path, columns: Columns) -> Source:
    """Reads one scalar of all runs below a folder, which are called like their folders from there.

    Values are float32, and read as the double that is written like them.

    Raises:
        InputError: There are no such files, the package tensorboard is missing, the scalar is not there or
            none of several was chosen, or the names of runs do not tell cells and seeds.
    """
    folder = path if path.is_dir() else path.parent
    files = sorted(path.rglob(_PATTERN)) if path.is_dir() else [path]
    if not files:
        refuse(path, [f"no TensorBoard event files ({_PATTERN}) in this folder"])
    wrong = [
        f"--{option}: not with event files, whose folders name the runs; --run-names says how"
        for option, given in (("seed", columns.seed), ("epoch", columns.epoch), ("cell", columns.cell))
        if given is not None
    ]
    refuse(path, wrong)
    if importlib.util.find_spec("tensorboard") is None:
        raise InputError(f"{path}: event files need the package tensorboard; run: pip install tensorboard")
    folders = dict.fromkeys(file.parent for file in files)
    scalars = {each.relative_to(folder).as_posix(): _read_scalars(each) for each in folders}
    tag = columns.value or _find_tag(path, scalars)
    with_tag = {name: points[tag] for name, points in scalars.items() if tag in points}
    if not with_tag:
        tags = list(dict.fromkeys(each for points in scalars.values() for each in points))
        hint = nearest(tag, tags) or f"; there are {quoted_list(tags)}"
        refuse(path, [f"no scalar {tag!r}{hint}"])
    named, others, problems = read_run_names(with_tag, columns.run_names, what="folder")
    refuse(path, problems)
    runs = [
        Run(
            name=run.name,
            cell=run.cell,
            seed=run.seed,
            epochs=[step for step, _ in with_tag[run.name]],
            values=[value for _, value in with_tag[run.name]],
        )
        for run in named
    ]
    left_out = [*others, *(name for name in scalars if name not in with_tag)]
    return Source(place=str(path), form="TensorBoard", value=tag, axis="step", runs=runs, left_out=left_out)


def _find_tag(path: Path, scalars: Mapping[str, Mapping[str, object]]) -> str:
    tags = list(dict.fromkeys(tag for points in scalars.values() for tag in points))
    if len(tags) != 1:
        told = f"which scalar? --value takes one of {quoted_list(tags)}" if tags else "no scalar in its files"
        refuse(path, [told])
    return tags[0]


def _read_scalars(folder: Path) -> dict[str, list[tuple[int, float]]]:
    """The steps and values of each scalar, of TensorFlow 1 or 2, without those that a restart overwrote.

    Raises:
        InputError: A file cannot be opened.
    """
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
    from tensorboard.util.tensor_util import make_ndarray

    logging.getLogger("tensorboard").setLevel(
        logging.ERROR
    )  # it warns of every restart that it takes care of
    accumulator = EventAccumulator(str(folder), size_guidance=_ALL)
    try:
        accumulator.Reload()
    except OSError as error:
        raise InputError(f"{folder}: {error.strerror or error}") from error
    found = {
        tag: [(event.step, widen(event.value)) for event in accumulator.Scalars(tag)]
        for tag in accumulator.Tags()["scalars"]
    }
    for tag in accumulator.Tags()["tensors"]:
        if accumulator.SummaryMetadata(tag).plugin_data.plugin_name == "scalars":
            arrays = [(event.step, make_ndarray(event.tensor_proto)) for event in accumulator.Tensors(tag)]
            found[tag] = [
                (step, widen(array.item()) if array.dtype == np.float32 else float(array.item()))
                for step, array in arrays
            ]
    return found
