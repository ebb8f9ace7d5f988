"""Which tasks may begin, with how many processes: groups and single processes on nodes that differ."""

import dataclasses
import random
from unittest.mock import ANY, Mock

import pytest

from hkrun.cli.program import call
from hkrun.cluster import TaskList, do_task
from hkrun.cluster.nodes.resources import Node
from hkrun.cluster.trials import searcher, slots
from hkrun.cluster.trials.callback import TrialCallback
from hkrun.cluster.trials.schedule import Schedule
from hkrun.cluster.trials.slots import WAIT_FOR_ROOM_S, Allocation, Fit, Slots
from hkrun.config import cell_from_values
from hkrun.errors import InputError, ResourceError
from hkrun.plans import ALONE, AUTO, Span, Workers, check_elastic
from hkrun.sweep.machine import Machine

GIB = 1 << 30
DONE = [{"seed": 0, "status": "finished"}]


def node(cpus: int, *, gpus: int = 0, memory_gib: int = 64, name: str = "") -> Node:
    return Node(cpus=cpus, gpus=gpus, memory_bytes=memory_gib * GIB, name=name)


def on_cpus(*cpus: int) -> Slots:
    return Slots(
        [node(number, name=f"n{index}") for index, number in enumerate(cpus)], threads=1, device="cpu"
    )


# --- what --workers says ------------------------------------------------------------------------------------


def test_auto_is_one_process_but_for_streamed_images():
    digits, imagenet = (
        cell_from_values({}),
        cell_from_values({"dataset": "imagenet", "student.batch_size": 128}),
    )
    assert AUTO.of_runs(digits) == AUTO.of_teacher(digits) == ALONE
    assert AUTO.of_runs(imagenet) == Span(1, 128)  # no worker without an image
    own_statistics = cell_from_values({"dataset": "imagenet", "sync_batchnorm": False})
    assert AUTO.of_runs(own_statistics) == ALONE  # its id must not depend on what there is
    assert not AUTO.of_teacher(own_statistics).alone


@pytest.mark.parametrize(
    ("text", "span", "world_size"),
    [
        ("auto", None, 1),
        ("1", Span(1, 1), 1),
        ("4", Span(4, 4), 4),
        ("2:8", Span(2, 8), 8),
        ("3:3", Span(3, 3), 3),
    ],
)
def test_workers_are_read_and_written_alike(text, span, world_size):
    workers = Workers.parse(text)
    assert (workers.span, workers.world_size) == (span, world_size)
    assert Workers.parse(str(workers)) == workers


@pytest.mark.parametrize("text", ["", "0", "-1", "two", "8:2", "0:4", "1:", ":4", "1:2:3", "1.5"])
def test_other_words_are_refused(text):
    with pytest.raises(InputError, match="expected auto, a number from 1, or MIN:MAX"):
        Workers.parse(text)


def test_a_number_that_is_part_of_the_cell_may_not_follow_what_there_is():
    cells = {"synced": cell_from_values({}), "own": cell_from_values({"sync_batchnorm": False})}
    for text in ("auto", "2"):
        check_elastic(Workers.parse(text), cells)
    with pytest.raises(
        InputError, match=r"--workers 1:2: sync_batchnorm = false .* such as --workers 2 \(cells: own\)"
    ):
        check_elastic(Workers.parse("1:2"), cells)


# --- room ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("span", "cpus", "number"),
    [
        (Span(2, 8), (4, 1, 1), 6),  # spread over a large node and two small ones
        (Span(2, 3), (4, 1, 1), 3),
        (Span(2, None), (0, 1, 1), 2),  # the head has no CPU to give
        (Span(3, 3), (1, 1), 0),
        (ALONE, (1,), 1),
        (Span(1, 4), (1,), 1),
    ],
)
def test_a_task_gets_what_is_free_between_its_least_and_its_most(span, cpus, number):
    room = on_cpus(*cpus)
    assert room.find(span) == number
    assert room.fit(span) is (Fit.NOW if number else Fit.NOT_HERE)


def test_what_others_hold_is_waited_for_and_then_there():
    room = on_cpus(2, 1)
    room.take(0, 2)
    assert room.find(Span(1, 3)) == 1
    assert room.fit(Span(2, 3)) is Fit.LATER
    assert room.fit(Span(4, 4)) is Fit.NOT_HERE
    room.release(0)
    assert room.find(Span(2, 3)) == 3


