"""What a study is called in the store: a command goes on with a study or begins one, and replaces none."""

import dataclasses
import itertools
from dataclasses import dataclass

from hkrun.config import cell_id
from hkrun.counting import count
from hkrun.errors import InputError
from hkrun.plans import StoredPlan, Workers, load_looks, stored_plan
from hkrun.spaces import Sweep, is_study_name, natural_name, seeds_name, space_name
from hkrun.store import Store
from hkrun.sweep.study import Options


def name_study(sweep: Sweep, store: Store | None, options: Options) -> tuple[Sweep, str]:
    """The sweep under the name that its study has in the store, and a sentence where that is not its own.

    It goes on with a study that would lose nothing by it: whose configurations and seeds are all in the
    sweep. Else it begins one, under a name that no other has.

    Raises:
        InputError: The name that the options ask for is none, or that of a study which would lose something.
        StoreError: The store cannot be read.
    """

    def loss(name: str) -> _Loss:
        stored = stored_plan(store, name, sweep.dataset) if store is not None else None
        return _NOTHING if stored is None else _find_loss(stored, sweep, options.workers)

    def named(name: str) -> Sweep:
        return dataclasses.replace(sweep, name=name)

    if options.name is not None:
        if not is_study_name(options.name):
            raise InputError(
                f"--name {options.name}: a name is of letters, digits, '.', '_' and '-', and begins with a "
                "letter or a digit"
            )
        if lost := loss(options.name):
            raise InputError(
                f"{options.name}: the store has a study of that name on {sweep.dataset}, {lost}. Nothing "
                f"replaces a study: give another name with --name, or remove it with hkrun rm {options.name}"
            )
        return named(options.name), ""
    own, space = natural_name(sweep), space_name(sweep)
    # Changes may change nothing, and earlier versions called every variant by its search space alone.
    has_space = own != space and store is not None and stored_plan(store, space, sweep.dataset) is not None
    if has_space and not loss(space):
        return named(space), ""
    if not (lost := loss(own)):
        return named(own), ""
    numbered = (f"{own}-{number}" for number in itertools.count(2))
    names = itertools.chain([] if lost.num_cells else [seeds_name(sweep)], numbered)
    name = next(name for name in names if not loss(name))
    if store is not None and not lost.num_cells and (stored := stored_plan(store, own, sweep.dataset)):
        before, now = stored.sweep.seeds, sweep.seeds
        if now == before[: len(now)] == tuple(range(len(now))) and before == tuple(range(len(before))):
            option = "--max-seeds" if options.shortcuts.until_decided else "--seeds"
            return named(name), (
                f"Study {name}: {own} has {count(len(before), 'seed')}, and {len(now)} are asked for; "
                f"{option} {len(before)} goes on with {own}, --name chooses another name"
            )
    return named(name), f"Study {name}: {own} is another one, {lost}; --name chooses another name"


def take_up_rounds(sweep: Sweep, store: Store | None, options: Options) -> Sweep:
    """The sweep with the seeds of its study, where that came in rounds of more than its search space says.

    Raises:
        StoreError: The store cannot be read.
    """
    if store is None or options.seeds_asked or not options.shortcuts.until_decided:
        return sweep
    stored = stored_plan(store, options.name or natural_name(sweep), sweep.dataset)
    if stored is None or stored.sweep.seeds[: len(sweep.seeds)] != sweep.seeds:
        return sweep
    taken_up = dataclasses.replace(sweep, seeds=stored.sweep.seeds)
    in_rounds = load_looks(store, stored.sweep).plan is not None
    return taken_up if in_rounds and not _find_loss(stored, taken_up, options.workers) else sweep


@dataclass(frozen=True)
class _Loss:
    """What a study has that a sweep has not."""

    num_cells: int = 0
    num_seeds: int = 0

    def __bool__(self) -> bool:
        return bool(self.num_cells or self.num_seeds)

    def __str__(self) -> str:
        return f"with {self._describe_cells()} that this one has not"

    def _describe_cells(self) -> str:
        counts = {"configuration": self.num_cells, "seed": self.num_seeds}
        return " and ".join(count(number, what) for what, number in counts.items() if number)


_NOTHING = _Loss()


def _find_loss(stored: StoredPlan, sweep: Sweep, workers: Workers) -> _Loss:
    known = {named.name: named.cell for named in sweep.cells}
    alike = stored.workers.world_size == workers.world_size
    changed = [named for named in stored.sweep.cells if not alike or known.get(named.name) != named.cell]
    if changed:  # an id takes 0.6 ms, and cells that differ may still be one configuration
        ids = {cell_id(named.cell, world_size=workers.world_size) for named in sweep.cells}
        before = {cell_id(named.cell, world_size=stored.workers.world_size) for named in changed}
    else:
        ids = before = set()
    return _Loss(len(before - ids), len(set(stored.sweep.seeds) - set(sweep.seeds)))
