#!/usr/bin/env bash
# Guess: a worker that imports modules ahead (RAY_preload_python_modules) is given tasks when it has; until then they go to
#        workers that are ready. And `ray.init` waits for none of them.
# Truth: workers register first and import after it. The first task goes to the worker that registered first, though it imports
#        and another one is ready. And `ray.init` waits until as many workers have registered as there are CPUs, so that
#        what they import before it, as by a sitecustomize.py, delays the driver.
# Hurts: those who let workers import ahead what takes seconds, as PyTorch does: the first task waits for an import at random.
. "$(dirname "$0")/isolated.bash"
packages "ray[default]==2.60.0"

RAY_TMPDIR="$(mktemp -d -p /tmp)"
export RAY_TMPDIR RAY_USAGE_STATS_ENABLED=0
trap 'rm -rf "$RAY_TMPDIR" "$folder"' EXIT

# Of two workers one registers 5 s after the other, which then imports for 12 s.
mkdir "$folder/modules"
cat >"$folder/modules/sitecustomize.py" <<'PYTHON'
import os
import sys
import time

FIRST = os.path.join(os.path.dirname(__file__), "first")


def is_first():
    try:
        os.close(os.open(FIRST, os.O_CREAT | os.O_EXCL))
    except FileExistsError:
        return False
    return True


if any(word.endswith("default_worker.py") for word in sys.orig_argv[1:3]):
    sys.is_first = is_first()
    if not sys.is_first:
        time.sleep(5)
PYTHON
cat >"$folder/modules/slow_to_import.py" <<'PYTHON'
import sys
import time

sys.ready = time.time()
if getattr(sys, "is_first", False):
    time.sleep(12)
PYTHON

export RAY_preload_python_modules=slow_to_import PYTHONPATH="$folder/modules"
python -W ignore - <<'PYTHON' 2>"$folder/log"
import importlib.metadata
import sys
import time

import ray

ray.init(address="local", num_cpus=2, include_dashboard=False, logging_level="ERROR")
started = time.time()


@ray.remote
class Actor:
    def look(self):
        return sys.is_first, sys.ready


actors = [Actor.remote()]
is_first, _ = ray.get(actors[0].look.remote())
answered = time.time()
actors.append(Actor.remote())
other_is_first, ready = ray.get(actors[1].look.remote())
print("ray", importlib.metadata.version("ray"))
print(f"  ray.init returned {started - ready:.1f} s after a worker had registered that was 5 s late")
print(f"  the first actor answered {answered - started:.0f} s later, from the worker that imports for 12 s")
print(f"  the other worker had been ready for {answered - ready:.0f} s by then")
ray.shutdown()
assert started > ready - 0.5  # what the worker did between the two
assert (is_first, other_is_first) == (True, False)
assert answered - started > 3
assert answered - ready > 3
print("As described: the first to register, not the first to be ready.")
PYTHON
