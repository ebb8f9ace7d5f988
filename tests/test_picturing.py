"""Pictures of a report from two processes: the same as from one, whatever becomes of the second."""

import os
import signal
import subprocess
import sys
import time
import warnings
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from report_example import fill, make_sweep

from hkrun import figures
from hkrun.figures import CellCurves, Order, style
from hkrun.plans import save_plan
from hkrun.report import drawing_ahead, picturing, render_report, renew_report, summarise
from hkrun.report.picturing import order_ahead, second_process, taking_pictures
from hkrun.store import open_store

SOON_S = 60  # a busy machine takes so long to start Python


@pytest.fixture(autouse=True)
def _two_cores(monkeypatch):
    monkeypatch.setattr(picturing, "count_cores", lambda: 2)
    monkeypatch.setattr(picturing, "_FEW", 0)  # both draw, however few pictures there are


@pytest.fixture
def _few_are_left(monkeypatch):
    monkeypatch.setattr(picturing, "_FEW", 4)


def wait_for(condition):
    end = time.monotonic() + SOON_S
    while not condition():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.01)


def is_there(pid):
    """Whether a process runs: one that has ended and waits for its parent does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def draw(title="a figure", width=3):
    with style.styled():
        figure = style.new_figure(width, 2)
        figure.subplots().set_title(title)
    return figure


def draw_where_two_draw(folder):
    """Comes back once it was called in two processes at a time."""
    (folder / str(os.getpid())).touch()
    wait_for(lambda: len(list(folder.iterdir())) == 2)
    return draw()


def draw_here_alone(here, elsewhere):
    """Does something else in any other process than `here`."""
    if os.getpid() != here:
        elsewhere()
    return draw()


def end_at_once():
    os.kill(os.getpid(), signal.SIGKILL)


def stay(folder):
    (folder / str(os.getpid())).touch()
    time.sleep(SOON_S)


def fail():
    raise ValueError("cannot be drawn here")


def take(*draws):
    with taking_pictures() as pictures:
        pictures.order([Order(name="x", draw=each, narrow=False) for each in draws])
        return pictures.collect()


def test_two_processes_draw_at_a_time(tmp_path):
    assert len(take(*[partial(draw_where_two_draw, tmp_path)] * 2)) == 2
    assert str(os.getpid()) in {path.name for path in tmp_path.iterdir()}


def draw_and_tell(folder, number=0):
    (folder / f"{number} in {os.getpid()}").touch()
    return draw(f"number {number}")


@pytest.mark.usefixtures("_few_are_left")
def test_the_last_few_are_left_to_the_second_process(tmp_path):
    assert len(take(*[partial(draw_and_tell, tmp_path, number) for number in range(2)])) == 2
    assert len(list(tmp_path.iterdir())) == 2
    assert not list(tmp_path.glob(f"* in {os.getpid()}"))


@pytest.mark.usefixtures("_few_are_left")
@pytest.mark.parametrize("cores", [1, 2])
def test_the_last_few_are_drawn_here_where_no_second_process_does(cores, tmp_path, monkeypatch):
    monkeypatch.setattr(picturing, "count_cores", lambda: cores)
    draws = partial(draw_here_alone, os.getpid(), end_at_once)
    assert take(draws, draws) == [Order(name="x", draw=draw, narrow=False).take()] * 2


def order(folder, *numbers):
    draws = [partial(draw_and_tell, folder, number) for number in numbers]
    return [
        Order(name=f"{number}", draw=each, narrow=False) for number, each in zip(numbers, draws, strict=True)
    ]


def test_what_was_ordered_ahead_is_taken_once_and_what_is_not_wanted_is_in_no_report(tmp_path):
    with second_process():
        order_ahead(lambda: order(tmp_path, 1, 2, 3))
        wait_for(lambda: len(list(tmp_path.glob("* in *"))) == 3)
        with taking_pictures() as pictures:
            pictures.order(order(tmp_path, 4, 3, 1))
            taken = pictures.collect()
    told = sorted(path.name.split(" in ") for path in tmp_path.iterdir())
    assert [number for number, _ in told] == ["1", "2", "3", "4"]
    assert {pid for _, pid in told[:3]} != {str(os.getpid())}
    assert taken == [one.take() for one in order(tmp_path, 4, 3, 1)]


def test_what_was_ordered_ahead_and_is_not_wanted_is_not_waited_for(tmp_path):
    slow = tmp_path / "slow"
    slow.mkdir()
    with second_process():
        order_ahead(
            lambda: [*order(tmp_path, 1, 2), Order(name="s", draw=partial(draw_slowly, slow), narrow=False)]
        )
        wait_for((slow / "slow").exists)  # it is at the last one, and the others wait
        with taking_pictures() as pictures:
            pictures.order(order(tmp_path, 3))
            assert len(pictures.collect()) == 1
    assert {path.name[0] for path in tmp_path.glob("* in *")} == {"3"}


def test_nothing_is_ordered_ahead_where_there_is_no_second_process():
    order_ahead(lambda: pytest.fail("it asked for orders"))


def test_pictures_are_in_order_and_those_of_one_process(monkeypatch):
    curves = [
        CellCurves.of_runs(np.random.default_rng(seed).uniform(3, 4, (4, 30)), name=f"L_b + L_is {seed}")
        for seed in range(2)
    ]
    orders = [
        Order(name="x", draw=draws, narrow=narrow)
        for narrow in (True, False)
        for draws in (
            partial(figures.draw_errors, curves, window=10),
            partial(figures.draw_ranges, curves, window=10, ddof=0),
            *(partial(draw, f"number {number}") for number in range(2)),
        )
    ]

    def take_all():
        with taking_pictures() as pictures:
            pictures.order(orders)
            return pictures.collect()

    both = take_all()
    monkeypatch.setattr(picturing, "count_cores", lambda: 1)
    monkeypatch.setattr(subprocess, "Popen", None)
    assert both == take_all() == [order.take() for order in orders]


def test_a_narrow_page_has_a_narrow_picture_and_no_png():
    wide, narrow = (
        Order(name="x", draw=partial(draw, width=9), narrow=narrow).take() for narrow in (False, True)
    )
    assert (wide.width_pct, narrow.width_pct) == (94, 100)
    assert wide.files["png"].startswith(b"\x89PNG")
    assert wide.files["svg"].startswith(b"<?xml")
    assert not narrow.files
    assert wide.element.startswith('<svg viewBox="0 0 648 144"')
    assert narrow.element.startswith('<svg viewBox="0 0 345.6 144"')


@pytest.mark.parametrize(
    "elsewhere", [end_at_once, fail, partial(os._exit, 0)], ids=["killed", "fails", "ends"]
)
def test_what_the_second_process_does_not_give_is_drawn_here(elsewhere):
    draws = partial(draw_here_alone, os.getpid(), elsewhere)
    assert take(draws, draws, draws) == [Order(name="x", draw=draw, narrow=False).take()] * 3


def test_what_cannot_be_sent_is_drawn_here():
    assert len(take(lambda: draw(), lambda: draw())) == 2


def test_a_second_process_that_cannot_be_started_costs_nothing(monkeypatch):
    monkeypatch.setattr(sys, "executable", "/no/such/python")
    assert len(take(draw)) == 1


def test_a_second_process_that_hangs_is_not_waited_for(monkeypatch, tmp_path):
    monkeypatch.setattr(picturing, "_PATIENCE_S", 0.1)
    draws = partial(draw_here_alone, os.getpid(), partial(stay, tmp_path))
    assert len(take(draws, draws)) == 2


class GivingThread:
    """One that gives a picture each time that it is waited for."""

    def __init__(self, second, number):
        self._second, self.left = second, number

    def join(self, patience):
        self.left -= 1
        self._second._given += 1

    def is_alive(self):
        return self.left > 0


def test_a_second_process_is_waited_for_as_long_as_pictures_come():
    with second_process():
        second = picturing._second.get()
        end, second._thread = second._thread, GivingThread(second, 4)
        second.wait()
        assert second._thread.left == 0
        assert second._process.poll() is None
        second._thread = end


def test_an_error_of_a_figure_is_raised_here():
    with pytest.raises(ValueError, match="cannot be drawn here"):
        take(fail, fail)


def test_an_index_error_of_a_figure_is_no_sign_that_none_waits(monkeypatch):
    monkeypatch.setattr(picturing, "count_cores", lambda: 1)
    drawn = []
    with pytest.raises(IndexError, match="pop from empty list"):
        take(draw, lambda: drawn.append(1) or [].pop())
    assert drawn == [1], "it was drawn again"


def draw_and_warn():
    warnings.warn("a letter is missing", stacklevel=2)
    return draw()


def test_a_warning_is_told_here_and_once():
    with pytest.warns(UserWarning, match="a letter is missing") as told:
        take(draw_and_warn, draw)
    assert len(told) == 1


def draw_until_interrupted(folder):
    with taking_pictures() as pictures:
        pictures.order([Order(name="x", draw=partial(stay, folder), narrow=False)])
        wait_for(lambda: list(folder.iterdir()))
        raise KeyboardInterrupt


def test_ctrl_c_ends_both(tmp_path):
    with pytest.raises(KeyboardInterrupt):
        draw_until_interrupted(tmp_path)
    (pid,) = [int(path.name) for path in tmp_path.iterdir()]
    assert pid != os.getpid()
    assert not is_there(pid)


KILLED = """
import os, signal, sys
from hkrun.report import picturing
picturing.count_cores = lambda: 2
with picturing.taking_pictures() as pictures:
    print(pictures._second._process.pid, flush=True)
    pictures.order([])
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_kill_9_leaves_no_process_behind():
    done = subprocess.run([sys.executable, "-c", KILLED], capture_output=True, text=True, check=False)
    assert done.returncode == -signal.SIGKILL
    wait_for(lambda: not is_there(int(done.stdout)))


