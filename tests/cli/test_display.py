import io
from types import SimpleNamespace

import pytest
from sweep_example import make_sweep

from hkrun.cli.console import PlainConsole
from hkrun.cli.display import Display, Progress, Running, describe_duration
from hkrun.config import cell_id
from hkrun.plans import make_plan


def begun(**fields):
    progress = Progress(num_runs=10, **fields)
    progress.begin()
    return progress


def start(progress, *names):
    for name in names:
        progress.running[name] = Running(label=name)


def outcome(status="finished", *, seed=0, epochs=20, message=""):
    return {"seed": seed, "status": status, "error_last_pct": 3.0, "epochs": epochs, "message": message}


# --- bookkeeping --------------------------------------------------------------------------------------------


def test_speed_and_remaining_time_follow_from_the_epochs_after_the_first_report():
    progress = begun(num_done=2)
    start(progress, "a", "b")
    progress.advance("a", {"epoch": 6, "epochs": 20, "error_pct": 4.5}, now=102.0)
    assert progress.epochs_per_s(102.0) is None
    assert progress.remaining_s(102.0) is None
    progress.advance("b", {"epoch": 4, "epochs": 20}, now=104.0)
    assert progress.epochs_per_s(104.0) == 4 / 2
    assert progress.remaining_s(104.0) == (8 * 20 - 10) / 2
    assert progress.running["a"].error_pct == 4.5
    progress.end("a", [outcome(epochs=20)], now=107.0)
    assert progress.epochs_per_s(107.0) == 18 / 5
    assert progress.remaining_s(107.0) == pytest.approx((7 * 20 - 4) / 3.6)


def test_the_speed_is_that_of_the_last_minute():
    progress = begun()
    start(progress, "a")
    for second in range(1, 201):
        epoch = second if second <= 100 else 100 + 3 * (second - 100)
        progress.advance("a", {"epoch": epoch, "epochs": 1000}, now=100.0 + second)
    assert progress.epochs_per_s(300.0) == pytest.approx(3.0)


def test_runs_are_counted_by_how_they_ended():
    progress = begun()
    start(progress, "a", "b", "c", "d")
    progress.end("a", [outcome()], now=101.0)
    progress.end("b", [outcome("diverged")], now=101.0)
    progress.end("c", [outcome("failed")], now=101.0)
    progress.fail("d", 1)
    assert (progress.num_done, progress.num_failed, progress.num_diverged) == (2, 2, 1)
    assert progress.running == {}


def test_a_teacher_is_no_run():
    progress = begun()
    start(progress, "teacher")
    progress.end("teacher", [outcome(seed=None)], now=101.0)
    assert (progress.num_done, progress.num_failed) == (0, 0)


def test_a_task_that_fills_the_teacher_table_says_how_far_it_is_until_its_first_epoch():
    task = Running(label="a")
    progress = begun(running={"a": task})
    assert task.state == "starting"
    progress.advance("a", {"filled": 0.374}, now=101.0)
    assert task.state == "teacher table, 37 %"
    assert progress.epochs_per_s(101.0) is None
    progress.advance("a", {"epoch": 1, "epochs": 20}, now=102.0)
    assert task.state == "epoch 1/20"


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(0, "0 s"), (59.4, "59 s"), (59.6, "1:00 min"), (185, "3:05 min"), (7300, "2:01 h")],
)
def test_durations_are_for_people(seconds, words):
    assert describe_duration(seconds) == words


# --- what is shown ------------------------------------------------------------------------------------------


class Clock:
    def __init__(self):
        self.now = 0.0

    def __call__(self):
        return self.now


