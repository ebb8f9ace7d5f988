"""What is checked before a sweep writes or starts anything: its data, its own parts, its files of weights."""

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from hkrun.config import Cell, cell_id, get_value
from hkrun.datasets import find_dataset
from hkrun.errors import DataError, InputError
from hkrun.networks import FROM_TORCHVISION
from hkrun.plans import why_alone
from hkrun.spaces import Sweep, with_content
from hkrun.sweep.machine import log_folder_of
from hkrun.sweep.study import Study
from hkrun.user_parts import check_source, is_own

if TYPE_CHECKING:
    from hkrun.data import Dataset, StreamedDataset

logger = logging.getLogger("hkrun")


def check_code(study: Study) -> None:
    """Refuses results of other code, unless the user has said what becomes of them.

    Raises:
        InputError: There are some; names them, and says how to go on.
    """
    if study.options.other_code == "ask" and study.other_code:
        raise InputError(study.other_code)


def check_data(study: Study) -> int | None:
    """Finds or fetches a data set, before anything is written and many processes ask for it at once.

    Embedded images are taken for granted, so that nothing waits for torch here: tasks will read them. Of
    another data set the log gets the notes, such as which files are passed over. Networks and losses of the
    user's own are tried on it, and files of weights loaded.

    Returns:
        Height or width of the largest image that a network gets, in pixels; None where none was read.

    Raises:
        DataError: It is missing or damaged.
        InputError: A batch is larger than it, or has no image for some worker; an own network does not do
            what it must; a `teacher.file` or `student.file` does not fit its network.
    """
    sweep = study.sweep
    entry = find_dataset(sweep.dataset)
    if entry.files == "embedded" and not _needs_images(sweep):
        _check_batches(study, entry.num_train)
        return None
    from hkrun.data import load_dataset

    dataset = load_dataset(sweep.dataset, data_dir=study.options.data_dir)
    for note in dataset.notes:
        logger.warning("%s: %s", sweep.dataset, note)
    return _try_on(dataset, study)


def foresee_data(study: Study) -> int | None:
    """Refuses what `check_data` will, as far as that shows without a download.

    A data set of a known number of images is opened only to try something on it, where it is here.

    Raises:
        DataError: It is missing or damaged, and is none that is fetched.
        InputError: As `check_data`.
    """
    sweep = study.sweep
    num_images = find_dataset(sweep.dataset).num_train
    if num_images is None or _needs_images(sweep):
        from hkrun.data import load_dataset

        try:
            dataset = load_dataset(sweep.dataset, data_dir=study.options.data_dir, download=False)
        except DataError:
            if num_images is None:
                raise
        else:
            return _try_on(dataset, study)
    _check_batches(study, num_images)
    return None


def check_cluster(study: Study) -> None:
    """Asks the nodes of a joined cluster whether they see store, data and files.

    On this machine alone there is nothing to ask; the store is opened where the sweep runs.

    Raises:
        ResourceError: The cluster cannot be joined, or a node cannot run hkrun as the others do.
        StoreError: A node cannot use the store.
        DataError: A node does not see the data.
    """
    from hkrun.cluster import Needs, check_joined, find_address

    if find_address() is None:
        return  # not even a folder for logs is needed

    cells = [named.cell for named in study.sweep.cells]
    files = {file for cell in cells for file in cell.weight_files.values()} - {FROM_TORCHVISION}
    store = study.options.store if study.store is None else study.store.uri
    needs = Needs(store=store, data=study.options.data_place, files=tuple(sorted(files)))
    check_joined(needs, log_folder=log_folder_of(None))


def fix_content(sweep: Sweep, data_dir: Path | str | None) -> Sweep:
    """Makes the content of a data set that has no published sum part of every cell."""
    if not find_dataset(sweep.dataset).fingerprint or sweep.recipe.cell.dataset_sha256:
        return sweep
    from hkrun.data import fingerprint

    return with_content(sweep, fingerprint(sweep.dataset, data_dir))


