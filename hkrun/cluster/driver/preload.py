"""What a process imports before its first task; see `ray_private.PRELOAD_SETTINGS`.

Ray tells it only later where the driver's modules are. Where it finds another hkrun it imports nothing.

The imports make objects by the hundred thousand that stay. Looking through them again and again would take
the garbage collector a tenth of the time: it is off meanwhile, and then told to leave them alone.

Where the cores are two, processes import one after the other, and the driver beside them: the first task is
one alone more often than not, a teacher, and begins sooner so.
"""

import fcntl
import gc
import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import hkrun
from hkrun.cluster.ray_private import PRELOAD_FROM_VARIABLE
from hkrun.cluster.ray_private.worker import TURN_VARIABLE


@contextmanager
def in_turn() -> Iterator[None]:
    """Where processes come in turn, waits until those before have imported, and lets the next one come."""
    turn = os.environ.pop(TURN_VARIABLE, None)
    if turn is None:
        yield
        return
    # The folder is the cluster's own. The locks end with their files, and with the process.
    with Path(tempfile.gettempdir(), "preload.lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        os.close(int(turn))
        yield


gc.disable()
try:
    with in_turn():
        if os.environ.get(PRELOAD_FROM_VARIABLE) != str(Path(hkrun.__file__).parent):
            for name in [name for name in sys.modules if name.partition(".")[0] == "hkrun"]:
                del sys.modules[name]
            raise ImportError(
                f"the driver's hkrun is at {os.environ.get(PRELOAD_FROM_VARIABLE)}, not at {hkrun.__file__}"
            )
        import hkrun.cluster.trials.tune
        import hkrun.trial.run
        import hkrun.trial.teacher_task
except ImportError:
    raise
except Exception as error:
    # Ray lets only an ImportError pass; the task that imports the same will report it.
    raise ImportError(str(error)) from error
else:
    gc.freeze()
finally:
    gc.enable()
