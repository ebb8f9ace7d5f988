import pytest

from hkrun.cluster.trials.schedule import DEATH_ADVICE, FIRST_WAIT_S, MAX_RETRIES, Schedule, TaskResult
from hkrun.cluster.trials.slots import Fit
from hkrun.errors import DataError, StoreError

FINISHED = [{"seed": 0, "status": "finished"}]
DIVERGED = [{"seed": 0, "status": "diverged"}]
FAILED = [{"seed": 0, "status": "finished"}, {"seed": 1, "status": "failed"}]


def limited(num_tasks, slots, **options):
    """A schedule with room for so many tasks at a time."""

    def fit(_):
        return Fit.NOW if len(schedule._running) < slots else Fit.LATER

    schedule = Schedule(num_tasks, fit=fit, **options)
    return schedule


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def test_tasks_start_in_order_and_no_more_at_once_than_there_are_slots():
    schedule = limited(3, 2)
    assert [schedule.take(), schedule.take(), schedule.take()] == [0, 1, None]
    schedule.returned(0, FINISHED)
    assert schedule.take() is None  # its process is still there
    schedule.release(0)
    assert schedule.take() == 2


def test_a_task_that_gets_further_after_each_death_may_die_often():
    clock = Clock()
    schedule = limited(1, 1, clock=clock)
    for epoch in range(1, 21):
        assert schedule.take() == 0
        schedule.progressed(0, epoch)
        assert schedule.died(0, "killed") is None
        schedule.release(0)
        clock.now += FIRST_WAIT_S  # the waits begin anew too
    assert schedule.take() == 0
    assert schedule.returned(0, FINISHED) == TaskResult(outcomes=FINISHED, retries=20)


def test_a_task_that_repeats_the_same_epochs_after_each_death_does_not_get_further():
    clock = Clock()
    schedule = limited(1, 1, clock=clock)
    for death in range(MAX_RETRIES + 1):
        assert schedule.take() == 0
        for epoch in (1, 2, 3):
            schedule.progressed(0, epoch)
        result = schedule.died(0, "killed")
        schedule.release(0)
        clock.now += 60
        assert (result is None) == (death < MAX_RETRIES)
    assert schedule.finished


def test_results_stand_in_the_order_of_the_tasks_not_of_their_ends():
    schedule = limited(2, 2)
    schedule.take(), schedule.take()
    schedule.raised(1, "boom")
    assert not schedule.finished
    schedule.returned(0, FINISHED)
    assert schedule.finished
    assert schedule.results() == [TaskResult(outcomes=FINISHED), TaskResult(error="boom")]


def test_a_task_whose_process_died_rests_and_is_then_tried_before_fresh_ones():
    clock = Clock()
    schedule = limited(3, 1, clock=clock)
    assert schedule.take() == 0
    assert schedule.died(0, "killed") is None
    schedule.release(0)
    assert schedule.take() == 1  # nobody waits for a resting task
    schedule.release(1)
    clock.now += 1.9
    assert schedule.take() == 2
    schedule.release(2)
    clock.now += 0.2
    assert schedule.take() == 0
    assert schedule.retries(0) == 1


def test_the_rest_before_a_retry_grows():
    clock = Clock()
    schedule = limited(1, 1, clock=clock)
    for wait_s in (2.0, 8.0):
        assert schedule.take() == 0
        schedule.died(0, "killed")
        schedule.release(0)
        clock.now += wait_s - 0.1
        assert schedule.take() is None
        clock.now += 0.2


def test_a_task_whose_process_always_dies_fails_and_says_how_often_it_was_tried():
    clock = Clock()
    schedule = limited(1, 1, clock=clock)
    for _ in range(MAX_RETRIES):
        schedule.take()
        assert schedule.died(0, "killed") is None
        schedule.release(0)
        clock.now += 60
        assert not schedule.finished
    schedule.take()
    result = schedule.died(0, "killed")
    assert result == TaskResult(error=f"killed (tried 3 times); {DEATH_ADVICE}", retries=2)
    assert schedule.finished


def test_a_result_after_a_retry_tells_of_the_retry():
    clock = Clock()
    schedule = limited(1, 1, clock=clock)
    schedule.take()
    schedule.died(0, "killed")
    schedule.release(0)
    clock.now += 60
    schedule.take()
    assert schedule.returned(0, FINISHED) == TaskResult(outcomes=FINISHED, retries=1)


def test_a_task_that_was_not_begun_is_next_and_has_lost_no_try():
    schedule = limited(2, 1)
    for _ in range(5):
        assert schedule.take() == 0
        schedule.put_back(0)
        schedule.release(0)
    assert schedule.take() == 0
    assert schedule.retries(0) == 0


@pytest.mark.parametrize("end", ["raised", "a run failed", "died"])
def test_fail_fast_ends_everything_at_the_first_failure(end):
    clock = Clock()
    schedule = limited(3, 1, fail_fast=True, clock=clock)
    for _ in range(MAX_RETRIES if end == "died" else 0):
        schedule.take()
        schedule.died(0, "killed")
        assert not schedule.finished  # a death that is mended is no failure
        schedule.release(0)
        clock.now += 60
    assert schedule.take() == 0
    if end == "raised":
        schedule.raised(0, "boom")
    elif end == "died":
        schedule.died(0, "killed")
    else:
        schedule.returned(0, FAILED)
    schedule.release(0)
    assert schedule.finished
    assert schedule.take() is None
    assert schedule.results()[1:] == [TaskResult(), TaskResult()]


