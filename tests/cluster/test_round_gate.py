"""Seeds in rounds on Ray: which tasks may begin, when it is looked, and when all is over."""

import pickle
import threading
import time
from unittest.mock import MagicMock

import pytest
from test_schedule import FINISHED, limited

from hkrun.cluster import Rounds
from hkrun.cluster.trials.rounds import RoundGate
from hkrun.cluster.trials.searcher import SweepDone, TaskSearcher
from hkrun.plans import Look

REF, A, B = "ref", "a", "b"
# Three cells, three rounds of a task each; tasks are numbered round by round.
TASKS = {3 * number + place: (cell, number) for number in range(3) for place, cell in enumerate((REF, A, B))}


def pair(cell):
    return frozenset((REF, cell))


BOTH = Look(needs=(pair(A), pair(B)))


class Script:
    """Looks that come out as told, one after the other; then the last one again and again."""

    def __init__(self, *looks):
        self.looks, self.taken = list(looks), 0

    def __call__(self):
        look = self.looks[min(self.taken, len(self.looks) - 1)]
        self.taken += 1
        if isinstance(look, Exception):
            raise look
        return look


def step(gate):
    """Steps until a look that is on its way has come."""
    for _ in range(1000):
        if (look := gate.step()) is not None:
            return look
        if gate._looking is None:
            return None
        time.sleep(0.001)
    raise AssertionError("the look does not end")


def ask_on(searcher):
    """Asks for a task again and again, as Tune does, where there is none to be had."""
    while True:
        assert searcher.suggest("more") is None
        time.sleep(0.001)


def play(script, *, tasks=TASKS, needs=None, slots=1, first=BOTH):
    """Does the tasks as `run_tasks` would, so many at a time; returns those of each turn."""
    schedule = limited(max(tasks) + 1 if not needs else max(*tasks, *needs) + 1, slots)
    turns = []
    with RoundGate(Rounds(tasks=tasks, first=first, look=script), needs or {}, schedule.has_result) as gate:
        schedule.admits = gate.may_begin
        while not schedule.finished:
            step(gate)
            if gate.over:
                schedule.leave_out()
                continue
            begun = []
            while (index := schedule.take()) is not None:
                begun.append(index)
            assert begun, "nothing begins, and nothing is over"
            for index in begun:
                schedule.returned(index, FINISHED)
                schedule.release(index)
            turns.append([tasks[index] for index in begun])
    return turns


def test_what_is_decided_ends_and_the_reference_goes_on_as_long_as_it_is_needed():
    only_b, none = Look(needs=(pair(B),)), Look(needs=())
    assert play(Script(BOTH, BOTH, BOTH, only_b, none)) == [
        [(REF, 0)],
        [(A, 0)],
        [(B, 0)],
        [(REF, 1)],
        [(B, 1)],
    ]


def test_slots_that_are_free_take_the_next_round_of_the_pairs_that_are_ready():
    assert play(Script(BOTH), slots=2) == [
        [(REF, 0), (A, 0)],
        [(B, 0), (REF, 1)],  # a pair is complete, and goes on; the other cell has not begun
        [(A, 1), (B, 1)],
        [(REF, 2), (A, 2)],
        [(B, 2)],
    ]


def test_what_is_never_decided_ends_with_the_last_round():
    turns = play(Script(BOTH))
    assert [place for turn in turns for place in turn] == [TASKS[index] for index in range(9)]


def test_it_is_looked_once_after_each_turn_but_the_last_which_ends_it():
    script = Script(BOTH)
    assert len(play(script, slots=3)) == 3
    assert script.taken == 2


def test_rounds_that_were_complete_before_have_no_task_and_hold_nothing_up():
    tasks = {0: (A, 1), 1: (A, 2)}
    assert play(Script(Look(needs=(pair(A),))), tasks=tasks) == [[(A, 1)], [(A, 2)]]


def test_a_look_that_fails_leaves_questions_open_and_the_study_goes_on(caplog):
    turns = play(Script(OSError("the store is away"), BOTH, Look(needs=())), slots=3)
    assert turns == [[(REF, 0), (A, 0), (B, 0)], [(REF, 1), (A, 1), (B, 1)], [(REF, 2), (A, 2), (B, 2)]]


def test_teachers_are_trained_for_runs_that_may_begin_alone():
    tasks = {2: (REF, 0), 3: (A, 0), 4: (REF, 1), 5: (A, 1)}
    needs = {2: {0}, 3: {0}, 4: {1}, 5: {1}}
    schedule = limited(6, 6)
    script = Script(Look(needs=()))
    rounds = Rounds(tasks=tasks, first=Look(needs=(pair(A),)), look=script)
    with RoundGate(rounds, needs, schedule.has_result) as gate:
        assert [index for index in range(6) if gate.may_begin(index)] == [0, 2, 3]
        schedule.admits = gate.may_begin
        while (index := schedule.take()) is not None:
            schedule.returned(index, FINISHED)
        step(gate)
        assert not gate.may_begin(1)


def test_training_goes_on_while_it_is_looked():
    going = threading.Event()

    def look():
        assert going.wait(60)
        return BOTH

    done = set()
    with RoundGate(Rounds(tasks=TASKS, first=BOTH, look=look), {}, done.__contains__) as gate:
        done |= {0, 1}
        assert gate.step() is None
        assert gate.step() is None
        assert gate.may_begin(2)
        assert not gate.may_begin(3), "what the look may end waits for it"
        assert not gate.over
        going.set()
        assert step(gate) == BOTH
        assert gate.may_begin(3)


@pytest.mark.parametrize("ended", ["failed", "left out"])
def test_runs_without_a_result_end_their_round_too(ended):
    schedule = limited(9, 3)
    with RoundGate(Rounds(tasks=TASKS, first=BOTH, look=Script(BOTH)), {}, schedule.has_result) as gate:
        schedule.admits = gate.may_begin
        for index in (0, 1, 2):
            assert schedule.take() == index
            if ended == "failed":
                schedule.raised(index, "RuntimeError: it broke")
            else:
                schedule.stopped(index)
            schedule.release(index)
        step(gate)
        assert gate.may_begin(3)


def test_tune_gets_the_tasks_of_the_gate_and_is_left_when_all_is_decided():
    schedule, callback, allocation = limited(9, 3), MagicMock(), MagicMock(shared=False)
    allocation.take.return_value = 1
    none = Look(needs=())
    with RoundGate(Rounds(tasks=TASKS, first=BOTH, look=Script(none)), {}, schedule.has_result) as gate:
        schedule.admits = gate.may_begin
        searcher = TaskSearcher(schedule, allocation, callback, gate)
        begun = [searcher.suggest(str(number)) for number in range(4)]
        assert [config and config["index"] for config in begun] == [0, 1, 2, None]
        for index in (0, 1, 2):
            schedule.returned(index, FINISHED)
            schedule.release(index)
        with pytest.raises(SweepDone):
            ask_on(searcher)
    callback.on_look.assert_called_once_with(none)
    assert [schedule.result(index).begun for index in range(9)] == [True] * 3 + [False] * 6


def test_tune_may_pickle_it_with_its_searcher():
    with RoundGate(Rounds(tasks=TASKS, first=BOTH, look=Script(BOTH)), {}, set().__contains__) as gate:
        pickle.dumps(gate)
