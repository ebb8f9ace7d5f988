"""What the store keeps of a sweep that was started: its plan, and which runs were ended early."""

import contextlib
import dataclasses
import json
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass

from hkrun.errors import InputError, StoreError
from hkrun.plans.plans import Shortcuts
from hkrun.plans.workers import AUTO, Workers
from hkrun.spaces import Sweep, restore_sweep, sweep_document
from hkrun.store import DamagedError, NotCommittedError, Store, read_epoch

PLAN_FILE = "plan.json"
STOPPED_FILE = "stopped.json"
DECIDED = "decided"
# What a document of another version raises where it is read.
_NOT_UNDERSTOOD = (InputError, AttributeError, KeyError, TypeError, ValueError)


@dataclass(frozen=True, kw_only=True)
class StoredPlan:
    """A sweep that was started.

    Attributes:
        workers: How many processes train one of its runs together.
        sizes: How many of its runs train together, by cell_id.
        until_decided: Whether its seeds come in rounds until its questions are decided.
    """

    sweep: Sweep
    workers: Workers
    sizes: Mapping[str, int]
    until_decided: bool = False

    @property
    def shortcuts(self) -> Shortcuts:
        """How it makes fewer runs; what a search or a scheduler left out is missing."""
        return Shortcuts(until_decided=self.until_decided)


def save_plan(
    store: Store,
    sweep: Sweep,
    *,
    workers: Workers = AUTO,
    sizes: Mapping[str, int] | None = None,
    until_decided: bool = False,
) -> None:
    """Keeps a sweep in the store, so that it can be resumed and reported without its files."""
    folder = store.sweep_folder(sweep.name, sweep.dataset)
    document = {
        "sweep": sweep_document(sweep),
        "workers": str(workers),
        "per_gpu": workers.per_gpu,
        "pack": dict(sizes or {}),
        **({"until": DECIDED} if until_decided else {}),
    }
    content = json.dumps(document, indent=1, ensure_ascii=False).encode()
    with contextlib.suppress(DamagedError, NotCommittedError):
        if store.read(folder, PLAN_FILE) == content:
            return
    store.commit(folder, {PLAN_FILE: content}, keep=store.names(folder))


def stored_plans(store: Store) -> tuple[list[StoredPlan], dict[str, str]]:
    """The sweeps started in the store, by name and data set, and why a folder's plan cannot be read.

    Raises:
        StoreError: The store cannot be read.
    """
    plans: list[StoredPlan] = []
    problems: dict[str, str] = {}
    for folder in store.sweep_folders():
        try:
            if PLAN_FILE in store.names(folder):
                plans.append(_read_plan(store, folder))
        except DamagedError as error:
            problems[folder] = error.message
        except _NOT_UNDERSTOOD as error:
            reason = (
                error.problems[0] if isinstance(error, InputError) else f"{type(error).__name__}: {error}"
            )
            problems[folder] = (
                f"{store.place}/{folder}/{PLAN_FILE}: cannot be understood ({reason}): it is damaged or of "
                "another version of hkrun; the command that started the sweep writes it again, and repeats "
                "no run"
            )
    return plans, problems


def _read_plan(store: Store, folder: str) -> StoredPlan:
    document = json.loads(store.read(folder, PLAN_FILE))
    sweep = restore_sweep(document["sweep"], where=PLAN_FILE)
    packs = document.get("pack", {})  # not there before runs trained in packs
    sizes = {str(identity): int(size) for identity, size in packs.items()}
    workers = Workers.parse(str(document["workers"]), per_gpu=int(document.get("per_gpu", 1)))
    until_decided = document.get("until") == DECIDED
    return StoredPlan(sweep=sweep, workers=workers, sizes=sizes, until_decided=until_decided)


def kept_sizes(store: Store, sweep: Sweep) -> Mapping[str, int]:
    """How many runs of a sweep train together, by cell_id, as it was started; empty where it never was.

    With other seeds it is another study: three seeds to try something out do not decide how twenty train.
    """
    plan = stored_plan(store, sweep.name, sweep.dataset)
    return plan.sizes if plan is not None and plan.sweep.seeds == sweep.seeds else {}


def stored_plan(store: Store, name: str, dataset: str) -> StoredPlan | None:
    """The sweep of a name on a data set; None where none was started, or its plan cannot be read."""
    with contextlib.suppress(DamagedError, NotCommittedError, *_NOT_UNDERSTOOD):
        return _read_plan(store, store.sweep_folder(name, dataset))
    return None


@dataclass(frozen=True, kw_only=True)
class StoppedRun:
    """A run that a scheduler ended early. It has no record, so no statistics see it; its checkpoint is kept.

    Attributes:
        epoch: The last epoch that it reported.
        error_pct: The test error after that epoch.
    """

    cell_id: str
    seed: int
    epoch: int
    error_pct: float | None


def save_stopped(store: Store, sweep: Sweep, stopped: Iterable[StoppedRun]) -> None:
    """Marks runs of a sweep as stopped early, beside those that are marked already."""
    marked = {(run.cell_id, run.seed): run for run in (*load_stopped(store, sweep), *stopped)}
    document = [dataclasses.asdict(run) for run in marked.values()]
    folder = store.sweep_folder(sweep.name, sweep.dataset)
    store.commit(folder, {STOPPED_FILE: json.dumps(document, indent=1).encode()}, keep=store.names(folder))


def load_stopped(store: Store, sweep: Sweep) -> list[StoppedRun]:
    """The runs of a sweep that are marked as stopped early.

    Raises:
        StoreError: The marks cannot be read or understood.
    """
    folder = store.sweep_folder(sweep.name, sweep.dataset)
    if STOPPED_FILE not in store.names(folder):
        return []
    try:
        return [StoppedRun(**run) for run in json.loads(store.read(folder, STOPPED_FILE))]
    except (TypeError, ValueError) as error:
        raise StoreError(f"{store.place}/{folder}/{STOPPED_FILE}: cannot be understood: {error}") from error


def checkpoint_epoch(store: Store, identity: str, seed: int) -> int | None:
    """The epoch of a run's newest checkpoint, which is there until the run has a result; None without one."""
    return _newest_epoch(store, f"{store.run_folder(identity, seed)}/checkpoints")


def teacher_checkpoint_epoch(store: Store, identity: str) -> int | None:
    """The same of a teacher's."""
    return _newest_epoch(store, f"{store.teacher_folder(identity)}/checkpoints")


def _newest_epoch(store: Store, folder: str) -> int | None:
    found = map(read_epoch, store.names(folder))
    return max((epoch for epoch in found if epoch is not None), default=None)


def reached_epochs(store: Store, identity: str, seeds: Collection[int]) -> dict[int, int]:
    """The epochs of the newest checkpoints of those runs of a cell that were begun, by seed."""
    begun = {int(name) for name in store.folders(f"cells/{identity}/seeds") if name.isdecimal()}
    found = {seed: checkpoint_epoch(store, identity, seed) for seed in seeds if seed in begun}
    return {seed: epoch for seed, epoch in found.items() if epoch is not None}