def test_fail_fast_goes_on_after_a_diverged_run_and_a_stopped_task():
    schedule = limited(3, 3, fail_fast=True)
    for _ in range(3):
        schedule.take()
    schedule.returned(0, DIVERGED)
    schedule.stopped(1)
    assert not schedule.finished


def test_without_fail_fast_a_failure_ends_nothing():
    schedule = limited(2, 1)
    schedule.take()
    schedule.raised(0, "boom")
    schedule.release(0)
    assert schedule.take() == 1
    assert not schedule.finished


@pytest.mark.parametrize(("exit_code", "kind"), [(3, DataError), (6, StoreError)])
def test_an_error_that_every_task_would_meet_ends_everything_and_can_be_raised_again(exit_code, kind):
    schedule = limited(4, 2)
    schedule.take(), schedule.take()
    schedule.returned(0, FINISHED)
    schedule.release(0)
    assert schedule.take() == 2
    result = schedule.raised(1, "one\nand all", exit_code=exit_code)
    assert schedule.finished
    assert schedule.take() is None
    assert type(result.common_error) is kind
    assert result.common_error.message == "one\nand all"
    assert schedule.results() == [TaskResult(outcomes=FINISHED), result, TaskResult(), TaskResult()]
    assert TaskResult(error="boom").common_error is None


def test_a_task_waits_for_the_one_it_needs_and_holds_up_nobody():
    schedule = limited(4, 2, needs={1: [0], 2: [0]})
    assert [schedule.take(), schedule.take()] == [0, 3]
    schedule.returned(3, FINISHED)
    schedule.release(3)
    assert schedule.take() is None
    schedule.died(0, "killed")
    schedule.release(0)
    assert schedule.take() is None  # not even while the one it needs rests
    schedule.returned(0, FINISHED)  # at last
    assert [schedule.take(), schedule.take()] == [1, 2]


def test_a_task_waits_until_the_process_of_the_one_it_needs_is_free():
    schedule = limited(3, 2, needs={1: [0], 2: [0]})
    assert schedule.take() == 0
    schedule.returned(0, FINISHED)
    assert not schedule.has_result(0)
    assert schedule.take() is None
    schedule.release(0)
    assert schedule.has_result(0)
    assert [schedule.take(), schedule.take()] == [1, 2]


@pytest.mark.parametrize("fail_fast", [False, True])
@pytest.mark.parametrize(
    "end",
    [
        lambda schedule: schedule.returned(0, DIVERGED),
        lambda schedule: schedule.raised(0, "boom"),
        lambda schedule: schedule.stopped(0),
    ],
    ids=["diverged", "raised", "stopped"],
)
def test_what_needs_a_task_that_is_not_complete_is_left_out(end, fail_fast):
    schedule = limited(4, 1, fail_fast=fail_fast, needs={1: [0], 2: [0]})
    schedule.take()
    end(schedule)
    schedule.release(0)
    assert schedule.take() == (None if fail_fast else 3)
    if not fail_fast:
        schedule.returned(3, FINISHED)
    assert schedule.finished
    assert [result.begun for result in schedule.results()[1:]] == [False, False, not fail_fast]


def test_a_failed_task_leaves_out_what_needs_it_though_some_of_that_was_left_out_before():
    schedule = limited(4, 1, needs={1: [0], 2: [0], 3: [0]})
    assert schedule.take() == 0
    schedule.leave_out([1])
    assert schedule.raised(0, "boom").failed
    schedule.release(0)
    assert schedule.take() is None
    assert schedule.finished
    assert [result.begun for result in schedule.results()] == [True, False, False, False]


def test_a_task_waits_for_all_that_it_needs():
    schedule = limited(4, 4, needs={2: [0, 1], 3: [1]})
    assert [schedule.take(), schedule.take(), schedule.take()] == [0, 1, None]
    schedule.returned(1, FINISHED)
    schedule.release(1)
    assert [schedule.take(), schedule.take()] == [3, None]
    schedule.returned(0, FINISHED)
    schedule.release(0)
    assert schedule.take() == 2


def test_a_task_is_left_out_where_nothing_that_it_needs_is_usable():
    schedule = limited(3, 3, needs={2: [0, 1]})
    assert [schedule.take(), schedule.take()] == [0, 1]
    schedule.returned(0, DIVERGED)
    schedule.returned(1, FINISHED)
    schedule.release(0)
    schedule.release(1)
    assert schedule.take() == 2
    schedule = limited(3, 3, needs={2: [0, 1]})
    assert [schedule.take(), schedule.take()] == [0, 1]
    schedule.returned(0, DIVERGED)
    assert not schedule.finished
    schedule.raised(1, "boom")
    assert schedule.finished
    assert not schedule.results()[2].begun


def test_fail_fast_ends_with_the_first_teacher_that_others_lack():
    schedule = limited(3, 3, fail_fast=True, needs={2: [0, 1]})
    assert [schedule.take(), schedule.take()] == [0, 1]
    schedule.returned(0, DIVERGED)
    assert schedule.finished
