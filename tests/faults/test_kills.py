"""Processes of a sweep die at random times. It ends as if they had not, after as many starts as it takes."""

import random
import signal
import time

import oracles
import pytest
from disturbed import ACTOR, GROUPS, TRAIN_WORKER, SweepFolder, kill_driver, kill_group, send

pytestmark = [pytest.mark.slow, pytest.mark.cluster, pytest.mark.timeout(1800)]

START_S, TRAINING_S = 30.0, 8.0  # about how long a command takes until it trains, and how long it trains


def disturb_at_random(sweep, disturb, *, generator, rounds):
    """Runs the command with a disturbance at a random time, again and again, and at last without one.

    Every second time it comes while runs train, the other times at any time from the start.
    """
    for number in range(rounds):
        in_training = number % 2 == 0
        delay_s = generator.uniform(0.0, TRAINING_S if in_training else START_S)

        def later(running: SweepFolder, wait: bool = in_training, delay_s: float = delay_s) -> None:
            if wait:
                running.wait_until(lambda: running.is_training() or running.process.poll() is not None)
            time.sleep(delay_s)
            disturb(running)

        code = sweep.run(later)
        when = "after the first checkpoint" if in_training else "after the start"
        print(f"round {number}: disturbed {delay_s:.2f} s {when}, exit code {code}")  # noqa: T201
        assert code in (0, -signal.SIGKILL), sweep.output()
    assert sweep.run() == 0, sweep.output()


@pytest.mark.parametrize("seed", [1, 2])
@pytest.mark.parametrize("victim", ["actor", "driver", "group"])
def test_a_sweep_killed_at_random_times_ends_as_if_undisturbed(sweep, undisturbed, victim, seed):
    generator = random.Random(f"{victim} {seed}")
    kill = {
        "actor": send(signal.SIGKILL, ACTOR, generator.choice),
        "driver": kill_driver,
        "group": kill_group,
    }[victim]
    disturb_at_random(sweep, kill, generator=generator, rounds=2)
    oracles.check_all(sweep.store, undisturbed)


@pytest.mark.parametrize("victim", ["worker", "actor"])
def test_groups_of_workers_killed_at_random_times_end_as_if_undisturbed(sweep, undisturbed_groups, victim):
    """A worker while it trains, and whatever has the title of a trial: the driver functions of the groups."""
    generator = random.Random(victim)
    sweep.command = GROUPS
    title = {"worker": TRAIN_WORKER, "actor": ACTOR}[victim]
    disturb_at_random(sweep, send(signal.SIGKILL, title, generator.choice), generator=generator, rounds=1)
    oracles.check_all(sweep.store, undisturbed_groups)
