"""How far a study is and how long it still takes, by recorded events on a clock that tests turn."""

import dataclasses
import itertools
from types import SimpleNamespace

import pytest
from study_example import plan_on
from sweep_example import fill_store, make_sweep, put_run
from task_example import make_task
from teacher_example import put_teacher

from hkrun.config import cell_id
from hkrun.plans import Startup
from hkrun.store import open_store
from hkrun.sweep import Phase, Progress
from hkrun.sweep.pace import EXPECTED_COUNTS_S, MEMORY_S, Pace, makespan

LABEL = "measured (2025-01-01, a laptop)"
STARTUP = Startup(ray_s=5.0, launch_s=3.0, report_s=2.0, mlflow_s=1.0, basis="a test")
EPOCHS = 12
# A run of 12 epochs takes 6 s, its share of a pack 1.2 s; the teacher's 600 epochs take 30 s.
EVIDENCE = {
    "seconds_per_run": {"value": 6.0, "label": LABEL},
    "seconds_per_packed_run": {"value": 1.2, "label": LABEL},
    "seconds_per_teacher": {"value": 30.0, "label": LABEL},
}


@pytest.fixture
def store(tmp_path):
    return open_store(tmp_path / "store")


def make_plan(store, *, num_cells=1, num_seeds=4, size=1, slots=1, evidence=EVIDENCE, reached=None, **given):
    sweep = make_sweep(num_cells=num_cells, num_seeds=num_seeds, epochs=EPOCHS)
    sweep = dataclasses.replace(sweep, recipe=dataclasses.replace(sweep.recipe, evidence=evidence))
    sizes = {cell_id(named.cell): size for named in sweep.cells}
    plan = plan_on(sweep, store, slots=slots, sizes=sizes, **given)
    return dataclasses.replace(plan, startup=STARTUP, reached=reached or {})


def begin(plan, *, slots=1):
    progress = Progress()
    progress.plan_made(plan, slots=slots)
    return progress


def task_of(store, pack):
    return make_task(store, pack.cell, *pack.seeds)


def teacher_of(store, plan):
    (teacher,) = plan.teachers
    return dataclasses.replace(make_task(store, teacher.cell), cell_id=teacher.teacher_id)


def report(epoch, runs=1, *, error_pct=5.0, **told):
    return {
        "epoch": epoch,
        "epochs": EPOCHS,
        "epochs_done": epoch * runs,
        "epochs_total": EPOCHS * runs,
        "error_pct": error_pct,
        **told,
    }


def outcome(status="finished", *, seed=0, epochs=EPOCHS):
    return {"seed": seed, "status": status, "error_last_pct": 3.0, "epochs": epochs, "message": ""}


# --- epochs -------------------------------------------------------------------------------------------------


def test_progress_is_counted_in_epochs_of_runs_also_of_a_pack_that_ends_all_at_once(store):
    put_teacher(store, make_sweep(epochs=EPOCHS).cells[0].cell)
    plan = make_plan(store, size=4)
    progress = begin(plan)
    assert progress.epochs == (0, 4 * EPOCHS)
    task = task_of(store, plan.packs[0])
    progress.enter(Phase.TRAINING, now=0.0)
    progress.start(task, now=0.0)
    assert (progress.num_training, progress.phase_share) == (4, 0.0)
    progress.advance(task, report(3, 4), now=1.0)
    assert (progress.epochs, progress.phase_share) == ((12, 48), 0.25)
    progress.end(task, [outcome(seed=seed) for seed in range(4)])
    assert (progress.epochs, progress.num_done, progress.num_training) == ((48, 48), 4, 0)