def _needs_images(sweep: Sweep) -> bool:
    """Whether something of the user's own is to be tried on images."""
    cells = [named.cell for named in sweep.cells]
    return any(cell.own_parts or cell.declared or cell.weight_files for cell in cells)


def _try_on(dataset: "Dataset | StreamedDataset", study: Study) -> int:
    """Tries what is the user's own on a data set, and checks the batches."""
    cells = [named.cell for named in study.sweep.cells]
    _try_own_networks(cells, dataset)
    _try_weight_files(cells, dataset)
    _try_own_terms(study, dataset)
    _check_batches(study, len(dataset.train))
    return max(side for cell in cells for side in dataset.image_shape(cell.augment.size)[1:])


def _try_own_networks(cells: Sequence[Cell], dataset: "Dataset | StreamedDataset") -> None:
    """Builds every network of the user's own and runs it, before anything trains."""
    for name, sha256 in sorted({part for cell in cells for part in cell.own_parts.items()}):
        check_source(name, sha256)
    networks = {(cell.student.network, cell.augment.size) for cell in cells}
    networks |= {(cell.teacher.network, cell.augment.size) for cell in cells if cell.uses_teacher}
    for name, side in sorted(networks):
        if is_own(name):
            from hkrun.models.own import try_own

            try_own(name, num_classes=dataset.num_classes, image_shape=dataset.image_shape(side))


def _try_own_terms(study: Study, dataset: "Dataset | StreamedDataset") -> None:
    """Evaluates the losses that are not built in, of each cell that trains something of its own."""
    sweep = study.sweep
    problems: list[str] = []
    for cell in {cell_id(named.cell): named.cell for named in sweep.cells if named.cell.declared}.values():
        from hkrun.distill.term_checks import try_terms
        from hkrun.objective import DataSizes

        several = len(sweep.seeds) > 1 and study.options.pack != 1
        packed = several and not why_alone(cell, workers=study.options.workers)
        sizes = DataSizes(dataset.num_classes, len(dataset.train))
        try:
            try_terms(cell, sizes, dataset.image_shape(cell.augment.size), packed=packed)
        except InputError as error:
            problems += error.problems
    if problems:
        raise InputError("\n".join(dict.fromkeys(problems)))


def _try_weight_files(cells: Sequence[Cell], dataset: "Dataset | StreamedDataset") -> None:
    """Loads every `teacher.file` and `student.file`, before anything starts."""
    to_load = {
        (key, file, str(get_value(cell, key.replace(".file", ".network")))): cell
        for cell in cells
        for key, file in cell.weight_files.items()
    }
    problems: list[str] = []
    for (key, _, network), cell in sorted(to_load.items(), key=lambda item: item[0]):
        from hkrun.data.weights import load_weights
        from hkrun.models import build_network

        backbone = build_network(network, num_classes=dataset.num_classes, in_channels=dataset.num_channels)
        try:
            load_weights(backbone, cell, key.partition(".")[0])
        except InputError as error:
            problems += error.problems
    if problems:
        raise InputError("\n".join(problems))


def _check_batches(study: Study, num_images: int | None) -> None:
    """Checks that the training images fill every batch, and each batch has an image for every worker."""
    assert num_images is not None, "what comes in a package has nothing to try"
    sweep, span = study.sweep, study.options.workers.span
    cells = [named.cell for named in sweep.cells]
    workers = 1 if span is None else span.least
    least = max(2, workers)  # the least that keys take: BatchNorm needs two
    why = " (one image per worker)" if workers > 2 else ""
    sizes = {("student.batch_size", cell.student.batch_size) for cell in cells}
    sizes |= {("teacher.batch_size", cell.teacher.batch_size) for cell in cells if cell.uses_teacher}
    problems = [
        f"{key}: {size} does not fit: allowed are {least}{why} to {num_images} (the training images of "
        f"{sweep.dataset})"
        for key, size in sorted(sizes)
        if not least <= size <= num_images
    ]
    if problems:
        raise InputError("\n".join(problems))
