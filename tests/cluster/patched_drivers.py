"""What the driver of some tests does before its work: put in the place of `hkrun.cluster.tasks._tune`."""

import os

import ray
from ray.tune.schedulers import FIFOScheduler

from hkrun.cluster import tasks
from hkrun.cluster.trials import slots


def stop_trials_that_report(running, observer, **arguments):
    """As a trial scheduler does: ends trials in the middle of a function that knows nothing of it."""
    return _stop_trials_beyond(-1, running, observer, arguments)


def stop_trials_after_epoch_2(running, observer, **arguments):
    return _stop_trials_beyond(2, running, observer, arguments)


def _stop_trials_beyond(epoch, running, observer, arguments):
    def decide(self, controller, trial, result):
        over = result.get("progress/epoch", -1) > epoch
        return FIFOScheduler.STOP if over else FIFOScheduler.CONTINUE

    FIFOScheduler.on_trial_result = decide
    return tasks._tune(running, observer, **arguments)


def wait_20_s_for_room(running, observer, **arguments):
    slots.WAIT_FOR_ROOM_S = 20.0
    return tasks._tune(running, observer, **arguments)


def end_silently(running, observer, **arguments):
    """As Ray ends a process whose raylet is gone."""
    os._exit(1)


def end_silently_after_the_work(running, observer, **arguments):
    """As a shutdown of Ray's that does not come to its end."""
    ray.shutdown = lambda: os._exit(1)
    return tasks._tune(running, observer, **arguments)


def raise_what_only_the_driver_knows(running, observer, **arguments):
    class OfTheDriverError(Exception):
        pass

    raise OfTheDriverError("a mistake")
