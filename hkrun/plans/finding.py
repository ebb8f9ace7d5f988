"""The studies of a store, by what the user calls them."""

import logging
from pathlib import Path

from hkrun.config import nearest
from hkrun.errors import InputError, NotFoundError, StoreError
from hkrun.plans.kept import StoredPlan, stored_plans
from hkrun.spaces import sweep_names
from hkrun.store import Store

_log = logging.getLogger("hkrun")


def find_plans(store: Store, name: str | None = None, dataset: str | None = None) -> list[StoredPlan]:
    """The studies of a name, on a data set, that were started in a store.

    Without a name or a data set, those of any. A name is also NAME-DATASET, as the study's folder is called,
    where no study has that name. The log names those whose plan cannot be read.

    Raises:
        NotFoundError: There is none of that name or on that data set.
        StoreError: There is one, but its plan cannot be read; or no plan can be.
    """
    plans, unreadable = stored_plans(store)
    start = "" if name is None else f"sweeps/{name}-{dataset or ''}".replace(":", ".")
    wanted = [problem for folder, problem in unreadable.items() if folder.startswith(start)]
    if wanted and not any(name in (None, stored.sweep.name) for stored in plans):
        raise StoreError("\n".join(wanted))
    for problem in wanted:
        _log.warning("%s", problem)
    names = sorted({stored.sweep.name for stored in plans})
    if name is not None and name not in names:
        for stored in plans:
            folder = store.sweep_folder(stored.sweep.name, stored.sweep.dataset)
            if folder == f"sweeps/{name}" and dataset in (None, stored.sweep.dataset):
                return [stored]
        there = ", ".join(names) or "none"
        stem = Path(name).stem  # a study is called like the file of its search space
        hint = (
            f"; did you mean {stem!r}?" if name.endswith(".toml") and stem in names else nearest(name, names)
        )
        if not hint and name in sweep_names():
            hint = f"; `hkrun sweep {name}` makes it"
        raise NotFoundError(f"{name}: no such study in {store.place}; there are: {there}{hint}")
    named = [stored for stored in plans if name is None or stored.sweep.name == name]
    found = [stored for stored in named if dataset is None or stored.sweep.dataset == dataset]
    if dataset is not None and not found:
        datasets = ", ".join(sorted({stored.sweep.dataset for stored in named})) or "none"
        raise NotFoundError(f"dataset: no such study on {dataset!r} in {store.place}; there are: {datasets}")
    return found


def find_plan(store: Store, name: str, dataset: str | None = None) -> StoredPlan:
    """The one study of a name.

    Raises:
        NotFoundError: There is none.
        InputError: It was run on several data sets and none is chosen.
        StoreError: As `find_plans`.
    """
    found = find_plans(store, name, dataset)
    if len(found) > 1:
        datasets = ", ".join(stored.sweep.dataset for stored in found)
        raise InputError(f"{name}: was run on {datasets}; choose one with --dataset")
    return found[0]