def watch(*, terminal, num_runs=4):
    """Plays a sweep of two cells and two seeds to a display; returns what it wrote."""
    sweep = make_sweep(num_cells=2, num_seeds=2)
    clock, written = Clock(), io.StringIO()
    console = PlainConsole(file=written, force_terminal=terminal, width=100, soft_wrap=True)
    tasks = [
        SimpleNamespace(name=str(number), cell=named.cell, cell_id=cell_id(named.cell), seeds=(seed,))
        for number, (seed, named) in enumerate((seed, named) for seed in sweep.seeds for named in sweep.cells)
    ]
    teacher = SimpleNamespace(
        name="teacher", cell=sweep.cells[1].cell, cell_id="t", seeds=(), teacher_seeds=()
    )
    shown = []
    with Display(console, title="Study", clock=clock) as display:
        display.plan_made(make_plan(sweep, None), slots=2)
        display.entered("Training the teacher")
        display.started(teacher)
        display.progressed(teacher, {"epoch": 3, "epochs": 600, "error_pct": 50.0})
        display.ended(teacher, [outcome(seed=None)])
        display.entered("Training")
        for task in tasks:
            display.started(task)
            for epoch in range(1, 13):
                clock.now += 1.0
                display.progressed(task, {"epoch": epoch, "epochs": 12, "error_pct": 5.0})
            if terminal:
                console.print(display._render())
                shown.append(written.getvalue())
            if task is tasks[2]:
                display.failed(task, "its process died; see logs/2.log")
            else:
                status = "diverged" if task is tasks[1] else "finished"
                display.ended(task, [outcome(status, seed=task.seeds[0], epochs=12, message="loss is nan")])
    return written.getvalue()


def test_without_a_terminal_it_prints_a_line_now_and_then_and_every_failure():
    lines = watch(terminal=False).splitlines()
    assert lines[0] == "Study: 4 of 4 runs to train, 2 at a time"
    assert lines[1:3] == ["Training the teacher ...", "Training ..."]
    assert lines[3] == "0/4 runs done, 1 running, 0 failed, 1 epochs/s, about 38 s left"
    assert "L_b + L_is, seed 0: diverged: loss is nan" in lines
    assert "L_b, seed 1: failed: its process died; see logs/2.log" in lines
    assert lines[-1] == "3/4 runs done, 1 failed, 1 diverged, after 48 s"
    assert len(lines) == 10  # 48 epochs have passed, and a line every ten seconds


def test_on_a_terminal_it_shows_each_running_task_with_epoch_error_speed_and_time_left():
    written = watch(terminal=True)
    assert "Study" in written
    assert "L_b, seed 0" in written
    assert "epoch 12/12" in written
    assert "5.00 % error" in written
    assert "epochs/s" in written
    assert "left" in written


def test_lines_say_how_far_a_teacher_table_is():
    clock, written = Clock(), io.StringIO()
    sweep = make_sweep(num_seeds=2)
    display = Display(PlainConsole(file=written, width=100), title="Study", clock=clock)
    display.plan_made(make_plan(sweep, None), slots=1)
    task = SimpleNamespace(name="task", cell=sweep.cells[0].cell, cell_id="c", seeds=(0,))
    display.started(task)
    for filled in (0.1, 0.2):
        clock.now += 10.0
        display.progressed(task, {"filled": filled})
    assert written.getvalue().splitlines()[-1] == "0/8 runs done, 1 running, 0 failed, teacher table, 20 %"


def test_names_of_cells_are_shown_as_they_are():
    """Rich would take a name in square brackets for markup and swallow it."""
    written = io.StringIO()
    display = Display(PlainConsole(file=written, width=100), title="[Study]", clock=Clock())
    display.entered("[stage]")
    assert written.getvalue() == "[stage] ...\n"


@pytest.mark.parametrize("width", [60, 80, 120])
def test_the_counts_have_a_line_of_their_own_that_fits(width):
    sweep, written = make_sweep(num_seeds=2), io.StringIO()
    console = PlainConsole(file=written, width=width, force_terminal=True, color_system=None, soft_wrap=True)
    display = Display(console, title="Study", clock=Clock())
    display.plan_made(make_plan(sweep, None), slots=1)
    display.entered("Training")
    cell = sweep.cells[3].cell
    display.started(SimpleNamespace(name="task", cell=cell, cell_id=cell_id(cell), seeds=(0,)))
    written.truncate(0)
    written.seek(0)
    console.print(display._render())
    lines = [line.rstrip() for line in written.getvalue().splitlines()]
    assert [lines[0].split()[:2], lines[1].strip("━ "), lines[2]] == [
        ["Study", "Training"],
        "",
        "0/8 runs done, 1 running, 0 failed",
    ]
    assert lines[3].split() == ["L_b", "+", "L_adv", "+", "L_is,", "seed", "0", "starting"]
    assert max(map(len, lines)) <= width
