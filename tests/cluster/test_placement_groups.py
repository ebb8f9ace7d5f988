from itertools import islice
from pathlib import Path

from fake_tasks import FakeTask

from hkrun.cluster import TaskList, do_task
from hkrun.cluster.nodes.resources import BYTES_PER_PROCESS, Node
from hkrun.cluster.trials.placement_groups import (
    ALONE_BYTES,
    SMALLEST_MARK,
    WAITING_BYTES,
    draw_marks,
    find_leftovers,
    worker_bytes,
)
from hkrun.cluster.trials.slots import Slots
from hkrun.cluster.trials.train import worker_resources
from hkrun.cluster.trials.tune import _ask_for


def group(memory=None, *, state="CREATED", bundles=2):
    bundle = {"CPU": 1.0} | ({} if memory is None else {"memory": float(memory)})
    return {"state": state, "bundles": dict.fromkeys(range(bundles), bundle)}


def test_only_what_has_the_mark_of_an_ended_trial_is_left_over():
    ended, running = islice(draw_marks(), 2)
    table = {
        "left": group(worker_bytes(ended)),
        "left waiting": group(worker_bytes(ended), state="PENDING"),
        "removed": group(worker_bytes(ended), state="REMOVED"),
        "at work": group(worker_bytes(running)),
        "somebody else's": group(),
        "of Tune": group(WAITING_BYTES, bundles=1),
        "alone": group(ALONE_BYTES, bundles=1),
    }
    assert find_leftovers(table, {ended}) == ["left", "left waiting"]
    assert find_leftovers(table, set()) == []


def test_marks_differ_and_are_less_than_what_anybody_would_ask_for():
    marks = list(islice(draw_marks(), 10_000))
    assert len(set(marks)) == len(marks)
    assert all(16 << 20 <= mark < 65 << 20 for mark in marks)
    assert list(islice(draw_marks(), 1)) != list(islice(draw_marks(), 1))


def test_ray_puts_no_more_processes_on_a_node_than_the_books():
    small = Node(cpus=8, gpus=0, memory_bytes=2 << 30)
    fitting = Slots([small], threads=1, device="cpu").size
    work = TaskList(tasks=[FakeTask(name="t")], log_folder=Path(), function=do_task)
    (alone,) = _ask_for(work, {"workers": 1}).bundles
    for mark in islice(draw_marks(), 3):
        worker = worker_resources(FakeTask(name="t"), mark)
        assert worker["CPU"] == 1
        for asked in (worker["memory"], alone["memory"]):
            assert small.memory_bytes // asked == fitting == 2


def test_what_fills_a_node_in_the_books_leaves_room_for_the_functions_that_wait():
    """They may all lie on one node, which has perhaps one process of the groups that they wait for."""
    for asked in (ALONE_BYTES, worker_bytes(SMALLEST_MARK)):
        assert asked + 8 * WAITING_BYTES <= BYTES_PER_PROCESS
