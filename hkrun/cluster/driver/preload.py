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
from hkrun.cluster.nodes.resources import local_node
from hkrun.cluster.ray_private import PRELOAD_FROM_VARIABLE


@contextmanager
def in_turn() -> Iterator[None]:
    """Where the cores are two, waits until no other process of this cluster imports."""
    if local_node(gpus=False).cpus > 2:
        yield
        return
    # The folder is the cluster's own. The lock ends with the file, and with the process.
    with Path(tempfile.gettempdir(), "preload.lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


gc.disable()
try:
    if os.environ.get(PRELOAD_FROM_VARIABLE) != str(Path(hkrun.__file__).parent):
        for name in [name for name in sys.modules if name.partition(".")[0] == "hkrun"]:
            del sys.modules[name]
        raise ImportError(
            f"the driver's hkrun is at {os.environ.get(PRELOAD_FROM_VARIABLE)}, not at {hkrun.__file__}"
        )
    with in_turn():
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