@pytest.fixture
def store(tmp_path):
    return open_store(tmp_path / "store")


@pytest.fixture
def started(monkeypatch):
    """The processes that were started."""
    processes, start = [], subprocess.Popen
    monkeypatch.setattr(
        subprocess, "Popen", lambda *of, **how: processes.append(start(*of, **how)) or processes[-1]
    )
    return processes


def test_a_second_process_serves_all_reports_of_a_block_and_ends_with_it(tmp_path, started):
    folders = [tmp_path / "first", tmp_path / "second"]
    with second_process():
        (process,) = started
        for folder in folders:
            folder.mkdir()
            assert len(take(*[partial(draw_where_two_draw, folder)] * 2)) == 2
        assert process.poll() is None
    assert started == [process]
    assert {path.name for folder in folders for path in folder.iterdir()} == {
        str(os.getpid()),
        str(process.pid),
    }
    assert not is_there(process.pid)


class Counting:
    """A connection that counts the orders without an answer."""

    def __init__(self, connection):
        self._connection = connection
        self.unanswered = []

    def send(self, what):
        if isinstance(what, Order):
            self.unanswered.append((self.unanswered or [0])[-1] + 1)
        self._connection.send(what)

    def recv(self):
        answer = self._connection.recv()
        self.unanswered.append(self.unanswered[-1] - 1)
        return answer

    def close(self):
        self._connection.close()


