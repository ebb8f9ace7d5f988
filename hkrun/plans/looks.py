"""What the store keeps of when a study was looked at: p of verdicts that are read on the way is corrected."""

import itertools
import json
import logging
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from hkrun.config import cell_id
from hkrun.plans.kept import stored_plan
from hkrun.spaces import Sweep
from hkrun.store import DamagedError, NotCommittedError, Store

LOOKS_FILE = "looks.json"

log = logging.getLogger("hkrun")


@dataclass(frozen=True, kw_only=True)
class SequentialPlan:
    """A study whose seeds come in rounds until its questions are decided.

    Attributes:
        most: Seeds of each cell at most.
        decided: Seeds of the cells that ended because all their questions were decided, by cell_id.
    """

    most: int
    decided: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Looks:
    """When a study's verdicts were read.

    Attributes:
        ordinary: Numbers of seeds at which a sweep of them ended, in rising order, from the first on that can
            show a difference.
        plan: That of a sequential study, which allows for a look after every seed; None where there was none.
        lost: Why earlier looks are not known, as a sentence's part; empty where all are. There may then have
            been one after every seed.
    """

    ordinary: tuple[int, ...] = ()
    plan: SequentialPlan | None = None
    lost: str = ""

    def plan_of(self, seeds: int) -> SequentialPlan | None:
        """The plan that a study of so many seeds keeps to; None without one, or where it went beyond."""
        return self.plan if self.plan is not None and seeds <= self.plan.most else None

    def at(self, seeds: int) -> tuple[int, ...]:
        """All looks of a study that has come to so many seeds, which are the last of them."""
        from hkrun import stats  # SciPy, which those who only read a plan do without

        if self.lost:
            return stats.plan_looks(seeds) if seeds >= stats.FIRST_LOOK else (seeds,)
        planned = () if self.plan is None else stats.plan_looks(self.plan.most)
        return (*sorted(look for look in {*self.ordinary, *planned} if look < seeds), seeds)


def load_looks(store: Store, sweep: Sweep) -> Looks:
    """The looks at a study; none where none was kept, and `lost` ones where what was kept is damaged."""
    known, problem = _load(store, store.sweep_folder(sweep.name, sweep.dataset))
    return Looks(lost=problem) if problem else known


def _load(store: Store, folder: str) -> tuple[Looks, str]:
    """What is kept in a folder, and why it cannot be read."""
    path = f"{folder}/{LOOKS_FILE}"
    try:
        return _read(json.loads(store.read(folder, LOOKS_FILE))), ""
    except NotCommittedError:
        return Looks(), ""
    except DamagedError:
        return Looks(), f"{path} is damaged"
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        reason = f"there is no {error}" if isinstance(error, KeyError) else error
        return Looks(), f"{path} cannot be understood ({reason})"


def save_looks(store: Store, sweep: Sweep, looks: Looks) -> None:
    """Keeps the looks at a study, in place of what was kept; a damaged file is put aside beside it."""
    folder, plan = store.sweep_folder(sweep.name, sweep.dataset), looks.plan
    document = {
        "ordinary": list(looks.ordinary),
        "sequential": None if plan is None else {"most": plan.most, "decided": dict(plan.decided)},
        **({"lost": looks.lost} if looks.lost else {}),
    }
    files, names = {LOOKS_FILE: json.dumps(document, indent=1).encode()}, store.names(folder)
    _, problem = _load(store, folder)
    damaged = store.read_unchecked(folder, LOOKS_FILE) if problem else None
    if damaged is not None:
        aside = next(
            name for number in itertools.count(1) if (name := f"{LOOKS_FILE}.damaged-{number}") not in names
        )
        log.warning("%s/%s; put aside as %s", store.place, problem, aside)
        files[aside] = damaged
    store.commit(folder, files, keep=names)


def record_look(store: Store, sweep: Sweep) -> None:
    """Keeps that a sweep of these seeds ended with verdicts; the same number again is no new look."""
    from hkrun import stats

    looks, seeds = load_looks(store, sweep), len(sweep.seeds)
    if seeds >= stats.FIRST_LOOK and seeds not in looks.ordinary:
        save_looks(store, sweep, replace(looks, ordinary=tuple(sorted((*looks.ordinary, seeds)))))


def record_look_of_before(store: Store, sweep: Sweep) -> None:
    """Keeps that a study of before looks were kept had verdicts, where it now gets other seeds.

    Its plan tells at how many seeds, where all runs of it are there.
    """
    if LOOKS_FILE in store.names(store.sweep_folder(sweep.name, sweep.dataset)):
        return
    plan = stored_plan(store, sweep.name, sweep.dataset)
    if plan is None or len(plan.sweep.seeds) == len(sweep.seeds):
        return
    ids = {cell_id(named.cell, world_size=plan.workers.world_size) for named in plan.sweep.cells}
    if all({*plan.sweep.seeds} <= {record.seed for record in store.records(identity)} for identity in ids):
        record_look(store, plan.sweep)


def _read(document: Any) -> Looks:
    from hkrun import stats

    ordinary, sequential = document["ordinary"], document["sequential"]
    lost = document.get("lost", "")
    if not isinstance(lost, str):
        raise ValueError(f"lost is {lost!r}, which is no text")
    numbers = [*ordinary, *([sequential["most"], *sequential["decided"].values()] if sequential else [])]
    wrong = [number for number in numbers if type(number) is not int or number < 1]
    if wrong:
        raise ValueError(f"{wrong[0]!r} is no number of seeds")
    if sequential and sequential["most"] < stats.FIRST_LOOK:
        raise ValueError(f"a plan of {sequential['most']} seeds; {stats.FIRST_LOOK} are the fewest")
    plan = SequentialPlan(most=sequential["most"], decided=sequential["decided"]) if sequential else None
    return Looks(ordinary=tuple(sorted({*ordinary})), plan=plan, lost=lost)