def test_a_lost_node_takes_with_it_what_ran_there_and_a_new_one_brings_room():
    nodes = [node(1, name="a"), node(1, name="b")]
    room = Slots(nodes, threads=1, device="cpu")
    room.take(0, 2)
    room.resize(nodes[:1])
    assert room.size == 1
    room.release(0)
    assert room.find(Span(1, 2)) == 1
    assert room.fit(Span(2, 2)) is Fit.NOT_HERE
    room.resize([*nodes[:1], node(4, name="c")])
    assert room.find(Span(2, 8)) == 5


def test_single_processes_share_gpus_and_a_worker_of_a_group_has_one_to_itself():
    room = Slots([node(16, gpus=2, name="a"), node(16, name="b")], threads=1, device="cuda", per_gpu=3)
    for task in range(3):
        assert room.find(ALONE) == 1
        room.take(task, 1)
    assert room.find(Span(1, 4)) == 1  # three are on one GPU, the other one is whole
    room.take(3, 1)
    assert room.fit(Span(2, 2)) is Fit.LATER
    for task in (4, 5):
        room.take(task, 1)
    assert room.fit(ALONE) is Fit.LATER
    for task in range(3):
        room.release(task)
    assert room.find(ALONE) == 1
    for task in range(3, 6):
        room.release(task)
    assert room.find(Span(2, 4)) == 2


def test_nodes_without_a_gpu_or_memory_are_no_room_on_gpus():
    nodes = [node(8, gpus=4, memory_gib=2, name="a"), node(64, name="b"), node(1, gpus=8, name="c")]
    assert Slots(nodes, threads=1, device="cuda").size == 3


# --- who begins ---------------------------------------------------------------------------------------------


def make_schedule(spans: list[Span], room: Slots, **options) -> tuple[Schedule, Allocation]:
    places = Allocation(spans, room)
    schedule = Schedule(len(spans), fit=places.fit, **options)
    return schedule, places


def test_small_tasks_do_not_keep_a_group_from_beginning():
    spans = [ALONE, Span(2, 2), ALONE]
    schedule, places = make_schedule(spans, on_cpus(2))
    assert schedule.take() == 0
    places.take(0)
    assert schedule.take() is None  # the last one would fit, and so would the next such one, for ever
    schedule.returned(0, DONE), schedule.release(0), places.release(0)
    assert schedule.take() == 1


def test_what_fits_nowhere_holds_nobody_up():
    schedule, _ = make_schedule([Span(3, 3), ALONE], on_cpus(2))
    assert schedule.take() == 1
    assert schedule.find_misfits() == [0]
    schedule.gave_up(0, "no room")
    assert schedule.result(0).error == "no room"


def naive_nesting(spans: list[Span], cpus: int) -> int:
    """How many tasks end where a driver function holds a CPU of its own and its workers wait for theirs.

    So Ray's examples nest Train in Tune, and each of the two asks for what it needs when it needs it.
    """
    waiting, held, ended, free = list(spans), [], 0, cpus
    while True:
        while waiting and free > 0:  # Tune starts every driver function that fits
            held.append(waiting.pop(0))
            free -= 1
        ready = [span for span in held if span.alone or span.least <= free]
        if not ready:
            return ended
        held.remove(ready[0])  # its workers run and end, and then it does
        free += 1
        ended += 1


def our_way(spans: list[Span], cpus: int, choose: random.Random) -> int:
    """How many tasks end under `Schedule` and `Allocation`, with tasks that end in any order."""
    schedule, places = make_schedule(spans, on_cpus(cpus))
    running: list[int] = []
    while not schedule.finished:
        while (index := schedule.take()) is not None:
            places.take(index)
            running.append(index)
        if not running:
            break
        index = running.pop(choose.randrange(len(running)))
        schedule.returned(index, DONE)
        schedule.release(index)
        places.release(index)
    return sum(schedule.has_result(index) for index in range(len(spans)))


def test_groups_and_single_processes_end_where_naive_nesting_waits_for_ever():
    spans = [Span(2, 2), ALONE, Span(2, 2), ALONE]
    assert naive_nesting(spans, 2) < len(spans)  # a driver on each CPU, and no CPU for a worker
    assert naive_nesting([Span(2, 2)], 2) == 0  # even alone: two CPUs are not three
    assert our_way(spans, 2, random.Random(0)) == len(spans)