def test_a_teacher_is_no_run_and_has_epochs_of_its_own(store):
    plan = make_plan(store)
    progress = begin(plan)
    teacher = teacher_of(store, plan)
    progress.enter(Phase.TEACHER, now=0.0)
    progress.start(teacher, now=0.0)
    told = {"epoch": 150, "epochs": 600, "epochs_done": 150, "epochs_total": 600, "error_pct": 2.8}
    progress.advance(teacher, told, now=1.0)
    assert (progress.num_training, progress.epochs, progress.teacher_epochs) == (0, (0, 48), (150, 600))
    assert (progress.phase_share, progress.detail()) == (0.25, "epoch 150 of 600, 2.80 % error")
    progress.end(teacher, [outcome(seed=None, epochs=600)])
    assert (progress.num_done, progress.num_runs, progress.teacher_epochs) == (0, 4, (600, 600))


def test_what_is_there_and_what_checkpoints_have_counts_after_a_resumption(store):
    """Of a pack whose runs stand at different epochs, those that are behind are told of as its epoch."""
    sweep = make_sweep(num_cells=1, num_seeds=4, epochs=EPOCHS)
    put_teacher(store, sweep.cells[0].cell)
    put_run(store, sweep.cells[0], 0)
    put_run(store, sweep.cells[0], 1, status="diverged", epochs=5, error_last_pct=None, diverged_epoch=6)
    identity = cell_id(sweep.cells[0].cell)
    plan = make_plan(store, size=4, reached={(identity, 2): 10, (identity, 3): 4})
    progress = begin(plan)
    assert progress.epochs == (12 + 5 + 10 + 4, 12 + 5 + 12 + 12)
    assert (progress.num_runs, progress.num_done, progress.num_diverged) == (4, 2, 1)
    task = task_of(store, plan.packs[0])
    progress.start(task, now=0.0)
    progress.advance(task, report(5, epochs_done=10 + 5, epochs_total=24), now=1.0)
    assert progress.epochs == (12 + 5 + 10 + 5, 41)
    assert progress.epochs_per_s(1.0) is None  # the first report only starts the clock
    progress.advance(task, report(7, epochs_done=10 + 7, epochs_total=24), now=2.0)
    assert progress.epochs_per_s(2.0) == 2.0


def test_checkpoints_that_could_not_be_gone_on_from_take_the_epochs_back(store):
    put_teacher(store, make_sweep(epochs=EPOCHS).cells[0].cell)
    identity = cell_id(make_sweep(epochs=EPOCHS).cells[0].cell)
    plan = make_plan(store, num_seeds=1, reached={(identity, 0): 9})
    progress = begin(plan)
    assert progress.epochs == (9, 12)
    task = task_of(store, plan.packs[0])
    progress.start(task, now=0.0)
    progress.advance(task, report(1), now=1.0)
    assert progress.epochs == (1, 12)


def test_epochs_that_a_diverged_or_failed_run_will_not_make_no_longer_count(store):
    put_teacher(store, make_sweep(epochs=EPOCHS).cells[0].cell)
    plan = make_plan(store, size=2)
    progress = begin(plan, slots=2)
    first, second = (task_of(store, pack) for pack in plan.packs)
    for task in (first, second):
        progress.start(task, now=0.0)
    progress.advance(first, report(4, epochs_done=3 + 4, epochs_total=3 + 12), now=1.0)
    assert progress.epochs == (7, 15 + 24)
    progress.end(first, [outcome("diverged", epochs=3), outcome("finished", seed=1)])
    progress.advance(second, report(6, 2), now=2.0)
    progress.fail(second)
    assert progress.epochs == (3 + 12 + 12, 3 + 12 + 12)
    assert (progress.num_done, progress.num_diverged, progress.num_failed) == (2, 1, 2)


def test_runs_whose_teacher_is_lost_are_no_longer_waited_for(store):
    plan = make_plan(store)
    progress = begin(plan)
    teacher = teacher_of(store, plan)
    progress.start(teacher, now=0.0)
    progress.end(teacher, [outcome("diverged", seed=None, epochs=3)])
    assert (progress.num_runs, progress.epochs) == (0, (0, 0))