def draw_slowly(folder):
    (folder / "slow").touch()
    time.sleep(1)
    return draw("of the first report")


def draw_too_late(folder):
    (folder / "too late").touch()
    return draw("of the first report")


def fail_once_the_second_draws(folder):
    with taking_pictures() as pictures:
        draws = (partial(draw_too_late, folder), fail, partial(draw_slowly, folder))
        pictures.order([Order(name="x", draw=each, narrow=False) for each in draws])
        wait_for((folder / "slow").exists)
        pictures.collect()


def test_a_report_that_fails_leaves_nothing_to_the_next_of_its_block(tmp_path, monkeypatch):
    connections, make = [], picturing.Pipe

    def make_counting():
        ours, theirs = make()
        connections.append(Counting(ours))
        return connections[-1], theirs

    monkeypatch.setattr(picturing, "Pipe", make_counting)
    failing, working = tmp_path / "failing", tmp_path / "working"
    failing.mkdir()
    working.mkdir()
    with second_process():
        with pytest.raises(ValueError, match="cannot be drawn here"):
            fail_once_the_second_draws(failing)
        assert (
            take(*[partial(draw_where_two_draw, working)] * 2)
            == [Order(name="x", draw=draw, narrow=False).take()] * 2
        )
    assert connections[0].unanswered == [1, 0, 1, 0], "two were asked for at a time, or one too many"
    assert [path.name for path in failing.iterdir()] == ["slow"]


def test_after_a_picture_that_hangs_all_are_drawn_here(monkeypatch, tmp_path, started):
    monkeypatch.setattr(picturing, "_PATIENCE_S", 0.1)
    draws = partial(draw_here_alone, os.getpid(), partial(stay, tmp_path))
    with second_process():
        assert len(take(draws, draws)) == 2
        assert take(draw, draw) == [Order(name="x", draw=draw, narrow=False).take()] * 2
    assert len(started) == 1


def test_a_study_without_a_report_starts_a_second_process_before_it_is_read(store, started):
    sweep = make_sweep(published=(), num_seeds=2)
    fill(store, sweep)
    save_plan(store, sweep)
    with drawing_ahead(sweep, store):
        assert len(started) == 1
        first = renew_report(summarise(sweep, store), store)
    assert len(started) == 1
    with drawing_ahead(sweep, store):
        assert renew_report(summarise(sweep, store), store) == first
    assert len(started) == 1


def test_figures_without_tests_are_drawn_ahead_and_are_those_of_the_report(store, monkeypatch):
    sweep = make_sweep(published=(), num_seeds=3)
    fill(store, sweep)
    save_plan(store, sweep)
    ordered = []
    begin = picturing.Pictures.order
    monkeypatch.setattr(
        picturing.Pictures, "order", lambda self, orders: ordered.append([begin(self, orders), self, orders])
    )
    with drawing_ahead(sweep, store):
        renew_report(summarise(sweep, store), store)
    (_, pictures, ahead), (_, same, all_orders) = ordered
    assert pictures is same
    named = [{(one.name, one.narrow) for one in orders} for orders in (ahead, all_orders)]
    assert named[1] - named[0] == {("differences", True), ("differences", False)}
    assert len(pictures._orders) == len(all_orders), "a picture was ordered twice"


def test_a_report_of_two_processes_is_that_of_one(store, monkeypatch, started):
    sweep = make_sweep(published=(), num_seeds=3)
    fill(store, sweep)
    save_plan(store, sweep)
    summary = summarise(sweep, store)
    both = render_report(summary)
    assert len(started) == 1
    monkeypatch.setattr(picturing, "count_cores", lambda: 1)
    assert render_report(summary) == both
    assert len(started) == 1
