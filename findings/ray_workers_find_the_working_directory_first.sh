#!/usr/bin/env bash
# Guess: Ray's workers look for modules where the driver does: a console script has no working directory on sys.path.
# Truth: they have the driver's working directory before the standard library and site-packages, so a numbers.py or
#        random.py that happens to lie there is imported by them for the library, and by the driver it is not.
# Hurts: every tool on Ray that users start in their own folders. It fails in the workers alone.
. "$(dirname "$0")/isolated.bash"
packages ray==2.60.0

mkdir study
cd study
echo 'raise RuntimeError("imported from the working directory")' > colorsys.py
python -P -W ignore - <<'PYTHON' 2>../errors.txt || { tail ../errors.txt; exit 1; }
import logging
import os
import sys

import ray

ray.init(num_cpus=1, include_dashboard=False, logging_level=logging.ERROR, log_to_driver=False)


@ray.remote
def look():
    try:
        import colorsys
    except RuntimeError as error:
        return sys.path[0], str(error)
    return sys.path[0], colorsys.__file__


folder = os.getcwd()
import colorsys  # Python's

first, told = ray.get(look.remote())
ray.shutdown()
print(f"ray {ray.__version__}: the driver's sys.path has the working directory: {folder in sys.path}")
print(f"a worker's sys.path begins with it: {first == folder}; its colorsys was {told}")
assert folder not in sys.path and "" not in sys.path
assert first == folder
assert told == "imported from the working directory"
PYTHON
