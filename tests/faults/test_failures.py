"""What goes wrong inside a task, class by class: who is at fault, what is tried again, what is said."""

import json
import signal
import subprocess
import sys
import time

import oracles
import pytest
from disturbed import ACTOR, SweepFolder, send

from hkrun.cluster.trials.schedule import MAX_RETRIES

pytestmark = [pytest.mark.slow, pytest.mark.cluster, pytest.mark.timeout(1800)]


def records(sweep, seed):
    """Of both cells."""
    return [sweep.store.record(cell, seed) for cell in oracles.cells(sweep.store)]


def statuses(sweep):
    """By seed; the same in both cells."""
    found = [[record.status for record in sweep.store.records(cell)] for cell in oracles.cells(sweep.store)]
    assert found[0] == found[1]
    return found[0]


def test_processes_that_die_or_stop_are_replaced_and_nothing_else_is_seen_of_it(sweep, undisturbed):
    """The teacher's, and those of three packs, one of them twice: as when memory runs out, and by SIGSTOP."""
    sweep.environment["HKRUN_SILENCE_S"] = "6"
    sweep.plant("kill", "teacher", 2)
    for seed, epoch in ((0, 3), (0, 5), (2, 8)):
        sweep.plant("kill", seed, epoch)
    sweep.plant("stop", 3, 4)
    assert sweep.run() == 0, sweep.output()
    assert list((sweep.folder / "failures").iterdir()) == []
    oracles.check_all(sweep.store, undisturbed)
    resumed = [[record.resumed for record in records(sweep, seed)] for seed in range(4)]
    assert sum(resumed[0]) == 2
    assert sum(resumed[2]) == 2
    assert "a process of it was silent for 6 s; it is ended" in sweep.output()


def test_a_run_whose_process_always_dies_is_given_up_and_goes_on_when_the_cause_is_gone(sweep, undisturbed):
    fault = sweep.plant("crash", 2, 4, "always")  # before the epoch is kept: no try gets further
    assert sweep.run() == 5
    assert "(tried 3 times); the system's log (dmesg) tells if memory ran out" in sweep.output()
    assert [record.seed for cell in oracles.cells(sweep.store) for record in sweep.store.records(cell)] == [
        *(0, 1),
        *(0, 1),
    ]
    fault.unlink()
    assert sweep.run() == 0, sweep.output()
    oracles.check_all(sweep.store, undisturbed)


def test_a_run_that_gets_further_after_each_death_is_not_given_up(sweep, undisturbed):
    for epoch in range(2, 2 + 3 * MAX_RETRIES):
        sweep.plant("kill", 2, epoch)  # of the two cells that have this seed, the first that comes there
    assert sweep.run() == 0, sweep.output()
    oracles.check_all(sweep.store, undisturbed)
    resumed = [record.resumed for record in records(sweep, 2)]
    assert sum(resumed) == 3 * MAX_RETRIES
    assert max(resumed) > MAX_RETRIES


@pytest.mark.parametrize("often", ["once", "always"])
def test_a_mistake_in_the_users_code_is_not_tried_again_but_by_the_next_command(sweep, undisturbed, often):
    fault = sweep.plant("wrong", 1, 4, often)
    assert sweep.run() == 5  # 0, if what happens once were tried again
    assert "tried" not in sweep.output()
    failed = [record for record in records(sweep, 1) if record.status == "failed"]
    assert len(failed) == (1 if often == "once" else 2)
    assert all('ZeroDivisionError("a planted mistake")' in record.traceback for record in failed)
    assert all(record.status == "finished" for record in records(sweep, 2) + records(sweep, 3))
    assert "runs again what failed" in sweep.output()
    fault.unlink(missing_ok=True)
    assert sweep.run() == 0, sweep.output()
    oracles.check_all(sweep.store, undisturbed)


def test_a_module_that_only_the_driver_has_fails_once_and_names_itself(sweep, undisturbed):
    missing = sweep.folder / "failures" / "import"
    missing.touch()
    assert sweep.run() == 5
    assert "a_module_that_only_the_driver_has" in sweep.output()
    assert "tried" not in sweep.output()
    missing.unlink()
    assert sweep.run() == 0, sweep.output()
    oracles.check_all(sweep.store, undisturbed)


def test_a_run_that_diverges_is_a_result_with_its_epoch_also_after_a_kill(sweep, undisturbed):
    sweep.plant("nan", 1, 4, "always")
    sweep.plant("kill", 0, 7)
    assert sweep.run() == 5
    assert statuses(sweep) == ["finished", "diverged", "finished", "finished"]
    assert [(record.diverged_epoch, record.epochs) for record in records(sweep, 1)] == [(5, 4)] * 2
    oracles.check_files(sweep.store)
    oracles.check_mirrored_once(sweep.folder / "hkrun-store" / "mlflow.db", sweep.store)
    for seed in (2, 3):  # of other packs
        assert list(map(oracles.without_clocks, records(sweep, seed))) == [
            oracles.without_clocks(undisturbed.record(cell, seed)) for cell in oracles.cells(undisturbed)
        ]
    report = subprocess.run(
        [sys.executable, "-m", "hkrun", "report", "space", "--dataset", "failures:digits", "--json"],
        cwd=sweep.folder,
        env=sweep.environment,
        capture_output=True,
        text=True,
        check=False,
    )
    cells = json.loads(report.stdout)["cells"]
    assert [(cell["diverged"], cell["failed"], cell["error_last"]["n"]) for cell in cells] == [
        ([1], [], 3)
    ] * 2
    before = {seed: records(sweep, seed) for seed in range(4)}
    assert sweep.run() == 5  # at once: it would diverge again
    assert {seed: records(sweep, seed) for seed in range(4)} == before


def test_a_stopped_actor_is_replaced_on_its_own(sweep, undisturbed):
    sweep.environment["HKRUN_SILENCE_S"] = "8"

    def stop(running: SweepFolder) -> None:
        running.wait_until(running.is_training)
        send(signal.SIGSTOP, ACTOR, min)(running)

    assert sweep.run(stop) == 0, sweep.output()
    oracles.check_all(sweep.store, undisturbed)
    assert "silent for 8 s" in sweep.output()


def test_a_suspended_machine_raises_no_alarm(sweep, undisturbed):
    """All processes stop, for longer than a process may be silent, and all go on."""
    sweep.environment["HKRUN_SILENCE_S"] = "6"

    def suspend(running: SweepFolder) -> None:
        running.wait_until(running.is_training)
        processes = running.family()
        running.signal(processes, signal.SIGSTOP)
        time.sleep(15)
        running.signal(processes, signal.SIGCONT)

    assert sweep.run(suspend) == 0, sweep.output()
    assert "it is ended" not in sweep.output()
    assert all(record.resumed == 0 for seed in range(4) for record in records(sweep, seed))
    oracles.check_all(sweep.store, undisturbed)