@pytest.mark.parametrize("seed", range(50))
def test_no_mixture_of_tasks_waits_for_ever(seed):
    choose = random.Random(seed)
    cpus = choose.randint(1, 6)
    least = [choose.randint(1, cpus) for _ in range(12)]
    spans = [Span(number, choose.choice([number, cpus, None])) for number in least]
    assert our_way(spans, cpus, choose) == len(spans)


# --- room that is not there ---------------------------------------------------------------------------------


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def test_a_try_that_found_no_room_asks_for_half_the_next_time_for_as_long_as_others_hold_the_rest(caplog):
    clock = Clock()
    places = Allocation([Span(2, 8)] * 2, on_cpus(8), clock=clock)
    asked = []
    for _ in range(6):
        asked.append(places.take(0))
        places.release(0)
        assert places.had_no_room(0, asked[-1])
        assert places.had_no_room(1, 8)
        clock.now += 0.3 * WAIT_FOR_ROOM_S
    assert asked == [8, 4, 2, 2, 2, 2]
    assert caplog.text.count("others use the cluster too") == 1
    places.had_room(0)
    assert places.take(0) == 8


@pytest.mark.parametrize(("shared", "cpus"), [(True, 1), (False, 8)])
def test_a_task_that_nobody_keeps_from_its_room_is_given_up_when_it_has_waited_too_long(shared, cpus):
    clock, room = Clock(), on_cpus(8)
    places = Allocation([Span(2, 8)], room, shared=shared, clock=clock)
    assert places.take(0) == 8
    places.release(0)
    room.resize([node(cpus)])
    assert places.had_no_room(0, 8)
    clock.now += WAIT_FOR_ROOM_S - 1
    assert places.had_no_room(0, 8)
    clock.now += 1
    assert not places.had_no_room(0, 8)


class FakeTrial:
    """What Tune knows of a trial that has ended with an error."""

    status, last_result = "ERROR", None

    def __init__(self, folder, error: str) -> None:
        self.config = {"index": 0, "mark": 1, "workers": 2}
        self.error_file = folder / "error.txt"
        self.error_file.write_text(f"Failure\n{error}\n")


def test_a_try_that_died_while_it_prepared_is_no_part_of_the_wait_for_room(monkeypatch, tmp_path):
    clock = Clock()
    places = Allocation([Span(2, 2)], on_cpus(2), shared=False, clock=clock)
    schedule = Schedule(1, fit=places.fit, clock=clock)
    watchdog = Mock(ended=Mock(return_value=None))
    observer = Mock()
    watch = TrialCallback(
        schedule, places, watchdog, observer, TaskList(tasks=[Mock()], log_folder=tmp_path, function=do_task)
    )
    trials = []
    for error in ("NoRoomError: late", "WorkerDiedError: killed", "NoRoomError: late"):
        assert schedule.take() == 0
        places.take(0)
        trials.append(FakeTrial(tmp_path, error))
        clock.now += 0.8 * WAIT_FOR_ROOM_S  # it did not report: its table takes long
        watch.on_step_end(0, trials)
        clock.now += 10
    assert schedule.take() == 0
    observer.failed.assert_not_called()


def test_on_a_machine_of_ones_own_the_number_of_workers_does_not_depend_on_how_late_ray_is():
    places = Allocation([Span(2, 8)], on_cpus(8), shared=False)
    assert places.take(0) == 8
    assert places.had_no_room(0, 8)
    places.release(0)
    assert places.take(0) == 8


def test_what_fits_nowhere_is_given_up_after_a_while_and_not_where_room_comes_back():
    clock, room = Clock(), on_cpus(1)
    places = Allocation([Span(2, 2), ALONE], room, clock=clock)
    assert places.find_hopeless([0]) == []
    clock.now = WAIT_FOR_ROOM_S - 1
    room.resize([node(2)])
    assert places.find_hopeless([]) == []
    room.resize([node(1)])
    clock.now += 2
    assert places.find_hopeless([0]) == []  # it had room in between
    clock.now += WAIT_FOR_ROOM_S
    assert places.find_hopeless([0]) == [0]
    assert places.describe_lack(0) == "it needs room for 2 processes, and there is room for 1"


def make_searcher(
    spans: list[Span], room: Slots, monkeypatch, **hooks
) -> tuple[searcher.TaskSearcher, Schedule]:
    schedule, places = make_schedule(spans, room)
    monkeypatch.setattr(searcher, "LOOK_EVERY_S", 0.0)
    return searcher.TaskSearcher(schedule, places, Mock(**hooks), None), schedule