def test_a_group_that_loses_a_worker_goes_back_to_its_checkpoint_and_on(store):
    put_teacher(store, make_sweep(epochs=EPOCHS).cells[0].cell)
    plan = make_plan(store, num_seeds=1)
    progress = begin(plan)
    task = task_of(store, plan.packs[0])
    progress.enter(Phase.TRAINING, now=0.0)
    progress.start(task, now=0.0)
    for now, epoch in ((1.0, 1), (2.0, 5), (9.0, 3), (11.0, 4)):
        progress.advance(task, report(epoch), now=now)
        assert progress.epochs == (epoch, 12)
        assert 0.0 <= progress.remaining_s(now) < 30.0
    # Seen: 4 epochs in 1 s, then one in 2 s. The 7 s in which it was started anew are of no epoch.
    pace = (EXPECTED_COUNTS_S + 3.0) / (EXPECTED_COUNTS_S / (0.5 * (5 + 3) / (5 + 2.5)) + 5)
    assert progress.remaining_s(11.0) == pytest.approx(pace * 8 + 3.0)


def test_a_search_counts_only_the_runs_that_it_will_make(store):
    sweep = make_sweep(num_cells=1, num_seeds=1, epochs=EPOCHS)
    put_teacher(store, sweep.cells[0].cell)
    plan = dataclasses.replace(make_plan(store), num_left_to_search=2)
    on_axes = dataclasses.replace(plan.sweep.cells[0], point={"loss.mu": 1.0})
    plan = dataclasses.replace(plan, sweep=dataclasses.replace(plan.sweep, cells=(on_axes,)))
    progress = begin(plan)
    assert (progress.num_runs, progress.epochs) == (2, (0, 24))
    task = task_of(store, plan.packs[3])  # whichever it chooses
    progress.start(task, now=0.0)
    assert progress.epochs == (0, 24)
    progress.end(task, [outcome("stopped", seed=3, epochs=4)])
    assert progress.epochs == (4, 4 + 12)


# --- phases -------------------------------------------------------------------------------------------------


def test_the_table_is_a_phase_while_no_run_has_told_of_an_epoch(store):
    put_teacher(store, make_sweep(epochs=EPOCHS).cells[0].cell)
    plan = make_plan(store)
    progress = begin(plan, slots=2)
    first, second = (task_of(store, pack) for pack in plan.packs[:2])
    progress.enter(Phase.LOADING, now=0.0)
    for task in (first, second):
        progress.start(task, now=0.0)
    assert progress.running[first.name].state == "loading"
    progress.advance(first, {"filled": 0.3}, now=2.0)
    progress.advance(second, {"filled": 0.374}, now=3.0)
    assert (progress.phase, progress.phase_since, progress.detail()) == (Phase.TABLE, 2.0, "37 %")
    assert progress.running[second.name].state == "teacher table, 37 %"
    progress.advance(first, report(1), now=4.0)
    assert (progress.phase, progress.phase_since) == (Phase.TRAINING, 4.0)
    progress.advance(second, {"filled": 0.5}, now=5.0)
    assert progress.phase == Phase.TRAINING


def test_a_task_that_tells_nothing_for_long_is_called_silent(store):
    put_teacher(store, make_sweep(epochs=EPOCHS).cells[0].cell)
    plan = make_plan(store)
    progress = begin(plan)
    task = task_of(store, plan.packs[0])
    progress.start(task, now=0.0)
    (known,) = progress.running.values()
    assert progress.silent_s(known, 30.0) is None
    assert progress.silent_s(known, 31.0) == 31.0
    progress.advance(task, report(1), now=40.0)
    progress.advance(task, report(2), now=140.0)  # so long is an epoch
    assert progress.silent_s(known, 270.0) is None
    assert progress.silent_s(known, 140.0 + 301.0) == 301.0


def test_the_document_that_others_read_has_phase_epochs_and_time_left(store):
    plan = make_plan(store)
    progress = begin(plan)
    progress.enter(Phase.RAY, now=10.0)
    assert progress.document(12.0) == {
        "phase": "starting Ray",
        "phase_seconds": 2.0,
        "detail": "",
        "phase_share": None,
        "epochs_done": 0,
        "epochs_total": 48,
        "runs_training": 0,
        "eta_seconds": (5.0 - 2.0) + 3.0 + 30.0 + 4 * 6.0 + 3.0,
    }


