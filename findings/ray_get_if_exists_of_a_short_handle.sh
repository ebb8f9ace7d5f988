#!/usr/bin/env bash
# Guess: `Actor.options(name=..., get_if_exists=True).remote()` makes a named actor once; later callers get that one.
# Truth: the actor ends with the handle of its creator, whatever its name. A function that gets it, uses it and
#        returns makes a new one at each call, without a warning, and what the actor knew is gone. Later handles by
#        name do not keep it alive either.
# Hurts: counters, caches and leases in actors that are fetched by name where they are needed: they start again at
#        each call. One handle kept by the driver, or `lifetime="detached"`, keeps the actor.
. "$(dirname "$0")/isolated.bash"
packages ray==2.60.0

RAY_TMPDIR=$folder python -W ignore - <<'PYTHON' 2>errors.txt || { tail errors.txt; exit 1; }
import logging
import time

import ray

quiet = {"include_dashboard": False, "logging_level": logging.ERROR, "log_to_driver": False}
ray.init(address="local", num_cpus=1, namespace="counters", **quiet)


@ray.remote(num_cpus=0)
class Counter:
    def __init__(self):
        self.calls = 0

    def call(self):
        self.calls += 1
        return self.calls


def named(name, **options):
    return Counter.options(name=name, get_if_exists=True, **options).remote()


def call(name, **options):
    return ray.get(named(name, **options).call.remote())


alone = [call("alone") for _ in range(3)]
handle = named("kept")
kept = [call("kept") for _ in range(3)]
detached = [call("detached", lifetime="detached") for _ in range(3)]
first = named("shared")
second = named("shared")
both = ray.get([first.call.remote(), second.call.remote()])
del first
for _ in range(50):  # the end of an actor takes a moment
    try:
        ray.get(second.call.remote())
        ended = None
    except ray.exceptions.RayActorError as error:
        ended = type(error).__name__
        break
    time.sleep(0.2)
ray.shutdown()
print("ray", ray.__version__)
print("three calls, each gets or creates the actor:", alone)
print("three calls while the creator keeps a handle:", kept)
print("three calls of a detached actor:             ", detached)
print(f"two handles count {both}; when the creator's is gone, the other one gives {ended}")
assert alone == [1, 1, 1]
assert kept == detached == [1, 2, 3]
assert both == [1, 2]
assert ended == "ActorDiedError"
PYTHON
