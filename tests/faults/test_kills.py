"""Processes of a sweep die at random times. It ends as if they had not, after as many starts as it takes."""

import random
import signal
import time

import oracles
import pytest
from disturbed import ACTOR, SweepFolder, kill_driver, kill_group, send

pytestmark = [pytest.mark.slow, pytest.mark.cluster, pytest.mark.timeout(1800)]

LATEST_S = 40.0  # after the start of a command that takes a minute on two busy cores


def disturb_at_random(sweep, disturb, *, generator, rounds):
    """Runs the command with a disturbance at a random time, again and again, and at last without one."""
    for number in range(rounds):
        delay_s = generator.uniform(0.0, LATEST_S)

        def later(running: SweepFolder, delay_s: float = delay_s) -> None:
            time.sleep(delay_s)
            disturb(running)

        code = sweep.run(later)
        print(f"round {number}: disturbed after {delay_s:.2f} s, exit code {code}")  # noqa: T201
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