def test_a_trial_has_as_many_processes_as_the_nodes_of_this_moment_have_room_for(monkeypatch):
    nodes = [node(1, name="a"), node(1, name="b")]
    known, answering = list(nodes), list(nodes)
    monkeypatch.setattr(searcher, "read_nodes", lambda: known)
    monkeypatch.setattr(searcher, "find_answering", lambda: answering)
    search, schedule = make_searcher([Span(1, 4)] * 2, Slots(nodes, threads=1, device="cpu"), monkeypatch)
    first = search.suggest("t")
    assert (first["index"], first["workers"]) == (0, 2)
    assert search.suggest("t") is None
    schedule.died(0, "lost"), schedule.release(0), search._allocation.release(0)
    answering.pop()  # Ray does not know it yet
    search.doubt_nodes()
    second = search.suggest("t")
    assert (second["index"], second["workers"]) == (1, 1)
    assert second["mark"] != first["mark"]


def test_a_task_without_room_for_too_long_is_given_up_and_the_others_go_on(monkeypatch, caplog):
    nodes = [node(1, name="a")]
    monkeypatch.setattr(searcher, "read_nodes", lambda: nodes)
    monkeypatch.setattr(slots, "WAIT_FOR_ROOM_S", 0.0)
    given_up = []

    def give_up(index):
        given_up.append(index)
        schedule.gave_up(index, "no room")

    search, schedule = make_searcher(
        [Span(2, 2), ALONE], Slots([node(2)], threads=1, device="cpu"), monkeypatch, on_hopeless=give_up
    )
    assert search.suggest("t") == {"index": 1, "mark": ANY, "workers": 1}
    assert given_up == [0]
    assert "1 of the tasks wait: it needs room for 2 processes, and there is room for 1" in caplog.text
    schedule.returned(1, DONE)
    with pytest.raises(searcher.SweepDone):
        search.suggest("t")


# --- what a sweep asks of it --------------------------------------------------------------------------------


def test_a_large_node_and_two_small_ones_are_counted_one_by_one():
    small = node(3, memory_gib=2)
    machine = Machine(nodes=(node(8, gpus=2), small, small, node(0)))
    assert machine.slots == machine.group_slots == 8 + 2 + 2
    assert machine.tasks_at_once([Span(5, 5)]) == 2
    assert machine.tasks_at_once([Span(1, None)]) == 1
    assert machine.tasks_at_once([Span(5, 5), ALONE]) == 12
    assert machine.find_share() == (GIB, 2, " on one of the nodes")  # on a small one, with two processes
    on_gpus = dataclasses.replace(machine, device="cuda", per_gpu=2)
    assert (on_gpus.slots, on_gpus.group_slots) == (4, 2)


def test_every_kind_of_task_that_does_not_fit_is_refused_with_what_would():
    machine = Machine(nodes=(node(2), node(1)), place="the cluster")
    machine.check([ALONE, Span(3, 8)])
    with pytest.raises(ResourceError) as refusal:
        machine.check([ALONE, Span(4, 4), Span(6, 8)])
    assert [problem.partition(" asks")[0] for problem in refusal.value.problems] == [
        "--workers 4",
        "--workers 6",
    ]
    assert "the cluster has 3 CPUs, no GPU and 128 GiB of memory on 2 nodes (2 CPUs, 1 CPU)" in str(
        refusal.value
    )
    assert str(refusal.value).endswith("--workers 3 would fit")


@pytest.fixture
def two_cpus(monkeypatch, tmp_path):
    for name in ("HKRUN_STORE", "RAY_ADDRESS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("hkrun.cluster.nodes.resources.local_node", lambda **_: node(2))


def test_the_command_line_refuses_what_cannot_be_before_it_starts_anything(two_cpus, tmp_path, capsys):
    command = ["sweep", "stability", "--dry-run", "--seeds", "2", "--workers"]
    assert call([*command, "3"]) == 4
    assert "this machine has 2 CPUs" in capsys.readouterr().err
    assert call([*command, "3:8"]) == 4
    assert call([*command, "1:8"]) == 0
    assert "by 1 to 2 workers" in capsys.readouterr().out
    assert call([*command, "1:8", "sync_batchnorm=false"]) == 2
    assert "the number of workers part of the configuration" in " ".join(capsys.readouterr().err.split())
    assert call([*command, "2:1"]) == 2
    assert "neither auto, nor a number from 1, nor MIN:MAX" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []
