import dataclasses
import io
import itertools
import threading

import pytest
from study_example import plan_on
from sweep_example import make_sweep, put_run
from task_example import make_task
from teacher_example import put_teacher

from hkrun.cli import display as displaying
from hkrun.cli.console import PlainConsole
from hkrun.cli.display import Display, describe_duration, describe_roughly
from hkrun.config import cell_id
from hkrun.plans import Look, Startup
from hkrun.store import open_store
from hkrun.sweep import Phase

STARTUP = Startup(ray_s=5.0, launch_s=3.0, report_s=2.0, mlflow_s=1.0, basis="a test")
LABEL = "measured (2025-01-01, a laptop)"
EVIDENCE = {
    "seconds_per_run": {"value": 12.0, "label": LABEL},
    "seconds_per_teacher": {"value": 30.0, "label": LABEL},
}


class Clock:
    def __init__(self):
        self.now = 0.0

    def __call__(self):
        return self.now


class Screen:
    """A display on a console of some width, with a study of two cells and two seeds."""

    def __init__(self, store, *, terminal, width=100, names=("L_b", "L_b + L_is"), size=1, taught=False):
        self.clock, self.written = Clock(), io.StringIO()
        sweep = make_sweep(num_cells=2, num_seeds=2)
        cells = tuple(
            dataclasses.replace(cell, name=name) for cell, name in zip(sweep.cells, names, strict=True)
        )
        recipe = dataclasses.replace(sweep.recipe, evidence=EVIDENCE)
        if taught:
            put_teacher(store, cells[0].cell)
        sizes = {cell_id(named.cell): size for named in cells}
        plan = plan_on(dataclasses.replace(sweep, cells=cells, recipe=recipe), store, slots=2, sizes=sizes)
        self.plan = dataclasses.replace(plan, startup=STARTUP)
        self.console = PlainConsole(
            file=self.written, force_terminal=terminal, width=width, color_system=None, soft_wrap=True
        )
        self.display = Display(self.console, title="Study", clock=self.clock)
        self.tasks = [make_task(store, pack.cell, *pack.seeds) for pack in plan.packs]
        self.teacher = make_task(store, cells[0].cell)

    def tell(self, task, epoch, *, epochs=12, error_pct=5.0):
        runs = len(task.seeds) or 1
        told = {"epoch": epoch, "epochs": epochs, "error_pct": error_pct}
        self.display.progressed(
            task, told | {"epochs_done": epoch * runs, "epochs_total": epochs * runs, "seconds": {}}
        )

    def look(self):
        """What is on the screen now, line by line."""
        self.written.seek(0)
        self.written.truncate()
        self.console.print(self.display._render())
        return [line.rstrip() for line in self.written.getvalue().splitlines()]

    @property
    def lines(self):
        return self.written.getvalue().splitlines()


@pytest.fixture
def store(tmp_path):
    return open_store(tmp_path / "store")


def outcome(status="finished", *, seed=0, epochs=12, message=""):
    return {"seed": seed, "status": status, "error_last_pct": 3.0, "epochs": epochs, "message": message}


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(0, "0 s"), (59.4, "59 s"), (59.6, "1:00 min"), (185, "3:05 min"), (7300, "2:01 h")],
)
def test_durations_are_for_people(seconds, words):
    assert describe_duration(seconds) == words


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (0.0, "1 s"),
        (42.4, "42 s"),
        (59.6, "1:00 min"),
        (93.0, "1:35 min"),
        (754.0, "13:00 min"),
        (7300.0, "2:02 h"),
    ],
)
def test_what_is_only_estimated_is_told_in_steps(seconds, words):
    assert describe_roughly(seconds) == words


# --- without a terminal -------------------------------------------------------------------------------------


def play(screen):
    """A sweep from its plan to its end; a second passes per epoch."""
    display, clock = screen.display, screen.clock
    display.plan_made(screen.plan, slots=2)
    display.entered(Phase.RAY)
    clock.now += 4.0
    display.entered(Phase.PROCESSES)
    clock.now += 3.0
    display.entered(Phase.TEACHER)
    display.started(screen.teacher)
    for epoch in range(0, 600, 50):
        clock.now += 1.0
        screen.tell(screen.teacher, epoch + 50, epochs=600, error_pct=2.8)
    display.ended(screen.teacher, [outcome(seed=None, epochs=600)])
    display.entered(Phase.LOADING)
    for number, task in enumerate(screen.tasks):
        display.started(task)
        if number == 0:
            clock.now += 1.0
            display.progressed(task, {"filled": 0.5})
        for epoch in range(1, 13):
            clock.now += 1.0
            screen.tell(task, epoch)
        if number == 2:
            display.failed(task, "its process died; see logs/2.log")
        else:
            status = "diverged" if number == 1 else "finished"
            display.ended(task, [outcome(status, seed=task.seeds[0], message="loss is nan")])
    display.entered(Phase.ENDING)
    clock.now += 1.0
    display.entered(Phase.REPORT)
    clock.now += 2.0
    display.entered(Phase.MLFLOW)
    clock.now += 1.0


def test_without_a_terminal_every_phase_is_a_line_and_one_now_and_then_tells_how_far_it_is(store):
    screen = Screen(store, terminal=False)
    with screen.display:
        play(screen)
    lines = screen.lines
    assert lines[:9] == [
        # 8 s for Ray and a process, 30 s for the teacher, 24 s for the runs, 3 s for report and MLflow
        "Study: 4 of 4 runs to train, 2 at a time, about 1:05 min",
        "Starting Ray ... about 1:05 min left",
        "Starting processes ... about 1:00 min left",
        "Training the teacher ... about 57 s left",
        "4 runs wait for the teacher preact-164, for about 30 s; it has 1 of 2 slots meanwhile",
        "Training the teacher, 10 s: epoch 500 of 600, 2.80 % error; 4 runs wait for it; about 29 s left",
        "Loading data ... about 27 s left",
        "Filling the teacher table ... about 27 s left",
        "Training ... about 27 s left",
    ]
    assert "L_b, seed 0: diverged: loss is nan" in lines
    assert "L_b + L_is, seed 1: failed: its process died; see logs/2.log" in lines
    told = [line for line in lines if line.startswith("Training, ")]
    assert told[0] == (
        "Training, 10 s; 0/4 runs done, 1 training; 11/48 epochs, 23 %, 1 epochs/s; about 27 s left"
    )
    assert len(told) == 4  # 48 epochs of a second, and a line every ten
    assert [line.partition(" ...")[0] for line in lines if line.endswith("left")][-3:-1] == [
        "Stopping Ray",
        "Writing the report",
    ]
    assert lines[-1] == "3/4 runs done, 1 failed, 1 diverged, after 1:12 min"


@pytest.mark.parametrize("terminal", [False, True])
def test_runs_that_wait_for_a_teacher_beside_others_that_train_are_told_of_until_it_is_trained(
    store, terminal
):
    screen = Screen(store, terminal=terminal)
    display = screen.display
    display.plan_made(screen.plan, slots=2)
    display.entered(Phase.TRAINING)
    display.started(screen.tasks[0])  # as one that needs no teacher
    display.started(screen.teacher)
    once = "3 runs wait for the teacher preact-164, for about 30 s; it has 1 of 2 slots meanwhile"
    assert screen.written.getvalue().count(once) == 1
    screen.clock.now += 10.0
    screen.tell(screen.teacher, 300, epochs=600, error_pct=2.8)
    waits = "3 runs wait for the teacher, epoch 300 of 600, 2.80 % error"
    told = "\n".join(screen.look()) if terminal else screen.lines[-1]
    assert waits in told
    display.ended(screen.teacher, [outcome(seed=None, epochs=600)])
    screen.clock.now += 10.0
    screen.tell(screen.tasks[0], 3)
    told = "\n".join(screen.look()) if terminal else screen.lines[-1]
    assert "wait" not in told


def test_lines_become_rarer_the_longer_a_study_takes(store):
    screen = Screen(store, terminal=False)
    screen.display.plan_made(screen.plan, slots=2)
    screen.display.entered(Phase.TRAINING)
    screen.display.started(screen.tasks[0])
    before = len(screen.lines)
    told_at = []
    for second in itertools.chain(range(1, 7200), range(7200, 2 * 86_400, 10)):
        screen.clock.now = float(second)
        screen.display.say_now_and_then()
        if len(screen.lines) > before:
            told_at.append(second)
            before = len(screen.lines)
    assert told_at[:3] == [10, 20, 30]
    between = [after - earlier for earlier, after in itertools.pairwise(told_at)]
    assert between == sorted(between)
    assert between[-1] == 600
    assert sum(second <= 600 for second in told_at) == 40
    assert sum(second <= 3600 for second in told_at) < 85
    assert sum(second > 86_400 for second in told_at) <= 144  # six an hour


def test_a_line_comes_also_where_no_task_tells_anything(store, monkeypatch):
    monkeypatch.setattr(displaying, "_TICK_S", 0.001)
    screen = Screen(store, terminal=False)
    written = threading.Event()
    screen.console.print = lambda line, **_: line.startswith("Starting Ray, 11 s") and written.set()
    with screen.display:
        screen.display.plan_made(screen.plan, slots=2)
        screen.display.entered(Phase.RAY)
        screen.clock.now = 11.0
        assert written.wait(10.0)


def test_a_silent_task_is_told_of(store):
    screen = Screen(store, terminal=False)
    screen.display.plan_made(screen.plan, slots=2)
    screen.display.entered(Phase.TRAINING)
    screen.display.started(screen.tasks[0])
    screen.tell(screen.tasks[0], 3)
    screen.clock.now = 95.0
    screen.display.say_now_and_then()
    assert screen.lines[-1].endswith("; no word for 1:35 min")


def test_names_of_cells_are_shown_as_they_are():
    """Rich would take a name in square brackets for markup and swallow it."""
    written = io.StringIO()
    display = Display(PlainConsole(file=written, width=100), title="[Study]", clock=Clock())
    display.entered("[phase]")
    assert written.getvalue() == "[phase] ...\n"


def test_a_sweep_that_is_there_already_says_so_and_counts_its_diverged_runs(store):
    sweep = make_sweep(num_cells=2, num_seeds=2)
    put_run(store, sweep.cells[0], 0, status="diverged", epochs=3, error_last_pct=None, diverged_epoch=4)
    screen = Screen(store, terminal=False)
    with screen.display:
        screen.display.plan_made(screen.plan, slots=2)
    assert screen.lines[0].startswith("Study: 3 of 4 runs to train, 2 at a time, 1 are there already, about")
    assert screen.lines[-1] == "1/4 runs done, 1 diverged, after 0 s"


# --- on a terminal ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("width", [60, 80, 120])
def test_the_screen_shows_phase_bar_counts_and_each_task_within_its_width(store, width):
    screen = Screen(store, terminal=True, width=width, size=2, taught=True)
    display = screen.display
    display.plan_made(screen.plan, slots=2)
    display.entered(Phase.TRAINING)
    for task in screen.tasks:
        display.started(task)
        screen.tell(task, 3)
    screen.clock.now += 2.0
    screen.tell(screen.tasks[0], 6)
    lines = screen.look()
    assert max(map(len, lines)) <= width
    assert lines[0].split() == ["Study", "2", "s"]
    assert lines[1].split() == ["Training", "2", "s", "about", "13", "s", "left"]
    assert set(lines[2]) <= set("━╸╺ ")
    assert lines[3] == "0/4 runs done, 4 training"
    assert lines[4] == "18/48 epochs, 38 %, 3 epochs/s"
    assert [line.split() for line in lines[5:]] == [
        ["L_b", "+", "L_is,", "seeds", "0-1", "epoch", "6", "of", "12", "5.00", "%", "error"],
        ["L_b,", "seeds", "0-1", "epoch", "3", "of", "12", "5.00", "%", "error"],
    ]


def test_the_bar_of_a_phase_that_has_no_measure_moves(store):
    """It is a pulse, with the phase and its time above: not a bar of runs that stands still."""
    screen = Screen(store, terminal=True, width=80)
    screen.display.plan_made(screen.plan, slots=2)
    screen.display.entered(Phase.RAY)
    screen.clock.now += 7.0
    lines = screen.look()
    assert lines[1].split() == ["Starting", "Ray", "7", "s", "about", "1:00", "min", "left"]
    assert lines[2:] == ["━" * 80, "0/4 runs done"]
    screen.clock.now += 40.0
    assert screen.look()[1].split()[:6] == ["Starting", "Ray", "47", "s,", "usually", "5"]


def test_the_teacher_has_a_bar_of_its_own_epochs_and_is_no_run(store):
    screen = Screen(store, terminal=True, width=80)
    screen.display.plan_made(screen.plan, slots=2)
    screen.display.entered(Phase.TEACHER)
    screen.display.started(screen.teacher)
    screen.tell(screen.teacher, 300, epochs=600, error_pct=2.8)
    lines = screen.look()
    assert (lines[2], lines[3]) == ("━" * 40, "4 runs wait for it")
    assert lines[4].split() == ["teacher", "preact-164", "epoch", "300", "of", "600", "2.80", "%", "error"]