# --- the time left ------------------------------------------------------------------------------------------


class Simulation:
    """A study that takes `slower` times as long as was expected, from Ray's start to MLflow."""

    def __init__(self, store, plan, *, slots=1, slower=1.0):
        self.store, self.plan, self.slots, self.slower = store, plan, slots, slower
        self.progress = begin(plan, slots=slots)
        self.now = 0.0
        self.told = []  # time, time left

    def pass_time(self, seconds):
        """Lets time pass in steps of half a second, and notes what is told."""
        end = self.now + seconds
        while self.now < end - 1e-9:
            self.told.append((self.now, self.progress.remaining_s(self.now)))
            self.now = min(self.now + 0.5, end)

    def play(self):
        progress, slower = self.progress, self.slower
        for phase, seconds in ((Phase.RAY, 5.0), (Phase.PROCESSES, 3.0)):
            progress.enter(phase, now=self.now)
            self.pass_time(slower * seconds)
        if self.plan.teachers:
            progress.enter(Phase.TEACHER, now=self.now)
            self._train(teacher_of(self.store, self.plan), runs=1, epochs=600, seconds=30.0, steps=30)
        progress.enter(Phase.TRAINING, now=self.now)
        for pack in self.plan.packs:
            runs = len(pack.seeds)
            seconds = runs * (6.0 if runs == 1 else 1.2)
            self._train(task_of(self.store, pack), runs=runs, epochs=EPOCHS, seconds=seconds, steps=EPOCHS)
        for phase, seconds in ((Phase.ENDING, 0.0), (Phase.REPORT, 2.0), (Phase.MLFLOW, 1.0)):
            progress.enter(phase, now=self.now)
            self.pass_time(slower * seconds)
        return self.told, self.now

    def _train(self, task, *, runs, epochs, seconds, steps):
        self.progress.start(task, now=self.now)
        for step in range(1, steps + 1):
            self.pass_time(self.slower * seconds / steps)
            epoch = epochs * step // steps
            told = {"epoch": epoch, "epochs": epochs}
            told |= {"epochs_done": epoch * runs, "epochs_total": epochs * runs, "error_pct": 5.0}
            self.progress.advance(task, told, now=self.now)
        seeds = task.seeds or [None]
        self.progress.end(task, [outcome(seed=seed, epochs=epochs) for seed in seeds])


@pytest.mark.parametrize("size", [1, 4])
def test_the_time_left_is_exact_from_the_first_second_where_all_is_as_expected(store, size):
    told, end = Simulation(store, make_plan(store, num_cells=2, size=size)).play()
    assert [left for _, left in told] == pytest.approx([end - now for now, _ in told], abs=1e-6)


@pytest.mark.parametrize("slower", [0.25, 0.5, 2.0, 5.0])
@pytest.mark.parametrize("size", [1, 4])
def test_the_time_left_moves_gently_from_what_was_expected_to_what_is_seen(store, size, slower):
    told, end = Simulation(store, make_plan(store, num_cells=2, num_seeds=8, size=size), slower=slower).play()
    expected = end / slower
    lowest, highest = sorted((end, expected))
    for now, left in told:
        # What has passed and what is told to be left lie between what was expected and what it comes to.
        assert left >= 0.0
        assert lowest * 0.9 <= now + left <= highest * 1.1
    for (before, left_before), (now, left) in itertools.pairwise(told):
        assert (
            abs((now + left) - (before + left_before)) <= 0.2 * highest
        )  # no jump from one look to the next
    late = [(now, left) for now, left in told if now > 0.7 * end and end > 60.0]
    assert all(abs(now + left - end) <= 0.15 * end + 3.0 for now, left in late)  # 3 s are report and MLflow


