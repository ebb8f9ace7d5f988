"""The sweeps of a store, by what the user calls them."""

import logging
from typing import TYPE_CHECKING

from hkrun.config import nearest
from hkrun.errors import InputError, StoreError

if TYPE_CHECKING:
    from hkrun.plans import StoredPlan
    from hkrun.store import Store

logger = logging.getLogger(__name__)


def find_plans(store: "Store", name: str | None, dataset: str | None) -> "list[StoredPlan]":
    """The sweeps of a name, on a data set, that were started in a store.

    Without a name or a data set, those of any. The log names those whose plan cannot be read.

    Raises:
        InputError: There is none of that name or on that data set.
        StoreError: There is one, but its plan cannot be read; or no plan can be.
    """
    from hkrun.plans import stored_plans

    plans, unreadable = stored_plans(store)
    start = "" if name is None else f"sweeps/{name}-{dataset or ''}".replace(":", ".")
    wanted = [problem for folder, problem in unreadable.items() if folder.startswith(start)]
    if wanted and not any(name in (None, stored.sweep.name) for stored in plans):
        raise StoreError("\n".join(wanted))
    for problem in wanted:
        logger.warning("%s", problem)
    names = sorted({stored.sweep.name for stored in plans})
    if name is not None and name not in names:
        there = ", ".join(names) or "none"
        raise InputError(f"{name}: no such sweep in {store.place}; there are: {there}{nearest(name, names)}")
    named = [stored for stored in plans if name is None or stored.sweep.name == name]
    found = [stored for stored in named if dataset is None or stored.sweep.dataset == dataset]
    if dataset is not None and not found:
        datasets = ", ".join(sorted({stored.sweep.dataset for stored in named})) or "none"
        raise InputError(f"--dataset: no such sweep on {dataset!r} in {store.place}; there are: {datasets}")
    return found


def find_plan(store: "Store", name: str, dataset: str | None) -> "StoredPlan":
    """The one sweep of a name.

    Raises:
        InputError: There is none, or it was run on several data sets and none is chosen.
    """
    found = find_plans(store, name, dataset)
    if len(found) > 1:
        datasets = ", ".join(stored.sweep.dataset for stored in found)
        raise InputError(f"{name}: was run on {datasets}; choose one with --dataset")
    return found[0]