@pytest.mark.parametrize("width", [60, 80])
def test_long_names_are_shortened_and_neither_epoch_nor_error_is_lost(store, width):
    long = "a configuration of many words that differs only at its end, with weight"
    screen = Screen(store, terminal=True, width=width, names=(f"{long} 0.1", f"{long} 10"), size=2)
    screen.display.plan_made(screen.plan, slots=2)
    screen.display.entered(Phase.TRAINING)
    for task in screen.tasks:
        screen.display.started(task)
        screen.tell(task, 7)
    rows = screen.look()[5:]
    assert max(map(len, rows)) <= width
    assert all(row.endswith("  epoch 7 of 12  5.00 % error") and ", seeds 0-1" in row for row in rows)
    assert all("…" in row for row in rows)
    assert rows[0] != rows[1]


def test_cells_of_axes_are_called_by_short_keys(store):
    screen = Screen(store, terminal=True, width=60, size=2)
    values = dict(zip(("L_b", "L_b + L_is"), (0.1, 1.0), strict=True))
    named = tuple(
        dataclasses.replace(cell, point={"loss.lambda_3": values[cell.name]})
        for cell in screen.plan.sweep.cells
    )
    sweep = dataclasses.replace(screen.plan.sweep, cells=named)
    screen.display.plan_made(dataclasses.replace(screen.plan, sweep=sweep), slots=2)
    screen.display.entered(Phase.TRAINING)
    for task in screen.tasks:
        screen.display.started(task)
    rows = [line.split(", seeds")[0].strip() for line in screen.look()[4:]]
    assert rows == ["lambda_3 = 1", "lambda_3 = 0.1"]  # the one with more terms first


def test_a_task_says_what_it_waits_for(store):
    screen = Screen(store, terminal=True, width=80)
    screen.display.plan_made(screen.plan, slots=2)
    screen.display.entered(Phase.LOADING)
    task = screen.tasks[0]
    screen.display.started(task)
    assert screen.look()[-1].split()[-1] == "loading"
    screen.display.progressed(task, {"filled": 0.374})
    assert screen.look()[-1].endswith("teacher table, 37 %")
    assert screen.look()[1].startswith("Filling the teacher table")
    screen.tell(task, 12)
    assert screen.look()[-1].split("  ")[-2:] == ["writing its results", "5.00 % error"]
    screen.clock.now += 200.0
    assert screen.look()[-1].endswith("no word for 3:20 min")


def test_of_many_tasks_the_first_are_shown_and_the_others_counted(store):
    screen = Screen(store, terminal=True, width=80)
    screen.display.plan_made(screen.plan, slots=2)
    for seed in range(11):
        screen.display.started(make_task(store, screen.tasks[0].cell, 100 + seed))
    assert screen.look()[-1] == "  and 3 more"


def test_what_is_drawn_while_tasks_come_and_go_never_fails(store):
    """A thread of Rich's draws what the observer's calls change."""
    screen = Screen(store, terminal=True, width=80)
    screen.display.plan_made(screen.plan, slots=2)
    problems, over = [], threading.Event()

    def draw():
        while not over.is_set():
            try:
                screen.display._render()
            except Exception as error:
                problems.append(error)

    thread = threading.Thread(target=draw)
    thread.start()
    for number in range(300):
        task = make_task(store, screen.tasks[0].cell, number)
        screen.display.started(task)
        screen.tell(task, 3)
        screen.display.ended(task, [outcome(seed=number)])
    over.set()
    thread.join()
    assert problems == []


# --- seeds in rounds ----------------------------------------------------------------------------------------


def test_an_answer_is_told_once_and_cells_that_have_ended_wait_no_longer(store):
    screen = Screen(store, terminal=False)
    reference, other = (named.cell for named in screen.plan.cells)
    plan = dataclasses.replace(screen.plan, rounds=((0,), (1,)))
    screen.display.plan_made(plan, slots=2)
    assert ", at most " in screen.lines[-1], "what waits may not be needed"
    one, two = cell_id(reference), cell_id(other)
    asked = {"error of L_b + L_is against L_b": "", "a claim": ""}
    screen.display.looked(Look(needs=(frozenset((one, two)),), answers=asked, summary="0 of 2 decided"))
    assert len(screen.lines) == 1
    answered = asked | {"a claim": "contradicted"}
    for _ in range(2):
        screen.display.looked(
            Look(needs=(frozenset((one,)),), answers=answered, summary="1 of 2 decided; open: error")
        )
    assert screen.lines[1:] == ["Decided: a claim: contradicted"]
    screen.display.entered(Phase.TRAINING)
    screen.clock.now += 11
    screen.display.say_now_and_then()
    assert ": 1 of 2 decided; open: error; " in screen.lines[-1]
    assert "0/2 runs done" in screen.lines[-1], "of four, two are of the cell that has ended"