def test_without_any_measurement_the_time_left_is_unknown_until_epochs_are_seen(store):
    put_teacher(store, make_sweep(epochs=EPOCHS).cells[0].cell)
    plan = make_plan(store, num_seeds=2, evidence={})
    progress = begin(plan)
    progress.enter(Phase.TRAINING, now=0.0)
    assert progress.remaining_s(0.0) is None
    task = task_of(store, plan.packs[0])
    progress.start(task, now=0.0)
    progress.advance(task, report(1), now=5.0)
    assert progress.remaining_s(5.0) is None
    progress.advance(task, report(3), now=9.0)
    assert progress.remaining_s(9.0) == 2.0 * (24 - 3) + 3.0  # 3 s for report and MLflow


def test_what_takes_longer_than_expected_never_makes_the_time_left_negative(store):
    progress = begin(make_plan(store))
    for phase in Phase:
        progress.enter(phase, now=0.0)
        assert progress.remaining_s(10_000.0) >= 0.0
    progress.enter(Phase.RAY, now=0.0)
    assert progress.remaining_s(10_000.0) == 3.0 + 30.0 + 24.0 + 3.0  # it stands still, by what is to come


def test_a_phase_that_takes_much_longer_than_usual_is_told_of_as_such(store):
    progress = begin(make_plan(store))
    progress.enter(Phase.RAY, now=0.0)
    assert [progress.usual_s(now) for now in (9.0, 10.0, 10.5)] == [None, None, 5.0]
    progress.enter(Phase.TRAINING, now=11.0)
    assert progress.usual_s(10_000.0) is None


def test_the_time_left_is_taken_to_go_on_between_reports_but_by_no_more_than_one(store):
    put_teacher(store, make_sweep(epochs=EPOCHS).cells[0].cell)
    plan = make_plan(store, num_seeds=1)
    progress = begin(plan)
    task = task_of(store, plan.packs[0])
    progress.enter(Phase.TRAINING, now=0.0)
    progress.start(task, now=0.0)
    progress.advance(task, report(4), now=2.0)
    assert [progress.remaining_s(now) for now in (2.0, 2.5, 3.0, 60.0)] == [7.0, 6.5, 6.0, 6.0]


def test_runs_of_two_stages_and_their_cells_have_a_pace_each():
    pace = Pace({"a": 1.0, "b": 2.0, "unknown": None})
    assert [pace.epoch_s(key) for key in ("a", "b", "unknown")] == [1.0, 2.0, 1.5]
    pace.observe("a", 10.0, 5)  # twice as long as expected
    slowdown = (5.0 + 10.0) / (5.0 + 5.0)
    assert pace.epoch_s("b") == 2.0 * slowdown
    assert pace.epoch_s("a") == (5.0 + 10.0) / (5.0 / slowdown + 5)
    assert pace.epoch_s("unknown") == 2.0


def test_what_was_seen_long_ago_fades():
    pace = Pace({"a": 1.0})
    pace.observe("a", 100_000.0, 10_000)  # 10 s each
    pace.observe("a", MEMORY_S, 6_000)  # 0.1 s each, for as long as is remembered
    assert pace.epoch_s("a") < 0.3


def test_tasks_that_wait_take_the_next_free_slot():
    assert makespan([], [], slots=2) == 0.0
    assert makespan([5.0], [4.0, 4.0, 4.0], slots=2) == 9.0  # 5 and 4 | 4 and 4
    assert makespan([1.0, 9.0], [2.0], slots=2) == 9.0
    assert makespan([2.0], [4.0] * 5, slots=2, share=0.4) == (2.0 + 0.4 * 20.0) / 2
    assert makespan([], [1.0] * 10_000, slots=8) == 1250.0


def test_a_finished_study_has_nothing_left(store):
    fill_store(store, make_sweep(num_cells=1, num_seeds=2, epochs=EPOCHS))
    progress = begin(make_plan(store, num_seeds=2))
    assert progress.epochs == (24, 24)
    assert progress.remaining_s(0.0) == 5.0 + 3.0 + 3.0


def test_reports_of_a_task_that_never_started_are_passed_over():
    progress = Progress()
    progress.advance(SimpleNamespace(name="?"), report(1), now=0.0)
    assert progress.running == {}
