"""Negative controls: without any one piece of its state, a run does not go on as if undisturbed.

What shows that a resumed run equals an undisturbed one would show nothing if a run went on the same without
its state. So each piece is left out by itself: the state is refused, or another run comes out.
"""

import copy
import io
import itertools
from collections.abc import Iterator

import pytest
import torch
from loop.conftest import CPU, ask, dataset, make_sets, same_state, tiny_cell

from hkrun.distill import distill, start_run
from hkrun.teacher import freeze, start_teacher, train_teachers
from hkrun.training import SingleProcess

__all__ = ["dataset"]  # a fixture

PARTS = ("student", "discriminator", "student's optimiser", "discriminator's optimiser", "objective")
TEACHER_PARTS = ("network", "classifier", "optimiser")
# What the loop sets itself before it is used.
DERIVED = "['lr']"


class Runs:
    """A run of a cell: undisturbed, after its first epoch, and gone on from a state."""

    def __init__(self, cell, dataset):
        self.cell, self.dataset = cell, dataset
        self.teacher = freeze(start_teacher(cell, dataset, context=SingleProcess(), device=CPU).network)
        undisturbed = self.start()
        self.state, self.fresh = None, copy.deepcopy(undisturbed.state_dict())
        self.expected = self.finish(undisturbed, keep_at=1)

    def start(self):
        return start_run(self.cell, self.dataset, 0, context=SingleProcess(), device=CPU)

    def finish(self, run, *, keep_at=None):
        def keep(_runs):
            if run.epoch == keep_at:
                self.state = through_a_file(run.state_dict())

        distill(
            [run],
            teach=ask(self.teacher, run),
            context=SingleProcess(),
            on_epoch=keep,
            **make_sets(self.cell, self.dataset),
        )
        return result_of(run)

    def go_on_from(self, state):
        """What comes out; None where the state is refused, if only in the first step."""
        run = self.start()
        try:
            self.load(run, state)
            return self.finish(run)
        except (KeyError, RuntimeError, ValueError, TypeError, IndexError, AttributeError):
            return None

    def load(self, run, state):
        run.load_state_dict(state)


class Teachers(Runs):
    """The same of a teacher."""

    def start(self):
        return start_teacher(self.cell, self.dataset, context=SingleProcess(), device=CPU)

    def finish(self, run, *, keep_at=None):
        def keep(_run):
            if run.epoch == keep_at:
                self.state = through_a_file(run.state_dict())

        train_teachers([run], context=SingleProcess(), on_epoch=keep, **make_sets(self.cell, self.dataset))
        return result_of(run)


def result_of(run):
    """Curves without the clock, and the last state."""
    history = [{name: value for name, value in row.items() if name != "seconds"} for row in run.history]
    return history, copy.deepcopy(run.state_dict()["parts"])


def through_a_file(state):
    saved = io.BytesIO()
    torch.save(state, saved)
    saved.seek(0)
    return torch.load(saved, weights_only=True)


def leaves(value, path=()) -> Iterator[tuple]:
    """The places of all tensors and numbers of a nested state; a part that the run does not have is none."""
    if isinstance(value, dict):
        items = value.items()
    elif isinstance(value, list | tuple):
        items = enumerate(value)
    else:
        if len(path) > 1:
            yield path
        return
    for key, item in items:
        yield from leaves(item, (*path, key))


def at(state, path):
    for key in path:
        state = state[key]
    return state


def without(state, path):
    """A copy of a state in which one leaf is missing."""
    changed = copy.deepcopy(state)
    place = at(changed, path[:-1])
    if isinstance(place, tuple):
        pytest.fail("tuples cannot lose an item")
    del place[path[-1]]
    return changed


def forgotten(state, fresh, path):
    """A copy in which one leaf is what it was when the run began: left out, and nobody noticed."""
    changed = copy.deepcopy(state)
    try:
        initial = at(fresh, path)
    except (KeyError, IndexError):  # momentum, of which there is none at first
        initial = torch.zeros_like(at(state, path))
    at(changed, path[:-1])[path[-1]] = initial
    return changed


def describe(names, path):
    part, *rest = path
    return names[part] + "".join(f"[{key!r}]" for key in rest)


@pytest.fixture(scope="module", params=["hksanc", "vid", "teacher"])
def runs(request, dataset):
    values = {"precision": "float32", "student__learning_rate": 0.05}
    if request.param == "teacher":
        return Teachers(tiny_cell(**values, teacher__epochs=3), dataset)
    if request.param == "vid":  # its objective learns too
        values |= {"knowledge__form": "vid", "loss__lambda_2": 0.0}
    return Runs(tiny_cell(**values), dataset)


def names_of(runs):
    return TEACHER_PARTS if isinstance(runs, Teachers) else PARTS


def same(first, second):
    return first[0] == second[0] and same_state(first[1], second[1])


def test_with_all_of_its_state_it_goes_on_as_if_undisturbed(runs):
    assert same(runs.go_on_from(runs.state), runs.expected)


def branches(value, path=()) -> Iterator[tuple]:
    """The places of all containers of a nested state, itself left out."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, item in items:
        if isinstance(item, dict | list):
            yield (*path, key)
            yield from branches(item, (*path, key))


@pytest.mark.slow
def test_a_state_that_lacks_anything_is_refused_or_gives_another_run(runs):
    parts = runs.state["parts"]
    places = [*leaves(parts), *(place for place in branches(parts) if at(parts, place))]
    unnoticed = [
        describe(names_of(runs), path)
        for path in places
        if (found := runs.go_on_from({**runs.state, "parts": without(parts, path)})) is not None
        and same(found, runs.expected)
    ]
    assert unnoticed == []


def kind_of(path):
    """The piece of state that a leaf belongs to: a network's weights, its BatchNorm buffers, the momentum."""
    part, *rest = path
    buffers = [name for name in ("running_", "num_batches", "momentum_buffer") if name in str(rest[-1])]
    return part, *buffers


def test_a_forgotten_piece_gives_another_run(runs):
    parts = runs.state["parts"]
    groups = {}
    for path in leaves(parts):
        if not describe(names_of(runs), path).endswith(DERIVED):
            groups.setdefault(kind_of(path), []).append(path)
    compared = 0
    for kind, paths in groups.items():
        changed = parts
        for path in paths:
            changed = forgotten(changed, runs.fresh["parts"], path)
        if not same_state(changed, parts):  # not so the settings of an optimiser, which never change
            compared += 1
            found = runs.go_on_from({**runs.state, "parts": changed})
            assert found is not None, kind
            assert found[0] != runs.expected[0], kind
    assert compared >= 5


@pytest.mark.slow
def test_whatever_is_forgotten_gives_another_run(runs):
    parts = runs.state["parts"]
    unnoticed = []
    for path in leaves(parts):
        changed = forgotten(parts, runs.fresh["parts"], path)
        if not same_state(changed, parts):
            found = runs.go_on_from({**runs.state, "parts": changed})
            if found is not None and same(found, runs.expected):
                unnoticed.append(describe(names_of(runs), path))
    assert [name for name in unnoticed if not name.endswith(DERIVED)] == []


@pytest.mark.parametrize("history", [0, 2], ids=["no epoch", "an epoch too many"])
def test_a_run_that_forgot_its_epoch_reads_other_images(runs, history):
    """Order and augmentation derive from seed and epoch, and the epoch from the history."""
    state = {**runs.state, "history": list(itertools.islice(itertools.cycle(runs.state["history"]), history))}
    found = runs.go_on_from(state)
    assert [row["loss_total"] for row in found[0]] != [row["loss_total"] for row in runs.expected[0]]
